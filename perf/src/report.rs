//! Tables on the terminal and runs on disk.
//!
//! A saved run is a folder `perf/runs/<date>-<commit>-<case>/` with `README.md` (command, machine,
//! the table) and `raw.csv` (one line a round). Runs are only ever added.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::machine::Machine;
use crate::server;

/// Names a file that gets every round of a case that has ended, as a saved run has it.
pub const CSV: &str = "PERF_LAB_CSV";

/// One case's figures: a line for every round of every side, a column a measure.
#[derive(Debug)]
pub struct Report {
    case: &'static str,
    title: String,
    columns: Vec<Column>,
    lines: Vec<Line>,
    notes: Vec<String>,
    tables: Vec<(&'static str, String)>,
}

/// A measure.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Head of the column, unit included.
    pub name: &'static str,
    /// Digits after the point.
    pub decimals: usize,
}

/// One side's values in one round; not a number where the side has no such measure.
#[derive(Debug)]
struct Line {
    side: String,
    round: u32,
    values: Vec<f64>,
}

impl Report {
    /// An empty report.
    #[must_use]
    pub fn new(case: &'static str, title: String, columns: &[Column]) -> Report {
        Report {
            case,
            title,
            columns: columns.to_vec(),
            lines: Vec::new(),
            notes: Vec::new(),
            tables: Vec::new(),
        }
    }

    /// Adds what one side did in one round; one value a column, [`f64::NAN`] for none.
    pub fn add(&mut self, side: &str, round: u32, values: &[f64]) {
        assert_eq!(values.len(), self.columns.len(), "a line has one value a column");
        self.lines.push(Line { side: side.to_owned(), round, values: values.to_vec() });
    }

    /// Adds a sentence under the table.
    pub fn note(&mut self, line: String) {
        self.notes.push(line);
    }

    /// Keeps a table, as CSV, beside the run when it is saved.
    pub fn attach(&mut self, file: &'static str, csv: String) {
        self.tables.push((file, csv));
    }

    /// Median of one side's column.
    #[must_use]
    pub fn median(&self, side: &str, column: &str) -> f64 {
        median(&self.values(side, self.index(column)))
    }

    /// The largest value of one side's column.
    #[must_use]
    pub fn maximum(&self, side: &str, column: &str) -> f64 {
        self.values(side, self.index(column)).into_iter().fold(f64::MIN, f64::max)
    }

    /// One side's column, round by round.
    #[must_use]
    pub fn values_of(&self, side: &str, column: &str) -> Vec<f64> {
        self.values(side, self.index(column))
    }

    fn index(&self, column: &str) -> usize {
        let index = self.columns.iter().position(|candidate| candidate.name == column);
        index.expect("columns are named by constants of the case")
    }

    fn values(&self, side: &str, index: usize) -> Vec<f64> {
        self.lines.iter().filter(|line| line.side == side).map(|line| line.values[index]).collect()
    }

    /// The table: rounds, then per side of several rounds medians and spread ((largest − smallest) /
    /// median), then the notes.
    #[must_use]
    pub fn text(&self, machine: &Machine) -> String {
        let mut rows = vec![vec!["side".to_owned(), "round".to_owned()]];
        rows[0].extend(self.columns.iter().map(|column| column.name.to_owned()));
        let mut sides: Vec<&str> = Vec::new();
        for line in &self.lines {
            rows.push(self.row(&line.side, &line.round.to_string(), &line.values));
            if !sides.contains(&line.side.as_str()) {
                sides.push(&line.side);
            }
        }
        // Of one round they would say the same again.
        sides.retain(|side| self.lines.iter().filter(|line| line.side == *side).count() > 1);
        for side in sides {
            let columns: Vec<Vec<f64>> =
                (0..self.columns.len()).map(|index| self.values(side, index)).collect();
            let medians: Vec<f64> = columns.iter().map(|values| median(values)).collect();
            rows.push(self.row(side, "median", &medians));
            let mut spreads = vec![side.to_owned(), "spread".to_owned()];
            spreads.extend(columns.iter().map(|values| percent(spread(values))));
            rows.push(spreads);
        }
        let mut text = format!("{}: {}\n{}\n\n", self.case, self.title, machine.line());
        text.push_str(&aligned(&rows));
        text.push('\n');
        for note in &self.notes {
            text.push_str(note);
            text.push('\n');
        }
        text
    }

    fn row(&self, side: &str, round: &str, values: &[f64]) -> Vec<String> {
        let mut row = vec![side.to_owned(), round.to_owned()];
        let cells = values.iter().zip(&self.columns);
        row.extend(cells.map(|(value, column)| number(*value, column.decimals)));
        row
    }

    /// Keeps the run; see [`save`].
    fn save(&self, machine: &Machine) -> Result<PathBuf> {
        let folder = save(self.case, machine, &self.text(machine), &self.csv())?;
        for (file, csv) in &self.tables {
            fs::write(folder.join(file), csv)?;
        }
        Ok(folder)
    }

    /// Prints the table, and keeps the run when it is wanted.
    pub fn finish(&self, machine: &Machine, keep: bool) -> Result<()> {
        print!("{}", self.text(machine));
        if let Some(file) = std::env::var_os(CSV) {
            fs::write(file, self.csv())?;
        }
        if keep {
            println!("saved in {}", self.save(machine)?.display());
        }
        Ok(())
    }

    fn csv(&self) -> String {
        let mut text = String::from("side,round");
        for column in &self.columns {
            let _ = write!(text, ",{}", column.name);
        }
        text.push('\n');
        for line in &self.lines {
            let _ = write!(text, "{},{}", line.side, line.round);
            for value in &line.values {
                // An empty cell, as readers of CSV expect it, where there is no value.
                let cell = if value.is_nan() { String::new() } else { value.to_string() };
                let _ = write!(text, ",{cell}");
            }
            text.push('\n');
        }
        text
    }
}

/// Writes a run, its `text` and its `csv`, under `perf/runs/` and returns its folder. An existing
/// run of the same day and commit is kept: the new one gets a number.
pub fn save(case: &str, machine: &Machine, text: &str, csv: &str) -> Result<PathBuf> {
    let runs = Path::new(env!("CARGO_MANIFEST_DIR")).join("runs");
    fs::create_dir_all(&runs)?;
    let folder = fresh(&runs, &format!("{}-{}-{case}", machine.date, machine.commit))?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let readme = format!(
        "# {case} on {}\n\n`{}cargo run --release -p perf -- {}`\n\n```text\n{text}```\n",
        machine.date,
        other_server(),
        arguments.join(" "),
    );
    fs::write(folder.join("README.md"), readme)?;
    fs::write(folder.join("raw.csv"), csv)?;
    Ok(folder)
}

/// What stands before a command whose server is another than the one beside this program.
fn other_server() -> String {
    let binary = std::env::var_os(server::BINARY);
    binary.map_or_else(String::new, |path| format!("{}={} ", server::BINARY, path.display()))
}

/// One line that says whether a limit holds.
#[must_use]
pub fn verdict(what: &str, value: &str, limit: &str, holds: bool) -> String {
    format!("{what}: {value}, {} ({limit})", if holds { "ok" } else { "missed" })
}

/// The middle value, or the mean of the two middle ones; zero when there is none.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        len if len % 2 == 1 => sorted[len / 2],
        len => f64::midpoint(sorted[len / 2 - 1], sorted[len / 2]),
    }
}

fn spread(values: &[f64]) -> f64 {
    let largest = values.iter().copied().fold(f64::MIN, f64::max);
    let smallest = values.iter().copied().fold(f64::MAX, f64::min);
    let middle = median(values);
    if middle == 0.0 { 0.0 } else { (largest - smallest) / middle }
}

fn percent(share: f64) -> String {
    if share.is_nan() { "-".to_owned() } else { format!("{:.0} %", 100.0 * share) }
}

/// A number with a comma every three digits; `-` for none.
#[must_use]
pub fn number(value: f64, decimals: usize) -> String {
    if value.is_nan() {
        return "-".to_owned();
    }
    let plain = format!("{value:.decimals$}");
    let (whole, rest) = plain.split_at(plain.find('.').unwrap_or(plain.len()));
    let mut text = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text + rest
}

/// Lines of cells as columns, each as wide as its widest cell.
#[must_use]
pub fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns)
        .map(|index| lines.iter().map(|line| line[index].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for line in lines {
        let mut row = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            let _ = write!(row, "{cell:>width$}  ");
        }
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text
}

fn fresh(runs: &Path, name: &str) -> Result<PathBuf> {
    for attempt in 1..1_000 {
        let folder = match attempt {
            1 => runs.join(name),
            _ => runs.join(format!("{name}-{attempt}")),
        };
        match fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot create {}", folder.display()));
            }
        }
    }
    bail!("{} holds 999 runs of {name}", runs.display());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_three() {
        assert_eq!(number(1_234_567.0, 0), "1,234,567");
        assert_eq!(number(999.96, 1), "1,000.0");
        assert_eq!(number(0.457, 2), "0.46");
        assert_eq!(number(-1_234.0, 0), "-1,234");
        assert_eq!(number(-123.0, 0), "-123");
    }

    #[test]
    fn the_median_of_an_even_count_lies_between_the_middle_two() {
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]).to_bits(), 2.5_f64.to_bits());
        assert_eq!(median(&[3.0, 1.0, 2.0]).to_bits(), 2.0_f64.to_bits());
        assert_eq!(median(&[]).to_bits(), 0.0_f64.to_bits());
    }
}

//! The saved runs, oldest first.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::svg::Series;
use crate::report::median;

/// A folder of `perf/runs`.
#[derive(Debug)]
pub struct Run {
    /// Of the folder.
    pub name: String,
    /// Its case.
    pub case: String,
    /// How to do it again.
    pub command: String,
    /// What was done.
    pub title: String,
    /// Where, and of which commit.
    pub machine: String,
    /// The sentences under the table that judge.
    pub verdicts: Vec<String>,
    /// The table.
    pub text: String,
    /// Heads of the columns; none when the case has a table of another kind.
    pub columns: Vec<String>,
    lines: Vec<Line>,
    /// Percentiles and milliseconds of each side.
    pub curves: Vec<Series>,
}

impl Run {
    /// The sides, in the order of the first round.
    pub fn sides(&self) -> Vec<String> {
        let mut sides: Vec<String> = Vec::new();
        for (side, _) in &self.lines {
            if !sides.contains(side) {
                sides.push(side.clone());
            }
        }
        sides
    }

    /// What one side has in one column, round by round.
    pub fn values(&self, side: &str, index: usize) -> Vec<f64> {
        let lines = self.lines.iter().filter(|(name, _)| name == side);
        lines.filter_map(|(_, values)| values.get(index).copied().flatten()).collect()
    }

    /// Their median.
    pub fn median(&self, side: &str, index: usize) -> Option<f64> {
        let values = self.values(side, index);
        (!values.is_empty()).then(|| median(&values))
    }

    /// The smallest and the largest of them.
    pub fn range(&self, side: &str, index: usize) -> Option<(f64, f64)> {
        let values = self.values(side, index);
        let least = values.iter().copied().reduce(f64::min)?;
        Some((least, values.iter().copied().reduce(f64::max)?))
    }

    fn read(folder: &Path) -> Result<Run> {
        let readme = fs::read_to_string(folder.join("README.md"))?;
        let name = folder.file_name().context("a run has a name")?.to_string_lossy().into_owned();
        let case = readme.strip_prefix("# ").and_then(|rest| rest.split(' ').next());
        let command = readme.lines().find_map(|line| line.strip_prefix('`')?.strip_suffix('`'));
        let text = readme.split("```text\n").nth(1).and_then(|rest| rest.split("```").next());
        let text = text.unwrap_or_default();
        // Older runs say "below" of what is missed.
        let judges = |line: &&str| {
            [", ok (", ", missed (", ", below ("].iter().any(|word| line.contains(word))
        };
        let (columns, lines) = table(&fs::read_to_string(folder.join("raw.csv"))?);
        let curves = fs::read_to_string(folder.join("percentiles.csv"));
        Ok(Run {
            name,
            case: case.context("a run names its case")?.to_owned(),
            command: command.unwrap_or_default().to_owned(),
            title: text.lines().next().unwrap_or_default().to_owned(),
            machine: text.lines().nth(1).unwrap_or_default().to_owned(),
            verdicts: text.lines().filter(judges).map(str::to_owned).collect(),
            text: text.to_owned(),
            columns,
            lines,
            curves: curves.map(|csv| series(&csv)).unwrap_or_default(),
        })
    }
}

/// All of them, by day and then by the order of their commits.
pub fn all(folder: &Path) -> Result<Vec<Run>> {
    let log = Command::new("git").args(["log", "--format=%h"]).current_dir(folder).output();
    let log = log.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let log = log.unwrap_or_default();
    let age = |run: &Run| log.lines().position(|commit| run.machine.contains(commit));
    let mut runs = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("no {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            runs.push(Run::read(&path).with_context(|| format!("in {}", path.display()))?);
        }
    }
    let day = |run: &Run| run.name.chars().take(10).collect::<String>();
    runs.sort_by_cached_key(|run| {
        (day(run), std::cmp::Reverse(age(run).unwrap_or(usize::MAX)), run.name.clone())
    });
    Ok(runs)
}

/// A side and its values in one round.
type Line = (String, Vec<Option<f64>>);

/// Columns and lines of a `raw.csv` with sides; none of another kind.
pub fn table(csv: &str) -> (Vec<String>, Vec<Line>) {
    let mut lines = csv.lines();
    let Some(heads) = lines.next().and_then(|head| head.strip_prefix("side,round,")) else {
        return (Vec::new(), Vec::new());
    };
    let columns = heads.split(',').map(str::to_owned).collect();
    let lines = lines.filter_map(|line| {
        let mut cells = line.split(',');
        let side = cells.next()?.to_owned();
        Some((side, cells.skip(1).map(|cell| cell.parse().ok()).collect()))
    });
    (columns, lines.collect())
}

fn series(csv: &str) -> Vec<Series> {
    let mut sides: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for line in csv.lines().skip(1) {
        let cells: Vec<&str> = line.split(',').collect();
        if let [side, percentile, value] = cells[..]
            && let (Ok(percentile), Ok(value)) = (percentile.parse(), value.parse())
        {
            sides.entry(side.to_owned()).or_default().push((percentile, value));
        }
    }
    sides.into_iter().map(|(name, points)| Series { name, points }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_without_a_value_is_none() {
        let (columns, lines) = table("side,round,events/s,peak MB\nduckdb,1,5.5,\nours,1,7,9\n");
        assert_eq!(columns, ["events/s", "peak MB"]);
        assert_eq!(lines[0], ("duckdb".to_owned(), vec![Some(5.5), None]));
        assert_eq!(lines[1].1, [Some(7.0), Some(9.0)]);
        assert!(table("round,seed\n1,2\n").0.is_empty());
    }
}

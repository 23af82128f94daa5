//! What came of each round: a line while it runs, a table and totals in the end.

use std::time::Duration;

use super::client::Counts;
use super::control::Chores;
use super::oracle::Violation;
use super::plan::Fault;
use crate::bulk::count_as_f64;
use crate::report::{aligned, number};

/// A round.
#[derive(Debug)]
pub struct Row {
    /// Seed of its episode.
    pub seed: u64,
    /// Its number in the episode.
    pub round: u32,
    /// What ended it.
    pub fault: String,
    /// How its sendings ended.
    pub counts: Counts,
    /// What else was asked of the server.
    pub chores: Chores,
    /// Versions that the table advanced by.
    pub commits: u64,
    /// Commits of compactions that the table saw until the end of the process, asked for or by the
    /// server itself.
    pub compactions: u64,
    /// Parquet files that a roll or compaction had written and not committed when it was killed.
    pub orphans: usize,
    /// Events that the start replayed.
    pub replayed: u64,
    /// Events acknowledged and not there, and requests there in part.
    pub lost: u64,
    /// Events there more than once.
    pub doubled: u64,
    /// Events there that should not be.
    pub unwanted: u64,
    /// From the signal to the end of the process.
    pub stop: Duration,
    /// From the start of the process to its readiness.
    pub restart: Duration,
}

const HEADS: [&str; 19] = [
    "seed",
    "round",
    "acknowledged",
    "requests",
    "unknown",
    "cut",
    "resent",
    "refused",
    "duplicates",
    "commits",
    "compactions",
    "orphans",
    "replayed",
    "lost",
    "doubled",
    "unwanted",
    "stop ms",
    "restart ms",
    "fault",
];

impl Row {
    /// A round that has not begun.
    pub fn new(seed: u64, round: u32, fault: &Fault) -> Row {
        Row {
            seed,
            round,
            fault: fault.to_string(),
            counts: Counts::default(),
            chores: Chores::default(),
            commits: 0,
            compactions: 0,
            orphans: 0,
            replayed: 0,
            lost: 0,
            doubled: 0,
            unwanted: 0,
            stop: Duration::ZERO,
            restart: Duration::ZERO,
        }
    }

    /// Counts what the oracle found.
    pub fn count(&mut self, violations: &[Violation]) {
        for violation in violations {
            match violation {
                Violation::Lost(_) | Violation::Torn(..) => self.lost += 1,
                Violation::Doubled(..) => self.doubled += 1,
                Violation::Unwanted(_) | Violation::Invented(_) => self.unwanted += 1,
            }
        }
    }

    /// The round in one line.
    pub fn line(&self) -> String {
        let counts = &self.counts;
        format!(
            "seed {} round {:>2}: {:>6} acknowledged, {} requests, {} unknown, {} cut, {} resent, \
             {} refused, {} duplicates, {} commits, {} compactions, {} orphans, {} replayed, \
             {} lost, {} doubled, {} unwanted, stop {} ms, restart {} ms ({})",
            self.seed,
            self.round,
            grouped(counts.acknowledged),
            counts.requests,
            counts.unknown,
            counts.cut,
            counts.resent,
            counts.refused,
            counts.duplicates,
            self.commits,
            self.compactions,
            self.orphans,
            self.replayed,
            self.lost,
            self.doubled,
            self.unwanted,
            self.stop.as_millis(),
            self.restart.as_millis(),
            self.fault,
        )
    }

    fn cells(&self) -> Vec<String> {
        let counts = &self.counts;
        let numbers = [
            self.seed,
            self.round.into(),
            counts.acknowledged,
            counts.requests,
            counts.unknown,
            counts.cut,
            counts.resent,
            counts.refused,
            counts.duplicates,
            self.commits,
            self.compactions,
            self.orphans as u64,
            self.replayed,
            self.lost,
            self.doubled,
            self.unwanted,
        ];
        let mut cells: Vec<String> = numbers.iter().map(u64::to_string).collect();
        cells.extend([self.stop, self.restart].map(|time| time.as_millis().to_string()));
        cells.push(self.fault.clone());
        cells
    }
}

/// All rounds as a table.
pub fn text(rows: &[Row]) -> String {
    let mut lines = vec![HEADS.map(str::to_owned).to_vec()];
    lines.extend(rows.iter().map(Row::cells));
    aligned(&lines)
}

/// All rounds as CSV.
pub fn csv(rows: &[Row]) -> String {
    let mut text = HEADS.join(",") + "\n";
    for row in rows {
        // Only the fault, the last cell, may hold a comma.
        let cells = row.cells();
        let (fault, numbers) = cells.split_last().expect("a row has cells");
        text.push_str(&format!("{},\"{fault}\"\n", numbers.join(",")));
    }
    text
}

/// The sums of all rounds, in two sentences.
pub fn totals(rows: &[Row]) -> String {
    let sum = |of: &dyn Fn(&Row) -> u64| grouped(rows.iter().map(of).sum());
    let rounds = |holds: &dyn Fn(&Row) -> bool| rows.iter().filter(|row| holds(row)).count();
    format!(
        "{} rounds: {} events acknowledged in {} requests, {} lost, {} doubled, {} unwanted.\n\
         {} sendings without an answer, {} cut off, {} refused, {} repeated; {} duplicates \
         recognised; {} rolls and {} compactions answered; {} commits, {} of them of compactions; \
         in {} rounds a roll that had been asked for was under way at the end, in {} a compaction, \
         in {} the end left files of one.\n",
        rows.len(),
        sum(&|row| row.counts.acknowledged),
        sum(&|row| row.counts.requests),
        sum(&|row| row.lost),
        sum(&|row| row.doubled),
        sum(&|row| row.unwanted),
        sum(&|row| row.counts.unknown),
        sum(&|row| row.counts.cut),
        sum(&|row| row.counts.refused),
        sum(&|row| row.counts.resent),
        sum(&|row| row.counts.duplicates),
        sum(&|row| row.chores.rolls),
        sum(&|row| row.chores.compactions),
        sum(&|row| row.commits),
        sum(&|row| row.compactions),
        rounds(&|row| row.chores.rolls_cut > 0),
        rounds(&|row| row.chores.compactions_cut > 0),
        rounds(&|row| row.orphans > 0),
    )
}

fn grouped(count: u64) -> String {
    number(count_as_f64(count), 0)
}

#[cfg(test)]
mod tests {
    use super::super::plan::Round;
    use super::*;

    #[test]
    fn every_round_has_a_cell_under_every_head() {
        let row = Row::new(7, 3, &Round::new(7, 3).fault);
        assert_eq!(row.cells().len(), HEADS.len());
        let csv = csv(&[row]);
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[1].starts_with("7,3,0,0,") && lines[1].ends_with('"'), "{}", lines[1]);
    }
}

//! `verify`: is every number there exactly once?
//!
//! **Guarantees.** It changes nothing and needs no lock, so that it may run beside a server. It
//! reads the logs first and the table second: what is released between the two is in the table
//! that is read then.
//!
//! **What is checked.** Every frame's checksum; that each shard's numbers from 1 to the last one
//! are in the table up to its `txn` and in the log above it, exactly once, save those that void
//! ranges, quarantine reports and the records of erases and of retention explain; that nothing erased has come back; that
//! every Parquet file is there and as the table says.
//!
//! **Memory.** One bit a sequence number.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;

use serde::Serialize;

use crate::directory;
use crate::erase::{Erased, erased};
use crate::error::Error;
use crate::lake::{LakeError, Location, ShardCheck, Table, TableCheck, check_table};
use crate::log::{self, Quarantined, Recovered};
use crate::retention::Expired;

/// Missing ranges that are described one by one.
const RANGES_MAX: usize = 20;
/// How often a table that changes under the check is looked at: an erase removes files at once, and
/// two of them in a row are rare.
const LOOKS_MAX: u32 = 3;

/// What a data directory holds.
#[derive(Debug, Clone, Default, Serialize)]
pub struct VerifyReport {
    /// The node that the directory belongs to.
    pub node: String,
    /// The table's Delta version.
    pub version: u64,
    /// Live Parquet files.
    pub files: u64,
    /// Each shard.
    pub shards: Vec<ShardReport>,
    /// Rows that other nodes have written to the table; they are not checked.
    pub rows_of_other_nodes: u64,
    /// Bytes after the last frame of a segment: what a crash leaves, or a server is writing.
    pub torn_bytes: u64,
    /// Everything that is lost, doubled or damaged; empty when all is well.
    pub problems: Vec<String>,
}

/// What there is of one shard.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ShardReport {
    /// Its number.
    pub shard: u32,
    /// Everything up to this number is in the table or explained.
    pub table_sequence: i64,
    /// Its rows in the table.
    pub table_rows: u64,
    /// Its rows that only the log holds.
    pub log_rows: u64,
    /// The highest number anywhere.
    pub last_sequence: i64,
    /// Numbers that will never exist because their batch failed.
    pub void: u64,
    /// Numbers set aside in quarantine.
    pub quarantined: u64,
    /// Numbers that were erased.
    pub erased: u64,
    /// Numbers that retention has taken out.
    pub expired: u64,
}

/// Checks the data directory at `data`, whose table is at `lake` or in its usual place.
///
/// # Errors
/// When something cannot be read at all; what is wrong with the data is in the report.
pub fn verify(data: &Path, lake: Option<&str>) -> Result<VerifyReport, Error> {
    let node = directory::read_node(data)?;
    let mut report = VerifyReport { node: node.clone(), ..VerifyReport::default() };
    let quarantined = log::quarantined_ranges(&data.join("quarantine"))?;
    let mut logs = BTreeMap::new();
    for (shard, path) in log::shard_directories(&data.join("log"))? {
        let mut frames = Vec::new();
        let scanned = log::scan::<Error>(&path, &mut |frame| {
            push_range(&mut frames, frame.first()..=frame.last());
            Ok(())
        })?;
        report.torn_bytes += scanned.torn_bytes;
        // What a start has set aside is explained; the bytes stay where they are until their
        // segment goes.
        let known = |damage: &Quarantined| {
            quarantined.iter().any(|report| report.shard == shard && same_place(report, damage))
        };
        for damage in scanned.quarantined.iter().filter(|damage| !known(damage)) {
            report.problems.push(format!("{}: {}", damage.origin, damage.reason));
        }
        logs.insert(shard, (frames, scanned));
    }

    let location = Location::parse(lake, data)?;
    // What is done now is not in the table that is read then; and what that table lacks is recorded
    // by the time that it has been read.
    let done = erased(data)?.done;
    let mut table = check_newest(&location, &node)?;
    let erased = Erased { done, gone: erased(data)?.gone };
    let mut expired = Expired::read(data)?.by_shard();
    report.version = table.version;
    report.files = table.files;
    report.rows_of_other_nodes = table.rows_of_other_nodes;
    report.problems.append(&mut table.problems);

    let mut in_table: BTreeMap<u32, ShardCheck> =
        table.shards.into_iter().map(|check| (check.shard, check)).collect();
    for &shard in logs.keys() {
        in_table.entry(shard).or_insert_with(|| ShardCheck { shard, ..ShardCheck::default() });
    }
    for (shard, check) in in_table {
        let (frames, scanned) = logs.remove(&shard).unwrap_or_default();
        let aside = quarantined.iter().filter(|report| report.shard == shard);
        let problems = &mut report.problems;
        let gone = Gone { erased: &erased, expired: expired.remove(&shard).unwrap_or_default() };
        let examined = examine(check, &frames, &scanned, aside, &gone, problems);
        report.shards.push(examined);
    }
    Ok(report)
}

/// Checks the table. Beside a running server files of it may go while they are read; then the version
/// that has taken their place is checked, up to [`LOOKS_MAX`] times.
fn check_newest(location: &Location, node: &str) -> Result<TableCheck, Error> {
    let mut looks = 1;
    loop {
        let table = match Table::open(location, node) {
            Ok(table) => table,
            Err(LakeError::NoTable { .. }) => return Ok(TableCheck::default()),
            Err(error) => return Err(error.into()),
        };
        let check = check_table(&table)?;
        let same = || Ok::<_, Error>(Table::open(location, node)?.version() == table.version());
        if check.problems.is_empty() || looks == LOOKS_MAX || same()? {
            return Ok(check);
        }
        looks += 1;
    }
}

/// Whether both were at the same place of the same segment of a shard; the data directory may have
/// been moved in between.
fn same_place(one: &Quarantined, other: &Quarantined) -> bool {
    let place = |report: &'_ Quarantined| report.origin.rsplit('/').next().map(str::to_owned);
    place(one) == place(other)
}

/// What is recorded as gone on purpose.
struct Gone<'a> {
    erased: &'a Erased,
    /// The shard's numbers that retention has taken out or is about to.
    expired: Vec<RangeInclusive<i64>>,
}

fn examine<'a>(
    mut check: ShardCheck,
    frames: &[RangeInclusive<i64>],
    scanned: &Recovered,
    aside: impl Iterator<Item = &'a Quarantined>,
    gone: &Gone<'_>,
    problems: &mut Vec<String>,
) -> ShardReport {
    let shard = check.shard;
    let mut report = ShardReport {
        shard,
        table_sequence: check.txn,
        table_rows: check.rows,
        last_sequence: check.txn.max(scanned.last),
        ..ShardReport::default()
    };
    let mut explained = Vec::new();
    for void in &scanned.voids {
        report.void += count(void);
        explained.push(void.clone());
    }
    for (first, last) in aside.filter_map(|report| report.sequences) {
        report.quarantined += count(&(first..=last));
        explained.push(first..=last);
    }
    let of_shard = |by_shard: &'_ BTreeMap<u32, Vec<RangeInclusive<i64>>>| {
        by_shard.get(&shard).cloned().unwrap_or_default()
    };
    let erased = gone.erased;
    let back: i64 = of_shard(&erased.done).iter().map(|range| check.count(range)).sum();
    if back > 0 {
        problems.push(format!("shard {shard}: {back} erased rows are in the table again"));
    }
    for range in of_shard(&erased.gone) {
        // What is about to go counts as long as it is there.
        report.erased += count(&range) - check.count(&range).unsigned_abs();
        explained.push(range);
    }
    for range in &explained {
        check.explain(range.clone());
    }
    // After the others, so that no number counts twice. What is about to go counts as above.
    for range in &gone.expired {
        report.expired += count(range) - check.count(range).unsigned_abs();
        check.explain(range.clone());
    }
    explained.extend(gone.expired.iter().cloned());

    let missing: Vec<_> = check.missing().collect();
    describe(problems, shard, "missing from the table", &missing);
    if check.doubled > 0 {
        problems.push(format!("shard {shard}: {} rows are in the table twice", check.doubled));
    }
    if check.above > 0 {
        problems.push(format!(
            "shard {shard}: {} rows of the table are above its number {}",
            check.above, check.txn
        ));
    }

    // Above the table the log must go on without a gap, counting each number once.
    let mut next = check.txn + 1;
    let mut gaps = Vec::new();
    let mut frames: Vec<_> = frames.to_vec();
    frames.sort_by_key(|range| *range.start());
    for range in frames {
        if *range.end() < next {
            continue;
        }
        if *range.start() > next {
            gaps.extend(unexplained(next..=*range.start() - 1, &explained));
        }
        let new = (*range.start()).max(next)..=*range.end();
        report.log_rows += count(&new);
        next = range.end() + 1;
    }
    describe(problems, shard, "missing from the log", &gaps);
    report
}

/// The parts of `gap` that no range of `explained` covers.
fn unexplained(
    gap: RangeInclusive<i64>,
    explained: &[RangeInclusive<i64>],
) -> Vec<RangeInclusive<i64>> {
    let mut left = vec![gap];
    for range in explained {
        left = left
            .into_iter()
            .flat_map(|gap| {
                let before = *gap.start()..=(*gap.end()).min(range.start() - 1);
                let after = (*gap.start()).max(range.end() + 1)..=*gap.end();
                [before, after].into_iter().filter(|part| !part.is_empty())
            })
            .collect();
    }
    left
}

fn push_range(ranges: &mut Vec<RangeInclusive<i64>>, range: RangeInclusive<i64>) {
    match ranges.last_mut() {
        Some(last) if *last.end() + 1 == *range.start() => *last = *last.start()..=*range.end(),
        _ => ranges.push(range),
    }
}

fn count(range: &RangeInclusive<i64>) -> u64 {
    (range.end() - range.start() + 1).max(0).unsigned_abs()
}

fn describe(problems: &mut Vec<String>, shard: u32, what: &str, ranges: &[RangeInclusive<i64>]) {
    for range in ranges.iter().take(RANGES_MAX) {
        problems.push(format!(
            "shard {shard}: numbers {} to {} are {what}",
            range.start(),
            range.end()
        ));
    }
    if ranges.len() > RANGES_MAX {
        problems
            .push(format!("shard {shard}: {} more ranges are {what}", ranges.len() - RANGES_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explanation_is_cut_out_of_a_gap() {
        assert_eq!(unexplained(1..=10, &[3..=4, 8..=20]), [1..=2, 5..=7]);
        assert_eq!(unexplained(1..=10, &[]), [1..=10]);
        assert!(unexplained(3..=5, &[std::ops::RangeInclusive::new(1, 9)]).is_empty());
    }

    #[test]
    fn what_was_erased_is_explained_and_must_not_come_back() {
        let check = || {
            let mut check = ShardCheck { shard: 0, txn: 9, ..ShardCheck::default() };
            check.present.insert_all(1..=3);
            check.present.insert_all(6..=9);
            check
        };
        let look = |erased: &Erased| {
            let mut problems = Vec::new();
            let none = std::iter::empty();
            // Number 4 was past what is kept before it was to be erased; 7 is about to go.
            let gone = Gone { erased, expired: vec![4..=4, 7..=7] };
            let report = examine(check(), &[], &Recovered::default(), none, &gone, &mut problems);
            (report.erased, report.expired, problems)
        };
        let numbers = |range| BTreeMap::from([(0, vec![range])]);
        let missing = "shard 0: numbers 5 to 5 are missing from the table".to_owned();
        assert_eq!(look(&Erased::default()), (0, 1, vec![missing]));
        // An erase that is under way has not got to number 6 yet.
        let under_way = Erased { gone: numbers(4..=6), ..Erased::default() };
        assert_eq!(look(&under_way), (2, 0, Vec::new()));
        let done = Erased { gone: numbers(4..=6), done: numbers(4..=6) };
        let back = "shard 0: 1 erased rows are in the table again".to_owned();
        assert_eq!(look(&done), (2, 0, vec![back]));
    }

    #[test]
    fn a_gap_in_the_log_above_the_table_is_a_problem() {
        let check = ShardCheck { shard: 0, ..ShardCheck::default() };
        let scanned = Recovered { last: 9, ..Recovered::default() };
        let mut problems = Vec::new();
        let gone = Gone { erased: &Erased::default(), expired: Vec::new() };
        let frames = [1..=3, 6..=9];
        let report = examine(check, &frames, &scanned, std::iter::empty(), &gone, &mut problems);
        assert_eq!(report.log_rows, 7);
        assert_eq!(problems, ["shard 0: numbers 4 to 5 are missing from the log"]);
    }
}

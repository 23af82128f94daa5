//! Tests of the count of sequence numbers, and of the set that holds them.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeSet;
use std::fs;

use duckdb::Connection;
use proptest::prelude::*;

use super::*;
use crate::lake::delta::{CommitOutcome, ShardSequence};
use crate::lake::location::Location;
use crate::lake::testing::{NODE, append, hot_table, scratch, write_table};

/// Writes what `fill` puts into a hot table and commits it.
fn roll(table: &mut Table, sequences: &[ShardSequence], fill: impl FnOnce(&Connection)) {
    let connection = hot_table("hot");
    fill(&connection);
    let location: Location = table.location().clone();
    let files = write_table(&connection, "hot", &location, NODE).unwrap();
    let outcome = table.commit(&files, sequences).unwrap();
    assert!(matches!(outcome, CommitOutcome::Committed { .. }));
}

fn step(shard: u32, previous: i64, last: i64) -> ShardSequence {
    ShardSequence { shard, previous, last }
}

#[test]
fn a_table_with_every_number_once_is_complete() {
    let (_data, location) = scratch();
    let mut table = Table::open_or_create(&location, NODE).unwrap();
    roll(&mut table, &[step(0, 0, 100_000), step(3, 0, 10)], |hot| {
        append(hot, "hot", NODE, 0, "range(1, 100001) t(i)", 0);
        append(hot, "hot", NODE, 3, "range(1, 11) t(i)", 0);
    });
    roll(&mut table, &[step(0, 100_000, 150_000)], |hot| {
        append(hot, "hot", NODE, 0, "range(100001, 150001) t(i)", 1);
    });
    let check = check_table(&table).unwrap();
    assert_eq!(check.problems, Vec::<String>::new());
    assert_eq!((check.rows, check.rows_of_other_nodes), (150_010, 0));
    let shards: Vec<_> =
        check.shards.iter().map(|shard| (shard.shard, shard.txn, shard.rows)).collect();
    assert_eq!(shards, [(0, 150_000, 150_000), (3, 10, 10)]);
    for shard in &check.shards {
        assert_eq!((shard.doubled, shard.above, shard.missing().count()), (0, 0, 0));
    }
}

#[test]
fn missing_doubled_and_foreign_numbers_are_told_apart() {
    let (_data, location) = scratch();
    let mut table = Table::open_or_create(&location, NODE).unwrap();
    roll(&mut table, &[step(0, 0, 20), step(1, 0, 3)], |hot| {
        append(hot, "hot", NODE, 0, "range(1, 8) t(i)", 0);
        append(hot, "hot", NODE, 0, "range(10, 20) t(i)", 0);
        append(hot, "hot", NODE, 0, "(VALUES (5), (12), (12), (21), (22)) t(i)", 0);
        append(hot, "hot", "node-b", 0, "range(1, 5) t(i)", 0);
        append(hot, "hot", NODE, 2, "(VALUES (1)) t(i)", 0);
    });
    let mut check = check_table(&table).unwrap();
    assert_eq!(check.problems, Vec::<String>::new());
    assert_eq!((check.rows, check.rows_of_other_nodes), (23, 4));
    let [first, second, third] = &mut check.shards[..] else { panic!("{check:?}") };
    assert_eq!((first.txn, first.doubled, first.above), (20, 3, 2));
    assert_eq!(first.missing().collect::<Vec<_>>(), [8..=9, 20..=20]);
    first.explain(8..=9);
    assert_eq!(first.missing().collect::<Vec<_>>(), [20..=20]);
    first.explain(0..=i64::MAX);
    assert_eq!(first.missing().count(), 0);
    // A shard whose rows are all gone, and one that the table's numbers do not know.
    assert_eq!(second.missing().collect::<Vec<_>>(), [1..=3]);
    assert_eq!((third.shard, third.txn, third.above), (2, 0, 1));
}

#[test]
fn damaged_and_missing_files_are_problems_and_the_rest_is_counted() {
    let (_data, location) = scratch();
    let mut table = Table::open_or_create(&location, NODE).unwrap();
    for days in 0..3_u32 {
        let last = i64::from(days + 1) * 10;
        roll(&mut table, &[step(0, last - 10, last)], |hot| {
            append(hot, "hot", NODE, 0, &format!("range({}, {}) t(i)", last - 9, last + 1), days);
        });
    }
    let files = table.live_files().unwrap();
    let day = |day: &str| files.iter().find(|file| file.date.ends_with(day)).unwrap();
    fs::remove_file(&day("21").local).unwrap();
    let whole = fs::read(&day("22").local).unwrap();
    fs::write(&day("22").local, &whole[..whole.len() - 9]).unwrap();

    let check = check_table(&Table::open(&location, NODE).unwrap()).unwrap();
    assert_eq!(check.rows, 10);
    assert_eq!(check.shards[0].missing().collect::<Vec<_>>(), [1..=20]);
    assert_eq!(check.problems.len(), 2, "{:?}", check.problems);
    assert!(check.problems.iter().any(|problem| problem.contains("the log says")));
}

#[test]
fn a_complete_stretch_costs_no_bitmap() {
    let mut set = SequenceSet::default();
    (1..=3 * STRETCH).for_each(|number| assert!(set.insert(number)));
    let partial =
        set.stretches.values().filter(|stretch| matches!(stretch, Stretch::Partial { .. }));
    assert_eq!(partial.count(), 2);
    assert!(!set.insert(STRETCH));
    assert_eq!(
        set.missing(1..=3 * STRETCH + 5).collect::<Vec<_>>(),
        [3 * STRETCH + 1..=3 * STRETCH + 5]
    );
}

#[test]
fn the_ends_of_the_number_range_are_ordinary() {
    let mut set = SequenceSet::default();
    assert!(set.insert(i64::MAX) && set.insert(0) && !set.insert(i64::MAX));
    assert!(set.contains(i64::MAX) && !set.contains(i64::MAX - 1));
    assert_eq!(set.missing(0..=i64::MAX).collect::<Vec<_>>(), [1..=i64::MAX - 1]);
    assert_eq!(set.missing(i64::MAX..=i64::MAX).count(), 0);
    assert_eq!(set.missing(RangeInclusive::new(5, 4)).count(), 0);
    set.insert_all(i64::MAX - 2 * STRETCH..=i64::MAX);
    assert_eq!(set.missing(i64::MAX - 2 * STRETCH - 1..=i64::MAX).count(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The set against a plain one, with numbers on both sides of the stretches' edges.
    #[test]
    fn a_sequence_set_is_a_set(
        singles in prop::collection::vec((0_i64..3, -70_i64..70), 0..200),
        run in (1_i64..3 * STRETCH, 0_i64..2 * STRETCH),
    ) {
        let (mut set, mut model) = (SequenceSet::default(), BTreeSet::new());
        set.insert_all(run.0..=run.0 + run.1);
        model.extend(run.0..=run.0 + run.1);
        for (stretch, offset) in singles {
            let number = stretch * STRETCH + offset;
            prop_assert_eq!(set.insert(number), model.insert(number));
            prop_assert!(set.contains(number));
        }
        let whole = -100..=5 * STRETCH + 100;
        let absent: Vec<i64> = set.missing(whole.clone()).flatten().collect();
        let expected: Vec<i64> = whole.filter(|number| !model.contains(number)).collect();
        prop_assert_eq!(absent, expected);
    }
}

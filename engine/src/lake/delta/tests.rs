//! Tests of the Delta table: opening, commits and their repetition, orphans, upkeep of the log.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::change::{Carried, UPKEEP_LATE_COMMITS};
use super::commit::Roll;
use super::replace::Replacement;
use super::*;
use crate::lake::testing::{DAY, DAY_MICROS, NODE, made_up, scratch};
use crate::promoted::{ColumnConfig, Promotion, TABLE_COLUMNS_MAX};
use crate::schema::Kind;

mod power_cut;
mod replace;

/// A retention.
const DAY_LONG: Duration = Duration::from_hours(24);

fn step(shard: u32, previous: i64, last: i64) -> ShardSequence {
    ShardSequence { shard, previous, last }
}

fn log_file(location: &Location, name: &str) -> std::path::PathBuf {
    location.root().join("_delta_log").join(name)
}

fn commit_file(location: &Location, version: u64) -> std::path::PathBuf {
    log_file(location, &format!("{version:020}.json"))
}

fn names(table: &Table) -> Vec<String> {
    let mut names: Vec<String> =
        table.live_files().unwrap().iter().map(|file| file.path.to_string()).collect();
    names.sort();
    names
}

#[test]
fn a_new_table_is_empty_and_opens_again() {
    let (_data, location) = scratch();
    assert!(matches!(Table::open(&location, NODE), Err(LakeError::NoTable { .. })));
    for _ in 0..2 {
        let table = Table::open_or_create(&location, NODE).unwrap();
        assert_eq!(table.version(), 0);
        assert!(table.live_files().unwrap().is_empty());
        assert_eq!(table.sequence(0).unwrap(), 0);
        assert!(table.all_sequences().unwrap().is_empty());
    }
    assert!(Table::open(&location, NODE).is_ok());
}

#[test]
fn files_and_numbers_of_a_commit_are_read_back() {
    let (_data, location) = scratch();
    let mut table = Table::open_or_create(&location, NODE).unwrap();
    let file = made_up(&location, NODE, 7);
    let outcome = table.commit(std::slice::from_ref(&file), &[step(0, 0, 7), step(12, 0, 3)]);
    assert_eq!(outcome.unwrap(), CommitOutcome::Committed { version: 1 });

    let reopened = Table::open_or_create(&location, NODE).unwrap();
    let expected = DataFile {
        path: file.path.as_ref().into(),
        local: location.local(&file.path).into(),
        date: DAY.into(),
        rows: Some(7),
        bytes: 1_000,
        modified_ms: DAY_MICROS / 1_000,
        bounds: Bounds {
            received_at: Some((DAY_MICROS, DAY_MICROS + 5_000)),
            timestamp: Some((DAY_MICROS - 1_000, DAY_MICROS + 4_000)),
            tenant: Some(("acme".into(), "zeta".into())),
            sequence: Some((1, 7)),
        },
    };
    for table in [&table, &reopened, &Table::open(&location, NODE).unwrap()] {
        assert_eq!(*table.live_files().unwrap(), *std::slice::from_ref(&expected));
        assert_eq!(table.sequence(0).unwrap(), 7);
        assert_eq!(table.sequence(12).unwrap(), 3);
        assert_eq!(table.all_sequences().unwrap(), BTreeMap::from([(0, 7), (12, 3)]));
    }
    let other = Table::open(&location, "node-b").unwrap();
    assert_eq!(other.sequence(0).unwrap(), 0);
    assert!(other.all_sequences().unwrap().is_empty());
}

#[test]
fn live_files_known_before_a_commit_are_those_read_after_it() {
    let (_data, location) = scratch();
    let mut table = Table::open_or_create(&location, NODE).unwrap();
    for last in 1..=3 {
        table.live_files().unwrap();
        let _ = table.commit(&[made_up(&location, NODE, 1)], &[step(0, last - 1, last)]).unwrap();
    }
    let kept = table.live_files().unwrap();
    let mut read = Table::open(&location, NODE).unwrap().live_files().unwrap().to_vec();
    read.sort_by(|one, other| one.path.cmp(&other.path));
    assert_eq!(kept.to_vec(), read);
}

#[test]
fn a_commit_from_another_number_than_the_tables_is_refused() {
    let (_data, location) = scratch();
    let mut table = Table::open_or_create(&location, NODE).unwrap();
    let _ = table.commit(&[made_up(&location, NODE, 5)], &[step(0, 0, 5)]).unwrap();
    for wrong in [step(0, 0, 9), step(0, 6, 9), step(0, 4, 4), step(1, 1, 2)] {
        let error = table.commit(&[made_up(&location, NODE, 1)], &[wrong]).unwrap_err();
        assert!(matches!(error, LakeError::Sequence { .. }), "{wrong:?}: {error}");
    }
    // One shard that has moved and one that has not is no earlier attempt of the same commit.
    let error = table.commit(&[made_up(&location, NODE, 1)], &[step(0, 0, 5), step(1, 0, 2)]);
    assert!(matches!(error, Err(LakeError::Sequence { .. })), "{error:?}");
    assert_eq!(table.version(), 1);
    assert_eq!(names(&table).len(), 1);
}

#[test]
fn the_same_commit_again_adds_nothing() {
    let (_data, location) = scratch();
    let mut table = Table::open_or_create(&location, NODE).unwrap();
    let mut stale = Table::open_or_create(&location, NODE).unwrap();
    let (files, sequences) = ([made_up(&location, NODE, 5)], [step(0, 0, 5), step(1, 0, 0)]);
    let _ = table.commit(&files, &sequences).unwrap();
    let again = CommitOutcome::AlreadyCommitted { version: 1 };
    assert_eq!(table.commit(&files, &sequences).unwrap(), again);
    // A process that does not know of the commit yet learns it from the conflict.
    assert_eq!(stale.commit(&files, &sequences).unwrap(), again);
    // The same rows in other files, as a roll after a crash would have them.
    let other = [made_up(&location, NODE, 5)];
    assert_eq!(table.commit(&other, &sequences).unwrap(), again);
    assert_eq!(names(&table), [files[0].path.to_string()]);
}

#[test]
fn files_without_a_number_that_moves_are_refused() {
    let (_data, location) = scratch();
    let mut table = Table::open_or_create(&location, NODE).unwrap();
    let _ = table.commit(&[made_up(&location, NODE, 5)], &[step(0, 0, 5)]).unwrap();
    for sequences in [&[][..], &[step(0, 5, 5)]] {
        let error = table.commit(&[made_up(&location, NODE, 1)], sequences).unwrap_err();
        assert!(matches!(error, LakeError::Unnumbered { files: 1 }), "{error}");
    }
    let nothing = CommitOutcome::AlreadyCommitted { version: 1 };
    assert_eq!(table.commit(&[], &[]).unwrap(), nothing);
    assert_eq!(names(&table).len(), 1);
}

#[test]
fn numbers_can_move_without_files() {
    let (_data, location) = scratch();
    let mut table = Table::open_or_create(&location, NODE).unwrap();
    let outcome = table.commit(&[], &[step(0, 0, 5)]).unwrap();
    assert_eq!(outcome, CommitOutcome::Committed { version: 1 });
    assert_eq!(Table::open(&location, NODE).unwrap().sequence(0).unwrap(), 5);
}

#[test]
fn two_committers_both_land_and_lose_nothing() {
    let (_data, location) = scratch();
    let commits = 15;
    let committer = |node: &'static str, mut table: Table| {
        let location = location.clone();
        move || {
            let mut written = Vec::new();
            for last in 1..=commits {
                let file = made_up(&location, node, 1);
                written.push(file.path.to_string());
                let outcome = table.commit(&[file], &[step(0, last - 1, last)]).unwrap();
                assert!(matches!(outcome, CommitOutcome::Committed { .. }), "{outcome:?}");
            }
            written
        }
    };
    // Both start from version 0, so that the first commits are in conflict.
    let one = committer("node-a", Table::open_or_create(&location, "node-a").unwrap());
    let other = committer("node-b", Table::open_or_create(&location, "node-b").unwrap());
    let mut written = thread::scope(|scope| {
        let (one, other) = (scope.spawn(one), scope.spawn(other));
        let mut written = one.join().unwrap();
        written.extend(other.join().unwrap());
        written
    });
    written.sort();
    let table = Table::open(&location, "node-a").unwrap();
    assert_eq!(names(&table), written);
    assert_eq!(table.version(), 2 * u64::try_from(commits).unwrap());
    assert_eq!(table.all_sequences().unwrap(), BTreeMap::from([(0, commits)]));
    let other = Table::open(&location, "node-b").unwrap();
    assert_eq!(other.sequence(0).unwrap(), commits);
}

#[test]
fn the_outcome_of_a_failed_commit_is_what_the_table_says() {
    let (_data, location) = scratch();
    let mut table = Table::open_or_create(&location, NODE).unwrap();
    let (files, sequences) = ([made_up(&location, NODE, 5)], [step(0, 0, 5)]);
    let moves = [table.of_shard(sequences[0])];
    let failure = || KernelError::generic("the connection broke");
    let roll = Roll { files: &files, moves: &moves };
    let error = table.settle(&roll, failure()).unwrap_err();
    assert!(matches!(error, LakeError::NotCommitted { .. }), "{error}");
    // The commit is in the table all the same: somebody else's eyes have seen it.
    let _ = Table::open_or_create(&location, NODE).unwrap().commit(&files, &sequences).unwrap();
    assert_eq!(table.settle(&roll, failure()).unwrap(), Carried::Out);
    assert_eq!(table.version(), 1);
    assert_eq!(names(&table), [files[0].path.to_string()]);
}

#[test]
fn a_damaged_newest_commit_stops_the_start_and_is_named() {
    let (_data, location) = scratch();
    let mut table = Table::open_or_create(&location, NODE).unwrap();
    let _ = table.commit(&[made_up(&location, NODE, 5)], &[step(0, 0, 5)]).unwrap();
    let path = commit_file(&location, 1);
    let whole = fs::read(&path).unwrap();
    for left in [0, whole.len() / 2] {
        fs::write(&path, &whole[..left]).unwrap();
        let error = Table::open_or_create(&location, NODE).unwrap_err();
        assert!(matches!(error, LakeError::DamagedLog { .. }), "{left} bytes left: {error}");
        assert!(error.to_string().contains("00000000000000000001.json"), "{error}");
        assert_eq!(fs::metadata(&path).unwrap().len(), u64::try_from(left).unwrap());
    }
    fs::write(&path, &whole).unwrap();
    assert_eq!(Table::open_or_create(&location, NODE).unwrap().sequence(0).unwrap(), 5);
}

#[test]
fn orphans_of_our_node_are_removed_and_nothing_else() {
    let (_data, location) = scratch();
    let mut table = Table::open_or_create(&location, NODE).unwrap();
    let live = made_up(&location, NODE, 1);
    let orphan = made_up(&location, NODE, 1);
    let foreign = made_up(&location, "node-b", 1);
    let longer = made_up(&location, "node-a-2", 1);
    for file in [&live, &orphan, &foreign, &longer] {
        location.create_directory(&file.path).unwrap();
        fs::write(location.local(&file.path), "rows").unwrap();
    }
    let readme = location.root().join("README");
    fs::write(&readme, "somebody's").unwrap();
    let _ = table.commit(std::slice::from_ref(&live), &[step(0, 0, 1)]).unwrap();

    let mut table = Table::open_or_create(&location, NODE).unwrap();
    assert_eq!(table.remove_orphans(DAY_LONG).unwrap(), [orphan.path.to_string()]);
    assert!(!location.local(&orphan.path).exists());
    for kept in [&live, &foreign, &longer] {
        assert!(location.local(&kept.path).exists(), "{}", kept.path);
    }
    assert!(readme.exists());
    assert!(table.remove_orphans(DAY_LONG).unwrap().is_empty());
}

#[test]
fn discarding_a_roll_keeps_what_is_part_of_the_table() {
    let (_data, location) = scratch();
    let mut table = Table::open_or_create(&location, NODE).unwrap();
    let files = [made_up(&location, NODE, 1), made_up(&location, NODE, 1)];
    for file in &files {
        location.create_directory(&file.path).unwrap();
        fs::write(location.local(&file.path), "rows").unwrap();
    }
    let _ = table.commit(&files[..1], &[step(0, 0, 1)]).unwrap();
    table.discard(&files).unwrap();
    assert!(location.local(&files[0].path).exists());
    assert!(!location.local(&files[1].path).exists());
}

#[test]
fn checkpoint_and_clean_up_keep_the_table_readable() {
    let (_data, location) = scratch();
    let upkeep = Upkeep { checkpoint_commits: 5, log_retention: Duration::ZERO };
    let mut table = Table::open_or_create(&location, NODE).unwrap().with_upkeep(upkeep);
    let mut checkpoints = Vec::new();
    for last in 1..=12 {
        let _ = table.commit(&[made_up(&location, NODE, 1)], &[step(0, last - 1, last)]).unwrap();
        checkpoints.extend(table.upkeep());
    }
    assert_eq!(checkpoints, [5, 10]);
    let left = LogFiles::list(&location).unwrap();
    assert_eq!(left.commits.keys().copied().collect::<Vec<_>>(), [10, 11, 12]);
    assert_eq!(left.checkpoints.keys().copied().collect::<Vec<_>>(), [10]);
    assert_eq!(left.checksums.keys().copied().collect::<Vec<_>>(), [10]);

    let mut reopened = Table::open_or_create(&location, NODE).unwrap();
    for table in [&table, &reopened] {
        assert_eq!(table.live_files().unwrap().len(), 12);
        assert_eq!(table.all_sequences().unwrap(), BTreeMap::from([(0, 12)]));
    }
    let bounds = &reopened.live_files().unwrap()[0].bounds;
    assert_eq!(bounds.received_at, Some((DAY_MICROS, DAY_MICROS + 5_000)));
    let outcome = reopened.commit(&[made_up(&location, NODE, 1)], &[step(0, 12, 13)]).unwrap();
    assert_eq!(outcome, CommitOutcome::Committed { version: 13 });
}

#[test]
fn superseded_log_files_stay_for_the_retention() {
    let (_data, location) = scratch();
    let upkeep = Upkeep { checkpoint_commits: 2, ..Upkeep::default() };
    let mut table = Table::open_or_create(&location, NODE).unwrap().with_upkeep(upkeep);
    for last in 1..=4 {
        let _ = table.commit(&[made_up(&location, NODE, 1)], &[step(0, last - 1, last)]).unwrap();
        table.upkeep();
    }
    let left = LogFiles::list(&location).unwrap();
    assert_eq!(left.commits.len(), 5);
    assert_eq!(left.checkpoints.keys().copied().collect::<Vec<_>>(), [2, 4]);
}

#[test]
fn an_incomplete_checkpoint_supersedes_nothing() {
    let (_data, location) = scratch();
    let upkeep = Upkeep { checkpoint_commits: 2, ..Upkeep::default() };
    let mut table = Table::open_or_create(&location, NODE).unwrap().with_upkeep(upkeep);
    for last in 1..=2 {
        let _ = table.commit(&[made_up(&location, NODE, 1)], &[step(0, last - 1, last)]).unwrap();
        table.upkeep();
    }
    let files = LogFiles::list(&location).unwrap();
    assert_eq!(files.superseded(&location, 2, i64::MAX).len(), 3);
    let checkpoint = log_file(&location, "00000000000000000002.checkpoint.parquet");
    let whole = fs::read(&checkpoint).unwrap();
    fs::write(&checkpoint, &whole[..whole.len() / 2]).unwrap();
    assert!(files.superseded(&location, 2, i64::MAX).is_empty());
}

#[test]
fn a_checkpoint_that_nobody_asked_for_is_made_up_for() {
    let (_data, location) = scratch();
    let upkeep = Upkeep { checkpoint_commits: 1, ..Upkeep::default() };
    let mut table = Table::open_or_create(&location, NODE).unwrap().with_upkeep(upkeep);
    let commits = i64::try_from(UPKEEP_LATE_COMMITS).unwrap() + 2;
    for last in 1..=commits {
        let _ = table.commit(&[], &[step(0, last - 1, last)]).unwrap();
    }
    assert_eq!(LogFiles::list(&location).unwrap().checkpoints.len(), 1);
}

#[test]
fn the_log_holds_statistics_of_the_chosen_columns_and_the_promised_types() {
    let (_data, location) = scratch();
    let mut table = Table::open_or_create(&location, NODE).unwrap();
    let mut file = made_up(&location, NODE, 7);
    let mut identity = file.stats.columns[0].clone();
    identity.name = "user_id";
    file.stats.columns.push(identity);
    let _ = table.commit(&[file], &[step(0, 0, 7)]).unwrap();

    let actions = |version| -> Vec<Value> {
        let text = fs::read_to_string(commit_file(&location, version)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let added = actions(1);
    let add = added.iter().find_map(|action| action.get("add")).unwrap();
    let stats: Value = serde_json::from_str(add["stats"].as_str().unwrap()).unwrap();
    assert_eq!(stats["numRecords"], 7);
    assert_eq!(stats["maxValues"]["received_at"], "2026-11-21T00:00:00.005");
    assert_eq!(stats["minValues"]["tenant"], "acme");
    assert_eq!(stats["minValues"].get("user_id"), None);
    assert_eq!(add["partitionValues"]["date"], DAY);

    let created = actions(0);
    let metadata = created.iter().find_map(|action| action.get("metaData")).unwrap();
    assert_eq!(metadata["partitionColumns"], serde_json::json!(["date"]));
    assert_eq!(metadata["configuration"]["delta.checkpointInterval"], "100");
    let schema: Value = serde_json::from_str(metadata["schemaString"].as_str().unwrap()).unwrap();
    let fields = schema["fields"].as_array().unwrap();
    assert_eq!(fields.len(), COLUMNS.len() + 1);
    let received_at = fields.iter().find(|field| field["name"] == "received_at").unwrap();
    assert_eq!(received_at["type"], "timestamp_ntz");
}

#[test]
fn a_table_with_other_columns_is_refused() {
    let (_data, location) = scratch();
    location.create().unwrap();
    let schema = StructType::try_new([
        StructField::nullable("node", DataType::LONG),
        StructField::nullable(PARTITION, DataType::DATE),
    ]);
    let kernel = kernel(&location);
    let created = create_table(location.url().as_str(), Arc::new(schema.unwrap()), "test", false)
        .with_data_layout(DataLayout::partitioned([PARTITION]))
        .build(&kernel, Box::new(FileSystemCommitter::new()));
    let _ = created.unwrap().commit(&kernel).unwrap();
    let error = Table::open_or_create(&location, NODE).unwrap_err();
    assert!(matches!(error, LakeError::Foreign { .. }), "{error}");
    assert!(error.to_string().contains("\"node\""), "{error}");
}

#[test]
fn a_table_lives_in_a_directory_with_a_space_in_its_name() {
    let data = tempfile::tempdir().unwrap();
    let location = Location::parse(None, &data.path().join("my data")).unwrap();
    let mut table = Table::open_or_create(&location, NODE).unwrap();
    let file = made_up(&location, NODE, 1);
    let _ = table.commit(std::slice::from_ref(&file), &[step(0, 0, 1)]).unwrap();
    let mut table = Table::open_or_create(&location, NODE).unwrap();
    assert_eq!(*table.live_files().unwrap()[0].local, *location.local(&file.path));
    assert!(table.remove_orphans(DAY_LONG).unwrap().is_empty());
}

fn promotion(columns: &[(&str, Kind)]) -> Promotion {
    let column = |&(name, kind): &(&str, Kind)| ColumnConfig {
        name: name.into(),
        path: "properties.a".into(),
        kind,
    };
    Promotion::new(&columns.iter().map(column).collect::<Vec<_>>()).unwrap()
}

fn promoted(table: &Table) -> Vec<(String, Kind)> {
    let columns = table.columns();
    columns.promoted().iter().map(|column| (column.name.clone(), column.kind)).collect()
}

#[test]
fn columns_are_added_once_by_a_commit_of_their_own_and_stay() {
    let (_data, location) = scratch();
    let mut table = Table::open_or_create(&location, NODE).unwrap();
    let _ = table.commit(&[made_up(&location, NODE, 7)], &[step(0, 0, 7)]).unwrap();
    let before = fs::read_to_string(commit_file(&location, 0)).unwrap();
    table.promote(&Promotion::default()).unwrap();
    assert_eq!(table.version(), 1, "nothing is asked for");

    let all = [
        ("plan", Kind::Text),
        ("items", Kind::Long),
        ("total", Kind::Double),
        ("paid", Kind::Boolean),
        ("due_at", Kind::Timestamp),
    ];
    let mut other = Table::open(&location, "node-b").unwrap();
    for _ in 0..2 {
        table.promote(&promotion(&all)).unwrap();
        assert_eq!(table.version(), 2);
    }
    // Another writer that had not seen it adds nothing but what is missing.
    other.promote(&promotion(&[("items", Kind::Long), ("city", Kind::Text)])).unwrap();
    assert_eq!(other.version(), 3);
    let expected: Vec<_> = all.iter().chain(&[("city", Kind::Text)]).collect();
    let expected: Vec<_> =
        expected.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect();
    assert_eq!(promoted(&other), expected);

    // Nothing else of the table has changed, and its files are committed as before.
    let altered = fs::read_to_string(commit_file(&location, 2)).unwrap();
    assert!(altered.contains("\"metaData\"") && !altered.contains("\"protocol\""), "{altered}");
    assert!(!altered.contains("columnMapping") && before.contains("\"protocol\""), "{altered}");
    let _ = table.commit(&[made_up(&location, NODE, 2)], &[step(0, 7, 9)]).unwrap();
    assert_eq!((table.version(), names(&table).len()), (4, 2));
    let mut reopened = Table::open_or_create(&location, NODE).unwrap();
    reopened.forget_history().unwrap();
    let reopened = Table::open_or_create(&location, NODE).unwrap();
    assert_eq!(promoted(&reopened), expected);
    assert_eq!((reopened.sequence(0).unwrap(), names(&reopened).len()), (9, 2));
}

#[test]
fn a_column_with_another_type_and_too_many_columns_are_refused() {
    let (_data, location) = scratch();
    let mut table = Table::open_or_create(&location, NODE).unwrap();
    table.promote(&promotion(&[("plan", Kind::Text)])).unwrap();
    let error = table.promote(&promotion(&[("city", Kind::Text), ("plan", Kind::Long)]));
    let error = error.unwrap_err();
    assert!(matches!(&error, LakeError::Column { column, .. } if column == "plan"), "{error}");
    assert!(error.to_string().contains("string, not int64"), "{error}");
    assert_eq!(promoted(&table).len(), 1, "nothing of a refused configuration is added");

    let names: Vec<String> = (0..TABLE_COLUMNS_MAX).map(|number| format!("c{number}")).collect();
    let texts = |range: std::ops::Range<usize>| {
        let columns: Vec<_> = names[range].iter().map(|name| (name.as_str(), Kind::Text)).collect();
        promotion(&columns)
    };
    table.promote(&texts(0..64)).unwrap();
    table.promote(&texts(64..TABLE_COLUMNS_MAX - 1)).unwrap();
    let error = table.promote(&texts(TABLE_COLUMNS_MAX - 1..TABLE_COLUMNS_MAX)).unwrap_err();
    assert!(matches!(error, LakeError::Columns { count: 129, max: 128 }), "{error}");
    table.promote(&texts(0..64)).unwrap();
    assert_eq!(promoted(&table).len(), TABLE_COLUMNS_MAX);
}

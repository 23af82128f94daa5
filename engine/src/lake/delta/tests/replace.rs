//! Tests of replacements: what they commit, when they are refused, and how long files stay.

use super::*;
use crate::clock::now_ms;

/// A file of our node with bytes on the disk.
fn on_disk(location: &Location, node: &str, rows: u64) -> NewFile {
    let file = made_up(location, node, rows);
    location.create_directory(&file.path).unwrap();
    fs::write(location.local(&file.path), "rows").unwrap();
    file
}

/// A table with one file for each of `rows`, in a commit each.
fn table_with(location: &Location, rows: &[u64]) -> (Table, Vec<NewFile>) {
    let mut table = Table::open_or_create(location, NODE).unwrap();
    let (mut files, mut last) = (Vec::new(), 0);
    for &rows in rows {
        let file = on_disk(location, NODE, rows);
        let next = last + i64::try_from(rows).unwrap();
        let _ = table.commit(std::slice::from_ref(&file), &[step(0, last, next)]).unwrap();
        files.push(file);
        last = next;
    }
    (table, files)
}

fn live(table: &Table, names: &[&NewFile]) -> Vec<DataFile> {
    let wanted = |file: &&DataFile| names.iter().any(|name| name.path.as_ref() == &*file.path);
    table.live_files().unwrap().iter().filter(wanted).cloned().collect()
}

fn actions(location: &Location, version: u64) -> Vec<Value> {
    let text = fs::read_to_string(commit_file(location, version)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn exists(location: &Location, file: &NewFile) -> bool {
    location.local(&file.path).exists()
}

#[test]
fn files_are_replaced_in_one_commit_that_changes_no_data() {
    let (_data, location) = scratch();
    let (mut table, old) = table_with(&location, &[3, 4, 5]);
    let new = on_disk(&location, NODE, 7);
    let removed = live(&table, &[&old[0], &old[1]]);
    let outcome = table.replace(&removed, std::slice::from_ref(&new)).unwrap();
    assert_eq!(outcome, ReplaceOutcome::Replaced { version: 4 });

    let mut expected = [old[2].path.to_string(), new.path.to_string()];
    expected.sort();
    let reopened = Table::open_or_create(&location, NODE).unwrap();
    for table in [&table, &reopened] {
        assert_eq!(names(table), expected);
        assert_eq!(table.sequence(0).unwrap(), 12, "numbers stay");
    }
    let actions = actions(&location, 4);
    let removals = actions.iter().filter_map(|action| action.get("remove"));
    let removals: BTreeMap<&str, &Value> =
        removals.map(|removal| (removal["path"].as_str().unwrap(), removal)).collect();
    assert_eq!(removals.len(), 2);
    for removal in old[..2].iter().map(|file| removals[file.path.as_ref()]) {
        assert_eq!(removal["dataChange"], false);
        assert_eq!(removal["extendedFileMetadata"], true);
        assert_eq!(removal["partitionValues"]["date"], DAY);
        assert_eq!(removal["size"], 1_000);
        let age = now_ms() - removal["deletionTimestamp"].as_i64().unwrap();
        assert!((0..60_000).contains(&age), "{age} ms ago");
    }
    let add = actions.iter().find_map(|action| action.get("add")).unwrap();
    assert_eq!((&add["path"], &add["dataChange"]), (&new.path.as_ref().into(), &false.into()));
    let stats: Value = serde_json::from_str(add["stats"].as_str().unwrap()).unwrap();
    assert_eq!(stats["numRecords"], 7);
    assert_eq!(stats["maxValues"]["received_at"], "2026-11-21T00:00:00.005");
    let info = actions.iter().find_map(|action| action.get("commitInfo")).unwrap();
    assert_eq!(info["operation"], "OPTIMIZE");
}

#[test]
fn the_same_replacement_again_changes_nothing() {
    let (_data, location) = scratch();
    let (mut table, old) = table_with(&location, &[3, 4]);
    let mut stale = Table::open_or_create(&location, NODE).unwrap();
    let removed = live(&table, &[&old[0], &old[1]]);
    let new = [on_disk(&location, NODE, 7)];
    let done = ReplaceOutcome::Replaced { version: 3 };
    assert_eq!(table.replace(&removed, &new).unwrap(), done);
    assert_eq!(table.replace(&removed, &new).unwrap(), done);
    // A process that does not know of the commit yet learns it from the conflict.
    assert_eq!(stale.replace(&removed, &new).unwrap(), done);
    assert_eq!(names(&table), [new[0].path.to_string()]);
}

/// The Delta library detects no such conflict: both replacements would be live.
#[test]
fn a_file_that_another_writer_has_replaced_is_not_replaced_again() {
    let (_data, location) = scratch();
    let (mut table, old) = table_with(&location, &[3, 4, 5]);
    let mut other = Table::open_or_create(&location, "node-b").unwrap();
    let removed = live(&table, &[&old[0], &old[1]]);
    let theirs = [on_disk(&location, "node-b", 4)];
    let _ = other.replace(&live(&other, &[&old[1]]), &theirs).unwrap();

    let ours = [on_disk(&location, NODE, 7)];
    let outcome = table.replace(&removed, &ours).unwrap();
    assert_eq!(outcome, ReplaceOutcome::Outdated { path: old[1].path.to_string() });
    assert_eq!(table.version(), 4, "it has read the table again");
    let rows: u64 = table.live_files().unwrap().iter().filter_map(|file| file.rows).sum();
    assert_eq!(rows, 12);
    // What they have replaced is a file of ours: it waits to be removed.
    assert_eq!(table.replaced_files(), [old[1].path.as_ref().into()]);
}

/// Their new file holds the rows that were to be erased.
#[test]
fn an_erase_that_leaves_nothing_is_not_taken_for_another_writers_replacement() {
    let (_data, location) = scratch();
    let (mut table, old) = table_with(&location, &[3, 4]);
    let mut other = Table::open_or_create(&location, "node-b").unwrap();
    let theirs = [on_disk(&location, "node-b", 7)];
    let _ = other.replace(&live(&other, &[&old[0], &old[1]]), &theirs).unwrap();

    let outcome = table.erase(&live(&table, &[&old[0]]), &[], 3).unwrap();
    assert_eq!(outcome, ReplaceOutcome::Outdated { path: old[0].path.to_string() });
    assert_eq!(names(&table), [theirs[0].path.to_string()]);
}

#[test]
fn a_replacement_and_a_roll_of_another_node_both_land() {
    let (_data, location) = scratch();
    let (mut table, old) = table_with(&location, &[3, 4]);
    let mut other = Table::open_or_create(&location, "node-b").unwrap();
    let theirs = made_up(&location, "node-b", 9);
    let _ = other.commit(std::slice::from_ref(&theirs), &[step(0, 0, 9)]).unwrap();
    let new = on_disk(&location, NODE, 7);
    let removed = live(&table, &[&old[0], &old[1]]);
    let outcome = table.replace(&removed, std::slice::from_ref(&new)).unwrap();
    assert_eq!(outcome, ReplaceOutcome::Replaced { version: 4 });
    let mut expected = [theirs.path.to_string(), new.path.to_string()];
    expected.sort();
    assert_eq!(names(&table), expected);
    assert_eq!(names(&Table::open(&location, NODE).unwrap()), expected);
}

#[test]
fn other_numbers_of_rows_are_refused() {
    let (_data, location) = scratch();
    let (mut table, old) = table_with(&location, &[3, 4]);
    let removed = live(&table, &[&old[0], &old[1]]);
    for (removed, rows) in [(&removed[..], 6), (&removed[..], 8), (&[][..], 0)] {
        let error = table.replace(removed, &[made_up(&location, NODE, rows)]).unwrap_err();
        assert!(matches!(error, LakeError::Unequal { .. }), "{error}");
    }
    assert_eq!(table.version(), 2);
}

#[test]
fn the_outcome_of_a_failed_replacement_is_what_the_table_says() {
    let (_data, location) = scratch();
    let (mut table, old) = table_with(&location, &[3, 4]);
    let removed = live(&table, &[&old[0], &old[1]]);
    let new = [on_disk(&location, NODE, 7)];
    let failure = || KernelError::generic("the connection broke");
    let replacement = Replacement { removed: &removed, added: &new, erases: false };
    let error = table.settle(&replacement, failure()).unwrap_err();
    assert!(matches!(error, LakeError::NotCommitted { .. }), "{error}");
    assert!(error.is_without_effect());
    // The commit is in the table all the same: somebody else's eyes have seen it.
    let _ = Table::open_or_create(&location, NODE).unwrap().replace(&removed, &new).unwrap();
    assert_eq!(table.settle(&replacement, failure()).unwrap(), Carried::Out);
    assert_eq!(names(&table), [new[0].path.to_string()]);
}

#[test]
fn a_replaced_file_is_handed_out_after_its_time_and_its_last_reader() {
    let (_data, location) = scratch();
    let (mut table, old) = table_with(&location, &[3, 4, 5]);
    let replace = |table: &mut Table, old: &NewFile| {
        let new = [on_disk(&location, NODE, old.rows)];
        let _ = table.replace(&live(table, &[old]), &new).unwrap();
        Arc::<str>::from(old.path.as_ref())
    };
    let first = replace(&mut table, &old[0]);
    let second = replace(&mut table, &old[1]);
    assert_eq!(table.version(), 5);
    assert!(table.take_expired(DAY_LONG, 5).is_empty(), "too young");
    assert!(table.take_expired(Duration::ZERO, 3).is_empty(), "version 3 is being read");
    assert_eq!(table.replaced_files(), [Arc::clone(&first), Arc::clone(&second)]);
    assert_eq!(table.take_expired(Duration::ZERO, 4), [first]);
    assert_eq!(table.take_expired(Duration::ZERO, 5), [second]);
    assert!(table.take_expired(Duration::ZERO, 5).is_empty(), "handed out once");
}

#[test]
fn a_start_keeps_replaced_files_for_their_time_and_removes_orphans() {
    let (_data, location) = scratch();
    let (mut table, old) = table_with(&location, &[3, 4]);
    let new = on_disk(&location, NODE, 7);
    let removed = live(&table, &[&old[0], &old[1]]);
    let _ = table.replace(&removed, std::slice::from_ref(&new)).unwrap();
    let orphan = on_disk(&location, NODE, 7);
    fs::remove_file(location.local(&old[1].path)).unwrap();

    let mut table = Table::open_or_create(&location, NODE).unwrap();
    let times = table.tombstones().unwrap();
    assert_eq!(times.len(), 2);
    assert_eq!(table.remove_orphans(DAY_LONG).unwrap(), [orphan.path.to_string()]);
    assert!(exists(&location, &old[0]) && exists(&location, &new));
    assert_eq!(table.replaced_files(), [old[0].path.as_ref().into()], "those that are there");
    assert!(table.take_expired(DAY_LONG, u64::MAX).is_empty());

    let mut table = Table::open_or_create(&location, NODE).unwrap();
    assert_eq!(table.remove_orphans(Duration::ZERO).unwrap(), [old[0].path.to_string()]);
    assert!(exists(&location, &new) && table.replaced_files().is_empty());
}

#[test]
fn checkpoints_and_clean_up_keep_the_times_of_removals() {
    let (_data, location) = scratch();
    let (table, old) = table_with(&location, &[3, 4]);
    let upkeep = Upkeep { checkpoint_commits: 1, log_retention: Duration::ZERO };
    let mut table = table.with_upkeep(upkeep);
    let new = on_disk(&location, NODE, 7);
    let removed = live(&table, &[&old[0], &old[1]]);
    let _ = table.replace(&removed, std::slice::from_ref(&new)).unwrap();
    let times = table.tombstones().unwrap();
    assert_eq!(table.upkeep(), Some(3));
    assert!(!commit_file(&location, 1).exists(), "the log has been tidied");

    let mut table = Table::open_or_create(&location, NODE).unwrap();
    assert_eq!(table.tombstones().unwrap(), times);
    assert_eq!(names(&table), [new.path.to_string()]);
    assert!(table.remove_orphans(DAY_LONG).unwrap().is_empty());
    assert_eq!(table.replaced_files().len(), 2);
    // And a table that goes on from the checkpoint replaces again.
    let newer = [on_disk(&location, NODE, 7)];
    let outcome = table.replace(&live(&table, &[&new]), &newer).unwrap();
    assert_eq!(outcome, ReplaceOutcome::Replaced { version: 4 });
    assert_eq!(table.tombstones().unwrap().len(), 3);
}

//! Batches that come back from quarantine, and those that must not.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use std::path::{Path, PathBuf};

use super::*;
use crate::hot::{LogBatch, logged};
use crate::lake::ShardSequence;
use crate::log::{Identity, Log, Quarantined, set_aside};
use crate::quarantine;
use crate::schema::log_schema;
use crate::verify::{VerifyReport, verify};

fn lines(count: usize) -> Vec<String> {
    (0..count).map(|number| format!(r#"{{"event":"e{number}"}}"#)).collect()
}

/// A data directory whose table has passed the numbers 1 to 10 of shard 0 without holding them:
/// they are in the quarantine file that comes back with it.
fn directory_with_a_batch_aside() -> (tempfile::TempDir, PathBuf) {
    let scratch = tempfile::tempdir().unwrap();
    let directory = Directory::open(scratch.path()).unwrap();
    let location = Location::parse(None, directory.root()).unwrap();
    let mut table = Table::open_or_create(&location, directory.node()).unwrap();
    let passed = ShardSequence { shard: 0, previous: 0, last: 10 };
    let _ = table.commit(&[], &[passed]).unwrap();
    let path = put_aside(&directory, &logged(0, 1, &lines(10)));
    (scratch, path)
}

fn put_aside(directory: &Directory, batch: &LogBatch) -> PathBuf {
    let report = Quarantined {
        shard: batch.shard,
        sequences: Some((batch.first, batch.last())),
        origin: "a test".into(),
        reason: "it was refused".into(),
        bytes: 1,
    };
    let name = format!("batch-{}-{}-{}.arrow", batch.shard, batch.first, batch.last());
    let bytes = quarantine::encode(directory.node(), batch, &report.reason).unwrap();
    set_aside(&**directory.disk(), &directory.quarantine(), &name, &bytes, &report).unwrap();
    directory.quarantine().join(name)
}

fn sound(data: &Path) -> VerifyReport {
    let report = verify(data, None).unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
    report
}

fn put_back(data: &Path, path: &Path) -> Result<Restored, Error> {
    restore(&Config::new(data), &quarantine::read(path).unwrap())
}

#[test]
fn a_batch_gets_its_old_numbers_and_its_entry_is_marked() {
    let (data, path) = directory_with_a_batch_aside();
    let before = sound(data.path());
    assert_eq!((before.shards[0].table_rows, before.shards[0].quarantined), (0, 10));

    let restored = put_back(data.path(), &path).unwrap();
    assert!(!restored.already);
    let after = sound(data.path());
    assert_eq!((after.shards[0].table_rows, after.shards[0].quarantined), (10, 0));
    assert_eq!(after.version, restored.version);
    assert!(!path.exists() && path.with_extension("arrow.restored").exists());
    assert!(path.with_extension("json.restored").exists());
}

#[test]
fn numbers_that_the_table_has_are_refused() {
    let (data, path) = directory_with_a_batch_aside();
    put_back(data.path(), &path).unwrap();
    // A part of them again, as another batch.
    let again = {
        let directory = Directory::open(data.path()).unwrap();
        put_aside(&directory, &logged(0, 8, &lines(3)))
    };
    let error = put_back(data.path(), &again).unwrap_err();
    assert!(error.to_string().contains("of which the table has 3 already"), "{error}");
    assert_eq!(sound(data.path()).shards[0].table_rows, 10);
    assert!(again.exists(), "the entry stays");
}

/// The commit went through, then the machine stopped: the entry is not marked yet.
#[test]
fn a_restore_that_was_interrupted_after_its_commit_adds_nothing_again() {
    let (data, path) = directory_with_a_batch_aside();
    let (bytes, report) =
        (std::fs::read(&path).unwrap(), std::fs::read(path.with_extension("json")).unwrap());
    put_back(data.path(), &path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    std::fs::write(path.with_extension("json"), report).unwrap();
    assert!(put_back(data.path(), &path).unwrap().already);
    assert_eq!(sound(data.path()).shards[0].table_rows, 10);
    assert!(!path.exists());
}

#[test]
fn numbers_that_the_log_brings_back_are_refused() {
    let (data, _) = directory_with_a_batch_aside();
    let (path, unheard_of) = {
        let directory = Directory::open(data.path()).unwrap();
        let batch = logged(0, 11, &lines(4));
        let node = directory.node().to_owned();
        let identity = Identity { node, shard: 0, schema: log_schema() };
        directory.create_shard_logs(1).unwrap();
        let log = directory.shard_log(0);
        let disk = Arc::new(RealDisk);
        let mut log = Log::new(log, disk, identity, 1 << 20, Vec::new(), Vec::new()).unwrap();
        log.append(&batch.batch, 11).unwrap();
        let unheard_of = logged(1, 1, &lines(1));
        (put_aside(&directory, &batch), put_aside(&directory, &unheard_of))
    };
    let error = put_back(data.path(), &path).unwrap_err();
    assert!(error.to_string().contains("which the log still has"), "{error}");
    let error = put_back(data.path(), &unheard_of).unwrap_err();
    assert!(error.to_string().contains("the table has come only to 0"), "{error}");
    assert_eq!(sound(data.path()).shards[0].log_rows, 4);
}

#[test]
fn a_batch_of_another_node_is_refused() {
    let (data, _) = directory_with_a_batch_aside();
    let (_other, foreign) = directory_with_a_batch_aside();
    let error = put_back(data.path(), &foreign).unwrap_err();
    assert!(error.to_string().contains("belongs to the node"), "{error}");
}

#[test]
fn a_directory_in_use_is_left_alone() {
    let (data, path) = directory_with_a_batch_aside();
    let _owner = Directory::open(data.path()).unwrap();
    assert!(matches!(put_back(data.path(), &path), Err(Error::Locked { .. })));
}

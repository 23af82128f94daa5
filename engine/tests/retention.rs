//! Retention in a running engine: what goes, what stays, and what a kill in the middle leaves.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringlake_engine::{Config, Engine, backup, verify};
use ringlake_faults::{TestDisk, check_all, scratch};
use support::{LIMIT, assert_sound, number, open, send_at, stop};

mod support;

const HOUR: i64 = 3_600_000_000;
const DAY: i64 = 24 * HOUR;

/// Nothing happens because time passes.
fn config(data: &Path) -> Config {
    let mut config = support::config(data);
    config.hot.roll_age = Duration::from_secs(3_600);
    config.compaction.interval = Duration::ZERO;
    config.disk.free_min_bytes = Some(0);
    config
}

fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_micros()).unwrap()
}

/// A noon ten days ago: what happens hours before or after it is of one day.
fn noon() -> i64 {
    (now() - 10 * DAY) / DAY * DAY + 12 * HOUR
}

/// How long ago `moment` was.
fn age(moment: i64) -> Duration {
    Duration::from_micros((now() - moment).unsigned_abs())
}

const ALL: &str = "SELECT count(*) FROM events";

/// Numbers that `verify` counts as past retention.
fn expired(data: &Path) -> u64 {
    let report = verify(data, None).unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
    report.shards.iter().map(|shard| shard.expired).sum()
}

#[test]
fn whole_files_past_the_age_go_and_hot_rows_stay() {
    let scratch = tempfile::tempdir().unwrap();
    let (data, noon) = (scratch.path(), noon());
    let mut aged = config(data);
    aged.retention.age = age(noon + HOUR / 2);
    let (engine, mut ingests) = open(aged.clone());
    for hours in [3, 2] {
        send_at(&mut ingests[0], noon - hours * HOUR, 0, 20);
        send_at(&mut ingests[1], noon - hours * HOUR, 20, 5);
        engine.roll().unwrap();
    }
    // Older than the bound and younger, in one file.
    send_at(&mut ingests[0], noon, 100, 7);
    send_at(&mut ingests[1], noon + HOUR, 107, 4);
    engine.roll().unwrap();
    send_at(&mut ingests[0], now(), 200, 9);
    engine.roll().unwrap();
    send_at(&mut ingests[0], noon - 5 * HOUR, 300, 3);
    engine.flush().unwrap();

    let status = engine.status().retention;
    assert_eq!((status.due_files, status.due_rows, status.rows), (2, 50, 0));
    assert!(status.due_bytes > 0);
    assert_eq!(number(&engine, ALL), 73);
    assert_eq!(engine.vacuum().unwrap().expired, 50);
    assert_eq!(number(&engine, ALL), 23);
    let oldest = number(&engine, "SELECT epoch_us(min(received_at)) FROM events");
    assert_eq!(oldest, noon - 5 * HOUR, "hot rows stay");
    let status = engine.status();
    let done = &status.retention;
    assert_eq!((done.due_files, done.files, done.rows), (0, 2, 50));
    assert_eq!(done.problem, None);
    assert_eq!(status.compaction.files_waiting, 2, "readers of an older version find them");
    assert_eq!(status.lake.files, 2);

    engine.roll().unwrap();
    assert_eq!(engine.vacuum().unwrap().expired, 3);
    stop(&engine, ingests);
    assert_sound(data, 20);
    assert_eq!(expired(data), 53);

    let copy = scratch.path().join("copy");
    backup(data, None, &copy, &mut |_, _| {}).unwrap();
    assert_sound(&copy, 20);
    assert_eq!(expired(&copy), 53);

    // With other bounds.
    aged.retention.age = Duration::ZERO;
    let (engine, ingests) = open(aged.clone());
    assert_eq!(engine.vacuum().unwrap().expired, 0);
    assert_eq!(engine.status().retention.due_files, 0);
    stop(&engine, ingests);
    aged.retention.age = age(noon + 2 * HOUR);
    let (engine, ingests) = open(aged);
    assert_eq!(engine.vacuum().unwrap().expired, 11);
    assert_eq!(number(&engine, ALL), 9);
    stop(&engine, ingests);
    assert_sound(data, 9);
    assert_eq!(expired(data), 64);
}

#[test]
fn the_oldest_files_go_until_the_bytes_fit() {
    let scratch = tempfile::tempdir().unwrap();
    let (data, noon) = (scratch.path(), noon());
    let (engine, mut ingests) = open(config(data));
    for roll in 0..6 {
        send_at(&mut ingests[0], noon + i64::from(roll) * HOUR, 0, 50);
        engine.roll().unwrap();
    }
    let bytes = engine.status().lake.bytes;
    stop(&engine, ingests);
    let mut bounded = config(data);
    bounded.retention.max_bytes = bytes * 7 / 12;
    let (engine, ingests) = open(bounded);
    let due = engine.status().retention;
    assert_eq!((due.due_files, due.due_rows), (3, 150));
    assert_eq!(engine.vacuum().unwrap().expired, 150);
    let status = engine.status();
    assert!(status.lake.bytes <= bytes * 7 / 12, "{} of {bytes}", status.lake.bytes);
    let oldest = number(&engine, "SELECT epoch_us(min(received_at)) FROM events");
    assert_eq!(oldest, noon + 3 * HOUR);
    assert_eq!(engine.vacuum().unwrap().expired, 0);
    stop(&engine, ingests);
    assert_sound(data, 150);
    assert_eq!(expired(data), 150);
}

/// A kill after each operation on files: nothing counts as lost, nothing that is kept goes, and the
/// next look takes what is due.
#[test]
fn what_a_kill_leaves_of_a_look_is_sound_and_the_next_one_ends_it() {
    let root = scratch();
    let data = root.path().join("data");
    let outside = |path: &Path| {
        let path = path.strip_prefix("data").unwrap_or(path);
        let names = ["lock", "salt", "salt.new", "cursor.key", "cursor.key.new"];
        names.iter().any(|name| path == Path::new(name)) || path.starts_with("tmp")
    };
    let aged = |data: &Path| {
        let mut aged = config(data);
        aged.retention.age = Duration::from_hours(5 * 24);
        aged.compaction.retain_replaced = Duration::ZERO;
        aged
    };
    let disk = TestDisk::new(root.path()).unwrap().ignoring(outside);
    let (engine, mut ingests) = Engine::open_on(aged(&data), Arc::new(disk.clone())).unwrap();
    engine.wait_ready(LIMIT).unwrap();
    let noon = noon();
    for (shard, moment) in [(0, noon), (1, noon + HOUR), (0, now())] {
        send_at(&mut ingests[shard], moment, 0, 30);
        engine.roll().unwrap();
    }
    let from = disk.trace().steps.len();
    assert_eq!(engine.vacuum().unwrap().expired, 60);
    stop(&engine, ingests);
    assert_eq!(disk.unrecorded().unwrap(), Vec::<PathBuf>::new());

    let trace = disk.trace();
    let mut seen = HashSet::new();
    let cuts = (from..=trace.steps.len()).map(|cut| (cut, trace.after(cut).current()));
    // A sync changes nothing that a killed process would lose.
    let cuts: Vec<_> = cuts.filter(|(_, image)| seen.insert(image.fingerprint())).collect();
    let left = check_all(&cuts, |(cut, image)| {
        let root = scratch();
        image.write(root.path()).map_err(|error| error.to_string())?;
        let data = root.path().join("data");
        let problems = |data: &Path| {
            let sound = verify(data, None).map_err(|error| error.to_string())?;
            match sound.problems.is_empty() {
                true => Ok(()),
                false => Err(format!("cut {cut}: {:?}", sound.problems)),
            }
        };
        problems(&data)?;
        let (engine, ingests) = open(aged(&data));
        let left = usize::try_from(engine.vacuum().unwrap().expired).unwrap();
        let rows = number(&engine, ALL);
        stop(&engine, ingests);
        problems(&data)?;
        if rows != 30 || expired(&data) != 60 || ![0, 60].contains(&left) {
            return Err(format!("cut {cut}: {rows} rows, {left} taken by the second look"));
        }
        Ok(left / 60)
    });
    assert!(left > 0 && left < cuts.len(), "{left} of {}", cuts.len());
}

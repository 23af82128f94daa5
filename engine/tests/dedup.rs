//! Message ids through the whole engine: across shards, rolls and restarts, and at the window's
//! bounds.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use std::num::NonZeroUsize;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use ringlake_engine::status::DedupStatus;
use ringlake_engine::{Engine, Ingest, verify};
use support::{commit, config, open, rows, stop};

mod support;

const HOUR: i64 = 3_600_000_000;

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap()
}

/// Sends one request, received at `time`, with an event for each id; gives how many were known.
fn send_at(ingest: &mut Ingest, time: i64, ids: impl IntoIterator<Item = u32>) -> usize {
    let lines: Vec<String> = ids
        .into_iter()
        .map(|id| format!(r#"{{"event":"e","tenant":"t{}","message_id":"{id}"}}"#, id % 3))
        .collect();
    let ticket = commit(ingest, time, &lines.join("\n"), lines.len()).unwrap();
    ingest.acks().wait_blocking(ticket).unwrap().duplicates
}

fn send(ingest: &mut Ingest, ids: impl IntoIterator<Item = u32>) -> usize {
    send_at(ingest, now(), ids)
}

/// Events, and different ids among them.
fn counts(engine: &Engine) -> (i64, i64) {
    engine.flush().unwrap();
    let sql = "SELECT count(*)::BIGINT, count(DISTINCT message_id)::BIGINT FROM events";
    let batches = rows(engine, sql);
    let number = |column: usize| batches[0].column(column).as_primitive::<Int64Type>().value(0);
    (number(0), number(1))
}

fn dedup(engine: &Engine) -> DedupStatus {
    engine.status().dedup.unwrap()
}

fn parquet_files(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("_delta_log") {
            files.extend(parquet_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "parquet") {
            files.push(path);
        }
    }
    files
}

#[test]
fn an_id_is_known_to_every_shard_and_each_tenant_has_its_own() {
    let scratch = tempfile::tempdir().unwrap();
    let (engine, mut ingests) = open(config(scratch.path()));
    assert_eq!(send(&mut ingests[0], 0..100), 0);
    assert_eq!(send(&mut ingests[1], 50..150), 50);
    // Tenant t0 has the id 3; here t1 sends it as its own.
    let body = r#"{"event":"e","tenant":"t1","message_id":"3"}"#;
    let ticket = commit(&mut ingests[0], now(), body, 1).unwrap();
    assert_eq!(ingests[0].acks().wait_blocking(ticket).unwrap().duplicates, 0);

    assert_eq!(counts(&engine), (151, 150));
    let accounting = engine.status().accounting;
    assert_eq!((accounting.received, accounting.stored, accounting.duplicate), (201, 151, 50));
    assert_eq!((accounting.refused.total(), accounting.in_flight), (0, 0));
    assert_eq!((dedup(&engine).ids, dedup(&engine).held_requests), (151, 0));
    stop(&engine, ingests);
    assert_eq!(verify(scratch.path(), None).unwrap().problems, Vec::<String>::new());
}

#[test]
fn a_restart_knows_the_ids_of_log_and_table() {
    let scratch = tempfile::tempdir().unwrap();
    let (engine, mut ingests) = open(config(scratch.path()));
    send(&mut ingests[0], 0..100);
    stop(&engine, ingests);

    let (engine, mut ingests) = open(config(scratch.path()));
    assert_eq!(send(&mut ingests[1], 90..110), 10, "from the log alone");
    engine.roll().unwrap();
    stop(&engine, ingests);

    let (engine, mut ingests) = open(config(scratch.path()));
    assert_eq!(engine.status().recovered, 0);
    assert_eq!(dedup(&engine).ids, 110);
    assert_eq!(send(&mut ingests[0], 100..120), 10, "from the table alone");
    send(&mut ingests[1], 120..130);
    stop(&engine, ingests);

    let mut one = config(scratch.path());
    one.shards = NonZeroUsize::MIN;
    let (engine, mut ingests) = open(one);
    assert_eq!(send(&mut ingests[0], 0..140), 130, "from both, whatever the shards now");
    assert_eq!(counts(&engine), (140, 140));
    stop(&engine, ingests);
    assert_eq!(verify(scratch.path(), None).unwrap().problems, Vec::<String>::new());
}

#[test]
fn an_id_is_forgotten_when_it_is_older_than_the_window() {
    let scratch = tempfile::tempdir().unwrap();
    let (engine, mut ingests) = open(config(scratch.path()));
    let start = now() - 26 * HOUR;
    send_at(&mut ingests[0], start, 0..10);
    assert_eq!(send_at(&mut ingests[1], start + 23 * HOUR, 0..20), 10);
    assert_eq!(send_at(&mut ingests[1], start + 25 * HOUR, 0..20), 10, "the older ones are new");
    let age = dedup(&engine).window_age_seconds;
    assert!((3 * 3_600..3 * 3_600 + 60).contains(&age), "{age} s");
    engine.roll().unwrap();
    stop(&engine, ingests);

    let (engine, mut ingests) = open(config(scratch.path()));
    // The rows of the first request are in the table, outside of the window.
    assert_eq!(dedup(&engine).ids, 20);
    let age = dedup(&engine).window_age_seconds;
    assert!((3 * 3_600..3 * 3_600 + 60).contains(&age), "{age} s");
    assert_eq!(send(&mut ingests[0], 0..30), 20);
    stop(&engine, ingests);
}

#[test]
fn the_oldest_ids_are_forgotten_when_there_are_too_many() {
    let scratch = tempfile::tempdir().unwrap();
    let mut small = config(scratch.path());
    small.dedup.ids = 80;
    let (engine, mut ingests) = open(small.clone());
    let start = now() - HOUR;
    for round in 0..20_u32 {
        let time = start + i64::from(round) * 60_000_000;
        send_at(&mut ingests[0], time, round * 10..round * 10 + 10);
        engine.roll().unwrap();
    }
    let before = dedup(&engine);
    assert_eq!((before.ids, before.ids_max), (80, 80));
    // The oldest that is known came 12 minutes after the start, an hour ago.
    assert!((48 * 60..49 * 60).contains(&before.window_age_seconds), "{before:?}");
    stop(&engine, ingests);

    let (engine, mut ingests) = open(small);
    let after = dedup(&engine);
    assert_eq!(after.ids, 80);
    assert!((48 * 60..49 * 60).contains(&after.window_age_seconds), "{after:?}");
    // One request: none of its ids may push out another one that it looks at.
    assert_eq!(send(&mut ingests[1], 115..125), 5);
    stop(&engine, ingests);
}

#[test]
fn a_file_that_cannot_be_read_keeps_no_start_from_succeeding() {
    let scratch = tempfile::tempdir().unwrap();
    let (engine, mut ingests) = open(config(scratch.path()));
    send_at(&mut ingests[0], now() - 2 * HOUR, 0..10);
    engine.roll().unwrap();
    send_at(&mut ingests[0], now() - HOUR, 10..20);
    engine.roll().unwrap();
    stop(&engine, ingests);
    let mut files = parquet_files(&scratch.path().join("events"));
    files.sort_by_key(|file| std::fs::metadata(file).unwrap().modified().unwrap());
    std::fs::write(&files[1], b"no Parquet").unwrap();

    let (engine, mut ingests) = open(config(scratch.path()));
    let known = dedup(&engine);
    assert_eq!(known.ids, 10);
    assert!(known.window_age_seconds <= 3_600, "ids of two hours ago do not count: {known:?}");
    assert_eq!(send(&mut ingests[0], 0..20), 10);
    stop(&engine, ingests);
}

#[test]
fn a_node_does_not_know_the_ids_of_another_one() {
    let scratch = tempfile::tempdir().unwrap();
    let lake = scratch.path().join("lake").to_str().unwrap().to_owned();
    let of = |node: &str| {
        let mut config = config(&scratch.path().join(node));
        config.lake = Some(lake.clone());
        config
    };
    for node in ["one", "two"] {
        let (engine, mut ingests) = open(of(node));
        assert_eq!(dedup(&engine).ids, 0);
        assert_eq!(send(&mut ingests[0], 0..10), 0);
        engine.roll().unwrap();
        stop(&engine, ingests);
    }
    let (engine, mut ingests) = open(of("one"));
    assert_eq!(dedup(&engine).ids, 10);
    assert_eq!(send(&mut ingests[0], 0..10), 10);
    stop(&engine, ingests);
}

#[test]
fn without_a_window_every_event_is_stored() {
    let scratch = tempfile::tempdir().unwrap();
    let mut without = config(scratch.path());
    without.dedup.ids = 0;
    let (engine, mut ingests) = open(without);
    assert_eq!(send(&mut ingests[0], [1, 1]), 0);
    assert_eq!(send(&mut ingests[1], [1]), 0);
    assert_eq!(counts(&engine), (3, 1));
    assert!(engine.status().dedup.is_none());
    stop(&engine, ingests);
}

/// Clients on all shards send the same requests at the same time, as retries that overtake each
/// other do, through restarts in between.
#[test]
fn racing_retries_leave_every_event_once() {
    let scratch = tempfile::tempdir().unwrap();
    for round in 0..3_u32 {
        let (engine, mut ingests) = open(config(scratch.path()));
        let duplicates: usize = std::thread::scope(|scope| {
            let clients: Vec<_> = ingests
                .iter_mut()
                .map(|ingest| {
                    scope.spawn(move || -> usize {
                        let requests = round * 100..round * 100 + 200;
                        requests.map(|request| send(ingest, request * 7..request * 7 + 20)).sum()
                    })
                })
                .collect();
            clients.into_iter().map(|client| client.join().unwrap()).sum()
        });
        let accounting = engine.status().accounting;
        assert_eq!(accounting.duplicate, duplicates as u64);
        assert_eq!(accounting.received, accounting.stored + accounting.duplicate);
        let (events, ids) = counts(&engine);
        assert_eq!(events, ids);
        assert_eq!(ids, i64::from((round * 100 + 199) * 7 + 20));
        stop(&engine, ingests);
    }
}

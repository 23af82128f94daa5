//! The engine as a library user sees it: events in, acknowledgements, SQL, rolls, restarts.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use ringlake_engine::listing::ListRequest;
use ringlake_engine::query::{QueryError, QueryRequest};
use ringlake_engine::{Engine, Error, IngestError, Readiness, verify};
use support::{
    LIMIT, MOMENT, assert_accounted, assert_sound, config, number, open, rows, send, send_body,
    stop,
};

mod support;

fn count(engine: &Engine) -> i64 {
    number(engine, "SELECT count(*) FROM events")
}

/// Events that are in more than one place, or whose user id is.
fn doubled(engine: &Engine) -> i64 {
    let by_number =
        number(engine, "SELECT count(*) - count(DISTINCT (shard, sequence)) FROM events");
    by_number.max(number(engine, "SELECT count(*) - count(DISTINCT user_id) FROM events"))
}

fn counts(engine: &Engine) -> BTreeMap<String, i64> {
    let sql = "SELECT tenant || '/' || event AS k, count(*)::BIGINT AS n FROM events GROUP BY k";
    rows(engine, sql)
        .iter()
        .flat_map(|batch| {
            let keys = batch.column(0).as_string::<i32>().clone();
            let numbers = batch.column(1).as_primitive::<Int64Type>().clone();
            (0..batch.num_rows())
                .map(move |row| (keys.value(row).to_owned(), numbers.value(row)))
                .collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn an_acknowledged_event_is_seen_by_the_next_query_and_the_next_page() {
    let scratch = tempfile::tempdir().unwrap();
    let mut rare = config(scratch.path());
    rare.hot.flush_interval = std::time::Duration::from_secs(3_600);
    let (engine, mut ingests) = open(rare);
    for (before, after) in [(0, 1), (1, 2), (2, 3)] {
        send(&mut ingests[0], before, 1);
        assert_eq!(count(&engine), after);
        let page = engine.list(&ListRequest { limit: 9, ..ListRequest::default() }).unwrap();
        assert_eq!(page.events.num_rows(), before + 1);
    }
    let row = rows(
        &engine,
        "SELECT node || '-' || shard || '-' || sequence AS id FROM events ORDER BY id",
    );
    assert_eq!(row[0].column(0).as_string::<i32>().value(0), format!("{}-0-1", engine.node()));
    stop(&engine, ingests);
    assert_sound(scratch.path(), 3);
}

#[test]
fn a_roll_moves_events_from_hot_to_the_table_without_changing_a_count() {
    let scratch = tempfile::tempdir().unwrap();
    let (engine, mut ingests) = open(config(scratch.path()));
    for round in 0..20 {
        send(&mut ingests[round % 2], round * 500, 500);
    }
    engine.flush().unwrap();
    let before = counts(&engine);
    assert_eq!(count(&engine), 10_000);
    let report = engine.roll().unwrap();
    assert_eq!((report.rows, count(&engine), doubled(&engine)), (10_000, 10_000, 0));
    assert_eq!(counts(&engine), before);
    assert_eq!(engine.status().hot.rows, 0);
    stop(&engine, ingests);
    assert_sound(scratch.path(), 10_000);
}

#[test]
fn a_restart_replays_exactly_what_the_table_lacks() {
    let scratch = tempfile::tempdir().unwrap();
    let (engine, mut ingests) = open(config(scratch.path()));
    send(&mut ingests[0], 0, 100);
    send(&mut ingests[1], 100, 100);
    engine.roll().unwrap();
    send(&mut ingests[0], 200, 50);
    stop(&engine, ingests);
    assert_sound(scratch.path(), 250);

    let (engine, mut ingests) = open(config(scratch.path()));
    assert_eq!(engine.status().recovered, 50);
    send(&mut ingests[0], 250, 10);
    engine.flush().unwrap();
    assert_eq!((count(&engine), doubled(&engine)), (260, 0));
    engine.roll().unwrap();
    assert_eq!((count(&engine), doubled(&engine)), (260, 0));
    stop(&engine, ingests);
    assert_sound(scratch.path(), 260);
}

#[test]
fn fewer_shards_than_before_lose_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let (engine, mut ingests) = open(config(scratch.path()));
    send(&mut ingests[0], 0, 10);
    send(&mut ingests[1], 10, 10);
    stop(&engine, ingests);

    let mut one = config(scratch.path());
    one.shards = NonZeroUsize::MIN;
    let (engine, mut ingests) = open(one);
    send(&mut ingests[0], 20, 10);
    engine.roll().unwrap();
    assert_eq!((count(&engine), doubled(&engine)), (30, 0));
    stop(&engine, ingests);
    assert_sound(scratch.path(), 30);

    let (engine, mut ingests) = open(config(scratch.path()));
    send(&mut ingests[1], 30, 10);
    engine.flush().unwrap();
    assert_eq!((count(&engine), doubled(&engine)), (40, 0));
    stop(&engine, ingests);
    assert_sound(scratch.path(), 40);
}

#[test]
fn readers_see_every_event_once_while_tables_roll() {
    let scratch = tempfile::tempdir().unwrap();
    let mut small = config(scratch.path());
    small.hot.roll_rows = 400;
    small.hot.flush_interval = Duration::from_millis(5);
    let (engine, mut ingests) = open(small);
    let reader = engine.clone();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut last = 0;
            // Relaxed: the flag is all there is.
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let now = count(&reader);
                assert!(now >= last, "{last} events were visible, now {now}");
                assert_eq!(doubled(&reader), 0);
                last = now;
            }
        });
        for round in 0..60 {
            send(&mut ingests[round % 2], round * 100, 100);
            // Tables also roll by themselves, as often as this machine comes to it.
            if round % 20 == 19 {
                engine.roll().unwrap();
            }
        }
        // Relaxed: the flag is all there is.
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(count(&engine), 6_000);
    assert!(engine.status().lake.files > 1);
    stop(&engine, ingests);
    assert_sound(scratch.path(), 6_000);
}

#[test]
fn rolled_segments_are_deleted_and_dropped_tables_go() {
    let scratch = tempfile::tempdir().unwrap();
    let mut small = config(scratch.path());
    small.log.segment_bytes = 1;
    let (engine, mut ingests) = open(small);
    for round in 0..10 {
        send(&mut ingests[0], round * 10, 10);
    }
    engine.roll().unwrap();
    send(&mut ingests[0], 100, 10);
    let began = std::time::Instant::now();
    while engine.status().shards[0].log_segments > 1 {
        assert!(began.elapsed() < LIMIT, "segments that the table holds are still there");
        std::thread::yield_now();
    }
    assert_eq!(engine.status().hot.tables, 1);
    stop(&engine, ingests);
    assert_sound(scratch.path(), 110);
}

#[test]
fn the_accounting_adds_up() {
    let scratch = tempfile::tempdir().unwrap();
    let (engine, mut ingests) = open(config(scratch.path()));
    send(&mut ingests[0], 0, 25);
    let accounting = engine.status().accounting;
    assert_eq!((accounting.received, accounting.stored, accounting.in_flight), (25, 25, 0));
    stop(&engine, ingests);
}

#[test]
fn a_directory_has_one_owner() {
    let scratch = tempfile::tempdir().unwrap();
    let (engine, ingests) = open(config(scratch.path()));
    assert!(matches!(Engine::open(config(scratch.path())), Err(Error::Locked { .. })));
    stop(&engine, ingests);
}

#[test]
fn a_request_that_can_never_fit_is_told_so() {
    let scratch = tempfile::tempdir().unwrap();
    let (engine, mut ingests) = open(config(scratch.path()));
    let error = ingests[0].reserve(1 << 20).map(|_| ()).unwrap_err();
    assert!(matches!(error, IngestError::TooLarge { .. }), "{error}");
    stop(&engine, ingests);
}

#[test]
fn after_a_shutdown_nothing_is_accepted() {
    let scratch = tempfile::tempdir().unwrap();
    let (engine, mut ingests) = open(config(scratch.path()));
    assert_eq!(engine.readiness(), Readiness::Ready);
    assert_accounted(&engine);
    engine.shutdown(LIMIT).unwrap();
    assert_eq!(ingests[0].reserve(10).map(|_| ()).unwrap_err(), IngestError::NotReady);
    assert!(matches!(engine.readiness(), Readiness::NotReady { .. }));
    assert!(matches!(engine.flush(), Err(Error::Closed)));
}

#[test]
fn verify_names_what_is_missing() {
    let scratch = tempfile::tempdir().unwrap();
    let mut small = config(scratch.path());
    small.log.segment_bytes = 1;
    let (engine, mut ingests) = open(small);
    for round in 0..3 {
        send(&mut ingests[0], round * 10, 10);
    }
    stop(&engine, ingests);
    std::fs::remove_file(scratch.path().join("log/0/00000000000000000002.log")).unwrap();
    let report = verify(scratch.path(), None).unwrap();
    assert_eq!(report.problems, ["shard 0: numbers 11 to 20 are missing from the log"]);
}

/// Rule 12: what only readers keep in memory is bounded. Two readers that never read on hold one
/// table of 42 MB each; the older one is ended, the younger one goes on.
#[test]
fn the_oldest_reader_is_ended_when_readers_pin_too_many_rolled_events() {
    let scratch = tempfile::tempdir().unwrap();
    let mut config = config(scratch.path());
    config.ring_bytes = 8 << 20;
    let (engine, mut ingests) = open(config);
    let long = "x".repeat(200_000);
    let mut store_megabytes = |batches: usize| {
        for _ in 0..batches {
            let lines: Vec<String> = (0..16).map(|_| format!(r#"{{"event":"{long}"}}"#)).collect();
            send_body(&mut ingests[0], MOMENT, &lines.join("\n"), 16);
        }
        engine.flush().unwrap();
    };
    let reader = || {
        let sql = "SELECT e.sequence FROM events AS e, range(100000)";
        let mut stream = engine.query(QueryRequest::new(sql)).unwrap();
        stream.blocking_ready().unwrap();
        stream
    };
    store_megabytes(13);
    let mut older = reader();
    engine.roll().unwrap();
    store_megabytes(13);
    let mut younger = reader();
    engine.roll().unwrap();
    store_megabytes(1);
    engine.roll().unwrap();

    let ended = loop {
        match older.blocking_next() {
            Some(Ok(_)) => {}
            end => break end,
        }
    };
    assert!(matches!(ended, Some(Err(QueryError::Outrun))), "{ended:?}");
    for _ in 0..50 {
        assert!(matches!(younger.blocking_next(), Some(Ok(_))));
    }
    drop((older, younger));
    stop(&engine, ingests);
}

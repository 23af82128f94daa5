//! Queries that want all there is: memory, time, the cores. Each ends within its limits, and
//! ingestion beside them goes on.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use support::{PATIENCE, Server, statements};

/// What the process may have beside DuckDB's limit; queries are refused memory above it.
const BESIDE: u64 = 512 << 20;

#[test]
fn each_ends_within_its_limits() {
    let limit = 200 << 20;
    let server = Server::with(&[
        ("RINGLAKE_DUCKDB_MEMORY", "200MiB"),
        ("RINGLAKE_DUCKDB_TEMP_MAX", "50MB"),
        ("RINGLAKE_QUERY_TIMEOUT_MS", "300"),
    ]);
    let events = format!("[{}]", vec![r#"{"event":"good"}"#; 1_000].join(","));
    assert_eq!(server.post("/v1/events", events).status, 202);
    for sql in statements("bombs.sql") {
        // One call of a function is not interrupted; it takes what memory it may have and ends.
        let answer = server.post("/v1/query", &sql);
        let outcome = (answer.status, answer.complete);
        assert!(
            matches!(outcome, (200 | 400 | 408, true) | (200, false)),
            "{sql}: {outcome:?} {}",
            answer.text()
        );
        // A piece for each of the four workers is taken between two looks.
        let peak = server.peak_memory();
        assert!(peak < limit + BESIDE + (64 << 20), "{sql}: {} MB", peak >> 20);
    }
    server.wait_until("all queries have ended", || server.status()["queries"]["running"] == 0);
    assert_eq!(server.count(), 1_000);
    assert_eq!(server.status()["quarantined"]["rows"], 0);
}

/// One at a time, all the time: they want the cores, DuckDB's memory, and memory that it does not
/// count. How fast ingestion is beside them is measured in the perf lab (`hostile`), not here.
#[test]
fn ingestion_goes_on_beside_each_and_loses_nothing() {
    const HOSTILE: [&str; 3] = [
        "SELECT count(*) FROM range(10000000) a(x), range(10000000) b(y) WHERE (x * y) % 7 = 9",
        "SELECT list(range ORDER BY hash(range)) FROM range(100000000)",
        "SELECT repeat('x', 20000000 + range) FROM range(1000)",
    ];
    const REQUESTS: u64 = 100;
    let server = Server::with(&[("RINGLAKE_QUERY_TIMEOUT_MS", "1000")]);
    let events = format!("[{}]", vec![r#"{"event":"good","user_id":"u"}"#; 1_000].join(","));
    for sql in HOSTILE {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Relaxed: the flag is all there is.
                while !stop.load(Ordering::Relaxed) {
                    let status = server.post("/v1/query", sql).status;
                    assert!(matches!(status, 200 | 400 | 408 | 503), "{sql}: {status}");
                }
            });
            server.wait_until("it runs", || server.status()["queries"]["running"] == 1);
            let mut connection = server.connect();
            let mut taken = 0;
            let until = Instant::now() + PATIENCE;
            while taken < REQUESTS {
                match connection.request("POST", "/v1/events", &[], events.as_bytes()).status {
                    202 => taken += 1,
                    429 | 503 => assert!(Instant::now() < until, "{sql}: {taken} requests taken"),
                    other => panic!("{other}"),
                }
            }
            // Relaxed: as above.
            stop.store(true, Ordering::Relaxed);
        });
    }
    assert_eq!(server.status()["quarantined"]["rows"], 0);
    assert_eq!(server.count(), HOSTILE.len() as u64 * REQUESTS * 1_000);
}

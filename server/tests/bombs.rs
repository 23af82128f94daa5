//! Queries that want all there is: memory, time, the cores. Each ends within its limits, and
//! ingestion beside them goes on.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::{Server, statements};

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
        let began = Instant::now();
        let answer = server.post("/v1/query", &sql);
        let outcome = (answer.status, answer.complete);
        assert!(
            matches!(outcome, (200 | 400 | 408, true) | (200, false)),
            "{sql}: {outcome:?} {}",
            answer.text()
        );
        // One call of a function is not interrupted; it takes what memory it may have and ends.
        assert!(began.elapsed() < Duration::from_secs(30), "{sql}: {:?}", began.elapsed());
        // A piece for each of the four workers is taken between two looks.
        let peak = server.peak_memory();
        assert!(peak < limit + BESIDE + (64 << 20), "{sql}: {} MB", peak >> 20);
    }
    server.wait_until("all queries have ended", || server.status()["queries"]["running"] == 0);
    assert_eq!(server.count(), 1_000);
    assert_eq!(server.status()["quarantined"]["rows"], 0);
}

/// Sends events for a while; gives how many a second were taken.
fn ingest(server: &Server) -> f64 {
    let events = format!("[{}]", vec![r#"{"event":"good","user_id":"u"}"#; 1_000].join(","));
    let mut connection = server.connect();
    let began = Instant::now();
    let mut taken = 0;
    while began.elapsed() < Duration::from_secs(1) {
        match connection.request("POST", "/v1/events", &[], events.as_bytes()).status {
            202 => taken += 1_000,
            429 | 503 => std::thread::yield_now(),
            other => panic!("{other}"),
        }
    }
    f64::from(taken) / began.elapsed().as_secs_f64()
}

/// One at a time, all the time: they want the cores, DuckDB's memory, and memory that it does not
/// count. Other tests take turns on the machine: one round of some has to show that ingestion keeps at
/// least 70 % of its rate.
#[test]
fn ingestion_beside_one_keeps_its_rate_and_loses_nothing() {
    const HOSTILE: [&str; 3] = [
        "SELECT count(*) FROM range(10000000) a(x), range(10000000) b(y) WHERE (x * y) % 7 = 9",
        "SELECT list(range ORDER BY hash(range)) FROM range(100000000)",
        "SELECT repeat('x', 20000000 + range) FROM range(1000)",
    ];
    let server = Server::with(&[("RINGLAKE_QUERY_TIMEOUT_MS", "1000")]);
    for sql in HOSTILE {
        let mut rounds = Vec::new();
        let kept = (0..10).any(|_| {
            let calm = ingest(&server);
            let stop = AtomicBool::new(false);
            let beside = std::thread::scope(|scope| {
                scope.spawn(|| {
                    // Relaxed: the flag is all there is.
                    while !stop.load(Ordering::Relaxed) {
                        let status = server.post("/v1/query", sql).status;
                        assert!(matches!(status, 200 | 400 | 408 | 503), "{sql}: {status}");
                    }
                });
                server.wait_until("it runs", || server.status()["queries"]["running"] == 1);
                let beside = ingest(&server);
                // Relaxed: as above.
                stop.store(true, Ordering::Relaxed);
                beside
            });
            rounds.push((calm, beside));
            beside >= 0.7 * calm
        });
        assert!(kept, "{sql}: events a second without and beside it: {rounds:?}");
    }
    assert_eq!(server.status()["quarantined"]["rows"], 0);
    // When the server goes, every event that was taken is looked for.
    assert!(server.count() > 0);
}

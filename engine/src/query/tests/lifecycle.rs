//! Streaming, interrupting, timeouts, admission, shutdown.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{ENDLESS, Fixture, PANICS, UNBOUNDED, config, no_events, read, rows};
use crate::config::{DuckDbConfig, QueryConfig};
use crate::query::{QueryError, QueryRequest};
use crate::snapshot::Snapshot;

/// What ending a query may take on a machine that is busy with other things. The queries here
/// would run for hours.
const SOON: Duration = Duration::from_secs(60);

fn with_timeout(sql: &str, timeout: Duration) -> QueryRequest {
    QueryRequest { timeout: Some(timeout), ..QueryRequest::new(sql) }
}

#[test]
fn a_million_rows_arrive_in_batches_and_the_first_leaves_before_the_query_ends() {
    let fixture = Fixture::new();
    let mut stream = fixture.start("SELECT range AS n FROM range(1000000)").unwrap();
    assert_eq!(stream.schema().field(0).name(), "n");
    let first = stream.blocking_next().unwrap().unwrap();
    assert!(first.num_rows() <= 2_048, "the first batch has {} rows", first.num_rows());
    // What may wait in the stream is far less than a million rows, so the worker cannot be done.
    assert_eq!(fixture.pool.running(), 1);
    let rest = read(stream).unwrap();
    assert_eq!(first.num_rows() + rows(&rest), 1_000_000);
    assert!(rest.len() < 100, "{} batches are hardly coalesced", rest.len());
}

#[test]
fn dropping_the_stream_ends_a_query_that_computes() {
    let fixture = Fixture::new();
    let stream = fixture.start(ENDLESS).unwrap();
    let dropped = Instant::now();
    drop(stream);
    // There is one worker: this runs only when the other query has ended.
    assert_eq!(rows(&fixture.run("SELECT 1").unwrap()), 1);
    assert!(dropped.elapsed() < SOON, "took {:?}", dropped.elapsed());
}

#[test]
fn dropping_the_stream_ends_a_query_that_waits_for_its_reader() {
    let fixture = Fixture::new();
    let mut stream = fixture.start(UNBOUNDED).unwrap();
    stream.blocking_next().unwrap().unwrap();
    let dropped = Instant::now();
    drop(stream);
    assert_eq!(rows(&fixture.run("SELECT 1").unwrap()), 1);
    assert!(dropped.elapsed() < SOON, "took {:?}", dropped.elapsed());
}

#[test]
fn a_query_that_computes_too_long_times_out() {
    let fixture = Fixture::new();
    let limit = Duration::from_secs(3);
    let started = Instant::now();
    let mut stream = fixture.pool.query(with_timeout(ENDLESS, limit), no_events()).unwrap();
    let error = stream.blocking_ready().unwrap_err();
    assert!(matches!(error, QueryError::Timeout { after } if after == limit), "{error:?}");
    assert!(started.elapsed() >= limit && started.elapsed() < limit + SOON);
    assert!(stream.blocking_next().is_none(), "something follows the error");
}

#[test]
fn a_reader_that_stalls_times_out_and_frees_the_worker() {
    let fixture = Fixture::new();
    let limit = Duration::from_secs(3);
    let mut stream = fixture.pool.query(with_timeout(UNBOUNDED, limit), no_events()).unwrap();
    stream.blocking_ready().unwrap();
    assert_eq!(rows(&fixture.run("SELECT 1").unwrap()), 1);
    let items: Vec<_> = std::iter::from_fn(|| stream.blocking_next()).collect();
    let (last, before) = items.split_last().unwrap();
    assert!(before.iter().all(Result::is_ok));
    assert!(matches!(last, Err(QueryError::Timeout { .. })), "{last:?}");
}

#[test]
fn a_request_cannot_raise_the_configured_timeout() {
    let limit = Duration::from_millis(100);
    let fixture =
        Fixture::with(QueryConfig { timeout: limit, ..config() }, &DuckDbConfig::default());
    let request = with_timeout(ENDLESS, Duration::from_secs(3_600));
    // The limit may already strike while the query is planned.
    let error = fixture.pool.query(request, no_events()).and_then(read).unwrap_err();
    assert!(matches!(error, QueryError::Timeout { after } if after == limit), "{error:?}");
}

#[test]
fn an_interrupt_never_reaches_the_next_query_on_the_connection() {
    let fixture = Fixture::new();
    for round in 0..100_u64 {
        let sql = if round % 2 == 0 { ENDLESS } else { UNBOUNDED };
        // Timeouts around the length of planning, so that interrupts come at every stage.
        let limit = Duration::from_micros(round * 61 % 6_000);
        match fixture.pool.query(with_timeout(sql, limit), no_events()) {
            // Every third is dropped, so that two interrupts race.
            Ok(stream) if round % 3 == 0 => drop(stream),
            Ok(stream) => {
                let error = read(stream).unwrap_err();
                assert!(matches!(error, QueryError::Timeout { .. }), "round {round}: {error:?}");
            }
            Err(error) => {
                assert!(matches!(error, QueryError::Timeout { .. }), "round {round}: {error:?}");
            }
        }
        let next = fixture.run("SELECT sum(range) FROM range(10000)");
        assert!(next.is_ok(), "round {round}: {next:?}");
    }
}

#[test]
fn a_full_queue_refuses_at_once() {
    let fixture = Fixture::with(QueryConfig { waiting: 0, ..config() }, &DuckDbConfig::default());
    let mut running = fixture.start(UNBOUNDED).unwrap();
    running.blocking_ready().unwrap();
    let error = fixture.run("SELECT 1").unwrap_err();
    assert!(matches!(error, QueryError::Busy { waiting: 0, .. }), "{error:?}");
    assert_eq!(fixture.pool.running(), 1);
}

#[test]
fn a_query_waits_only_so_long_for_a_worker() {
    let wait = Duration::from_millis(50);
    let fixture = Fixture::with(QueryConfig { wait, ..config() }, &DuckDbConfig::default());
    let running = fixture.start(UNBOUNDED).unwrap();
    let asked = Instant::now();
    let error = fixture.run("SELECT 1").unwrap_err();
    assert!(matches!(error, QueryError::Busy { .. }), "{error:?}");
    assert!(asked.elapsed() >= wait);
    assert_eq!(fixture.pool.waiting(), 0, "a refused query stays in the queue");
    drop(running);
}

#[test]
fn a_waiting_query_runs_when_a_worker_is_free() {
    let fixture = Fixture::new();
    let running = fixture.start(UNBOUNDED).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| fixture.run("SELECT 1").map(|batches| rows(&batches)));
        while fixture.pool.waiting() == 0 {
            std::thread::yield_now();
        }
        drop(running);
        assert_eq!(waiting.join().unwrap().unwrap(), 1);
    });
}

#[test]
fn a_panic_costs_its_query_but_not_the_worker() {
    let fixture = Fixture::new();
    for _ in 0..3 {
        let error = fixture.run(PANICS).unwrap_err();
        assert!(matches!(error, QueryError::Failed { .. }), "{error:?}");
        assert_eq!(rows(&fixture.run("SELECT 1").unwrap()), 1);
    }
}

#[test]
fn a_connection_that_cannot_be_made_fails_the_query_only() {
    let attempts = std::sync::atomic::AtomicUsize::new(0);
    let pool = crate::query::Pool::start(config(), Arc::default(), move || {
        // Relaxed: a counter of one thread.
        match attempts.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
            0 => Err(duckdb::Error::InvalidQuery),
            _ => duckdb::Connection::open_in_memory(),
        }
    })
    .unwrap();
    let error = pool.query(QueryRequest::new("SELECT 1"), no_events()).unwrap_err();
    assert!(matches!(error, QueryError::Failed { .. }), "{error:?}");
    assert!(pool.query(QueryRequest::new("SELECT 1"), no_events()).is_ok());
}

#[test]
fn dropping_the_pool_ends_running_queries_with_an_error() {
    let fixture = Fixture::new();
    let mut computing = fixture.start(UNBOUNDED).unwrap();
    computing.blocking_ready().unwrap();
    let closed = Instant::now();
    fixture.pool.close();
    let error = fixture.run("SELECT 1").unwrap_err();
    assert!(matches!(error, QueryError::NotReady), "{error:?}");
    drop(fixture);
    assert!(closed.elapsed() < SOON, "took {:?}", closed.elapsed());
    let error = read(computing).unwrap_err();
    assert!(matches!(error, QueryError::NotReady), "{error:?}");
}

#[test]
fn the_snapshot_is_held_until_the_query_has_ended() {
    let fixture = Fixture::new();
    let (table, dropped) = fixture.hot_table("hot_1");
    let snapshot = Arc::new(Snapshot {
        version: 1,
        files: Arc::from([]),
        hot: vec![table],
        columns: Arc::default(),
    });
    let mut stream = fixture
        .pool
        .query(
            QueryRequest::new(
                "SELECT range FROM events RIGHT JOIN range(1000000) ON shard = range",
            ),
            snapshot,
        )
        .unwrap();
    stream.blocking_ready().unwrap();
    assert!(dropped.is_empty(), "the hot table is let go under a running query");
    assert_eq!(rows(&read(stream).unwrap()), 1_000_000);
    // The end of the stream is seen only after the snapshot has gone.
    assert_eq!(dropped.try_recv().unwrap(), "hot_1");
}

#[test]
fn the_stream_can_be_polled_and_dropped_while_it_waits() {
    use std::future::poll_fn;
    use std::pin::Pin;

    use futures_core::Stream;

    let fixture = Fixture::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let mut stream = fixture.start("SELECT range FROM range(100000)").unwrap();
        stream.ready().await.unwrap();
        let mut count = 0;
        while let Some(batch) = poll_fn(|context| Pin::new(&mut stream).poll_next(context)).await {
            count += batch.unwrap().num_rows();
        }
        assert_eq!(count, 100_000);

        let mut endless = fixture.start(ENDLESS).unwrap();
        let ready = tokio::time::timeout(Duration::from_millis(20), endless.ready()).await;
        assert!(ready.is_err(), "the query gave something");
        drop(endless);
    });
    assert_eq!(rows(&fixture.run("SELECT 1").unwrap()), 1);
}

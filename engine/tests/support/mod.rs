//! What the tests of the engine share: an engine on a directory, events for it, and a look at its
//! books whenever it stops.

#![allow(clippy::unwrap_used, dead_code, reason = "a failed test should panic; not all use all")]

use std::num::NonZeroUsize;
use std::path::Path;
use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use ringlake_engine::ack::Ticket;
use ringlake_engine::query::QueryRequest;
use ringlake_engine::{Config, Engine, Ingest, IngestError, verify};
use ringlake_event::{Decoder, Limits, Mode, Request, Source, Tenant, record_bound};

/// Longer than anything here may take.
pub const LIMIT: Duration = Duration::from_secs(60);
/// When the events of most tests arrive.
pub const MOMENT: i64 = 1_795_000_000_000_000;

/// Two shards with small rings.
pub fn config(data: &Path) -> Config {
    let mut config = Config::new(data);
    config.shards = NonZeroUsize::new(2).unwrap();
    config.ring_bytes = 1 << 20;
    config
}

/// An engine that accepts events.
pub fn open(config: Config) -> (Engine, Vec<Ingest>) {
    let (engine, ingests) = Engine::open(config).unwrap();
    engine.wait_ready(LIMIT).unwrap();
    (engine, ingests)
}

/// Sends one request of `events` events, numbered from `first`, and waits until it is durable.
pub fn send(ingest: &mut Ingest, first: usize, events: usize) {
    send_at(ingest, MOMENT, first, events);
}

/// The same, received at another moment.
pub fn send_at(ingest: &mut Ingest, received_at: i64, first: usize, events: usize) {
    let lines: Vec<String> = (first..first + events)
        .map(|number| {
            let (event, tenant) = (number % 7, number % 3);
            format!(r#"{{"event":"e{event}","tenant":"t{tenant}","user_id":"{number}"}}"#)
        })
        .collect();
    send_body(ingest, received_at, &lines.join("\n"), events);
}

/// Sends `body`, which holds `events` events, and waits until they are durable.
pub fn send_body(ingest: &mut Ingest, received_at: i64, body: &str, events: usize) {
    let ticket = loop {
        match commit(ingest, received_at, body, events) {
            Ok(ticket) => break ticket,
            Err(IngestError::Full) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    };
    ingest.acks().wait_blocking(ticket).unwrap();
}

/// Hands in `body`, which holds `events` events; nothing waits.
pub fn commit(
    ingest: &mut Ingest,
    received_at: i64,
    body: &str,
    events: usize,
) -> Result<Ticket, IngestError> {
    let request = Request {
        received_at,
        source: Source::Import,
        tenant: Tenant::Open,
        correct_clock: false,
        sender: None,
    };
    let mut room = ingest.reserve(record_bound(body.len()))?;
    let decoded = Decoder::new()
        .decode(body.as_bytes(), &request, &Limits::default(), Mode::Whole, &mut room)
        .unwrap();
    assert_eq!(decoded.accepted, events);
    room.tally().receive(events);
    Ok(room.commit(decoded.record_len))
}

/// What `sql` gives, batch by batch.
pub fn rows(engine: &Engine, sql: &str) -> Vec<RecordBatch> {
    let mut stream = engine.query(QueryRequest::new(sql)).unwrap();
    let mut batches = Vec::new();
    while let Some(batch) = stream.blocking_next() {
        batches.push(batch.unwrap());
    }
    batches
}

/// The number that `sql` gives.
pub fn number(engine: &Engine, sql: &str) -> i64 {
    let batches = rows(engine, &format!("SELECT ({sql})::BIGINT AS n"));
    batches[0].column(0).as_primitive::<Int64Type>().value(0)
}

/// Every event that came in is stored, a duplicate or refused. Waits for what is on its way.
pub fn assert_accounted(engine: &Engine) {
    let until = Instant::now() + LIMIT;
    loop {
        let status = engine.status();
        let books = &status.accounting;
        let ended = books.stored + books.duplicate + books.refused.total();
        assert_eq!(books.received, ended + books.in_flight, "{books:?}");
        if books.in_flight == 0 {
            return;
        }
        assert!(Instant::now() < until, "events are lost on the way: {books:?}");
        std::thread::yield_now();
    }
}

/// Stops an engine whose books are right.
pub fn stop(engine: &Engine, ingests: Vec<Ingest>) {
    assert_accounted(engine);
    drop(ingests);
    assert!(engine.shutdown(LIMIT).unwrap().everything_durable);
}

/// `verify` finds nothing wrong in `data`, and as many events as that.
pub fn assert_sound(data: &Path, events: u64) {
    let report = verify(data, None).unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
    let held: u64 = report.shards.iter().map(|shard| shard.table_rows + shard.log_rows).sum();
    assert_eq!(held, events);
}

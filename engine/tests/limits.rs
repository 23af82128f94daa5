//! The engine at its limits: what it refuses, what goes on meanwhile, and that it recovers by
//! itself. A file system that is really full is tried with the whole program.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::{Duration, Instant};

use ringlake_engine::ack::{Acks, Ticket};
use ringlake_engine::query::QueryRequest;
use ringlake_engine::{Config, Engine, Error, Ingest, IngestError, Readiness};
use support::{assert_accounted, assert_sound, commit};

mod support;

/// Longer than anything here may take, also on a disk that takes a second for a sync.
const PATIENCE: Duration = Duration::from_secs(120);
/// Longer than a stop takes that waits for nothing.
const PROMPT: Duration = Duration::from_secs(60);
/// When all events here are received; their partition follows from it.
const RECEIVED_AT: i64 = 1_795_000_000_000_000;
const PARTITION: &str = "date=2026-11-18";

/// One shard, and nothing that rolls by itself.
fn config(data: &Path) -> Config {
    let mut config = Config::new(data);
    config.shards = NonZeroUsize::MIN;
    config.ring_bytes = 256 << 10;
    config.log.segment_bytes = 32 << 10;
    config.log.batch_bytes = 64 << 10;
    config.hot.flush_interval = Duration::from_millis(5);
    config.hot.roll_age = Duration::from_secs(3_600);
    config.hot.roll_rows = 10_000_000;
    config
}

/// The engine, its way in, and how many events have been sent.
struct Client {
    engine: Engine,
    ingest: Ingest,
    acks: Acks,
    sent: usize,
}

impl Client {
    fn open(config: Config) -> Self {
        let (engine, mut ingests) = Engine::open(config).unwrap();
        engine.wait_ready(PATIENCE).unwrap();
        let ingest = ingests.remove(0);
        let acks = ingest.acks();
        Self { engine, ingest, acks, sent: 0 }
    }

    /// Hands in a request of `events` events of about 1 KiB that do not compress.
    fn commit(&mut self, events: usize) -> Result<Ticket, IngestError> {
        let mut lines = Vec::new();
        for number in self.sent..self.sent + events {
            let mut state = number as u64 + 1;
            let noise: String = (0..1_000)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    char::from(b'0' + u8::try_from((state >> 33) % 75).unwrap())
                })
                .filter(|letter| *letter != '\\')
                .collect();
            lines.push(format!(r#"{{"event":"e","user_id":"{number}","url":"{noise}"}}"#));
        }
        let ticket = commit(&mut self.ingest, RECEIVED_AT, &lines.join("\n"), events)?;
        self.sent += events;
        Ok(ticket)
    }

    /// Sends until the engine refuses for another reason than a full ring. Every request that it
    /// took becomes durable.
    fn send_until_refused(&mut self) -> IngestError {
        let until = Instant::now() + PATIENCE;
        let mut taken = VecDeque::new();
        let refusal = loop {
            assert!(Instant::now() < until, "{} events were sent", self.sent);
            match self.commit(20) {
                Ok(ticket) => taken.push_back(ticket),
                // One sync covers many requests.
                Err(IngestError::Full) => match taken.pop_front() {
                    Some(oldest) => {
                        self.acks.wait_blocking(oldest).unwrap();
                    }
                    None => std::thread::yield_now(),
                },
                Err(error) => break error,
            }
        };
        for ticket in taken {
            self.acks.wait_blocking(ticket).unwrap();
        }
        refusal
    }

    fn send_once_accepted(&mut self) {
        let until = Instant::now() + PATIENCE;
        let ticket = loop {
            match self.commit(20) {
                Ok(ticket) => break ticket,
                Err(error) => assert!(Instant::now() < until, "{error}"),
            }
            std::thread::yield_now();
        };
        self.acks.wait_blocking(ticket).unwrap();
    }

    fn number(&self, sql: &str) -> usize {
        usize::try_from(support::number(&self.engine, sql)).unwrap()
    }

    /// Everything sent is there once, and the accounting adds up.
    fn assert_complete(&self) {
        self.engine.flush().unwrap();
        assert_eq!(self.number("SELECT count(*) FROM events"), self.sent);
        assert_eq!(self.number("SELECT count(DISTINCT user_id) FROM events"), self.sent);
        let accounting = self.engine.status().accounting;
        assert_eq!(accounting.stored, self.sent as u64);
        assert_eq!((accounting.in_flight, accounting.refused.total()), (0, 0));
    }

    fn reason(&self) -> String {
        match self.engine.readiness() {
            Readiness::NotReady { reason } => reason,
            Readiness::Ready => String::new(),
        }
    }

    fn close(self) {
        assert_accounted(&self.engine);
        drop(self.ingest);
        let report = self.engine.shutdown(PATIENCE).unwrap();
        assert!(report.everything_durable && report.late.is_none(), "{report:?}");
    }
}

#[test]
fn below_the_floor_of_free_space_nothing_is_accepted_and_everything_else_goes_on() {
    let scratch = tempfile::tempdir().unwrap();
    let mut client = Client::open(config(scratch.path()));
    client.send_once_accepted();
    client.close();

    let mut short = config(scratch.path());
    short.disk.free_min_bytes = Some(1 << 60);
    let mut client = Client::open(short);
    assert_eq!(client.commit(1).unwrap_err(), IngestError::DiskFull);
    assert!(client.reason().starts_with("the disk is full: "), "{}", client.reason());
    client.engine.flush().unwrap();
    assert_eq!(client.number("SELECT count(*) FROM events"), 20);
    assert_eq!(client.engine.roll().unwrap().rows, 20);
    let space = client.engine.status().space;
    assert!(space.log.free_bytes.unwrap() < space.log.free_min_bytes);
    assert_eq!(space.lake.free_min_bytes, 1 << 60);
    // What the lake holds the log need not.
    let until = Instant::now() + PATIENCE;
    while client.engine.status().log_bytes > 0 {
        assert!(Instant::now() < until, "{:?}", client.engine.status());
        std::thread::yield_now();
    }
    client.close();
    assert_sound(scratch.path(), 20);
}

#[test]
fn a_log_at_its_cap_refuses_events_until_a_roll_has_freed_it() {
    let scratch = tempfile::tempdir().unwrap();
    let mut config = config(scratch.path());
    config.log.max_bytes = Some(2 * config.open_log_bytes());
    let mut client = Client::open(config.clone());
    assert_eq!(client.send_until_refused(), IngestError::LogFull);
    assert!(client.reason().starts_with("the log is full: "), "{}", client.reason());
    // Nothing but the cap makes this engine roll.
    client.send_once_accepted();
    let status = client.engine.status();
    assert!(status.lake.rows > 0 && status.log_bytes < config.log_max_bytes(), "{status:?}");
    assert_eq!(client.reason(), "");
    client.assert_complete();
    let sent = client.sent;
    client.close();
    assert_sound(scratch.path(), sent as u64);
}

#[test]
fn a_cap_that_the_open_segments_alone_could_reach_is_a_mistake() {
    let scratch = tempfile::tempdir().unwrap();
    let mut config = config(scratch.path());
    config.log.max_bytes = Some(2 * config.open_log_bytes() - 1);
    let error = Engine::open(config).map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::Config { name: "log.max_bytes", .. }), "{error}");
}

/// The lake takes nothing for as long as a file lies where a directory should be. What waits in
/// memory stays bounded, and nobody who was let in waits for an answer.
#[test]
fn when_nothing_can_be_rolled_events_are_refused_and_memory_does_not_grow() {
    let scratch = tempfile::tempdir().unwrap();
    let mut config = config(scratch.path());
    config.hot.roll_rows = 1_000;
    config.hot.queue_bytes = 1 << 20;
    let (queue_bytes, ring_bytes) = (config.hot.queue_bytes, config.ring_bytes);
    let mut client = Client::open(config);
    let obstacle = client.engine.table_path().join(PARTITION);
    std::fs::write(&obstacle, b"").unwrap();

    assert_eq!(client.send_until_refused(), IngestError::Backlog);
    assert!(client.reason().starts_with("the table takes no commit: "), "{}", client.reason());
    let status = client.engine.status();
    assert_eq!((status.hot.tables, status.accounting.in_flight), (2, 0));
    // A request is at most half of the ring, and takes somewhat more as columns.
    assert!(status.hot.queue_bytes > queue_bytes / 2);
    assert!(status.hot.queue_bytes < queue_bytes + 2 * ring_bytes, "{status:?}");
    assert!(client.number("SELECT count(*) FROM events") >= 2_000, "queries go on");
    let error = client.engine.roll().unwrap_err();
    assert!(matches!(error, Error::Stuck { .. }), "{error}");
    assert!(matches!(client.engine.flush(), Err(Error::Stuck { .. })));
    assert_eq!(client.commit(1).unwrap_err(), IngestError::Backlog);

    std::fs::remove_file(obstacle).unwrap();
    client.send_once_accepted();
    client.engine.roll().unwrap();
    assert_eq!(client.reason(), "");
    client.assert_complete();
    let sent = client.sent;
    client.close();
    assert_sound(scratch.path(), sent as u64);
}

/// Nothing but the log is needed to stop: neither DuckDB's memory nor a roll that goes through.
/// DuckDB could not show a single table here.
#[test]
fn an_engine_that_is_stuck_stops_in_time_and_loses_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let mut stuck = config(scratch.path());
    stuck.hot.roll_rows = 16_000;
    stuck.hot.queue_bytes = 1 << 20;
    stuck.duckdb.memory_limit = "12MB".into();
    stuck.duckdb.temp_max = "1MB".into();
    let mut client = Client::open(stuck);
    let obstacle = client.engine.table_path().join(PARTITION);
    std::fs::write(&obstacle, b"").unwrap();
    assert_eq!(client.send_until_refused(), IngestError::Backlog);
    assert!(client.reason().starts_with("the table takes no commit: "), "{}", client.reason());
    assert!(matches!(client.engine.flush(), Err(Error::Stuck { .. })));
    let (sent, began) = (client.sent, Instant::now());
    drop(client.ingest);
    let report = client.engine.shutdown(PATIENCE).unwrap();
    assert!(began.elapsed() < PROMPT, "{:?}", began.elapsed());
    assert!(report.everything_durable && report.late.is_none(), "{report:?}");
    assert_eq!(report.rows_to_replay, sent);
    drop(client.engine);
    std::fs::remove_file(obstacle).unwrap();
    assert_sound(scratch.path(), sent as u64);

    let client = Client::open(config(scratch.path()));
    assert_eq!(client.number("SELECT count(DISTINCT user_id) FROM events"), sent);
    client.close();
}

/// A shard that has panicked leaves them behind.
#[test]
fn a_stop_does_not_call_events_durable_that_were_neither_stored_nor_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let mut client = Client::open(config(scratch.path()));
    client.send_once_accepted();
    client.ingest.tally().receive(1);
    drop(client.ingest);
    let report = client.engine.shutdown(PATIENCE).unwrap();
    assert!(!report.everything_durable && report.late.is_none(), "{report:?}");
}

/// A roll of 40 MB that hardly compress takes longer than the stop gives it.
#[test]
fn a_roll_that_takes_too_long_for_a_stop_is_broken_off_and_loses_nothing() {
    const LITTLE: Duration = Duration::from_millis(100);
    let scratch = tempfile::tempdir().unwrap();
    let mut wide = config(scratch.path());
    wide.ring_bytes = 8 << 20;
    wide.log.segment_bytes = 16 << 20;
    let mut client = Client::open(wide.clone());
    while client.sent < 40_000 {
        let ticket = client.commit(1_000).unwrap();
        client.acks.wait_blocking(ticket).unwrap();
    }
    client.engine.flush().unwrap();
    let (sent, engine) = (client.sent, client.engine.clone());
    let rolling = std::thread::spawn(move || engine.roll());
    // The roll has begun when the table that it rolls has a successor.
    let until = Instant::now() + PATIENCE;
    while client.engine.status().hot.tables < 2 {
        assert!(Instant::now() < until, "the roll begins");
        std::thread::yield_now();
    }
    drop(client.ingest);
    let began = Instant::now();
    let report = client.engine.shutdown(LITTLE).unwrap();
    assert!(began.elapsed() < PROMPT, "{:?}", began.elapsed());
    assert!(report.everything_durable, "{report:?}");
    // Whoever waited hears that it was not done, unless it was; a late roller may still do it.
    let rolled = rolling.join().unwrap();
    match report.late {
        None => assert_eq!(rolled.is_err(), report.rows_to_replay == sent, "{rolled:?} {report:?}"),
        Some(thread) => assert_eq!(thread, "roller"),
    }
    drop(client.engine);

    // A roller that was late lets go of the directory when it has noticed.
    let until = Instant::now() + PATIENCE;
    let (engine, ingests) = loop {
        match Engine::open(wide.clone()) {
            Ok(opened) => break opened,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        std::thread::yield_now();
    };
    engine.wait_ready(PATIENCE).unwrap();
    engine.roll().unwrap();
    let files = engine.status().lake.files;
    let on_disk = std::fs::read_dir(engine.table_path().join(PARTITION)).unwrap().count();
    assert_eq!(on_disk, files, "what the roll had written is gone");
    drop(ingests);
    engine.shutdown(PATIENCE).unwrap();
    drop(engine);
    assert_sound(scratch.path(), sent as u64);
}

/// A replay that cannot go on, here because the queue is full and the lake takes nothing, is broken
/// off when the engine stops; the next one brings everything back.
#[test]
fn a_stop_during_the_replay_is_prompt_and_loses_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let mut client = Client::open(config(scratch.path()));
    while client.sent < 4_000 {
        client.send_once_accepted();
    }
    let (sent, obstacle) = (client.sent, client.engine.table_path().join(PARTITION));
    client.close();

    std::fs::write(&obstacle, b"").unwrap();
    let mut narrow = config(scratch.path());
    narrow.hot.roll_rows = 1_000;
    narrow.hot.queue_bytes = 256 << 10;
    let (engine, mut ingests) = Engine::open(narrow).unwrap();
    let until = Instant::now() + PATIENCE;
    // Two tables of half the rows that one may have otherwise.
    while engine.status().hot.rows < 1_000 {
        assert!(Instant::now() < until, "{:?}", engine.status());
        std::thread::yield_now();
    }
    let Readiness::NotReady { reason } = engine.readiness() else { panic!("it is replaying") };
    assert!(reason.starts_with("replaying the log: "), "{reason}");
    assert_eq!(ingests[0].reserve(10).map(|_| ()).unwrap_err(), IngestError::NotReady);
    let began = Instant::now();
    ingests.clear();
    let report = engine.shutdown(PATIENCE).unwrap();
    assert!(began.elapsed() < PROMPT, "{:?}", began.elapsed());
    assert!(report.everything_durable && report.late.is_none(), "{report:?}");
    drop(engine);

    std::fs::remove_file(obstacle).unwrap();
    let client = Client::open(config(scratch.path()));
    client.engine.flush().unwrap();
    assert_eq!(client.number("SELECT count(DISTINCT user_id) FROM events"), sent);
    client.close();
    assert_sound(scratch.path(), sent as u64);
}

/// Nobody's memory is taken away for it: what DuckDB has no room for is shown by the table.
#[test]
fn a_query_that_has_all_the_memory_goes_on_and_hides_no_event_from_others() {
    let scratch = tempfile::tempdir().unwrap();
    let mut little = config(scratch.path());
    little.duckdb.memory_limit = "64MB".into();
    little.duckdb.temp_max = "1MB".into();
    let mut client = Client::open(little);
    client.send_once_accepted();
    // About 45 MB, with a text of its own in each row.
    let sql = "WITH held AS MATERIALIZED \
               (SELECT range, repeat('x', 900 + range % 200) AS text FROM range(45000)) \
               SELECT held.range, held.text FROM held, range(1000)";
    let mut held = client.engine.query(QueryRequest::new(sql)).unwrap();
    assert!(matches!(held.blocking_next(), Some(Ok(_))));

    while client.sent < 30_000 {
        client.send_once_accepted();
    }
    client.engine.flush().unwrap();
    assert!(client.engine.status().hot.refused > 0);
    assert_eq!(client.engine.status().hot.rows, 0, "they have been rolled");
    assert_eq!(client.number("SELECT count(*) FROM events"), client.sent);
    assert!(matches!(held.blocking_next(), Some(Ok(_))));
    drop(held);
    client.close();
}

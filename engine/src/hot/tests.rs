//! What the flusher passes on, what DuckDB gets of it, and when.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use arrow::array::{RecordBatch, TimestampMicrosecondArray};
use arrow::compute::concat_batches;
use crossbeam_channel::{Receiver, bounded, unbounded};
use ringlake_disk::RealDisk;
use ringlake_event::{Decoder, Limits, Mode, Record, Request, Source, Tenant, record_bound};

use super::*;
use crate::config::{DuckDbConfig, HotConfig};
use crate::ingest::{Bar, Gate};
use crate::listing::Tail;
use crate::log::quarantined_ranges;
use crate::promoted::Promoter;
use crate::roller::RollerState;
use crate::shard::BatchBuilder;
use crate::snapshot::{HotTable, Snapshot, Snapshots};
use crate::space::{self, Space};

/// Longer than anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A durable batch of the events in `lines`, numbered from `first`.
pub(crate) fn logged(shard: u32, first: i64, lines: &[String]) -> LogBatch {
    let body = lines.join("\n");
    let request = Request {
        received_at: 1_795_000_000_000_000,
        source: Source::Events,
        tenant: Tenant::Open,
        correct_clock: true,
        sender: None,
    };
    let mut record = vec![0; record_bound(body.len())];
    let decoded = Decoder::new()
        .decode(body.as_bytes(), &request, &Limits::default(), Mode::Whole, &mut record)
        .unwrap();
    let mut builder = BatchBuilder::new();
    builder.append(&Record::parse(&record[..decoded.record_len]).unwrap());
    let (batch, bytes) = builder.finish();
    LogBatch { shard, first, batch, bytes }
}

fn batch(shard: u32, first: i64, rows: usize) -> LogBatch {
    let lines: Vec<String> = (0..rows).map(|row| format!(r#"{{"event":"e{row}"}}"#)).collect();
    logged(shard, first, &lines)
}

/// A queue before a flusher that never has a problem.
pub(crate) fn test_queue(bytes_max: usize) -> (Queue, Receiving) {
    queue(bytes_max, Overflow { gate: Arc::default(), stuck: Box::new(|| false) })
}

/// A flusher and its surroundings.
struct Bench {
    queue: Queue,
    rolls: Receiver<Sealed>,
    rolling: Arc<RollerState>,
    state: Arc<FlusherState>,
    flusher: Flusher,
    table: Arc<HotTable>,
    /// Looks into DuckDB's tables.
    looker: HotAppender,
}

/// The same while the flusher runs.
struct Running {
    queue: Queue,
    rolls: Receiver<Sealed>,
    rolling: Arc<RollerState>,
    state: Arc<FlusherState>,
    thread: std::thread::JoinHandle<()>,
    looker: HotAppender,
}

impl Bench {
    fn run(self) -> Running {
        let Self { queue, rolls, rolling, state, flusher, table, looker } = self;
        let thread = std::thread::spawn(move || flusher.run(table, vec![(0, 0)]));
        Running { queue, rolls, rolling, state, thread, looker }
    }
}

impl Running {
    /// Sends a marker; it comes back when everything before it is visible.
    fn mark(&self) -> Receiver<()> {
        let (marker, answer) = Marker::new(Goal::Visible, 1);
        self.queue.send_message(Message::Marker(marker));
        answer
    }

    fn roll(&self) -> Receiver<()> {
        let (marker, answer) = Marker::new(Goal::Rolled, 1);
        self.queue.send_message(Message::Marker(marker));
        answer
    }

    /// Waits until the flusher has passed `rows` that are not in the lake.
    fn wait_passed(&self, rows: usize) {
        let until = Instant::now() + PATIENCE;
        // Relaxed: statistics.
        while self.state.hot_rows.load(Ordering::Relaxed) < rows {
            assert!(Instant::now() < until, "the flusher takes them");
            self.queue.wake();
            std::thread::yield_now();
        }
    }

    fn stop(self) {
        // Relaxed: nothing is handed over with it.
        self.state.stop.store(true, Ordering::Relaxed);
        self.queue.wake();
        self.thread.join().unwrap();
    }
}

/// The open table exists in DuckDB only when `with_table`.
fn bench(scratch: &Path, with_table: bool, config: HotConfig) -> Bench {
    bench_with(&DuckDbConfig::default(), scratch, with_table, config)
}

fn bench_with(duckdb: &DuckDbConfig, scratch: &Path, with_table: bool, config: HotConfig) -> Bench {
    let database = Database::open(duckdb, scratch, scratch).unwrap();
    let (queue, receiving) = test_queue(config.queue_bytes);
    let (unused_sender, unused) = unbounded();
    let (roller, rolls) = bounded(8);
    let table = Arc::new(HotTable::new("hot_1".into(), unused_sender.clone()));
    let snapshot = Snapshot {
        version: 0,
        files: Arc::from([]),
        hot: vec![Arc::clone(&table)],
        columns: Arc::default(),
    };
    let (state, rolling) = (Arc::<FlusherState>::default(), Arc::<RollerState>::default());
    let space = Space::new(
        space::Limits { free_min_bytes: Some(0), log_max_bytes: u64::MAX },
        Arc::default(),
        Arc::from([]),
        queue.waker(),
        scratch.to_owned(),
        scratch.to_owned(),
    );
    let flusher = Flusher {
        appender: HotAppender::new(&database, Arc::default()).unwrap(),
        passing: Passing {
            promoter: Promoter::default(),
            node: "0123456789ab".into(),
            disk: Arc::new(RealDisk),
            quarantine: scratch.join("quarantine"),
            tail: Arc::new(Tail::new(Arc::default())),
            state: Arc::clone(&state),
        },
        config,
        messages: receiving.messages,
        asks: receiving.asks,
        wakes: receiving.wakes,
        budget: receiving.budget,
        roller,
        rolling: Arc::clone(&rolling),
        space: Arc::new(space),
        snapshots: Arc::new(Snapshots::new(snapshot)),
        unused,
        unused_sender,
        operations: Arc::default(),
        state: Arc::clone(&state),
    };
    if with_table {
        flusher.appender.create("hot_1").unwrap();
    }
    let looker = HotAppender::new(&database, Arc::default()).unwrap();
    Bench { queue, rolls, rolling, state, flusher, table, looker }
}

/// Nothing but what a test sends makes the flusher move.
fn still() -> HotConfig {
    HotConfig { flush_interval: Duration::from_secs(3_600), ..HotConfig::default() }
}

/// Runs a flusher over `batches` and a marker that asks for a roll; gives what the roller gets.
fn flush(scratch: &Path, with_table: bool, batches: Vec<LogBatch>) -> Sealed {
    let running = bench(scratch, with_table, still()).run();
    for batch in batches {
        running.queue.send(batch);
    }
    let _answer = running.roll();
    let sealed = running.rolls.recv_timeout(PATIENCE).unwrap();
    assert_eq!(sealed.markers.len(), 1);
    running.stop();
    sealed
}

#[test]
fn a_sealed_table_says_how_far_it_holds_each_shard() {
    let scratch = tempfile::tempdir().unwrap();
    let batches = vec![batch(0, 1, 10), batch(1, 1, 5), batch(0, 11, 2)];
    let sealed = flush(scratch.path(), true, batches);
    assert_eq!(sealed.rows, 17);
    assert_eq!(sealed.sequences, [(0, 12), (1, 5)]);
}

/// A roll needs no DuckDB, so ingestion that nobody looks at leaves it alone.
#[test]
fn duckdb_gets_rows_when_somebody_asks_and_then_all_of_them() {
    let scratch = tempfile::tempdir().unwrap();
    let running = bench(scratch.path(), true, still()).run();
    running.queue.send(batch(0, 1, 5));
    running.queue.send(batch(1, 1, 6));
    running.wait_passed(11);
    assert_eq!(running.looker.count("hot_1").unwrap(), 0);
    running.mark().recv_timeout(PATIENCE).unwrap();
    assert_eq!(running.looker.count("hot_1").unwrap(), 11);

    // What the roller is at is shown as well, as long as the files do not show it.
    running.queue.send(batch(0, 6, 7));
    let _answer = running.roll();
    assert_eq!(running.rolls.recv_timeout(PATIENCE).unwrap().rows, 18);
    running.queue.send(batch(0, 13, 2));
    running.wait_passed(20);
    let rows = |table| running.looker.count(table).unwrap();
    assert_eq!((rows("hot_1"), rows("hot_2")), (11, 0));
    running.mark().recv_timeout(PATIENCE).unwrap();
    assert_eq!((rows("hot_1"), rows("hot_2")), (18, 2));
    running.mark().recv_timeout(PATIENCE).unwrap();
    assert_eq!((rows("hot_1"), rows("hot_2")), (18, 2), "nothing comes twice");
    running.stop();
}

/// DuckDB refuses every append here, because the table is not there.
#[test]
fn rows_that_duckdb_refuses_are_rolled_for_those_who_ask() {
    let scratch = tempfile::tempdir().unwrap();
    let running = bench(scratch.path(), false, still()).run();
    running.queue.send(batch(0, 1, 10));
    running.queue.send(batch(0, 11, 4));
    let answer = running.mark();
    let sealed = running.rolls.recv_timeout(PATIENCE).unwrap();
    assert_eq!((sealed.rows, sealed.sequences.as_slice()), (14, [(0, 14)].as_slice()));
    assert!(running.state.unshown.text().unwrap().contains("hot_1"));
    assert!(!running.state.problem.is_there(), "events are accepted all the same");
    assert_eq!(running.state.refused.load(Ordering::Relaxed), 1);
    assert!(answer.is_empty());
    sealed.markers.iter().for_each(|marker| marker.answer());
    answer.recv_timeout(PATIENCE).unwrap();

    // The next table is sound.
    running.rolling.end();
    running.queue.wake();
    running.queue.send(batch(0, 15, 3));
    running.mark().recv_timeout(PATIENCE).unwrap();
    assert_eq!(running.looker.count("hot_2").unwrap(), 3);
    assert!(!running.state.unshown.is_there());
    running.stop();
    assert!(!scratch.path().join("quarantine").exists());
}

/// A table that has its rows is rolled as soon as the roller is free, which says so.
#[test]
fn what_has_come_while_a_table_was_rolled_is_the_next_one() {
    let scratch = tempfile::tempdir().unwrap();
    let config = HotConfig { roll_rows: 20, ..still() };
    let running = bench(scratch.path(), true, config).run();
    running.queue.send(batch(0, 1, 20));
    running.wait_passed(20);
    assert_eq!(running.rolls.recv_timeout(PATIENCE).unwrap().rows, 20);
    running.queue.send(batch(0, 21, 25));
    running.wait_passed(45);
    running.queue.send(batch(0, 46, 4));
    running.wait_passed(49);
    assert!(running.rolls.is_empty());
    running.rolling.end();
    running.queue.wake();
    assert_eq!(running.rolls.recv_timeout(PATIENCE).unwrap().rows, 29);
    running.stop();
}

/// While the roller is at the table that DuckDB refuses, whoever asks waits for it.
#[test]
fn a_refusal_beside_a_roll_is_answered_after_it() {
    let scratch = tempfile::tempdir().unwrap();
    let running = bench(scratch.path(), false, still()).run();
    running.queue.send(batch(0, 1, 10));
    let _answer = running.roll();
    assert_eq!(running.rolls.recv_timeout(PATIENCE).unwrap().rows, 10);
    let asked = running.mark();
    assert!(asked.recv_timeout(Duration::from_millis(200)).is_err());
    running.rolling.end();
    running.queue.wake();
    asked.recv_timeout(PATIENCE).unwrap();
    assert!(running.rolls.is_empty(), "there was nothing else to roll");
    running.stop();
}

/// Rule 8: a batch is passed only when it is in a table or its quarantine file is synced.
#[test]
fn a_batch_that_the_table_cannot_take_is_set_aside_and_its_neighbours_are_passed() {
    let scratch = tempfile::tempdir().unwrap();
    // Received in the year 12000: no day that a partition can be named after.
    let mut late = batch(0, 11, 4);
    let at = TimestampMicrosecondArray::from(vec![316_537_897_600_000_000_i64; 4]);
    let mut columns = late.batch.columns().to_vec();
    columns[late.batch.schema().index_of("received_at").unwrap()] = Arc::new(at);
    late.batch = RecordBatch::try_new(late.batch.schema(), columns).unwrap();
    let sealed = flush(scratch.path(), true, vec![batch(0, 1, 10), late, batch(0, 15, 3)]);
    assert_eq!((sealed.rows, sealed.sequences.as_slice()), (13, [(0, 17)].as_slice()));

    let quarantine = scratch.path().join("quarantine");
    let reports = quarantined_ranges(&quarantine).unwrap();
    let ranges: Vec<_> = reports.into_iter().map(|report| report.sequences).collect();
    assert_eq!(ranges, [Some((11, 14))]);
    let aside = crate::quarantine::read(&quarantine.join("batch-0-11-14.arrow")).unwrap();
    assert_eq!((aside.first, aside.last, aside.events()), (11, 14, 4));
    assert!(aside.reason.contains("received_at"), "{}", aside.reason);
}

/// One table is being rolled and one is open, however long the roll takes. The open one takes twice
/// its rows, and then no more.
#[test]
fn while_a_table_is_rolled_the_next_one_fills_and_then_the_queue() {
    let scratch = tempfile::tempdir().unwrap();
    let config = HotConfig { roll_rows: 20, ..still() };
    let running = bench(scratch.path(), true, config).run();
    running.queue.send(batch(0, 1, 5));
    let _answer = running.roll();
    assert_eq!(running.rolls.recv_timeout(PATIENCE).unwrap().rows, 5);

    // The roll never ends. Another one is wanted, and the table goes on taking rows.
    running.queue.send(batch(0, 6, 5));
    let answer = running.roll();
    running.queue.send(batch(0, 11, 34));
    running.mark().recv_timeout(PATIENCE).unwrap();
    // Full: nothing is taken from the queue any more.
    running.queue.send(batch(0, 45, 1));
    let seen = running.mark();
    running.queue.send(batch(0, 46, 3));
    assert!(seen.recv_timeout(Duration::from_millis(200)).is_err());
    assert!(running.rolls.is_empty() && answer.is_empty());
    assert_eq!(running.queue.waiting().rows, 3);

    running.rolling.end();
    running.queue.wake();
    let sealed = running.rolls.recv_timeout(PATIENCE).unwrap();
    assert_eq!(sealed.rows, 40);
    assert_eq!(sealed.markers.len(), 1);
    seen.recv_timeout(PATIENCE).unwrap();
    running.stop();
}

/// An open table that is full waits for the roller, and who asks waits with it; but should that take
/// long, then what has been passed is there to be seen.
#[test]
fn while_the_open_table_waits_for_the_roller_it_is_shown_to_those_who_ask() {
    let scratch = tempfile::tempdir().unwrap();
    let config = HotConfig { roll_rows: 20, ..still() };
    let running = bench(scratch.path(), true, config).run();
    running.queue.send(batch(0, 1, 5));
    let _answer = running.roll();
    running.rolls.recv_timeout(PATIENCE).unwrap();
    running.queue.send(batch(0, 6, 40));
    running.wait_passed(45);
    running.queue.send(batch(0, 46, 1));
    let asked = running.mark();
    assert!(asked.recv_timeout(Duration::from_millis(200)).is_err());
    running.queue.ask().recv_timeout(PATIENCE).unwrap();
    let rows = |table| running.looker.count(table).unwrap();
    assert_eq!((rows("hot_1"), rows("hot_2")), (5, 40));
    assert!(asked.is_empty());
    running.rolling.end();
    running.queue.wake();
    asked.recv_timeout(PATIENCE).unwrap();
    assert_eq!(rows("hot_3"), 1);
    running.stop();
}

/// DuckDB has 10 MB for 24.
#[test]
fn rows_that_duckdb_has_no_memory_for_are_rolled_for_those_who_ask() {
    let scratch = tempfile::tempdir().unwrap();
    let little = DuckDbConfig {
        memory_limit: "10MB".into(),
        temp_max: "1MB".into(),
        ..DuckDbConfig::default()
    };
    let running = bench_with(&little, scratch.path(), true, still()).run();
    let text = "x".repeat(60_000);
    let lines: Vec<String> = (0..400).map(|_| format!(r#"{{"event":"{text}"}}"#)).collect();
    running.queue.send(logged(0, 1, &lines));
    running.wait_passed(400);
    let _answer = running.mark();
    let sealed = running.rolls.recv_timeout(PATIENCE).unwrap();
    assert_eq!((sealed.rows, sealed.markers.len()), (400, 1));
    assert!(running.state.unshown.is_there() && !running.state.problem.is_there());
    assert_eq!(running.looker.count("hot_1").unwrap(), 0);
    running.stop();
}

/// Senders on threads of their own, and a queue that says whether anything behind it is stuck.
#[test]
fn a_full_queue_makes_senders_wait_or_closes_the_gate_when_nothing_leaves_it() {
    let gate = Arc::new(Gate::default());
    gate.lift(Bar::Closed);
    let stuck = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let overflow = Overflow {
        gate: Arc::clone(&gate),
        stuck: {
            let stuck = Arc::clone(&stuck);
            // Relaxed: the flag is all there is.
            Box::new(move || stuck.load(Ordering::Relaxed))
        },
    };
    let bytes = batch(0, 1, 10).bytes;
    let (queue, receiving) = queue(2 * bytes, overflow);
    queue.send_accepted(batch(0, 1, 10));
    queue.send_accepted(batch(0, 11, 10));
    let sender = |accepted: bool| {
        let queue = queue.clone();
        std::thread::spawn(move || match accepted {
            true => queue.send_accepted(batch(0, 21, 10)),
            false => queue.send(batch(0, 31, 10)),
        })
    };
    let (shard, replay) = (sender(true), sender(false));
    std::thread::sleep(Duration::from_millis(250));
    assert!(!shard.is_finished() && !replay.is_finished() && gate.check().is_ok());

    // Relaxed: the flag is all there is.
    stuck.store(true, Ordering::Relaxed);
    shard.join().unwrap();
    assert_eq!(gate.check(), Err(crate::IngestError::Backlog));
    assert!(!replay.is_finished());
    // What the rings still hold goes through at once.
    queue.send_accepted(batch(0, 41, 10));
    assert_eq!(queue.waiting().rows, 40);

    let mut passed = Vec::new();
    while gate.check().is_err() {
        let Ok(Message::Batch(batch)) = receiving.messages.recv_timeout(PATIENCE) else {
            panic!("a batch waits");
        };
        receiving.budget.release(std::slice::from_ref(&batch));
        passed.push(batch.first);
    }
    replay.join().unwrap();
    assert!(queue.waiting().bytes <= 2 * bytes, "{passed:?}");
}

#[test]
fn a_batch_that_no_flush_can_carry_comes_in_parts() {
    let most = super::queue::APPEND_ROWS_MAX;
    let piece = batch(3, 11, most / 5 + 1);
    let joined = concat_batches(&piece.batch.schema(), [&piece.batch; 5]).unwrap();
    let whole = LogBatch { batch: joined, bytes: 5 * piece.bytes, ..piece };
    let rest = whole.batch.num_rows() - most;
    let (queue, receiving) = test_queue(usize::MAX / 2);
    queue.send_accepted(whole.clone());
    let Ok(Message::Batch(first)) = receiving.messages.try_recv() else { panic!("a part waits") };
    let Ok(Message::Batch(second)) = receiving.messages.try_recv() else { panic!("another") };
    assert_eq!((first.batch.num_rows(), second.batch.num_rows()), (most, rest));
    assert_eq!((first.first, first.last() + 1, second.last()), (11, second.first, whole.last()));
    assert_eq!(first.batch, whole.batch.slice(0, most));
    assert_eq!(second.batch, whole.batch.slice(most, rest));
    assert_eq!(queue.waiting().rows, most + rest);
    receiving.budget.release(&[first, second]);
    assert_eq!((queue.waiting().bytes, queue.waiting().rows), (0, 0));
}

#[test]
fn a_replay_has_half_of_the_room() {
    let bytes = batch(0, 1, 10).bytes;
    let (queue, receiving) = test_queue(4 * bytes);
    let sender = |first| {
        let queue = queue.clone();
        std::thread::spawn(move || queue.send(batch(0, first, 10)))
    };
    let third = queue.sparingly(|| {
        queue.send(batch(0, 1, 10));
        queue.send(batch(0, 11, 10));
        let third = sender(21);
        std::thread::sleep(Duration::from_millis(250));
        assert!(!third.is_finished() && queue.waiting().rows == 20);
        assert_eq!(receiving.budget.now(41), 20);
        third
    });
    third.join().unwrap();
    queue.send(batch(0, 31, 10));
    assert_eq!(queue.waiting().rows, 40);
}

/// An engine that is dropped without a shutdown leaves no thread behind.
#[test]
fn a_flusher_ends_when_nobody_can_send_any_more() {
    let scratch = tempfile::tempdir().unwrap();
    let config = HotConfig { flush_interval: Duration::from_millis(1), ..still() };
    let Running { queue, thread, .. } = bench(scratch.path(), true, config).run();
    drop(queue);
    let until = Instant::now() + PATIENCE;
    while !thread.is_finished() {
        assert!(Instant::now() < until, "the flusher ends");
        std::thread::yield_now();
    }
}

//! The flusher against a DuckDB that refuses rows.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use arrow::compute::concat_batches;
use crossbeam_channel::{Receiver, bounded, unbounded};
use ringlake_disk::RealDisk;
use ringlake_event::{Decoder, Limits, Mode, Record, Request, Source, Tenant, record_bound};

use super::*;
use crate::config::{DuckDbConfig, HotConfig, QueryConfig};
use crate::ingest::{Bar, Gate};
use crate::listing::Tail;
use crate::log::quarantined_ranges;
use crate::promoted::Promoter;
use crate::query::Pool;
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
}

/// The same while the flusher runs.
struct Running {
    queue: Queue,
    rolls: Receiver<Sealed>,
    rolling: Arc<RollerState>,
    state: Arc<FlusherState>,
    thread: std::thread::JoinHandle<()>,
}

impl Bench {
    fn run(self) -> Running {
        let Self { queue, rolls, rolling, state, flusher, table } = self;
        let thread = std::thread::spawn(move || flusher.run(table, vec![(0, 0)]));
        Running { queue, rolls, rolling, state, thread }
    }
}

impl Running {
    /// Sends a marker; it comes back when everything before it is visible.
    fn mark(&self) -> Receiver<()> {
        let (marker, answer) = Marker::new(Goal::Visible, 1);
        self.queue.send_message(Message::Marker(marker));
        answer
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
        passing: Passing {
            appender: HotAppender::new(&database, Arc::default()).unwrap(),
            promoter: Promoter::default(),
            node: "0123456789ab".into(),
            disk: Arc::new(RealDisk),
            quarantine: scratch.join("quarantine"),
            tail: Arc::new(Tail::new(Arc::default())),
            state: Arc::clone(&state),
            pool: Arc::new(pool(database)),
        },
        config,
        messages: receiving.messages,
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
        flusher.passing.appender.create("hot_1").unwrap();
    }
    Bench { queue, rolls, rolling, state, flusher, table }
}

/// Nobody asks it anything here.
fn pool(database: Database) -> Pool {
    Pool::start(QueryConfig::default(), Arc::default(), move || database.connect()).unwrap()
}

/// Nothing but what a test sends makes the flusher move.
fn still() -> HotConfig {
    HotConfig { flush_interval: Duration::from_secs(3_600), ..HotConfig::default() }
}

/// Runs a flusher over `batches` and a marker that asks for a roll; gives what the roller gets.
fn flush(scratch: &Path, with_table: bool, batches: Vec<LogBatch>) -> Sealed {
    let running = bench(scratch, with_table, still()).run();
    let (marker, _answer) = Marker::new(Goal::Rolled, 1);
    for batch in batches {
        running.queue.send(batch);
    }
    running.queue.send_message(Message::Marker(marker));
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

/// Rule 8: a batch is passed only when it is in a table or its quarantine file is synced. DuckDB
/// refuses every append here, because the table is not there.
#[test]
fn batches_that_cannot_be_appended_are_set_aside_and_then_passed() {
    let scratch = tempfile::tempdir().unwrap();
    let sealed = flush(scratch.path(), false, vec![batch(0, 1, 10), batch(0, 11, 4)]);
    assert_eq!((sealed.rows, sealed.sequences.as_slice()), (0, [(0, 14)].as_slice()));

    let quarantine = scratch.path().join("quarantine");
    let mut ranges: Vec<_> = quarantined_ranges(&quarantine)
        .unwrap()
        .into_iter()
        .map(|report| report.sequences)
        .collect();
    ranges.sort_unstable();
    assert_eq!(ranges, [Some((1, 10)), Some((11, 14))]);
    let aside = crate::quarantine::read(&quarantine.join("batch-0-11-14.arrow")).unwrap();
    assert_eq!((aside.first, aside.last, aside.events()), (11, 14, 4));
    assert!(aside.reason.contains("hot_1"), "{}", aside.reason);
}

/// One table is being rolled and one is open: that is all that DuckDB holds, however long the roll
/// takes. The open one takes rows until it is full, so that they are visible.
#[test]
fn while_a_table_is_rolled_the_next_one_fills_and_then_the_queue() {
    let scratch = tempfile::tempdir().unwrap();
    let config = HotConfig { roll_rows: 20, ..still() };
    let running = bench(scratch.path(), true, config).run();
    let (roll, _answer) = Marker::new(Goal::Rolled, 1);
    running.queue.send(batch(0, 1, 5));
    running.queue.send_message(Message::Marker(roll));
    assert_eq!(running.rolls.recv_timeout(PATIENCE).unwrap().rows, 5);

    // The roll never ends. Another one is wanted, and the table goes on taking rows.
    let (roll, answer) = Marker::new(Goal::Rolled, 1);
    running.queue.send(batch(0, 6, 5));
    running.queue.send_message(Message::Marker(roll));
    running.queue.send(batch(0, 11, 14));
    running.mark().recv_timeout(PATIENCE).unwrap();
    // Full: nothing is taken from the queue any more.
    running.queue.send(batch(0, 25, 1));
    let seen = running.mark();
    running.queue.send(batch(0, 26, 3));
    assert!(seen.recv_timeout(Duration::from_millis(200)).is_err());
    assert!(running.rolls.is_empty() && answer.is_empty());
    assert_eq!(running.queue.waiting().rows, 3);

    running.rolling.end();
    running.queue.wake();
    let sealed = running.rolls.recv_timeout(PATIENCE).unwrap();
    assert_eq!(sealed.rows, 20);
    assert_eq!(sealed.markers.len(), 1);
    seen.recv_timeout(PATIENCE).unwrap();
    running.stop();
}

/// The log holds what DuckDB has no memory for, so the flusher need not wait until it has some.
#[test]
fn a_flusher_that_waits_for_memory_ends_when_the_engine_stops() {
    let scratch = tempfile::tempdir().unwrap();
    let little = DuckDbConfig {
        memory_limit: "10MB".into(),
        temp_max: "1MB".into(),
        ..DuckDbConfig::default()
    };
    let config = HotConfig { flush_interval: Duration::from_millis(1), ..still() };
    let running = bench_with(&little, scratch.path(), true, config).run();
    let text = "x".repeat(60_000);
    let lines: Vec<String> = (0..400).map(|_| format!(r#"{{"event":"{text}"}}"#)).collect();
    running.queue.send(logged(0, 1, &lines));
    running.queue.wake();
    let until = Instant::now() + PATIENCE;
    while !running.state.problem.is_there() {
        assert!(Instant::now() < until, "24 MB fit into 10");
        std::thread::yield_now();
    }
    // Five attempts would take less than a second and set the batch aside.
    std::thread::sleep(Duration::from_millis(1_500));
    assert!(running.state.problem.is_there());
    let (queue, stopped) = (running.queue.clone(), Instant::now());
    running.stop();
    assert!(stopped.elapsed() < PATIENCE, "{:?}", stopped.elapsed());
    assert_eq!(queue.waiting().rows, 400, "what was not passed still waits");
    assert!(!scratch.path().join("quarantine").exists());
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
    let most = super::queue::FLUSH_ROWS_MAX;
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

//! The shard: one thread that turns ring records into durable, numbered batches.
//!
//! **Guarantees**
//! - Events get dense, increasing numbers in the order of the ring.
//! - A request's events are in one frame of the log: a crash stores a request whole or not at all.
//! - A batch closes as soon as the previous sync has returned and something is there: one sync
//!   covers everything that arrived while the last one ran (group commit).
//! - A batch is handed to the flusher after its requests are answered, and in order.
//!
//! **Roles.** The shard thread owns its ring consumer, builders and segment files. It talks
//! neither to DuckDB nor to HTTP.
//!
//! **Limits.** A batch closes at `batch_rows` and `batch_bytes`, checked between requests. When
//! the flusher's queue is full the shard waits, its ring fills, and requests are refused.

mod batch;

pub use batch::BatchBuilder;

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use ringlake_event::Record;
use ringlake_ring::{Consumer, Gauge, Waker};

use crate::accounting::Tally;
use crate::ack::{NotDurable, Settler};
use crate::config::LogConfig;
use crate::hot::{LogBatch, Marker, Message, Queue};
use crate::log::Log;
use crate::metrics::Operations;

/// How long an idle shard sleeps before it looks around; a push or a marker wakes it at once.
const IDLE_SLEEP: Duration = Duration::from_secs(1);

/// What others may know about a shard, and the two things they may ask of it.
#[derive(Debug)]
pub(crate) struct ShardState {
    /// Its number.
    pub shard: u32,
    /// The event counters of the shard and its serving loop.
    pub tally: Tally,
    /// How full the ring is.
    pub gauge: Gauge,
    /// Wakes the shard thread.
    pub waker: Waker,
    /// Written by the shard: the highest number given out.
    pub last_sequence: AtomicI64,
    /// Written by the shard: the highest durable number.
    pub durable_sequence: AtomicI64,
    /// Written by the roller: everything up to this number is in the lake.
    pub released: AtomicI64,
    /// Written by the shard: bytes and number of its segments.
    pub log_bytes: AtomicU64,
    pub log_segments: AtomicU64,
    /// Written by the shard: numbers declared void.
    pub void: AtomicU64,
    /// Why the log cannot be written, while it cannot.
    pub log_problem: Mutex<Option<String>>,
    /// Set to make the shard drain its ring and end.
    pub stop: AtomicBool,
}

impl ShardState {
    pub(crate) fn new(shard: u32, gauge: Gauge, waker: Waker) -> Self {
        Self {
            shard,
            tally: Tally::default(),
            gauge,
            waker,
            last_sequence: AtomicI64::new(0),
            durable_sequence: AtomicI64::new(0),
            released: AtomicI64::new(0),
            log_bytes: AtomicU64::new(0),
            log_segments: AtomicU64::new(0),
            void: AtomicU64::new(0),
            log_problem: Mutex::new(None),
            stop: AtomicBool::new(false),
        }
    }

    /// Says that the lake holds everything up to `sequence`.
    pub(crate) fn release(&self, sequence: i64) {
        // Relaxed: the number is all there is; the Delta commit it stands for is on disk.
        self.released.fetch_max(sequence, Ordering::Relaxed);
        self.waker.wake();
    }

    /// Why the log cannot be written, while it cannot.
    pub(crate) fn log_problem(&self) -> Option<String> {
        self.log_problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_log_problem(&self, problem: Option<String>) {
        *self.log_problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }
}

/// The shard thread's belongings.
#[derive(Debug)]
pub(crate) struct Shard {
    pub consumer: Consumer,
    pub log: Log,
    pub settler: Settler,
    pub queue: Queue,
    pub state: Arc<ShardState>,
    pub operations: Arc<Operations>,
    pub markers: Receiver<Arc<Marker>>,
    pub limits: LogConfig,
    /// The number that the next event gets.
    pub next_sequence: i64,
}

/// What one pass over the ring brought.
#[derive(Debug, Default)]
struct Gathered {
    requests: u64,
    bytes: usize,
    /// The last record of the pass is not one that we write: its request fails alone.
    malformed: bool,
}

/// A marker on its way through the shard: it goes on once everything that was in the ring when it
/// came has been committed.
#[derive(Debug)]
struct Held {
    marker: Arc<Marker>,
    bytes_ahead: usize,
}

impl Shard {
    /// Runs until told to stop; then the ring is empty and everything in it answered.
    pub(crate) fn run(mut self) {
        let mut builder = BatchBuilder::new();
        let mut settled = 0_u64;
        let mut stuck_at = 0;
        let mut held: Vec<Held> = Vec::new();
        self.publish_log_size();
        loop {
            // Acquire: pairs with the Release store in `Engine::shutdown`; read before the ring,
            // so that what was pushed before the request to stop is drained.
            let stop = self.state.stop.load(Ordering::Acquire) || self.consumer.is_abandoned();
            held.extend(
                self.markers
                    .try_iter()
                    .map(|marker| Held { marker, bytes_ahead: self.state.gauge.used_bytes() }),
            );
            let gathered = self.gather(&mut builder);
            if gathered.requests > 0 {
                self.commit(&mut builder, &gathered, &mut settled);
                // On a busy core this lets the serving loop send the answers and take the next
                // requests, so that the next sync covers more of them.
                std::thread::yield_now();
            }
            self.forward(&mut held, &gathered);
            // Relaxed: see `ShardState::release`.
            let released = self.state.released.load(Ordering::Relaxed);
            // A segment may also become releasable by being closed. One that could not be removed
            // is tried again after the next roll.
            if self.log.can_release(released) && released > stuck_at {
                stuck_at = if self.release_segments(released) { 0 } else { released };
            }
            if gathered.requests == 0 {
                if stop {
                    break;
                }
                if held.is_empty() && self.markers.is_empty() {
                    self.consumer.park(IDLE_SLEEP);
                }
            }
        }
    }

    fn gather(&mut self, builder: &mut BatchBuilder) -> Gathered {
        let mut gathered = Gathered::default();
        while builder.rows() < self.limits.batch_rows && gathered.bytes < self.limits.batch_bytes {
            let Some(bytes) = self.consumer.next() else { break };
            gathered.requests += 1;
            gathered.bytes += bytes.len();
            match Record::parse(bytes) {
                Ok(record) => builder.append(&record),
                Err(error) => {
                    tracing::error!(shard = self.state.shard, %error, "a ring record is malformed; its request fails");
                    gathered.malformed = true;
                    break;
                }
            }
        }
        if gathered.requests > 0 {
            self.consumer.release();
        }
        gathered
    }

    fn commit(&mut self, builder: &mut BatchBuilder, gathered: &Gathered, settled: &mut u64) {
        let sound = *settled + gathered.requests - u64::from(gathered.malformed);
        *settled += gathered.requests;
        if builder.rows() > 0 {
            self.commit_batch(builder, sound);
        }
        // A request without events has nothing to wait for.
        self.settler.settle(sound, Ok(()));
        self.settler.settle(*settled, Err(NotDurable));
    }

    fn commit_batch(&mut self, builder: &mut BatchBuilder, ticket: u64) {
        let first = self.next_sequence;
        let (batch, bytes) = builder.finish();
        let rows = batch.num_rows();
        let last = first + i64::try_from(rows).unwrap_or(i64::MAX) - 1;
        self.next_sequence = last + 1;
        // Relaxed: statistics, this thread is the only writer.
        self.state.last_sequence.store(last, Ordering::Relaxed);
        let began = Instant::now();
        let appended = self.log.append(&batch, first);
        self.operations.log.observe(began.elapsed());
        match appended {
            Ok(_) => {
                // Relaxed: statistics, as above.
                self.state.durable_sequence.store(last, Ordering::Relaxed);
                self.state.tally.store(rows);
                self.state.set_log_problem(None);
                self.settler.settle(ticket, Ok(()));
                let shard = self.state.shard;
                self.queue.send(LogBatch { shard, first, batch, bytes, durable: began });
            }
            Err(error) => {
                let problem = crate::error::chain(&error);
                tracing::error!(shard = self.state.shard, first, last, %problem, "a batch could not be made durable; its requests fail");
                self.state.tally.lose(rows);
                self.state.set_log_problem(Some(problem));
                let voids = self.log.voids().iter().map(|void| void.end() - void.start() + 1);
                // Relaxed: statistics, as above.
                self.state.void.store(voids.sum::<i64>().unsigned_abs(), Ordering::Relaxed);
                self.settler.settle(ticket, Err(NotDurable));
            }
        }
        self.publish_log_size();
    }

    /// Sends markers on whose turn has come.
    fn forward(&mut self, held: &mut Vec<Held>, gathered: &Gathered) {
        for waiting in held.iter_mut() {
            waiting.bytes_ahead = waiting.bytes_ahead.saturating_sub(gathered.bytes);
        }
        let empty = gathered.requests == 0;
        for ready in held.extract_if(.., |waiting| empty || waiting.bytes_ahead == 0) {
            self.queue.send_message(Message::Marker(ready.marker));
        }
    }

    /// False when a segment could not be removed.
    fn release_segments(&mut self, sequence: i64) -> bool {
        let released = self.log.release(sequence);
        if let Err(error) = &released {
            let error = crate::error::chain(error);
            tracing::warn!(shard = self.state.shard, error, "a log segment stays for now");
        }
        self.publish_log_size();
        released.is_ok()
    }

    fn publish_log_size(&self) {
        let (bytes, segments) = self.log.size();
        // Relaxed: statistics, this thread is the only writer.
        self.state.log_bytes.store(bytes, Ordering::Relaxed);
        self.state.log_segments.store(segments as u64, Ordering::Relaxed);
    }
}

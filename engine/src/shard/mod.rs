//! The shard: one thread that turns ring records into durable, numbered batches.
//!
//! **Guarantees**
//! - Events get dense, increasing numbers in the order of the ring.
//! - A request's events are in one frame of the log, those that are known already left out: a crash
//!   stores a request whole or not at all.
//! - A batch closes as soon as the previous sync has returned and something is there: one sync
//!   covers everything that arrived while the last one ran (group commit).
//! - A batch is handed to the flusher after its requests are answered, and in order.
//! - The shard never stops for another one while it has read what others may wait for. A request
//!   that repeats an id which another shard is just writing waits beside the ring.
//!
//! **Roles.** The shard thread owns its ring consumer, builders and segment files. It talks
//! neither to DuckDB nor to HTTP.
//!
//! **Limits.** A batch closes at `batch_rows` and `batch_bytes`, checked between requests. When
//! the flusher's queue is full the shard waits, its ring fills, and requests are refused. Requests
//! that wait for another shard are bounded too, with the same consequence.
//!
//! **Failure.** A batch that the log does not take fails its requests, and its numbers are void.
//! Events are refused then until the log has come back by itself, see `mend.rs`. While disk or log
//! are at their caps the shard lets go of every byte of log that the lake holds.

mod batch;
mod held;
mod intake;
mod mend;
mod scrub;

pub use batch::BatchBuilder;
pub use intake::{Intake, Late, Taken};
pub(crate) use mend::Mending;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use ringlake_ring::{Consumer, Gauge, Waker};

use crate::accounting::Tally;
use crate::ack::{Durable, NotDurable, Settler};
use crate::clock::now_micros;
use crate::config::LogConfig;
use crate::hot::{LogBatch, Marker, Message, Queue};
use crate::log::Log;
use crate::metrics::Operations;
use crate::problem::Problem;
use crate::space::Space;

/// How long an idle shard sleeps before it looks around; a push or a marker wakes it at once.
const IDLE_SLEEP: Duration = Duration::from_secs(1);
/// How long a shard that may read no further request waits for a decision before it looks at its
/// other duties.
const FULL_WAIT: Duration = Duration::from_millis(10);

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
    /// Written by the shard: numbers declared void since the start.
    pub void: AtomicU64,
    /// Written by the shard: requests that wait for another shard.
    pub held_requests: AtomicUsize,
    /// Why the log cannot be written, while it cannot. Written by the shard.
    pub log_problem: Problem,
    /// Counts requests to let go of every byte of log that there is; written by the compactor.
    pub scrub_wanted: AtomicU64,
    /// Written by the shard: the last of them that has begun, and the last that has ended.
    pub scrub_begun: AtomicU64,
    pub scrubbed: AtomicU64,
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
            held_requests: AtomicUsize::new(0),
            log_problem: Problem::default(),
            scrub_wanted: AtomicU64::new(0),
            scrub_begun: AtomicU64::new(0),
            scrubbed: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        }
    }

    /// Says that the lake holds everything up to `sequence`.
    pub(crate) fn release(&self, sequence: i64) {
        // Relaxed: the number is all there is; the Delta commit it stands for is on disk.
        self.released.fetch_max(sequence, Ordering::Relaxed);
        self.waker.wake();
    }
}

/// The shard thread's belongings.
#[derive(Debug)]
pub(crate) struct Shard {
    pub consumer: Consumer,
    pub intake: Intake,
    pub log: Log,
    pub settler: Settler,
    pub queue: Queue,
    pub state: Arc<ShardState>,
    pub operations: Arc<Operations>,
    pub markers: Receiver<Arc<Marker>>,
    pub limits: LogConfig,
    pub space: Arc<Space>,
    pub mending: Mending,
    /// The last request to let go of all segments that has begun.
    pub scrubbing: u64,
    /// The number that the next event gets.
    pub next_sequence: i64,
}

/// What one pass over the ring brought.
#[derive(Debug, Default)]
struct Gathered {
    requests: u64,
    bytes: usize,
    /// Nothing was left in the ring.
    emptied: bool,
    /// The last record of the pass is not one that we write: its request fails alone.
    malformed: bool,
}

/// A marker on its way through the shard: it goes on once everything that was in the ring when it
/// came has been committed.
#[derive(Debug)]
struct Passing {
    marker: Arc<Marker>,
    bytes_ahead: usize,
    /// Known when the ring has been read so far: it came after every request up to this ticket.
    after: Option<u64>,
}

impl Shard {
    /// Runs until told to stop; then the ring is empty and everything in it answered.
    pub(crate) fn run(mut self) {
        let mut settled = 0_u64;
        let mut stuck_at = -1;
        let mut passing: Vec<Passing> = Vec::new();
        self.publish_log_size();
        loop {
            // Acquire: pairs with the Release store in `Engine::shutdown`; read before the ring,
            // so that what was pushed before the request to stop is drained.
            let stop = self.state.stop.load(Ordering::Acquire) || self.consumer.is_abandoned();
            passing.extend(self.markers.try_iter().map(|marker| Passing {
                marker,
                bytes_ahead: self.state.gauge.used_bytes(),
                after: None,
            }));
            let gathered = self.gather(settled);
            let moved = gathered.requests > 0 || !self.intake.late().is_empty();
            if moved {
                self.commit(&gathered, &mut settled);
                // On a busy core this lets the serving loop send the answers and take the next
                // requests, so that the next sync covers more of them.
                std::thread::yield_now();
            }
            self.forward(&mut passing, &gathered, settled);
            // Relaxed: see `ShardState::release`.
            let released = self.state.released.load(Ordering::Relaxed);
            let is_short = self.space.is_short();
            if is_short {
                self.log.close_released(released);
            }
            self.begin_scrub();
            // A segment may also become releasable by being closed. One that could not be removed
            // is tried again after the next roll.
            if self.log.can_release(released) && released > stuck_at {
                stuck_at = if self.release_segments(released) { -1 } else { released };
            }
            self.end_scrub();
            self.mend_log();
            self.space.look_if_due();
            if let Some(visitors) = self.intake.builder.visitors() {
                visitors.look_at_clock(now_micros());
            }
            if is_short {
                self.remove_spares();
            }
            if !moved {
                if stop && self.intake.waiting() == 0 {
                    break;
                }
                self.rest();
            }
        }
    }

    /// Sleeps until there is something to do.
    fn rest(&mut self) {
        let without_end = self.intake.waiting() > 0 && self.consumer.is_abandoned();
        if self.intake.is_full() || without_end {
            // The ring would not let the thread sleep: something is in it, or it is abandoned.
            self.intake.wait(FULL_WAIT);
        } else if self.markers.is_empty() {
            // A marker that has been taken from its channel and not sent on is behind a request
            // that waits for another shard; the decision ends the sleep.
            self.consumer.park(self.mending.sleep());
        }
    }

    /// Takes the requests that need not wait any more, and new ones from the ring. `settled` is
    /// the last ticket before those.
    fn gather(&mut self, settled: u64) -> Gathered {
        let Self { consumer, intake, settler, limits, state, .. } = self;
        let mut gathered = Gathered::default();
        intake.retry(limits.batch_rows);
        while intake.builder.rows() < limits.batch_rows
            && gathered.bytes < limits.batch_bytes
            && !intake.is_full()
        {
            let Some(bytes) = consumer.next() else {
                gathered.emptied = true;
                break;
            };
            gathered.requests += 1;
            gathered.bytes += bytes.len();
            let ticket = settled + gathered.requests;
            match intake.take(ticket, bytes) {
                Ok(Taken::InBatch { duplicates: 0 }) => {}
                Ok(Taken::InBatch { duplicates }) => settler.note(ticket, duplicates),
                Ok(Taken::Held) => settler.hold(ticket),
                Err(error) => {
                    tracing::error!(shard = state.shard, %error, "a ring record is malformed; its request fails");
                    gathered.malformed = true;
                    break;
                }
            }
        }
        if gathered.requests > 0 {
            consumer.release();
        }
        // Relaxed: statistics, this thread is the only writer.
        state.held_requests.store(intake.waiting(), Ordering::Relaxed);
        gathered
    }

    fn commit(&mut self, gathered: &Gathered, settled: &mut u64) {
        let sound = *settled + gathered.requests - u64::from(gathered.malformed);
        *settled += gathered.requests;
        if self.intake.builder.rows() > 0 {
            self.commit_batch(sound);
        } else {
            // Nothing to make durable: every event is known.
            self.stored(0, sound);
        }
        self.settler.settle(*settled, Err(NotDurable));
    }

    fn commit_batch(&mut self, ticket: u64) {
        let first = self.next_sequence;
        let (batch, bytes) = self.intake.builder.finish();
        let rows = batch.num_rows();
        let last = first + i64::try_from(rows).unwrap_or(i64::MAX) - 1;
        self.next_sequence = last + 1;
        // Relaxed: statistics, this thread is the only writer.
        self.state.last_sequence.store(last, Ordering::Relaxed);
        let began = Instant::now();
        let appended = self.log.append(&batch, first);
        self.operations.log.observe(began.elapsed());
        match appended {
            Ok(()) => {
                // Relaxed: statistics, as above.
                self.state.durable_sequence.store(last, Ordering::Relaxed);
                self.log_took_a_batch();
                self.stored(rows, ticket);
                let shard = self.state.shard;
                self.queue.send_accepted(LogBatch { shard, first, batch, bytes });
            }
            Err(error) => {
                // Relaxed: statistics, as above.
                self.state.void.fetch_add(rows as u64, Ordering::Relaxed);
                // Before the answers: who is told to come back later must find the gate closed.
                self.log_failed(&error);
                self.lost(rows, ticket);
            }
        }
        self.publish_log_size();
    }

    /// Answers the requests of a batch that is durable: those up to `ticket`, and the late ones.
    fn stored(&mut self, rows: usize, ticket: u64) {
        self.state.tally.store(rows);
        self.state.tally.repeat(self.intake.duplicates());
        // Before the answers: who repeats an id right after one finds it known.
        self.intake.stored();
        self.settler.settle(ticket, Ok(()));
        for late in self.intake.late() {
            self.settler.finish(late.ticket, Ok(Durable { duplicates: late.duplicates }));
        }
    }

    /// Answers the requests of a batch that is lost. A request that is told so sends its duplicates
    /// again too, so that they count as lost with it.
    fn lost(&mut self, rows: usize, ticket: u64) {
        self.state.tally.lose(rows + self.intake.duplicates());
        self.settler.settle(ticket, Err(NotDurable));
        for late in self.intake.late() {
            self.settler.finish(late.ticket, Err(NotDurable));
        }
        self.intake.lost();
    }

    /// Sends markers on whose turn has come: everything before them is committed, the requests that
    /// had to wait for another shard included.
    fn forward(&mut self, passing: &mut Vec<Passing>, gathered: &Gathered, settled: u64) {
        for waiting in passing.iter_mut() {
            waiting.bytes_ahead = waiting.bytes_ahead.saturating_sub(gathered.bytes);
            let read = gathered.emptied || waiting.bytes_ahead == 0;
            if waiting.after.is_none() && read {
                waiting.after = Some(settled);
            }
        }
        let oldest = self.intake.oldest_waiting().unwrap_or(u64::MAX);
        for ready in passing.extract_if(.., |waiting| waiting.after.is_some_and(|to| to < oldest)) {
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

    /// Room that is lacking is worth more than faster syncs.
    fn remove_spares(&mut self) {
        match self.log.remove_spares() {
            Ok(true) => self.space.look(),
            Ok(false) => {}
            Err(error) => {
                let error = crate::error::chain(&error);
                tracing::debug!(shard = self.state.shard, error, "a spare log segment stays");
            }
        }
    }

    fn publish_log_size(&self) {
        let (bytes, segments) = self.log.size();
        // Relaxed: statistics, this thread is the only writer.
        self.state.log_bytes.store(bytes, Ordering::Relaxed);
        self.state.log_segments.store(segments as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

//! The bounded queue from the shards to the flusher.
//!
//! **Limits.** [`BATCHES_MAX`] batches and a configured number of bytes, counted until they have
//! been passed. One batch always fits an empty queue, whatever its size. Recovery waits above
//! either. A shard waits as well while the flusher works; when the flusher or the roller says that
//! it cannot go on, the queue closes the gate for new events instead and takes what the rings still
//! hold, so that every request in them gets its answer. So the queue and all rings together are the
//! bound of what waits in memory. At half of either limit the gate opens again.
//!
//! While a log is replayed the bytes, and the rows of a hot table, are half of what is configured: a
//! replay fills everything at once and for minutes, the table of message ids included, and must not
//! take more memory than any load after it.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow::array::RecordBatch;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::ingest::{Bar, Gate};

/// Batches that may wait. Single-event requests make batches of a few rows, some thousand a
/// second; the flusher looks several times a second, and showing rows to a reader takes up to 100 ms.
const BATCHES_MAX: usize = 4_096;
/// Most rows of a batch in the queue, and of an append: at 204,800 DuckDB's appender commits on its own, and
/// what it has committed would be appended again if the rest failed.
pub(super) const APPEND_ROWS_MAX: usize = 204_799;
/// A shard waits this long for room before it asks whether there will be any.
const STUCK_AFTER: Duration = Duration::from_millis(100);

/// A durable batch of one shard.
#[derive(Debug, Clone)]
pub struct LogBatch {
    /// The shard that numbered it.
    pub shard: u32,
    /// The number of its first row.
    pub first: i64,
    /// Its rows, in the log's schema.
    pub batch: RecordBatch,
    /// Its size in memory.
    pub bytes: usize,
}

impl LogBatch {
    /// The number of its last row.
    #[must_use]
    pub fn last(&self) -> i64 {
        self.first + i64::try_from(self.batch.num_rows()).unwrap_or(i64::MAX) - 1
    }

    /// It, or the parts of it that an append can carry when it has more rows than [`APPEND_ROWS_MAX`]: one
    /// sync may cover more, and so may one request.
    fn parts(self) -> impl Iterator<Item = LogBatch> {
        let (rows, bytes) = (self.batch.num_rows(), self.bytes);
        let mut from = 0;
        std::iter::from_fn(move || {
            let count = APPEND_ROWS_MAX.min(rows - from);
            (count > 0).then(|| {
                let part = LogBatch {
                    first: self.first + i64::try_from(from).unwrap_or(i64::MAX),
                    batch: self.batch.slice(from, count),
                    bytes: if count == rows { bytes } else { bytes / rows * count },
                    ..self
                };
                from += count;
                part
            })
        })
    }
}

/// How far a marker's caller wants everything before it to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// Visible to SQL.
    Visible,
    /// Committed to the table.
    Rolled,
}

/// A request that follows the events through every shard; the flusher acts on it once it has come
/// from all of them.
#[derive(Debug)]
pub(crate) struct Marker {
    pub goal: Goal,
    awaited: AtomicUsize,
    reply: Sender<()>,
}

impl Marker {
    /// A marker to send to `shards` shards, and where its answer comes.
    pub(crate) fn new(goal: Goal, shards: usize) -> (Arc<Self>, Receiver<()>) {
        let (reply, answer) = bounded(1);
        (Arc::new(Self { goal, awaited: AtomicUsize::new(shards), reply }), answer)
    }

    /// Counts one arrival; true for the last one.
    pub(crate) fn arrive(&self) -> bool {
        // Relaxed: the flusher is the only thread that counts.
        self.awaited.fetch_sub(1, Ordering::Relaxed) == 1
    }

    /// Tells the caller, if it still waits, that it has come that far.
    pub(crate) fn answer(&self) {
        let _ = self.reply.try_send(());
    }
}

/// What comes to the flusher.
#[derive(Debug)]
pub(crate) enum Message {
    Batch(LogBatch),
    Marker(Arc<Marker>),
}

/// The sending side; clones share the bounds.
#[derive(Debug, Clone)]
pub(crate) struct Queue {
    /// Bounded by the budget: a channel's own bound could not be lifted.
    sender: Sender<Message>,
    /// Holds at most one a reader.
    asks: Sender<Sender<()>>,
    wake: Wake,
    budget: Arc<Budget>,
}

/// Makes the flusher look. Unlike a [`Queue`] it does not keep the flusher waiting for more.
#[derive(Debug, Clone)]
pub(crate) struct Wake(Sender<()>);

impl Wake {
    /// Makes the flusher look now.
    pub(crate) fn wake(&self) {
        // Full means that a wake is on its way already.
        let _ = self.0.try_send(());
    }
}

/// The flusher's side.
#[derive(Debug)]
pub(crate) struct Receiving {
    pub messages: Receiver<Message>,
    /// Who wants to see what has been passed, and nothing more.
    pub asks: Receiver<Sender<()>>,
    /// Something came when the flusher has to look before its next turn.
    pub wakes: Receiver<()>,
    pub budget: Arc<Budget>,
}

/// What a full queue does to the gate.
pub(crate) struct Overflow {
    /// Closed when the queue is full and nothing leaves it.
    pub gate: Arc<Gate>,
    /// Whether something behind the queue says that it cannot go on.
    pub stuck: Box<dyn Fn() -> bool + Send + Sync>,
}

impl fmt::Debug for Overflow {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Overflow").field("gate", &self.gate).finish_non_exhaustive()
    }
}

/// A queue that holds at most `bytes_max` bytes of batches.
pub(crate) fn queue(bytes_max: usize, overflow: Overflow) -> (Queue, Receiving) {
    let (sender, messages) = unbounded();
    let (asks_sender, asks) = unbounded();
    // One is enough: a flusher that has been woken looks at everything.
    let (wake, wakes) = bounded(1);
    let budget = Arc::new(Budget {
        bytes_max,
        halved: AtomicBool::new(false),
        used: Mutex::default(),
        freed: Condvar::new(),
        overflow,
    });
    let queue = Queue { sender, asks: asks_sender, wake: Wake(wake), budget: Arc::clone(&budget) };
    (queue, Receiving { messages, asks, wakes, budget })
}

impl Queue {
    /// Sends a batch that was accepted before this start; waits while the queue is full.
    pub(crate) fn send(&self, batch: LogBatch) {
        for part in batch.parts() {
            self.put(self.budget.room(part.bytes, OnFull::Wait), part);
        }
    }

    /// Sends a batch that has just been accepted. While the queue is full it waits, or, when there
    /// is nothing to wait for, closes the gate and goes beyond the bound.
    pub(crate) fn send_accepted(&self, batch: LogBatch) {
        for part in batch.parts() {
            self.put(self.budget.room(part.bytes, OnFull::WaitUnlessStuck), part);
        }
    }

    /// The flusher looks by itself in time; it is woken only when much waits. A flusher that is
    /// gone takes nothing: the batch is in the log, and the next start brings it back.
    fn put(&self, mut used: MutexGuard<'_, Used>, batch: LogBatch) {
        used.batches += 1;
        used.bytes += batch.bytes;
        used.rows += batch.batch.num_rows();
        let much = used.bytes >= self.budget.now(self.budget.bytes_max) / 2
            || used.batches >= BATCHES_MAX / 2;
        drop(used);
        let _ = self.sender.send(Message::Batch(batch));
        if much {
            self.wake();
        }
    }

    /// Halves the limits while `replay` runs.
    pub(crate) fn sparingly<T>(&self, replay: impl FnOnce() -> T) -> T {
        // Relaxed, here and below: a limit; nothing is handed over with it.
        self.budget.halved.store(true, Ordering::Relaxed);
        let outcome = replay();
        self.budget.halved.store(false, Ordering::Relaxed);
        outcome
    }

    /// Sends a message that the flusher acts on at once.
    pub(crate) fn send_message(&self, message: Message) {
        let _ = self.sender.send(message);
        self.wake();
    }

    /// Asks for what has been passed, whatever waits here; the answer comes when DuckDB has it or
    /// refuses it.
    pub(crate) fn ask(&self) -> Receiver<()> {
        let (reply, answer) = bounded(1);
        let _ = self.asks.send(reply);
        self.wake();
        answer
    }

    /// Lets every sender through from now on: the flusher is about to end.
    pub(crate) fn lift_bounds(&self) {
        self.budget.lock().lifted = true;
        self.budget.freed.notify_all();
    }

    /// Makes the flusher look now.
    pub(crate) fn wake(&self) {
        self.wake.wake();
    }

    /// What others may have to make the flusher look.
    pub(crate) fn waker(&self) -> Wake {
        self.wake.clone()
    }

    /// What waits now.
    pub(crate) fn waiting(&self) -> Waiting {
        let used = self.budget.lock();
        Waiting { bytes: used.bytes, rows: used.rows }
    }
}

/// What waits in a queue at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub bytes: usize,
    pub rows: usize,
}

/// What a sender does when the queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnFull {
    Wait,
    /// Wait while the flusher works; else close the gate and go on.
    WaitUnlessStuck,
}

/// What waits between the shards and the hot table.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes_max: usize,
    /// A log is being replayed.
    halved: AtomicBool,
    used: Mutex<Used>,
    freed: Condvar,
    overflow: Overflow,
}

#[derive(Debug, Default)]
struct Used {
    batches: usize,
    bytes: usize,
    rows: usize,
    /// The gate is closed; what was accepted before may pass the bound.
    overflowing: bool,
    /// The bound no longer holds.
    lifted: bool,
}

impl Budget {
    /// What a configured limit is now: half of it while a log is replayed.
    pub(crate) fn now(&self, limit: usize) -> usize {
        // Relaxed: see `Queue::sparingly`.
        if self.halved.load(Ordering::Relaxed) { limit / 2 } else { limit }
    }

    /// Waits for room for a batch of `bytes`, as long as `on_full` says.
    fn room(&self, bytes: usize, on_full: OnFull) -> MutexGuard<'_, Used> {
        let mut used = self.lock();
        loop {
            let room = used.batches < BATCHES_MAX && used.bytes + bytes <= self.now(self.bytes_max);
            let beyond = used.lifted || (on_full == OnFull::WaitUnlessStuck && used.overflowing);
            if room || beyond || used.batches == 0 {
                return used;
            }
            let waited = self.freed.wait_timeout(used, STUCK_AFTER);
            let (guard, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            used = guard;
            if timeout.timed_out() && on_full == OnFull::WaitUnlessStuck && (self.overflow.stuck)()
            {
                used.overflowing = true;
                self.overflow.gate.bar(Bar::Backlog);
                let bytes = used.bytes;
                tracing::warn!(bytes, "accepted events cannot be passed on; new ones are refused");
            }
        }
    }

    /// Gives back the room of `batches`, which have been passed.
    pub(crate) fn release(&self, batches: &[LogBatch]) {
        let mut used = self.lock();
        used.batches -= batches.len();
        used.bytes -= batches.iter().map(|batch| batch.bytes).sum::<usize>();
        used.rows -= batches.iter().map(|batch| batch.batch.num_rows()).sum::<usize>();
        let half_empty = used.batches <= BATCHES_MAX / 2 && used.bytes <= self.bytes_max / 2;
        if used.overflowing && half_empty {
            used.overflowing = false;
            self.overflow.gate.lift(Bar::Backlog);
            tracing::info!("accepted events are passed on again; new ones are accepted");
        }
        drop(used);
        self.freed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

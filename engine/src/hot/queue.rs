//! The bounded queue from the shards to the flusher.
//!
//! **Limits.** [`MESSAGES_MAX`] messages and a configured number of bytes; a sender waits above
//! either. One batch always fits an empty queue, whatever its size.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arrow::array::RecordBatch;
use crossbeam_channel::{Receiver, Sender, bounded};

use crate::error::Error;

/// Messages that may wait. Single-event requests make batches of a few rows, some thousand a
/// second; the flusher looks several times a second, and a flush takes up to 100 ms.
const MESSAGES_MAX: usize = 4_096;

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
    /// When it went to the log.
    pub durable: Instant,
}

impl LogBatch {
    /// The number of its last row.
    #[must_use]
    pub fn last(&self) -> i64 {
        self.first + i64::try_from(self.batch.num_rows()).unwrap_or(i64::MAX) - 1
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
    reply: Sender<Result<(), Error>>,
}

impl Marker {
    /// A marker to send to `shards` shards, and where its answer comes.
    pub(crate) fn new(goal: Goal, shards: usize) -> (Arc<Self>, Receiver<Result<(), Error>>) {
        let (reply, answer) = bounded(1);
        (Arc::new(Self { goal, awaited: AtomicUsize::new(shards), reply }), answer)
    }

    /// Counts one arrival; true for the last one.
    pub(crate) fn arrive(&self) -> bool {
        // Relaxed: the flusher is the only thread that counts.
        self.awaited.fetch_sub(1, Ordering::Relaxed) == 1
    }

    /// Answers the caller, if it still waits.
    pub(crate) fn answer(&self, outcome: Result<(), Error>) {
        let _ = self.reply.try_send(outcome);
    }
}

/// What comes to the flusher.
#[derive(Debug)]
pub(crate) enum Message {
    Batch(LogBatch),
    Marker(Arc<Marker>),
    /// End after what came before; flush nothing more.
    Stop,
}

/// The sending side; clones share the bounds.
#[derive(Debug, Clone)]
pub(crate) struct Queue {
    sender: Sender<Message>,
    wakes: Sender<()>,
    budget: Arc<Budget>,
}

/// The flusher's side.
#[derive(Debug)]
pub(crate) struct Receiving {
    pub messages: Receiver<Message>,
    /// Something came when the flusher has to look before its next turn.
    pub wakes: Receiver<()>,
    pub budget: Arc<Budget>,
}

/// A queue that holds at most `bytes_max` bytes of batches.
pub(crate) fn queue(bytes_max: usize) -> (Queue, Receiving) {
    let (sender, messages) = bounded(MESSAGES_MAX);
    // One is enough: a flusher that has been woken looks at everything.
    let (wake, wakes) = bounded(1);
    let budget = Arc::new(Budget {
        bytes_max,
        used: Mutex::new(Used { bytes: 0, lifted: false }),
        freed: Condvar::new(),
    });
    let queue = Queue { sender, wakes: wake, budget: Arc::clone(&budget) };
    (queue, Receiving { messages, wakes, budget })
}

impl Queue {
    /// Sends a batch; waits while the queue is full. The flusher looks by itself in time; it is
    /// woken only when much waits. A flusher that is gone takes nothing: the batch is in the log,
    /// and the next start brings it back.
    pub(crate) fn send(&self, batch: LogBatch) {
        let used = self.budget.take(batch.bytes);
        let _ = self.sender.send(Message::Batch(batch));
        if used >= self.budget.bytes_max / 2 || self.sender.len() >= MESSAGES_MAX / 2 {
            self.wake();
        }
    }

    /// Sends a message that the flusher acts on at once.
    pub(crate) fn send_message(&self, message: Message) {
        let _ = self.sender.send(message);
        self.wake();
    }

    /// Lets every sender through from now on: the flusher is about to end.
    pub(crate) fn lift_bounds(&self) {
        self.budget.lock().lifted = true;
        self.budget.freed.notify_all();
    }

    fn wake(&self) {
        // Full means that a wake is on its way already.
        let _ = self.wakes.try_send(());
    }
}

/// Bytes of batches between the shards and the hot table.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes_max: usize,
    used: Mutex<Used>,
    freed: Condvar,
}

#[derive(Debug)]
struct Used {
    bytes: usize,
    /// The bound no longer holds.
    lifted: bool,
}

impl Budget {
    /// Waits for room for a batch of `bytes`; gives what is used with it.
    fn take(&self, bytes: usize) -> usize {
        let mut used = self.lock();
        while used.bytes > 0 && used.bytes + bytes > self.bytes_max && !used.lifted {
            used = self.freed.wait(used).unwrap_or_else(PoisonError::into_inner);
        }
        used.bytes += bytes;
        used.bytes
    }

    /// Gives back the bytes of a batch that has been passed.
    pub(crate) fn release(&self, bytes: usize) {
        let mut used = self.lock();
        used.bytes = used.bytes.saturating_sub(bytes);
        self.freed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

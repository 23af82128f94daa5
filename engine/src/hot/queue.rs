//! The bounded queue from the shards to the flusher.
//!
//! **Limits.** [`MESSAGES_MAX`] messages and a configured number of bytes; a sender waits above
//! either. One batch always fits an empty queue, whatever its size.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use arrow::array::RecordBatch;
use crossbeam_channel::{Receiver, Sender, bounded};

use crate::error::Error;

/// Messages that may wait. Single-event requests make batches of a few rows, some thousand a
/// second; a flush takes up to 100 ms.
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
    budget: Arc<Budget>,
}

/// A queue that holds at most `bytes_max` bytes of batches.
pub(crate) fn queue(bytes_max: usize) -> (Queue, Receiver<Message>, Arc<Budget>) {
    let (sender, receiver) = bounded(MESSAGES_MAX);
    let budget = Arc::new(Budget { bytes_max, used: Mutex::new(0), freed: Condvar::new() });
    (Queue { sender, budget: Arc::clone(&budget) }, receiver, budget)
}

impl Queue {
    /// Sends a batch; waits while the queue is full. A flusher that is gone takes nothing: the
    /// batch is in the log, and the next start brings it back.
    pub(crate) fn send(&self, batch: LogBatch) {
        self.budget.take(batch.bytes);
        self.send_message(Message::Batch(batch));
    }

    pub(crate) fn send_message(&self, message: Message) {
        let _ = self.sender.send(message);
    }

    /// Lets every sender through from now on: the flusher is about to end.
    pub(crate) fn lift_bounds(&self) {
        self.budget.release(usize::MAX);
    }
}

/// Bytes of batches between the shards and the hot table.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes_max: usize,
    used: Mutex<usize>,
    freed: Condvar,
}

impl Budget {
    fn take(&self, bytes: usize) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        while *used > 0 && *used + bytes > self.bytes_max {
            used = self.freed.wait(used).unwrap_or_else(PoisonError::into_inner);
        }
        *used += bytes;
    }

    /// Gives back the bytes of a batch that has been passed.
    pub(crate) fn release(&self, bytes: usize) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        *used = used.saturating_sub(bytes);
        self.freed.notify_all();
    }
}

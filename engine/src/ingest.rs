//! The front of the engine: what a serving loop holds to hand events in.
//!
//! **Guarantees.** Reserving, writing and committing takes no lock, allocates nothing and makes no
//! system call while the shard is awake. What is not committed was never there.
//!
//! **Roles.** One [`Ingest`] a serving loop, one shard behind each. Bars of the gate are put up and
//! taken away by whoever knows: the engine, `space`, the flusher's queue.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use ringlake_ring::{Producer, ReserveError};

use crate::accounting::{Refusal, Tally};
use crate::ack::{AckSource, Acks, Ticket};
use crate::shard::ShardState;

/// What keeps events out. Each is a bit of the [`Gate`]; the first one that is up is the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bar {
    /// The log is being replayed, or the engine is shutting down.
    Closed = 1,
    /// A file system has less free space than the floor.
    DiskFull = 2,
    /// The logs together are at their cap.
    LogFull = 4,
    /// The last batch could not be written.
    LogBroken = 8,
    /// Nothing can be passed on, and the queue for it is full.
    Backlog = 16,
}

impl Bar {
    const ALL: [Self; 5] =
        [Self::Closed, Self::DiskFull, Self::LogFull, Self::LogBroken, Self::Backlog];

    fn error(self) -> IngestError {
        match self {
            Self::Closed => IngestError::NotReady,
            Self::DiskFull => IngestError::DiskFull,
            Self::LogFull => IngestError::LogFull,
            Self::LogBroken => IngestError::NotDurable,
            Self::Backlog => IngestError::Backlog,
        }
    }
}

/// Whether events may come in. One byte for all loops, read on every request.
#[derive(Debug)]
pub(crate) struct Gate(AtomicU8);

impl Default for Gate {
    fn default() -> Self {
        Self(AtomicU8::new(Bar::Closed as u8))
    }
}

impl Gate {
    /// Takes `bar` away.
    pub(crate) fn lift(&self, bar: Bar) {
        // Relaxed: the shards' state is handed over through the ring, not through the gate.
        self.0.fetch_and(!(bar as u8), Ordering::Relaxed);
    }

    /// Puts `bar` up.
    pub(crate) fn bar(&self, bar: Bar) {
        // Release: whoever sees the bar and looks for its reason finds it; pairs with the fence in
        // `Engine::readiness`. A request that slips through is served like any other.
        self.0.fetch_or(bar as u8, Ordering::Release);
    }

    /// Whether `bar` is up.
    pub(crate) fn has(&self, bar: Bar) -> bool {
        // Relaxed: see `lift`.
        self.0.load(Ordering::Relaxed) & bar as u8 != 0
    }

    /// Whether events may come in.
    ///
    /// # Errors
    /// What keeps them out.
    pub(crate) fn check(&self) -> Result<(), IngestError> {
        // Relaxed: see `lift`.
        let bars = self.0.load(Ordering::Relaxed);
        if bars == 0 {
            return Ok(());
        }
        let first = Bar::ALL.into_iter().find(|bar| bars & *bar as u8 != 0);
        Err(first.unwrap_or(Bar::Closed).error())
    }
}

/// Why a request cannot come in now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IngestError {
    /// The shard's ring has no room; it will in a moment.
    #[error("the ring is full")]
    Full,
    /// The request could never fit the ring.
    #[error("a request of {len} bytes exceeds the {max} bytes that the ring can hold at once")]
    TooLarge {
        /// Bytes asked for.
        len: usize,
        /// The most that can be had.
        max: usize,
    },
    /// The log is being replayed, or the engine is shutting down.
    #[error("not ready to accept events")]
    NotReady,
    /// A disk has less free space than [`DiskConfig`](crate::config::DiskConfig) asks for.
    #[error("the disk is full")]
    DiskFull,
    /// The log is at its cap.
    #[error("the log is full")]
    LogFull,
    /// The log could not be written; the engine tries again by itself.
    #[error("the log cannot be written")]
    NotDurable,
    /// The hot table or the lake takes nothing, and all room for what is accepted is used up.
    #[error("accepted events cannot be passed on")]
    Backlog,
}

impl IngestError {
    /// Under which reason such a request is counted.
    #[must_use]
    pub fn refusal(self) -> Refusal {
        match self {
            Self::Full => Refusal::RingFull,
            Self::TooLarge { .. } => Refusal::TooLarge,
            Self::NotReady => Refusal::NotReady,
            Self::DiskFull => Refusal::DiskFull,
            Self::LogFull => Refusal::LogFull,
            Self::NotDurable => Refusal::NotDurable,
            Self::Backlog => Refusal::Backlog,
        }
    }
}

/// A serving loop's way into its shard.
#[derive(Debug)]
pub struct Ingest {
    producer: Producer,
    committed: u64,
    acks: AckSource,
    gate: Arc<Gate>,
    state: Arc<ShardState>,
}

impl Ingest {
    pub(crate) fn new(
        producer: Producer,
        acks: AckSource,
        gate: Arc<Gate>,
        state: Arc<ShardState>,
    ) -> Self {
        Self { producer, committed: 0, acks, gate, state }
    }

    /// The shard behind this handle.
    #[must_use]
    pub fn shard(&self) -> u32 {
        self.state.shard
    }

    /// The counters that this loop feeds; see [`Tally`].
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.state.tally
    }

    /// Whether half of the ring is free, so that every request that can come in at all may fit.
    #[must_use]
    pub fn is_half_free(&self) -> bool {
        self.state.gauge.used_bytes() <= self.producer.capacity() / 2
    }

    /// Room for one request of at most `len` bytes, as `ringlake_event` writes it.
    ///
    /// # Errors
    /// See [`IngestError`]; nothing waits.
    pub fn reserve(&mut self, len: usize) -> Result<Reservation<'_>, IngestError> {
        self.gate.check()?;
        let bytes = self.producer.try_reserve(len).map_err(|error| match error {
            ReserveError::Full => IngestError::Full,
            ReserveError::TooLarge { len, max } => IngestError::TooLarge { len, max },
            // The shard is gone: the engine has shut down.
            _ => IngestError::NotReady,
        })?;
        Ok(Reservation { bytes, committed: &mut self.committed, tally: &self.state.tally })
    }

    /// The waiting side of acknowledgements. Call it on the loop's thread, once, and clone.
    #[must_use]
    pub fn acks(&self) -> Acks {
        self.acks.acks()
    }
}

/// Room in the ring for one request; dropping it leaves no trace.
#[derive(Debug)]
pub struct Reservation<'a> {
    bytes: ringlake_ring::Reservation<'a>,
    committed: &'a mut u64,
    tally: &'a Tally,
}

impl Reservation<'_> {
    /// The counters of the loop. What is committed has to be counted as received before, so that
    /// the shard cannot count it as stored first.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        self.tally
    }

    /// Hands the first `len` bytes to the shard.
    #[must_use = "the ticket is what to wait for"]
    pub fn commit(self, len: usize) -> Ticket {
        self.bytes.commit(len);
        *self.committed += 1;
        Ticket(*self.committed)
    }
}

impl Deref for Reservation<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Reservation<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

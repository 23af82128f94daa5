//! The front of the engine: what a serving loop holds to hand events in.
//!
//! **Guarantees.** Reserving, writing and committing takes no lock, allocates nothing and makes no
//! system call while the shard is awake. What is not committed was never there.
//!
//! **Roles.** One [`Ingest`] a serving loop, one shard behind each.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ringlake_ring::{Producer, ReserveError};

use crate::accounting::Tally;
use crate::ack::{AckSource, Acks, Ticket};
use crate::shard::ShardState;

/// Whether events may come in. One flag for all loops, read on every request.
#[derive(Debug, Default)]
pub(crate) struct Gate(AtomicBool);

impl Gate {
    pub(crate) fn open(&self) {
        // Relaxed: the shards' state is handed over through the ring, not through the flag.
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn close(&self) {
        // Relaxed: a request that slips through is drained like any other.
        self.0.store(false, Ordering::Relaxed);
    }

    pub(crate) fn is_open(&self) -> bool {
        // Relaxed: see `open`.
        self.0.load(Ordering::Relaxed)
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

    /// Room for one request of at most `len` bytes, as `ringlake_event` writes it.
    ///
    /// # Errors
    /// See [`IngestError`]; nothing waits.
    pub fn reserve(&mut self, len: usize) -> Result<Reservation<'_>, IngestError> {
        if !self.gate.is_open() {
            return Err(IngestError::NotReady);
        }
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

//! The writing end of a ring: reserve, write in place, commit.
//!
//! **Guarantees.** Nothing is visible to the consumer, and nothing changes at all, before
//! [`Reservation::commit`]; a reservation has no destructor because there is nothing to undo.
//!
//! **Roles.** One thread at a time; the only writer of `tail`. It owns every byte of the buffer
//! that is not between `head` and `tail`.

use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use crate::gauge::Gauge;
use crate::record::{self, Header};
use crate::shared::Shared;
use crate::sync::{Arc, Ordering};

/// The writing end of a ring. Made by [`ring`](crate::ring).
///
/// It can move to another thread, but two threads cannot use it at once:
///
/// ```compile_fail
/// fn shared_between_threads<T: Sync>(_: T) {}
/// shared_between_threads(ringlake_ring::ring(4096).0);
/// ```
///
/// Dropping it wakes a parked consumer, which can still read what was committed.
pub struct Producer {
    shared: Arc<Shared>,
    /// Position of the next record. Equal to `shared.tail`, which nobody else writes.
    tail: usize,
    /// The last `shared.head` that was looked at. May be stale (smaller): then there is more room
    /// than it says.
    cached_head: usize,
    /// One thread at a time is what makes `tail` have a single writer.
    not_sync: PhantomData<Cell<()>>,
}

impl Producer {
    pub(crate) fn new(shared: Arc<Shared>, position: usize) -> Self {
        Self { shared, tail: position, cached_head: position, not_sync: PhantomData }
    }

    /// Bytes of the ring.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.shared.storage.capacity()
    }

    /// The longest record in bytes that can ever be reserved: half the capacity less 8. On an empty
    /// ring it always can.
    #[must_use]
    pub fn max_record(&self) -> usize {
        record::longest(self.capacity())
    }

    /// Statistics of this ring, for other threads.
    #[must_use]
    pub fn gauge(&self) -> Gauge {
        Gauge::new(Arc::clone(&self.shared))
    }

    /// Reserves `len` contiguous bytes for one record. Never waits.
    ///
    /// # Errors
    ///
    /// - [`ReserveError::TooLarge`] if `len` is above [`max_record`](Self::max_record).
    /// - [`ReserveError::Abandoned`] if the consumer is gone.
    /// - [`ReserveError::Full`] if there is no room now; after the consumer released enough there
    ///   will be.
    #[inline]
    pub fn try_reserve(&mut self, len: usize) -> Result<Reservation<'_>, ReserveError> {
        let max = self.max_record();
        if len > max {
            return Err(ReserveError::TooLarge { len, max });
        }
        // Relaxed: nothing is handed over. A consumer that goes a moment later finds the same.
        if self.shared.presence.consumer_gone.load(Ordering::Relaxed) {
            return Err(ReserveError::Abandoned);
        }
        let footprint = record::footprint(len);
        let to_end = self.shared.storage.to_end(self.tail);
        let skip = if footprint > to_end { to_end } else { 0 };
        if !self.has_room(skip + footprint) {
            return Err(ReserveError::Full);
        }
        Ok(Reservation { producer: self, skip, len })
    }

    /// Whether `needed` bytes from the tail on are free.
    #[inline]
    fn has_room(&mut self, needed: usize) -> bool {
        if needed <= self.free() {
            return true;
        }
        // Acquire: pairs with the Release store of head in Consumer::release; the consumer's reads
        // below it are over before the bytes are written again.
        self.cached_head = self.shared.head.load(Ordering::Acquire);
        needed <= self.free()
    }

    /// Free bytes as far as the cached head tells.
    fn free(&self) -> usize {
        let used = self.tail.wrapping_sub(self.cached_head);
        debug_assert!(used <= self.capacity());
        self.capacity() - used
    }

    /// Hands the next `bytes` of the buffer to the consumer and wakes it if it sleeps.
    #[inline]
    fn publish(&mut self, bytes: usize) {
        self.tail = self.tail.wrapping_add(bytes);
        // Release: publishes headers and payload below the new tail; pairs with the Acquire load of
        // tail in Consumer::is_empty.
        self.shared.tail.store(self.tail, Ordering::Release);
        self.shared.presence.sleeper.notify();
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        // Release: publishes the last tail; pairs with the Acquire load in Consumer::is_abandoned.
        self.shared.presence.producer_gone.store(true, Ordering::Release);
        self.shared.presence.sleeper.notify();
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("capacity", &self.capacity())
            .field("tail", &self.tail)
            .finish_non_exhaustive()
    }
}

/// Contiguous bytes of the ring, to be written and then committed as one record.
///
/// It dereferences to the reserved bytes. They hold what earlier records left there, not zeros.
/// Dropping it without [`commit`](Self::commit), also by a panic, aborts: there is no record, and
/// the ring is as it was.
#[must_use = "a reservation that is not committed writes no record"]
pub struct Reservation<'a> {
    producer: &'a mut Producer,
    /// Bytes between the tail and the record that a skip marker fills; a multiple of a word.
    skip: usize,
    /// Reserved payload.
    len: usize,
}

impl Reservation<'_> {
    /// Makes the first `len` bytes a record that the consumer can read; the rest of the reservation
    /// is given back. A record of 0 bytes is a record too.
    ///
    /// # Panics
    ///
    /// If `len` exceeds what was reserved; then nothing is committed.
    #[inline]
    pub fn commit(self, len: usize) {
        assert!(len <= self.len, "a reservation of {} bytes cannot commit {len}", self.len);
        let Self { producer, skip, .. } = self;
        let storage = &producer.shared.storage;
        if skip > 0 {
            // SAFETY: the word at the tail is free: try_reserve found room for skip and record. It
            // is the producer's until the tail moves over it, and the payload slices are gone.
            unsafe { storage.set_header(producer.tail, Header::Skip) };
        }
        let start = producer.tail.wrapping_add(skip);
        // SAFETY: as above, for the record's first word.
        unsafe { storage.set_header(start, Header::Record { len }) };
        producer.publish(skip + record::footprint(len));
    }

    /// Position of the first payload byte.
    fn payload(&self) -> usize {
        self.producer.tail.wrapping_add(self.skip).wrapping_add(record::WORD)
    }
}

impl Deref for Reservation<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: try_reserve found these bytes free and in front of the buffer's end. They stay
        // the producer's until commit, which consumes the reservation; it is borrowed here.
        unsafe { self.producer.shared.storage.bytes(self.payload(), self.len) }
    }
}

impl DerefMut for Reservation<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; the reservation is borrowed mutably, so this is the only slice.
        unsafe { self.producer.shared.storage.bytes_mut(self.payload(), self.len) }
    }
}

impl fmt::Debug for Reservation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation").field("len", &self.len).finish_non_exhaustive()
    }
}

/// Why a reservation was refused. The ring is unchanged.
///
/// Written by hand: the crate stays free of procedural macros, so that loom and Miri build it in
/// seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReserveError {
    /// No room until the consumer releases more records.
    Full,
    /// The record could never fit.
    TooLarge {
        /// Bytes asked for.
        len: usize,
        /// Most bytes that this ring can hold in one record.
        max: usize,
    },
    /// The consumer is gone: nobody would read the record.
    Abandoned,
}

impl fmt::Display for ReserveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the ring is full until its consumer releases records"),
            Self::TooLarge { len, max } => {
                write!(f, "a record of {len} bytes exceeds the ring's limit of {max} bytes")
            }
            Self::Abandoned => f.write_str("the consumer of the ring is gone"),
        }
    }
}

impl Error for ReserveError {}

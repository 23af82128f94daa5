//! The reading end of a ring: read many records, release them at once, sleep when there is none.
//!
//! **Roles.** One thread at a time; the only writer of `head`. It owns every byte of the buffer
//! that is between `head` and `tail`.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use crate::park::Waker;
use crate::record::{self, Header};
use crate::shared::Shared;
use crate::sync::{Arc, Ordering};

/// The reading end of a ring. Made by [`ring`](crate::ring).
///
/// It can move to another thread, but two threads cannot use it at once:
///
/// ```compile_fail
/// fn shared_between_threads<T: Sync>(_: T) {}
/// shared_between_threads(ringlake_ring::ring(4096).1);
/// ```
///
/// Dropping it loses the records that are unread and lets the producer know.
pub struct Consumer {
    shared: Arc<Shared>,
    /// Position of the next record to read. Between `released` and `cached_tail`.
    read: usize,
    /// Position up to which room was given back. Equal to `shared.head`, which nobody else writes.
    released: usize,
    /// The last `shared.tail` that was looked at. May be stale (smaller): then there are more
    /// records than it says.
    cached_tail: usize,
    /// One thread at a time is what makes `head` have a single writer.
    not_sync: PhantomData<Cell<()>>,
}

impl Consumer {
    pub(crate) fn new(shared: Arc<Shared>, position: usize) -> Self {
        Self {
            shared,
            read: position,
            released: position,
            cached_tail: position,
            not_sync: PhantomData,
        }
    }

    /// The next committed record, or `None` if there is none now. Never waits.
    ///
    /// Its bytes stay valid until the next call on this consumer. Its room stays occupied until
    /// [`release`](Self::release).
    #[inline]
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator cannot lend items that borrow from itself"
    )]
    pub fn next(&mut self) -> Option<&[u8]> {
        if self.is_empty() {
            return None;
        }
        let len = loop {
            debug_assert_ne!(self.read, self.cached_tail, "a skip comes with its record");
            // SAFETY: `read` is below a tail that was acquired, on a record's or a skip's first
            // word, which the producer wrote before it published that tail and does not touch
            // again before `release` has moved head over it.
            match unsafe { self.shared.storage.header(self.read) } {
                Header::Record { len } => break len,
                Header::Skip => {
                    self.read = self.read.wrapping_add(self.shared.storage.to_end(self.read));
                }
            }
        };
        let payload = self.read.wrapping_add(record::WORD);
        self.read = self.read.wrapping_add(record::footprint(len));
        debug_assert!(self.read.wrapping_sub(self.released) <= self.shared.storage.capacity());
        // SAFETY: as for the header. The producer laid the payload out in front of the buffer's
        // end. `release` takes `&mut self`, so it cannot run while the slice is borrowed.
        Some(unsafe { self.shared.storage.bytes(payload, len) })
    }

    /// Gives the room of every record read so far back to the producer, with one store.
    #[inline]
    pub fn release(&mut self) {
        if self.released == self.read {
            return;
        }
        self.released = self.read;
        // Release: the reads of these bytes are over before the producer writes them again; pairs
        // with the Acquire load of head in Producer::try_reserve.
        self.shared.head.store(self.read, Ordering::Release);
    }

    /// Whether every committed record has been read.
    #[inline]
    pub fn is_empty(&mut self) -> bool {
        if self.read != self.cached_tail {
            return false;
        }
        // Acquire: pairs with the Release store of tail in Reservation::commit; headers and
        // payload below it are visible.
        self.cached_tail = self.shared.tail.load(Ordering::Acquire);
        self.read == self.cached_tail
    }

    /// Whether the producer is gone. Records may still be unread, but once this was true no new
    /// ones come: `is_abandoned() && is_empty()`, in this order, means the end.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        // Acquire: pairs with the Release store in the drop of Producer; the next look at tail
        // sees the last one.
        self.shared.presence.producer_gone.load(Ordering::Acquire)
    }

    /// Sleeps until there is something to do, for at most `timeout`.
    ///
    /// Returns at once if a record is unread, a wake is pending or the producer is gone; else when
    /// one of them happens or the time is over. It may also return for no reason. The pending wake,
    /// if there was one, is used up by the return.
    ///
    /// [`release`](Self::release) before: a sleeping consumer gives no room back.
    pub fn park(&mut self, timeout: Duration) {
        let sleeper = &self.shared.presence.sleeper;
        if !self.must_stay_awake() {
            sleeper.sleep(timeout, || self.must_stay_awake());
        }
        sleeper.take_pending();
    }

    /// Ends a park from another thread.
    #[must_use]
    pub fn waker(&self) -> Waker {
        Waker::new(Arc::clone(&self.shared))
    }

    /// Whether there is a reason not to sleep. All loads are Relaxed: nothing is read through them,
    /// what follows the park looks again; `Sleeper::sleep` orders them by its barrier.
    fn must_stay_awake(&self) -> bool {
        let presence = &self.shared.presence;
        self.shared.tail.load(Ordering::Relaxed) != self.read
            || presence.sleeper.is_pending()
            || presence.producer_gone.load(Ordering::Relaxed)
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        // Relaxed: nothing is handed over; the memory itself is kept by the producer's share.
        self.shared.presence.consumer_gone.store(true, Ordering::Relaxed);
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("capacity", &self.shared.storage.capacity())
            .field("read", &self.read)
            .field("released", &self.released)
            .finish_non_exhaustive()
    }
}

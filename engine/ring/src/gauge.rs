//! A look at how full a ring is, for metrics.

use std::fmt;

use crate::shared::Shared;
use crate::sync::{Arc, Ordering};

/// How full a ring is, readable from any thread.
///
/// Statistics only: the answer is old when it arrives, and neither end may act on it. A gauge keeps
/// the ring's memory alive.
#[derive(Clone)]
pub struct Gauge {
    shared: Arc<Shared>,
}

impl Gauge {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Bytes of the ring that hold committed and not yet released records, with their headers,
    /// padding and skips. From 0 to [`capacity`](Self::capacity).
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        // Acquire: pairs with the Release store of head in Consumer::release, which came after the
        // consumer saw a tail at or above it. So the tail loaded next cannot lie below this head.
        let head = self.shared.head.load(Ordering::Acquire);
        // Relaxed: a number for statistics; no record is read through it.
        let tail = self.shared.tail.load(Ordering::Relaxed);
        // Both sides may have moved between the loads, so that the distance can exceed what was
        // ever in the ring at once.
        tail.wrapping_sub(head).min(self.capacity())
    }

    /// Bytes of the ring.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.shared.storage.capacity()
    }
}

impl fmt::Debug for Gauge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gauge")
            .field("used_bytes", &self.used_bytes())
            .field("capacity", &self.capacity())
            .finish()
    }
}

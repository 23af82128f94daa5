//! What the two ends of a ring share: the buffer, the two positions, and the rarely written rest.
//!
//! **Layout.** Three cache lines that different threads write. `tail` and `head` change with every
//! record and every release. The rest changes when the consumer goes to sleep or a side ends; both
//! sides read it all the time, and so it must not lie beside a position.

use crossbeam_utils::CachePadded;

use crate::park::Sleeper;
use crate::storage::Storage;
use crate::sync::{AtomicBool, AtomicUsize};

/// One ring.
pub(crate) struct Shared {
    /// The bytes between `head` and `tail` belong to the consumer, all others to the producer.
    pub(crate) storage: Storage,
    /// Position of the next record to be written. Written by the producer only; multiple of a
    /// word; at most one capacity above `head`. The consumer's view of it may be stale (smaller).
    pub(crate) tail: CachePadded<AtomicUsize>,
    /// Position up to which the consumer has released. Written by the consumer only; multiple of a
    /// word; never above `tail`. The producer's view of it may be stale (smaller).
    pub(crate) head: CachePadded<AtomicUsize>,
    /// Sleep and the end of either side.
    pub(crate) presence: CachePadded<Presence>,
}

/// Who is there, and who is awake.
pub(crate) struct Presence {
    /// Where the consumer sleeps.
    pub(crate) sleeper: Sleeper,
    /// Written once, to true, by the drop of the producer.
    pub(crate) producer_gone: AtomicBool,
    /// Written once, to true, by the drop of the consumer.
    pub(crate) consumer_gone: AtomicBool,
}

impl Shared {
    pub(crate) fn new(capacity: usize, position: usize) -> Self {
        Self {
            storage: Storage::new(capacity),
            tail: CachePadded::new(AtomicUsize::new(position)),
            head: CachePadded::new(AtomicUsize::new(position)),
            presence: CachePadded::new(Presence {
                sleeper: Sleeper::new(),
                producer_gone: AtomicBool::new(false),
                consumer_gone: AtomicBool::new(false),
            }),
        }
    }
}

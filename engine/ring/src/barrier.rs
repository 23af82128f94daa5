//! An asymmetric fence: the side that passes often pays nothing, the side that passes seldom pays
//! for both.
//!
//! Two threads that each store and then load what the other stores need a full fence in between,
//! or both may miss the other's store. A full fence waits until the processor's stores have reached
//! the cache, which costs a producer more than the copy of a small record. Linux can run that fence
//! on every running thread of the process on behalf of one of them (`membarrier(2)`, command
//! `PRIVATE_EXPEDITED`): then the producer has only to keep the compiler from reordering.
//!
//! **Guarantees.** Of a [`light`](Barrier::light) and a [`heavy`](Barrier::heavy) one comes first,
//! as if both were `SeqCst` fences: what is stored before the first is seen by loads after the
//! second. A light one between a store and a load falls, on the producer's processor, before or
//! after the fence that the heavy one causes there. If it falls before, the store is in the cache
//! when the heavy one returns; if after, the load comes after the heavy one began. A thread that is
//! not running has passed a full fence when it was switched out.
//!
//! **Not guaranteed.** That it is cheap: a heavy one is a system call and interrupts the processors
//! that run a thread of this process, 1 to 2 µs each. Where the kernel has no such call or refuses
//! it, and under Miri and loom, which know nothing of it, both are `SeqCst` fences.

use crate::sync::{Ordering, fence};

/// One way to order two threads; decided once, when the ring is made.
#[derive(Clone, Copy)]
pub(crate) struct Barrier {
    /// Whether the kernel fences for us.
    asymmetric: bool,
}

impl Barrier {
    pub(crate) fn new() -> Self {
        Self { asymmetric: kernel::register() }
    }

    /// The frequent side.
    #[inline]
    pub(crate) fn light(self) {
        if self.asymmetric {
            // SeqCst compiler fence: pairs with the kernel's fence in `heavy`.
            std::sync::atomic::compiler_fence(Ordering::SeqCst);
        } else {
            // SeqCst fence: pairs with the one in `heavy`.
            fence(Ordering::SeqCst);
        }
    }

    /// The seldom side.
    pub(crate) fn heavy(self) {
        // SeqCst fence: pairs with the one in `light`. Where the kernel fences it is not needed for
        // the order of this thread, but beside a system call it costs nothing.
        fence(Ordering::SeqCst);
        if self.asymmetric {
            kernel::fence_all_threads();
        }
    }
}

#[cfg(all(target_os = "linux", not(miri), not(engine_loom)))]
mod kernel {
    use std::sync::LazyLock;

    use rustix::thread::{MembarrierCommand, membarrier};

    /// Registers the process once; whether the kernel will fence for it.
    pub(super) fn register() -> bool {
        static REGISTERED: LazyLock<bool> =
            LazyLock::new(|| membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok());
        *REGISTERED
    }

    /// A full fence on every thread of this process that runs.
    pub(super) fn fence_all_threads() {
        let fenced = membarrier(MembarrierCommand::PrivateExpedited);
        // The only refusals are of commands that are unknown or not registered for. A process that
        // took a filter of system calls after its start would be stopped here, not go on unfenced.
        assert!(fenced.is_ok(), "membarrier worked when this ring was made: {fenced:?}");
    }
}

#[cfg(not(all(target_os = "linux", not(miri), not(engine_loom))))]
mod kernel {
    pub(super) fn register() -> bool {
        false
    }

    pub(super) fn fence_all_threads() {}
}

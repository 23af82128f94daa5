//! The place where the consumer sleeps, and the ways to wake it.
//!
//! **Guarantees.** A sleeper costs no processor time. A notifier that finds nobody asleep makes no
//! system call. No wake-up is lost: see the two cases at [`Sleeper::sleep`].
//!
//! **Not guaranteed.** That every return from sleep has a reason: the handle that a slow notifier
//! took may be unparked when its owner has long been awake, which ends that thread's next park.
//!
//! **Algorithm.** To announce its sleep the consumer puts a boxed handle of its thread into an
//! atomic pointer. Whoever swaps the pointer back to null owns the box: a notifier, which unparks
//! the thread, or the consumer itself, which then knows that nobody will. There is no state in
//! which one side waits for the other.
//!
//! **Ordering.** Both words change by `AcqRel` swaps only. Half of each would do for what the swaps
//! hand over. The other half costs nothing beside a sleep, and it puts all changes of a word into
//! one happens-before chain: loom 0.7 lets a plain or half-ordered write slip in front of a swap
//! that did not see it (tokio-rs/loom#254) and then reports wake-ups as lost that cannot be.

use std::fmt;
use std::ptr;
use std::time::Duration;

use crate::barrier::Barrier;
use crate::shared::Shared;
use crate::sync::{Arc, AtomicBool, AtomicPtr, Ordering, Thread, current, park_timeout};

/// Where one consumer sleeps.
pub(crate) struct Sleeper {
    /// Null: awake, or about to be unparked. Else a box that belongs to who swaps it out. Set by
    /// the consumer only; nulled by anyone.
    thread: AtomicPtr<Thread>,
    /// A wake that no park has returned for yet. Set by wakers, cleared by the consumer.
    pending: AtomicBool,
    /// Orders notifiers, who come with every record, and a consumer about to sleep.
    barrier: Barrier,
}

impl Sleeper {
    pub(crate) fn new() -> Self {
        Self {
            thread: AtomicPtr::new(ptr::null_mut()),
            pending: AtomicBool::new(false),
            barrier: Barrier::new(),
        }
    }

    /// Ends the consumer's sleep if there is one. The caller has published the reason before: a
    /// record, a pending wake, the producer's end.
    #[inline]
    pub(crate) fn notify(&self) {
        // Between the publication and the look for a sleeper; see `sleep`.
        self.barrier.light();
        // Relaxed: only a hint whether to call `rouse`, which looks again; the barrier orders it.
        if !self.thread.load(Ordering::Relaxed).is_null() {
            self.rouse();
        }
    }

    /// Takes the sleeper's handle and unparks it. Apart from [`notify`](Self::notify), which sits
    /// on the hot path and is inlined there.
    #[cold]
    fn rouse(&self) {
        // Acquire: pairs with the Release of the swap in `sleep`, hands over the box. Of several
        // notifiers one gets it; the others have nothing left to do. Release: see Ordering above.
        let thread = self.thread.swap(ptr::null_mut(), Ordering::AcqRel);
        if thread.is_null() {
            return;
        }
        // SAFETY: not null, so it came from Box::into_raw in `sleep`, and the swap took it out of
        // the only place where it was: nobody else frees it.
        let thread = unsafe { Box::from_raw(thread) };
        thread.unpark();
    }

    /// Leaves a wake that ends the current or the next park, then ends the current sleep.
    pub(crate) fn wake(&self) {
        // Release: publishes what this thread wrote before; pairs with the Acquire of the swap in
        // `take_pending`. A swap and not a store, so that it also passes on what earlier wakes
        // before the same park have published. Acquire: see Ordering above.
        self.pending.swap(true, Ordering::AcqRel);
        self.notify();
    }

    /// Whether a wake is waiting for a park to return.
    pub(crate) fn is_pending(&self) -> bool {
        // Relaxed: decides only whether to sleep. `sleep` orders it by its barrier, and
        // `take_pending` acquires what the wake hands over.
        self.pending.load(Ordering::Relaxed)
    }

    /// Forgets a pending wake: the park that it was for returns.
    pub(crate) fn take_pending(&self) {
        if self.is_pending() {
            // Acquire: pairs with the Release of the swap in `wake`; what the wakers wrote before
            // it is visible after the park. Release: see Ordering above.
            self.pending.swap(false, Ordering::AcqRel);
        }
    }

    /// Blocks until a notifier comes, `timeout` is over, or the system wakes the thread for no
    /// reason; not at all if `must_stay_awake` says so after the sleep was announced. Called by the
    /// consumer only.
    ///
    /// No wake-up is lost. The two sides do
    ///
    /// ```text
    /// notifier: publish a reason;  light barrier N;  load thread       (notify)
    /// consumer: set thread;        heavy barrier C;  load the reasons  (sleep)
    /// ```
    ///
    /// and of a light and a heavy [`Barrier`] one comes first:
    /// - If N comes first, the consumer's loads after C see the reason: it does not park.
    /// - If C comes first, the notifier's load after N sees the handle, or the null of a later swap
    ///   by another notifier, which then unparks, or by the consumer, which is then awake. The
    ///   unpark leaves a token if it comes before the park, which makes that return at once.
    ///
    /// The null that ended an earlier sleep cannot deceive a notifier in the second case: it comes
    /// before this announcement in the order of the pointer's changes.
    pub(crate) fn sleep(&self, timeout: Duration, must_stay_awake: impl FnOnce() -> bool) {
        let thread = Box::into_raw(Box::new(current()));
        // Release: publishes the box; pairs with the Acquire of the swap in `rouse`. Acquire: see
        // Ordering above.
        let earlier = self.thread.swap(thread, Ordering::AcqRel);
        debug_assert!(earlier.is_null(), "every sleep takes its own announcement back");
        // Between the announcement and the look for reasons.
        self.barrier.heavy();
        if !must_stay_awake() {
            park_timeout(timeout);
        }
        // AcqRel: null, or the box of this very thread, so nothing is handed over; see Ordering
        // above.
        let thread = self.thread.swap(ptr::null_mut(), Ordering::AcqRel);
        if !thread.is_null() {
            // SAFETY: as in `rouse`; the swap has shut out every notifier.
            drop(unsafe { Box::from_raw(thread) });
        }
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        // Relaxed: `&mut self`, no other thread is left. Only a panic inside `sleep` leaves a box.
        let thread = self.thread.load(Ordering::Relaxed);
        if !thread.is_null() {
            // SAFETY: not null, so it is a box that nobody has swapped out, as in `rouse`.
            drop(unsafe { Box::from_raw(thread) });
        }
    }
}

/// Ends the park of a [`Consumer`](crate::Consumer) from any thread.
///
/// A waker keeps the ring's memory alive.
#[derive(Clone)]
pub struct Waker {
    shared: Arc<Shared>,
}

impl Waker {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Makes the current or the next [`Consumer::park`](crate::Consumer::park) return. Several
    /// wakes before one return count as one.
    ///
    /// What this thread wrote before the call is visible to the consumer after that return. A
    /// system call only if the consumer is asleep. Without effect once the consumer is gone.
    pub fn wake(&self) {
        self.shared.presence.sleeper.wake();
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waker").finish_non_exhaustive()
    }
}

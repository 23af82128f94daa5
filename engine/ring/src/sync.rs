//! The facade over atomics and threads: std, or loom when built with `--cfg engine_loom`.
//!
//! **Not guaranteed.** Loom has no clock. Its `park_timeout` of no time at all is over at once, which
//! may be at any moment of the other threads; any longer one never times out, which makes a lost
//! wake-up a deadlock that loom reports. It treats `SeqCst` accesses as `AcqRel`; the crate uses
//! `SeqCst` fences only, which it models.

pub(crate) use imp::{
    Arc, AtomicBool, AtomicPtr, AtomicUsize, Ordering, Shadow, Thread, current, fence, park_timeout,
};

#[cfg(not(engine_loom))]
mod imp {
    pub(crate) use std::sync::Arc;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering, fence};
    pub(crate) use std::thread::{Thread, current, park_timeout};

    /// Nothing: only loom has to be told about accesses.
    pub(crate) struct Shadow;

    impl Shadow {
        pub(crate) fn new(_words: usize) -> Self {
            Self
        }

        #[inline(always)]
        pub(crate) fn touch(&self, _first: usize, _count: usize, _write: bool) {}
    }
}

#[cfg(engine_loom)]
mod imp {
    use std::time::Duration;

    pub(crate) use loom::sync::Arc;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering, fence};
    pub(crate) use loom::thread::{Thread, current};

    pub(crate) fn park_timeout(timeout: Duration) {
        if !timeout.is_zero() {
            loom::thread::park();
        }
    }

    /// One cell a word. Loom checks that accesses to a cell are ordered by happens-before, as if
    /// they were the accesses to the word itself.
    pub(crate) struct Shadow(Box<[loom::cell::UnsafeCell<()>]>);

    impl Shadow {
        pub(crate) fn new(words: usize) -> Self {
            Self((0..words).map(|_| loom::cell::UnsafeCell::new(())).collect())
        }

        pub(crate) fn touch(&self, first: usize, count: usize, write: bool) {
            for cell in &self.0[first..first + count] {
                if write {
                    cell.with_mut(|_| ());
                } else {
                    cell.with(|_| ());
                }
            }
        }
    }
}

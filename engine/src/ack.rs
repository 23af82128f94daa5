//! Acknowledgements: how a request learns that its events are durable.
//!
//! Requests of one shard are numbered in the order in which they entered its ring (a [`Ticket`]);
//! the shard settles them in that order, a batch at a time. So one number says it all: every
//! ticket up to `settled` has its answer.
//!
//! **Guarantees.** A settled ticket stays settled; `Ok` means that the sync covering it returned.
//! One wake-up a batch, whatever the number of requests in it. A shard that ends settles
//! everything: no request waits for ever.
//!
//! **Roles.** `Settler` belongs to the shard thread. [`Acks`] belongs to the serving loop: it is
//! neither `Send` nor locked, its waiting list is only touched there.
//!
//! **Ordering**
//!
//! | store | load | what it hands over |
//! |---|---|---|
//! | `settled` Release in `Settler::settle` | Acquire in `Shared::outcome` | the failed ranges up to it, the synced log |
//! | `closed` Release in `Settler::drop` | Acquire in `Shared::outcome` | the last value of `settled` |

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_util::task::AtomicWaker;

/// The place of a request in the order of its shard; the first one is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub(crate) u64);

/// The events of a request could not be made durable; they are not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the log could not be written; nothing of this request is stored")]
pub struct NotDurable;

#[derive(Debug, Default)]
struct Shared {
    /// Written by the shard: every ticket up to this one has its answer.
    settled: AtomicU64,
    /// Set when the shard is gone; nothing will be settled any more.
    closed: AtomicBool,
    /// True once anything has failed, so that the lock below is not taken otherwise.
    failures: AtomicBool,
    /// Tickets whose batch was lost, oldest first. Bounded by [`FAILED_RANGES_MAX`].
    failed: Mutex<VecDeque<RangeInclusive<u64>>>,
    /// The serving loop's driver.
    driver: AtomicWaker,
    /// For callers without a runtime: how many wait.
    blocking: Mutex<usize>,
    unblocked: Condvar,
}

/// Failed ranges kept for requests that have not looked yet. A request looks as soon as its loop
/// runs, so that only the newest few matter; the bound only guards against a disk that fails
/// thousands of batches between two polls.
const FAILED_RANGES_MAX: usize = 4_096;

/// The shard's side.
#[derive(Debug)]
pub(crate) struct Settler(Arc<Shared>);

/// What a serving loop clones its [`Acks`] from; may cross threads.
#[derive(Debug, Clone)]
pub(crate) struct AckSource(Arc<Shared>);

/// Both sides of one shard's acknowledgements.
pub(crate) fn channel() -> (Settler, AckSource) {
    let shared = Arc::new(Shared::default());
    (Settler(Arc::clone(&shared)), AckSource(shared))
}

impl Settler {
    /// Answers every ticket up to `last` that has no answer yet.
    pub(crate) fn settle(&mut self, last: u64, outcome: Result<(), NotDurable>) {
        let shared = &self.0;
        // Relaxed: this thread is the only writer.
        let first = shared.settled.load(Ordering::Relaxed) + 1;
        if first > last {
            return;
        }
        if outcome.is_err() {
            let mut failed = lock(&shared.failed);
            if failed.len() == FAILED_RANGES_MAX {
                failed.pop_front();
            }
            failed.push_back(first..=last);
            // Relaxed: published by the Release store of `settled` below.
            shared.failures.store(true, Ordering::Relaxed);
        }
        // Release: pairs with the Acquire load in `Shared::outcome`; hands over the failed ranges.
        shared.settled.store(last, Ordering::Release);
        shared.wake();
    }
}

impl Drop for Settler {
    fn drop(&mut self) {
        // Release: pairs with the Acquire load in `Shared::outcome`; a reader that sees the shard
        // gone also sees its last `settled`.
        self.0.closed.store(true, Ordering::Release);
        self.0.wake();
    }
}

impl Shared {
    fn wake(&self) {
        self.driver.wake();
        // Under the lock a waiter has either not looked yet, or waits and is counted.
        if *lock(&self.blocking) > 0 {
            self.unblocked.notify_all();
        }
    }

    fn outcome(&self, ticket: u64) -> Option<Result<(), NotDurable>> {
        // Acquire: pairs with the Release store in `Settler::drop`. It is loaded first, so that a
        // shard seen as gone has certainly published its last `settled` to the next load.
        let closed = self.closed.load(Ordering::Acquire);
        // Acquire: pairs with the Release store in `Settler::settle`.
        if self.settled.load(Ordering::Acquire) < ticket {
            return closed.then_some(Err(NotDurable));
        }
        // Relaxed: ordered by the Acquire load above.
        if self.failures.load(Ordering::Relaxed)
            && lock(&self.failed).iter().any(|range| range.contains(&ticket))
        {
            return Some(Err(NotDurable));
        }
        Some(Ok(()))
    }
}

impl AckSource {
    /// The waiting side, for the thread that calls.
    pub(crate) fn acks(&self) -> Acks {
        Acks { shared: Arc::clone(&self.0), waiting: Rc::default() }
    }
}

/// The serving loop's side: waits for tickets. Clones share one waiting list.
#[derive(Debug, Clone)]
pub struct Acks {
    shared: Arc<Shared>,
    /// Requests without an answer, by ticket; bounded by the loop's connections.
    waiting: Rc<RefCell<VecDeque<(u64, Waker)>>>,
}

impl Acks {
    /// Waits until the events of `ticket` are durable, or known not to be. Needs
    /// [`Acks::drive`] to run on the same thread.
    pub fn wait(&self, ticket: Ticket) -> Wait {
        Wait { acks: self.clone(), ticket: ticket.0 }
    }

    /// Wakes the waiters of this thread as batches settle; ends when the shard is gone.
    pub async fn drive(self) {
        poll_fn(|context| {
            self.shared.driver.register(context.waker());
            // Acquire: pairs with the Release stores of `Settler`; loaded after the registration,
            // so that a later store wakes this task again.
            let closed = self.shared.closed.load(Ordering::Acquire);
            let settled = self.shared.settled.load(Ordering::Acquire);
            let mut waiting = self.waiting.borrow_mut();
            while waiting.front().is_some_and(|(ticket, _)| closed || *ticket <= settled) {
                if let Some((_, waker)) = waiting.pop_front() {
                    waker.wake();
                }
            }
            if closed { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Blocks the thread until `ticket` is settled; needs no driver.
    ///
    /// # Errors
    /// [`NotDurable`] when its batch was lost or the shard ended.
    pub fn wait_blocking(&self, ticket: Ticket) -> Result<(), NotDurable> {
        let mut waiting = lock(&self.shared.blocking);
        loop {
            if let Some(outcome) = self.shared.outcome(ticket.0) {
                return outcome;
            }
            *waiting += 1;
            waiting = self.shared.unblocked.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            *waiting -= 1;
        }
    }

    fn register(&self, ticket: u64, waker: &Waker) {
        let mut waiting = self.waiting.borrow_mut();
        // Tickets come in order, so that the search nearly always ends at the back.
        let at = waiting.partition_point(|(other, _)| *other < ticket);
        match waiting.get_mut(at) {
            Some((other, old)) if *other == ticket => old.clone_from(waker),
            _ => waiting.insert(at, (ticket, waker.clone())),
        }
    }
}

/// The future of [`Acks::wait`].
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct Wait {
    acks: Acks,
    ticket: u64,
}

impl Future for Wait {
    type Output = Result<(), NotDurable>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(outcome) = self.acks.shared.outcome(self.ticket) {
            return Poll::Ready(outcome);
        }
        // The driver runs on this thread: it cannot have looked between the check and this.
        self.acks.register(self.ticket, context.waker());
        Poll::Pending
    }
}

/// A poisoned lock only says that another thread panicked; the data is a plain list.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use super::*;

    #[test]
    fn a_ticket_is_settled_by_the_batch_that_covers_it() {
        let (mut settler, source) = channel();
        let acks = source.acks();
        settler.settle(3, Ok(()));
        assert_eq!(acks.wait_blocking(Ticket(1)), Ok(()));
        assert_eq!(acks.wait_blocking(Ticket(3)), Ok(()));
        assert_eq!(acks.shared.outcome(4), None);
    }

    #[test]
    fn a_failed_batch_fails_its_tickets_and_no_others() {
        let (mut settler, source) = channel();
        let acks = source.acks();
        settler.settle(2, Ok(()));
        settler.settle(5, Err(NotDurable));
        settler.settle(6, Ok(()));
        let outcomes: Vec<bool> =
            (1..=6).map(|ticket| acks.wait_blocking(Ticket(ticket)).is_ok()).collect();
        assert_eq!(outcomes, [true, true, false, false, false, true]);
    }

    #[test]
    fn a_shard_that_ends_answers_everyone() {
        let (settler, source) = channel();
        let waiter = std::thread::spawn(move || source.acks().wait_blocking(Ticket(1)));
        drop(settler);
        assert_eq!(waiter.join().unwrap(), Err(NotDurable));
    }

    #[test]
    fn waiters_of_a_loop_wake_as_their_batch_settles() {
        let (mut settler, source) = channel();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async {
            let acks = source.acks();
            let driver = tokio::task::spawn_local(acks.clone().drive());
            let waits: Vec<_> =
                (1..=3).map(|ticket| tokio::task::spawn_local(acks.wait(Ticket(ticket)))).collect();
            let shard = std::thread::spawn(move || {
                settler.settle(2, Ok(()));
                drop(settler);
            });
            let mut outcomes = Vec::new();
            for wait in waits {
                outcomes.push(wait.await.unwrap());
            }
            assert_eq!(outcomes, [Ok(()), Ok(()), Err(NotDurable)]);
            driver.await.unwrap();
            shard.join().unwrap();
        });
    }
}

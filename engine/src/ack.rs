//! Acknowledgements: how a request learns that its events are durable.
//!
//! Requests of one shard are numbered in the order in which they entered its ring (a [`Ticket`]);
//! the shard settles them in that order, a batch at a time. So one number says nearly all: every
//! ticket up to `settled` has its answer, "durable", save those of which `Notes` say otherwise:
//! their batch failed, some of their events were known before, or they are held back.
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
//! | `settled` Release in `Settler::settle` | Acquire in `Shared::outcome` | the notes on tickets up to it, the synced log |
//! | `closed` Release in `Settler::drop` | Acquire in `Shared::outcome` | the last value of `settled` |

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::{Future, poll_fn};
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_util::task::AtomicWaker;

/// The place of a request in the order of its shard; the first one is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub(crate) u64);

/// The events of a request are durable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Durable {
    /// How many of them were known by their message id and are not stored again.
    pub duplicates: usize,
}

/// The events of a request could not be made durable; they are not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the log could not be written; nothing of this request is stored")]
pub struct NotDurable;

/// What a ticket's request is told.
type Outcome = Result<Durable, NotDurable>;

#[derive(Debug, Default)]
struct Shared {
    /// Written by the shard: every ticket up to this one has its answer, or a note.
    settled: AtomicU64,
    /// Set when the shard is gone; nothing will be settled any more.
    closed: AtomicBool,
    /// How many notes there are, so that the lock below is not taken when there is none.
    noted: AtomicUsize,
    notes: Mutex<Notes>,
    /// The serving loop's driver.
    driver: AtomicWaker,
    /// For callers without a runtime: how many wait.
    blocking: Mutex<usize>,
    unblocked: Condvar,
}

/// What is to be said of tickets beside "durable, nothing known before".
#[derive(Debug, Default)]
struct Notes {
    /// Tickets whose batch was lost, oldest first. Bounded by [`FAILED_RANGES_MAX`].
    failed: VecDeque<RangeInclusive<u64>>,
    /// Tickets that wait while later ones are settled. Bounded by what the shard holds back.
    held: BTreeSet<u64>,
    /// Single answers, taken by who asks. Bounded by [`ANSWERS_MAX`].
    answers: BTreeMap<u64, Outcome>,
    /// A failure among the tickets up to this one had to make room. Who asks for one of them so late
    /// is told that it failed: that may be wrong, and loses nothing.
    doubtful: u64,
}

/// Failed ranges kept for requests that have not looked yet; the oldest goes first, into
/// [`Notes::doubtful`]. A request looks as soon as its loop runs, so that only the newest few matter.
const FAILED_RANGES_MAX: usize = 4_096;

/// Answers kept until somebody asks; the oldest goes first. Nobody asks for those of requests that
/// did not want to wait or whose client has gone; who waits looks as soon as its loop runs. An answer
/// that goes unheard costs the count of duplicates, or, a failure, what [`Notes::doubtful`] says.
const ANSWERS_MAX: usize = 16_384;

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
    /// Notes that `duplicates` events of `ticket`, which is about to be settled, were known.
    pub(crate) fn note(&mut self, ticket: u64, duplicates: usize) {
        self.0.change_notes(|notes| notes.answer(ticket, Ok(Durable { duplicates })));
    }

    /// Lets `ticket`, which is about to be settled with others, wait for [`Settler::finish`].
    pub(crate) fn hold(&mut self, ticket: u64) {
        self.0.change_notes(|notes| notes.held.insert(ticket));
    }

    /// Answers a ticket that was held back.
    pub(crate) fn finish(&mut self, ticket: u64, outcome: Outcome) {
        self.0.change_notes(|notes| {
            notes.held.remove(&ticket);
            notes.answer(ticket, outcome);
        });
        self.0.wake();
    }

    /// Answers every ticket up to `last` that has no answer yet and is not held back. When the
    /// outcome is that they are durable, what was noted of them is part of the answer.
    pub(crate) fn settle(&mut self, last: u64, outcome: Result<(), NotDurable>) {
        let shared = &self.0;
        // Relaxed: this thread is the only writer.
        let first = shared.settled.load(Ordering::Relaxed) + 1;
        if first > last {
            return;
        }
        if outcome.is_err() {
            shared.change_notes(|notes| notes.fail(first..=last));
        }
        // Release: pairs with the Acquire load in `Shared::outcome`; hands over the notes.
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

impl Notes {
    fn answer(&mut self, ticket: u64, outcome: Outcome) {
        if self.answers.len() == ANSWERS_MAX
            && let Some((oldest, Err(NotDurable))) = self.answers.pop_first()
        {
            self.doubtful = self.doubtful.max(oldest);
        }
        self.answers.insert(ticket, outcome);
    }

    fn fail(&mut self, tickets: RangeInclusive<u64>) {
        // What was noted of them counted on their batch.
        while let Some((&ticket, _)) = self.answers.range(tickets.clone()).next() {
            self.answers.remove(&ticket);
        }
        if self.failed.len() == FAILED_RANGES_MAX
            && let Some(oldest) = self.failed.pop_front()
        {
            self.doubtful = self.doubtful.max(*oldest.end());
        }
        self.failed.push_back(tickets);
    }

    /// Ranges come in the order of their tickets.
    fn has_failed(&self, ticket: u64) -> bool {
        let at = self.failed.partition_point(|range| *range.end() < ticket);
        self.failed.get(at).is_some_and(|range| range.contains(&ticket))
    }

    /// What is noted of a ticket up to `settled`. An answer of its own comes before that of its
    /// batch: a ticket that was held back is in the range of a batch that it was not part of.
    fn take(&mut self, ticket: u64) -> Noted {
        if self.held.contains(&ticket) {
            Noted::Held
        } else if let Some(answer) = self.answers.remove(&ticket) {
            Noted::Answer(answer)
        } else if ticket <= self.doubtful || self.has_failed(ticket) {
            Noted::Answer(Err(NotDurable))
        } else {
            Noted::Nothing
        }
    }
}

/// What the notes say of a ticket.
enum Noted {
    Nothing,
    Held,
    Answer(Outcome),
}

impl Shared {
    fn change_notes<T>(&self, change: impl FnOnce(&mut Notes) -> T) -> T {
        let mut notes = lock(&self.notes);
        let changed = change(&mut notes);
        let doubts = usize::from(notes.doubtful > 0);
        let count = notes.failed.len() + notes.held.len() + notes.answers.len() + doubts;
        // Relaxed: changed under the lock only, so that it never misses a note that is there; a
        // reader of a ticket gets it with the Release store of `settled`.
        self.noted.store(count, Ordering::Relaxed);
        changed
    }

    fn wake(&self) {
        self.driver.wake();
        // Under the lock a waiter has either not looked yet, or waits and is counted.
        if *lock(&self.blocking) > 0 {
            self.unblocked.notify_all();
        }
    }

    fn outcome(&self, ticket: u64) -> Option<Outcome> {
        // Acquire: pairs with the Release store in `Settler::drop`. It is loaded first, so that a
        // shard seen as gone has certainly published its last `settled` to the next load.
        let closed = self.closed.load(Ordering::Acquire);
        // Acquire: pairs with the Release store in `Settler::settle`.
        if self.settled.load(Ordering::Acquire) < ticket {
            return closed.then_some(Err(NotDurable));
        }
        // Relaxed: ordered by the Acquire load above.
        if self.noted.load(Ordering::Relaxed) == 0 {
            return Some(Ok(Durable::default()));
        }
        match self.change_notes(|notes| notes.take(ticket)) {
            Noted::Nothing => Some(Ok(Durable::default())),
            Noted::Answer(outcome) => Some(outcome),
            Noted::Held => closed.then_some(Err(NotDurable)),
        }
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
    /// [`Acks::drive`] to run on the same thread. How many were known before is told once.
    pub fn wait(&self, ticket: Ticket) -> Wait {
        Wait { acks: self.clone(), ticket: ticket.0, is_registered: false }
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
            // One that is held back registers again; it is looked at once a batch until then.
            while waiting.front().is_some_and(|(ticket, _)| closed || *ticket <= settled) {
                if let Some((_, waker)) = waiting.pop_front() {
                    waker.wake();
                }
            }
            if closed { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Blocks the thread until `ticket` is settled; needs no driver. How many events were known
    /// before is told once.
    ///
    /// # Errors
    /// [`NotDurable`] when its batch was lost or the shard ended.
    pub fn wait_blocking(&self, ticket: Ticket) -> Result<Durable, NotDurable> {
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

    fn give_up(&self, ticket: u64) {
        let mut waiting = self.waiting.borrow_mut();
        let at = waiting.partition_point(|(other, _)| *other < ticket);
        if waiting.get(at).is_some_and(|(other, _)| *other == ticket) {
            waiting.remove(at);
        }
    }
}

/// The future of [`Acks::wait`].
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct Wait {
    acks: Acks,
    ticket: u64,
    /// It is in the waiting list, unless the driver has woken it.
    is_registered: bool,
}

impl Future for Wait {
    type Output = Result<Durable, NotDurable>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(outcome) = self.acks.shared.outcome(self.ticket) {
            self.is_registered = false;
            return Poll::Ready(outcome);
        }
        // The driver runs on this thread: it cannot have looked between the check and this.
        self.acks.register(self.ticket, context.waker());
        self.is_registered = true;
        Poll::Pending
    }
}

impl Drop for Wait {
    /// A client that has gone leaves nothing behind, however long the disk takes.
    fn drop(&mut self) {
        if self.is_registered {
            self.acks.give_up(self.ticket);
        }
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

    const NEW: Outcome = Ok(Durable { duplicates: 0 });

    #[test]
    fn a_ticket_is_settled_by_the_batch_that_covers_it() {
        let (mut settler, source) = channel();
        let acks = source.acks();
        settler.settle(3, Ok(()));
        assert_eq!(acks.wait_blocking(Ticket(1)), NEW);
        assert_eq!(acks.wait_blocking(Ticket(3)), NEW);
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
    fn duplicates_are_told_once_and_to_their_ticket() {
        let (mut settler, source) = channel();
        let acks = source.acks();
        settler.note(2, 7);
        assert_eq!(acks.shared.outcome(2), None, "not settled yet");
        settler.settle(3, Ok(()));
        let outcomes: Vec<_> = (1..=3).map(|ticket| acks.wait_blocking(Ticket(ticket))).collect();
        assert_eq!(outcomes, [NEW, Ok(Durable { duplicates: 7 }), NEW]);
        assert_eq!(lock(&acks.shared.notes).answers.len(), 0);
    }

    #[test]
    fn duplicates_of_a_batch_that_failed_are_not_told() {
        let (mut settler, source) = channel();
        let acks = source.acks();
        settler.note(1, 1);
        settler.note(2, 1);
        settler.settle(2, Err(NotDurable));
        settler.settle(3, Ok(()));
        let outcomes: Vec<_> = (1..=3).map(|ticket| acks.wait_blocking(Ticket(ticket))).collect();
        assert_eq!(outcomes, [Err(NotDurable), Err(NotDurable), NEW]);
    }

    #[test]
    fn a_ticket_that_is_held_back_outlives_its_batch_whatever_became_of_that() {
        for batch in [Ok(()), Err(NotDurable)] {
            let (mut settler, source) = channel();
            let acks = source.acks();
            settler.hold(2);
            settler.settle(3, batch);
            assert_eq!(acks.wait_blocking(Ticket(3)).is_ok(), batch.is_ok());
            assert_eq!(acks.shared.outcome(2), None);
            settler.settle(5, Ok(()));
            assert_eq!(acks.shared.outcome(2), None);
            settler.finish(2, Ok(Durable { duplicates: 1 }));
            assert_eq!(acks.wait_blocking(Ticket(2)), Ok(Durable { duplicates: 1 }));
        }
    }

    #[test]
    fn who_does_not_wait_any_more_leaves_nothing_in_the_list() {
        let (mut settler, source) = channel();
        let acks = source.acks();
        let mut context = Context::from_waker(Waker::noop());
        let mut waits: Vec<_> = (1..=3).map(|ticket| Box::pin(acks.wait(Ticket(ticket)))).collect();
        for wait in &mut waits {
            assert!(wait.as_mut().poll(&mut context).is_pending());
        }
        drop(waits.remove(1));
        let listed = || acks.waiting.borrow().iter().map(|(ticket, _)| *ticket).collect::<Vec<_>>();
        assert_eq!(listed(), [1, 3]);
        settler.settle(1, Ok(()));
        assert!(waits[0].as_mut().poll(&mut context).is_ready());
        drop(waits);
    }

    #[test]
    fn a_ticket_that_is_held_back_fails_with_its_shard() {
        let (mut settler, source) = channel();
        settler.hold(1);
        settler.settle(1, Ok(()));
        let waiter = std::thread::spawn(move || source.acks().wait_blocking(Ticket(1)));
        drop(settler);
        assert_eq!(waiter.join().unwrap(), Err(NotDurable));
    }

    #[test]
    fn answers_that_nobody_asks_for_do_not_pile_up() {
        let (mut settler, source) = channel();
        let tickets = ANSWERS_MAX as u64 + 10;
        for ticket in 1..=tickets {
            settler.note(ticket, 1);
        }
        settler.settle(tickets, Ok(()));
        let acks = source.acks();
        assert_eq!(lock(&acks.shared.notes).answers.len(), ANSWERS_MAX);
        assert_eq!(acks.wait_blocking(Ticket(tickets)), Ok(Durable { duplicates: 1 }));
    }

    #[test]
    fn a_failure_that_had_to_make_room_is_not_taken_for_success() {
        let (mut settler, source) = channel();
        settler.hold(1);
        settler.settle(1, Ok(()));
        settler.finish(1, Err(NotDurable));
        let last = ANSWERS_MAX as u64 + 1;
        (2..=last).for_each(|ticket| settler.note(ticket, 1));
        settler.settle(last, Ok(()));
        assert_eq!(source.acks().wait_blocking(Ticket(1)), Err(NotDurable));
        assert!(source.acks().wait_blocking(Ticket(last)).is_ok());

        let (mut settler, source) = channel();
        let last = FAILED_RANGES_MAX as u64 + 1;
        (1..=last).for_each(|ticket| settler.settle(ticket, Err(NotDurable)));
        settler.settle(last + 1, Ok(()));
        let acks = source.acks();
        for ticket in [1, 2, last] {
            assert_eq!(acks.wait_blocking(Ticket(ticket)), Err(NotDurable));
        }
        assert_eq!(acks.wait_blocking(Ticket(last + 1)), NEW);
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
                (1..=4).map(|ticket| tokio::task::spawn_local(acks.wait(Ticket(ticket)))).collect();
            let shard = std::thread::spawn(move || {
                settler.hold(1);
                settler.settle(2, Ok(()));
                settler.settle(3, Ok(()));
                settler.finish(1, Ok(Durable { duplicates: 1 }));
                drop(settler);
            });
            let mut outcomes = Vec::new();
            for wait in waits {
                outcomes.push(wait.await.unwrap());
            }
            let known = Ok(Durable { duplicates: 1 });
            assert_eq!(outcomes, [known, NEW, NEW, Err(NotDurable)]);
            driver.await.unwrap();
            shard.join().unwrap();
        });
    }
}

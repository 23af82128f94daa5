//! Memory that a thread has freed and its allocator keeps.
//!
//! An allocator keeps what a thread has freed until that thread wants something again, and gives it
//! back in the middle of what it does then: a count of 85 ms took 120 after the whole table had been
//! streamed, and a server kept 100 MB of a merge for as long as there was no other. A thread that has done
//! something large and does not know when the next such thing comes has it given back at once: query
//! workers after a rest, the compactor when it has joined what there was.
//!
//! A thread that is never at rest (shard, flusher, roller, those that read and write the table's log) has
//! it done every ten seconds. mimalloc puts off giving back a page while others near it are being used, and
//! under a load that goes on each of them is, some time: a server grew by 25 KB a roll. It costs a
//! millisecond (shard) to 20 (flusher, roller) each time.
//!
//! **Not guaranteed.** Anything, as long as the program has not said how ([`give_back_with`]).

use std::cell::Cell;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Between two times that a thread gives back what it has kept.
pub(crate) const EVERY: Duration = Duration::from_secs(10);

/// Gives free memory of the calling thread, and what no thread has, back to the system.
static GIVE_BACK: OnceLock<fn()> = OnceLock::new();

/// Says how memory is given back: what is free of the calling thread's, and what no thread has. The
/// first call holds.
pub fn give_back_with(give_back: fn()) {
    let _ = GIVE_BACK.set(give_back);
}

/// Gives back what the calling thread has kept.
pub(crate) fn give_back() {
    if let Some(give_back) = GIVE_BACK.get() {
        give_back();
    }
}

/// Gives back what the calling thread has kept, if it has not done so for [`EVERY`].
pub(crate) fn give_back_now_and_then() {
    thread_local!(static DUE: Cell<Instant> = Cell::new(Instant::now() + EVERY));
    if DUE.with(|due| is_due(due, Instant::now())) {
        give_back();
    }
}

/// Whether it is time; then the next time is [`EVERY`] later.
fn is_due(due: &Cell<Instant>, now: Instant) -> bool {
    let is_due = now >= due.get();
    if is_due {
        due.set(now + EVERY);
    }
    is_due
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_once_in_a_while_however_often_it_is_asked() {
        let began = Instant::now();
        let due = Cell::new(began + EVERY);
        let given_back = (0..100).filter(|&second| {
            let now = began + Duration::from_secs(second);
            is_due(&due, now) && !is_due(&due, now)
        });
        assert_eq!(given_back.count(), 9);
    }
}

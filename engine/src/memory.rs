//! Memory that a thread has freed and its allocator keeps.
//!
//! An allocator keeps what a thread has freed until that thread wants something again, and gives it
//! back in the middle of what it does then: a count of 85 ms took 120 after the whole table had been
//! streamed, and a server kept 100 MB of a merge for as long as there was no other. A thread that has done something large and does not know
//! when the next such thing comes has it given back at once: query workers after a rest, the compactor when
//! it has joined what there was.
//!
//! **Not guaranteed.** Anything, as long as the program has not said how ([`give_back_with`]).

use std::sync::OnceLock;

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

//! Which message ids are known: one table for all shards of a node, so that a retry is harmless.
//!
//! ```text
//!             claim by a shard              its batch is synced
//!  absent ───────────────────────▶ pending ─────────────────────▶ stored ──▶ forgotten with its
//!     ▲                               │                                      generation
//!     └───────────────────────────────┘
//!        its batch failed, or its request has to wait
//! ```
//!
//! A shard claims the ids of a request before it numbers the events ([`Claims::claim`]). Of an
//! absent id it becomes the owner; a stored one, and one that the same batch owns already, is a
//! duplicate. An id that is pending with another shard decides nothing yet: the shard gives back
//! what it has claimed for this request and tries the request again after the next decision
//! ([`Dedup::decisions`]). When the other batch is stored the event is a duplicate then; when it
//! failed the id is absent, and this request's event takes over.
//!
//! **Guarantees**
//! - Of all requests that hold one id inside the window, one is stored. A second one is a duplicate
//!   only once the first is durable.
//! - No shard waits for another one with claims in its hands: they are made and decided between
//!   two looks at the ring. So an id is pending for as long as one batch takes, and there is no
//!   circle of waiters.
//! - Requests whose ids cross do not push each other back for ever. Each claims its ids in the order
//!   of their groups, those of one group at once. Take the last group at which attempts fail again
//!   and again: the ids that they miss there were claimed by attempts that have failed themselves
//!   since, at a later group, which contradicts that it is the last.
//! - No decision that a shard waits for is missed: it marks the id under the lock under which the
//!   id is decided.
//!
//! **Not guaranteed.** Ids are remembered in memory only; a start reads them back from what is
//! durable ([`Dedup::remember`]). The window follows the wall clock of the caller.
//!
//! **Roles.** Each shard has one [`Claims`]; anybody may look ([`Dedup::look`]).
//!
//! **Limits.** At most [`Limits::ids`] stored ids, and those of the batches under way. An id takes
//! 20 to 36 bytes. Ids are 128 bits of a keyed hash: with four million of them the chance that two
//! are taken for one another is 2 in 10^26, and whoever does not know the key cannot better it.
//!
//! **Ordering.** What is known of an id changes under its group's lock. The two atomics are hints:
//! see where they stand.

#![forbid(unsafe_code)]

mod claims;
mod table;
mod window;

pub use claims::{Claim, Claims};

use std::fmt;
use std::hash::Hasher;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use siphasher::sip128::{Hasher128, SipHasher13};

use table::{ALL_PARTS, PLACES, Table};
use window::{Generation, Window};

/// Owners that can be told apart: shards are numbered below this.
pub const OWNERS_MAX: u32 = PLACES;

/// Parts of the table that are swept whenever a generation begins: all of them in 256 generations,
/// before a slot could take an old generation for a new one.
const SWEPT_PARTS: usize = ALL_PARTS / 256;

/// Ends a tenant in front of an id: UTF-8 has no such byte.
const SEPARATOR: u8 = 0xff;

/// How much is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most ids. When there would be more, the oldest eighth is forgotten.
    pub ids: NonZeroUsize,
    /// How long an id is remembered, if their number allows it: at least this, at most an eighth
    /// longer.
    pub window: Duration,
}

/// The keyed hash of a tenant and a message id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(u128);

/// The known ids of a node; see the crate.
pub struct Dedup {
    table: Table,
    hasher: SipHasher13,
    window: Mutex<Swept>,
    /// Copies of what `window` says, written under its lock.
    oldest: AtomicU32,
    expires_at: AtomicI64,
    /// Counts decisions that somebody waited for.
    decisions: Mutex<u64>,
    decided: Condvar,
    tell: Box<dyn Fn() + Send + Sync>,
}

/// The window, and the part of the table that is swept next.
#[derive(Debug)]
struct Swept {
    window: Window,
    next_part: usize,
}

/// How much is remembered at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Stored ids.
    pub ids: usize,
    /// Every id received during this time is known; zero while there is none.
    pub age: Duration,
}

impl Dedup {
    /// Knows nothing yet. `secret` keys the hash: random, and kept to oneself. `tell` is called
    /// after a decision that somebody waited for, by the thread that has decided.
    #[must_use]
    pub fn new(limits: &Limits, secret: [u8; 16], tell: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            table: Table::new(),
            hasher: SipHasher13::new_with_key(&secret),
            window: Mutex::new(Swept { window: Window::new(limits), next_part: 0 }),
            oldest: AtomicU32::new(Generation::FIRST.number()),
            expires_at: AtomicI64::new(i64::MAX),
            decisions: Mutex::new(0),
            decided: Condvar::new(),
            tell: Box::new(tell),
        }
    }

    /// The key of `id` of `tenant`.
    #[inline]
    #[must_use]
    pub fn key(&self, tenant: &str, id: &str) -> Key {
        let mut hasher = self.hasher;
        hasher.write(tenant.as_bytes());
        hasher.write_u8(SEPARATOR);
        hasher.write(id.as_bytes());
        Key(hasher.finish128().into())
    }

    /// Forgets what is older than the window at `now`, microseconds since 1970. One load when
    /// there is nothing to forget.
    #[inline]
    pub fn expire(&self, now: i64) {
        // Relaxed: a hint; the lock in `change_window` orders what follows.
        if now >= self.expires_at.load(Ordering::Relaxed) {
            self.change_window(|swept| swept.window.expire(now));
        }
    }

    /// Remembers ids that are durable already, received in `times`; reorders `keys`. For the start,
    /// before there are claims.
    pub fn remember(&self, keys: &mut [Key], times: &RangeInclusive<i64>) {
        let generation = self.admit(keys.len(), times);
        let oldest = self.oldest();
        keys.sort_unstable_by_key(|key| key.group());
        for group in keys.chunk_by(|one, next| one.group() == next.group()) {
            let mut locked = self.table.lock(group[0]);
            locked.warm(group.iter().copied());
            for key in group {
                locked.remember(*key, generation, oldest);
            }
        }
    }

    /// Says that ids received up to `time` may exist and are not known, so that
    /// [`Look::age`] stays honest.
    pub fn lack(&self, time: i64) {
        self.change_window(|swept| swept.window.lack(time));
    }

    /// How much is remembered at `now`, microseconds since 1970.
    #[must_use]
    pub fn look(&self, now: i64) -> Look {
        let swept = lock(&self.window);
        let age = swept.window.since().map_or(0, |since| now.saturating_sub(since).max(0));
        let age = Duration::from_micros(age.unsigned_abs());
        Look { ids: swept.window.ids(), age }
    }

    /// How many decisions have been made that somebody waited for. A request that has to wait is
    /// worth another try once this is no more what it was before the last one.
    #[must_use]
    pub fn decisions(&self) -> u64 {
        *lock(&self.decisions)
    }

    /// Blocks until there are other than `seen` decisions, for at most `limit`.
    pub fn wait_for_decision(&self, seen: u64, limit: Duration) {
        let decisions = lock(&self.decisions);
        let _ = self.decided.wait_timeout_while(decisions, limit, |decisions| *decisions == seen);
    }

    /// Bytes of memory that the ids take up. It looks at every part: for tests and benches.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.table.memory_bytes()
    }

    /// Takes a batch of ids into the window.
    fn admit(&self, ids: usize, times: &RangeInclusive<i64>) -> Generation {
        self.change_window(|swept| {
            let admitted = swept.window.admit(ids, times);
            if admitted.opened {
                for part in swept.next_part..swept.next_part + SWEPT_PARTS {
                    self.table.sweep(part, swept.window.oldest());
                }
                swept.next_part = (swept.next_part + SWEPT_PARTS) % ALL_PARTS;
            }
            admitted.generation
        })
    }

    fn change_window<T>(&self, change: impl FnOnce(&mut Swept) -> T) -> T {
        let mut swept = lock(&self.window);
        let outcome = change(&mut swept);
        // Relaxed, both: who still sees the old one takes an id that was stored for known a little
        // longer. An id that was forgotten is marked with a generation that has passed for whoever
        // holds the group's lock afterwards and looks then: the lock orders the two loads.
        self.oldest.store(swept.window.oldest().number(), Ordering::Relaxed);
        let expires_at = swept.window.expires_at().unwrap_or(i64::MAX);
        self.expires_at.store(expires_at, Ordering::Relaxed);
        outcome
    }

    fn oldest(&self) -> Generation {
        // Relaxed: see `change_window`.
        Generation::from_number(self.oldest.load(Ordering::Relaxed))
    }

    /// Lets everybody who waits for a decision try again.
    fn announce(&self) {
        *lock(&self.decisions) += 1;
        self.decided.notify_all();
        (self.tell)();
    }
}

impl fmt::Debug for Dedup {
    /// Without the key of the hash.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Dedup").field("window", &self.window).finish_non_exhaustive()
    }
}

/// A poisoned lock only says that another thread panicked; the data is plain numbers.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;

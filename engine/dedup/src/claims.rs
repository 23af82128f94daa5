//! What one shard has claimed for the batch that it is making.
//!
//! **Guarantees.** Every claimed id is decided once: stored, or forgotten. Claims that are dropped
//! undecided, by a panic on the way to the log, are forgotten.
//!
//! **Memory.** 16 bytes an id of the batch.

use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::table::{Found, Locked};
use crate::{Dedup, Key, OWNERS_MAX};

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Claim {
    /// Its events can go into the batch, but for this many duplicates.
    Decided {
        /// How many of its ids are known, or are in the batch already.
        duplicates: usize,
    },
    /// One of its ids is pending with another shard. Nothing of it is claimed.
    Undecided,
}

/// The claims of one shard; see the module.
#[derive(Debug)]
pub struct Claims {
    dedup: Arc<Dedup>,
    owner: u32,
    /// Pending ids of the batch.
    keys: Vec<Key>,
}

impl Claims {
    /// No claims yet, for the shard number `owner`.
    ///
    /// # Panics
    /// When `owner` is not below [`OWNERS_MAX`].
    #[must_use]
    pub fn new(dedup: Arc<Dedup>, owner: u32) -> Self {
        assert!(owner < OWNERS_MAX, "shard {owner} is not below {OWNERS_MAX}");
        Self { dedup, owner, keys: Vec::new() }
    }

    /// What the ids are known to.
    #[must_use]
    pub fn dedup(&self) -> &Arc<Dedup> {
        &self.dedup
    }

    /// Claims the ids of one request for the batch, all of them or none. Each comes with the index
    /// of its event; `is_new` is told every index and whether it is no duplicate. Of several events
    /// with one id the first is new. Reorders `ids`.
    pub fn claim(
        &mut self,
        ids: &mut [(Key, usize)],
        mut is_new: impl FnMut(usize, bool),
    ) -> Claim {
        // The order of groups is what keeps crossing requests from pushing each other back for
        // ever; see the crate.
        ids.sort_unstable_by_key(|(key, index)| (key.group(), *index));
        let before = self.keys.len();
        let mut duplicates = 0;
        for group in ids.chunk_by(|(one, _), (next, _)| one.group() == next.group()) {
            let mut locked = self.dedup.table.lock(group[0].0);
            // Under the lock: nobody who has forgotten an id of this group knew a newer one, so what
            // was forgotten is absent here too.
            let oldest = self.dedup.oldest();
            locked.warm(group.iter().map(|(key, _)| *key));
            for &(key, index) in group {
                match locked.claim(key, self.owner, oldest) {
                    Found::Absent => {
                        self.keys.push(key);
                        is_new(index, true);
                    }
                    Found::Stored | Found::Own => {
                        duplicates += 1;
                        is_new(index, false);
                    }
                    Found::Foreign => {
                        drop(locked);
                        let oldest = self.dedup.oldest();
                        self.decide(before, |locked, key| locked.forget(key, oldest));
                        return Claim::Undecided;
                    }
                }
            }
        }
        Claim::Decided { duplicates }
    }

    /// The batch is durable: its ids, received in `times` (microseconds since 1970), are known.
    pub fn store(&mut self, times: &RangeInclusive<i64>) {
        if self.keys.is_empty() {
            return;
        }
        let generation = self.dedup.admit(self.keys.len(), times);
        let oldest = self.dedup.oldest();
        self.decide(0, |locked, key| locked.store(key, generation, oldest));
    }

    /// The batch is lost: its ids are as if they had never come.
    pub fn forget(&mut self) {
        let oldest = self.dedup.oldest();
        self.decide(0, |locked, key| locked.forget(key, oldest));
    }

    /// Decides the claims from number `first` on, a group at a time; lets those know who wait.
    fn decide(&mut self, first: usize, how: impl Fn(&mut Locked<'_>, Key) -> bool) {
        let mut awaited = false;
        for group in self.keys[first..].chunk_by(|one, next| one.group() == next.group()) {
            let mut locked = self.dedup.table.lock(group[0]);
            // Since they were claimed a whole batch has gone through the cache.
            locked.warm(group.iter().copied());
            for key in group {
                awaited |= how(&mut locked, *key);
            }
        }
        self.keys.truncate(first);
        if awaited {
            self.dedup.announce();
        }
    }
}

impl Drop for Claims {
    fn drop(&mut self) {
        self.forget();
    }
}

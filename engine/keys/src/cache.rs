//! What is known about keys without hashing their secrets: which are good, and which were wrong.
//!
//! **Guarantees.** Looking up takes no lock that a writer holds for longer than it takes to put in
//! one entry, and allocates nothing. Keys are stored as a 128-bit keyed hash with a random key of
//! this process: the table holds no secret, nobody outside can make two keys collide, and the time
//! of a comparison tells nothing about a key.
//!
//! **Limits.** A good key is believed for [`GOOD_TIME`]; there are as many as keys in the file. A
//! wrong one is remembered for [`WRONG_TIME`], at most [`WRONG_MAX`] of them; more are not
//! remembered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use siphasher::sip128::SipHasher13;

use crate::record::Record;
use crate::set::KeySet;

/// For how long a verified key is believed.
pub(crate) const GOOD_TIME: Duration = Duration::from_secs(5 * 60);
/// For how long a wrong key is known to be wrong.
const WRONG_TIME: Duration = Duration::from_secs(60);
/// Wrong keys that are remembered: a quarter of a megabyte.
const WRONG_MAX: usize = 4_096;

/// The keyed hash of a whole key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Digest(u128);

/// What a key was found to be, and until when that counts.
type Entry = (Arc<Record>, Instant);

pub(crate) struct Cache {
    hasher: SipHasher13,
    good: DashMap<Digest, Entry>,
    /// With the record that the key did not fit.
    wrong: DashMap<Digest, Entry>,
}

impl Cache {
    pub(crate) fn new() -> Result<Self, getrandom::Error> {
        let mut key = [0; 16];
        getrandom::fill(&mut key)?;
        let hasher = SipHasher13::new_with_key(&key);
        Ok(Self { hasher, good: DashMap::new(), wrong: DashMap::new() })
    }

    pub(crate) fn digest(&self, key: &str) -> Digest {
        Digest(self.hasher.hash(key.as_bytes()).as_u128())
    }

    /// The record of a key that was verified not long ago.
    pub(crate) fn good(&self, digest: Digest, now: Instant) -> Option<Arc<Record>> {
        let entry = self.good.get(&digest)?;
        let (record, until) = entry.value();
        (now < *until).then(|| Arc::clone(record))
    }

    /// Whether the key was hashed not long ago and did not fit `record`.
    pub(crate) fn is_wrong(&self, digest: Digest, record: &Arc<Record>, now: Instant) -> bool {
        let entry = self.wrong.get(&digest);
        entry.is_some_and(|entry| now < entry.1 && Arc::ptr_eq(&entry.0, record))
    }

    pub(crate) fn remember_good(&self, digest: Digest, record: &Arc<Record>, now: Instant) {
        self.good.insert(digest, (Arc::clone(record), now + GOOD_TIME));
    }

    pub(crate) fn remember_wrong(&self, digest: Digest, record: &Arc<Record>, now: Instant) {
        if self.wrong.len() < WRONG_MAX {
            self.wrong.insert(digest, (Arc::clone(record), now + WRONG_TIME));
        }
    }

    pub(crate) fn forget(&self, digest: Digest) {
        self.good.remove(&digest);
    }

    /// Drops what does not count any more: by its age, or because its record is not in `set`.
    pub(crate) fn sweep(&self, set: &KeySet, now: Instant) {
        self.good.retain(|_, (record, until)| now < *until && set.holds(record));
        self.wrong.retain(|_, (record, until)| now < *until && set.holds(record));
    }

    /// How many keys are known to be good, and how many to be wrong.
    #[cfg(test)]
    pub(crate) fn sizes(&self) -> (usize, usize) {
        (self.good.len(), self.wrong.len())
    }
}

//! The check that a request pays for, and the live set of keys behind it.
//!
//! **Roles.** Serving loops call [`Keys::cached`] and [`Keys::check`]. One task follows the file
//! ([`Keys::reload`]) and sweeps ([`Keys::sweep`]).
//!
//! **Ordering.** A change of the set and a check that is under way cannot miss one another: the
//! changer stores the set and sweeps the cache then; the checker puts its entry into the cache and
//! looks at the set then. If the entry came before the sweep reached its part of the table, the
//! sweep drops it; if it came after, the lock of that part makes the new set visible to the
//! checker, which takes its entry out again.
//!
//! **Failure.** A file that cannot be read while the server runs changes nothing but is logged: the
//! keys that were known stay.

use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use dashmap::DashMap;
use tokio::sync::OnceCell;

use crate::cache::{Cache, Digest};
use crate::failures::Failures;
use crate::file::{Error, KeyFile, Stamp};
use crate::key;
use crate::record::Record;
use crate::set::KeySet;
use crate::verifier::Verifier;

/// Wrong keys that an address may make us hash in a minute: more than anybody mistypes.
pub const FAILURES_PER_MINUTE: u16 = 20;
/// How often the cache should be swept.
pub const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// Why a key was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no such key.
    #[error("the key is not known")]
    Unknown,
    /// The address has sent too many wrong keys to have another one looked at.
    #[error("too many wrong keys came from this address; try again in {} s", .0.as_secs() + 1)]
    TooMany(Duration),
    /// Too many keys wait to be looked at, from everywhere or from this address.
    #[error("too many keys wait to be verified; try again")]
    Busy,
}

/// All keys of a server.
pub struct Keys {
    file: KeyFile,
    set: ArcSwap<KeySet>,
    /// A copy of what the set says, cheaper to read. Written with the set.
    open: AtomicBool,
    cache: Cache,
    /// Keys that are being verified: everybody who sends the same one waits for one hash.
    flights: DashMap<Digest, Arc<OnceCell<bool>>>,
    failures: Failures,
    verifier: Verifier,
    /// The version of the file behind the set.
    stamp: Mutex<Option<Stamp>>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Keys").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Keys {
    /// The keys of the data directory `directory`, and the threads that verify them.
    ///
    /// # Errors
    /// When the file cannot be read or a thread cannot be started.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        let verifier = Verifier::start().map_err(|source| Error::Io {
            action: "start a thread for",
            path: directory.to_owned(),
            source,
        })?;
        let keys = Self {
            file: KeyFile::of(directory),
            set: ArcSwap::default(),
            open: AtomicBool::new(true),
            cache: Cache::new()?,
            flights: DashMap::new(),
            failures: Failures::new(FAILURES_PER_MINUTE),
            verifier,
            stamp: Mutex::new(None),
        };
        keys.reload()?;
        Ok(keys)
    }

    /// The file, to change it; call [`Keys::reload`] afterwards.
    #[must_use]
    pub fn file(&self) -> &KeyFile {
        &self.file
    }

    /// Whether no key exists, and none has existed: everybody may do everything.
    #[must_use]
    pub fn is_open_mode(&self) -> bool {
        // Relaxed: nothing is handed over; a request that is on its way while the first key is
        // made is answered as if it had come before.
        self.open.load(Ordering::Relaxed)
    }

    /// The record of a key that was verified in the five minutes before `now`. This is all that
    /// nearly every request needs.
    #[must_use]
    pub fn cached(&self, key: &str, now: Instant) -> Option<Arc<Record>> {
        self.cache.good(self.cache.digest(key), now)
    }

    /// The record of `key`, which came from `address`. Hashes the secret on a thread of its own when it
    /// has to: once for a key that is good.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn check(&self, key: &str, address: IpAddr) -> Result<Arc<Record>, Refused> {
        let now = Instant::now();
        let digest = self.cache.digest(key);
        if let Some(record) = self.cache.good(digest, now) {
            return Ok(record);
        }
        let (id, secret) = key::split(key).ok_or(Refused::Unknown)?;
        let record = self.set.load().of_id(id).cloned().ok_or(Refused::Unknown)?;
        match record.known.get() {
            // It has been good for this record before: to hash it again would tell nothing new, and
            // would make it wait behind those who send wrong ones.
            Some(known) if *known == digest => {}
            Some(_) => return Err(Refused::Unknown),
            None if self.cache.is_wrong(digest, &record, now) => return Err(Refused::Unknown),
            None => {
                let flight = Flight::join(self, digest);
                let verify = || self.verify(&record, digest, secret, address);
                if !*flight.cell.get_or_try_init(verify).await? {
                    self.cache.remember_wrong(digest, &record, Instant::now());
                    return Err(Refused::Unknown);
                }
            }
        }
        self.cache.remember_good(digest, &record, Instant::now());
        if !self.holds(&record) {
            self.cache.forget(digest);
            return Err(Refused::Unknown);
        }
        Ok(record)
    }

    async fn verify(
        &self,
        record: &Arc<Record>,
        digest: Digest,
        secret: &str,
        address: IpAddr,
    ) -> Result<bool, Refused> {
        let look = self.failures.look(address, Instant::now())?;
        let answer = self.verifier.verify(record, digest, secret).ok_or(Refused::Busy)?;
        let is_good = answer.await.map_err(|_| Refused::Busy)?;
        if !is_good {
            look.was_wrong();
        }
        Ok(is_good)
    }

    /// Whether `record` still stands for its key: neither revoked nor changed since.
    #[must_use]
    pub fn holds(&self, record: &Arc<Record>) -> bool {
        self.set.load().holds(record)
    }

    /// The write key that has this alias. An alias is no secret.
    ///
    /// # Errors
    /// [`Refused::Unknown`].
    pub fn of_alias(&self, alias: &str) -> Result<Arc<Record>, Refused> {
        self.set.load().of_alias(alias).cloned().ok_or(Refused::Unknown)
    }

    /// Whether some key may be used by the page behind `origin`.
    #[must_use]
    pub fn names_origin(&self, origin: &[u8]) -> bool {
        self.set.load().names_origin(origin)
    }

    /// Reads the file if it is another than before; whether it was. What is no longer in it is
    /// refused from the return on.
    ///
    /// # Errors
    /// When the file cannot be read, or has gone: the keys that were known stay.
    pub fn reload(&self) -> Result<bool, Error> {
        let mut known = self.stamp.lock().unwrap_or_else(PoisonError::into_inner);
        // Looked at before the file is read: what changes in between is read the next time.
        let stamp = self.file.stamp()?;
        if stamp == *known {
            return Ok(false);
        }
        let records = self.file.read()?;
        if records.is_empty() && !self.is_open_mode() {
            return Err(Error::Invalid(
                "the file of keys is gone; the keys stay as they were".into(),
            ));
        }
        let set = KeySet::new(records, &self.set.load());
        // Relaxed: see `is_open_mode`.
        self.open.store(!set.any(), Ordering::Relaxed);
        self.set.store(Arc::new(set));
        *known = stamp;
        self.sweep();
        Ok(true)
    }

    /// Drops from the cache what is too old or no longer a key.
    pub fn sweep(&self) {
        self.cache.sweep(&self.set.load(), Instant::now());
    }
}

/// One of those who wait for the same key to be verified.
struct Flight<'a> {
    keys: &'a Keys,
    digest: Digest,
    cell: Arc<OnceCell<bool>>,
}

impl<'a> Flight<'a> {
    fn join(keys: &'a Keys, digest: Digest) -> Self {
        let cell = Arc::clone(keys.flights.entry(digest).or_default().value());
        Self { keys, digest, cell }
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        // The last one to leave takes the entry away: the table's own reference and this one.
        self.keys.flights.remove_if(&self.digest, |_, cell| Arc::strong_count(cell) <= 2);
    }
}

#[cfg(test)]
mod tests;

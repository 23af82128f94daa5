//! Visitor ids: a keyed hash of day, tenant, address and user agent that nobody can take back.
//!
//! **Guarantees.** One visitor of one tenant has one id on one day (UTC, by the time of receipt) and
//! another one on every other. The hash is keyed with a salt of 128 random bits that is made for the
//! day and destroyed when the next one is made: overwritten in its file and dropped from memory.
//! From then on nobody can tell who had which id, with all the data and the server in hand. The file
//! (`salt`, mode 0600) lies in the data directory, outside the table's, and a restart goes on with
//! it.
//!
//! **Not guaranteed.** What a file system keeps of overwritten bytes. An event that was received
//! before midnight and is written after it has no id: its salt is gone.
//!
//! **Roles.** Shard threads ask for ids, and look at the clock when they have nothing to do, so that
//! the salt goes at midnight whether events come or not.
//!
//! **Failure.** When the file cannot be written the salt stays in memory only, which is logged; a
//! restart then counts the day's visitors again. A clock that was set back by more than a day makes
//! a new salt; by less, events have no id until it has caught up.

use std::fs::{self, File, OpenOptions};
use std::hash::Hasher;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use ringlake_event::Sender;
use siphasher::sip::SipHasher24;

use crate::secret;

const DAY_MICROS: i64 = 86_400_000_000;
const NAME: &str = "salt";

/// The salt of one day.
struct Salt {
    /// Days since 1970.
    day: i64,
    key: secret::Key,
}

/// Today's salt, and its file.
pub(crate) struct Visitors {
    path: PathBuf,
    today: ArcSwap<Salt>,
    /// Held while the salt is replaced.
    replacing: Mutex<()>,
}

impl std::fmt::Debug for Visitors {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Nothing of the salt.
        formatter.debug_struct("Visitors").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Visitors {
    /// Goes on with the salt in `data` if it is of the day of `now` (microseconds since 1970), else
    /// makes one.
    ///
    /// # Errors
    /// When the file exists and cannot be read, or there are no random numbers.
    pub(crate) fn open(data: &Path, now: i64) -> io::Result<Self> {
        let path = data.join(NAME);
        let day = now.div_euclid(DAY_MICROS);
        let known = read(&path)?.filter(|salt| salt.day == day);
        let salt = match known {
            Some(salt) => salt,
            None => {
                let salt = Salt::random(day)?;
                keep(&path, &salt);
                salt
            }
        };
        Ok(Self { path, today: ArcSwap::from_pointee(salt), replacing: Mutex::new(()) })
    }

    /// Replaces the salt when the day of `now` is another one.
    pub(crate) fn look_at_clock(&self, now: i64) {
        let day = now.div_euclid(DAY_MICROS);
        if self.today.load().must_go(day) {
            self.replace(day);
        }
    }

    /// The id of a visitor whose request was received at `received_at`, for events of `tenant`;
    /// none when the salt of that day is gone.
    pub(crate) fn id(&self, received_at: i64, tenant: &str, sender: &Sender<'_>) -> Option<i64> {
        let day = received_at.div_euclid(DAY_MICROS);
        let mut salt = self.today.load();
        if salt.must_go(day) {
            self.replace(day);
            salt = self.today.load();
        }
        (salt.day == day).then(|| salt.hash(tenant, sender))
    }

    fn replace(&self, day: i64) {
        let _replacing = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.today.load().must_go(day) {
            return;
        }
        let salt = match Salt::random(day) {
            Ok(salt) => salt,
            Err(error) => {
                tracing::error!(%error, "no random numbers for a new visitor salt; the old one stays");
                return;
            }
        };
        keep(&self.path, &salt);
        self.today.store(Arc::new(salt));
    }
}

impl Salt {
    fn random(day: i64) -> io::Result<Self> {
        Ok(Self { day, key: secret::random()? })
    }

    /// Whether this salt must not be used on `day` any more. One of tomorrow stays: a clock that is
    /// set back a little must not count everybody twice.
    fn must_go(&self, day: i64) -> bool {
        day > self.day || day < self.day - 1
    }

    fn hash(&self, tenant: &str, sender: &Sender<'_>) -> i64 {
        let mut hasher = SipHasher24::new_with_key(&self.key);
        hasher.write(&self.day.to_le_bytes());
        // With its length, so that no part can flow into the next one.
        hasher.write(&(tenant.len() as u64).to_le_bytes());
        hasher.write(tenant.as_bytes());
        let address = match sender.address.to_canonical() {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        hasher.write(&address.octets());
        hasher.write(sender.user_agent.as_bytes());
        hasher.finish().cast_signed()
    }
}

impl Drop for Salt {
    fn drop(&mut self) {
        self.key = std::hint::black_box([0; 16]);
    }
}

/// The salt in the file; nothing when there is none or it is not a salt.
fn read(path: &Path) -> io::Result<Option<Salt>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(None),
        Err(error) => return Err(error),
    };
    let parsed = text.trim_end().split_once(' ').and_then(|(day, key)| {
        let key = u128::from_str_radix(key, 16).ok().filter(|_| key.len() == 32)?;
        Some(Salt { day: day.parse().ok()?, key: key.to_be_bytes() })
    });
    Ok(parsed)
}

/// Puts `salt` in the place of the one before; it stays in memory only when that fails.
fn keep(path: &Path, salt: &Salt) {
    if let Err(error) = write(path, salt) {
        tracing::error!(%error, path = %path.display(), "the visitor salt is in memory only");
        // The one before must not survive all the same.
        let _ = destroy(path);
    }
}

/// Puts `salt` in the place of the one before, whose bytes are overwritten first.
fn write(path: &Path, salt: &Salt) -> io::Result<()> {
    let text = format!("{} {:032x}\n", salt.day, u128::from_be_bytes(salt.key));
    let draft = secret::draft(path, text.as_bytes())?;
    destroy(path)?;
    fs::rename(&draft, path)?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// Overwrites a file, if it is there.
fn destroy(path: &Path) -> io::Result<()> {
    let mut file = match OpenOptions::new().write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len().min(1 << 10);
    let zeros = vec![0; usize::try_from(length).unwrap_or(0)];
    file.write_all(&zeros)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use std::os::unix::fs::MetadataExt;

    use super::*;

    const NOON: i64 = 20_000 * DAY_MICROS + DAY_MICROS / 2;
    const MIDNIGHT: i64 = 20_001 * DAY_MICROS;

    fn sender(address: &str, user_agent: &'static str) -> Sender<'static> {
        Sender { address: address.parse().unwrap(), user_agent, keep_address: false }
    }

    #[test]
    fn a_visitor_is_one_for_a_day_and_a_tenant() {
        let directory = tempfile::tempdir().unwrap();
        let visitors = Visitors::open(directory.path(), NOON).unwrap();
        let ada = sender("192.0.2.1", "browser");
        let id = visitors.id(NOON, "acme", &ada).unwrap();
        assert_eq!(visitors.id(MIDNIGHT - 1, "acme", &ada), Some(id));
        let mapped = sender("::ffff:192.0.2.1", "browser");
        assert_eq!(visitors.id(NOON, "acme", &mapped), Some(id));
        for (tenant, other) in [
            ("other", ada),
            ("acme", sender("192.0.2.2", "browser")),
            ("acme", sender("192.0.2.1", "phone")),
            ("acme", sender("2001:db8::1", "browser")),
        ] {
            assert_ne!(visitors.id(NOON, tenant, &other), Some(id));
        }
    }

    #[test]
    fn the_salt_survives_a_restart_and_no_midnight() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(NAME);
        let ada = sender("192.0.2.1", "browser");
        let visitors = Visitors::open(directory.path(), NOON).unwrap();
        let id = visitors.id(NOON, "acme", &ada);
        let before = fs::read_to_string(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        drop(visitors);
        let visitors = Visitors::open(directory.path(), NOON + 1).unwrap();
        assert_eq!(visitors.id(NOON, "acme", &ada), id);

        // Nobody sends anything; the clock alone replaces it.
        visitors.look_at_clock(MIDNIGHT - 1);
        assert_eq!(fs::read_to_string(&path).unwrap(), before);
        let old = File::open(&path).unwrap();
        visitors.look_at_clock(MIDNIGHT);
        let after = fs::read_to_string(&path).unwrap();
        assert_ne!(after.split(' ').nth(1), before.split(' ').nth(1));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        // Who still has the old file open finds nothing in it.
        let left = io::read_to_string(&old).unwrap();
        assert!(left.bytes().all(|byte| byte == 0), "{left:?}");
        assert!(!directory.path().join("salt.new").exists());

        // What came before midnight has no id any more; what came after has another one.
        assert_eq!(visitors.id(NOON, "acme", &ada), None);
        let next = visitors.id(MIDNIGHT, "acme", &ada);
        assert!(next.is_some() && next != id);
        drop(visitors);
        let visitors = Visitors::open(directory.path(), MIDNIGHT + 5 * DAY_MICROS).unwrap();
        assert_eq!(visitors.id(MIDNIGHT + 4 * DAY_MICROS, "acme", &ada), None);
    }

    #[test]
    fn the_first_event_of_a_day_replaces_the_salt_when_the_clock_was_not_looked_at() {
        let directory = tempfile::tempdir().unwrap();
        let visitors = Visitors::open(directory.path(), NOON).unwrap();
        let ada = sender("192.0.2.1", "browser");
        let ids: Vec<_> = std::thread::scope(|scope| {
            let ask = || visitors.id(MIDNIGHT, "acme", &ada);
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(ids[0].is_some() && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    }

    #[test]
    fn a_clock_that_is_set_back_costs_a_day_at_most() {
        let directory = tempfile::tempdir().unwrap();
        let visitors = Visitors::open(directory.path(), MIDNIGHT).unwrap();
        let ada = sender("192.0.2.1", "browser");
        let id = visitors.id(MIDNIGHT, "acme", &ada);
        assert_eq!(visitors.id(MIDNIGHT - 1, "acme", &ada), None);
        assert_eq!(visitors.id(MIDNIGHT, "acme", &ada), id);
        assert!(visitors.id(MIDNIGHT - 3 * DAY_MICROS, "acme", &ada).is_some());
    }

    #[test]
    fn a_salt_that_cannot_be_written_serves_from_memory() {
        let directory = tempfile::tempdir().unwrap();
        let visitors = Visitors::open(&directory.path().join("gone"), NOON).unwrap();
        let ada = sender("192.0.2.1", "browser");
        let today = visitors.id(NOON, "acme", &ada);
        assert!(today.is_some());
        assert_eq!(visitors.id(NOON + 1, "acme", &ada), today);
        let tomorrow = visitors.id(MIDNIGHT, "acme", &ada);
        assert!(tomorrow.is_some() && tomorrow != today);
    }

    #[test]
    fn what_is_no_salt_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        for text in ["", "20000", "20000 12", "20000 zz", "\u{0}\u{0}\u{0}"] {
            fs::write(directory.path().join(NAME), text).unwrap();
            let visitors = Visitors::open(directory.path(), NOON).unwrap();
            assert!(visitors.id(NOON, "a", &sender("::1", "")).is_some(), "{text}");
        }
    }
}

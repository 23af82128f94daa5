//! The file of keys: `<data>/keys.json`, mode 0600.
//!
//! **Guarantees.** The file is complete at every moment: a change is written beside it, synced and
//! renamed over it. Two processes that change it at the same time do so one after the other
//! (`keys.lock`), each on what the other has written.
//!
//! **Failure.** A file that cannot be read is an error, never an empty one: without keys a server
//! would be open.
//!
//! **Limits.** [`KEYS_MAX`] keys. Revoked ones are kept as long as there is room.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::key::{self, Key};
use crate::record::{Record, Wanted};
use crate::verifier;

/// Most keys that a file holds: reading it takes milliseconds, and a change writes it whole.
pub const KEYS_MAX: usize = 10_000;

const NAME: &str = "keys.json";
const DRAFT: &str = "keys.json.new";
const LOCK: &str = "keys.lock";
const VERSION: u32 = 1;

/// Why keys could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What is wanted makes no sense; names the field.
    #[error("{0}")]
    Invalid(String),
    /// There is no live key with this id.
    #[error("there is no key with the id `{0}`, or it is revoked")]
    NotFound(String),
    /// No more room.
    #[error("there are {KEYS_MAX} live keys already; that is the limit")]
    Full,
    /// The file is not one that this version has written.
    #[error("{} is not a file of keys: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it; quotes nothing of it.
        problem: String,
    },
    /// The system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The system has no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(#[from] getrandom::Error),
    /// A secret could not be hashed.
    #[error("a secret could not be hashed: {0}")]
    Hash(String),
}

impl Error {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// What tells one version of the file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    version: u32,
    keys: Vec<Record>,
}

/// The keys of a data directory.
#[derive(Debug, Clone)]
pub struct KeyFile {
    directory: PathBuf,
}

impl KeyFile {
    /// The keys of the data directory `directory`. Nothing is read yet.
    #[must_use]
    pub fn of(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    fn path(&self) -> PathBuf {
        self.directory.join(NAME)
    }

    /// All keys, revoked ones included; none when there is no file.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Damaged`].
    pub fn read(&self) -> Result<Vec<Record>, Error> {
        let path = self.path();
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("read", &path)(error)),
        };
        let damaged = |problem: String| Error::Damaged { path: path.clone(), problem };
        let contents: Contents = serde_json::from_slice(&text).map_err(|error| {
            // The message itself could quote a hash.
            damaged(format!("line {} column {}", error.line(), error.column()))
        })?;
        if contents.version != VERSION {
            let version = contents.version;
            return Err(damaged(format!("version {version}; this program knows {VERSION}")));
        }
        Ok(contents.keys)
    }

    /// The version of the file that is there now; `None` when there is none.
    pub(crate) fn stamp(&self) -> Result<Option<Stamp>, Error> {
        let path = self.path();
        match fs::metadata(&path) {
            Ok(meta) => Ok(Some(Stamp {
                inode: meta.ino(),
                bytes: meta.len(),
                changed: (meta.ctime(), meta.ctime_nsec()),
            })),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("look at", &path)(error)),
        }
    }

    /// Makes a key. The secret is in the result and nowhere else. Takes tens of milliseconds.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what makes no sense or an alias that another key has,
    /// [`Error::Full`], and what the system says.
    pub fn create(&self, wanted: Wanted) -> Result<(Key, Record), Error> {
        wanted.validate()?;
        let key = Key::random(wanted.scope)?;
        let record = wanted.into_record(key.id(), verifier::hash(key.secret())?, now());
        let record = self.change(|keys| {
            let taken = |alias: &&String| {
                keys.iter().any(|other| other.is_live() && other.aliases.contains(alias))
            };
            if let Some(alias) = record.aliases.iter().find(taken) {
                return Err(Error::Invalid(format!("another key has the alias `{alias}`")));
            }
            if keys.len() >= KEYS_MAX {
                let revoked = keys.iter().position(|key| !key.is_live()).ok_or(Error::Full)?;
                keys.remove(revoked);
            }
            keys.push(record.clone());
            Ok(record)
        })?;
        Ok((key, record))
    }

    /// Gives the key `id` a new secret; the old one is refused from now on.
    ///
    /// # Errors
    /// [`Error::NotFound`] and what the system says.
    pub fn rotate(&self, id: &str) -> Result<(Key, Record), Error> {
        let key = Key::with_new_secret(id)?;
        // Before the lock is taken, which others may wait for.
        let hash = verifier::hash(key.secret())?;
        let record = self.change(|keys| {
            let record = find(keys, id)?;
            record.hash = hash;
            record.rotated_at = Some(now());
            Ok(record.clone())
        })?;
        Ok((key, record))
    }

    /// Refuses the key `id` from now on.
    ///
    /// # Errors
    /// [`Error::NotFound`] and what the system says.
    pub fn revoke(&self, id: &str) -> Result<Record, Error> {
        self.change(|keys| {
            let record = find(keys, id)?;
            record.revoked_at = Some(now());
            Ok(record.clone())
        })
    }

    /// Reads, changes and writes while nobody else does. Nothing is written after an error.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut Vec<Record>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let path = self.directory.join(LOCK);
        let lock = File::options().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let lock = lock.map_err(Error::io("open", &path))?;
        // Held for milliseconds by whoever has it.
        lock.lock().map_err(Error::io("lock", &path))?;
        let mut keys = self.read()?;
        let outcome = change(&mut keys)?;
        self.write(keys)?;
        Ok(outcome)
    }

    fn write(&self, keys: Vec<Record>) -> Result<(), Error> {
        let draft = self.directory.join(DRAFT);
        let contents = Contents { version: VERSION, keys };
        let mut text = serde_json::to_vec_pretty(&contents).map_err(|error| Error::Io {
            action: "write",
            path: draft.clone(),
            source: error.into(),
        })?;
        text.push(b'\n');
        File::options()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&draft)
            .and_then(|mut file| {
                // A draft that a crash left behind may have had another mode.
                file.set_permissions(Permissions::from_mode(0o600))?;
                file.write_all(&text)?;
                file.sync_all()
            })
            .map_err(Error::io("write", &draft))?;
        let path = self.path();
        fs::rename(&draft, &path).map_err(Error::io("replace", &path))?;
        File::open(&self.directory)
            .and_then(|directory| directory.sync_all())
            .map_err(Error::io("sync", &self.directory))
    }
}

fn find<'a>(keys: &'a mut [Record], id: &str) -> Result<&'a mut Record, Error> {
    let found = keys.iter_mut().find(|key| key.id == id && key.is_live());
    found.ok_or_else(|| Error::NotFound(key::public_part(id)))
}

/// Now, as RFC 3339 in UTC with whole seconds.
fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    utc(since.as_secs())
}

/// Seconds since 1970 as RFC 3339; the date by Hinnant's `civil_from_days`.
fn utc(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use super::*;
    use crate::record::Scope;

    fn write_key(aliases: &[&str]) -> Wanted {
        let aliases = aliases.iter().map(|&alias| alias.to_owned()).collect();
        Wanted { scope: Scope::Write, tenant: Some("acme".into()), aliases, origins: Vec::new() }
    }

    #[test]
    fn keys_survive_in_a_file_that_only_the_owner_reads_and_that_holds_no_secret() {
        let directory = tempfile::tempdir().unwrap();
        let file = KeyFile::of(directory.path());
        assert!(file.read().unwrap().is_empty());
        let (key, _) = file.create(write_key(&["a.example"])).unwrap();
        let keys = file.read().unwrap();
        assert_eq!((keys.len(), keys[0].id.as_str()), (1, key.id()));
        assert_eq!(keys[0].tenant, "acme");
        let path = directory.path().join(NAME);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let text = fs::read_to_string(path).unwrap();
        assert!(text.contains("$argon2id$") && !text.contains(key.secret()));
        assert!(!directory.path().join(DRAFT).exists());
    }

    #[test]
    fn a_rotated_key_has_another_secret_and_a_revoked_one_is_gone_for_good() {
        let directory = tempfile::tempdir().unwrap();
        let file = KeyFile::of(directory.path());
        let (first, _) = file.create(write_key(&["a.example"])).unwrap();
        let (second, record) = file.rotate(first.id()).unwrap();
        assert_eq!(first.id(), second.id());
        let mut memory = verifier::Memory::default();
        assert!(memory.fits(&record.hash, second.secret()));
        assert!(!memory.fits(&record.hash, first.secret()));
        let before = file.stamp().unwrap();
        file.revoke(first.id()).unwrap();
        assert_ne!(file.stamp().unwrap(), before);
        assert!(matches!(file.rotate(first.id()), Err(Error::NotFound(_))));
        assert!(matches!(file.revoke(first.id()), Err(Error::NotFound(_))));
        // Its alias is free again.
        file.create(write_key(&["a.example"])).unwrap();
        assert_eq!(file.read().unwrap().len(), 2);
    }

    #[test]
    fn an_alias_belongs_to_one_key() {
        let directory = tempfile::tempdir().unwrap();
        let file = KeyFile::of(directory.path());
        file.create(write_key(&["a.example", "b.example"])).unwrap();
        let error = file.create(write_key(&["b.example"])).unwrap_err().to_string();
        assert!(error.contains("`b.example`"), "{error}");
        assert_eq!(file.read().unwrap().len(), 1);
    }

    #[test]
    fn a_damaged_file_is_an_error_and_not_an_empty_one() {
        let directory = tempfile::tempdir().unwrap();
        let file = KeyFile::of(directory.path());
        for text in ["", "{", "{\"version\":1}", "{\"version\":2,\"keys\":[]}"] {
            fs::write(directory.path().join(NAME), text).unwrap();
            assert!(matches!(file.read(), Err(Error::Damaged { .. })), "{text}");
            assert!(matches!(file.revoke("w"), Err(Error::Damaged { .. })), "{text}");
        }
    }

    #[test]
    fn changes_of_many_at_once_are_all_kept() {
        let directory = tempfile::tempdir().unwrap();
        let file = KeyFile::of(directory.path());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..2).for_each(|_| drop(file.create(write_key(&[])).unwrap())));
            }
        });
        assert_eq!(file.read().unwrap().len(), 8);
    }

    #[test]
    fn times_are_written_as_rfc_3339() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(utc(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(utc(1_795_286_115), "2026-11-21T18:35:15Z");
    }
}

//! The files of the Delta log as they lie in the directory: listing, damage, syncing.
//!
//! **Guarantees.** [`LogFiles::check`] refuses a log whose reading would silently lose commits: the
//! Delta library takes an empty commit file for a commit that changes nothing.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use object_store::{ObjectMeta, path};
use serde::de::IgnoredAny;

use crate::lake::error::{LakeError, Result};
use crate::lake::location::Location;
use crate::lake::vacuum::FOREIGN_AGE;

/// The directory of the log below the table's root.
const LOG_DIRECTORY: &str = "_delta_log";
/// Digits of a version in a file name of the log.
const VERSION_DIGITS: usize = 20;
/// What a Parquet file starts and ends with.
const PARQUET_MAGIC: &[u8; 4] = b"PAR1";

/// The files of the log, by version.
#[derive(Debug, Default)]
pub(super) struct LogFiles {
    /// `N.json`.
    pub(super) commits: BTreeMap<u64, ObjectMeta>,
    /// `N.crc`.
    pub(super) checksums: BTreeMap<u64, ObjectMeta>,
    /// `N.checkpoint.parquet`, the form that we write.
    pub(super) checkpoints: BTreeMap<u64, ObjectMeta>,
    /// Whether there are checkpoints of other forms.
    pub(super) foreign_checkpoints: bool,
}

impl LogFiles {
    /// Lists the log.
    pub(super) fn list(location: &Location) -> Result<Self> {
        let mut files = Self::default();
        for object in location.list(Some(path::Path::from(LOG_DIRECTORY)))? {
            let name = object.location.filename().unwrap_or_default();
            let (digits, suffix) = name.split_at_checked(VERSION_DIGITS).unwrap_or_default();
            let Ok(version) = digits.parse() else { continue };
            match suffix {
                ".json" => drop(files.commits.insert(version, object)),
                ".crc" => drop(files.checksums.insert(version, object)),
                ".checkpoint.parquet" => drop(files.checkpoints.insert(version, object)),
                _ => files.foreign_checkpoints |= suffix.starts_with(".checkpoint."),
            }
        }
        Ok(files)
    }

    /// Removes staging files in the log's directory that a crash must have left.
    pub(super) fn remove_staged(location: &Location) {
        location.files().remove_staged(&location.root().join(LOG_DIRECTORY), FOREIGN_AGE);
    }

    /// Whether there is a table at all.
    pub(super) fn is_empty(&self) -> bool {
        self.commits.is_empty() && self.checkpoints.is_empty() && !self.foreign_checkpoints
    }

    /// The version of the newest checkpoint in our form; commits up to it are no longer read.
    fn newest_checkpoint(&self) -> Option<u64> {
        self.checkpoints.last_key_value().map(|(&version, _)| version)
    }

    /// The files that `version` is read from: the newest checkpoint at or below it, and the commits
    /// after that one.
    pub(super) fn of_version(&self, version: u64) -> impl Iterator<Item = &ObjectMeta> {
        let checkpoint = self.checkpoints.range(..=version).next_back();
        let first = checkpoint.map_or(0, |(&version, _)| version.saturating_add(1));
        let commits = self.commits.iter().filter(move |(at, _)| (first..=version).contains(at));
        checkpoint.into_iter().chain(commits).map(|(_, file)| file)
    }

    /// Refuses a log with an empty commit, or whose newest commit is cut off.
    ///
    /// # Errors
    ///
    /// [`LakeError::DamagedLog`]; nothing has been changed.
    pub(super) fn check(&self, location: &Location) -> Result<()> {
        let unread = self.newest_checkpoint().map_or(0, |version| version.saturating_add(1));
        for commit in self.commits.range(unread..).map(|(_, commit)| commit) {
            if commit.size == 0 {
                return Err(damaged(location, &commit.location, "is empty".to_owned()));
            }
        }
        let Some((_, newest)) = self.commits.range(unread..).next_back() else { return Ok(()) };
        let local = location.local(&newest.location);
        let text = fs::read(&local).map_err(LakeError::io("read", &local))?;
        for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
            if line.is_empty() {
                continue;
            }
            if let Err(error) = serde_json::from_slice::<IgnoredAny>(line) {
                let problem = format!("is not JSON in line {} ({error})", index + 1);
                return Err(damaged(location, &newest.location, problem));
            }
        }
        Ok(())
    }

    /// Puts everything that the table's present state rests on onto the medium: the newest
    /// checkpoint, the commits after it, and the directory entries. A commit whose writing failed
    /// half-way may be readable from the page cache only; what it holds must not be relied on
    /// before this.
    ///
    /// # Errors
    ///
    /// [`LakeError::Io`].
    pub(super) fn sync(&self, location: &Location) -> Result<()> {
        let checkpoint = self.checkpoints.last_key_value();
        let first = checkpoint.map_or(0, |(&version, _)| version);
        let commits = self.commits.range(first..).map(|(_, commit)| commit);
        for file in checkpoint.map(|(_, checkpoint)| checkpoint).into_iter().chain(commits) {
            location.sync_file(&file.location)?;
        }
        location.sync_directory(&location.root().join(LOG_DIRECTORY))?;
        location.sync_directory(location.root())
    }

    /// Files that nobody needs any more: those below the newest complete checkpoint that is at most
    /// version `newest` and was written at or before `written_ms`. Whoever read the table since
    /// then started from that checkpoint or a later one.
    pub(super) fn superseded(
        &self,
        location: &Location,
        newest: u64,
        written_ms: i64,
    ) -> Vec<&ObjectMeta> {
        let mut candidates = self.checkpoints.range(..=newest).rev();
        let kept = candidates.find(|(_, checkpoint)| {
            checkpoint.last_modified.timestamp_millis() <= written_ms
                && is_parquet(&location.local(&checkpoint.location))
        });
        let Some((&kept, _)) = kept else { return Vec::new() };
        let kinds = [&self.commits, &self.checksums, &self.checkpoints];
        kinds.into_iter().flat_map(|files| files.range(..kept)).map(|(_, file)| file).collect()
    }
}

fn damaged(location: &Location, file: &path::Path, problem: String) -> LakeError {
    LakeError::DamagedLog { path: location.local(file), problem }
}

/// Whether the file begins and ends as a complete Parquet file does.
fn is_parquet(path: &Path) -> bool {
    let ends = || {
        let mut file = File::open(path)?;
        let (mut head, mut tail) = ([0; 4], [0; 4]);
        file.read_exact(&mut head)?;
        file.seek(SeekFrom::End(-4))?;
        file.read_exact(&mut tail)?;
        Ok::<_, std::io::Error>((head, tail))
    };
    ends().is_ok_and(|(head, tail)| head == *PARQUET_MAGIC && tail == *PARQUET_MAGIC)
}

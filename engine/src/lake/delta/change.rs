//! How a change gets into the table: once, and on a version that it fits.
//!
//! **Algorithm.** Ask the change where the version at hand stands; build the transaction on that
//! very version; put the next log file where none may be. When another writer was there first, read
//! the table again and start over. When anything else fails, read the table again and believe it.

use std::collections::HashSet;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use delta_kernel::transaction::{CommitResult, CommittedTransaction, Transaction};
use delta_kernel::{KernelError, KernelResult};

use super::live::DataFile;
use super::log::LogFiles;
use super::{Table, cause};
use crate::lake::error::{LakeError, Result};
use crate::lake::footer::NewFile;

/// Attempts of one commit against other writers. With the pauses between them they last about 5 s;
/// writers that each commit a few times a second meet two or three times in a row at worst.
pub const COMMIT_TRIES: u32 = 32;
/// Pause after the first conflict; it doubles with each, up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// Longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_millis(200);
/// Commits that a forgotten checkpoint may be late before a commit makes up for it.
pub(super) const UPKEEP_LATE_COMMITS: u64 = 20;

/// Something that a commit does to the table and that can be told from its repetition.
pub(super) trait Change {
    /// Where the version at hand stands, seen from this change.
    fn standing(&self, table: &Table) -> Result<Standing>;

    /// The transaction on the version at hand, ready to be committed.
    fn transaction(&self, table: &Table) -> KernelResult<Transaction>;

    /// The files that it makes part of the table.
    fn added(&self) -> &[NewFile];

    /// The files that it takes out of the table.
    fn removed(&self) -> &[DataFile] {
        &[]
    }

    /// Whether the files that it takes out have to go whoever has written them.
    fn erases(&self) -> bool {
        false
    }
}

/// Where the table stands, seen from a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// The change fits and is not in the table.
    Before,
    /// The change is in the table.
    After,
    /// The change does not fit any more: this file of its is no part of the table.
    Gone(String),
}

/// What became of a change.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Carried {
    /// It is in the table, by this call.
    Out,
    /// It was in the table already.
    Already,
    /// It did not fit any more; nothing was changed. See [`Standing::Gone`].
    Gone(String),
}

impl Table {
    /// Commits `change` unless the table holds it already.
    pub(super) fn carry_out(&mut self, change: &impl Change) -> Result<Carried> {
        if self.is_upkeep_due(UPKEEP_LATE_COMMITS) {
            self.upkeep();
        }
        for attempt in 0..COMMIT_TRIES {
            match change.standing(self)? {
                Standing::Before => {}
                Standing::After => {
                    LogFiles::list(&self.location)?.sync(&self.location)?;
                    return Ok(Carried::Already);
                }
                Standing::Gone(path) => return Ok(Carried::Gone(path)),
            }
            match self.try_commit(change) {
                Ok(Some(committed)) => {
                    self.adopt(&committed, change)?;
                    return Ok(Carried::Out);
                }
                Ok(None) => {
                    let refreshed = self.refresh();
                    refreshed
                        .map_err(|source| LakeError::NotCommitted { source: source.into() })?;
                }
                Err(source) => return self.settle(change, source),
            }
            thread::sleep(pause(attempt));
        }
        Err(LakeError::Contended { tries: COMMIT_TRIES })
    }

    /// One attempt on the version at hand; `None` when another writer took its place.
    fn try_commit(&self, change: &impl Change) -> KernelResult<Option<CommittedTransaction>> {
        match change.transaction(self)?.commit(&self.kernel)? {
            CommitResult::Committed(committed) => Ok(Some(committed)),
            CommitResult::Conflicted(_) => Ok(None),
            CommitResult::Retryable(failed) => Err(failed.error),
        }
    }

    /// Goes on from the version that a commit has made.
    fn adopt(&mut self, committed: &CommittedTransaction, change: &impl Change) -> Result<()> {
        let Some(snapshot) = committed.post_commit_snapshot() else {
            return self.refresh();
        };
        self.snapshot = Arc::clone(snapshot);
        self.commits_since_checkpoint = committed.post_commit_stats().commits_since_checkpoint;
        self.note_replaced(change.removed().iter().map(|file| &file.path), change.erases());
        if let Some(live) = self.live.take() {
            let gone: HashSet<&str> = change.removed().iter().map(|file| &*file.path).collect();
            let added = change.added().iter().map(|file| DataFile::of(&self.location, file));
            let kept = live.iter().filter(|file| !gone.contains(&*file.path)).cloned();
            let live: Arc<[DataFile]> = kept.chain(added).collect();
            self.live.get_or_init(|| live);
        }
        Ok(())
    }

    /// Finds out what became of a commit that ended in an error.
    pub(super) fn settle(&mut self, change: &impl Change, source: KernelError) -> Result<Carried> {
        if let Err(unreadable) = self.refresh() {
            let failure = source.to_string();
            return Err(LakeError::Unknown { failure, source: unreadable.into() });
        }
        match change.standing(self)? {
            Standing::Before => Err(LakeError::NotCommitted { source: cause(source) }),
            Standing::Gone(path) => Ok(Carried::Gone(path)),
            Standing::After => {
                LogFiles::list(&self.location)?.sync(&self.location)?;
                let error: &dyn std::error::Error = &source;
                tracing::warn!(error, "a commit reported an error but is in the table");
                Ok(Carried::Out)
            }
        }
    }
}

/// The pause after a conflict in attempt `attempt`. Half of it is up to the clock's nanoseconds, so
/// that two writers do not stay in step.
fn pause(attempt: u32) -> Duration {
    let longest = PAUSE_MIN.saturating_mul(1 << attempt.min(16)).min(PAUSE_MAX);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let jitter = now.unwrap_or_default().subsec_nanos() % 1_000;
    longest / 2 + (longest / 2).saturating_mul(jitter) / 1_000
}

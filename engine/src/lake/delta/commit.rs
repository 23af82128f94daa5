//! Commits: files and shard numbers into the table, together, once.
//!
//! **Algorithm.** Check the shards' numbers in the version at hand; build the transaction on that
//! very version; put the next log file where none may be. When another writer was there first, read
//! the table again and start over. When anything else fails, read the table again and believe it.

use std::collections::HashSet;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use delta_kernel::committer::FileSystemCommitter;
use delta_kernel::engine::arrow_data::ArrowEngineData;
use delta_kernel::transaction::{CommitResult, CommittedTransaction, UpdateTableOperation};
use delta_kernel::{KernelError, KernelResult};

use super::live::DataFile;
use super::log::LogFiles;
use super::{ENGINE_INFO, Table, adds, cause};
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

/// How far a roll moves a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardSequence {
    /// The shard.
    pub shard: u32,
    /// The number that the table must hold for it before; 0 when it holds none.
    pub previous: i64,
    /// The number that it holds afterwards, at least `previous`.
    pub last: i64,
}

/// A [`ShardSequence`] and the Delta application whose `txn` number it is.
#[derive(Debug, Clone)]
pub(super) struct Move {
    pub(super) application: String,
    pub(super) sequence: ShardSequence,
}

/// What became of a commit.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitOutcome {
    /// The files and numbers are part of the table.
    Committed {
        /// The version that holds them, or a later one.
        version: u64,
    },
    /// The table held the numbers already, from an earlier attempt; nothing was added. Files of
    /// this call that the earlier attempt did not use are no part of the table
    /// ([`Table::discard`] removes them).
    AlreadyCommitted {
        /// The version in which that was seen.
        version: u64,
    },
}

impl CommitOutcome {
    /// The version in which the commit is seen.
    #[must_use]
    pub fn version(self) -> u64 {
        match self {
            Self::Committed { version } | Self::AlreadyCommitted { version } => version,
        }
    }
}

impl Table {
    /// Adds `files` to the table and moves the shards forward, in one commit. The files and their
    /// directories must be synced.
    ///
    /// [`Table::upkeep`] should follow once readers have the new version.
    ///
    /// # Errors
    ///
    /// [`LakeError::Sequence`] when a shard in the table is neither at `previous` nor at `last`;
    /// [`LakeError::Unnumbered`] when there are files but no shard moves;
    /// [`LakeError::Contended`], [`LakeError::NotCommitted`]: nothing was added;
    /// [`LakeError::Unknown`], [`LakeError::Delta`], [`LakeError::Io`]: it is not known whether
    /// something was. After each of them but the first two the same call may be repeated.
    ///
    /// # Panics
    ///
    /// When a shard's `last` is below its `previous`, or a shard occurs twice.
    pub fn commit(
        &mut self,
        files: &[NewFile],
        sequences: &[ShardSequence],
    ) -> Result<CommitOutcome> {
        let mut shards = HashSet::new();
        for sequence in sequences {
            assert!(sequence.last >= sequence.previous, "a shard only moves forward: {sequence:?}");
            assert!(shards.insert(sequence.shard), "a shard occurs once: {sequence:?}");
        }
        let moves: Vec<Move> = sequences.iter().map(|&sequence| self.of_shard(sequence)).collect();
        self.commit_moves(files, &moves)
    }

    /// How far the events of `shard` from `first` on are restored from quarantine: their last
    /// number, or 0 when they are not.
    ///
    /// # Errors
    ///
    /// [`LakeError::Delta`] when the log cannot be read.
    pub fn restored(&self, shard: u32, first: i64) -> Result<i64> {
        self.application_version(&self.restored_application(shard, first))
    }

    /// Adds `files`, which hold the numbers `first` to `last` of `shard` from quarantine, to the
    /// table, in one commit that can be told from its repetition. No shard moves.
    ///
    /// # Errors
    ///
    /// As [`Table::commit`].
    pub fn commit_restored(
        &mut self,
        files: &[NewFile],
        shard: u32,
        first: i64,
        last: i64,
    ) -> Result<CommitOutcome> {
        let application = self.restored_application(shard, first);
        let sequence = ShardSequence { shard, previous: 0, last };
        self.commit_moves(files, &[Move { application, sequence }])
    }

    pub(super) fn of_shard(&self, sequence: ShardSequence) -> Move {
        Move { application: self.application(sequence.shard), sequence }
    }

    fn restored_application(&self, shard: u32, first: i64) -> String {
        format!("{}quarantine/{shard}/{first}", self.application_prefix())
    }

    fn commit_moves(&mut self, files: &[NewFile], moves: &[Move]) -> Result<CommitOutcome> {
        if self.is_upkeep_due(UPKEEP_LATE_COMMITS) {
            self.upkeep();
        }
        for attempt in 0..COMMIT_TRIES {
            if self.standing(files, moves)? == Standing::After {
                LogFiles::list(&self.location)?.sync(&self.location)?;
                return Ok(CommitOutcome::AlreadyCommitted { version: self.version() });
            }
            match self.try_commit(files, moves) {
                Ok(Some(committed)) => return self.adopt(&committed, files),
                Ok(None) => {
                    let refreshed = self.refresh();
                    refreshed
                        .map_err(|source| LakeError::NotCommitted { source: source.into() })?;
                }
                Err(source) => return self.settle(files, moves, source),
            }
            thread::sleep(pause(attempt));
        }
        Err(LakeError::Contended { tries: COMMIT_TRIES })
    }

    /// Whether the version at hand is the one before or the one after a commit.
    fn standing(&self, files: &[NewFile], moves: &[Move]) -> Result<Standing> {
        let mut found = Vec::with_capacity(moves.len());
        for Move { application, sequence } in moves {
            found.push((*sequence, self.application_version(application)?));
        }
        if found.iter().all(|(sequence, found)| sequence.last == *found) {
            let moved = found.iter().any(|(sequence, _)| sequence.previous != sequence.last);
            // Without a number that moves, a repetition could not be told from the first time.
            return if moved || files.is_empty() {
                Ok(Standing::After)
            } else {
                Err(LakeError::Unnumbered { files: files.len() })
            };
        }
        match found.into_iter().find(|(sequence, found)| sequence.previous != *found) {
            Some((expected, found)) => Err(LakeError::Sequence { expected, found }),
            None => Ok(Standing::Before),
        }
    }

    /// One attempt on the version at hand; `None` when another writer took its place.
    fn try_commit(
        &self,
        files: &[NewFile],
        moves: &[Move],
    ) -> KernelResult<Option<CommittedTransaction>> {
        let operation = UpdateTableOperation::StreamingUpdate;
        let mut update = Arc::clone(&self.snapshot).update_table(operation, ENGINE_INFO, true);
        if !files.is_empty() {
            update = update.with_blind_append();
        }
        for Move { application, sequence } in moves {
            if sequence.last != sequence.previous {
                update = update.with_transaction_id(application.clone(), sequence.last);
            }
        }
        let rows: u64 = files.iter().map(|file| file.rows).sum();
        let mut transaction = update
            .with_operation_metrics([
                ("numAddedFiles", Some(files.len().to_string())),
                ("numOutputRows", Some(rows.to_string())),
            ])
            .build(&self.kernel, Box::new(FileSystemCommitter::new()))?;
        if !files.is_empty() {
            let batch = adds::batch(&transaction, files)?;
            transaction.add_files(Box::new(ArrowEngineData::new(batch)));
        }
        match transaction.commit(&self.kernel)? {
            CommitResult::Committed(committed) => Ok(Some(committed)),
            CommitResult::Conflicted(_) => Ok(None),
            CommitResult::Retryable(failed) => Err(failed.error),
        }
    }

    /// Goes on from the version that a commit has made.
    fn adopt(
        &mut self,
        committed: &CommittedTransaction,
        files: &[NewFile],
    ) -> Result<CommitOutcome> {
        let Some(snapshot) = committed.post_commit_snapshot() else {
            self.refresh()?;
            return Ok(CommitOutcome::Committed { version: self.version() });
        };
        self.snapshot = Arc::clone(snapshot);
        self.commits_since_checkpoint = committed.post_commit_stats().commits_since_checkpoint;
        if let Some(live) = self.live.take() {
            let added = files.iter().map(|file| DataFile::of(&self.location, file));
            let live: Arc<[DataFile]> = live.iter().cloned().chain(added).collect();
            self.live.get_or_init(|| live);
        }
        Ok(CommitOutcome::Committed { version: self.version() })
    }

    /// Finds out what became of a commit that ended in an error.
    pub(super) fn settle(
        &mut self,
        files: &[NewFile],
        moves: &[Move],
        source: KernelError,
    ) -> Result<CommitOutcome> {
        if let Err(unreadable) = self.refresh() {
            let failure = source.to_string();
            return Err(LakeError::Unknown { failure, source: unreadable.into() });
        }
        match self.standing(files, moves)? {
            Standing::Before => Err(LakeError::NotCommitted { source: cause(source) }),
            Standing::After => {
                LogFiles::list(&self.location)?.sync(&self.location)?;
                let error: &dyn std::error::Error = &source;
                tracing::warn!(error, "a commit reported an error but is in the table");
                Ok(CommitOutcome::Committed { version: self.version() })
            }
        }
    }
}

/// Where the table stands, seen from a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Before,
    After,
}

/// The pause after a conflict in attempt `attempt`. Half of it is up to the clock's nanoseconds, so
/// that two writers do not stay in step.
fn pause(attempt: u32) -> Duration {
    let longest = PAUSE_MIN.saturating_mul(1 << attempt.min(16)).min(PAUSE_MAX);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let jitter = now.unwrap_or_default().subsec_nanos() % 1_000;
    longest / 2 + (longest / 2).saturating_mul(jitter) / 1_000
}

//! A roll's commit: files and shard numbers into the table, together, once.

use std::collections::HashSet;
use std::sync::Arc;

use delta_kernel::KernelResult;
use delta_kernel::committer::FileSystemCommitter;
use delta_kernel::engine::arrow_data::ArrowEngineData;
use delta_kernel::transaction::{Transaction, UpdateTableOperation};

use super::change::{Carried, Change, Standing};
use super::{ENGINE_INFO, Table, adds};
use crate::lake::error::{LakeError, Result};
use crate::lake::footer::NewFile;

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

/// Files of a roll, and how far they move the shards.
pub(super) struct Roll<'a> {
    pub(super) files: &'a [NewFile],
    pub(super) moves: &'a [Move],
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
        let carried = self.carry_out(&Roll { files, moves })?;
        let version = self.version();
        Ok(match carried {
            Carried::Out => CommitOutcome::Committed { version },
            Carried::Already | Carried::Gone(_) => CommitOutcome::AlreadyCommitted { version },
        })
    }
}

impl Change for Roll<'_> {
    fn standing(&self, table: &Table) -> Result<Standing> {
        let mut found = Vec::with_capacity(self.moves.len());
        for Move { application, sequence } in self.moves {
            found.push((*sequence, table.application_version(application)?));
        }
        if found.iter().all(|(sequence, found)| sequence.last == *found) {
            let moved = found.iter().any(|(sequence, _)| sequence.previous != sequence.last);
            // Without a number that moves, a repetition could not be told from the first time.
            return if moved || self.files.is_empty() {
                Ok(Standing::After)
            } else {
                Err(LakeError::Unnumbered { files: self.files.len() })
            };
        }
        match found.into_iter().find(|(sequence, found)| sequence.previous != *found) {
            Some((expected, found)) => Err(LakeError::Sequence { expected, found }),
            None => Ok(Standing::Before),
        }
    }

    fn transaction(&self, table: &Table) -> KernelResult<Transaction> {
        let operation = UpdateTableOperation::StreamingUpdate;
        let mut update = Arc::clone(&table.snapshot).update_table(operation, ENGINE_INFO, true);
        if !self.files.is_empty() {
            update = update.with_blind_append();
        }
        for Move { application, sequence } in self.moves {
            if sequence.last != sequence.previous {
                update = update.with_transaction_id(application.clone(), sequence.last);
            }
        }
        let rows: u64 = self.files.iter().map(|file| file.rows).sum();
        let mut transaction = update
            .with_operation_metrics([
                ("numAddedFiles", Some(self.files.len().to_string())),
                ("numOutputRows", Some(rows.to_string())),
            ])
            .build(&table.kernel, Box::new(FileSystemCommitter::new()))?;
        if !self.files.is_empty() {
            let batch = adds::batch(&transaction, self.files)?;
            transaction.add_files(Box::new(ArrowEngineData::new(batch)));
        }
        Ok(transaction)
    }

    fn added(&self) -> &[NewFile] {
        self.files
    }
}

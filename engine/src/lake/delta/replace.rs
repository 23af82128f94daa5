//! Commits that put some files in the place of others, together, once: compaction's, with the same
//! rows, and an erase's, with fewer.
//!
//! **Guarantees.** Nothing is replaced unless every file that goes is part of the very version that
//! the commit goes onto: the Delta library would take a second removal of a file without a word,
//! and its rows would then be in the table twice. A replacement carries as many rows as it removes,
//! an erase as many fewer as its caller says.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use delta_kernel::committer::FileSystemCommitter;
use delta_kernel::engine::arrow_data::{ArrowEngineData, EngineDataArrowExt};
use delta_kernel::engine_data::FilteredEngineData;
use delta_kernel::transaction::{Transaction, UpdateTableOperation};
use delta_kernel::{KernelError, KernelResult};

use super::change::{Carried, Change, Standing};
use super::live::{DataFile, place};
use super::{ENGINE_INFO, Table, adds};
use crate::lake::error::{LakeError, Result};
use crate::lake::footer::NewFile;

/// What became of a replacement.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplaceOutcome {
    /// The new files stand in the table for the old ones.
    Replaced {
        /// The version that holds them, or a later one.
        version: u64,
    },
    /// A file that was to go is no part of the table any more: another writer was faster, or this was
    /// done before and there is no new file to tell by. Nothing was changed, and the new files are the
    /// caller's to remove.
    Outdated {
        /// The file.
        path: String,
    },
}

pub(super) struct Replacement<'a> {
    pub(super) removed: &'a [DataFile],
    pub(super) added: &'a [NewFile],
    /// Whether rows go with it.
    pub(super) erases: bool,
}

impl Table {
    /// Puts `added` in the place of `removed`, in one commit that says that no data has changed.
    /// The new files and their directories must be synced. The old files stay on disk
    /// ([`Table::take_expired`] says until when).
    ///
    /// [`Table::upkeep`] should follow once readers have the new version.
    ///
    /// # Errors
    ///
    /// [`LakeError::Unequal`] when the new files do not have as many rows as the old ones;
    /// [`LakeError::Contended`], [`LakeError::NotCommitted`]: nothing was changed;
    /// [`LakeError::Unknown`], [`LakeError::Delta`], [`LakeError::Io`]: it is not known whether
    /// something was. After each of them but the first the same call may be repeated.
    pub fn replace(&mut self, removed: &[DataFile], added: &[NewFile]) -> Result<ReplaceOutcome> {
        self.replace_rows(&Replacement { removed, added, erases: false }, 0)
    }

    /// Puts `added`, which may be none, in the place of `removed`: the same rows without `gone` that
    /// are erased. The new files and their directories must be synced.
    ///
    /// # Errors
    ///
    /// As [`Table::replace`].
    pub fn erase(
        &mut self,
        removed: &[DataFile],
        added: &[NewFile],
        gone: u64,
    ) -> Result<ReplaceOutcome> {
        self.replace_rows(&Replacement { removed, added, erases: true }, gone)
    }

    fn replace_rows(&mut self, change: &Replacement<'_>, gone: u64) -> Result<ReplaceOutcome> {
        let before = change.removed.iter().map(|file| file.rows).sum::<Option<u64>>();
        let after: u64 = change.added.iter().map(|file| file.rows).sum();
        if change.removed.is_empty() || before != after.checked_add(gone) {
            return Err(LakeError::Unequal { removed: before, added: after });
        }
        Ok(match self.carry_out(change)? {
            Carried::Out | Carried::Already => ReplaceOutcome::Replaced { version: self.version() },
            Carried::Gone(path) => ReplaceOutcome::Outdated { path },
        })
    }

    /// The scan's rows of exactly the files `wanted`, which is the form that a removal takes.
    fn scan_rows(&self, wanted: &[DataFile]) -> KernelResult<Vec<FilteredEngineData>> {
        let wanted: HashSet<&str> = wanted.iter().map(|file| &*file.path).collect();
        let scan = Arc::clone(&self.snapshot).scan_builder().without_row_transforms().build()?;
        let mut found = Vec::new();
        let mut count = 0;
        for files in scan.scan_metadata(&self.kernel)? {
            let (data, mut selected) = files?.scan_files.into_parts();
            selected.resize(data.len(), true);
            let batch = data.try_into_record_batch()?;
            let paths = batch
                .column_by_name("path")
                .ok_or_else(|| KernelError::MissingColumn("path".to_owned()))?
                .as_string::<i32>();
            for (row, selected) in selected.iter_mut().enumerate() {
                *selected = *selected
                    && paths.is_valid(row)
                    && place(&self.location, paths.value(row))
                        .is_ok_and(|(path, _)| wanted.contains(&*path));
                count += usize::from(*selected);
            }
            if selected.contains(&true) {
                let data = Box::new(ArrowEngineData::new(batch));
                found.push(FilteredEngineData::try_new(data, selected)?);
            }
        }
        if count != wanted.len() {
            let wanted = wanted.len();
            return Err(KernelError::generic(format!(
                "the log lists {count} of the {wanted} files that are to be replaced"
            )));
        }
        Ok(found)
    }
}

impl Change for Replacement<'_> {
    fn standing(&self, table: &Table) -> Result<Standing> {
        let live = table.live_files()?;
        let live: HashSet<&str> = live.iter().map(|file| &*file.path).collect();
        let Some(gone) = self.removed.iter().find(|file| !live.contains(&*file.path)) else {
            return Ok(Standing::Before);
        };
        // Without new files nothing tells this commit from another writer's, who may have put the rows
        // into files of his own: the caller looks again.
        let removed = self.removed.iter().all(|file| !live.contains(&*file.path));
        let added = self.added.iter().all(|file| live.contains(file.path.as_ref()));
        if removed && added && !self.added.is_empty() {
            return Ok(Standing::After);
        }
        Ok(Standing::Gone(gone.path.to_string()))
    }

    fn transaction(&self, table: &Table) -> KernelResult<Transaction> {
        let old_bytes: u64 = self.removed.iter().map(|file| file.bytes).sum();
        let new_bytes: u64 = self.added.iter().map(|file| file.bytes).sum();
        let operation = match self.erases {
            true => UpdateTableOperation::Delete,
            false => UpdateTableOperation::Optimize,
        };
        let mut transaction = Arc::clone(&table.snapshot)
            .update_table(operation, ENGINE_INFO, self.erases)
            .with_operation_metrics([
                ("numRemovedFiles", Some(self.removed.len().to_string())),
                ("numRemovedBytes", Some(old_bytes.to_string())),
                ("numAddedFiles", Some(self.added.len().to_string())),
                ("numAddedBytes", Some(new_bytes.to_string())),
            ])
            .build(&table.kernel, Box::new(FileSystemCommitter::new()))?;
        for rows in table.scan_rows(self.removed)? {
            transaction.remove_files(rows);
        }
        if !self.added.is_empty() {
            let batch = adds::batch(&transaction, self.added)?;
            transaction.add_files(Box::new(ArrowEngineData::new(batch)));
        }
        Ok(transaction)
    }

    fn added(&self) -> &[NewFile] {
        self.added
    }

    fn removed(&self) -> &[DataFile] {
        self.removed
    }

    fn erases(&self) -> bool {
        self.erases
    }
}

//! Files that a commit has taken out of the table and that readers of older versions still open.
//!
//! **Guarantees.** A file that was replaced stays on disk for the retention, across restarts: the
//! removals in the log say since when. [`Table::take_expired`] names none that a version in use
//! consists of.
//!
//! **Not guaranteed.** A retention beyond [`RETENTION_MAX`]: checkpoints forget older removals.
//!
//! **Memory.** About 150 bytes a file that waits.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use delta_kernel::engine::arrow_data::EngineDataArrowExt;
use delta_kernel::schema::{DataType, StructField, StructType};
use object_store::path;

use super::live::place;
use super::{Table, delta_error};
use crate::clock::now_ms;
use crate::lake::error::Result;
use crate::lake::location::is_data_file_of;
use crate::lake::vacuum::Known;

/// Longest time for which replaced files can be kept: checkpoints drop removals that are older,
/// unless the table's own `delta.deletedFileRetentionDuration` says otherwise.
pub const RETENTION_MAX: Duration = Duration::from_hours(7 * 24);

/// A file of our node that waits to be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Replaced {
    path: Arc<str>,
    /// When it was taken out of the table, in milliseconds since 1970.
    since_ms: i64,
    /// Versions before this one consist of it.
    version: u64,
}

impl Table {
    /// Every removal that the log still knows: the file, and when it was taken out of the table in
    /// milliseconds since 1970.
    ///
    /// # Errors
    ///
    /// [`crate::lake::LakeError::Delta`] when the log cannot be read.
    pub fn tombstones(&self) -> Result<HashMap<Arc<str>, i64>> {
        let failed = || delta_error("list the replaced files");
        let removal = StructType::try_new([
            StructField::nullable("path", DataType::STRING),
            StructField::nullable("deletionTimestamp", DataType::LONG),
        ]);
        let schema = removal
            .and_then(|removal| StructType::try_new([StructField::nullable("remove", removal)]))
            .map_err(failed())?;
        let log = self.snapshot.log_segment();
        let batches = log.read_actions(&self.kernel, Arc::new(schema)).map_err(failed())?;
        let mut found = HashMap::new();
        for batch in batches {
            let rows = batch.and_then(|batch| batch.actions.try_into_record_batch());
            let rows = rows.map_err(failed())?;
            let Some(removals) = rows.column_by_name("remove") else { continue };
            let removals = removals.as_struct();
            let (paths, times) = (removals.column(0), removals.column(1));
            let paths = paths.as_string::<i32>();
            let times = times.as_primitive::<Int64Type>();
            for row in (0..rows.num_rows()).filter(|&row| removals.is_valid(row)) {
                if !paths.is_valid(row) {
                    continue;
                }
                // A file that is not on this machine is nobody's here to remove.
                let Ok((path, _)) = place(&self.location, paths.value(row)) else { continue };
                let since = if times.is_valid(row) { times.value(row) } else { 0 };
                let newest = found.entry(path).or_insert(since);
                *newest = since.max(*newest);
            }
        }
        Ok(found)
    }

    /// Removes data files of our node that are no part of the table: what a crash left between
    /// writing a file and committing it, and what has been replaced for longer than `retention`.
    /// Only before the first roll, because a roll's files are not yet part of the table either.
    /// Returns their names.
    ///
    /// # Errors
    ///
    /// [`crate::lake::LakeError::Store`] when the table's directory cannot be listed or a file not
    /// removed, and as [`Table::live_files`] and [`Table::tombstones`].
    pub fn remove_orphans(&mut self, retention: Duration) -> Result<Vec<String>> {
        let listed = self.location.data_files(&self.node)?;
        let known = Known {
            node: &self.node,
            live: self.live_files()?.iter().map(|file| Arc::clone(&file.path)).collect(),
            tombstones: self.tombstones()?,
            retention,
            now_ms: now_ms(),
        };
        let (mut removed, mut replaced) = (Vec::new(), Vec::new());
        for file in &listed {
            let path = file.location.as_ref();
            if known.is_removable(file) {
                self.location.remove(&file.location)?;
                removed.push(path.to_owned());
            } else if let Some((path, &since_ms)) = known.tombstones.get_key_value(path)
                && !known.live.contains(path)
            {
                let version = self.version();
                replaced.push(Replaced { path: Arc::clone(path), since_ms, version });
            }
        }
        self.replaced = replaced;
        Ok(removed)
    }

    /// Files that were replaced and are still on disk.
    #[must_use]
    pub fn replaced_files(&self) -> Vec<Arc<str>> {
        self.replaced.iter().map(|file| Arc::clone(&file.path)).collect()
    }

    /// Hands out the files that may be removed now: replaced for `retention` and no part of the
    /// version `oldest` or a later one. They are the caller's to remove; each is handed out once.
    #[must_use]
    pub fn take_expired(&mut self, retention: Duration, oldest: u64) -> Vec<Arc<str>> {
        let until = now_ms().saturating_sub(millis(retention));
        let expired = |file: &mut Replaced| file.since_ms <= until && file.version <= oldest;
        self.replaced.extract_if(.., expired).map(|file| file.path).collect()
    }

    /// Remembers that `paths` are no part of the version at hand any more: those that are files of
    /// ours, or all when it is ours to remove them.
    pub(super) fn note_replaced<'a>(
        &mut self,
        paths: impl Iterator<Item = &'a Arc<str>>,
        all: bool,
    ) {
        let (since_ms, version) = (now_ms(), self.version());
        let is_ours = |path: &str| {
            path::Path::parse(path).is_ok_and(|path| is_data_file_of(&path, &self.node))
        };
        let ours = paths.filter(|path| all || is_ours(path));
        let new: Vec<_> =
            ours.map(|path| Replaced { path: Arc::clone(path), since_ms, version }).collect();
        self.replaced.extend(new);
    }
}

/// A duration as Delta counts it.
pub(in crate::lake) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

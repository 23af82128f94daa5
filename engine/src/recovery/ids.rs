//! Which message ids are stored: read back at the start from the table, the quarantine and the log.
//!
//! **Guarantees.** Only ids whose rows are durable are remembered: files that a commit names, batches
//! that were set aside, and frames of logs that recovery has synced. A file that cannot be read
//! shortens the window and says so; it keeps no start from succeeding.
//!
//! **Not guaranteed.** That a window which holds fewer ids than the table is filled in the exact
//! order of time: inside a file the rows are in another one, and files may overlap. What is
//! remembered is then no less, and its told age no longer, than what is true of every id.
//!
//! **Memory.** One batch of [`BATCH_ROWS`] rows of four columns, or one from quarantine as a whole.

use std::cmp::Reverse;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use parquet::file::statistics::Statistics;
use ringlake_dedup::{Dedup, Key};

use super::Progress;
use crate::config::DedupConfig;
use crate::error::chain;
use crate::lake::DataFile;
use crate::lake::check::check_outside;
use crate::quarantine::{self, EXTENSION};

/// Rows decoded at a time.
const BATCH_ROWS: usize = 8_192;
/// The columns that say which event a row is to its sender, and whether it is still in the window.
const COLUMNS: [&str; 4] = ["node", "tenant", "message_id", "received_at"];

/// Reads ids back for one node.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    dedup: &'a Dedup,
    node: &'a str,
    ids_max: usize,
    /// What was received before it is older than the window.
    horizon: i64,
    /// Scratch.
    keys: Vec<Key>,
}

impl<'a> Reader<'a> {
    /// A reader of the ids of `node` that are inside the window at `now`, microseconds since 1970.
    pub fn new(dedup: &'a Dedup, node: &'a str, config: &DedupConfig, now: i64) -> Self {
        let span = i64::try_from(config.window.as_micros()).unwrap_or(i64::MAX);
        let horizon = now.saturating_sub(span);
        Self { dedup, node, ids_max: config.ids, horizon, keys: Vec::new() }
    }

    /// Remembers what `files` hold: from the newest back, until there are enough ids, but in the
    /// order of time, so that the oldest are forgotten first. A stop ends it at the next file.
    pub fn table(&mut self, files: &[DataFile], progress: &Progress) {
        let newest = |file: &DataFile| file.bounds.received_at.map_or(i64::MAX, |(_, to)| to);
        let mut files: Vec<_> = files.iter().filter(|file| newest(file) >= self.horizon).collect();
        files.sort_by_key(|file| Reverse(newest(file)));
        let mut wanted = Vec::new();
        let mut ids = 0;
        for file in files {
            if ids >= self.ids_max {
                self.dedup.lack(newest(file));
                break;
            }
            if progress.check().is_err() {
                return;
            }
            match self.count(file) {
                Ok(0) => {}
                Ok(some) => {
                    ids += some;
                    wanted.push(file);
                }
                Err(error) => self.unreadable(file, newest(file), &error),
            }
        }
        progress.begin_reading_ids();
        // Relaxed, here and below: statistics.
        progress.id_files_total.store(wanted.len() as u64, Ordering::Relaxed);
        for file in wanted.into_iter().rev() {
            if progress.check().is_err() {
                return;
            }
            if let Err(error) = self.file(file) {
                self.unreadable(file, newest(file), &error);
            }
            progress.id_files_done.fetch_add(1, Ordering::Relaxed);
            progress.tell();
        }
    }

    /// Remembers the ids of the batches in the quarantine `directory`: their events were acknowledged,
    /// and go into the table when somebody imports them.
    pub fn quarantine(&mut self, directory: &Path) {
        let waiting = |path: &PathBuf| path.extension().is_some_and(|it| it == EXTENSION);
        let Ok(entries) = fs::read_dir(directory) else { return };
        for path in entries.flatten().map(|entry| entry.path()).filter(waiting) {
            match quarantine::read(&path) {
                Ok(aside) => aside.rows.iter().for_each(|rows| self.batch(rows, true)),
                Err(error) => {
                    let error = chain(&error);
                    tracing::warn!(path = %path.display(), error, "the message ids of a batch that was \
                        set aside cannot be read and are not known");
                }
            }
        }
    }

    /// Remembers the ids of a frame of this node's log.
    pub fn frame(&mut self, batch: &RecordBatch) {
        self.batch(batch, false);
    }

    fn unreadable(&self, file: &DataFile, newest: i64, error: &ParquetError) {
        let (path, error) = (&file.path, chain(error));
        tracing::warn!(%path, error, "the message ids of a file cannot be read and are not known");
        self.dedup.lack(newest);
    }

    /// How many ids of the node a file may hold.
    fn count(&self, file: &DataFile) -> Result<usize, ParquetError> {
        // A damaged footer must not be read: it may ask for any amount of memory.
        check_outside(file).map_err(|error| ParquetError::General(chain(&error)))?;
        let metadata = ParquetMetaDataReader::new().parse_and_finish(&File::open(&file.local)?)?;
        let groups = groups(&metadata, self.node);
        Ok(groups.map(|index| ids_in(metadata.row_group(index))).sum())
    }

    fn file(&mut self, file: &DataFile) -> Result<(), ParquetError> {
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let opened = File::open(&file.local)?;
        let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(opened, options)?;
        let groups = groups(reader.metadata(), self.node).collect();
        let columns = ProjectionMask::columns(reader.parquet_schema(), COLUMNS);
        let reader = reader.with_projection(columns).with_row_groups(groups);
        for batch in reader.with_batch_size(BATCH_ROWS).build()? {
            self.batch(&batch?, true);
        }
        Ok(())
    }

    /// Remembers the ids of a batch, of this node's rows alone if `of_all_nodes` are in it.
    fn batch(&mut self, batch: &RecordBatch, of_all_nodes: bool) {
        let [node, tenant, id, received_at] = COLUMNS.map(|name| batch.column_by_name(name));
        let node = node.and_then(|column| column.as_string_opt::<i32>());
        let tenant = tenant.and_then(|column| column.as_string_opt::<i32>());
        let id = id.and_then(|column| column.as_string_opt::<i32>());
        let received_at =
            received_at.and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
        let (Some(tenants), Some(ids), Some(received_at)) = (tenant, id, received_at) else {
            return;
        };
        self.keys.clear();
        let (mut from, mut to) = (i64::MAX, i64::MIN);
        for row in (0..batch.num_rows()).filter(|row| ids.is_valid(*row)) {
            let time = received_at.value(row);
            let ours = !of_all_nodes || node.is_some_and(|node| node.value(row) == self.node);
            if time < self.horizon || !ours || ids.value(row).is_empty() {
                continue;
            }
            self.keys.push(self.dedup.key(tenants.value(row), ids.value(row)));
            (from, to) = (from.min(time), to.max(time));
        }
        if !self.keys.is_empty() {
            self.dedup.remember(&mut self.keys, &(from..=to));
        }
    }
}

/// The row groups that may hold rows of `node`.
fn groups<'a>(
    metadata: &'a ParquetMetaData,
    node: &'a str,
) -> impl Iterator<Item = usize> + use<'a> {
    let may_hold = move |group: &RowGroupMetaData| {
        let Some(Statistics::ByteArray(bounds)) = statistics(group, "node") else { return true };
        let (Some(min), Some(max)) = (bounds.min_opt(), bounds.max_opt()) else { return true };
        // A bound that was cut off says nothing certain.
        let exact = bounds.min_is_exact() && bounds.max_is_exact();
        !exact || (min.data()..=max.data()).contains(&node.as_bytes())
    };
    let groups = metadata.row_groups().iter().enumerate();
    groups.filter(move |(_, group)| may_hold(group)).map(|(index, _)| index)
}

/// The rows of a group that have an id, as its statistics say.
fn ids_in(group: &RowGroupMetaData) -> usize {
    let nulls = statistics(group, "message_id").and_then(Statistics::null_count_opt).unwrap_or(0);
    let rows = u64::try_from(group.num_rows()).unwrap_or(0);
    usize::try_from(rows.saturating_sub(nulls)).unwrap_or(usize::MAX)
}

fn statistics<'a>(group: &'a RowGroupMetaData, column: &str) -> Option<&'a Statistics> {
    let chunk = group.columns().iter().find(|chunk| chunk.column_path().string() == column);
    chunk.and_then(|chunk| chunk.statistics())
}

//! What a written Parquet file says about itself: rows, bytes and column statistics.
//!
//! **Guarantees.** A minimum is at most, and a maximum at least, every value of its column, also
//! after Delta has cut timestamps to milliseconds. What cannot be bounded safely is left out.
//!
//! **Not guaranteed.** Bounds are not always values that occur: timestamps are widened to
//! milliseconds, long text minima are cut.
//!
//! **Limits.** Statistics exist for [`STATS_COLUMNS`] only. Identities (`user_id`, `message_id`,
//! `ip`, …) have none: their ranges prune nothing, and the Delta log keeps them long after an
//! erase has removed the rows.

use std::fs::File;
use std::path::Path;

use object_store::path;
use parquet::file::metadata::{
    ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData,
};
use parquet::file::statistics::Statistics;

use super::error::{LakeError, Result};
use super::location::Location;
use crate::schema::{COLUMNS, Kind};

/// Columns that readers may skip files by.
pub const STATS_COLUMNS: [&str; 8] =
    ["tenant", "type", "timestamp", "received_at", "node", "shard", "sequence", "source"];
/// Longest text bound in characters, as other Delta writers have it: a tenant or a type that is
/// longer does not need more to be told from its neighbours.
const TEXT_BOUND_CHARS: usize = 32;
/// Delta keeps timestamp statistics in milliseconds.
const MICROS_PER_MILLI: i64 = 1_000;

/// A written Parquet file that no commit names yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFile {
    /// Its name relative to the table's root.
    pub path: path::Path,
    /// Its partition, `YYYY-MM-DD`.
    pub date: String,
    /// Its rows.
    pub rows: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// When it was last written, in milliseconds since 1970.
    pub modified_ms: i64,
    /// What its columns hold.
    pub stats: Stats,
}

impl NewFile {
    /// Reads the footer of the file `path` of the partition `date`.
    ///
    /// # Errors
    ///
    /// [`LakeError::Io`] or [`LakeError::Parquet`] when the file is not a readable Parquet file.
    pub fn read(location: &Location, path: path::Path, date: &str) -> Result<Self> {
        let local = location.local(&path);
        let file = File::open(&local).map_err(LakeError::io("open", &local))?;
        let about = file.metadata().map_err(LakeError::io("look at", &local))?;
        let metadata = metadata(&file, &local)?;
        let modified = about.modified().map_err(LakeError::io("look at", &local))?;
        let since_1970 = modified.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Ok(Self {
            path,
            date: date.to_owned(),
            rows: rows(&metadata),
            bytes: about.len(),
            modified_ms: i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX),
            stats: Stats::of(&metadata),
        })
    }
}

/// Statistics of a file's columns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// One entry per column of [`STATS_COLUMNS`] that the file has.
    pub columns: Vec<ColumnStats>,
}

/// Statistics of one column of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnStats {
    /// The column's name.
    pub name: &'static str,
    /// Rows without a value, when known.
    pub nulls: Option<u64>,
    /// At most every value; absent when there is none or it is not known.
    pub min: Option<Bound>,
    /// At least every value; absent when there is none or it is not known.
    pub max: Option<Bound>,
}

/// An end of a column's range.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bound {
    /// Of text; compared byte by byte.
    Text(String),
    /// Of an integer, or of a timestamp in microseconds since 1970 that is whole milliseconds.
    Number(i64),
}

impl Stats {
    /// The statistics that the footer `metadata` carries.
    fn of(metadata: &ParquetMetaData) -> Self {
        let columns = STATS_COLUMNS
            .iter()
            .filter_map(|&name| {
                let kind = COLUMNS.iter().find(|column| column.name == name)?.kind;
                column_stats(name, kind, metadata.row_groups())
            })
            .collect();
        Self { columns }
    }

    /// The statistics of the column `name`.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&ColumnStats> {
        self.columns.iter().find(|column| column.name == name)
    }
}

/// Reads the footer of `file`, which is at `path`.
pub(super) fn metadata(file: &File, path: &Path) -> Result<ParquetMetaData> {
    ParquetMetaDataReader::new().parse_and_finish(file).map_err(LakeError::parquet(path))
}

/// The rows that a footer promises.
pub(super) fn rows(metadata: &ParquetMetaData) -> u64 {
    u64::try_from(metadata.file_metadata().num_rows()).unwrap_or(0)
}

/// Joins the statistics of a column's chunks; `None` when the file lacks the column.
fn column_stats(
    name: &'static str,
    kind: Kind,
    row_groups: &[RowGroupMetaData],
) -> Option<ColumnStats> {
    let mut joined = ColumnStats { name, nulls: Some(0), min: None, max: None };
    let (mut bounded_below, mut bounded_above) = (true, true);
    for group in row_groups {
        let chunk = group.columns().iter().find(|chunk| chunk.column_path().string() == name)?;
        let statistics = chunk.statistics();
        let nulls = statistics.and_then(Statistics::null_count_opt);
        joined.nulls = joined.nulls.zip(nulls).map(|(sum, nulls)| sum.saturating_add(nulls));
        if is_all_null(chunk, nulls) {
            continue;
        }
        let (min, max) = statistics.map_or((None, None), |found| bounds(kind, found));
        bounded_below &= min.is_some();
        bounded_above &= max.is_some();
        joined.min = [joined.min.take(), min].into_iter().flatten().min();
        joined.max = joined.max.take().max(max);
    }
    joined.min = joined.min.filter(|_| bounded_below);
    joined.max = joined.max.filter(|_| bounded_above);
    Some(joined)
}

/// Whether a chunk is known to hold no value, so that it bounds nothing.
fn is_all_null(chunk: &ColumnChunkMetaData, nulls: Option<u64>) -> bool {
    nulls.is_some_and(|nulls| u64::try_from(chunk.num_values()) == Ok(nulls))
}

/// The safe bounds of one column chunk.
fn bounds(kind: Kind, statistics: &Statistics) -> (Option<Bound>, Option<Bound>) {
    match (kind, statistics) {
        (Kind::Text, Statistics::ByteArray(text)) => (
            text.min_opt().and_then(|min| text_min(min.data())),
            text.max_opt().and_then(|max| text_max(max.data())),
        ),
        (Kind::Int, Statistics::Int32(number)) => (
            number.min_opt().map(|&min| Bound::Number(i64::from(min))),
            number.max_opt().map(|&max| Bound::Number(i64::from(max))),
        ),
        (Kind::Long, Statistics::Int64(number)) => (
            number.min_opt().map(|&min| Bound::Number(min)),
            number.max_opt().map(|&max| Bound::Number(max)),
        ),
        (Kind::Timestamp, Statistics::Int64(micros)) => (
            micros.min_opt().copied().and_then(floor_milli),
            micros.max_opt().copied().and_then(ceil_milli),
        ),
        _ => (None, None),
    }
}

/// A prefix of the least text is not above it.
fn text_min(bytes: &[u8]) -> Option<Bound> {
    let text = std::str::from_utf8(bytes).ok()?;
    Some(Bound::Text(text.chars().take(TEXT_BOUND_CHARS).collect()))
}

/// A prefix of the greatest text would be below it, so a long one is left out.
fn text_max(bytes: &[u8]) -> Option<Bound> {
    let text = std::str::from_utf8(bytes).ok()?;
    let short = text.chars().nth(TEXT_BOUND_CHARS).is_none();
    short.then(|| Bound::Text(text.to_owned()))
}

fn floor_milli(micros: i64) -> Option<Bound> {
    micros.checked_sub(micros.rem_euclid(MICROS_PER_MILLI)).map(Bound::Number)
}

fn ceil_milli(micros: i64) -> Option<Bound> {
    let above = micros.rem_euclid(MICROS_PER_MILLI);
    let missing = if above == 0 { 0 } else { MICROS_PER_MILLI - above };
    micros.checked_add(missing).map(Bound::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(bound: Option<Bound>) -> i64 {
        match bound {
            Some(Bound::Number(number)) => number,
            other => panic!("not a number: {other:?}"),
        }
    }

    #[test]
    fn timestamps_are_widened_to_milliseconds() {
        assert_eq!(number(floor_milli(1_999)), 1_000);
        assert_eq!(number(ceil_milli(1_001)), 2_000);
        assert_eq!(number(ceil_milli(2_000)), 2_000);
        assert_eq!(number(floor_milli(-1)), -1_000);
        assert_eq!(number(ceil_milli(-1)), 0);
        assert_eq!(ceil_milli(i64::MAX), None);
        assert_eq!(floor_milli(i64::MIN), None);
    }

    #[test]
    fn long_text_keeps_a_cut_minimum_and_no_maximum() {
        let long = "é".repeat(TEXT_BOUND_CHARS + 1);
        assert_eq!(text_min(long.as_bytes()), Some(Bound::Text("é".repeat(TEXT_BOUND_CHARS))));
        assert_eq!(text_max(long.as_bytes()), None);
        let fits = "é".repeat(TEXT_BOUND_CHARS);
        assert_eq!(text_max(fits.as_bytes()), Some(Bound::Text(fits)));
        assert_eq!(text_max(&[0xff]), None);
    }
}

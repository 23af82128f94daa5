//! Which rows a listing wants: equal texts in some columns, a window of `received_at`, and nothing
//! before the page.
//!
//! A filter is applied three times, coarse to fine: to the statistics of files, to those of row
//! groups and pages, and to rows. Only the last decides; the others may let too much pass, never too
//! little.

use std::cmp::Ordering;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::statistics::Statistics;

use super::order::{Key, Nearest, Order, Place, Position, Window};
use crate::lake::DataFile;

/// The columns of a key.
pub(crate) const KEY_COLUMNS: [&str; 4] = ["received_at", "node", "shard", "sequence"];

/// What a page may hold.
#[derive(Debug)]
pub(crate) struct Filter {
    pub order: Order,
    pub window: Window,
    /// Where the page begins, unless it is the first.
    pub position: Option<Position>,
    /// Columns and the text that each must have.
    pub texts: Vec<(&'static str, String)>,
}

impl Filter {
    /// The part of a file's range of `received_at` that is wanted, when the file may hold wanted
    /// rows at all.
    pub(crate) fn part_of(&self, file: &DataFile) -> Option<(i64, i64)> {
        let tenant = self.texts.iter().find(|(column, _)| *column == "tenant");
        if let (Some((_, tenant)), Some((min, max))) = (tenant, &file.bounds.tenant)
            && !(&**min..=&**max).contains(&tenant.as_str())
        {
            return None;
        }
        self.window.part_of(file.bounds.received_at.unwrap_or((i64::MIN, i64::MAX)))
    }

    /// The part of a row group's range of `received_at` that is wanted, when the group may hold
    /// wanted rows at all. `is_micros` says that the file counts as we do.
    pub(crate) fn part_of_group(
        &self,
        group: &RowGroupMetaData,
        is_micros: bool,
    ) -> Option<(i64, i64)> {
        let may_hold =
            |(column, text): &(&str, String)| match text_bounds(statistics(group, column)) {
                Some((min, max)) => (min..=max).contains(&text.as_bytes()),
                None => true,
            };
        if !self.texts.iter().all(may_hold) {
            return None;
        }
        let range = match statistics(group, "received_at") {
            Some(Statistics::Int64(bounds)) if is_micros => {
                bounds.min_opt().copied().zip(bounds.max_opt().copied())
            }
            _ => None,
        };
        self.window.part_of(range.unwrap_or((i64::MIN, i64::MAX)))
    }

    /// The columns that decide about a row.
    pub(crate) fn columns(&self) -> impl Iterator<Item = &'static str> {
        KEY_COLUMNS.into_iter().chain(self.texts.iter().map(|(column, _)| *column))
    }

    /// Which rows of `batch` lie in the window and have the texts.
    ///
    /// # Errors
    /// When `received_at` is missing or has a type that cannot be ours.
    pub(crate) fn mask(&self, batch: &RecordBatch) -> Result<BooleanArray, ArrowError> {
        let received_at = received_at(batch)?;
        let Some(texts) = self.text_columns(batch)? else {
            return Ok(BooleanArray::from(vec![false; batch.num_rows()]));
        };
        let is_wanted = |row: usize| self.window.holds(received_at[row]) && has(&texts, row);
        Ok((0..batch.num_rows()).map(|row| Some(is_wanted(row))).collect())
    }

    /// The columns of `batch` that are compared. Nothing when one is missing: the file is older
    /// than the column, which is null there and equals no text.
    fn text_columns(&self, batch: &RecordBatch) -> Result<Option<Vec<Text<'_>>>, ArrowError> {
        let mut texts = Vec::with_capacity(self.texts.len());
        for (name, wanted) in &self.texts {
            let Some(column) = batch.column_by_name(name) else { return Ok(None) };
            texts.push((text_column(column)?, wanted.as_str()));
        }
        Ok(Some(texts))
    }

    /// Hands the wanted rows of `batch` to `nearest`; `place_of` says where a row lies.
    ///
    /// # Errors
    /// When a column of the key is missing or has a type that cannot be ours.
    pub(crate) fn select(
        &self,
        batch: &RecordBatch,
        nearest: &mut Nearest,
        mut place_of: impl FnMut(usize) -> Place,
    ) -> Result<(), ArrowError> {
        let keys = Keys::of(batch)?;
        let Some(texts) = self.text_columns(batch)? else { return Ok(()) };
        for row in 0..batch.num_rows() {
            let received_at = keys.received_at[row];
            if !self.window.holds(received_at) || !nearest.wants(received_at) {
                continue;
            }
            if !has(&texts, row) {
                continue;
            }
            let key = keys.of_row(row);
            if self.is_reached(&key) {
                nearest.push(key, place_of(row));
            }
        }
        Ok(())
    }

    /// Whether a row lies at or behind the start of the page.
    fn is_reached(&self, key: &Key) -> bool {
        match &self.position {
            Some(Position::After(last)) => self.order.compare(key, last) == Ordering::Greater,
            // The window says the rest.
            Some(Position::At(_)) | None => true,
        }
    }
}

/// A column and the text that it must have.
type Text<'a> = (StringArray, &'a str);

/// Whether a row has all of `texts`.
fn has(texts: &[Text<'_>], row: usize) -> bool {
    texts.iter().all(|(column, wanted)| column.is_valid(row) && column.value(row) == *wanted)
}

/// `received_at` of every row.
fn received_at(batch: &RecordBatch) -> Result<Vec<i64>, ArrowError> {
    let column =
        cast(column(batch, "received_at")?, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
    Ok(column.as_primitive::<TimestampMicrosecondType>().values().to_vec())
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef, ArrowError> {
    let missing = || ArrowError::SchemaError(format!("there is no column {name}"));
    batch.column_by_name(name).ok_or_else(missing)
}

/// The columns of the key of a batch.
struct Keys {
    received_at: Vec<i64>,
    node: StringArray,
    shard: Int32Array,
    sequence: Int64Array,
}

impl Keys {
    fn of(batch: &RecordBatch) -> Result<Self, ArrowError> {
        Ok(Self {
            received_at: received_at(batch)?,
            node: text_column(column(batch, "node")?)?,
            shard: cast(column(batch, "shard")?, &DataType::Int32)?.as_primitive().clone(),
            sequence: cast(column(batch, "sequence")?, &DataType::Int64)?.as_primitive().clone(),
        })
    }

    fn of_row(&self, row: usize) -> Key {
        Key {
            received_at: self.received_at[row],
            node: self.node.value(row).into(),
            shard: self.shard.value(row),
            sequence: self.sequence.value(row),
        }
    }
}

fn text_column(column: &dyn Array) -> Result<StringArray, ArrowError> {
    Ok(cast(column, &DataType::Utf8)?.as_string().clone())
}

/// The statistics of a column of a row group.
fn statistics<'a>(group: &'a RowGroupMetaData, column: &str) -> Option<&'a Statistics> {
    group.columns().iter().find(|chunk| chunk.column_path().string() == column)?.statistics()
}

/// The exact ends of a column of texts; ends that were cut off say nothing certain.
fn text_bounds(statistics: Option<&Statistics>) -> Option<(&[u8], &[u8])> {
    let Some(Statistics::ByteArray(bounds)) = statistics else { return None };
    if !bounds.min_is_exact() || !bounds.max_is_exact() {
        return None;
    }
    Some((bounds.min_opt()?.data(), bounds.max_opt()?.data()))
}

//! One page: which sources have to be looked at, and the rows that came out of it.
//!
//! **Algorithm.** The hot tables are asked first; there are few. Files follow in the order of the end
//! of their range that the listing comes to first, until the nearest rows found lie before
//! everything that the remaining files can hold. When the bounds of a page are reached earlier, it
//! ends where the next file could begin.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Date32Array, RecordBatch, StringArray, new_null_array};
use arrow::compute::{cast, interleave_record_batch};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, TimestampMicrosecondType};
use arrow::error::ArrowError;
use duckdb::Connection;
use parquet::errors::ParquetError;

use super::files::OpenFile;
use super::filter::Filter;
use super::order::{Key, Nearest, Place, Position};
use super::{FILES_MAX, ListError, PAGE_BYTES, ROWS_MAX, hot};
use crate::lake::Checked;
use crate::promoted::TableColumns;
use crate::schema::{PARTITION, day_of};
use crate::snapshot::{DataFile, Snapshot};

/// Everything that a page is read from.
pub(super) struct Reading<'a> {
    pub checked: &'a Checked,
    pub connection: &'a Connection,
    pub snapshot: &'a Snapshot,
    pub filter: &'a Filter,
    pub limit: usize,
}

/// What a search has found.
struct Found<'a> {
    rows: Vec<(Key, Place)>,
    /// The files that rows lie in, opened.
    files: BTreeMap<usize, (&'a DataFile, OpenFile)>,
    /// What lies here and beyond has not been looked at.
    edge: Option<i64>,
}

impl Reading<'_> {
    /// The events of the page, and where the next one begins.
    pub(super) async fn run(&self) -> Result<(RecordBatch, Option<Position>), ListError> {
        let mut found = self.search().await?;
        let order = self.filter.order;
        if let Some(edge) = found.edge {
            // Rows at the edge and beyond may have others between them that were not seen.
            found.rows.retain(|(key, _)| order.compare(&key.received_at, &edge) == Ordering::Less);
        }
        let after =
            |rows: &[(Key, Place)]| rows.last().map(|(key, _)| Position::After(key.clone()));
        let mut next = found.edge.map(Position::At);
        if found.rows.len() > self.limit {
            found.rows.truncate(self.limit);
            next = after(&found.rows);
        }
        let (events, complete) = self.events(&found).await?;
        if !complete {
            next = after(&found.rows[..events.num_rows()]);
        }
        Ok((events, next))
    }

    /// How many files the page has to open.
    #[cfg(test)]
    pub(super) async fn files_opened(&self) -> Result<usize, ListError> {
        Ok(self.search().await?.files.len())
    }

    /// What comes of an error while `file` was read; a damaged page is noted.
    fn unreadable(&self, file: &DataFile, error: ParquetError) -> ListError {
        if let ParquetError::External(error) = error {
            // The file system's.
            return ListError::failed(format!("cannot read {}: {error}", file.local.display()));
        }
        self.checked.bad_page(std::slice::from_ref(file), &file.local.to_string_lossy());
        ListError::Damaged { file: file.path.as_ref().into() }
    }

    async fn search(&self) -> Result<Found<'_>, ListError> {
        let (filter, order) = (self.filter, self.filter.order);
        // One more than fits says whether there is a next page.
        let mut nearest = Nearest::new(order, self.limit + 1);
        for (number, table) in self.snapshot.hot.iter().enumerate() {
            let limit = self.limit + 1;
            hot::search(self.connection, table, number, filter, limit, &mut nearest)?;
        }
        let mut left: Vec<(usize, i64)> = Vec::new();
        for (number, file) in self.snapshot.files.iter().enumerate() {
            if let Some(part) = filter.part_of(file) {
                left.push((number, order.near(part)));
            }
        }
        left.sort_by(|one, other| order.compare(&one.1, &other.1));
        let (mut files, mut edge) = (BTreeMap::new(), None);
        let (mut opened, mut looked_at) = (0, 0);
        for (number, near) in left {
            nearest.settle();
            if !nearest.wants(near) {
                break;
            }
            let is_spent = opened >= FILES_MAX || looked_at >= ROWS_MAX;
            // A page has to get ahead, or the next one would be the same.
            if is_spent && near != filter.window.start(order) {
                edge = Some(near);
                break;
            }
            let file = &self.snapshot.files[number];
            if let Some(damaged) = self.checked.problem_of(file) {
                return Err(ListError::Damaged { file: damaged.path.as_ref().into() });
            }
            let open = OpenFile::open(file).await.map_err(|error| self.unreadable(file, error))?;
            let rows = open.search(number, filter, &mut nearest).await;
            looked_at += rows.map_err(|error| self.unreadable(file, error))?;
            opened += 1;
            files.insert(number, (file, open));
        }
        Ok(Found { rows: nearest.into_rows(), files, edge })
    }

    /// Reads the found rows in their order; says whether all of them fit the page.
    async fn events(&self, found: &Found<'_>) -> Result<(RecordBatch, bool), ListError> {
        let mut parts = Vec::new();
        let (mut read, mut bytes) = (0, 0);
        let step = self.rows_at_a_time(found);
        while read < found.rows.len() && bytes < PAGE_BYTES {
            let end = found.rows.len().min(read + step);
            let part = self.read(found, &found.rows[read..end]).await?;
            let fit = rows_within(&part, PAGE_BYTES - bytes).max(usize::from(read == 0));
            let part = part.slice(0, fit);
            bytes = if fit < end - read { PAGE_BYTES } else { bytes + size_of_rows(&part, 0..fit) };
            read += fit;
            parts.push(part);
        }
        let empty = || Arc::new(public_schema(&self.snapshot.columns));
        let schema = parts.first().map_or_else(empty, RecordBatch::schema);
        let events = arrow::compute::concat_batches(&schema, &parts).map_err(ListError::failed)?;
        Ok((events, read == found.rows.len()))
    }

    /// How many rows are read at a time, so that rows of the usual size fill a page at most.
    fn rows_at_a_time(&self, found: &Found<'_>) -> usize {
        let groups = found.files.values().map(|(_, open)| open.largest_row_bytes());
        let row_bytes = groups.max().unwrap_or(0).max(1);
        (PAGE_BYTES / row_bytes).max(16)
    }

    /// Reads `rows` in their order.
    async fn read(
        &self,
        found: &Found<'_>,
        rows: &[(Key, Place)],
    ) -> Result<RecordBatch, ListError> {
        let mut groups: BTreeMap<(usize, usize), Vec<(usize, usize)>> = BTreeMap::new();
        let mut tables: BTreeMap<usize, Vec<(i64, usize)>> = BTreeMap::new();
        for (at, (_, place)) in rows.iter().enumerate() {
            match *place {
                Place::File { file, group, row } => {
                    groups.entry((file, group)).or_default().push((row, at));
                }
                Place::Hot { table, row } => tables.entry(table).or_default().push((row, at)),
            }
        }
        let mut batches = Vec::new();
        let mut places = vec![(0, 0); rows.len()];
        for ((number, group), mut wanted) in groups {
            wanted.sort_unstable();
            let Some((file, open)) = found.files.get(&number) else { continue };
            let numbers: Vec<usize> = wanted.iter().map(|(row, _)| *row).collect();
            let batch = open.rows(group, &numbers).await;
            let batch = batch.map_err(|error| self.unreadable(file, error))?;
            let batch = self.public(&batch)?;
            take_in(batch, &wanted, &mut batches, &mut places)?;
        }
        for (number, mut wanted) in tables {
            wanted.sort_unstable();
            let numbers: Vec<i64> = wanted.iter().map(|(row, _)| *row).collect();
            let (table, columns) = (&self.snapshot.hot[number], &self.snapshot.columns);
            let batch = self.public(&hot::rows(self.connection, table, columns, &numbers)?)?;
            take_in(batch, &wanted, &mut batches, &mut places)?;
        }
        let batches: Vec<&RecordBatch> = batches.iter().collect();
        interleave_record_batch(&batches, &places).map_err(ListError::failed)
    }

    fn public(&self, batch: &RecordBatch) -> Result<RecordBatch, ListError> {
        public(batch, &self.snapshot.columns).map_err(ListError::failed)
    }
}

/// Adds `batch`, which has the `wanted` rows of one source in their order, and notes where each
/// row of the page is.
fn take_in<T>(
    batch: RecordBatch,
    wanted: &[(T, usize)],
    batches: &mut Vec<RecordBatch>,
    places: &mut [(usize, usize)],
) -> Result<(), ListError> {
    if batch.num_rows() != wanted.len() {
        let (found, wanted) = (batch.num_rows(), wanted.len());
        return Err(ListError::failed(format!("{found} rows were read instead of {wanted}")));
    }
    for (row, (_, at)) in wanted.iter().enumerate() {
        places[*at] = (batches.len(), row);
    }
    batches.push(batch);
    Ok(())
}

/// The columns of a page of events with `columns`.
pub(crate) fn public_schema(columns: &TableColumns) -> Schema {
    let id = Arc::new(Field::new("id", DataType::Utf8, false));
    // Other writers may have left values out that we never do.
    let stored = columns.hot_schema();
    let stored =
        stored.fields().iter().map(|field| Arc::new(field.as_ref().clone().with_nullable(true)));
    Schema::new([id].into_iter().chain(stored).collect::<Vec<_>>())
}

/// `batch` with the columns of a page: `id` and `date` are computed, what is missing is null.
pub(crate) fn public(
    batch: &RecordBatch,
    columns: &TableColumns,
) -> Result<RecordBatch, ArrowError> {
    let schema = Arc::new(public_schema(columns));
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        columns.push(match (field.name().as_str(), batch.column_by_name(field.name())) {
            ("id", _) => Arc::new(StringArray::new_null(batch.num_rows())),
            (_, Some(column)) => cast(column, field.data_type())?,
            (_, None) => new_null_array(field.data_type(), batch.num_rows()),
        });
    }
    let at = |name: &str| schema.index_of(name);
    let nodes = columns[at("node")?].as_string::<i32>();
    let shards = columns[at("shard")?].as_primitive::<Int32Type>();
    let sequences = columns[at("sequence")?].as_primitive::<Int64Type>();
    let ids: StringArray = (0..batch.num_rows())
        .map(|row| {
            let (node, shard) = (nodes.value(row), shards.value(row));
            Some(format!("{node}-{shard}-{}", sequences.value(row)))
        })
        .collect();
    let received = columns[at("received_at")?].as_primitive::<TimestampMicrosecondType>();
    let days: Date32Array = received.iter().map(|at| day_of(at?).ok()).collect();
    let (id, date) = (at("id")?, at(PARTITION)?);
    columns[id] = Arc::new(ids);
    columns[date] = Arc::new(days);
    RecordBatch::try_new(schema, columns)
}

/// How many of the first rows hold at most `bytes` bytes of values.
pub(crate) fn rows_within(batch: &RecordBatch, bytes: usize) -> usize {
    let mut held = 0;
    (0..batch.num_rows())
        .take_while(|row| {
            held += size_of_rows(batch, *row..row + 1);
            held <= bytes
        })
        .count()
}

/// Bytes of the texts in `rows`; the other columns are small.
pub(crate) fn size_of_rows(batch: &RecordBatch, rows: std::ops::Range<usize>) -> usize {
    let texts = batch.columns().iter().filter_map(|column| column.as_string_opt::<i32>());
    let bytes = texts.map(|texts| {
        let offsets = texts.value_offsets();
        usize::try_from(offsets[rows.end] - offsets[rows.start]).unwrap_or(0)
    });
    bytes.sum()
}

//! Looking for rows in one Parquet file, and reading those that were chosen.
//!
//! **Algorithm.** A search decodes only the columns of the key and of the filter, and only in row
//! groups and pages whose statistics and Bloom filters do not rule them out. The chosen rows are read
//! afterwards with all their columns; pages between them are skipped.
//!
//! **Memory.** The decoded key columns of a batch, and the column chunks of a row group as they lie
//! in the file.

use std::ops::Range;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, TimeUnit};
use futures_util::TryStreamExt;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, RowSelection};
use parquet::arrow::async_reader::{
    AsyncFileReader, ParquetRecordBatchStream, ParquetRecordBatchStreamBuilder,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::page_index::column_index::ColumnIndexMetaData;

use super::filter::Filter;
use super::order::{Nearest, Place};
use crate::lake::DataFile;
use crate::lake::reader::FileReader;

/// Rows decoded at a time.
const BATCH_ROWS: usize = 8_192;

type Result<T> = std::result::Result<T, ParquetError>;

/// Rows of a file on their way.
pub(crate) type Batches = ParquetRecordBatchStream<FileReader>;

/// An opened file.
pub(crate) struct OpenFile {
    reader: FileReader,
    metadata: ArrowReaderMetadata,
}

impl OpenFile {
    /// Reads the footer of `file`.
    pub(crate) async fn open(file: &DataFile) -> Result<Self> {
        let mut reader = FileReader::new(file)?;
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let metadata = reader.get_metadata(None).await?;
        Ok(Self { reader, metadata: ArrowReaderMetadata::try_new(metadata, options)? })
    }

    /// Hands the wanted rows to `nearest`, as those of the file with number `file`. Gives the rows
    /// that had to be looked at.
    pub(crate) async fn search(
        &self,
        file: usize,
        filter: &Filter,
        nearest: &mut Nearest,
    ) -> Result<usize> {
        let is_micros = self.counts_micros();
        let mut groups: Vec<(usize, i64)> = Vec::new();
        for (number, group) in self.metadata.metadata().row_groups().iter().enumerate() {
            if let Some(part) = filter.part_of_group(group, is_micros) {
                groups.push((number, filter.order.near(part)));
            }
        }
        groups.sort_by(|one, other| filter.order.compare(&one.1, &other.1));
        let mut looked_at = 0;
        for (group, near) in groups {
            nearest.settle();
            if !nearest.wants(near) {
                break;
            }
            if self.may_hold_texts(group, filter).await? {
                looked_at += self.search_group(file, group, filter, nearest).await?;
            }
        }
        Ok(looked_at)
    }

    async fn search_group(
        &self,
        file: usize,
        group: usize,
        filter: &Filter,
        nearest: &mut Nearest,
    ) -> Result<usize> {
        let pages = self.pages(group, |range| {
            let part = filter.window.part_of(range);
            part.is_some_and(|part| nearest.wants(filter.order.near(part)))
        });
        let rows = pages.iter().map(ExactSizeIterator::len).sum();
        let wanted: Vec<&str> = filter.columns().collect();
        let columns = ProjectionMask::columns(self.metadata.parquet_schema(), wanted);
        let mut batches = self.batches(group, pages.clone(), columns)?;
        let mut numbers = pages.into_iter().flatten();
        while let Some(batch) = batches.try_next().await? {
            let here: Vec<usize> = numbers.by_ref().take(batch.num_rows()).collect();
            filter.select(&batch, nearest, |row| Place::File { file, group, row: here[row] })?;
        }
        Ok(rows)
    }

    /// The row groups that may hold wanted rows.
    pub(crate) async fn groups(&self, filter: &Filter) -> Result<Vec<usize>> {
        let is_micros = self.counts_micros();
        let mut groups = Vec::new();
        for (number, group) in self.metadata.metadata().row_groups().iter().enumerate() {
            if filter.part_of_group(group, is_micros).is_some()
                && self.may_hold_texts(number, filter).await?
            {
                groups.push(number);
            }
        }
        Ok(groups)
    }

    /// Streams the pages of a row group that may hold wanted rows, with the columns of the key, of
    /// the filter and those of `names` that the file has.
    pub(crate) fn matching(
        &self,
        group: usize,
        filter: &Filter,
        names: &[String],
    ) -> Result<Batches> {
        let pages = self.pages(group, |range| filter.window.part_of(range).is_some());
        let mut wanted: Vec<&str> = filter.columns().collect();
        wanted.extend(names.iter().map(String::as_str));
        let columns = ProjectionMask::columns(self.metadata.parquet_schema(), wanted);
        self.batches(group, pages, columns)
    }

    /// Reads all columns of `rows`, ascending, of one row group.
    pub(crate) async fn rows(&self, group: usize, rows: &[usize]) -> Result<RecordBatch> {
        let ranges = rows.iter().map(|row| *row..row + 1).collect();
        let batches: Vec<_> =
            self.batches(group, ranges, ProjectionMask::all())?.try_collect().await?;
        let schema = batches
            .first()
            .map(RecordBatch::schema)
            .unwrap_or_else(|| std::sync::Arc::new(arrow::datatypes::Schema::empty()));
        Ok(concat_batches(&schema, &batches)?)
    }

    /// The average size of a row in the row group where it is largest, decoded.
    pub(crate) fn largest_row_bytes(&self) -> usize {
        let groups = self.metadata.metadata().row_groups().iter();
        let bytes = groups.map(|group| group.total_byte_size() / group.num_rows().max(1));
        usize::try_from(bytes.max().unwrap_or(0)).unwrap_or(usize::MAX)
    }

    fn batches(
        &self,
        group: usize,
        ranges: Vec<Range<usize>>,
        columns: ProjectionMask,
    ) -> Result<Batches> {
        let total = usize::try_from(self.metadata.metadata().row_group(group).num_rows())?;
        self.builder()
            .with_row_groups(vec![group])
            .with_row_selection(RowSelection::from_consecutive_ranges(ranges.into_iter(), total))
            .with_projection(columns)
            .with_batch_size(BATCH_ROWS)
            .build()
    }

    fn builder(&self) -> ParquetRecordBatchStreamBuilder<FileReader> {
        ParquetRecordBatchStreamBuilder::new_with_metadata(
            self.reader.clone(),
            self.metadata.clone(),
        )
    }

    /// Whether no Bloom filter of the group says that a wanted text is not there.
    async fn may_hold_texts(&self, group: usize, filter: &Filter) -> Result<bool> {
        let schema = self.metadata.parquet_schema();
        for (name, text) in &filter.texts {
            let at = schema.columns().iter().position(|column| column.path().string() == *name);
            let Some(at) = at else { continue };
            let bloom = self.builder().get_row_group_column_bloom_filter(group, at).await?;
            if bloom.is_some_and(|bloom| !bloom.check(text.as_str())) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The rows of a group whose pages have a range of `received_at` that `is_wanted`; all of them
    /// without a page index.
    fn pages(&self, group: usize, is_wanted: impl Fn((i64, i64)) -> bool) -> Vec<Range<usize>> {
        let metadata = self.metadata.metadata();
        let total = usize::try_from(metadata.row_group(group).num_rows()).unwrap_or(0);
        let pages = self.counts_micros().then(|| pages_of(metadata, group, total, is_wanted));
        pages.flatten().unwrap_or_else(|| std::iter::once(0..total).collect())
    }

    /// Whether the file's `received_at` counts microseconds, as its statistics then do.
    fn counts_micros(&self) -> bool {
        let field = self.metadata.schema().field_with_name("received_at");
        let is_micros = |data_type: &DataType| {
            matches!(data_type, DataType::Timestamp(TimeUnit::Microsecond, _))
        };
        field.is_ok_and(|field| is_micros(field.data_type()))
    }
}

/// The rows of the pages of `received_at` whose range `is_wanted`; nothing without a page index.
fn pages_of(
    metadata: &ParquetMetaData,
    group: usize,
    total: usize,
    is_wanted: impl Fn((i64, i64)) -> bool,
) -> Option<Vec<Range<usize>>> {
    let columns = metadata.file_metadata().schema_descr().columns();
    let column = columns.iter().position(|column| column.path().string() == "received_at")?;
    let index = metadata.page_index()?;
    let ColumnIndexMetaData::INT64(bounds) = index.column_index(group, column)? else {
        return None;
    };
    let starts: Vec<usize> = index
        .page_locations(group, column)?
        .iter()
        .map(|page| usize::try_from(page.first_row_index).unwrap_or(0))
        .collect();
    let ends = starts.iter().skip(1).copied().chain([total]);
    let ranges = bounds.min_values_iter().zip(bounds.max_values_iter());
    let mut wanted: Vec<Range<usize>> = Vec::new();
    for ((start, end), range) in starts.iter().copied().zip(ends).zip(ranges) {
        if let (Some(min), Some(max)) = range
            && !is_wanted((*min, *max))
        {
            continue;
        }
        match wanted.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => wanted.push(start..end),
        }
    }
    Some(wanted)
}

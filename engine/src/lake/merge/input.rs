//! One input of a merge: its footer, then its rows, batch by batch.
//!
//! **Guarantees.** Damage does not get into an output: all bytes of an input are compared with what
//! was written before it is read, and its pages once more as they are read.
//!
//! **Not guaranteed.** The same for a file that was never sealed.
//!
//! **Limits.** A batch has about as many bytes as it is allowed, [`BATCH_ROWS_MAX`] rows at most
//! and one at least.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, new_null_array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Field, Schema, SchemaRef, TimestampMicrosecondType};
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};
use parquet::arrow::{ProjectionMask, parquet_to_arrow_field_levels};
use parquet::file::metadata::{
    ColumnChunkMetaData, PageIndexPolicy, ParquetMetaData, RowGroupMetaData,
};
use parquet::file::statistics::Statistics;

use super::pages::Pages;
use crate::lake::check::check_whole;
use crate::lake::delta::DataFile;
use crate::lake::error::{LakeError, Result};
use crate::lake::footer;
use crate::lake::output::PAGE_BYTES_KEY;
use crate::promoted::KINDS;
use crate::schema::{COLUMNS, Kind};

/// Most rows of a batch: beyond it larger batches make nothing faster.
const BATCH_ROWS_MAX: usize = 4_096;
/// How much larger rows are in Arrow's form than uncompressed in Parquet, where most texts stand
/// for themselves once a dictionary.
const ARROW_FACTOR: usize = 4;
/// Rows whose `received_at` is read at a time.
const SAMPLE_ROWS: usize = 65_536;

/// The columns of an output: the built-in ones, and every promoted one that an input has, whoever
/// added it to the table. All may be null, as those of the table may.
pub(super) fn schema_of(inputs: &[Opened]) -> Result<SchemaRef> {
    let built_in = COLUMNS.iter().map(|it| Field::new(it.name, it.kind.arrow(), true));
    let mut fields: Vec<Field> = built_in.collect();
    for input in inputs {
        for found in input.metadata.schema().fields() {
            match fields.iter().find(|field| field.name() == found.name()) {
                None => fields.push(Field::new(found.name(), found.data_type().clone(), true)),
                Some(known) if known.data_type() == found.data_type() => {}
                Some(_) => return Err(other_type(&input.path, found)),
            }
        }
    }
    Ok(Arc::new(Schema::new(fields)))
}

fn other_type(path: &Path, field: &Field) -> LakeError {
    let (name, found) = (field.name(), field.data_type());
    LakeError::Content {
        path: path.to_owned(),
        problem: format!("has the column {name:?} as {found}"),
    }
}

/// Moments of `received_at`: from the first one, which is in it, to the second, which is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) from: Option<i64>,
    pub(super) to: Option<i64>,
}

impl Range {
    /// The ranges that `cuts`, in order, part all moments into.
    pub(super) fn between(cuts: &[i64]) -> impl Iterator<Item = Self> {
        let from = std::iter::once(None).chain(cuts.iter().copied().map(Some));
        let to = cuts.iter().copied().map(Some).chain([None]);
        from.zip(to).map(|(from, to)| Self { from, to })
    }

    fn contains(self, moment: i64) -> bool {
        self.from.is_none_or(|from| from <= moment) && self.to.is_none_or(|to| moment < to)
    }

    fn meets(self, first: i64, last: i64) -> bool {
        self.from.is_none_or(|from| from <= last) && self.to.is_none_or(|to| first < to)
    }
}

/// An input whose footer has been read.
#[derive(Debug)]
pub(super) struct Opened {
    path: Arc<Path>,
    file: File,
    metadata: ArrowReaderMetadata,
    /// First and last `received_at`, when the footer tells.
    received_at: Option<(i64, i64)>,
    /// Rows.
    pub(super) rows: u64,
    /// Uncompressed bytes of the pages that are held while it is read.
    pub(super) page_bytes: u64,
}

impl Opened {
    pub(super) fn open(input: &DataFile) -> Result<Self> {
        check_whole(input)?;
        let path = &*input.local;
        let file = File::open(path).map_err(LakeError::io("open", path))?;
        let options = ArrowReaderOptions::new()
            .with_skip_arrow_metadata(true)
            .with_offset_index_policy(PageIndexPolicy::Optional);
        let metadata =
            ArrowReaderMetadata::load(&file, options).map_err(LakeError::parquet(path))?;
        check_columns(metadata.schema(), path)?;
        let footer = metadata.metadata();
        Ok(Self {
            path: Arc::clone(&input.local),
            received_at: received_at(footer),
            rows: footer::rows(footer),
            page_bytes: page_bytes(footer),
            metadata,
            file,
        })
    }

    /// Whether it may hold rows of `range`.
    pub(super) fn meets(&self, range: Range) -> bool {
        self.received_at.is_none_or(|(first, last)| range.meets(first, last))
    }

    /// Its rows of `range` with the columns of `schema`, in batches of about `batch_bytes`.
    pub(super) fn read(
        &self,
        range: Range,
        schema: &SchemaRef,
        batch_bytes: usize,
    ) -> Result<Rows> {
        let groups = self.metadata.metadata().row_groups().iter();
        let bytes: i64 = groups.map(RowGroupMetaData::total_byte_size).sum();
        let bytes = usize::try_from(bytes).unwrap_or(0).saturating_mul(ARROW_FACTOR);
        let rows = usize::try_from(self.rows).unwrap_or(usize::MAX).max(1);
        let batch_rows = (batch_bytes / (bytes / rows).max(1)).clamp(1, BATCH_ROWS_MAX);
        let reader = self.reader(ProjectionMask::all(), batch_rows)?;
        let whole = self
            .received_at
            .is_some_and(|(first, last)| range.contains(first) && range.contains(last));
        Ok(Rows {
            reader,
            range: (!whole).then_some(range),
            places: places(schema, self.metadata.schema()),
            schema: Arc::clone(schema),
            path: Arc::clone(&self.path),
        })
    }

    /// Hands every `step`th `received_at` to `take`.
    pub(super) fn sample(&self, step: usize, take: &mut dyn FnMut(i64)) -> Result<()> {
        let schema = self.metadata.parquet_schema();
        let wanted = ProjectionMask::columns(schema, ["received_at"]);
        for batch in self.reader(wanted, SAMPLE_ROWS)? {
            let batch = batch.map_err(|error| LakeError::parquet(&*self.path)(error.into()))?;
            let moments = batch.column(0).as_primitive::<TimestampMicrosecondType>();
            (0..moments.len()).step_by(step).for_each(|row| take(moments.value(row)));
        }
        Ok(())
    }

    fn reader(&self, wanted: ProjectionMask, rows: usize) -> Result<ParquetRecordBatchReader> {
        let open = || self.file.try_clone().map_err(LakeError::io("open", &*self.path));
        let metadata = &self.metadata;
        let reader = match Pages::of(open()?, metadata.metadata()) {
            Some(pages) => parquet_to_arrow_field_levels(metadata.parquet_schema(), wanted, None)
                .and_then(|levels| {
                    ParquetRecordBatchReader::try_new_with_row_groups(&levels, &pages, rows, None)
                }),
            // Not a file of ours.
            None => ParquetRecordBatchReaderBuilder::new_with_metadata(open()?, metadata.clone())
                .with_projection(wanted)
                .with_batch_size(rows)
                .build(),
        };
        reader.map_err(LakeError::parquet(&*self.path))
    }
}

/// The rows of an input that a pass wants.
pub(super) struct Rows {
    reader: ParquetRecordBatchReader,
    /// Absent when all rows are wanted.
    range: Option<Range>,
    /// The columns that are wanted, and where the file has each, if it does.
    schema: SchemaRef,
    places: Vec<Option<usize>>,
    path: Arc<Path>,
}

impl Rows {
    /// The next batch with rows, in the wanted columns.
    pub(super) fn next(&mut self) -> Result<Option<RecordBatch>> {
        while let Some(batch) = self.reader.next() {
            let batch = batch.map_err(|error| LakeError::parquet(&*self.path)(error.into()))?;
            let batch = self.conform(&batch)?;
            if batch.num_rows() > 0 {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }

    fn conform(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let failed =
            |error: arrow::error::ArrowError| LakeError::parquet(&*self.path)(error.into());
        let column = |(place, field): (&Option<usize>, &Arc<Field>)| -> ArrayRef {
            match place {
                Some(place) => Arc::clone(batch.column(*place)),
                None => new_null_array(field.data_type(), batch.num_rows()),
            }
        };
        let columns = self.places.iter().zip(self.schema.fields()).map(column).collect();
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(failed)?;
        let Some(range) = self.range else { return Ok(batch) };
        let moments = batch.column_by_name("received_at").expect("the schema has this column");
        let moments = moments.as_primitive::<TimestampMicrosecondType>();
        // A row without a moment belongs to the first pass, and to no other.
        let wanted = |moment: Option<i64>| {
            Some(moment.map_or(range.from.is_none(), |moment| range.contains(moment)))
        };
        let wanted: BooleanArray = moments.iter().map(wanted).collect();
        filter_record_batch(&batch, &wanted).map_err(failed)
    }
}

/// Where a file with the columns `found` has each column of `schema`.
fn places(schema: &Schema, found: &Schema) -> Vec<Option<usize>> {
    schema.fields().iter().map(|field| found.index_of(field.name()).ok()).collect()
}

/// Refuses a file with columns that would be lost: of a type that no column of the table has, or
/// built-in ones of another type.
fn check_columns(found: &Schema, path: &Path) -> Result<()> {
    for field in found.fields() {
        let built_in = COLUMNS.iter().find(|column| column.name == field.name());
        let is_ours = |kind: &Kind| *field.data_type() == kind.arrow();
        match built_in {
            Some(column) if !is_ours(&column.kind) => return Err(other_type(path, field)),
            None if !KINDS.iter().any(is_ours) => {
                let problem =
                    format!("has the column {:?}, which the table cannot have", field.name());
                return Err(LakeError::Content { path: path.to_owned(), problem });
            }
            _ => {}
        }
    }
    Ok(())
}

/// The uncompressed bytes that reading the file holds at a time: of each column a page and a
/// dictionary, or the whole chunk where the footer does not say how large pages are.
fn page_bytes(footer: &ParquetMetaData) -> u64 {
    let entries = footer.file_metadata().key_value_metadata();
    let limit = entries.into_iter().flatten().find(|entry| entry.key == PAGE_BYTES_KEY);
    let limit = limit.and_then(|entry| entry.value.as_ref()?.parse::<u64>().ok());
    let held = |chunk: &ColumnChunkMetaData| {
        let whole = u64::try_from(chunk.uncompressed_size()).unwrap_or(0);
        limit.map_or(whole, |limit| whole.min(limit.saturating_mul(2)))
    };
    let groups = footer.row_groups().iter();
    groups.map(|group| group.columns().iter().map(held).sum()).max().unwrap_or(0)
}

/// What `received_at` lies between; `None` when the footer does not say it of every row.
fn received_at(footer: &ParquetMetaData) -> Option<(i64, i64)> {
    let of_group = |group: &RowGroupMetaData| {
        let is_it = |chunk: &&ColumnChunkMetaData| chunk.column_path().string() == "received_at";
        let statistics = group.columns().iter().find(is_it)?.statistics()?;
        let Statistics::Int64(found) = statistics else { return None };
        let all = statistics.null_count_opt() == Some(0);
        all.then_some((*found.min_opt()?, *found.max_opt()?))
    };
    let groups: Option<Vec<_>> = footer.row_groups().iter().map(of_group).collect();
    groups?.into_iter().reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)))
}

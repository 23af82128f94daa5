//! A data file under way: it grows row group by row group and is sealed in the end.
//!
//! **Guarantees.** A file that is given out is complete, sealed with checksums and on the medium with
//! its directory entries; its events were read back and compared with what was to be written. One
//! that is dropped before is removed.
//!
//! **Layout.** The columns of the table without the partition, which the log says; timestamps without
//! a zone; zstd; row groups of DuckDB's size; pages small enough to be skipped and to be merged again,
//! with an index. The footer says how large they may be ([`PAGE_BYTES_KEY`]): nothing else in a file
//! does, and whoever joins files has to know what reading them takes. Bloom filters for [`LOOKED_UP`].
//!
//! **Memory.** One encoded row group, [`ROW_GROUP_BYTES`] at most and one batch more.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int32Type, Int64Type, Schema, SchemaRef};
use object_store::path;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::arrow::arrow_writer::{
    ArrowColumnChunk, ArrowColumnWriter, ArrowRowGroupWriterFactory, ArrowWriter,
    ArrowWriterOptions,
};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnPath;

use super::error::{LakeError, Result};
use super::footer::{NewFile, STATS_COLUMNS};
use super::group::{Columns, Group, encode};
use super::location::Location;
use super::seal::seal;
use crate::config::{PAGE_BYTES, ROW_GROUP_ROWS};
use crate::schema::COLUMNS;

/// The key of the footer that says how large pages may be.
pub(super) const PAGE_BYTES_KEY: &str = "ringlake.page_bytes";
/// Rows at which a page ends: the grain in which a reader can skip.
const PAGE_ROWS: usize = 20_000;
/// Size at which a column's dictionary is given up.
const DICTIONARY_BYTES: usize = 256 << 10;
/// Encoded bytes at which a row group ends before it has all its rows: it is held in memory.
pub(super) const ROW_GROUP_BYTES: usize = 32 << 20;
/// Columns whose values hardly repeat, so that a dictionary only costs.
const UNIQUE: [&str; 4] = ["sequence", "message_id", "timestamp", "properties"];
/// Columns that people look up single values of: a Bloom filter for each row group says which ones
/// cannot hold one, so that a look at one user reads a few pages and not the whole column.
const LOOKED_UP: [&str; 2] = ["user_id", "anonymous_id"];
/// How often a filter may be wrong, which makes the two of them 1.3 % of a file of generated events.
const LOOKED_UP_WRONG: f64 = 0.05;
/// Rows read at a time to check the file.
const CHECK_ROWS: usize = 65_536;

/// Sorted within a tenant: differences take a third of the bits. zstd finds them too, but a query that
/// looks at times then spends most of its own on unpacking: reading 2 million takes 20 ms instead of 65,
/// and they are a seventh smaller.
const ASCENDING: &str = "timestamp";

/// How hard zstd tries.
#[derive(Debug, Clone, Copy)]
pub(super) enum Effort {
    /// For a file that will soon be joined with others. Level 3 would take a tenth more time, and
    /// sorted rows with their text in dictionaries come out no smaller.
    Little,
    /// For a file that stays.
    More,
}

impl Effort {
    fn level(self) -> i32 {
        match self {
            Self::Little => 1,
            Self::More => 3,
        }
    }
}

/// What comes between two steps: a pause, or an error that ends the work.
pub(super) type Step<'a> = dyn FnMut() -> Result<()> + 'a;

/// A file under way. Dropped before it is finished, it is removed.
pub(super) struct Output<'a> {
    location: &'a Location,
    node: &'a str,
    date: &'a str,
    schema: SchemaRef,
    draft: path::Path,
    file: SerializedFileWriter<File>,
    factory: ArrowRowGroupWriterFactory,
    /// The row group that [`Output::write`] is at.
    group: Option<Group>,
    /// Every name that there may be a file of which nobody will use.
    begun: Vec<path::Path>,
}

impl<'a> Output<'a> {
    /// Begins a file of `node` in the partition `date`, of rows with `schema`.
    pub(super) fn create(
        location: &'a Location,
        node: &'a str,
        date: &'a str,
        schema: &SchemaRef,
        effort: Effort,
    ) -> Result<Self> {
        let options = ArrowWriterOptions::new()
            .with_properties(properties(schema, effort)?)
            .with_skip_arrow_metadata(true);
        let draft = location.new_data_file(node, date);
        location.create_directory(&draft)?;
        let local = location.local(&draft);
        let file = File::create_new(&local).map_err(LakeError::io("create", &local))?;
        let writer = ArrowWriter::try_new_with_options(file, Arc::clone(schema), options);
        match writer.and_then(ArrowWriter::into_serialized_writer) {
            Ok((file, factory)) => {
                let (begun, schema) = (vec![draft.clone()], Arc::clone(schema));
                Ok(Self { location, node, date, schema, draft, file, factory, group: None, begun })
            }
            Err(error) => {
                remove(location, &draft);
                Err(LakeError::parquet(local)(error))
            }
        }
    }

    /// Adds rows.
    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.try_write(batch).map_err(|error| self.failed(error))
    }

    fn try_write(&mut self, batch: &RecordBatch) -> std::result::Result<(), ParquetError> {
        let mut from = 0;
        while from < batch.num_rows() {
            let mut group = match self.group.take() {
                Some(group) => group,
                None => Group::new(self.writers()?),
            };
            let rows = (ROW_GROUP_ROWS - group.rows).min(batch.num_rows() - from);
            group.write(&self.schema, &batch.slice(from, rows))?;
            from += rows;
            if group.rows >= ROW_GROUP_ROWS || group.bytes() >= ROW_GROUP_BYTES {
                self.append(group.close()?)?;
            } else {
                self.group = Some(group);
            }
        }
        Ok(())
    }

    /// Adds `columns` as a row group of their own. `step` is asked every now and then.
    pub(super) fn write_group(&mut self, columns: &dyn Columns, step: &mut Step<'_>) -> Result<()> {
        let writers = self.writers().map_err(|error| self.failed(error))?;
        let encoded = encode(writers, &self.schema, columns, step)?;
        self.append(encoded).map_err(|error| self.failed(error))
    }

    /// The encoders of the next row group.
    fn writers(&self) -> std::result::Result<Vec<ArrowColumnWriter>, ParquetError> {
        self.factory.create_column_writers(self.file.flushed_row_groups().len())
    }

    /// Puts a row group into the file.
    fn append(&mut self, encoded: Vec<ArrowColumnChunk>) -> std::result::Result<(), ParquetError> {
        let mut group = self.file.next_row_group()?;
        for column in encoded {
            column.append_to_row_group(&mut group)?;
        }
        group.close().map(|_| ())
    }

    fn failed(&self, error: ParquetError) -> LakeError {
        LakeError::parquet(self.location.local(&self.draft))(error)
    }

    /// Ends the file, seals it, puts it on the medium and reads its events back: they must be
    /// `expected`. It is synced with every row group, some megabytes, so that the log's own syncs
    /// never wait for a whole file.
    pub(super) fn finish(mut self, expected: Events, step: &mut Step<'_>) -> Result<NewFile> {
        let location = self.location;
        self.close().map_err(|error| self.failed(error))?;
        let sealed = location.new_data_file(self.node, self.date);
        self.begun.push(sealed.clone());
        let mut between = |sealed: &Path| {
            location.disk().sync_file(sealed).map_err(LakeError::io("sync", sealed))?;
            step()
        };
        let (from, to) = (location.local(&self.draft), location.local(&sealed));
        let sums = seal(location.disk(), &from, &to, &mut between)?;
        location.sync_file(&sealed)?;
        let path = location.name_sealed(&sealed, sums)?;
        self.begun.push(path.clone());
        location.remove(&self.draft)?;
        location.sync_directories(&path)?;
        let file = NewFile::read(location, path, self.date)?;
        let local = location.local(&file.path);
        if events_of(&local)? != expected || file.rows != expected.rows {
            return Err(LakeError::Content {
                path: local,
                problem: format!(
                    "has {} rows instead of {}, or other events than were to be written",
                    file.rows, expected.rows
                ),
            });
        }
        self.begun.clear();
        Ok(file)
    }
}

impl Output<'_> {
    /// Writes the last row group and the footer.
    fn close(&mut self) -> std::result::Result<(), ParquetError> {
        if let Some(group) = self.group.take() {
            self.append(group.close()?)?;
        }
        self.file.finish().map(|_| ())
    }
}

impl Drop for Output<'_> {
    fn drop(&mut self) {
        for path in &self.begun {
            remove(self.location, path);
        }
    }
}

/// Reads a written file back.
fn events_of(path: &Path) -> Result<Events> {
    let failed = || LakeError::parquet(path);
    let file = File::open(path).map_err(LakeError::io("open", path))?;
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options);
    let reader = reader.map_err(failed())?;
    let wanted = ProjectionMask::columns(reader.parquet_schema(), Events::COLUMNS);
    let batches = reader.with_projection(wanted).with_batch_size(CHECK_ROWS).build();
    let mut events = Events::default();
    for batch in batches.map_err(failed())? {
        events.add(&batch.map_err(|error| failed()(error.into()))?);
    }
    Ok(events)
}

fn properties(schema: &Schema, effort: Effort) -> Result<WriterProperties> {
    let level = ZstdLevel::try_new(effort.level()).map_err(LakeError::parquet("zstd"))?;
    let sorted = ["tenant", "timestamp"].map(|name| SortingColumn {
        column_idx: COLUMNS
            .iter()
            .position(|column| column.name == name)
            .and_then(|index| i32::try_from(index).ok())
            .expect("the table has the columns that it is sorted by"),
        descending: false,
        nulls_first: true,
    });
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("ringlake version ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_key_value_metadata(Some(vec![KeyValue::new(
            PAGE_BYTES_KEY.to_owned(),
            PAGE_BYTES.to_string(),
        )]))
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_data_page_size_limit(PAGE_BYTES)
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_dictionary_page_size_limit(DICTIONARY_BYTES)
        .set_sorting_columns(Some(sorted.to_vec()))
        .set_column_encoding(ASCENDING.into(), Encoding::DELTA_BINARY_PACKED)
        // The ranges of the other columns prune nothing, comparing every text with the least and the
        // greatest is a sixth of a roll, and a footer should not keep people's names.
        .set_statistics_enabled(EnabledStatistics::None);
    for name in STATS_COLUMNS {
        properties = properties.set_column_statistics_enabled(name.into(), EnabledStatistics::Page);
    }
    // Numbers and times that somebody has promoted are there to be filtered by.
    for field in schema.fields().iter().skip(COLUMNS.len()) {
        if *field.data_type() != DataType::Utf8 {
            let path = ColumnPath::from(field.name().as_str());
            properties = properties.set_column_statistics_enabled(path, EnabledStatistics::Page);
        }
    }
    for name in LOOKED_UP {
        properties = properties
            .set_column_bloom_filter_enabled(name.into(), true)
            .set_column_bloom_filter_fpp(name.into(), LOOKED_UP_WRONG);
    }
    for name in UNIQUE {
        properties = properties.set_column_dictionary_enabled(name.into(), false);
    }
    Ok(properties.build())
}

/// What was read or written, so that both can be compared: how many events, and a sum of their
/// numbers that does not depend on their order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Events {
    pub(super) rows: u64,
    sum: u64,
}

impl Events {
    /// The columns that [`Events::add`] looks at.
    const COLUMNS: [&str; 2] = ["shard", "sequence"];

    /// Counts the rows of `batch`, which have the columns of the table.
    pub(super) fn add(&mut self, batch: &RecordBatch) {
        let [shards, sequences] = Self::COLUMNS.map(|name| batch.column_by_name(name));
        let (Some(shards), Some(sequences)) = (shards, sequences) else { return };
        let shards = shards.as_primitive::<Int32Type>().values();
        let sequences = sequences.as_primitive::<Int64Type>().values();
        for (shard, sequence) in shards.iter().zip(sequences) {
            self.add_one(*shard, *sequence);
        }
    }

    /// Counts one event.
    pub(super) fn add_one(&mut self, shard: i32, sequence: i64) {
        self.sum = self.sum.wrapping_add(mixed(i64::from(shard) << 48 ^ sequence));
        self.rows += 1;
    }
}

/// Spreads a number over all bits (the finaliser of SplitMix64), so that sums of different numbers
/// differ.
fn mixed(number: i64) -> u64 {
    let mut bits = number.cast_unsigned();
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Removes a file that nobody will use.
pub(super) fn remove(location: &Location, path: &path::Path) {
    if let Err(error) = location.remove(path) {
        let error: &dyn std::error::Error = &error;
        tracing::warn!(%path, error, "an unfinished file stays until the next vacuum");
    }
}

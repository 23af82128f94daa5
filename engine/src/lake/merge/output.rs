//! One output of a merge: a Parquet file that grows row group by row group and is sealed in the end.
//!
//! **Layout.** As a roll's file: the columns of the table without the partition, zstd, row groups of
//! DuckDB's size; and pages small enough to be skipped and to be merged again, with an index.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use object_store::path;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::arrow::arrow_writer::{ArrowWriter, ArrowWriterOptions};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties};

use super::{Events, Step, remove};
use crate::config::{PAGE_BYTES, ROW_GROUP_ROWS};
use crate::lake::error::{LakeError, Result};
use crate::lake::footer::{NewFile, STATS_COLUMNS};
use crate::lake::location::Location;
use crate::lake::roll::{self, PAGE_BYTES_KEY};
use crate::schema::COLUMNS;

/// Rows at which a page ends: the grain in which a reader can skip.
const PAGE_ROWS: usize = 20_000;
/// Size at which a column's dictionary is given up.
const DICTIONARY_BYTES: usize = 256 << 10;
/// Encoded bytes at which a row group ends before it has all its rows: it is held in memory.
const ROW_GROUP_BYTES: usize = 32 << 20;
/// Columns whose values hardly repeat, so that a dictionary only costs.
const UNIQUE: [&str; 4] = ["sequence", "message_id", "timestamp", "properties"];
/// Rows read at a time to check the file.
const CHECK_ROWS: usize = 65_536;

/// A file under way. Dropped before it is finished, it is removed.
pub(super) struct Output<'a> {
    location: &'a Location,
    node: &'a str,
    date: &'a str,
    draft: path::Path,
    writer: ArrowWriter<File>,
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
    ) -> Result<Self> {
        let options =
            ArrowWriterOptions::new().with_properties(properties()?).with_skip_arrow_metadata(true);
        let draft = location.new_data_file(node, date);
        location.create_directory(&draft)?;
        let local = location.local(&draft);
        let file = File::create_new(&local).map_err(LakeError::io("create", &local))?;
        match ArrowWriter::try_new_with_options(file, Arc::clone(schema), options) {
            Ok(writer) => {
                let begun = vec![draft.clone()];
                Ok(Self { location, node, date, draft, writer, begun })
            }
            Err(error) => {
                remove(location, &draft);
                Err(LakeError::parquet(local)(error))
            }
        }
    }

    /// Adds rows.
    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let failed = || LakeError::parquet(self.location.local(&self.draft));
        self.writer.write(batch).map_err(failed())?;
        if self.writer.in_progress_size() >= ROW_GROUP_BYTES {
            self.writer.flush().map_err(failed())?;
        }
        Ok(())
    }

    /// Ends the file, seals it, puts it on the medium and reads its events back: they must be
    /// `expected`.
    pub(super) fn finish(mut self, expected: Events, step: &mut Step<'_>) -> Result<NewFile> {
        let (location, draft) = (self.location, self.draft.clone());
        self.writer.finish().map_err(LakeError::parquet(location.local(&draft)))?;
        let mut between = |sealed: &Path| {
            location.disk().sync_file(sealed).map_err(LakeError::io("sync", sealed))?;
            step()
        };
        let begun = &mut self.begun;
        let file = roll::finish(location, &draft, self.node, self.date, begun, &mut between)?;
        let local = location.local(&file.path);
        if events_of(&local)? != expected || file.rows != expected.rows {
            return Err(LakeError::Content {
                path: local,
                problem: format!(
                    "has {} rows after a merge of {} or other events than its inputs",
                    file.rows, expected.rows
                ),
            });
        }
        self.begun.clear();
        Ok(file)
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

fn properties() -> Result<WriterProperties> {
    let level = ZstdLevel::try_new(3).map_err(LakeError::parquet("zstd"))?;
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
        // The ranges of identities prune nothing.
        .set_statistics_enabled(EnabledStatistics::Chunk);
    for name in STATS_COLUMNS {
        properties = properties.set_column_statistics_enabled(name.into(), EnabledStatistics::Page);
    }
    for name in UNIQUE {
        properties = properties.set_column_dictionary_enabled(name.into(), false);
    }
    Ok(properties.build())
}

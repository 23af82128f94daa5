//! The pages of an input, read one by one.
//!
//! The crate keeps a decompressor for every column of every file that is open: 96 KB each, which for 44
//! files of 22 columns was more than all of their pages. Here each page is read by a reader that is made
//! for it and goes with it; where each page lies is in the file's offset index.
//!
//! **Guarantees.** The same rows, and the same checks of every page, as with the crate's own reader.
//!
//! **Not guaranteed.** That a file has such an index: [`Pages::of`] gives nothing then.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::Arc;

use parquet::arrow::arrow_reader::RowGroups;
use parquet::column::page::{Page, PageIterator, PageMetadata, PageReader};
use parquet::errors::Result;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};
use parquet::file::page_index::offset_index::PageLocation;
use parquet::file::serialized_reader::SerializedPageReader;

/// A file whose offset index is known.
pub(super) struct Pages {
    file: Arc<File>,
    footer: Arc<ParquetMetaData>,
}

impl Pages {
    /// `None` for a file that does not say where each of its pages lies.
    pub(super) fn of(file: File, footer: &Arc<ParquetMetaData>) -> Option<Self> {
        let mut groups = (0..footer.num_row_groups()).map(|group| (group, footer.row_group(group)));
        let is_complete = groups.all(|(group, columns)| {
            (0..columns.num_columns()).all(|column| locations(footer, group, column).is_some())
        });
        is_complete.then(|| Self { file: Arc::new(file), footer: Arc::clone(footer) })
    }
}

fn locations(footer: &ParquetMetaData, group: usize, column: usize) -> Option<&Vec<PageLocation>> {
    let found = footer.page_index()?.page_locations(group, column)?;
    (!found.is_empty()).then_some(found)
}

impl RowGroups for Pages {
    fn num_rows(&self) -> usize {
        let rows = self.footer.row_groups().iter().map(RowGroupMetaData::num_rows);
        rows.filter_map(|rows| usize::try_from(rows).ok()).sum()
    }

    fn column_chunks(&self, column: usize) -> Result<Box<dyn PageIterator>> {
        let (file, footer) = (Arc::clone(&self.file), Arc::clone(&self.footer));
        Ok(Box::new(Chunks { file, footer, column, group: 0 }))
    }

    fn row_groups(&self) -> Box<dyn Iterator<Item = &RowGroupMetaData> + '_> {
        Box::new(self.footer.row_groups().iter())
    }

    fn metadata(&self) -> &ParquetMetaData {
        &self.footer
    }
}

/// One column of all row groups.
struct Chunks {
    file: Arc<File>,
    footer: Arc<ParquetMetaData>,
    column: usize,
    /// The next row group.
    group: usize,
}

impl Iterator for Chunks {
    type Item = Result<Box<dyn PageReader>>;

    fn next(&mut self) -> Option<Self::Item> {
        let group = self.footer.row_groups().get(self.group)?;
        let locations = locations(&self.footer, self.group, self.column)?;
        self.group += 1;
        let column = group.column(self.column).clone();
        Some(Ok(Box::new(Chunk {
            file: Arc::clone(&self.file),
            rows: usize::try_from(group.num_rows()).unwrap_or(0),
            // Nothing else can lie before the first page of data.
            is_dictionary_next: locations.first().is_some_and(|first| !is_first(first, &column)),
            left: locations.iter().cloned().collect(),
            column,
        })))
    }
}

impl PageIterator for Chunks {}

/// Whether a page of data is all that a column begins with.
fn is_first(page: &PageLocation, column: &ColumnChunkMetaData) -> bool {
    u64::try_from(page.offset) == Ok(column.byte_range().0)
}

/// The pages of one column of a row group.
struct Chunk {
    file: Arc<File>,
    column: ColumnChunkMetaData,
    /// Rows of the row group.
    rows: usize,
    /// Where the pages of data lie that were not read.
    left: VecDeque<PageLocation>,
    is_dictionary_next: bool,
}

impl PageReader for Chunk {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let Some(next) = self.left.front() else { return Ok(None) };
        let (file, locations) = (Arc::clone(&self.file), vec![next.clone()]);
        let mut reader = SerializedPageReader::new(file, &self.column, self.rows, Some(locations))?;
        if std::mem::take(&mut self.is_dictionary_next) {
            return reader.get_next_page();
        }
        if !is_first(next, &self.column) {
            // To that reader whatever lies before its one page is a dictionary.
            reader.skip_next_page()?;
        }
        self.left.pop_front();
        reader.get_next_page()
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        let Some(next) = self.left.front() else { return Ok(None) };
        if self.is_dictionary_next {
            return Ok(Some(PageMetadata { num_rows: None, num_levels: None, is_dict: true }));
        }
        let row = |page: &PageLocation| usize::try_from(page.first_row_index).unwrap_or(0);
        let end = self.left.get(1).map_or(self.rows, row);
        let rows = end.saturating_sub(row(next));
        Ok(Some(PageMetadata { num_rows: Some(rows), num_levels: None, is_dict: false }))
    }

    fn skip_next_page(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.is_dictionary_next) {
            self.left.pop_front();
        }
        Ok(())
    }

    fn at_record_boundary(&mut self) -> Result<bool> {
        // A page of an indexed file begins with a row.
        Ok(true)
    }
}

impl Iterator for Chunk {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use arrow::array::{Int64Array, RecordBatch, StringArray};
    use parquet::arrow::arrow_reader::{
        ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
        ParquetRecordBatchReaderBuilder, RowSelection, RowSelector,
    };
    use parquet::arrow::{ArrowWriter, ProjectionMask, parquet_to_arrow_field_levels};
    use parquet::basic::Compression;
    use parquet::file::metadata::PageIndexPolicy;
    use parquet::file::properties::WriterProperties;

    use super::*;

    /// 100 rows in row groups of 35 and pages of 10: numbers that stand for themselves, texts of a
    /// dictionary with gaps between them, and a column without any value.
    fn file(has_index: bool) -> File {
        let text = |row: i64| (row % 3 > 0).then(|| format!("text {}", row % 7));
        let batch = RecordBatch::try_from_iter_with_nullable([
            ("number", Arc::new(Int64Array::from_iter(0..100)) as _, false),
            ("text", Arc::new((0..100).map(text).collect::<StringArray>()) as _, true),
            ("nothing", Arc::new(StringArray::new_null(100)) as _, true),
        ]);
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(Default::default()))
            .set_max_row_group_row_count(Some(35))
            .set_data_page_row_count_limit(10)
            .set_write_batch_size(10)
            .set_column_dictionary_enabled("number".into(), false)
            .set_offset_index_disabled(!has_index)
            .build();
        let (batch, written) = (batch.unwrap(), tempfile::tempfile().unwrap());
        let writer =
            ArrowWriter::try_new(written.try_clone().unwrap(), batch.schema(), Some(properties));
        let mut writer = writer.unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        written
    }

    fn metadata(file: &File) -> ArrowReaderMetadata {
        let options = ArrowReaderOptions::new()
            .with_skip_arrow_metadata(true)
            .with_offset_index_policy(PageIndexPolicy::Optional);
        ArrowReaderMetadata::load(file, options).unwrap()
    }

    #[test]
    fn the_rows_are_those_that_the_crates_own_reader_gives() {
        let file = file(true);
        let metadata = metadata(&file);
        let pages = Pages::of(file.try_clone().unwrap(), metadata.metadata()).unwrap();
        assert_eq!((pages.num_rows(), pages.row_groups().count()), (100, 3));
        assert_eq!(locations(metadata.metadata(), 0, 0).unwrap().len(), 4, "pages of 10 rows");
        let steps = [(5, false), (1, true), (40, false), (20, true), (14, false), (20, true)];
        let some = steps.map(|(rows, wanted)| match wanted {
            true => RowSelector::select(rows),
            false => RowSelector::skip(rows),
        });
        for selection in [None, Some(RowSelection::from(some.to_vec()))] {
            let schema = metadata.parquet_schema();
            let levels =
                parquet_to_arrow_field_levels(schema, ProjectionMask::all(), None).unwrap();
            let ours = ParquetRecordBatchReader::try_new_with_row_groups(
                &levels,
                &pages,
                16,
                selection.clone(),
            );
            let ours: Vec<_> = ours.unwrap().map(Result::unwrap).collect();
            let mut theirs = ParquetRecordBatchReaderBuilder::new_with_metadata(
                file.try_clone().unwrap(),
                metadata.clone(),
            )
            .with_batch_size(16);
            if let Some(selection) = selection {
                theirs = theirs.with_row_selection(selection);
            }
            let theirs: Vec<_> = theirs.build().unwrap().map(Result::unwrap).collect();
            let joined = |batches: &[RecordBatch]| {
                arrow::compute::concat_batches(&batches[0].schema(), batches).unwrap()
            };
            assert_eq!(joined(&ours), joined(&theirs));
        }
    }

    #[test]
    fn a_file_without_an_index_is_left_to_the_crate() {
        let file = file(false);
        let metadata = metadata(&file);
        assert!(Pages::of(file, metadata.metadata()).is_none());
    }
}

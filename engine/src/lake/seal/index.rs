//! The page index of a file whose pages have moved.

use std::any::Any;
use std::sync::Arc;

use parquet::file::metadata::OffsetIndexBuilder;
use parquet::file::metadata::page_index::PageIndexProvider;
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::page_index::offset_index::OffsetIndexMetaData;

/// Where the data pages of a column in a row group are, and their lengths with their headers.
pub(super) type Pages = Vec<(u64, u64)>;

/// The statistics of another index, with the pages where they are now.
#[derive(Debug)]
pub(super) struct MovedIndex {
    old: Arc<dyn PageIndexProvider>,
    /// By row group and column.
    offsets: Vec<Vec<Option<OffsetIndexMetaData>>>,
}

impl MovedIndex {
    /// The index `old` for pages that are now at `pages`, by row group and column. `None` when the
    /// index has another number of pages.
    pub(super) fn new(old: Arc<dyn PageIndexProvider>, pages: &[Vec<Pages>]) -> Option<Self> {
        let mut offsets = Vec::with_capacity(pages.len());
        for (group, columns) in pages.iter().enumerate() {
            let mut moved = Vec::with_capacity(columns.len());
            for (column, pages) in columns.iter().enumerate() {
                moved.push(match old.offset_index(group, column) {
                    None => None,
                    Some(index) => Some(move_to(index, pages)?),
                });
            }
            offsets.push(moved);
        }
        Some(Self { old, offsets })
    }
}

fn move_to(index: &OffsetIndexMetaData, pages: &Pages) -> Option<OffsetIndexMetaData> {
    let old = index.page_locations();
    if old.len() != pages.len() {
        return None;
    }
    let bytes = index.unencoded_byte_array_data_bytes();
    let mut moved = OffsetIndexBuilder::new();
    for (place, &(at, length)) in pages.iter().enumerate() {
        let first = old[place].first_row_index;
        // The builder counts rows; of the last page it does not need to know any.
        let next = old.get(place + 1).map_or(first, |next| next.first_row_index);
        moved.append_row_count(next - first);
        moved.append_offset_and_size(at.cast_signed(), i32::try_from(length).ok()?);
        moved.append_unencoded_byte_array_data_bytes(
            bytes.and_then(|bytes| bytes.get(place).copied()),
        );
    }
    Some(moved.build())
}

impl PageIndexProvider for MovedIndex {
    fn has_offset_indexes(&self) -> bool {
        self.old.has_offset_indexes()
    }

    fn has_column_indexes(&self) -> bool {
        self.old.has_column_indexes()
    }

    fn column_index(&self, row_group: usize, column: usize) -> Option<&ColumnIndexMetaData> {
        self.old.column_index(row_group, column)
    }

    fn offset_index(&self, row_group: usize, column: usize) -> Option<&OffsetIndexMetaData> {
        self.offsets.get(row_group)?.get(column)?.as_ref()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

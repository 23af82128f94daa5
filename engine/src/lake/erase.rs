//! The rows of a data file that are to be erased: where they are, and the file without them.
//!
//! **Guarantees.** Rows are looked for in the pages, never in statistics. What is left of a file is
//! read back and compared with what was kept (see [`without`]).
//!
//! **Memory.** A batch of some thousand rows of the columns that are looked at, and the numbers that
//! were found.

use std::fs::File;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};

use super::check::check_outside;
use super::delta::DataFile;
use super::error::{LakeError, Result};
pub use super::merge::without;

/// Rows decoded at a time.
const BATCH_ROWS: usize = 16_384;

/// Says which rows of a batch have to go; it never says "unknown". It looks at `node`, `shard`,
/// `sequence` and at the columns that its maker names.
pub type Doomed<'a> = dyn Fn(&RecordBatch) -> BooleanArray + 'a;

/// Finds the `doomed` rows of `file`, which looks at `columns`: their shards and numbers. `go_on` is
/// asked between two batches; it may wait, and its `false` gives the search up.
///
/// # Errors
///
/// [`LakeError::Io`], [`LakeError::Parquet`] and [`LakeError::Damaged`] when the file cannot be read,
/// [`LakeError::Content`] when it lacks a column, [`LakeError::GivenUp`] after a `false` of `go_on`.
pub fn find(
    file: &DataFile,
    columns: &[&str],
    doomed: &Doomed<'_>,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Vec<(u32, i64)>> {
    let mut found = Vec::new();
    visit(file, columns, go_on, &mut |batch| found.extend(numbers_of(batch, &doomed(batch))))?;
    Ok(found)
}

/// Shows `see` the `columns` of all rows of `file`, batch by batch; otherwise as [`find`].
pub(super) fn visit(
    file: &DataFile,
    columns: &[&str],
    go_on: &mut dyn FnMut() -> bool,
    see: &mut dyn FnMut(&RecordBatch),
) -> Result<()> {
    check_outside(file)?;
    let path = &*file.local;
    let opened = File::open(path).map_err(LakeError::io("open", path))?;
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(opened, options)
        .map_err(LakeError::parquet(path))?;
    if let Some(missing) = columns.iter().find(|name| reader.schema().index_of(name).is_err()) {
        let problem = format!("lacks the column {missing:?}");
        return Err(LakeError::Content { path: path.to_owned(), problem });
    }
    let wanted = ProjectionMask::columns(reader.parquet_schema(), columns.iter().copied());
    let batches = reader.with_projection(wanted).with_batch_size(BATCH_ROWS).build();
    for batch in batches.map_err(LakeError::parquet(path))? {
        if !go_on() {
            return Err(LakeError::GivenUp);
        }
        let batch = batch.map_err(|error| LakeError::parquet(path)(error.into()))?;
        see(&batch);
    }
    Ok(())
}

/// The shards and numbers of the rows of `batch` that are `doomed`.
pub fn numbers_of(batch: &RecordBatch, doomed: &BooleanArray) -> Vec<(u32, i64)> {
    let [shards, sequences] = ["shard", "sequence"].map(|name| batch.column_by_name(name));
    let shards = shards.and_then(|column| column.as_primitive_opt::<Int32Type>());
    let sequences = sequences.and_then(|column| column.as_primitive_opt::<Int64Type>());
    let (Some(shards), Some(sequences)) = (shards, sequences) else { return Vec::new() };
    let number = |row: usize| Some((u32::try_from(shards.value(row)).ok()?, sequences.value(row)));
    (0..doomed.len()).filter(|&row| doomed.value(row)).filter_map(number).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;
    use crate::lake::check::check_whole;
    use crate::lake::testing::{NODE, append, hot_table, scratch, write_table};

    const COLUMNS: [&str; 3] = ["shard", "sequence", "user_id"];

    fn of_users(users: &'static [&'static str]) -> impl Fn(&RecordBatch) -> BooleanArray {
        move |batch| {
            let found = batch.column_by_name("user_id").unwrap().as_string::<i32>();
            found.iter().map(|user| Some(user.is_some_and(|user| users.contains(&user)))).collect()
        }
    }

    #[test]
    fn rows_are_found_and_the_file_without_them_is_sound() {
        let (_data, location) = scratch();
        location.create().unwrap();
        let connection = hot_table("hot");
        append(&connection, "hot", NODE, 3, "range(1, 20001) t(i)", 0);
        let rolled = write_table(&connection, "hot", &location, NODE).unwrap();
        let file = DataFile::of(&location, &rolled[0]);
        let doomed = of_users(&["user-7", "user-19999", "nobody"]);
        let mut found = find(&file, &COLUMNS, &doomed, &mut || true).unwrap();
        found.sort_unstable();
        assert_eq!(found, [(3, 7), (3, 19_999)]);

        let new = without(&location, NODE, &file, &doomed, &mut || true).unwrap().unwrap();
        assert_eq!((new.rows, new.date.as_str()), (19_998, &*file.date));
        let new = DataFile::of(&location, &new);
        check_whole(&new).unwrap();
        assert_eq!(find(&new, &COLUMNS, &doomed, &mut || true).unwrap(), []);
        let others = find(&new, &COLUMNS, &of_users(&["user-8"]), &mut || true).unwrap();
        assert_eq!(others, [(3, 8)]);

        let every_row = |batch: &RecordBatch| BooleanArray::from(vec![true; batch.num_rows()]);
        assert_eq!(without(&location, NODE, &file, &every_row, &mut || true).unwrap(), None);
        let files = || location.data_files(NODE).unwrap().len();
        assert_eq!(files(), 2);
        for looks in 0..3 {
            let mut left = looks;
            let go_on = &mut || {
                left -= 1;
                left >= 0
            };
            let given_up = without(&location, NODE, &file, &doomed, go_on);
            assert!(matches!(given_up, Err(LakeError::GivenUp)), "{given_up:?}");
            assert_eq!(files(), 2, "nothing is left behind");
        }
        let error = find(&file, &["colour"], &doomed, &mut || true).unwrap_err();
        assert!(error.to_string().contains("\"colour\""), "{error}");
    }
}

//! Tests of merges: what comes out, against the same rows sorted, and what failures leave behind.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;

use arrow::array::{
    Array, AsArray, Int32Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
use duckdb::Connection;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::ConvertedType;
use parquet::file::metadata::ParquetMetaData;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::lake::check::{check_outside, check_whole};
use crate::lake::delta::DataFile;
use crate::lake::footer;
use crate::lake::location::sums_in;
use crate::lake::output::Events;
use crate::lake::plan::tests::paths;
use crate::lake::testing::{DAY, DAY_MICROS, NODE, append, hot_table, scratch, write_table};

const SECOND: i64 = 1_000_000;

/// What a row is told from others by: tenant, timestamp, received_at, shard, sequence, properties.
type Row = (String, i64, i64, i32, i64, Option<String>);

/// A place with one rolled file for each list of numbers, each of a shard of its own.
fn rolled(numbers: &[&str]) -> (TempDir, Location, Job) {
    let (data, location) = scratch();
    location.create().unwrap();
    let connection = hot_table("hot");
    let mut inputs = Vec::new();
    for (shard, numbers) in (0..).zip(numbers) {
        connection.execute_batch("DELETE FROM hot").unwrap();
        append(&connection, "hot", NODE, shard, numbers, 0);
        inputs.push(roll(&connection, &location));
    }
    (data, location, Job { inputs, cut: None, pieces: 1 })
}

fn roll(connection: &Connection, location: &Location) -> DataFile {
    let files = write_table(connection, "hot", location, NODE).unwrap();
    assert_eq!(files.len(), 1);
    DataFile::of(location, &files[0])
}

fn footer_of(location: &Location, file: &NewFile) -> ParquetMetaData {
    let local = location.local(&file.path);
    footer::metadata(&fs::File::open(&local).unwrap(), &local).unwrap()
}

/// The rows of a file, in its order.
fn rows_of(path: &std::path::Path) -> Vec<Row> {
    let file = fs::File::open(path).unwrap();
    let batches = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    let mut rows = Vec::new();
    for batch in batches.map(Result::unwrap) {
        let text = |name| batch.column_by_name(name).unwrap().as_string::<i32>().clone();
        let moments = |name| {
            let column = batch.column_by_name(name).unwrap();
            column.as_primitive::<TimestampMicrosecondType>().clone()
        };
        let (tenants, properties) = (text("tenant"), text("properties"));
        let (timestamps, received) = (moments("timestamp"), moments("received_at"));
        let shards = batch.column_by_name("shard").unwrap().as_primitive::<Int32Type>().clone();
        let sequences = batch.column_by_name("sequence").unwrap();
        let sequences = sequences.as_primitive::<Int64Type>();
        rows.extend((0..batch.num_rows()).map(|row| {
            let properties = properties.is_valid(row).then(|| properties.value(row).to_owned());
            let tenant = tenants.value(row).to_owned();
            let (shard, sequence) = (shards.value(row), sequences.value(row));
            (tenant, timestamps.value(row), received.value(row), shard, sequence, properties)
        }));
    }
    rows
}

fn sorted(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort();
    rows
}

fn inputs_of(job: &Job) -> Vec<Row> {
    job.inputs.iter().flat_map(|file| rows_of(&file.local)).collect()
}

fn outputs_of(location: &Location, files: &[NewFile]) -> Vec<Vec<Row>> {
    files.iter().map(|file| rows_of(&location.local(&file.path))).collect()
}

fn is_sorted(rows: &[Row]) -> bool {
    rows.is_sorted_by(|one, other| (&one.0, one.1) <= (&other.0, other.1))
}

fn done(location: &Location, job: &Job) -> Merged {
    merge(location, NODE, job.clone(), &mut || true).unwrap()
}

/// Parquet files below the table's directory.
fn parquet_files(location: &Location) -> usize {
    let files = location.list_all().unwrap();
    files.iter().filter(|file| file.location.as_ref().ends_with(".parquet")).count()
}

#[test]
fn files_become_one_sorted_file_with_the_same_rows_and_statistics() {
    let (_data, location, job) =
        rolled(&["range(1, 40001) t(i)", "range(1, 3) t(i)", "range(20000, 60001, 2) t(i)"]);
    let merged = done(&location, &job);
    assert_eq!(merged.job, job);
    let [file] = &merged.files[..] else { panic!("{:?}", merged.files) };
    let rows = rows_of(&location.local(&file.path));
    assert!(is_sorted(&rows));
    assert_eq!(sorted(rows), sorted(inputs_of(&job)));
    assert_eq!((file.rows, file.date.as_str()), (60_003, DAY));
    let sealed = DataFile::of(&location, file);
    assert!(sums_in(&sealed.path).is_some(), "{}", sealed.path);
    check_outside(&sealed).unwrap();
    check_whole(&sealed).unwrap();

    // The statistics are those that the same rows would have in a roll's file.
    let connection = hot_table("hot");
    for (shard, numbers) in (0..).zip(["range(1, 40001)", "range(1, 3)", "range(20000, 60001, 2)"])
    {
        append(&connection, "hot", NODE, shard, &format!("{numbers} t(i)"), 0);
    }
    let at_once = write_table(&connection, "hot", &location, NODE).unwrap();
    assert_eq!(file.stats, at_once[0].stats);
    let [merged, rolled] = [file, &at_once[0]].map(|file| footer_of(&location, file));
    let columns = |footer: &ParquetMetaData| {
        let columns = footer.file_metadata().schema_descr().columns().iter();
        columns
            .map(|column| {
                // DuckDB also says of whole numbers that they are such.
                let converted = match column.converted_type() {
                    ConvertedType::INT_32 | ConvertedType::INT_64 => ConvertedType::NONE,
                    other => other,
                };
                (column.name().to_owned(), column.physical_type(), converted)
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(columns(&merged), columns(&rolled));
}

#[test]
fn rows_from_the_cut_on_go_into_a_file_of_their_own() {
    let (_data, location, mut job) = rolled(&["range(1, 101) t(i)", "range(50, 151) t(i)"]);
    // Event i is received i seconds and 7 µs into the day; 120 s on the dot is event 120.
    let cut = DAY_MICROS + 120 * SECOND;
    job.cut = Some(cut);
    let merged = done(&location, &job);
    let outputs = outputs_of(&location, &merged.files);
    assert_eq!(outputs.iter().map(Vec::len).collect::<Vec<_>>(), [170, 31]);
    assert!(outputs[0].iter().all(|row| row.2 < cut) && outputs[1].iter().all(|row| row.2 >= cut));
    assert!(outputs.iter().all(|rows| is_sorted(rows)));
    assert_eq!(sorted(outputs.concat()), sorted(inputs_of(&job)));
    // In the log, where bounds are whole milliseconds, they do not overlap either.
    let bounds: Vec<_> = merged
        .files
        .iter()
        .map(|file| DataFile::of(&location, file).bounds.received_at.unwrap())
        .collect();
    assert!(bounds[0].1 <= bounds[1].0, "{bounds:?}");
    // Nothing is beyond this cut, so that there is no second file.
    job.cut = Some(DAY_MICROS + 1_000 * SECOND);
    assert_eq!(done(&location, &job).files.len(), 1);
}

#[test]
fn overlapping_files_are_parted_into_pieces_of_time() {
    let (_data, location, mut job) = rolled(&["range(1, 30001) t(i)", "range(1, 30001) t(i)"]);
    job.pieces = 3;
    let merged = done(&location, &job);
    let outputs = outputs_of(&location, &merged.files);
    assert_eq!(outputs.len(), 3);
    for pair in outputs.windows(2) {
        let last = pair[0].iter().map(|row| row.2).max().unwrap();
        let first = pair[1].iter().map(|row| row.2).min().unwrap();
        assert!(last < first, "{last} {first}");
    }
    assert!(outputs.iter().all(|rows| (15_000..25_000).contains(&rows.len())));
    assert_eq!(sorted(outputs.concat()), sorted(inputs_of(&job)));
}

/// Bounds of the test build make this happen with small files.
#[test]
fn a_job_that_does_not_fit_into_memory_is_done_in_part() {
    let (_data, location, job) = rolled(&["range(1, 30001) t(i)"; 4]);
    let merged = done(&location, &job);
    let taken = merged.job.inputs.len();
    assert!((2..4).contains(&taken), "{taken}");
    assert_eq!(paths(&merged.job.inputs), paths(&job.inputs[..taken]));
    let rows: u64 = merged.files.iter().map(|file| file.rows).sum();
    assert_eq!(rows, 30_000 * taken as u64);
}

#[test]
fn work_that_is_given_up_leaves_nothing_behind() {
    let (_data, location, mut job) = rolled(&["range(1, 20001) t(i)", "range(1, 20001) t(i)"]);
    job.cut = Some(DAY_MICROS + 19_990 * SECOND);
    let mut looks = 0;
    let whole = merge(&location, NODE, job.clone(), &mut || {
        looks += 1;
        true
    });
    for file in whole.unwrap().files {
        location.remove(&file.path).unwrap();
    }
    assert!(looks > 6, "{looks}");
    for last in 0..looks {
        let mut left = last;
        let given_up = merge(&location, NODE, job.clone(), &mut || {
            left -= 1;
            left >= 0
        });
        assert!(matches!(given_up, Err(LakeError::GivenUp)), "{last}: {given_up:?}");
        assert_eq!(parquet_files(&location), 2, "only the inputs are left");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named_and_nothing_is_left_behind() {
    let (_data, location, job) = rolled(&["range(1, 5001) t(i)", "range(1, 5001) t(i)"]);
    let path = job.inputs[1].local.to_path_buf();
    let whole = fs::read(&path).unwrap();
    // One bit of a page, which may leave numbers that look like others.
    let mut broken = whole.clone();
    broken[1_000] ^= 1;
    for damaged in [&whole[..whole.len() / 2], &broken[..]] {
        fs::write(&path, damaged).unwrap();
        let error = merge(&location, NODE, job.clone(), &mut || true).unwrap_err();
        assert!(matches!(error, LakeError::Damaged { .. }), "{error}");
        assert_eq!(error.path(), Some(&*path), "{error}");
        assert_eq!(parquet_files(&location), 2);
    }
    fs::write(&path, &whole).unwrap();
    let mut other = job.clone();
    other.inputs[1].rows = Some(4_999);
    let error = merge(&location, NODE, other, &mut || true).unwrap_err();
    assert_eq!(error.path(), Some(&*path), "{error}");
    assert!(error.to_string().contains("5000 rows"), "{error}");
    fs::remove_file(&path).unwrap();
    let error = merge(&location, NODE, job, &mut || true).unwrap_err();
    assert_eq!(error.path(), Some(&*path), "{error}");
}

/// Files from before a column was added read as null; a column that no table of ours has must not get
/// lost.
#[test]
fn a_missing_column_is_null_and_one_of_a_strange_type_is_refused() {
    let (_data, location, mut job) = rolled(&["range(1, 11) t(i)", "range(1, 11) t(i)"]);
    let connection = Connection::open_in_memory().unwrap();
    let mut rewrite = |select: &str| {
        let old = &job.inputs[1];
        let path = location.new_data_file(NODE, DAY);
        let sql = format!(
            "COPY (SELECT {select} FROM read_parquet('{}', hive_partitioning = false) ORDER BY tenant, timestamp) TO '{}'",
            old.local.display(),
            location.local(&path).display()
        );
        connection.execute_batch(&sql).unwrap();
        let file = NewFile::read(&location, path, DAY).unwrap();
        job.inputs[1] = DataFile::of(&location, &file);
        job.clone()
    };
    let job = rewrite("* EXCLUDE (properties)");
    let merged = done(&location, &job);
    let rows = rows_of(&location.local(&merged.files[0].path));
    assert_eq!(rows.iter().filter(|row| row.5.is_none()).count(), 10);
    assert_eq!(rows.len(), 20);

    let job = rewrite("*, 1 AS colour");
    let error = merge(&location, NODE, job, &mut || true).unwrap_err();
    assert!(error.to_string().contains("\"colour\""), "{error}");
    let job = rewrite("* EXCLUDE (colour) REPLACE (CAST(sequence AS INTEGER) AS sequence)");
    let error = merge(&location, NODE, job, &mut || true).unwrap_err();
    assert!(error.to_string().contains("\"sequence\" as Int32"), "{error}");
}

/// Whoever has added them: another node may do so while this one runs.
#[test]
fn promoted_columns_of_any_input_are_kept() {
    let (_data, location) = scratch();
    location.create().unwrap();
    let connection = hot_table("hot");
    let mut inputs = Vec::new();
    for (shard, promoted) in [None, Some("plan VARCHAR"), Some("paid BOOLEAN")].iter().enumerate() {
        connection.execute_batch("DELETE FROM hot").unwrap();
        let shard = u32::try_from(shard).unwrap();
        append(&connection, "hot", NODE, shard, "range(1, 11) t(i)", 0);
        if let Some(promoted) = promoted {
            let name = promoted.split(' ').next().unwrap();
            let value = if name == "plan" { "'p' || sequence" } else { "sequence % 2 = 0" };
            let sql =
                format!("ALTER TABLE hot ADD COLUMN {promoted}; UPDATE hot SET {name} = {value}");
            connection.execute_batch(&sql).unwrap();
        }
        inputs.push(roll(&connection, &location));
        if let Some(promoted) = promoted {
            let name = promoted.split(' ').next().unwrap();
            connection.execute_batch(&format!("ALTER TABLE hot DROP COLUMN {name}")).unwrap();
        }
    }
    let merged = done(&location, &Job { inputs: inputs.clone(), cut: None, pieces: 1 });
    let local = location.local(&merged.files[0].path);
    let reader = Connection::open_in_memory().unwrap();
    let counted = |path: &std::path::Path, sql: &str| -> i64 {
        let sql = format!(
            "SELECT count(*) FROM read_parquet('{}', hive_partitioning = false) WHERE {sql}",
            path.display()
        );
        reader.query_row(&sql, [], |row| row.get(0)).unwrap()
    };
    assert_eq!(counted(&local, "shard = 1 AND plan = 'p' || sequence AND paid IS NULL"), 10);
    assert_eq!(counted(&local, "shard = 2 AND paid = (sequence % 2 = 0) AND plan IS NULL"), 10);
    assert_eq!(counted(&local, "shard = 0 AND plan IS NULL AND paid IS NULL"), 10);

    let doomed = |batch: &RecordBatch| {
        let sequences = batch.column_by_name("sequence").unwrap().as_primitive::<Int64Type>();
        sequences.iter().map(|sequence| Some(sequence == Some(3))).collect()
    };
    let left = without(&location, NODE, &inputs[1], &doomed, &mut || true).unwrap().unwrap();
    assert_eq!(counted(&location.local(&left.path), "plan = 'p' || sequence"), 9);
}

#[test]
fn large_rows_make_small_batches_and_small_row_groups() {
    let (_data, location) = scratch();
    location.create().unwrap();
    let connection = hot_table("hot");
    let mut inputs = Vec::new();
    for shard in 0..2 {
        connection.execute_batch("DELETE FROM hot").unwrap();
        append(&connection, "hot", NODE, shard, "range(1, 401) t(i)", 0);
        // Texts that do not compress: 100 kB each.
        let sql = "UPDATE hot SET properties = \
                   (SELECT string_agg(sha256(((2 * sequence + shard) * 10000 + j)::VARCHAR), '') \
                    FROM range(1563) t(j))";
        connection.execute_batch(sql).unwrap();
        inputs.push(roll(&connection, &location));
    }
    let job = Job { inputs, cut: None, pieces: 1 };
    let merged = done(&location, &job);
    let rows = rows_of(&location.local(&merged.files[0].path));
    assert!(is_sorted(&rows));
    assert_eq!(sorted(rows), sorted(inputs_of(&job)));
    assert!(footer_of(&location, &merged.files[0]).num_row_groups() >= 2);
}

#[test]
fn the_sum_of_events_knows_every_single_one() {
    let batch = |numbers: &[(i32, i64)]| {
        let shards = Int32Array::from_iter_values(numbers.iter().map(|number| number.0));
        let sequences = arrow::array::Int64Array::from_iter_values(numbers.iter().map(|it| it.1));
        let columns: [(&str, arrow::array::ArrayRef); 2] =
            [("shard", std::sync::Arc::new(shards)), ("sequence", std::sync::Arc::new(sequences))];
        RecordBatch::try_from_iter(columns).unwrap()
    };
    let events = |batches: &[&[(i32, i64)]]| {
        let mut events = Events::default();
        batches.iter().for_each(|numbers| events.add(&batch(numbers)));
        events
    };
    let all = events(&[&[(0, 1), (0, 2), (1, 1)]]);
    assert_eq!(events(&[&[(1, 1)], &[(0, 2), (0, 1)]]), all);
    for other in [[(0, 1), (0, 2), (1, 2)], [(0, 1), (0, 1), (1, 1)], [(0, 1), (0, 2), (0, 1)]] {
        assert_ne!(events(&[&other]), all, "{other:?}");
    }
    assert_ne!(events(&[&[(0, 1), (0, 2)]]), all);
}

/// Writes a sorted file of made-up rows as a roll would.
fn made_up(location: &Location, shard: i32, rows: &[(u8, i64, i64)]) -> DataFile {
    let mut rows: Vec<_> = rows.iter().zip(1_i64..).collect();
    rows.sort_by_key(|((tenant, timestamp, _), _)| (*tenant, *timestamp));
    let texts = rows.iter().map(|((tenant, ..), _)| format!("t{tenant:03}"));
    let columns: Vec<(&str, arrow::array::ArrayRef)> = vec![
        ("shard", std::sync::Arc::new(Int32Array::from(vec![shard; rows.len()]))),
        (
            "sequence",
            std::sync::Arc::new(
                rows.iter().map(|(_, number)| Some(*number)).collect::<arrow::array::Int64Array>(),
            ),
        ),
        ("tenant", std::sync::Arc::new(StringArray::from_iter_values(texts))),
        (
            "timestamp",
            std::sync::Arc::new(TimestampMicrosecondArray::from_iter_values(
                rows.iter().map(|((_, timestamp, _), _)| *timestamp),
            )),
        ),
        (
            "received_at",
            std::sync::Arc::new(TimestampMicrosecondArray::from_iter_values(
                rows.iter().map(|((_, _, received), _)| DAY_MICROS + *received),
            )),
        ),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let path = location.new_data_file(NODE, DAY);
    location.create_directory(&path).unwrap();
    let file = fs::File::create_new(location.local(&path)).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    DataFile::of(location, &NewFile::read(location, path, DAY).unwrap())
}

fn keys(path: &std::path::Path) -> Vec<(String, i64, i64, i32, i64)> {
    let rows = rows_of(path).into_iter();
    rows.map(|row| (row.0, row.1, row.2, row.3, row.4)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Against a model that sorts a list: any tenants, times and cuts, equal keys included.
    #[test]
    fn a_merge_is_a_sort_of_all_rows_parted_at_the_cut(
        files in prop::collection::vec(
            prop::collection::vec((0_u8..4, 0_i64..50, 0_i64..5_000), 1..120),
            2..8,
        ),
        cut in prop::option::of(0_i64..6),
    ) {
        let (_data, location) = scratch();
        let inputs: Vec<_> =
            (0..).zip(&files).map(|(shard, rows)| made_up(&location, shard, rows)).collect();
        let cut = cut.map(|millis| DAY_MICROS + millis * 1_000);
        let job = Job { inputs, cut, pieces: 1 };
        let mut expected: Vec<_> = (0_i32..)
            .zip(&files)
            .flat_map(|(shard, rows)| {
                rows.iter().zip(1_i64..).map(move |((tenant, timestamp, received), number)| {
                    (format!("t{tenant:03}"), *timestamp, DAY_MICROS + received, shard, number)
                })
            })
            .collect();
        expected.sort();
        let merged = done(&location, &job);
        prop_assert!(merged.files.len() <= 2);
        let mut found = Vec::new();
        for file in &merged.files {
            let rows = keys(&location.local(&file.path));
            prop_assert!(rows.is_sorted_by_key(|row| (row.0.clone(), row.1)));
            if let Some(cut) = cut {
                let late = rows.iter().filter(|row| row.2 >= cut).count();
                prop_assert!(late == 0 || late == rows.len(), "{late} of {}", rows.len());
            }
            found.extend(rows);
        }
        found.sort();
        prop_assert_eq!(found, expected);
    }
}

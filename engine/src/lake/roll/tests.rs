//! Tests of rolls: what the files hold, how they are sorted, what failures leave behind.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs::{self, File};

use duckdb::Connection;
use parquet::basic::{ConvertedType, Encoding, LogicalType, TimeUnit};
use parquet::file::metadata::ParquetMetaData;

use super::*;
use crate::lake::delta::{CommitOutcome, ShardSequence, Table};
use crate::lake::footer::{self, Bound};
use crate::lake::testing::{DAY, DAY_MICROS, NODE, append, hot_table, scratch, write_table};
use crate::schema::{COLUMNS, Kind};

fn parquet_of(location: &Location, file: &NewFile) -> ParquetMetaData {
    let local = location.local(&file.path);
    footer::metadata(&File::open(&local).unwrap(), &local).unwrap()
}

/// Everything below the table's root that is a Parquet file.
fn files_left(location: &Location) -> usize {
    location
        .list(None)
        .unwrap()
        .iter()
        .filter(|file| file.location.as_ref().ends_with("parquet"))
        .count()
}

#[test]
fn a_hot_table_becomes_one_sorted_file_a_day() {
    let (_data, location) = scratch();
    location.create().unwrap();
    let connection = hot_table("hot_7");
    connection.execute_batch("SET preserve_insertion_order = false").unwrap();
    append(&connection, "hot_7", NODE, 0, "range(1, 200001) t(i)", 0);
    append(&connection, "hot_7", NODE, 1, "range(1, 1001) t(i)", 3);

    let files = write_table(&connection, "hot_7", &location, NODE).unwrap();
    // 200,000 seconds reach into the third day.
    let dates: Vec<&str> = files.iter().map(|file| file.date.as_str()).collect();
    assert_eq!(dates, [DAY, "2026-11-22", "2026-11-23", "2026-11-24"]);
    assert_eq!(files.iter().map(|file| file.rows).sum::<u64>(), 201_000);
    for file in &files {
        let local = location.local(&file.path);
        assert_eq!(file.bytes, fs::metadata(&local).unwrap().len());
        let unsorted: i64 = connection
            .query_row(
                &format!(
                    "SELECT count(*) FROM (SELECT (tenant, timestamp) < \
                     lag((tenant, timestamp)) OVER (ORDER BY file_row_number) AS back \
                     FROM read_parquet('{}', file_row_number = true)) WHERE back",
                    local.display()
                ),
                [],
                |row| row.get(0),
            )
            .unwrap();
        assert_eq!(unsorted, 0, "{}", file.date);
        assert_eq!(connection_rows(&connection, &local), file.rows);
    }
}

#[test]
fn times_are_stored_as_differences() {
    let (_data, location) = scratch();
    location.create().unwrap();
    let connection = hot_table("hot_1");
    append(&connection, "hot_1", NODE, 0, "range(1, 1001) t(i)", 0);
    let files = write_table(&connection, "hot_1", &location, NODE).unwrap();
    let index = COLUMNS.iter().position(|column| column.name == "timestamp").unwrap();
    let metadata = parquet_of(&location, &files[0]);
    let encodings: Vec<Encoding> = metadata.row_group(0).column(index).encodings().collect();
    assert!(encodings.contains(&Encoding::DELTA_BINARY_PACKED), "{encodings:?}");
    assert!(!encodings.contains(&Encoding::PLAIN), "{encodings:?}");
}

fn connection_rows(connection: &Connection, local: &std::path::Path) -> u64 {
    let sql = format!("SELECT count(*) FROM read_parquet('{}')", local.display());
    connection.query_row(&sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn the_files_have_the_columns_of_the_table_and_timestamps_without_a_zone() {
    let (_data, location) = scratch();
    let connection = hot_table("hot_0");
    append(&connection, "hot_0", NODE, 0, "range(1, 11) t(i)", 0);
    let files = write_table(&connection, "hot_0", &location, NODE).unwrap();
    let metadata = parquet_of(&location, &files[0]);
    let schema = metadata.file_metadata().schema_descr();
    let names: Vec<&str> = schema.columns().iter().map(|column| column.name()).collect();
    assert_eq!(names, COLUMNS.map(|column| column.name));
    for (column, expected) in schema.columns().iter().zip(COLUMNS) {
        let logical = column.logical_type_ref();
        match expected.kind {
            Kind::Text => {
                assert_eq!(column.converted_type(), ConvertedType::UTF8, "{}", column.name());
            }
            Kind::Timestamp => {
                let Some(LogicalType::Timestamp(timestamp)) = logical else {
                    panic!("{} is {logical:?}", column.name());
                };
                assert_eq!(timestamp.unit, TimeUnit::MICROS);
                assert!(!timestamp.is_adjusted_to_u_t_c, "{}", column.name());
            }
            Kind::Int | Kind::Long | Kind::Double | Kind::Boolean => {}
        }
    }
    assert!(matches!(
        metadata.row_group(0).column(0).compression(),
        parquet::basic::Compression::ZSTD(_)
    ));
}

#[test]
fn the_statistics_enclose_the_rows_and_name_no_person() {
    let (_data, location) = scratch();
    let connection = hot_table("hot_0");
    for shard in [4, 5] {
        append(&connection, "hot_0", NODE, shard, "range(1, 80001) t(i)", 0);
    }
    let files = write_table(&connection, "hot_0", &location, NODE).unwrap();
    assert_eq!(parquet_of(&location, &files[0]).num_row_groups(), 2);
    let stats = &files[0].stats;
    let number = |name: &str| {
        let column = stats.column(name).unwrap();
        assert_eq!(column.nulls, Some(0), "{name}");
        match (&column.min, &column.max) {
            (Some(Bound::Number(min)), Some(Bound::Number(max))) => (*min, *max),
            other => panic!("{name}: {other:?}"),
        }
    };
    let last = 80_000;
    assert_eq!(number("shard"), (4, 5));
    assert_eq!(number("sequence"), (1, last));
    // The first event is 1 s and 7 µs into the day, the last one `last` s and 7 µs.
    let ends = (DAY_MICROS + 1_000_000, DAY_MICROS + last * 1_000_000 + 1_000);
    assert_eq!(number("received_at"), ends);
    assert_eq!(number("timestamp"), (ends.0 - 1_000, ends.1 - 1_000));
    let tenant = stats.column("tenant").unwrap();
    assert_eq!(tenant.min, Some(Bound::Text("tenant-0".into())));
    assert_eq!(tenant.max, Some(Bound::Text("tenant-2".into())));
    assert_eq!(stats.column("node").unwrap().max, Some(Bound::Text(NODE.into())));
    for name in ["user_id", "message_id", "visitor_id", "ip"] {
        assert_eq!(stats.column(name), None);
    }
}

#[test]
fn a_written_roll_is_committed_and_its_files_are_live() {
    let (_data, location) = scratch();
    let mut table = Table::open_or_create(&location, NODE).unwrap();
    let connection = hot_table("hot_0");
    append(&connection, "hot_0", NODE, 0, "range(1, 101) t(i)", 0);
    let files = write_table(&connection, "hot_0", &location, NODE).unwrap();
    let sequence = ShardSequence { shard: 0, previous: 0, last: 100 };
    let outcome = table.commit(&files, &[sequence]).unwrap();
    assert_eq!(outcome, CommitOutcome::Committed { version: 1 });
    let live = Table::open_or_create(&location, NODE).unwrap().live_files().unwrap();
    assert_eq!(live.len(), 1);
    assert_eq!(connection_rows(&connection, &live[0].local), 100);
    let received_at = live[0].bounds.received_at.unwrap();
    assert_eq!(received_at, (DAY_MICROS + 1_000_000, DAY_MICROS + 100_001_000));
}

#[test]
fn an_empty_hot_table_gives_no_file() {
    let (_data, location) = scratch();
    let connection = hot_table("hot_0");
    assert!(write_table(&connection, "hot_0", &location, NODE).unwrap().is_empty());
}

#[test]
fn a_failure_on_the_second_day_takes_the_first_days_file_with_it() {
    let (_data, location) = scratch();
    location.create().unwrap();
    let connection = hot_table("hot_0");
    append(&connection, "hot_0", NODE, 0, "range(1, 11) t(i)", 0);
    append(&connection, "hot_0", NODE, 0, "range(11, 21) t(i)", 1);
    fs::write(location.root().join("date=2026-11-22"), "in the way").unwrap();
    let error = write_table(&connection, "hot_0", &location, NODE).unwrap_err();
    assert!(matches!(error, LakeError::Io { .. }), "{error}");
    assert_eq!(files_left(&location), 0);
}

#[test]
fn rows_without_a_day_are_refused() {
    let (_data, location) = scratch();
    let connection = hot_table("hot_0");
    append(&connection, "hot_0", NODE, 0, "range(1, 11) t(i)", 0);
    connection.execute_batch("INSERT INTO hot_0 (node) VALUES ('n')").unwrap();
    let error = write_table(&connection, "hot_0", &location, NODE).unwrap_err();
    assert!(matches!(error, LakeError::Content { .. }), "{error}");
    assert_eq!(files_left(&location), 0);
}

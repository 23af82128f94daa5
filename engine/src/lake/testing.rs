//! What the lake's tests share: scratch tables, made-up files, hot tables with known rows.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use arrow::array::RecordBatch;
use duckdb::Connection;
use tempfile::TempDir;

use super::error::Result;
use super::footer::{Bound, ColumnStats, NewFile, Stats};
use super::location::Location;
use super::roll::write_rows;
use crate::schema::hot_table_columns;

/// The node of most tests.
pub(super) const NODE: &str = "node-a";
/// The day of most tests, and its first microsecond.
pub(super) const DAY: &str = "2026-11-21";
pub(super) const DAY_MICROS: i64 = 1_795_219_200_000_000;

/// An empty place for a table; it is gone with the first value.
pub(super) fn scratch() -> (TempDir, Location) {
    let data = tempfile::tempdir().unwrap();
    let location = Location::parse(None, data.path()).unwrap();
    (data, location)
}

/// A file that exists in the log only.
pub(super) fn made_up(location: &Location, node: &str, rows: u64) -> NewFile {
    let number = |name, min, max| ColumnStats {
        name,
        nulls: Some(0),
        min: Some(Bound::Number(min)),
        max: Some(Bound::Number(max)),
    };
    let tenant = ColumnStats {
        name: "tenant",
        nulls: Some(0),
        min: Some(Bound::Text("acme".into())),
        max: Some(Bound::Text("zeta".into())),
    };
    NewFile {
        path: location.new_data_file(node, DAY),
        date: DAY.to_owned(),
        rows,
        bytes: 1_000,
        modified_ms: DAY_MICROS / 1_000,
        stats: Stats {
            columns: vec![
                tenant,
                number("received_at", DAY_MICROS, DAY_MICROS + 5_000),
                number("timestamp", DAY_MICROS - 1_000, DAY_MICROS + 4_000),
                number("sequence", 1, 7),
            ],
        },
    }
}

/// A DuckDB in memory with an empty hot table.
pub(super) fn hot_table(name: &str) -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    let columns = hot_table_columns();
    connection.execute_batch(&format!("CREATE TABLE {name} ({columns})")).unwrap();
    connection
}

/// Adds events of `shard` with the numbers that the SQL table function or list `numbers` gives as
/// `i`. Event `i` is `i` seconds after the start of [`DAY`] plus `days` days; tenants take turns.
pub(super) fn append(
    connection: &Connection,
    table: &str,
    node: &str,
    shard: u32,
    numbers: &str,
    days: u32,
) {
    let sql = format!(
        "INSERT INTO {table} SELECT '{node}', {shard}, i, 'message-' || i, 'tenant-' || (i % 3), \
         'track', 'Order Completed', moment - INTERVAL 1 MILLISECOND, moment, NULL, moment, \
         'user-' || i, NULL, NULL, i, 'https://example.com/', NULL, NULL, NULL, '{{\"n\":1}}', \
         NULL, 'events', moment::DATE \
         FROM (SELECT i, make_timestamp({DAY_MICROS}) + INTERVAL {days} DAY \
               + i * INTERVAL 1 SECOND + INTERVAL 7 MICROSECOND AS moment FROM {numbers})"
    );
    connection.execute_batch(&sql).unwrap();
}

/// Writes what is in `table`.
pub(super) fn write_table(
    connection: &Connection,
    table: &str,
    location: &Location,
    node: &str,
) -> Result<Vec<NewFile>> {
    let mut statement = connection.prepare(&format!("SELECT * FROM {table}")).unwrap();
    let rows: Vec<RecordBatch> = statement.query_arrow([]).unwrap().collect();
    write_rows(&rows, location, node, &mut || true)
}

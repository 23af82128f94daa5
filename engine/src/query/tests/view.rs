//! The `events` of a snapshot.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::DataType;
use duckdb::Connection;
use serde_json::json;

use super::{Fixture, read, rows};
use crate::lake::Bounds;
use crate::query::QueryRequest;
use crate::schema::{COLUMNS, column_list, hot_schema};
use crate::snapshot::{DataFile, HotTable, Snapshot};

/// Writes `rows` events to a file of the day below `table`; sequences start at `first`.
fn write_file(table: &Path, date: &str, first: u64, rows: u64) -> DataFile {
    let directory = table.join(format!("date={date}"));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join(format!("{first}.parquet"));
    // DuckDB writes to a plain name, because the names here are chosen to be difficult.
    let plain = tempfile::NamedTempFile::new().unwrap();
    let events = event_columns(date);
    Connection::open_in_memory()
        .unwrap()
        .execute_batch(&format!(
            "COPY (SELECT {events} FROM range({first}, {}) r(i)) TO '{}' (FORMAT parquet)",
            first + rows,
            plain.path().display()
        ))
        .unwrap();
    std::fs::copy(plain.path(), &path).unwrap();
    data_file(path, date)
}

/// The columns of an event made from the number `i`.
fn event_columns(date: &str) -> String {
    let columns: Vec<String> = COLUMNS
        .iter()
        .map(|column| match column.name {
            "node" => "'n' AS node".into(),
            "sequence" => "i::BIGINT AS sequence".into(),
            "timestamp" | "received_at" => {
                format!("TIMESTAMP '{date}' + to_seconds(i % 3600) AS \"{}\"", column.name)
            }
            name if column.nullable => {
                format!("CAST(NULL AS {}) AS \"{name}\"", column.kind.sql())
            }
            name => format!("CAST('1' AS {}) AS \"{name}\"", column.kind.sql()),
        })
        .collect();
    columns.join(", ")
}

fn data_file(path: PathBuf, date: &str) -> DataFile {
    DataFile {
        path: path.to_str().unwrap().into(),
        local: path.into(),
        date: date.into(),
        rows: None,
        bytes: 1,
        modified_ms: 0,
        bounds: Bounds::default(),
    }
}

fn snapshot(files: Vec<DataFile>, hot: Vec<Arc<HotTable>>) -> Arc<Snapshot> {
    Arc::new(Snapshot { version: 1, files: files.into(), hot, columns: Arc::default() })
}

fn ask(fixture: &Fixture, snapshot: &Arc<Snapshot>, sql: &str) -> Vec<serde_json::Value> {
    fixture.rows_of(QueryRequest::new(sql), Arc::clone(snapshot))
}

const SUMMARY: &str =
    "SELECT date, min(node), count(*), sum(sequence) FROM events GROUP BY date ORDER BY date";

#[test]
fn every_kind_of_snapshot_has_the_columns_of_events() {
    let fixture = Fixture::new();
    let file = write_file(fixture.directory.path(), "2026-11-20", 0, 10);
    let (table, _names) = fixture.hot_table("hot_1");
    for (files, hot) in [
        (vec![], vec![]),
        (vec![file.clone()], vec![]),
        (vec![], vec![Arc::clone(&table)]),
        (vec![file], vec![table]),
    ] {
        let snapshot = snapshot(files, hot);
        let stream =
            fixture.pool.query(QueryRequest::new("SELECT * FROM events"), snapshot).unwrap();
        let expected: Vec<(&String, &DataType)> = hot_schema_fields();
        let fields: Vec<(&String, &DataType)> =
            stream.schema().fields().iter().map(|f| (f.name(), f.data_type())).collect();
        assert_eq!(fields, expected);
        read(stream).unwrap();
    }
}

fn hot_schema_fields() -> Vec<(&'static String, &'static DataType)> {
    static SCHEMA: std::sync::LazyLock<arrow::datatypes::SchemaRef> =
        std::sync::LazyLock::new(hot_schema);
    SCHEMA.fields().iter().map(|field| (field.name(), field.data_type())).collect()
}

#[test]
fn files_and_hot_tables_are_one_table() {
    let fixture = Fixture::new();
    let files = vec![
        write_file(fixture.directory.path(), "2026-11-20", 0, 10),
        write_file(fixture.directory.path(), "2026-11-21", 10, 10),
        write_file(fixture.directory.path(), "2026-11-21", 20, 10),
    ];
    let (table, _names) = fixture.hot_table("hot_1");
    fixture.execute(&format!(
        "INSERT INTO hot_1 SELECT {}, DATE '2026-11-21' FROM range(30, 40) r(i)",
        event_columns("2026-11-21")
    ));
    let snapshot = snapshot(files, vec![table]);
    assert_eq!(
        ask(&fixture, &snapshot, SUMMARY),
        [json!(["2026-11-20", "n", 10, 45]), json!(["2026-11-21", "n", 30, 735])]
    );
    // The same snapshot again, and then another one on the same connection.
    assert_eq!(ask(&fixture, &snapshot, "SELECT count(*) FROM events"), [json!([40])]);
    let other = self::snapshot(Vec::new(), snapshot.hot.clone());
    assert_eq!(ask(&fixture, &other, "SELECT count(*) FROM events"), [json!([10])]);
}

#[test]
fn a_filter_on_the_date_opens_no_file_of_another_day() {
    let fixture = Fixture::new();
    let good = write_file(fixture.directory.path(), "2026-11-20", 0, 10);
    let bad = fixture.directory.path().join("date=2026-11-21");
    std::fs::create_dir_all(&bad).unwrap();
    let bad = bad.join("1.parquet");
    std::fs::write(&bad, b"not Parquet at all").unwrap();
    let snapshot = snapshot(vec![good, data_file(bad, "2026-11-21")], Vec::new());
    for filter in ["date = '2026-11-20'", "date < DATE '2026-11-21'", "date = '2026-11-22'"] {
        let sql = format!("SELECT count(*) FROM events WHERE {filter}");
        assert_eq!(ask(&fixture, &snapshot, &sql).len(), 1, "{filter}");
    }
    let all = fixture
        .pool
        .query(QueryRequest::new("SELECT sum(sequence) FROM events"), Arc::clone(&snapshot))
        .and_then(read);
    assert!(all.is_err(), "the damaged file is not read at all");
}

#[test]
fn unusual_directories_change_nothing() {
    let fixture = Fixture::new();
    for name in ["it's", "a[b]*?", "node=7", "date=2001-01-01", "grüße 🦀"] {
        let table = fixture.directory.path().join(name).join("events");
        let files =
            vec![write_file(&table, "2026-11-20", 0, 10), write_file(&table, "2026-11-21", 10, 10)];
        let snapshot = snapshot(files, Vec::new());
        assert_eq!(
            ask(&fixture, &snapshot, SUMMARY),
            [json!(["2026-11-20", "n", 10, 45]), json!(["2026-11-21", "n", 10, 145])],
            "{name}"
        );
    }
}

#[test]
fn a_file_outside_the_partition_directories_has_the_date_that_delta_says() {
    let fixture = Fixture::new();
    let inside = write_file(fixture.directory.path(), "2026-11-20", 0, 10);
    let outside = fixture.directory.path().join("other.parquet");
    std::fs::copy(&inside.local, &outside).unwrap();
    let undated = fixture.directory.path().join("undated.parquet");
    std::fs::copy(&inside.local, &undated).unwrap();
    let files = vec![inside, data_file(outside, "2026-11-25"), data_file(undated, "")];
    assert_eq!(
        ask(
            &fixture,
            &snapshot(files, Vec::new()),
            "SELECT date, count(*) FROM events GROUP BY 1 ORDER BY 1"
        ),
        [json!(["2026-11-20", 10]), json!(["2026-11-25", 10]), json!([null, 10])]
    );
}

#[test]
fn recent_events_are_found_by_time() {
    let fixture = Fixture::new();
    let (table, _names) = fixture.hot_table("hot_1");
    for age in ["1 HOUR", "8 DAY"] {
        fixture.execute(&format!(
            "INSERT INTO hot_1 SELECT {columns} FROM ( \
                 SELECT {event}, today() AS date FROM range(5) r(i)); \
             UPDATE hot_1 SET timestamp = now() - INTERVAL {age} WHERE timestamp < '2026-01-02'",
            columns = format_args!("{}, date", column_list()),
            event = event_columns("2026-01-01"),
        ));
    }
    let snapshot = snapshot(Vec::new(), vec![table]);
    let sql = "SELECT count(*) FROM events WHERE timestamp > now() - interval 7 day";
    assert_eq!(ask(&fixture, &snapshot, sql), [json!([5])]);
    let sql = "SELECT * FROM events WHERE date = today()";
    let batches = fixture.pool.query(QueryRequest::new(sql), snapshot).and_then(read).unwrap();
    assert_eq!(rows(&batches), 10);
}

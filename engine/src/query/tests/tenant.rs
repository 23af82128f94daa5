//! What a tenant sees, and what it does not.

use std::path::Path;
use std::sync::Arc;

use arrow::util::pretty::pretty_format_batches;
use duckdb::Connection;
use serde_json::json;

use super::sandbox::list;
use super::{Fixture, read};
use crate::lake::Bounds;
use crate::query::{QueryError, QueryRequest};
use crate::schema::COLUMNS;
use crate::snapshot::{DataFile, Snapshot};

/// Three tenants take turns; only `other` has texts that are no numbers, dates, patterns or JSON,
/// and a number that overflows. One tenant has a name that ends an SQL string.
const TENANTS: &str = "['mine', 'other', 'it''s']";

fn select(rows: u32) -> String {
    let columns: Vec<String> = COLUMNS
        .iter()
        .map(|column| match column.name {
            "tenant" => format!("({TENANTS})[1 + i % 3] AS tenant"),
            "user_id" => {
                "CASE i % 3 WHEN 1 THEN 'secret-' || i ELSE i::VARCHAR END AS user_id".into()
            }
            "sequence" => {
                "CASE i % 3 WHEN 1 THEN 9223372036854775807 ELSE i::BIGINT END AS sequence".into()
            }
            "properties" => {
                r#"CASE i % 3 WHEN 1 THEN '{secret-' ELSE '{"a":1}' END AS properties"#.into()
            }
            "url" => "CASE i % 3 WHEN 1 THEN 'secret-(' ELSE 'b' END AS url".into(),
            "session_id" => {
                "CASE i % 3 WHEN 1 THEN 'secret-x' ELSE '2026-11-21' END AS session_id".into()
            }
            "timestamp" | "received_at" => {
                format!("TIMESTAMP '2026-11-21' + to_seconds(i) AS \"{}\"", column.name)
            }
            name if column.nullable => format!("CAST(NULL AS {}) AS \"{name}\"", column.kind.sql()),
            name => format!("CAST('1' AS {}) AS \"{name}\"", column.kind.sql()),
        })
        .collect();
    format!("SELECT {} FROM range({rows}) r(i)", columns.join(", "))
}

fn write_file(directory: &Path, rows: u32) -> DataFile {
    let directory = directory.join("date=2026-11-21");
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("1.parquet");
    let copy = format!("COPY ({}) TO '{}' (FORMAT parquet)", select(rows), path.display());
    Connection::open_in_memory().unwrap().execute_batch(&copy).unwrap();
    DataFile {
        path: path.to_str().unwrap().into(),
        local: path.into(),
        date: "2026-11-21".into(),
        rows: None,
        modified_ms: 0,
        bytes: 1,
        bounds: Bounds::default(),
    }
}

/// 300 events in a file and 300 in a hot table.
fn fixture() -> (Fixture, Arc<Snapshot>) {
    with_rows(300)
}

/// As many events in a file, and as many in a hot table.
fn with_rows(rows: u32) -> (Fixture, Arc<Snapshot>) {
    let fixture = Fixture::new();
    let file = write_file(fixture.directory.path(), rows);
    let (table, _names) = fixture.hot_table("hot_1");
    fixture.execute(&format!(
        "INSERT INTO hot_1 BY NAME SELECT *, DATE '2026-11-21' AS date FROM ({})",
        select(rows)
    ));
    let snapshot = Snapshot {
        version: 1,
        files: Arc::from([file]),
        hot: vec![table],
        columns: Arc::default(),
    };
    (fixture, Arc::new(snapshot))
}

fn of(tenant: &str, sql: &str) -> QueryRequest {
    QueryRequest { tenant: Some(tenant.into()), ..QueryRequest::new(sql) }
}

#[test]
fn a_tenant_sees_its_own_events_whatever_it_asks() {
    let (fixture, snapshot) = fixture();
    for (sql, expected) in [
        ("SELECT count(*) FROM events", json!([200])),
        ("SELECT count(*) FROM events WHERE tenant = 'other'", json!([0])),
        ("SELECT count(*) FROM events WHERE tenant = 'other' OR true", json!([200])),
        ("SELECT count(DISTINCT tenant) FROM events", json!([1])),
        ("SELECT count(*) FROM events a JOIN events b USING (sequence)", json!([400])),
        ("WITH mine AS (SELECT * FROM events) SELECT count(*) FROM mine", json!([200])),
        ("SELECT max(user_id) FROM events WHERE user_id LIKE 's%'", json!([null])),
        ("SELECT count(*) FROM events WHERE date = DATE '2026-11-21'", json!([200])),
    ] {
        for tenant in ["mine", "it's"] {
            let rows = fixture.rows_of(of(tenant, sql), Arc::clone(&snapshot));
            assert_eq!(rows, std::slice::from_ref(&expected), "{tenant}: {sql}");
        }
    }
    let nobody = fixture.rows_of(of("' OR true --", "SELECT count(*) FROM events"), snapshot);
    assert_eq!(nobody, [json!([0])]);
}

#[test]
fn the_next_query_on_the_same_connection_sees_what_is_its_own() {
    let (fixture, snapshot) = fixture();
    let count = "SELECT count(*) FROM events";
    for _ in 0..2 {
        for (request, expected) in
            [(of("mine", count), 200), (QueryRequest::new(count), 600), (of("x", count), 0)]
        {
            assert_eq!(fixture.rows_of(request, Arc::clone(&snapshot)), [json!([expected])]);
        }
    }
}

/// A planner that tried a condition on foreign rows first would tell by an error what they hold.
/// There are enough rows for DuckDB to change the order of conditions while it runs.
#[test]
fn conditions_that_fail_on_the_rows_of_others_do_not_fail() {
    let (fixture, snapshot) = with_rows(150_000);
    let mut failed = Vec::new();
    for sql in list("oracles.sql") {
        let outcome = fixture.pool.query(of("mine", &sql), Arc::clone(&snapshot)).and_then(read);
        match outcome {
            Ok(batches) => {
                let shown = pretty_format_batches(&batches).unwrap().to_string();
                if shown.contains("secret") {
                    failed.push(format!("{sql}: {}", &shown[..shown.len().min(500)]));
                }
            }
            Err(error) => failed.push(format!("{sql}: {error}")),
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn an_error_that_rows_cause_says_its_class_and_not_what_they_hold() {
    let (fixture, snapshot) = fixture();
    let sql = "SELECT sum(user_id::INT) FROM events";
    let fail = |request| {
        let stream = fixture.pool.query(request, Arc::clone(&snapshot));
        match stream.and_then(read).unwrap_err() {
            QueryError::Sql { message, .. } => message,
            other => panic!("{other}"),
        }
    };
    let message = fail(of("other", sql));
    assert!(message.starts_with("Conversion Error"), "{message}");
    assert!(!message.contains("secret"), "{message}");
    assert!(fail(QueryRequest::new(sql)).contains("secret"));
    // What the statement itself has wrong is told in full.
    let message = fail(of("other", "SELECT nope FROM events"));
    assert!(message.contains("nope"), "{message}");
}

//! Other engines read the table: Python's `deltalake` and `polars` see what our SQL says, before and
//! after its files have been joined. `pyarrow` sees it in an export.
//!
//! `RINGLAKE_TEST_PYTHON` names an interpreter that has the packages (CI makes an environment for
//! it); without it the tests say that they are skipped.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use support::{Server, run, text};

/// Events; far more than a request may hold, so that several requests and shards take part.
const EVENTS: usize = 20_000;

/// Reads the table at `argv[1]`, in version `argv[2]` or the newest, with both libraries; prints one
/// JSON object with their groups.
const SCRIPT: &str = r#"
import json, sys
import deltalake, polars

path, version = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else None
columns = ["tenant", "type", "date", "sequence", "user_id", "timestamp"]

def groups(frame):
    grouped = frame.group_by("tenant", "type", "date").agg(
        polars.len().alias("n"),
        polars.col("sequence").sum().alias("sequences"),
        polars.col("user_id").count().alias("users"),
        polars.col("timestamp").max().dt.epoch("us").alias("latest"),
    )
    return [{**row, "date": row["date"].isoformat()} for row in grouped.to_dicts()]

table = deltalake.DeltaTable(path, version=version)
arrow = table.to_pyarrow_table(columns=columns)
print(json.dumps({
    "versions": {"deltalake": deltalake.__version__, "polars": polars.__version__},
    "version": table.version(),
    "files": len(table.file_uris()),
    "operation": table.history(1)[0]["operation"],
    "names": [field.name for field in table.schema().fields],
    "deltalake": groups(polars.from_arrow(arrow)),
    "polars": groups(polars.scan_delta(path, version=version).select(columns).collect()),
}))
"#;

/// Reads the directory of Parquet files at `argv[1]` as one table.
const EXPORT_SCRIPT: &str = r#"
import json, sys
import pyarrow.compute, pyarrow.dataset

table = pyarrow.dataset.dataset(sys.argv[1], format="parquet").to_table()
print(json.dumps({
    "names": table.column_names,
    "n": table.num_rows,
    "sequences": pyarrow.compute.sum(table["sequence"]).as_py(),
    "users": table.num_rows - table["user_id"].null_count,
    "events": len(set(zip(*(table[name].to_pylist() for name in ["shard", "sequence"])))),
    "types": [str(table.schema.field(name).type) for name in ["timestamp", "date", "properties"]],
}))
"#;

/// The same groups by our SQL, and the names that this process and Python agree on.
const QUERY: &str = "SELECT tenant, type, CAST(date AS VARCHAR) AS date, count(*) AS n, \
    sum(sequence) AS sequences, count(user_id) AS users, epoch_us(max(timestamp)) AS latest \
    FROM events GROUP BY tenant, type, date";

#[test]
fn deltalake_and_polars_see_the_same_table_as_sql() {
    let Some(python) = python() else { return };
    let server = Server::start();
    // Two rolls, so that the table has several versions and files.
    let (first, second) = halves();
    for part in [&first, &second] {
        post(&server, part);
        server.roll();
    }

    let read = |version: Option<u64>| {
        let version = version.map(|version| version.to_string());
        read(&python, SCRIPT, &server.data.join("events"), version)
    };
    let seen = read(None);
    let ours = by_group(&Value::from(server.query(QUERY)));
    let counts = ours.values().map(|row| usize::try_from(row["n"].as_u64().unwrap()).unwrap());
    assert_eq!(counts.sum::<usize>(), EVENTS);
    assert_eq!(by_group(&seen["deltalake"]), ours, "deltalake, {}", seen["versions"]);
    assert_eq!(by_group(&seen["polars"]), ours, "polars, {}", seen["versions"]);

    let names: Vec<&str> =
        seen["names"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert_eq!(names.first(), Some(&"node"));
    assert_eq!(names.last(), Some(&"date"));
    let before = seen["version"].as_u64().unwrap();
    assert!(before >= 2);

    let report = server.post("/v1/admin/compact", b"").json();
    assert!(report["files"].as_u64() < seen["files"].as_u64(), "{report}");
    let seen = read(None);
    assert_eq!(seen["version"], report["version"]);
    assert_eq!((&seen["files"], &seen["operation"]), (&report["files"], &"OPTIMIZE".into()));
    assert_eq!(by_group(&Value::from(server.query(QUERY))), ours);
    // Who still reads the version before finds its files.
    for seen in [&seen, &read(Some(before))] {
        assert_eq!(by_group(&seen["deltalake"]), ours, "deltalake, version {}", seen["version"]);
        assert_eq!(by_group(&seen["polars"]), ours, "polars, version {}", seen["version"]);
    }
}

#[test]
fn pyarrow_reads_an_export_of_files_and_memory() {
    let Some(python) = python() else { return };
    let server = Server::start();
    let (first, second) = halves();
    post(&server, &first);
    server.roll();
    post(&server, &second);
    let output = tempfile::tempdir().unwrap();
    let directory = output.path().to_str().unwrap();
    let made = run(&["export", "--url", &server.url(), "--output", directory]);
    assert!(made.status.success(), "{}", text(&made.stderr));

    let seen = read(&python, EXPORT_SCRIPT, output.path(), None);
    let ours = &server.query(
        "SELECT count(*) AS n, sum(sequence) AS sequences, count(user_id) AS users FROM events",
    )[0];
    assert_eq!(ours["n"], EVENTS);
    for name in ["n", "sequences", "users"] {
        assert_eq!(seen[name], ours[name], "{name}");
    }
    assert_eq!(seen["events"], EVENTS, "each event once");
    assert_eq!(seen["types"], serde_json::json!(["timestamp[us]", "date32[day]", "string"]));
    let columns = server.get("/v1/schema").json()["columns"].clone();
    let columns: Vec<&Value> =
        columns.as_array().unwrap().iter().map(|column| &column["name"]).collect();
    assert_eq!(seen["names"].as_array().unwrap().iter().collect::<Vec<_>>(), columns);
}

/// The interpreter, when there is one.
fn python() -> Option<PathBuf> {
    let python = std::env::var_os("RINGLAKE_TEST_PYTHON");
    if python.is_none() {
        eprintln!("skipped: RINGLAKE_TEST_PYTHON names no Python with deltalake and polars");
    }
    python.map(PathBuf::from)
}

/// The events, in two parts.
fn halves() -> (Vec<u8>, Vec<u8>) {
    let mut events = run(&["generate", "--events", &EVENTS.to_string(), "--seed", "11"]).stdout;
    let half = events.len() / 2;
    let cut = half + events[half..].iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let rest = events.split_off(cut);
    (events, rest)
}

/// Sends NDJSON in requests under the limit on a body.
fn post(server: &Server, events: &[u8]) {
    let mut connection = server.connect();
    let mut rest = events;
    while !rest.is_empty() {
        let end = rest.len().min(1 << 20);
        let end = rest[..end].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
        let answer = connection.request("POST", "/v1/events", &[], &rest[..end]);
        assert_eq!(answer.status, 202, "{}", answer.text());
        rest = &rest[end..];
    }
}

fn read(python: &Path, script: &str, from: &Path, version: Option<String>) -> Value {
    let output =
        Command::new(python).args(["-c", script]).arg(from).args(version).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Rows by tenant, type and date.
fn by_group(rows: &Value) -> BTreeMap<(String, String, String), Value> {
    let mut groups = BTreeMap::new();
    for row in rows.as_array().unwrap() {
        let name = |column: &str| row[column].as_str().unwrap().to_owned();
        groups.insert((name("tenant"), name("type"), name("date")), row.clone());
    }
    groups
}

//! Other engines read the table: Python's `pyarrow` (through `deltalake`), `polars`, `duckdb`, `daft`
//! and `chdb` see what our SQL says, before and after its files have been joined and events erased.
//! `pyarrow` sees it in an export.
//!
//! `RINGLAKE_TEST_PYTHON` names an interpreter with the packages of `python/requirements.txt` (CI
//! makes an environment for it); without it the tests say that they are skipped. Only `deltalake`
//! and `pyarrow` have to be there; an engine that is not is named.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use support::{Server, run, skip, text};

/// Events; far more than a request may hold, so that several requests and shards take part.
const EVENTS: usize = 20_000;

/// Reads the table with all of them.
const SCRIPT: &str = include_str!("python/table.py");

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

/// The columns that `SCRIPT` reads, by our SQL.
const QUERY: &str = "SELECT shard, sequence, tenant, type, event, user_id, url, properties, \
    timestamp, received_at, date, title, load_ms FROM events";

/// Promoted columns, which the table gets after its first events.
const COLUMNS: &str = r#"
    columns = [
        { name = "title", path = "properties.title", type = "string" },
        { name = "load_ms", path = "properties.load_ms", type = "int64" },
    ]
"#;

/// What says who somebody is; a log that told bounds of it would outlive an erase.
const IDENTITIES: [&str; 5] = ["user_id", "anonymous_id", "session_id", "visitor_id", "ip"];

/// The table through the eyes of Python, and what SQL says at the same time.
struct Reader {
    python: PathBuf,
    scratch: tempfile::TempDir,
}

impl Reader {
    /// Reads the table of `server` in `version` or the newest and compares every engine with SQL.
    fn compare(&self, server: &Server, version: Option<u64>) -> Value {
        let headers = [("Accept", "application/vnd.apache.arrow.stream")];
        let answer = server.connect().request("POST", "/v1/query", &headers, QUERY.as_bytes());
        assert!(answer.status == 200 && answer.complete, "{}", answer.text());
        let ours = self.scratch.path().join("ours.arrow");
        std::fs::write(&ours, answer.body).unwrap();
        let table = server.data.join("events");
        let mut arguments = vec![table, ours];
        arguments.extend(version.map(|version| version.to_string().into()));
        let seen = read(&self.python, SCRIPT, &arguments);
        for (engine, rows) in seen["engines"].as_object().unwrap() {
            let which = &seen["versions"][engine];
            assert_eq!(rows, &seen["ours"], "{engine} {which}, version {}", seen["version"]);
        }
        seen
    }
}

/// The table has seen rolls, added columns, a compaction and an erase when they look the last time.
#[test]
fn other_engines_see_the_same_table_as_sql() {
    let Some(python) = python() else { return };
    let reader = Reader { python, scratch: tempfile::tempdir().unwrap() };
    let variables = [("RINGLAKE_COMPACTION_INTERVAL_MS", "0")];
    let mut server = Server::with(&variables);
    // Two rolls, so that the table has several versions and files, the second one with columns that
    // the first one lacks.
    let (first, second) = halves();
    post(&server, &first);
    server.roll();
    let (directory, data) = (server.take_directory(), server.data.clone());
    server.stop();
    let config = directory.path().join("ringlake.toml");
    std::fs::write(&config, COLUMNS).unwrap();
    let server = Server::configured(&data, &config, &variables);
    post(&server, &second);
    server.roll();
    let promoted = &server.query("SELECT count(title) AS t, sum(load_ms) AS l FROM events")[0];
    assert!(promoted["t"].as_u64() > Some(100) && promoted["l"].as_u64() > Some(0), "{promoted}");

    let seen = reader.compare(&server, None);
    assert_eq!(seen["ours"]["rows"], EVENTS);
    eprintln!("read by {}", seen["versions"]);
    if seen["missing"] != serde_json::json!([]) {
        skip(&seen["missing"].to_string());
    }
    let columns = server.get("/v1/schema").json()["columns"].clone();
    let columns: Vec<&Value> =
        columns.as_array().unwrap().iter().map(|column| &column["name"]).collect();
    assert_eq!(seen["names"].as_array().unwrap().iter().collect::<Vec<_>>(), columns);
    check_pruning(&seen["pruning"], first.iter().filter(|byte| **byte == b'\n').count());
    let before = seen["version"].as_u64().unwrap();
    assert!(before >= 2);

    let report = server.post("/v1/admin/compact", b"").json();
    assert!(report["files"].as_u64() < seen["files"].as_u64(), "{report}");
    let seen = reader.compare(&server, None);
    assert_eq!(seen["version"], report["version"]);
    assert_eq!((&seen["files"], &seen["operation"]), (&report["files"], &"OPTIMIZE".into()));
    // Who still reads the version before finds its files.
    reader.compare(&server, Some(before));

    let somebody = &server.query(
        "SELECT tenant, user_id, count(*) AS n FROM events WHERE user_id IS NOT NULL \
         GROUP BY tenant, user_id ORDER BY n DESC, tenant, user_id LIMIT 1",
    )[0];
    let wanted = json!({ "tenant": somebody["tenant"], "user_id": somebody["user_id"] });
    let job = server.post("/v1/admin/erase", wanted.to_string()).json();
    let path = format!("/v1/admin/erase/{}", job["id"].as_str().unwrap());
    server.wait_until("the erase is done", || server.get(&path).json()["status"] == "done");
    let seen = reader.compare(&server, None);
    assert_eq!(seen["operation"], "DELETE");
    let left = EVENTS - usize::try_from(somebody["n"].as_u64().unwrap()).unwrap();
    assert_eq!((&seen["ours"]["rows"], &seen["pruning"]["records"]), (&left.into(), &left.into()));
}

/// The bounds in the log let a reader leave out files that are younger than it asks for, and tell
/// nothing about anybody. `older` is the number of rows in the others.
fn check_pruning(pruning: &Value, older: usize) {
    assert_eq!(pruning["records"], EVENTS);
    assert!(pruning["opened"].as_u64() < pruning["files"].as_u64(), "{pruning}");
    assert_eq!(pruning["rows_before"], older, "{pruning}");
    let bounded = pruning["bounded"].as_array().unwrap();
    for wanted in ["timestamp", "received_at", "tenant"] {
        assert!(bounded.contains(&wanted.into()), "{pruning}");
    }
    for identity in IDENTITIES {
        assert!(!bounded.contains(&identity.into()), "{pruning}");
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

    let seen = read(&python, EXPORT_SCRIPT, &[output.path().into()]);
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
        skip("a Python with deltalake and pyarrow, which RINGLAKE_TEST_PYTHON names");
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

fn read(python: &Path, script: &str, arguments: &[PathBuf]) -> Value {
    let output = Command::new(python).args(["-c", script]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    // Engines may write lines of their own first.
    let said = text(&output.stdout);
    serde_json::from_str(said.lines().last().unwrap()).unwrap()
}

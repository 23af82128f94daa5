//! Promoted columns from outside: added to a table that has events already, in files, in memory and in
//! a log that a killed server left; then seen by everything that reads.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::{Value, json};
use support::{Server, run, text};

mod support;

/// Nothing is joined or rolled by itself.
const BY_HAND: [(&str, &str); 3] = [
    ("RINGLAKE_SHARDS", "1"),
    ("RINGLAKE_COMPACTION_INTERVAL_MS", "0"),
    ("RINGLAKE_HOT_ROLL_AGE_MS", "86400000"),
];
/// One of each type.
const COLUMNS: &str = r#"
    [[columns]]
    name = "plan"
    path = "properties.plan"
    type = "string"

    [[columns]]
    name = "items"
    path = "properties.cart.items"
    type = "int64"

    [[columns]]
    name = "total"
    path = "/properties/cart/total"
    type = "double"

    [[columns]]
    name = "paid"
    path = "properties.paid"
    type = "boolean"

    [[columns]]
    name = "due_at"
    path = "context.due"
    type = "timestamp"
"#;

fn configured(directory: &Path, name: &str, columns: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, columns).unwrap();
    path
}

/// A server on `data` with the configuration file `config`.
fn serve(data: &Path, config: &Path) -> Server {
    Server::configured(data, config, &BY_HAND)
}

/// Sends one event with all five values, of the user `number`.
fn send(server: &Server, number: usize) {
    let event = json!({
        "event": "order",
        "user_id": format!("u{number}"),
        "plan": (if number.is_multiple_of(2) { "free" } else { "pro" }),
        "properties": {"cart": {"items": number, "total": 0.5 + number as f64}, "paid": number.is_multiple_of(2)},
        "context": {"due": "2026-01-02T03:04:05.000006Z"},
    });
    assert_eq!(server.post("/v1/events", event.to_string()).status, 202);
}

fn refused(data: &Path, config: &Path) -> String {
    let place = data.to_str().unwrap();
    let config = config.to_str().unwrap();
    let output = run(&["serve", "--listen", "127.0.0.1:0", "--data", place, "--config", config]);
    assert!(!output.status.success());
    text(&output.stderr)
}

/// Every user with its promoted values, as text.
const EVERYBODY: &str = "SELECT user_id AS u, plan, items, total, paid, due_at FROM events \
    ORDER BY try_cast(substr(user_id, 2) AS INT)";

/// What [`EVERYBODY`] says of the user `number`, with values and without.
fn full(number: usize) -> Value {
    json!({
        "u": format!("u{number}"),
        "plan": (if number.is_multiple_of(2) { "free" } else { "pro" }),
        "items": number,
        "total": 0.5 + number as f64,
        "paid": number.is_multiple_of(2),
        "due_at": "2026-01-02T03:04:05.000006Z",
    })
}

fn empty(number: usize) -> Value {
    json!({"u": format!("u{number}"), "plan": null, "items": null, "total": null, "paid": null, "due_at": null})
}

/// What an export of the promoted columns holds, in the order of the users.
fn exported(server: &Server) -> Vec<Value> {
    let wanted = json!({"format": "ndjson", "columns": ["user_id", "plan", "items", "total", "paid", "due_at"]});
    let job = server.post("/v1/exports", wanted.to_string()).json();
    let path = format!("/v1/exports/{}", job["id"].as_str().unwrap());
    server.wait_until("the export is done", || server.get(&path).json()["status"] == "done");
    let job = server.get(&path).json();
    let mut rows: Vec<Value> = Vec::new();
    for file in job["files"].as_array().unwrap() {
        let lines = server.get(file["path"].as_str().unwrap()).text();
        rows.extend(lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
    }
    for row in &mut rows {
        let row = row.as_object_mut().unwrap();
        let user = row.remove("user_id").unwrap();
        row.insert("u".into(), user);
    }
    rows.sort_by_key(|row| row["u"].as_str().unwrap()[1..].parse::<usize>().unwrap());
    rows
}

/// The same from the pages of a listing.
fn listed(server: &Server) -> Vec<Value> {
    let page = server.get("/v1/events?order=asc&limit=1000").json();
    assert_eq!(page["next_cursor"], Value::Null);
    let mut rows: Vec<Value> = page["events"].as_array().unwrap().clone();
    rows.sort_by_key(|row| row["user_id"].as_str().unwrap()[1..].parse::<usize>().unwrap());
    let columns = ["plan", "items", "total", "paid", "due_at"];
    let pick = |row: &Value| {
        let mut picked = json!({"u": row["user_id"]});
        for name in columns {
            assert!(row.as_object().unwrap().contains_key(name), "{name}: {row}");
            picked[name] = row[name].clone();
        }
        picked
    };
    rows.iter().map(pick).collect()
}

fn assert_seen_by_all(server: &Server, expected: &[Value]) {
    assert_eq!(server.query(EVERYBODY), expected, "SQL");
    assert_eq!(listed(server), expected, "the listing");
    assert_eq!(exported(server), expected, "the export");
}

fn verified(data: &Path) {
    let output = run(&["verify", "--data", data.to_str().unwrap()]);
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

fn assert_schema(server: &Server) {
    let schema = server.get("/v1/schema").json();
    let columns = schema["columns"].as_array().unwrap();
    let names: Vec<&str> = columns.iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert!(names.ends_with(&["date", "plan", "items", "total", "paid", "due_at"]), "{names:?}");
    let types: Vec<&Value> = columns.iter().rev().take(5).rev().map(|it| &it["type"]).collect();
    assert_eq!(types, ["VARCHAR", "BIGINT", "DOUBLE", "BOOLEAN", "TIMESTAMP"]);
}

/// The user 7: three values of other types, one null and one that is missing.
fn send_wrong_types(server: &Server) {
    let wrong = r#"{"event":"order","user_id":"u7","properties":
        {"plan":1,"cart":{"items":1.5,"total":"1"},"paid":null}}"#;
    assert_eq!(server.post("/v1/events", wrong).status, 202);
}

fn assert_wrong_types(server: &Server) {
    server.flush();
    let metrics = server.get("/metrics").text();
    for (column, count) in [("plan", 1), ("items", 1), ("total", 1), ("paid", 0), ("due_at", 0)] {
        let line = format!("column_wrong_type_total{{column=\"{column}\"}} {count}\n");
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }
}

fn erase(server: &Server, user: &str) {
    let erase = json!({"tenant": "default", "user_id": user}).to_string();
    assert_eq!(server.post("/v1/admin/erase", erase).status, 202);
    let jobs = || server.get("/v1/admin/erase").json()["erasures"].as_array().unwrap().clone();
    server.wait_until("the erasure is done", || jobs().iter().all(|job| job["status"] == "done"));
}

#[test]
fn columns_are_added_to_a_table_that_has_events_everywhere() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let none = configured(directory.path(), "none.toml", "");
    let five = configured(directory.path(), "five.toml", COLUMNS);

    // In files, then in the log only.
    let server = serve(&data, &none);
    send(&server, 1);
    send(&server, 2);
    server.roll();
    send(&server, 3);
    send(&server, 4);
    server.signal(Signal::KILL);
    server.wait();
    verified(&data);

    let server = serve(&data, &five);
    assert_schema(&server);
    // What the log brings back has the columns of the new configuration.
    let mut expected = vec![empty(1), empty(2), full(3), full(4)];
    assert_seen_by_all(&server, &expected);
    send(&server, 5);
    expected.push(full(5));
    assert_seen_by_all(&server, &expected);
    server.roll();
    send(&server, 6);
    expected.push(full(6));
    assert_seen_by_all(&server, &expected);

    send_wrong_types(&server);
    expected.push(empty(7));
    assert_seen_by_all(&server, &expected);
    assert_wrong_types(&server);
    let sql = "SELECT plan, count(*) AS n, sum(total) AS t FROM events WHERE paid GROUP BY ALL";
    let expected_groups = [json!({"plan": "free", "n": 2, "t": 11.0})];
    assert_eq!(server.query(sql), expected_groups);

    // Joined files have the columns of all of them.
    server.roll();
    let files = || server.status()["lake"]["files"].as_u64().unwrap();
    let before = files();
    assert_eq!(server.post("/v1/admin/compact", b"").status, 200);
    assert!(files() < before, "{before} files");
    assert_seen_by_all(&server, &expected);
    assert_eq!(server.query(sql), expected_groups);
    // So has what an erase leaves.
    erase(&server, "u5");
    expected.retain(|row| row["u"] != "u5");
    assert_seen_by_all(&server, &expected);
    send(&server, 8);
    expected.push(full(8));
    assert_seen_by_all(&server, &expected);
    assert!(server.stop().0.success());
    verified(&data);

    // A column that is not configured stays, and is null from now on: in the log too.
    let plan = COLUMNS.split("    [[columns]]").nth(1).unwrap();
    let plan = configured(directory.path(), "plan.toml", &format!("[[columns]]{plan}"));
    let server = serve(&data, &plan);
    let some = |number: usize| {
        let mut row = empty(number);
        row["plan"] = full(number)["plan"].clone();
        row
    };
    expected.pop();
    expected.push(some(8));
    send(&server, 9);
    expected.push(some(9));
    assert_seen_by_all(&server, &expected);
    server.roll();
    assert_seen_by_all(&server, &expected);
    assert!(server.stop().0.success());
    verified(&data);
}

#[test]
fn a_configuration_that_does_not_fit_is_refused_and_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let column = |name: &str, path: &str, kind: &str| {
        let text = format!("[[columns]]\nname = '{name}'\npath = '{path}'\ntype = '{kind}'\n");
        configured(directory.path(), "columns.toml", &text)
    };
    for (name, path, kind, said) in [
        ("tenant", "properties.a", "string", "columns[1].name is tenant; it must be"),
        ("Plan", "properties.a", "string", "columns[1].name is Plan; it must be"),
        ("plan", "url", "string", "columns[1].path is url; it must be"),
        ("plan", "properties.a", "text", "columns[1].type is text; it must be one of string,"),
    ] {
        let message = refused(&data, &column(name, path, kind));
        assert!(message.contains(said), "{message}");
    }
    assert!(!data.exists(), "nothing was made");

    assert!(serve(&data, &column("plan", "properties.a", "string")).stop().0.success());
    let message = refused(&data, &column("plan", "properties.a", "double"));
    for part in ["\"plan\"", "string", "double", "another name"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    // Another path is another matter: the table does not know it.
    assert!(serve(&data, &column("plan", "context.a", "string")).stop().0.success());
}

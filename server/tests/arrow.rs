//! Columns instead of JSON: Arrow IPC streams over HTTP, and files of them through `import`.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

mod support;

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::ipc::writer::{FileWriter, StreamWriter};
use serde_json::json;
use support::{Answer, Connection, Server, make_key, run, text};

const CONTENT: (&str, &str) = ("Content-Type", "application/vnd.apache.arrow.stream");

/// `count` events of `tenant`; the one at `bad` has no name.
fn events(count: usize, tenant: Option<&str>, bad: Option<usize>) -> RecordBatch {
    let names = (0..count).map(|row| (bad != Some(row)).then(|| format!("event {row}")));
    let ids = (0..count).map(|row| Some(format!("id {row}")));
    let columns: [(&str, ArrayRef); 5] = [
        ("event", Arc::new(StringArray::from_iter(names))),
        ("message_id", Arc::new(StringArray::from_iter(ids))),
        ("timestamp", Arc::new(TimestampMillisecondArray::from(vec![1_795_286_693_848; count]))),
        ("tenant", Arc::new(StringArray::from(vec![tenant; count]))),
        ("sequence", Arc::new(Int64Array::from_iter_values((0..).take(count)))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| (name, array, true)))
        .unwrap()
}

fn stream(batch: &RecordBatch) -> Vec<u8> {
    let mut writer = StreamWriter::try_new(Vec::new(), batch.schema_ref()).unwrap();
    writer.write(batch).unwrap();
    writer.into_inner().unwrap()
}

fn send(server: &Server, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let headers: Vec<_> = [CONTENT].iter().chain(headers).copied().collect();
    server.connect().request("POST", path, &headers, body)
}

#[test]
fn columns_are_stored_like_json_and_once() {
    let server = Server::start();
    let body = stream(&events(3, None, None));
    let answer = send(&server, "/v1/events", &[], &body);
    assert_eq!((answer.status, answer.json()), (202, json!({"accepted":3})));
    let packed = zstd::encode_all(&body[..], 1).unwrap();
    let answer = send(&server, "/v1/events", &[("Content-Encoding", "zstd")], &packed);
    assert_eq!((answer.status, answer.json()), (202, json!({"accepted":3,"duplicates":3})));
    let rows = server.query("SELECT * EXCLUDE (received_at, date) FROM events ORDER BY event");
    assert_eq!(rows.len(), 3);
    let row = &rows[2];
    assert_eq!((&row["event"], &row["source"]), (&json!("event 2"), &json!("events")));
    assert_eq!(row["timestamp"], "2026-11-21T18:44:53.848000Z");
    // The server's own columns are a client's properties and never used.
    assert_eq!(row["properties"], r#"{"sequence":2}"#);
    assert!(rows.iter().any(|row| row["sequence"] == 3));
}

#[test]
fn refusals_are_those_of_json() {
    let server = Server::with(&[("RINGLAKE_HTTP_BODY_MAX_BYTES", "300000")]);
    let bad = stream(&events(3, None, Some(1)));
    let answer = send(&server, "/v1/events", &[], &bad);
    assert_eq!((answer.status, answer.error()["index"].as_u64()), (400, Some(1)));
    assert_eq!(server.count(), 0);
    let answer = send(&server, "/v1/events?partial=true", &[], &bad);
    assert_eq!((answer.status, &answer.json()["accepted"]), (207, &json!(2)));
    assert_eq!(answer.json()["rejected"][0]["index"], 1);
    let many = stream(&events(8_000, None, None));
    assert_eq!(send(&server, "/v1/events", &[], &many).status, 413);
    let packed = zstd::encode_all(&many[..], 1).unwrap();
    assert!(packed.len() < 300_000);
    assert_eq!(send(&server, "/v1/events", &[], &packed).status, 413);
    let answer = send(&server, "/v1/events", &[], b"{\"event\":\"a\"}");
    assert_eq!((answer.status, answer.error()["code"].as_str()), (400, Some("not_arrow")));
    assert_eq!(server.count(), 2);
    server.assert_accounted();
}

#[test]
fn a_key_sends_columns_of_its_own_tenant_only() {
    let server = Server::with_keys(&[]);
    let key = make_key(&server.data, &["--scope", "write", "--tenant", "shop"]);
    let bearer = format!("Bearer {key}");
    let headers = [("Authorization", bearer.as_str())];
    let known = || send(&server, "/v1/events", &headers, &stream(&events(1, None, None)));
    server.wait_until("the key is known", || known().status == 202);
    let foreign = stream(&events(2, Some("bank"), None));
    let answer = send(&server, "/v1/events", &headers, &foreign);
    assert_eq!((answer.status, answer.error()["code"].as_str()), (403, Some("forbidden_tenant")));
    let own = stream(&events(2, Some("shop"), None));
    assert_eq!(send(&server, "/v1/events", &headers, &own).status, 202);
    let answer = Connection::new(server.address).request("POST", "/v1/events", &[CONTENT], &own);
    assert_eq!(answer.status, 401);
    let rows = server.query("SELECT DISTINCT tenant FROM events");
    assert_eq!(rows, [json!({"tenant":"shop"})]);
}

#[test]
fn streams_and_files_are_imported() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let batch = events(30_000, Some("shop"), Some(29_999));
    std::fs::write(path("stream.gz"), {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gzip, &stream(&batch)).unwrap();
        gzip.finish().unwrap()
    })
    .unwrap();
    let mut file = FileWriter::try_new(Vec::new(), batch.schema_ref()).unwrap();
    file.write(&batch).unwrap();
    std::fs::write(path("file"), file.into_inner().unwrap()).unwrap();
    let data = path("data");
    let import = |name: &str, place: [&str; 2]| {
        let output = run(&["import", &path(name), "--format", "arrow", place[0], place[1]]);
        let said = text(&output.stderr);
        // One row is bad.
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("row 30000: an event needs `type` or `event`"), "{said}");
        let said = text(&output.stdout);
        assert!(said.contains("29,999 events"), "{said}");
        said
    };
    import("stream.gz", ["--data", &data]);
    let server = Server::on(directory.path().join("data").as_path(), &[]);
    assert_eq!(server.count(), 29_999);
    let said = import("file", ["--url", &server.url()]);
    assert!(said.contains("29,999 of them known before"), "{said}");
    let rows = server.query(
        "SELECT count(*) AS n, min(tenant) AS tenant, count(DISTINCT event) AS names FROM events",
    );
    assert_eq!(rows, [json!({"n":29_999,"tenant":"shop","names":29_999})]);
    let wrong = run(&["import", &path("data/keys.json"), "--format", "arrow", "--data", &data]);
    assert_eq!(wrong.status.code(), Some(1));
}

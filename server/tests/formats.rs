//! Query results over HTTP: five formats of the same rows, refusals, and streams that break.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use std::io::Read;
use std::time::Instant;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use arrow::ipc::reader::StreamReader;
use flate2::read::GzDecoder;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};
use support::{Answer, PATIENCE, Server};

mod support;

const ROWS: &str = "SELECT event, count(*) AS n, min(timestamp) AS first, sum(1) AS s \
                    FROM events GROUP BY event ORDER BY event";

fn with_events() -> Server {
    let server = Server::start();
    let events = r#"[
        {"event":"a","timestamp":"2026-01-02T03:04:05.678Z"},
        {"event":"a","timestamp":"2026-01-02T03:04:06Z"},
        {"event":"b \"quoted\", é\n","timestamp":"2026-01-02T03:04:07Z"}
    ]"#;
    assert_eq!(server.post("/v1/events", events).status, 202);
    assert_eq!(server.post("/v1/admin/flush", b"").status, 200);
    server
}

fn ask(server: &Server, accept: &str, sql: &str) -> Answer {
    let answer =
        server.connect().request("POST", "/v1/query", &[("Accept", accept)], sql.as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.complete);
    assert_eq!(answer.header("content-type").unwrap().split(';').next(), Some(accept));
    answer
}

fn counts(batches: &[RecordBatch]) -> Vec<(String, i64)> {
    let mut rows = Vec::new();
    for batch in batches {
        let names = batch.column_by_name("event").unwrap().as_string::<i32>();
        let counts = batch.column_by_name("n").unwrap().as_primitive::<Int64Type>();
        rows.extend(
            names
                .iter()
                .zip(counts.values())
                .map(|(name, count)| (name.unwrap().to_owned(), *count)),
        );
    }
    rows
}

fn expected() -> Vec<(String, i64)> {
    vec![("a".into(), 2), ("b \"quoted\", é\n".into(), 1)]
}

#[test]
fn lines_are_the_default() {
    let server = with_events();
    let answer = server.post("/v1/query", ROWS);
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    let text = answer.text();
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0]["n"], 2);
    assert_eq!(rows[0]["s"], 2);
    let first = rows[0]["first"].as_str().unwrap();
    assert!(first.starts_with("2026-01-02T03:04:05.678") && first.ends_with('Z'), "{first}");
    assert_eq!(rows[1]["event"], "b \"quoted\", é\n");
}

#[test]
fn json_has_columns_rows_and_a_count() {
    let server = with_events();
    let answer = ask(&server, "application/json", ROWS).json();
    assert_eq!(answer["row_count"], 2);
    assert_eq!(answer["columns"][0]["name"], "event");
    assert!(answer["columns"][1]["type"].is_string());
    assert_eq!(answer["rows"][0][1], 2);
    let empty = ask(&server, "application/json", "SELECT event FROM events WHERE false").json();
    assert_eq!((empty["row_count"].as_u64(), &empty["rows"]), (Some(0), &json!([])));
}

#[test]
fn csv_has_a_header_and_quotes_what_needs_it() {
    let server = with_events();
    let text = ask(&server, "text/csv", "SELECT event, 1 AS n FROM events ORDER BY event").text();
    assert_eq!(text.replace("\r\n", "\n"), "event,n\na,1\na,1\n\"b \"\"quoted\"\", é\n\",1\n");
}

#[test]
fn arrow_streams_are_read_back() {
    let server = with_events();
    let answer = ask(&server, "application/vnd.apache.arrow.stream", ROWS);
    let reader = StreamReader::try_new(&answer.body[..], None).unwrap();
    let batches: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
    assert_eq!(counts(&batches), expected());
}

#[test]
fn parquet_files_are_read_back() {
    let server = with_events();
    let answer = ask(&server, "application/vnd.apache.parquet", ROWS);
    let file = bytes::Bytes::from(answer.body);
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    let batches: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
    assert_eq!(counts(&batches), expected());
}

#[test]
fn parameters_are_bound() {
    let server = with_events();
    let body = json!({ "sql": "SELECT count(*) AS n FROM events WHERE event = ? AND ? < 5",
                       "params": ["a", 3] });
    let answer = server.post("/v1/query", body.to_string());
    assert_eq!(answer.json()["n"], 2, "{}", answer.text());
    let sql = "SELECT count(*) AS n FROM events WHERE event = $event AND $event <> $other";
    let ask =
        |params: &str| server.post("/v1/query", format!(r#"{{"sql":"{sql}","params":{params}}}"#));
    let answer = ask(r#"{"other":"b","event":"a"}"#);
    assert_eq!(answer.json()["n"], 2, "{}", answer.text());
    for (params, named) in [
        (r#"{"event":"a"}"#, "$other"),
        (r#"{"event":"a","other":"b","third":1}"#, "$third"),
        (r#"{"event":"a","other":"b","event":"c"}"#, "event is given twice"),
        (r#"["a","b"]"#, "$event"),
        (r#""a""#, "params"),
    ] {
        let answer = ask(params);
        assert_eq!(answer.status, 400, "{params}: {}", answer.text());
        let message = answer.error()["message"].as_str().unwrap().to_owned();
        assert!(message.contains(named), "{params}: {message}");
    }
}

#[test]
fn refusals_have_a_status_a_message_and_a_position() {
    let server = with_events();
    let refused = |body: &str, status: u16| {
        let answer = server.post("/v1/query", body);
        assert_eq!(answer.status, status, "{body}: {}", answer.text());
        answer.error()
    };
    let error = refused("SELECT nope FROM events", 400);
    assert_eq!(error["position"], 7, "{error}");
    assert!(error["message"].as_str().unwrap().contains("nope"), "{error}");
    refused("SELEKT 1", 400);
    refused("", 400);
    refused("{\"sql\":", 400);
    refused("{\"sql\":\"SELECT 1\",\"rows\":5}", 400);
    refused("DROP TABLE events", 403);
    refused("SELECT 1; SELECT 2", 403);
    refused("SELECT * FROM read_csv('/etc/passwd')", 403);
    refused("SELECT CAST(event AS INTEGER) FROM events", 400);
    refused(&format!("SELECT '{}'", "x".repeat(1 << 20)), 413);
    let answer =
        server.connect().request("POST", "/v1/query", &[("Accept", "image/png")], b"SELECT 1");
    assert_eq!((answer.status, answer.error()["code"].as_str()), (406, Some("not_acceptable")));
    assert_eq!(server.count(), 3);
}

#[test]
fn an_error_after_the_first_rows_breaks_the_stream() {
    let server = with_events();
    let sql = "SELECT CAST(CASE WHEN range = 9999999 THEN 'x' ELSE '1' END AS INTEGER) AS n \
               FROM range(10000000)";
    for accept in [
        "application/x-ndjson",
        "application/json",
        "text/csv",
        "application/vnd.apache.arrow.stream",
    ] {
        let mut connection = server.connect();
        let headers = [("Accept", accept)];
        let answer = connection.request("POST", "/v1/query", &headers, sql.as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(!answer.body.is_empty() && !answer.complete, "{accept} ended as if it were whole");
        assert!(connection.is_closed());
    }
    assert_eq!(server.count(), 3, "the server goes on");
}

#[test]
fn results_are_packed_as_the_client_wishes() {
    let server = with_events();
    let sql = "SELECT range AS n, 'text ' || range AS t FROM range(200000)";
    let ask = |accept: &str, packing: &str| {
        let headers = [("Accept", accept), ("Accept-Encoding", packing)];
        let answer = server.connect().request("POST", "/v1/query", &headers, sql.as_bytes());
        assert!(answer.status == 200 && answer.complete, "{}", answer.text());
        answer
    };
    for accept in ["application/x-ndjson", "text/csv", "application/vnd.apache.arrow.stream"] {
        let plain = ask(accept, "identity");
        assert_eq!(plain.header("content-encoding"), None);
        for (packing, expected) in [("gzip, deflate, br", "gzip"), ("gzip, zstd", "zstd")] {
            let packed = ask(accept, packing);
            assert_eq!(packed.header("content-encoding"), Some(expected));
            assert!(packed.header("vary").unwrap().contains("accept-encoding"));
            let mut unpacked = Vec::new();
            match expected {
                "gzip" => GzDecoder::new(&packed.body[..]).read_to_end(&mut unpacked).unwrap(),
                _ => zstd::Decoder::new(&packed.body[..])
                    .unwrap()
                    .read_to_end(&mut unpacked)
                    .unwrap(),
            };
            assert!(unpacked == plain.body, "{accept} in {expected} is something else");
            assert!(packed.body.len() * 2 < plain.body.len(), "{} bytes", packed.body.len());
        }
    }
    // Packed already.
    let parquet = ask("application/vnd.apache.parquet", "zstd");
    assert_eq!(parquet.header("content-encoding"), None);
}

#[test]
fn a_large_result_arrives_whole() {
    let server = with_events();
    let answer = ask(&server, "text/csv", "SELECT range AS n FROM range(1000000)");
    assert_eq!(answer.text().lines().count(), 1_000_001);
}

#[test]
fn a_query_that_takes_too_long_is_a_timeout() {
    let server = Server::with(&[("RINGLAKE_QUERY_TIMEOUT_MS", "100")]);
    let sql = "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range + b.range = 7";
    let answer = server.post("/v1/query", sql);
    assert_eq!((answer.status, answer.error()["code"].as_str()), (408, Some("query_timeout")));
}

/// Queries that run now.
fn running(server: &Server) -> u64 {
    server.status()["queries"]["running"].as_u64().unwrap()
}

/// Longer than any test waits.
const ENDLESS: &str =
    "SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.range + b.range = 7";

#[test]
fn a_client_that_goes_away_ends_its_query_and_others_are_told_to_wait() {
    let server = Server::with(&[("RINGLAKE_QUERY_WORKERS", "1"), ("RINGLAKE_QUERY_WAITING", "0")]);
    // The query that counts events when a server starts has been answered a moment ago.
    server.wait_until("the only worker is free", || running(&server) == 0);
    let mut endless = server.connect();
    let head = "POST /v1/query HTTP/1.1\r\nHost: localhost\r\nContent-Length:";
    endless.send(format!("{head} {}\r\n\r\n{ENDLESS}", ENDLESS.len()).as_bytes());
    server.wait_until("the only worker is taken", || running(&server) == 1);
    let refused = server.post("/v1/query", "SELECT 1");
    assert_eq!((refused.status, refused.error()["code"].as_str()), (429, Some("too_many_queries")));
    assert!(refused.header("retry-after").is_some());
    drop(endless);
    server.wait_until("the worker is free again", || running(&server) == 0);
    assert_eq!(server.post("/v1/query", "SELECT 1").status, 200);
}

#[test]
fn a_packed_query_is_refused_by_the_name_of_its_encoding() {
    let server = Server::start();
    for coding in ["gzip", "compress"] {
        let headers = [("Content-Encoding", coding)];
        let answer = server.connect().request("POST", "/v1/query", &headers, b"SELECT 1");
        assert_eq!(answer.status, 415, "{}", answer.text());
        assert_eq!(answer.error()["code"], "unknown_encoding");
    }
}

/// A client that goes away ends its query: on a machine of its own within 200 ms.
#[test]
fn a_query_ends_soon_after_its_client_has_closed() {
    let server = Server::start();
    for _ in 0..10 {
        let mut endless = server.connect();
        let head = "POST /v1/query HTTP/1.1\r\nHost: localhost\r\nContent-Length:";
        endless.send(format!("{head} {}\r\n\r\n{ENDLESS}", ENDLESS.len()).as_bytes());
        server.wait_until("the query runs", || running(&server) == 1);
        drop(endless);
        let closed = Instant::now();
        server.wait_until("the query has ended", || running(&server) == 0);
        eprintln!("ended {} ms after its client had closed", closed.elapsed().as_millis());
    }
}

#[test]
fn a_client_that_reads_no_further_ends_its_query() {
    let server = Server::with(&[
        ("RINGLAKE_QUERY_WORKERS", "1"),
        ("RINGLAKE_QUERY_WAITING", "0"),
        ("RINGLAKE_HTTP_IDLE_TIMEOUT_MS", "1000"),
    ]);
    let sql = "SELECT range AS n FROM range(1000000000000)";
    let mut silent = server.connect();
    let head = "POST /v1/query HTTP/1.1\r\nHost: localhost\r\nContent-Length:";
    silent.send(format!("{head} {}\r\n\r\n{sql}", sql.len()).as_bytes());
    silent.stream.get_ref().peek(&mut [0; 1]).unwrap();
    let until = Instant::now() + PATIENCE;
    while server.post("/v1/query", "SELECT 1").status != 200 {
        assert!(Instant::now() < until, "the worker is free again");
    }
}

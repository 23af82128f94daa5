//! The routes of other systems' SDKs over HTTP: what is sent is a real body with the labels that
//! the SDK gives it, what is looked at is the answer and the table.
//!
//! What each member becomes is tested where it is decided, in `ringlake-event`.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

mod support;

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use support::{Answer, Server};

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn send(server: &Server, path: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Answer {
    server.connect().request("POST", path, headers, body.as_ref())
}

/// Every SDK wants exactly 200 and a small JSON object.
fn check(answer: &Answer, accepted: u64) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json();
    assert_eq!((&body["success"], &body["accepted"]), (&json!(true), &json!(accepted)), "{body}");
    body
}

#[test]
fn every_route_takes_what_its_sdk_sends() {
    let server = Server::start();
    let json = [("Content-Type", "application/json")];
    for kind in ["track", "identify", "page", "screen", "group", "alias"] {
        let body = json!({"event": "e", "userId": "u", "messageId": format!("segment-{kind}")});
        check(&send(&server, &format!("/v1/{kind}"), &json, body.to_string()), 1);
        let body = json!({"event": "e", "userId": "u", "messageId": format!("jitsu-{kind}")});
        let route = if kind == "track" { "/api/s/s2s/track" } else { &format!("/api/s/{kind}") };
        check(&send(&server, route, &json, body.to_string()), 1);
    }
    // rudder-sdk-node labels its gzip as a form; posthog-js labels it as text, without an encoding.
    let batch = r#"{"batch":[{"type":"track","event":"batch","messageId":"b1"},
        {"type":"page","name":"batch","messageId":"b2"}],"sentAt":"2026-11-21T18:44:26.607Z"}"#;
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    let labels = [form, ("Content-Encoding", "gzip"), ("Authorization", "Basic d2s6")];
    check(&send(&server, "/v1/batch", &labels, gzip(batch)), 2);
    let posthog = r#"{"api_key":"phc","batch":[{"uuid":"p1","event":"$pageview","properties":
        {"$current_url":"https://e.x/","token":"phc","distinct_id":"d"}}]}"#;
    let text = [("Content-Type", "text/plain")];
    check(&send(&server, "/e/?ip=1&compression=gzip-js", &text, gzip(posthog)), 1);
    check(&send(&server, "/batch/", &json, posthog.replace("p1", "p2")), 1);
    let form_body = "data=eyJ1dWlkIjoicDMiLCJldmVudCI6ImUiLCJkaXN0aW5jdF9pZCI6ImQifQ%3D%3D";
    check(&send(&server, "/capture/", &[form], form_body), 1);
    let snowplow = r#"{"schema":"iglu:payload_data","data":[{"e":"pv","eid":"s1","aid":"app"},
        {"e":"se","se_ac":"act","eid":"s2"}]}"#;
    check(&send(&server, "/com.snowplowanalytics.snowplow/tp2", &json, snowplow), 2);
    let plausible = r#"{"n":"Sign","u":"https://e.x/p","d":"e.x","p":"{\"a\":\"b\"}"}"#;
    check(&send(&server, "/api/event", &text, plausible), 1);
    let umami = r#"{"type":"event","payload":{"website":"w","url":"/home","title":"T"}}"#;
    check(&send(&server, "/api/send", &json, umami), 1);

    let rows = server.query(
        "SELECT source, type, count(*) AS n FROM events GROUP BY source, type ORDER BY source, type",
    );
    let seen: Vec<String> = rows
        .iter()
        .map(|row| {
            let text = |column: &str| row[column].as_str().unwrap().to_owned();
            format!("{} {} {}", text("source"), text("type"), row["n"])
        })
        .collect();
    let each = |source: &str| {
        ["alias", "group", "identify", "page", "screen", "track"]
            .map(|kind| format!("{source} {kind} 1"))
    };
    let mut expected = each("jitsu").to_vec();
    expected.extend(["plausible track 1", "posthog page 2", "posthog track 1"].map(str::to_owned));
    let mut segment = each("segment");
    segment[3] = "segment page 2".to_owned();
    segment[5] = "segment track 2".to_owned();
    expected.extend(segment);
    expected.extend(["snowplow page 1", "snowplow track 1", "umami page 1"].map(str::to_owned));
    assert_eq!(seen, expected);
}

#[test]
fn a_retry_is_acknowledged_and_not_stored_again() {
    let server = Server::start();
    let bodies = [
        ("/v1/batch", r#"{"batch":[{"event":"a","messageId":"1"},{"event":"b","messageId":"2"}]}"#),
        ("/batch/", r#"{"batch":[{"event":"a","uuid":"3"},{"event":"b","uuid":"4"}]}"#),
        (
            "/com.snowplowanalytics.snowplow/tp2",
            r#"{"data":[{"e":"pv","eid":"5"},{"e":"pv","eid":"6"}]}"#,
        ),
    ];
    for (path, body) in bodies {
        assert!(check(&send(&server, path, &[], body), 2)["duplicates"].is_null());
        assert_eq!(check(&send(&server, path, &[], body), 2)["duplicates"], 2, "{path}");
    }
    assert_eq!(server.count(), 6);
    assert_eq!(server.accounting()["duplicate"], 6);
}

#[test]
fn a_batch_keeps_its_good_events_and_a_refusal_keeps_its_code() {
    let server = Server::start();
    let body = r#"{"batch":[{"event":"good"},{"event":{}},{"event":"good"}]}"#;
    let answer = check(&send(&server, "/v1/batch", &[], body), 2);
    assert_eq!(answer["rejected"][0]["index"], 1);
    assert!(answer["rejected"][0]["error"].as_str().unwrap().contains("`event`"));
    assert_eq!(server.count(), 2);
    for (path, body, status, code) in [
        ("/v1/track", &b"{\"event\":{}}"[..], 400, "wrong_type"),
        ("/v1/batch", b"", 400, "empty_body"),
        ("/api/event", b"{", 400, "not_json"),
        ("/capture/", b"data=*", 400, "malformed"),
        ("/api/send", b"{}", 400, "wrong_shape"),
        ("/v1/batch", &[b' '; (4 << 20) + 1], 413, "body_too_large"),
    ] {
        let answer = send(&server, path, &[], body);
        assert_eq!(
            (answer.status, answer.error()["code"].as_str()),
            (status, Some(code)),
            "{path}"
        );
    }
    let answer = send(&server, "/v1/batch", &[("Content-Encoding", "compress")], "x");
    assert_eq!(answer.status, 415);
    assert_eq!(server.get("/v1/track").status, 405);
    assert_eq!(server.post("/i", "").status, 405);
    assert_eq!(server.count(), 2);
}

#[test]
fn snowplows_get_answers_an_image() {
    let server = Server::start();
    let query = "e=pv&url=https%3A%2F%2Fe.x%2F&eid=1&cx=eyJkYXRhIjpbXX0&key=no-event";
    let answer = server.get(&format!("/i?{query}"));
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("image/gif")));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert!(answer.body.starts_with(b"GIF89a"));
    assert_eq!(server.get("/i?e=%zz").status, 400);
    assert_eq!(server.get("/i").status, 400);
    let row = &server.query("SELECT * FROM events")[0];
    assert!(!row.to_string().contains("no-event"), "{row}");
    assert_eq!((&row["type"], &row["url"]), (&json!("page"), &json!("https://e.x/")));
    assert_eq!((&row["context"], &row["source"]), (&json!("{\"data\":[]}"), &json!("snowplow")));
}

#[test]
fn log_records_are_answered_in_their_encoding() {
    let server = Server::start();
    let json = [("Content-Type", "application/json"), ("Content-Encoding", "gzip")];
    let body = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[
        {"timeUnixNano":"1795286693848000000","body":{"stringValue":"one"}},{"traceId":"??"}]}]}]}"#;
    let answer = send(&server, "/v1/logs", &json, gzip(body));
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    assert_eq!(answer.json()["partialSuccess"]["rejectedLogRecords"], "1");
    // ExportLogsServiceRequest{resource_logs{scope_logs{log_records{body{string_value: "two"}}}}}
    let protobuf = b"\x0a\x0b\x12\x09\x12\x07\x2a\x05\x0a\x03two";
    let label = [("Content-Type", "application/x-protobuf")];
    let answer = send(&server, "/v1/logs", &label, protobuf);
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, Some("application/x-protobuf"))
    );
    assert!(answer.body.is_empty());
    let answer = send(&server, "/v1/logs", &label, &protobuf[..9]);
    assert_eq!((answer.status, answer.error()["code"].as_str()), (400, Some("not_json")));
    let rows = server.query("SELECT source, type, properties FROM events ORDER BY properties");
    let properties: Vec<&str> =
        rows.iter().map(|row| row["properties"].as_str().unwrap()).collect();
    assert_eq!(properties, [r#"{"body":"one"}"#, r#"{"body":"two"}"#]);
    assert!(rows.iter().all(|row| row["type"] == "log" && row["source"] == "otlp"));
}

#[test]
fn pages_of_other_origins_may_send() {
    let server = Server::start();
    let origin = ("Origin", "https://shop.example");
    for path in ["/v1/track", "/api/s/page", "/e/", "/api/event", "/api/send", "/i"] {
        let asks = [
            origin,
            ("Access-Control-Request-Method", "POST"),
            ("Access-Control-Request-Headers", "content-type,authorization,x-write-key"),
        ];
        let answer = server.connect().request("OPTIONS", path, &asks, b"");
        assert_eq!(answer.status, 204, "{path}");
        let header = |name: &str| answer.header(name).unwrap_or_default().to_owned();
        assert_eq!(header("access-control-allow-origin"), "https://shop.example", "{path}");
        assert_eq!(header("access-control-allow-credentials"), "true", "{path}");
        let ours = ["content-type", "authorization", "x-write-key", "sp-anonymous", "anonymousid"];
        for name in ours {
            assert!(header("access-control-allow-headers").contains(name), "{path}: {name}");
        }
    }
    let headers = [origin, ("Content-Type", "text/plain"), ("Sec-Fetch-Site", "cross-site")];
    let answer = send(&server, "/api/event", &headers, r#"{"n":"pageview","u":"https://e.x"}"#);
    check(&answer, 1);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://shop.example"));
}

//! `GET /v1/stats` and `GET /v1/schema`.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use serde_json::{Value, json};
use support::Server;

mod support;

/// Six events of four visitors: two with a user id, one with an anonymous id, and one that is only
/// known by its address and user agent.
fn filled() -> Server {
    let server = Server::start();
    let events = [
        json!({"type":"page","url":"https://a/1","user_id":"u1","timestamp":"2026-01-01T10:05:00Z"}),
        json!({"type":"page","url":"https://a/1","user_id":"u1","timestamp":"2026-01-01T10:06:00Z"}),
        json!({"type":"page","url":"https://a/2","anonymous_id":"x","timestamp":"2026-01-01T10:59:59.999999Z"}),
        json!({"type":"track","event":"Buy","user_id":"u2","timestamp":"2026-01-01T11:00:00Z"}),
        json!({"type":"track","event":"Buy","user_id":"u2","anonymous_id":"x","timestamp":"2026-01-01T12:30:00Z"}),
        json!({"type":"track","event":"Buy","timestamp":"2026-01-02T00:00:00Z"}),
    ];
    assert_eq!(server.post("/v1/events", json!(events).to_string()).status, 202);
    server.flush();
    server
}

fn buckets(server: &Server, query: &str) -> Vec<Value> {
    let answer = server.get(&format!("/v1/stats?{query}"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["buckets"].as_array().unwrap().clone()
}

#[test]
fn buckets_count_events_and_visitors_by_the_time_they_happened() {
    let server = filled();
    let hour = |bucket: &str, count: u64, visitors: u64| json!({"bucket": bucket, "count": count, "visitors": visitors});
    assert_eq!(
        buckets(&server, "from=2026-01-01&to=2026-01-02&interval=hour"),
        [
            hour("2026-01-01T10:00:00.000000Z", 3, 2),
            hour("2026-01-01T11:00:00.000000Z", 1, 1),
            hour("2026-01-01T12:00:00.000000Z", 1, 1),
        ]
    );
    assert_eq!(
        buckets(&server, "interval=day"),
        [hour("2026-01-01T00:00:00.000000Z", 5, 3), hour("2026-01-02T00:00:00.000000Z", 1, 1)]
    );
    assert_eq!(buckets(&server, "interval=minute").len(), 6);
    assert_eq!(buckets(&server, ""), [json!({"count": 6, "visitors": 4})]);
    assert_eq!(buckets(&server, "to=2000-01-01&interval=day"), Vec::<Value>::new());
}

#[test]
fn groups_come_largest_first_in_each_bucket() {
    let server = filled();
    assert_eq!(
        buckets(&server, "group_by=type"),
        [
            json!({"type": "page", "count": 3, "visitors": 2}),
            json!({"type": "track", "count": 3, "visitors": 2}),
        ]
    );
    let by_url = buckets(&server, "group_by=url&interval=day&to=2026-01-02");
    let urls: Vec<&Value> = by_url.iter().map(|row| &row["url"]).collect();
    assert_eq!(urls, [&json!("https://a/1"), &Value::Null, &json!("https://a/2")]);
    let many: Vec<Value> = (0..30).map(|n| json!({"event": format!("e{n}")})).collect();
    assert_eq!(server.post("/v1/events", json!(many).to_string()).status, 202);
    server.flush();
    let top = buckets(&server, "group_by=event");
    assert_eq!(top.len(), 20);
    // Three pages without a name, three purchases.
    assert_eq!(
        (&top[0]["count"], &top[1]["count"], &top[2]["count"]),
        (&json!(3), &json!(3), &json!(1))
    );
}

#[test]
fn what_is_no_question_is_refused() {
    let server = Server::start();
    for query in ["interval=week", "group_by=tenant", "from=yesterday", "limit=5", "interval="] {
        let answer = server.get(&format!("/v1/stats?{query}"));
        assert_eq!(answer.status, 400, "{query}");
        answer.error();
    }
    assert_eq!(server.post("/v1/stats", b"").status, 405);
}

#[test]
fn the_schema_is_that_of_the_table() {
    let server = filled();
    let schema = server.get("/v1/schema").json();
    let columns = schema["columns"].as_array().unwrap();
    assert!(columns.iter().all(|column| !column["meaning"].as_str().unwrap().is_empty()));
    let headers = [("Accept", "application/json")];
    let sql = b"SELECT * FROM events LIMIT 0";
    let answer = server.connect().request("POST", "/v1/query", &headers, sql).json();
    let only = |columns: &[Value]| -> Vec<Value> {
        columns.iter().map(|column| json!([column["name"], column["type"]])).collect()
    };
    assert_eq!(only(columns), only(answer["columns"].as_array().unwrap()));
}

//! `GET /v1/events`: pages of raw events over HTTP.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use serde_json::{Value, json};
use support::Server;

mod support;

/// Sends `events` events, numbered from `first`, and makes them visible.
fn send(server: &Server, first: u64, events: u64) {
    let lines: Vec<String> = (first..first + events)
        .map(|number| {
            json!({
                "type": if number.is_multiple_of(2) { "page" } else { "track" },
                "event": format!("e{}", number % 3),
                "user_id": format!("u{}", number % 5),
                "tenant": format!("t{}", number % 2),
                "properties": { "n": number, "text": "ä\n\"€" },
            })
            .to_string()
        })
        .collect();
    assert_eq!(server.post("/v1/events", lines.join("\n")).status, 202);
    server.flush();
}

fn page(server: &Server, query: &str) -> (Vec<Value>, Option<String>) {
    let answer = server.get(&format!("/v1/events?{query}"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let page = answer.json();
    (page["events"].as_array().unwrap().clone(), page["next_cursor"].as_str().map(str::to_owned))
}

/// The events of all pages; `between` happens after each.
fn all(server: &Server, query: &str, between: impl Fn()) -> Vec<Value> {
    let (mut events, mut cursor) = page(server, query);
    while let Some(next) = cursor {
        between();
        let (more, after) = page(server, &format!("{query}&cursor={next}"));
        events.extend(more);
        cursor = after;
    }
    events
}

/// The same rows as SQL gives, byte for byte of each value, hot, rolled and both, while the rows
/// move from one to the other.
#[test]
fn pages_hold_what_sql_gives_whatever_is_rolled_meanwhile() {
    let server = Server::start();
    send(&server, 1, 40);
    server.roll();
    send(&server, 41, 40);
    let columns = "* EXCLUDE (date), strftime(date, '%Y-%m-%d') AS date";
    for (order, direction) in [("asc", "ASC"), ("desc", "DESC")] {
        let by: Vec<String> = ["received_at", "node", "shard", "sequence"]
            .map(|column| format!("{column} {direction}"))
            .to_vec();
        for (query, condition) in [
            ("", "true"),
            ("&type=page", "type = 'page'"),
            ("&event=e1&user_id=u3", "event = 'e1' AND user_id = 'u3'"),
            ("&user_id=nobody", "false"),
        ] {
            let sql = format!(
                "SELECT {columns} FROM events WHERE {condition} ORDER BY {}",
                by.join(", ")
            );
            let expected = server.query(&sql);
            let query = format!("limit=7&order={order}{query}");
            let mut found = all(&server, &query, || server.roll());
            for event in &mut found {
                let id = event.as_object_mut().unwrap().remove("id").unwrap();
                let text = |name: &str| event[name].to_string().trim_matches('"').to_owned();
                let expected = [text("node"), text("shard"), text("sequence")].join("-");
                assert_eq!(id, Value::from(expected));
            }
            assert_eq!(found, expected, "{query}");
        }
    }
}

#[test]
fn a_range_means_the_time_of_arrival() {
    let server = Server::start();
    let first = r#"{"event":"early","timestamp":"2001-01-01T00:00:00Z"}"#;
    assert_eq!(server.post("/v1/events", first).status, 202);
    server.flush();
    let (events, _) = page(&server, "from=2001-01-01&to=2002-01-01");
    assert!(events.is_empty());
    let (events, cursor) = page(&server, "from=2002-01-01T00:00:00Z");
    assert_eq!((events.len(), cursor), (1, None));
    // The start belongs to the range, the end does not.
    let at = events[0]["received_at"].as_str().unwrap();
    assert_eq!(page(&server, &format!("from={at}")).0.len(), 1);
    assert_eq!(page(&server, &format!("to={at}")).0.len(), 0);
}

#[test]
fn a_page_has_fifty_events_unless_told_otherwise() {
    let server = Server::start();
    send(&server, 1, 120);
    let (events, cursor) = page(&server, "");
    assert_eq!(events.len(), 50);
    let newest: Vec<i64> =
        events.iter().map(|event| event["sequence"].as_i64().unwrap()).take(2).collect();
    assert!(newest[0] >= newest[1], "{newest:?}");
    assert!(cursor.is_some());
    assert_eq!(page(&server, "limit=1000").0.len(), 120);
    for query in
        ["limit=0", "limit=1001", "limit=", "order=x", "from=x", "tpye=page", "type=a&type=b"]
    {
        let answer = server.get(&format!("/v1/events?{query}"));
        assert_eq!(answer.status, 400, "{query}");
        answer.error();
    }
}

#[test]
fn a_cursor_goes_with_its_question_and_survives_a_restart() {
    let scratch = tempfile::tempdir().unwrap();
    let server = Server::on(scratch.path(), &[]);
    send(&server, 1, 30);
    let (first, cursor) = page(&server, "limit=10&type=page");
    let cursor = cursor.unwrap();
    let wrong = format!("{}0", &cursor[..cursor.len() - 1]);
    let other = format!("{}1", &cursor[..cursor.len() - 1]);
    for query in [
        format!("limit=10&type=track&cursor={cursor}"),
        format!("limit=10&cursor={cursor}"),
        format!("limit=10&type=page&order=asc&cursor={cursor}"),
        format!("limit=10&type=page&cursor={}", if wrong == cursor { other } else { wrong }),
        "cursor=".to_owned(),
        "cursor=no".to_owned(),
    ] {
        let answer = server.get(&format!("/v1/events?{query}"));
        assert_eq!(answer.status, 400, "{query}");
        assert_eq!(answer.error()["code"], "bad_cursor");
    }
    assert!(server.stop().0.success());
    let server = Server::on(scratch.path(), &[]);
    server.flush();
    let (second, end) = page(&server, &format!("limit=10&type=page&cursor={cursor}"));
    assert_eq!((first.len(), second.len(), end), (10, 5, None));
    assert!(first.iter().all(|event| !second.contains(event)));
}

#[test]
fn answers_are_compressed_as_the_client_accepts() {
    let server = Server::start();
    send(&server, 1, 40);
    let plain = server.get("/v1/events?order=asc").body;
    for (accept, coding) in [("zstd, gzip", "zstd"), ("gzip", "gzip")] {
        let headers = [("Accept-Encoding", accept)];
        let answer = server.connect().request("GET", "/v1/events?order=asc", &headers, b"");
        assert_eq!(answer.header("content-encoding"), Some(coding));
        assert!(answer.body.len() < plain.len() / 3);
    }
    assert_eq!(server.connect().request("HEAD", "/v1/events", &[], b"").status, 200);
}

#[test]
fn pages_of_foreign_sites_get_nothing() {
    let server = Server::start();
    let headers = [("Origin", "https://shop.example")];
    for path in ["/v1/events", "/v1/stats", "/v1/schema"] {
        let answer = server.connect().request("GET", path, &headers, b"");
        assert_eq!(answer.status, 403, "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
}

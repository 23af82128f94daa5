//! `GET /v1/events?follow=true`: events as they come.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use std::io::{BufRead, Read};

use serde_json::{Value, json};
use support::{Connection, Server, id_of, make_key};

mod support;

/// Begins to follow; everything that is sent afterwards comes.
fn follow(server: &Server, query: &str) -> Connection {
    follow_with(server.connect(), query, &[])
}

fn follow_with(mut connection: Connection, query: &str, headers: &[(&str, &str)]) -> Connection {
    // So that the end of the answer is the end of the connection.
    let headers = [headers, &[("Connection", "close")]].concat();
    connection.ask("GET", &format!("/v1/events?follow=true{query}"), &headers, b"");
    let head = line_with(&mut connection, "HTTP/1.1");
    assert!(head.contains("200"), "{head}");
    line_with(&mut connection, "content-type: text/event-stream");
    line_with(&mut connection, ": following");
    connection
}

/// Reads on to a line that begins with `start`.
fn line_with(connection: &mut Connection, start: &str) -> String {
    loop {
        let mut line = String::new();
        assert!(connection.stream.read_line(&mut line).unwrap() > 0, "no line begins with {start}");
        if line.starts_with(start) {
            return line.trim_end().to_owned();
        }
    }
}

/// The next event.
fn event(connection: &mut Connection) -> Value {
    let id = line_with(connection, "id: ")["id: ".len()..].to_owned();
    let event: Value =
        serde_json::from_str(&line_with(connection, "data: ")["data: ".len()..]).unwrap();
    assert_eq!(event["id"], Value::from(id));
    event
}

#[test]
fn followers_see_what_is_sent_after_them_with_the_values_of_a_page() {
    let server = Server::start();
    assert_eq!(server.post("/v1/events", r#"{"event":"before"}"#).status, 202);
    server.flush();
    let mut all = follow(&server, "");
    let mut some = follow(&server, "&event=b&user_id=u");
    let body = concat!(
        r#"{"event":"a","properties":{"text":"two\nlines ä"}}"#,
        "\n",
        r#"{"event":"b","user_id":"v"}"#,
        "\n",
        r#"{"event":"b","user_id":"u"}"#
    );
    assert_eq!(server.post("/v1/events", body).status, 202);
    let seen: Vec<Value> = (0..3).map(|_| event(&mut all)).collect();
    let names: Vec<&Value> = seen.iter().map(|event| &event["event"]).collect();
    assert_eq!(names, ["a", "b", "b"]);
    assert_eq!(event(&mut some), seen[2]);
    let mut page = server.get("/v1/events?limit=3&order=desc").json();
    let mut page: Vec<Value> = serde_json::from_value(page["events"].take()).unwrap();
    page.reverse();
    assert_eq!(page, seen);
}

#[test]
fn more_than_anybody_can_read_is_cut_with_a_notice() {
    let server = Server::start();
    let mut all = follow(&server, "");
    let lines: Vec<String> = (0..20_000).map(|n| format!(r#"{{"event":"e{n}"}}"#)).collect();
    assert_eq!(server.post("/v1/events", lines.join("\n")).status, 202);
    line_with(&mut all, "event: dropped");
    let notice = line_with(&mut all, "data: ");
    let notice: Value = serde_json::from_str(&notice["data: ".len()..]).unwrap();
    assert!(notice["dropped"].as_u64().unwrap() > 0);
    while event(&mut all)["event"] != "e19999" {}
    assert_eq!(server.count(), 20_000);
}

/// A tenant's key shows its events only, and nothing after it was revoked.
#[test]
fn a_key_follows_its_tenant_until_it_is_revoked() {
    let server = Server::with_keys(&[]);
    let key = make_key(&server.data, &["--scope", "read", "--tenant", "mine"]);
    let bearer = format!("Bearer {key}");
    let headers = [("Authorization", bearer.as_str())];
    let read = || server.connect().request("GET", "/v1/schema", &headers, b"").status;
    server.wait_until("the key is seen", || read() == 200);
    let mut mine = follow_with(server.connect(), "", &headers);
    let mut all = follow(&server, "");
    let send = |names: &[&str]| {
        let events: Vec<Value> = names
            .iter()
            .flat_map(|name| ["other", "mine"].map(|it| json!({"event": name, "tenant": it})))
            .collect();
        assert_eq!(server.post("/v1/events", json!(events).to_string()).status, 202);
    };
    send(&["a", "b"]);
    for name in ["a", "b"] {
        let event = event(&mut mine);
        assert_eq!((&event["event"], &event["tenant"]), (&json!(name), &json!("mine")));
    }
    (0..4).for_each(|_| drop(event(&mut all)));
    let path = format!("/v1/admin/keys/{}", id_of(&key));
    assert_eq!(server.connect().request("DELETE", &path, &[], b"").status, 200);
    server.wait_until("the key is refused", || read() == 401);
    send(&["c"]);
    let mut rest = String::new();
    mine.stream.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with("0\r\n\r\n") && !rest.contains("data:"), "{rest}");
    assert_eq!(event(&mut all)["event"], "c");
}

#[test]
fn a_stop_ends_those_who_follow() {
    let server = Server::start();
    let mut all = follow(&server, "");
    assert!(server.stop().0.success());
    let mut rest = String::new();
    all.stream.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with("0\r\n\r\n"), "{rest}");
}

#[test]
fn a_page_and_its_parameters_do_not_go_with_it() {
    let server = Server::start();
    for query in ["follow=yes", "follow=true&limit=5", "follow=true&cursor=1", "follow=true&from=1"]
    {
        assert_eq!(server.get(&format!("/v1/events?{query}")).status, 400, "{query}");
    }
    assert_eq!(server.get("/v1/events?follow=false").status, 200);
}

//! Visitor ids of a running server: who is one visitor, what proxies may say, what is kept.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;

use serde_json::Value;
use support::Server;

/// Sends one event named `name` with these headers.
fn send(server: &Server, name: &str, headers: &[(&str, &str)]) {
    let body = format!(r#"{{"event":"{name}","visitor_id":1,"ip":"198.51.100.1"}}"#);
    let answer = server.connect().request("POST", "/v1/events", headers, body.as_bytes());
    assert_eq!(answer.status, 202, "{}", answer.text());
}

/// Visitor id and address of each event by its name.
fn visitors(server: &Server) -> BTreeMap<String, (Option<i64>, Value)> {
    let rows = server.query("SELECT event, visitor_id, ip FROM events");
    let one = |row: &Value| {
        (row["event"].as_str().unwrap().to_owned(), (row["visitor_id"].as_i64(), row["ip"].clone()))
    };
    rows.iter().map(one).collect()
}

#[test]
fn address_and_user_agent_make_a_visitor_and_neither_is_stored() {
    let server = Server::start();
    let browser = ("User-Agent", "browser");
    send(&server, "first", &[browser]);
    send(&server, "again", &[browser]);
    send(&server, "phone", &[("User-Agent", "phone")]);
    // Nobody is trusted: what a client says about its address is its own invention.
    send(&server, "forged", &[browser, ("X-Forwarded-For", "192.0.2.1")]);
    let pixel = server.connect().request("GET", "/v1/pixel.gif?event=pixel", &[browser], b"");
    assert_eq!(pixel.status, 200);
    let visitors = visitors(&server);
    let id = |name: &str| visitors[name].0.unwrap();
    assert_eq!(id("first"), id("again"));
    assert_eq!(id("first"), id("forged"));
    assert_eq!(id("first"), id("pixel"));
    assert_ne!(id("first"), id("phone"));
    assert!(id("first") != 1 && visitors.values().all(|(_, ip)| ip.is_null()), "{visitors:?}");
    assert_eq!(server.post("/v1/admin/roll", b"").status, 200);
    assert_eq!(visitors_of_files(&server), visitors);
    let salt = server.data.join("salt");
    assert_eq!(std::fs::metadata(&salt).unwrap().mode() & 0o777, 0o600);
}

fn visitors_of_files(server: &Server) -> BTreeMap<String, (Option<i64>, Value)> {
    assert_eq!(server.status()["hot"]["rows"], 0);
    visitors(server)
}

#[test]
fn robots_are_marked_where_it_is_asked_for_and_nothing_else_of_them_changes() {
    let robot = ("User-Agent", "Mozilla/5.0 (compatible; Googlebot/2.1)");
    let browser = ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Firefox/140.0");
    let events = [
        (robot, r#"{"event":"plain"}"#, Some(r#"{"bot":true}"#)),
        (robot, r#"{"event":"kept","context":{"a":1}}"#, Some(r#"{"bot":true,"a":1}"#)),
        // What the event itself says counts, as for its column.
        (robot, r#"{"event":"told","user_agent":"Firefox/140.0"}"#, None),
        (browser, r#"{"event":"person"}"#, None),
    ];
    for (variables, is_asked) in
        [(&[][..], false), (&[("RINGLAKE_PRIVACY_MARK_BOTS", "true")], true)]
    {
        let server = Server::with(variables);
        for (agent, event, marked) in events {
            let answer = server.connect().request("POST", "/v1/events", &[agent], event.as_bytes());
            assert_eq!(answer.status, 202, "{}", answer.text());
            let sent: Value = serde_json::from_str(event).unwrap();
            let name = sent["event"].as_str().unwrap();
            let sql = format!("SELECT context FROM events WHERE event = '{name}'");
            let unmarked = sent.get("context").map(Value::to_string);
            let expected = if is_asked { marked.map(str::to_owned) } else { unmarked };
            assert_eq!(server.query(&sql)[0]["context"].as_str(), expected.as_deref(), "{event}");
        }
    }
}

#[test]
fn a_visitor_stays_the_same_across_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::on(directory.path(), &[]);
    send(&server, "before", &[]);
    server.stop();
    let server = Server::on(directory.path(), &[]);
    send(&server, "after", &[]);
    let visitors = visitors(&server);
    // Unless midnight was in between.
    let salt = std::fs::read_to_string(directory.path().join("salt")).unwrap();
    let today = salt.split(' ').next().unwrap().parse::<i64>().unwrap();
    let days = server.query("SELECT count(DISTINCT date) AS n FROM events")[0]["n"].as_i64();
    if days == Some(1) && today > 0 {
        assert_eq!(visitors["before"].0, visitors["after"].0);
        assert!(visitors["after"].0.is_some());
    }
}

#[test]
fn a_trusted_proxy_says_who_the_client_is() {
    let server = Server::with(&[
        ("RINGLAKE_HTTP_TRUSTED_PROXIES", "127.0.0.1"),
        ("RINGLAKE_PRIVACY_STORE_IP", "true"),
    ]);
    send(&server, "direct", &[]);
    send(&server, "one", &[("X-Forwarded-For", "203.0.113.66, 192.0.2.1")]);
    send(&server, "same", &[("Forwarded", "for=\"192.0.2.1:4711\";proto=https")]);
    send(&server, "two", &[("X-Forwarded-For", "2001:db8::7")]);
    let visitors = visitors(&server);
    let ip = |name: &str| visitors[name].1.as_str().unwrap();
    assert_eq!((ip("direct"), ip("one"), ip("two")), ("127.0.0.1", "192.0.2.1", "2001:db8::7"));
    assert_eq!(visitors["one"], visitors["same"]);
    assert_ne!(visitors["one"].0, visitors["two"].0);
}

#[test]
fn who_asks_not_to_be_tracked_has_no_id_when_the_operator_says_so() {
    let variables =
        [("RINGLAKE_PRIVACY_HONOUR_DNT", "true"), ("RINGLAKE_PRIVACY_STORE_IP", "true")];
    let server = Server::with(&variables);
    send(&server, "dnt", &[("DNT", "1")]);
    send(&server, "gpc", &[("Sec-GPC", "1")]);
    send(&server, "tracked", &[("DNT", "0")]);
    let visitors = visitors(&server);
    for name in ["dnt", "gpc"] {
        assert_eq!(visitors[name], (None, Value::Null), "{name}");
    }
    assert!(visitors["tracked"].0.is_some() && visitors["tracked"].1 == "127.0.0.1");
}

#[test]
fn visitors_of_two_tenants_are_strangers() {
    let server = Server::start();
    for tenant in ["a", "b"] {
        let body = format!(r#"{{"event":"{tenant}","tenant":"{tenant}"}}"#);
        assert_eq!(server.post("/v1/events", body).status, 202);
    }
    // In one request as well.
    let both =
        br#"[{"event":"a2","tenant":"a"},{"event":"b2","tenant":"b"},{"event":"a3","tenant":"a"}]"#;
    assert_eq!(server.post("/v1/events", both).status, 202);
    let visitors = visitors(&server);
    let id = |name: &str| visitors[name].0.unwrap();
    assert_ne!(id("a"), id("b"));
    assert_eq!((id("a"), id("b"), id("a")), (id("a2"), id("b2"), id("a3")));
}

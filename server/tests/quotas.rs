//! Quotas of keys and tenants: 429 with the standard headers, and nothing of it stored.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

mod support;

use std::time::{Duration, Instant};

use support::{Answer, Connection, PATIENCE, Server, make_key};

const EVENT: &[u8] = br#"{"event":"a"}"#;

/// Tenant `acme` with two write keys and a read key, tenant `other` with one write key; all seen by
/// the server.
struct Keys {
    first: String,
    second: String,
    read: String,
    other: String,
}

fn start(limits: &[(&str, &str)]) -> (Server, Keys) {
    let server = Server::with_keys(limits);
    let make = |scope, tenant| make_key(&server.data, &["--scope", scope, "--tenant", tenant]);
    let keys = Keys {
        first: make("write", "acme"),
        second: make("write", "acme"),
        read: make("read", "acme"),
        other: make("write", "other"),
    };
    // The last one is seen when all are. A body that is no event is refused after the look at the
    // key and counts as a request only.
    let until = Instant::now() + PATIENCE;
    while send(&server, &keys.other, "POST", "/v1/events", b"?").status != 400 {
        assert!(Instant::now() < until, "the keys are seen");
        std::thread::sleep(Duration::from_millis(10));
    }
    (server, keys)
}

fn send(server: &Server, key: &str, method: &str, path: &str, body: &[u8]) -> Answer {
    let bearer = format!("Bearer {key}");
    let headers = [("Authorization", bearer.as_str())];
    Connection::new(server.address).request(method, path, &headers, body)
}

fn number(answer: &Answer, header: &str) -> u64 {
    let value = answer.header(header);
    value.unwrap_or_else(|| panic!("{header} in {answer:?}")).parse().unwrap()
}

#[test]
fn a_key_that_has_used_up_its_requests_waits_and_others_do_not() {
    let limits = [("RINGLAKE_LIMITS_KEY_REQUESTS", "5"), ("RINGLAKE_LIMITS_WINDOW_MS", "3600000")];
    let (server, keys) = start(&limits);
    let post = |key: &str| send(&server, key, "POST", "/v1/events", EVENT);
    for left in (0..5).rev() {
        let answer = post(&keys.first);
        assert_eq!(answer.status, 202);
        assert_eq!(number(&answer, "ratelimit-limit"), 5);
        assert_eq!(number(&answer, "ratelimit-remaining"), left);
    }
    let refused = post(&keys.first);
    assert_eq!((refused.status, refused.error()["code"].as_str()), (429, Some("rate_limited")));
    assert_eq!(number(&refused, "ratelimit-remaining"), 0);
    assert!((1..=3_600).contains(&number(&refused, "ratelimit-reset")));
    assert!((1..=7_200).contains(&number(&refused, "retry-after")));
    let message = refused.error()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("5 requests of this key in 3600 s"), "{message}");
    // The same holds for every route, with the key's own quota.
    assert_eq!(send(&server, &keys.first, "GET", "/v1/pixel.gif?type=page", b"").status, 429);
    assert_eq!(post(&keys.second).status, 202);
    for _ in 0..5 {
        assert_eq!(send(&server, &keys.read, "POST", "/v1/query", b"SELECT 1 AS n").status, 200);
    }
    assert_eq!(send(&server, &keys.read, "POST", "/v1/query", b"SELECT 1 AS n").status, 429);
    // Nobody needs a quota to ask whether the server lives.
    for _ in 0..10 {
        assert_eq!(
            Connection::new(server.address).request("GET", "/healthz", &[], b"").status,
            200
        );
    }
    // The server's own key has used up its quota with what it asked until here, or will have.
    server.leave_unaccounted();
}

#[test]
fn a_refusal_before_the_body_ends_the_connection_and_arrives() {
    let limits = [("RINGLAKE_LIMITS_KEY_REQUESTS", "1"), ("RINGLAKE_LIMITS_WINDOW_MS", "3600000")];
    let (server, keys) = start(&limits);
    assert_eq!(send(&server, &keys.first, "POST", "/v1/events", EVENT).status, 202);
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\
         Content-Length: 1000000\r\n\r\n[",
        keys.first
    );
    let mut connection = Connection::new(server.address);
    assert!(connection.send(head.as_bytes()));
    let answer = connection.answer(false);
    assert_eq!((answer.status, answer.header("connection")), (429, Some("close")));
    assert!(connection.is_closed());

    // Without a body there is nothing that has to be read.
    let mut connection = Connection::new(server.address);
    let bearer = format!("Bearer {}", keys.first);
    let headers = [("Authorization", bearer.as_str())];
    for _ in 0..2 {
        let answer = connection.request("GET", "/v1/pixel.gif?type=page", &headers, b"");
        assert_eq!((answer.status, answer.header("connection")), (429, None));
    }
    server.leave_unaccounted();
}

#[test]
fn a_large_quota_is_shown_once_half_of_it_is_used() {
    let limits =
        [("RINGLAKE_LIMITS_TENANT_EVENTS", "20000"), ("RINGLAKE_LIMITS_WINDOW_MS", "3600000")];
    let (server, keys) = start(&limits);
    let post = |key: &str, events: usize| {
        let body = vec![r#"{"event":"a"}"#; events].join("\n");
        send(&server, key, "POST", "/v1/events", body.as_bytes())
    };
    let silent = post(&keys.first, 9_999);
    assert_eq!((silent.status, silent.header("ratelimit-limit")), (202, None), "{silent:?}");
    let shown = post(&keys.second, 1);
    assert_eq!((shown.status, number(&shown, "ratelimit-remaining")), (202, 10_000));
    let refused = post(&keys.second, 10_001);
    assert_eq!((refused.status, number(&refused, "ratelimit-remaining")), (429, 10_000));
}

#[test]
fn the_keys_of_a_tenant_share_its_quota_of_events() {
    let limits =
        [("RINGLAKE_LIMITS_TENANT_EVENTS", "10"), ("RINGLAKE_LIMITS_WINDOW_MS", "3600000")];
    let (server, keys) = start(&limits);
    let post = |key: &str, events: usize, query: &str| {
        let body = vec![r#"{"event":"a"}"#; events].join("\n");
        send(&server, key, "POST", &format!("/v1/events{query}"), body.as_bytes())
    };
    let accepted = post(&keys.first, 6, "");
    assert_eq!((accepted.status, number(&accepted, "ratelimit-remaining")), (202, 4));
    let refused = post(&keys.second, 5, "");
    assert_eq!((refused.status, number(&refused, "ratelimit-remaining")), (429, 4));
    assert_eq!(post(&keys.second, 5, "?partial=true").status, 429);
    // What was refused has taken nothing.
    assert_eq!(post(&keys.second, 4, "").status, 202);
    assert_eq!(post(&keys.first, 1, "").status, 429);
    assert_eq!(post(&keys.other, 10, "").status, 202);
    // What could never pass is not told to come back.
    let never = post(&keys.other, 11, "");
    assert_eq!((never.status, never.error()["code"].as_str()), (413, Some("quota_too_small")));
    assert!(never.header("retry-after").is_none());
    // An admin key has no tenant.
    assert_eq!(post(server.key(), 100, "").status, 202);
    assert_eq!(server.count(), 120);
    let accounting = server.accounting();
    assert_eq!(accounting["refused"]["rate_limited"].as_u64(), Some(5 + 5 + 1 + 11));
    let metrics = server.get("/metrics").text();
    assert!(metrics.contains("events_refused_total{reason=\"rate_limited\"} 22"), "{metrics}");
    assert!(metrics.contains("rate_limit_check_latency_seconds_count"), "{metrics}");
}

#[test]
fn a_window_slides_and_what_was_used_comes_back() {
    let limits = [("RINGLAKE_LIMITS_KEY_REQUESTS", "20"), ("RINGLAKE_LIMITS_WINDOW_MS", "1000")];
    let (server, keys) = start(&limits);
    let mut connection = Connection::new(server.address);
    let bearer = format!("Bearer {}", keys.first);
    let headers = [("Authorization", bearer.as_str())];
    let began = Instant::now();
    let mut accepted = 0;
    let mut refused = 0;
    // A burst at the start, then a steady stream of 20 a second. What is no event counts as a
    // request and does not wait for the disk.
    while refused == 0 || accepted <= 40 {
        match connection.request("POST", "/v1/events", &headers, b"?").status {
            400 => accepted += 1,
            429 => {
                refused += 1;
                // Its body was not read: the connection ends with the answer.
                connection = Connection::new(server.address);
            }
            other => panic!("{other}"),
        }
        assert!(began.elapsed() < PATIENCE, "{accepted} accepted, {refused} refused");
        std::thread::sleep(Duration::from_millis(1));
    }
    let windows = began.elapsed().as_secs_f64();
    assert!(f64::from(accepted) <= 20.0 * (windows + 1.0) + 1.0, "{accepted} in {windows} s");
    server.leave_unaccounted();
}

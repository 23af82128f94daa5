//! Every row of the table of answers, and what clients get that send what they should not.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use std::io::Write;
use std::net::Shutdown;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use rustix::process::Signal;
use serde_json::{Value, json};
use support::{Answer, Connection, Server, run, text};

mod support;

const EVENTS: &str = "/v1/events";
const MIB: usize = 1 << 20;

fn post(connection: &mut Connection, body: impl AsRef<[u8]>) -> Answer {
    connection.request("POST", EVENTS, &[], body.as_ref())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn an_object_an_array_and_lines_are_accepted_whatever_their_type_is_said_to_be() {
    let server = Server::start();
    let mut connection = server.connect();
    let shapes = [
        (r#"{"event":"a"}"#, 1),
        (r#"[{"event":"a"},{"type":"page"}]"#, 2),
        ("{\"event\":\"a\"}\n{\"event\":\"b\"}\n\n{\"event\":\"c\"}", 3),
        ("\u{feff} {\"event\":\"a\"}", 1),
    ];
    let types =
        ["application/json", "text/plain;charset=UTF-8", "application/x-www-form-urlencoded"];
    let mut sent = 0;
    for (body, events) in shapes {
        for content_type in types {
            let headers = [("Content-Type", content_type)];
            let answer = connection.request("POST", EVENTS, &headers, body.as_bytes());
            assert_eq!(answer.status, 202, "{body}: {}", answer.text());
            assert_eq!(answer.text(), format!("{{\"accepted\":{events}}}"));
            assert_eq!(answer.header("content-type"), Some("application/json"));
            sent += events;
        }
        assert_eq!(post(&mut connection, body).status, 202, "without a type");
        sent += events;
    }
    assert_eq!(server.count(), sent);
    assert_eq!(server.accounting()["stored"], sent);
}

#[test]
fn options_choose_the_answer() {
    let server = Server::start();
    let mut connection = server.connect();
    let mut send = |options: &str, body: &str| {
        connection.request("POST", &format!("{EVENTS}?{options}"), &[], body.as_bytes())
    };
    let good = r#"{"event":"a"}"#;
    let quiet = send("quiet=true", good);
    assert_eq!((quiet.status, quiet.body.len()), (204, 0));
    assert_eq!(send("ack=memory", good).status, 202);
    assert_eq!(send("ack=disk&key=anything&utm_source=x", good).status, 202);

    let mixed = r#"[{"event":"a"},{"event":5},{"no":"name"},{"event":"b"}]"#;
    let partial = send("partial=true&quiet=true", mixed);
    assert_eq!(partial.status, 207, "{}", partial.text());
    let partial = partial.json();
    assert_eq!(partial["accepted"], 2);
    let rejected = partial["rejected"].as_array().unwrap();
    let places: Vec<_> = rejected.iter().map(|bad| bad["index"].as_u64().unwrap()).collect();
    assert_eq!(places, [1, 2]);
    assert!(rejected[0]["error"].as_str().unwrap().contains("event"), "{partial}");
    let none = send("partial=true", r#"[{"event":5}]"#);
    assert_eq!((none.status, none.json()["accepted"].as_u64()), (207, Some(0)));

    assert_eq!(send("", mixed).status, 400);
    for options in ["ack=tape", "partial=1", "quiet="] {
        let error = send(options, good).error();
        assert_eq!(error["code"], "bad_parameter");
        let (name, _) = options.split_once('=').unwrap();
        assert!(error["message"].as_str().unwrap().contains(name), "{error}");
    }
    assert_eq!(server.count(), 5);
    let accounting = server.accounting();
    assert_eq!(accounting["stored"], 5);
    assert!(accounting["refused"]["invalid"].as_u64().unwrap() >= 3 + 1 + 3, "{accounting}");
}

#[test]
fn bad_events_are_refused_with_their_index_and_field_and_the_connection_goes_on() {
    let server = Server::start();
    let mut connection = server.connect();
    let deep = |levels: usize| {
        format!(r#"{{"event":"a","p":{}{}}}"#, "[".repeat(levels), "]".repeat(levels))
    };
    let good = r#"{"event":"a"}"#;
    // Body, code, index, and what the message has to name.
    let cases: Vec<(Vec<u8>, &str, Option<u64>, &str)> = vec![
        (b"".into(), "empty_body", None, ""),
        (b" \n\t ".into(), "empty_body", None, ""),
        (b"hello".into(), "not_json", Some(0), ""),
        (br#"{"event":"a""#.into(), "not_json", Some(0), ""),
        (br#"{"event":"a"}}"#.into(), "not_json", None, ""),
        (b"[".into(), "not_json", None, ""),
        (format!("[{good},{good}").into(), "not_json", None, ""),
        (format!("{good}\n{{\"event\":}}").into(), "not_json", Some(1), ""),
        (b"{\"event\":\"\xff\"}".into(), "not_json", None, ""),
        (b"{\"event\":\"\xed\xa0\x80\"}".into(), "not_json", None, ""),
        (br#"{"event":"\ud800"}"#.into(), "not_json", Some(0), ""),
        (br#"{"event":"a","properties":{"x":"\udc00\ud800"}}"#.into(), "not_json", Some(0), ""),
        (br#"{"event":"a","properties":{"x":NaN}}"#.into(), "not_json", Some(0), ""),
        (br#"{"event":"a","properties":{"x":01}}"#.into(), "not_json", Some(0), ""),
        (br#"{"event":"a","properties":{"x":1e400}}"#.into(), "not_json", Some(0), ""),
        (br#"{"event":"a","properties":{"x":-Infinity}}"#.into(), "not_json", Some(0), ""),
        (format!("[{good},7]").into(), "wrong_shape", Some(1), ""),
        (b"null".into(), "wrong_shape", Some(0), ""),
        (b"[[]]".into(), "wrong_shape", Some(0), ""),
        (format!("[{good},{{}}]").into(), "wrong_shape", Some(1), "event"),
        (br#"{"event":{"a":1}}"#.into(), "wrong_type", Some(0), "event"),
        (format!("[{good},{{\"event\":\"a\",\"url\":[]}}]").into(), "wrong_type", Some(1), "url"),
        (br#"{"event":"a","properties":"text"}"#.into(), "wrong_type", Some(0), "properties"),
        (br#"{"event":"a","timestamp":"yesterday"}"#.into(), "bad_timestamp", Some(0), "timestamp"),
        (br#"{"event":"a","timestamp":1e300}"#.into(), "bad_timestamp", Some(0), "timestamp"),
        (
            br#"{"event":"a","sentAt":"2026-13-01T00:00:00Z"}"#.into(),
            "bad_timestamp",
            Some(0),
            "sent",
        ),
        (br#"{"event":"a","event":"b"}"#.into(), "duplicate_key", Some(0), "event"),
        (br#"{"event":"a","properties":{"k":1,"k":2}}"#.into(), "duplicate_key", Some(0), "k"),
        (deep(200).into(), "too_deep", Some(0), "128"),
        (deep(10_000).into(), "too_deep", Some(0), "128"),
    ];
    for (body, code, index, named) in &cases {
        let answer = post(&mut connection, body);
        let shown = format!("{}: {}", &text(body)[..text(body).len().min(60)], answer.text());
        assert_eq!(answer.status, 400, "{shown}");
        let error = answer.error();
        assert_eq!(error["code"], *code, "{shown}");
        if index.is_some() {
            assert_eq!(error["index"].as_u64(), *index, "{shown}");
        }
        assert!(error["message"].as_str().unwrap().contains(named), "{shown}");
        assert_ne!(answer.header("connection"), Some("close"), "{shown}");
    }
    assert_eq!(server.count(), 0, "nothing of a refused request is stored");
    assert_eq!(post(&mut connection, good).status, 202, "the same connection still works");
    assert_eq!(server.count(), 1);
    assert!(server.accounting()["refused"]["invalid"].as_u64().unwrap() >= cases.len() as u64);
}

#[test]
fn numbers_keep_what_the_client_wrote() {
    let server = Server::start();
    let body = r#"{"event":"a","properties":{"big":123456789012345678901234567890,"e":1e300}}"#;
    let answer = server.post(EVENTS, body);
    assert_eq!(answer.status, 202, "{}", answer.text());
    let stored = server.query("SELECT properties FROM events")[0]["properties"].clone();
    assert!(stored.as_str().unwrap().contains("123456789012345678901234567890"), "{stored}");
    assert!(stored.as_str().unwrap().contains("1e300"), "{stored}");
}

#[test]
fn limits_are_stated_when_they_are_passed() {
    let server = Server::with(&[("RINGLAKE_HTTP_EVENTS_MAX", "10")]);
    let mut connection = server.connect();
    let large = format!(r#"{{"event":"{}"}}"#, "x".repeat(256 << 10));
    let answer = post(&mut connection, &large);
    assert_eq!(answer.status, 413);
    assert!(answer.error()["message"].as_str().unwrap().contains("262144"), "{}", answer.text());
    assert_eq!(answer.error()["index"], 0);

    let many = "{\"event\":\"a\"}\n".repeat(11);
    let answer = post(&mut connection, &many);
    assert_eq!((answer.status, answer.error()["code"].as_str()), (413, Some("too_many_events")));
    assert!(answer.error()["message"].as_str().unwrap().contains("10"), "{}", answer.text());

    // Announced, refused at once, and still answered although the client sends everything.
    let body = vec![b' '; 4 * MIB + 1];
    let answer = post(&mut connection, &body);
    assert_eq!(answer.status, 413);
    assert_eq!(answer.error()["code"], "body_too_large");
    assert!(answer.error()["message"].as_str().unwrap().contains("4194304"), "{}", answer.text());
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(connection.is_closed());
    assert_eq!(server.count(), 0);
    assert!(server.accounting()["refused"]["too_large"].as_u64().unwrap() >= 3);
}

#[test]
fn a_request_that_could_never_fit_the_ring_is_too_large_and_not_asked_to_wait() {
    let server = Server::with(&[("RINGLAKE_RING_BYTES", "65536")]);
    let lines = "{\"event\":\"a\"}\n".repeat(8_000);
    let answer = server.post(EVENTS, lines);
    assert_eq!((answer.status, answer.error()["code"].as_str()), (413, Some("request_too_large")));
    assert!(answer.header("retry-after").is_none());
    assert_eq!(server.post(EVENTS, r#"{"event":"a"}"#).status, 202);
}

#[test]
fn a_request_waits_for_room_in_a_full_ring() {
    let server = Server::with(&[("RINGLAKE_RING_BYTES", "65536"), ("RINGLAKE_SHARDS", "1")]);
    let body = "{\"event\":\"a\"}\n".repeat(1_000);
    // Two fit the ring at a time, and nobody waits for the disk. On a machine that is short of
    // processors some wait longer than a request may, and are refused; most are not.
    let refused: u64 = std::thread::scope(|scope| {
        let send = || {
            let mut connection = server.connect();
            let (mut accepted, mut refused) = (0, 0);
            while accepted < 100 {
                let path = format!("{EVENTS}?ack=memory");
                let answer = connection.request("POST", &path, &[], body.as_bytes());
                match answer.status {
                    202 => accepted += 1,
                    429 => refused += 1,
                    _ => panic!("{}", answer.text()),
                }
            }
            refused
        };
        let clients: Vec<_> = (0..8).map(|_| scope.spawn(send)).collect();
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    assert!(refused < 400, "{refused} refused, 800 accepted");
    assert_eq!(server.count(), 800_000);
    assert_eq!(server.accounting()["stored"], 800_000);
}

#[test]
fn every_encoding_is_unpacked_also_when_nobody_says_so() {
    let server = Server::start();
    let mut connection = server.connect();
    let event = br#"{"event":"packed"}"#;
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
    zlib.write_all(event).unwrap();
    let mut raw = DeflateEncoder::new(Vec::new(), Compression::default());
    raw.write_all(event).unwrap();
    let zstd = zstd::encode_all(&event[..], 3).unwrap();
    let raw = raw.finish().unwrap();
    let cases: [(&str, &[u8]); 9] = [
        ("gzip", &gzip(event)),
        ("x-gzip", &gzip(event)),
        ("GZIP", &gzip(event)),
        ("deflate", &zlib.finish().unwrap()),
        ("deflate", &raw),
        ("zstd", &zstd),
        ("identity", event),
        ("", &gzip(event)),
        ("", &zstd),
    ];
    for (name, body) in &cases {
        let headers: &[(&str, &str)] =
            if name.is_empty() { &[] } else { &[("Content-Encoding", name)] };
        let answer = connection.request("POST", EVENTS, headers, body);
        assert_eq!(answer.status, 202, "{name}: {}", answer.text());
    }
    assert_eq!(server.count(), cases.len() as u64);

    for name in ["compress", "gzip, br", "snappy"] {
        let headers = [("Content-Encoding", name)];
        let answer = connection.request("POST", EVENTS, &headers, &gzip(event));
        assert_eq!(answer.status, 415, "{name}");
        assert!(answer.error()["message"].as_str().unwrap().contains(name), "{}", answer.text());
    }
    for name in ["gzip", "deflate", "zstd", "br"] {
        let answer =
            connection.request("POST", EVENTS, &[("Content-Encoding", name)], b"nonsense!");
        assert_eq!((answer.status, answer.error()["code"].as_str()), (400, Some("bad_encoding")));
    }
    let cut = &gzip(event)[..20];
    assert_eq!(post(&mut connection, cut).status, 400);
    assert_eq!(server.count(), cases.len() as u64);
}

#[test]
fn an_arrow_stream_is_not_taken_for_json() {
    let server = Server::start();
    let headers = [("Content-Type", "application/vnd.apache.arrow.stream")];
    let answer = server.connect().request("POST", EVENTS, &headers, b"\xff\xff\xff\xff");
    assert_eq!((answer.status, answer.error()["code"].as_str()), (400, Some("not_arrow")));
}

#[test]
fn a_bomb_costs_no_more_memory_than_the_limit() {
    let server = Server::start();
    let zeros = vec![b' '; 256 * MIB];
    let bombs = [("gzip", gzip(&zeros)), ("zstd", zstd::encode_all(&zeros[..], 3).unwrap())];
    drop(zeros);
    let before = server.peak_memory();
    for (name, bomb) in &bombs {
        assert!(bomb.len() < 300_000);
        for _ in 0..10 {
            let headers = [("Content-Encoding", *name)];
            let answer = server.connect().request("POST", EVENTS, &headers, bomb);
            assert_eq!(answer.status, 413, "{}", answer.text());
            assert!(answer.error()["message"].as_str().unwrap().contains("4194304"));
        }
    }
    let grown = server.peak_memory() - before;
    assert!(grown < 64 * MIB as u64, "{grown} bytes more");
}

#[test]
fn a_body_that_never_ends_is_cut_off_at_the_limit() {
    let server = Server::start();
    let before = server.peak_memory();
    let mut connection = server.connect();
    let head =
        format!("POST {EVENTS} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    connection.send(head.as_bytes());
    let mut chunk = format!("{:x}\r\n", 64 << 10).into_bytes();
    chunk.extend(vec![b' '; 64 << 10]);
    chunk.extend(b"\r\n");
    // The server stops reading some time after its limit; until then nothing may fail.
    let mut taken = 0;
    while taken < 64 * MIB && connection.send(&chunk) {
        taken += 64 << 10;
    }
    assert!((4 * MIB..64 * MIB).contains(&taken), "{taken} bytes were taken");
    assert!(server.peak_memory() - before < 32 * MIB as u64);

    let mut connection = server.connect();
    connection.send(head.as_bytes());
    for _ in 0..=4 * MIB / (64 << 10) {
        connection.send(&chunk);
    }
    let answer = connection.answer(false);
    assert_eq!((answer.status, answer.error()["code"].as_str()), (413, Some("body_too_large")));
    assert_eq!(server.post(EVENTS, r#"{"event":"a"}"#).status, 202);
    assert_eq!(server.count(), 1);
}

#[test]
fn chunked_bodies_are_taken_and_broken_ones_refused() {
    let server = Server::start();
    let head =
        format!("POST {EVENTS} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut connection = server.connect();
    connection.send(format!("{head}7\r\n{{\"event\r\n6\r\n\":\"a\"}}\r\n0\r\n\r\n").as_bytes());
    assert_eq!(connection.answer(false).status, 202);
    for broken in ["7\r\n{\"event\r\nzz\r\n", "7\r\n{\"event\": no length\r\n"] {
        let mut connection = server.connect();
        connection.send(format!("{head}{broken}").as_bytes());
        let answer = connection.answer(false);
        assert_eq!(
            (answer.status, answer.error()["code"].as_str()),
            (400, Some("incomplete_body"))
        );
    }
    // An answer that is ready goes out although what follows it on the connection is broken.
    let mut connection = server.connect();
    let whole = "POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 13\r\n\r\n{\"event\":\"a\"}";
    connection.send(format!("{whole}{whole}{head}7\r\n{{\"event\r\nzz\r\n").as_bytes());
    for expected in [202, 202, 400] {
        assert_eq!(connection.answer(false).status, expected);
    }
    // The client goes away in the middle of a chunk, and of an announced length.
    let mut connection = server.connect();
    connection.send(format!("{head}ff\r\n{{\"event\":\"a\"").as_bytes());
    connection.shut_down(Shutdown::Both);
    let mut connection = server.connect();
    connection.send(b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{");
    connection.shut_down(Shutdown::Both);
    assert_eq!(server.count(), 3);
    assert_eq!(server.accounting()["received"], 3, "what never arrived is not counted");
}

#[test]
fn a_slow_body_is_given_up() {
    let server = Server::with(&[("RINGLAKE_HTTP_BODY_TIMEOUT_MS", "100")]);
    let mut connection = server.connect();
    connection
        .send(b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 13\r\n\r\n{\"event");
    let answer = connection.answer(false);
    assert_eq!((answer.status, answer.error()["code"].as_str()), (408, Some("body_timeout")));
    assert!(connection.is_closed());
}

#[test]
fn a_connection_that_stands_still_is_closed() {
    let server = Server::with(&[("RINGLAKE_HTTP_IDLE_TIMEOUT_MS", "1000")]);
    let mut silent = server.connect();
    let mut slow = server.connect();
    slow.send(b"POST /v1/events HTTP/1.1\r\nHost: local");
    assert!(silent.is_closed());
    assert!(slow.is_closed());
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn a_client_that_waits_for_permission_is_answered_before_it_sends() {
    let server = Server::start();
    let mut connection = server.connect();
    connection.send(
        b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 13\r\nExpect: 100-continue\r\n\r\n",
    );
    connection.stream.get_ref().peek(&mut [0; 1]).unwrap();
    connection.send(br#"{"event":"a"}"#);
    assert_eq!(connection.answer(false).status, 202);
    let mut connection = server.connect();
    connection.send(
        b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!(connection.answer(false).status, 413);
    assert!(connection.is_closed());
}

#[test]
fn a_body_that_was_asked_for_and_is_too_long_is_read_on_until_its_answer_is_seen() {
    let limits =
        [("RINGLAKE_HTTP_BODY_MAX_BYTES", "4096"), ("RINGLAKE_HTTP_EVENT_MAX_BYTES", "4096")];
    let server = Server::with(&limits);
    for _ in 0..20 {
        let mut connection = server.connect();
        connection.send(
            b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\
              Expect: 100-continue\r\n\r\n",
        );
        connection.stream.get_ref().peek(&mut [0; 1]).unwrap();
        // More than lies in the buffers between client and server.
        for _ in 0..512 {
            connection.send(b"1000\r\n");
            connection.send(&[b' '; 4_096]);
            connection.send(b"\r\n");
        }
        connection.send(b"0\r\n\r\n");
        assert_eq!(connection.answer(false).status, 413);
        assert!(connection.is_closed());
    }
}

#[test]
fn wrong_methods_and_unknown_routes_say_so() {
    let server = Server::start();
    for (method, path, allow) in [
        ("PUT", EVENTS, "GET, HEAD, POST, OPTIONS"),
        ("POST", "/v1/stats", "GET, HEAD"),
        ("POST", "/v1/pixel.gif", "GET, HEAD, OPTIONS"),
        ("GET", "/v1/query", "POST"),
        ("POST", "/v1/status", "GET, HEAD"),
        ("GET", "/v1/admin/roll", "POST"),
    ] {
        let answer = server.connect().request(method, path, &[], b"");
        assert_eq!(answer.status, 405, "{method} {path}");
        assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
        assert_eq!(answer.error()["code"], "method_not_allowed");
    }
    // The last ones are not UTF-8.
    for path in ["/v2/events", "/v1/export/%ff", "/v1/export/%ff/files/0", "/v1/admin/erase/%ff"] {
        let answer = server.get(path);
        let code = answer.error()["code"].clone();
        assert_eq!((answer.status, code.as_str()), (404, Some("not_found")), "{path}");
    }
    assert_eq!(server.accounting()["received"], 0);
}

#[test]
fn the_pixel_stores_its_parameters() {
    let server = Server::start();
    let mut connection = server.connect();
    let query = "type=page&event=view&url=https%3A%2F%2Fshop.example%2F%3Fa%3Db&tenant=t&campaign=spring+sale&key=k";
    let answer = connection.request("GET", &format!("/v1/pixel.gif?{query}"), &[], b"");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("image/gif"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert!(answer.body.starts_with(b"GIF89a") && answer.body.len() == 43);
    let head = connection.request("HEAD", "/v1/pixel.gif?event=head", &[], b"");
    assert_eq!((head.status, head.header("content-length")), (200, Some("43")));
    assert_eq!(connection.request("GET", "/v1/pixel.gif?event=q&quiet=true", &[], b"").status, 204);
    for bad in ["", "?", "?campaign=x", "?event=%ff", "?event=%4", "?event=a&timestamp=never"] {
        let answer = connection.request("GET", &format!("/v1/pixel.gif{bad}"), &[], b"");
        assert_eq!(answer.status, 400, "{bad}");
        answer.error();
    }
    let rows = server.query(
        "SELECT type, event, url, tenant, properties, source FROM events WHERE event = 'view'",
    );
    let row = &rows[0];
    assert_eq!(row["type"], "page");
    assert_eq!(row["url"], "https://shop.example/?a=b");
    assert_eq!(row["tenant"], "t");
    assert_eq!(row["source"], "pixel");
    let properties: Value = serde_json::from_str(row["properties"].as_str().unwrap()).unwrap();
    assert_eq!(properties, json!({ "campaign": "spring sale" }));
    assert_eq!(server.count(), 3);
}

#[test]
fn browsers_may_send_events_from_any_page_and_nothing_else() {
    let server = Server::start();
    let mut connection = server.connect();
    let page = ("Origin", "https://shop.example");
    for (path, methods) in [(EVENTS, "POST, OPTIONS"), ("/v1/pixel.gif", "GET, HEAD, OPTIONS")] {
        let asked = [page, ("Access-Control-Request-Method", "POST")];
        let answer = connection.request("OPTIONS", path, &asked, b"");
        assert_eq!(answer.status, 204);
        assert_eq!(answer.header("access-control-allow-origin"), Some("https://shop.example"));
        assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
        assert_eq!(answer.header("access-control-allow-methods"), Some(methods));
        let allowed = answer.header("access-control-allow-headers").unwrap();
        assert!(allowed.contains("content-type, ") && allowed.contains("x-write-key"), "{allowed}");
    }
    for body in [&br#"{"event":"a"}"#[..], b"no"] {
        let answer = connection.request("POST", EVENTS, &[page], body);
        assert_eq!(answer.header("access-control-allow-origin"), Some("https://shop.example"));
        assert_eq!(answer.header("vary"), Some("origin"));
    }
    for path in ["/v1/status", "/metrics", "/healthz", "/readyz", "/v1/nothing"] {
        let refused = [
            [page, ("X", "y")],
            [("Sec-Fetch-Site", "cross-site"), ("X", "y")],
            [("Host", "rebound.example"), ("X", "y")],
        ];
        for headers in &refused {
            let answer = connection.request("GET", path, headers, b"");
            assert_eq!(answer.status, 403, "{path} {headers:?}");
            assert!(answer.header("access-control-allow-origin").is_none());
            answer.error();
        }
    }
    let answer = connection.request("POST", "/v1/query", &[page], b"SELECT 1");
    assert_eq!(answer.status, 403);
    let own = server.url();
    assert_eq!(connection.request("GET", "/v1/status", &[("Origin", &own)], b"").status, 200);
}

#[test]
fn status_and_metrics_show_what_happened() {
    let server = Server::start();
    server.post(EVENTS, r#"[{"event":"a"},{"event":"b"}]"#);
    server.post(EVENTS, r#"{"event":"a","timestamp":"never"}"#);
    let rolled = server.post("/v1/admin/roll", b"").json();
    assert_eq!(rolled["rows"], 2);
    server.query("SELECT 1");
    let status = server.status();
    assert_eq!(status["lake"]["rows"], 2);
    assert_eq!(status["ready"], true);
    let accounting = server.accounting();
    assert_eq!((&accounting["received"], &accounting["stored"]), (&json!(3), &json!(2)));

    let answer = server.get("/metrics");
    assert!(answer.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    let metrics = answer.text();
    for line in [
        "events_received_total 3",
        "events_ingested_total 2",
        "events_refused_total{reason=\"invalid\"} 1",
        "events_refused_total{reason=\"ring_full\"} 0",
        "validation_errors_total{type=\"bad_timestamp\"} 1",
        "event_ingestion_latency_seconds_count 2",
        "db_operations_latency_seconds_count{operation=\"roll\"} 1",
        "lake_rows 2",
        "ready 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
    }
    for start in [
        "event_ingestion_latency_seconds_bucket{le=\"+Inf\"} 2",
        "db_operations_latency_seconds_bucket{le=",
        "event_queue_size{shard=\"0\"}",
        "wal_bytes{shard=\"0\"}",
    ] {
        assert!(metrics.lines().any(|found| found.starts_with(start)), "{start}\n{metrics}");
    }
}

#[test]
fn a_stop_under_load_keeps_what_was_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::on(directory.path(), &[("RINGLAKE_SHUTDOWN_TIMEOUT_MS", "60000")]);
    let accepted: u64 = std::thread::scope(|scope| {
        let address = server.address;
        let clients: Vec<_> =
            (0..8).map(|_| scope.spawn(move || send_until_refused(address))).collect();
        let stored = || server.status()["accounting"]["stored"].as_u64().unwrap();
        server.wait_until("events are stored", || stored() >= 500);
        server.signal(Signal::TERM);
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    let (status, log) = server.wait();
    assert!(status.success(), "{log}");
    let server = Server::on(directory.path(), &[]);
    assert_eq!(server.count(), accepted);
    let (status, _) = server.stop();
    assert!(status.success());
    assert!(run(&["verify", "--data", directory.path().to_str().unwrap()]).status.success());
}

/// Sends events on one connection until the server ends it; gives how many were acknowledged.
fn send_until_refused(address: std::net::SocketAddr) -> u64 {
    let mut connection = Connection::new(address);
    let mut accepted = 0;
    loop {
        let body = r#"{"event":"a"}"#;
        let head = format!(
            "POST {EVENTS} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        if !connection.send(format!("{head}{body}").as_bytes()) || connection.is_closed() {
            return accepted;
        }
        let answer = connection.answer(false);
        match answer.status {
            202 => accepted += 1,
            503 => {
                assert!(answer.header("retry-after").is_some());
                return accepted;
            }
            other => panic!("{other}: {}", answer.text()),
        }
        if answer.header("connection") == Some("close") {
            return accepted;
        }
    }
}

#[test]
fn a_server_that_cannot_start_says_why_in_one_sentence() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let data = data.to_str().unwrap();
    let fails = |arguments: &[&str], code: i32, named: &str| {
        let output = run(arguments);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
        assert!(message.starts_with("ringlake: ") && message.contains(named), "{message}");
    };
    fails(&["serve", "--data", data, "--listen", "0.0.0.0:0"], 2, "no keys exist");
    fails(&["serve", "--data", data, "--listen", "nonsense"], 2, "`nonsense`");
    fails(&["serve", "--config", "/nowhere.toml"], 2, "/nowhere.toml");

    let server = Server::on(directory.path(), &[]);
    let taken = server.address.to_string();
    fails(&["serve", "--data", data, "--listen", &taken], 1, &taken);
    let same = directory.path().to_str().unwrap();
    fails(&["serve", "--data", same, "--listen", "127.0.0.1:0"], 1, "in use by");
}

//! A retry is harmless: message ids as clients see them, over every way in and after crashes.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::{Server, run, run_with_input, text};

mod support;

const EVENTS: &str = "/v1/events";
/// With one core a server has one shard; a retry has to be recognised by another one too.
const TWO_SHARDS: [(&str, &str); 1] = [("RINGLAKE_SHARDS", "2")];

/// Rows, and different message ids among them.
fn rows(server: &Server) -> (u64, u64) {
    let sql = "SELECT count(*) AS n, count(DISTINCT message_id) AS ids FROM events";
    let row = &server.query(sql)[0];
    (row["n"].as_u64().unwrap(), row["ids"].as_u64().unwrap())
}

#[test]
fn an_answer_tells_how_many_events_were_known() {
    let server = Server::with(&TWO_SHARDS);
    let send = |options: &str, body: &str| {
        let answer = server.post(&format!("{EVENTS}{options}"), body);
        (answer.status, answer.text())
    };
    let one = r#"{"event":"a","message_id":"1"}"#;
    assert_eq!(send("", one), (202, r#"{"accepted":1}"#.into()));
    // Each request has a connection of its own: they come to both shards.
    for _ in 0..4 {
        assert_eq!(send("", one), (202, r#"{"accepted":1,"duplicates":1}"#.into()));
    }
    let many = r#"[{"event":"a","dedup_id":"1"},{"event":"b","messageId":"2"},
                   {"event":"c","message_id":"2"},{"event":"d"},{"event":"d"}]"#;
    assert_eq!(send("", many), (202, r#"{"accepted":5,"duplicates":2}"#.into()));
    let empty = r#"[{"event":"a","message_id":""},{"event":"b","message_id":""}]"#;
    assert_eq!(send("", empty), (202, r#"{"accepted":2}"#.into()));

    let mixed = r#"[{"event":"a","message_id":"1"},{"event":5},{"event":"b","message_id":"3"}]"#;
    let (status, answer) = send("?partial=true", mixed);
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!((status, &answer["accepted"], &answer["duplicates"]), (207, &json!(2), &json!(1)));
    assert_eq!(send("?quiet=true", one), (204, String::new()));
    // Nobody has looked at the id when this answer leaves.
    assert_eq!(send("?ack=memory", one), (202, r#"{"accepted":1}"#.into()));
    let pixel = server.get("/v1/pixel.gif?event=a&message_id=1");
    assert_eq!((pixel.status, pixel.header("content-type")), (200, Some("image/gif")));
    let other = r#"{"event":"a","tenant":"other","message_id":"1"}"#;
    assert_eq!(send("", other), (202, r#"{"accepted":1}"#.into()));

    assert_eq!(rows(&server).0, 8);
    let accounting = server.accounting();
    let counts = ["received", "stored", "duplicate", "in_flight"].map(|name| &accounting[name]);
    assert_eq!(counts, [19, 8, 10, 0], "{accounting}");
    assert_eq!(accounting["refused"]["invalid"], 1);
}

#[test]
fn status_and_metrics_show_the_window() {
    let server = Server::with(&TWO_SHARDS);
    assert_eq!(server.status()["dedup"]["window_age_seconds"], 0);
    for id in ["1", "2", "1"] {
        server.post(EVENTS, format!(r#"{{"event":"a","message_id":"{id}"}}"#));
    }
    let status = server.status()["dedup"].clone();
    assert_eq!((&status["ids"], &status["ids_max"]), (&json!(2), &json!(4_000_000)));
    assert_eq!(status["held_requests"], 0);
    let metrics = server.get("/metrics").text();
    for line in [
        "dedup_ids 2\n",
        "dedup_window_age_seconds ",
        "dedup_held_requests 0\n",
        "events_duplicate_total 1\n",
        "events_ingested_total 2\n",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    let off = Server::with(&[("RINGLAKE_DEDUP_IDS", "0")]);
    for _ in 0..2 {
        let answer = off.post(EVENTS, r#"{"event":"a","message_id":"1"}"#);
        assert_eq!(answer.text(), r#"{"accepted":1}"#);
    }
    assert_eq!((off.count(), off.status()["dedup"].clone()), (2, Value::Null));
    assert!(!off.get("/metrics").text().contains("dedup_ids"));
}

#[test]
fn an_import_done_again_stores_what_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let events = run(&["generate", "--events", "3000", "--seed", "5"]).stdout;
    let part = events.iter().take(400_000).rposition(|byte| *byte == b'\n').unwrap() + 1;
    let import = |arguments: &[&str], input: &[u8]| {
        let output = run_with_input(&[&["import", "-"], arguments].concat(), input);
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let local = ["--data", data.to_str().unwrap()];
    assert!(!import(&local, &events[..part]).contains("known before"));
    let stored = text(&events[..part]).lines().count();
    let said = import(&local, &events);
    assert!(
        said.starts_with("3,000 events in ")
            && said.contains(&format!(", {stored} of them known before")),
        "{said}"
    );
    let server = Server::on(&data, &[]);
    let said = import(&["--url", &server.url()], &events);
    assert!(said.contains(", 3,000 of them known before"), "{said}");
    assert_eq!(rows(&server), (3_000, 3_000));
}

/// One client's requests: each holds a few events, and the ids of the one before it once more.
fn bodies(client: usize, requests: usize) -> Vec<String> {
    let event = |request: usize, number: usize| {
        format!(r#"{{"event":"crash","message_id":"c{client}-{request}-{number}"}}"#)
    };
    (0..requests)
        .map(|request| {
            let own = (0..=request % 20).map(|number| event(request, number));
            let before = request.checked_sub(1).map(|before| event(before, 0));
            own.chain(before).collect::<Vec<_>>().join("\n")
        })
        .collect()
}

/// Clients send until the server is gone, and after the start send everything once more, answered
/// or not, on connections that may lead to the other shard.
#[test]
fn after_kill_9_a_retry_of_everything_leaves_every_event_once() {
    const CLIENTS: usize = 4;
    const REQUESTS: usize = 2_000;
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let settings = [TWO_SHARDS[0], ("RINGLAKE_HOT_ROLL_ROWS", "3000")];
    let all: Vec<Vec<String>> = (0..CLIENTS).map(|client| bodies(client, REQUESTS)).collect();
    let reached: Vec<AtomicUsize> = (0..CLIENTS).map(|_| 0.into()).collect();
    for enough in [600, 2_500] {
        let server = Server::on(&data, &settings);
        thread::scope(|scope| {
            for (bodies, reached) in all.iter().zip(&reached) {
                let address = server.address;
                // Each life of the server begins with a retry of the last life's requests.
                scope.spawn(move || send_until_gone(address, bodies, reached));
            }
            // Relaxed: only the number matters.
            let sum = || reached.iter().map(|count| count.load(Ordering::Relaxed)).sum::<usize>();
            while sum() < enough {
                thread::yield_now();
            }
            server.signal(Signal::KILL);
        });
        server.wait();
    }

    let server = Server::on(&data, &settings);
    let mut expected = 0;
    let mut known = 0;
    for (bodies, reached) in all.iter().zip(&reached) {
        // Relaxed: the threads have ended.
        let sent = reached.load(Ordering::Relaxed) + 1;
        let mut connection = server.connect();
        for (request, body) in bodies.iter().enumerate().take(sent) {
            let answer = connection.request("POST", EVENTS, &[], body.as_bytes());
            assert_eq!(answer.status, 202, "{}", answer.text());
            known += answer.json()["duplicates"].as_u64().unwrap_or(0);
            expected += request as u64 % 20 + 1;
        }
    }
    assert_eq!(rows(&server), (expected, expected));
    let accounting = server.accounting();
    assert_eq!(accounting["duplicate"], known);
    assert!(known > 2_500, "what was acknowledged is known: {known}");
    assert_eq!(server.post("/v1/admin/roll", "").status, 200);
    assert_eq!(rows(&server), (expected, expected));
    server.stop();
    let output = run(&["verify", "--data", data.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output.stdout));
}

/// Sends the requests from the first on; counts the answered ones that are new in `reached`.
fn send_until_gone(address: std::net::SocketAddr, bodies: &[String], reached: &AtomicUsize) {
    use std::io::{BufRead, BufReader, Write};
    let Ok(stream) = std::net::TcpStream::connect(address) else { return };
    stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
    let mut stream = BufReader::new(stream);
    for (request, body) in bodies.iter().enumerate() {
        let head = format!(
            "POST {EVENTS} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        if stream.get_mut().write_all(&[head.as_bytes(), body.as_bytes()].concat()).is_err() {
            return;
        }
        // An answer is one line of JSON behind an empty line; it ends with a brace.
        let mut answer = Vec::new();
        if stream.read_until(b'}', &mut answer).unwrap_or(0) == 0 || !answer.ends_with(b"}") {
            return;
        }
        assert!(answer.starts_with(b"HTTP/1.1 202"), "{}", text(&answer));
        // Relaxed: only the number matters.
        reached.fetch_max(request + 1, Ordering::Relaxed);
    }
}

//! Profiles of a running server: what they show, one at a time, and no harm to what goes on beside.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

mod support;

use std::io::{ErrorKind, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use flate2::read::GzDecoder;
use support::{Answer, Connection, Server};

const EVENTS: &str = r#"[{"event":"a","user_id":"u","properties":{"n":1}},{"event":"b"}]"#;

fn profile(server: &Server, query: &str) -> Answer {
    server.get(&format!("/v1/admin/profile{query}"))
}

/// Begins a profile of a minute.
fn begin(server: &Server) -> Connection {
    let mut begun = None;
    server.wait_until("it has begun", || {
        let mut asked = server.connect();
        asked.send(b"GET /v1/admin/profile?seconds=60 HTTP/1.1\r\nHost: localhost\r\n\r\n");
        // It has when another is refused and it is not: else that other one was faster.
        let refused = profile(server, "?seconds=1").status == 429;
        let stream = asked.stream.get_ref();
        stream.set_nonblocking(true).unwrap();
        let waits = stream.peek(&mut [0]).is_err_and(|it| it.kind() == ErrorKind::WouldBlock);
        stream.set_nonblocking(false).unwrap();
        begun = (refused && waits).then_some(asked);
        begun.is_some()
    });
    begun.unwrap()
}

#[test]
fn a_profile_shows_the_threads_that_work_and_disturbs_none_of_them() {
    let server = Server::start();
    let stop = AtomicBool::new(false);
    let sent: u64 = thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut connection = server.connect();
            let mut sent = 0;
            // Relaxed: the flag is all there is.
            while !stop.load(Ordering::Relaxed) {
                let answer = connection.request("POST", "/v1/events", &[], EVENTS.as_bytes());
                assert_eq!(answer.status, 202, "{}", answer.text());
                sent += 2;
            }
            sent
        });
        // Who is seen in a second is a matter of luck on a busy machine; in the end all are.
        server.wait_until("the picture shows the threads", || {
            let svg = profile(&server, "?seconds=1");
            assert_eq!(svg.header("content-type"), Some("image/svg+xml"));
            let shows = |name: &str| svg.text().contains(name);
            assert!(shows("processor time in 1 s"), "{}", svg.text());
            shows("loop-") && shows("shard-") && shows("ringlake")
        });
        server.wait_until("so does the file", || {
            let packed = profile(&server, "?seconds=1&format=pprof");
            let file = packed.header("content-disposition");
            assert_eq!(file, Some("inline; filename=\"profile.pb.gz\""));
            let mut bytes = Vec::new();
            GzDecoder::new(packed.body.as_slice()).read_to_end(&mut bytes).unwrap();
            let text = String::from_utf8_lossy(&bytes);
            assert!(text.contains("nanoseconds"), "{text}");
            text.contains("loop-") && text.contains("shard-")
        });
        // Relaxed: as above.
        stop.store(true, Ordering::Relaxed);
        client.join().unwrap()
    });
    assert_eq!(server.count(), sent);
}

#[test]
fn there_is_one_at_a_time_and_whoever_goes_away_leaves_room() {
    let server = Server::start();
    let first = begin(&server);
    let refused = profile(&server, "?seconds=1");
    assert_eq!((refused.status, refused.error()["code"].as_str()), (429, Some("profiling")));
    assert!(refused.header("retry-after").is_some());
    drop(first);
    server.wait_until("there is room", || profile(&server, "?seconds=1").status == 200);
}

#[test]
fn a_stop_ends_it() {
    let server = Server::start();
    let mut asked = begin(&server);
    let stopping = thread::spawn(move || server.stop());
    let answer = asked.answer(false);
    assert_eq!((answer.status, answer.error()["code"].as_str()), (503, Some("shutting_down")));
    let (status, log) = stopping.join().unwrap();
    assert!(status.success(), "{log}");
}

#[test]
fn what_cannot_be_is_named() {
    let server = Server::start();
    for query in ["?seconds=0", "?seconds=61", "?seconds=x", "?format=png", "?second=1"] {
        let answer = profile(&server, query);
        assert_eq!(answer.status, 400, "{query}");
        answer.error();
    }
}

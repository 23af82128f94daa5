//! How the server stops: what it waits for, for how long, and with which exit code.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use std::io::BufRead;
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::{Connection, PATIENCE, Server, run};

mod support;

const EVENTS: &str = "/v1/events";

/// Begins a request and leaves most of its body unsent; four others are answered before.
fn begin_request(server: &Server) -> Connection {
    for _ in 0..4 {
        assert_eq!(server.post(EVENTS, r#"{"event":"whole"}"#).status, 202);
    }
    let mut connection = server.connect();
    connection.send(
        b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 17\r\n\
          Expect: 100-continue\r\n\r\n",
    );
    // The server asks for the body, so it has read the head.
    let mut permission = String::new();
    while !permission.ends_with("\r\n\r\n") {
        assert!(connection.stream.read_line(&mut permission).unwrap() > 0, "{permission}");
    }
    assert!(permission.starts_with("HTTP/1.1 100"), "{permission}");
    connection.send(b"{\"event\":");
    connection
}

fn wait_until_the_port_is_closed(server: &Server) {
    server.wait_until("the port is closed", || TcpStream::connect(server.address).is_err());
}

/// Starts a server on `data` again and counts its events.
fn count_again(data: &Path) -> u64 {
    let verified = run(&["verify", "--data", data.to_str().unwrap()]);
    assert!(verified.status.success(), "{}", support::text(&verified.stdout));
    let server = Server::on(data, &[]);
    let count = server.count();
    let (status, log) = server.stop();
    assert!(status.success(), "{log}");
    count
}

#[test]
fn a_request_whose_body_never_comes_is_cut_off_and_the_stop_keeps_its_deadline() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::on(directory.path(), &[("RINGLAKE_SHUTDOWN_TIMEOUT_MS", "2000")]);
    let mut begun = begin_request(&server);
    let (began, data) = (Instant::now(), server.data.clone());
    server.signal(Signal::TERM);
    assert!(begun.is_closed(), "without an answer");
    let (status, log) = server.wait();
    let took = began.elapsed();
    assert!(status.success(), "{log}");
    assert!(took > Duration::from_millis(700), "it was given time: {took:?}");
    assert!(took < Duration::from_secs(60), "{took:?}");
    assert_eq!(count_again(&data), 4);
}

#[test]
fn while_it_stops_the_server_is_not_ready_and_takes_nothing_new() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::on(directory.path(), &[("RINGLAKE_SHUTDOWN_TIMEOUT_MS", "60000")]);
    let mut begun = begin_request(&server);
    // Two more are in the middle of their heads: they had begun, and are answered.
    let mut heads: Vec<Connection> = (0..2).map(|_| server.connect()).collect();
    heads[0].send(b"GET /readyz HTTP/1.1\r\nHost: local");
    heads[1].send(b"POST /v1/events HTTP/1.1\r\nHost: local");
    for _ in 0..4 {
        server.get("/healthz");
    }
    server.signal(Signal::TERM);
    wait_until_the_port_is_closed(&server);
    heads[0].send(b"host\r\n\r\n");
    heads[1].send(b"host\r\nContent-Length: 13\r\n\r\n{\"event\":\"c\"}");
    for head in &mut heads {
        // Either it was in time for the last call, and hears that it is late, or it is closed.
        if !head.is_closed() {
            let answer = head.answer(false);
            assert_eq!(
                (answer.status, answer.error()["code"].as_str()),
                (503, Some("shutting_down"))
            );
            assert!(answer.header("retry-after").is_some());
        }
    }
    begun.send(b"\"late\"}\n");
    let answer = begun.answer(false);
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert!(begun.is_closed());
    let data = server.data.clone();
    let (status, log) = server.wait();
    assert!(status.success(), "{log}");
    assert!(log.contains("everything accepted is durable"), "{log}");
    assert_eq!(count_again(&data), 5);
}

/// The first signal waits for a request that does not end; the second one does not.
#[test]
fn a_second_signal_ends_the_process_at_once_and_loses_nothing_acknowledged() {
    for signals in
        [[Signal::TERM, Signal::TERM], [Signal::INT, Signal::INT], [Signal::TERM, Signal::INT]]
    {
        let directory = tempfile::tempdir().unwrap();
        let a_day = [("RINGLAKE_SHUTDOWN_TIMEOUT_MS", "86400000")];
        let server = Server::on(directory.path(), &a_day);
        let mut begun = begin_request(&server);
        let data = server.data.clone();
        server.signal(signals[0]);
        wait_until_the_port_is_closed(&server);
        let began = Instant::now();
        server.signal(signals[1]);
        let (status, log) = server.wait();
        assert_eq!(status.code(), Some(1), "{log}");
        // The first one alone would wait a day.
        assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
        assert!(log.contains("stopped at once"), "{log}");
        assert!(begun.is_closed());
        assert_eq!(count_again(&data), 4);
    }
}

/// Events that are still only in the ring when the signal comes were acknowledged all the same.
#[test]
fn events_acknowledged_in_memory_are_in_the_log_after_a_stop() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::on(directory.path(), &[]);
    let data = server.data.clone();
    let mut connection = server.connect();
    let body = "{\"event\":\"memory\"}\n".repeat(500);
    let head = format!(
        "POST {EVENTS}?ack=memory HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut accepted = 0;
    for request in 0.. {
        if request == 50 {
            server.signal(Signal::TERM);
        }
        if !connection.send(format!("{head}{body}").as_bytes()) || connection.is_closed() {
            break;
        }
        let answer = connection.answer(false);
        match answer.status {
            202 => accepted += 500,
            429 | 503 => assert!(answer.header("retry-after").is_some()),
            other => panic!("{other}: {}", answer.text()),
        }
        if answer.header("connection") == Some("close") {
            break;
        }
    }
    assert!(accepted > 0);
    let (status, log) = server.wait();
    assert!(status.success(), "{log}");
    assert_eq!(count_again(&data), accepted);
}

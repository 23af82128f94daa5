//! Crashes under load: what was acknowledged is there once, what was not is there whole or not at
//! all.
//!
//! Clients send requests of several events over kept-alive connections and note each id at the
//! moment of its acknowledgement. The server is killed or told to stop in the middle of it.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rustix::process::Signal;
use support::{PATIENCE, Server, run};

mod support;

const CLIENTS: usize = 4;

/// One request of a client and what became of it.
#[derive(Debug, Clone)]
struct Sent {
    ids: Vec<String>,
    acknowledged: bool,
}

/// Sends until `stop`, or until the server is gone; counts acknowledgements in `acknowledged`.
fn client(
    address: SocketAddr,
    name: &str,
    stop: &AtomicBool,
    acknowledged: &AtomicUsize,
) -> Vec<Sent> {
    let mut sent: Vec<Sent> = Vec::new();
    let Ok(stream) = TcpStream::connect(address) else { return sent };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut stream = BufReader::new(stream);
    // Relaxed: the flag is all there is.
    while !stop.load(Ordering::Relaxed) {
        let request = sent.len();
        // Sizes from one event to some hundred, different in every request.
        let ids: Vec<String> =
            (0..=request * 7 % 150).map(|event| format!("{name}-{request}-{event}")).collect();
        let lines: Vec<String> =
            ids.iter().map(|id| format!(r#"{{"event":"crash","user_id":"{id}"}}"#)).collect();
        sent.push(Sent { ids, acknowledged: false });
        match post(&mut stream, address, &lines.join("\n")) {
            Some(202) => {
                let last = sent.last_mut().unwrap();
                last.acknowledged = true;
                // Relaxed: only the number matters.
                acknowledged.fetch_add(last.ids.len(), Ordering::Relaxed);
            }
            Some(429 | 503) => {}
            Some(status) => panic!("{name} was answered {status}"),
            None => break,
        }
    }
    sent
}

/// The status of the answer, or nothing when the connection broke.
fn post(stream: &mut BufReader<TcpStream>, address: SocketAddr, body: &str) -> Option<u16> {
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let request = [head.as_bytes(), body.as_bytes()].concat();
    stream.get_mut().write_all(&request).ok()?;
    let mut status = None;
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_ascii_lowercase();
        if status.is_none() {
            status = line.split(' ').nth(1)?.parse().ok();
        } else if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        } else if line.is_empty() {
            break;
        }
    }
    stream.read_exact(&mut vec![0; length]).ok()?;
    status
}

/// Lets the clients work until `enough` events are acknowledged, then ends the server by `signal`.
fn load_and_signal(
    server: Server,
    round: usize,
    enough: usize,
    signal: Signal,
) -> (Vec<Sent>, i32) {
    let stop = AtomicBool::new(false);
    let acknowledged = AtomicUsize::new(0);
    let address = server.address;
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (stop, acknowledged) = (&stop, &acknowledged);
                let name = format!("r{round}c{number}");
                scope.spawn(move || client(address, &name, stop, acknowledged))
            })
            .collect();
        // Relaxed: only the number matters.
        while acknowledged.load(Ordering::Relaxed) < enough {
            assert!(clients.iter().any(|client| !client.is_finished()), "the clients work");
            thread::yield_now();
        }
        server.signal(signal);
        let (status, log) = server.wait();
        // Relaxed: the flag is all there is.
        stop.store(true, Ordering::Relaxed);
        let sent = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        let code = status.code().unwrap_or(-1);
        assert!(code <= 0, "exit {code}: {log}");
        (sent, code)
    })
}

/// Compares what the server holds with what was sent to it in all rounds.
fn judge(server: &Server, sent: &[Sent]) {
    let rows = server.query("SELECT user_id AS id, count(*) AS n FROM events GROUP BY user_id");
    let mut stored: HashMap<&str, u64> =
        rows.iter().map(|row| (row["id"].as_str().unwrap(), row["n"].as_u64().unwrap())).collect();
    for request in sent {
        let copies: Vec<u64> =
            request.ids.iter().map(|id| stored.remove(id.as_str()).unwrap_or(0)).collect();
        let first = copies[0];
        assert!(copies.iter().all(|n| *n == first), "a request is stored in part: {request:?}");
        assert!(first <= 1, "stored {first} times: {request:?}");
        assert!(first == 1 || !request.acknowledged, "acknowledged and lost: {request:?}");
    }
    assert!(stored.is_empty(), "never sent, but stored: {stored:?}");
}

fn assert_verified(data: &Path) {
    let output = run(&["verify", "--data", data.to_str().unwrap()]);
    let said = support::text(&output.stderr) + &support::text(&output.stdout);
    assert!(output.status.success(), "{said}");
}

#[test]
fn after_kill_9_under_load_every_acknowledged_event_is_there_once() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut sent = Vec::new();
    // Small tables, so that kills also fall into rolls.
    let settings = [("RINGLAKE_HOT_ROLL_ROWS", "3000")];
    for round in 0..4 {
        let server = Server::on(&data, &settings);
        judge(&server, &sent);
        let (new, _) = load_and_signal(server, round, 4_000 + round * 1_500, Signal::KILL);
        sent.extend(new);
        assert_verified(&data);
    }
    let server = Server::on(&data, &settings);
    judge(&server, &sent);
    assert_eq!(server.post("/v1/admin/roll", "").status, 200);
    judge(&server, &sent);
    server.stop();
    assert_verified(&data);
}

#[test]
fn sigterm_under_load_ends_in_time_with_everything_stored() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let began = std::time::Instant::now();
    let server = Server::on(&data, &[]);
    let (sent, code) = load_and_signal(server, 0, 5_000, Signal::TERM);
    assert_eq!(code, 0);
    assert!(began.elapsed() < PATIENCE);
    assert_verified(&data);
    let server = Server::on(&data, &[]);
    judge(&server, &sent);
    server.stop();
}

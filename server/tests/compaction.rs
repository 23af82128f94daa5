//! Compaction seen from outside: routes, commands, metrics, and what a kill in the middle leaves.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;
use support::{PATIENCE, Server, run, text};

mod support;

/// Nothing by itself, and what is replaced goes at once.
const BY_HAND: [(&str, &str); 2] =
    [("RINGLAKE_COMPACTION_INTERVAL_MS", "0"), ("RINGLAKE_COMPACTION_RETAIN_MS", "0")];

/// `rolls` rolls of `events` events each.
fn roll_often(server: &Server, rolls: usize, events: usize) {
    let mut connection = server.connect();
    for roll in 0..rolls {
        let lines: Vec<String> = (0..events)
            .map(|event| format!(r#"{{"event":"e","user_id":"{roll}-{event}"}}"#))
            .collect();
        let body = lines.join("\n");
        let answer = connection.request("POST", "/v1/events", &[], body.as_bytes());
        assert_eq!(answer.status, 202, "{}", answer.text());
        assert_eq!(connection.request("POST", "/v1/admin/roll", &[], b"").status, 200);
    }
}

/// The body of an answer, if there is one.
fn ask(address: SocketAddr, method: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\n");
    let rest = "Content-Length: 0\r\nConnection: close\r\n\r\n";
    stream.write_all((head + rest).as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

/// Parquet files of the table, whether it names them or not.
fn data_files(data: &Path) -> u64 {
    let entries = |path: &Path| std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap());
    entries(&data.join("events"))
        .filter(|entry| entry.file_name() != "_delta_log")
        .map(|entry| entries(&entry.path()).count() as u64)
        .sum()
}

#[test]
fn routes_join_files_and_remove_what_was_replaced() {
    let server = Server::with(&BY_HAND);
    roll_often(&server, 5, 10);
    let files = data_files(&server.data);
    let answer = server.post("/v1/admin/compact", "").json();
    // Around midnight the events are of two days.
    let left = answer["files"].as_u64().unwrap();
    assert!((1..=2).contains(&left), "{answer}");
    assert!(answer["seconds"].as_f64().is_some() && answer["version"].as_u64() > Some(5));
    let written = answer["bytes_written"].as_u64().unwrap();
    assert!(written > 0 && answer["bytes_read"].as_u64().unwrap() > written, "{answer}");
    assert!(data_files(&server.data) > files, "nothing is removed before its time");
    assert_eq!(server.count(), 50);

    let answer = server.post("/v1/admin/vacuum", "").json();
    assert_eq!((answer["files"].as_u64(), &answer["waiting"]), (Some(files), &0.into()));
    assert_eq!(data_files(&server.data), left);
    assert_eq!(server.count(), 50);
    for route in ["/v1/admin/compact", "/v1/admin/vacuum"] {
        assert_eq!(server.get(route).status, 405);
    }

    let status = server.status();
    let done = &status["compaction"];
    assert_eq!(status["lake"]["files"].as_u64(), Some(left));
    assert_eq!(done["files_read"].as_u64(), Some(files), "{done}");
    assert_eq!((&done["problem"], &done["files_waiting"]), (&Value::Null, &0.into()));
    let metrics = server.get("/metrics").text();
    for line in [
        format!("compaction_files_read_total {files}"),
        format!("lake_files_removed_total {files}"),
        "db_operations_latency_seconds_count{operation=\"compact\"}".to_owned(),
        "lake_files_waiting 0".to_owned(),
    ] {
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }
}

#[test]
fn the_commands_ask_the_server_of_the_directory_or_do_it_themselves() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let place = data.to_str().unwrap();
    let said = |arguments: &[&str]| {
        let output = run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    let server = Server::on(&data, &BY_HAND);
    roll_often(&server, 4, 10);
    let told = said(&["compact", "--data", place]);
    assert!(told.starts_with("joined 4 files, "), "{told}");
    let told = said(&["vacuum", "--url", &server.url()]);
    assert!(told.starts_with("removed 4 files, "), "{told}");
    roll_often(&server, 4, 10);
    assert!(server.stop().0.success());

    let told = said(&["compact", "--data", place]);
    assert!(told.starts_with("joined "), "{told}");
    // On its own a command keeps to the default time for replaced files.
    let told = said(&["vacuum", "--data", place]);
    assert!(told.starts_with("removed 0 files, 0 B; 5 replaced files stay"), "{told}");
    assert!(said(&["compact", "--data", place]).starts_with("nothing to join; "));
    assert!(said(&["verify", "--data", place]).contains("80 events, each exactly once"));

    let nowhere = directory.path().join("nowhere");
    let output = run(&["compact", "--data", nowhere.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("there is no data directory"), "{output:?}");
    assert_eq!(run(&["vacuum", "--data", place, "--url", "http://x"]).status.code(), Some(2));
}

/// Tells other threads that it is over, also when the test has failed.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        // Relaxed: the flag is all there is.
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The server is killed while events come in, hot tables roll ten times a second and files are
/// joined and removed all the time.
#[test]
fn after_kill_9_in_the_middle_of_compactions_every_event_is_there_once() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let settings = [
        ("RINGLAKE_HOT_ROLL_AGE_MS", "100"),
        ("RINGLAKE_HOT_FLUSH_INTERVAL_MS", "10"),
        ("RINGLAKE_COMPACTION_INTERVAL_MS", "5"),
        ("RINGLAKE_COMPACTION_RETAIN_MS", "0"),
    ];
    let (mut acknowledged, mut sent) = (0, 0);
    for round in 1..=4 {
        let server = Server::on(&data, &settings);
        let stored = server.count();
        assert!((acknowledged..=sent).contains(&stored), "{acknowledged} <= {stored} <= {sent}");
        (acknowledged, sent) = (stored, stored);
        let (stop, compactions) = (AtomicBool::new(false), AtomicU64::new(0));
        thread::scope(|scope| {
            let over = Done(&stop);
            scope.spawn(|| {
                // Relaxed, all: only flags and counts.
                while !stop.load(Ordering::Relaxed) {
                    ask(server.address, "POST", "/v1/admin/compact");
                    // Nothing comes once the server is killed.
                    let Some(status) = ask(server.address, "GET", "/v1/status") else { return };
                    let status: Value = serde_json::from_str(&status).unwrap();
                    let commits = status["compaction"]["commits"].as_u64().unwrap();
                    compactions.store(commits, Ordering::Relaxed);
                }
            });
            let mut connection = server.connect();
            let began = Instant::now();
            while compactions.load(Ordering::Relaxed) < round {
                assert!(began.elapsed() < PATIENCE, "no compactions");
                let body = [r#"{"event":"e"}"#; 20].join("\n");
                sent += 20;
                let answer = connection.request("POST", "/v1/events", &[], body.as_bytes());
                assert_eq!(answer.status, 202, "{}", answer.text());
                acknowledged += 20;
            }
            server.signal(Signal::KILL);
            drop(over);
        });
        server.wait();
        let output = run(&["verify", "--data", data.to_str().unwrap()]);
        assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    }
    let server = Server::on(&data, &BY_HAND);
    assert_eq!(server.count(), acknowledged);
    assert_eq!(server.post("/v1/admin/roll", "").status, 200);
    assert_eq!(server.post("/v1/admin/compact", "").status, 200);
    assert_eq!(server.post("/v1/admin/vacuum", "").status, 200);
    assert_eq!(server.count(), acknowledged);
    let live = server.status()["lake"]["files"].as_u64().unwrap();
    assert_eq!(data_files(&data), live, "no orphan is left");
    server.stop();
    let output = run(&["verify", "--data", data.to_str().unwrap()]);
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

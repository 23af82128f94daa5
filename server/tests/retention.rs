//! Retention seen from outside: configuration, status, metrics, the command, and kills in the middle.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use std::path::Path;

use rustix::process::Signal;
use support::{Server, run, text};

mod support;

const EVENTS: usize = 20;

fn send(server: &Server) {
    let body = [r#"{"event":"e"}"#; EVENTS].join("\n");
    assert_eq!(server.post("/v1/events", body).status, 202);
}

/// What `verify` says of a directory that is sound.
fn verified(data: &Path) -> String {
    let output = run(&["verify", "--data", data.to_str().unwrap()]);
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn what_is_due_is_told_and_goes_when_it_is_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let settings = [("RINGLAKE_COMPACTION_INTERVAL_MS", "0"), ("RINGLAKE_RETENTION_AGE_MS", "1")];
    let server = Server::on(&data, &settings);
    send(&server);
    server.roll();
    send(&server);
    server.flush();
    let due = || server.status()["retention"]["due_rows"].as_u64().unwrap();
    server.wait_until("the file is a millisecond old", || due() == EVENTS as u64);
    assert_eq!(server.status()["retention"]["age_ms"], 1);
    assert!(!server.get("/metrics").text().contains("retention_due_bytes 0\n"));

    let output = run(&["vacuum", "--url", &server.url()]);
    let told = text(&output.stdout);
    assert!(told.contains("20 events past retention left the table"), "{told}");
    assert_eq!(server.count(), EVENTS as u64, "what is not in a file yet stays");
    let metrics = server.get("/metrics").text();
    for line in ["retention_rows_total 20", "retention_files_total ", "retention_due_bytes 0"] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    assert!(server.stop().0.success());
    let told = verified(&data);
    assert!(told.contains("20 past retention"), "{told}");
}

/// The server is killed while events come in, hot tables roll ten times a second and each file that
/// they become goes at the next look.
#[test]
fn after_kill_9_in_the_middle_of_retention_nothing_counts_as_lost() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let settings = [
        ("RINGLAKE_HOT_ROLL_AGE_MS", "100"),
        ("RINGLAKE_HOT_FLUSH_INTERVAL_MS", "10"),
        ("RINGLAKE_COMPACTION_INTERVAL_MS", "5"),
        ("RINGLAKE_COMPACTION_RETAIN_MS", "0"),
        ("RINGLAKE_RETENTION_AGE_MS", "1"),
    ];
    for round in 1..=4 {
        let server = Server::on(&data, &settings);
        server.wait_until("files go", || {
            send(&server);
            server.status()["retention"]["files"].as_u64().unwrap() >= round
        });
        server.signal(Signal::KILL);
        server.wait();
        assert!(verified(&data).contains("past retention"));
    }
    let server = Server::on(&data, &settings);
    server.roll();
    server.wait_until("everything has gone", || server.count() == 0);
    assert_eq!(server.status()["retention"]["problem"], serde_json::Value::Null);
    assert!(server.stop().0.success());
    assert!(verified(&data).contains("fine     0 events"));
}

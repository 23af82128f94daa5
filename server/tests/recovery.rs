//! Starts after crashes: what they replay, what they say meanwhile, what they refuse.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ringlake_faults::Image;
use serde_json::Value;
use support::{PATIENCE, Server, run, text};

mod support;

/// Nothing is rolled unless somebody asks for it.
const NO_ROLLS: [(&str, &str); 3] = [
    ("RINGLAKE_HOT_ROLL_ROWS", "100000000"),
    ("RINGLAKE_HOT_ROLL_BYTES", "17179869184"),
    ("RINGLAKE_HOT_ROLL_AGE_MS", "86400000"),
];

fn send(server: &Server, first: usize, events: usize) {
    let lines: Vec<String> = (first..first + events)
        .map(|number| format!(r#"{{"event":"e{}","user_id":"{number}"}}"#, number % 7))
        .collect();
    let answer = server.post("/v1/events", lines.join("\n"));
    assert_eq!(answer.status, 202, "{}", answer.text());
}

/// Every event from 0 to `events` is there once.
fn assert_holds(server: &Server, events: usize) {
    let sql = "SELECT count(*) AS n, count(DISTINCT user_id) AS users,
               count(DISTINCT (shard, sequence)) AS numbers FROM events";
    let row = &server.query(sql)[0];
    for column in ["n", "users", "numbers"] {
        assert_eq!(row[column].as_u64(), Some(events as u64), "{column} in {row}");
    }
}

fn assert_verified(data: &Path) -> String {
    let output = run(&["verify", "--data", data.to_str().unwrap()]);
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "{said}");
    said
}

fn scratch() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    (directory, data)
}

/// Looks at the status until `enough` says so.
fn wait_until(server: &Server, what: &str, enough: impl Fn(&Value) -> bool) {
    let until = Instant::now() + PATIENCE;
    loop {
        let status = server.status();
        if enough(&status) {
            return;
        }
        assert!(Instant::now() < until, "{what}: {status}");
    }
}

/// A start that is killed while it replays, twice, and has rolled a part by then.
#[test]
fn a_replay_that_is_killed_goes_on_where_the_table_ends() {
    let (_directory, data) = scratch();
    const EVENTS: usize = 60_000;
    let server = Server::on(&data, &NO_ROLLS);
    for first in (0..EVENTS).step_by(2_000) {
        send(&server, first, 2_000);
    }
    server.kill();

    // Small tables and a small queue, so that the replay waits for its rolls.
    let slow = [("RINGLAKE_HOT_ROLL_ROWS", "1024"), ("RINGLAKE_HOT_QUEUE_BYTES", "1048576")];
    let mut rolled = 0;
    for _ in 0..2 {
        let server = Server::starting_on(&data, &slow);
        wait_until(&server, "something is rolled", |status| {
            status["lake"]["rows"].as_u64().unwrap() > rolled
        });
        rolled = server.status()["lake"]["rows"].as_u64().unwrap();
        server.kill();
        assert_verified(&data);
    }
    let server = Server::on(&data, &[]);
    let recovered = server.status()["recovered"].as_u64().unwrap();
    assert!(recovered <= EVENTS as u64 - rolled, "{recovered} after {rolled} were rolled");
    assert_holds(&server, EVENTS);
    server.stop();
    assert_verified(&data);
}

/// The Delta commit is there, and the process ends before a segment is deleted.
#[test]
fn segments_that_the_table_holds_are_not_replayed() {
    let (directory, data) = scratch();
    let mut variables = NO_ROLLS.to_vec();
    variables.push(("RINGLAKE_LOG_SEGMENT_BYTES", "1048576"));
    let server = Server::on(&data, &variables);
    const EVENTS: usize = 40_000;
    for first in (0..EVENTS).step_by(2_000) {
        send(&server, first, 2_000);
    }
    let copy = directory.path().join("log");
    Image::read(&data.join("log"), &|_| false).unwrap().write(&copy).unwrap();
    assert_eq!(server.post("/v1/admin/roll", "").status, 200);
    server.kill();
    fs::remove_dir_all(data.join("log")).unwrap();
    fs::rename(&copy, data.join("log")).unwrap();

    assert_verified(&data);
    let server = Server::on(&data, &NO_ROLLS);
    assert_eq!(server.status()["recovered"], 0);
    send(&server, EVENTS, 10);
    assert_eq!(server.post("/v1/admin/roll", "").status, 200);
    assert_holds(&server, EVENTS + 10);
    server.stop();
    assert_verified(&data);
}

#[test]
fn fewer_and_more_shards_than_before_lose_nothing() {
    let (_directory, data) = scratch();
    let mut sent = 0;
    for shards in ["4", "1", "3", "2"] {
        let mut variables = NO_ROLLS.to_vec();
        variables.push(("RINGLAKE_SHARDS", shards));
        let server = Server::on(&data, &variables);
        assert_eq!(server.status()["shards"].as_array().unwrap().len().to_string(), shards);
        // As many connections as shards, so that each has some.
        for _ in 0..8 {
            send(&server, sent, 50);
            sent += 50;
        }
        assert_holds(&server, sent);
        server.kill();
        assert_verified(&data);
    }
    let server = Server::on(&data, &[("RINGLAKE_SHARDS", "1")]);
    assert_eq!(server.post("/v1/admin/roll", "").status, 200);
    assert_holds(&server, sent);
    server.stop();
    assert!(assert_verified(&data).contains("400 events in the table") || sent != 400);
}

/// A start says how far it is, and answers nothing else than that with 503.
#[test]
fn a_start_that_replays_says_how_far_it_is() {
    let (_directory, data) = scratch();
    let server = Server::on(&data, &NO_ROLLS);
    for first in (0..20_000).step_by(2_000) {
        send(&server, first, 2_000);
    }
    server.kill();
    let slow = [("RINGLAKE_HOT_ROLL_ROWS", "1024"), ("RINGLAKE_HOT_QUEUE_BYTES", "1048576")];
    let mut server = Server::starting_on(&data, &slow);
    let until = Instant::now() + PATIENCE;
    let recovery = loop {
        let answer = server.get("/readyz");
        assert!(Instant::now() < until && answer.status == 503, "{}", answer.text());
        let recovery = answer.json()["recovery"].clone();
        let message = answer.error()["message"].as_str().unwrap().to_owned();
        if message.contains("replaying the log: ") && message.contains(" s left") {
            assert!(recovery["phase"] == "replaying", "{recovery}");
            break recovery;
        }
    };
    let (done, total) =
        (recovery["bytes_done"].as_u64().unwrap(), recovery["bytes_total"].as_u64().unwrap());
    assert!(0 < done && done <= total, "{recovery}");
    assert_eq!(server.post("/v1/events", r#"{"event":"a"}"#).status, 503);
    server.wait_ready();
    let recovery = &server.status()["recovery"];
    assert_eq!(
        (recovery["phase"].as_str(), recovery["events"].as_u64()),
        (Some("done"), Some(20_000))
    );
    assert_eq!(recovery["bytes_done"], recovery["bytes_total"]);
    let metrics = server.get("/metrics").text();
    assert!(metrics.contains("events_recovered_total 20000"), "{metrics}");
    let (_, log) = server.stop();
    assert!(log.contains("log replayed") && log.contains("events_per_second"), "{log}");
}

/// One sentence and exit code 1 from every command that would write or read beside a server.
#[test]
fn a_second_process_is_told_who_has_the_directory() {
    let server = Server::start();
    send(&server, 0, 5);
    let data = server.data.to_str().unwrap();
    let file = server.data.with_file_name("events.ndjson");
    fs::write(&file, r#"{"event":"a"}"#).unwrap();
    for arguments in [
        &["serve", "--listen", "127.0.0.1:0", "--data", data][..],
        &["import", file.to_str().unwrap(), "--data", data],
        &["query", "SELECT count(*) FROM events", "--data", data],
    ] {
        let output = run(arguments);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert_eq!(said.trim().lines().count(), 1, "{arguments:?}: {said}");
        let owner = format!("is in use by process {}", server.process());
        let url = server.url();
        let address = url.trim_start_matches("http://");
        assert!(said.contains(&owner) && said.contains(address), "{arguments:?}: {said}");
    }
    // What only reads the files may run beside it.
    assert!(assert_verified(&server.data).contains("5 events, each exactly once"));
    assert_holds(&server, 5);
}

/// A log that another version has written is refused, and nothing in it is changed.
#[test]
fn a_log_of_another_version_is_refused_with_one_sentence() {
    let (_directory, data) = scratch();
    let server = Server::on(&data, &[("RINGLAKE_SHARDS", "1")]);
    send(&server, 0, 5);
    server.stop();
    let segment = fs::read_dir(data.join("log/0")).unwrap().next().unwrap().unwrap().path();
    let ours = fs::read(&segment).unwrap();
    let mut theirs = ours.clone();
    theirs[8..12].copy_from_slice(&9_u32.to_le_bytes());
    fs::write(&segment, &theirs).unwrap();

    let sentence = "is a log of format 9; this version reads format 2";
    let server = Server::starting_on(&data, &[]);
    let until = Instant::now() + PATIENCE;
    loop {
        let answer = server.get("/readyz");
        assert_eq!(answer.status, 503);
        if answer.text().contains(sentence) {
            break;
        }
        assert!(Instant::now() < until, "{}", answer.text());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(server.post("/v1/events", r#"{"event":"a"}"#).status, 503);
    server.stop();
    let data_text = data.to_str().unwrap();
    let output = run(&["query", "SELECT 1", "--data", data_text]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains(sentence), "{}", text(&output.stderr));
    let output = run(&["verify", "--data", data_text]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains(sentence), "{}", text(&output.stderr));
    assert_eq!(fs::read(&segment).unwrap(), theirs);

    fs::write(&segment, &ours).unwrap();
    assert_holds(&Server::on(&data, &[]), 5);
}

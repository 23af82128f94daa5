//! While the log is replayed the port answers, and says how far it is.
//!
//! The replay is held up for as long as the test wants: its rolls find files where directories
//! should be, hot tables fill, and so does the queue.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use std::path::{Path, PathBuf};
use std::time::Instant;

use support::{Answer, PATIENCE, Server, run};

mod support;

const EVENTS: &str = "/v1/events";
const REQUESTS: usize = 40;
const EVENTS_A_REQUEST: usize = 250;
const NOTHING_ROLLS: [(&str, &str); 3] = [
    ("RINGLAKE_HOT_ROLL_ROWS", "1000000"),
    ("RINGLAKE_HOT_ROLL_AGE_MS", "3600000"),
    ("RINGLAKE_SHARDS", "2"),
];
const NARROW: [(&str, &str); 3] = [
    ("RINGLAKE_HOT_ROLL_ROWS", "1024"),
    ("RINGLAKE_HOT_QUEUE_BYTES", "1048576"),
    ("RINGLAKE_SHARDS", "2"),
];

/// Fills the log of `data`, and puts files where the table's directories would be.
fn hold_up(data: &Path) -> Vec<PathBuf> {
    let server = Server::on(data, &NOTHING_ROLLS);
    let line = format!("{{\"event\":\"before\",\"url\":\"{}\"}}\n", "x".repeat(1_000));
    let body = line.repeat(EVENTS_A_REQUEST);
    for _ in 0..REQUESTS {
        assert_eq!(server.post(EVENTS, &body).status, 202);
    }
    // Midnight may have passed meanwhile.
    let days = server.query("SELECT DISTINCT \"date\"::VARCHAR AS day FROM events");
    let (status, log) = server.stop();
    assert!(status.success(), "{log}");
    let obstacle = |day: &str| data.join("events").join(format!("date={day}"));
    let obstacles: Vec<PathBuf> =
        days.iter().map(|row| obstacle(row["day"].as_str().unwrap())).collect();
    obstacles.iter().for_each(|path| std::fs::write(path, b"").unwrap());
    obstacles
}

/// A server whose replay has come as far as it can.
fn start_replaying(data: &Path) -> Server {
    let server = Server::starting_on(data, &NARROW);
    // Two tables of half the rows that one may have otherwise.
    server.wait_until("the replay has begun", || {
        server.status()["hot"]["rows"].as_u64().unwrap() >= 1_024
    });
    server
}

/// Checks a refusal; gives how much of the log has been read and how much there is.
fn progress(answer: &Answer) -> (u64, u64) {
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.header("retry-after").is_some());
    let error = answer.error();
    assert_eq!(error["code"], "not_ready");
    let message = error["message"].as_str().unwrap();
    let (_, numbers) = message.split_once("replaying the log: ").unwrap();
    let mut numbers = numbers.split(' ').filter_map(|word| word.parse().ok());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

#[test]
fn during_a_replay_the_port_answers_with_the_progress_and_then_events_are_accepted() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let obstacles = hold_up(&data);
    let server = start_replaying(&data);

    assert_eq!(server.get("/healthz").status, 200);
    for answer in [
        server.get("/readyz"),
        server.post(EVENTS, r#"{"event":"early"}"#),
        server.get("/v1/pixel.gif?event=early"),
    ] {
        let (done, all) = progress(&answer);
        assert!(0 < done && done < all, "{done} of {all}");
    }
    for (path, body) in [("/v1/query", "SELECT 1"), ("/v1/admin/flush", ""), ("/v1/admin/roll", "")]
    {
        let answer = server.post(path, body);
        assert_eq!((answer.status, answer.error()["code"].as_str()), (503, Some("not_ready")));
    }
    let metrics = server.get("/metrics").text();
    assert!(metrics.lines().any(|line| line == "ready 0"), "{metrics}");
    assert_eq!(server.status()["ready"], false);
    let accounting = server.accounting();
    assert_eq!(
        (&accounting["received"], &accounting["refused"]["not_ready"]),
        (&2.into(), &2.into())
    );

    obstacles.iter().for_each(|path| std::fs::remove_file(path).unwrap());
    server.wait_until("the replay ends", || server.get("/readyz").status == 200);
    assert_eq!(server.post(EVENTS, r#"{"event":"after"}"#).status, 202);
    assert_eq!(server.count(), (REQUESTS * EVENTS_A_REQUEST + 1) as u64);
    assert_eq!(server.status()["recovered"], REQUESTS * EVENTS_A_REQUEST);
    server.accounting();
    let (status, log) = server.stop();
    assert!(status.success(), "{log}");
    let verified = run(&["verify", "--data", data.to_str().unwrap()]);
    assert!(verified.status.success(), "{}", support::text(&verified.stdout));
}

#[test]
fn a_server_that_is_stopped_during_its_replay_ends_at_once_and_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let obstacles = hold_up(&data);
    let server = start_replaying(&data);
    let began = Instant::now();
    let (status, log) = server.stop();
    assert!(status.success(), "{log}");
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());

    obstacles.iter().for_each(|path| std::fs::remove_file(path).unwrap());
    let server = Server::on(&data, &NOTHING_ROLLS);
    assert_eq!(server.count(), (REQUESTS * EVENTS_A_REQUEST) as u64);
    server.stop();
}

//! Copies of a server's data while it takes events, rolls and joins files: each holds what was
//! acknowledged before, once, and starts.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

mod support;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use support::{Server, run, text};

/// Rolls and compactions all the time, and segments that go as soon as they can.
const BUSY: [(&str, &str); 5] = [
    ("RINGLAKE_HOT_ROLL_AGE_MS", "100"),
    ("RINGLAKE_HOT_FLUSH_INTERVAL_MS", "10"),
    ("RINGLAKE_COMPACTION_INTERVAL_MS", "5"),
    ("RINGLAKE_COMPACTION_RETAIN_MS", "0"),
    ("RINGLAKE_LOG_SEGMENT_BYTES", "1048576"),
];

fn backup(data: &Path, output: &Path) {
    let (data, output) = (data.to_str().unwrap(), output.to_str().unwrap());
    let made = run(&["backup", "--data", data, "--output", output]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    assert!(text(&made.stdout).contains("ringlake verify --data"), "{}", text(&made.stdout));
    let verified = run(&["verify", "--data", output]);
    assert!(verified.status.success(), "{}{}", text(&verified.stdout), text(&verified.stderr));
}

#[test]
fn a_copy_of_a_busy_server_holds_what_was_acknowledged_before_once() {
    let server = Server::with(&BUSY);
    let scratch = tempfile::tempdir().unwrap();
    let (stop, acknowledged) = (AtomicBool::new(false), AtomicU64::new(0));
    let copies: Vec<_> = thread::scope(|scope| {
        scope.spawn(|| {
            let mut connection = server.connect();
            // Relaxed: the flag is all there is.
            while !stop.load(Ordering::Relaxed) {
                let number = acknowledged.load(Ordering::Relaxed); // Relaxed: written here only.
                let events: String = (number..number + 100)
                    .map(|id| format!("{{\"event\":\"a\",\"user_id\":\"{id}\"}}\n"))
                    .collect();
                let answer = connection.request("POST", "/v1/events", &[], events.as_bytes());
                match answer.status {
                    // Release: pairs with the load before a copy.
                    202 => acknowledged.store(number + 100, Ordering::Release),
                    429 | 503 => thread::yield_now(),
                    other => panic!("{other}: {}", answer.text()),
                }
            }
        });
        let copies = (0..3)
            .map(|copy| {
                let enough = (copy + 1) * 3_000;
                // Acquire: pairs with the store of the client.
                let sent = || acknowledged.load(Ordering::Acquire);
                server.wait_until("there is more", || sent() >= enough);
                let (before, output) = (sent(), scratch.path().join(copy.to_string()));
                backup(&server.data, &output);
                (before, output)
            })
            .collect();
        // Relaxed: as above.
        stop.store(true, Ordering::Relaxed);
        copies
    });
    for (before, output) in copies {
        let copy = Server::on(&output, &[]);
        let rows = copy.query(&format!(
            "SELECT count(*) AS n, count(DISTINCT user_id) AS ids, \
             count(*) FILTER (user_id::BIGINT < {before}) AS before FROM events"
        ));
        assert_eq!(rows[0]["n"], rows[0]["ids"], "{rows:?}");
        assert_eq!(rows[0]["before"], before, "{rows:?}");
        copy.stop();
    }
}

#[test]
fn a_copy_has_the_keys_and_never_overwrites() {
    let server = Server::with_keys(&[]);
    assert_eq!(server.post("/v1/events", r#"{"event":"a"}"#).status, 202);
    let scratch = tempfile::tempdir().unwrap();
    let output = scratch.path().join("copy");
    backup(&server.data, &output);
    assert!(!output.join("salt").exists(), "a salt has to be gone tomorrow");
    let refused = run(&[
        "backup",
        "--data",
        server.data.to_str().unwrap(),
        "--output",
        output.to_str().unwrap(),
    ]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("is there already"), "{}", text(&refused.stderr));
    let mut copy = Server::starting_on(&output, &[]);
    copy.use_key(server.key());
    copy.wait_ready();
    assert_eq!(copy.count(), 1);
    copy.stop();
}

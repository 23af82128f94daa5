//! A disk that is really full: a tmpfs of 64 MB holds the data directory, events and a ballast file
//! fill it, and what was acknowledged has to outlive that.
//!
//! A mount needs root, or a user namespace; where there is neither the tests say so and end.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::{Answer, Connection, PATIENCE, Server, run};

mod support;

const EVENTS: &str = "/v1/events";
const MIB: usize = 1 << 20;
const CLIENTS: usize = 4;
/// Tells the test that it runs inside the namespace it has made for itself.
const UNSHARED: &str = "RINGLAKE_TEST_UNSHARED";
/// Small pieces of everything, so that 64 MB hold many of each.
const SMALL: [(&str, &str); 5] = [
    ("RINGLAKE_SHARDS", "2"),
    ("RINGLAKE_RING_BYTES", "1048576"),
    ("RINGLAKE_LOG_SEGMENT_BYTES", "1048576"),
    ("RINGLAKE_LOG_BATCH_BYTES", "262144"),
    ("RINGLAKE_HOT_ROLL_ROWS", "2000"),
];

/// A mounted tmpfs; unmounted when dropped.
struct Disk(tempfile::TempDir);

impl Disk {
    fn mount() -> Option<Self> {
        let place = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64m", "ringlake-test"])
            .arg(place.path())
            .stderr(Stdio::null())
            .status();
        mounted.is_ok_and(|status| status.success()).then(|| Self(place))
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn ballast(&self) -> PathBuf {
        self.0.path().join("ballast")
    }

    /// Puts `bytes` of ballast on the disk, or as many as it takes.
    fn fill(&self, bytes: usize) {
        let mut file = File::options().create(true).append(true).open(self.ballast()).unwrap();
        for _ in 0..bytes / 4_096 {
            if file.write_all(&[0; 4_096]).is_err() {
                break;
            }
        }
    }

    /// Does `check` while every byte that is given back is taken at once: rolls that were under way
    /// go on to let go of their log.
    fn while_full<T>(&self, check: impl FnOnce() -> T) -> T {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Relaxed: nothing is handed over.
                while !done.load(Ordering::Relaxed) {
                    self.fill(64 * MIB);
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            // Also when `check` panics: the scope waits for the thread.
            let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(check));
            // Relaxed: as above.
            done.store(true, Ordering::Relaxed);
            checked.unwrap_or_else(|problem| std::panic::resume_unwind(problem))
        })
    }

    fn empty(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a server that is being killed may still hold it.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// Runs `test` on a small disk: here, or in a namespace in which we are root.
fn on_a_small_disk(name: &str, test: fn(&Disk)) {
    if let Some(disk) = Disk::mount() {
        test(&disk);
        return;
    }
    let unshare = |program: &Path, arguments: &[&str]| {
        let mut command = Command::new("unshare");
        command.arg("-rm").arg(program).args(arguments).env(UNSHARED, "1");
        command.status().is_ok_and(|status| status.success())
    };
    if std::env::var_os(UNSHARED).is_some() || !unshare(Path::new("true"), &[]) {
        eprintln!("{name} is skipped: neither `mount -t tmpfs` nor `unshare -rm` works here");
        return;
    }
    let itself = std::env::current_exe().unwrap();
    assert!(unshare(&itself, &["--exact", name, "--nocapture"]), "{name} failed");
}

/// Text that hardly compresses.
fn noise(seed: u64, length: usize) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let letter = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
                [(state % 64) as usize],
        )
    };
    std::iter::repeat_with(letter).take(length).collect()
}

/// A request and what became of it.
#[derive(Debug)]
struct Sent {
    ids: Vec<String>,
    acknowledged: bool,
}

/// Sends requests of 100 events of 1 KiB until one is refused with 503; gives that answer too.
fn load_until_refused(server: &Server, name: &str) -> (Vec<Sent>, Answer) {
    let (sent, refusal) = load(server, name, usize::MAX);
    (sent, refusal.unwrap())
}

/// Sends up to `requests` requests of 100 events of 1 KiB, until one is refused with 503.
fn load(server: &Server, name: &str, requests: usize) -> (Vec<Sent>, Option<Answer>) {
    let mut connection = server.connect();
    let mut sent = Vec::new();
    let until = Instant::now() + PATIENCE;
    while sent.len() < requests {
        assert!(Instant::now() < until, "{name} sent {} requests", sent.len());
        let request = sent.len();
        let ids: Vec<String> = (0..100).map(|event| format!("{name}-{request}-{event}")).collect();
        let lines = ids.iter().enumerate().map(|(event, id)| {
            let seed = (request * 100 + event) as u64 + u64::from(name.as_bytes()[0]) * 1_000_000;
            format!(r#"{{"event":"full","user_id":"{id}","url":"{}"}}"#, noise(seed, 1_000))
        });
        let body = lines.collect::<Vec<_>>().join("\n");
        let answer = connection.request("POST", EVENTS, &[], body.as_bytes());
        let acknowledged = answer.status == 202;
        sent.push(Sent { ids, acknowledged });
        match answer.status {
            202 => {}
            429 => std::thread::sleep(Duration::from_millis(5)),
            503 => return (sent, Some(answer)),
            other => panic!("{other}: {}", answer.text()),
        }
    }
    (sent, None)
}

/// Several clients at once until each is refused; gives the codes that they got.
fn load_from_all(server: &Server, round: char) -> (Vec<Sent>, Vec<String>) {
    let outcomes: Vec<(Vec<Sent>, Answer)> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                scope.spawn(move || load_until_refused(server, &format!("{round}{number}")))
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let mut all = Vec::new();
    let mut codes = Vec::new();
    for (sent, answer) in outcomes {
        assert!(answer.header("retry-after").is_some(), "{}", answer.text());
        codes.push(answer.error()["code"].as_str().unwrap().to_owned());
        all.extend(sent);
    }
    codes.sort();
    codes.dedup();
    (all, codes)
}

/// Queries answer, with whole requests, each once, and soon with some. What waits for a roll may not be
/// visible yet.
fn judge_while_full(server: &Server) {
    let sql =
        "SELECT count(*) AS n, count(DISTINCT user_id) AS ids FROM events WHERE event = 'full'";
    server.wait_until("queries see what was accepted", || {
        let answer = server.post("/v1/query", sql);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let counts = answer.json();
        assert_eq!(counts["n"], counts["ids"]);
        assert_eq!(counts["n"].as_u64().unwrap() % 100, 0, "{counts}");
        counts["n"].as_u64().unwrap() >= 2_000
    });
}

/// Every acknowledged request is there once and whole, every other one once, whole, or not at all.
fn judge(server: &Server, sent: &[Sent]) {
    let rows = server.query(
        "SELECT user_id AS id, count(*) AS n FROM events WHERE event = 'full' GROUP BY user_id",
    );
    let mut stored: HashMap<&str, u64> =
        rows.iter().map(|row| (row["id"].as_str().unwrap(), row["n"].as_u64().unwrap())).collect();
    for request in sent {
        let copies: Vec<u64> =
            request.ids.iter().map(|id| stored.remove(id.as_str()).unwrap_or(0)).collect();
        assert!(copies.iter().all(|n| *n == copies[0] && *n <= 1), "{copies:?} of {request:?}");
        assert!(copies[0] == 1 || !request.acknowledged, "acknowledged and lost: {request:?}");
    }
    assert!(stored.is_empty(), "never sent, but stored: {stored:?}");
}

fn assert_verified(data: &Path) {
    let output = run(&["verify", "--data", data.to_str().unwrap()]);
    let said = support::text(&output.stderr) + &support::text(&output.stdout);
    assert!(output.status.success(), "{said}");
}

/// `/readyz` says why not.
fn reason(server: &Server) -> String {
    let answer = server.get("/readyz");
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.header("retry-after").is_some());
    answer.error()["message"].as_str().unwrap().to_owned()
}

fn is_refused(connection: &mut Connection, code: &str) {
    let answer = connection.request("POST", EVENTS, &[], br#"{"event":"refused"}"#);
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(answer.error()["code"], code);
}

/// Parquet files on the disk, whether the table knows them or not.
fn parquet_files(directory: &Path) -> usize {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let count = |path: PathBuf| match path.is_dir() {
        true => parquet_files(&path),
        false => usize::from(path.to_str().unwrap().ends_with(".parquet")),
    };
    entries.map(count).sum()
}

#[test]
fn at_the_floor_events_are_refused_until_there_is_room_and_none_is_lost() {
    on_a_small_disk(
        "at_the_floor_events_are_refused_until_there_is_room_and_none_is_lost",
        at_the_floor,
    );
}

fn at_the_floor(disk: &Disk) {
    // The defaults: an eighth of the disk is the floor.
    disk.fill(24 * MIB);
    let server = Server::on(&disk.data(), &SMALL);
    let (mut sent, codes) = load_from_all(&server, 'a');
    // The floor leaves room for log and rolls, unless a busy machine looks too late.
    const NO_ROOM: [&str; 3] = ["disk_full", "not_durable", "backlog"];
    assert!(codes.iter().all(|code| NO_ROOM.contains(&code.as_str())), "{codes:?}");
    // Rolls give the log's room back, and then there may be enough. Now there is none at all.
    disk.while_full(|| {
        server.wait_until("the floor is noticed", || {
            let answer = server.get("/readyz");
            answer.status == 503 && answer.text().contains("the disk is full: ")
        });
        assert!(reason(&server).contains("the disk is full: "), "{}", reason(&server));
        let mut connection = server.connect();
        let mut refused = 0;
        server.wait_until("a hundred requests are refused", || {
            let answer = connection.request("POST", EVENTS, &[], br#"{"event":"refused"}"#);
            // Not refused: a roll has just given room back.
            refused += i32::from(answer.status == 503 && answer.error()["code"] == "disk_full");
            assert!(matches!(answer.status, 202 | 503), "{}", answer.text());
            refused == 100
        });
        assert_eq!(server.get("/healthz").status, 200);
        judge_while_full(&server);
        let accounting = server.accounting();
        assert!(accounting["refused"]["disk_full"].as_u64().unwrap() >= 100, "{accounting}");
        assert_eq!(server.status()["space"]["lake"]["free_min_bytes"], 8 * MIB);
        let free = || server.status()["space"]["lake"]["free_bytes"].as_u64().unwrap();
        server.wait_until("the status says so", || free() < 8 << 20);
        let metrics = server.get("/metrics").text();
        assert!(metrics.lines().any(|line| line == "ready 0"), "{metrics}");
    });

    // A start needs no room either. It may need some to replay everything.
    server.signal(Signal::KILL);
    server.wait();
    let server = Server::starting_on(&disk.data(), &SMALL);
    server.wait_until("the replay has begun", || !reason(&server).contains("0 of 0"));
    assert_eq!(server.get("/healthz").status, 200);
    let mut connection = server.connect();
    let answer = connection.request("POST", EVENTS, &[], br#"{"event":"refused"}"#);
    assert_eq!(answer.status, 503, "{}", answer.text());

    disk.empty();
    server.wait_until("there is room", || server.get("/readyz").status == 200);
    let (more, refusal) = load(&server, "b0", 20);
    assert!(refusal.is_none(), "{refusal:?}");
    sent.extend(more);
    judge(&server, &sent);
    server.accounting();
    assert!(server.peak_memory() < 400 * MIB as u64, "{}", server.peak_memory());
    let (status, log) = server.stop();
    assert!(status.success() && !log.contains("panicked"), "{log}");
    assert_verified(&disk.data());
}

#[test]
fn a_log_without_room_refuses_events_and_goes_on_by_itself() {
    on_a_small_disk("a_log_without_room_refuses_events_and_goes_on_by_itself", without_a_floor);
}

fn without_a_floor(disk: &Disk) {
    let settings = [&SMALL[..], &[("RINGLAKE_DISK_FREE_MIN_BYTES", "0")]].concat();
    let server = Server::on(&disk.data(), &settings);
    disk.fill(44 * MIB);
    let (mut sent, codes) = load_from_all(&server, 'a');
    assert_eq!(codes, ["not_durable"]);
    disk.fill(64 * MIB);
    let mut connection = server.connect();
    server.wait_until("nothing fits any more", || {
        let body = noise(1, 100_000);
        let body = format!(r#"{{"event":"probe","url":"{body}"}}"#);
        let answer = connection.request("POST", EVENTS, &[], body.as_bytes());
        assert!(matches!(answer.status, 202 | 503), "{}", answer.text());
        answer.status == 503 && server.get("/readyz").status == 503
    });
    judge_while_full(&server);

    // A full disk is no reason to be busy, or to write about it all the time.
    let (busy, began) = (server.processor_time(), Instant::now());
    while began.elapsed() < Duration::from_secs(2) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let busy = server.processor_time() - busy;
    assert!(busy < Duration::from_secs(1), "{busy:?} in two seconds without a client");
    let mut refused = 0;
    while refused <= 10 {
        let answer = connection.request("POST", EVENTS, &[], br#"{"event":"probe"}"#);
        refused += u32::from(answer.status == 503);
        assert!(began.elapsed() < PATIENCE, "{refused} refused");
    }
    judge_while_full(&server);
    let accounting = server.accounting();
    assert!(accounting["refused"]["not_durable"].as_u64().unwrap() > 10, "{accounting}");

    disk.empty();
    server.wait_until("there is room", || server.get("/readyz").status == 200);
    let (more, refusal) = load(&server, "b0", 50);
    assert!(refusal.is_none(), "{refusal:?}");
    sent.extend(more);
    judge(&server, &sent);
    server.accounting();
    assert!(server.peak_memory() < 400 * MIB as u64, "{}", server.peak_memory());
    disk.fill(64 * MIB);

    // Full again: what was accepted is durable, so the stop is in order.
    let (status, log) = server.stop();
    assert!(status.success(), "{log}");
    assert!(!log.contains("panicked") && log.lines().count() < 200, "{log}");
    assert_verified(&disk.data());
    let server = Server::starting_on(&disk.data(), &settings);
    assert_eq!(server.get("/healthz").status, 200);
    disk.empty();
    server.wait_until("the replay ends", || server.get("/readyz").status == 200);
    judge(&server, &sent);
    server.stop();
    assert_verified(&disk.data());
}

#[test]
fn what_a_failed_roll_has_written_does_not_stay_on_the_disk() {
    on_a_small_disk("what_a_failed_roll_has_written_does_not_stay_on_the_disk", failing_rolls);
}

/// The log is elsewhere, so that only rolls meet the full disk.
fn failing_rolls(disk: &Disk) {
    let elsewhere = tempfile::tempdir().unwrap();
    let data = elsewhere.path().join("data");
    let lake = disk.data();
    let settings = [
        ("RINGLAKE_LAKE", lake.to_str().unwrap()),
        ("RINGLAKE_SHARDS", "1"),
        ("RINGLAKE_RING_BYTES", "1048576"),
        ("RINGLAKE_DISK_FREE_MIN_BYTES", "0"),
        ("RINGLAKE_HOT_ROLL_ROWS", "4000"),
        ("RINGLAKE_HOT_QUEUE_BYTES", "2097152"),
    ];
    let server = Server::on(&data, &settings);
    disk.fill(61 * MIB);
    let (sent, answer) = load_until_refused(&server, "a0");
    assert_eq!(answer.error()["code"], "backlog", "{}", answer.text());
    assert!(reason(&server).contains("the table takes no commit: "), "{}", reason(&server));
    let before = server.peak_memory();
    let began = Instant::now();
    let mut connection = server.connect();
    while began.elapsed() < Duration::from_secs(2) {
        is_refused(&mut connection, "backlog");
    }
    assert!(server.peak_memory() < before + 32 * MIB as u64, "{before}, {}", server.peak_memory());
    for wait in ["roll", "flush", "compact", "vacuum"].map(|what| format!("/v1/admin/{what}")) {
        let wait = wait.as_str();
        let answer = server.post(wait, b"");
        assert_eq!((answer.status, answer.error()["code"].as_str()), (503, Some("stuck")));
    }
    let answer = server.post("/v1/query", "SELECT count(*) AS n FROM events");
    assert!(answer.json()["n"].as_u64().unwrap() >= 8_000, "{}", answer.text());
    server.accounting();

    disk.empty();
    server.wait_until("rolls go through", || server.get("/readyz").status == 200);
    let rolled = server.post("/v1/admin/roll", b"");
    assert_eq!(rolled.status, 200, "{}", rolled.text());
    assert_eq!(parquet_files(&lake) as u64, server.status()["lake"]["files"].as_u64().unwrap());
    judge(&server, &sent);
    let (status, log) = server.stop();
    assert!(status.success() && log.lines().count() < 100, "{log}");
}

#[test]
fn events_acknowledged_in_memory_and_lost_show_in_the_exit_code() {
    on_a_small_disk("events_acknowledged_in_memory_and_lost_show_in_the_exit_code", broken_promise);
}

fn broken_promise(disk: &Disk) {
    let settings = [&SMALL[..], &[("RINGLAKE_DISK_FREE_MIN_BYTES", "0")]].concat();
    let server = Server::on(&disk.data(), &settings);
    assert_eq!(server.post(EVENTS, r#"{"event":"a"}"#).status, 202);
    disk.fill(64 * MIB);
    let body = format!(r#"{{"event":"lost","url":"{}"}}"#, noise(1, 200_000));
    assert_eq!(server.post("/v1/events?ack=memory", body).status, 202);
    server.wait_until("the log fails", || server.get("/readyz").status == 503);
    assert_eq!(server.accounting()["refused"]["not_durable"], 1);
    let (status, log) = server.stop();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("ack=memory"), "{log}");
}

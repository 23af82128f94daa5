//! Erasing seen from outside: the routes, and that no file of the data directory knows the name any
//! more, also when the server was killed in the middle.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::{PATIENCE, Server, make_key, run, text};

mod support;

/// What nobody else is called.
const NAME: &str = "!forget-me-7f3a@example.com";

/// Segments that fill and are used again, rolls and compactions all the time.
const BUSY: [(&str, &str); 4] = [
    ("RINGLAKE_LOG_SEGMENT_BYTES", "1048576"),
    ("RINGLAKE_HOT_ROLL_AGE_MS", "100"),
    ("RINGLAKE_HOT_FLUSH_INTERVAL_MS", "10"),
    ("RINGLAKE_COMPACTION_INTERVAL_MS", "20"),
];

/// Whether the name stands in `file`, as it is or in a zstd frame: pages of Parquet are such.
fn knows(file: &[u8]) -> bool {
    const MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
    let stands_in = |bytes: &[u8]| bytes.windows(NAME.len()).any(|part| part == NAME.as_bytes());
    let frames = (0..file.len()).filter(|&at| file[at..].starts_with(MAGIC)).map(|at| {
        let mut content = Vec::new();
        // Four bytes that begin no frame end in an error, after whatever they gave.
        let _ = zstd::Decoder::new(&file[at..])
            .and_then(|frame| frame.single_frame().read_to_end(&mut content));
        content
    });
    stands_in(file) || frames.into_iter().any(|content| stands_in(&content))
}

/// The places below `data` where the name stands in a file.
fn traces(data: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut directories = vec![data.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            // A server that runs may have removed it.
            let bytes = std::fs::read(&path).unwrap_or_default();
            if knows(&bytes) {
                let place = path.strip_prefix(data).unwrap().components().next().unwrap();
                found.insert(place.as_os_str().to_str().unwrap().to_owned());
            }
        }
    }
    found
}

/// Sends `others` events of others around one of the user.
fn send(server: &Server, others: usize) {
    // Bytes that do not compress, so that segments fill.
    let noise = |number: usize| -> String {
        let word = |turn: usize| (number + 1).wrapping_mul(turn * 2 + 0x9e37_79b9_7f4a_7c15);
        (0..20).map(|turn| format!("{:016x}", word(turn))).collect()
    };
    let other =
        |number| format!(r#"{{"event":"e","user_id":"user-{number}","url":"{}"}}"#, noise(number));
    let mut lines: Vec<String> = (0..others).map(other).collect();
    lines.insert(others / 2, format!(r#"{{"event":"mine","user_id":"{NAME}"}}"#));
    assert_eq!(server.post("/v1/events", lines.join("\n")).status, 202);
}

fn ask(server: &Server) -> Value {
    let answer =
        server.post("/v1/admin/erase", json!({ "tenant": "default", "user_id": NAME }).to_string());
    assert_eq!(answer.status, 202, "{}", answer.text());
    let job = answer.json();
    let place = format!("/v1/admin/erase/{}", job["id"].as_str().unwrap());
    assert_eq!(answer.header("location"), Some(place.as_str()));
    assert!(!answer.text().contains(NAME), "the name is not told");
    job
}

/// Waits until every job is done; gives how many events they have erased.
fn erased(server: &Server) -> u64 {
    let list = || server.get("/v1/admin/erase").json()["erasures"].as_array().unwrap().clone();
    server.wait_until("all erasures are done", || list().iter().all(|job| job["status"] == "done"));
    list().iter().map(|job| job["events"].as_u64().unwrap()).sum()
}

fn verified(data: &Path) -> String {
    let output = run(&["verify", "--data", data.to_str().unwrap()]);
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn no_file_knows_the_name_after_an_erase_and_a_vacuum() {
    let mut server = Server::with(&BUSY);
    for _ in 0..20 {
        send(&server, 300);
    }
    server.roll();
    send(&server, 10);
    let export = server.post("/v1/exports", r#"{"format":"ndjson"}"#).json();
    let path = format!("/v1/exports/{}", export["id"].as_str().unwrap());
    server.wait_until("the export is done", || server.get(&path).json()["status"] == "done");
    let before = traces(&server.data);
    for place in ["log", "events", "exports"] {
        assert!(before.contains(place), "{before:?}");
    }

    let job = ask(&server);
    assert_eq!(erased(&server), 21);
    assert_eq!(server.post("/v1/admin/vacuum", "").status, 200);
    assert_eq!(traces(&server.data), BTreeSet::new());
    assert_eq!(server.get("/v1/exports").json()["exports"], json!([]));
    let path = format!("/v1/admin/erase/{}", job["id"].as_str().unwrap());
    let report = server.get(&path).json();
    assert_eq!((&report["status"], &report["by"]), (&json!("done"), &json!("user_id")));
    assert!(report["finished_at"].as_str() > report["requested_at"].as_str(), "{report}");
    assert_eq!((&report["unreadable"], &report["problem"]), (&json!([]), &Value::Null));
    assert_eq!(server.count(), 6_010);
    send(&server, 0);
    assert_eq!(server.count(), 6_011, "what comes later is stored");
    server.flush();

    let data = server.data.clone();
    let directory = server.take_directory();
    assert!(server.stop().0.success());
    let told = verified(&data);
    assert!(told.contains("erased") && told.contains("6,011 events, each exactly once"), "{told}");
    drop(directory);
}

#[test]
fn an_erase_outlives_kills_at_any_moment() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut mine = 0;
    for round in 0..5_u32 {
        let server = Server::on(&data, &BUSY);
        send(&server, 400);
        mine += 1;
        ask(&server);
        // Each round a little later into the job, until it is over before the kill.
        let looks = 3_usize.pow(round);
        for _ in 0..looks {
            if server.get("/v1/admin/erase").json()["erasures"][0]["status"] == "done" {
                break;
            }
        }
        server.signal(Signal::KILL);
        server.wait();
        verified(&data);
    }
    let server = Server::on(&data, &BUSY);
    assert_eq!(erased(&server), mine);
    assert_eq!(server.count(), 2_000);
    assert_eq!(traces(&data), BTreeSet::new());
    assert!(server.stop().0.success());
    assert!(verified(&data).contains("2,000 events, each exactly once"));
}

#[test]
fn only_an_admin_erases_and_only_who_is_named() {
    let server = Server::with_keys(&[]);
    for wrong in [
        "",
        "[]",
        r#"{"user_id":"u"}"#,
        r#"{"tenant":"t"}"#,
        r#"{"tenant":"t","user_id":"u","visitor_id":7}"#,
        r#"{"tenant":"t","user":"secret-name"}"#,
    ] {
        let answer = server.post("/v1/admin/erase", wrong);
        assert_eq!(answer.status, 400, "{wrong}: {}", answer.text());
        let message = answer.error()["message"].as_str().unwrap().to_owned();
        assert!(message.contains("visitor_id") && !message.contains("secret"), "{message}");
    }
    assert_eq!(server.get("/v1/admin/erase/none").status, 404);
    assert_eq!(server.get("/v1/admin/erase").json(), json!({ "erasures": [] }));
    let methods = server.connect().request("DELETE", "/v1/admin/erase/none", &[], b"");
    assert_eq!(methods.status, 405);

    let key = make_key(&server.data, &["--scope", "read", "--tenant", "t"]);
    let bearer = format!("Bearer {key}");
    let headers = [("Authorization", bearer.as_str())];
    let body = br#"{"tenant":"t","user_id":"u"}"#;
    let until = std::time::Instant::now() + PATIENCE;
    loop {
        let answer = server.connect().request("POST", "/v1/admin/erase", &headers, body);
        if answer.status == 403 {
            break;
        }
        assert_eq!(answer.status, 401, "the key is seen in a moment: {}", answer.text());
        assert!(std::time::Instant::now() < until, "the key is seen");
    }
}

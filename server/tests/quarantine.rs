//! `ringlake import` of what is in quarantine.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use ringlake_engine::directory::Directory;
use ringlake_engine::disk::RealDisk;
use ringlake_engine::hot::LogBatch;
use ringlake_engine::lake::{Location, ShardSequence, Table};
use ringlake_engine::log::{Quarantined, set_aside};
use ringlake_engine::quarantine;
use ringlake_engine::shard::BatchBuilder;
use ringlake_event::{Decoder, Limits, Mode, Record, Request, Source, Tenant, record_bound};
use support::{Server, run, text};

mod support;

const EVENTS: i64 = 10;

/// A data directory whose table has passed ten numbers of shard 0 without holding them, as after a
/// batch that the table could not take; the file in quarantine that holds them; and one with damaged bytes.
fn with_a_batch_aside() -> (tempfile::TempDir, PathBuf, PathBuf, PathBuf) {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    let directory = Directory::open(&data).unwrap();
    let location = Location::parse(None, directory.root()).unwrap();
    let mut table = Table::open_or_create(&location, directory.node()).unwrap();
    let passed = ShardSequence { shard: 0, previous: 0, last: EVENTS };
    let _ = table.commit(&[], &[passed]).unwrap();

    let report = |sequences| Quarantined {
        shard: 0,
        sequences,
        origin: "a test".into(),
        reason: "the test wants it so".into(),
        bytes: 1_234,
    };
    let bytes = quarantine::encode(directory.node(), &batch(), "refused").unwrap();
    let name = format!("batch-0-1-{EVENTS}.arrow");
    set_aside(&RealDisk, &directory.quarantine(), &name, &bytes, &report(Some((1, EVENTS))))
        .unwrap();
    set_aside(&RealDisk, &directory.quarantine(), "log-0-1-96.bin", b"damage", &report(None))
        .unwrap();
    let (arrow, bin) =
        (directory.quarantine().join(name), directory.quarantine().join("log-0-1-96.bin"));
    (scratch, data, arrow, bin)
}

fn batch() -> LogBatch {
    let lines: Vec<String> = (1..=EVENTS)
        .map(|number| format!(r#"{{"event":"kept","message_id":"m{number}"}}"#))
        .collect();
    let body = lines.join("\n");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let request = Request {
        received_at: now.as_micros().try_into().unwrap(),
        source: Source::Events,
        tenant: Tenant::Open,
        correct_clock: true,
        sender: None,
    };
    let mut record = vec![0; record_bound(body.len())];
    let decoded = Decoder::new()
        .decode(body.as_bytes(), &request, &Limits::default(), Mode::Whole, &mut record)
        .unwrap();
    let mut builder = BatchBuilder::new();
    builder.append(&Record::parse(&record[..decoded.record_len]).unwrap());
    let (batch, bytes) = builder.finish();
    LogBatch { shard: 0, first: 1, batch, bytes }
}

/// The exit code, and everything printed.
fn command(arguments: &[&str]) -> (Option<i32>, String) {
    let output = run(arguments);
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

fn import(data: &Path, file: &Path) -> (Option<i32>, String) {
    command(&["import", file.to_str().unwrap(), "--data", data.to_str().unwrap()])
}

fn verify(data: &Path) -> String {
    let (code, said) = command(&["verify", "--data", data.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{said}");
    said
}

#[test]
fn a_batch_goes_back_under_its_old_numbers() {
    let (_scratch, data, arrow, _) = with_a_batch_aside();
    let before = verify(&data);
    assert!(
        before.contains("0 events in the table") && before.contains("10 quarantined"),
        "{before}"
    );

    let (code, said) = import(&data, &arrow);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with("10 events of shard 0, numbers 1 to 10, are in version "), "{said}");
    let after = verify(&data);
    assert!(after.contains("10 events in the table") && !after.contains("quarantined"), "{after}");
    assert!(!arrow.exists() && arrow.with_extension("arrow.restored").exists());

    let server = Server::on(&data, &[("RINGLAKE_SHARDS", "1")]);
    let sql = "SELECT count(*) AS n, min(sequence) AS low, max(sequence) AS high,
               count(DISTINCT message_id) AS ids FROM events WHERE event = 'kept'";
    let row = &server.query(sql)[0];
    let numbers = ["n", "low", "high", "ids"].map(|name| row[name].as_i64().unwrap());
    assert_eq!(numbers, [10, 1, 10, 10]);
    // New events go on above.
    assert_eq!(server.post("/v1/events", r#"{"event":"new"}"#).status, 202);
    let row = &server.query("SELECT sequence FROM events WHERE event = 'new'")[0];
    assert_eq!(row["sequence"], EVENTS + 1);
}

/// They were acknowledged: a client that sends them again must not double them once they are imported.
#[test]
fn a_start_knows_the_ids_of_what_was_set_aside() {
    let (_scratch, data, arrow, _) = with_a_batch_aside();
    let server = Server::on(&data, &[]);
    let lines = (9..=12).map(|id| format!(r#"{{"event":"again","message_id":"m{id}"}}"#));
    let body = lines.collect::<Vec<_>>().join("\n");
    assert_eq!(server.post("/v1/events", body).status, 202);
    assert_eq!(server.accounting()["duplicate"], 2);
    server.stop();
    assert_eq!(import(&data, &arrow).0, Some(0));
    let server = Server::on(&data, &[]);
    let row =
        &server.query("SELECT count(*) AS n, count(DISTINCT message_id) AS ids FROM events")[0];
    assert_eq!((&row["n"], &row["ids"]), (&12.into(), &12.into()));
}

/// An operator who copies the file first and imports both: the second one adds nothing.
#[test]
fn the_same_batch_twice_is_there_once() {
    let (_scratch, data, arrow, _) = with_a_batch_aside();
    let copy = data.with_file_name("copy.arrow");
    fs::copy(&arrow, &copy).unwrap();
    fs::copy(arrow.with_extension("json"), copy.with_extension("json")).unwrap();
    assert_eq!(import(&data, &copy).0, Some(0));
    assert!(!arrow.exists(), "the entry is marked, wherever the file was imported from");
    let (code, said) = import(&data, &copy);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("are already in version "), "{said}");
    assert!(verify(&data).contains("10 events, each exactly once"));
}

#[test]
fn a_directory_in_use_a_url_and_damaged_bytes_are_refused_with_a_sentence() {
    let (_scratch, data, arrow, bin) = with_a_batch_aside();
    let refused = |(code, said): (Option<i32>, String), expected: i32, sentence: &str| {
        assert_eq!(code, Some(expected), "{said}");
        assert_eq!(said.trim().lines().count(), 1, "{said}");
        assert!(said.contains(sentence), "{sentence} is not in: {said}");
    };
    refused(import(&data, &bin), 1, "holds 1,234 damaged bytes of the log and cannot be imported");
    refused(import(&data, &arrow.with_extension("json")), 1, "is a report of the quarantine");
    let url = ["import", arrow.to_str().unwrap(), "--url", "http://127.0.0.1:9"];
    refused(command(&url), 2, "are imported with --data, while no server runs");
    let events = data.with_file_name("events.ndjson");
    fs::write(&events, r#"{"event":"a"}"#).unwrap();
    let both = ["import", arrow.to_str().unwrap(), events.to_str().unwrap(), "--data", "nowhere"];
    refused(command(&both), 2, "in commands of their own");
    let nowhere = data.with_file_name("nowhere");
    refused(import(&nowhere, &arrow), 1, "there is no data directory");

    let bytes = fs::read(&arrow).unwrap();
    let mut damaged = bytes.clone();
    damaged[bytes.len() / 2] ^= 1;
    fs::write(&arrow, damaged).unwrap();
    refused(import(&data, &arrow), 1, "is damaged: it is not what its report was written for");
    fs::write(&arrow, bytes).unwrap();

    let server = Server::on(&data, &[]);
    let sentence = format!("is in use by process {}", server.process());
    refused(import(&data, &arrow), 1, &sentence);
    refused(import(&data, &arrow), 1, "stop the server before importing");
    server.stop();
    assert!(arrow.exists(), "the entry stays");
    assert_eq!(import(&data, &arrow).0, Some(0));
}

//! Erasing in a running engine: what goes, what stays, and what a kill in the middle leaves.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringlake_engine::erase::{EraseJob, EraseStatus, Erasure, Who};
use ringlake_engine::query::QueryRequest;
use ringlake_engine::{Config, Engine, Ingest, verify};
use ringlake_faults::{TestDisk, check_all, scratch};
use support::{LIMIT, MOMENT, assert_sound, number, open, send, send_body, stop};

mod support;

/// What nobody else is called.
const NAME: &str = "!somebody-who-wants-to-be-forgotten@example.com";

/// Short segments, of which the log keeps the blocks, and nothing that happens because time passes.
fn config(data: &Path) -> Config {
    let mut config = support::config(data);
    config.log.segment_bytes = 5_000;
    config.hot.roll_age = Duration::from_secs(3_600);
    config.compaction.interval = Duration::ZERO;
    config.disk.free_min_bytes = Some(0);
    config
}

/// Sends `events` events of the user in the tenant `t`.
fn send_named(ingest: &mut Ingest, events: usize) {
    let line = format!(r#"{{"event":"mine","tenant":"t","user_id":"{NAME}"}}"#);
    send_body(ingest, MOMENT, &vec![line; events].join("\n"), events);
}

fn named() -> Erasure {
    Erasure { tenant: "t".into(), who: Who::UserId(NAME.into()) }
}

/// Waits until every erase is done.
fn all_done(engine: &Engine) -> Vec<EraseJob> {
    let until = Instant::now() + LIMIT;
    loop {
        let jobs = engine.erasures();
        if jobs.iter().all(|job| job.status == EraseStatus::Done) {
            return jobs;
        }
        assert!(Instant::now() < until, "{jobs:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}

/// The files of `data` in which the name stands in plain text, by their first directory.
fn traces(data: &Path) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for path in files_below(data) {
        let bytes = fs::read(&path).unwrap();
        if bytes.windows(NAME.len()).any(|part| part == NAME.as_bytes()) {
            let place = path.strip_prefix(data).unwrap().components().next().unwrap();
            *found.entry(place.as_os_str().to_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    found
}

/// The Parquet files of `data` with events of the user: compressed pages do not show what is in them.
fn files_with_events(data: &Path) -> Vec<PathBuf> {
    let in_memory = duckdb::Connection::open_in_memory().unwrap();
    let mut files = files_below(&data.join("events"));
    files.retain(|file| {
        let path = file.to_str().unwrap();
        if !path.ends_with(".parquet") || path.contains("_delta_log") {
            return false;
        }
        let sql = format!("SELECT count(*) FROM read_parquet('{path}') WHERE user_id = '{NAME}'");
        in_memory.query_row(&sql, [], |row| row.get::<_, i64>(0)).unwrap() > 0
    });
    files
}

fn assert_forgotten(data: &Path) {
    assert_eq!(traces(data), BTreeMap::new());
    assert_eq!(files_with_events(data), Vec::<PathBuf>::new());
}

const MINE: &str = "SELECT count(*) FROM events WHERE event = 'mine'";

#[test]
fn everything_of_one_user_goes_and_nothing_else() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path();
    let (engine, mut ingests) = open(config(data));
    // Of another tenant, and one whose name begins like it.
    for (tenant, user) in [("x", NAME.to_owned()), ("t", format!("{NAME}2"))] {
        let line = format!(r#"{{"event":"others","tenant":"{tenant}","user_id":"{user}"}}"#);
        send_body(&mut ingests[0], MOMENT, &line, 1);
    }
    for roll in 0..4 {
        send(&mut ingests[roll % 2], roll * 40, 40);
        send_named(&mut ingests[roll % 2], 5);
        engine.roll().unwrap();
        if roll == 2 {
            // Three files wait for a day now, and are no part of the table any more.
            engine.compact().unwrap();
        }
    }
    send_named(&mut ingests[0], 7);
    send_named(&mut ingests[1], 1);
    let (before, files) = (traces(data), files_with_events(data));
    assert!(before["log"] >= 2 && files.len() >= 5, "{before:?} {files:?}");

    let job = engine.erase(named()).unwrap();
    assert_eq!((job.by.as_str(), job.tenant.as_str()), ("user_id", "t"));
    send_named(&mut ingests[0], 3);
    let jobs = all_done(&engine);
    assert_eq!((jobs.len(), jobs[0].events), (1, 28), "{jobs:?}");
    assert!(jobs[0].files >= 2 && jobs[0].problem.is_none(), "{jobs:?}");
    engine.flush().unwrap();
    assert_eq!(number(&engine, MINE), 3, "what came later stays");
    assert_eq!(number(&engine, "SELECT count(*) FROM events"), 165);

    // What came later goes with the next one, and then nothing is left.
    engine.erase(named()).unwrap();
    assert_eq!(all_done(&engine)[0].events, 3);
    let line = format!("{NAME}2");
    assert_eq!(
        number(&engine, &format!("SELECT count(*) FROM events WHERE user_id = '{line}'")),
        1
    );
    let sql = "SELECT count(*) FROM events WHERE tenant = 'x'";
    assert_eq!(number(&engine, sql), 1);
    for tenant in ["x", "t"] {
        let who = Who::UserId(if tenant == "x" { NAME.into() } else { line.clone() });
        engine.erase(Erasure { tenant: tenant.into(), who }).unwrap();
    }
    all_done(&engine);
    assert_forgotten(data);
    assert_eq!(engine.vacuum().unwrap().files, 0);
    stop(&engine, ingests);
    assert_sound(data, 160);
    let report = verify(data, None).unwrap();
    assert_eq!(report.shards.iter().map(|shard| shard.erased).sum::<u64>(), 33);

    let (engine, ingests) = open(config(data));
    assert_eq!(number(&engine, "SELECT count(*) FROM events"), 160);
    assert_eq!(engine.erasures().len(), 4);
    assert_eq!(engine.erasure(&job.id).unwrap().events, 28);
    stop(&engine, ingests);
    assert_forgotten(data);
}

/// It may hold events of anybody, and nobody else has them.
#[test]
fn what_nobody_can_read_stays_and_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path();
    let (engine, mut ingests) = open(config(data));
    send_named(&mut ingests[0], 1);
    let quarantine = data.join("quarantine");
    fs::create_dir_all(&quarantine).unwrap();
    let bytes = format!("a piece of a segment with {NAME} and others in it");
    for name in ["log-0-7-96.bin", "log-0-8-96.bin.restored"] {
        fs::write(quarantine.join(name), &bytes).unwrap();
    }
    engine.erase(named()).unwrap();
    let jobs = all_done(&engine);
    assert_eq!((jobs[0].events, jobs[0].quarantined), (1, 1), "{jobs:?}");
    assert_eq!(jobs[0].unreadable, ["log-0-7-96.bin"]);
    assert_eq!(fs::read_to_string(quarantine.join("log-0-7-96.bin")).unwrap(), bytes);
    assert!(!quarantine.join("log-0-8-96.bin.restored").exists());
    stop(&engine, ingests);
}

#[test]
fn browsers_and_visitors_are_erased_too() {
    let scratch = tempfile::tempdir().unwrap();
    let (engine, mut ingests) = open(config(scratch.path()));
    let line = r#"{"event":"mine","anonymous_id":"a-1"}"#;
    send_body(&mut ingests[0], MOMENT, line, 1);
    send(&mut ingests[1], 0, 10);
    let tenant = "default".to_owned();
    engine.erase(Erasure { tenant: tenant.clone(), who: Who::AnonymousId("a-1".into()) }).unwrap();
    engine.erase(Erasure { tenant, who: Who::VisitorId(5) }).unwrap();
    let jobs = all_done(&engine);
    assert_eq!(jobs.iter().map(|job| job.events).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(
        jobs.iter().map(|job| job.by.as_str()).collect::<Vec<_>>(),
        ["visitor_id", "anonymous_id"]
    );
    assert_eq!(number(&engine, "SELECT count(*) FROM events"), 10);
    stop(&engine, ingests);
    assert_sound(scratch.path(), 10);
}

#[test]
fn a_job_is_done_when_the_last_reader_of_the_old_files_has_ended() {
    let scratch = tempfile::tempdir().unwrap();
    let (engine, mut ingests) = open(config(scratch.path()));
    send_named(&mut ingests[0], 20);
    engine.roll().unwrap();
    let sql = "SELECT e.user_id FROM events AS e, range(100000)";
    let mut stream = engine.query(QueryRequest::new(sql)).unwrap();
    stream.blocking_ready().unwrap();
    engine.erase(named()).unwrap();
    let until = Instant::now() + LIMIT;
    while number(&engine, MINE) > 0 {
        assert!(Instant::now() < until, "the events are there");
    }
    assert!(matches!(stream.blocking_next(), Some(Ok(_))), "the reader goes on");
    assert_ne!(engine.erasures()[0].status, EraseStatus::Done);
    drop(stream);
    assert_eq!(all_done(&engine)[0].events, 20);
    assert_forgotten(scratch.path());
    stop(&engine, ingests);
    assert_sound(scratch.path(), 0);
}

/// The logs of shards that are configured no more hold events too, and their files nobody writes.
#[test]
fn shards_that_are_configured_no_more_are_erased_too() {
    let scratch = tempfile::tempdir().unwrap();
    let (engine, mut ingests) = open(config(scratch.path()));
    for ingest in &mut ingests {
        send_named(ingest, 4);
        send(ingest, 0, 10);
    }
    stop(&engine, ingests);
    let mut one = config(scratch.path());
    one.shards = std::num::NonZeroUsize::MIN;
    let (engine, ingests) = open(one);
    engine.erase(named()).unwrap();
    assert_eq!(all_done(&engine)[0].events, 8);
    assert_forgotten(scratch.path());
    stop(&engine, ingests);
    assert_sound(scratch.path(), 20);
    let (engine, ingests) = open(config(scratch.path()));
    assert_eq!(number(&engine, "SELECT count(*) FROM events"), 20);
    stop(&engine, ingests);
}

/// A kill after each operation of an erase on files: the next start ends what was asked for.
#[test]
fn an_erase_that_was_killed_anywhere_is_ended_by_the_next_start() {
    let root = scratch();
    let data = root.path().join("data");
    let outside = |path: &Path| {
        let path = path.strip_prefix("data").unwrap_or(path);
        let names = ["lock", "salt", "salt.new", "cursor.key", "cursor.key.new"];
        names.iter().any(|name| path == Path::new(name)) || path.starts_with("tmp")
    };
    let disk = TestDisk::new(root.path()).unwrap().ignoring(outside);
    let (engine, mut ingests) = Engine::open_on(config(&data), Arc::new(disk.clone())).unwrap();
    engine.wait_ready(LIMIT).unwrap();
    for shard in [0, 1, 0] {
        send(&mut ingests[shard], 0, 30);
        send_named(&mut ingests[shard], 3);
        engine.roll().unwrap();
    }
    send(&mut ingests[1], 0, 10);
    send_named(&mut ingests[1], 2);
    let from = disk.trace().steps.len();
    engine.erase(named()).unwrap();
    assert_eq!(all_done(&engine)[0].events, 11);
    stop(&engine, ingests);
    assert_eq!(disk.unrecorded().unwrap(), Vec::<PathBuf>::new());

    let trace = disk.trace();
    let mut seen = HashSet::new();
    let cuts = (from..=trace.steps.len()).map(|cut| (cut, trace.after(cut).current()));
    // A sync changes nothing that a killed process would lose.
    let cuts: Vec<_> = cuts.filter(|(_, image)| seen.insert(image.fingerprint())).collect();
    let finished = check_all(&cuts, |(cut, image)| {
        let root = scratch();
        image.write(root.path()).map_err(|error| error.to_string())?;
        let data = root.path().join("data");
        let sound = verify(&data, None).map_err(|error| error.to_string())?;
        if !sound.problems.is_empty() {
            return Err(format!("cut {cut}: {:?}", sound.problems));
        }
        let (engine, ingests) = open(config(&data));
        let jobs = all_done(&engine);
        let erased: u64 = jobs.iter().map(|job| job.events).sum();
        engine.flush().unwrap();
        let rows = number(&engine, "SELECT count(*) FROM events");
        stop(&engine, ingests);
        let sound = verify(&data, None).map_err(|error| error.to_string())?;
        let asked = jobs.len();
        let expected = if asked == 1 { (100, 11) } else { (111, 0) };
        if (rows, erased) != expected || !sound.problems.is_empty() {
            return Err(format!("cut {cut}: {rows} rows, {jobs:?}, {:?}", sound.problems));
        }
        if asked == 1 && !traces(&data).is_empty() {
            return Err(format!("cut {cut}: {:?}", traces(&data)));
        }
        Ok(asked)
    });
    assert!(finished > 40 && finished < cuts.len(), "{finished} of {}", cuts.len());
}

//! Compaction in a running engine: the same results at every moment, whatever comes in between.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use ringlake_engine::lake::merge::merge;
use ringlake_engine::lake::plan::{Rules, next_job};
use ringlake_engine::lake::{Job, Location, ReplaceOutcome, Table};
use ringlake_engine::query::QueryRequest;
use ringlake_engine::{Config, Engine, Error, Ingest, Readiness};
use support::{LIMIT, assert_sound, open, rows, send_body, stop};

mod support;

/// When the first event of a test is received: noon of a day in the past.
const NOON_MICROS: i64 = 1_794_916_800_000_000;

/// An engine that compacts when it is told to, and removes at once what is replaced.
fn config(data: &Path) -> Config {
    let mut config = support::config(data);
    config.compaction.interval = Duration::ZERO;
    config.compaction.retain_replaced = Duration::ZERO;
    config
}

/// Sends `events` events, numbered from `first`, one received every millisecond.
fn send(ingest: &mut Ingest, first: usize, events: usize) {
    let lines: Vec<String> = (first..first + events)
        .map(|number| {
            let (event, tenant) = (number % 7, number * 7 % 5);
            format!(r#"{{"event":"e{event}","tenant":"t{tenant}","user_id":"{number}"}}"#)
        })
        .collect();
    let received_at = NOON_MICROS + i64::try_from(first).unwrap() * 1_000;
    send_body(ingest, received_at, &lines.join("\n"), events);
}

/// `rolls` rolls of `events` events each, from event `first` on, by both shards in turn.
fn roll_often(engine: &Engine, ingests: &mut [Ingest], first: usize, rolls: usize, events: usize) {
    for roll in 0..rolls {
        send(&mut ingests[roll % 2], first + roll * events, events);
        engine.roll().unwrap();
    }
}

/// Everything that a query can see, in three numbers.
fn checksum(engine: &Engine) -> [i64; 3] {
    let batches = rows(
        engine,
        "SELECT count(*)::BIGINT AS n, sum(sequence * (shard + 1))::BIGINT AS s, \
         (bit_xor(hash(node, shard, sequence, tenant, event, user_id, timestamp, received_at, \
         date)) & 4611686018427387903)::BIGINT AS h FROM events",
    );
    [0, 1, 2].map(|column| batches[0].column(column).as_primitive::<Int64Type>().value(0))
}

/// Data files on the disk, whether the table names them or not.
fn on_disk(data: &Path) -> Vec<PathBuf> {
    let partitions = std::fs::read_dir(data.join("events")).unwrap().map(|entry| entry.unwrap());
    let partitions = partitions.filter(|entry| entry.file_name() != "_delta_log");
    partitions
        .flat_map(|entry| std::fs::read_dir(entry.path()).unwrap())
        .map(|entry| entry.unwrap().path())
        .collect()
}

/// The table of a data directory that no engine has open, its node, and a job for all its files.
fn table_of(data: &Path) -> (Location, Table, Job) {
    let location = Location::parse(None, data).unwrap();
    let node = std::fs::read_to_string(data.join("node")).unwrap();
    let table = Table::open_or_create(&location, node.trim()).unwrap();
    let avoid = Default::default();
    let rules = Rules { node: node.trim(), file_bytes: 1 << 28, now_ms: None, avoid: &avoid };
    let job = next_job(&table.live_files().unwrap(), &rules).unwrap();
    (location, table, job)
}

/// Tells other threads that the test is over, also when it has failed.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        // Relaxed: the flag is all there is.
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn results_are_identical_at_every_moment_of_a_compaction() {
    let scratch = tempfile::tempdir().unwrap();
    let (engine, mut ingests) = open(config(scratch.path()));
    roll_often(&engine, &mut ingests, 0, 1_000, 20);
    send(&mut ingests[0], 20_000, 10);
    engine.flush().unwrap();
    let before = checksum(&engine);
    assert_eq!((before[0], engine.status().lake.files), (20_010, 1_000));

    let done = AtomicBool::new(false);
    let report = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut looks = 0;
                    // Relaxed: the flag is all there is.
                    while !done.load(Ordering::Relaxed) {
                        assert_eq!(checksum(&engine), before);
                        looks += 1;
                    }
                    looks
                })
            })
            .collect();
        let over = Done(&done);
        let report = engine.compact().unwrap();
        let removed = engine.vacuum().unwrap();
        drop(over);
        let looks: u32 = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
        assert!(looks > 2, "{looks} looks");
        assert!(removed.waiting + usize::try_from(removed.files).unwrap() >= 1_000, "{removed:?}");
        report
    });
    // What did not fit into one merge was joined twice.
    assert!(report.files == 1 && (1_000..1_100).contains(&report.files_read), "{report:?}");
    let status = engine.status();
    assert_eq!((status.lake.files, status.lake.rows), (1, 20_000));
    assert_eq!(status.compaction.files_read, report.files_read);
    assert_eq!(status.compaction.problem, None);
    // The last reader is gone.
    engine.vacuum().unwrap();
    assert_eq!(on_disk(scratch.path()).len(), 1);
    assert_eq!(checksum(&engine), before);
    let again = engine.compact().unwrap();
    assert_eq!((again.files_read, again.version), (0, report.version));
    stop(&engine, ingests);
    assert_sound(scratch.path(), 20_010);

    let (engine, ingests) = open(config(scratch.path()));
    engine.flush().unwrap();
    assert_eq!(checksum(&engine), before);
    stop(&engine, ingests);
}

#[test]
fn the_background_joins_files_by_itself() {
    let scratch = tempfile::tempdir().unwrap();
    let mut eager = config(scratch.path());
    eager.compaction.interval = Duration::from_millis(10);
    let (engine, mut ingests) = open(eager);
    roll_often(&engine, &mut ingests, 0, 40, 20);
    let before = checksum(&engine);
    let began = Instant::now();
    // Ten files reach the next tier, and one of those is left with some that wait.
    while engine.status().lake.files > 12 || on_disk(scratch.path()).len() > 12 {
        assert!(began.elapsed() < LIMIT, "{:?}", engine.status().compaction);
        assert_eq!(checksum(&engine), before);
    }
    assert_eq!(checksum(&engine), before);
    stop(&engine, ingests);
    assert_sound(scratch.path(), 800);
}

/// A merge beside a replay would need its memory on top.
#[test]
fn a_start_replays_before_it_joins_files() {
    let scratch = tempfile::tempdir().unwrap();
    let (engine, mut ingests) = open(config(scratch.path()));
    for request in 0..100 {
        send(&mut ingests[request % 2], request * 80, 80);
    }
    stop(&engine, ingests);
    let mut eager = config(scratch.path());
    eager.compaction.interval = Duration::from_millis(1);
    eager.hot.roll_rows = 400;
    let (engine, ingests) = Engine::open(eager).unwrap();
    loop {
        let commits = engine.status().compaction.commits;
        if engine.readiness() == Readiness::Ready {
            break;
        }
        assert_eq!(commits, 0, "the log is still being replayed");
    }
    let began = Instant::now();
    while engine.status().compaction.commits == 0 {
        assert!(began.elapsed() < LIMIT, "the replay has made files to join");
        std::thread::yield_now();
    }
    stop(&engine, ingests);
    assert_sound(scratch.path(), 8_000);
}

#[test]
fn replaced_files_stay_for_their_time_and_over_a_restart() {
    let scratch = tempfile::tempdir().unwrap();
    let mut patient = config(scratch.path());
    patient.compaction.retain_replaced = Duration::from_hours(1);
    let (engine, mut ingests) = open(patient.clone());
    roll_often(&engine, &mut ingests, 0, 6, 20);
    let before = checksum(&engine);
    assert_eq!(engine.compact().unwrap().files, 1);
    let removed = engine.vacuum().unwrap();
    assert_eq!((removed.files, removed.waiting), (0, 6));
    assert_eq!(engine.status().compaction.files_waiting, 6);
    assert_eq!(on_disk(scratch.path()).len(), 7);
    stop(&engine, ingests);
    assert_sound(scratch.path(), 120);

    let (engine, ingests) = open(patient.clone());
    assert_eq!(on_disk(scratch.path()).len(), 7, "a start keeps what is not yet due");
    assert_eq!(engine.vacuum().unwrap().waiting, 6);
    stop(&engine, ingests);

    patient.compaction.retain_replaced = Duration::ZERO;
    let (engine, ingests) = open(patient);
    assert_eq!(on_disk(scratch.path()).len(), 1);
    assert_eq!(checksum(&engine), before);
    stop(&engine, ingests);
}

#[test]
fn a_file_stays_as_long_as_a_reader_that_began_with_it() {
    let scratch = tempfile::tempdir().unwrap();
    let (engine, mut ingests) = open(config(scratch.path()));
    roll_often(&engine, &mut ingests, 0, 4, 20);
    let sql = "SELECT e.user_id FROM events AS e, range(100000)";
    let mut stream = engine.query(QueryRequest::new(sql)).unwrap();
    stream.blocking_ready().unwrap();
    assert_eq!(engine.compact().unwrap().files, 1);
    let removed = engine.vacuum().unwrap();
    assert_eq!((removed.files, removed.waiting), (0, 4));
    assert!(matches!(stream.blocking_next(), Some(Ok(_))));
    assert_eq!(on_disk(scratch.path()).len(), 5);
    drop(stream);
    let began = Instant::now();
    while engine.vacuum().unwrap().waiting > 0 {
        assert!(began.elapsed() < LIMIT, "the reader never ends");
    }
    assert_eq!(on_disk(scratch.path()).len(), 1);
    stop(&engine, ingests);
}

#[test]
fn a_crash_after_the_merge_and_one_after_the_commit_lose_and_double_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let (engine, mut ingests) = open(config(scratch.path()));
    roll_often(&engine, &mut ingests, 0, 6, 20);
    let before = checksum(&engine);
    stop(&engine, ingests);

    // The merge has written its file, and then the process ends.
    let (location, table, job) = table_of(scratch.path());
    let merged = merge(&location, table.node(), job, &mut || true).unwrap();
    assert_eq!(on_disk(scratch.path()).len(), 7);
    drop(table);
    assert_sound(scratch.path(), 120);
    let (engine, ingests) = open(config(scratch.path()));
    assert_eq!((checksum(&engine), engine.status().lake.files), (before, 6));
    let orphan = location.local(&merged.files[0].path);
    assert!(!orphan.exists() && on_disk(scratch.path()).len() == 6);
    stop(&engine, ingests);

    // This time the commit is in the table, and the old files are still there.
    let (location, mut table, job) = table_of(scratch.path());
    let merged = merge(&location, table.node(), job, &mut || true).unwrap();
    let outcome = table.replace(&merged.job.inputs, &merged.files).unwrap();
    assert!(matches!(outcome, ReplaceOutcome::Replaced { .. }), "{outcome:?}");
    drop(table);
    assert_sound(scratch.path(), 120);
    let mut patient = config(scratch.path());
    patient.compaction.retain_replaced = Duration::from_hours(1);
    for (config, files) in [(patient, 7), (config(scratch.path()), 1)] {
        let (engine, ingests) = open(config);
        assert_eq!((checksum(&engine), engine.status().lake.files), (before, 1));
        assert_eq!(on_disk(scratch.path()).len(), files);
        stop(&engine, ingests);
    }
    assert_sound(scratch.path(), 120);
}

/// The engine plans from the version that it knows; meanwhile another writer has joined two of the
/// files. What the engine has merged must not come into the table beside what they have merged.
#[test]
fn a_merge_whose_inputs_another_writer_has_replaced_is_dropped() {
    let scratch = tempfile::tempdir().unwrap();
    let (engine, mut ingests) = open(config(scratch.path()));
    roll_often(&engine, &mut ingests, 0, 6, 20);
    let before = checksum(&engine);

    let (location, own, mut job) = table_of(scratch.path());
    drop(own);
    job.inputs.truncate(2);
    let mut other = Table::open_or_create(&location, "node-b").unwrap();
    let theirs = merge(&location, "node-b", job, &mut || true).unwrap();
    let _ = other.replace(&theirs.job.inputs, &theirs.files).unwrap();

    let report = engine.compact().unwrap();
    assert_eq!((report.files, report.files_read), (2, 4), "theirs, and ours of the other four");
    assert_eq!(checksum(&engine), before);
    engine.vacuum().unwrap();
    assert_eq!(on_disk(scratch.path()).len(), 2, "our first merge has left nothing behind");
    stop(&engine, ingests);
    assert_sound(scratch.path(), 120);
}

#[test]
fn a_file_that_cannot_be_read_is_left_alone_and_the_others_are_joined() {
    let scratch = tempfile::tempdir().unwrap();
    let (engine, mut ingests) = open(config(scratch.path()));
    roll_often(&engine, &mut ingests, 0, 6, 20);
    let mut files = on_disk(scratch.path());
    files.sort();
    let (bad, whole) = (&files[2], std::fs::read(&files[2]).unwrap());
    std::fs::write(bad, &whole[..whole.len() / 2]).unwrap();

    let error = engine.compact().unwrap_err();
    let Error::Lake(cause) = &error else { panic!("{error:?}") };
    assert_eq!(cause.path(), Some(bad.canonicalize().unwrap().as_path()), "{error}");
    let status = engine.status();
    assert_eq!(status.lake.files, 2);
    let problem = status.compaction.problem.unwrap();
    assert!(problem.contains(bad.file_name().unwrap().to_str().unwrap()), "{problem}");

    std::fs::write(bad, &whole).unwrap();
    assert_eq!(engine.compact().unwrap().files, 1, "asked for by hand it is tried again");
    assert_eq!(engine.status().compaction.problem, None);
    assert_eq!(checksum(&engine)[0], 120);
    stop(&engine, ingests);
    assert_sound(scratch.path(), 120);
}

/// Rolls go on while a merge runs, and none of them waits for it.
#[test]
fn rolls_do_not_wait_for_a_compaction() {
    let scratch = tempfile::tempdir().unwrap();
    let mut config = config(scratch.path());
    config.ring_bytes = 8 << 20;
    let (engine, mut ingests) = open(config);
    roll_often(&engine, &mut ingests, 0, 16, 8_000);
    let mut sent = 128_000;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let compacting = scope.spawn(|| {
            let _over = Done(&done);
            engine.compact().unwrap()
        });
        let mut during = 0;
        // Relaxed: the flag is all there is.
        while !done.load(Ordering::Relaxed) && during < 20 {
            send(&mut ingests[0], sent, 10);
            let began = Instant::now();
            engine.roll().unwrap();
            assert!(began.elapsed() < LIMIT, "{:?}", began.elapsed());
            sent += 10;
            // Relaxed: the flag is all there is.
            during += u32::from(!done.load(Ordering::Relaxed));
        }
        assert!(during >= 1, "no roll came in between");
        let report = compacting.join().unwrap();
        assert!(report.files_read >= 16, "{report:?}");
    });
    assert_eq!(checksum(&engine)[0], i64::try_from(sent).unwrap());
    engine.compact().unwrap();
    assert_eq!(engine.status().lake.files, 1);
    stop(&engine, ingests);
    assert_sound(scratch.path(), u64::try_from(sent).unwrap());
}

#[test]
fn a_shutdown_does_not_wait_for_a_compaction() {
    let scratch = tempfile::tempdir().unwrap();
    let mut config = config(scratch.path());
    config.ring_bytes = 8 << 20;
    let (engine, mut ingests) = open(config.clone());
    roll_often(&engine, &mut ingests, 0, 16, 8_000);
    let before = checksum(&engine);
    let outcome = std::thread::scope(|scope| {
        let compacting = scope.spawn(|| engine.compact());
        // The merge has begun when there is a file more.
        while on_disk(scratch.path()).len() == 16 && !compacting.is_finished() {
            std::thread::yield_now();
        }
        stop(&engine, ingests);
        compacting.join().unwrap()
    });
    if let Err(error) = outcome {
        assert!(matches!(error, Error::Closed), "{error}");
    }
    assert!(matches!(engine.compact(), Err(Error::Closed)));
    let (engine, ingests) = open(config);
    assert_eq!(checksum(&engine), before);
    stop(&engine, ingests);
    assert_sound(scratch.path(), 128_000);
}

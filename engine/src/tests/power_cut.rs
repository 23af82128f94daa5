//! Power cuts and kills after every operation of the whole engine, exhaustively.
//!
//! One run of the real engine is recorded: a first start, requests on two shards, segments that
//! fill, rolls with their Parquet files and Delta commits, segments deleted and recycled, rolls that
//! fail at their Parquet file, before and after their commit took its name, compactions that succeed
//! and that fail at the same places, the removal of what they replaced, a batch that fails, a stop
//! and the start after it. Every file operation of it is in the trace, which the test checks
//! against the directory. The power is then cut after each operation, with every outcome of the
//! model in `ringlake-faults`.
//!
//! **What is checked how.** Each outcome of each cut gets a start; trees that are equal to the byte
//! get one, against the strongest promise. That start is everything that reads or writes a file in a
//! real one, by the same functions in the same order: directory, table, orphans, logs, replay. Only
//! DuckDB, the threads and the port are left out, for they keep nothing on disk; so that a start
//! costs milliseconds and none has to be skipped. A whole engine is opened and asked by SQL for each
//! set of file names that such a start leaves: rolls, commits, compactions and deletions change
//! names, and what a start removes first makes no difference to what comes after.
//!
//! The log alone has the same test with far more outcomes in `ringlake-log`, the Delta log with its
//! checkpoints one in `lake/delta/tests/power_cut.rs`.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use ringlake_disk::{Disk, RealDisk};
use ringlake_faults::{Call, Fault, Image, Seen, State, Step, TestDisk, Trace, check_all, scratch};

use super::support::*;
use crate::hot::logged;
use crate::log::{Identity, Log};
use crate::schema::log_schema;
use crate::{Engine, Ingest, verify};

/// What must survive from some moment on.
#[derive(Debug, Clone, Default)]
struct Promise {
    /// The ids of events that were acknowledged.
    acknowledged: BTreeSet<usize>,
    /// The highest number given to one of them, by shard.
    numbers: BTreeMap<u32, i64>,
}

impl Promise {
    fn implies(&self, other: &Self) -> bool {
        let number = |shard| self.numbers.get(shard).copied().unwrap_or(0);
        other.acknowledged.is_subset(&self.acknowledged)
            && other.numbers.iter().all(|(shard, last)| number(shard) >= *last)
    }
}

/// An engine in use, on a disk that writes everything down.
struct Run {
    root: tempfile::TempDir,
    disk: TestDisk,
    engine: Engine,
    ingests: Vec<Ingest>,
    /// The id of the next event.
    next: usize,
    promise: Promise,
    /// What each mark of the trace stands for; nothing is promised before the first.
    promises: Vec<Promise>,
}

impl Run {
    fn new() -> Self {
        let root = scratch();
        let disk = TestDisk::new(root.path()).unwrap().ignoring(outside);
        let (engine, ingests) = open(config(&root.path().join("data")), Arc::new(disk.clone()));
        let promises = vec![Promise::default()];
        Self { root, disk, engine, ingests, next: 0, promise: Promise::default(), promises }
    }

    /// Sends one request; its events are promised once it has been acknowledged.
    fn send(&mut self, shard: usize, events: usize) -> bool {
        let ids = self.next..self.next + events;
        self.next = ids.end;
        let acknowledged = send(&mut self.ingests[shard], ids.start, events);
        if acknowledged {
            self.promise.acknowledged.extend(ids);
            let status = self.engine.status();
            let number = status.shards[shard].durable_sequence;
            self.promise.numbers.insert(status.shards[shard].shard, number);
            self.disk.mark(self.promises.len());
            self.promises.push(self.promise.clone());
        }
        acknowledged
    }

    /// Rolls, and waits until the logs have let go of what the table holds.
    fn roll(&self) {
        self.engine.roll().unwrap();
        let began = std::time::Instant::now();
        let segments = || self.engine.status().shards.iter().any(|shard| shard.log_segments > 1);
        while segments() {
            assert!(began.elapsed() < LIMIT, "segments that the table holds are still there");
            std::thread::yield_now();
        }
    }

    /// Lets the first call of the kind `call` on a path with `part` in it meet `fault`.
    fn fail_once(&self, call: Call, part: &'static str, fault: Fault) {
        let mut left = Some(fault);
        self.disk.set_plan(move |found, path| {
            let hit = found == call && path.to_str().is_some_and(|path| path.contains(part));
            if hit { left.take().unwrap_or(Fault::None) } else { Fault::None }
        });
    }

    fn stop(&mut self) {
        self.ingests.clear();
        assert!(self.engine.shutdown(LIMIT).unwrap().everything_durable);
    }

    fn restart(&mut self) {
        self.stop();
        let config = config(&self.root.path().join("data"));
        (self.engine, self.ingests) = open(config, Arc::new(self.disk.clone()));
    }
}

/// What a run has left for the tests.
struct Record {
    trace: Trace,
    /// What each mark of the trace stands for.
    promises: Vec<Promise>,
    /// The ids from here on were never sent.
    sent: usize,
}

/// Everything that an engine does with files.
fn life() -> Record {
    let mut run = Run::new();
    for (shard, events) in [(0, 1), (1, 2), (0, 30), (0, 30), (0, 5), (1, 40), (1, 1)] {
        assert!(run.send(shard, events));
    }
    run.roll();
    // The next segments take over the blocks of those that went.
    for (shard, events) in [(0, 30), (0, 20), (1, 3), (0, 1)] {
        assert!(run.send(shard, events));
    }
    // What was in the page cache when the medium failed; a commit that never got its name; one that
    // did and does not know it.
    let failed = Fault::Fail(io::ErrorKind::Other);
    for (call, place, fault) in [
        (Call::SyncFile, ".parquet", failed),
        (Call::Link, "_delta_log", failed),
        (Call::SyncDirectory, "_delta_log", failed),
        (Call::Write, "_delta_log", Fault::Short),
    ] {
        run.fail_once(call, place, fault);
        run.roll();
        run.disk.clear_plan();
        assert!(run.send(0, 2));
        assert!(run.send(1, 1));
    }
    // Small files are joined, and those that they were are removed; then the same with a file that
    // gets no name, and with a commit that has one and does not know it.
    assert!(run.engine.compact().unwrap().files_read >= 2);
    run.engine.vacuum().unwrap();
    for (call, place) in [(Call::Rename, ".parquet"), (Call::SyncDirectory, "_delta_log")] {
        assert!(run.send(1, 2));
        run.roll();
        run.fail_once(call, place, failed);
        // What it says depends on what it knows; the next start begins with what there is.
        let _ = run.engine.compact();
        run.disk.clear_plan();
    }
    // The batch goes into a new segment; one that fails there too is refused.
    run.fail_once(Call::Sync, "data/log", failed);
    assert!(run.send(0, 2));
    run.disk.set_plan(move |call, path| {
        if call == Call::Write && path.starts_with("data/log") { Fault::Short } else { Fault::None }
    });
    assert!(!run.send(0, 2));
    run.disk.clear_plan();
    wait_open(&mut run.ingests[0]);
    assert!(run.send(0, 3));

    run.restart();
    assert!(run.send(1, 4));
    run.roll();
    assert!(run.send(0, 2));
    run.stop();
    assert_eq!(run.disk.unrecorded().unwrap(), Vec::<PathBuf>::new());
    Record { trace: run.disk.trace(), promises: run.promises, sent: run.next }
}

/// Whether a start in `root` keeps `promise`, apart from DuckDB, and whether what it leaves satisfies
/// `verify`, unless that was `seen`.
fn check(
    root: &Path,
    disk: Arc<dyn Disk>,
    promise: &Promise,
    sent: usize,
    seen: &Seen,
) -> Result<Started, String> {
    let data = root.join("data");
    let started = Started::new(&config(&data), disk)?;
    holds(&started.events, promise, sent)?;
    for (shard, last) in &promise.numbers {
        let next = started.logs[shard].next_sequence;
        if next <= *last {
            return Err(format!("shard {shard} gives out {next} again, {last} was acknowledged"));
        }
    }
    if seen.is_new(&data) {
        let report = verify(&data, None).map_err(|error| format!("verify fails: {error}"))?;
        if !report.problems.is_empty() {
            return Err(format!("verify: {:?}", report.problems));
        }
    }
    Ok(started)
}

/// Whether `events` are those of `promise`, once each, and no others than were sent.
fn holds(events: &BTreeMap<usize, usize>, promise: &Promise, sent: usize) -> Result<(), String> {
    let lost: Vec<_> = promise.acknowledged.iter().filter(|id| !events.contains_key(id)).collect();
    if !lost.is_empty() {
        return Err(format!("acknowledged and gone: {lost:?}"));
    }
    if let Some((id, times)) = events.iter().find(|(id, times)| **times > 1 || **id >= sent) {
        return Err(format!("event {id} is there {times} times, {sent} were sent"));
    }
    Ok(())
}

fn put(state: &State) -> tempfile::TempDir {
    let root = scratch();
    state.image.write(root.path()).unwrap();
    root
}

fn told<T>(outcome: Result<T, String>, trace: &Trace, state: &State) -> Result<T, String> {
    outcome.map_err(|problem| format!("{problem}\n{}", trace.story(state)))
}

/// What a kill after `cut` steps leaves is there when the next process starts. Whatever that start
/// finds may be answered for from then on, so that it must survive a power cut; and so must what is
/// appended next. (Cuts in the middle of an append are the log's test.) Gives the trees checked: none
/// when another kill was followed by the same, because what comes after the start depends on nothing
/// else.
fn check_kill(record: &Record, cut: usize, checked: &Checked) -> Result<usize, String> {
    let (sent, system) = (record.sent, record.trace.after(cut));
    let root = scratch();
    system.current().write(root.path()).unwrap();
    let disk = Arc::new(TestDisk::resume(root.path(), system).ignoring(outside));
    let mut found = record.promises[promised(&record.trace, cut)].clone();
    let on = Arc::clone(&disk) as Arc<dyn Disk>;
    let started = check(root.path(), on, &found, sent, &checked.verified)?;
    found.acknowledged.extend(started.events.keys());
    for (shard, log) in &started.logs {
        found.numbers.insert(*shard, log.next_sequence - 1);
    }
    let start = disk.trace();
    let left = start.after(start.steps.len()).outcomes();
    if !checked.insert(left.iter().map(Image::fingerprint).collect(), &found) {
        return Ok(0);
    }
    let appended = append(started, &disk, &found, sent);

    let (start, trace) = (start.steps.len(), disk.trace());
    let mut trees = 0;
    for (cut, promise) in [(start, &found), (trace.steps.len(), &appended)] {
        for image in trace.after(cut).outcomes() {
            let state = State { image, promise: 0, cut };
            let (root, disk) = (put(&state), Arc::new(RealDisk));
            let outcome = check(root.path(), disk, promise, sent + 4, &checked.verified);
            told(outcome, &trace, &state)?;
            trees += 1;
        }
    }
    Ok(trees)
}

/// What starts after kills have left behind, each as what a power cut may make of it, with the
/// promises that were checked against it.
#[derive(Default)]
struct Checked {
    starts: Mutex<HashMap<BTreeSet<u64>, Promise>>,
    /// Trees that `verify` has read.
    verified: Seen,
}

impl Checked {
    /// Notes that `promise` is checked; false when it or a stronger one was before.
    fn insert(&self, left: BTreeSet<u64>, promise: &Promise) -> bool {
        let mut checked = self.starts.lock().unwrap();
        if checked.get(&left).is_some_and(|stronger| stronger.implies(promise)) {
            return false;
        }
        checked.insert(left, promise.clone());
        true
    }
}

/// The promise that had been made after `cut` steps.
fn promised(trace: &Trace, cut: usize) -> usize {
    let marks = trace.steps[..cut].iter().filter_map(|step| match step {
        Step::Mark(number) => Some(*number),
        _ => None,
    });
    marks.max().unwrap_or(0)
}

/// Appends two events to each log of `started`, with the ids from `next` on.
fn append(started: Started, disk: &Arc<TestDisk>, found: &Promise, next: usize) -> Promise {
    let mut promise = found.clone();
    let mut ids = next..;
    for (shard, log) in started.logs {
        let node = started.directory.node().to_owned();
        let identity = Identity { node, shard, schema: log_schema() };
        let recovered = log.recovered;
        let mut writer = Log::new(
            log.directory,
            Arc::clone(disk) as Arc<dyn Disk>,
            identity,
            5_000,
            recovered.segments,
            recovered.voids,
        )
        .unwrap();
        let two: Vec<usize> = ids.by_ref().take(2).collect();
        let lines: Vec<String> = two.iter().map(|id| event(*id)).collect();
        let batch = logged(shard, log.next_sequence, &lines);
        writer.append(&batch.batch, batch.first).unwrap();
        promise.acknowledged.extend(two);
        promise.numbers.insert(shard, batch.last());
    }
    promise
}

/// Whether a whole engine on what `state` holds keeps `promise`, and goes on.
fn check_whole(state: &State, promise: &Promise, sent: usize) -> Result<(), String> {
    let root = put(state);
    let (engine, mut ingests) = open(config(&root.path().join("data")), Arc::new(RealDisk));
    engine.flush().map_err(|error| error.to_string())?;
    holds(&visible(&engine), promise, sent)?;
    assert!(send(&mut ingests[0], sent, 3));
    engine.roll().map_err(|error| error.to_string())?;
    let mut after = promise.clone();
    after.acknowledged.extend(sent..sent + 3);
    holds(&visible(&engine), &after, sent + 3)?;
    drop(ingests);
    engine.shutdown(LIMIT).map_err(|error| error.to_string())?;
    let report = verify(&root.path().join("data"), None).unwrap();
    if report.problems.is_empty() { Ok(()) } else { Err(format!("verify: {:?}", report.problems)) }
}

#[test]
fn no_power_cut_takes_what_was_acknowledged() {
    let Record { trace, promises, sent } = life();
    let (states, tried) = trace.states(0);
    let seen = Seen::default();
    check_all(&states, |state| {
        let promise = &promises[state.promise];
        let outcome = check(put(state).path(), Arc::new(RealDisk), promise, sent, &seen);
        told(outcome, &trace, state).map(|_| 1)
    });
    println!("{} operations, {tried} outcomes, {} trees", trace.steps.len(), states.len());
}

#[test]
fn a_whole_engine_starts_after_every_kind_of_power_cut() {
    let Record { trace, promises, sent } = life();
    let (states, _) = trace.states(0);
    let kinds = Mutex::new(HashSet::new());
    let engines = check_all(&states, |state| {
        let root = put(state);
        let started = Started::new(&config(&root.path().join("data")), Arc::new(RealDisk));
        drop(told(started, &trace, state)?);
        let left = Image::read(root.path(), &outside).unwrap();
        let is_new = kinds.lock().unwrap().insert(left.entries.into_keys().collect::<Vec<_>>());
        if !is_new {
            return Ok(0);
        }
        told(check_whole(state, &promises[state.promise], sent), &trace, state).map(|()| 1)
    });
    println!("{engines} engines");
}

#[test]
fn what_a_start_after_a_kill_has_found_survives_a_power_cut() {
    let record = life();
    let checked = Checked::default();
    // The last first: what two kills leave alike is then checked against the stronger promise.
    let cuts: Vec<usize> = (0..=record.trace.steps.len()).rev().collect();
    let trees = check_all(&cuts, |&cut| {
        check_kill(&record, cut, &checked)
            .map_err(|problem| format!("{problem}\nafter a kill at operation {cut}"))
    });
    println!("{} kills, {trees} trees", cuts.len());
}

//! Power cuts and kills after every operation of a log's life, exhaustively.
//!
//! One run is recorded that holds everything a log does: segments that fill, close, are released,
//! recycled and removed; a write that fails, a sync that fails, a batch that fails twice and is void;
//! a kill in the middle of a write and the start after it. The power is then cut after each of its
//! operations, with every outcome of the model in `ringlake-faults`, and a start follows. No cut and
//! no outcome is left out; trees that are equal to the byte are checked once, against the strongest
//! promise.
//!
//! What must hold: the start succeeds, sets nothing aside, and finds everything that was
//! acknowledged, nothing twice that a reader would not drop, nothing that was not sent, nothing that
//! a synced header calls void, no gap that a void does not explain; numbering goes on above
//! everything acknowledged.
//!
//! Then the same once more with a second accident: the start itself is recorded and cut at each of
//! its own operations, and what it has found counts as a promise from its end on.

use std::collections::BTreeSet;

use ringlake_faults::{FileSystem, State, Step, Trace, check_all, scratch};

use super::*;

/// What must survive from some moment on.
#[derive(Debug, Clone, Default)]
struct Promise {
    /// Acknowledged numbers that the lake does not hold.
    acknowledged: BTreeSet<i64>,
    /// Everything up to this number is in the lake.
    released: i64,
    /// The highest number that was ever given out.
    sent: i64,
    /// Refused, and void in a header that is synced.
    void: BTreeSet<i64>,
}

/// A log in use, on a disk that writes everything down.
struct Run {
    root: tempfile::TempDir,
    disk: TestDisk,
    log: Option<Log>,
    next: i64,
    /// Refused since the last header was written.
    refused: BTreeSet<i64>,
    promise: Promise,
    /// What each mark of the trace stands for; nothing is promised before the first.
    promises: Vec<Promise>,
}

const SEGMENT_BYTES: u64 = 2_500;

impl Run {
    fn new() -> Self {
        let root = scratch();
        let disk = TestDisk::new(root.path()).unwrap();
        let promises = vec![Promise::default()];
        let (refused, promise) = (BTreeSet::new(), Promise::default());
        let mut run = Self { root, disk, log: None, next: 1, refused, promise, promises };
        run.start();
        run
    }

    /// A new process: recovery, then the log that goes on.
    fn start(&mut self) {
        self.log = None;
        self.refused.clear();
        let disk = Arc::new(self.disk.clone());
        let found = recover(
            0,
            self.promise.released,
            self.root.path(),
            &self.root.path().join("quarantine"),
            &*disk,
            &mut |_| (),
        )
        .unwrap();
        self.next = found.last.max(self.promise.released) + 1;
        let seen: BTreeSet<i64> = rows(self.root.path()).into_iter().map(|row| row.0).collect();
        assert!(self.promise.acknowledged.is_subset(&seen));
        let released = self.promise.released;
        self.promise.acknowledged = seen.into_iter().filter(|row| *row > released).collect();
        let identity = Identity { node: NODE.into(), shard: 0, schema: schema() };
        let log = Log::new(
            self.root.path().into(),
            disk,
            identity,
            SEGMENT_BYTES,
            found.segments,
            found.voids,
        );
        self.log = Some(log.unwrap());
        self.promised();
    }

    fn promised(&mut self) {
        self.disk.mark(self.promises.len());
        self.promises.push(self.promise.clone());
    }

    fn append(&mut self, rows: i64) -> Result<(), Error> {
        let numbers = self.next..self.next + rows;
        self.next = numbers.end;
        self.promise.sent = self.promise.sent.max(numbers.end - 1);
        // The number counts as sent before the first byte of it is written.
        self.promised();
        let log = self.log.as_mut().unwrap();
        if let Err(error) = log.append(&numbered(numbers.start, rows), numbers.start) {
            self.refused.extend(numbers);
            return Err(error);
        }
        self.promise.acknowledged.extend(numbers);
        self.promise.void.append(&mut self.refused);
        self.promised();
        Ok(())
    }

    /// As a shard does after a batch that failed.
    fn start_segment(&mut self) {
        self.log.as_mut().unwrap().start_segment(self.next).unwrap();
        self.promise.void.append(&mut self.refused);
        self.promised();
    }

    /// As a shard does once the lake holds everything.
    fn release_all(&mut self) {
        self.log.as_mut().unwrap().close_released(self.next - 1);
        self.release(self.next - 1);
    }

    /// Tells the log that the lake holds everything up to `number`.
    fn release(&mut self, number: i64) -> usize {
        self.promise.released = number;
        self.promise.acknowledged = self.promise.acknowledged.split_off(&(number + 1));
        self.promised();
        self.log.as_mut().unwrap().release(number).unwrap()
    }

    /// The next frames meet these faults; see [`faulty`].
    fn fail(&self, faults: &[(Call, Fault)]) {
        let mut queue: VecDeque<(Call, Fault)> = faults.iter().copied().collect();
        let mut started: HashSet<PathBuf> = segments(self.root.path())
            .iter()
            .map(|path| path.file_name().unwrap().into())
            .collect();
        let mut coming = None;
        self.disk.set_plan(move |call, path| {
            if call == Call::Write && !started.insert(path.to_owned()) {
                coming = queue.pop_front();
            }
            coming.take_if(|(wanted, _)| *wanted == call).map_or(Fault::None, |(_, fault)| fault)
        });
    }

    /// Half of a frame is written, then the process is gone: not even cleaning up happens.
    fn kill_in_the_middle_of_a_frame(&mut self) {
        let mut dead = false;
        self.disk.set_plan(move |call, _| match call {
            _ if dead => Fault::Fail(io::ErrorKind::Other),
            Call::Write => {
                dead = true;
                Fault::Short
            }
            _ => Fault::None,
        });
        self.append(9).unwrap_err();
        self.disk.clear_plan();
    }
}

/// Everything a log does in its life.
fn life() -> Run {
    let mut run = Run::new();
    for rows in [1, 3, 40, 1, 60, 2, 50, 1, 30] {
        run.append(rows).unwrap();
    }
    assert!(segments(run.root.path()).len() >= 3);
    // One becomes the spare, the other goes; then the spare is used.
    assert!(run.release(run.next - 32) >= 2);
    for rows in [40, 2, 60, 1] {
        run.append(rows).unwrap();
    }
    // Nothing is left but spares, then not even those: a start counts its segments from 1 again.
    run.release_all();
    assert_eq!(segments(run.root.path()).len(), 0);
    run.append(30).unwrap();
    run.append(1).unwrap();
    run.release_all();
    assert!(run.log.as_mut().unwrap().remove_spares().unwrap());
    run.append(5).unwrap();
    run.release_all();
    run.start();
    for rows in [40, 2, 1] {
        run.append(rows).unwrap();
    }
    // The batch goes into a new segment; then one is void, and the next header says so.
    for fault in [SHORT_WRITE, FAILED_WRITE, FAILED_SYNC] {
        run.fail(&[fault]);
        run.append(4).unwrap();
    }
    for faults in [[SHORT_WRITE, FAILED_SYNC], [FAILED_WRITE, FAILED_WRITE]] {
        run.fail(&faults);
        run.append(5).unwrap_err();
    }
    run.disk.clear_plan();
    run.append(2).unwrap();
    run.fail(&[FAILED_SYNC, SHORT_WRITE]);
    run.append(3).unwrap_err();
    run.disk.clear_plan();
    run.start_segment();
    run.kill_in_the_middle_of_a_frame();
    run.start();
    run.append(7).unwrap();
    run.append(50).unwrap();
    run.release(run.next - 51);
    run.append(3).unwrap();
    run.start();
    run.append(1).unwrap();
    run
}

/// What a start finds in `directory`; the lake holds everything up to `released`.
fn found(
    directory: &Path,
    disk: &dyn Disk,
    released: i64,
) -> Result<(Recovered, BTreeSet<i64>), String> {
    let quarantine = directory.join("quarantine");
    let recovered = recover(0, released, directory, &quarantine, disk, &mut |_| ())
        .map_err(|error| format!("the start fails: {error}"))?;
    let mut seen = BTreeSet::new();
    for (number, text) in rows(directory) {
        if text != format!("row-{number}") {
            return Err(format!("row {number} says {text}"));
        }
        if !recovered.voids.iter().any(|void| void.contains(&number)) {
            seen.insert(number);
        }
    }
    Ok((recovered, seen))
}

/// Whether a start in `directory` keeps `promise`; gives what it finds.
fn check(directory: &Path, disk: &dyn Disk, promise: &Promise) -> Result<BTreeSet<i64>, String> {
    let (recovered, seen) = found(directory, disk, promise.released)?;
    if !recovered.quarantined.is_empty() {
        return Err(format!("set aside: {:?}", recovered.quarantined));
    }
    let lost: Vec<_> = promise.acknowledged.difference(&seen).collect();
    if !lost.is_empty() {
        return Err(format!("acknowledged and gone: {lost:?}"));
    }
    if let Some(number) = seen.last().filter(|number| **number > promise.sent) {
        return Err(format!("{number} was never sent"));
    }
    if let Some(number) = seen.intersection(&promise.void).next() {
        return Err(format!("{number} was refused and is back"));
    }
    let next = recovered.last.max(promise.released) + 1;
    if promise.acknowledged.last().is_some_and(|last| next <= *last) {
        return Err(format!("{next} is given out again"));
    }
    // What is still to come may be void already.
    let explained = |number| recovered.voids.iter().any(|void| void.contains(&number));
    let gap =
        (promise.released + 1..next).find(|number| !seen.contains(number) && !explained(*number));
    if let Some(number) = gap {
        return Err(format!("{number} is missing and no void explains it"));
    }
    Ok(seen)
}

/// Cuts the power at every operation of a start on `directory`, which holds what `system` says.
/// Before its end `promise` must hold, afterwards also what it has found. Gives the trees checked.
fn check_start(system: FileSystem, promise: &Promise) -> Result<usize, String> {
    let root = scratch();
    system.current().write(root.path()).unwrap();
    let disk = TestDisk::resume(root.path(), system);
    let mut kept = promise.clone();
    kept.acknowledged = check(root.path(), &disk, promise)?;
    kept.acknowledged = kept.acknowledged.split_off(&(promise.released + 1));
    disk.mark(1);
    let trace = disk.trace();
    let (states, _) = trace.states(0);
    for state in &states {
        check_state(&trace, state, &[promise, &kept])?;
    }
    Ok(states.len())
}

fn check_state(
    trace: &Trace,
    state: &State,
    promises: &[&Promise],
) -> Result<BTreeSet<i64>, String> {
    let root = scratch();
    state.image.write(root.path()).unwrap();
    check(root.path(), &RealDisk, promises[state.promise])
        .map_err(|problem| format!("{problem}\n{}", trace.story(state)))
}

#[test]
fn a_quarantine_report_is_whole_and_never_without_its_bytes() {
    let root = scratch();
    let quarantine = root.path().join("quarantine");
    let disk = TestDisk::new(root.path()).unwrap();
    let report = |bytes| Quarantined {
        shard: 0,
        sequences: Some((1, 9)),
        origin: "a test".into(),
        reason: "it was asked for".into(),
        bytes,
    };
    // A second start finds the same damage and sets it aside again, under the same name.
    let pieces = [("one", 700), ("one", 700), ("two", 20)];
    for (mark, (name, bytes)) in pieces.into_iter().enumerate() {
        let length = usize::try_from(bytes).unwrap();
        set_aside(&disk, &quarantine, &format!("{name}.bin"), &vec![7; length], &report(bytes))
            .unwrap();
        disk.mark(mark + 1);
    }
    let trace = disk.trace();
    for state in trace.states(0).0 {
        let root = scratch();
        state.image.write(root.path()).unwrap();
        let quarantine = root.path().join("quarantine");
        let found = quarantined_ranges(&quarantine).unwrap();
        let expected = [0, 1, 1, 2][state.promise];
        assert!(found.len() >= expected, "{}", trace.story(&state));
        for (name, bytes) in [("one", 700), ("two", 20)] {
            if quarantine.join(name).with_extension("json").exists() {
                assert!(found.contains(&report(bytes)));
                let kept = fs::read(quarantine.join(name).with_extension("bin")).unwrap();
                assert_eq!(kept.len() as u64, bytes, "{}", trace.story(&state));
            }
        }
    }
}

#[test]
fn no_power_cut_takes_what_was_acknowledged() {
    let run = life();
    assert_eq!(run.disk.unrecorded().unwrap(), Vec::<PathBuf>::new());
    let trace = run.disk.trace();
    let (states, tried) = trace.states(0);
    let promises: Vec<&Promise> = run.promises.iter().collect();
    println!("{} operations, {tried} outcomes, {} trees", trace.steps.len(), states.len());
    check_all(&states, |state| check_state(&trace, state, &promises).map(|_| 1));
}

#[test]
fn no_power_cut_during_the_start_after_a_power_cut_takes_anything() {
    let run = life();
    let trace = run.disk.trace();
    let (states, _) = trace.states(0);
    let trees = check_all(&states, |state| {
        check_start(FileSystem::holding(&state.image), &run.promises[state.promise])
            .map_err(|problem| format!("{problem}\nafter the first cut:\n{}", trace.story(state)))
    });
    println!("{} starts, {trees} trees", states.len());
}

/// A kill leaves in the page cache what no sync has covered. A start that answers from it must make
/// it durable first: else a client that retries is told that it is stored, and a power cut takes it.
#[test]
fn what_a_start_after_a_kill_has_found_survives_a_power_cut() {
    let run = life();
    let trace = run.disk.trace();
    let cuts: Vec<usize> = (0..=trace.steps.len()).collect();
    let trees = check_all(&cuts, |&cut| {
        let marks = trace.steps[..cut].iter().rev();
        let promise = marks.filter_map(|step| match step {
            Step::Mark(number) => Some(*number),
            _ => None,
        });
        let promise = promise.max().unwrap_or(0);
        check_start(trace.after(cut), &run.promises[promise])
            .map_err(|problem| format!("{problem}\nafter a kill at operation {cut}"))
    });
    println!("{} kills, {trees} trees", cuts.len());
}

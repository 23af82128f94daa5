//! Power cuts and kills after every file operation of the table, exhaustively.
//!
//! One run is recorded: creation, commits, checkpoints that supersede log files at once, a commit
//! that fails, one that goes through without knowing it, one that meets another node's, a start in
//! the middle, a data file and an orphan. Each commit adds one file and moves one shard by one, so
//! that a table is whole when it holds as many of our files, in order, as its number says.
//!
//! The power is cut after each operation with every outcome of `ringlake-faults`; and each operation
//! is once the last of a process, whose successor is cut again at each of its own.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use ringlake_disk::{Disk, RealDisk};
use ringlake_faults::{Call, Fault, Image, Seen, Step, TestDisk, Trace, check_all, scratch};

use super::*;

const UPKEEP: Upkeep = Upkeep { checkpoint_commits: 3, log_retention: Duration::ZERO };
const OTHER: &str = "node-b";

/// What must survive from some moment on: that many commits.
type Promise = usize;

fn open(root: &std::path::Path, disk: Arc<dyn Disk>) -> Result<Table> {
    let location = Location::parse(None, &root.join("data"))?.with_disk(disk);
    Ok(Table::open_or_create(&location, NODE)?.with_upkeep(UPKEEP))
}

/// A table in use, on a disk that writes everything down.
struct Run {
    root: tempfile::TempDir,
    disk: TestDisk,
    table: Table,
    /// The names of our files, in the order of their commits.
    files: Vec<String>,
}

impl Run {
    fn new() -> Self {
        let root = scratch();
        let disk = TestDisk::new(root.path()).unwrap();
        let table = open(root.path(), Arc::new(disk.clone())).unwrap();
        Self { root, disk, table, files: Vec::new() }
    }

    fn commit(&mut self, file: &NewFile) -> Result<()> {
        let before = i64::try_from(self.files.len()).unwrap();
        let _ = self.table.commit(std::slice::from_ref(file), &[step(0, before, before + 1)])?;
        self.files.push(file.path.to_string());
        self.disk.mark(self.files.len());
        self.table.upkeep();
        Ok(())
    }

    fn commits(&mut self, count: usize) {
        for _ in 0..count {
            self.commit(&made_up(self.table.location(), NODE, 1)).unwrap();
        }
    }

    /// The first call of the kind `wrong` in the log's directory does not succeed.
    fn fail_once(&self, wrong: Call) {
        let mut left = true;
        self.disk.set_plan(move |call, path| {
            let hit = left && call == wrong && path.starts_with("data/events/_delta_log");
            left &= !hit;
            if hit { Fault::Fail(io::ErrorKind::Other) } else { Fault::None }
        });
    }

    /// A data file as a roll writes it, by somebody who knows nothing of our disk.
    fn data_file(&self) -> NewFile {
        let location = self.table.location();
        let file = made_up(location, NODE, 1);
        location.create_directory(&file.path).unwrap();
        fs::write(location.local(&file.path), vec![7; 9_000]).unwrap();
        location.sync_file(&file.path).unwrap();
        location.sync_directories(&file.path).unwrap();
        file
    }
}

fn life() -> (Trace, Vec<String>) {
    let mut run = Run::new();
    run.commits(2);
    let file = run.data_file();
    run.commit(&file).unwrap();
    // Nothing happened; then everything did, and only the name is not yet durable.
    for wrong in [Call::Link, Call::SyncDirectory] {
        run.fail_once(wrong);
        let file = made_up(run.table.location(), NODE, 1);
        let outcome = run.commit(&file);
        assert_eq!(outcome.is_err(), wrong == Call::Link);
        run.disk.clear_plan();
        if outcome.is_err() {
            run.commit(&file).unwrap();
        }
    }
    // Another node was faster.
    let mut other = Table::open_or_create(run.table.location(), OTHER).unwrap();
    let file = made_up(other.location(), OTHER, 1);
    let _ = other.commit(&[file], &[step(0, 0, 1)]).unwrap();
    run.commits(2);
    // A checkpoint that fails is tried again later.
    run.fail_once(Call::Rename);
    run.commits(1);
    run.disk.clear_plan();

    let orphan = run.data_file();
    run.table = open(run.root.path(), Arc::new(run.disk.clone())).unwrap();
    assert_eq!(run.table.remove_orphans(DAY_LONG).unwrap(), [orphan.path.to_string()]);
    run.commits(7);
    assert_eq!(run.disk.unrecorded().unwrap(), Vec::<PathBuf>::new());
    let checkpoints = LogFiles::list(run.table.location()).unwrap().checkpoints;
    assert_eq!(checkpoints.len(), 1, "superseded log files are gone");
    (run.disk.trace(), run.files)
}

/// Whether the table that a start finds in `root` is whole and holds `promise`; gives how many of
/// our commits it holds.
fn check(
    root: &std::path::Path,
    disk: Arc<dyn Disk>,
    files: &[String],
    promise: Promise,
) -> std::result::Result<(Table, usize), String> {
    let failed = |error: LakeError| format!("the start fails: {error}: {:?}", error);
    let mut table = open(root, disk).map_err(failed)?;
    let held = usize::try_from(table.sequence(0).map_err(failed)?).unwrap();
    if held < promise {
        return Err(format!("{promise} commits were acknowledged, {held} are there"));
    }
    table.remove_orphans(DAY_LONG).map_err(failed)?;
    let mut expected = files[..held].to_vec();
    expected.sort();
    let mut found = names(&table);
    found.retain(|name| !name.contains(OTHER));
    if found != expected {
        return Err(format!("the table says {held} and holds {found:?}"));
    }
    let data = table.location().data_files(NODE).map_err(failed)?;
    if data.iter().any(|file| !found.contains(&file.location.to_string())) {
        return Err("an orphan is left".into());
    }
    Ok((table, held))
}

/// As [`check`] on a tree, and whether the table that it leaves takes another commit, unless that was
/// `seen`. Counts as one tree.
fn check_image(
    image: &Image,
    files: &[String],
    promise: Promise,
    seen: &Seen,
) -> std::result::Result<usize, String> {
    let root = scratch();
    image.write(root.path()).unwrap();
    let (mut table, held) = check(root.path(), Arc::new(RealDisk), files, promise)?;
    if !seen.is_new(root.path()) {
        return Ok(1);
    }
    let number = i64::try_from(held).unwrap();
    let file = made_up(table.location(), NODE, 1);
    let _ =
        table.commit(&[file], &[step(0, number, number + 1)]).map_err(|error| error.to_string())?;
    table.upkeep();
    Ok(1)
}

#[test]
fn no_power_cut_takes_a_commit() {
    let (trace, files) = life();
    let (states, tried) = trace.states(0);
    println!("{} operations, {tried} outcomes, {} trees", trace.steps.len(), states.len());
    let seen = Seen::default();
    check_all(&states, |state| {
        check_image(&state.image, &files, state.promise, &seen)
            .map_err(|problem| format!("{problem}\n{}", trace.story(state)))
    });
}

/// A start after a kill finds in the page cache what no sync has covered, and whoever reads the table
/// from then on relies on it.
#[test]
fn no_power_cut_takes_what_a_start_after_a_kill_has_found() {
    let (trace, files) = life();
    // What the other test has tried with the same promise or a stronger one.
    let known: BTreeMap<u64, Promise> =
        trace.states(0).0.iter().map(|state| (state.image.fingerprint(), state.promise)).collect();
    let mut promise = 0;
    // What the cuts may leave, with the strongest promise, and the kill and the cut for the story.
    let mut trees: BTreeMap<u64, (Image, Promise, String)> = BTreeMap::new();
    for kill in 0..=trace.steps.len() {
        if let Some(Step::Mark(number)) = kill.checked_sub(1).map(|last| &trace.steps[last]) {
            promise = *number;
        }
        let second = start_after_kill(&trace, kill, &files, promise);
        for state in second.states(0).0 {
            let kept = state.promise.max(promise);
            let fingerprint = state.image.fingerprint();
            let checked = known.get(&fingerprint).is_some_and(|known| *known >= kept);
            if checked || trees.get(&fingerprint).is_some_and(|tree| tree.1 >= kept) {
                continue;
            }
            let story = format!("after a kill at {kill}, {}", second.story(&state));
            trees.insert(fingerprint, (state.image, kept, story));
        }
    }
    println!("{} kills, {} trees", trace.steps.len() + 1, trees.len());
    let trees: Vec<_> = trees.into_values().collect();
    let seen = Seen::default();
    check_all(&trees, |(image, promise, story)| {
        check_image(image, &files, *promise, &seen).map_err(|problem| format!("{problem}\n{story}"))
    });
}

/// What a start does that finds what a kill after `kill` steps has left; at its end it promises what
/// it has found.
fn start_after_kill(trace: &Trace, kill: usize, files: &[String], promise: Promise) -> Trace {
    let system = trace.after(kill);
    let root = scratch();
    system.current().write(root.path()).unwrap();
    let disk = TestDisk::resume(root.path(), system);
    let found = check(root.path(), Arc::new(disk.clone()), files, promise);
    let (_, held) = found.unwrap_or_else(|problem| panic!("{problem}\nafter a kill at {kill}"));
    disk.mark(held);
    disk.trace()
}

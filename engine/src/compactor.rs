//! The compactor: many small files of the table become few large ones, files that nobody needs go,
//! and so does what is to be erased (see [`crate::erase`]) and what is past what is kept.
//!
//! **Guarantees**
//! - Readers are undisturbed: what they have begun to read stays until they end, and a file that
//!   was replaced stays for the configured time for readers outside this process.
//! - It never commits: it merges files beside the table, and the roller puts them in between two
//!   rolls. A roll waits for a merge not at all, for its commit some milliseconds.
//! - One merge at a time, in steps of milliseconds. While a hot table is being rolled or a ring fills
//!   it works a tenth of the time at most, and its thread has the lowest priority.
//!
//! **Roles.** One thread. Requests of users wait for the merge or the erase under way.
//!
//! **Limits.** A merge took 100 MB of memory where nothing else ran and up to 150 under `perf siege` (see
//! [`crate::lake::merge`] for what bounds it), which the system has back when the last one is done. It
//! begins only when its files fit twice into the disk space above the floor (see [`crate::space`]).
//!
//! **Failure.** A merge that fails leaves nothing behind. A file that cannot be read is left out
//! until the next day's vacuum, or until compaction is asked for by hand. When it is not known
//! whether a commit went through, the new files stay; the next vacuum or start removes them if they
//! are no part of the table.

mod erase;
mod retention;

use std::cell::Cell;
use std::collections::HashSet;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use serde::{Deserialize, Serialize};
use tracing::field::Empty;

use crate::WORK;
use crate::clock::now_ms;
use crate::config::{CompactionConfig, RetentionConfig};
use crate::error::{Error, chain};
use crate::lake::merge::{Merged, merge};
use crate::lake::plan::{Job, Rules, next_job};
use crate::lake::{LakeError, Location, NewFile, ReplaceOutcome, vacuum};
use crate::metrics::Operations;
use crate::problem::Problem;
use crate::roller::{Expired, Request, RollerState};
use crate::shard::ShardState;
use crate::snapshot::Snapshots;
use crate::space::{Room, Space};

pub(crate) use erase::Erasing;

/// Time between looks for replaced files whose time is over, when nothing else sets the pace.
const TURN: Duration = Duration::from_secs(60);
/// Vacuums come after the first hour and then once a day: what they find is days old.
const FIRST_VACUUM: Duration = Duration::from_hours(1);
const VACUUM_EVERY: Duration = Duration::from_hours(24);
/// Time for which it works before it looks whether there is something more urgent.
const SLICE: Duration = Duration::from_millis(10);
/// Pause between two looks whether there still is.
const LOOK: Duration = Duration::from_millis(5);
/// After this long it works for a slice all the same, so that a server under load day and night does
/// not drown in files.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// What a compaction on request has done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompactReport {
    /// The table's version after it.
    pub version: u64,
    /// Live files after it.
    pub files: usize,
    /// Files that were joined; one that was joined twice counts twice.
    pub files_read: u64,
    /// Their bytes.
    pub bytes_read: u64,
    /// Files that were made of them.
    pub files_written: u64,
    /// Their bytes.
    pub bytes_written: u64,
}

/// What a vacuum has removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VacuumReport {
    /// Files removed.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Replaced files that have to stay for now.
    pub waiting: usize,
    /// Events that were taken out of the table because they are past what is kept.
    #[serde(default)]
    pub expired: u64,
}

/// What a user wants.
#[derive(Debug)]
pub(crate) enum Order {
    /// Join all small files now.
    Compact(Sender<Result<CompactReport, Error>>),
    /// Remove everything that may go.
    Vacuum(Sender<Result<VacuumReport, Error>>),
    /// Look for what is to be erased.
    Erase,
    /// End.
    Stop,
}

/// What others may know about the compactor. All numbers count from the start of the process.
#[derive(Debug, Default)]
pub(crate) struct CompactorState {
    /// Commits that replaced files.
    pub commits: AtomicU64,
    /// Files, and bytes in them, that were joined.
    pub files_read: AtomicU64,
    pub bytes_read: AtomicU64,
    /// Files, and bytes in them, that took their place.
    pub files_written: AtomicU64,
    pub bytes_written: AtomicU64,
    /// Times that it waited for something more urgent.
    pub pauses: AtomicU64,
    /// Files removed because nobody needs them.
    pub files_removed: AtomicU64,
    /// Files that retention has taken out of the table, events and bytes in them.
    pub expired_files: AtomicU64,
    pub expired_rows: AtomicU64,
    pub expired_bytes: AtomicU64,
    /// Why the last compaction failed, if it did. Written by the compactor.
    pub problem: Problem,
    /// The same of retention.
    pub retention_problem: Problem,
    /// Set to give up what is under way.
    stop: AtomicBool,
}

impl CompactorState {
    /// Does the `work` of the compactor's thread. When that panics the compactor is gone until the next
    /// start, and says so; events are accepted without it.
    pub(crate) fn watch(&self, work: impl FnOnce()) {
        if catch_unwind(AssertUnwindSafe(work)).is_err() {
            let problem = "the thread compactor has panicked; restart it";
            // It is said here whether it is new or not.
            let _ = self.problem.set(problem.into());
            tracing::error!(
                "{problem}; files are neither joined nor removed, and nothing is erased"
            );
        }
    }

    /// Makes the compactor give up the merge that it does.
    pub(crate) fn stop(&self) {
        // Relaxed: nothing is handed over with it.
        self.stop.store(true, Ordering::Relaxed);
    }

    fn is_stopping(&self) -> bool {
        // Relaxed: see `stop`.
        self.stop.load(Ordering::Relaxed)
    }
}

/// The compactor thread's belongings.
#[derive(Debug)]
pub(crate) struct Compactor {
    pub location: Location,
    pub node: String,
    pub config: CompactionConfig,
    pub retention: RetentionConfig,
    pub orders: Receiver<Order>,
    pub committer: Sender<Request>,
    pub snapshots: Arc<Snapshots>,
    pub shards: Arc<[Arc<ShardState>]>,
    pub roller: Arc<RollerState>,
    pub space: Arc<Space>,
    pub operations: Arc<Operations>,
    pub state: Arc<CompactorState>,
    pub erasing: Erasing,
    /// Files that could not be read.
    pub avoid: HashSet<Arc<str>>,
    /// When the present slice of work began.
    pub slice: Cell<Instant>,
}

impl Compactor {
    /// Runs until it is told to stop or the engine is gone.
    pub(crate) fn run(mut self) {
        let turn = if self.config.interval.is_zero() { TURN } else { self.config.interval };
        let mut work_at = Instant::now() + turn;
        let mut vacuum_at = Instant::now() + FIRST_VACUUM;
        // What a crash has broken off.
        self.erase_pending();
        while !self.state.is_stopping() {
            let until = match self.erasing.pause {
                Duration::ZERO => work_at,
                pause => work_at.min(Instant::now() + pause),
            };
            match self.orders.recv_deadline(until) {
                Ok(Order::Compact(answer)) => {
                    self.avoid.clear();
                    let _ = answer.send(self.compact(None, &|| true));
                }
                Ok(Order::Vacuum(answer)) => {
                    let done = self.retain().and_then(|expired| {
                        let report = self.vacuum(self.config.retain_replaced)?;
                        Ok(VacuumReport { expired, ..report })
                    });
                    let _ = answer.send(done);
                }
                Ok(Order::Erase) => self.erase_pending(),
                Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    self.erase_pending();
                    if Instant::now() >= work_at {
                        self.look_for_work();
                        work_at = Instant::now() + turn;
                    }
                    if Instant::now() >= vacuum_at {
                        vacuum_at = Instant::now() + VACUUM_EVERY;
                        self.avoid.clear();
                        let done = self.vacuum(self.config.retain_replaced);
                        self.log_failure("vacuum", done.err());
                    }
                }
            }
        }
    }

    fn look_for_work(&mut self) {
        // First, so that nothing is joined that goes. What goes wrong is in the state.
        let _ = self.retain();
        // A merge needs space before it frees any; the first room is for what has been accepted.
        let may_write = !self.space.is_short() && !self.roller.problem.is_there();
        if !self.config.interval.is_zero() && may_write {
            let orders = self.orders.clone();
            // What went wrong is in the state, and the log has had its line.
            let _ = self.compact(Some(now_ms()), &|| orders.is_empty());
        }
        let retention = self.config.retain_replaced;
        let removed = self.expired(retention).and_then(|expired| self.remove(&expired.removable));
        self.log_failure("removal of replaced files", removed.err());
    }

    fn log_failure(&self, what: &str, error: Option<Error>) {
        // What was given up for the end of the process has not failed.
        if let Some(error) = error.filter(|_| !self.state.is_stopping()) {
            tracing::warn!(error = %chain(&error), "{what} failed; it is tried again later");
        }
    }

    /// Joins the files that there are now until nothing is left to join or `go_on` says no: files
    /// that come while it works are for the next time, so that it comes to an end. `now_ms` is the
    /// time by which a day is over; without it every day is.
    fn compact(
        &mut self,
        now_ms: Option<i64>,
        go_on: &dyn Fn() -> bool,
    ) -> Result<CompactReport, Error> {
        let mut report = CompactReport::default();
        let mut failed = None;
        let mut known: HashSet<Arc<str>> =
            self.snapshots.load().files.iter().map(|file| Arc::clone(&file.path)).collect();
        while go_on() {
            let mut files = self.snapshots.load().files.to_vec();
            files.retain(|file| known.contains(&file.path));
            let rules = Rules {
                node: &self.node,
                file_bytes: self.config.file_bytes,
                now_ms,
                avoid: &self.avoid,
            };
            let Some(job) = next_job(&files, &rules) else { break };
            let (inputs, bytes, error) = (job.inputs.len(), job.bytes(), Empty);
            let span = tracing::info_span!(target: WORK, "compaction", inputs, bytes, error);
            match self.join(job.clone(), &mut report) {
                Ok(files) => known.extend(files),
                Err(Error::Closed) => return Err(Error::Closed),
                Err(error) => {
                    let problem = chain(&error);
                    span.record("error", problem.as_str());
                    if self.state.problem.set(problem.clone()) {
                        tracing::warn!(%problem, "files cannot be joined");
                    }
                    let unreadable = self.unreadable(&job, &error);
                    let Some(path) = unreadable else { return Err(error) };
                    self.avoid.insert(path);
                    failed.get_or_insert(error);
                }
            }
        }
        let snapshot = self.snapshots.load();
        (report.version, report.files) = (snapshot.version, snapshot.files.len());
        match failed {
            None => {
                self.state.problem.clear();
                Ok(report)
            }
            Some(error) => Err(error),
        }
    }

    /// The input of `job` that `error` is about.
    fn unreadable(&self, job: &Job, error: &Error) -> Option<Arc<str>> {
        let Error::Lake(error) = error else { return None };
        let path = error.path()?;
        let input = job.inputs.iter().find(|file| *file.local == *path)?;
        Some(Arc::clone(&input.path))
    }

    /// Merges the files of `job` and has them replaced; gives the names of the new files.
    fn join(&self, job: Job, report: &mut CompactReport) -> Result<Vec<Arc<str>>, Error> {
        let began = Instant::now();
        self.space.look_if_due();
        let [_, lake] = self.space.rooms();
        self.check_room(lake, job.bytes())?;
        let merged = merge(&self.location, &self.node, job, &mut || self.may_go_on());
        let Merged { job, files } = match merged {
            Err(LakeError::GivenUp) => return Err(Error::Closed),
            merged => merged?,
        };
        let replaced = self.ask(|answer| Request::Replace {
            removed: job.inputs.clone(),
            added: files.clone(),
            erased: 0,
            answer,
        })?;
        match replaced {
            Ok(ReplaceOutcome::Replaced { .. }) => {}
            Ok(ReplaceOutcome::Outdated { path }) => {
                tracing::info!(path, "another writer has replaced a file; its merge is dropped");
                self.discard(&files)?;
                return Ok(Vec::new());
            }
            Err(error) => {
                if error.is_without_effect() {
                    self.discard(&files)?;
                }
                return Err(error.into());
            }
        }
        self.count(&job, &files, report);
        self.operations.compact.observe(began.elapsed());
        tracing::info!(
            date = %job.inputs[0].date,
            files = job.inputs.len(),
            into = files.len(),
            rows = files.iter().map(|file| file.rows).sum::<u64>(),
            bytes = files.iter().map(|file| file.bytes).sum::<u64>(),
            ms = began.elapsed().as_millis(),
            "compacted"
        );
        Ok(files.iter().map(|file| file.path.as_ref().into()).collect())
    }

    /// Removes files that no commit names.
    fn discard(&self, files: &[NewFile]) -> Result<(), Error> {
        Ok(files.iter().try_for_each(|file| self.location.remove(&file.path))?)
    }

    /// Counts a job that is done, for its caller and for everybody.
    fn count(&self, job: &Job, files: &[NewFile], report: &mut CompactReport) {
        let add = |total: &mut u64, counter: &AtomicU64, number: u64| {
            *total += number;
            // Relaxed: statistics.
            counter.fetch_add(number, Ordering::Relaxed);
        };
        let (state, bytes) = (&self.state, files.iter().map(|file| file.bytes).sum());
        add(&mut report.files_read, &state.files_read, job.inputs.len() as u64);
        add(&mut report.bytes_read, &state.bytes_read, job.bytes());
        add(&mut report.files_written, &state.files_written, files.len() as u64);
        add(&mut report.bytes_written, &state.bytes_written, bytes);
        // Relaxed: statistics.
        state.commits.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits while there is something more urgent; false when the work is to be given up.
    fn may_go_on(&self) -> bool {
        if self.slice.get().elapsed() >= SLICE && self.is_busy() {
            // Relaxed: statistics.
            self.state.pauses.fetch_add(1, Ordering::Relaxed);
            let began = Instant::now();
            while self.is_busy() && began.elapsed() < LONGEST_PAUSE && !self.state.is_stopping() {
                std::thread::sleep(LOOK);
            }
            self.slice.set(Instant::now());
        }
        !self.state.is_stopping()
    }

    /// Whether a hot table is being rolled, or a ring is more than a quarter full.
    fn is_busy(&self) -> bool {
        let fills = |shard: &Arc<ShardState>| shard.gauge.used_bytes() > shard.gauge.capacity() / 4;
        self.roller.is_busy() || self.shards.iter().any(fills)
    }

    /// Refuses a merge that could fill the disk.
    fn check_room(&self, Room { free, floor }: Room, bytes: u64) -> Result<(), Error> {
        if free.saturating_sub(floor) / 2 >= bytes {
            return Ok(());
        }
        let problem = format!(
            "{bytes} bytes need twice their space beside the {floor} bytes that stay free, and \
             {free} bytes are free"
        );
        let full = io::Error::new(io::ErrorKind::StorageFull, problem);
        Err(Error::io("join files of", self.location.root())(full))
    }

    /// Files that were replaced at least `retention` ago, and those that have to wait.
    fn expired(&self, retention: Duration) -> Result<Expired, Error> {
        self.ask(|answer| Request::Expired { retention, answer })
    }

    /// Removes files of the table's directory; gives their bytes.
    fn remove(&self, paths: &[Arc<str>]) -> Result<u64, Error> {
        let mut bytes = 0;
        for path in paths {
            let name = object_store::path::Path::parse(&**path).map_err(|source| {
                let problem = format!("is not a name of ours: {source}");
                LakeError::Content { path: path.to_string().into(), problem }
            })?;
            bytes += self.location.size(&name).unwrap_or(0);
            self.location.remove(&name)?;
            // Relaxed: statistics.
            self.state.files_removed.fetch_add(1, Ordering::Relaxed);
        }
        Ok(bytes)
    }

    /// Removes everything that nobody needs; files that were replaced are needed for `retention`.
    fn vacuum(&self, retention: Duration) -> Result<VacuumReport, Error> {
        // Listed before the roller answers: it does so between two rolls, so that every file in
        // the list is by then in the table or will never be. Merges are this thread's own.
        let mut listed = self.location.list_all()?;
        let Expired { removable, waiting } = self.expired(retention)?;
        let bytes = self.remove(&removable)?;
        let gone: HashSet<&str> = removable.iter().map(|path| &**path).collect();
        listed.retain(|file| !gone.contains(file.location.as_ref()));
        let more = vacuum(&self.location, &self.node, &listed, &waiting, retention)?;
        // Relaxed: statistics.
        self.state.files_removed.fetch_add(more.files, Ordering::Relaxed);
        Ok(VacuumReport {
            files: more.files + removable.len() as u64,
            bytes: more.bytes + bytes,
            waiting: waiting.len(),
            expired: 0,
        })
    }

    /// Asks the roller; it answers between two rolls.
    fn ask<T>(&self, request: impl FnOnce(Sender<T>) -> Request) -> Result<T, Error> {
        let (sender, answer) = bounded(1);
        self.committer.send(request(sender)).map_err(|_| Error::Closed)?;
        answer.recv().map_err(|_| Error::Closed)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]

    use std::thread;

    use crossbeam_channel::unbounded;
    use ringlake_disk::RealDisk;
    use tempfile::TempDir;

    use super::*;
    use crate::directory::Directory;
    use crate::erase::Erasures;
    use crate::hot::test_queue;
    use crate::markers::Markers;
    use crate::snapshot::Snapshot;
    use crate::space;

    fn compactor() -> (TempDir, Compactor) {
        let data = tempfile::tempdir().unwrap();
        let location = Location::parse(None, data.path()).unwrap();
        location.create().unwrap();
        let nothing = Snapshot {
            version: 0,
            files: Arc::default(),
            hot: Vec::new(),
            columns: Arc::default(),
        };
        let space = Space::new(
            space::Limits { free_min_bytes: Some(0), log_max_bytes: u64::MAX },
            Arc::default(),
            Arc::default(),
            test_queue(1 << 20).0.waker(),
            data.path().to_owned(),
            data.path().to_owned(),
        );
        let compactor = Compactor {
            location,
            node: "node-a".into(),
            config: CompactionConfig::default(),
            retention: RetentionConfig::default(),
            orders: unbounded().1,
            committer: bounded(0).0,
            snapshots: Arc::new(Snapshots::new(nothing)),
            shards: Arc::default(),
            roller: Arc::default(),
            space: Arc::new(space),
            operations: Arc::default(),
            state: Arc::default(),
            erasing: Erasing {
                erasures: Arc::new(Erasures::open(data.path(), Arc::new(RealDisk)).unwrap()),
                markers: Arc::new(Markers {
                    senders: Vec::new(),
                    shards: Arc::default(),
                    flusher: Arc::default(),
                    roller: Arc::default(),
                    broken: Arc::default(),
                }),
                directory: Arc::new(Directory::open(data.path()).unwrap()),
                exports: Arc::default(),
                pause: Duration::ZERO,
            },
            avoid: HashSet::new(),
            slice: Cell::new(Instant::now()),
        };
        (data, compactor)
    }

    #[test]
    fn a_merge_waits_for_a_roll_but_not_for_ever() {
        let (_data, compactor) = compactor();
        let pauses = || compactor.state.pauses.load(Ordering::Relaxed);
        let after_a_slice = || {
            while compactor.slice.get().elapsed() < SLICE {
                thread::yield_now();
            }
            let began = Instant::now();
            assert!(compactor.may_go_on());
            began.elapsed()
        };
        after_a_slice();
        assert_eq!(pauses(), 0, "nothing is more urgent");
        compactor.roller.begin();
        assert!(after_a_slice() >= LONGEST_PAUSE, "a roll is, and it does not end");
        assert_eq!(pauses(), 1);
        let roller = Arc::clone(&compactor.roller);
        let (state, began) = (Arc::clone(&compactor.state), Instant::now());
        let rolling = thread::spawn(move || {
            while state.pauses.load(Ordering::Relaxed) < 2 {
                assert!(began.elapsed() < Duration::from_secs(60), "it does not wait");
                thread::yield_now();
            }
            roller.end();
        });
        after_a_slice();
        rolling.join().unwrap();
        assert_eq!(pauses(), 2);
        after_a_slice();
        assert_eq!(pauses(), 2, "the roll has ended");
    }

    #[test]
    fn a_panic_is_a_problem_that_stays() {
        let state = CompactorState::default();
        state.watch(|| {});
        assert!(!state.problem.is_there());
        state.watch(|| panic!("a mistake"));
        let problem = state.problem.text().unwrap();
        assert!(problem.starts_with("the thread compactor has panicked"), "{problem}");
    }

    #[test]
    fn a_merge_is_given_up_when_the_engine_stops() {
        let (_data, compactor) = compactor();
        compactor.roller.begin();
        compactor.state.stop();
        assert!(!compactor.may_go_on());
    }

    #[test]
    fn a_merge_that_could_fill_the_disk_is_refused() {
        let (_data, compactor) = compactor();
        let room = Room { free: 100, floor: 20 };
        compactor.check_room(room, 40).unwrap();
        let error = compactor.check_room(room, 41).unwrap_err();
        let Error::Io { source, .. } = &error else { panic!("{error}") };
        assert_eq!(source.kind(), io::ErrorKind::StorageFull);
        assert!(chain(&error).contains("100 bytes are free"), "{}", chain(&error));
    }

    #[test]
    fn a_request_to_a_roller_that_has_ended_is_refused() {
        let (_data, compactor) = compactor();
        assert!(matches!(compactor.expired(Duration::ZERO), Err(Error::Closed)));
        assert!(matches!(compactor.vacuum(Duration::ZERO), Err(Error::Closed)));
    }
}

//! Exports: files of events, made by jobs that can be watched, cancelled and fetched later.
//!
//! ```text
//!  ExportRequest ─▶ queued ─▶ running ─┬▶ done ─▶ fetched ─▶ expired
//!                      ▲               ├▶ failed ─▶ expired
//!                      └── restart ◀───┘
//! ```
//!
//! **Guarantees.** A job that was accepted is on the medium. After a restart it is there as it was;
//! one that was running begins again, and after [`RESTARTS_MAX`] crashes it is reported as failed. A
//! file that a job names is complete, synced and has the checksum that the job says. A cancelled job
//! leaves nothing, and does not come back. A job's events are those of one snapshot, which holds
//! everything that was accepted before it began to run; its range ends when it was created at the
//! latest, so that it gives the same after a restart.
//!
//! **Not guaranteed.** An order of rows.
//!
//! **Limits.** One job runs at a time; [`QUEUED_MAX`] wait, [`JOBS_MAX`] are kept. A job goes
//! [`KEPT`] after its end. Jobs leave the free space alone that events need.
//!
//! **Memory.** The rows of a batch, the chunks of one row group, and what the format holds back
//! (Parquet: a row group).
//!
//! **Roles.** One thread runs the jobs, behind all others. Any thread may ask; nothing but the
//! creation and the end of jobs waits for the disk.
//!
//! **Layout.** `<data>/exports/<id>/job.json` and the files; a file that is being written ends in
//! `.partial`.

mod job;
mod parts;
mod run;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use tracing::field::Empty;

pub use job::{ExportFile, ExportFormat, ExportRequest, Job, Status};

use crate::WORK;
use crate::clock::now_micros;
use crate::engine::{Engine, Shared};
use crate::error::{Error, chain};
use job::Store;
use ringlake_niceness::Behind;
use run::Ended;

/// Jobs that wait for the one that runs.
pub const QUEUED_MAX: usize = 32;
/// Jobs that are kept, those that have ended included.
pub const JOBS_MAX: usize = 1_000;
/// Time that a job and its files are kept after its end: a day to fetch them.
pub const KEPT: Duration = Duration::from_hours(24);
/// A job during which the process crashed more often fails: it may be what ends the process.
pub const RESTARTS_MAX: u32 = 3;
/// How often the thread looks for jobs that have expired.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// How often it looks whether the engine is ready, while it is not.
const READY_LOOK: Duration = Duration::from_millis(50);

/// An export that was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// A column is none of the table's, or asked for twice.
    #[error("column `{column}` {problem}")]
    Column {
        /// As it was asked for.
        column: String,
        /// What is wrong with it, as a verb phrase.
        problem: &'static str,
    },
    /// The range holds no moment.
    #[error("the range is empty: `from` must lie before `to`")]
    Range,
    /// Too many jobs.
    #[error("too many exports: {queued} may wait and {kept} be kept; delete some")]
    Busy {
        /// How many may wait.
        queued: usize,
        /// How many may be there.
        kept: usize,
    },
    /// There is no such job, or it is another tenant's.
    #[error("there is no such export")]
    Unknown,
    /// The job has no such file, or not yet.
    #[error("the export has no such file")]
    NoFile,
    /// Exports are not taken: the engine starts or stops, or runs for a command.
    #[error("no exports are taken now")]
    NotReady,
    /// The job could not be written down.
    #[error("the export cannot be written down")]
    Store(#[source] Error),
}

/// All jobs.
#[derive(Debug, Default)]
pub(crate) struct Exports {
    /// Absent until exports are started.
    started: OnceLock<Started>,
    entries: Mutex<BTreeMap<String, Arc<Entry>>>,
    /// Held while a job is accepted, so that the limits hold.
    accepting: Mutex<()>,
    stop: AtomicBool,
}

#[derive(Debug)]
struct Started {
    store: Store,
    /// Tells the thread that there is something to do; it ends when this is gone.
    wake: Sender<()>,
}

/// A job and those who want something of it.
#[derive(Debug)]
pub(crate) struct Entry {
    job: Mutex<Job>,
    /// Set to end it.
    cancelled: AtomicBool,
}

impl Entry {
    fn new(job: Job) -> Arc<Self> {
        Arc::new(Self { job: Mutex::new(job), cancelled: AtomicBool::new(false) })
    }

    fn job(&self) -> MutexGuard<'_, Job> {
        self.job.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_cancelled(&self) -> bool {
        // Acquire: pairs with the Release store in `cancel_export`.
        self.cancelled.load(Ordering::Acquire)
    }
}

impl Exports {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Breaks off the job that runs; the next start begins it again.
    pub(crate) fn stop(&self) {
        // Relaxed: it says "no more" and hands nothing over.
        self.stop.store(true, Ordering::Relaxed);
        self.wake();
    }

    fn is_stopped(&self) -> bool {
        // Relaxed: see `stop`.
        self.stop.load(Ordering::Relaxed)
    }

    fn wake(&self) {
        if let Some(started) = self.started.get() {
            // Full means that a wake is on its way already.
            let _ = started.wake.try_send(());
        }
    }

    fn started(&self) -> Result<&Started, ExportError> {
        self.started.get().filter(|_| !self.is_stopped()).ok_or(ExportError::NotReady)
    }

    /// The job `id`, when `tenant` may see it.
    fn find(&self, tenant: Option<&str>, id: &str) -> Result<Arc<Entry>, ExportError> {
        let entry = self.entries().get(id).cloned().ok_or(ExportError::Unknown)?;
        let is_visible = entry.job().is_visible_to(tenant);
        if is_visible { Ok(entry) } else { Err(ExportError::Unknown) }
    }

    /// The oldest job that waits.
    fn next_queued(&self) -> Option<Arc<Entry>> {
        let entries = self.entries();
        entries.values().find(|entry| entry.job().status == Status::Queued).cloned()
    }

    /// Ends a job and removes it with its files.
    fn cancel(&self, store: &Store, entry: &Entry) -> Result<(), ExportError> {
        let id = entry.job().id.clone();
        store.cancel(&id).map_err(ExportError::Store)?;
        let is_running = {
            // Under the lock: either the job never begins, or it is seen to run.
            let job = entry.job();
            // Release: pairs with the Acquire load in `is_cancelled`.
            entry.cancelled.store(true, Ordering::Release);
            job.status == Status::Running
        };
        self.entries().remove(&id);
        // Else the thread does it, once it writes no more.
        if !is_running {
            remove(store, &id);
        }
        Ok(())
    }

    /// Ends and removes every job that may hold events of `tenant`: its own, and those of all tenants.
    /// [`Exports::is_removing`] says when their files are gone.
    ///
    /// # Errors
    /// When a job cannot be marked as cancelled.
    pub(crate) fn forget(&self, tenant: &str) -> Result<(), ExportError> {
        let Some(started) = self.started.get() else { return Ok(()) };
        let concerned: Vec<Arc<Entry>> = {
            let entries = self.entries();
            entries.values().filter(|entry| entry.job().may_hold(tenant)).cloned().collect()
        };
        concerned.iter().try_for_each(|entry| self.cancel(&started.store, entry))
    }

    /// Whether files are on the disk that belong to no job any more.
    pub(crate) fn is_removing(&self) -> bool {
        let Some(started) = self.started.get() else { return false };
        let entries = self.entries();
        started.store.ids().iter().any(|id| !entries.contains_key(id))
    }

    /// Whether there are jobs that can be ended: commands run none.
    pub(crate) fn is_started(&self) -> bool {
        self.started.get().is_some()
    }

    /// Removes jobs whose time is over.
    fn expire(&self, store: &Store) {
        let now = now_micros();
        let is_over = |entry: &Arc<Entry>| entry.job().expires_at.is_some_and(|at| at <= now);
        let over: Vec<Arc<Entry>> =
            self.entries().values().filter(|entry| is_over(entry)).cloned().collect();
        for entry in over {
            let id = entry.job().id.clone();
            self.entries().remove(&id);
            remove(store, &id);
        }
    }
}

/// Removes the job `id` from the disk. Nobody finds it there any more, so a failure is for the log;
/// the next start tries again.
fn remove(store: &Store, id: &str) {
    if let Err(error) = store.remove(id) {
        let error: &dyn std::error::Error = &error;
        tracing::warn!(id, error, "an export cannot be removed; the next start tries again");
    }
}

impl Engine {
    /// Begins to run exports: those that waited, those that were interrupted, and new ones.
    ///
    /// # Errors
    /// When the directory of exports cannot be read, or the thread cannot be started.
    pub fn start_exports(&self) -> Result<(), Error> {
        let exports = &self.shared.exports;
        let store = Store::open(self.shared.directory.root().join("exports"))?;
        for job in store.load()? {
            exports.entries().insert(job.id.clone(), Entry::new(job));
        }
        let (wake, wakes) = bounded(1);
        if exports.started.set(Started { store, wake }).is_err() {
            return Ok(());
        }
        let shared = Arc::downgrade(&self.shared);
        self.spawn("export", move || {
            ringlake_niceness::step(Behind::Events);
            work(&shared, &wakes);
        })
    }

    /// Accepts an export. It ends where it is now at the latest.
    ///
    /// # Errors
    /// See [`ExportError`].
    pub fn create_export(&self, request: ExportRequest) -> Result<Job, ExportError> {
        let exports = &self.shared.exports;
        let started = exports.started()?;
        let job = Job::new(request, self.columns(), now_micros())?;
        let _accepting = exports.accepting.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let entries = exports.entries();
            let queued = entries.values().filter(|entry| entry.job().status == Status::Queued);
            if queued.count() >= QUEUED_MAX || entries.len() >= JOBS_MAX {
                return Err(ExportError::Busy { queued: QUEUED_MAX, kept: JOBS_MAX });
            }
        }
        started.store.save(&job).map_err(ExportError::Store)?;
        exports.entries().insert(job.id.clone(), Entry::new(job.clone()));
        exports.wake();
        Ok(job)
    }

    /// The jobs that `tenant` may see (all when absent), newest first: at most `limit` of those
    /// older than the job `before`.
    #[must_use]
    pub fn exports(&self, tenant: Option<&str>, before: Option<&str>, limit: usize) -> Vec<Job> {
        let entries = self.shared.exports.entries();
        // Ids sort by the time of creation.
        let older = entries.iter().rev().filter(|(id, _)| before.is_none_or(|it| id.as_str() < it));
        let jobs = older.map(|(_, entry)| entry.job().clone());
        jobs.filter(|job| job.is_visible_to(tenant)).take(limit).collect()
    }

    /// The job `id` as it stands now.
    ///
    /// # Errors
    /// [`ExportError::Unknown`] when there is none that `tenant` may see.
    pub fn export(&self, tenant: Option<&str>, id: &str) -> Result<Job, ExportError> {
        Ok(self.shared.exports.find(tenant, id)?.job().clone())
    }

    /// Ends the job `id` and removes it with its files.
    ///
    /// # Errors
    /// [`ExportError::Unknown`] when there is none that `tenant` may see.
    pub fn cancel_export(&self, tenant: Option<&str>, id: &str) -> Result<(), ExportError> {
        let exports = &self.shared.exports;
        let entry = exports.find(tenant, id)?;
        exports.cancel(&exports.started()?.store, &entry)
    }

    /// Where the file `name` of the job `id` lies, and what is known about it.
    ///
    /// # Errors
    /// [`ExportError::Unknown`] and [`ExportError::NoFile`].
    pub fn export_file(
        &self,
        tenant: Option<&str>,
        id: &str,
        name: &str,
    ) -> Result<(PathBuf, ExportFile), ExportError> {
        let exports = &self.shared.exports;
        let entry = exports.find(tenant, id)?;
        let job = entry.job();
        let file = job.files.iter().find(|file| file.name == name).ok_or(ExportError::NoFile)?;
        let directory = exports.started()?.store.directory(&job.id);
        Ok((directory.join(&file.name), file.clone()))
    }
}

/// The thread that runs jobs.
fn work(shared: &Weak<Shared>, wakes: &Receiver<()>) {
    loop {
        let mut pause = LOOK_EVERY;
        if let Some(shared) = shared.upgrade() {
            let engine = Engine { shared };
            let exports = &engine.shared.exports;
            let Some(started) = exports.started.get().filter(|_| !exports.is_stopped()) else {
                return;
            };
            exports.expire(&started.store);
            if !engine.is_running() {
                pause = READY_LOOK;
            } else if let Some(entry) = exports.next_queued() {
                run_one(&engine, &started.store, &entry);
                continue;
            }
        } else {
            return;
        }
        if wakes.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected) {
            return;
        }
    }
}

/// Runs one job to its end and writes down how it ended.
fn run_one(engine: &Engine, store: &Store, entry: &Entry) {
    let begun = {
        let mut job = entry.job();
        if entry.is_cancelled() {
            return;
        }
        job.begin(now_micros());
        job.clone()
    };
    let span = tracing::info_span!(target: WORK, "export", id = begun.id, error = Empty);
    let began = store.save(&begun).map_err(|error| Ended::Failed(chain(&error)));
    let ended = began.and_then(|()| run::run(engine, store, entry));
    let job = {
        let mut job = entry.job();
        match ended {
            Ok(()) => job.end(now_micros(), None),
            // While all else stops many a thing fails.
            Err(Ended::Failed(problem)) if !engine.shared.exports.is_stopped() => {
                span.record("error", problem.as_str());
                tracing::error!(id = job.id, problem, "an export failed");
                job.end(now_micros(), Some(problem));
            }
            Err(_) => job.wait_again(),
        }
        job.clone()
    };
    if let Err(error) = store.save(&job) {
        let error: &dyn std::error::Error = &error;
        tracing::warn!(id = job.id, error, "the end of an export cannot be written down");
    }
    // Looked at last: whoever cancels from here on removes what was written.
    if entry.is_cancelled() {
        remove(store, &job.id);
    } else if job.status == Status::Failed {
        store.remove_files(&job.id);
    }
}

/// Removes what is not named in `kept` from `directory`.
fn remove_others(directory: &std::path::Path, kept: &[&str]) {
    for found in fs::read_dir(directory).into_iter().flatten().flatten() {
        if !kept.iter().any(|name| found.file_name() == *name) {
            // What stays is removed with the job.
            let _ = fs::remove_file(found.path());
        }
    }
}

//! The engine: what runs, and what it can be asked. How it starts is in the module `start`, how it stops
//! in `shutdown`.
//!
//! **Guarantees**
//! - [`Engine::open`] takes the directory's lock and returns at once; recovery goes on behind it
//!   and the gate for events opens when it has ended.
//! - [`Engine::flush`] and [`Engine::roll`] cover everything that was committed to a ring before
//!   the call: a marker follows the events through every shard.
//! - [`Engine::shutdown`] leaves nothing accepted unsynced, or says so.
//!
//! **Failure.** A start that cannot read its log says why in [`Engine::readiness`] and accepts
//! nothing; queries over what was replayed go on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use ringlake_dedup::Dedup;

use crate::compactor::{CompactReport, CompactorState, Order, VacuumReport};
use crate::config::Config;
use crate::directory::Directory;
use crate::erase::Erasures;
use crate::error::Error;
use crate::export::Exports;
use crate::hot::{FlusherState, Goal, Queue};
use crate::ingest::Gate;
use crate::lake::{Checked, DamagedFile, Location};
use crate::listing::{Follower, ListError, ListRequest, Lister, Page, Tail};
use crate::markers::{Markers, STUCK_LOOK};
use crate::metrics::Operations;
use crate::problem::Problem;
use crate::promoted::{TableColumns, WrongTypes};
use crate::query::{Pool, QueryError, QueryRequest, QueryStream};
use crate::recovery::{Progress, RecoveryStatus};
use crate::roller::RollerState;
use crate::shard::ShardState;
use crate::snapshot::{Snapshot, Snapshots};
use crate::space::Space;
use crate::status::{Quarantine, Status};
use crate::visitor::Visitors;

mod start;

/// Longest wait of a reader for everything to become visible: what has been passed takes up to 100 ms
/// beside full load, a roll that the rest waits for some 300. After it, the longest for what has been passed.
const SHOWN_WITHIN: Duration = Duration::from_millis(500);

pub(crate) use start::promote;
#[cfg(test)]
pub(crate) use start::{committed, open_files};

/// What a roll left behind.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct RollReport {
    /// The table's version after it.
    pub version: u64,
    /// Live Parquet files.
    pub files: usize,
    /// Rows in them.
    pub rows: u64,
}

/// A running engine. Clones are handles on the same one.
#[derive(Debug, Clone)]
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
}

/// What all handles share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub config: Config,
    /// Every thread holds it too: nobody else may write while one of them runs.
    pub directory: Arc<Directory>,
    pub location: Location,
    pub gate: Arc<Gate>,
    /// Who had which visitor id today.
    visitors: Arc<Visitors>,
    /// The known message ids, unless they are not looked at.
    pub dedup: Option<Arc<Dedup>>,
    pub shards: Arc<[Arc<ShardState>]>,
    pub snapshots: Arc<Snapshots>,
    pub progress: Progress,
    pub flusher: Arc<FlusherState>,
    pub roller: Arc<RollerState>,
    pub compactor: Arc<CompactorState>,
    pub space: Arc<Space>,
    pub queue: Queue,
    pub operations: Arc<Operations>,
    /// Which files of the table have been checked.
    pub checked: Arc<Checked>,
    /// Set when the engine has been told to stop.
    pub closing: AtomicBool,
    /// Why nothing is accepted until the next start, if it is so: recovery failed, or a thread
    /// panicked.
    pub broken: Arc<Problem>,
    pub pool: Arc<Pool>,
    pub lister: Lister,
    /// The export jobs.
    pub exports: Arc<Exports>,
    tail: Arc<Tail>,
    /// The columns of `events`.
    pub columns: Arc<TableColumns>,
    /// Values that had another type than their promoted column.
    pub wrong_types: Arc<WrongTypes>,
    pub markers: Arc<Markers>,
    /// What is to be erased, and what has been.
    pub erasures: Arc<Erasures>,
    /// The highest number of each shard that the start has found.
    pub found: OnceLock<BTreeMap<u32, i64>>,
    pub orders: Sender<Order>,
    /// One a thread; it disconnects when the thread has ended.
    pub threads: Mutex<Vec<(String, Receiver<()>)>>,
}

impl Engine {
    /// This node's id.
    #[must_use]
    pub fn node(&self) -> &str {
        self.shared.directory.node()
    }

    /// The columns of `events`, for as long as this process runs.
    #[must_use]
    pub fn columns(&self) -> &TableColumns {
        &self.shared.columns
    }

    /// The directory of the Delta table.
    #[must_use]
    pub fn table_path(&self) -> &std::path::Path {
        self.shared.location.root()
    }

    /// Tells other processes on this machine where the server of this directory listens.
    ///
    /// # Errors
    /// When the lock file cannot be written.
    pub fn announce(&self, url: &str) -> Result<(), Error> {
        self.shared.directory.announce(url)
    }

    /// Waits until recovery has ended.
    ///
    /// # Errors
    /// When it failed, or took longer than `limit`.
    pub fn wait_ready(&self, limit: Duration) -> Result<(), Error> {
        let until = Instant::now() + limit;
        while !self.is_running() {
            if let Some(problem) = self.shared.broken.text() {
                return Err(Error::Broken { problem });
            }
            if Instant::now() >= until {
                return Err(Error::Deadline { what: "replaying the log", limit });
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Runs one query over everything that was accepted before the call. Blocks until a worker has
    /// planned it.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn query(&self, request: QueryRequest) -> Result<QueryStream, QueryError> {
        // Half a replay would look like lost events.
        if !self.is_running() && !self.shared.broken.is_there() {
            return Err(QueryError::NotReady);
        }
        self.shared.pool.query(request, self.newest())
    }

    /// Reads one page of events, of everything that was accepted before the call. Blocks; not for a
    /// worker of an async runtime.
    ///
    /// # Errors
    /// See [`ListError`].
    pub fn list(&self, request: &ListRequest) -> Result<Page, ListError> {
        self.check_listing()?;
        self.shared.lister.page(request, &self.newest())
    }

    /// What readers see, with every event that was committed to a ring before the call; but those that
    /// cannot become visible in twice [`SHOWN_WITHIN`] are left out: rolls fail, or are far behind.
    fn newest(&self) -> Arc<Snapshot> {
        // Relaxed: a marker that slips through is answered by its sender's end.
        if !self.shared.closing.load(Ordering::Relaxed) {
            self.shared.markers.show_within(SHOWN_WITHIN, &self.shared.queue);
        }
        self.shared.snapshots.load()
    }

    /// Follows the events that become visible from here on: those of the tenant, type, event and
    /// user of `request`, whose other fields mean nothing here.
    ///
    /// # Errors
    /// [`ListError::Followers`] when too many follow already, [`ListError::NotReady`].
    pub fn follow(&self, request: &ListRequest) -> Result<Follower, ListError> {
        self.check_listing()?;
        self.shared.tail.follow(request)
    }

    fn check_listing(&self) -> Result<(), ListError> {
        let closing = self.shared.closing.load(Ordering::Relaxed);
        // Half a replay would look like lost events, and its events like new ones. Relaxed: what
        // slips through is sound.
        if closing || !self.is_running() && !self.shared.broken.is_there() {
            return Err(ListError::NotReady);
        }
        Ok(())
    }

    /// How far the start is.
    #[must_use]
    pub fn recovery(&self) -> RecoveryStatus {
        self.shared.progress.status()
    }

    /// What was set aside since the start.
    #[must_use]
    pub fn quarantined(&self) -> Quarantine {
        Quarantine::of(&self.shared)
    }

    /// The files of the table that are known to be damaged; queries that need one fail.
    #[must_use]
    pub fn damaged_files(&self) -> Vec<DamagedFile> {
        self.shared.checked.damaged()
    }

    /// A look at everything countable.
    #[must_use]
    pub fn status(&self) -> Status {
        Status::of(&self.shared)
    }

    /// How long the engine's own operations took so far.
    #[must_use]
    pub fn operations(&self) -> &Operations {
        &self.shared.operations
    }

    /// Waits until every event committed to a ring before the call is visible to SQL.
    ///
    /// # Errors
    /// [`Error::Closed`] while starting or shutting down; [`Error::Broken`] when nothing is
    /// accepted until the next start; [`Error::Stuck`] when DuckDB or the roller has taken nothing
    /// for some seconds.
    pub fn flush(&self) -> Result<(), Error> {
        self.reach(Goal::Visible)
    }

    /// Waits until every event committed to a ring before the call is in the table.
    ///
    /// # Errors
    /// [`Error::Closed`] while starting or shutting down; [`Error::Broken`] when nothing is
    /// accepted until the next start; [`Error::Stuck`] when DuckDB or the table has taken nothing
    /// for some seconds.
    pub fn roll(&self) -> Result<RollReport, Error> {
        self.reach(Goal::Rolled)?;
        let snapshot = self.shared.snapshots.load();
        Ok(RollReport {
            version: snapshot.version,
            files: snapshot.files.len(),
            rows: snapshot.files.iter().filter_map(|file| file.rows).sum(),
        })
    }

    /// Joins all small files of the table, of every day, and waits until it is done.
    ///
    /// # Errors
    /// [`Error::Closed`] while shutting down or before the log has been replayed, and what kept a
    /// file from being joined; the others have been joined then. [`Error::Stuck`] when the table has
    /// taken nothing for some seconds: it goes on when that is over; [`Error::Broken`].
    pub fn compact(&self) -> Result<CompactReport, Error> {
        self.order(Order::Compact)
    }

    /// Removes every file below the table that nobody needs, and waits until it is done: those that
    /// were replaced long enough ago, and those that no commit names.
    ///
    /// # Errors
    /// [`Error::Closed`] while shutting down or before the log has been replayed, and what kept a
    /// file from being removed; [`Error::Stuck`] as for [`Engine::compact`].
    pub fn vacuum(&self) -> Result<VacuumReport, Error> {
        self.order(Order::Vacuum)
    }

    fn order<T>(&self, order: impl FnOnce(Sender<Result<T, Error>>) -> Order) -> Result<T, Error> {
        // Relaxed: an order that slips through is answered by its receiver's end.
        if self.shared.closing.load(Ordering::Relaxed) || !self.is_running() {
            return Err(Error::Closed);
        }
        // No order is left behind by callers who are told so.
        self.shared.markers.check_roller()?;
        let (sender, answer) = bounded(1);
        self.shared.orders.send(order(sender)).map_err(|_| Error::Closed)?;
        loop {
            match answer.recv_timeout(STUCK_LOOK) {
                Ok(outcome) => return outcome,
                Err(RecvTimeoutError::Disconnected) => return Err(Error::Closed),
                // The roller commits for the compactor, between two rolls.
                Err(RecvTimeoutError::Timeout) => self.shared.markers.check_roller()?,
            }
        }
    }

    pub(crate) fn reach(&self, goal: Goal) -> Result<(), Error> {
        // Relaxed: a marker that slips through is answered by its sender's end.
        let starting = !self.is_running() && !self.shared.broken.is_there();
        if self.shared.closing.load(Ordering::Relaxed) || starting {
            return Err(Error::Closed);
        }
        self.shared.markers.reach(goal)
    }
}

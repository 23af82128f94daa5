//! The roller: sealed hot tables become Parquet files and one Delta commit.
//!
//! **Guarantees** (rules 8, 9, 11 and 12)
//! - The Delta commit is the only moment at which anything changes hands. It carries the files
//!   and each shard's highest number; only after it has returned do readers get the new snapshot
//!   and shards learn which segments they may delete.
//! - A reader sees each event exactly once before, during and after a roll.
//!
//! **Roles.** One roller thread is the only committer of the table.
//!
//! **Failure.** A roll that fails is tried again with a growing pause, for as long as it takes:
//! the hot table stays, the next one fills, then requests are refused. Files of a failed try are
//! removed, at the latest by the next start.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use duckdb::Connection;

use crate::error::{Error, chain};
use crate::hot::{FlusherState, Sealed, ToRoller};
use crate::lake::{Checked, Location, NewFile, ShardSequence, Table, write_table};
use crate::metrics::Operations;
use crate::query::Pool;
use crate::shard::ShardState;
use crate::snapshot::{HotTable, Snapshot, Snapshots};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// A full disk is looked at again this often.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Bytes of rolled hot tables that readers alone may keep in memory: two full tables at the default
/// settings. A reader that is a roll or two behind goes on; under load one further behind is ended.
const PINNED_BYTES_MAX: usize = 64 << 20;

/// What others may know about the roller.
#[derive(Debug, Default)]
pub(crate) struct RollerState {
    /// Rows committed since the start of the process.
    pub rolled_rows: AtomicU64,
    /// Set to give up instead of trying again.
    pub stop: AtomicBool,
    problem: Mutex<Option<String>>,
}

impl RollerState {
    /// Why rolls fail, while they do.
    pub(crate) fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_problem(&self, problem: Option<String>) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }
}

/// The roller thread's belongings.
#[derive(Debug)]
pub(crate) struct Roller {
    pub connection: Connection,
    pub location: Location,
    pub table: Table,
    pub node: String,
    pub rolls: Receiver<ToRoller>,
    pub snapshots: Arc<Snapshots>,
    pub shards: Arc<[Arc<ShardState>]>,
    pub flusher: Arc<FlusherState>,
    pub operations: Arc<Operations>,
    pub state: Arc<RollerState>,
    pub pool: Arc<Pool>,
    pub checked: Arc<Checked>,
    /// How far the table holds each shard.
    pub committed: BTreeMap<u32, i64>,
    /// Rolled tables that a reader may still hold, oldest first.
    pub rolled: VecDeque<Rolled>,
}

/// A table that only readers still hold, if anybody does.
#[derive(Debug)]
pub(crate) struct Rolled {
    table: Weak<HotTable>,
    bytes: usize,
    /// Snapshots older than this version name it.
    version: u64,
}

impl Roller {
    /// Runs until the flusher is gone or it is told to stop.
    pub(crate) fn run(mut self) {
        while let Ok(message) = self.rolls.recv() {
            match message {
                ToRoller::Roll(sealed) => {
                    if !self.roll_until_done(sealed) {
                        return;
                    }
                }
                ToRoller::Marker(marker) => marker.answer(Ok(())),
            }
        }
    }

    /// False when it was told to give up.
    fn roll_until_done(&mut self, sealed: Sealed) -> bool {
        let mut pause = FIRST_PAUSE;
        let mut files = None;
        loop {
            let began = Instant::now();
            match self.roll(&sealed, &mut files) {
                Ok(()) => {
                    self.operations.roll.observe(began.elapsed());
                    self.state.set_problem(None);
                    return true;
                }
                Err(error) => {
                    let problem = chain(&error);
                    tracing::error!(table = %sealed.table.name, %problem, "a roll failed; the hot table stays and it is tried again");
                    self.state.set_problem(Some(problem));
                }
            }
            let until = Instant::now() + pause;
            while Instant::now() < until {
                // Acquire: pairs with the Release store in `Engine::shutdown`.
                if self.state.stop.load(Ordering::Acquire) {
                    return false;
                }
                std::thread::sleep(FIRST_PAUSE);
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Does what is still missing of the roll; `files` are those that an earlier try has written.
    fn roll(&mut self, sealed: &Sealed, files: &mut Option<Vec<NewFile>>) -> Result<(), Error> {
        let began = Instant::now();
        if files.is_none() {
            let written =
                write_table(&self.connection, &sealed.table.name, &self.location, &self.node)?;
            check_rows(&written, sealed)?;
            *files = Some(written);
        }
        let files = files.as_deref().unwrap_or_default();
        let write_ms = began.elapsed().as_millis();
        let sequences: Vec<ShardSequence> = sealed
            .sequences
            .iter()
            .map(|&(shard, last)| ShardSequence { shard, previous: self.committed(shard), last })
            .filter(|sequence| sequence.last > sequence.previous)
            .collect();
        // Nothing is left to commit when only publishing failed the last time.
        if !sequences.is_empty() {
            // The same files are offered again after an error, so that a commit that went through
            // without our knowing is recognised by its numbers and adds nothing.
            let outcome = self.table.commit(files, &sequences)?;
            tracing::debug!(?outcome, "committed");
        }
        for sequence in &sequences {
            self.committed.insert(sequence.shard, sequence.last);
        }
        self.checked.trust(files.iter().map(|file| file.path.as_ref().into()));
        self.publish(sealed)?;
        self.bound_pinned(sealed);
        self.table.upkeep();
        tracing::info!(
            table = %sealed.table.name,
            rows = sealed.rows,
            files = files.len(),
            version = self.table.version(),
            write_ms,
            total_ms = began.elapsed().as_millis(),
            "rolled"
        );
        Ok(())
    }

    /// Swaps the readers' snapshot, then lets go of what the table now holds.
    fn publish(&self, sealed: &Sealed) -> Result<(), Error> {
        let files = self.table.live_files()?;
        let version = self.table.version();
        self.checked.keep(&files);
        self.snapshots.update(|old| Snapshot {
            version,
            files: Arc::clone(&files),
            hot: old.hot.iter().filter(|hot| hot.name != sealed.table.name).cloned().collect(),
        });
        // Relaxed: statistics.
        self.flusher.hot_rows.fetch_sub(sealed.rows, Ordering::Relaxed);
        self.state.rolled_rows.fetch_add(sealed.rows as u64, Ordering::Relaxed);
        for shard in self.shards.iter() {
            shard.release(self.committed(shard.shard));
        }
        Ok(())
    }

    /// Ends the readers that keep more rolled events in memory than they may, oldest tables first.
    /// The table that has just been rolled counts from the next roll on.
    fn bound_pinned(&mut self, sealed: &Sealed) {
        self.rolled.retain(|rolled| rolled.table.strong_count() > 0);
        let mut pinned: usize = self.rolled.iter().map(|rolled| rolled.bytes).sum();
        for rolled in &self.rolled {
            if pinned <= PINNED_BYTES_MAX {
                break;
            }
            tracing::warn!(
                pinned,
                limit = PINNED_BYTES_MAX,
                "ending queries that keep rolled events in memory"
            );
            self.pool.stop_older(rolled.version);
            pinned -= rolled.bytes;
        }
        self.rolled.push_back(Rolled {
            table: Arc::downgrade(&sealed.table),
            bytes: sealed.bytes,
            version: self.table.version(),
        });
    }

    fn committed(&self, shard: u32) -> i64 {
        self.committed.get(&shard).copied().unwrap_or(0)
    }
}

/// The last check before the commit: the files hold as many rows as were appended.
fn check_rows(files: &[NewFile], sealed: &Sealed) -> Result<(), Error> {
    let rows: u64 = files.iter().map(|file| file.rows).sum();
    if rows == sealed.rows as u64 {
        return Ok(());
    }
    Err(Error::Format {
        path: sealed.table.name.clone().into(),
        problem: format!("has {} rows, its Parquet files have {rows}", sealed.rows),
    })
}

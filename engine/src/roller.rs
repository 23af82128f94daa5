//! The roller: sealed hot tables become Parquet files and one Delta commit.
//!
//! **Guarantees**
//! - The Delta commit is the only moment at which anything changes hands. It carries the files
//!   and each shard's highest number; only after it has returned do readers get the new snapshot
//!   and shards learn which segments they may delete.
//! - A reader sees each event exactly once before, during and after a roll, and before, during and
//!   after a compaction's commit, which comes between two rolls.
//!
//! **Roles.** One roller thread is the only committer of the table. The compactor has it commit
//! what it has merged; a roll that waits goes first.
//!
//! **Limits.** A compaction's commit keeps a roll waiting for milliseconds, a checkpoint for 50 ms
//! and more (see [`Table::upkeep`]).
//!
//! **Failure.** A roll that fails is tried again with a growing pause, for as long as it takes, and
//! at once when there is room again after there was too little: the hot table stays, the next one
//! fills, then requests are refused. Files of a failed try are removed, at the latest by the next
//! start. Once the files are written only the commit is tried again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, never, select_biased};
use tracing::field::Empty;

use crate::WORK;
use crate::error::{Error, chain};
use crate::hot::{FlusherState, Sealed, Wake};
use crate::lake::{
    Checked, DataFile, LakeError, Location, NewFile, ReplaceOutcome, ShardSequence, Table,
    write_rows,
};
use crate::metrics::Operations;
use crate::problem::Problem;
use crate::query::Pool;
use crate::shard::ShardState;
use crate::snapshot::{HotTable, Snapshot, Snapshots};
use crate::space::Space;

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
    /// Replaced files that are still on disk.
    pub waiting_files: AtomicU64,
    /// A table is on its way into the lake. Set by the flusher, taken back by the roller.
    busy: AtomicBool,
    /// Set to make it end: no roll is begun or tried again.
    stop: AtomicBool,
    /// Set to make it break off the roll that runs.
    give_up: AtomicBool,
    /// Why rolls fail, while they do. Written by the roller.
    pub problem: Problem,
}

impl RollerState {
    /// Whether a table is on its way into the lake.
    pub(crate) fn is_busy(&self) -> bool {
        // Acquire: pairs with the Release store in `end`; who sees the roller idle sees the snapshot
        // that names what it rolled.
        self.busy.load(Ordering::Acquire)
    }

    /// A table goes to the roller. Only the flusher calls it, while the roller is idle.
    pub(crate) fn begin(&self) {
        // Relaxed: the channel hands the table over.
        self.busy.store(true, Ordering::Relaxed);
    }

    /// The table is in the lake. Only the roller calls it.
    pub(crate) fn end(&self) {
        // Release: pairs with the Acquire load in `is_busy`.
        self.busy.store(false, Ordering::Release);
    }

    /// Makes the roller end after the roll that it is at.
    pub(crate) fn stop(&self) {
        // Relaxed: nothing is handed over with it.
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Makes the roller break off the roll that it is at, which takes some milliseconds.
    pub(crate) fn give_up(&self) {
        // Relaxed: nothing is handed over with it.
        self.give_up.store(true, Ordering::Relaxed);
    }

    fn is_stopped(&self) -> bool {
        // Relaxed: see `stop`.
        self.stop.load(Ordering::Relaxed)
    }
}

/// What the compactor wants of the table.
#[derive(Debug)]
pub(crate) enum Request {
    /// Put files in the place of others that hold the same rows, and `erased` more that are gone.
    Replace {
        removed: Vec<DataFile>,
        added: Vec<NewFile>,
        erased: u64,
        answer: Sender<Result<ReplaceOutcome, LakeError>>,
    },
    /// Hand out the files that were replaced for this long and that nobody reads any more.
    Expired { retention: Duration, answer: Sender<Expired> },
    /// Leave of the table's log what its newest version needs.
    ForgetHistory { answer: Sender<Result<(), LakeError>> },
}

/// Replaced files, relative to the table.
#[derive(Debug, Default)]
pub(crate) struct Expired {
    /// They may be removed, and are the asker's from now on.
    pub removable: Vec<Arc<str>>,
    /// They may not yet.
    pub waiting: Vec<Arc<str>>,
}

/// The roller thread's belongings.
#[derive(Debug)]
pub(crate) struct Roller {
    pub location: Location,
    pub table: Table,
    pub node: String,
    pub rolls: Receiver<Sealed>,
    pub requests: Receiver<Request>,
    /// Used when a roll is done: the next one may begin.
    pub wake: Wake,
    pub space: Arc<Space>,
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
        let (rolls, mut requests) = (self.rolls.clone(), self.requests.clone());
        loop {
            select_biased! {
                recv(rolls) -> sealed => match sealed {
                    Ok(sealed) => {
                        if !self.take(sealed) {
                            return;
                        }
                    }
                    Err(_) => return,
                },
                recv(requests) -> request => match request {
                    Ok(request) => self.serve(request),
                    // The compactor has ended; rolls go on.
                    Err(_) => requests = never(),
                },
            }
        }
    }

    /// False when it was told to give up.
    fn take(&mut self, sealed: Sealed) -> bool {
        if !self.roll_until_done(&sealed) {
            return false;
        }
        sealed.markers.iter().for_each(|marker| marker.answer());
        // Unless a reader holds it, the flusher drops the table when it is woken.
        drop(sealed);
        self.state.end();
        self.wake.wake();
        true
    }

    fn serve(&mut self, request: Request) {
        match request {
            Request::Replace { removed, added, erased, answer } => {
                let outcome = match erased {
                    0 => self.table.replace(&removed, &added),
                    erased => self.table.erase(&removed, &added, erased),
                };
                self.checked.trust(added.iter().map(|file| file.path.as_ref().into()));
                // Also after an error: the table may have been read again.
                let shown = self.show();
                self.count_waiting();
                let _ = answer.send(outcome.and_then(|outcome| shown.map(|()| outcome)));
                self.table.upkeep();
            }
            Request::Expired { retention, answer } => {
                let removable = self.table.take_expired(retention, self.snapshots.oldest());
                let waiting = self.table.replaced_files();
                self.count_waiting();
                let _ = answer.send(Expired { removable, waiting });
            }
            Request::ForgetHistory { answer } => {
                let _ = answer.send(self.table.forget_history());
            }
        }
    }

    /// Gives readers the table's files as they are now, beside the same hot tables. Only between
    /// two rolls: within one the files may hold what a hot table holds too.
    fn show(&self) -> Result<(), LakeError> {
        let (files, version) = (self.table.live_files()?, self.table.version());
        self.checked.keep(&files);
        self.snapshots.update(|old| Snapshot {
            version,
            files: Arc::clone(&files),
            hot: old.hot.clone(),
            columns: Arc::clone(&old.columns),
        });
        Ok(())
    }

    fn count_waiting(&self) {
        let waiting = self.table.replaced_files().len() as u64;
        // Relaxed: statistics.
        self.state.waiting_files.store(waiting, Ordering::Relaxed);
    }

    /// False when it was told to give up.
    fn roll_until_done(&mut self, sealed: &Sealed) -> bool {
        let mut pause = FIRST_PAUSE;
        let mut files = None;
        loop {
            if self.state.is_stopped() {
                return false;
            }
            let began = Instant::now();
            let (table, rows, error) = (&*sealed.name, sealed.rows, Empty);
            let span = tracing::info_span!(target: WORK, "roll", table, rows, error);
            match self.roll(sealed, &mut files) {
                Ok(()) => {
                    self.operations.roll.observe(began.elapsed());
                    if self.state.problem.clear() {
                        tracing::info!("rolls go through again");
                    }
                    return true;
                }
                // The log brings the rows back.
                Err(_) if self.state.is_stopped() => return false,
                Err(error) => {
                    let problem = chain(&error);
                    span.record("error", problem.as_str());
                    if self.state.problem.set(problem.clone()) {
                        tracing::error!(table = %sealed.name, %problem, "a roll failed; the hot table stays and it is tried again");
                    }
                }
            }
            pause = if self.wait(pause) { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
        }
    }

    /// Waits for `pause`, or until the engine stops, or until there is room again. True for the
    /// last.
    fn wait(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        let was_short = self.space.is_short();
        while Instant::now() < until && !self.state.is_stopped() {
            std::thread::sleep(FIRST_PAUSE);
            // The shards may all be waiting for this roll: nobody else would look then.
            self.space.look_if_due();
            if was_short && !self.space.is_short() {
                return true;
            }
        }
        false
    }

    /// Does what is still missing of the roll; `files` are those that an earlier try has written.
    fn roll(&mut self, sealed: &Sealed, files: &mut Option<Vec<NewFile>>) -> Result<(), Error> {
        let began = Instant::now();
        if files.is_none() {
            // Relaxed: see `give_up`.
            let go_on = &mut || !self.state.give_up.load(Ordering::Relaxed);
            let written = write_rows(&sealed.batches, &self.location, &self.node, go_on)?;
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
            table = %sealed.name,
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
            hot: old.hot.iter().filter(|hot| hot.name != sealed.name).cloned().collect(),
            columns: Arc::clone(&old.columns),
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
        self.rolled.extend(sealed.table.as_ref().map(|table| Rolled {
            table: Arc::downgrade(table),
            bytes: sealed.bytes,
            version: self.table.version(),
        }));
    }

    fn committed(&self, shard: u32) -> i64 {
        self.committed.get(&shard).copied().unwrap_or(0)
    }
}

/// The last check before the commit: the files hold as many rows as were passed.
fn check_rows(files: &[NewFile], sealed: &Sealed) -> Result<(), Error> {
    let rows: u64 = files.iter().map(|file| file.rows).sum();
    if rows == sealed.rows as u64 {
        return Ok(());
    }
    Err(Error::Format {
        path: sealed.name.clone().into(),
        problem: format!("has {} rows, its Parquet files have {rows}", sealed.rows),
    })
}

//! The flusher thread.
//!
//! **Limits.** A table is sealed when the roller takes it, not before: one table is being rolled,
//! one is open. An open table that has reached its limit waits for the roller, the queue fills, and
//! events are refused. A table that is only old, or whose roll somebody wants, goes on taking rows
//! while it waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use crossbeam_channel::{Receiver, Sender, TryRecvError};

use super::pass::Passing;
use super::queue::{Budget, FLUSH_ROWS_MAX, Goal, Marker};
use super::{LogBatch, Message};
use crate::config::HotConfig;
use crate::metrics::Operations;
use crate::problem::Problem;
use crate::roller::RollerState;
use crate::snapshot::{HotTable, Snapshot, Snapshots};
use crate::space::Space;

/// How often a flusher that waits for the roller looks whether the engine stops.
const STOP_LOOK: Duration = Duration::from_millis(50);
/// A roll that somebody waits for and that could not begin is tried again this soon.
const CALLERS_LOOK: Duration = Duration::from_secs(1);

/// A hot table that takes no more rows.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub table: Arc<HotTable>,
    /// What is in it.
    pub batches: Vec<RecordBatch>,
    pub rows: usize,
    /// Their size as Arrow data.
    pub bytes: usize,
    /// The highest number of each shard that is in it or in an earlier table.
    pub sequences: Vec<(u32, i64)>,
    /// To be answered once it is committed.
    pub markers: Vec<Arc<Marker>>,
}

/// What others may know about the flusher.
#[derive(Debug, Default)]
pub(crate) struct FlusherState {
    /// Rows in hot tables that are not yet in the lake.
    pub hot_rows: AtomicUsize,
    /// Batches set aside.
    pub quarantined_batches: AtomicU64,
    /// Rows in them.
    pub quarantined_rows: AtomicU64,
    /// The open table is full and waits for the roller: nothing more becomes visible. Written by
    /// the flusher.
    pub waits_for_roller: AtomicBool,
    /// Set to make it end: what is not in a table yet is in the log.
    pub stop: AtomicBool,
    /// Why appends fail, while they do. Written by the flusher.
    pub problem: Problem,
}

/// The engine stops; what was at hand stays in the log.
#[derive(Debug)]
pub(super) struct Stopped;

impl FlusherState {
    /// # Errors
    /// When the flusher is to end.
    pub(super) fn check(&self) -> Result<(), Stopped> {
        // Relaxed: nothing is handed over with it.
        if self.stop.load(Ordering::Relaxed) { Err(Stopped) } else { Ok(()) }
    }
}

/// The flusher thread's belongings.
#[derive(Debug)]
pub(crate) struct Flusher {
    pub passing: Passing,
    pub config: HotConfig,
    pub messages: Receiver<Message>,
    pub wakes: Receiver<()>,
    pub budget: Arc<Budget>,
    pub roller: Sender<Sealed>,
    pub rolling: Arc<RollerState>,
    pub space: Arc<Space>,
    pub snapshots: Arc<Snapshots>,
    pub unused: Receiver<String>,
    pub unused_sender: Sender<String>,
    pub operations: Arc<Operations>,
    pub state: Arc<FlusherState>,
}

/// The table that takes rows.
#[derive(Debug)]
struct Open {
    number: u64,
    table: Arc<HotTable>,
    /// What was appended to it: a roll writes them, and so need not read the table.
    batches: Vec<RecordBatch>,
    rows: usize,
    bytes: usize,
    first_row: Option<Instant>,
}

/// What the flusher is at.
#[derive(Debug)]
struct Work {
    open: Open,
    /// The highest number of each shard that has been passed.
    sequences: Vec<(u32, i64)>,
    pending: Pending,
    /// Callers that want everything before them in the table.
    rolls: Vec<Arc<Marker>>,
}

#[derive(Debug, Default)]
struct Pending {
    batches: Vec<LogBatch>,
    rows: usize,
    bytes: usize,
}

impl Pending {
    fn push(&mut self, batch: LogBatch) {
        self.rows += batch.batch.num_rows();
        self.bytes += batch.bytes;
        self.batches.push(batch);
    }

    /// As many whole batches as one flush may carry.
    fn take(&mut self, flush_rows: usize) -> Vec<LogBatch> {
        let mut rows = 0;
        let mut count = 0;
        for batch in &self.batches {
            let next = batch.batch.num_rows();
            if count > 0 && (rows >= flush_rows || rows + next > FLUSH_ROWS_MAX) {
                break;
            }
            rows += next;
            count += 1;
        }
        let taken: Vec<LogBatch> = self.batches.drain(..count).collect();
        self.rows -= rows;
        self.bytes -= taken.iter().map(|batch| batch.bytes).sum::<usize>();
        taken
    }
}

/// How much came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Received {
    /// All that waited.
    Everything,
    /// Enough for a flush; more may wait.
    AFlush,
}

impl Flusher {
    /// Runs until it is told to stop, or nobody can send anything any more. `first` is the table
    /// that the first snapshot already names, and `sequences` how far the lake holds each shard.
    pub(crate) fn run(mut self, first: Arc<HotTable>, sequences: Vec<(u32, i64)>) {
        let open = Open {
            number: 1,
            table: first,
            batches: Vec::new(),
            rows: 0,
            bytes: 0,
            first_row: None,
        };
        let (pending, rolls) = (Pending::default(), Vec::new());
        let mut work = Work { open, sequences, pending, rolls };
        // A table must not grow old unseen where flushes are configured to be rare.
        let turn = self.config.flush_interval.min(self.config.roll_age);
        loop {
            // Nobody wakes this thread for a batch: one that waits is seen at the next turn, and
            // a shard saves a system call and this core two context switches a sync.
            let wait = if work.rolls.is_empty() { turn } else { turn.min(CALLERS_LOOK) };
            let _ = self.wakes.recv_timeout(wait);
            if self.take_turn(&mut work).is_err() {
                return;
            }
        }
    }

    /// Takes and passes everything that waits.
    fn take_turn(&mut self, work: &mut Work) -> Result<(), Stopped> {
        loop {
            self.state.check()?;
            let received = self.receive(work)?;
            self.flush_all(work)?;
            self.drop_unused();
            self.roll_if_due(work);
            if received == Received::Everything {
                return Ok(());
            }
        }
    }

    /// Takes what waits, as much as one flush may carry.
    fn receive(&mut self, work: &mut Work) -> Result<Received, Stopped> {
        while work.pending.rows < self.config.flush_rows
            && work.pending.bytes < self.budget.now(self.config.queue_bytes) / 2
        {
            match self.messages.try_recv() {
                Ok(Message::Batch(batch)) => work.pending.push(batch),
                Ok(Message::Marker(marker)) => {
                    if marker.arrive() {
                        self.flush_all(work)?;
                        self.reach(marker, work);
                    }
                }
                Err(TryRecvError::Empty) => return Ok(Received::Everything),
                Err(TryRecvError::Disconnected) => return Err(Stopped),
            }
        }
        Ok(Received::AFlush)
    }

    /// Passes everything that waits.
    fn flush_all(&mut self, work: &mut Work) -> Result<(), Stopped> {
        while work.pending.rows > 0 {
            self.state.check()?;
            self.flush(work)?;
            let full = work.open.rows >= self.budget.now(self.config.roll_rows)
                || work.open.bytes >= self.config.roll_bytes;
            if full {
                self.wait_for_roller()?;
                self.seal(work);
            }
        }
        Ok(())
    }

    /// Passes whole batches, as many as one flush may carry.
    fn flush(&mut self, work: &mut Work) -> Result<(), Stopped> {
        let batches = work.pending.take(self.config.flush_rows);
        let began = Instant::now();
        let appended = self.passing.pass(&batches, &work.open.table.name)?;
        let rows = appended.iter().map(RecordBatch::num_rows).sum();
        self.operations.flush.observe(began.elapsed());
        // Relaxed: statistics.
        self.state.hot_rows.fetch_add(rows, Ordering::Relaxed);
        for batch in &batches {
            match work.sequences.iter_mut().find(|(shard, _)| *shard == batch.shard) {
                Some((_, last)) => *last = batch.last(),
                None => work.sequences.push((batch.shard, batch.last())),
            }
        }
        let open = &mut work.open;
        open.batches.extend(appended);
        open.rows += rows;
        open.bytes += batches.iter().map(|batch| batch.bytes).sum::<usize>();
        open.first_row.get_or_insert(began);
        self.budget.release(&batches);
        Ok(())
    }

    /// Backpressure: nothing is taken from the queue until the table before has been rolled.
    fn wait_for_roller(&self) -> Result<(), Stopped> {
        while self.rolling.is_busy() {
            self.state.check()?;
            // Relaxed: statistics.
            self.state.waits_for_roller.store(true, Ordering::Relaxed);
            // The roller wakes us. What else may wake us is looked at afterwards anyway.
            let _ = self.wakes.recv_timeout(STOP_LOOK);
        }
        // Relaxed: as above.
        self.state.waits_for_roller.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Rolls a table that is old, or that somebody wants rolled, or whose log takes up room that
    /// is lacking.
    fn roll_if_due(&mut self, work: &mut Work) {
        let age = work.open.first_row.map(|since| since.elapsed());
        let old = age.is_some_and(|age| age >= self.config.roll_age);
        let short = age.is_some() && self.space.is_short();
        if !old && !short && work.rolls.is_empty() {
            return;
        }
        if self.rolling.is_busy() {
            return;
        }
        if age.is_some() {
            self.seal(work);
        } else {
            work.rolls.drain(..).for_each(|marker| marker.answer());
        }
    }

    /// Hands the open table to the roller, which is idle, and opens the next one.
    fn seal(&mut self, work: &mut Work) {
        let open = &mut work.open;
        let number = open.number + 1;
        let name = format!("hot_{number}");
        if let Err(error) = self.passing.appender.create(&name) {
            if self.state.problem.set(format!("cannot open a new hot table: {error}")) {
                tracing::error!(%error, "cannot open a new hot table; the old one grows");
            }
            self.passing.pool.make_room();
            // Look again after another round of the age limit.
            open.first_row = Some(Instant::now());
            return;
        }
        let table = Arc::new(HotTable::new(name, self.unused_sender.clone()));
        self.snapshots.update(|old| {
            let mut hot = old.hot.clone();
            hot.push(Arc::clone(&table));
            Snapshot {
                version: old.version,
                files: Arc::clone(&old.files),
                hot,
                columns: Arc::clone(&old.columns),
            }
        });
        let next = Open { number, table, batches: Vec::new(), rows: 0, bytes: 0, first_row: None };
        let full = std::mem::replace(open, next);
        let sealed = Sealed {
            table: full.table,
            batches: full.batches,
            rows: full.rows,
            bytes: full.bytes,
            sequences: work.sequences.clone(),
            markers: std::mem::take(&mut work.rolls),
        };
        self.rolling.begin();
        // The roller ends before the flusher only at shutdown, and then the log brings these rows
        // back. Markers that are dropped with them tell their callers.
        let _ = self.roller.send(sealed);
    }

    fn reach(&mut self, marker: Arc<Marker>, work: &mut Work) {
        match marker.goal {
            Goal::Visible => marker.answer(),
            Goal::Rolled => {
                work.rolls.push(marker);
                self.roll_if_due(work);
            }
        }
    }

    /// Drops the tables that nobody reads any more; one that cannot be dropped has another turn.
    fn drop_unused(&self) {
        for _ in 0..self.unused.len() {
            let Ok(name) = self.unused.try_recv() else { return };
            if let Err(error) = self.passing.appender.drop_table(&name) {
                tracing::warn!(name, %error, "a rolled hot table cannot be dropped now");
                // Both ends are this thread's.
                let _ = self.unused_sender.send(name);
            }
        }
    }
}

//! The flusher thread.
//!
//! **Guarantees.** DuckDB gets the rows of a table when somebody asks for them, all that have come
//! until then. Nobody who looks twice pays for the same row twice, and ingestion that nobody looks
//! at costs DuckDB nothing.
//!
//! **Limits.** A table is sealed when the roller takes it, not before: one table is being rolled,
//! one is open. A table that is due, be it that it has its rows, is old, or that somebody wants it
//! rolled, goes on taking rows while it waits for the roller, up to twice its rows: what comes while
//! one is rolled is seen and is the next one, which keeps their number down when rolls take long. At
//! twice its rows, or at its bytes, it takes no more; the queue fills, and events are refused.
//!
//! **Failure.** Rows that DuckDB refuses, be it for lack of memory, are rolled at once: the files
//! show them to whoever asked. Nothing waits for DuckDB but those who want to see something.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use crossbeam_channel::{Receiver, Sender, TryRecvError};

use super::pass::Passing;
use super::queue::{Budget, Goal, Marker};
use super::rows::Rows;
use super::{HotAppender, LogBatch, Message, Refused};
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
    pub name: String,
    /// DuckDB's part of it, if there is one.
    pub table: Option<Arc<HotTable>>,
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
    /// Times that DuckDB has refused rows.
    pub refused: AtomicU64,
    /// Set to make it end: what is not in a table yet is in the log.
    pub stop: AtomicBool,
    /// Why nothing can be passed on, while it cannot. Written by the flusher.
    pub problem: Problem,
    /// Why DuckDB does not take rows, while it does not: only the files show them then. Written by
    /// the flusher.
    pub unshown: Problem,
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
    pub appender: HotAppender,
    pub passing: Passing,
    pub config: HotConfig,
    pub messages: Receiver<Message>,
    pub asks: Receiver<Sender<()>>,
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
    rows: Rows,
    count: usize,
    bytes: usize,
    first_row: Option<Instant>,
}

impl Open {
    fn new(number: u64, table: Option<Arc<HotTable>>) -> Self {
        Self { number, rows: Rows::new(table), count: 0, bytes: 0, first_row: None }
    }
}

/// What the flusher is at.
#[derive(Debug)]
struct Work {
    open: Open,
    /// The rows that the roller is at: until the files show them, this thread does.
    sealed: Option<Rows>,
    /// The highest number of each shard that has been passed.
    sequences: Vec<(u32, i64)>,
    pending: Pending,
    /// Callers that want everything before them in the table, or whom only the table can show it.
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

    /// Whole batches, until they have `enough` rows.
    fn take(&mut self, enough: usize) -> Vec<LogBatch> {
        let mut rows = 0;
        let mut count = 0;
        for batch in &self.batches {
            rows += batch.batch.num_rows();
            count += 1;
            if rows >= enough {
                break;
            }
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
    /// Enough for a table; more may wait.
    ATable,
}

impl Flusher {
    /// Runs until it is told to stop, or nobody can send anything any more. `first` is the table
    /// that the first snapshot already names, and `sequences` how far the lake holds each shard.
    pub(crate) fn run(mut self, first: Arc<HotTable>, sequences: Vec<(u32, i64)>) {
        let (open, pending, rolls) = (Open::new(1, Some(first)), Pending::default(), Vec::new());
        let mut work = Work { open, sealed: None, sequences, pending, rolls };
        // A table must not grow old unseen where turns are configured to be rare.
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
            self.pass_all(work)?;
            self.forget_rolled(work);
            self.drop_unused();
            self.answer_asks(work);
            self.roll_if_due(work);
            if received == Received::Everything {
                return Ok(());
            }
        }
    }

    /// Takes what waits, as much as fills a table.
    fn receive(&mut self, work: &mut Work) -> Result<Received, Stopped> {
        while work.pending.rows < self.config.roll_rows
            && work.pending.bytes < self.budget.now(self.config.queue_bytes) / 2
        {
            match self.messages.try_recv() {
                Ok(Message::Batch(batch)) => work.pending.push(batch),
                Ok(Message::Marker(marker)) => {
                    if marker.arrive() {
                        self.pass_all(work)?;
                        self.reach(marker, work);
                    }
                }
                Err(TryRecvError::Empty) => return Ok(Received::Everything),
                Err(TryRecvError::Disconnected) => return Err(Stopped),
            }
        }
        Ok(Received::ATable)
    }

    /// Passes everything that waits.
    fn pass_all(&mut self, work: &mut Work) -> Result<(), Stopped> {
        while work.pending.rows > 0 {
            self.state.check()?;
            self.pass(work)?;
            if self.is_full(&work.open) {
                self.wait_for_roller(work)?;
            }
            if self.has_its_rows(&work.open) && !self.rolling.is_busy() {
                self.seal(work);
            }
        }
        Ok(())
    }

    fn has_its_rows(&self, open: &Open) -> bool {
        open.count >= self.budget.now(self.config.roll_rows) || open.bytes >= self.config.roll_bytes
    }

    fn is_full(&self, open: &Open) -> bool {
        open.count >= 2 * self.budget.now(self.config.roll_rows)
            || open.bytes >= self.config.roll_bytes
    }

    /// Passes whole batches, until the open table has its rows, or is full.
    fn pass(&mut self, work: &mut Work) -> Result<(), Stopped> {
        let (rows, has) = (self.budget.now(self.config.roll_rows), work.open.count);
        let room = if has < rows { rows - has } else { (2 * rows).saturating_sub(has) };
        let batches = work.pending.take(room);
        let began = Instant::now();
        let passed = self.passing.pass(&batches)?;
        let count = passed.iter().map(RecordBatch::num_rows).sum();
        // Relaxed: statistics.
        self.state.hot_rows.fetch_add(count, Ordering::Relaxed);
        for batch in &batches {
            match work.sequences.iter_mut().find(|(shard, _)| *shard == batch.shard) {
                Some((_, last)) => *last = batch.last(),
                None => work.sequences.push((batch.shard, batch.last())),
            }
        }
        let open = &mut work.open;
        open.rows.batches.extend(passed);
        open.count += count;
        open.bytes += batches.iter().map(|batch| batch.bytes).sum::<usize>();
        open.first_row.get_or_insert(began);
        self.budget.release(&batches);
        Ok(())
    }

    /// Brings to DuckDB whatever has been passed. False when it refuses.
    fn show(&mut self, work: &mut Work) -> bool {
        self.forget_rolled(work);
        let mut unshown = work
            .sealed
            .iter_mut()
            .chain([&mut work.open.rows])
            .filter(|rows| !rows.are_shown())
            .peekable();
        if unshown.peek().is_none() {
            return true;
        }
        let began = Instant::now();
        let shown = unshown.try_for_each(|rows| rows.show(&mut self.appender));
        self.operations.flush.observe(began.elapsed());
        match shown {
            Ok(()) => {
                if self.state.unshown.clear() {
                    tracing::info!("the hot table takes rows again");
                }
                true
            }
            Err(Refused { reason, is_lack }) => {
                // Relaxed: statistics.
                self.state.refused.fetch_add(1, Ordering::Relaxed);
                if self.state.unshown.set(reason.clone()) {
                    tracing::warn!(
                        reason,
                        is_lack,
                        "the hot table takes no rows; they are rolled to be seen"
                    );
                }
                false
            }
        }
    }

    /// Backpressure: nothing is taken from the queue until the table before has been rolled.
    fn wait_for_roller(&mut self, work: &mut Work) -> Result<(), Stopped> {
        while self.rolling.is_busy() {
            self.state.check()?;
            // Relaxed: statistics.
            self.state.waits_for_roller.store(true, Ordering::Relaxed);
            // Whoever wants to see what is in the queue as well does not wait for ever.
            self.answer_asks(work);
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
        if !old && !short && work.rolls.is_empty() && !self.has_its_rows(&work.open) {
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
        let number = work.open.number + 1;
        let next = Open::new(number, self.create(hot_table(number)));
        let full = std::mem::replace(&mut work.open, next);
        let sealed = Sealed {
            name: hot_table(full.number),
            table: full.rows.table.clone(),
            batches: full.rows.batches.clone(),
            rows: full.count,
            bytes: full.bytes,
            sequences: work.sequences.clone(),
            markers: std::mem::take(&mut work.rolls),
        };
        work.sealed = Some(full.rows);
        self.rolling.begin();
        // The roller ends before the flusher only at shutdown, and then the log brings these rows
        // back. Markers that are dropped with them tell their callers.
        let _ = self.roller.send(sealed);
    }

    /// A new table that readers know of, if DuckDB can make one.
    fn create(&mut self, name: String) -> Option<Arc<HotTable>> {
        if let Err(error) = self.appender.create(&name) {
            if self.state.unshown.set(format!("cannot open a new hot table: {error}")) {
                tracing::error!(%error, "cannot open a new hot table; its rows are rolled to be seen");
            }
            return None;
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
        Some(table)
    }

    fn reach(&mut self, marker: Arc<Marker>, work: &mut Work) {
        match marker.goal {
            Goal::Visible if self.show(work) => marker.answer(),
            Goal::Visible | Goal::Rolled => {
                work.rolls.push(marker);
                self.roll_if_due(work);
            }
        }
    }

    /// Shows what has been passed to those who want no more.
    fn answer_asks(&mut self, work: &mut Work) {
        while let Ok(ask) = self.asks.try_recv() {
            self.show(work);
            let _ = ask.try_send(());
        }
    }

    /// The files show by now what the roller has been at.
    fn forget_rolled(&self, work: &mut Work) {
        if !self.rolling.is_busy() {
            work.sealed = None;
        }
    }

    /// Drops the tables that nobody reads any more; one that cannot be dropped has another turn.
    fn drop_unused(&self) {
        for _ in 0..self.unused.len() {
            let Ok(name) = self.unused.try_recv() else { return };
            if let Err(error) = self.appender.drop_table(&name) {
                tracing::warn!(name, %error, "a rolled hot table cannot be dropped now");
                // Both ends are this thread's.
                let _ = self.unused_sender.send(name);
            }
        }
    }
}

/// The name of the hot table with this number.
fn hot_table(number: u64) -> String {
    format!("hot_{number}")
}

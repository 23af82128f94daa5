//! The flusher thread.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use crossbeam_channel::{Receiver, Sender, TryRecvError};

use super::queue::{Budget, Goal, Marker};
use super::{HotAppender, LogBatch, Message, rows_of};
use crate::config::HotConfig;
use crate::error::{Error, chain};
use crate::log::{Quarantined, set_aside};
use crate::metrics::Operations;
use crate::quarantine;
use crate::snapshot::{HotTable, Snapshot, Snapshots};

/// How often an append is tried before its batch is set aside.
const APPEND_ATTEMPTS: u32 = 5;
/// The pause after the first failed attempt; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The pause between attempts while DuckDB has no memory left.
const MEMORY_PAUSE: Duration = Duration::from_secs(1);
/// Most rows that one flush may carry: DuckDB's appender commits on its own at 204,800.
const FLUSH_ROWS_MAX: usize = 204_799;

/// A hot table that takes no more rows.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub table: Arc<HotTable>,
    pub rows: usize,
    /// Their size as Arrow data.
    pub bytes: usize,
    /// The highest number of each shard that is in it or in an earlier table.
    pub sequences: Vec<(u32, i64)>,
}

/// What comes to the roller.
#[derive(Debug)]
pub(crate) enum ToRoller {
    Roll(Sealed),
    /// Answer once everything before it is committed.
    Marker(Arc<Marker>),
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
    problem: Mutex<Option<String>>,
}

impl FlusherState {
    /// Why appends fail, while they do.
    pub(crate) fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_problem(&self, problem: Option<String>) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }
}

/// The flusher thread's belongings.
#[derive(Debug)]
pub(crate) struct Flusher {
    pub appender: HotAppender,
    pub node: String,
    pub config: HotConfig,
    pub messages: Receiver<Message>,
    pub wakes: Receiver<()>,
    pub budget: Arc<Budget>,
    pub roller: Sender<ToRoller>,
    pub snapshots: Arc<Snapshots>,
    pub unused: Receiver<String>,
    pub unused_sender: Sender<String>,
    pub quarantine: PathBuf,
    pub operations: Arc<Operations>,
    pub state: Arc<FlusherState>,
}

/// The table that takes rows.
#[derive(Debug)]
struct Open {
    number: u64,
    table: Arc<HotTable>,
    rows: usize,
    bytes: usize,
    first_row: Option<Instant>,
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
}

/// How much came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Received {
    /// All that waited.
    Everything,
    /// Enough for a flush; more may wait.
    AFlush,
    /// The message that ends the thread.
    Stop,
}

impl Flusher {
    /// Runs until a stop message. `first` is the table that the first snapshot already names, and
    /// `sequences` how far the lake holds each shard.
    pub(crate) fn run(mut self, first: Arc<HotTable>, mut sequences: Vec<(u32, i64)>) {
        let mut open = Open { number: 1, table: first, rows: 0, bytes: 0, first_row: None };
        let mut pending = Pending::default();
        // A table must not grow old unseen where flushes are configured to be rare.
        let turn = self.config.flush_interval.min(self.config.roll_age);
        loop {
            // Nobody wakes this thread for a batch: one that waits is seen at the next turn, and
            // a shard saves a system call and this core two context switches a sync.
            let _ = self.wakes.recv_timeout(turn);
            loop {
                let received = self.receive(&mut pending, &mut open, &mut sequences);
                if received == Received::Stop {
                    return;
                }
                self.flush_all(&mut pending, &mut open, &mut sequences);
                if received == Received::Everything {
                    break;
                }
            }
            while let Ok(name) = self.unused.try_recv() {
                self.drop_table(&name);
            }
            if open.first_row.is_some_and(|since| since.elapsed() >= self.config.roll_age) {
                self.seal(&mut open, &sequences);
            }
        }
    }

    /// Takes what waits, as much as one flush may carry.
    fn receive(
        &mut self,
        pending: &mut Pending,
        open: &mut Open,
        sequences: &mut Vec<(u32, i64)>,
    ) -> Received {
        while pending.rows < self.config.flush_rows && pending.bytes < self.config.queue_bytes / 2 {
            match self.messages.try_recv() {
                Ok(Message::Batch(batch)) => pending.push(batch),
                Ok(Message::Marker(marker)) => {
                    if marker.arrive() {
                        self.flush_all(pending, open, sequences);
                        self.reach(&marker, open, sequences);
                    }
                }
                Ok(Message::Stop) | Err(TryRecvError::Disconnected) => return Received::Stop,
                Err(TryRecvError::Empty) => return Received::Everything,
            }
        }
        Received::AFlush
    }

    /// Appends everything that waits.
    fn flush_all(
        &mut self,
        pending: &mut Pending,
        open: &mut Open,
        sequences: &mut Vec<(u32, i64)>,
    ) {
        while pending.rows > 0 {
            self.flush(pending, open, sequences);
        }
    }

    /// Appends whole batches, as many as one flush may carry.
    fn flush(&mut self, pending: &mut Pending, open: &mut Open, sequences: &mut Vec<(u32, i64)>) {
        let mut taken = 0;
        let mut count = 0;
        for batch in &pending.batches {
            let next = batch.batch.num_rows();
            if count > 0 && (taken >= self.config.flush_rows || taken + next > FLUSH_ROWS_MAX) {
                break;
            }
            taken += next;
            count += 1;
        }
        let batches: Vec<LogBatch> = pending.batches.drain(..count).collect();
        pending.rows -= taken;
        let began = Instant::now();
        self.append(&batches, open);
        self.operations.flush.observe(began.elapsed());
        for batch in &batches {
            match sequences.iter_mut().find(|(shard, _)| *shard == batch.shard) {
                Some((_, last)) => *last = batch.last(),
                None => sequences.push((batch.shard, batch.last())),
            }
        }
        let bytes: usize = batches.iter().map(|batch| batch.bytes).sum();
        pending.bytes -= bytes;
        open.bytes += bytes;
        open.first_row.get_or_insert(began);
        drop(batches);
        self.budget.release(bytes);
        if open.rows >= self.config.roll_rows || open.bytes >= self.config.roll_bytes {
            self.seal(open, sequences);
        }
    }

    /// Appends `batches` in one flush, or each on its own, or sets aside what cannot be appended.
    fn append(&mut self, batches: &[LogBatch], open: &mut Open) {
        let mut pause = FIRST_PAUSE;
        for attempt in 1..=APPEND_ATTEMPTS {
            match self.try_append(batches, &open.table.name) {
                Ok(rows) => {
                    open.rows += rows;
                    // Relaxed: statistics.
                    self.state.hot_rows.fetch_add(rows, Ordering::Relaxed);
                    self.state.set_problem(None);
                    return;
                }
                Err(problem) => {
                    tracing::warn!(attempt, %problem, "an append to the hot table failed");
                    let memory = problem.contains("Out of Memory");
                    self.state.set_problem(Some(problem.clone()));
                    if memory && self.wait_for_memory(batches, open) {
                        return;
                    }
                    if attempt == APPEND_ATTEMPTS {
                        self.split_or_set_aside(batches, &problem, open);
                        return;
                    }
                    std::thread::sleep(pause);
                    pause *= 2;
                }
            }
        }
    }

    fn try_append(&mut self, batches: &[LogBatch], table: &str) -> Result<usize, String> {
        let rows = rows_of(&self.node, batches).map_err(|error| chain(&error))?;
        self.appender.append(table, &rows).map_err(|error| chain(&error))?;
        Ok(rows.iter().map(RecordBatch::num_rows).sum())
    }

    /// Memory comes back as queries end and rolls finish. True once the append went through,
    /// false when something else is wrong.
    fn wait_for_memory(&mut self, batches: &[LogBatch], open: &mut Open) -> bool {
        loop {
            std::thread::sleep(MEMORY_PAUSE);
            match self.try_append(batches, &open.table.name) {
                Ok(rows) => {
                    open.rows += rows;
                    // Relaxed: statistics.
                    self.state.hot_rows.fetch_add(rows, Ordering::Relaxed);
                    self.state.set_problem(None);
                    return true;
                }
                Err(problem) if problem.contains("Out of Memory") => {
                    tracing::warn!(%problem, "the hot table waits for memory");
                }
                Err(_) => return false,
            }
        }
    }

    fn split_or_set_aside(&mut self, batches: &[LogBatch], problem: &str, open: &mut Open) {
        match batches {
            [] => {}
            [batch] => self.set_aside(batch, problem),
            // One bad batch must not take its neighbours with it.
            many => {
                for batch in many {
                    self.append(std::slice::from_ref(batch), open);
                }
            }
        }
    }

    /// Keeps trying until the quarantine file is synced: only then is the batch passed.
    fn set_aside(&self, batch: &LogBatch, problem: &str) {
        let report = Quarantined {
            shard: batch.shard,
            sequences: Some((batch.first, batch.last())),
            origin: "an append to the hot table".into(),
            reason: problem.into(),
            bytes: batch.bytes as u64,
        };
        let (first, last) = (batch.first, batch.last());
        let name = format!("batch-{}-{first}-{last}.{}", batch.shard, quarantine::EXTENSION);
        loop {
            let written = quarantine::encode(&self.node, batch, problem)
                .and_then(|bytes| Ok(set_aside(&self.quarantine, &name, &bytes, &report)?));
            match written {
                Ok(()) => break,
                Err(error) => {
                    tracing::error!(error = %chain(&error), "a batch cannot be set aside; trying again");
                    std::thread::sleep(MEMORY_PAUSE);
                }
            }
        }
        // Relaxed: statistics.
        self.state.quarantined_batches.fetch_add(1, Ordering::Relaxed);
        self.state.quarantined_rows.fetch_add(batch.batch.num_rows() as u64, Ordering::Relaxed);
    }

    /// Hands the open table to the roller and opens the next one.
    fn seal(&mut self, open: &mut Open, sequences: &[(u32, i64)]) {
        let number = open.number + 1;
        let name = format!("hot_{number}");
        if let Err(error) = self.appender.create(&name) {
            tracing::error!(%error, "cannot open a new hot table; the old one grows");
            // Look again after another round of the age limit.
            open.first_row = Some(Instant::now());
            return;
        }
        let table = Arc::new(HotTable::new(name, self.unused_sender.clone()));
        self.snapshots.update(|old| {
            let mut hot = old.hot.clone();
            hot.push(Arc::clone(&table));
            Snapshot { version: old.version, files: Arc::clone(&old.files), hot }
        });
        let full =
            std::mem::replace(open, Open { number, table, rows: 0, bytes: 0, first_row: None });
        let sealed = Sealed {
            table: full.table,
            rows: full.rows,
            bytes: full.bytes,
            sequences: sequences.to_vec(),
        };
        // Waits while the roller is busy. It ends before the flusher only at shutdown, and then
        // the log brings these rows back.
        let _ = self.roller.send(ToRoller::Roll(sealed));
    }

    fn reach(&mut self, marker: &Arc<Marker>, open: &mut Open, sequences: &[(u32, i64)]) {
        match marker.goal {
            Goal::Visible => marker.answer(Ok(())),
            Goal::Rolled => {
                if open.first_row.is_some() {
                    self.seal(open, sequences);
                }
                if self.roller.send(ToRoller::Marker(Arc::clone(marker))).is_err() {
                    marker.answer(Err(Error::Closed));
                }
            }
        }
    }

    fn drop_table(&self, name: &str) {
        if let Err(error) = self.appender.drop_table(name) {
            tracing::warn!(name, %error, "a rolled hot table cannot be dropped");
        }
    }
}

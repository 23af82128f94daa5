//! How a batch is passed: appended to the hot table, or set aside.
//!
//! **Guarantees.** A batch is passed only when it is in the table or its quarantine file
//! is synced. One bad batch does not take its neighbours with it.
//!
//! **Failure.** Lack of memory in DuckDB and lack of space for a quarantine file are waited out, for
//! as long as it takes, because both come back; the queue fills meanwhile and closes the gate. Events
//! come before queries: while memory is lacking, those that run are ended. Other failures are tried
//! [`APPEND_ATTEMPTS`] times. Every wait ends at once when the engine stops: the log holds the batch.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use ringlake_disk::Disk;

use super::flusher::{FlusherState, Stopped};
use super::{HotAppender, LogBatch, Refused, rows_of};
use crate::error::chain;
use crate::listing::Tail;
use crate::log::{Quarantined, set_aside};
use crate::promoted::Promoter;
use crate::quarantine;
use crate::query::Pool;

/// How often an append is tried before its batch is set aside.
const APPEND_ATTEMPTS: u32 = 5;
/// The pause after the first failed attempt; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause between attempts while DuckDB has no memory left, and the pause while the disk
/// has no room.
const LACK_PAUSE: Duration = Duration::from_secs(1);
/// How often a pause looks whether the engine stops.
const STOP_LOOK: Duration = Duration::from_millis(50);

/// What passing takes.
#[derive(Debug)]
pub(crate) struct Passing {
    pub appender: HotAppender,
    /// What fills the promoted columns.
    pub promoter: Promoter,
    pub node: String,
    pub disk: Arc<dyn Disk>,
    pub quarantine: PathBuf,
    pub state: Arc<FlusherState>,
    /// Who follows the events gets them from here.
    pub tail: Arc<Tail>,
    /// Who has memory that events need.
    pub pool: Arc<Pool>,
}

impl Passing {
    /// Passes `batches`; gives the rows that `table` has more.
    ///
    /// # Errors
    /// [`Stopped`] when the engine stops before; the batches are not passed then.
    pub(super) fn pass(
        &mut self,
        batches: &[LogBatch],
        table: &str,
    ) -> Result<Vec<RecordBatch>, Stopped> {
        let mut pause = FIRST_PAUSE;
        let mut attempt = 1;
        loop {
            let refused = match self.try_append(batches, table) {
                Ok(rows) => {
                    self.works();
                    return Ok(rows);
                }
                Err(refused) => refused,
            };
            let problem = refused.reason;
            if self.state.problem.set(problem.clone()) {
                tracing::warn!(attempt, %problem, "an append to the hot table failed");
            }
            // It comes back as queries end and rolls finish: that is no reason to give up.
            if refused.is_lack {
                self.pool.make_room();
            } else if attempt == APPEND_ATTEMPTS {
                return self.split_or_set_aside(batches, &problem, table);
            } else {
                attempt += 1;
            }
            self.pause(pause)?;
            pause = LACK_PAUSE.min(pause * 2);
        }
    }

    fn try_append(
        &mut self,
        batches: &[LogBatch],
        table: &str,
    ) -> Result<Vec<RecordBatch>, Refused> {
        let rows = rows_of(&self.node, batches)
            .and_then(|rows| self.promoter.complete(rows))
            .map_err(|error| Refused { reason: chain(&error), is_lack: false })?;
        self.appender.append(table, &rows)?;
        self.promoter.stored();
        self.tail.publish(&rows);
        Ok(rows)
    }

    fn split_or_set_aside(
        &mut self,
        batches: &[LogBatch],
        problem: &str,
        table: &str,
    ) -> Result<Vec<RecordBatch>, Stopped> {
        if let [batch] = batches {
            self.set_aside(batch, problem)?;
            return Ok(Vec::new());
        }
        let mut rows = Vec::new();
        for batch in batches {
            rows.extend(self.pass(std::slice::from_ref(batch), table)?);
        }
        Ok(rows)
    }

    /// Keeps trying until the quarantine file is synced.
    fn set_aside(&self, batch: &LogBatch, problem: &str) -> Result<(), Stopped> {
        let report = Quarantined {
            shard: batch.shard,
            sequences: Some((batch.first, batch.last())),
            origin: "an append to the hot table".into(),
            reason: problem.into(),
            bytes: batch.bytes as u64,
        };
        let (first, last) = (batch.first, batch.last());
        let name = format!("batch-{}-{first}-{last}.{}", batch.shard, quarantine::EXTENSION);
        let write =
            |bytes: Vec<u8>| Ok(set_aside(&*self.disk, &self.quarantine, &name, &bytes, &report)?);
        while let Err(error) = quarantine::encode(&self.node, batch, problem).and_then(write) {
            let error = chain(&error);
            if self.state.problem.set(format!("a batch cannot be set aside: {error}")) {
                tracing::error!(%error, "a batch cannot be set aside; it is tried again");
            }
            self.pause(LACK_PAUSE)?;
        }
        // Relaxed: statistics.
        self.state.quarantined_batches.fetch_add(1, Ordering::Relaxed);
        self.state.quarantined_rows.fetch_add(batch.batch.num_rows() as u64, Ordering::Relaxed);
        self.works();
        Ok(())
    }

    fn works(&self) {
        if self.state.problem.clear() {
            tracing::info!("the hot table takes rows again");
        }
    }

    fn pause(&self, length: Duration) -> Result<(), Stopped> {
        let until = Instant::now() + length;
        loop {
            self.state.check()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(STOP_LOOK));
        }
    }
}

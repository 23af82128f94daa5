//! How a batch is passed: taken into a hot table, or set aside.
//!
//! **Guarantees.** A batch is passed only when a table has it, which the roll writes, or its
//! quarantine file is synced. One bad batch does not take its neighbours with it.
//!
//! **Failure.** A batch that cannot be made rows of the table is set aside at once: nothing about it
//! changes. Lack of space for a quarantine file is waited out, for as long as it takes; the queue fills
//! meanwhile and closes the gate. The wait ends when the engine stops: the log holds the batch.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use ringlake_disk::Disk;

use super::flusher::{FlusherState, Stopped};
use super::{LogBatch, rows_of};
use crate::error::chain;
use crate::listing::Tail;
use crate::log::{Quarantined, set_aside};
use crate::promoted::Promoter;
use crate::quarantine;

/// The pause while the disk has no room.
const LACK_PAUSE: Duration = Duration::from_secs(1);
/// How often a pause looks whether the engine stops.
const STOP_LOOK: Duration = Duration::from_millis(50);

/// What passing takes.
#[derive(Debug)]
pub(crate) struct Passing {
    /// What fills the promoted columns.
    pub promoter: Promoter,
    pub node: String,
    pub disk: Arc<dyn Disk>,
    pub quarantine: PathBuf,
    pub state: Arc<FlusherState>,
    /// Who follows the events gets them from here.
    pub tail: Arc<Tail>,
}

impl Passing {
    /// Passes `batches`; gives the rows that a table is to have more.
    ///
    /// # Errors
    /// [`Stopped`] when the engine stops before; the batches are not passed then.
    pub(super) fn pass(&mut self, batches: &[LogBatch]) -> Result<Vec<RecordBatch>, Stopped> {
        let problem = match self.rows_of(batches) {
            Ok(rows) => {
                self.promoter.stored();
                self.tail.publish(&rows);
                return Ok(rows);
            }
            Err(error) => chain(&error),
        };
        if let [batch] = batches {
            self.set_aside(batch, &problem)?;
            return Ok(Vec::new());
        }
        let mut rows = Vec::new();
        for batch in batches {
            rows.extend(self.pass(std::slice::from_ref(batch))?);
        }
        Ok(rows)
    }

    fn rows_of(&mut self, batches: &[LogBatch]) -> Result<Vec<RecordBatch>, ArrowError> {
        rows_of(&self.node, batches).and_then(|rows| self.promoter.complete(rows))
    }

    /// Keeps trying until the quarantine file is synced.
    fn set_aside(&self, batch: &LogBatch, problem: &str) -> Result<(), Stopped> {
        let report = Quarantined {
            shard: batch.shard,
            sequences: Some((batch.first, batch.last())),
            origin: "a batch on its way to the table".into(),
            reason: problem.into(),
            bytes: batch.bytes as u64,
        };
        tracing::error!(shard = batch.shard, first = batch.first, last = batch.last(), %problem, "a batch is set aside");
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
        if self.state.problem.clear() {
            tracing::info!("batches are passed on again");
        }
        Ok(())
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

//! The rows of one hot table: as Arrow data, which the roll writes, and in DuckDB as far as
//! somebody has asked.

use std::sync::Arc;

use arrow::array::RecordBatch;

use super::queue::APPEND_ROWS_MAX;
use super::{HotAppender, Refused};
use crate::snapshot::HotTable;

/// What is in a hot table, or will be once somebody asks.
#[derive(Debug)]
pub(super) struct Rows {
    /// DuckDB's table, which snapshots name. None when DuckDB could not make one: then the files
    /// are the first to show these rows.
    pub table: Option<Arc<HotTable>>,
    /// All of them, in the order in which they came.
    pub batches: Vec<RecordBatch>,
    /// So many of the batches are in DuckDB's table.
    shown: usize,
}

impl Rows {
    /// None yet, for `table`, which is empty.
    pub(super) fn new(table: Option<Arc<HotTable>>) -> Self {
        Self { table, batches: Vec::new(), shown: 0 }
    }

    /// Whether DuckDB has them all.
    pub(super) fn are_shown(&self) -> bool {
        self.shown == self.batches.len()
    }

    /// Brings to DuckDB what it does not have yet.
    ///
    /// # Errors
    /// DuckDB's; what it has then is a beginning.
    pub(super) fn show(&mut self, appender: &mut HotAppender) -> Result<(), Refused> {
        while !self.are_shown() {
            let Some(table) = &self.table else {
                return Err(Refused { reason: "there is no table for them".into(), is_lack: true });
            };
            let rest = &self.batches[self.shown..];
            let some = &rest[..for_one_append(rest)];
            appender.append(&table.name, some)?;
            self.shown += some.len();
        }
        Ok(())
    }
}

/// How many of `batches`, at least one, an append may carry: none has more rows than that, which
/// the queue sees to.
fn for_one_append(batches: &[RecordBatch]) -> usize {
    let mut rows = 0;
    let too_many = batches.iter().position(|batch| {
        rows += batch.num_rows();
        rows > APPEND_ROWS_MAX
    });
    too_many.map_or(batches.len(), |first| first.max(1))
}

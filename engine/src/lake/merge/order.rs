//! The merge itself: rows of sorted inputs in the order of tenant, then timestamp.
//!
//! **Algorithm.** A heap holds the next row of every input. The input with the least row gives rows
//! as long as they are not above the next input's; files that follow each other in time give long
//! runs, so that the heap is asked rarely. Rows that are equal come in the order of the inputs.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::TimestampMicrosecondType;

use super::input::Rows;
use crate::lake::error::{LakeError, Result};
use crate::lake::output::Events;

/// Rows of an output batch.
const BATCH_ROWS: usize = 8_192;
/// Bytes at which an output batch ends before it has that many rows.
const BATCH_BYTES: usize = 8 << 20;

/// Sorted inputs as one.
pub(super) struct Merge {
    inputs: Vec<Input>,
    /// The next row of each input that has one, least first.
    heads: BinaryHeap<Reverse<Head>>,
    /// Batches that rows are picked from; each input's current one among them.
    sources: Vec<RecordBatch>,
    /// Source and row of each row of the output batch under way.
    picked: Vec<(usize, usize)>,
    picked_bytes: usize,
    /// What has been read.
    events: Events,
}

struct Input {
    rows: Rows,
    current: Option<Current>,
}

/// An input's current batch.
struct Current {
    source: usize,
    row: usize,
    /// About what one of its rows weighs.
    row_bytes: usize,
    tenants: StringArray,
    timestamps: TimestampMicrosecondArray,
}

/// The place of an input's next row in the order.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Head {
    tenant: Arc<str>,
    timestamp: i64,
    input: usize,
}

impl Merge {
    pub(super) fn new(inputs: Vec<Rows>) -> Result<Self> {
        let inputs: Vec<_> = inputs.into_iter().map(|rows| Input { rows, current: None }).collect();
        let mut merge = Self {
            heads: BinaryHeap::with_capacity(inputs.len()),
            inputs,
            sources: Vec::new(),
            picked: Vec::with_capacity(BATCH_ROWS),
            picked_bytes: 0,
            events: Events::default(),
        };
        for input in 0..merge.inputs.len() {
            merge.load(input)?;
            merge.queue(input, None);
        }
        Ok(merge)
    }

    /// What has been read so far.
    pub(super) fn events(&self) -> Events {
        self.events
    }

    /// The next rows in order; `None` after the last one.
    pub(super) fn next(&mut self) -> Result<Option<RecordBatch>> {
        while self.picked.len() < BATCH_ROWS && self.picked_bytes < BATCH_BYTES {
            let Some(Reverse(head)) = self.heads.pop() else { break };
            self.pick_run(&head)?;
            self.queue(head.input, Some(&head.tenant));
        }
        if self.picked.is_empty() {
            return Ok(None);
        }
        let sources: Vec<&RecordBatch> = self.sources.iter().collect();
        let batch = interleave_record_batch(&sources, &self.picked)
            .map_err(|error| LakeError::parquet("the rows of a merge")(error.into()))?;
        self.picked.clear();
        self.picked_bytes = 0;
        self.forget_read_sources();
        Ok(Some(batch))
    }

    /// Picks rows of the input whose row is `head` until another input comes first.
    fn pick_run(&mut self, head: &Head) -> Result<()> {
        loop {
            let Some(current) = &mut self.inputs[head.input].current else { return Ok(()) };
            self.picked.push((current.source, current.row));
            self.picked_bytes += current.row_bytes;
            current.row += 1;
            if current.row == current.tenants.len() {
                self.load(head.input)?;
            }
            let Some(current) = &self.inputs[head.input].current else { return Ok(()) };
            let full = self.picked.len() >= BATCH_ROWS || self.picked_bytes >= BATCH_BYTES;
            let overtaken = self.heads.peek().is_some_and(|Reverse(next)| {
                let (tenant, timestamp) = current.key();
                (tenant, timestamp, head.input) > (&*next.tenant, next.timestamp, next.input)
            });
            if full || overtaken {
                return Ok(());
            }
        }
    }

    /// Takes the next batch of an input, if there is one.
    fn load(&mut self, input: usize) -> Result<()> {
        let input = &mut self.inputs[input];
        input.current = match input.rows.next()? {
            None => None,
            Some(batch) => {
                self.events.add(&batch);
                let current = Current::new(&batch, self.sources.len());
                self.sources.push(batch);
                Some(current)
            }
        };
        Ok(())
    }

    /// Puts the next row of an input into the heap. `tenant` is that of the row before.
    fn queue(&mut self, input: usize, tenant: Option<&Arc<str>>) {
        let Some(current) = &self.inputs[input].current else { return };
        let (found, timestamp) = current.key();
        let tenant = match tenant {
            Some(tenant) if **tenant == *found => Arc::clone(tenant),
            _ => found.into(),
        };
        self.heads.push(Reverse(Head { tenant, timestamp, input }));
    }

    /// Lets go of batches that no input reads any more.
    fn forget_read_sources(&mut self) {
        let mut kept = Vec::with_capacity(self.inputs.len());
        for current in self.inputs.iter_mut().filter_map(|input| input.current.as_mut()) {
            kept.push(self.sources[current.source].clone());
            current.source = kept.len() - 1;
        }
        self.sources = kept;
    }
}

impl Current {
    fn new(batch: &RecordBatch, source: usize) -> Self {
        let column = |name| batch.column_by_name(name).expect("the schema has this column");
        Self {
            source,
            row: 0,
            row_bytes: batch.get_array_memory_size() / batch.num_rows().max(1),
            tenants: column("tenant").as_string::<i32>().clone(),
            timestamps: column("timestamp").as_primitive::<TimestampMicrosecondType>().clone(),
        }
    }

    /// What the next row is ordered by. Where there is no value it is the least: no row of ours is
    /// without, and others need no order.
    fn key(&self) -> (&str, i64) {
        (self.tenants.value(self.row), self.timestamps.value(self.row))
    }
}

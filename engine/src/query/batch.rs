//! The joining of DuckDB's chunks of at most 2,048 rows into batches worth sending.
//!
//! **Limits.** The first chunk leaves alone and at once, so that a reader sees something as soon as
//! DuckDB has it. Later batches leave at 32,768 rows, at 1 MiB, or when the last one left 100 ms
//! ago, whichever comes first.
//!
//! **Memory.** At most one batch is held back, and copied once when it has several chunks.

use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;

const BATCH_MAX_ROWS: usize = 32_768;
const BATCH_MAX_BYTES: usize = 1 << 20;
const BATCH_MAX_AGE: Duration = Duration::from_millis(100);

/// Collects chunks and gives batches.
pub(super) struct Batcher {
    schema: SchemaRef,
    chunks: Vec<RecordBatch>,
    rows: usize,
    bytes: usize,
    /// When the last batch left; none has before the first.
    left: Option<Instant>,
}

impl Batcher {
    pub(super) fn new(schema: SchemaRef) -> Self {
        Self { schema, chunks: Vec::new(), rows: 0, bytes: 0, left: None }
    }

    /// Takes a chunk and gives the batch that is complete with it, if one is.
    pub(super) fn push(&mut self, chunk: RecordBatch) -> Result<Option<RecordBatch>, ArrowError> {
        self.rows += chunk.num_rows();
        self.bytes += chunk.get_array_memory_size();
        self.chunks.push(chunk);
        let due = self.left.is_none_or(|left| left.elapsed() >= BATCH_MAX_AGE);
        if due || self.rows >= BATCH_MAX_ROWS || self.bytes >= BATCH_MAX_BYTES {
            return self.take();
        }
        Ok(None)
    }

    /// Gives what is left.
    pub(super) fn take(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        let chunks = std::mem::take(&mut self.chunks);
        (self.rows, self.bytes) = (0, 0);
        let batch = match chunks.as_slice() {
            [] => return Ok(None),
            [only] => only.clone().with_schema(self.schema.clone())?,
            several => concat_batches(&self.schema, several)?,
        };
        self.left = Some(Instant::now());
        Ok(Some(batch))
    }
}

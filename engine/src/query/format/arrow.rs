//! Arrow IPC streams, uncompressed, so that every reader takes them.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::writer::StreamWriter;

use super::{QueryError, failed};

/// Encodes an Arrow IPC stream.
pub(super) struct Encoder(StreamWriter<Vec<u8>>);

impl Encoder {
    pub(super) fn new(schema: &SchemaRef) -> Result<Self, QueryError> {
        StreamWriter::try_new(Vec::new(), schema).map(Self).map_err(failed)
    }

    pub(super) fn batch(&mut self, batch: &RecordBatch) -> Result<Vec<u8>, QueryError> {
        self.0.write(batch).map_err(failed)?;
        Ok(std::mem::take(self.0.get_mut()))
    }

    pub(super) fn finish(self) -> Result<Vec<u8>, QueryError> {
        self.0.into_inner().map_err(failed)
    }
}

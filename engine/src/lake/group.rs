//! One row group of a data file on its way: its columns, encoded.
//!
//! **Threads.** The columns of a group that is there as a whole are encoded by two threads, each of
//! which takes the heaviest one that is left: a roll under load is over sooner by what the other core
//! has to spare. The second thread is made for the group, and what it costs is some ten microseconds.
//!
//! **Memory.** What is encoded, and of each column at hand one part.

use std::sync::{Mutex, PoisonError};
use std::thread;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Schema};
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowColumnWriter, compute_leaves};
use parquet::errors::ParquetError;

use super::error::Result;
use super::output::Step;

/// What one of the threads has encoded: columns with their places.
type Encoded = Vec<(usize, ArrowColumnChunk)>;

/// A row group that grows by batches.
pub(super) struct Group {
    /// One a column, in the order of the file's.
    writers: Vec<ArrowColumnWriter>,
    pub(super) rows: usize,
}

impl Group {
    pub(super) fn new(writers: Vec<ArrowColumnWriter>) -> Self {
        Self { writers, rows: 0 }
    }

    /// Adds the rows of `batch`, which have the columns of `schema`.
    pub(super) fn write(
        &mut self,
        schema: &Schema,
        batch: &RecordBatch,
    ) -> std::result::Result<(), ParquetError> {
        let columns = schema.fields().iter().zip(batch.columns());
        for (writer, (field, column)) in self.writers.iter_mut().zip(columns) {
            write(writer, field, column)?;
        }
        self.rows += batch.num_rows();
        Ok(())
    }

    /// About how many bytes it will have.
    pub(super) fn bytes(&self) -> usize {
        self.writers.iter().map(ArrowColumnWriter::get_estimated_total_bytes).sum()
    }

    /// Its columns in their order.
    pub(super) fn close(self) -> std::result::Result<Vec<ArrowColumnChunk>, ParquetError> {
        self.writers.into_iter().map(ArrowColumnWriter::close).collect()
    }
}

/// The columns of a row group that is there as a whole; threads ask for them.
pub(super) trait Columns: Sync {
    /// About how much there is of the column at `place`, to be compared with others.
    fn weight(&self, place: usize) -> usize;

    /// Hands the column at `place` to `take`, in parts of some thousand rows.
    fn parts(&self, place: usize, take: &mut dyn FnMut(&ArrayRef) -> Result<()>) -> Result<()>;

    /// The error of a column that cannot be encoded.
    fn failed(&self, error: ParquetError) -> super::LakeError;
}

/// Encodes `columns`, which are those of `schema`, with `writers`, one each; gives them in their order.
/// `step` is asked between two parts; its error ends the work.
pub(super) fn encode(
    writers: Vec<ArrowColumnWriter>,
    schema: &Schema,
    columns: &dyn Columns,
    step: &mut Step<'_>,
) -> Result<Vec<ArrowColumnChunk>> {
    let mut left: Vec<(usize, ArrowColumnWriter)> = writers.into_iter().enumerate().collect();
    left.sort_by_cached_key(|(place, _)| columns.weight(*place));
    let work = Work { schema, columns, left: Mutex::new(left) };
    let (ours, theirs) = thread::scope(|scope| {
        let helper = thread::Builder::new().name("roller-2".into());
        let helper = helper.spawn_scoped(scope, || work.run(&mut || Ok(())));
        let ours = work.run(step);
        let theirs = match helper {
            Ok(helper) => helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            // It takes longer without.
            Err(_) => Ok(Vec::new()),
        };
        (ours, theirs)
    });
    let mut encoded = ours?;
    encoded.extend(theirs?);
    encoded.sort_by_key(|(place, _)| *place);
    Ok(encoded.into_iter().map(|(_, chunk)| chunk).collect())
}

/// What two threads are at.
struct Work<'a> {
    schema: &'a Schema,
    columns: &'a dyn Columns,
    /// The columns that nobody has begun, the heaviest last.
    left: Mutex<Vec<(usize, ArrowColumnWriter)>>,
}

impl Work<'_> {
    /// Encodes columns until none is left. After an error the other thread finds none either.
    fn run(&self, step: &mut Step<'_>) -> Result<Encoded> {
        let mut encoded = Vec::new();
        loop {
            let next = self.left.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some((place, writer)) = next else { return Ok(encoded) };
            match self.column(place, writer, step) {
                Ok(chunk) => encoded.push((place, chunk)),
                Err(error) => {
                    self.left.lock().unwrap_or_else(PoisonError::into_inner).clear();
                    return Err(error);
                }
            }
        }
    }

    fn column(
        &self,
        place: usize,
        mut writer: ArrowColumnWriter,
        step: &mut Step<'_>,
    ) -> Result<ArrowColumnChunk> {
        let failed = |error| self.columns.failed(error);
        self.columns.parts(place, &mut |part| {
            step()?;
            write(&mut writer, self.schema.field(place), part).map_err(failed)
        })?;
        writer.close().map_err(failed)
    }
}

fn write(
    writer: &mut ArrowColumnWriter,
    field: &Field,
    column: &ArrayRef,
) -> std::result::Result<(), ParquetError> {
    compute_leaves(field, column)?.iter().try_for_each(|leaf| writer.write(leaf))
}

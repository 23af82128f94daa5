//! Rows into a hot table through DuckDB's Arrow appender.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Date32Array, Int32Array, Int64Array, RecordBatch, StringArray,
};
use arrow::compute::concat_batches;
use arrow::datatypes::TimestampMicrosecondType;
use arrow::error::ArrowError;
use duckdb::Connection;

use super::LogBatch;
use crate::log::log_schema;
use crate::schema::{hot_schema, hot_table_columns};

const DAY_MICROS: i64 = 86_400_000_000;
/// Where `received_at` stands in a logged row.
const RECEIVED_AT: usize = 7;

/// Turns logged batches into the rows of a hot table: one batch, with `node`, `shard`, `sequence`
/// and `date` filled in.
///
/// # Errors
/// When the batches do not have the log's schema.
pub fn rows_of(node: &str, batches: &[LogBatch]) -> Result<RecordBatch, ArrowError> {
    let logged = concat_batches(&log_schema(), batches.iter().map(|batch| &batch.batch))?;
    let rows = logged.num_rows();
    let mut shards = Vec::with_capacity(rows);
    let mut sequences = Vec::with_capacity(rows);
    for batch in batches {
        let shard = i32::try_from(batch.shard)
            .map_err(|_| ArrowError::CastError(format!("shard {} is out of range", batch.shard)))?;
        shards.resize(shards.len() + batch.batch.num_rows(), shard);
        sequences.extend(batch.first..=batch.last());
    }
    let received = logged.column(RECEIVED_AT).as_primitive::<TimestampMicrosecondType>();
    let dates: Vec<i32> = received
        .values()
        .iter()
        .map(|micros| i32::try_from(micros.div_euclid(DAY_MICROS)))
        .collect::<Result<_, _>>()
        .map_err(|_| ArrowError::CastError("received_at is out of range".into()))?;

    let nodes: StringArray = std::iter::repeat_n(Some(node), rows).collect();
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(nodes),
        Arc::new(Int32Array::from(shards)),
        Arc::new(Int64Array::from(sequences)),
    ];
    columns.extend(logged.columns().iter().cloned());
    columns.push(Arc::new(Date32Array::from(dates)));
    RecordBatch::try_new(hot_schema(), columns)
}

/// Creates, appends to and drops hot tables. Belongs to the thread that owns its connection.
#[derive(Debug)]
pub struct HotAppender {
    connection: Connection,
}

impl HotAppender {
    /// An appender over `connection`, which nobody else uses.
    #[must_use]
    pub fn new(connection: Connection) -> Self {
        Self { connection }
    }

    /// Creates the empty table `name`.
    ///
    /// # Errors
    /// DuckDB's.
    pub fn create(&self, name: &str) -> duckdb::Result<()> {
        self.connection.execute_batch(&format!("CREATE TABLE {name} ({})", hot_table_columns()))
    }

    /// Drops table `name`; readers that began before keep it.
    ///
    /// # Errors
    /// DuckDB's.
    pub fn drop_table(&self, name: &str) -> duckdb::Result<()> {
        self.connection.execute_batch(&format!("DROP TABLE IF EXISTS {name}"))
    }

    /// Appends `rows`, which have [`hot_schema`], all or none. They must be fewer than 204,800:
    /// there DuckDB's appender commits on its own.
    ///
    /// # Errors
    /// DuckDB's; the table is as before then.
    pub fn append(&self, name: &str, rows: &RecordBatch) -> duckdb::Result<()> {
        let mut appender = self.connection.appender(name)?;
        appender.append_record_batch(rows.clone())?;
        appender.flush()
    }

    /// Number of rows in table `name`.
    ///
    /// # Errors
    /// DuckDB's.
    pub fn count(&self, name: &str) -> duckdb::Result<u64> {
        self.connection.query_row(&format!("SELECT count(*) FROM {name}"), [], |row| row.get(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::COLUMNS;

    #[test]
    fn received_at_stands_where_the_append_looks_for_it() {
        assert_eq!(log_schema().field(RECEIVED_AT).name(), "received_at");
        assert_eq!(log_schema().fields().len() + 3, COLUMNS.len());
    }
}

//! Rows into a hot table through DuckDB's Arrow appender.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Date32Array, Int32Array, Int64Array, RecordBatch, StringArray,
};
use arrow::compute::concat_batches;
use arrow::datatypes::TimestampMicrosecondType;
use arrow::error::ArrowError;
use duckdb::Connection;

use super::ffi::{ChunkAppender, Refused};
use super::{Database, LogBatch};
use crate::error::Error;
use crate::promoted::TableColumns;
use crate::schema::{day_of, hot_schema, log_schema};

/// Where `received_at` stands in a logged row.
const RECEIVED_AT: usize = 7;

/// The days that are partitions: the years 0 to 9999, which is what other readers understand.
const DAYS: std::ops::RangeInclusive<i32> = -719_528..=2_932_896;

/// Logged rows are joined until there are this many: DuckDB takes them in vectors of 2,048, and
/// group commit makes batches of a few.
const JOINED_ROWS_MIN: usize = 2_048;

/// Turns logged batches into the rows of a hot table, with `node`, `shard`, `sequence` and `date`
/// filled in and without promoted columns. Large batches keep their buffers, small ones are joined.
///
/// # Errors
/// When the batches do not have the log's schema, or an event was received on a day that is no
/// partition.
pub fn rows_of(node: &str, batches: &[LogBatch]) -> Result<Vec<RecordBatch>, ArrowError> {
    let mut rows = Vec::new();
    let mut rest = batches;
    while !rest.is_empty() {
        let mut joined = 0;
        let enough = rest.iter().position(|batch| {
            joined += batch.batch.num_rows();
            joined >= JOINED_ROWS_MIN
        });
        let (group, left) = rest.split_at(enough.map_or(rest.len(), |last| last + 1));
        rows.push(joined_rows(node, group, &DAYS)?);
        rest = left;
    }
    Ok(rows)
}

/// The same of a batch whose events may have been received on any day.
///
/// # Errors
/// When the batch does not have the log's schema.
pub(crate) fn rows_to_set_aside(node: &str, batch: &LogBatch) -> Result<RecordBatch, ArrowError> {
    joined_rows(node, std::slice::from_ref(batch), &(i32::MIN..=i32::MAX))
}

fn joined_rows(
    node: &str,
    batches: &[LogBatch],
    days: &std::ops::RangeInclusive<i32>,
) -> Result<RecordBatch, ArrowError> {
    let logged = match batches {
        [batch] => batch.batch.clone(),
        many => concat_batches(&log_schema(), many.iter().map(|batch| &batch.batch))?,
    };
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
        .map(|micros| day_of(*micros).ok().filter(|day| days.contains(day)))
        .collect::<Option<_>>()
        .ok_or_else(|| ArrowError::CastError("received_at is not in the years 0 to 9999".into()))?;

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

/// Creates, appends to and drops hot tables. Belongs to one thread.
#[derive(Debug)]
pub struct HotAppender {
    connection: Connection,
    chunks: ChunkAppender,
    columns: Arc<TableColumns>,
}

impl HotAppender {
    /// An appender with connections of its own, for tables with `columns`.
    ///
    /// # Errors
    /// When DuckDB makes no connection.
    pub fn new(database: &Database, columns: Arc<TableColumns>) -> Result<Self, Error> {
        let connection = database
            .connect()
            .map_err(|source| Error::DuckDb { action: "open a connection", source })?;
        let chunks = database
            .chunk_appender(columns.hot_schema())
            .map_err(|source| Error::Append { action: "set up the appender", source })?;
        Ok(Self { connection, chunks, columns })
    }

    /// Creates the empty table `name`.
    ///
    /// # Errors
    /// DuckDB's.
    pub fn create(&self, name: &str) -> duckdb::Result<()> {
        self.connection
            .execute_batch(&format!("CREATE TABLE {name} ({})", self.columns.definitions()))
    }

    /// Drops table `name`; readers that began before keep it.
    ///
    /// # Errors
    /// DuckDB's.
    pub fn drop_table(&self, name: &str) -> duckdb::Result<()> {
        self.connection.execute_batch(&format!("DROP TABLE IF EXISTS {name}"))
    }

    /// Appends `rows`, which have all columns of a hot table, all or none. They must be fewer than 204,800
    /// together, which the queue sees to: there DuckDB's appender commits on its own.
    ///
    /// # Errors
    /// DuckDB's; the table is as before then.
    pub fn append(&mut self, name: &str, rows: &[RecordBatch]) -> Result<(), Refused> {
        self.chunks.append(name, rows)
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
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]

    use super::*;
    use crate::config::DuckDbConfig;
    use crate::hot::logged;
    use crate::schema::COLUMNS;

    #[test]
    fn received_at_stands_where_the_append_looks_for_it() {
        assert_eq!(log_schema().field(RECEIVED_AT).name(), "received_at");
        assert_eq!(log_schema().fields().len() + 3, COLUMNS.len());
    }

    fn appender() -> (tempfile::TempDir, HotAppender) {
        let scratch = tempfile::tempdir().unwrap();
        let database =
            Database::open(&DuckDbConfig::default(), scratch.path(), scratch.path()).unwrap();
        let appender = HotAppender::new(&database, Arc::default()).unwrap();
        appender.create("hot_1").unwrap();
        (scratch, appender)
    }

    /// Values, nulls and lengths around DuckDB's 12 inlined bytes and its vector of 2,048 rows.
    #[test]
    fn every_value_arrives_as_it_was_whatever_the_chunk() {
        let (_scratch, mut appender) = appender();
        let line = |number: usize| {
            let text = "ä".repeat(number % 15);
            let when = 1_700_000_000 + number;
            match number % 3 {
                0 => format!(r#"{{"event":"e{number}","user_id":"{text}"}}"#),
                1 => format!(r#"{{"event":"e{number}","url":"{text}","timestamp":{when}}}"#),
                _ => format!(r#"{{"event":"e{number}","properties":{{"n":{number}}}}}"#),
            }
        };
        let lines: Vec<String> = (1..=5_000).map(line).collect();
        let batches = [logged(3, 1, &lines[..1_000]), logged(3, 1_001, &lines[1_000..])];
        let rows = rows_of("0123456789ab", &batches).unwrap();
        appender.append("hot_1", &rows).unwrap();
        let wrong: u64 = appender
            .connection
            .query_row(
                r#"SELECT count(*) FROM hot_1 WHERE event <> 'e' || sequence OR shard <> 3
                   OR node <> '0123456789ab' OR "date" <> received_at::DATE
                   OR user_id IS DISTINCT FROM
                      CASE sequence % 3 WHEN 0 THEN repeat('ä', (sequence % 15)::INT) END
                   OR url IS DISTINCT FROM
                      CASE sequence % 3 WHEN 1 THEN repeat('ä', (sequence % 15)::INT) END
                   OR timestamp <> CASE sequence % 3
                      WHEN 1 THEN make_timestamp((1700000000 + sequence) * 1000000)
                      ELSE received_at END
                   OR properties IS DISTINCT FROM
                      CASE sequence % 3 WHEN 2 THEN '{"n":' || sequence || '}' END"#,
                [],
                |row| row.get(0),
            )
            .unwrap();
        assert_eq!((appender.count("hot_1").unwrap(), wrong), (5_000, 0));
    }

    #[test]
    fn a_refused_append_leaves_the_table_as_it_was_and_the_appender_usable() {
        let (_scratch, mut appender) = appender();
        let rows = rows_of("0123456789ab", &[logged(3, 1, &[r#"{"event":"a"}"#.into()])]).unwrap();
        assert!(appender.append("hot_9", &rows).is_err());
        let narrow = rows[0].project(&[0, 1]).unwrap();
        assert!(appender.append("hot_1", &[rows[0].clone(), narrow]).is_err());
        assert_eq!(appender.count("hot_1").unwrap(), 0);
        appender.append("hot_1", &rows).unwrap();
        assert_eq!(appender.count("hot_1").unwrap(), 1);
    }
}

//! Queries from request to stream.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lifecycle;
mod results;
mod sandbox;
mod tenant;
mod view;

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use crossbeam_channel::Receiver;
use tempfile::TempDir;

use crate::config::{DuckDbConfig, QueryConfig};
use crate::hot::Database;
use crate::schema::hot_table_columns;
use crate::snapshot::{HotTable, Snapshot};

use super::format::{Encoder, Format};
use super::{Pool, QueryError, QueryRequest, QueryStream};

/// A statement that panics in the worker, in place of a bug.
const PANICS: &str = "SELECT 'panic in the worker'";

/// Called by the session before it looks at a statement.
pub(super) fn fail_point(sql: &str) {
    assert!(sql != PANICS, "as requested by a test");
}

/// A statement that runs for hours without giving a row.
const ENDLESS: &str = "SELECT count(*) FROM range(10000000) a(x), range(10000000) b(y) \
                       WHERE (x * y) % 7 = 9";
/// A statement that gives rows for longer than any test reads them.
const UNBOUNDED: &str = "SELECT range AS n FROM range(10000000000)";

fn config() -> QueryConfig {
    QueryConfig {
        workers: 1,
        waiting: 4,
        wait: Duration::from_secs(30),
        timeout: Duration::from_secs(60),
    }
}

/// A pool over a database of its own, opened as the engine opens it.
struct Fixture {
    pool: Pool,
    database: Arc<Database>,
    /// What queries may read below.
    directory: TempDir,
}

impl Fixture {
    fn new() -> Self {
        Self::with(config(), &DuckDbConfig::default())
    }

    fn with(config: QueryConfig, limits: &DuckDbConfig) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let temporary = directory.path().join("temporary");
        let database = Arc::new(Database::open(limits, directory.path(), &temporary).unwrap());
        let connections = Arc::clone(&database);
        let pool = Pool::start(config, Arc::default(), move || connections.connect()).unwrap();
        Self { pool, database, directory }
    }

    fn execute(&self, sql: &str) {
        self.database.connect().unwrap().execute_batch(sql).unwrap();
    }

    /// Makes the empty hot table `name`; its name arrives at the receiver when it may be dropped.
    fn hot_table(&self, name: &str) -> (Arc<HotTable>, Receiver<String>) {
        self.execute(&format!("CREATE TABLE {name} ({})", hot_table_columns()));
        let (unused, names) = crossbeam_channel::unbounded();
        (Arc::new(HotTable::new(name.into(), unused)), names)
    }

    fn start(&self, sql: &str) -> Result<QueryStream, QueryError> {
        self.pool.query(QueryRequest::new(sql), no_events())
    }

    /// Runs a query to its end.
    fn run(&self, sql: &str) -> Result<Vec<RecordBatch>, QueryError> {
        read(self.start(sql)?)
    }

    /// Runs a query to its end and gives its rows as JSON.
    fn rows(&self, sql: &str) -> Vec<serde_json::Value> {
        self.rows_of(QueryRequest::new(sql), no_events())
    }

    fn rows_of(&self, request: QueryRequest, snapshot: Arc<Snapshot>) -> Vec<serde_json::Value> {
        let mut stream = self.pool.query(request, snapshot).unwrap();
        let mut encoder = Encoder::new(Format::Json, stream.schema()).unwrap();
        let mut bytes = Vec::new();
        while let Some(batch) = stream.blocking_next() {
            bytes.extend(encoder.batch(&batch.unwrap()).unwrap());
        }
        bytes.extend(encoder.finish().unwrap());
        let mut document: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        serde_json::from_value(document["rows"].take()).unwrap()
    }
}

/// A snapshot without files and hot tables.
pub(super) fn no_events() -> Arc<Snapshot> {
    Arc::new(Snapshot {
        version: 0,
        files: Arc::from([]),
        hot: Vec::new(),
        columns: Arc::default(),
    })
}

pub(super) fn read(mut stream: QueryStream) -> Result<Vec<RecordBatch>, QueryError> {
    std::iter::from_fn(|| stream.blocking_next()).collect()
}

fn rows(batches: &[RecordBatch]) -> usize {
    batches.iter().map(RecordBatch::num_rows).sum()
}

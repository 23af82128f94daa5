//! A worker's DuckDB connection and the run of one query on it.
//!
//! **Guarantees.** When a run is over, whether by its end, an error, an interrupt or a panic, its
//! transaction has been rolled back, or the connection is thrown away. Only then is the snapshot
//! let go, so that no hot table disappears under a query.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use crossbeam_channel::Sender;
use duckdb::{Connection, params_from_iter};

use crate::lake::Checked;
use crate::snapshot::Snapshot;

use super::batch::Batcher;
use super::stream::Feed;
use super::watch::{Reason, Watch};
use super::{QueryError, QueryRequest, sandbox, view};

/// One admitted query on its way to a worker.
pub(super) struct Job {
    pub(super) request: QueryRequest,
    /// Longest run.
    pub(super) timeout: Duration,
    pub(super) snapshot: Arc<Snapshot>,
    /// Which files have been checked before they are read.
    pub(super) checked: Arc<Checked>,
    pub(super) watch: Arc<Watch>,
    pub(super) feed: Feed,
    /// Where the columns go once the query is planned, or why it could not be.
    pub(super) planned: Sender<Result<SchemaRef, QueryError>>,
}

/// What a run has left.
pub(super) struct Ran {
    /// The connection can be used again.
    pub(super) usable: bool,
    /// The thread has been put behind, where it stays.
    pub(super) behind: bool,
}

/// A connection with what is known about its state.
pub(super) struct Session {
    connection: Connection,
    /// The statement that made the current `events` view; the same snapshot needs no new one.
    view: Option<String>,
}

impl Session {
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection, view: None }
    }

    /// Runs a query to its end.
    #[must_use]
    pub(super) fn run(&mut self, job: Job) -> Ran {
        let deadline = Instant::now() + job.timeout;
        if !job.watch.begin(self.connection.interrupt_handle(), deadline) {
            job.refuse(QueryError::NotReady);
            return Ran { usable: true, behind: false };
        }
        let mut planned = false;
        let result = catch_unwind(AssertUnwindSafe(|| self.execute(&job, &mut planned)));
        let behind = job.watch.end();

        let panicked = result.is_err();
        let result =
            result.unwrap_or_else(|_| Err(QueryError::failed("the query worker panicked")));
        let usable = !panicked && self.reset();
        // What was interrupted fails in many ways; the reason for the interrupt is the true one.
        let result = match job.watch.reason() {
            Some(reason) if result.is_err() => Err(match reason {
                Reason::Deadline => QueryError::Timeout { after: job.timeout },
                Reason::Dropped => QueryError::failed("nobody reads the result"),
                Reason::Shutdown => QueryError::NotReady,
                Reason::Outrun => QueryError::Outrun,
            }),
            _ => result,
        };
        if let Err(QueryError::Damaged { file }) = &result {
            job.checked.bad_page(&job.snapshot.files, file);
        }
        job.end(planned, result);
        Ran { usable, behind }
    }

    fn execute(&mut self, job: &Job, planned: &mut bool) -> Result<(), QueryError> {
        let sql = job.request.sql.as_str();
        let wrong = |error: duckdb::Error| QueryError::from_duckdb(&error, sql);
        let wrong_row = |error: duckdb::Error| match job.request.tenant {
            None => wrong(error),
            Some(_) => wrong(error).without_data(),
        };
        let ours = |error: duckdb::Error| QueryError::from_preparation(&error);

        #[cfg(test)]
        super::tests::fail_point(sql);
        sandbox::check(&self.connection, sql)?;
        self.show(job)?;
        self.connection.execute_batch("BEGIN TRANSACTION READ ONLY").map_err(ours)?;
        let mut statement = self.connection.prepare(sql).map_err(wrong)?;
        let params = job.request.params.of(&statement)?;
        let chunks = statement.stream_arrow(params_from_iter(params)).map_err(wrong_row)?;

        let schema = chunks.get_schema();
        *planned = true;
        // Nobody waits any more when the caller has gone; its stream's drop ends the query.
        let _ = job.planned.send(Ok(schema.clone()));

        let arrow = |error: ArrowError| QueryError::failed(error.to_string());
        let mut batcher = Batcher::new(schema);
        for chunk in chunks {
            let batch = batcher.push(chunk.map_err(wrong_row)?).map_err(arrow)?;
            job.send(batch)?;
        }
        job.send(batcher.take().map_err(arrow)?)
    }

    /// Makes `events` show the job's snapshot. Files that nobody has read before are checked first.
    fn show(&mut self, job: &Job) -> Result<(), QueryError> {
        let snapshot = &job.snapshot;
        let stop = || job.watch.reason().is_some();
        let damaged = job.checked.damaged_of(snapshot.version, &snapshot.files, stop);
        let damaged = damaged.ok_or_else(|| QueryError::failed("told to stop"))?;
        let (columns, files) = (&snapshot.columns, &snapshot.files);
        let lacking = job.checked.lacking_of(columns, files, &damaged, stop);
        let lacking = lacking.ok_or_else(|| QueryError::failed("told to stop"))?;
        let tenant = job.request.tenant.as_deref();
        let statement = view::statement(snapshot, &damaged, &lacking, tenant)?;
        if self.view.as_ref() != Some(&statement) {
            self.view = None;
            self.connection
                .execute_batch(&statement)
                .map_err(|error| QueryError::from_preparation(&error))?;
            self.view = Some(statement);
        }
        Ok(())
    }

    /// Ends the transaction, if there is one. False when that failed.
    fn reset(&mut self) -> bool {
        match self.connection.execute_batch("ROLLBACK") {
            Ok(()) => true,
            // The query was refused before its transaction began.
            Err(error) => error.to_string().contains("no transaction is active"),
        }
    }
}

impl Job {
    /// Answers without having run.
    pub(super) fn refuse(self, error: QueryError) {
        self.end(false, Err(error));
    }

    fn send(&self, batch: Option<RecordBatch>) -> Result<(), QueryError> {
        if batch.is_none_or(|batch| self.feed.send(batch, &self.watch)) {
            return Ok(());
        }
        Err(QueryError::failed("the result could not be delivered"))
    }

    /// Tells the caller (before the plan) or the stream (after it) how the query ended.
    fn end(self, planned: bool, result: Result<(), QueryError>) {
        // The snapshot goes first: whoever sees the end may count on it.
        drop(self.snapshot);
        match result {
            Err(error) if !planned => {
                let _ = self.planned.send(Err(error));
            }
            result => self.feed.finish(result),
        }
    }
}

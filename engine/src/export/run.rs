//! One run of a job: from a snapshot to complete files.
//!
//! The hot rows come first and quickly, because they are kept in memory for as long as somebody
//! reads them. Then come the files, row group by row group, as listings read them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::RecordBatch;
use arrow::compute::filter_record_batch;
use futures_util::TryStreamExt;

use super::job::Store;
use super::parts::Parts;
use super::{Entry, ExportRequest};
use crate::engine::Engine;
use crate::error::chain;
use crate::lake::DataFile;
use crate::listing::{Filter, ListRequest, OpenFile, Order, Window, hot, public, public_schema};
use crate::promoted::TableColumns;
use crate::snapshot::Snapshot;

/// Room that is left above what events need: the files of a roll and some of the log.
const ROOM_BYTES: u64 = 64 << 20;

/// How a run ended when it was not well.
#[derive(Debug)]
pub(super) enum Ended {
    /// Something went wrong; why, in one sentence.
    Failed(String),
    /// It was cancelled, or the engine stops.
    BrokenOff,
}

impl Ended {
    fn failed(error: &dyn std::error::Error) -> Self {
        Self::Failed(chain(error))
    }
}

type Result<T> = std::result::Result<T, Ended>;

/// Writes the files of the job of `entry`.
pub(super) fn run(engine: &Engine, store: &Store, entry: &Entry) -> Result<()> {
    let job = entry.job().clone();
    engine.flush().map_err(|error| Ended::failed(&error))?;
    let snapshot = engine.shared.snapshots.load();
    let schema = Arc::new(public_schema(&snapshot.columns));
    let columns = job.request.column_names(&snapshot.columns);
    let columns: std::result::Result<Vec<usize>, _> =
        columns.iter().map(|name| schema.index_of(name)).collect();
    let columns = columns.map_err(|error| Ended::failed(&error))?;
    let written = Arc::new(schema.project(&columns).map_err(|error| Ended::failed(&error))?);
    let mut run = Run {
        engine,
        store,
        entry,
        filter: Arc::new(filter(&job.request)),
        table: Arc::clone(&snapshot.columns),
        columns,
        parts: Parts::new(store.directory(&job.id), job.request.format, written),
        unread: 0,
        rows: 0,
    };
    let files = run.plan(&snapshot);
    run.hot(&snapshot)?;
    run.unread = files.iter().filter_map(|file| file.rows).sum();
    // What was hot need not stay in memory for the rest; the files must stay on the disk.
    let _held = engine.shared.snapshots.files_of(&snapshot);
    drop(snapshot);
    for file in &files {
        engine.shared.location.runtime().block_on(run.file(file))?;
    }
    run.parts.finish().map_err(|error| Ended::failed(&error))?;
    run.unread = 0;
    run.note();
    Ok(())
}

fn filter(request: &ExportRequest) -> Filter {
    let texts = ListRequest {
        tenant: request.tenant.clone(),
        kind: request.kind.clone(),
        event: request.event.clone(),
        ..ListRequest::default()
    };
    let order = Order::Ascending;
    Filter {
        order,
        window: Window::new(request.from, request.to, None, order),
        position: None,
        texts: texts.texts(),
    }
}

struct Run<'a> {
    engine: &'a Engine,
    store: &'a Store,
    entry: &'a Entry,
    filter: Arc<Filter>,
    table: Arc<TableColumns>,
    /// The columns to write, among the public ones.
    columns: Vec<usize>,
    parts: Parts,
    /// Rows that have not been looked at, as far as is known.
    unread: u64,
    /// Rows written.
    rows: u64,
}

impl Run<'_> {
    /// The files that may hold wanted rows, in the order of time.
    fn plan(&mut self, snapshot: &Snapshot) -> Vec<DataFile> {
        let wanted =
            snapshot.files.iter().filter_map(|file| Some((self.filter.part_of(file)?, file)));
        let mut wanted: Vec<((i64, i64), &DataFile)> = wanted.collect();
        wanted.sort_by_key(|(part, _)| *part);
        // Relaxed: statistics.
        let hot = self.engine.shared.flusher.hot_rows.load(Ordering::Relaxed) as u64;
        self.unread = hot + wanted.iter().filter_map(|(_, file)| file.rows).sum::<u64>();
        let input: u64 = wanted.iter().map(|(_, file)| file.bytes).sum();
        let mut job = self.entry.job();
        (job.rows_expected, job.bytes_expected) = (self.unread, input);
        wanted.into_iter().map(|(_, file)| file.clone()).collect()
    }

    fn hot(&mut self, snapshot: &Snapshot) -> Result<()> {
        let connection = self.engine.shared.lister.connection();
        let connection = connection.map_err(|error| Ended::failed(&error))?;
        let filter = Arc::clone(&self.filter);
        for table in &snapshot.hot {
            let mut outcome = Ok(());
            hot::each(&connection, table, &snapshot.columns, &filter, |batch| {
                outcome = self.write(&batch);
                outcome.is_ok()
            })
            .map_err(|error| Ended::failed(&error))?;
            outcome?;
        }
        Ok(())
    }

    async fn file(&mut self, file: &DataFile) -> Result<()> {
        if let Some(damaged) = self.engine.shared.checked.problem_of(file) {
            let (path, problem) = (damaged.path, damaged.problem);
            return Err(Ended::Failed(format!(
                "the file {path} of the table is damaged: {problem}"
            )));
        }
        let unreadable = |error: parquet::errors::ParquetError| {
            Ended::Failed(format!(
                "the file {} of the table cannot be read: {}",
                file.path,
                chain(&error)
            ))
        };
        let rows_before = self.unread.saturating_sub(file.rows.unwrap_or(0));
        let open = OpenFile::open(file).await.map_err(unreadable)?;
        let names = self.entry.job().request.column_names(&self.table);
        for group in open.groups(&self.filter).await.map_err(unreadable)? {
            let mut batches = open.matching(group, &self.filter, &names).map_err(unreadable)?;
            while let Some(batch) = batches.try_next().await.map_err(unreadable)? {
                self.unread = self.unread.saturating_sub(batch.num_rows() as u64).max(rows_before);
                self.write(&batch)?;
            }
        }
        self.unread = rows_before;
        Ok(())
    }

    /// Writes the wanted rows of `batch`.
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.check()?;
        let arrow = |error: arrow::error::ArrowError| Ended::failed(&error);
        let mask = self.filter.mask(batch).map_err(arrow)?;
        let wanted = filter_record_batch(batch, &mask).map_err(arrow)?;
        if wanted.num_rows() > 0 {
            let wanted = public(&wanted, &self.table)
                .and_then(|all| all.project(&self.columns))
                .map_err(arrow)?;
            let is_complete = self.parts.write(&wanted).map_err(|error| Ended::failed(&error))?;
            self.rows += wanted.num_rows() as u64;
            if is_complete {
                self.note();
                let job = self.entry.job().clone();
                self.store.save(&job).map_err(|error| Ended::failed(&error))?;
            }
        }
        self.note();
        Ok(())
    }

    /// Whether to go on.
    fn check(&self) -> Result<()> {
        let shared = &self.engine.shared;
        if self.entry.is_cancelled() || shared.exports.is_stopped() {
            return Err(Ended::BrokenOff);
        }
        shared.space.look_if_due();
        let [room, _] = shared.space.rooms();
        if room.free < room.floor.saturating_add(ROOM_BYTES) {
            return Err(Ended::Failed(
                "the disk has no room for it beside what events need".into(),
            ));
        }
        Ok(())
    }

    /// Notes how far it is.
    fn note(&self) {
        let bytes = self.parts.bytes();
        let mut job = self.entry.job();
        job.rows_done = self.rows;
        job.rows_expected = self.rows + self.unread;
        job.bytes_done = bytes;
        if let Some(expected) =
            (u128::from(bytes) * u128::from(job.rows_expected)).checked_div(u128::from(self.rows))
        {
            job.bytes_expected = u64::try_from(expected).unwrap_or(u64::MAX);
        } else if self.unread == 0 {
            job.bytes_expected = bytes;
        }
        job.files = self.parts.files().to_vec();
    }
}

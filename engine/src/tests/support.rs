//! What the tests of the whole engine share: sending events, and a start without DuckDB.

use std::collections::BTreeMap;
use std::fs::File;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use ringlake_disk::Disk;
use ringlake_event::{Decoder, Limits, Mode, Request, Source, Tenant, record_bound};

use crate::ack::Ticket;
use crate::directory::Directory;
use crate::engine::{committed, open_files};
use crate::error::chain;
use crate::hot::{Message, test_queue};
use crate::lake::Table;
use crate::query::QueryRequest;
use crate::recovery::{Progress, ShardLog, recover_logs, replay};
use crate::{Config, Engine, Ingest, IngestError};

/// Longest wait for anything.
pub(super) const LIMIT: Duration = Duration::from_secs(60);

/// Bytes that may wait between a replay and whoever looks at it: all that a test has.
const QUEUE_BYTES: usize = 64 << 20;

/// Two shards, short segments, and nothing that happens because time passes.
pub(super) fn config(data: &Path) -> Config {
    let mut config = Config::new(data);
    config.shards = NonZeroUsize::new(2).unwrap();
    config.ring_bytes = 1 << 20;
    config.log.segment_bytes = 5_000;
    config.hot.roll_age = Duration::from_secs(3_600);
    config.query.workers = 1;
    config.disk.free_min_bytes = Some(0);
    config.compaction.interval = Duration::ZERO;
    config.compaction.retain_replaced = Duration::ZERO;
    config
}

/// Whether what lies at `path`, relative to the root of a test, is none of the disk's business: the
/// lock, the visitor salt, the key of cursors, and DuckDB's spill files.
pub(super) fn outside(path: &Path) -> bool {
    let path = path.strip_prefix("data").unwrap_or(path);
    let names = ["lock", "salt", "salt.new", "cursor.key", "cursor.key.new"];
    names.iter().any(|name| path == Path::new(name)) || path.starts_with("tmp")
}

pub(super) fn open(config: Config, disk: Arc<dyn Disk>) -> (Engine, Vec<Ingest>) {
    let (engine, ingests) = Engine::open_on(config, disk).unwrap();
    engine.wait_ready(LIMIT).unwrap();
    (engine, ingests)
}

/// The event with the id `id`.
pub(super) fn event(id: usize) -> String {
    format!(r#"{{"event":"e{}","user_id":"{id}"}}"#, id % 7)
}

/// Sends one request of `events` events with the ids from `first` on, and says whether it was
/// acknowledged as durable.
pub(super) fn send(ingest: &mut Ingest, first: usize, events: usize) -> bool {
    let lines: Vec<String> = (first..first + events).map(event).collect();
    let ticket = loop {
        match commit(ingest, &lines) {
            Ok(ticket) => break ticket,
            Err(IngestError::Full) => std::thread::yield_now(),
            Err(_) => return false,
        }
    };
    ingest.acks().wait_blocking(ticket).is_ok()
}

/// Hands in one request with the events in `lines`; nothing waits.
pub(crate) fn commit(ingest: &mut Ingest, lines: &[String]) -> Result<Ticket, IngestError> {
    let body = lines.join("\n");
    let request = Request {
        received_at: 1_795_000_000_000_000,
        source: Source::Import,
        tenant: Tenant::Open,
        correct_clock: false,
        sender: None,
    };
    let mut room = ingest.reserve(record_bound(body.len()))?;
    let decoded = Decoder::new()
        .decode(body.as_bytes(), &request, &Limits::default(), Mode::Whole, &mut room)
        .unwrap();
    room.tally().receive(decoded.accepted);
    Ok(room.commit(decoded.record_len))
}

/// Waits until `ingest` takes events again: after a log that took nothing the engine sees by itself
/// when it can be written.
pub(super) fn wait_open(ingest: &mut Ingest) {
    let began = Instant::now();
    while ingest.reserve(1_000).is_err() {
        assert!(began.elapsed() < LIMIT, "events are accepted again");
        std::thread::yield_now();
    }
}

/// Everything of a start that touches the disk, by the functions that a start calls.
#[derive(Debug)]
pub(super) struct Started {
    pub directory: Directory,
    pub logs: BTreeMap<u32, ShardLog>,
    /// How often each event is in the table or comes back from the log, by its id.
    pub events: BTreeMap<usize, usize>,
}

impl Started {
    /// A start on the directory of `config`.
    ///
    /// # Errors
    /// Why it fails, or what is set aside: a power cut damages nothing.
    pub(super) fn new(config: &Config, disk: Arc<dyn Disk>) -> Result<Self, String> {
        let failed = |error: crate::Error| format!("the start fails: {}", chain(&error));
        let (directory, table) = open_files(config, disk).map_err(failed)?;
        let shards = config.shards.get();
        let committed = committed(&table, &directory, shards).map_err(failed)?;
        let progress = Progress::default();
        let shards = u32::try_from(shards).unwrap();
        let logs = recover_logs(&directory, shards, &committed, &progress).map_err(failed)?;
        for log in logs.values() {
            if !log.recovered.quarantined.is_empty() {
                return Err(format!("set aside: {:?}", log.recovered.quarantined));
            }
        }
        let (queue, receiving) = test_queue(QUEUE_BYTES);
        replay(&logs, &committed, &directory, &queue, &progress, None).map_err(failed)?;
        let mut events = BTreeMap::new();
        for batch in table_batches(&table)? {
            count(&mut events, &batch);
        }
        for message in receiving.messages.try_iter() {
            let Message::Batch(batch) = message else { continue };
            count(&mut events, &batch.batch);
        }
        Ok(Self { directory, logs, events })
    }
}

/// The ids in the table's files; whether the rest of them is as it was written is for `verify`.
fn table_batches(table: &Table) -> Result<Vec<RecordBatch>, String> {
    let mut batches = Vec::new();
    for file in table.live_files().map_err(|error| chain(&error))?.iter() {
        let read = || {
            let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&file.local)?)?;
            let ids = ProjectionMask::columns(reader.parquet_schema(), ["user_id"]);
            let batches = reader.with_projection(ids).build()?;
            batches.collect::<Result<Vec<_>, _>>().map_err(parquet::errors::ParquetError::from)
        };
        batches.extend(read().map_err(|error| format!("{}: {error}", file.path))?);
    }
    Ok(batches)
}

fn count(events: &mut BTreeMap<usize, usize>, batch: &RecordBatch) {
    let ids = batch.column_by_name("user_id").unwrap();
    // DuckDB's files say text, ours too; the reader may choose a view for it.
    let ids = arrow::compute::cast(ids, &arrow::datatypes::DataType::Utf8).unwrap();
    for id in ids.as_string::<i32>().iter() {
        *events.entry(id.unwrap().parse().unwrap()).or_default() += 1;
    }
}

/// How often SQL sees each event, by its id.
pub(super) fn visible(engine: &Engine) -> BTreeMap<usize, usize> {
    let mut events = BTreeMap::new();
    let mut stream = engine.query(QueryRequest::new("SELECT user_id FROM events")).unwrap();
    while let Some(batch) = stream.blocking_next() {
        count(&mut events, &batch.unwrap());
    }
    events
}

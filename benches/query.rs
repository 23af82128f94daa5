//! Query: a streamed read of a hot table.
//!
//! Goal: rows a second from SQL to the bytes of an answer, for a million realistic events: the
//! batches alone, and as NDJSON and Arrow. Also the time to the first batch, which a user sees as
//! the latency of a large result, and the whole of a query with one row, which is the fixed cost
//! of admission, checking and planning. Non-goal: DuckDB's own speed at filtering and grouping.

use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringlake_benches::records;
use ringlake_engine::config::{DuckDbConfig, QueryConfig};
use ringlake_engine::hot::{Database, HotAppender, rows_of};
use ringlake_engine::query::format::{Encoder, Format};
use ringlake_engine::query::{Pool, QueryRequest, QueryStream};
use ringlake_engine::snapshot::{HotTable, Snapshot};

const ROWS: usize = 1_000_000;
/// Rows of one append; a generated request holds no more.
const BATCH: usize = 50_000;

/// A pool over a hot table of a million events.
struct Bench {
    pool: Pool,
    snapshot: Arc<Snapshot>,
}

impl Bench {
    fn new() -> Self {
        let scratch = tempfile::tempdir().expect("there is room for a scratch directory");
        let limits = DuckDbConfig { memory_limit: "4GB".into(), ..DuckDbConfig::default() };
        let database = Database::open(&limits, scratch.path(), scratch.path())
            .expect("the settings are close to the defaults");
        let mut appender =
            HotAppender::new(&database, Arc::default()).expect("the database is open");
        appender.create("hot_1").expect("the table is new");
        let rows =
            rows_of("0123456789ab", &[records::batch(BATCH, 1)]).expect("the schema is the log's");
        for _ in 0..ROWS / BATCH {
            appender.append("hot_1", &rows).expect("the rows fit the table");
        }
        let (unused, _) = crossbeam_channel::unbounded();
        let hot = vec![Arc::new(HotTable::new("hot_1".into(), unused))];
        let snapshot =
            Arc::new(Snapshot { version: 0, files: Arc::from([]), hot, columns: Arc::default() });
        let pool = Pool::start(QueryConfig::default(), Arc::default(), move || database.connect())
            .expect("threads can be started");
        Self { pool, snapshot }
    }

    fn start(&self, sql: &str) -> QueryStream {
        self.pool
            .query(QueryRequest::new(sql), Arc::clone(&self.snapshot))
            .expect("the statement is sound")
    }
}

/// Reads all rows and gives their number.
fn drain(mut stream: QueryStream) -> usize {
    let batches = std::iter::from_fn(|| stream.blocking_next());
    batches.map(|batch| batch.expect("the query succeeds").num_rows()).sum()
}

/// Encodes all rows and gives the number of bytes.
fn encode(mut stream: QueryStream, format: Format) -> usize {
    let mut encoder = Encoder::new(format, stream.schema()).expect("the format takes events");
    let mut bytes = 0;
    while let Some(batch) = stream.blocking_next() {
        let batch = batch.expect("the query succeeds");
        bytes += encoder.batch(&batch).expect("the format takes events").len();
    }
    bytes + encoder.finish().expect("the format takes events").len()
}

fn read(criterion: &mut Criterion) {
    let bench = Bench::new();
    assert_eq!(drain(bench.start("SELECT * FROM events")), ROWS);
    let mut group = criterion.benchmark_group("query_1m_rows");
    group.sample_size(10);
    group.throughput(Throughput::Elements(ROWS as u64));
    group.bench_function("batches", |bencher| {
        bencher.iter(|| drain(bench.start("SELECT * FROM events")));
    });
    for (name, format) in
        [("ndjson", Format::Ndjson), ("csv", Format::Csv), ("arrow", Format::Arrow)]
    {
        group.bench_function(name, |bencher| {
            bencher.iter(|| encode(bench.start("SELECT * FROM events"), format));
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("query_latency");
    group.bench_function("first_batch", |bencher| {
        bencher.iter(|| {
            bench
                .start("SELECT * FROM events")
                .blocking_next()
                .expect("there are rows")
                .expect("the query succeeds")
        });
    });
    group.bench_function("one_row", |bencher| {
        bencher.iter(|| drain(bench.start("SELECT 1 AS n")));
    });
    group.finish();
}

criterion_group!(benches, read);
criterion_main!(benches);

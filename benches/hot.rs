//! Hot: durable batches into a hot table.
//!
//! Goal: rows a second through DuckDB's Arrow appender for flushes from a quiet to a saturated
//! server, and what four promoted columns add, one of them never there. Each flush goes into a table
//! of its own. Non-goal: waiting, rolling, and the copy that a small flush into a table with rows costs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringlake_benches::records;
use ringlake_engine::config::DuckDbConfig;
use ringlake_engine::hot::{Database, HotAppender, rows_of};
use ringlake_engine::promoted::{ColumnConfig, PromotedColumn, Promoter, Promotion, TableColumns};
use ringlake_engine::schema::Kind;

fn append(criterion: &mut Criterion) {
    let scratch = tempfile::tempdir().expect("there is room for a scratch directory");
    let database = Database::open(&DuckDbConfig::default(), scratch.path(), scratch.path())
        .expect("the settings are the defaults");
    let mut appender = HotAppender::new(&database, Arc::default()).expect("the database is open");
    let mut group = criterion.benchmark_group("hot_append");
    group.sample_size(10);
    for rows in [4_096_usize, 16_384, 49_152, 122_880, 131_072] {
        let batches = records::batches(rows);
        let columns = rows_of("0123456789ab", &batches).expect("the schema is the log's");
        appender.create("hot_1").expect("the table is new");
        appender.append("hot_1", &columns).expect("the rows fit the table");
        assert_eq!(appender.count("hot_1").expect("the table is there"), rows as u64);
        appender.drop_table("hot_1").expect("the table is there");
        group.throughput(Throughput::Elements(rows as u64));
        group.bench_function(rows.to_string(), |bencher| {
            bencher.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    appender.create("hot_1").expect("the table is new");
                    let began = Instant::now();
                    appender.append("hot_1", &columns).expect("the rows fit the table");
                    spent += began.elapsed();
                    appender.drop_table("hot_1").expect("the table is there");
                }
                spent
            });
        });
        group.bench_function(format!("{rows}_columns_only"), |bencher| {
            bencher.iter(|| rows_of("0123456789ab", &batches).expect("the schema is the log's"));
        });
    }
    group.finish();
}

fn promote(criterion: &mut Criterion) {
    const ROWS: usize = 122_880;
    let column = |name: &str, kind| ColumnConfig {
        name: name.into(),
        path: format!("properties.{name}"),
        kind,
    };
    let columns = [
        column("title", Kind::Text),
        column("load_ms", Kind::Long),
        column("price", Kind::Double),
        column("plan", Kind::Text),
    ];
    let promotion = Promotion::new(&columns).expect("the columns are fine");
    let kinds = columns.map(|it| PromotedColumn { name: it.name, kind: it.kind });
    let table = TableColumns::new(kinds.to_vec());
    let mut promoter = Promoter::new(Arc::new(table), &promotion);
    let rows = rows_of("0123456789ab", &records::batches(ROWS)).expect("the schema is the log's");
    let completed = promoter.complete(rows.clone()).expect("the rows have the built-in columns");
    let titles: usize =
        completed.iter().map(|rows| rows["title"].len() - rows["title"].null_count()).sum();
    assert!(titles > ROWS / 10 && titles < ROWS, "{titles}");
    let mut group = criterion.benchmark_group("promote");
    group.sample_size(10);
    group.throughput(Throughput::Elements(ROWS as u64));
    group.bench_function(ROWS.to_string(), |bencher| {
        bencher.iter(|| promoter.complete(rows.clone()).expect("they had them before"));
    });
    group.finish();
}

criterion_group!(benches, append, promote);
criterion_main!(benches);

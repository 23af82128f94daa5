//! Hot: durable batches into a hot table.
//!
//! Goal: rows a second through DuckDB's Arrow appender for flushes from a quiet to a saturated
//! server. Each flush goes into a table of its own. Non-goal: waiting, rolling, and the copy that a
//! small flush into a table with rows costs.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringlake_engine::config::DuckDbConfig;
use ringlake_engine::hot::{Database, HotAppender, rows_of};

fn append(criterion: &mut Criterion) {
    let scratch = tempfile::tempdir().expect("there is room for a scratch directory");
    let database = Database::open(&DuckDbConfig::default(), scratch.path(), scratch.path())
        .expect("the settings are the defaults");
    let mut appender = HotAppender::new(&database, Arc::default()).expect("the database is open");
    let mut group = criterion.benchmark_group("hot_append");
    group.sample_size(10);
    for rows in [4_096_usize, 16_384, 49_152, 122_880, 131_072] {
        let batches = support::batches(rows);
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

criterion_group!(benches, append);
criterion_main!(benches);

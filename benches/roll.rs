//! Roll: a full hot table to a committed-ready Parquet file.
//!
//! Goal: rows a second of `write_rows` for one row group of made-up web events, from Arrow batches in
//! memory to a synced file: sort, zstd, footer, syncs. Non-goal: the Delta commit, several days in
//! one table, memory pressure. The number means how fast one roller thread
//! keeps up with ingestion.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use duckdb::Connection;
use ringlake_engine::config::{DuckDbConfig, ROW_GROUP_ROWS};
use ringlake_engine::lake::{Location, write_rows};
use ringlake_engine::schema::hot_table_columns;

const NODE: &str = "0199f3c2-7d1e-7aaa-8000-000000000001";

/// A hot table of one row group: 50 tenants, as many users as a third of the events, events of one
/// hour in the order of their arrival, about 300 bytes of JSON each.
fn hot_table() -> Connection {
    let defaults = DuckDbConfig::default();
    let connection = Connection::open_in_memory().expect("a database in memory needs nothing");
    let sql = format!(
        "SET threads = {threads}; SET memory_limit = '{memory}'; \
         SET preserve_insertion_order = false; \
         CREATE TABLE hot_0 ({columns}); \
         INSERT INTO hot_0 SELECT '{NODE}', 0, i, 'm-' || hash(i), 'tenant-' || hash(i) % 50, \
         CASE hash(i) % 3 WHEN 0 THEN 'page' ELSE 'track' END, 'Event ' || hash(i) % 20, \
         moment - INTERVAL 40 MILLISECOND, NULL, NULL, moment, 'user-' || hash(i) % 40000, \
         'anonymous-' || hash(i, 1) % 40000, 'session-' || hash(i, 2) % 20000, NULL, \
         'https://shop.example.com/products/' || hash(i, 3) % 5000, \
         'https://search.example.com/?q=' || hash(i, 4) % 300, \
         'Mozilla/5.0 (X11; Linux x86_64) Firefox/' || (100 + hash(i, 5) % 40), NULL, \
         '{{\"price\":' || hash(i, 6) % 100000 || ',\"currency\":\"EUR\",\"sku\":\"' || hash(i, 7) \
         || '\",\"quantity\":' || hash(i, 8) % 9 || ',\"campaign\":\"autumn-' || hash(i, 9) % 12 \
         || '\"}}', '{{\"locale\":\"de-DE\",\"screen\":{{\"width\":1920,\"height\":1080}}}}', \
         'events', moment::DATE \
         FROM (SELECT i, TIMESTAMP '2026-11-21 10:00:00' + i * INTERVAL 29 MILLISECOND AS moment \
               FROM range(1, {rows} + 1) t(i))",
        threads = defaults.threads,
        memory = defaults.memory_limit,
        columns = hot_table_columns(),
        rows = ROW_GROUP_ROWS,
    );
    connection.execute_batch(&sql).expect("the statements are valid");
    connection
}

fn roll(criterion: &mut Criterion) {
    let connection = hot_table();
    let mut statement = connection.prepare("SELECT * FROM hot_0").expect("the table is there");
    let batches: Vec<_> = statement.query_arrow([]).expect("the table can be read").collect();
    let rows = u64::try_from(ROW_GROUP_ROWS).expect("a row group's size fits");
    let place = || {
        let data = tempfile::tempdir().expect("there is room for a scratch directory");
        let location = Location::parse(None, data.path()).expect("a directory is a place");
        location.create().expect("the scratch directory is writable");
        (data, location)
    };
    let write = |location: &Location| {
        write_rows(&batches, location, NODE, &mut || true).expect("the roll succeeds")
    };

    let (_data, location) = place();
    let files = write(&location);
    assert_eq!(files.iter().map(|file| file.rows).sum::<u64>(), rows);
    println!("one row group: {} bytes of Parquet, {} a row", files[0].bytes, files[0].bytes / rows);

    let mut group = criterion.benchmark_group("roll");
    group.throughput(Throughput::Elements(rows)).sample_size(20);
    group.bench_function("one_day_122880_rows", |bencher| {
        bencher.iter_batched(
            place,
            |(data, location)| {
                black_box(write(&location));
                // Removing the files is not part of a roll.
                data
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, roll);
criterion_main!(benches);

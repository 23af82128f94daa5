//! Log: an Arrow batch to a durable frame.
//!
//! Goal: what a frame of 1, 16, 64 and 4,096 rows costs, encoded only, and written and synced.
//! Group commit makes the small ones, so that they matter as much as the large one. Non-goal:
//! building the batch. The `append` numbers depend on the disk, the `encode` numbers do not.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringlake_benches::records;
use ringlake_engine::disk::RealDisk;
use ringlake_engine::log::{FrameEncoder, Identity, Log};
use ringlake_engine::schema::log_schema;

const ROWS: [usize; 4] = [1, 16, 64, 4_096];

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("log_encode");
    for rows in ROWS {
        let batch = records::batch(rows, 1).batch;
        let mut encoder = FrameEncoder::new().expect("LZ4 is built in");
        let mut frame = Vec::new();
        encoder.encode(&batch, 0, 1, 1, &mut frame).expect("the batch is small");
        println!("log_encode/{rows}: {} bytes a row on disk", frame.len() / rows);
        group.throughput(Throughput::Elements(rows as u64));
        group.bench_function(rows.to_string(), |bencher| {
            bencher.iter(|| {
                encoder.encode(&batch, 0, 1, 1, &mut frame).expect("the batch is small");
                black_box(frame.len())
            });
        });
    }
    group.finish();
}

fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("log_append_synced");
    for rows in ROWS {
        let batch = records::batch(rows, 1).batch;
        let scratch = tempfile::tempdir().expect("there is room for a scratch directory");
        let mut log = Log::new(
            scratch.path().into(),
            Arc::new(RealDisk),
            Identity { node: "0123456789ab".into(), shard: 0, schema: log_schema() },
            64 << 20,
            Vec::new(),
            Vec::new(),
        )
        .expect("LZ4 is built in");
        let mut first = 1;
        group.throughput(Throughput::Elements(rows as u64));
        group.bench_function(rows.to_string(), |bencher| {
            bencher.iter(|| {
                log.append(&batch, first).expect("the disk has room");
                first += i64::try_from(rows).expect("a batch is small");
                // What the lake would hold by now; keeps the scratch directory small.
                log.release(first - 1).expect("the segments can be removed");
            });
        });
    }
    group.finish();
}

criterion_group!(benches, encode, append);
criterion_main!(benches);

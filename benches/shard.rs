//! Shard: ring records to an Arrow batch.
//!
//! Goal: events a second that one shard thread can turn into columns, for requests of one event
//! and of 1,000. Non-goal: reading the ring, writing the log. The number means what a shard costs
//! beside its log.

mod support;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringlake_engine::shard::BatchBuilder;
use ringlake_event::Record;

fn shard(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("shard");
    for (events, requests) in [(1_usize, 64_usize), (1_000, 8)] {
        let records: Vec<Vec<u8>> =
            (0..requests).map(|seed| support::record(events, seed as u64)).collect();
        let mut builder = BatchBuilder::new();
        let mut build = || {
            for record in &records {
                builder.append(&Record::parse(record).expect("the record is sound"));
            }
            builder.finish().0
        };
        assert_eq!(build().num_rows(), events * requests);
        group.throughput(Throughput::Elements((events * requests) as u64));
        group.bench_function(format!("{requests}_requests_of_{events}"), |bencher| {
            bencher.iter(|| black_box(build()));
        });
    }
    group.finish();
}

criterion_group!(benches, shard);
criterion_main!(benches);

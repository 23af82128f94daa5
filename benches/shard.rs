//! Shard: ring records to an Arrow batch, and the look at their message ids.
//!
//! Goal: events a second that one shard thread can turn into columns, for requests of one event
//! and of 1,000: without deduplication, with it for new events and for known ones, and with it for
//! events that have no message id. Non-goal: reading the ring, writing the log. The number means
//! what a shard costs beside its log. Each batch is given up at the end instead of stored, which
//! costs the same, so that its ids are new again; `dedup` measures a full table.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringlake_benches::records;
use ringlake_dedup::{Dedup, Limits};
use ringlake_engine::shard::Intake;

/// Takes all records; gives the rows of the batch. What is not `stored` is forgotten.
fn batch(intake: &mut Intake, records: &[Vec<u8>], stored: bool) -> usize {
    for (record, ticket) in records.iter().zip(1..) {
        let taken = intake.take(ticket, record).expect("the record is sound");
        let _ = black_box(taken);
    }
    let rows = black_box(intake.builder.finish().0).num_rows();
    if stored {
        intake.stored()
    } else {
        intake.lost()
    }
    rows
}

fn shard(criterion: &mut Criterion) {
    let limits = Limits {
        ids: NonZeroUsize::new(4_000_000).expect("not zero"),
        window: Duration::from_secs(86_400),
    };
    let dedup = || Some(Arc::new(Dedup::new(&limits, [7; 16], || {})));
    let mut group = criterion.benchmark_group("shard");
    for (events, requests) in [(1_usize, 64_usize), (1_000, 8)] {
        let seeds = 0..requests as u64;
        let records: Vec<_> = seeds.clone().map(|seed| records::record(events, seed)).collect();
        let plain: Vec<_> = seeds.map(|seed| records::record_without_id(events, seed)).collect();
        let all = events * requests;
        group.throughput(Throughput::Elements(all as u64));
        let name = format!("{requests}_requests_of_{events}");

        let mut without = Intake::new(None, 0);
        let mut with = Intake::new(dedup(), 0);
        let mut known = Intake::new(dedup(), 0);
        assert_eq!(batch(&mut known, &records, true), all);
        for (case, intake, records, rows) in [
            ("", &mut without, &records, all),
            ("_new", &mut with, &records, all),
            ("_known", &mut known, &records, 0),
        ] {
            assert_eq!(batch(intake, records, false), rows);
            group.bench_function(format!("{name}{case}"), |bencher| {
                bencher.iter(|| batch(intake, records, false));
            });
        }
        for (case, intake) in [("_plain", &mut without), ("_plain_beside_ids", &mut with)] {
            assert_eq!(batch(intake, &plain, false), all);
            group.bench_function(format!("{name}{case}"), |bencher| {
                bencher.iter(|| batch(intake, &plain, false));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, shard);
criterion_main!(benches);

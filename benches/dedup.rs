//! Message ids: hashed, claimed and stored, recognised.
//!
//! Goal: what deduplication costs a shard for an event with an id, with a small table that stays in
//! the processor's caches and with a full window of 4,000,000 ids, where nearly every id is a cache
//! miss. Non-goal: finding the ids in a record; `shard` has that. Before it measures, the bench
//! prints what an id takes up in memory and asserts the promise of less than 40 bytes.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ringlake_dedup::{Claim, Claims, Dedup, Key, Limits};

/// Ids in one batch: what group commit makes of bulk requests.
const BATCH: u64 = 1_000;
const SIZES: [u64; 2] = [10_000, 4_000_000];
const BYTES_MAX: usize = 40;

fn dedup(ids: u64) -> Arc<Dedup> {
    let ids = usize::try_from(ids).ok().and_then(NonZeroUsize::new).expect("a size of the bench");
    let limits = Limits { ids, window: Duration::from_secs(86_400) };
    Arc::new(Dedup::new(&limits, [7; 16], || {}))
}

/// The number as a UUID.
fn id(number: u64) -> String {
    format!("{number:08x}-0000-4000-8000-000000000000")
}

/// Keys of a batch that begins with `first`, as a request brings them.
fn keys(dedup: &Dedup, first: u64) -> Vec<(Key, usize)> {
    (first..first + BATCH).map(|number| dedup.key("acme", &id(number))).zip(0..).collect()
}

fn claim(claims: &mut Claims, keys: &mut [(Key, usize)]) -> usize {
    match claims.claim(keys, |index, new| _ = black_box((index, new))) {
        Claim::Decided { duplicates } => duplicates,
        Claim::Undecided => panic!("there is one shard"),
    }
}

/// Fills the window and a quarter more, so that it forgets and sweeps as it does for ever after.
fn fill(claims: &mut Claims, ids: u64) -> u64 {
    let mut next = 0;
    let mut worst = 0;
    while next < ids + ids / 4 {
        let mut keys = keys(claims.dedup(), next);
        assert_eq!(claim(claims, &mut keys), 0);
        claims.store(&(0..=0));
        next += BATCH;
        if next % (ids / 4) == 0 {
            let known = claims.dedup().look(0).ids;
            let bytes = claims.dedup().memory_bytes() / known;
            println!("{known} ids known, {bytes} bytes each");
            worst = worst.max(if ids == SIZES[1] { bytes } else { 0 });
        }
    }
    assert!(worst < BYTES_MAX, "an id takes {worst} bytes");
    next
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("dedup");
    let hasher = dedup(1);
    let uuid = id(1);
    group.throughput(Throughput::Elements(1));
    group.bench_function("key", |bencher| {
        bencher.iter(|| hasher.key(black_box("acme"), black_box(&uuid)));
    });

    group.throughput(Throughput::Elements(BATCH));
    for ids in SIZES {
        let dedup = dedup(ids);
        let mut claims = Claims::new(Arc::clone(&dedup), 0);
        let mut next = fill(&mut claims, ids);
        group.bench_function(format!("new_of_{ids}"), |bencher| {
            bencher.iter_batched(
                || {
                    next += BATCH;
                    keys(&dedup, next - BATCH)
                },
                |mut keys| {
                    let duplicates = claim(&mut claims, &mut keys);
                    claims.store(&(0..=0));
                    assert_eq!(duplicates, 0);
                },
                BatchSize::LargeInput,
            );
        });
        // Spread over the newer half of the window.
        let mut back = 0;
        group.bench_function(format!("known_of_{ids}"), |bencher| {
            bencher.iter_batched(
                || {
                    back = (back + 7 * BATCH) % (ids / 2);
                    keys(&dedup, next - BATCH - back)
                },
                |mut keys| assert_eq!(claim(&mut claims, &mut keys), keys.len()),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);

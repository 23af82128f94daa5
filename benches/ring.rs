//! What one record costs on its way through the ring: reserve, write, commit, read, release.
//!
//! Goal: the cost of the ring itself for the record sizes that occur, a single beacon (420 B), a
//! small batch (4 KiB) and a large one (64 KiB). `seq` does both ends on one thread: the sum of the
//! instructions, without waiting for the other core. `spsc` puts each end on its own thread, as in
//! the engine: cache lines move between cores, and the consumer parks when it finds nothing.
//!
//! Not a goal: how other queues do (`perf ring`), latency, and what decoding or batching cost around the ring. Writing a record is one
//! copy and reading it one sum over its words, the least that touches every byte.
//!
//! The number: records and bytes a second through one ring. With fewer than two free cores `spsc`
//! measures the scheduler.

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringlake_benches::ring::{CAPACITY, RECORDS, payload, push, read, sum};
use ringlake_ring::{Consumer, ring};

/// As in the engine: a consumer that finds nothing sleeps until it is woken.
fn park(consumer: &mut Consumer) {
    consumer.park(Duration::from_secs(1));
}

/// Sends `count` records from this thread to another; the time until the last one was read.
fn transfer(record: &[u8], count: u64) -> Duration {
    let (mut producer, mut consumer) = ring(CAPACITY);
    let expected = sum(record).wrapping_mul(count);
    thread::scope(|scope| {
        let reader = scope.spawn(move || read(&mut consumer, count, park));
        let start = Instant::now();
        for _ in 0..count {
            push(&mut producer, record);
        }
        let total = reader.join().expect("the reader does not panic");
        let elapsed = start.elapsed();
        assert_eq!(total, expected, "every record arrived once and whole");
        elapsed
    })
}

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring");
    for (name, len) in RECORDS {
        let record = payload(len);
        let (mut producer, mut consumer) = ring(CAPACITY);

        // More records than the ring holds, so that it wraps; also its first touch of every page.
        let lap = CAPACITY as u64 / len as u64;
        for _ in 0..2 * lap {
            push(&mut producer, &record);
            assert_eq!(read(&mut consumer, 1, park), sum(&record));
        }
        transfer(&record, 2 * lap);

        group.throughput(Throughput::ElementsAndBytes { elements: 1, bytes: len as u64 });
        group.bench_function(BenchmarkId::new("seq", name), |bencher| {
            bencher.iter(|| {
                push(&mut producer, black_box(&record));
                black_box(read(&mut consumer, 1, park))
            });
        });
        group.bench_function(BenchmarkId::new("spsc", name), |bencher| {
            bencher.iter_custom(|iterations| transfer(black_box(&record), iterations));
        });
    }
    group.finish();
}

criterion_group!(ring_benches, benches);
criterion_main!(ring_benches);

//! What one record costs on its way through the ring: reserve, write, commit, read, release.
//!
//! Goal: the cost of the ring itself for the record sizes that occur, a single beacon (420 B), a
//! small batch (4 KiB) and a large one (64 KiB). `seq` does both ends on one thread: the sum of the
//! instructions, without waiting for the other core. `spsc` puts each end on its own thread, as in
//! the engine: cache lines move between cores, and the consumer parks when it finds nothing.
//!
//! Not a goal: latency, and what decoding or batching cost around the ring. Writing a record is one
//! copy and reading it one sum over its words, the least that touches every byte.
//!
//! The number: records and bytes a second through one ring. With fewer than two free cores `spsc`
//! measures the scheduler.

use std::hint::{black_box, spin_loop};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringlake_ring::{Consumer, Producer, ReserveError, ring};

/// Bytes of the ring: the engine's default.
const CAPACITY: usize = 16 << 20;

/// Names and lengths of the records.
const RECORDS: [(&str, usize); 3] = [("420B", 420), ("4KiB", 4 << 10), ("64KiB", 64 << 10)];

/// Records that a consumer reads before it releases, at most.
const RELEASE_EVERY: u64 = 64;

/// Bytes whose words differ, so that a lost or doubled word changes the sum.
fn payload(len: usize) -> Vec<u8> {
    (1_u64..)
        .flat_map(|word| word.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes())
        .take(len)
        .collect()
}

fn sum(record: &[u8]) -> u64 {
    let (words, rest) = record.as_chunks::<8>();
    let words = words.iter().map(|word| u64::from_le_bytes(*word));
    let rest = rest.iter().map(|byte| u64::from(*byte));
    words.chain(rest).fold(0, u64::wrapping_add)
}

/// Commits one record, waiting for room the way no caller of the engine would.
fn push(producer: &mut Producer, record: &[u8]) {
    loop {
        match producer.try_reserve(record.len()) {
            Ok(mut reservation) => {
                reservation.copy_from_slice(record);
                reservation.commit(record.len());
                return;
            }
            Err(ReserveError::Full) => spin_loop(),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Reads `count` records; the sum over all of them.
fn read(consumer: &mut Consumer, count: u64) -> u64 {
    let mut total = 0_u64;
    let mut seen = 0;
    while seen < count {
        match consumer.next() {
            Some(record) => {
                total = total.wrapping_add(sum(record));
                seen += 1;
                if seen % RELEASE_EVERY == 0 {
                    consumer.release();
                }
            }
            None => {
                consumer.release();
                consumer.park(Duration::from_secs(1));
            }
        }
    }
    consumer.release();
    total
}

/// Sends `count` records from this thread to another; the time until the last one was read.
fn transfer(record: &[u8], count: u64) -> Duration {
    let (mut producer, mut consumer) = ring(CAPACITY);
    let expected = sum(record).wrapping_mul(count);
    thread::scope(|scope| {
        let reader = scope.spawn(move || read(&mut consumer, count));
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
            assert_eq!(read(&mut consumer, 1), sum(&record));
        }
        transfer(&record, 2 * lap);

        group.throughput(Throughput::ElementsAndBytes { elements: 1, bytes: len as u64 });
        group.bench_function(BenchmarkId::new("seq", name), |bencher| {
            bencher.iter(|| {
                push(&mut producer, black_box(&record));
                black_box(read(&mut consumer, 1))
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

//! The ring case: records of bytes from one thread to another, beside other queues.
//!
//! **Guarantees**: every side moves the same bytes, copies each record in once and reads each byte
//! of it once; the sum over what was read is checked. Sides run in turn. Room for records is the
//! same number of bytes. Who finds nothing, or no room, spins as long as all others; the channel waits as it does by
//! itself.
//!
//! **Not guaranteed**: that they offer the same. The ring and rtrb have one producer and one
//! consumer, the other two any number; those own a heap allocation a record, as they must when
//! records differ in length. Our ring wakes a consumer that sleeps, frames its records and counts
//! them; rtrb is given a length in front of each.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use crossbeam_queue::ArrayQueue;
use ringlake_benches::ring::{CAPACITY, RECORDS, payload, push, read, spin, sum};
use rtrb::RingBuffer;

use crate::bulk::count_as_f64;
use crate::machine::Machine;
use crate::report::{Column, Report, number, verdict};
use crate::trial::Common;

/// Bytes of the length in front of a record in rtrb.
const HEAD: usize = 8;
const RATIO_MIN: f64 = 0.8;
const RATE: &str = "records/s";
const COLUMNS: [Column; 2] =
    [Column { name: RATE, decimals: 0 }, Column { name: "GB/s", decimals: 2 }];

/// Sends a record so many times to another thread; the time until the last one was read.
type Transfer = fn(record: &[u8], count: u64) -> Result<Duration>;

const OURS: &str = "ringlake";
const RTRB: &str = "rtrb";
const SIDES: [(&str, Transfer); 4] =
    [(OURS, ours), (RTRB, rtrb), ("ArrayQueue", array_queue), ("channel", channel)];

/// `perf ring`
#[derive(Debug, Args)]
pub struct Options {
    /// Millions of bytes that each side moves in each round.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..))]
    megabytes: u64,
    /// How often each side runs, in turn.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    #[command(flatten)]
    common: Common,
}

/// Runs the case and prints it.
pub fn run(options: &Options) -> Result<()> {
    let machine = Machine::read();
    let title = format!(
        "{} MB in records from one thread to another, {} MiB of room",
        options.megabytes,
        CAPACITY >> 20,
    );
    let mut report = Report::new("ring", title, &COLUMNS);
    for round in 1..=options.rounds {
        eprintln!("round {round} of {}", options.rounds);
        for (name, len) in RECORDS {
            let record = payload(len);
            let bytes = len as u64;
            let count = (options.megabytes * 1_000_000).div_ceil(bytes);
            for (side, transfer) in SIDES {
                let seconds = transfer(&record, count)?.as_secs_f64();
                let rate = count_as_f64(count) / seconds;
                let values = [rate, rate * count_as_f64(bytes) / 1e9];
                report.add(&format!("{side} {name}"), round, &values);
            }
        }
    }
    for (name, _) in RECORDS {
        let rate = |side: &str| report.median(&format!("{side} {name}"), RATE);
        let ratio = rate(OURS) / rate(RTRB);
        let limit = format!("at least {RATIO_MIN} of rtrb");
        let what = format!("ratio of medians, {name}");
        report.note(verdict(&what, &number(ratio, 2), &limit, ratio >= RATIO_MIN));
    }
    report.finish(&machine, options.common.save)
}

/// Runs both ends and checks what arrived.
fn both(
    expected: u64,
    reader: impl FnOnce() -> u64 + Send,
    writer: impl FnOnce(),
) -> Result<Duration> {
    thread::scope(|scope| {
        let reader = scope.spawn(reader);
        let start = Instant::now();
        writer();
        let total = reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))?;
        let elapsed = start.elapsed();
        ensure!(total == expected, "records were lost or changed");
        Ok(elapsed)
    })
}

fn ours(record: &[u8], count: u64) -> Result<Duration> {
    let (mut producer, mut consumer) = ringlake_ring::ring(CAPACITY);
    let expected = sum(record).wrapping_mul(count);
    let reader = move || read(&mut consumer, count, |_| spin());
    both(expected, reader, move || {
        for _ in 0..count {
            push(&mut producer, record);
        }
    })
}

/// A record comes with its length in front, framed beforehand: one copy, one commit.
fn rtrb(record: &[u8], count: u64) -> Result<Duration> {
    let (mut producer, mut consumer) = RingBuffer::<u8>::new(CAPACITY);
    let framed = [&record.len().to_le_bytes(), record].concat();
    let reader = move || {
        let mut total = 0_u64;
        for _ in 0..count {
            let mut head = [0; HEAD];
            while consumer.pop_entire_slice(&mut head).is_err() {
                spin();
            }
            // Committed in one step with its length, it is all there.
            let Ok(chunk) = consumer.read_chunk(usize::from_le_bytes(head)) else { return 0 };
            let record = match chunk.as_slices() {
                (record, []) => sum(record),
                // Once a lap a record goes over the end.
                (first, second) => sum(&[first, second].concat()),
            };
            total = total.wrapping_add(record);
            chunk.commit_all();
        }
        total
    };
    both(sum(record).wrapping_mul(count), reader, move || {
        for _ in 0..count {
            while producer.push_entire_slice(&framed).is_err() {
                spin();
            }
        }
    })
}

fn array_queue(record: &[u8], count: u64) -> Result<Duration> {
    let queue = ArrayQueue::<Box<[u8]>>::new(CAPACITY / record.len());
    let reader = || {
        let mut total = 0_u64;
        for _ in 0..count {
            let record = loop {
                match queue.pop() {
                    Some(record) => break record,
                    None => spin(),
                }
            };
            total = total.wrapping_add(sum(&record));
        }
        total
    };
    both(sum(record).wrapping_mul(count), reader, || {
        for _ in 0..count {
            let mut record = Box::from(record);
            while let Err(refused) = queue.push(record) {
                record = refused;
                spin();
            }
        }
    })
}

fn channel(record: &[u8], count: u64) -> Result<Duration> {
    let (sender, receiver) = crossbeam_channel::bounded::<Box<[u8]>>(CAPACITY / record.len());
    let reader = move || receiver.iter().fold(0, |total, record| sum(&record).wrapping_add(total));
    both(sum(record).wrapping_mul(count), reader, move || {
        for _ in 0..count {
            if sender.send(Box::from(record)).is_err() {
                return;
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_queue_brings_every_byte_across() {
        // More than the room, so that all of them wrap.
        let record = payload(100_003);
        for (name, transfer) in SIDES {
            let outcome = transfer(&record, 400);
            assert!(outcome.is_ok(), "{name}: {outcome:?}");
        }
    }
}

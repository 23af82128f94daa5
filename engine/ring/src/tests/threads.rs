//! Two threads on one ring.

use std::hash::{DefaultHasher, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::{push, rounds};
use crate::tests::park::park_until_woken;
use crate::{Consumer, Producer, ReserveError, ring};

/// Numbers that are the same in every run (xorshift64).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        // An odd factor: small seeds give states with many bits set, and none gives 0.
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Numbers of their own for another thread.
    pub(super) fn fork(&mut self) -> Self {
        Self::new(self.below(1 << 30) as u64)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}

/// Bytes in front of a test record's body: its number and its checksum.
const LABEL: usize = 16;

fn checksum(number: u64, body: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write_u64(number);
    hasher.write(body);
    hasher.finish()
}

/// A record without a body.
fn labelled(number: u64) -> [u8; LABEL] {
    let mut record = [0; LABEL];
    record[..8].copy_from_slice(&number.to_ne_bytes());
    record[8..].copy_from_slice(&checksum(number, b"").to_ne_bytes());
    record
}

/// Writes `count` numbered records of random lengths in between aborted reservations.
fn produce(mut producer: Producer, count: usize) {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let longest_body = producer.max_record() - LABEL;
    for number in 0..count as u64 {
        let body_len = random.below(longest_body + 1);
        let spare = random.below(longest_body - body_len + 1);
        let abort = random.below(8) == 0;
        let first_byte = random.below(256);
        loop {
            match producer.try_reserve(LABEL + body_len + spare) {
                Ok(mut reservation) => {
                    let body = &mut reservation[LABEL..LABEL + body_len];
                    for (index, byte) in body.iter_mut().enumerate() {
                        *byte = u8::try_from((first_byte + index) % 256).unwrap();
                    }
                    if abort {
                        break;
                    }
                    let sum = checksum(number, body);
                    reservation[..8].copy_from_slice(&number.to_ne_bytes());
                    reservation[8..LABEL].copy_from_slice(&sum.to_ne_bytes());
                    reservation.commit(LABEL + body_len);
                    break;
                }
                Err(error) => {
                    assert_eq!(error, ReserveError::Full);
                    thread::yield_now();
                }
            }
        }
    }
}

/// Reads to the end, releasing after a random number of records; the numbers seen.
fn consume(mut consumer: Consumer) -> Vec<u64> {
    let mut random = Random(0xD1B5_4A32_D192_ED03);
    let mut numbers = Vec::new();
    loop {
        while let Some(record) = consumer.next() {
            let number = u64::from_ne_bytes(record[..8].try_into().unwrap());
            let sum = u64::from_ne_bytes(record[8..LABEL].try_into().unwrap());
            assert_eq!(sum, checksum(number, &record[LABEL..]), "record {number} is torn");
            numbers.push(number);
            if random.below(4) == 0 {
                consumer.release();
            }
        }
        consumer.release();
        if consumer.is_abandoned() && consumer.is_empty() {
            return numbers;
        }
        park_until_woken(&mut consumer);
    }
}

#[test]
fn what_one_thread_commits_another_reads_whole_in_order_and_once() {
    let count = rounds(200_000, 30);
    // Miri takes a minute for the records of the largest ring.
    let capacities = if cfg!(miri) { &[64, 256][..] } else { &[64, 256, 4096] };
    for &capacity in capacities {
        let (producer, consumer) = ring(capacity);
        let numbers = thread::scope(|scope| {
            scope.spawn(|| produce(producer, count));
            scope.spawn(|| consume(consumer)).join().unwrap()
        });
        // Aborted numbers are missing, and nothing else: replay the producer's dice.
        let mut random = Random(0x9E37_79B9_7F4A_7C15);
        let longest_body = capacity / 2 - 8 - LABEL;
        let mut expected = Vec::new();
        for number in 0..count as u64 {
            let body_len = random.below(longest_body + 1);
            random.below(longest_body - body_len + 1);
            if random.below(8) != 0 {
                expected.push(number);
            }
            random.below(256);
        }
        assert!(numbers == expected, "capacity {capacity}: {} records", numbers.len());
    }
}

/// The ring is far larger than all that ever goes through it, so that a tail read as older than
/// the head would show as a full ring.
#[test]
fn a_gauge_on_a_third_thread_shows_no_more_than_was_ever_committed() {
    let (mut producer, consumer) = ring(1 << 20);
    let gauge = producer.gauge();
    let count = rounds(20_000, 30);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            // Relaxed: the scope's join is what orders the threads.
            while !done.load(Ordering::Relaxed) {
                assert!(gauge.used_bytes() <= count * (8 + LABEL));
                thread::yield_now();
            }
        });
        scope.spawn(move || {
            for number in 0..count as u64 {
                push(&mut producer, &labelled(number));
            }
        });
        assert_eq!(consume(consumer).len(), count);
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(gauge.used_bytes(), 0);
}

#[test]
fn a_producer_that_panics_on_its_thread_loses_only_the_record_in_hand() {
    let (mut producer, consumer) = ring(4096);
    let writer = thread::spawn(move || {
        for number in 0..10_u64 {
            push(&mut producer, &labelled(number));
        }
        let mut reservation = producer.try_reserve(100).unwrap();
        reservation.fill(0xFF);
        panic!("in the middle of the write");
    });
    let numbers = consume(consumer);
    writer.join().unwrap_err();
    assert!(numbers.into_iter().eq(0..10));
}

#[test]
fn a_consumer_that_goes_stops_the_producer() {
    let (mut producer, mut consumer) = ring(64);
    let reader = thread::spawn(move || {
        for _ in 0..3 {
            while consumer.next().is_none() {
                park_until_woken(&mut consumer);
            }
            consumer.release();
        }
    });
    let error = loop {
        match producer.try_reserve(8) {
            Ok(reservation) => reservation.commit(8),
            Err(ReserveError::Full) => thread::yield_now(),
            Err(error) => break error,
        }
    };
    assert_eq!(error, ReserveError::Abandoned);
    reader.join().unwrap();
}

#[test]
fn both_ends_move_between_threads() {
    let (mut producer, mut consumer) = ring(64);
    for round in 0..rounds(200, 10) as u64 {
        producer = thread::spawn(move || {
            push(&mut producer, &round.to_ne_bytes());
            producer
        })
        .join()
        .unwrap();
        consumer = thread::spawn(move || {
            assert_eq!(consumer.next(), Some(&round.to_ne_bytes()[..]));
            consumer.release();
            consumer
        })
        .join()
        .unwrap();
    }
}

//! Reservations that come to nothing against read and release.
//!
//! Between its commits the producer gives up two reservations that it has written to, one by a drop
//! and one by a panic. The second would have to skip to the start of the buffer, where the consumer
//! is reading and releasing. Neither leaves a trace: the consumer finds the committed records and
//! nothing else. Loom checks that the bytes written in vain were never the consumer's.

#![cfg(engine_loom)]
#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use loom::thread;
use ringlake_ring::{Producer, Reservation, ReserveError, ring};

/// Writes to a reservation of 8 bytes, if there is room, and hands it over.
fn attempt(producer: &mut Producer, end: impl FnOnce(Reservation<'_>)) {
    match producer.try_reserve(8) {
        Ok(mut reservation) => {
            reservation.fill(0xFF);
            end(reservation);
        }
        Err(error) => assert_eq!(error, ReserveError::Full),
    }
}

#[test]
fn the_consumer_sees_nothing_of_an_aborted_reservation() {
    loom::model(|| {
        let (mut producer, mut consumer) = ring(32);
        producer.try_reserve(0).unwrap().commit(0);
        let reader = thread::spawn(move || {
            let mut seen = Vec::new();
            for _ in 0..3 {
                seen.extend(consumer.next().map(<[u8]>::to_vec));
                consumer.release();
            }
            (consumer, seen)
        });
        attempt(&mut producer, |_dropped| ());
        let mut reservation = producer.try_reserve(8).unwrap();
        reservation.fill(1);
        reservation.commit(8);
        // 8 bytes are left before the end of the buffer.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            attempt(&mut producer, |_reservation| resume_unwind(Box::new("a panic")));
            resume_unwind(Box::new("no room to panic in"));
        }));
        outcome.unwrap_err();
        let mut expected = vec![vec![], vec![1; 8]];
        attempt(&mut producer, |mut reservation| {
            reservation.fill(2);
            reservation.commit(8);
            expected.push(vec![2; 8]);
        });
        let (mut consumer, mut seen) = reader.join().unwrap();
        while let Some(record) = consumer.next() {
            seen.push(record.to_vec());
        }
        assert_eq!(seen, expected);
    });
}

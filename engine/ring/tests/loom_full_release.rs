//! Reservation on a full ring against release.
//!
//! Two records fill the ring. The producer tries to add two more while the consumer reads and
//! releases one after the other. Each attempt is refused as full or succeeds; none overwrites
//! what was not released, and when everything is released there is room.

#![cfg(engine_loom)]
#![allow(clippy::unwrap_used)] // A failed expectation is what a test is for.

use loom::thread;
use ringlake_ring::{ReserveError, ring};

#[test]
fn a_full_ring_refuses_until_the_release_and_loses_nothing() {
    loom::model(|| {
        let (mut producer, mut consumer) = ring(32);
        for byte in 0..2 {
            let mut reservation = producer.try_reserve(8).unwrap();
            reservation.fill(byte);
            reservation.commit(8);
        }
        assert_eq!(producer.try_reserve(0).unwrap_err(), ReserveError::Full);
        let reader = thread::spawn(move || {
            for byte in 0..2 {
                assert_eq!(consumer.next(), Some(&[byte; 8][..]));
                consumer.release();
            }
            consumer
        });
        let mut pushed = 2;
        for _ in 0..2 {
            match producer.try_reserve(8) {
                Ok(mut reservation) => {
                    reservation.fill(pushed);
                    reservation.commit(8);
                    pushed += 1;
                }
                Err(error) => assert_eq!(error, ReserveError::Full),
            }
        }
        let mut consumer = reader.join().unwrap();
        for byte in 2..pushed {
            assert_eq!(consumer.next(), Some(&[byte; 8][..]));
        }
        assert_eq!(consumer.next(), None);
        consumer.release();
        producer.try_reserve(8).unwrap().commit(8);
        assert!(consumer.next().is_some());
    });
}

//! Reservation on a full ring against one release of several records.
//!
//! Three records fill the ring, and the consumer gives the room of all of them back at once. The
//! record that the producer wants takes the room of two: it is refused before the release and fits
//! after it. Loom checks that the consumer's reads of all three were over before their bytes were
//! written again, though only one store says so.

#![cfg(engine_loom)]
#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use loom::thread;
use ringlake_ring::{ReserveError, ring};

#[test]
fn one_release_hands_back_every_record_before_it() {
    loom::model(|| {
        let (mut producer, mut consumer) = ring(64);
        for (byte, len) in [(0, 8), (1, 8), (2, 24)] {
            let mut reservation = producer.try_reserve(len).unwrap();
            reservation.fill(byte);
            reservation.commit(len);
        }
        let reader = thread::spawn(move || {
            for (byte, len) in [(0, 8), (1, 8), (2, 24)] {
                assert_eq!(consumer.next(), Some(&vec![byte; len][..]));
            }
            consumer.release();
            let early = consumer.next().map(<[u8]>::to_vec);
            (consumer, early)
        });
        let mut pushed = false;
        for _ in 0..2 {
            match producer.try_reserve(24) {
                Ok(mut reservation) => {
                    reservation.fill(3);
                    reservation.commit(24);
                    pushed = true;
                    break;
                }
                Err(error) => assert_eq!(error, ReserveError::Full),
            }
        }
        let (mut consumer, early) = reader.join().unwrap();
        let late = consumer.next().map(<[u8]>::to_vec);
        assert_eq!(early.or(late), pushed.then(|| vec![3; 24]));
        assert_eq!(consumer.next(), None);
    });
}

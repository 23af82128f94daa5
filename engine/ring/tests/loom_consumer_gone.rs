//! The consumer's end against the producer's reservation and commit.
//!
//! The consumer reads at most one record and goes while the producer writes three into a ring for
//! two. Every attempt succeeds, is refused as full, or is told the end; none touches freed memory,
//! and after the end has been seen it stays.

#![cfg(engine_loom)]
#![allow(clippy::unwrap_used)] // A failed expectation is what a test is for.

use loom::thread;
use ringlake_ring::{ReserveError, ring};

#[test]
fn a_producer_writes_or_learns_that_nobody_reads() {
    loom::model(|| {
        let (mut producer, mut consumer) = ring(32);
        let reader = thread::spawn(move || {
            if let Some(record) = consumer.next() {
                assert_eq!(record, &[0; 8]);
            }
            consumer.release();
        });
        let mut pushed = 0;
        let mut gone = false;
        for _ in 0..3 {
            match producer.try_reserve(8) {
                Ok(mut reservation) => {
                    assert!(!gone, "the consumer came back");
                    reservation.fill(pushed);
                    reservation.commit(8);
                    pushed += 1;
                }
                Err(ReserveError::Abandoned) => gone = true,
                Err(error) => assert_eq!(error, ReserveError::Full),
            }
        }
        reader.join().unwrap();
        assert_eq!(producer.try_reserve(8).unwrap_err(), ReserveError::Abandoned);
    });
}

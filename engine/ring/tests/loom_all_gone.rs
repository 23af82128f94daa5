//! The ends of everything at once.
//!
//! The producer commits and goes while the consumer reads and goes, a waker wakes whoever may be
//! there, and a gauge looks. Whoever goes last frees the ring: loom reports a share that was never
//! given back, and an access to the buffer that its release is not ordered after.

#![cfg(engine_loom)]
#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use loom::thread;
use ringlake_ring::{ReserveError, ring};

#[test]
fn any_of_the_handles_may_be_the_last() {
    loom::model(|| {
        let (mut producer, mut consumer) = ring(32);
        let gauge = producer.gauge();
        let waker = consumer.waker();
        let reader = thread::spawn(move || {
            if let Some(record) = consumer.next() {
                assert_eq!(record, &[7; 8]);
                consumer.release();
            }
            drop(consumer);
            assert!(gauge.used_bytes() <= gauge.capacity());
        });
        let other = thread::spawn(move || waker.wake());
        match producer.try_reserve(8) {
            Ok(mut reservation) => {
                reservation.fill(7);
                reservation.commit(8);
            }
            Err(error) => assert_eq!(error, ReserveError::Abandoned),
        }
        drop(producer);
        other.join().unwrap();
        reader.join().unwrap();
    });
}

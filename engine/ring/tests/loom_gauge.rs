//! A gauge against push and release.
//!
//! A third thread looks at the gauge while a record passes. It may be behind, but it never shows
//! more than was ever committed: a tail older than the head would show as a full ring.

#![cfg(engine_loom)]
#![allow(clippy::unwrap_used)] // A failed expectation is what a test is for.

use loom::thread;
use ringlake_ring::ring;

#[test]
fn the_gauge_shows_no_more_than_was_committed() {
    loom::model(|| {
        let (mut producer, mut consumer) = ring(64);
        let gauge = producer.gauge();
        let looker = thread::spawn(move || {
            for _ in 0..2 {
                let used = gauge.used_bytes();
                assert!(used == 0 || used == 16, "{used} bytes");
            }
        });
        let reader = thread::spawn(move || {
            consumer.next();
            consumer.release();
            consumer
        });
        producer.try_reserve(8).unwrap().commit(8);
        looker.join().unwrap();
        reader.join().unwrap();
    });
}

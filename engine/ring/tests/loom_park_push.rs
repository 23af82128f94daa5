//! Park against push.
//!
//! The consumer sleeps whenever it finds nothing; the producer commits two records. A commit that
//! falls between the consumer's look and its sleep must still end that sleep: there is no clock
//! here, and so a lost wake-up is a deadlock, which loom reports.

#![cfg(engine_loom)]
#![allow(clippy::unwrap_used)] // A failed expectation is what a test is for.

use std::time::Duration;

use loom::thread;
use ringlake_ring::ring;

#[test]
fn no_push_leaves_the_consumer_asleep() {
    loom::model(|| {
        let (mut producer, mut consumer) = ring(64);
        let reader = thread::spawn(move || {
            for byte in 0..2 {
                loop {
                    if let Some(record) = consumer.next() {
                        assert_eq!(record, &[byte; 8]);
                        break;
                    }
                    consumer.park(Duration::MAX);
                }
            }
        });
        for byte in 0..2 {
            let mut reservation = producer.try_reserve(8).unwrap();
            reservation.fill(byte);
            reservation.commit(8);
        }
        // The drop of the producer would end the sleep too and hide a lost wake-up.
        reader.join().unwrap();
        drop(producer);
    });
}

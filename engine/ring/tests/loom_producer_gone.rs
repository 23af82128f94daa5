//! The producer's end against the consumer's read and park.
//!
//! The producer commits one record and goes. The consumer reads, asks whether the producer is gone,
//! sleeps. It must wake up, find the record exactly once, and stop only after that.

#![cfg(engine_loom)]
#![allow(clippy::unwrap_used)] // A failed expectation is what a test is for.

use std::time::Duration;

use loom::thread;
use ringlake_ring::ring;

#[test]
fn the_last_record_is_read_before_the_end_is_seen() {
    loom::model(|| {
        let (mut producer, mut consumer) = ring(64);
        let reader = thread::spawn(move || {
            let mut records = 0;
            loop {
                while consumer.next().is_some() {
                    records += 1;
                }
                if consumer.is_abandoned() && consumer.is_empty() {
                    break;
                }
                consumer.park(Duration::MAX);
            }
            assert_eq!(records, 1);
        });
        producer.try_reserve(8).unwrap().commit(8);
        drop(producer);
        reader.join().unwrap();
    });
}

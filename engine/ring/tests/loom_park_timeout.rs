//! A park whose time is over against push.
//!
//! The consumer announces its sleep and takes the announcement back without having been woken, at
//! the moment at which the producer may just have taken the handle to unpark it. The unpark may
//! come as late as it likes, also into the next park: the record is found, and the park after it
//! still ends.

#![cfg(engine_loom)]
#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use std::time::Duration;

use loom::thread;
use ringlake_ring::ring;

#[test]
fn a_timeout_that_meets_a_push_loses_neither_record_nor_wake_up() {
    loom::model(|| {
        let (mut producer, mut consumer) = ring(64);
        let reader = thread::spawn(move || {
            consumer.park(Duration::ZERO);
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

//! Push against pop.
//!
//! The producer commits two records while the consumer looks three times. Whatever it finds are
//! the first records, whole; what it does not find is there after the producer's end. Loom checks
//! that no byte is read before the commit that publishes it.

#![cfg(engine_loom)]
#![allow(clippy::unwrap_used)] // A failed expectation is what a test is for.

use loom::thread;
use ringlake_ring::ring;

#[test]
fn a_record_is_seen_whole_or_not_at_all() {
    loom::model(|| {
        let (mut producer, mut consumer) = ring(64);
        let reader = thread::spawn(move || {
            let mut seen = Vec::new();
            for _ in 0..3 {
                seen.extend(consumer.next().map(<[u8]>::to_vec));
            }
            (consumer, seen)
        });
        for record in [&b"first"[..], b"the second"] {
            let mut reservation = producer.try_reserve(16).unwrap();
            reservation[..record.len()].copy_from_slice(record);
            reservation.commit(record.len());
        }
        let (mut consumer, mut seen) = reader.join().unwrap();
        while let Some(record) = consumer.next() {
            seen.push(record.to_vec());
        }
        assert_eq!(seen, [&b"first"[..], b"the second"]);
    });
}

//! Park against a waker and a push at once.
//!
//! Two threads have something for the consumer: one a record, one a flag that it announces with a
//! wake. Only one of them can take the sleeper's handle. The consumer must learn of both before it
//! sleeps for good, and what was written before the wake must be visible after the park.

#![cfg(engine_loom)]
#![allow(clippy::unwrap_used)] // A failed expectation is what a test is for.

use std::time::Duration;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use ringlake_ring::ring;

#[test]
fn neither_the_wake_nor_the_push_is_lost() {
    let mut model = loom::model::Builder::new();
    // Three threads that all look for the sleeper: without a bound it would take many minutes.
    model.preemption_bound = Some(4);
    model.check(|| {
        let (mut producer, mut consumer) = ring(64);
        let waker = consumer.waker();
        let flag = Arc::new(AtomicBool::new(false));
        let reader = {
            let flag = Arc::clone(&flag);
            thread::spawn(move || {
                let mut records = 0;
                // Relaxed: the wake is what hands the flag over.
                while records == 0 || !flag.load(Ordering::Relaxed) {
                    while consumer.next().is_some() {
                        records += 1;
                    }
                    if records == 0 || !flag.load(Ordering::Relaxed) {
                        consumer.park(Duration::MAX);
                    }
                }
                assert_eq!(records, 1);
            })
        };
        let other = thread::spawn(move || {
            flag.store(true, Ordering::Relaxed);
            waker.wake();
        });
        producer.try_reserve(8).unwrap().commit(8);
        other.join().unwrap();
        reader.join().unwrap();
        drop(producer);
    });
}

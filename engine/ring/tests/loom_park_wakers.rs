//! Park against two wakers.
//!
//! Each waker counts, without any ordering, and wakes. Their wakes may fall together into one
//! return of park. The consumer that sleeps until both have counted must be able to see both
//! counts after the return that used up both wakes.

#![cfg(engine_loom)]
#![allow(clippy::unwrap_used)] // A failed expectation is what a test is for.

use std::time::Duration;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use ringlake_ring::ring;

#[test]
fn wakes_that_fall_together_hand_over_what_each_waker_wrote() {
    let mut model = loom::model::Builder::new();
    // Three threads that all look for the sleeper: without a bound it would take many minutes.
    model.preemption_bound = Some(4);
    model.check(|| {
        let (producer, mut consumer) = ring(64);
        // One counter a waker: a shared one would order the wakers by itself.
        let counts = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
        let (first, second) = (consumer.waker(), consumer.waker());
        let reader = {
            let counts = Arc::clone(&counts);
            thread::spawn(move || {
                // Relaxed: the wakes are what hands the counts over.
                while counts.iter().any(|count| count.load(Ordering::Relaxed) == 0) {
                    consumer.park(Duration::MAX);
                }
            })
        };
        let other = {
            let counts = Arc::clone(&counts);
            thread::spawn(move || {
                counts[0].store(1, Ordering::Relaxed);
                first.wake();
            })
        };
        counts[1].store(1, Ordering::Relaxed);
        second.wake();
        other.join().unwrap();
        reader.join().unwrap();
        drop(producer);
    });
}

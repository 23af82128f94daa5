//! Park against a waker and the producer's end at once.
//!
//! The consumer sleeps until the producer is gone. A waker and the drop of the producer both look
//! for its handle, and only one of them can take it: when that is the waker, the drop must not find
//! the consumer on its way back to sleep and leave it there.

#![cfg(engine_loom)]
#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use std::time::Duration;

use loom::thread;
use ringlake_ring::ring;

#[test]
fn a_wake_does_not_hide_the_end() {
    let mut model = loom::model::Builder::new();
    // Three threads that all look for the sleeper: without a bound it would take many minutes.
    model.preemption_bound = Some(4);
    model.check(|| {
        let (producer, mut consumer) = ring(64);
        let waker = consumer.waker();
        let reader = thread::spawn(move || {
            while !consumer.is_abandoned() {
                consumer.park(Duration::MAX);
            }
            assert!(consumer.is_empty());
        });
        let other = thread::spawn(move || waker.wake());
        drop(producer);
        other.join().unwrap();
        reader.join().unwrap();
    });
}

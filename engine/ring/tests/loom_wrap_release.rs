//! Wrap-around against release.
//!
//! The tail stands near the end of the buffer and the next record must skip to the start, where
//! the oldest record lies, which the consumer is just reading and releasing. The reservation
//! succeeds only after the release, and then the consumer finds skip and record together. Loom
//! checks that the new bytes are not written before the old ones were read for the last time.

#![cfg(engine_loom)]
#![allow(clippy::unwrap_used)] // A failed expectation is what a test is for.

use loom::thread;
use ringlake_ring::{Producer, ReserveError, ring};

fn try_push(producer: &mut Producer, record: &[u8]) -> Result<(), ReserveError> {
    let mut reservation = producer.try_reserve(record.len())?;
    reservation.copy_from_slice(record);
    reservation.commit(record.len());
    Ok(())
}

#[test]
fn the_start_of_the_buffer_is_written_again_only_after_its_release() {
    loom::model(|| {
        let (mut producer, mut consumer) = ring(64);
        try_push(&mut producer, &[1; 24]).unwrap();
        try_push(&mut producer, &[2; 8]).unwrap();
        let reader = thread::spawn(move || {
            assert_eq!(consumer.next(), Some(&[1; 24][..]));
            consumer.release();
            assert_eq!(consumer.next(), Some(&[2; 8][..]));
            let early = consumer.next().map(<[u8]>::to_vec);
            consumer.release();
            (consumer, early)
        });
        // 16 bytes are left before the end; the record takes 32.
        let mut pushed = false;
        for _ in 0..2 {
            match try_push(&mut producer, &[3; 24]) {
                Ok(()) => {
                    pushed = true;
                    break;
                }
                Err(error) => assert_eq!(error, ReserveError::Full),
            }
        }
        let (mut consumer, early) = reader.join().unwrap();
        let late = consumer.next().map(<[u8]>::to_vec);
        assert_eq!(early.or(late), pushed.then(|| vec![3; 24]));
        assert_eq!(consumer.next(), None);
    });
}

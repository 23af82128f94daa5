//! Behaviour of the ring, by theme: one thread here and in `model`, two in `threads` and
//! `linear`, sleep in `park`. Miri runs the same tests with fewer rounds.

#![allow(clippy::unwrap_used)] // A failed expectation is what a test is for.

mod linear;
mod model;
mod park;
mod threads;

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::{Consumer, Gauge, MAX_CAPACITY, MIN_CAPACITY, Producer, ReserveError, Waker, ring};

/// Bytes of a record's header.
const HEADER: usize = 8;

/// `native` rounds, or `interpreted` ones under Miri.
const fn rounds(native: usize, interpreted: usize) -> usize {
    if cfg!(miri) { interpreted } else { native }
}

/// Commits `record`; panics if there is no room.
fn push(producer: &mut Producer, record: &[u8]) {
    try_push(producer, record).unwrap();
}

fn try_push(producer: &mut Producer, record: &[u8]) -> Result<(), ReserveError> {
    let mut reservation = producer.try_reserve(record.len())?;
    reservation.copy_from_slice(record);
    reservation.commit(record.len());
    Ok(())
}

/// Moves both ends on by `bytes`, a multiple of a header, and leaves the ring empty.
fn advance(producer: &mut Producer, consumer: &mut Consumer, bytes: usize) {
    for _ in 0..bytes / HEADER {
        push(producer, b"");
        assert_eq!(consumer.next(), Some(&b""[..]));
        consumer.release();
    }
}

#[test]
fn records_come_out_whole_and_in_order() {
    let (mut producer, mut consumer) = ring(256);
    assert_eq!(consumer.next(), None);
    push(&mut producer, b"first");
    push(&mut producer, b"the second, longer one");
    assert_eq!(consumer.next(), Some(&b"first"[..]));
    assert_eq!(consumer.next(), Some(&b"the second, longer one"[..]));
    assert_eq!(consumer.next(), None);
    push(&mut producer, b"third");
    assert_eq!(consumer.next(), Some(&b"third"[..]));
    assert_eq!(consumer.next(), None);
}

#[test]
fn a_record_of_length_zero_is_a_record() {
    let (mut producer, mut consumer) = ring(64);
    push(&mut producer, b"");
    push(&mut producer, b"x");
    push(&mut producer, b"");
    assert_eq!(consumer.next(), Some(&b""[..]));
    assert_eq!(consumer.next(), Some(&b"x"[..]));
    assert_eq!(consumer.next(), Some(&b""[..]));
    assert_eq!(consumer.next(), None);
}

#[test]
fn a_commit_shorter_than_the_reservation_gives_the_rest_back() {
    let (mut producer, mut consumer) = ring(64);
    let gauge = producer.gauge();
    let mut reservation = producer.try_reserve(24).unwrap();
    reservation[..3].copy_from_slice(b"abc");
    reservation.commit(3);
    assert_eq!(gauge.used_bytes(), 2 * HEADER);
    assert_eq!(consumer.next(), Some(&b"abc"[..]));
    assert_eq!(consumer.next(), None);
}

#[test]
fn a_commit_longer_than_the_reservation_panics_and_commits_nothing() {
    let (mut producer, mut consumer) = ring(64);
    let reservation = producer.try_reserve(3).unwrap();
    let outcome = catch_unwind(AssertUnwindSafe(|| reservation.commit(4)));
    let message = *outcome.unwrap_err().downcast::<String>().unwrap();
    assert_eq!(message, "a reservation of 3 bytes cannot commit 4");
    assert_eq!(consumer.next(), None);
    push(&mut producer, b"abc");
    assert_eq!(consumer.next(), Some(&b"abc"[..]));
}

#[test]
fn records_that_fill_the_ring_exactly_fit_and_one_byte_more_does_not() {
    let (mut producer, mut consumer) = ring(64);
    let gauge = producer.gauge();
    push(&mut producer, &[1; 24]);
    push(&mut producer, &[2; 16]);
    assert_eq!(gauge.used_bytes(), 56);
    assert_eq!(try_push(&mut producer, b"y"), Err(ReserveError::Full));
    push(&mut producer, b"");
    assert_eq!(gauge.used_bytes(), gauge.capacity());
    assert_eq!(try_push(&mut producer, b""), Err(ReserveError::Full));
    assert_eq!(consumer.next(), Some(&[1; 24][..]));
    assert_eq!(consumer.next(), Some(&[2; 16][..]));
    assert_eq!(consumer.next(), Some(&b""[..]));
    assert_eq!(consumer.next(), None);
}

#[test]
fn a_full_ring_has_room_again_after_release_and_not_before() {
    let (mut producer, mut consumer) = ring(64);
    push(&mut producer, &[1; 24]);
    push(&mut producer, &[2; 24]);
    assert_eq!(try_push(&mut producer, &[3; 24]), Err(ReserveError::Full));
    assert_eq!(consumer.next(), Some(&[1; 24][..]));
    assert_eq!(try_push(&mut producer, &[3; 24]), Err(ReserveError::Full));
    consumer.release();
    push(&mut producer, &[3; 24]);
    assert_eq!(try_push(&mut producer, b""), Err(ReserveError::Full));
    assert_eq!(consumer.next(), Some(&[2; 24][..]));
    assert_eq!(consumer.next(), Some(&[3; 24][..]));
    assert_eq!(consumer.next(), None);
}

#[test]
fn one_release_gives_back_every_record_read() {
    let (mut producer, mut consumer) = ring(256);
    let gauge = producer.gauge();
    for byte in 0..8 {
        push(&mut producer, &[byte; 24]);
    }
    assert_eq!(gauge.used_bytes(), 256);
    for byte in 0..7 {
        assert_eq!(consumer.next(), Some(&[byte; 24][..]));
    }
    assert_eq!(gauge.used_bytes(), 256);
    consumer.release();
    assert_eq!(gauge.used_bytes(), 32);
    consumer.release();
    assert_eq!(gauge.used_bytes(), 32);
}

#[test]
fn a_record_that_does_not_fit_before_the_end_goes_to_the_start_in_one_piece() {
    let (mut producer, mut consumer) = ring(64);
    let gauge = producer.gauge();
    advance(&mut producer, &mut consumer, 40);
    push(&mut producer, &[7; 24]);
    // 24 bytes skipped, 8 of header, 24 of payload.
    assert_eq!(gauge.used_bytes(), 56);
    push(&mut producer, b"");
    assert_eq!(try_push(&mut producer, b""), Err(ReserveError::Full));
    assert_eq!(consumer.next(), Some(&[7; 24][..]));
    assert_eq!(consumer.next(), Some(&b""[..]));
    assert_eq!(consumer.next(), None);
    consumer.release();
    assert_eq!(gauge.used_bytes(), 0);
}

#[test]
fn the_longest_record_fits_an_empty_ring_at_every_position() {
    let largest = if cfg!(miri) { 128 } else { 1024 };
    for capacity in [32, 64, 128, 256, 512, 1024] {
        if capacity > largest {
            continue;
        }
        for offset in (0..capacity).step_by(HEADER) {
            let (mut producer, mut consumer) = ring(capacity);
            advance(&mut producer, &mut consumer, offset);
            let max = producer.max_record();
            assert_eq!(max, capacity / 2 - HEADER);
            let record = vec![0xA5; max];
            push(&mut producer, &record);
            assert_eq!(consumer.next(), Some(&record[..]), "at {offset} of {capacity}");
        }
    }
}

#[test]
fn a_record_above_the_limit_is_refused_with_both_numbers() {
    let (mut producer, mut consumer) = ring(64);
    let error = producer.try_reserve(25).unwrap_err();
    assert_eq!(error, ReserveError::TooLarge { len: 25, max: 24 });
    assert_eq!(error.to_string(), "a record of 25 bytes exceeds the ring's limit of 24 bytes");
    let error = producer.try_reserve(usize::MAX).unwrap_err();
    assert_eq!(error, ReserveError::TooLarge { len: usize::MAX, max: 24 });
    assert_eq!(consumer.next(), None);
}

#[test]
fn an_aborted_reservation_leaves_no_trace() {
    let (mut producer, mut consumer) = ring(64);
    let gauge = producer.gauge();
    // Once where the record would follow, once where it would have to skip to the start.
    for offset in [0, 48] {
        advance(&mut producer, &mut consumer, offset);
        let mut reservation = producer.try_reserve(24).unwrap();
        reservation.fill(0xFF);
        drop(reservation);
        assert_eq!(gauge.used_bytes(), 0);
        assert_eq!(consumer.next(), None);
        push(&mut producer, b"next");
        assert_eq!(consumer.next(), Some(&b"next"[..]));
        assert_eq!(consumer.next(), None);
        consumer.release();
    }
}

#[test]
fn a_panic_in_the_middle_of_a_write_wedges_nobody() {
    let (mut producer, mut consumer) = ring(64);
    push(&mut producer, b"before");
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut reservation = producer.try_reserve(24).unwrap();
        reservation[..4].copy_from_slice(b"half");
        panic!("in the middle of the write");
    }));
    outcome.unwrap_err();
    push(&mut producer, b"after");
    assert_eq!(consumer.next(), Some(&b"before"[..]));
    assert_eq!(consumer.next(), Some(&b"after"[..]));
    assert_eq!(consumer.next(), None);
}

#[test]
fn a_panic_while_reading_counts_the_record_as_read() {
    let (mut producer, mut consumer) = ring(64);
    push(&mut producer, b"poison");
    push(&mut producer, b"after");
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let record = consumer.next().unwrap();
        panic!("cannot digest {} bytes", record.len());
    }));
    outcome.unwrap_err();
    assert_eq!(consumer.next(), Some(&b"after"[..]));
    consumer.release();
    assert_eq!(producer.gauge().used_bytes(), 0);
}

#[test]
fn records_outlive_the_producer_and_then_the_ring_is_over() {
    let (mut producer, mut consumer) = ring(64);
    assert!(!consumer.is_abandoned());
    push(&mut producer, b"last");
    drop(producer);
    assert!(consumer.is_abandoned());
    assert!(!consumer.is_empty());
    assert_eq!(consumer.next(), Some(&b"last"[..]));
    assert!(consumer.is_abandoned() && consumer.is_empty());
    assert_eq!(consumer.next(), None);
}

#[test]
fn a_producer_without_a_consumer_is_told_so() {
    let (mut producer, consumer) = ring(64);
    push(&mut producer, b"unread");
    drop(consumer);
    assert_eq!(try_push(&mut producer, b"more"), Err(ReserveError::Abandoned));
    assert_eq!(
        producer.try_reserve(producer.max_record() + 1).unwrap_err(),
        ReserveError::TooLarge { len: 25, max: 24 },
        "what could never fit is said first"
    );
}

#[test]
fn gauge_and_waker_outlive_both_ends() {
    let (mut producer, consumer) = ring(64);
    let gauge = producer.gauge();
    let waker = consumer.waker();
    push(&mut producer, b"unread");
    drop(consumer);
    drop(producer);
    waker.wake();
    assert_eq!(gauge.used_bytes(), 2 * HEADER);
    assert_eq!(gauge.capacity(), 64);
}

#[test]
fn capacities_outside_the_limits_are_refused_with_the_limits() {
    for capacity in [0, 1, MIN_CAPACITY / 2, MIN_CAPACITY + 8, 3 * 4096, MAX_CAPACITY * 2] {
        let outcome = catch_unwind(|| drop(ring(capacity)));
        let message = *outcome.unwrap_err().downcast::<String>().unwrap();
        assert!(message.contains(&format!("not {capacity}")), "{message}");
        assert!(message.contains(&format!("from {MIN_CAPACITY} to {MAX_CAPACITY}")), "{message}");
    }
}

#[test]
fn the_smallest_ring_works() {
    let (mut producer, mut consumer) = ring(MIN_CAPACITY);
    for round in 0..100_u64 {
        push(&mut producer, &round.to_ne_bytes());
        assert_eq!(consumer.next(), Some(&round.to_ne_bytes()[..]));
        consumer.release();
    }
}

#[test]
fn handles_go_where_their_roles_say() {
    fn sent<T: Send>() {}
    fn shared<T: Send + Sync + Clone>() {}
    sent::<Producer>();
    sent::<Consumer>();
    shared::<Waker>();
    shared::<Gauge>();
}

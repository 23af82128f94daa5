//! Sleep and wake-up. A lost wake-up shows as a park that lasts its whole limit.

use std::thread;
use std::time::{Duration, Instant};

use super::{push, rounds};
use crate::{Consumer, Producer, ring};

/// Longer than any wake-up takes, so that a park that lasts it was not woken.
const LIMIT: Duration = Duration::from_secs(60);

/// A sleep that nobody ends.
const NAP: Duration = Duration::from_millis(50);

/// Parks and fails if nothing but the clock ended it.
pub(super) fn park_until_woken(consumer: &mut Consumer) {
    let start = Instant::now();
    consumer.park(LIMIT);
    assert!(start.elapsed() < LIMIT, "a wake-up was lost");
}

/// Parks until `NAP` is over, whatever ends single parks for no reason; how long that took.
fn nap(consumer: &mut Consumer) -> Duration {
    let start = Instant::now();
    while start.elapsed() < NAP {
        consumer.park(NAP - start.elapsed());
    }
    start.elapsed()
}

fn read(consumer: &mut Consumer) -> u64 {
    loop {
        if let Some(record) = consumer.next() {
            let number = u64::from_ne_bytes(record.try_into().unwrap());
            consumer.release();
            return number;
        }
        park_until_woken(consumer);
    }
}

#[test]
fn park_returns_at_once_when_a_record_is_unread() {
    let (mut producer, mut consumer) = ring(64);
    push(&mut producer, b"unread");
    park_until_woken(&mut consumer);
    park_until_woken(&mut consumer);
}

#[test]
fn park_returns_at_once_when_a_wake_is_pending_and_uses_it_up() {
    let (_producer, mut consumer) = ring(64);
    let waker = consumer.waker();
    waker.wake();
    waker.clone().wake();
    park_until_woken(&mut consumer);
    let start = Instant::now();
    consumer.park(NAP);
    assert!(start.elapsed() >= NAP, "two wakes before one park count as one");
}

#[test]
fn park_returns_at_once_when_the_producer_is_gone() {
    let (producer, mut consumer) = ring(64);
    drop(producer);
    park_until_woken(&mut consumer);
    park_until_woken(&mut consumer);
}

#[test]
fn park_ends_with_its_timeout() {
    let (_producer, mut consumer) = ring(64);
    assert!(nap(&mut consumer) >= NAP);
    consumer.park(Duration::ZERO);
}

/// A push that unparked its thread would leave a token, and the sleep after it would be over at
/// once. A system call on every push is what would make the path slow.
#[test]
fn a_push_to_a_consumer_that_is_awake_unparks_nobody() {
    let (mut producer, mut consumer) = ring(4096);
    for round in 0..100_u64 {
        push(&mut producer, &round.to_ne_bytes());
    }
    for round in 0..100 {
        assert_eq!(read(&mut consumer), round);
    }
    let start = Instant::now();
    thread::park_timeout(NAP);
    assert!(start.elapsed() >= NAP, "the thread held an unpark token");
}

/// Each side sleeps until the other has pushed: every round needs two wake-ups.
#[test]
fn no_wake_up_is_lost_between_two_threads_that_sleep_in_turn() {
    fn echo(mut producer: Producer, mut consumer: Consumer, count: u64) {
        for round in 0..count {
            assert_eq!(read(&mut consumer), round);
            push(&mut producer, &round.to_ne_bytes());
        }
    }
    let count = rounds(50_000, 40) as u64;
    let (mut ping, ping_end) = ring(64);
    let (pong, mut pong_end) = ring(64);
    let other = thread::spawn(move || echo(pong, ping_end, count));
    for round in 0..count {
        push(&mut ping, &round.to_ne_bytes());
        assert_eq!(read(&mut pong_end), round);
    }
    other.join().unwrap();
}

#[test]
fn wakes_from_other_threads_end_parks_like_pushes_do() {
    use std::sync::atomic::{AtomicUsize, Ordering};

    let (producer, mut consumer) = ring(64);
    let (wakers, wakes) = (3, rounds(5_000, 10));
    let sent = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..wakers {
            let waker = consumer.waker();
            scope.spawn(|| {
                let waker = waker;
                for _ in 0..wakes {
                    // Relaxed: the wake itself makes the count visible after the park.
                    sent.fetch_add(1, Ordering::Relaxed);
                    waker.wake();
                }
            });
        }
        // The last wake of all comes after the last count: whoever sleeps with the count
        // incomplete is woken again.
        while sent.load(Ordering::Relaxed) < wakers * wakes {
            park_until_woken(&mut consumer);
        }
    });
    drop(producer);
}

#[test]
fn the_drop_of_the_producer_wakes_a_parked_consumer() {
    for _ in 0..rounds(1_000, 10) {
        let (producer, mut consumer) = ring(64);
        let sleeper = thread::spawn(move || {
            while !consumer.is_abandoned() {
                park_until_woken(&mut consumer);
            }
        });
        drop(producer);
        sleeper.join().unwrap();
    }
}

#[test]
fn a_consumer_that_moved_is_woken_on_its_new_thread() {
    let (mut producer, mut consumer) = ring(64);
    for round in 0..rounds(500, 5) as u64 {
        let sleeper = thread::spawn(move || {
            assert_eq!(read(&mut consumer), round);
            consumer
        });
        push(&mut producer, &round.to_ne_bytes());
        consumer = sleeper.join().unwrap();
    }
}

/// The kernel's account of this thread: less than a tenth of a core over half a second of sleep; who polls takes
/// all of one.
#[test]
#[cfg(all(target_os = "linux", not(miri)))]
fn an_idle_consumer_uses_no_processor_time() {
    fn processor_time() -> Option<Duration> {
        let account = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        Some(Duration::from_nanos(account.split_whitespace().next()?.parse().ok()?))
    }
    let Some(before) = processor_time() else {
        eprintln!("skipped: this kernel keeps no account of single threads");
        return;
    };
    let (_producer, mut consumer) = ring(4096);
    let start = Instant::now();
    for _ in 0..10 {
        nap(&mut consumer);
    }
    let elapsed = start.elapsed();
    let used = processor_time().unwrap() - before;
    assert!(used * 10 < elapsed, "{used:?} of {elapsed:?}");
}

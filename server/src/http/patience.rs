//! Back-pressure: a request that finds the ring full waits a moment before it is refused.
//!
//! A ring is full when the threads behind it get too little of the processor or of the disk. While
//! requests wait the loop leaves the processor to them; a client that is told to come again at once
//! would only cost more of it.
//!
//! **Bounds.** A request waits [`PATIENCE`] at most. Its body counts against what bodies may hold
//! together meanwhile.
//!
//! **Not guaranteed.** The order of those that wait.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::answer::Problem;

/// Longer than a roll holds the flusher up when all is well (a tenth of a second), shorter than
/// clients wait.
const PATIENCE: Duration = Duration::from_millis(500);
/// Between two looks. A ring takes some 100 ms to run empty, and a thousand requests that look this
/// often cost the loop a twentieth of its time.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What `attempt` gives; while the ring is full it is made again when `has_room` says so. What
/// `waiting` gives is kept for as long as that takes.
///
/// # Errors
/// The attempt's: [`Problem::RingFull`] only after [`PATIENCE`].
pub async fn patiently<T, W>(
    mut attempt: impl FnMut() -> Result<T, Problem>,
    has_room: impl Fn() -> bool,
    waiting: impl FnOnce() -> W,
) -> Result<T, Problem> {
    let first = attempt();
    if !matches!(first, Err(Problem::RingFull)) {
        return first;
    }
    let _waiting = waiting();
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        sleep(LOOK_EVERY).await;
        if !has_room() {
            continue;
        }
        let again = attempt();
        if !matches!(again, Err(Problem::RingFull)) {
            return again;
        }
    }
    Err(Problem::RingFull)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn a_request_is_served_once_there_is_room() {
        let looks = Cell::new(0);
        let has_room = || looks.replace(looks.get() + 1) >= 3;
        let attempts = Cell::new(0);
        let attempt = || match attempts.replace(attempts.get() + 1) {
            0 | 1 => Err(Problem::RingFull),
            _ => Ok("served"),
        };
        let waits = Cell::new(0);
        let waiting = || waits.set(waits.get() + 1);
        assert!(matches!(patiently(attempt, has_room, waiting).await, Ok("served")));
        assert_eq!(waits.get(), 1);
        // The first attempt, then one for each look that found room.
        assert_eq!((attempts.get(), looks.get()), (3, 5));
    }

    #[tokio::test]
    async fn a_ring_that_stays_full_refuses_after_a_while() {
        let began = Instant::now();
        let outcome = patiently(|| Err::<(), _>(Problem::RingFull), || true, || {}).await;
        assert!(matches!(outcome, Err(Problem::RingFull)));
        assert!(began.elapsed() >= PATIENCE);
    }

    #[tokio::test]
    async fn every_other_problem_is_the_answer_at_once() {
        let attempts = Cell::new(0);
        let attempt = || {
            attempts.set(attempts.get() + 1);
            Err::<(), _>(Problem::ShuttingDown)
        };
        let outcome = patiently(attempt, || true, || panic!("nobody waits")).await;
        assert!(matches!(outcome, Err(Problem::ShuttingDown)));
        assert_eq!(attempts.get(), 1);
    }
}

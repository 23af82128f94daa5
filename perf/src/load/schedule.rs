//! When requests are due.

use std::time::{Duration, Instant};

use crate::bulk::count_as_f64;

/// How requests follow each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// A connection sends the next one when it has its answer: what a server can take at most.
    Closed,
    /// So many a second at even distances, whatever the server does.
    PerSecond(f64),
}

/// The requests of one run.
#[derive(Debug)]
pub struct Schedule {
    start: Instant,
    length: Duration,
    pace: Pace,
    taken: u64,
}

impl Schedule {
    /// Begins at `start` and has no request that is due `length` later.
    pub fn new(pace: Pace, start: Instant, length: Duration) -> Schedule {
        Schedule { start, length, pace, taken: 0 }
    }

    /// When the next request is to be sent, if there is one.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        let due = match self.pace {
            Pace::Closed => now,
            Pace::PerSecond(rate) => {
                self.start + Duration::from_secs_f64(count_as_f64(self.taken) / rate)
            }
        };
        (due < self.start + self.length).then_some(due)
    }

    /// The request that was due is sent.
    pub fn take(&mut self) {
        self.taken += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_at_even_distances_however_late_they_are_sent() {
        let start = Instant::now();
        let mut schedule = Schedule::new(Pace::PerSecond(4.0), start, Duration::from_secs(1));
        let late = start + Duration::from_secs(9);
        for quarter in 0..4 {
            assert_eq!(schedule.due(late), Some(start + Duration::from_millis(250 * quarter)));
            schedule.take();
        }
        assert_eq!(schedule.due(late), None);
    }

    #[test]
    fn a_closed_loop_sends_until_its_time_is_over() {
        let start = Instant::now();
        let schedule = Schedule::new(Pace::Closed, start, Duration::from_secs(1));
        let soon = start + Duration::from_millis(999);
        assert_eq!(schedule.due(soon), Some(soon));
        assert_eq!(schedule.due(start + Duration::from_secs(1)), None);
    }
}

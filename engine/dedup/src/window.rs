//! The window: which ids are still remembered, in generations that are forgotten whole.
//!
//! **Guarantees.** A generation is forgotten only when all of its ids are older than the window, or
//! when there would be more ids than allowed. [`Window::since`] is honest: every id that was
//! received after it is remembered.
//!
//! **Layout.** A generation takes ids until it has an eighth of all that may be remembered, or
//! until it spans an eighth of the window. A batch of ids is never split: where all ids together
//! are fewer than a batch, the batch is what is remembered.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use crate::Limits;
use crate::table::PLACES;

/// Parts of the window: finer ones would forget more smoothly, and sweep the table more often.
const GENERATIONS: usize = 8;
/// Generations that exist at one time. A clock that jumps could close more of them than it ages.
const GENERATIONS_MAX: usize = 64;

/// The number of a generation; the first one is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Generation(u32);

impl Generation {
    pub(crate) const FIRST: Self = Self(1);

    pub(crate) fn from_number(number: u32) -> Self {
        Self(number)
    }

    pub(crate) fn number(self) -> u32 {
        self.0
    }

    /// What a slot keeps of it.
    pub(crate) fn place(self) -> u32 {
        self.0 % PLACES
    }

    pub(crate) fn before(self) -> Self {
        Self(self.0.wrapping_sub(1))
    }

    pub(crate) fn after(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    /// Whether the generation with this place comes at or after `self`. Places repeat; the sweeps
    /// see to it that no slot keeps one for half a round.
    pub(crate) fn is_at_or_before(self, place: u32) -> bool {
        place.wrapping_sub(self.0) % PLACES < PLACES / 2
    }
}

/// Times are microseconds since 1970, of the moment when an event was received.
#[derive(Debug)]
pub(crate) struct Window {
    ids_max: usize,
    generation_ids: usize,
    span: i64,
    generation_span: i64,
    /// The oldest generation that is remembered, or the next one when none is.
    oldest: Generation,
    generations: VecDeque<Members>,
    /// Ids in all of them.
    ids: usize,
    /// Ids received up to then may have been forgotten.
    forgotten: i64,
}

/// What a generation holds.
#[derive(Debug)]
struct Members {
    ids: usize,
    /// When the first and the last of them were received.
    from: i64,
    to: i64,
}

/// Where a batch of ids went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Admitted {
    pub(crate) generation: Generation,
    /// It is a new one.
    pub(crate) opened: bool,
}

impl Window {
    pub(crate) fn new(limits: &Limits) -> Self {
        let span = i64::try_from(limits.window.as_micros()).unwrap_or(i64::MAX);
        let ids_max = limits.ids.get();
        Self {
            ids_max,
            generation_ids: (ids_max / GENERATIONS).max(1),
            span,
            generation_span: span / 8,
            oldest: Generation::FIRST,
            generations: VecDeque::new(),
            ids: 0,
            forgotten: i64::MIN,
        }
    }

    /// Takes `ids` more ids, received in `times`; forgets what has to go for them.
    pub(crate) fn admit(&mut self, ids: usize, times: &RangeInclusive<i64>) -> Admitted {
        let (from, to) = (*times.start(), *times.end());
        self.expire(to);
        let closed = |current: &Members| {
            current.ids >= self.generation_ids
                || to.saturating_sub(current.from) >= self.generation_span
        };
        let opened = self.generations.back().is_none_or(closed);
        if opened {
            self.generations.push_back(Members { ids: 0, from, to });
        }
        let crowded = |window: &Self| {
            window.ids + ids > window.ids_max || window.generations.len() > GENERATIONS_MAX
        };
        while self.generations.len() > 1 && crowded(self) {
            self.drop_oldest();
        }
        if let Some(current) = self.generations.back_mut() {
            current.ids += ids;
            current.from = current.from.min(from);
            current.to = current.to.max(to);
        }
        self.ids += ids;
        let last = u32::try_from(self.generations.len()).unwrap_or(0).wrapping_sub(1);
        let generation = Generation::from_number(self.oldest.number().wrapping_add(last));
        Admitted { generation, opened }
    }

    /// Forgets the generations that are older than the window as a whole.
    pub(crate) fn expire(&mut self, now: i64) {
        while self.expires_at().is_some_and(|at| now >= at) {
            self.drop_oldest();
        }
    }

    /// When the oldest generation will be older than the window.
    pub(crate) fn expires_at(&self) -> Option<i64> {
        self.generations.front().map(|oldest| oldest.to.saturating_add(self.span))
    }

    /// Ids received up to `time` are not all remembered.
    pub(crate) fn lack(&mut self, time: i64) {
        self.forgotten = self.forgotten.max(time);
    }

    /// The oldest generation that is remembered.
    pub(crate) fn oldest(&self) -> Generation {
        self.oldest
    }

    /// Ids remembered.
    pub(crate) fn ids(&self) -> usize {
        self.ids
    }

    /// Since when every id is remembered; none when there is no id.
    pub(crate) fn since(&self) -> Option<i64> {
        let first = self.generations.iter().map(|generation| generation.from).min()?;
        Some(first.max(self.forgotten))
    }

    fn drop_oldest(&mut self) {
        if let Some(gone) = self.generations.pop_front() {
            self.ids -= gone.ids;
            self.oldest = self.oldest.after();
            self.lack(gone.to);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]

    use std::num::NonZeroUsize;
    use std::time::Duration;

    use super::*;

    fn window(ids: usize, micros: u64) -> Window {
        let ids = NonZeroUsize::new(ids).unwrap();
        Window::new(&Limits { ids, window: Duration::from_micros(micros) })
    }

    #[test]
    fn a_generation_closes_at_an_eighth_of_the_ids() {
        let mut window = window(80, 1_000_000);
        let numbers: Vec<u32> =
            (0..6).map(|_| window.admit(5, &(0..=0)).generation.number()).collect();
        assert_eq!(numbers, [1, 1, 2, 2, 3, 3]);
    }

    #[test]
    fn a_generation_closes_at_an_eighth_of_the_time() {
        let mut window = window(1_000, 80);
        let at = |window: &mut Window, time| window.admit(1, &(time..=time)).generation.number();
        assert_eq!([at(&mut window, 0), at(&mut window, 9)], [1, 1]);
        assert_eq!([at(&mut window, 10), at(&mut window, 19)], [2, 2]);
    }

    #[test]
    fn too_many_ids_push_the_oldest_out() {
        let mut window = window(80, 1_000_000);
        for time in 0..8 {
            window.admit(10, &(time..=time));
        }
        assert_eq!((window.ids(), window.oldest().number()), (80, 1));
        assert_eq!(window.since(), Some(0));
        window.admit(1, &(8..=8));
        assert_eq!((window.ids(), window.oldest().number()), (71, 2));
        assert_eq!(window.since(), Some(1), "an id of time 0 is gone, and of 1 all are there");
    }

    #[test]
    fn what_is_older_than_the_window_is_forgotten_and_not_before() {
        let mut window = window(1_000, 80);
        window.admit(1, &(0..=5));
        window.admit(1, &(20..=20));
        window.expire(84);
        assert_eq!(window.ids(), 2);
        window.expire(85);
        assert_eq!((window.ids(), window.since()), (1, Some(20)));
        window.expire(100);
        assert_eq!((window.ids(), window.since()), (0, None));
        assert_eq!(window.admit(1, &(200..=200)).generation.number(), 3);
    }

    #[test]
    fn a_batch_that_is_more_than_all_ids_is_kept_alone() {
        let mut window = window(8, 1_000);
        window.admit(3, &(0..=0));
        window.admit(100, &(1..=1));
        assert_eq!((window.ids(), window.oldest().number()), (100, 2));
        window.admit(1, &(2..=2));
        assert_eq!((window.ids(), window.oldest().number()), (1, 3));
    }

    #[test]
    fn what_a_start_did_not_read_shortens_the_window() {
        let mut window = window(1_000, 1_000);
        window.lack(50);
        window.admit(1, &(40..=60));
        assert_eq!(window.since(), Some(50));
    }

    #[test]
    fn a_clock_that_jumps_makes_no_more_generations_than_a_slot_can_tell_apart() {
        let mut window = window(1_000_000, 80);
        for jump in 0..10_000 {
            let time = if jump % 2 == 0 { 0 } else { -70 };
            window.admit(1, &(time..=time));
        }
        assert!(window.generations.len() <= GENERATIONS_MAX);
    }
}

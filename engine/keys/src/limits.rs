//! How much a key and a tenant may send: quotas over a sliding window.
//!
//! **Guarantees.** Over any stretch of one window a quota admits at most its number, as far as the
//! estimate below is right; a burst may use all of it at once. What is refused counts for nothing.
//! Taking from a quota is one compare-and-swap loop on one word: no lock, no allocation.
//!
//! **Algorithm.** Sliding window counter: time is cut into windows; what the window before has
//! admitted counts in proportion to how much of it the last window's length still covers. The
//! estimate is exact when the events of a window are spread evenly.
//!
//! **Not guaranteed.** Anything across a restart: the counters begin at nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::record::Record;

/// Bits of a word that hold a count; the others hold the number of its window.
const COUNT_BITS: u32 = 40;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
const WINDOW_MASK: u64 = u64::MAX >> COUNT_BITS;

/// Up to here a quota tells how it stands from the first request on: so few requests in a window that what
/// it costs to tell them is nothing.
const SMALL_QUOTA: u64 = 10_000;

/// Requests and events in one window; 0 is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quota {
    /// Requests.
    pub requests: u64,
    /// Events in them.
    pub events: u64,
}

/// What keys and tenants may do in one window.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Length of the window.
    pub window: Duration,
    /// For each key.
    pub key: Quota,
    /// For each tenant, all of its keys together.
    pub tenant: Quota,
    /// When the first window began.
    pub began: Instant,
}

/// How a quota stands after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The quota.
    pub limit: u64,
    /// What is left of it.
    pub remaining: u64,
    /// Time until the current window ends.
    pub reset: Duration,
}

impl Standing {
    /// Whether a client that may still go on should hear of it: a large quota is no news before half
    /// of it is used. Three more lines in every answer would cost more than all looks at quotas.
    #[must_use]
    pub fn is_news(&self) -> bool {
        self.limit <= SMALL_QUOTA || self.remaining <= self.limit / 2
    }
}

/// A quota that is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exceeded {
    /// How it stands.
    pub standing: Standing,
    /// Whose quota, and of what: for the message.
    pub of: &'static str,
    /// Length of the window.
    pub window: Duration,
    /// After this time the same request may pass, if nobody else takes what becomes free. `None`
    /// when it is larger than the whole quota.
    pub retry_after: Option<Duration>,
}

/// What one key, or one tenant, has used.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    requests: Window,
    events: Window,
}

/// What a key and its tenant have used.
#[derive(Debug, Default, Clone)]
pub(crate) struct Usages {
    pub(crate) key: Arc<Usage>,
    pub(crate) tenant: Arc<Usage>,
}

impl Limits {
    /// Takes one request of `record`'s quotas; gives the tightest one, if there is any.
    ///
    /// # Errors
    /// [`Exceeded`]; nothing has been taken then.
    pub fn take_request(
        &self,
        record: &Record,
        now: Instant,
    ) -> Result<Option<Standing>, Exceeded> {
        let (key, tenant) = (&record.usages.key, &record.usages.tenant);
        let quotas = [
            (self.key.requests, &key.requests, "requests of this key"),
            (self.tenant.requests, &tenant.requests, "requests of this tenant"),
        ];
        self.take(1, quotas, record, now)
    }

    /// Takes `events` events of `record`'s quotas; gives the tightest one, if there is any.
    ///
    /// # Errors
    /// [`Exceeded`]; nothing has been taken then.
    pub fn take_events(
        &self,
        record: &Record,
        events: u64,
        now: Instant,
    ) -> Result<Option<Standing>, Exceeded> {
        let (key, tenant) = (&record.usages.key, &record.usages.tenant);
        let quotas = [
            (self.key.events, &key.events, "events of this key"),
            (self.tenant.events, &tenant.events, "events of this tenant"),
        ];
        self.take(events, quotas, record, now)
    }

    /// How the tightest quota of events stands, if there is any.
    #[must_use]
    pub fn of_events(&self, record: &Record, now: Instant) -> Option<Standing> {
        if self.key.events == 0 && self.tenant.events == 0 {
            return None;
        }
        // To take nothing is to look.
        self.take_events(record, 0, now).ok().flatten()
    }

    fn take(
        &self,
        amount: u64,
        quotas: [(u64, &Window, &'static str); 2],
        record: &Record,
        now: Instant,
    ) -> Result<Option<Standing>, Exceeded> {
        let moment = Moment::of(now.saturating_duration_since(self.began), self.window);
        // An admin key has no tenant whose quota it could use up.
        let count = if record.is_of_tenant() { 2 } else { 1 };
        let mut tightest: Option<Standing> = None;
        for (index, (limit, window, of)) in quotas.iter().take(count).enumerate() {
            if *limit == 0 {
                continue;
            }
            match window.take(amount, *limit, moment) {
                Ok(used) => {
                    let standing = moment.standing(*limit, used);
                    if tightest.is_none_or(|other| standing.remaining < other.remaining) {
                        tightest = Some(standing);
                    }
                }
                Err(used) => {
                    for (_, window, _) in quotas.iter().take(index).filter(|quota| quota.0 > 0) {
                        window.give_back(amount, moment);
                    }
                    let retry_after = window.wait(amount, *limit, moment);
                    let standing = moment.standing(*limit, used);
                    return Err(Exceeded { standing, of, window: self.window, retry_after });
                }
            }
        }
        Ok(tightest)
    }
}

/// A moment as the windows see it. Times are nanoseconds in 64 bits, which are centuries: they divide
/// far faster than `Duration` does.
#[derive(Debug, Clone, Copy)]
struct Moment {
    /// The number of the current window.
    window: u64,
    /// Time until it ends.
    left: u64,
    /// Its length.
    length: u64,
}

impl Moment {
    fn of(elapsed: Duration, length: Duration) -> Self {
        let length = nanos(length.max(Duration::from_millis(1)));
        let elapsed = nanos(elapsed);
        Self {
            // From 2 on: a fresh counter says 0, which is then no window that still counts.
            window: (elapsed / length + 2) & WINDOW_MASK,
            left: length - elapsed % length,
            length,
        }
    }

    fn standing(&self, limit: u64, used: u64) -> Standing {
        let remaining = limit.saturating_sub(used);
        Standing { limit, remaining, reset: Duration::from_nanos(self.left) }
    }

    /// How much of `count`, admitted in the window before, still counts; rounded up.
    fn carried(&self, count: u64) -> u64 {
        if count == 0 { 0 } else { share(count, self.left, self.length) }
    }
}

fn nanos(time: Duration) -> u64 {
    time.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(time.subsec_nanos()))
}

/// `part / whole` of `of`, rounded up. A `whole` of 0 counts as 1.
fn share(of: u64, part: u64, whole: u64) -> u64 {
    let whole = whole.max(1);
    // Nearly always; the other way costs ten times as much.
    if let Some(product) = of.checked_mul(part) {
        return product.div_ceil(whole);
    }
    let product = u128::from(of) * u128::from(part);
    u64::try_from(product.div_ceil(u128::from(whole))).unwrap_or(u64::MAX)
}

/// Counts of the current window and of the one before, each in the word of its parity.
#[derive(Debug, Default)]
struct Window([AtomicU64; 2]);

impl Window {
    /// Takes `amount` if `limit` admits it; gives how much is used then, or is used now.
    fn take(&self, amount: u64, limit: u64, moment: Moment) -> Result<u64, u64> {
        let carried = moment.carried(self.count(moment.window.wrapping_sub(1)));
        let mut used = 0;
        // Relaxed: the counter is all there is; nothing is handed over with it.
        let taken =
            self.word(moment.window).fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
                let count = if word >> COUNT_BITS == moment.window { word & COUNT_MASK } else { 0 };
                used = carried.saturating_add(count);
                let fits = used.saturating_add(amount) <= limit && count + amount <= COUNT_MASK;
                fits.then(|| moment.window << COUNT_BITS | (count + amount))
            });
        taken.map(|_| used + amount).map_err(|_| used)
    }

    fn give_back(&self, amount: u64, moment: Moment) {
        // Relaxed: as above. In another window there is nothing to give back.
        let _ =
            self.word(moment.window).fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
                let is_current = word >> COUNT_BITS == moment.window;
                (is_current && word & COUNT_MASK >= amount).then(|| word - amount)
            });
    }

    /// Time until `amount` fits, when nobody else takes anything.
    fn wait(&self, amount: u64, limit: u64, moment: Moment) -> Option<Duration> {
        let free = limit.checked_sub(amount)?;
        let current = self.count(moment.window);
        Some(Duration::from_nanos(if current > free {
            // Only in the next window, when enough of this one no longer counts.
            moment.left.saturating_add(share(moment.length, current - free, current))
        } else {
            let before = self.count(moment.window.wrapping_sub(1));
            let surplus = moment.carried(before).saturating_sub(free - current);
            share(moment.length, surplus, before).min(moment.left)
        }))
    }

    fn count(&self, window: u64) -> u64 {
        // Relaxed: as above.
        let word = self.word(window).load(Ordering::Relaxed);
        if word >> COUNT_BITS == window & WINDOW_MASK { word & COUNT_MASK } else { 0 }
    }

    fn word(&self, window: u64) -> &AtomicU64 {
        &self.0[usize::from(window % 2 == 1)]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);

    fn at(millis: u64) -> Moment {
        Moment::of(Duration::from_millis(millis), WINDOW)
    }

    #[test]
    fn a_burst_may_use_all_of_a_window_and_then_has_to_wait() {
        let window = Window::default();
        for used in 1..=100 {
            assert_eq!(window.take(1, 100, at(3_000)), Ok(used));
        }
        assert_eq!(window.take(1, 100, at(3_000)), Err(100));
        // One hundredth of the window after the end of this one.
        assert_eq!(window.wait(1, 100, at(3_000)), Some(Duration::from_millis(7_100)));
        assert_eq!(window.take(1, 100, at(10_099)), Err(100));
        assert_eq!(window.take(1, 100, at(10_100)), Ok(100));
        assert_eq!(window.wait(2, 100, at(10_100)), Some(Duration::from_millis(200)));
        assert_eq!(window.take(50, 100, at(15_100)), Ok(100));
        assert_eq!(window.take(1, 100, at(40_000)), Ok(1));
        assert_eq!(window.take(101, 100, at(60_000)), Err(0));
        assert_eq!(window.wait(101, 100, at(60_000)), None);
    }

    #[test]
    fn a_large_quota_is_news_once_half_of_it_is_used() {
        let standing = |limit, remaining| Standing { limit, remaining, reset: WINDOW };
        assert!(standing(5, 4).is_news() && standing(10_000, 9_999).is_news());
        assert!(!standing(10_001, 10_000).is_news() && !standing(1_000_000, 500_001).is_news());
        assert!(standing(1_000_000, 500_000).is_news() && standing(1_000_000, 0).is_news());
    }

    #[test]
    fn what_is_given_back_may_be_taken_again() {
        let window = Window::default();
        assert_eq!(window.take(100, 100, at(0)), Ok(100));
        window.give_back(40, at(0));
        assert_eq!(window.take(41, 100, at(0)), Err(60));
        assert_eq!(window.take(40, 100, at(0)), Ok(100));
        window.give_back(40, at(10_000));
        assert_eq!(window.take(1, 100, at(10_000)), Err(100));
    }

    #[test]
    fn threads_together_take_what_is_there_and_no_more() {
        let window = Window::default();
        let taken: usize = std::thread::scope(|scope| {
            let takers = (0..4).map(|_| {
                scope.spawn(|| (0..1_000).filter(|_| window.take(1, 1_500, at(0)).is_ok()).count())
            });
            let takers: Vec<_> = takers.collect();
            takers.into_iter().map(|taker| taker.join().unwrap()).sum()
        });
        assert_eq!(taken, 1_500);
    }

    proptest! {
        /// Against a list of everything admitted: never more than twice the limit in any stretch of
        /// one window (the estimate's bound for events that come all at the end of one), never more
        /// than the limit inside one window, and a wait that is enough.
        #[test]
        fn no_stretch_of_a_window_gets_more_than_its_estimate(
            steps in proptest::collection::vec((0_u64..4_000, 1_u64..40), 1..200),
        ) {
            let (window, limit) = (Window::default(), 100);
            let mut now = 0;
            let mut admitted: VecDeque<(u64, u64)> = VecDeque::new();
            for (step, amount) in steps {
                now += step;
                match window.take(amount, limit, at(now)) {
                    Ok(used) => {
                        prop_assert!(used <= limit);
                        admitted.push_back((now, amount));
                    }
                    Err(_) => {
                        let wait = window.wait(amount, limit, at(now)).unwrap();
                        prop_assert!(wait <= 2 * WINDOW);
                        let then = now + u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap();
                        let copy = Window([
                            AtomicU64::new(window.0[0].load(Ordering::Relaxed)),
                            AtomicU64::new(window.0[1].load(Ordering::Relaxed)),
                        ]);
                        prop_assert!(copy.take(amount, limit, at(then)).is_ok(), "{wait:?}");
                    }
                }
                let within = |from: u64| {
                    let inside = admitted.iter().filter(|(time, _)| *time >= from);
                    inside.map(|(_, amount)| amount).sum::<u64>()
                };
                prop_assert!(within(now / 10_000 * 10_000) <= limit);
                prop_assert!(within(now.saturating_sub(9_999)) < 2 * limit);
            }
        }
    }
}

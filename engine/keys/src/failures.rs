//! How many wrong keys an address has made us hash in this minute, and how many keys of it are being
//! looked at.
//!
//! **Guarantees.** Both together stay within the limit, so that one address cannot take all places in
//! front of the hashes; a key that turns out to be good, or that nobody waits for any more, counts only
//! while it is looked at.
//!
//! **Limits.** A fixed table of counters: addresses that share one share its limit, which is rare
//! with [`COUNTERS`] of them. An address counts as [`network`] says.
//!
//! **Not guaranteed.** Exactness at the change of a minute: a few more may pass.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::check::Refused;

/// 32 KiB of counters.
const COUNTERS: usize = 4_096;
/// What a limit counts for.
const WINDOW: Duration = Duration::from_secs(60);

pub(crate) struct Failures {
    /// Keyed by chance, so that nobody can choose with whom to share a counter.
    hasher: RandomState,
    began: Instant,
    limit: u16,
    counters: Box<[AtomicU64]>,
}

/// What is known of an address: 32 bits of the minute that `wrong` counts in, 16 bits each for keys that
/// are looked at and for wrong ones.
#[derive(Debug, Clone, Copy)]
struct Counts {
    minute: u32,
    looked_at: u16,
    wrong: u16,
}

/// A key that is being looked at, until this is dropped.
pub(crate) struct Look<'a> {
    failures: &'a Failures,
    counter: &'a AtomicU64,
    is_wrong: bool,
}

impl Failures {
    pub(crate) fn new(limit: u16) -> Self {
        let counters = (0..COUNTERS).map(|_| AtomicU64::new(0)).collect();
        Self { hasher: RandomState::new(), began: Instant::now(), limit, counters }
    }

    /// Begins to look at a key of `address`.
    ///
    /// # Errors
    /// [`Refused::TooMany`] when wrong ones have used the minute up, [`Refused::Busy`] when those that
    /// are looked at could.
    pub(crate) fn look(&self, address: IpAddr, now: Instant) -> Result<Look<'_>, Refused> {
        let (minute, into) = self.minute(now);
        let counter = self.counter(address);
        let mut refused = Refused::Busy;
        // Relaxed, both: the counter is all there is.
        let begun = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |packed| {
            let counts = Counts::of(packed, minute);
            if counts.wrong >= self.limit {
                refused = Refused::TooMany(WINDOW.saturating_sub(into));
                return None;
            }
            if counts.wrong + counts.looked_at >= self.limit {
                refused = Refused::Busy;
                return None;
            }
            Some(Counts { looked_at: counts.looked_at + 1, ..counts }.packed())
        });
        match begun {
            Ok(_) => Ok(Look { failures: self, counter, is_wrong: false }),
            Err(_) => Err(refused),
        }
    }

    /// The minute since the start (and one, so that none is zero), and the time into it.
    fn minute(&self, now: Instant) -> (u32, Duration) {
        let elapsed = now.saturating_duration_since(self.began);
        let minutes = elapsed.as_secs() / WINDOW.as_secs();
        let into = elapsed.saturating_sub(Duration::from_secs(minutes * WINDOW.as_secs()));
        (u32::try_from(minutes + 1).unwrap_or(u32::MAX), into)
    }

    fn counter(&self, address: IpAddr) -> &AtomicU64 {
        let hash = self.hasher.hash_one(network(address)) % COUNTERS as u64;
        &self.counters[usize::try_from(hash).unwrap_or(0)]
    }
}

impl Look<'_> {
    /// The key was hashed, and is wrong.
    pub(crate) fn was_wrong(mut self) {
        self.is_wrong = true;
    }
}

impl Drop for Look<'_> {
    fn drop(&mut self) {
        let (minute, _) = self.failures.minute(Instant::now());
        // Relaxed, both: as in `Failures::look`.
        let _ = self.counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |packed| {
            let counts = Counts::of(packed, minute);
            let wrong = counts.wrong.saturating_add(u16::from(self.is_wrong));
            let looked_at = counts.looked_at.saturating_sub(1);
            Some(Counts { looked_at, wrong, ..counts }.packed())
        });
    }
}

impl Counts {
    /// Wrong keys of another minute than `minute` do not count any more.
    fn of(packed: u64, minute: u32) -> Self {
        let part = |shift: u32| u16::try_from(packed >> shift & 0xffff).unwrap_or(u16::MAX);
        let wrong = if packed >> 32 == u64::from(minute) { part(0) } else { 0 };
        Self { minute, looked_at: part(16), wrong }
    }

    fn packed(self) -> u64 {
        u64::from(self.minute) << 32 | u64::from(self.looked_at) << 16 | u64::from(self.wrong)
    }
}

/// What limits per address count: an IPv4 address itself, and the /64 of an IPv6 one, which belongs
/// to one client as a rule.
#[must_use]
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_so_many_a_minute_and_then_waits_for_the_next() {
        let failures = Failures::new(3);
        let (address, now) = (address("192.0.2.1"), Instant::now());
        (0..3).for_each(|_| failures.look(address, now).unwrap().was_wrong());
        match failures.look(address, now) {
            Err(Refused::TooMany(wait)) => assert!(wait <= WINDOW && wait > WINDOW / 2, "{wait:?}"),
            _ => panic!("the fourth is too many"),
        }
        assert!(failures.look(address, now + WINDOW).is_ok());
    }

    #[test]
    fn good_keys_count_while_they_are_looked_at_and_not_afterwards() {
        let failures = Failures::new(3);
        let (address, now) = (address("192.0.2.1"), Instant::now());
        failures.look(address, now).unwrap().was_wrong();
        let looks = [failures.look(address, now).unwrap(), failures.look(address, now).unwrap()];
        assert!(matches!(failures.look(address, now), Err(Refused::Busy)));
        // Also in the next minute: two are under way still, and one more may be.
        let third = failures.look(address, now + WINDOW).unwrap();
        assert!(matches!(failures.look(address, now + WINDOW), Err(Refused::Busy)));
        drop(looks);
        drop(third);
        for _ in 0..100 {
            drop(failures.look(address, now).unwrap());
        }
    }

    #[test]
    fn one_client_is_one_network_in_ipv6() {
        let failures = Failures::new(1);
        let now = Instant::now();
        failures.look(address("2001:db8:1:2::1"), now).unwrap().was_wrong();
        assert!(failures.look(address("2001:db8:1:2:ffff::9"), now).is_err());
        // One in four thousand pairs shares a counter; three in a row do not.
        let others = ["2001:db8:1:3::1", "2001:db8:1:4::1", "192.0.2.7"];
        assert!(others.iter().any(|one| failures.look(address(one), now).is_ok()));
    }
}

//! How many wrong keys an address has made us hash in this minute.
//!
//! **Limits.** A fixed table of counters: addresses that share one share its limit, which is rare
//! with [`COUNTERS`] of them. An address counts as [`network`] says.
//!
//! **Not guaranteed.** Exactness at the change of a minute: a few more may pass.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// 32 KiB of counters.
const COUNTERS: usize = 4_096;
/// What a limit counts for.
const WINDOW: Duration = Duration::from_secs(60);

pub(crate) struct Failures {
    /// Keyed by chance, so that nobody can choose with whom to share a counter.
    hasher: RandomState,
    began: Instant,
    limit: u32,
    /// The minute in the upper half, the count in the lower one.
    counters: Box<[AtomicU64]>,
}

impl Failures {
    pub(crate) fn new(limit: u32) -> Self {
        let counters = (0..COUNTERS).map(|_| AtomicU64::new(0)).collect();
        Self { hasher: RandomState::new(), began: Instant::now(), limit, counters }
    }

    /// Counts one more for `address`, before it is known to be wrong.
    ///
    /// # Errors
    /// The time until the next one may be tried.
    pub(crate) fn charge(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let (minute, into) = self.minute(now);
        // Relaxed: the counter is all there is.
        let counted =
            self.counter(address).fetch_update(Ordering::Relaxed, Ordering::Relaxed, |packed| {
                match packed >> 32 == minute {
                    true if packed & 0xffff_ffff >= u64::from(self.limit) => None,
                    true => Some(packed + 1),
                    false => Some(minute << 32 | 1),
                }
            });
        counted.map(|_| ()).map_err(|_| WINDOW.saturating_sub(into))
    }

    /// Takes a charge back: the key was good, or nobody looked at it.
    pub(crate) fn refund(&self, address: IpAddr, now: Instant) {
        let (minute, _) = self.minute(now);
        // Relaxed: as above. In another minute there is nothing to take back.
        let _ =
            self.counter(address).fetch_update(Ordering::Relaxed, Ordering::Relaxed, |packed| {
                (packed >> 32 == minute && packed & 0xffff_ffff > 0).then(|| packed - 1)
            });
    }

    /// The minute since the start (and one, so that none is zero), and the time into it.
    fn minute(&self, now: Instant) -> (u64, Duration) {
        let elapsed = now.saturating_duration_since(self.began);
        let minutes = elapsed.as_secs() / WINDOW.as_secs();
        let into = elapsed.saturating_sub(Duration::from_secs(minutes * WINDOW.as_secs()));
        (minutes + 1, into)
    }

    fn counter(&self, address: IpAddr) -> &AtomicU64 {
        let hash = self.hasher.hash_one(network(address)) % COUNTERS as u64;
        &self.counters[usize::try_from(hash).unwrap_or(0)]
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

    #[test]
    fn an_address_has_so_many_a_minute_and_then_waits_for_the_next() {
        let failures = Failures::new(3);
        let (address, now) = ("192.0.2.1".parse().unwrap(), Instant::now());
        (0..3).for_each(|_| failures.charge(address, now).unwrap());
        let wait = failures.charge(address, now).unwrap_err();
        assert!(wait <= WINDOW && wait > WINDOW / 2, "{wait:?}");
        failures.refund(address, now);
        failures.charge(address, now).unwrap();
        failures.charge(address, now + WINDOW).unwrap();
        // A refund of the minute before is none of this one.
        (0..2).for_each(|_| failures.charge(address, now + WINDOW).unwrap());
        assert!(failures.charge(address, now + WINDOW).is_err());
    }

    #[test]
    fn one_client_is_one_network_in_ipv6() {
        let failures = Failures::new(1);
        let now = Instant::now();
        failures.charge("2001:db8:1:2::1".parse().unwrap(), now).unwrap();
        assert!(failures.charge("2001:db8:1:2:ffff::9".parse().unwrap(), now).is_err());
        // One in four thousand pairs shares a counter; three in a row do not.
        let others = ["2001:db8:1:3::1", "2001:db8:1:4::1", "192.0.2.7"];
        assert!(others.iter().any(|one| failures.charge(one.parse().unwrap(), now).is_ok()));
    }
}

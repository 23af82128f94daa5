//! Counting every event exactly once: received = stored + duplicate + refused + in flight.
//!
//! **Guarantees.** The sum holds at every look: the parts that end an event's way are read before
//! the part that begins it, and each writer counts the beginning before the end can happen.
//!
//! **Roles.** A shard's [`Tally`] is written by two threads, each its own fields: the serving
//! loop counts what it receives and refuses, the shard what it stores, knows or loses. Nobody needs a
//! read-modify-write that another thread could contend for; the fields of the two sides are on
//! cache lines of their own.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use serde::Serialize;

/// Why an event was not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The event or its request is not what the contract asks for.
    Invalid,
    /// An event, a body or a request is above its size limit.
    TooLarge,
    /// The key may not do this.
    Forbidden,
    /// The key or its tenant had used up its quota.
    RateLimited,
    /// The shard's ring had no room.
    RingFull,
    /// The engine was replaying its log, or stopping.
    NotReady,
    /// The log could not be written.
    NotDurable,
    /// A disk had less free space than the floor.
    DiskFull,
    /// The log was at its cap.
    LogFull,
    /// The hot table or the lake took nothing, and all room for what is accepted was used up.
    Backlog,
}

impl Refusal {
    /// All reasons, in the order of their counters.
    pub const ALL: [Self; 10] = [
        Self::Invalid,
        Self::TooLarge,
        Self::Forbidden,
        Self::RateLimited,
        Self::RingFull,
        Self::NotReady,
        Self::NotDurable,
        Self::DiskFull,
        Self::LogFull,
        Self::Backlog,
    ];

    /// The reason's name in metrics and status.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::TooLarge => "too_large",
            Self::Forbidden => "forbidden",
            Self::RateLimited => "rate_limited",
            Self::RingFull => "ring_full",
            Self::NotReady => "not_ready",
            Self::NotDurable => "not_durable",
            Self::DiskFull => "disk_full",
            Self::LogFull => "log_full",
            Self::Backlog => "backlog",
        }
    }
}

/// The counters of one shard and its serving loop.
#[derive(Debug, Default)]
pub struct Tally {
    front: CachePadded<Front>,
    back: CachePadded<Back>,
}

/// Written by the serving loop.
#[derive(Debug, Default)]
struct Front {
    received: AtomicU64,
    promised: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
}

/// Written by the shard.
#[derive(Debug, Default)]
struct Back {
    stored: AtomicU64,
    duplicate: AtomicU64,
    not_durable: AtomicU64,
}

impl Tally {
    /// Counts `events` as received. Only the serving loop of this shard calls it, before it
    /// commits them to the ring or refuses them.
    pub fn receive(&self, events: usize) {
        add(&self.front.received, events);
    }

    /// Counts `events`, received before, as refused. Only the serving loop calls it.
    pub fn refuse(&self, reason: Refusal, events: usize) {
        add(&self.front.refused[reason as usize], events);
    }

    /// Counts `events`, committed to the ring, whose sender is told "accepted" before they are
    /// durable. Only the serving loop calls it.
    pub fn promise(&self, events: usize) {
        add(&self.front.promised, events);
    }

    /// Whether no event can have been lost after its sender was told "accepted". Call it when both
    /// sides have ended.
    pub(crate) fn kept_promises(&self) -> bool {
        // Acquire: pairs with the Release stores in `add`.
        let read = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        read(&self.back.not_durable) == 0 || read(&self.front.promised) == 0
    }

    /// Counts `events` as durable. Only the shard calls it.
    pub(crate) fn store(&self, events: usize) {
        add(&self.back.stored, events);
    }

    /// Counts `events` as known before. Only the shard calls it, once what they repeat is durable.
    pub(crate) fn repeat(&self, events: usize) {
        add(&self.back.duplicate, events);
    }

    /// Counts `events` as lost with a failed batch. Only the shard calls it.
    pub(crate) fn lose(&self, events: usize) {
        add(&self.back.not_durable, events);
    }
}

/// A single writer needs no read-modify-write.
fn add(counter: &AtomicU64, events: usize) {
    // Relaxed: this thread is the only writer of the counter.
    let next = counter.load(Ordering::Relaxed) + events as u64;
    // Release: pairs with the Acquire loads in `Accounting::of`; whoever sees an event's end also
    // sees its beginning, which this thread counted, or saw counted through the ring, before.
    counter.store(next, Ordering::Release);
}

/// One look at all counters. Numbers are events since the start of the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Accounting {
    /// Events that reached the server, good or bad.
    pub received: u64,
    /// Events that are durable.
    pub stored: u64,
    /// Events that were known already.
    pub duplicate: u64,
    /// Events that were refused, by reason.
    pub refused: Refused,
    /// Events on their way: accepted into a ring, not yet durable.
    pub in_flight: u64,
}

/// Refused events by reason; see [`Refusal`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the fields are the variants of Refusal")]
pub struct Refused {
    pub invalid: u64,
    pub too_large: u64,
    pub forbidden: u64,
    pub rate_limited: u64,
    pub ring_full: u64,
    pub not_ready: u64,
    pub not_durable: u64,
    pub disk_full: u64,
    pub log_full: u64,
    pub backlog: u64,
}

impl Refused {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        Refusal::ALL.into_iter().map(|reason| self.of(reason)).sum()
    }

    /// Those refused for `reason`.
    #[must_use]
    pub fn of(&self, reason: Refusal) -> u64 {
        match reason {
            Refusal::Invalid => self.invalid,
            Refusal::TooLarge => self.too_large,
            Refusal::Forbidden => self.forbidden,
            Refusal::RateLimited => self.rate_limited,
            Refusal::RingFull => self.ring_full,
            Refusal::NotReady => self.not_ready,
            Refusal::NotDurable => self.not_durable,
            Refusal::DiskFull => self.disk_full,
            Refusal::LogFull => self.log_full,
            Refusal::Backlog => self.backlog,
        }
    }
}

impl Accounting {
    /// Looks at all tallies.
    #[must_use]
    pub fn of<'a>(tallies: impl Iterator<Item = &'a Tally> + Clone) -> Self {
        // Acquire: pairs with the Release stores in `add`. Ends are read before beginnings, so
        // that no event is seen to end before it began and `in_flight` is never negative.
        let read = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        let stored = tallies.clone().map(|tally| read(&tally.back.stored)).sum();
        let duplicate = tallies.clone().map(|tally| read(&tally.back.duplicate)).sum();
        let lost: u64 = tallies.clone().map(|tally| read(&tally.back.not_durable)).sum();
        let sum = |reason: Refusal| -> u64 {
            tallies.clone().map(|tally| read(&tally.front.refused[reason as usize])).sum()
        };
        let refused = Refused {
            invalid: sum(Refusal::Invalid),
            too_large: sum(Refusal::TooLarge),
            forbidden: sum(Refusal::Forbidden),
            rate_limited: sum(Refusal::RateLimited),
            ring_full: sum(Refusal::RingFull),
            not_ready: sum(Refusal::NotReady),
            not_durable: sum(Refusal::NotDurable) + lost,
            disk_full: sum(Refusal::DiskFull),
            log_full: sum(Refusal::LogFull),
            backlog: sum(Refusal::Backlog),
        };
        let received = tallies.map(|tally| read(&tally.front.received)).sum();
        let ended: u64 = stored + duplicate + refused.total();
        Self { received, stored, duplicate, refused, in_flight: received - ended }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_in_exactly_one_place() {
        let tallies = [Tally::default(), Tally::default()];
        tallies[0].receive(10);
        tallies[0].refuse(Refusal::Invalid, 3);
        tallies[0].store(4);
        tallies[0].repeat(1);
        tallies[1].receive(4);
        tallies[1].lose(4);
        let accounting = Accounting::of(tallies.iter());
        assert_eq!(accounting.received, 14);
        assert_eq!((accounting.stored, accounting.duplicate), (4, 1));
        assert_eq!(accounting.refused.invalid, 3);
        assert_eq!(accounting.refused.not_durable, 4);
        assert_eq!(accounting.in_flight, 2);
    }

    #[test]
    fn the_sum_holds_at_every_look_while_both_sides_count() {
        let tally = std::sync::Arc::new(Tally::default());
        let (to_shard, from_loop) = std::sync::mpsc::channel::<usize>();
        let front = std::sync::Arc::clone(&tally);
        let back = std::sync::Arc::clone(&tally);
        let serving = std::thread::spawn(move || {
            for round in 0..20_000 {
                front.receive(2);
                front.refuse(Refusal::RingFull, 1);
                // Nobody listens any more only if the other thread panicked.
                let _ = to_shard.send(round);
            }
        });
        let shard = std::thread::spawn(move || {
            from_loop
                .iter()
                .for_each(|round| if round % 2 == 0 { back.store(1) } else { back.repeat(1) });
        });
        while !shard.is_finished() {
            let look = Accounting::of(std::iter::once(&*tally));
            assert_eq!(
                look.received,
                look.stored + look.duplicate + look.refused.total() + look.in_flight
            );
            assert!(look.in_flight <= look.received);
        }
        assert!(serving.join().is_ok());
        assert_eq!(Accounting::of(std::iter::once(&*tally)).in_flight, 0);
    }
}

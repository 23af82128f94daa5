//! The oracle: compares what was sent and what became of it with what is there.
//!
//! **Guarantees.** Every event that is there is counted against the request that it belongs to;
//! every request that was sent is looked at. What is found wrong names the event.
//!
//! **What must hold**
//!
//! | fate of a request | its events |
//! |---|---|
//! | [`Fate::Stored`] | each is there once |
//! | [`Fate::Memory`] | nothing is judged before the process has ended: see [`Fate::after_end`] |
//! | [`Fate::Either`] | all are there once, or none is |
//! | [`Fate::Absent`] | none is there |
//!
//! What has been seen after a restart stays: [`settle`] turns "either" into "stored" or "absent",
//! and the next looks hold the server to it.

use std::fmt;

use super::event::{EventId, RequestId};
use super::plan::End;

/// What is known of a request, from least to most: what is learnt from a later sending only ever
/// adds to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// Refused, or never sent to its end: it must have left nothing.
    Absent,
    /// It got no answer.
    Either,
    /// Acknowledged at `ack=memory`.
    Memory,
    /// Acknowledged at `ack=disk`, or seen after a restart.
    Stored,
}

impl Fate {
    /// What is left of it when the process has ended: memory does not survive a kill.
    #[must_use]
    pub fn after_end(self, end: End) -> Fate {
        match (self, end) {
            (Fate::Memory, End::Kill) => Fate::Either,
            (Fate::Memory, End::Terminate) => Fate::Stored,
            (other, _) => other,
        }
    }
}

/// A request that was sent, once or several times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Which one.
    pub id: RequestId,
    /// Its events.
    pub events: u32,
    /// What is known of it.
    pub fate: Fate,
}

/// Something that must not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Acknowledged, and not there.
    Lost(EventId),
    /// There this often.
    Doubled(EventId, usize),
    /// Of a request without an answer only so many events are there.
    Torn(RequestId, usize, u32),
    /// Of a request that was refused, cut off, or found missing after an earlier restart.
    Unwanted(EventId),
    /// Never sent.
    Invented(EventId),
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Lost(id) => write!(formatter, "{id} was acknowledged and is not there"),
            Violation::Doubled(id, copies) => write!(formatter, "{id} is there {copies} times"),
            Violation::Torn(id, there, events) => {
                write!(formatter, "{there} of the {events} events of request {id} are there")
            }
            Violation::Unwanted(id) => {
                write!(formatter, "{id} was refused, cut off or gone before, and is there")
            }
            Violation::Invented(id) => write!(formatter, "{id} was never sent and is there"),
        }
    }
}

/// What is there: the ids of all stored events, in order.
#[derive(Debug, Default)]
pub struct Found(Vec<EventId>);

impl FromIterator<EventId> for Found {
    fn from_iter<I: IntoIterator<Item = EventId>>(ids: I) -> Found {
        let mut ids: Vec<EventId> = ids.into_iter().collect();
        ids.sort_unstable();
        Found(ids)
    }
}

impl Found {
    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Those of one request, in order.
    fn of(&self, request: RequestId) -> &[EventId] {
        let start = self.0.partition_point(|id| id.request < request);
        let count = self.0[start..].partition_point(|id| id.request == request);
        &self.0[start..start + count]
    }
}

/// Everything that is wrong; `sent` holds every request whose events `found` may hold, in any
/// order.
#[must_use]
pub fn judge(sent: &[Sent], found: &Found) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut explained = 0;
    for request in sent {
        let there = found.of(request.id);
        explained += there.len();
        judge_request(request, there, &mut violations);
    }
    if explained < found.len() {
        let known: std::collections::BTreeSet<RequestId> =
            sent.iter().map(|request| request.id).collect();
        let strangers = found.0.iter().filter(|id| !known.contains(&id.request));
        violations.extend(strangers.map(|id| Violation::Invented(*id)));
    }
    violations
}

fn judge_request(request: &Sent, there: &[EventId], violations: &mut Vec<Violation>) {
    let mut present = 0;
    for copies in there.chunk_by(|one, next| one == next) {
        let id = copies[0];
        if id.index >= request.events {
            violations.push(Violation::Invented(id));
            continue;
        }
        present += 1;
        if request.fate == Fate::Absent {
            violations.push(Violation::Unwanted(id));
        } else if copies.len() > 1 {
            violations.push(Violation::Doubled(id, copies.len()));
        }
    }
    if present == request.events as usize {
        return;
    }
    match request.fate {
        Fate::Stored => {
            let ids = (0..request.events).map(|index| EventId { request: request.id, index });
            let missing = ids.filter(|id| there.binary_search(id).is_err());
            violations.extend(missing.map(Violation::Lost));
        }
        Fate::Either | Fate::Memory if present > 0 => {
            violations.push(Violation::Torn(request.id, present, request.events));
        }
        Fate::Either | Fate::Memory | Fate::Absent => {}
    }
}

/// Holds the server to what was seen: a request without an answer is stored from now on, or was
/// never there.
pub fn settle(sent: &mut [Sent], found: &Found) {
    for request in sent {
        if matches!(request.fate, Fate::Either | Fate::Memory) {
            let there = !found.of(request.id).is_empty();
            request.fate = if there { Fate::Stored } else { Fate::Absent };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: RequestId = RequestId { round: 1, client: 0, number: 0 };
    const SECOND: RequestId = RequestId { round: 1, client: 0, number: 1 };

    fn sent(id: RequestId, events: u32, fate: Fate) -> Sent {
        Sent { id, events, fate }
    }

    fn event(request: RequestId, index: u32) -> EventId {
        EventId { request, index }
    }

    fn found(ids: &[(RequestId, u32)]) -> Found {
        ids.iter().map(|&(request, index)| event(request, index)).collect()
    }

    #[test]
    fn what_is_as_it_should_be_is_no_violation() {
        let requests = [
            sent(FIRST, 2, Fate::Stored),
            sent(SECOND, 2, Fate::Either),
            sent(RequestId { number: 2, ..FIRST }, 1, Fate::Either),
            sent(RequestId { number: 3, ..FIRST }, 1, Fate::Absent),
        ];
        let all = found(&[(SECOND, 1), (FIRST, 1), (SECOND, 0), (FIRST, 0)]);
        assert_eq!(judge(&requests, &all), []);
    }

    #[test]
    fn a_lost_event_is_detected() {
        let requests = [sent(FIRST, 3, Fate::Stored), sent(SECOND, 1, Fate::Stored)];
        let violations = judge(&requests, &found(&[(FIRST, 0), (FIRST, 2)]));
        let lost = [event(FIRST, 1), event(SECOND, 0)].map(Violation::Lost);
        assert_eq!(violations, lost);
    }

    #[test]
    fn a_doubled_event_is_detected_whatever_was_answered() {
        for fate in [Fate::Stored, Fate::Either] {
            let there = found(&[(FIRST, 0), (FIRST, 0), (FIRST, 1)]);
            let violations = judge(&[sent(FIRST, 2, fate)], &there);
            assert_eq!(violations, [Violation::Doubled(event(FIRST, 0), 2)]);
        }
    }

    #[test]
    fn a_doubled_event_does_not_hide_a_lost_one() {
        let there = found(&[(FIRST, 0), (FIRST, 0)]);
        let violations = judge(&[sent(FIRST, 2, Fate::Stored)], &there);
        let expected = [Violation::Doubled(event(FIRST, 0), 2), Violation::Lost(event(FIRST, 1))];
        assert_eq!(violations, expected);
    }

    #[test]
    fn a_torn_request_is_detected() {
        let there = found(&[(FIRST, 0), (FIRST, 2)]);
        let violations = judge(&[sent(FIRST, 3, Fate::Either)], &there);
        assert_eq!(violations, [Violation::Torn(FIRST, 2, 3)]);
    }

    #[test]
    fn an_event_of_a_refused_request_is_detected() {
        let there = found(&[(FIRST, 0), (SECOND, 1)]);
        let requests = [sent(FIRST, 1, Fate::Stored), sent(SECOND, 2, Fate::Absent)];
        assert_eq!(judge(&requests, &there), [Violation::Unwanted(event(SECOND, 1))]);
    }

    #[test]
    fn an_event_that_was_never_sent_is_detected() {
        let there = found(&[(FIRST, 0), (FIRST, 1), (SECOND, 0)]);
        let violations = judge(&[sent(FIRST, 1, Fate::Stored)], &there);
        assert_eq!(violations, [event(FIRST, 1), event(SECOND, 0)].map(Violation::Invented));
    }

    #[test]
    fn what_was_seen_once_must_stay() {
        let mut requests = [sent(FIRST, 1, Fate::Either), sent(SECOND, 1, Fate::Either)];
        settle(&mut requests, &found(&[(FIRST, 0)]));
        let later = judge(&requests, &found(&[(SECOND, 0)]));
        let expected = [Violation::Lost(event(FIRST, 0)), Violation::Unwanted(event(SECOND, 0))];
        assert_eq!(later, expected);
    }

    #[test]
    fn memory_survives_an_orderly_stop_only() {
        assert_eq!(Fate::Memory.after_end(End::Terminate), Fate::Stored);
        assert_eq!(Fate::Memory.after_end(End::Kill), Fate::Either);
        assert_eq!(Fate::Stored.after_end(End::Kill), Fate::Stored);
    }
}

//! Clients: each sends its stream of requests and notes what became of each, at the moment that
//! the answer is read.
//!
//! **Guarantees.** A request counts as acknowledged only when its whole answer has been read.
//! Events without message ids are sent once. Answers that no server may give are complaints.
//!
//! **Roles.** One thread a client, one connection a client.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

use super::event::{self, RequestId};
use super::oracle::{Fate, Sent};
use super::plan::{Request, Requests, Resend, Trick};
use crate::http::{Answer, Connection};

/// The pause after a refusal that says "later".
const LATER: Duration = Duration::from_millis(5);

/// What the clients of a round share.
#[derive(Debug, Default)]
pub struct Progress {
    /// Events acknowledged for the first time. Written by the clients.
    pub acknowledged: AtomicU64,
    /// Set once the server is gone.
    pub over: AtomicBool,
}

/// A request and what is known of it.
#[derive(Debug)]
pub struct Entry {
    /// For the oracle.
    pub sent: Sent,
    /// What was sent.
    pub request: Request,
}

/// How a sending ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With a 2xx; so many events were known already.
    Acknowledged {
        /// Known ones.
        duplicates: u64,
    },
    /// With a refusal of this status.
    Refused(u16),
    /// Cut off by the client.
    Cut,
    /// Without an answer.
    Unknown,
}

/// Sendings by how they ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Requests sent for the first time.
    pub requests: u64,
    /// Events acknowledged for the first time.
    pub acknowledged: u64,
    /// Sendings without an answer.
    pub unknown: u64,
    /// Sendings cut off in the middle.
    pub cut: u64,
    /// Sendings of a request that had been sent before.
    pub resent: u64,
    /// Sendings refused.
    pub refused: u64,
    /// Events that the server said it knew.
    pub duplicates: u64,
}

impl Counts {
    /// Adds those of another client.
    pub fn add(&mut self, other: &Counts) {
        self.requests += other.requests;
        self.acknowledged += other.acknowledged;
        self.unknown += other.unknown;
        self.cut += other.cut;
        self.resent += other.resent;
        self.refused += other.refused;
        self.duplicates += other.duplicates;
    }
}

/// What a client brings home.
#[derive(Debug, Default)]
pub struct Journal {
    /// Its requests.
    pub entries: Vec<Entry>,
    /// How the sendings ended.
    pub counts: Counts,
    /// What must not be.
    pub complaints: Vec<String>,
}

/// The server takes no connections any more.
#[derive(Debug)]
pub struct Gone;

/// Sends the requests of one client until the server is gone.
pub fn run(
    address: SocketAddr,
    seed: u64,
    round: u32,
    client: u32,
    progress: &Progress,
) -> Journal {
    let mut sender = Sender::new(address);
    for (number, request) in (0..).zip(Requests::new(seed, round, client)) {
        // Relaxed: the flag is all there is.
        if progress.over.load(Ordering::Relaxed) {
            break;
        }
        let id = RequestId { round, client, number };
        let Ok(entry) = sender.first(id, request, progress) else { break };
        sender.journal.entries.push(entry);
        if sender.resend_at_once(progress).is_err() {
            break;
        }
    }
    sender.journal
}

/// One connection, and the notes about what went over it.
#[derive(Debug)]
pub struct Sender {
    address: SocketAddr,
    connection: Option<Connection>,
    /// The notes.
    pub journal: Journal,
}

impl Sender {
    /// A sender to `address`; it connects when it has something to send.
    pub fn new(address: SocketAddr) -> Sender {
        Sender { address, connection: None, journal: Journal::default() }
    }

    fn first(
        &mut self,
        id: RequestId,
        request: Request,
        progress: &Progress,
    ) -> Result<Entry, Gone> {
        let outcome = self.send(id, &request, request.trick, request.memory)?;
        self.journal.counts.requests += 1;
        let sent = Sent { id, events: request.events, fate: Fate::Absent };
        let mut entry = Entry { sent, request };
        self.note(&mut entry, outcome, request.memory, progress);
        Ok(entry)
    }

    /// Sends the last request of the journal again when its plan says so.
    fn resend_at_once(&mut self, progress: &Progress) -> Result<(), Gone> {
        let Some(mut entry) = self.journal.entries.pop() else { return Ok(()) };
        let outcome = if entry.wants_resend(false) {
            self.resend(&mut entry, progress).map(|_| ())
        } else {
            Ok(())
        };
        self.journal.entries.push(entry);
        outcome
    }

    /// Sends a request again, in order and to the disk.
    pub fn resend(&mut self, entry: &mut Entry, progress: &Progress) -> Result<Outcome, Gone> {
        let outcome = self.send(entry.sent.id, &entry.request, Trick::None, false)?;
        self.journal.counts.resent += 1;
        self.note(entry, outcome, false, progress);
        Ok(outcome)
    }

    fn note(&mut self, entry: &mut Entry, outcome: Outcome, memory: bool, progress: &Progress) {
        let counts = &mut self.journal.counts;
        let events = u64::from(entry.sent.events);
        let learnt = match outcome {
            Outcome::Acknowledged { duplicates } => {
                counts.duplicates += duplicates;
                if memory { Fate::Memory } else { Fate::Stored }
            }
            Outcome::Refused(_) => {
                counts.refused += 1;
                Fate::Absent
            }
            Outcome::Cut => {
                counts.cut += 1;
                Fate::Absent
            }
            Outcome::Unknown => {
                counts.unknown += 1;
                Fate::Either
            }
        };
        if entry.sent.fate < Fate::Memory && learnt >= Fate::Memory {
            counts.acknowledged += events;
            // Relaxed: only the number matters.
            progress.acknowledged.fetch_add(events, Ordering::Relaxed);
        }
        entry.sent.fate = entry.sent.fate.max(learnt);
    }

    fn send(
        &mut self,
        id: RequestId,
        request: &Request,
        trick: Trick,
        memory: bool,
    ) -> Result<Outcome, Gone> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(self.address).map_err(|_| Gone)?,
        };
        let bytes = encode(&connection, id, request, trick, memory);
        // Whether the server still takes the bytes makes no difference to a client that leaves.
        match trick {
            Trick::Cut(thousandths) => {
                // At least one byte is sent, at least one is missing.
                let end = 1 + (bytes.len() - 2) * thousandths as usize / 999;
                let _ = connection.send(&bytes[..end]);
                return Ok(Outcome::Cut);
            }
            Trick::Unread => {
                let _ = connection.send(&bytes);
                return Ok(Outcome::Unknown);
            }
            Trick::Spoiled(_) | Trick::None => {}
        }
        let answer = connection.send(&bytes).and_then(|()| connection.answer());
        let Ok(answer) = answer else { return Ok(Outcome::Unknown) };
        if !answer.last {
            self.connection = Some(connection);
        }
        let outcome = classify(&answer, request.events, matches!(trick, Trick::Spoiled(_)));
        if matches!(outcome, Ok(Outcome::Refused(429 | 503))) {
            thread::sleep(LATER);
        }
        Ok(outcome.unwrap_or_else(|complaint| {
            self.journal.complaints.push(format!("request {id}: {complaint}"));
            Outcome::Unknown
        }))
    }
}

impl Entry {
    /// Whether the plan wants it sent again now: `late` after the restart, else at once.
    pub fn wants_resend(&self, late: bool) -> bool {
        let acknowledged = self.sent.fate >= Fate::Memory;
        match self.request.resend {
            Resend::Never => false,
            // What brought no acknowledgement at once is tried again after the restart.
            Resend::WhenUnacknowledged { late: planned } => !acknowledged && (late || !planned),
            Resend::Always { late: planned } => planned == late || (late && !acknowledged),
        }
    }
}

fn encode(
    connection: &Connection,
    id: RequestId,
    request: &Request,
    trick: Trick,
    memory: bool,
) -> Vec<u8> {
    let spoiled = match trick {
        Trick::Spoiled(index) => Some(index),
        Trick::None | Trick::Cut(_) | Trick::Unread => None,
    };
    let mut body = event::body(id, request, spoiled);
    let mut headers = "";
    if request.gzip {
        body = gzip(&body);
        headers = "Content-Encoding: gzip\r\n";
    }
    let target = if memory { "/v1/events?ack=memory" } else { "/v1/events?ack=disk" };
    connection.request("POST", target, headers, &body)
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let written = encoder.write_all(body).and_then(|()| encoder.finish());
    written.expect("writing to memory does not fail")
}

/// What an answer means, or why it must not be.
fn classify(answer: &Answer, events: u32, spoiled: bool) -> Result<Outcome, String> {
    let unexpected = |what: &str| Err(format!("{what}: {} {}", answer.status, answer.text()));
    match (answer.status, spoiled) {
        (202, true) => unexpected("a request with a bad event was accepted"),
        (202, false) => {
            let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            let duplicates = body["duplicates"].as_u64().unwrap_or(0);
            let accepted = body["accepted"].as_u64();
            if accepted != Some(u64::from(events)) || duplicates > u64::from(events) {
                return unexpected(&format!("{events} events were sent"));
            }
            Ok(Outcome::Acknowledged { duplicates })
        }
        (400, true) | (413 | 429 | 503, _) => Ok(Outcome::Refused(answer.status)),
        (_, true) => unexpected("a request with a bad event was not refused with 400"),
        (_, false) => unexpected("a good request was refused for good"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: Request = Request {
        events: 3,
        padding: 0,
        array: false,
        gzip: false,
        memory: false,
        keyed: true,
        trick: Trick::None,
        resend: Resend::Never,
    };

    fn answered(status: u16, body: &str, spoiled: bool) -> Result<Outcome, String> {
        let answer = Answer { status, body: body.into(), last: false };
        classify(&answer, 3, spoiled)
    }

    #[test]
    fn an_answer_is_believed_only_when_it_fits_the_request() {
        let accepted = |duplicates| Ok(Outcome::Acknowledged { duplicates });
        assert_eq!(answered(202, r#"{"accepted":3}"#, false), accepted(0));
        assert_eq!(answered(202, r#"{"accepted":3,"duplicates":2}"#, false), accepted(2));
        assert_eq!(answered(503, "{}", false), Ok(Outcome::Refused(503)));
        assert_eq!(answered(400, "{}", true), Ok(Outcome::Refused(400)));
        assert!(answered(202, r#"{"accepted":2}"#, false).is_err());
        assert!(answered(202, r#"{"accepted":3,"duplicates":4}"#, false).is_err());
        assert!(answered(202, "", false).is_err());
        assert!(answered(202, r#"{"accepted":3}"#, true).is_err());
        assert!(answered(400, "{}", false).is_err());
        assert!(answered(500, "{}", true).is_err());
    }

    /// What is known after sendings that ended like this, and how many events count as
    /// acknowledged; `true` stands for `ack=memory`.
    fn known_after(sendings: &[(Outcome, bool)]) -> (Fate, u64) {
        let mut sender = Sender::new(([127, 0, 0, 1], 1).into());
        let id = RequestId { round: 1, client: 0, number: 0 };
        let sent = Sent { id, events: 3, fate: Fate::Absent };
        let mut entry = Entry { sent, request: REQUEST };
        for (outcome, memory) in sendings {
            sender.note(&mut entry, *outcome, *memory, &Progress::default());
        }
        (entry.sent.fate, sender.journal.counts.acknowledged)
    }

    #[test]
    fn a_later_sending_takes_nothing_back() {
        let stored = Outcome::Acknowledged { duplicates: 0 };
        let refused = Outcome::Refused(503);
        assert_eq!(known_after(&[(refused, false)]), (Fate::Absent, 0));
        assert_eq!(known_after(&[(Outcome::Cut, false)]), (Fate::Absent, 0));
        assert_eq!(known_after(&[(Outcome::Unknown, false), (refused, false)]), (Fate::Either, 0));
        assert_eq!(known_after(&[(refused, false), (stored, false)]), (Fate::Stored, 3));
        assert_eq!(known_after(&[(stored, true), (Outcome::Unknown, false)]), (Fate::Memory, 3));
        assert_eq!(known_after(&[(stored, true), (stored, false)]), (Fate::Stored, 3));
    }

    #[test]
    fn what_was_not_acknowledged_at_once_is_sent_again_after_the_restart() {
        let wants = |resend, fate, late| {
            let id = RequestId { round: 1, client: 0, number: 0 };
            let sent = Sent { id, events: 3, fate };
            Entry { sent, request: Request { resend, ..REQUEST } }.wants_resend(late)
        };
        let when = |late| Resend::WhenUnacknowledged { late };
        assert!(wants(when(false), Fate::Either, false) && wants(when(false), Fate::Absent, true));
        assert!(!wants(when(true), Fate::Either, false) && wants(when(true), Fate::Either, true));
        assert!(!wants(when(false), Fate::Memory, false) && !wants(when(true), Fate::Stored, true));
        assert!(wants(Resend::Always { late: false }, Fate::Stored, false));
        assert!(wants(Resend::Always { late: true }, Fate::Stored, true));
        assert!(!wants(Resend::Always { late: false }, Fate::Stored, true));
        assert!(!wants(Resend::Never, Fate::Either, true));
    }
}

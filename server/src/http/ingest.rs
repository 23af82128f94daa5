//! `POST /v1/events`: from bytes to an acknowledgement.
//!
//! ```text
//!  head checks ▶ body ▶ unpack ▶ reserve in the ring ▶ decode into it ▶ commit ▶ wait ▶ answer
//! ```
//!
//! **Guarantees.** A request is committed once and whole, or never was there. Every event of a
//! request that arrived is counted once as received, and, when it is refused, once as refused;
//! a request whose body broke off is not counted.
//!
//! **Failure.** What is refused before its body was read gets its answer at once; the body is then
//! read and thrown away for a while, so that the answer is not lost with the connection.

use std::net::IpAddr;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode};
use ringlake_engine::ack::{NotDurable, Ticket};
use ringlake_event::{
    Assembly, DecodeError, Decoded, Decoder, Mode, Rejection, Request as EventRequest, Source,
    record_bound,
};

use super::access::Access;
use super::answer::{self, Problem, Reply};
use super::arrow;
use super::body::{self, Charge, Pace};
use super::cors;
use super::encoding::{self, Coding};
use super::patience::patiently;
use super::serving_loop::ServingLoop;
use crate::cli::Ack;

/// The path.
pub const PATH: &str = "/v1/events";
/// What pages of other sites may do.
const METHODS: &str = "POST, OPTIONS";
/// What there is: those that read are answered elsewhere.
const ALL_METHODS: &str = "GET, HEAD, POST, OPTIONS";

/// A request that was refused, and how many events are known to have been in it.
#[derive(Debug)]
pub struct Refused {
    problem: Problem,
    events: usize,
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        let events = match &problem {
            Problem::Event(error) => error.events_seen,
            Problem::Limited { events, .. } => *events,
            // Without its body a request was not received.
            Problem::BodyBroken(_) => 0,
            _ => 1,
        };
        Self { problem, events }
    }
}

/// A body that has arrived, as it was sent; what it holds of the loop's budget comes back when it is
/// dropped.
pub struct Packed {
    bytes: Bytes,
    /// What the head says about it.
    coding: Coding,
    charge: Charge,
}

impl Packed {
    /// Lets go of the bytes: what they hold of the budget, and more where that is not enough, is from
    /// now on for the `bytes` of what was made of them, until the charge is dropped.
    ///
    /// # Errors
    /// [`Problem::Crowded`].
    pub fn make_way(self, bytes: usize) -> Result<Charge, Problem> {
        let mut charge = self.charge;
        charge.cover(bytes)?;
        Ok(charge)
    }
}

/// Answers a request for [`PATH`].
pub async fn answer(serving: &ServingLoop, peer: IpAddr, request: Request<Incoming>) -> Reply {
    let (head, body) = request.into_parts();
    let allows = |origin: &[u8]| serving.app.answers_origin(origin);
    let mut reply = match head.method {
        Method::POST => events(serving, peer, &head, body).await,
        Method::OPTIONS => cors::preflight(&head.headers, METHODS, allows),
        _ => Problem::Method(ALL_METHODS).reply(),
    };
    cors::permit(&head.headers, allows, &mut reply);
    reply
}

async fn events(serving: &ServingLoop, peer: IpAddr, head: &Parts, mut body: Incoming) -> Reply {
    let began = Instant::now();
    let outcome = receive(serving, peer, head, &mut body, began).await;
    serving.conclude(began, outcome, head, body)
}

async fn receive(
    serving: &ServingLoop,
    peer: IpAddr,
    head: &Parts,
    body: &mut Incoming,
    began: Instant,
) -> Result<Reply, Refused> {
    serving.check_open()?;
    let access = serving.sender(peer, head, None, began).await?;
    let options = Options::parse(head.uri.query())?;
    let sender = serving.visitor(peer, &head.headers);
    let body = serving.collect(head, body).await?;
    let request = || EventRequest {
        received_at: now_micros(),
        source: Source::Events,
        tenant: access.tenant(),
        correct_clock: true,
        sender,
    };
    let (decoded, ticket) = if arrow::is_stream(head) {
        serving.store_stream(body, options.mode(), &access, &request()).await?
    } else {
        let attempt = || serving.store(&body, options, &access, &request());
        let stored = serving.patiently(attempt).await?;
        // Waiting for the disk needs none of it.
        drop(body);
        stored
    };
    let duplicates = serving.acknowledge(ticket, decoded.accepted, options.ack).await?;
    let mut reply = match (decoded.rejected.is_empty(), options.quiet) {
        (false, _) => answer::partly_accepted(decoded.accepted, duplicates, &decoded.rejected),
        (true, true) => answer::empty(StatusCode::NO_CONTENT),
        (true, false) => answer::accepted(decoded.accepted, duplicates),
    };
    serving.show_quotas(&access, &mut reply);
    Ok(reply)
}

impl ServingLoop {
    /// Refuses early while nothing can be taken.
    ///
    /// # Errors
    /// [`Problem::ShuttingDown`], [`Problem::NotReady`] or [`Problem::NoRoom`].
    pub fn check_open(&self) -> Result<(), Problem> {
        if self.app.stopping.is_cancelled() {
            return Err(Problem::ShuttingDown);
        }
        self.app.engine.accepts().map_err(|error| self.app.closed(error))
    }

    /// Reads the body of a request.
    ///
    /// # Errors
    /// What is wrong with its head before anything is read; then what [`body::collect`] says.
    pub async fn collect(&self, head: &Parts, body: &mut Incoming) -> Result<Packed, Problem> {
        let config = &self.app.config.http;
        let coding = encoding::of(&head.headers)?;
        body::check_length(&head.headers, config.body_max_bytes)?;
        let _stage = self.traces.stage("read body");
        let mut charge = self.budget.charge();
        let pace = Pace::of(config);
        let bytes = body::collect(body, config.body_max_bytes, pace, &mut charge).await?;
        Ok(Packed { bytes, coding, charge })
    }

    /// Unpacks a body for `read`. Nothing else of this loop runs meanwhile.
    ///
    /// # Errors
    /// What cannot be unpacked or is too large then, and what `read` says.
    pub fn unpack<T>(
        &self,
        body: &Packed,
        read: impl FnOnce(&[u8]) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        let _stage = self.traces.stage("decode");
        let mut room = self.unpacked.borrow_mut();
        read(match encoding::sniff(body.coding, &body.bytes) {
            Coding::Identity => &body.bytes,
            coding => room.unpack(coding, &body.bytes, self.app.config.http.body_max_bytes)?,
        })
    }

    /// Decodes a body into the ring.
    fn store(
        &self,
        body: &Packed,
        options: Options,
        access: &Access,
        request: &EventRequest<'_>,
    ) -> Result<(Decoded, Option<Ticket>), Problem> {
        let limits = &self.app.config.http.limits;
        self.unpack(body, |text| {
            self.commit(access, record_bound(text.len()), options.mode(), |decoder, out| {
                decoder.decode(text, request, limits, options.mode(), out)
            })
        })
    }

    /// What `attempt` gives, which calls [`Self::commit`]: again for a while if the ring is full.
    ///
    /// # Errors
    /// The attempt's.
    pub async fn patiently<T>(
        &self,
        attempt: impl FnMut() -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        let waiting = || self.traces.stage("wait for ring");
        patiently(attempt, || self.ingest.borrow().is_half_free(), waiting).await
    }

    /// Lets `decode` write a record of at most `bound` bytes into the ring, takes its events out of
    /// the quotas of `access`, and hands it to the shard. There is no ticket when no event was
    /// accepted.
    ///
    /// # Errors
    /// What the ring or `decode` says, and [`Problem::Limited`].
    pub fn commit(
        &self,
        access: &Access,
        bound: usize,
        mode: Mode,
        decode: impl FnOnce(&mut Decoder, &mut [u8]) -> Result<Decoded, DecodeError>,
    ) -> Result<(Decoded, Option<Ticket>), Problem> {
        let mut ingest = self.ingest.borrow_mut();
        let mut room = ingest.reserve(bound)?;
        let decoded = decode(&mut self.decoder.borrow_mut(), &mut room)?;
        debug_assert!(mode == Mode::Partial || decoded.rejected.is_empty());
        self.count_events(access, decoded.accepted)?;
        let tally = room.tally();
        tally.receive(decoded.accepted + decoded.rejected.len());
        for rejection in &decoded.rejected {
            let problem = Problem::Event(rejection.error.clone());
            tally.refuse(problem.refusal(), 1);
            self.shared.count_refusal(&problem);
        }
        let ticket = (decoded.record_len > 0).then(|| room.commit(decoded.record_len));
        Ok((decoded, ticket))
    }

    /// Waits until the `events` of `ticket` are what `ack` promises; gives how many of them were
    /// known before. Who waits for memory only is not told: the shard has not looked yet.
    ///
    /// # Errors
    /// [`Problem::NotDurable`], which the shard has counted.
    pub async fn acknowledge(
        &self,
        ticket: Option<Ticket>,
        events: usize,
        ack: Option<Ack>,
    ) -> Result<usize, Refused> {
        let Some(ticket) = ticket else { return Ok(0) };
        match ack.unwrap_or(self.app.config.ack) {
            Ack::Memory => {
                self.ingest.borrow().tally().promise(events);
                Ok(0)
            }
            Ack::Disk => {
                let _stage = self.traces.stage("wait for log");
                match self.acks.wait(ticket).await {
                    Ok(durable) => Ok(durable.duplicates),
                    Err(NotDurable) => Err(Refused { problem: Problem::NotDurable, events: 0 }),
                }
            }
        }
    }

    /// Takes the events of `assembly` out of the quotas of `access`, hands them to the shard and
    /// counts them and the `rejected` ones of the same request. There is no ticket when no event was
    /// accepted.
    ///
    /// # Errors
    /// What the ring says, and [`Problem::Limited`].
    pub fn commit_assembly(
        &self,
        access: &Access,
        assembly: &Assembly,
        request: &EventRequest<'_>,
        rejected: &[Rejection],
    ) -> Result<Option<Ticket>, Problem> {
        let mut ingest = self.ingest.borrow_mut();
        let mut room = ingest.reserve(assembly.record_len(request))?;
        self.count_events(access, assembly.events())?;
        let tally = room.tally();
        tally.receive(assembly.events() + rejected.len());
        for rejection in rejected {
            let problem = Problem::Event(rejection.error.clone());
            tally.refuse(problem.refusal(), 1);
            self.shared.count_refusal(&problem);
        }
        let len = assembly.write(request, &mut room);
        Ok((len > 0).then(|| room.commit(len)))
    }

    /// The answer to a request with a body; what is left of that is read and thrown away.
    pub fn conclude(
        &self,
        began: Instant,
        outcome: Result<Reply, Refused>,
        head: &Parts,
        body: Incoming,
    ) -> Reply {
        let mut reply = outcome.unwrap_or_else(|refused| self.refuse(refused));
        answer::let_go(&mut reply, &head.headers, body);
        self.observe(began);
        reply
    }

    /// Counts a refused request and answers it.
    pub fn refuse(&self, refused: Refused) -> Reply {
        let Refused { problem, events } = refused;
        let ingest = self.ingest.borrow();
        ingest.tally().receive(events);
        ingest.tally().refuse(problem.refusal(), events);
        self.shared.count_refusal(&problem);
        problem.reply()
    }
}

/// Now, in microseconds since 1970; a clock before that counts as 1970.
pub fn now_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// What a request asks for in its query string.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// The promise of the answer, when the request names one.
    pub ack: Option<Ack>,
    /// Take the good events of a request that holds bad ones.
    pub partial: bool,
    /// Answer 204 instead of 202.
    pub quiet: bool,
}

impl Options {
    /// Reads the options among the parameters of `query`; others are left alone.
    ///
    /// # Errors
    /// [`Problem::BadParameter`] for an option with another value than it can have.
    pub fn parse(query: Option<&str>) -> Result<Self, Problem> {
        let mut options = Self::default();
        let Some(query) = query else { return Ok(options) };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            options.set(&name, &value)?;
        }
        Ok(options)
    }

    /// Takes one parameter; tells whether it is an option (or the key, which [`ServingLoop::sender`] reads).
    ///
    /// # Errors
    /// See [`Options::parse`].
    pub fn set(&mut self, name: &str, value: &str) -> Result<bool, Problem> {
        match name {
            "ack" => {
                self.ack = Some(match value {
                    "disk" => Ack::Disk,
                    "memory" => Ack::Memory,
                    _ => return Err(bad_parameter("ack", value, "disk or memory")),
                });
            }
            "partial" => self.partial = flag("partial", value)?,
            "quiet" => self.quiet = flag("quiet", value)?,
            "key" => {}
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn mode(self) -> Mode {
        if self.partial { Mode::Partial } else { Mode::Whole }
    }
}

fn flag(name: &'static str, value: &str) -> Result<bool, Problem> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(bad_parameter(name, value, "true or false")),
    }
}

fn bad_parameter(name: &'static str, value: &str, allowed: &'static str) -> Problem {
    // What the client sent is quoted, but not all of it.
    let value = value.chars().take(ringlake_event::QUOTE_MAX_CHARS).collect();
    Problem::BadParameter { name, value, allowed }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use super::super::body::Budget;
    use super::*;

    #[test]
    fn options_are_read_and_other_parameters_ignored() {
        let options = Options::parse(Some("ack=memory&partial=true&quiet=true&utm=1&key=k"));
        let expected = Options { ack: Some(Ack::Memory), partial: true, quiet: true };
        assert_eq!(options.unwrap(), expected);
        assert_eq!(Options::parse(None).unwrap(), Options::default());
    }

    #[test]
    fn events_that_wait_hold_what_their_body_held_and_what_they_need_more() {
        const KIB: usize = 1 << 10;
        let budget = Budget::new(64 * KIB);
        let packed = |charged| {
            let mut charge = budget.charge();
            charge.cover(charged).unwrap();
            Packed { bytes: Bytes::new(), coding: Coding::Identity, charge }
        };
        let fits = |bytes| budget.charge().cover(bytes).is_ok();
        let waiting = packed(16 * KIB).make_way(48 * KIB).unwrap();
        assert!(fits(16 * KIB) && !fits(20 * KIB));
        let problem = packed(8 * KIB).make_way(20 * KIB).unwrap_err();
        assert!(matches!(problem, Problem::Crowded), "{problem}");
        assert!(fits(16 * KIB), "what the refused one had is back");
        drop(waiting);
        // What needs less than its body keeps what that had.
        let _waiting = packed(48 * KIB).make_way(KIB).unwrap();
        assert!(fits(16 * KIB) && !fits(20 * KIB));
    }

    #[test]
    fn unknown_values_are_named() {
        for query in ["ack=tape", "ack=", "partial=1", "quiet=yes"] {
            let (name, _) = query.split_once('=').unwrap();
            let message = Options::parse(Some(query)).unwrap_err().to_string();
            assert!(message.contains(name), "{message}");
        }
    }

    #[test]
    fn a_body_that_never_arrived_is_not_counted() {
        assert_eq!(Refused::from(Problem::BodyBroken("reset".into())).events, 0);
        assert_eq!(Refused::from(Problem::BodyTooLarge { limit: 1 }).events, 1);
    }
}

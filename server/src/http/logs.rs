//! `POST /v1/logs`: OpenTelemetry's log records.
//!
//! **Guarantees.** JSON and protobuf, each answered in kind: 200, with `partial_success` when records
//! were left out. A refusal keeps its code; exporters try again after 429 and 503. What each field
//! becomes is listed in `ringlake_otlp`.
//!
//! **Memory.** As on the routes of other SDKs: a request's events take at most twice the limit of a
//! body.

use std::net::IpAddr;
use std::time::Instant;

use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode};
use ringlake_event::{Assembly, Rejection, Request as EventRequest, Source};
use ringlake_otlp::Encoding;

use super::answer::{self, Problem, Reply};
use super::cors;
use super::ingest::{Refused, now_micros};
use super::serving_loop::ServingLoop;

/// The path.
pub const PATH: &str = "/v1/logs";
const METHODS: &str = "POST, OPTIONS";

/// Answers a request for [`PATH`].
pub async fn answer(serving: &ServingLoop, peer: IpAddr, request: Request<Incoming>) -> Reply {
    let began = Instant::now();
    let (head, mut body) = request.into_parts();
    let allows = |origin: &[u8]| serving.app.answers_origin(origin);
    let mut reply = match head.method {
        Method::POST => {
            let outcome = receive(serving, peer, &head, &mut body, began).await;
            serving.conclude(began, outcome, &head, body)
        }
        Method::OPTIONS => cors::preflight(&head.headers, METHODS, allows),
        _ => Problem::Method(METHODS).reply(),
    };
    cors::permit(&head.headers, allows, &mut reply);
    reply
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
    let sender = serving.visitor(peer, &head.headers);
    let body = serving.collect(head, body).await?;
    let request = EventRequest {
        received_at: now_micros(),
        source: Source::Otlp,
        tenant: access.tenant(),
        correct_clock: true,
        sender,
    };
    let label = head.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let read = serving.unpack(&body, |bytes| read(serving, label, bytes, &request))?;
    let Read { encoding, assembly, rejected } = read;
    let charge = body.make_way(assembly.record_len(&request))?;
    let attempt = || serving.commit_assembly(&access, &assembly, &request, &rejected);
    let ticket = serving.patiently(attempt).await?;
    let accepted = assembly.events();
    serving.assembly.replace(assembly);
    drop(charge);
    serving.acknowledge(ticket, accepted, None).await?;
    let content_type = HeaderValue::from_static(encoding.content_type());
    let mut reply = answer::whole(StatusCode::OK, content_type, encoding.answer(&rejected).into());
    serving.show_quotas(&access, &mut reply);
    Ok(reply)
}

/// Log records that have been read and are not stored yet, and those that are left out.
struct Read {
    encoding: Encoding,
    assembly: Assembly,
    rejected: Vec<Rejection>,
}

fn read(
    serving: &ServingLoop,
    label: &[u8],
    bytes: &[u8],
    request: &EventRequest<'_>,
) -> Result<Read, Problem> {
    let config = &serving.app.config.http;
    let encoding = Encoding::of(label, bytes);
    let max = 2 * config.body_max_bytes;
    let mut assembly = serving.assembly.take();
    assembly.clear();
    let rejected =
        ringlake_otlp::decode(bytes, encoding, request, &config.limits, max, &mut assembly)?;
    Ok(Read { encoding, assembly, rejected })
}

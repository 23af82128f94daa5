//! Answers: small success bodies, and the one place where a problem becomes a status.
//!
//! **Guarantees.** Every refusal of our own routes carries
//! `{"error":{"code","message","index"?,"field"?}}`. 429 and 503 carry `Retry-After`: the request
//! may be sent again as it is. 400, 401, 403, 413 and 415 mean that it never will be accepted, unless
//! it was not what the client meant to send, because its body broke off on the way.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::header::{
    ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use hyper::{HeaderMap, StatusCode};
use ringlake_engine::accounting::Refusal;
use ringlake_engine::export::ExportError;
use ringlake_engine::listing::ListError;
use ringlake_engine::query::QueryError;
use ringlake_engine::{Error, IngestError};
use ringlake_event::{DecodeError, ErrorKind, Rejection};
use ringlake_keys::limits::{Exceeded, Standing};
use serde_json::{Map, Value, json};

use super::body;
use super::connection::Streaming;
use super::status;

/// The body of an answer: whole on the ingest path, a stream from the router.
pub type ReplyBody = Either<Full<Bytes>, Streaming>;
/// An answer.
pub type Reply = hyper::Response<ReplyBody>;

/// Seconds after which it may be worth to send again what found no room. Whether there is room is
/// looked at every second, and disks do not empty sooner.
const NO_ROOM_SECONDS: u32 = 5;
/// As long as a profile takes when nobody says how long.
const PROFILE_SECONDS: u32 = 10;
/// The content type of every answer of ours that is not a query result.
pub const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Why a request is not answered with a 2xx.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The body does not hold events as the contract wants them.
    #[error("{0}")]
    Event(DecodeError),
    /// The body is too long.
    #[error("the body is larger than {limit} bytes; that is the limit, after decompression too")]
    BodyTooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The request could not be taken even by an empty ring.
    #[error(
        "the request needs up to {len} bytes in the ring, which holds {max} at once; send fewer \
         events a request"
    )]
    NeverFits {
        /// Bytes needed.
        len: usize,
        /// Bytes that there can be.
        max: usize,
    },
    /// The content encoding is none that we know.
    #[error("content encoding `{0}` is not known; use one of gzip, deflate, zstd, br or identity")]
    UnknownEncoding(String),
    /// The body has a content encoding, on a route that takes none.
    #[error("this route takes no content encoding; send the body as it is")]
    Packed,
    /// The body is not what its content encoding says.
    #[error("the body is not valid {coding}: {reason}")]
    BadEncoding {
        /// The encoding.
        coding: &'static str,
        /// What the decoder said.
        reason: String,
    },
    /// The body did not arrive in time.
    #[error("the body did not arrive within {} s", .0.as_secs_f64())]
    BodyTimeout(Duration),
    /// The body came too slowly.
    #[error("the body came at less than {0} bytes a second")]
    BodyTooSlow(u64),
    /// The body ended early or its framing is broken.
    #[error("the body is incomplete: {0}")]
    BodyBroken(String),
    /// A query parameter has a value that means nothing.
    #[error("query parameter {name} is `{value}`; it must be {allowed}")]
    BadParameter {
        /// The parameter.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        allowed: &'static str,
    },
    /// The query string or a small JSON body cannot be read.
    #[error("{0}")]
    Malformed(String),
    /// The client wants a format that there is none of.
    #[error(
        "results come as application/x-ndjson, application/json, text/csv, \
         application/vnd.apache.arrow.stream or application/vnd.apache.parquet"
    )]
    NotAcceptable,
    /// The route exists, with other methods.
    #[error("this route takes {0} only")]
    Method(&'static str),
    /// There is no such route.
    #[error("there is no {0} here")]
    NotFound(String),
    /// No key, or one that is not known.
    #[error("{0}; send it as `Authorization: Bearer KEY`")]
    Unauthorized(&'static str),
    /// So many wrong keys came from one address that no other is looked at for this time.
    #[error("too many wrong keys came from this address; try again later")]
    WrongKeys(Duration),
    /// A key or its tenant has used up a quota.
    #[error(
        "{} {} in {} s are allowed{}",
        .exceeded.standing.limit,
        .exceeded.of,
        .exceeded.window.as_secs_f64(),
        if .exceeded.retry_after.is_some() { "; try again later" } else { ", and this is more" }
    )]
    Limited {
        /// The quota.
        exceeded: Exceeded,
        /// Events of the request, as far as they are known.
        events: usize,
    },
    /// A profile is being taken.
    #[error("a profile is being taken; there is one at a time")]
    Profiling,
    /// Too many keys wait to be verified.
    #[error("too many keys are being verified; try again")]
    KeysBusy,
    /// A key, a browser on a foreign page or a host name that may not do this.
    #[error("{0}")]
    Forbidden(String),
    /// The ring of this loop has no room at the moment.
    #[error("the ring is full; try again")]
    RingFull,
    /// Too many bodies are being read at the moment.
    #[error("too many request bodies are being read; try again")]
    Crowded,
    /// Events cannot be taken yet, or no more.
    #[error("not accepting events: {0}")]
    NotReady(String),
    /// Events cannot be taken until there is room for them, or the log works again.
    #[error("not accepting events: {reason}")]
    NoRoom {
        /// What is lacking; its name is the code.
        refusal: Refusal,
        /// The same at length.
        reason: String,
    },
    /// The log could not be written.
    #[error("the events could not be made durable and are not stored; try again")]
    NotDurable,
    /// The server is stopping.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// A query failed.
    #[error("{0}")]
    Query(QueryError),
    /// A page of events cannot be read.
    #[error("{0}")]
    List(ListError),
    /// An export was refused.
    #[error("{0}")]
    Export(ExportError),
    /// A range that begins behind the end of its file.
    #[error("the range begins behind the end of the file, which has {length} bytes")]
    RangeBeyond {
        /// Bytes of the file.
        length: u64,
    },
    /// A call of the engine failed.
    #[error("{0}")]
    Engine(Error),
    /// A defect of ours.
    #[error("internal error: {0}")]
    Internal(&'static str),
}

/// How a problem is told to the client.
struct Verdict {
    status: StatusCode,
    code: &'static str,
    /// Seconds after which the same request may be sent again.
    retry_after: Option<u32>,
}

impl Problem {
    /// The one mapping from problems to status codes.
    fn verdict(&self) -> Verdict {
        let (status, code, retry_after) = match self {
            Self::Event(error) => (event_status(error.kind), error.kind.code(), None),
            Self::BodyTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", None),
            Self::NeverFits { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", None),
            Self::UnknownEncoding(_) | Self::Packed => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unknown_encoding", None)
            }
            Self::BadEncoding { .. } => (StatusCode::BAD_REQUEST, "bad_encoding", None),
            Self::BodyTooSlow(_) => (StatusCode::REQUEST_TIMEOUT, "body_too_slow", None),
            Self::BodyTimeout(_) => (StatusCode::REQUEST_TIMEOUT, "body_timeout", None),
            Self::BodyBroken(_) => (StatusCode::BAD_REQUEST, "incomplete_body", None),
            Self::BadParameter { .. } => (StatusCode::BAD_REQUEST, "bad_parameter", None),
            Self::Malformed(_) => (StatusCode::BAD_REQUEST, "malformed", None),
            Self::NotAcceptable => (StatusCode::NOT_ACCEPTABLE, "not_acceptable", None),
            Self::Method(_) => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", None),
            Self::NotFound(_) => (StatusCode::NOT_FOUND, "not_found", None),
            Self::Forbidden(_) => (StatusCode::FORBIDDEN, "forbidden", None),
            Self::Unauthorized(_) => (StatusCode::UNAUTHORIZED, "unauthorized", None),
            Self::WrongKeys(wait) => {
                (StatusCode::TOO_MANY_REQUESTS, "too_many_wrong_keys", Some(seconds(*wait)))
            }
            Self::Limited { exceeded, .. } => match exceeded.retry_after {
                Some(wait) => (StatusCode::TOO_MANY_REQUESTS, "rate_limited", Some(seconds(wait))),
                None => (StatusCode::PAYLOAD_TOO_LARGE, "quota_too_small", None),
            },
            Self::Profiling => (StatusCode::TOO_MANY_REQUESTS, "profiling", Some(PROFILE_SECONDS)),
            Self::KeysBusy => (StatusCode::SERVICE_UNAVAILABLE, "overloaded", Some(1)),
            Self::RingFull => (StatusCode::TOO_MANY_REQUESTS, "ring_full", Some(1)),
            Self::Crowded => (StatusCode::SERVICE_UNAVAILABLE, "overloaded", Some(1)),
            Self::NotReady(_) => (StatusCode::SERVICE_UNAVAILABLE, "not_ready", Some(1)),
            Self::NoRoom { refusal, .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, refusal.name(), Some(NO_ROOM_SECONDS))
            }
            Self::NotDurable => (StatusCode::SERVICE_UNAVAILABLE, "not_durable", Some(1)),
            Self::ShuttingDown => (StatusCode::SERVICE_UNAVAILABLE, "shutting_down", Some(5)),
            Self::Query(error) => query_verdict(error),
            Self::List(error) => list_verdict(error),
            Self::Export(error) => export_verdict(error),
            Self::RangeBeyond { .. } => {
                (StatusCode::RANGE_NOT_SATISFIABLE, "range_not_satisfiable", None)
            }
            Self::Engine(Error::Closed) => {
                (StatusCode::SERVICE_UNAVAILABLE, "shutting_down", Some(5))
            }
            Self::Engine(Error::Crowded { .. }) => {
                (StatusCode::TOO_MANY_REQUESTS, "too_many_waiting", Some(60))
            }
            Self::Engine(Error::Stuck { .. }) => {
                (StatusCode::SERVICE_UNAVAILABLE, "stuck", Some(NO_ROOM_SECONDS))
            }
            Self::Engine(_) | Self::Internal(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "internal", None)
            }
        };
        Verdict { status, code, retry_after }
    }

    /// Under which reason the events of such a request are counted.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::NoRoom { refusal, .. } => return *refusal,
            Self::WrongKeys(_) => return Refusal::Forbidden,
            Self::Limited { .. } => return Refusal::RateLimited,
            _ => {}
        }
        match self.verdict().status {
            StatusCode::PAYLOAD_TOO_LARGE => Refusal::TooLarge,
            StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => Refusal::Forbidden,
            StatusCode::TOO_MANY_REQUESTS => Refusal::RingFull,
            StatusCode::SERVICE_UNAVAILABLE => Refusal::NotReady,
            _ => Refusal::Invalid,
        }
    }

    /// The label of `validation_errors_total`; `None` for refusals that are not the client's doing.
    pub fn validation_code(&self) -> Option<&'static str> {
        let verdict = self.verdict();
        let clients =
            verdict.status.is_client_error() && verdict.status != StatusCode::TOO_MANY_REQUESTS;
        clients.then_some(verdict.code)
    }

    /// The answer's JSON.
    fn json(&self) -> Value {
        let mut error = Map::new();
        error.insert("code".into(), self.verdict().code.into());
        error.insert("message".into(), self.message().into());
        match self {
            Self::Event(event) => {
                if let Some(index) = event.index {
                    error.insert("index".into(), index.into());
                }
                if let Some(field) = &event.field {
                    error.insert("field".into(), field.as_str().into());
                }
            }
            Self::Query(QueryError::Sql { position: Some(position), .. }) => {
                error.insert("position".into(), (*position).into());
            }
            _ => {}
        }
        json!({ "error": error })
    }

    /// The text for the client: failures of ours keep their details for the log.
    fn message(&self) -> String {
        match self {
            Self::Engine(error) if !matches!(error, Error::Closed | Error::Stuck { .. }) => {
                tracing::error!(error = %chain(error), "an engine call failed");
                error.to_string()
            }
            // It may quote rows, which are not for every key.
            Self::Query(QueryError::Failed { .. }) => {
                "the query failed for a reason of the server's own, which its log says".into()
            }
            Self::List(ListError::Failed { .. }) => {
                "the listing failed for a reason of the server's own, which its log says".into()
            }
            _ => self.to_string(),
        }
    }

    /// The answer with `details` beside its `error` object.
    pub fn response_with(&self, details: Value) -> Response {
        self.response(status::with(self.json(), details), Body::from)
    }

    fn response<B>(&self, json: Value, make: impl FnOnce(Bytes) -> B) -> hyper::Response<B> {
        let verdict = self.verdict();
        let mut response = hyper::Response::new(make(json.to_string().into()));
        *response.status_mut() = verdict.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, JSON);
        if let Some(seconds) = verdict.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        match self {
            Self::Method(allowed) => {
                headers.insert(ALLOW, HeaderValue::from_static(allowed));
            }
            Self::Unauthorized(_) => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::Limited { exceeded, .. } => show_quota(headers, exceeded.standing),
            _ => {}
        }
        response
    }

    /// The answer on the ingest path.
    pub fn reply(&self) -> Reply {
        self.response(self.json(), |text| Either::Left(Full::new(text)))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.response(self.json(), Body::from)
    }
}

/// The part of a path that names something.
pub type PathText = Result<Path<String>, PathRejection>;

/// The text of that part; nothing has a name that is none.
///
/// # Errors
/// [`Problem::NotFound`], which says `what` there is not.
pub fn path_text(part: PathText, what: &str) -> Result<String, Problem> {
    part.map(|Path(text)| text).map_err(|_| Problem::NotFound(what.into()))
}

/// Tells how a quota stands.
pub fn show_quota(headers: &mut HeaderMap, standing: Standing) {
    const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
    const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
    const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");
    let Standing { limit, remaining, reset } = standing;
    headers.insert(LIMIT, limit.into());
    headers.insert(REMAINING, remaining.into());
    headers.insert(RESET, seconds(reset).into());
}

/// A time in whole seconds, rounded up, at least one.
fn seconds(time: Duration) -> u32 {
    let whole = time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0));
    u32::try_from(whole).unwrap_or(u32::MAX).max(1)
}

fn event_status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::TooLarge | ErrorKind::TooMany => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorKind::Forbidden => StatusCode::FORBIDDEN,
        _ => StatusCode::BAD_REQUEST,
    }
}

fn query_verdict(error: &QueryError) -> (StatusCode, &'static str, Option<u32>) {
    match error {
        QueryError::Sql { .. } => (StatusCode::BAD_REQUEST, "sql", None),
        QueryError::Forbidden { .. } => (StatusCode::FORBIDDEN, "forbidden", None),
        QueryError::Timeout { .. } => (StatusCode::REQUEST_TIMEOUT, "query_timeout", None),
        QueryError::Busy { .. } => (StatusCode::TOO_MANY_REQUESTS, "too_many_queries", Some(1)),
        QueryError::Damaged { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "damaged_file", None),
        QueryError::Outrun => (StatusCode::SERVICE_UNAVAILABLE, "query_outrun", Some(1)),
        QueryError::NoMemory => (StatusCode::SERVICE_UNAVAILABLE, "no_memory", Some(1)),
        QueryError::NotReady => (StatusCode::SERVICE_UNAVAILABLE, "not_ready", Some(1)),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "query_failed", None),
    }
}

fn list_verdict(error: &ListError) -> (StatusCode, &'static str, Option<u32>) {
    match error {
        ListError::Cursor => (StatusCode::BAD_REQUEST, "bad_cursor", None),
        ListError::Busy { .. } => (StatusCode::TOO_MANY_REQUESTS, "too_many_listings", Some(1)),
        ListError::Followers { .. } => {
            (StatusCode::TOO_MANY_REQUESTS, "too_many_followers", Some(1))
        }
        ListError::Damaged { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "damaged_file", None),
        ListError::NotReady => (StatusCode::SERVICE_UNAVAILABLE, "not_ready", Some(1)),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "listing_failed", None),
    }
}

fn export_verdict(error: &ExportError) -> (StatusCode, &'static str, Option<u32>) {
    match error {
        ExportError::Column { .. } | ExportError::Range => {
            (StatusCode::BAD_REQUEST, "bad_export", None)
        }
        ExportError::Busy { .. } => (StatusCode::TOO_MANY_REQUESTS, "too_many_exports", Some(10)),
        ExportError::Unknown | ExportError::NoFile => (StatusCode::NOT_FOUND, "not_found", None),
        ExportError::NotReady => (StatusCode::SERVICE_UNAVAILABLE, "not_ready", Some(1)),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "export_failed", None),
    }
}

/// An error and its causes as one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

impl From<IngestError> for Problem {
    fn from(error: IngestError) -> Self {
        match error {
            IngestError::Full => Self::RingFull,
            IngestError::TooLarge { len, max } => Self::NeverFits { len, max },
            IngestError::NotReady => Self::NotReady(error.to_string()),
            other => Self::NoRoom { refusal: other.refusal(), reason: other.to_string() },
        }
    }
}

impl From<DecodeError> for Problem {
    fn from(error: DecodeError) -> Self {
        Self::Event(error)
    }
}

/// A whole answer with a body.
pub fn whole(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Reply {
    let mut reply = Reply::new(Either::Left(Full::new(body)));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, content_type);
    reply
}

/// An answer without a body.
pub fn empty(status: StatusCode) -> Reply {
    let mut reply = Reply::new(Either::Left(Full::default()));
    *reply.status_mut() = status;
    reply
}

/// `202 {"accepted":N}`, with `"duplicates":M` when some of the events were known.
pub fn accepted(events: usize, duplicates: usize) -> Reply {
    let body = match (events, duplicates) {
        (1, 0) => Bytes::from_static(b"{\"accepted\":1}"),
        (_, 0) => Bytes::from(format!("{{\"accepted\":{events}}}")),
        _ => Bytes::from(format!("{{\"accepted\":{events},\"duplicates\":{duplicates}}}")),
    };
    whole(StatusCode::ACCEPTED, JSON, body)
}

/// `207` with what was accepted, how much of it was known if any, and what was not accepted.
pub fn partly_accepted(events: usize, duplicates: usize, rejected: &[Rejection]) -> Reply {
    let mut body = json!({ "accepted": events, "rejected": list(rejected) });
    if duplicates > 0 {
        body["duplicates"] = duplicates.into();
    }
    whole(StatusCode::MULTI_STATUS, JSON, body.to_string().into())
}

fn list(rejected: &[Rejection]) -> Vec<Value> {
    rejected.iter().map(|bad| json!({ "index": bad.index, "error": bad.error.message })).collect()
}

/// `200` for an SDK, with what was accepted and what was not, if any. Segment's look for `success`,
/// PostHog's for `status`.
pub fn accepted_for_sdk(events: usize, duplicates: usize, rejected: &[Rejection]) -> Reply {
    let mut body = json!({ "success": true, "status": "Ok", "accepted": events });
    if duplicates > 0 {
        body["duplicates"] = duplicates.into();
    }
    if !rejected.is_empty() {
        body["rejected"] = list(rejected).into();
    }
    whole(StatusCode::OK, JSON, body.to_string().into())
}

/// What becomes of the rest of a request that is answered early: its body is read and thrown away for
/// a while, and the answer is the last of its connection where more of the same is to be expected. What
/// was refused for its key or its options is short as a rule: there the connection goes on.
pub fn let_go(reply: &mut Reply, headers: &HeaderMap, rest: Incoming) {
    let is_coming = !hyper::body::Body::is_end_stream(&rest) && has_begun(reply.status(), headers);
    if !is_coming && !body::needs_draining(&rest, headers) {
        return;
    }
    if matches!(
        reply.status(),
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
    ) {
        reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    tokio::task::spawn_local(body::drain(rest));
}

/// Whether a body that was refused with `status` is on its way for certain, also where the client had to
/// be told to send it: too slow or, without a length, too long it is only once it has begun to come.
fn has_begun(status: StatusCode, headers: &HeaderMap) -> bool {
    match status {
        StatusCode::REQUEST_TIMEOUT => true,
        StatusCode::PAYLOAD_TOO_LARGE => !headers.contains_key(CONTENT_LENGTH),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use super::*;

    fn error_of(problem: &Problem) -> Value {
        problem.json()["error"].take()
    }

    #[test]
    fn what_may_be_tried_again_says_when() {
        for problem in [
            Problem::RingFull,
            Problem::Crowded,
            Problem::NotReady("replaying".into()),
            Problem::NoRoom { refusal: Refusal::DiskFull, reason: "the disk is full".into() },
            Problem::NotDurable,
            Problem::ShuttingDown,
        ] {
            let reply = problem.reply();
            assert!(reply.headers().contains_key(RETRY_AFTER), "{problem}");
            assert!(problem.validation_code().is_none(), "{problem}");
        }
    }

    #[test]
    fn what_is_too_large_states_the_limit() {
        let problem = Problem::BodyTooLarge { limit: 4_194_304 };
        assert_eq!(problem.reply().status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert!(error_of(&problem)["message"].as_str().unwrap().contains("4194304"));
        assert_eq!(problem.refusal(), Refusal::TooLarge);
    }

    #[test]
    fn a_lack_of_room_is_counted_under_its_own_name() {
        let reason = "1 MiB free".to_owned();
        let problem = Problem::NoRoom { refusal: Refusal::DiskFull, reason };
        assert_eq!(problem.reply().status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(problem.reply().headers()[RETRY_AFTER], "5");
        let error = error_of(&problem);
        assert_eq!(error["code"], "disk_full");
        assert!(error["message"].as_str().unwrap().contains("1 MiB free"));
        assert_eq!(problem.refusal(), Refusal::DiskFull);
    }

    #[test]
    fn an_sql_error_keeps_its_position() {
        let error = QueryError::Sql { message: "no such column".into(), position: Some(7) };
        let error = error_of(&Problem::Query(error));
        assert_eq!(error["position"], 7);
        assert_eq!(error["message"], "no such column");
    }

    #[test]
    fn a_wrong_method_names_the_right_ones() {
        let reply = Problem::Method("POST, OPTIONS").reply();
        assert_eq!(reply.headers()[ALLOW], "POST, OPTIONS");
    }
}

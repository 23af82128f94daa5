//! Traces in the form of OpenTelemetry: where the time of a request, or of a piece of background work,
//! went.
//!
//! | module | is |
//! |---|---|
//! | [`parent`] | what a request's `traceparent` says |
//! | [`recorder`] | which requests of a serving loop have a trace, and which one is worked on |
//! | [`request`] | the trace of one request |
//! | [`work`] | the spans of the engine's background work |
//! | [`export`] | the way to the collector |
//!
//! **Guarantees.** Nothing ever waits for the collector. A span holds method, route, status and times,
//! that of background work also counts and names of our own: never a key, a body, a query string, an
//! address or anything else that a client sent.
//!
//! **Roles.** Serving loops and the engine's threads finish traces; one task of the control runtime
//! sends them.
//!
//! **Limits.** [`QUEUE_MAX`] traces wait to be sent, each of [`request::STAGES_MAX`] spans and one; what
//! comes above is dropped and counted.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::{Span, Status, status};
use tokio::sync::mpsc;

use crate::config::TracesConfig;
use export::Exporter;

pub mod export;
mod parent;
mod recorder;
mod request;
pub mod work;

pub use recorder::Recorder;
pub use request::{Stage, Trace, stage};

/// Traces that wait for the next look of the exporter, a second away: at about 2 KB each what they
/// take is small beside one body.
const QUEUE_MAX: usize = 1_024;

/// Where finished traces go.
#[derive(Debug)]
pub struct Tracer {
    /// A request has a trace when its random number is not above this; none has without.
    threshold: Option<u64>,
    queue: mpsc::Sender<Vec<Span>>,
    /// Spans that the collector has taken. Written by the exporter.
    pub sent: AtomicU64,
    /// Spans that nobody will see. Written by whoever drops them.
    pub dropped: AtomicU64,
}

/// What there is when traces are on.
///
/// # Errors
/// A [`crate::UsageError`] for a URL that no collector can have.
pub fn start(config: &TracesConfig) -> anyhow::Result<Option<(Arc<Tracer>, Exporter)>> {
    let Some(url) = &config.url else { return Ok(None) };
    let (tracer, queue) = Tracer::new(config.sample);
    let tracer = Arc::new(tracer);
    let exporter = Exporter::new(url, Arc::clone(&tracer), queue).context("no traces")?;
    Ok(Some((tracer, exporter)))
}

impl Tracer {
    /// A tracer that takes the part `sample` of the requests, and what comes out of its queue.
    fn new(sample: f64) -> (Self, mpsc::Receiver<Vec<Span>>) {
        let (queue, spans) = mpsc::channel(QUEUE_MAX);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and 1, and the cast saturates"
        )]
        let threshold = (sample > 0.0).then_some((sample * u64::MAX as f64) as u64);
        (Self { threshold, queue, sent: AtomicU64::new(0), dropped: AtomicU64::new(0) }, spans)
    }

    /// Hands a finished trace to the exporter. Never waits.
    fn submit(&self, spans: Vec<Span>) {
        let count = spans.len();
        if self.queue.try_send(spans).is_err() {
            self.drop_spans(count);
        }
    }

    fn drop_spans(&self, count: usize) {
        // Relaxed: statistics.
        self.dropped.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// When something began, by both clocks: the times within it cannot run backwards.
#[derive(Debug, Clone, Copy)]
struct Clock {
    began: Instant,
    unix_nanos: u64,
}

impl Clock {
    fn start() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix_nanos = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        Self { began: Instant::now(), unix_nanos }
    }

    /// `moment` in nanoseconds since 1970.
    fn at(self, moment: Instant) -> u64 {
        let since = moment.saturating_duration_since(self.began).as_nanos();
        self.unix_nanos.saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    }
}

/// 64 random bits, not all zero: good enough for ids and lots, not for secrets.
fn random() -> u64 {
    // The standard library keys each of these hashers anew.
    RandomState::new().build_hasher().finish().max(1)
}

fn random_trace_id() -> [u8; 16] {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&random().to_be_bytes());
    id[8..].copy_from_slice(&random().to_be_bytes());
    id
}

fn random_span_id() -> [u8; 8] {
    random().to_be_bytes()
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..<_>::default() }
}

fn failed(message: String) -> Option<Status> {
    Some(Status { message, code: status::StatusCode::Error.into() })
}

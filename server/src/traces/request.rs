//! The trace of one request: a span for all of it, and one inside for each of its stages.
//!
//! **Roles.** Whoever works on the request notes stages; the trace is finished when the last one lets
//! go of it: a query's when its last row has been sent.
//!
//! **Limits.** [`STAGES_MAX`] stages; those above are left out.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use hyper::{Method, StatusCode};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use super::parent::Parent;
use super::{Clock, Tracer, attribute, failed, random_span_id, random_trace_id, text};

/// Stages of one request: an ordinary one has five, one that waits for its ring some more.
pub const STAGES_MAX: usize = 24;

/// Flags of a span: it is sampled, and whether its parent is elsewhere is said.
const SAMPLED: u32 = 0x101;
/// The parent is elsewhere.
const REMOTE: u32 = 0x200;

/// A request that is being traced.
#[derive(Debug)]
pub struct Trace {
    tracer: Arc<Tracer>,
    clock: Clock,
    trace_id: [u8; 16],
    span_id: [u8; 8],
    /// The client's span.
    parent: Option<[u8; 8]>,
    method: &'static str,
    told: Mutex<Told>,
}

/// What is learnt on the way.
#[derive(Debug, Default)]
struct Told {
    route: Option<String>,
    status: Option<StatusCode>,
    stages: Vec<(&'static str, Instant, Instant)>,
}

impl Trace {
    /// A trace that begins now, in that of `parent` if there is one.
    pub fn start(tracer: Arc<Tracer>, parent: Option<Parent>, method: &Method) -> Self {
        Self {
            tracer,
            clock: Clock::start(),
            trace_id: parent.map_or_else(random_trace_id, |parent| parent.trace_id),
            span_id: random_span_id(),
            parent: parent.map(|parent| parent.span_id),
            method: name_of(method),
            told: Mutex::default(),
        }
    }

    /// Notes the route, with its variable parts in braces: no text of the client's.
    pub fn set_route(&self, route: &str) {
        self.told().route = Some(route.to_owned());
    }

    /// Notes the answer's status.
    pub fn set_status(&self, status: StatusCode) {
        self.told().status = Some(status);
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end_stage(&self, name: &'static str, began: Instant) {
        let mut told = self.told();
        if told.stages.len() < STAGES_MAX {
            told.stages.push((name, began, Instant::now()));
        }
    }

    fn root(&self, told: &Told) -> Span {
        let mut attributes = vec![text("http.request.method", self.method)];
        attributes.extend(told.route.as_deref().map(|route| text("http.route", route)));
        attributes.extend(told.status.map(|status| {
            attribute("http.response.status_code", Value::IntValue(status.as_u16().into()))
        }));
        Span {
            trace_id: self.trace_id.into(),
            span_id: self.span_id.into(),
            parent_span_id: self.parent.map(Vec::from).unwrap_or_default(),
            flags: if self.parent.is_some() { SAMPLED | REMOTE } else { SAMPLED },
            name: match &told.route {
                Some(route) => format!("{} {route}", self.method),
                None => self.method.to_owned(),
            },
            kind: SpanKind::Server.into(),
            start_time_unix_nano: self.clock.unix_nanos,
            end_time_unix_nano: self.clock.at(Instant::now()),
            attributes,
            status: match told.status {
                Some(status) if status.is_server_error() => failed(String::new()),
                _ => None,
            },
            ..Span::default()
        }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let told = std::mem::take(&mut *self.told());
        let mut spans = vec![self.root(&told)];
        spans.extend(told.stages.into_iter().map(|(name, began, ended)| Span {
            trace_id: self.trace_id.into(),
            span_id: random_span_id().into(),
            parent_span_id: self.span_id.into(),
            flags: SAMPLED,
            name: name.to_owned(),
            kind: SpanKind::Internal.into(),
            start_time_unix_nano: self.clock.at(began),
            end_time_unix_nano: self.clock.at(ended),
            ..Span::default()
        }));
        self.tracer.submit(spans);
    }
}

/// A stage of a request; it ends when this is dropped. Boxed: every request's future has room for some.
#[derive(Debug)]
#[must_use]
pub struct Stage(Box<Begun>);

#[derive(Debug)]
struct Begun {
    trace: Arc<Trace>,
    name: &'static str,
    at: Instant,
}

/// The stage `name` of `trace`, if there is one; it begins now.
pub fn stage(trace: Option<&Arc<Trace>>, name: &'static str) -> Option<Stage> {
    let trace = Arc::clone(trace?);
    Some(Stage(Box::new(Begun { trace, name, at: Instant::now() })))
}

impl Drop for Stage {
    fn drop(&mut self) {
        let Begun { trace, name, at } = &*self.0;
        trace.end_stage(name, *at);
    }
}

/// The name of a method; others than the usual ones are a client's text.
fn name_of(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        Method::OPTIONS => "OPTIONS",
        _ => "_OTHER",
    }
}

//! The spans of background work: rolls, compactions, erasures and exports, each a trace of its own.
//!
//! The engine marks them with the crate `tracing`; without a collector that costs one look at a flag.
//! They are rare, so all of them are kept.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use super::{Clock, Tracer, attribute, failed, random_span_id, random_trace_id, text};

/// The field that says why the work failed.
const ERROR: &str = "error";
/// Longest text of a field.
const TEXT_MAX_CHARS: usize = 256;

/// Hands the engine's spans to `tracer`.
pub fn layer<S>(tracer: Arc<Tracer>) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let ours = filter_fn(|metadata| {
        metadata.is_span()
            && metadata.target() == ringlake_engine::WORK
            && *metadata.level() <= Level::INFO
    });
    Work(tracer).with_filter(ours.with_max_level_hint(LevelFilter::INFO))
}

struct Work(Arc<Tracer>);

/// A piece of work that has begun.
struct Piece {
    clock: Clock,
    attributes: Vec<KeyValue>,
    error: Option<String>,
}

impl<S> Layer<S> for Work
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut piece = Piece { clock: Clock::start(), attributes: Vec::new(), error: None };
        attributes.record(&mut piece);
        span.extensions_mut().insert(piece);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(piece) = span.extensions_mut().get_mut::<Piece>() {
            values.record(piece);
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        let Some(piece) = span.extensions_mut().remove::<Piece>() else { return };
        self.0.submit(vec![Span {
            trace_id: random_trace_id().into(),
            span_id: random_span_id().into(),
            flags: 1,
            name: span.name().to_owned(),
            kind: SpanKind::Internal.into(),
            start_time_unix_nano: piece.clock.unix_nanos,
            end_time_unix_nano: piece.clock.at(Instant::now()),
            attributes: piece.attributes,
            status: piece.error.and_then(failed),
            ..Span::default()
        }]);
    }
}

impl Piece {
    fn add(&mut self, field: &Field, value: Value) {
        self.attributes.push(attribute(&format!("ringlake.{}", field.name()), value));
    }
}

impl Visit for Piece {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, Value::IntValue(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let value: String = value.chars().take(TEXT_MAX_CHARS).collect();
        if field.name() == ERROR {
            self.error = Some(value);
        } else {
            self.attributes.push(text(&format!("ringlake.{}", field.name()), &value));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use ringlake_engine::WORK;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn work_becomes_a_trace_of_its_own_and_nothing_else_does() {
        let (tracer, mut queue) = Tracer::new(0.0);
        let subscriber = tracing_subscriber::registry().with(layer(Arc::new(tracer)));
        tracing::subscriber::with_default(subscriber, || {
            let error = tracing::field::Empty;
            let roll = tracing::info_span!(target: WORK, "roll", rows = 7, table = "hot_1", error);
            assert!(queue.try_recv().is_err());
            roll.record("error", "no space is left");
            drop(roll);
            drop(tracing::info_span!("of a library"));
            drop(tracing::debug_span!(target: WORK, "small"));
        });
        let [span] = queue.try_recv().unwrap().try_into().unwrap();
        assert_eq!((span.name.as_str(), span.parent_span_id.len()), ("roll", 0));
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
        let rows = attribute("ringlake.rows", Value::IntValue(7));
        assert_eq!(span.attributes, [rows, text("ringlake.table", "hot_1")]);
        assert_eq!(span.status, failed("no space is left".into()));
        assert!(queue.try_recv().is_err());
    }
}

//! OpenTelemetry logs, in JSON or protobuf, read into the event model.
//!
//! **Guarantees.** A log record is found good or bad by itself; the bad ones are reported and left
//! out, as OTLP's `partial_success` wants it. A body that cannot be read is refused whole.
//!
//! **Algorithm.** The lists around the records (`resourceLogs`, `scopeLogs`) are walked as bytes, and
//! each record is read with the types of `opentelemetry-proto` on its own and dropped again: a body
//! of four million bytes can spell two million records, each a hundred times larger in memory.
//!
//! **Limits.** [`Limits`] for each record, counted in what is stored of it as well as in what was
//! sent; the request's events take at most the bytes that the caller says, because what is said
//! once of a resource is stored with each of its records. Values nest as deeply as the parsers let
//! them: 100 messages in protobuf, 128 levels in JSON.
//!
//! **Not guaranteed.** That a retry is recognised: OTLP has no ids. A record with the attribute
//! `log.record.uid` has one.
//!
//! # What becomes of a record (`source` is `otlp`)
//!
//! | field | column |
//! |---|---|
//! | | `type` is log |
//! | `eventName`, or else the attribute `event.name` | `event` |
//! | `timeUnixNano`, or else `observedTimeUnixNano` | `timestamp` |
//! | `body` | `properties.body`, as plain JSON |
//! | `severityText`, `severityNumber`, `traceId`, `spanId`, `flags` | `properties`, unless empty |
//! | `attributes` | `properties.attributes`, an object; of equal keys the first counts |
//! | the attribute `log.record.uid` | `message_id` |
//! | the attributes `user.id` or else `enduser.id`, `session.id` | `user_id`, `session_id` |
//! | the attributes `url.full`, `user_agent.original` | `url`, `user_agent` |
//! | the resource's attributes | `context.resource` |
//! | the scope's name, version and attributes | `context.scope` |

#![forbid(unsafe_code)]

mod walk;

mod write;

use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message;
use ringlake_event::{
    Assembly, DecodeError, ErrorKind, Fields, Limits, QUOTE_MAX_CHARS, Rejection, Request,
};

/// How a body is written, and its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// OTLP's JSON.
    Json,
    /// OTLP's protobuf.
    Protobuf,
}

impl Encoding {
    /// The encoding of a body: what its content type says when that is one of the two, otherwise
    /// what its first byte says. (The bytes alone do not tell: a newline is also a field's number.)
    #[must_use]
    pub fn of(content_type: &[u8], body: &[u8]) -> Encoding {
        let is = |name: &[u8]| {
            content_type.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
        };
        if is(b"application/json") {
            Encoding::Json
        } else if is(b"application/x-protobuf") || is(b"application/protobuf") {
            Encoding::Protobuf
        } else if body.trim_ascii_start().first() == Some(&b'{') && body.first() != Some(&b'\n') {
            Encoding::Json
        } else {
            Encoding::Protobuf
        }
    }

    /// The content type of an answer.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Encoding::Json => "application/json",
            Encoding::Protobuf => "application/x-protobuf",
        }
    }

    /// The body of the answer to a request of which `rejected` was left out.
    #[must_use]
    pub fn answer(self, rejected: &[Rejection]) -> Vec<u8> {
        let partial_success = rejected.first().map(|first| ExportLogsPartialSuccess {
            rejected_log_records: i64::try_from(rejected.len()).unwrap_or(i64::MAX),
            error_message: first.error.to_string(),
        });
        match self {
            Encoding::Protobuf => ExportLogsServiceResponse { partial_success }.encode_to_vec(),
            Encoding::Json => match partial_success {
                None => b"{}".to_vec(),
                Some(partial) => serde_json::json!({ "partialSuccess": {
                    "rejectedLogRecords": partial.rejected_log_records.to_string(),
                    "errorMessage": partial.error_message,
                } })
                .to_string()
                .into_bytes(),
            },
        }
    }
}

/// Reads a body and adds its log records to `record`, which is empty; gives those that were left
/// out.
///
/// # Errors
///
/// [`DecodeError`] when the request is refused as a whole: it cannot be read, or holds too much.
pub fn decode(
    body: &[u8],
    encoding: Encoding,
    request: &Request<'_>,
    limits: &Limits,
    record_max_bytes: usize,
    record: &mut Assembly,
) -> Result<Vec<Rejection>, DecodeError> {
    let mut run = Run {
        request,
        limits,
        record_max_bytes,
        record,
        index: 0,
        rejected: Vec::new(),
        properties: Vec::new(),
    };
    match encoding {
        Encoding::Json => walk::json(body, &mut run)?,
        Encoding::Protobuf => walk::protobuf(body, &mut run)?,
    }
    Ok(run.rejected)
}

/// One body being decoded.
struct Run<'a> {
    request: &'a Request<'a>,
    limits: &'a Limits,
    record_max_bytes: usize,
    record: &'a mut Assembly,
    /// Which record is being read, counted from 0.
    index: usize,
    rejected: Vec<Rejection>,
    /// Scratch.
    properties: Vec<u8>,
}

impl Run<'_> {
    /// Refuses the whole request.
    fn fail(&self, kind: ErrorKind, message: String) -> DecodeError {
        DecodeError { kind, index: None, field: None, message, events_seen: self.index.max(1) }
    }

    /// The body is not what its encoding says.
    fn unreadable(&self, reason: &dyn std::fmt::Display) -> DecodeError {
        self.fail(ErrorKind::NotJson, format!("the body is not OTLP: {}", cut(reason)))
    }

    /// Takes a record of `sent` bytes, or the reason for which it cannot be read.
    fn take(
        &mut self,
        parsed: Result<LogRecord, String>,
        sent: usize,
        context: Option<&str>,
    ) -> Result<(), DecodeError> {
        if self.index >= self.limits.events_max {
            let message = format!("a request holds at most {} events", self.limits.events_max);
            return Err(self.fail(ErrorKind::TooMany, message));
        }
        let added = match parsed {
            Ok(log) => self.add(&log, sent, context),
            Err(reason) => Err((ErrorKind::Shape, format!("not a log record: {reason}"))),
        };
        if let Err((kind, message)) = added {
            let (index, events_seen) = (Some(self.index), self.index + 1);
            let error = DecodeError { kind, index, field: None, message, events_seen };
            self.rejected.push(Rejection { index: self.index, error });
        }
        self.index += 1;
        let max = self.record_max_bytes;
        if self.record.len() > max {
            let message = format!("the request's events take more than {max} bytes");
            return Err(self.fail(ErrorKind::TooLarge, message));
        }
        Ok(())
    }

    fn add(
        &mut self,
        log: &LogRecord,
        sent: usize,
        context: Option<&str>,
    ) -> Result<(), (ErrorKind, String)> {
        self.properties.clear();
        write::properties(log, &mut self.properties);
        let stored = self.properties.len() + context.map_or(0, str::len);
        let (length, limit) = (stored.max(sent), self.limits.event_max_bytes);
        if length > limit {
            let message =
                format!("an event of {length} bytes is larger than the limit of {limit} bytes");
            return Err((ErrorKind::TooLarge, message));
        }
        let attribute = |name: &str| write::text_of(&log.attributes, name);
        let event = Some(log.event_name.as_str()).filter(|name| !name.is_empty());
        let nanos = match log.time_unix_nano {
            0 => log.observed_time_unix_nano,
            nanos => nanos,
        };
        let fields = Fields {
            message_id: attribute("log.record.uid"),
            kind: Some("log"),
            event: event.or_else(|| attribute("event.name")),
            user_id: attribute("user.id").or_else(|| attribute("enduser.id")),
            session_id: attribute("session.id"),
            url: attribute("url.full"),
            user_agent: attribute("user_agent.original"),
            // It was written from texts.
            properties: str::from_utf8(&self.properties).ok(),
            context,
            // The largest lies in the year 2554.
            timestamp: (nanos > 0).then(|| i64::try_from(nanos / 1_000).unwrap_or(i64::MAX)),
            ..Fields::default()
        };
        self.record.push(self.request, &fields);
        Ok(())
    }
}

/// The text of an error, not all of it when it is long.
fn cut(reason: &dyn std::fmt::Display) -> String {
    reason.to_string().chars().take(2 * QUOTE_MAX_CHARS).collect()
}

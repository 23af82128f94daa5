//! The way to the log records: lists in lists, in either encoding.
//!
//! A resource is said once and may stand behind its records, so that each level is looked through
//! twice: first for what it says, then for what it holds.

use std::fmt;
use std::marker::PhantomData;

use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use ringlake_event::{DecodeError, ErrorKind};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::{Run, cut, write};

/// Longest list of resources, scopes or records that is held while it is walked: 16 bytes each.
const LIST_MAX: usize = 65_536;

/// Walks a body in protobuf.
pub(crate) fn protobuf(body: &[u8], run: &mut Run<'_>) -> Result<(), DecodeError> {
    for field in messages(body) {
        // ExportLogsServiceRequest.resource_logs
        let (1, resource_logs) = field.map_err(|reason| run.unreadable(&reason))? else { continue };
        // ResourceLogs.resource and .scope_logs
        let resource = said::<Resource>(resource_logs, run)?;
        for field in messages(resource_logs) {
            let (2, scope_logs) = field.map_err(|reason| run.unreadable(&reason))? else {
                continue;
            };
            // ScopeLogs.scope and .log_records
            let scope = said::<InstrumentationScope>(scope_logs, run)?;
            let context = write::context(resource.as_ref(), scope.as_ref());
            for field in messages(scope_logs) {
                let (2, log) = field.map_err(|reason| run.unreadable(&reason))? else { continue };
                // Not even looked at when it is too large to be kept.
                let small = log.len() <= run.limits.event_max_bytes;
                let bytes = if small { log } else { &[] };
                let parsed = LogRecord::decode(bytes).map_err(|error| cut(&error));
                run.take(parsed, log.len(), context.as_deref())?;
            }
        }
    }
    Ok(())
}

/// What field 1 of a message says.
fn said<T: Message + Default>(message: &[u8], run: &Run<'_>) -> Result<Option<T>, DecodeError> {
    let mut said = None;
    for field in messages(message) {
        let (1, bytes) = field.map_err(|reason| run.unreadable(&reason))? else { continue };
        check_size(bytes.len(), run)?;
        said = Some(T::decode(bytes).map_err(|error| run.unreadable(&error))?);
    }
    Ok(said)
}

/// Refuses a resource or scope that would not fit an event.
fn check_size(len: usize, run: &Run<'_>) -> Result<(), DecodeError> {
    let limit = run.limits.event_max_bytes;
    if len <= limit {
        return Ok(());
    }
    let message = format!("a resource or scope of {len} bytes is over the limit of {limit} bytes");
    Err(run.fail(ErrorKind::TooLarge, message))
}

/// The fields of a message that are messages themselves; others have no bytes here.
fn messages(message: &[u8]) -> impl Iterator<Item = Result<(u32, &[u8]), String>> {
    let mut rest = message;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let field = next_field(&mut rest);
        if field.is_err() {
            rest = &[];
        }
        Some(field.map_err(|error| cut(&error)))
    })
}

fn next_field<'a>(rest: &mut &'a [u8]) -> Result<(u32, &'a [u8]), String> {
    let (tag, wire_type) = decode_key(rest).map_err(|error| error.to_string())?;
    if wire_type != WireType::LengthDelimited {
        skip_field(wire_type, tag, rest, DecodeContext::default())
            .map_err(|error| error.to_string())?;
        // No field has the number 0.
        return Ok((0, &[]));
    }
    let length = decode_varint(rest).map_err(|error| error.to_string())?;
    let length = usize::try_from(length).map_err(|error| error.to_string())?;
    let (field, after) = rest.split_at_checked(length).ok_or("a field is cut short")?;
    *rest = after;
    Ok((tag, field))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ExportLogs<'a> {
    #[serde(borrow, default)]
    resource_logs: List<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourceLogs<'a> {
    #[serde(borrow, default)]
    resource: Option<&'a RawValue>,
    #[serde(borrow, default)]
    scope_logs: List<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ScopeLogs<'a> {
    #[serde(borrow, default)]
    scope: Option<&'a RawValue>,
    #[serde(borrow, default)]
    log_records: List<'a>,
}

/// Values that have not been read yet; null is the empty list.
#[derive(Default)]
struct List<'a>(Vec<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for List<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ListVisitor(PhantomData))
    }
}

struct ListVisitor<'a>(PhantomData<&'a ()>);

impl<'de: 'a, 'a> Visitor<'de> for ListVisitor<'a> {
    type Value = List<'a>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "a list of at most {LIST_MAX} values")
    }

    fn visit_unit<E>(self) -> Result<List<'a>, E> {
        Ok(List::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<List<'a>, A::Error> {
        let mut values = Vec::new();
        while values.len() < LIST_MAX {
            match sequence.next_element()? {
                Some(value) => values.push(value),
                None => return Ok(List(values)),
            }
        }
        match sequence.next_element::<IgnoredAny>()? {
            None => Ok(List(values)),
            Some(_) => Err(serde::de::Error::invalid_length(LIST_MAX + 1, &self)),
        }
    }
}

/// Walks a body in JSON.
pub(crate) fn json(body: &[u8], run: &mut Run<'_>) -> Result<(), DecodeError> {
    let export: ExportLogs<'_> =
        serde_json::from_slice(body).map_err(|error| run.unreadable(&error))?;
    for resource_logs in export.resource_logs.0 {
        let resource_logs: ResourceLogs<'_> =
            serde_json::from_str(resource_logs.get()).map_err(|error| run.unreadable(&error))?;
        let resource = said_in_json::<Resource>(resource_logs.resource, run)?;
        for scope_logs in resource_logs.scope_logs.0 {
            let scope_logs: ScopeLogs<'_> =
                serde_json::from_str(scope_logs.get()).map_err(|error| run.unreadable(&error))?;
            let scope = said_in_json::<InstrumentationScope>(scope_logs.scope, run)?;
            let context = write::context(resource.as_ref(), scope.as_ref());
            for log in scope_logs.log_records.0 {
                let text = log.get();
                // Not even looked at when it is too large to be kept.
                let small = text.len() <= run.limits.event_max_bytes;
                let bytes = if small { text } else { "{}" };
                let parsed = serde_json::from_str(bytes).map_err(|error| cut(&error));
                run.take(parsed, text.len(), context.as_deref())?;
            }
        }
    }
    Ok(())
}

fn said_in_json<T: DeserializeOwned>(
    said: Option<&RawValue>,
    run: &Run<'_>,
) -> Result<Option<T>, DecodeError> {
    let Some(said) = said else { return Ok(None) };
    check_size(said.get().len(), run)?;
    serde_json::from_str(said.get()).map_err(|error| run.unreadable(&error))
}

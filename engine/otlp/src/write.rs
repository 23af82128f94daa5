//! OTLP's values as plain JSON.

use std::collections::HashSet;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::resource::v1::Resource;
use ringlake_event::write::{Object, float, hex, number, text};

/// Appends the `properties` of a record.
pub(crate) fn properties(log: &LogRecord, out: &mut Vec<u8>) {
    let mut object = Object::open(out);
    if let Some(body) = &log.body {
        value(body, object.member("body"));
    }
    if !log.severity_text.is_empty() {
        text(&log.severity_text, object.member("severityText"));
    }
    if log.severity_number != 0 {
        number(log.severity_number, object.member("severityNumber"));
    }
    if !log.trace_id.is_empty() {
        hex(&log.trace_id, object.member("traceId"));
    }
    if !log.span_id.is_empty() {
        hex(&log.span_id, object.member("spanId"));
    }
    if log.flags != 0 {
        number(log.flags, object.member("flags"));
    }
    if !log.attributes.is_empty() {
        attributes(&log.attributes, object.member("attributes"));
    }
    object.close();
}

/// The `context` of the records of a scope, if there is anything to say.
pub(crate) fn context(
    resource: Option<&Resource>,
    scope: Option<&InstrumentationScope>,
) -> Option<String> {
    let resource = resource.map(|resource| resource.attributes.as_slice()).unwrap_or_default();
    let scope = scope.filter(|scope| **scope != InstrumentationScope::default());
    if resource.is_empty() && scope.is_none() {
        return None;
    }
    let mut out = Vec::new();
    let mut object = Object::open(&mut out);
    if !resource.is_empty() {
        attributes(resource, object.member("resource"));
    }
    if let Some(scope) = scope {
        let mut inner = Object::open(object.member("scope"));
        if !scope.name.is_empty() {
            text(&scope.name, inner.member("name"));
        }
        if !scope.version.is_empty() {
            text(&scope.version, inner.member("version"));
        }
        if !scope.attributes.is_empty() {
            attributes(&scope.attributes, inner.member("attributes"));
        }
        inner.close();
    }
    object.close();
    String::from_utf8(out).ok()
}

/// The attribute `name` when it is a text that says something.
pub(crate) fn text_of<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a str> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) if !text.is_empty() => Some(text),
        _ => None,
    }
}

/// Attributes as an object; of equal keys the first counts.
fn attributes(attributes: &[KeyValue], out: &mut Vec<u8>) {
    let mut seen = HashSet::with_capacity(attributes.len());
    let mut object = Object::open(out);
    for attribute in attributes {
        if seen.insert(attribute.key.as_str()) {
            let out = object.member(&attribute.key);
            match &attribute.value {
                Some(found) => value(found, out),
                None => out.extend_from_slice(b"null"),
            }
        }
    }
    object.close();
}

fn value(any: &AnyValue, out: &mut Vec<u8>) {
    match &any.value {
        Some(Value::StringValue(found)) => text(found, out),
        Some(Value::BoolValue(found)) => number(found, out),
        Some(Value::IntValue(found)) => number(found, out),
        // What JSON has no number for OTLP's own JSON writes as a string, too.
        Some(Value::DoubleValue(found)) => float(*found, out),
        Some(Value::BytesValue(found)) => hex(found, out),
        Some(Value::ArrayValue(array)) => {
            out.push(b'[');
            for (place, found) in array.values.iter().enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                value(found, out);
            }
            out.push(b']');
        }
        Some(Value::KvlistValue(list)) => attributes(&list.values, out),
        Some(Value::StringValueStrindex(_)) | None => out.extend_from_slice(b"null"),
    }
}

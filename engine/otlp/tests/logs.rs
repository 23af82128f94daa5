//! Log records in both encodings: the same events, the same refusals.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use proptest::prelude::*;
use prost::Message;
use ringlake_event::{
    Assembly, DecodeError, ErrorKind, Event, Limits, Record, Rejection, Request, Source, Tenant,
};
use ringlake_otlp::{Encoding, decode};
use serde_json::{Value, json};

const REQUEST: Request<'static> = Request {
    received_at: 1_795_286_700_000_000,
    source: Source::Otlp,
    tenant: Tenant::Open,
    correct_clock: true,
    sender: None,
};
const RECORD_MAX: usize = 1 << 20;

struct Outcome {
    record: Vec<u8>,
    rejected: Vec<Rejection>,
}

impl Outcome {
    fn events(&self) -> Vec<Event<'_>> {
        match self.record.is_empty() {
            true => Vec::new(),
            false => Record::parse(&self.record).unwrap().iter().collect(),
        }
    }
}

fn decode_with(
    body: &[u8],
    encoding: Encoding,
    limits: &Limits,
    record_max: usize,
) -> Result<Outcome, DecodeError> {
    let mut assembly = Assembly::new();
    let rejected = decode(body, encoding, &REQUEST, limits, record_max, &mut assembly)?;
    let mut record = vec![0; assembly.record_len(&REQUEST)];
    let len = assembly.write(&REQUEST, &mut record);
    record.truncate(len);
    let outcome = Outcome { record, rejected };
    for event in outcome.events() {
        for text in [event.properties, event.context].into_iter().flatten() {
            assert!(serde_json::from_str::<Value>(text).unwrap().is_object(), "{text}");
        }
    }
    Ok(outcome)
}

/// Decodes a body of JSON as it is and as protobuf; both must say the same.
fn decode_both(body: &Value) -> Outcome {
    let limits = Limits::default();
    let request: ExportLogsServiceRequest = serde_json::from_value(body.clone()).unwrap();
    let protobuf = request.encode_to_vec();
    let one = decode_with(&protobuf, Encoding::Protobuf, &limits, RECORD_MAX).unwrap();
    let text = body.to_string();
    let other = decode_with(text.as_bytes(), Encoding::Json, &limits, RECORD_MAX).unwrap();
    assert_eq!(one.events(), other.events());
    assert_eq!(one.rejected, other.rejected);
    other
}

fn export(records: Value) -> Value {
    json!({"resourceLogs":[{"scopeLogs":[{"logRecords":records}]}]})
}

fn object(text: Option<&str>) -> Value {
    serde_json::from_str(text.unwrap()).unwrap()
}

#[test]
fn a_record_becomes_an_event_of_type_log() {
    let body = json!({"resourceLogs":[{
        "resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}]},
        "scopeLogs":[{
            "scope":{"name":"lib","version":"1.0"},
            "logRecords":[{
                "timeUnixNano":"1795286693848000999","observedTimeUnixNano":"1795286694000000000",
                "severityNumber":9,"severityText":"INFO","body":{"stringValue":"hello \"you\""},
                "eventName":"my.event","flags":1,
                "traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174",
                "attributes":[
                    {"key":"a","value":{"intValue":"-7"}},
                    {"key":"b","value":{"arrayValue":{"values":[{"doubleValue":1.5},{"stringValue":"ü"}]}}},
                    {"key":"c","value":{"kvlistValue":{"values":[{"key":"d","value":{"boolValue":true}}]}}},
                    {"key":"bytes","value":{"bytesValue":"AP8="}},
                    {"key":"a","value":{"stringValue":"again"}},
                    {"key":"none","value":{}},
                    {"key":"user.id","value":{"stringValue":"u1"}},
                    {"key":"session.id","value":{"stringValue":"s1"}},
                    {"key":"log.record.uid","value":{"stringValue":"id-1"}},
                    {"key":"url.full","value":{"stringValue":"https://e.x/"}}
                ]
            },{"observedTimeUnixNano":"1795286694000000000","body":{"intValue":3}}]
        }]
    }]});
    let outcome = decode_both(&body);
    assert_eq!(outcome.rejected, []);
    let events = outcome.events();
    let log = events[0];
    assert_eq!((log.kind, log.event), ("log", Some("my.event")));
    assert_eq!(log.timestamp, 1_795_286_693_848_000);
    assert_eq!((log.user_id, log.session_id), (Some("u1"), Some("s1")));
    assert_eq!((log.message_id, log.url), (Some("id-1"), Some("https://e.x/")));
    let properties = object(log.properties);
    assert_eq!(properties["body"], "hello \"you\"");
    assert_eq!(
        (&properties["severityText"], &properties["severityNumber"]),
        (&json!("INFO"), &json!(9))
    );
    assert_eq!(properties["traceId"], "5b8efff798038103d269b633813fc60c");
    assert_eq!(properties["spanId"], "eee19b7ec3c1b174");
    let attributes = &properties["attributes"];
    assert_eq!((&attributes["a"], &attributes["b"]), (&json!(-7), &json!([1.5, "ü"])));
    assert_eq!((&attributes["c"], &attributes["none"]), (&json!({"d":true}), &Value::Null));
    assert_eq!(attributes["bytes"], "00ff");
    let context =
        json!({"resource":{"service.name":"shop"},"scope":{"name":"lib","version":"1.0"}});
    assert_eq!(object(log.context), context);
    let second = events[1];
    assert_eq!((second.event, second.timestamp), (None, 1_795_286_694_000_000));
    assert_eq!(object(second.properties), json!({"body":3}));
    assert_eq!(object(second.context), context);
}

#[test]
fn what_is_said_behind_the_records_counts_too() {
    let body = br#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"x"}}],
        "scope":{"name":"s"}}],"resource":{"attributes":[{"key":"k","value":{"intValue":1}}]}}]}"#;
    let outcome = decode_with(body, Encoding::Json, &Limits::default(), RECORD_MAX).unwrap();
    let context = object(outcome.events()[0].context);
    assert_eq!(context, json!({"resource":{"k":1},"scope":{"name":"s"}}));
}

#[test]
fn nothing_is_nothing() {
    let limits = Limits::default();
    assert!(decode_with(b"", Encoding::Protobuf, &limits, 0).unwrap().events().is_empty());
    for body in ["{}", r#"{"resourceLogs":null}"#, r#"{"resourceLogs":[{"scopeLogs":[{}]}]}"#] {
        let outcome = decode_with(body.as_bytes(), Encoding::Json, &limits, 0).unwrap();
        assert!(outcome.events().is_empty(), "{body}");
    }
}

#[test]
fn a_bad_record_is_left_out_and_said() {
    let body = export(json!([{"body":{"stringValue":"a"}}, 7, {"timeUnixNano":"soon"}, {}]));
    let outcome =
        decode_with(body.to_string().as_bytes(), Encoding::Json, &Limits::default(), RECORD_MAX)
            .unwrap();
    assert_eq!(outcome.events().len(), 2);
    let seen: Vec<_> = outcome.rejected.iter().map(|bad| (bad.index, bad.error.kind)).collect();
    assert_eq!(seen, [(1, ErrorKind::Shape), (2, ErrorKind::Shape)]);
    let answer: Value = serde_json::from_slice(&Encoding::Json.answer(&outcome.rejected)).unwrap();
    assert_eq!(answer["partialSuccess"]["rejectedLogRecords"], "2");
    let answer =
        ExportLogsServiceResponse::decode(&Encoding::Protobuf.answer(&outcome.rejected)[..])
            .unwrap();
    let partial = answer.partial_success.unwrap();
    assert_eq!(partial.rejected_log_records, 2);
    assert!(partial.error_message.contains("event 1"), "{}", partial.error_message);
    assert_eq!(Encoding::Json.answer(&[]), b"{}");
    assert!(Encoding::Protobuf.answer(&[]).is_empty());
}

#[test]
fn a_body_that_cannot_be_read_is_refused() {
    for (body, encoding) in [
        (&b"{"[..], Encoding::Json),
        (b"7", Encoding::Json),
        (b"", Encoding::Json),
        (b"{\"resourceLogs\":7}", Encoding::Json),
        (b"{\"resourceLogs\":[{\"resource\":7}]}", Encoding::Json),
        (b"\x0a\x05\x01", Encoding::Protobuf),
        (b"\x0b", Encoding::Protobuf),
        (b"\x0a\x04\x0a\x02\x0a\x01", Encoding::Protobuf),
    ] {
        let error = decode_with(body, encoding, &Limits::default(), RECORD_MAX).err().unwrap();
        assert_eq!(error.kind, ErrorKind::NotJson, "{body:?}");
        assert!(error.events_seen > 0);
    }
}

#[test]
fn the_content_type_decides_and_the_bytes_otherwise() {
    for (label, body, expected) in [
        ("application/json; charset=utf-8", &b"\n{}"[..], Encoding::Json),
        ("application/x-protobuf", b"{}", Encoding::Protobuf),
        ("text/plain", b" {}", Encoding::Json),
        ("", b"\x0a{", Encoding::Protobuf),
        ("", b"", Encoding::Protobuf),
    ] {
        assert_eq!(Encoding::of(label.as_bytes(), body), expected, "{label} {body:?}");
    }
}

#[test]
fn limits_hold() {
    let limits = Limits { event_max_bytes: 200, events_max: 3 };
    let long = "x".repeat(300);
    let body = export(
        json!([{"body":{"stringValue":long}}, {}, {"body":{"stringValue":"\u{1}".repeat(60)}}]),
    );
    let request: ExportLogsServiceRequest = serde_json::from_value(body.clone()).unwrap();
    for (bytes, encoding) in [
        (body.to_string().into_bytes(), Encoding::Json),
        (request.encode_to_vec(), Encoding::Protobuf),
    ] {
        let outcome = decode_with(&bytes, encoding, &limits, RECORD_MAX).unwrap();
        assert_eq!(outcome.events().len(), 1);
        let kinds: Vec<_> =
            outcome.rejected.iter().map(|bad| (bad.index, bad.error.kind)).collect();
        assert_eq!(kinds, [(0, ErrorKind::TooLarge), (2, ErrorKind::TooLarge)], "{encoding:?}");
    }
    let four = export(json!([{}, {}, {}, {}])).to_string();
    let error = decode_with(four.as_bytes(), Encoding::Json, &limits, RECORD_MAX).err().unwrap();
    assert_eq!(error.kind, ErrorKind::TooMany);
    // What a resource says is stored with each record: many of them are stopped at the limit.
    let resource = json!({"attributes":[{"key":"k","value":{"stringValue":"x".repeat(100)}}]});
    let records: Vec<Value> = (0..1000).map(|_| json!({})).collect();
    let body = json!({"resourceLogs":[{"resource":resource,"scopeLogs":[{"logRecords":records}]}]});
    let error =
        decode_with(body.to_string().as_bytes(), Encoding::Json, &Limits::default(), 10_000);
    assert_eq!(error.err().unwrap().kind, ErrorKind::TooLarge);
    let resource = json!({"attributes":[{"key":"k","value":{"stringValue":long}}]});
    let body = json!({"resourceLogs":[{"resource":resource}]}).to_string();
    let error = decode_with(body.as_bytes(), Encoding::Json, &limits, 10_000).err().unwrap();
    assert_eq!(error.kind, ErrorKind::TooLarge);
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let limits = Limits::default();
        let _ = decode_with(&bytes, Encoding::Json, &limits, RECORD_MAX);
        let _ = decode_with(&bytes, Encoding::Protobuf, &limits, RECORD_MAX);
    }

    #[test]
    fn damaged_protobuf_is_read_or_refused(at in 0..400_usize, byte in any::<u8>()) {
        let body = export(json!([{"timeUnixNano":"1795286693848000999","body":{"stringValue":"ü"},
            "attributes":[{"key":"b","value":{"arrayValue":{"values":[{"doubleValue":1.5}]}}}]}, {}]));
        let request: ExportLogsServiceRequest = serde_json::from_value(body).unwrap();
        let mut bytes = request.encode_to_vec();
        let at = at % bytes.len();
        bytes[at] = byte;
        let limits = Limits::default();
        let _ = decode_with(&bytes, Encoding::Protobuf, &limits, RECORD_MAX);
        let _ = decode_with(&bytes[..at], Encoding::Protobuf, &limits, RECORD_MAX);
    }
}

//! The decoder against serde_json, and against bytes that nobody meant.

use proptest::prelude::*;
use ringlake_event::{
    Decoder, ErrorKind, Limits, Mode, Record, Request, Tenant, generate::Generator, record_bound,
};
use serde_json::{Map, Value};

use crate::{Outcome, REQUEST, decode, decode_with};

/// Any JSON value, nested a few levels.
fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[a-z]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(any_key(), inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn any_key() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z_]{0,20}", any::<String>()]
}

fn any_object() -> impl Strategy<Value = Map<String, Value>> {
    prop::collection::hash_map(any_key(), any_value(), 0..6)
        .prop_map(|members| members.into_iter().collect())
}

/// Text out of JSON's own pieces: most of it is nearly JSON.
fn nearly_json() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("{"),
        Just("}"),
        Just("["),
        Just("]"),
        Just(","),
        Just(":"),
        Just("\""),
        Just("\"a\""),
        Just("\"b\""),
        Just("\\u00e9"),
        Just("\\ud83d"),
        Just("\\ude00"),
        Just("\\n"),
        Just("1"),
        Just("-0.5e3"),
        Just("01"),
        Just("1e400"),
        Just("null"),
        Just("true"),
        Just("nul"),
        Just(" "),
        Just("\n"),
        Just("é"),
        Just("\u{1}"),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

/// A body of generated lines, changed in a few places.
fn mutated_body() -> impl Strategy<Value = Vec<u8>> {
    let mutation = (any::<prop::sample::Index>(), any::<u8>(), 0..4_u8);
    (any::<u64>(), 1..5_usize, prop::collection::vec(mutation, 0..6)).prop_map(
        |(seed, count, mutations)| {
            let mut generator = Generator::new(seed);
            let mut body = Vec::new();
            for _ in 0..count {
                generator.write_event(&mut body);
            }
            for (place, byte, kind) in mutations {
                let at = place.index(body.len());
                match kind {
                    0 => body[at] = byte,
                    1 => body.insert(at, byte),
                    2 => drop(body.remove(at)),
                    _ => body[at] = b"{}[],:\"\\0eE+-.ntf\n "[usize::from(byte) % 19],
                }
                if body.is_empty() {
                    body.push(byte);
                }
            }
            body
        },
    )
}

/// Decodes in both modes; whatever comes back has been checked by `decode_with`.
fn survives(body: &[u8]) -> Result<(), TestCaseError> {
    let limits = Limits { event_max_bytes: 1024, events_max: 20 };
    let fixed = Request { tenant: Tenant::Fixed("acme"), ..REQUEST };
    for request in [REQUEST, fixed] {
        let whole = decode_with(body, &request, &limits, Mode::Whole);
        let partial = decode_with(body, &request, &limits, Mode::Partial);
        if let Ok(whole) = whole {
            let partial = partial.unwrap();
            prop_assert_eq!(&whole.record, &partial.record);
            prop_assert!(whole.decoded.rejected.is_empty() && partial.decoded.rejected.is_empty());
        } else if let Ok(partial) = partial {
            prop_assert!(!partial.decoded.rejected.is_empty());
        }
    }
    Ok(())
}

/// What serde_json reads in the text it writes for `object`: its floats do not all survive that.
fn reread(object: Map<String, Value>) -> Value {
    serde_json::from_str(&Value::Object(object).to_string()).unwrap()
}

/// The properties of a one-event outcome.
fn properties(outcome: &Outcome) -> Option<Value> {
    outcome.events()[0].properties.map(|text| serde_json::from_str(text).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_object_comes_back_as_properties(object in any_object(), pretty in any::<bool>()) {
        let event = serde_json::json!({"type": "x", "properties": object});
        let body = if pretty { format!("{event:#}") } else { event.to_string() };
        let outcome = decode(body).unwrap();
        prop_assert_eq!(properties(&outcome), Some(reread(object)));
    }

    #[test]
    fn unknown_members_come_back_as_properties(object in any_object(), own in any_object()) {
        let mut event = object.clone();
        let known = [
            "type", "event", "name", "url", "tenant", "context", "referrer", "timestamp", "sent_at",
            "user_id", "properties",
        ];
        event.retain(|name, _| !known.contains(&name.as_str()));
        let mut expected = own.clone();
        let clash = event.keys().any(|name| own.contains_key(name));
        expected.extend(event.clone());
        event.insert("type".into(), "x".into());
        event.insert("properties".into(), own.into());
        match decode(Value::Object(event).to_string()) {
            Ok(outcome) => {
                prop_assert!(!clash);
                prop_assert_eq!(properties(&outcome), Some(reread(expected)));
            }
            Err(error) => prop_assert!(clash && error.kind == ErrorKind::Duplicate, "{}", error),
        }
    }

    #[test]
    fn what_is_json_is_what_serde_json_takes(text in nearly_json()) {
        let expected = serde_json::from_str::<Value>(&text);
        // Line ends would split the text into lines of their own.
        let body = format!("[{{\"type\":\"x\",\"value\":{text}}}]");
        match (decode(&body), serde_json::from_str::<Vec<Map<String, Value>>>(&body)) {
            (Ok(outcome), Ok(mut parsed)) => {
                // The text may have closed the event and opened others.
                let event = &mut parsed[0];
                event.remove("type");
                let found = properties(&outcome).unwrap_or_else(|| Value::Object(Map::new()));
                prop_assert_eq!(found, Value::Object(event.clone()));
            }
            (Err(error), Ok(_)) => {
                // serde_json has no opinion on repeated keys, nor on what an event needs.
                let own_rule = matches!(error.kind, ErrorKind::Duplicate | ErrorKind::Shape);
                prop_assert!(own_rule, "{}: {}", body, error);
            }
            (Ok(_), Err(error)) => prop_assert!(false, "{}: {}", body, error),
            (Err(error), Err(_)) => prop_assert!(expected.is_err(), "{}: {}", body, error),
        }
    }

    #[test]
    fn texts_come_back(
        event in "\\PC{1,40}",
        url in any::<String>(),
        user in any::<String>(),
        time in 0..4_000_000_000_i64,
    ) {
        let body =
            serde_json::json!({"event": event, "url": url, "userId": user, "timestamp": time});
        let outcome = decode(body.to_string()).unwrap();
        let read = outcome.events()[0];
        prop_assert_eq!(read.event, Some(event.as_str()));
        prop_assert_eq!(read.url, Some(url.as_str()));
        prop_assert_eq!(read.user_id, Some(user.as_str()));
        prop_assert_eq!(read.timestamp, time * 1_000_000);
        prop_assert_eq!((read.kind, read.tenant, read.properties), ("track", "default", None));
    }

    #[test]
    fn random_bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        survives(&body)?;
    }

    #[test]
    fn random_pieces_never_panic(texts in prop::collection::vec(nearly_json(), 1..4)) {
        survives(texts.join("\n").as_bytes())?;
        survives(format!("[{}]", texts.join(",")).as_bytes())?;
        survives(format!("{{\"type\":{}", texts.join("\n{\"type\":")).as_bytes())?;
    }

    #[test]
    fn changed_bodies_never_panic(body in mutated_body()) {
        survives(&body)?;
    }

    #[test]
    fn small_events_stay_within_the_bound(
        members in prop::collection::vec(prop::sample::select(&[
            "\"\":1", "\"a\":1", "\"b\":{}", "\"name\":\"\"", "\"url\":\"\"", "\"sentAt\":1",
            "\"properties\":{}", "\"properties\":{\"c\":1}", "\"context\":{}", "\"timestamp\":2",
            "\"originalTimestamp\":1", "\"userId\":\"\"", "\"tenant\":\"t\"",
        ][..]), 0..8),
        repeat in 1..40_usize,
    ) {
        // `decode_with` gives the decoder exactly the bound.
        let rest: String = members.iter().map(|member| format!(",{member}")).collect();
        for first in ["\"type\":\"x\"", "\"name\":\"x\""] {
            let body = vec![format!("{{{first}{rest}}}"); repeat].join("\n");
            survives(body.as_bytes())?;
        }
    }

    #[test]
    fn a_damaged_record_never_panics(
        body in mutated_body(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut out = vec![0; record_bound(body.len())];
        let limits = Limits::default();
        let decoded = Decoder::new().decode(&body, &REQUEST, &limits, Mode::Partial, &mut out);
        let Ok(decoded) = decoded else { return Ok(()) };
        out.truncate(decoded.record_len);
        if out.is_empty() {
            return Ok(());
        }
        let short = &out[..cut.index(out.len())];
        prop_assert!(Record::parse(short).is_err());
        for (place, byte) in damage {
            let at = place.index(out.len());
            out[at] = byte;
        }
        if let Ok(record) = Record::parse(&out) {
            prop_assert_eq!(record.iter().count(), record.events());
        }
    }

    #[test]
    fn random_records_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(record) = Record::parse(&bytes) {
            prop_assert_eq!(record.iter().count(), record.events());
        }
    }
}

#[test]
fn a_decoder_carries_nothing_from_one_body_to_the_next() {
    let mut decoder = Decoder::new();
    let mut generator = Generator::new(3);
    for round in 0..200 {
        let mut body = Vec::new();
        generator.write_event(&mut body);
        if round % 3 == 0 {
            body.truncate(body.len() / 2);
        }
        let mut used = vec![0; record_bound(body.len())];
        let outcome = decoder.decode(&body, &REQUEST, &Limits::default(), Mode::Whole, &mut used);
        match (outcome, decode(&body)) {
            (Ok(decoded), Ok(fresh)) => assert_eq!(used[..decoded.record_len], fresh.record),
            (Err(error), Err(fresh)) => assert_eq!(error, fresh),
            (outcome, fresh) => panic!("{outcome:?} instead of {fresh:?}"),
        }
    }
}

#[test]
fn generated_events_are_accepted_and_equal_what_serde_json_reads() {
    let mut generator = Generator::new(1);
    let mut body = Vec::new();
    for _ in 0..2_000 {
        generator.write_event(&mut body);
    }
    let outcome = decode(&body).unwrap();
    let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let mut count = 0;
    for (line, event) in lines.zip(outcome.events()) {
        let expected: Map<String, Value> = serde_json::from_slice(line).unwrap();
        let text = |name: &str| expected.get(name).and_then(Value::as_str);
        assert_eq!(event.message_id, text("message_id"));
        assert_eq!(Some(event.tenant), text("tenant"));
        assert_eq!(Some(event.kind), text("type"));
        assert_eq!(event.event, text("event"));
        assert_eq!(event.user_id, text("user_id"));
        assert_eq!(event.anonymous_id, text("anonymous_id"));
        assert_eq!(event.session_id, text("session_id"));
        assert_eq!(event.url, text("url"));
        assert_eq!(event.referrer, text("referrer"));
        assert_eq!(event.user_agent, text("user_agent"));
        let member = |name: &str| expected.get(name).filter(|value| !value.is_null()).cloned();
        let json = |text: Option<&str>| text.map(|text| serde_json::from_str(text).unwrap());
        assert_eq!(json(event.properties), member("properties"));
        assert_eq!(json(event.context), member("context"));
        count += 1;
    }
    assert_eq!(count, 2_000);
}

//! What refuses a request, and what the refusal says.

use ringlake_event::{DecodeError, ErrorKind, Limits, MAX_DEPTH, Mode};

use crate::{REQUEST, decode, decode_partial, decode_with};

/// A good first event, then the bad one, on lines.
fn second(bad: &str) -> DecodeError {
    decode(format!("{{\"type\":\"x\"}}\n{bad}\n")).unwrap_err()
}

#[test]
fn a_wrong_type_names_field_and_event() {
    for (bad, field) in [
        (r#"{"type":"x","user_id":7}"#, "user_id"),
        (r#"{"type":"x","userId":{}}"#, "user_id"),
        (r#"{"type":true}"#, "type"),
        (r#"{"event":["a"]}"#, "event"),
        (r#"{"type":"x","properties":"{}"}"#, "properties"),
        (r#"{"type":"x","properties":[]}"#, "properties"),
        (r#"{"type":"x","context":0}"#, "context"),
        (r#"{"type":"x","timestamp":false}"#, "timestamp"),
        (r#"{"type":"x","sent_at":{}}"#, "sent_at"),
        (r#"{"type":"x","tenant":1}"#, "tenant"),
    ] {
        let error = second(bad);
        assert_eq!((error.kind, error.index), (ErrorKind::Type, Some(1)), "{bad}");
        assert_eq!(error.field.as_deref(), Some(field), "{bad}");
        assert!(error.message.contains(&format!("`{field}`")), "{}", error.message);
        assert_eq!(error.events_seen, 2);
    }
    let error = second(r#"{"type":"x","user_id":7}"#);
    assert_eq!(error.to_string(), "event 1: `user_id` has to be a string or null, not a number");
}

#[test]
fn a_bad_time_names_the_field_and_the_forms() {
    for value in [
        "\"yesterday\"",
        "\"\"",
        "\"1769860800\"",
        "1e17",
        "-99999999999",
        "123456789012345678",
        "\"2026-02-30T00:00:00Z\"",
        "\"2026-01-01\"",
        "\"10000-01-01T00:00:00Z\"",
    ] {
        for name in ["timestamp", "sentAt", "originalTimestamp"] {
            let error = second(&format!(r#"{{"type":"x","{name}":{value}}}"#));
            assert_eq!((error.kind, error.index), (ErrorKind::Timestamp, Some(1)), "{value}");
            assert!(error.message.contains("RFC 3339"), "{}", error.message);
            assert!(error.message.contains("microseconds"), "{}", error.message);
        }
    }
}

#[test]
fn a_repeated_key_is_named() {
    for (bad, key) in [
        (r#"{"type":"x","type":"x"}"#, "type"),
        (r#"{"type":"x","message_id":"a","messageId":"a"}"#, "messageId"),
        (r#"{"type":"x","event":null,"name":"a"}"#, "name"),
        (r#"{"type":"x","\u0074ype":"x"}"#, "\\u0074ype"),
        (r#"{"type":"x","a":1,"a":1}"#, "a"),
        (r#"{"type":"x","a":1,"\u0061":1}"#, "a"),
        (r#"{"type":"x","properties":{"b":1,"b":2}}"#, "b"),
        (r#"{"type":"x","properties":{"c":1},"c":2}"#, "c"),
        (r#"{"type":"x","c":2,"properties":{"c":1}}"#, "c"),
        (r#"{"type":"x","properties":{},"properties":{}}"#, "properties"),
        (r#"{"type":"x","properties":{"d":[{"e":{},"e":{}}]}}"#, "e"),
        (r#"{"type":"x","context":{"f":{"g":1,"g":1}}}"#, "g"),
        (r#"{"type":"x","h":{"i":1,"j":2,"i":3}}"#, "i"),
    ] {
        let error = second(bad);
        assert_eq!((error.kind, error.index), (ErrorKind::Duplicate, Some(1)), "{bad}");
        assert_eq!(error.field.as_deref(), Some(key), "{bad}");
        assert!(error.message.contains(&format!("`{key}`")), "{}", error.message);
    }
}

#[test]
fn keys_are_equal_only_within_one_object() {
    for good in [
        r#"{"type":"x","properties":{"type":1,"event":2}}"#,
        r#"{"type":"x","a":{"b":1},"b":{"a":1}}"#,
        r#"{"type":"x","properties":{"a":{"a":{"a":1}}},"context":{"a":1}}"#,
        r#"{"type":"x","Type":"x","TYPE":"x"}"#,
    ] {
        assert!(decode(good).is_ok(), "{good}");
    }
}

#[test]
fn a_hundred_thousand_keys_are_read_and_a_repeated_one_is_found() {
    let limits = Limits { event_max_bytes: usize::MAX, ..Limits::default() };
    let body = |last: &str| {
        let keys: String = (0..100_000).map(|number| format!("\"key {number}\":0,")).collect();
        format!("{{\"type\":\"x\",\"properties\":{{{keys}{last}:0}}}}")
    };
    let fine = body("\"other\"");
    assert!(decode_with(fine.as_bytes(), &REQUEST, &limits, Mode::Whole).is_ok());
    let twice = body("\"key \\u00377777\"");
    let error = decode_with(twice.as_bytes(), &REQUEST, &limits, Mode::Whole).unwrap_err();
    assert_eq!((error.kind, error.field.as_deref()), (ErrorKind::Duplicate, Some("key 77777")));
}

#[test]
fn keys_made_to_collide_cost_no_more_than_others() {
    // Equal first and last eight bytes and length. Comparing each with each would take minutes.
    let limits = Limits { event_max_bytes: usize::MAX, ..Limits::default() };
    let keys: String =
        (0..100_000).map(|number| format!("\"aaaaaaaa{number:08}aaaaaaaa\":0,")).collect();
    let body = format!("{{{keys}\"type\":\"x\"}}");
    assert!(decode_with(body.as_bytes(), &REQUEST, &limits, Mode::Whole).is_ok());
}

#[test]
fn nesting_is_counted_from_the_events_own_object() {
    let nested = |depth: usize| {
        let (open, close) = ("[".repeat(depth - 1), "]".repeat(depth - 1));
        format!("{{\"type\":\"x\",\"a\":{open}{close}}}")
    };
    assert!(decode(nested(MAX_DEPTH)).is_ok());
    assert!(decode(format!("[{}]", nested(MAX_DEPTH))).is_ok());
    for depth in [MAX_DEPTH + 1, 10_000] {
        let error = second(&nested(depth));
        assert_eq!((error.kind, error.index), (ErrorKind::Depth, Some(1)));
        assert!(error.message.contains("128"), "{}", error.message);
    }
    assert_eq!(decode("[".repeat(10_000)).unwrap_err().kind, ErrorKind::Depth);
    assert_eq!(decode("{\"a\":".repeat(10_000)).unwrap_err().kind, ErrorKind::Depth);
    let objects = format!("{}1{}", "{\"a\":".repeat(10_000), "}".repeat(10_000));
    assert_eq!(decode(objects).unwrap_err().kind, ErrorKind::Depth);
}

#[test]
fn strict_json_is_asked_for() {
    for bad in [
        r#"{"type":"x","a":01}"#,
        r#"{"type":"x","a":1.}"#,
        r#"{"type":"x","a":.5}"#,
        r#"{"type":"x","a":+1}"#,
        r#"{"type":"x","a":1e}"#,
        r#"{"type":"x","a":1e400}"#,
        r#"{"type":"x","a":-1e400}"#,
        r#"{"type":"x","a":NaN}"#,
        r#"{"type":"x","a":Infinity}"#,
        r#"{"type":"x","a":-Infinity}"#,
        r#"{"type":"x","a":undefined}"#,
        r#"{"type":"x","a":tru}"#,
        r#"{"type":"x","a":'b'}"#,
        r#"{"type":"x","a":"\ud800"}"#,
        r#"{"type":"x","a":"\udc00"}"#,
        r#"{"type":"x","a":"\ud800\u0041"}"#,
        r#"{"type":"\ud800"}"#,
        r#"{"type":"x","\ud800":1}"#,
        r#"{"type":"x","a":"\x"}"#,
        "{\"type\":\"x\",\"a\":\"\t\"}",
        "{\"type\":\"x\",\"a\":\"\u{1}\"}",
        r#"{"type":"x","a":1,}"#,
        r#"{"type":"x","a":[1,]}"#,
        r#"{"type":"x" "a":1}"#,
        r#"{"type":"x","a"}"#,
        r#"{"type":"x",a:1}"#,
        r#"{"type":"x","a":[1}"#,
        "{\"type\":\"x\"/**/}",
        "{\"type\":\u{a0}\"x\"}",
    ] {
        let error = second(bad);
        assert_eq!((error.kind, error.index), (ErrorKind::NotJson, Some(1)), "{bad}");
        assert!(error.message.contains("at byte"), "{}", error.message);
    }
}

#[test]
fn a_byte_that_is_not_utf8_is_named_with_its_event() {
    let error = decode(b"{\"type\":\"x\"}\n{\"type\":\"\xff\"}").unwrap_err();
    assert_eq!((error.kind, error.index, error.events_seen), (ErrorKind::NotJson, Some(1), 2));
    assert!(error.message.contains("byte 22") && error.message.contains("0xff"), "{error}");
    let error = decode(b"\xff").unwrap_err();
    assert_eq!((error.kind, error.index), (ErrorKind::NotJson, Some(0)));
    // Overlong, surrogate, cut short.
    for text in [&b"\xc0\xaf"[..], b"\xed\xa0\x80", b"\xe2\x82"] {
        let body = [b"[{\"type\":\"", text, b"\"}]"].concat();
        for error in [decode(&body).unwrap_err(), decode_partial(&body).unwrap_err()] {
            assert_eq!((error.kind, error.index), (ErrorKind::NotJson, Some(0)));
        }
    }
    // What is wrong before it leaves the event unknown.
    let error = decode(b"{]\n\xff").unwrap_err();
    assert_eq!((error.kind, error.index), (ErrorKind::NotJson, None));
}

#[test]
fn an_event_over_its_limit_is_too_large() {
    let event = r#"{"type":"x","a":"0123456789"}"#;
    let limit = |event_max_bytes| Limits { event_max_bytes, ..Limits::default() };
    let body = format!("{{\"type\":\"x\"}}\n  {event}  \n");
    assert!(decode_with(body.as_bytes(), &REQUEST, &limit(event.len()), Mode::Whole).is_ok());
    let too_small = limit(event.len() - 1);
    let error = decode_with(body.as_bytes(), &REQUEST, &too_small, Mode::Whole).unwrap_err();
    assert_eq!((error.kind, error.index), (ErrorKind::TooLarge, Some(1)));
    let expected = format!(
        "an event of {} bytes is larger than the limit of {} bytes",
        event.len(),
        event.len() - 1
    );
    assert_eq!(error.message, expected);
}

#[test]
fn a_large_event_is_given_up_before_it_ends() {
    let keys: String = (0..100_000).map(|number| format!("\"k{number}\":0,")).collect();
    let error = decode(format!("{{{keys}]")).unwrap_err();
    assert_eq!(error.kind, ErrorKind::TooLarge);
    assert!(error.message.contains("at least") && error.message.contains("262144"), "{error}");
}

#[test]
fn too_many_events_refuse_the_request_in_either_mode() {
    let limits = Limits { events_max: 3, ..Limits::default() };
    let array = |count: usize| format!("[{}]", vec!["{\"type\":\"x\"}"; count].join(","));
    let lines = |count: usize| "{\"type\":\"x\"}\n".repeat(count);
    for mode in [Mode::Whole, Mode::Partial] {
        for body in [array(3), lines(3)] {
            let outcome = decode_with(body.as_bytes(), &REQUEST, &limits, mode).unwrap();
            assert_eq!(outcome.decoded.accepted, 3);
        }
        for body in [array(4), lines(4)] {
            let error = decode_with(body.as_bytes(), &REQUEST, &limits, mode).unwrap_err();
            assert_eq!((error.kind, error.index, error.events_seen), (ErrorKind::TooMany, None, 4));
            assert!(error.message.contains('3'), "{}", error.message);
        }
    }
    // Refused events count, so that garbage cannot make a report without end.
    let error = decode_with(b"{}\n{}\n{}\n{}\n", &REQUEST, &limits, Mode::Partial).unwrap_err();
    assert_eq!(error.kind, ErrorKind::TooMany);
}

#[test]
fn a_message_quotes_a_bounded_part_on_one_line() {
    let long = "k\u{1b}".repeat(10_000).replace('\u{1b}', "\\u001b\\n");
    let error = decode(format!("{{\"type\":\"x\",\"{long}\":1,\"{long}\":2}}")).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Duplicate);
    assert!(error.message.len() < 600 && !error.message.contains(char::is_control), "{error}");
    let error = decode(format!("{{\"type\":\"x\",\"timestamp\":\"{long}\"}}")).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Timestamp);
    assert!(error.message.len() < 600 && !error.message.contains(char::is_control), "{error}");
}

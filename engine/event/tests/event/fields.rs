//! What becomes of each field of a good event.

use std::borrow::Cow;

use ringlake_event::{
    Decoder, ErrorKind, Limits, Mode, Record, Request, Sender, Source, Tenant,
    USER_AGENT_MAX_BYTES, encode_pairs, pairs_bound,
};

use crate::{Outcome, RECEIVED_AT, REQUEST, decode, decode_with};

const SECOND: i64 = 1_000_000;

fn decode_as(body: &str, request: &Request<'_>) -> Outcome {
    decode_with(body.as_bytes(), request, &Limits::default(), Mode::Whole).unwrap()
}

#[test]
fn every_field_reaches_its_place() {
    let outcome = decode(
        r#"{"message_id":"m","tenant":"t","type":"page","event":"e","timestamp":1,
        "original_timestamp":"1970-01-01T00:00:02Z","user_id":"u","anonymous_id":"a",
        "session_id":"s","url":"l","referrer":"r","user_agent":"g","properties":{"p": 1},
        "context":{"c": [2]}}"#,
    )
    .unwrap();
    let event = outcome.events()[0];
    assert_eq!(event.message_id, Some("m"));
    assert_eq!(event.tenant, "t");
    assert_eq!(event.kind, "page");
    assert_eq!(event.event, Some("e"));
    assert_eq!(event.timestamp, SECOND);
    assert_eq!(event.original_timestamp, Some(2 * SECOND));
    assert_eq!(event.sent_at, None);
    assert_eq!(event.user_id, Some("u"));
    assert_eq!(event.anonymous_id, Some("a"));
    assert_eq!(event.session_id, Some("s"));
    assert_eq!(event.url, Some("l"));
    assert_eq!(event.referrer, Some("r"));
    assert_eq!(event.user_agent, Some("g"));
    assert_eq!(event.properties, Some(r#"{"p": 1}"#));
    assert_eq!(event.context, Some(r#"{"c": [2]}"#));
}

#[test]
fn aliases_mean_their_field() {
    let outcome = decode(
        r#"{"messageId":"m","anonymousId":"a","userId":"u","sessionId":"s","userAgent":"g",
        "name":"e","sentAt":10,"originalTimestamp":4}"#,
    )
    .unwrap();
    let event = outcome.events()[0];
    assert_eq!(event.message_id, Some("m"));
    assert_eq!(event.anonymous_id, Some("a"));
    assert_eq!(event.user_id, Some("u"));
    assert_eq!(event.session_id, Some("s"));
    assert_eq!(event.user_agent, Some("g"));
    assert_eq!((event.kind, event.event), ("track", Some("e")));
    assert_eq!((event.sent_at, event.original_timestamp), (Some(10 * SECOND), Some(4 * SECOND)));
    assert_eq!(event.properties, None);
    let outcome = decode(r#"{"dedup_id":"m","type":"x"}"#).unwrap();
    assert_eq!(outcome.events()[0].message_id, Some("m"));
    let outcome = decode(r#"{"\u0074ype":"x","user\u005fid":"u"}"#).unwrap();
    assert_eq!((outcome.events()[0].kind, outcome.events()[0].user_id), ("x", Some("u")));
}

#[test]
fn a_type_or_a_name_is_enough() {
    let outcome = decode(r#"[{"type":"page"},{"event":"e"},{"type":"","event":"e"}]"#).unwrap();
    let events = outcome.events();
    assert_eq!((events[0].kind, events[0].event), ("page", None));
    assert_eq!((events[1].kind, events[1].event), ("track", Some("e")));
    assert_eq!((events[2].kind, events[2].event), ("track", Some("e")));
    for body in ["{}", r#"{"type":null,"event":""}"#, r#"{"url":"x","a":1}"#, r#"{"type":""}"#] {
        let error = decode(body).unwrap_err();
        assert_eq!((error.kind, error.index), (ErrorKind::Shape, Some(0)), "{body}");
        assert_eq!(error.message, "an event needs `type` or `event`");
    }
}

#[test]
fn null_is_absent_and_empty_text_is_kept() {
    let outcome = decode(
        r#"{"type":"x","event":null,"user_id":null,"url":"","timestamp":null,"properties":null,
        "context":null,"sent_at":null}"#,
    )
    .unwrap();
    let event = outcome.events()[0];
    assert_eq!((event.event, event.user_id, event.url), (None, None, Some("")));
    assert_eq!((event.properties, event.context, event.sent_at), (None, None, None));
    assert_eq!(event.timestamp, RECEIVED_AT);
}

#[test]
fn unknown_fields_become_properties_as_they_were_written() {
    let properties = |body: &str| decode(body).unwrap().events()[0].properties.map(str::to_owned);
    let cases = [
        (r#"{"type":"x","a":1}"#, r#"{"a":1}"#),
        (r#"{"a" : [1, 2] ,"type":"x", "b":null}"#, r#"{"a" : [1, 2],"b":null}"#),
        (
            r#"{"type":"x","a":1,"properties":{"b":2},"c":"\u0041"}"#,
            r#"{"b":2,"a":1,"c":"\u0041"}"#,
        ),
        (r#"{"type":"x","properties":{},"c":3}"#, r#"{"c":3}"#),
        (r#"{"type":"x","properties":{ },"c":3}"#, r#"{ "c":3}"#),
        (r#"{"type":"x","properties":null,"c":3}"#, r#"{"c":3}"#),
        (r#"{"type":"x","properties":{"a":{"c":1}},"c":3}"#, r#"{"a":{"c":1},"c":3}"#),
        (r#"{"type":"x","":1}"#, r#"{"":1}"#),
    ];
    for (body, expected) in cases {
        assert_eq!(properties(body).as_deref(), Some(expected), "{body}");
    }
}

#[test]
fn the_servers_own_fields_are_properties_of_the_client() {
    let own = concat!(
        r#"{"node":1,"shard":2,"sequence":3,"received_at":"x","date":[],"source":"pixel","#,
        r#""visitor_id":{},"ip":"::1"}"#
    );
    let body = format!("{{\"type\":\"x\",{}", &own[1..]);
    let outcome = decode(body).unwrap();
    let event = outcome.events()[0];
    assert_eq!(event.properties, Some(own));
    assert_eq!(Record::parse(&outcome.record).unwrap().source(), Source::Events);
}

#[test]
fn an_identity_is_the_tenant_and_the_message_id() {
    let outcome = decode(
        r#"[{"event":"a","message_id":"1"},{"event":"b"},{"event":"c","message_id":""},
            {"event":"d","tenant":"t","message_id":"4","url":"u"},{"tenant":"t","event":"e"}]"#,
    )
    .unwrap();
    let record = Record::parse(&outcome.record).unwrap();
    assert!(record.has_message_ids());
    let ids: Vec<_> = record.message_ids().collect();
    assert_eq!(ids, [Some(("default", "1")), None, None, Some(("t", "4")), None]);
    let outcome = decode(r#"{"event":"a"}"#).unwrap();
    assert!(!Record::parse(&outcome.record).unwrap().has_message_ids());
}

#[test]
fn texts_lose_their_escapes_and_json_keeps_them() {
    let outcome = decode(
        r#"{"event":"\u00fcber \ud83d\ude00\n\"q\"","properties":{"k":"\ud83d\ude00"},"url":"\/"}"#,
    )
    .unwrap();
    let event = outcome.events()[0];
    assert_eq!(event.event, Some("über 😀\n\"q\""));
    assert_eq!(event.url, Some("/"));
    assert_eq!(event.properties, Some(r#"{"k":"\ud83d\ude00"}"#));
}

#[test]
fn the_timestamp_is_corrected_by_the_clients_clock() {
    let timestamp = |body: &str, correct_clock: bool| {
        decode_as(body, &Request { correct_clock, ..REQUEST }).events()[0].timestamp
    };
    let both = r#"{"type":"x","sent_at":1000,"original_timestamp":970,"timestamp":5}"#;
    assert_eq!(timestamp(both, true), RECEIVED_AT - 30 * SECOND);
    assert_eq!(timestamp(both, false), 5 * SECOND);
    let future = r#"{"type":"x","sent_at":1000,"original_timestamp":1001}"#;
    assert_eq!(timestamp(future, true), RECEIVED_AT + SECOND);
    assert_eq!(timestamp(future, false), 1001 * SECOND);
    assert_eq!(timestamp(r#"{"type":"x","timestamp":5,"original_timestamp":4}"#, true), 5 * SECOND);
    assert_eq!(timestamp(r#"{"type":"x","timestamp":5,"sent_at":4}"#, true), 5 * SECOND);
    assert_eq!(timestamp(r#"{"type":"x","original_timestamp":4}"#, true), 4 * SECOND);
    assert_eq!(timestamp(r#"{"type":"x","sent_at":4}"#, true), RECEIVED_AT);
    assert_eq!(timestamp(r#"{"type":"x"}"#, true), RECEIVED_AT);
}

#[test]
fn a_corrected_timestamp_stays_in_the_years_1_to_9999() {
    let timestamp = |sent: &str, original: &str| {
        let time = |year: &str| format!("{year}-01-01T00:00:00Z");
        let (sent, original) = (time(sent), time(original));
        let body =
            format!(r#"{{"type":"x","sent_at":"{sent}","original_timestamp":"{original}"}}"#);
        decode(body).unwrap().events()[0].timestamp
    };
    assert_eq!(timestamp("9999", "0001"), ringlake_event::time::MIN_MICROS);
    assert_eq!(timestamp("0001", "9999"), ringlake_event::time::MAX_MICROS);
}

#[test]
fn times_are_text_or_numbers() {
    for (value, expected) in [
        ("1769860800", RECEIVED_AT),
        ("1769860800.5", RECEIVED_AT + SECOND / 2),
        ("1769860800000", RECEIVED_AT),
        ("1769860800000000", RECEIVED_AT),
        ("\"2026-01-31T12:00:00Z\"", RECEIVED_AT),
        ("\"2026-01-31 13:30:00.25+01:30\"", RECEIVED_AT + SECOND / 4),
        ("\"2026-01-31T12:00:00\\u005a\"", RECEIVED_AT),
    ] {
        let outcome = decode(format!(r#"{{"type":"x","timestamp":{value}}}"#)).unwrap();
        assert_eq!(outcome.events()[0].timestamp, expected, "{value}");
    }
}

#[test]
fn in_open_mode_the_events_own_tenant_counts() {
    let outcome = decode(
        r#"[{"type":"x","tenant":"a"},{"type":"x"},{"type":"x","tenant":""},
        {"type":"x","tenant":null},{"type":"x","tenant":"b\u0062"},
        {"type":"x","tenant":"default"}]"#,
    )
    .unwrap();
    let tenants: Vec<&str> = outcome.events().iter().map(|event| event.tenant).collect();
    assert_eq!(tenants, ["a", "default", "default", "default", "bb", "default"]);
}

#[test]
fn under_a_key_the_keys_tenant_counts_and_no_other() {
    let request = Request { tenant: Tenant::Fixed("acme"), ..REQUEST };
    let outcome = decode_as(
        r#"[{"type":"x"},{"type":"x","tenant":"acme"},{"type":"x","tenant":"\u0061cme"},
        {"type":"x","tenant":""}]"#,
        &request,
    );
    assert!(outcome.events().iter().all(|event| event.tenant == "acme"));
    for tenant in ["other", "acme ", "acm", "Acme", "\\u0061cmf"] {
        let body = format!(r#"[{{"type":"x"}},{{"tenant":"{tenant}","type":"x"}}]"#);
        let error =
            decode_with(body.as_bytes(), &request, &Limits::default(), Mode::Whole).unwrap_err();
        assert_eq!((error.kind, error.index), (ErrorKind::Forbidden, Some(1)));
        assert_eq!(error.field.as_deref(), Some("tenant"));
    }
}

#[test]
fn the_longest_tenant_of_a_key_fits_the_bound_and_a_longer_one_is_refused() {
    let tenant = "ü".repeat(127) + "u";
    let request = Request { tenant: Tenant::Fixed(&tenant), ..REQUEST };
    assert_eq!(decode_as(r#"{"type":"x"}"#, &request).events()[0].tenant, tenant);
    let longer = "x".repeat(256);
    let request = Request { tenant: Tenant::Fixed(&longer), ..REQUEST };
    let error = decode_with(b"{}", &request, &Limits::default(), Mode::Whole).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Forbidden);
}

fn pixel(query: &[(&str, &str)]) -> Result<Outcome, ringlake_event::DecodeError> {
    let length: usize = query.iter().map(|(name, value)| name.len() + value.len() + 1).sum();
    let mut out = vec![0; pairs_bound(length)];
    let pairs = query.iter().map(|(name, value)| (Cow::from(*name), Cow::from(*value)));
    let request = Request { source: Source::Pixel, ..REQUEST };
    let decoded = encode_pairs(&mut Decoder::new(), pairs, &request, &Limits::default(), &mut out)?;
    out.truncate(decoded.record_len);
    Ok(Outcome { decoded, record: out })
}

#[test]
fn a_pixels_parameters_are_fields_and_properties() {
    let outcome = pixel(&[
        ("type", "page"),
        ("name", "Home \"1\""),
        ("url", "https://example.org/?a=b&c"),
        ("timestamp", "1769860800"),
        ("sentAt", "2026-01-31T12:00:00Z"),
        ("campaign", "a\u{1}\\b"),
        ("source", "x"),
        ("context", "{\"a\": [1]}"),
    ])
    .unwrap();
    let event = outcome.events()[0];
    assert_eq!((event.kind, event.event), ("page", Some("Home \"1\"")));
    assert_eq!(event.url, Some("https://example.org/?a=b&c"));
    assert_eq!((event.timestamp, event.sent_at), (RECEIVED_AT, Some(RECEIVED_AT)));
    assert_eq!(event.context, Some("{\"a\": [1]}"));
    let properties: serde_json::Value = serde_json::from_str(event.properties.unwrap()).unwrap();
    assert_eq!(properties, serde_json::json!({"campaign": "a\u{1}\\b", "source": "x"}));
    assert_eq!(Record::parse(&outcome.record).unwrap().source(), Source::Pixel);
}

#[test]
fn bad_parameters_of_a_pixel_are_refused_as_bad_fields_are() {
    let kind = |query: &[(&str, &str)]| pixel(query).unwrap_err().kind;
    assert_eq!(kind(&[]), ErrorKind::Shape);
    assert_eq!(kind(&[("a", "b")]), ErrorKind::Shape);
    assert_eq!(kind(&[("type", "x"), ("a", "1"), ("a", "2")]), ErrorKind::Duplicate);
    assert_eq!(kind(&[("type", "x"), ("timestamp", "yesterday")]), ErrorKind::Timestamp);
    assert_eq!(kind(&[("type", "x"), ("timestamp", "1e99")]), ErrorKind::Timestamp);
    assert_eq!(kind(&[("type", "x"), ("properties", "{},\"tenant\":\"y\"")]), ErrorKind::Type);
    assert_eq!(kind(&[("type", "x"), ("context", "1")]), ErrorKind::Type);
}

#[test]
fn the_bound_of_a_pixel_holds_for_the_query_that_grows_most() {
    let names: Vec<String> = (1..32).map(|code: u8| char::from(code).to_string()).collect();
    let mut query: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
    query.push(("type", "\u{1}"));
    assert_eq!(pixel(&query).unwrap().decoded.accepted, 1);
}

fn sender_of(outcome: &Outcome) -> Option<Sender<'_>> {
    Record::parse(&outcome.record).unwrap().sender()
}

#[test]
fn the_sender_of_a_request_reaches_its_record() {
    let v4: std::net::IpAddr = "192.0.2.1".parse().unwrap();
    let v6: std::net::IpAddr = "2001:db8::7".parse().unwrap();
    for (address, user_agent, keep_address) in
        [(v4, "Mozilla/5.0 (é)", false), (v6, "", true), (v6, "x", false)]
    {
        let sender = Some(Sender { address, user_agent, keep_address });
        let decoded = decode_as(r#"{"event":"a","tenant":"t"}"#, &Request { sender, ..REQUEST });
        assert_eq!(sender_of(&decoded), sender);
        assert_eq!(decoded.events()[0].tenant, "t");
    }
    assert_eq!(sender_of(&decode_as(r#"{"event":"a"}"#, &REQUEST)), None);
}

#[test]
fn of_a_long_user_agent_the_beginning_counts() {
    let long = format!("{}é", "x".repeat(USER_AGENT_MAX_BYTES - 1));
    let sender = Some(Sender {
        address: std::net::Ipv4Addr::LOCALHOST.into(),
        user_agent: &long,
        keep_address: false,
    });
    let decoded = decode_as(r#"{"event":"a"}"#, &Request { sender, ..REQUEST });
    let kept = sender_of(&decoded).unwrap().user_agent.len();
    assert_eq!(kept, USER_AGENT_MAX_BYTES - 1);
}

//! The SDKs' bodies, as the published packages send them, and what becomes of each member.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use proptest::prelude::*;
use ringlake_event::sdk::{Sdk, SdkBody, SdkDecoded, SdkDecoder, decode_base64};
use ringlake_event::{Assembly, DecodeError, ErrorKind, Event, Limits, Record, Request, Tenant};
use serde_json::{Value, json};

/// 2026-11-21T18:44:27.000Z.
const RECEIVED_AT: i64 = 1_795_286_667_000_000;
const MILLI: i64 = 1_000;
const RECORD_MAX: usize = 1 << 20;

/// A decoded body with its record.
struct Outcome {
    decoded: SdkDecoded,
    record: Vec<u8>,
}

impl Outcome {
    fn events(&self) -> Vec<Event<'_>> {
        match self.record.is_empty() {
            true => Vec::new(),
            false => Record::parse(&self.record).unwrap().iter().collect(),
        }
    }

    fn only(&self) -> Event<'_> {
        assert_eq!(self.decoded.rejected, []);
        let events = self.events();
        assert_eq!(events.len(), 1);
        events[0]
    }
}

fn request(sdk: Sdk) -> Request<'static> {
    Request {
        received_at: RECEIVED_AT,
        source: sdk.source(),
        tenant: Tenant::Open,
        correct_clock: true,
        sender: None,
    }
}

fn decode_with(
    sdk: Sdk,
    kind: Option<&'static str>,
    body: &[u8],
    limits: &Limits,
    record_max_bytes: usize,
) -> Result<Outcome, DecodeError> {
    let request = request(sdk);
    let how = SdkBody { sdk, kind, request: &request, limits, record_max_bytes };
    let mut assembly = Assembly::new();
    let decoded = SdkDecoder::new().decode(body, &how, &mut assembly)?;
    let mut record = vec![0xA5; assembly.record_len(&request)];
    let len = assembly.write(&request, &mut record);
    record.truncate(len);
    assert_eq!(decoded.accepted, assembly.events());
    let outcome = Outcome { decoded, record };
    for event in outcome.events() {
        for text in [event.properties, event.context].into_iter().flatten() {
            let value: Value = serde_json::from_str(text).unwrap();
            assert!(value.is_object(), "{text}");
        }
    }
    if len > 0 {
        assert_eq!(Record::parse(&outcome.record).unwrap().source(), sdk.source());
    }
    Ok(outcome)
}

fn decode(sdk: Sdk, body: impl AsRef<[u8]>) -> Result<Outcome, DecodeError> {
    decode_with(sdk, None, body.as_ref(), &Limits::default(), RECORD_MAX)
}

fn object(text: Option<&str>) -> Value {
    serde_json::from_str(text.unwrap()).unwrap()
}

/// What @segment/analytics-node 3.1 sends.
const SEGMENT: &str = r#"{"batch":[
 {"timestamp":"2026-01-02T03:04:05.000Z","integrations":{},"event":"Bought","type":"track",
  "properties":{"a":1},"context":{"library":{"name":"@segment/analytics-node"}},"userId":"u1",
  "messageId":"node-1","_metadata":{"nodeVersion":"v20"}},
 {"timestamp":"2026-11-21T18:44:26.265Z","integrations":{},"type":"identify","userId":"u1",
  "traits":{"email":"x@y"},"context":{},"messageId":"node-2"},
 {"timestamp":"2026-11-21T18:44:26.265Z","integrations":{},"type":"page",
  "properties":{"url":"https://e.x/","referrer":"https://r.x/","category":"Docs"},
  "category":"Docs","name":"Home","anonymousId":"an","messageId":"node-3"},
 {"type":"group","traits":{"p":1},"groupId":"g","userId":7,"messageId":"node-4"}
],"writeKey":"wk","sentAt":"2026-11-21T18:44:26.268Z"}"#;

#[test]
fn a_batch_of_segment_keeps_types_ids_times_and_properties() {
    let outcome = decode(Sdk::Segment, SEGMENT).unwrap();
    assert_eq!(outcome.decoded.rejected, []);
    assert_eq!(outcome.decoded.key.as_deref(), Some("wk"));
    let events = outcome.events();
    let [track, identify, page, group] = events[..] else { panic!("four events") };
    assert_eq!((track.kind, track.event), ("track", Some("Bought")));
    assert_eq!((track.user_id, track.message_id), (Some("u1"), Some("node-1")));
    let original = 1_767_323_045_000 * MILLI;
    assert_eq!(track.original_timestamp, Some(original));
    assert_eq!(track.sent_at, Some(1_795_286_666_268 * MILLI));
    assert_eq!(track.timestamp, original, "the clocks agree");
    assert_eq!(
        object(track.properties),
        json!({"a":1,"integrations":{},"_metadata":{"nodeVersion":"v20"}})
    );
    assert_eq!(object(track.context), json!({"library":{"name":"@segment/analytics-node"}}));
    assert_eq!((identify.kind, identify.event), ("identify", None));
    assert_eq!(object(identify.properties), json!({"traits":{"email":"x@y"},"integrations":{}}));
    assert_eq!((page.kind, page.event), ("page", Some("Home")));
    assert_eq!(page.anonymous_id, Some("an"));
    assert_eq!((page.url, page.referrer), (Some("https://e.x/"), Some("https://r.x/")));
    assert_eq!(object(page.properties)["category"], "Docs");
    assert_eq!((group.kind, group.user_id), ("group", Some("7")));
    assert_eq!((group.timestamp, group.original_timestamp), (RECEIVED_AT, None));
}

#[test]
fn a_segment_event_alone_has_the_type_of_its_route() {
    let body = br#"{"writeKey":"k","userId":"u","messageId":"m","sentAt":"2026-11-21T18:43:20Z",
        "originalTimestamp":"2026-11-21T18:43:10Z","timestamp":"2026-11-21T18:43:11Z",
        "context":{"page":{"url":"https:\/\/e.x\/a","referrer":"https://r.x"},"userAgent":"UA",
        "sessionId":1795286667},"properties":{"url":"https://other.x"}}"#;
    let limits = Limits::default();
    let outcome = decode_with(Sdk::Jitsu, Some("page"), body, &limits, RECORD_MAX).unwrap();
    let event = outcome.only();
    assert_eq!(event.kind, "page");
    assert_eq!(event.url, Some("https://e.x/a"), "the context's url comes first");
    assert_eq!((event.referrer, event.user_agent), (Some("https://r.x"), Some("UA")));
    assert_eq!(event.session_id, Some("1795286667"));
    assert_eq!(event.timestamp, RECEIVED_AT - 10_000 * MILLI, "its clock is 67 s behind");
    assert_eq!(object(event.properties), json!({"url":"https://other.x"}));
    assert_eq!(outcome.decoded.key.as_deref(), Some("k"));
}

#[test]
fn only_pages_take_their_url_from_the_properties() {
    let body = r#"{"event":"Link Clicked","properties":{"url":"https://target.x"}}"#;
    assert_eq!(decode(Sdk::Segment, body).unwrap().only().url, None);
    let body = r#"{"properties":{"url":"https://e.x"},"type":"page"}"#;
    assert_eq!(decode(Sdk::Segment, body).unwrap().only().url, Some("https://e.x"));
}

#[test]
fn an_event_with_a_name_and_an_event_keeps_both() {
    for body in
        [r#"{"type":"page","name":"N","event":"E"}"#, r#"{"type":"page","event":"E","name":"N"}"#]
    {
        let outcome = decode(Sdk::Segment, body).unwrap();
        assert_eq!(outcome.only().event, Some("E"), "{body}");
        assert_eq!(object(outcome.only().properties), json!({"name":"N"}), "{body}");
    }
}

#[test]
fn of_two_members_of_one_name_the_propertys_is_kept() {
    for body in [
        r#"{"event":"e","category":"out","x\u0079":1,"properties":{"category":"in","xy":2}}"#,
        r#"{"event":"e","properties":{"category":"in","x\u0079":2},"category":"out","xy":1}"#,
    ] {
        let outcome = decode(Sdk::Segment, body).unwrap();
        assert_eq!(object(outcome.only().properties), json!({"category":"in","xy":2}), "{body}");
    }
}

#[test]
fn the_envelopes_sending_time_counts_wherever_it_stands() {
    let event = r#"{"event":"e","timestamp":"2026-11-21T18:43:00Z"}"#;
    let sent = r#""sentAt":"2026-11-21T18:43:10Z""#;
    for body in
        [format!("{{{sent},\"batch\":[{event}]}}"), format!("{{\"batch\":[{event}],{sent}}}")]
    {
        let outcome = decode(Sdk::Segment, &body).unwrap();
        assert_eq!(outcome.only().timestamp, RECEIVED_AT - 10_000 * MILLI, "{body}");
    }
    // A clock that is ahead makes nothing happen in the future, not even sent before it happened.
    let body =
        r#"{"event":"e","timestamp":"2026-11-21T19:00:02Z","sentAt":"2026-11-21T19:00:01Z"}"#;
    assert_eq!(decode(Sdk::Segment, body).unwrap().only().timestamp, RECEIVED_AT);
    // An unreadable one costs the correction and nothing else.
    let body = format!("{{\"batch\":[{event}],\"sentAt\":\"soon\"}}");
    assert_eq!(decode(Sdk::Segment, &body).unwrap().only().timestamp, RECEIVED_AT - 87_000 * MILLI);
}

#[test]
fn a_told_time_stays_whatever_the_clock_says() {
    const TOLD: i64 = 1_767_225_600_000 * MILLI;
    for sent in ["2026-11-21T18:44:26Z", "2026-11-21T18:00:00Z"] {
        let body = format!(
            r#"{{"event":"e","timestamp":"2026-01-01T00:00:00Z","sentAt":"{sent}",
                "originalTimestamp":"2026-11-21T17:59:59Z"}}"#
        );
        let outcome = decode(Sdk::Segment, &body).unwrap();
        assert_eq!(outcome.only().timestamp, TOLD, "{sent}");
    }
}

/// What posthog-node 5.70 sends.
#[test]
fn posthogs_events_get_types_and_columns() {
    let body = r#"{"api_key":"phc","batch":[
     {"event":"bought","properties":{"a":1,"$current_url":"https://e.x/","$session_id":"s",
      "$device_id":"d","$referrer":"$direct","$raw_user_agent":"UA","$set":{"in":1}},
      "$set":{"out":1},"timestamp":"2026-11-21T18:44:26.000Z","uuid":"id-1","distinct_id":"d1"},
     {"event":"$identify","properties":{"$anon_distinct_id":"anon"},"distinct_id":"d1"},
     {"event":"$pageview","properties":{"distinct_id":"d2","token":"phc_js"}},
     {"event":"$screen"},{"event":"$groupidentify"},{"event":"$create_alias"},
     {"type":"capture","distinct_id":"d1"}
    ],"sent_at":"2026-11-21T18:44:26.500Z"}"#;
    let outcome = decode(Sdk::PostHog, body).unwrap();
    assert_eq!(outcome.decoded.key.as_deref(), Some("phc"));
    let rejected: Vec<_> = outcome.decoded.rejected.iter().map(|bad| bad.index).collect();
    assert_eq!(rejected, [6], "an event without a name");
    let events = outcome.events();
    let kinds: Vec<_> = events.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, ["track", "identify", "page", "screen", "group", "alias"]);
    let bought = events[0];
    assert_eq!((bought.event, bought.user_id), (Some("bought"), Some("d1")));
    assert_eq!((bought.message_id, bought.session_id), (Some("id-1"), Some("s")));
    assert_eq!((bought.url, bought.referrer), (Some("https://e.x/"), None));
    assert_eq!((bought.anonymous_id, bought.user_agent), (Some("d"), Some("UA")));
    assert_eq!(bought.timestamp, RECEIVED_AT - 1_000 * MILLI);
    assert_eq!(object(bought.properties)["$set"], json!({"in":1}));
    assert_eq!(events[1].anonymous_id, Some("anon"));
    assert_eq!((events[2].event, events[2].user_id), (Some("$pageview"), Some("d2")));
}

#[test]
fn posthogs_browser_events_come_alone_and_in_lists() {
    let one = r#"{"uuid":"u","event":"e","properties":{"token":"phc","distinct_id":"d"}}"#;
    for (body, count) in [(one.to_owned(), 1), (format!("[{one},{one}]"), 2)] {
        let outcome = decode(Sdk::PostHog, &body).unwrap();
        assert_eq!(outcome.decoded.key.as_deref(), Some("phc"));
        assert_eq!(outcome.events().len(), count);
        assert_eq!(outcome.events()[0].user_id, Some("d"));
    }
}

/// What @snowplow/node-tracker 4.8 sends.
#[test]
fn snowplows_parameters_become_columns() {
    let contexts = r#"{"schema":"iglu:a/contexts/jsonschema/1-0-0","data":[{"data":{"k":"ü"}}]}"#;
    let link = r#"{"schema":"iglu:b/unstruct_event/jsonschema/1-0-0","data":{"schema":"iglu:com.acme/link_click/jsonschema/1-0-1","data":{"url":"https://t.x"}}}"#;
    let encode = |text: &str| {
        const DIGITS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut encoded = String::new();
        for chunk in text.as_bytes().chunks(3) {
            let mut bytes = [0; 4];
            bytes[1..=chunk.len()].copy_from_slice(chunk);
            let bits = u32::from_be_bytes(bytes);
            for place in 0..=chunk.len() {
                encoded.push(char::from(DIGITS[(bits >> (18 - 6 * place) & 63) as usize]));
            }
        }
        encoded
    };
    assert_eq!(decode_base64(encode(link).into_bytes()).unwrap(), link.as_bytes());
    for (co, co_value, ue, ue_value) in [
        ("co", contexts.to_owned(), "ue_pr", format!(" {link}\n")),
        ("cx", encode(contexts), "ue_px", encode(link)),
    ] {
        let body = json!({"schema":"iglu:payload_data","data":[
            {"e":"pv","url":"https://e.x/","page":"T","refr":"https://r.x/","eid":"id-1","p":"srv",
             "aid":"app","uid":"u1","duid":"du","sid":"s","ua":"UA","dtm":"1795286666000",
             "stm":"1795286666500",co:co_value},
            {"e":"se","se_ca":"c","se_ac":"act","se_va":"1.5","eid":"id-2","ttm":"1795286000000",
             "dtm":"1795286666000","stm":"1795286666500"},
            {"e":"ue","eid":"id-3",ue:ue_value,"dtm":"1795286666700","stm":"1795286666000"},
            {"e":"pp"},{"e":"tr"},{"e":"ti"},
            {"e":"??"},{"eid":"x"},{"e":"ue"},{"e":"ue",ue:"!"}
        ]});
        let outcome = decode(Sdk::Snowplow, body.to_string()).unwrap();
        let rejected: Vec<_> = outcome.decoded.rejected.iter().map(|bad| bad.index).collect();
        assert_eq!(rejected, [6, 7, 8, 9]);
        assert_eq!(outcome.decoded.key.as_deref(), Some("app"));
        let events = outcome.events();
        let page = events[0];
        assert_eq!((page.kind, page.event), ("page", None));
        assert_eq!((page.url, page.referrer), (Some("https://e.x/"), Some("https://r.x/")));
        assert_eq!((page.message_id, page.user_id), (Some("id-1"), Some("u1")));
        assert_eq!((page.anonymous_id, page.session_id), (Some("du"), Some("s")));
        assert_eq!(page.user_agent, Some("UA"));
        assert_eq!(page.timestamp, RECEIVED_AT - 1_000 * MILLI);
        assert_eq!(object(page.properties), json!({"page":"T","p":"srv","aid":"app"}));
        assert_eq!(object(page.context), serde_json::from_str::<Value>(contexts).unwrap());
        assert_eq!((events[1].kind, events[1].event), ("track", Some("act")));
        assert_eq!(events[1].timestamp, 1_795_286_000_000 * MILLI, "the true time stands");
        assert_eq!(object(events[1].properties), json!({"se_ca":"c","se_va":"1.5"}));
        assert_eq!((events[2].kind, events[2].event), ("track", Some("link_click")));
        assert_eq!(
            object(events[2].properties),
            json!({"ue_pr": serde_json::from_str::<Value>(link).unwrap()})
        );
        assert_eq!(events[2].timestamp, RECEIVED_AT - 300 * MILLI);
        let names: Vec<_> = events[3..].iter().map(|event| event.event.unwrap()).collect();
        assert_eq!(names, ["page_ping", "transaction", "transaction_item"]);
    }
}

#[test]
fn snowplows_query_string_is_the_same_event() {
    let request = request(Sdk::Snowplow);
    let limits = Limits::default();
    let how = SdkBody {
        sdk: Sdk::Snowplow,
        kind: None,
        request: &request,
        limits: &limits,
        record_max_bytes: RECORD_MAX,
    };
    let mut assembly = Assembly::new();
    let pairs = [("e", "pv"), ("url", "https://e.x/\"\u{1}"), ("dtm", "1795286666000")];
    let pairs = pairs.into_iter().map(|(name, value)| (name.into(), value.into()));
    let decoded = SdkDecoder::new().decode_pairs(pairs, &how, &mut assembly).unwrap();
    assert_eq!(decoded.accepted, 1);
    let mut record = vec![0; assembly.record_len(&request)];
    assembly.write(&request, &mut record);
    let event = Record::parse(&record).unwrap().iter().next().unwrap();
    assert_eq!((event.kind, event.url), ("page", Some("https://e.x/\"\u{1}")));
    assert_eq!(event.timestamp, 1_795_286_666_000 * MILLI);
}

#[test]
fn plausibles_short_and_long_names_are_the_same() {
    for body in [
        r#"{"n":"Sign","u":"https://e.x/p","d":"e.x","r":"https://r.x","w":800,"h":0,
            "p":"{\"a\":\"b\",\"w\":1}"}"#,
        r#"{"name":"Sign","url":"https://e.x/p","domain":"e.x","referrer":"https://r.x","w":800,
            "h":0,"props":{"a":"b","w":1}}"#,
    ] {
        let outcome = decode(Sdk::Plausible, body).unwrap();
        assert_eq!(outcome.decoded.key.as_deref(), Some("e.x"));
        let event = outcome.only();
        assert_eq!((event.kind, event.event), ("track", Some("Sign")));
        assert_eq!((event.url, event.referrer), (Some("https://e.x/p"), Some("https://r.x")));
        let properties = object(event.properties);
        assert_eq!((&properties["a"], &properties["w"]), (&json!("b"), &json!(1)));
        assert_eq!(properties["h"], 0);
    }
    let outcome = decode(Sdk::Plausible, r#"{"n":"pageview","u":"https://e.x","r":null}"#).unwrap();
    assert_eq!((outcome.only().kind, outcome.only().event), ("page", Some("pageview")));
    for body in [r#"{"u":"https://e.x"}"#, r#"{"n":"a","p":"{"}"#, r#"{"n":"a","p":"[]"}"#] {
        assert_eq!(decode(Sdk::Plausible, body).err().unwrap().kind, ErrorKind::Shape, "{body}");
    }
}

#[test]
fn umamis_payload_is_the_event() {
    let page = r#"{"type":"event","payload":{"website":"w-id","url":"/home","title":"T",
        "hostname":"e.x","referrer":"","timestamp":1795286000}}"#;
    let outcome = decode(Sdk::Umami, page).unwrap();
    assert_eq!(outcome.decoded.key.as_deref(), Some("w-id"));
    let event = outcome.only();
    assert_eq!((event.kind, event.event, event.url), ("page", None, Some("/home")));
    assert_eq!((event.referrer, event.timestamp), (None, 1_795_286_000_000 * MILLI));
    let kept = json!({"website":"w-id","title":"T","hostname":"e.x"});
    assert_eq!(object(event.properties), kept);
    let named = r#"{"payload":{"name":"signup","data":{"plan":"pro","id":"x"}},"type":"event"}"#;
    let outcome = decode(Sdk::Umami, named).unwrap();
    let event = outcome.only();
    assert_eq!((event.kind, event.event, event.user_id), ("track", Some("signup"), None));
    assert_eq!(object(event.properties), json!({"plan":"pro","id":"x"}));
    let identify = r#"{"type":"identify","payload":{"website":"w","data":{"id":"u1","e":"x"}}}"#;
    let outcome = decode(Sdk::Umami, identify).unwrap();
    assert_eq!((outcome.only().kind, outcome.only().user_id), ("identify", Some("u1")));
    assert!(decode(Sdk::Umami, r#"{"type":"other","payload":{}}"#).is_err());
    assert!(decode(Sdk::Umami, r#"{"payload":{}}"#).is_err());
}

#[test]
fn a_batch_keeps_its_good_events_and_names_the_bad() {
    let body = r#"{"batch":[{"event":"a"},7,{"event":{}},{},{"event":"b","timestamp":"soon"},
        {"event":"c","properties":[]},{"event":"d","x":1,"x":2},{"event":"e"}]}"#;
    let outcome = decode(Sdk::Segment, body).unwrap();
    let names: Vec<_> = outcome.events().iter().map(|event| event.event.unwrap()).collect();
    assert_eq!(names, ["a", "e"]);
    let kinds: Vec<_> =
        outcome.decoded.rejected.iter().map(|bad| (bad.index, bad.error.kind)).collect();
    assert_eq!(
        kinds,
        [
            (1, ErrorKind::Shape),
            (2, ErrorKind::Type),
            (3, ErrorKind::Shape),
            (4, ErrorKind::Timestamp),
            (5, ErrorKind::Type),
            (6, ErrorKind::Duplicate),
        ]
    );
}

#[test]
fn a_body_that_is_no_json_and_a_bad_event_alone_are_refused() {
    for (body, kind) in [
        (&b""[..], ErrorKind::Empty),
        (b"  ", ErrorKind::Empty),
        (b"x", ErrorKind::NotJson),
        (b"{\"batch\":[{\"event\":\"a\"}", ErrorKind::NotJson),
        (b"{\"event\":\"a\"}{}", ErrorKind::NotJson),
        (b"{\"event\":\"\xFF\"}", ErrorKind::NotJson),
        (b"{\"batch\":1}", ErrorKind::Shape),
        (b"{}", ErrorKind::Shape),
        (b"{\"event\":[]}", ErrorKind::Type),
    ] {
        let error = decode(Sdk::Segment, body).err().unwrap();
        assert_eq!(error.kind, kind, "{}", String::from_utf8_lossy(body));
    }
    let outcome = decode(Sdk::Segment, r#"{"batch":[]}"#).unwrap();
    assert_eq!((outcome.decoded.accepted, outcome.record.len()), (0, 0));
}

#[test]
fn limits_hold() {
    let limits = Limits { event_max_bytes: 64, events_max: 3 };
    let large = format!(r#"{{"event":"{}"}}"#, "x".repeat(64));
    let body = format!(r#"{{"pad":"{}","batch":[{large},{{"event":"a"}}]}}"#, "y".repeat(100));
    let outcome = decode_with(Sdk::Segment, None, body.as_bytes(), &limits, RECORD_MAX).unwrap();
    assert_eq!(outcome.decoded.rejected[0].error.kind, ErrorKind::TooLarge);
    assert_eq!(outcome.events().len(), 1, "the envelope is no event");
    let four = br#"[{"event":"a"},{"event":"a"},{"event":"a"},{"event":"a"}]"#;
    let error = decode_with(Sdk::PostHog, None, four, &limits, RECORD_MAX).err().unwrap();
    assert_eq!(error.kind, ErrorKind::TooMany);
    let error = decode_with(Sdk::PostHog, None, &four[..], &Limits::default(), 10).err().unwrap();
    assert_eq!(error.kind, ErrorKind::TooLarge);
    let extras: String = (0..65).map(|number| format!(r#","x{number}":1"#)).collect();
    let error = decode(Sdk::Segment, format!(r#"{{"event":"a","properties":{{"p":1}}{extras}}}"#));
    assert_eq!(error.err().unwrap().kind, ErrorKind::TooLarge);
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let error = decode(Sdk::Segment, format!(r#"{{"event":"a","x":{deep}}}"#)).err().unwrap();
    assert_eq!(error.kind, ErrorKind::Depth);
    let deep = serde_json::to_string(&format!("{{\"a\":{deep}}}")).unwrap();
    let error = decode(Sdk::Plausible, format!(r#"{{"n":"a","p":{deep}}}"#)).err().unwrap();
    assert_eq!(error.kind, ErrorKind::Shape);
    assert!(error.message.contains("nested"), "{error}");
}

const ALL: [Sdk; 6] =
    [Sdk::Segment, Sdk::Jitsu, Sdk::PostHog, Sdk::Snowplow, Sdk::Plausible, Sdk::Umami];

/// Names and values that mean something to one of the tables, and some that do not.
fn member() -> impl Strategy<Value = (String, Value)> {
    let names = [
        "type",
        "event",
        "name",
        "userId",
        "properties",
        "context",
        "timestamp",
        "sentAt",
        "batch",
        "data",
        "payload",
        "e",
        "n",
        "p",
        "uuid",
        "distinct_id",
        "ue_pr",
        "ue_px",
        "co",
        "dtm",
        "x",
        "$set",
        "url",
        "messageId",
        "token",
    ];
    let leaf = prop_oneof![
        Just(json!(null)),
        Just(json!(7)),
        Just(json!("pv")),
        Just(json!("event")),
        Just(json!("2026-01-01T00:00:00Z")),
        Just(json!("{\"data\":{\"schema\":\"iglu:a/b/c\"}}")),
        Just(json!("e30")),
        Just(json!({"url":"u","x":1,"page":{"url":"v"},"name":"n","data":{}})),
        Just(json!([{"event":"a"},{"e":"pv"},3])),
        any::<String>().prop_map(Value::from),
    ];
    (proptest::sample::select(names.to_vec()).prop_map(str::to_owned), leaf)
}

proptest! {
    #[test]
    fn any_members_give_records_that_read_back(
        members in proptest::collection::vec(member(), 0..8),
        listed in any::<bool>(),
    ) {
        let event: Value = members.into_iter().collect::<serde_json::Map<_, _>>().into();
        let body = if listed { json!([event, {"batch":[event]}, event]) } else { event };
        for sdk in ALL {
            // `decode` checks that the record reads back and that what is stored is JSON.
            let _ = decode(sdk, body.to_string());
        }
    }

    #[test]
    fn damaged_bodies_do_not_panic(at in 0..SEGMENT.len(), byte in any::<u8>()) {
        let mut body = SEGMENT.as_bytes().to_vec();
        body[at] = byte;
        for sdk in ALL {
            let _ = decode(sdk, &body);
            let _ = decode(sdk, &body[..at]);
        }
    }
}

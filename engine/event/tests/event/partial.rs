//! What `partial=true` keeps, and what it reports.

use ringlake_event::{ErrorKind, Limits, Mode, Request, Tenant};

use crate::{Outcome, REQUEST, decode_partial, decode_with};

/// The names of the kept events, and index and kind of the others.
fn outcome(body: &str) -> (Vec<String>, Vec<(usize, ErrorKind)>) {
    describe(&decode_partial(body).unwrap())
}

fn describe(outcome: &Outcome) -> (Vec<String>, Vec<(usize, ErrorKind)>) {
    let kept = outcome.events().iter().map(|event| event.kind.to_owned()).collect();
    let rejected = outcome.decoded.rejected.iter();
    let rejected = rejected.map(|rejection| {
        assert_eq!(rejection.error.index, Some(rejection.index));
        (rejection.index, rejection.error.kind)
    });
    (kept, rejected.collect())
}

/// Bad events whose syntax is right.
const BAD: [(&str, ErrorKind); 9] = [
    (r#"{"type":"b","user_id":{"x":[1,{"y":2}]}}"#, ErrorKind::Type),
    (r#"{}"#, ErrorKind::Shape),
    (r#"[1,2]"#, ErrorKind::Shape),
    (r#"7"#, ErrorKind::Shape),
    (r#"{"type":"b","timestamp":"never"}"#, ErrorKind::Timestamp),
    (r#"{"type":"b","type":"b"}"#, ErrorKind::Duplicate),
    (r#"{"type":"b","a":{"k":1,"k":1}}"#, ErrorKind::Duplicate),
    (r#"{"type":"b","properties":7,"user_id":7}"#, ErrorKind::Type),
    (r#"{"type":"b","a":1,"properties":{"a":2}}"#, ErrorKind::Duplicate),
];

#[test]
fn a_bad_event_leaves_the_others_in_an_array() {
    for (bad, kind) in BAD {
        let body = format!(r#"[{{"type":"a"}},{bad},{{"type":"c"}}]"#);
        assert_eq!(outcome(&body), (vec!["a".into(), "c".into()], vec![(1, kind)]), "{bad}");
    }
}

#[test]
fn a_bad_event_leaves_the_others_on_lines() {
    for (bad, kind) in BAD {
        let body = format!("{{\"type\":\"a\"}}\n{bad}\r\n{{\"type\":\"c\"}}");
        assert_eq!(outcome(&body), (vec!["a".into(), "c".into()], vec![(1, kind)]), "{bad}");
    }
}

#[test]
fn an_event_that_is_too_deep_is_left_out() {
    let deep = format!("{{\"type\":\"b\",\"a\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let array = format!(r#"[{{"type":"a"}},{deep},{{"type":"c"}}]"#);
    let lines = format!("{{\"type\":\"a\"}}\n{deep}\n{{\"type\":\"c\"}}");
    for body in [array, lines] {
        assert_eq!(outcome(&body), (vec!["a".into(), "c".into()], vec![(1, ErrorKind::Depth)]));
    }
}

#[test]
fn an_event_that_is_too_large_is_left_out_with_its_size() {
    let keys: String = (0..100_000).map(|number| format!("\"k{number}\":0,")).collect();
    let large = format!("{{{keys}\"type\":\"b\"}}");
    let array = format!(r#"[{{"type":"a"}},{large},{{"type":"c"}}]"#);
    let lines = format!("{{\"type\":\"a\"}}\n{large}\n{{\"type\":\"c\"}}");
    for body in [array, lines] {
        let decoded = decode_partial(body).unwrap();
        let expected = (vec!["a".into(), "c".into()], vec![(1, ErrorKind::TooLarge)]);
        assert_eq!(describe(&decoded), expected);
        let size = format!("of {} bytes", large.len());
        assert!(decoded.decoded.rejected[0].error.message.contains(&size));
    }
}

#[test]
fn a_foreign_tenant_is_left_out() {
    let request = Request { tenant: Tenant::Fixed("acme"), ..REQUEST };
    let body = br#"[{"type":"a","tenant":"other"},{"type":"b","tenant":"acme"}]"#;
    let decoded = decode_with(body, &request, &Limits::default(), Mode::Partial).unwrap();
    assert_eq!(describe(&decoded), (vec!["b".into()], vec![(0, ErrorKind::Forbidden)]));
}

#[test]
fn a_line_that_is_not_json_is_left_out() {
    for bad in [
        "{\"type\":\"b\"",
        "{\"type\":\"b",
        "{\"type\":\"b\",",
        "{\"type\":",
        "{\"type\":\"b\",\"a\":",
        "{\"type\":\"b\",\"a\":[1,",
        "{\"type\":\"b\",\"a\":{",
        "{\"type\":\"b\"}}",
        "{\"type\":\"b\"} {\"type\":\"d\"}",
        "garbage",
        "{\"type\":\"b\",\"a\":01}",
        "]",
        "{",
    ] {
        let body = format!("{{\"type\":\"a\"}}\n{bad}\n{{\"type\":\"c\"}}\n{{\"type\":\"d\"}}\n");
        let expected = (vec!["a".into(), "c".into(), "d".into()], vec![(1, ErrorKind::NotJson)]);
        assert_eq!(outcome(&body), expected, "{bad}");
    }
}

#[test]
fn the_last_line_may_be_cut_off() {
    let body = "{\"type\":\"a\"}\n{\"type\":\"b\"}\n{\"type\":\"c";
    let expected = (vec!["a".into(), "b".into()], vec![(2, ErrorKind::NotJson)]);
    assert_eq!(outcome(body), expected);
}

#[test]
fn broken_syntax_in_an_array_refuses_the_request() {
    for body in [
        r#"[{"type":"a"},{"type":"b",},{"type":"c"}]"#,
        r#"[{"type":"a"},{"type":"c"}"#,
        r#"[{"type":"a"} {"type":"c"}]"#,
        r#"[{"type":"a"},]"#,
        r#"[{"type":"a"}]]"#,
    ] {
        assert_eq!(decode_partial(body).unwrap_err().kind, ErrorKind::NotJson, "{body}");
    }
}

#[test]
fn a_request_of_bad_events_alone_stores_nothing() {
    let decoded = decode_partial("[{},{},1]").unwrap().decoded;
    assert_eq!((decoded.accepted, decoded.record_len, decoded.rejected.len()), (0, 0, 3));
}

#[test]
fn lines_made_to_be_read_again_cost_no_more_than_twice() {
    // Each line reads on through all that follow and fails at the end. Starting over at every
    // line without a bound would read 2 MiB 50,000 times.
    let body = "{\"type\":\"x\",\"a\":[0],\"properties\":[\n".repeat(49_000);
    let decoded = decode_partial(body).unwrap().decoded;
    assert_eq!(decoded.accepted, 0);
    assert!(!decoded.rejected.is_empty());
}

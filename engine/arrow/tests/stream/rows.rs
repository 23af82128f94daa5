//! What each row becomes, and which rows are refused.

use arrow::array::{Date32Array, Int64Array, StringArray, StringDictionaryBuilder};
use arrow::datatypes::Int8Type;
use proptest::prelude::*;
use ringlake_event::{Decoder, ErrorKind, record_bound};
use serde_json::{Map, Value};

use super::*;

type Row = [Option<String>; 7];

const NAMES: [&str; 7] = ["event", "type", "message_id", "user_id", "timestamp", "properties", "x"];

fn texts_of(rows: &[Row]) -> Vec<u8> {
    stream(NAMES.iter().enumerate().map(|(place, name)| {
        column(name, StringArray::from_iter(rows.iter().map(|row| row[place].clone())))
    }))
}

/// The same rows as JSON, one a line; a null is an absent member.
fn lines_of(rows: &[Row]) -> String {
    let line = |row: &Row| {
        let mut object = Map::new();
        for (name, text) in NAMES.iter().zip(row) {
            let Some(text) = text else { continue };
            let is_json = *name == "properties";
            let value = match serde_json::from_str(text) {
                Ok(value) if is_json => value,
                _ => Value::from(text.as_str()),
            };
            object.insert((*name).into(), value);
        }
        Value::Object(object).to_string() + "\n"
    };
    rows.iter().map(line).collect()
}

fn row() -> impl Strategy<Value = Row> {
    let text = |pattern: &'static str| proptest::option::of(pattern.prop_map(String::from));
    (
        text("[a-b]{0,2}"),
        text("[p]{0,1}"),
        text(".{0,4}"),
        text(".{0,20}"),
        text("2026-11-21T00:00:0[0-9]Z|soon"),
        text(r#"\{("x":1)?\}|\{"y":\[1,2\]\}|\[\]|""#),
        text("\\PC{0,5}"),
    )
        .prop_map(|(a, b, c, d, e, f, g)| [a, b, c, d, e, f, g])
}

proptest! {
    #[test]
    fn a_row_becomes_what_the_json_object_would(rows in proptest::collection::vec(row(), 1..8)) {
        let partial = Body { mode: Mode::Partial, ..BODY };
        let lines = lines_of(&rows);
        let mut record = vec![0; record_bound(lines.len())];
        let decoded = Decoder::new()
            .decode(lines.as_bytes(), &REQUEST, &LIMITS, Mode::Partial, &mut record)
            .unwrap();
        record.truncate(decoded.record_len);
        let from_json = Outcome { record, rejected: decoded.rejected };
        let from_arrow = read(&texts_of(&rows), &partial).unwrap();
        let indexes = |outcome: &Outcome| {
            outcome.rejected.iter().map(|bad| bad.index).collect::<Vec<_>>()
        };
        prop_assert_eq!(indexes(&from_arrow), indexes(&from_json));
        for (one, other) in from_arrow.events().into_iter().zip(from_json.events()) {
            let value = |text: Option<&str>| text.map(|text| serde_json::from_str::<Value>(text).unwrap());
            prop_assert_eq!(value(one.properties), value(other.properties));
            let without = |event: Event<'_>| format!("{:?}", Event { properties: None, ..event });
            prop_assert_eq!(without(one), without(other));
        }
        let whole = read(&texts_of(&rows), &BODY);
        prop_assert_eq!(whole.is_err(), !from_json.rejected.is_empty());
        if let Err(error) = whole {
            prop_assert_eq!(error.index, Some(from_json.rejected[0].index));
        }
    }
}

fn refused(columns: Vec<(String, ArrayRef)>, body: &Body<'_>) -> (ErrorKind, Option<usize>) {
    let error = read(&stream(columns), body).err().unwrap();
    (error.kind, error.index)
}

fn two(name: &str, texts: [Option<&str>; 2]) -> (String, ArrayRef) {
    column(name, StringArray::from(texts.to_vec()))
}

#[test]
fn a_row_of_another_tenant_is_forbidden_to_a_key() {
    let request = Request { tenant: Tenant::Fixed("shop"), ..REQUEST };
    let body = Body { request: &request, ..BODY };
    let columns = |owner| vec![two("type", [Some("a"); 2]), two("tenant", [Some("shop"), owner])];
    assert_eq!(refused(columns(Some("bank")), &body), (ErrorKind::Forbidden, Some(1)));
    for owner in [None, Some(""), Some("shop")] {
        let outcome = read(&stream(columns(owner)), &body).unwrap();
        assert!(outcome.events().iter().all(|event| event.tenant == "shop"));
    }
}

#[test]
fn bad_rows_are_told_by_number_and_reason() {
    let names = || two("event", [Some("a"), Some("b")]);
    for (columns, kind) in [
        (vec![two("event", [Some("a"), None])], ErrorKind::Shape),
        (vec![names(), two("properties", [None, Some("[]")])], ErrorKind::Type),
        (vec![names(), two("properties", [None, Some("{\"a\":}")])], ErrorKind::NotJson),
        (vec![names(), two("context", [None, Some("{\"a\":1,\"a\":1}")])], ErrorKind::Duplicate),
        (
            vec![names(), two("properties", [None, Some("{\"x\":1}")]), two("x", [Some("y"); 2])],
            ErrorKind::Duplicate,
        ),
        (vec![names(), two("timestamp", [None, Some("2026-11-21")])], ErrorKind::Timestamp),
        (
            vec![names(), column("sent_at", Int64Array::from(vec![None, Some(i64::MIN)]))],
            ErrorKind::Timestamp,
        ),
        (
            vec![names(), column("timestamp", Date32Array::from(vec![None, Some(i32::MAX)]))],
            ErrorKind::Timestamp,
        ),
        (vec![names(), two("url", [None, Some(&"x".repeat(10_000))])], ErrorKind::TooLarge),
        (vec![names(), two("x", [None, Some(&"x".repeat(10_000))])], ErrorKind::TooLarge),
    ] {
        assert_eq!(refused(columns.clone(), &BODY), (kind, Some(1)));
        let partial = Body { mode: Mode::Partial, ..BODY };
        let outcome = read(&stream(columns), &partial).unwrap();
        assert_eq!((outcome.events().len(), outcome.rejected.len()), (1, 1));
        assert_eq!((outcome.rejected[0].index, outcome.rejected[0].error.kind), (1, kind));
    }
}

#[test]
fn limits_of_the_request_hold() {
    let rows = |count: usize| vec![column("event", StringArray::from(vec!["a"; count]))];
    assert_eq!(read(&stream(rows(1_000)), &BODY).unwrap().events().len(), 1_000);
    assert_eq!(refused(rows(1_001), &BODY), (ErrorKind::TooMany, None));
    // A dictionary says once what each of its rows repeats.
    let mut coded = StringDictionaryBuilder::<Int8Type>::new();
    let long = "x".repeat(9_000);
    coded.extend((0..1_000).map(|_| Some(&long)));
    let columns = vec![rows(1_000).remove(0), column("url", coded.finish())];
    assert_eq!(refused(columns, &BODY), (ErrorKind::TooLarge, None));
    let small = Body { unpacked_max_bytes: 5_000, ..BODY };
    assert_eq!(refused(rows(1_000), &small), (ErrorKind::TooLarge, None));
}

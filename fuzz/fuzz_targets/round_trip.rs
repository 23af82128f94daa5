//! Events with any fields, written as JSON in each shape and way of escaping: what comes out of the
//! record is what went in.

#![no_main]

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use ringlake_event::{Mode, Request, Source, Tenant};
use ringlake_fuzz::events::{REQUEST, check, decode, is_known};
use serde_json::{Map, Value};

const EVENTS_MAX: usize = 6;
const DEPTH_MAX: usize = 4;

/// One name of each field; which one is of no consequence to the record.
const TEXTS: [&[&str]; 9] = [
    &["message_id", "messageId", "dedup_id"],
    &["event", "name"],
    &["user_id", "userId"],
    &["anonymous_id", "anonymousId"],
    &["session_id", "sessionId"],
    &["url"],
    &["referrer"],
    &["user_agent", "userAgent"],
    &["tenant"],
];
const TIMES: [&[&str]; 3] =
    [&["timestamp"], &["original_timestamp", "originalTimestamp"], &["sent_at", "sentAt"]];

fuzz_target!(|bytes: &[u8]| {
    // Too few bytes are no event.
    let _ = round_trip(&mut Unstructured::new(bytes));
});

fn round_trip(bytes: &mut Unstructured<'_>) -> Result<()> {
    let owner = format!("owner-{}", bytes.int_in_range(0..=9)?);
    let tenant = if bytes.arbitrary()? { Tenant::Fixed(&owner) } else { Tenant::Open };
    let source = *bytes.choose(&[Source::Events, Source::Pixel, Source::Import])?;
    let request = Request { tenant, source, correct_clock: bytes.arbitrary()?, ..REQUEST };
    let mut events = Vec::new();
    for _ in 0..bytes.int_in_range(1..=EVENTS_MAX)? {
        events.push(event(bytes, &request)?);
    }
    let ascii = bytes.arbitrary()?;
    let texts = events.iter().map(|event| {
        let text = serde_json::to_string(event).unwrap();
        if ascii { only_ascii(&text) } else { text }
    });
    let texts: Vec<_> = texts.collect();
    let body = if bytes.arbitrary()? { format!("[{}]", texts.join(",")) } else { texts.join("\n") };
    let outcome = decode(body.as_bytes(), &request, Mode::Whole).unwrap();
    assert_eq!(outcome.events().len(), events.len());
    for (found, event) in outcome.events().iter().zip(&events) {
        check(found, event, &request);
    }
    Ok(())
}

fn event(bytes: &mut Unstructured<'_>, request: &Request<'_>) -> Result<Map<String, Value>> {
    let mut event = Map::new();
    event.insert("type".into(), format!("t{}", bytes.arbitrary::<&str>()?).into());
    for names in TEXTS {
        if bytes.arbitrary()? {
            let text = match (names[0], request.tenant) {
                ("tenant", Tenant::Fixed(owner)) => owner,
                _ => bytes.arbitrary()?,
            };
            event.insert(bytes.choose(names)?.to_string(), text.into());
        }
    }
    for names in TIMES {
        if bytes.arbitrary()? {
            // Seconds, milliseconds and microseconds, all in range.
            let micros = bytes.int_in_range(-62_135_596_800..=99_999_999_999_999_999_i64)?;
            event.insert(bytes.choose(names)?.to_string(), micros.into());
        }
    }
    let own = object(bytes, DEPTH_MAX)?;
    for (name, value) in object(bytes, DEPTH_MAX)? {
        if !is_known(&name) && !own.contains_key(&name) {
            event.insert(name, value);
        }
    }
    if bytes.arbitrary()? {
        event.insert("properties".into(), own.into());
    }
    if bytes.arbitrary()? {
        event.insert("context".into(), object(bytes, DEPTH_MAX)?.into());
    }
    Ok(event)
}

fn object(bytes: &mut Unstructured<'_>, depth: usize) -> Result<Map<String, Value>> {
    let mut object = Map::new();
    for _ in 0..bytes.int_in_range(0..=3)? {
        object.insert(bytes.arbitrary()?, value(bytes, depth)?);
    }
    Ok(object)
}

fn value(bytes: &mut Unstructured<'_>, depth: usize) -> Result<Value> {
    Ok(match bytes.int_in_range(0..=7)? {
        0 => Value::Null,
        1 => bytes.arbitrary::<bool>()?.into(),
        2 => bytes.arbitrary::<i64>()?.into(),
        3 => bytes.arbitrary::<u64>()?.into(),
        4 => f64::from(bytes.arbitrary::<i32>()?).into(),
        5 if depth > 0 => object(bytes, depth - 1)?.into(),
        6 if depth > 0 => vec![value(bytes, depth - 1)?, value(bytes, depth - 1)?].into(),
        _ => bytes.arbitrary::<&str>()?.into(),
    })
}

/// The same JSON with every other character escaped.
fn only_ascii(json: &str) -> String {
    let mut ascii = String::new();
    for character in json.chars() {
        if character.is_ascii() {
            ascii.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                ascii.push_str(&format!("\\u{unit:04X}"));
            }
        }
    }
    ascii
}

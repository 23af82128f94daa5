//! Any query string: every parameter reaches its field or the properties, unchanged, or the event is
//! refused for a reason that is not its syntax.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringlake_event::{Decoder, ErrorKind, Limits, encode_pairs, pairs_bound};
use ringlake_fuzz::events::{Outcome, REQUEST, check, is_time};
use serde_json::{Map, Value};

fuzz_target!(|query: &[u8]| {
    let pairs: Vec<_> = form_urlencoded::parse(query).collect();
    let mut out = vec![0xA5; pairs_bound(query.len())];
    let given = pairs.iter().cloned();
    match encode_pairs(&mut Decoder::new(), given, &REQUEST, &Limits::default(), &mut out) {
        Ok(decoded) => {
            assert!(decoded.rejected.is_empty());
            let outcome = Outcome::new(decoded, out);
            let mut object = Map::new();
            for (name, value) in &pairs {
                let twice = object.insert(name.to_string(), as_json(name, value));
                assert_eq!(twice, None, "a parameter given twice is a duplicate");
            }
            let events = outcome.events();
            assert_eq!(events.len(), 1);
            check(&events[0], &object, &REQUEST);
        }
        Err(error) => assert_ne!(error.kind, ErrorKind::NotJson, "{error}"),
    }
});

/// Times may be numbers, and the two objects are JSON; all else is text.
fn as_json(name: &str, value: &str) -> Value {
    let json = match name {
        "properties" | "context" => value.starts_with('{'),
        _ if is_time(name) => {
            value.starts_with(|first: char| first == '-' || first.is_ascii_digit())
        }
        _ => false,
    };
    let parsed = if json { serde_json::from_str(value).ok() } else { None };
    parsed.unwrap_or_else(|| value.into())
}

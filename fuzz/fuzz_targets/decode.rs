//! Any body in both modes: no panic, a record that reads back as serde_json reads the body, agreement
//! on what is JSON, and the same events in every shape of body.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringlake_event::{ErrorKind, Mode};
use ringlake_fuzz::events::{REQUEST, check, decode, is_one_value, objects};
use ringlake_fuzz::shapes;

fuzz_target!(|body: &[u8]| {
    shapes::check(body);
    let partial = decode(body, &REQUEST, Mode::Partial);
    match decode(body, &REQUEST, Mode::Whole) {
        Ok(whole) => {
            assert_eq!(partial.unwrap().record(), whole.record());
            let events = whole.events();
            let Some(objects) = objects(body) else { return };
            assert_eq!(events.len(), objects.len());
            for (event, object) in events.iter().zip(&objects) {
                check(event, object, &REQUEST);
            }
        }
        Err(error) => {
            assert!(
                partial.is_err() || partial.is_ok_and(|left| !left.decoded.rejected.is_empty())
            );
            if error.kind == ErrorKind::NotJson {
                assert_ne!(is_one_value(body), Some(true), "{error}");
            }
        }
    }
});

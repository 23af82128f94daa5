//! Any body in both modes: no panic, a record that reads back, and agreement with serde_json on
//! what is JSON.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringlake_event::{
    Decoder, ErrorKind, Limits, Mode, Record, Request, Source, Tenant, record_bound,
};
use serde_json::{Deserializer, Value};

const REQUEST: Request<'static> = Request {
    received_at: 1_769_860_800_000_000,
    source: Source::Events,
    tenant: Tenant::Open,
    correct_clock: true,
};

fuzz_target!(|body: &[u8]| {
    let mut out = vec![0; record_bound(body.len())];
    let mut decoder = Decoder::new();
    let mut decode = |mode| {
        let decoded = decoder.decode(body, &REQUEST, &Limits::default(), mode, &mut out);
        if let Ok(decoded) = &decoded
            && decoded.accepted > 0
        {
            let record = Record::parse(&out[..decoded.record_len]).expect("a record reads back");
            assert_eq!(record.iter().count(), decoded.accepted);
            for text in record.iter().flat_map(|event| [event.properties, event.context]).flatten()
            {
                assert!(is_json(text.as_bytes()), "stored text is JSON");
            }
        }
        decoded
    };
    let partial = decode(Mode::Partial);
    match decode(Mode::Whole) {
        Ok(decoded) => {
            assert_eq!(partial.as_ref(), Ok(&decoded));
            assert!(is_json(body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body)));
        }
        // One line that is JSON for serde_json is JSON here.
        Err(error) if error.kind == ErrorKind::NotJson && !body.contains(&b'\n') => {
            assert!(serde_json::from_slice::<Value>(body).is_err(), "{error}");
        }
        Err(_) => {}
    }
});

/// Whether serde_json reads values, and nothing but values, one after the other.
fn is_json(text: &[u8]) -> bool {
    let mut deserializer = Deserializer::from_slice(text);
    deserializer.disable_recursion_limit();
    deserializer.into_iter::<Value>().all(|value| value.is_ok())
}

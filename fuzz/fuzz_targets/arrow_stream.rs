//! Any bytes as an Arrow IPC stream: no panic, no more memory than the bounds, a record that reads
//! back, and nothing stored that is no JSON; the same rows are good in either mode.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringlake_arrow::{Body, decode};
use ringlake_event::{Assembly, Limits, Mode};
use ringlake_fuzz::events::REQUEST;
use ringlake_fuzz::stored;

const LIMITS: Limits = Limits { event_max_bytes: 10_000, events_max: 1_000 };

fuzz_target!(|bytes: &[u8]| {
    let body = Body {
        request: &REQUEST,
        limits: &LIMITS,
        mode: Mode::Partial,
        unpacked_max_bytes: 1 << 20,
        record_max_bytes: 1 << 20,
    };
    let mut assembly = Assembly::new();
    let Ok(rejected) = decode(bytes, &body, &mut assembly) else { return };
    assert!(assembly.events() + rejected.len() <= LIMITS.events_max);
    stored::check(&assembly, &REQUEST);
    let mut whole = Assembly::new();
    match decode(bytes, &Body { mode: Mode::Whole, ..body }, &mut whole) {
        Ok(_) => assert_eq!((rejected.len(), whole.events()), (0, assembly.events())),
        Err(error) => assert_eq!(error.index, rejected.first().map(|bad| bad.index)),
    }
});

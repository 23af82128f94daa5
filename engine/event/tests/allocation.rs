//! Decoding allocates nothing for an event once its scratch memory has grown, and reading a record
//! nothing at all.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use ringlake_event::generate::Generator;
use ringlake_event::{Decoder, Limits, Mode, Record, Request, Source, Tenant, record_bound};

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: hands every request to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are the system's conditions.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above; `pointer` came from there.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const REQUEST: Request<'static> = Request {
    received_at: 1_769_860_800_000_000,
    source: Source::Events,
    tenant: Tenant::Open,
    correct_clock: true,
    sender: None,
};

#[test]
fn a_decoder_that_has_seen_as_much_before_allocates_nothing() {
    let mut generator = Generator::new(7);
    let mut body = Vec::new();
    for _ in 0..1_000 {
        generator.write_event(&mut body);
    }
    // Unknown and escaped names, a repeated object, and text that needs unescaping.
    body.extend_from_slice(
        br#"{"type":"x","\u0061":1,"b":{"c":[1,{"\u0063":2}]},"url":"\u00e9\n","tenant":"\u0074"}"#,
    );
    let mut out = vec![0; record_bound(body.len())];
    let mut decoder = Decoder::new();
    let mut decode = |out: &mut [u8]| {
        decoder.decode(&body, &REQUEST, &Limits::default(), Mode::Whole, out).unwrap()
    };
    let first = decode(&mut out);
    assert!(ALLOCATIONS.get() > 0, "the scratch memory grows, and is counted");

    let before = ALLOCATIONS.get();
    let second = decode(&mut out);
    let record = Record::parse(&out[..second.record_len]).unwrap();
    let texts: usize = record.iter().map(|event| event.kind.len() + event.tenant.len()).sum();
    let after = ALLOCATIONS.get();
    assert_eq!((first, second.accepted), (second.clone(), 1_001));
    assert!(texts > 0);
    assert_eq!(after, before);
}

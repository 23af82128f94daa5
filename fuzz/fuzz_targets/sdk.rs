//! Any body through every family of SDKs: no panic, a record that reads back, and nothing stored
//! that is no JSON. The first byte chooses the family.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringlake_event::sdk::{Sdk, SdkBody, SdkDecoder};
use ringlake_event::{Assembly, Limits, Request, Tenant};
use ringlake_fuzz::stored;

const FAMILIES: [Sdk; 6] =
    [Sdk::Segment, Sdk::Jitsu, Sdk::PostHog, Sdk::Snowplow, Sdk::Plausible, Sdk::Umami];

fuzz_target!(|input: (u8, &[u8])| {
    let (choice, body) = input;
    let sdk = FAMILIES[usize::from(choice) % FAMILIES.len()];
    let request = Request {
        received_at: 1_769_860_800_000_000,
        source: sdk.source(),
        tenant: Tenant::Open,
        correct_clock: true,
        sender: None,
    };
    let limits = Limits::default();
    let how = SdkBody {
        sdk,
        kind: (choice & 64 != 0).then_some("page"),
        request: &request,
        limits: &limits,
        record_max_bytes: 1 << 20,
    };
    let mut assembly = Assembly::new();
    let Ok(decoded) = SdkDecoder::new().decode(body, &how, &mut assembly) else { return };
    assert_eq!(decoded.accepted, assembly.events());
    stored::check(&assembly, &request);
});

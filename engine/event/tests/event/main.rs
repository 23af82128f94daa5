//! The crate from outside: bodies in, records out, one module a subject.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod faults;
mod fields;
mod memory;
mod partial;
mod random;
mod shapes;

use ringlake_event::{
    DecodeError, Decoded, Decoder, Event, Limits, Mode, Record, Request, Source, Tenant,
    record_bound,
};

/// 2026-01-31T12:00:00Z.
const RECEIVED_AT: i64 = 1_769_860_800_000_000;

const REQUEST: Request<'static> = Request {
    received_at: RECEIVED_AT,
    source: Source::Events,
    tenant: Tenant::Open,
    correct_clock: true,
    sender: None,
};

/// A decoded body with its record.
#[derive(Debug)]
struct Outcome {
    decoded: Decoded,
    record: Vec<u8>,
}

impl Outcome {
    fn events(&self) -> Vec<Event<'_>> {
        if self.record.is_empty() {
            return Vec::new();
        }
        Record::parse(&self.record).unwrap().iter().collect()
    }
}

/// Decodes with everything given, into exactly the bound's bytes, and checks what always holds.
fn decode_with(
    body: &[u8],
    request: &Request<'_>,
    limits: &Limits,
    mode: Mode,
) -> Result<Outcome, DecodeError> {
    let mut out = vec![0xA5; record_bound(body.len())];
    let decoded = Decoder::new().decode(body, request, limits, mode, &mut out)?;
    out.truncate(decoded.record_len);
    assert_eq!(decoded.record_len == 0, decoded.accepted == 0);
    if decoded.record_len > 0 {
        let record = Record::parse(&out).unwrap();
        assert_eq!(record.events(), decoded.accepted);
        assert_eq!(record.iter().len(), decoded.accepted);
        assert_eq!(record.iter().count(), decoded.accepted);
        assert_eq!(record.received_at(), request.received_at);
        assert_eq!(record.source(), request.source);
        let ids: Vec<_> = record
            .iter()
            .map(|event| event.message_id.filter(|id| !id.is_empty()).map(|id| (event.tenant, id)))
            .collect();
        assert_eq!(record.message_ids().len(), ids.len());
        assert_eq!(record.message_ids().collect::<Vec<_>>(), ids);
        assert_eq!(record.has_message_ids(), record.iter().any(|event| event.message_id.is_some()));
    }
    Ok(Outcome { decoded, record: out })
}

fn decode(body: impl AsRef<[u8]>) -> Result<Outcome, DecodeError> {
    decode_with(body.as_ref(), &REQUEST, &Limits::default(), Mode::Whole)
}

fn decode_partial(body: impl AsRef<[u8]>) -> Result<Outcome, DecodeError> {
    decode_with(body.as_ref(), &REQUEST, &Limits::default(), Mode::Partial)
}

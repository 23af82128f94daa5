//! Realistic records and batches, for the benches of the stages behind the ring and for the lab's
//! counts of instructions.

use ringlake_engine::hot::LogBatch;
use ringlake_engine::shard::BatchBuilder;
use ringlake_event::generate::Generator;
use ringlake_event::{Decoder, Limits, Mode, Record, Request, Source, Tenant, record_bound};

/// How they come in.
pub const REQUEST: Request<'static> = Request {
    received_at: 1_795_000_000_000_000,
    source: Source::Events,
    tenant: Tenant::Open,
    correct_clock: true,
    sender: None,
};

/// The ring record of one request of `events` generated events.
#[must_use]
pub fn record(events: usize, seed: u64) -> Vec<u8> {
    record_of(events, &body(events, seed))
}

/// The same, with the message id under a name that is no field.
#[must_use]
pub fn record_without_id(events: usize, seed: u64) -> Vec<u8> {
    let text = String::from_utf8(body(events, seed)).expect("generated events are UTF-8");
    let name = "\"message_id\":";
    assert_eq!(text.matches(name).count(), events);
    record_of(events, text.replace(name, "\"message_no\":").as_bytes())
}

/// The body of that request, a line an event.
#[must_use]
pub fn body(events: usize, seed: u64) -> Vec<u8> {
    let mut generator = Generator::new(seed);
    let mut body = Vec::new();
    for _ in 0..events {
        generator.write_event(&mut body);
    }
    body
}

fn record_of(events: usize, body: &[u8]) -> Vec<u8> {
    let mut record = vec![0; record_bound(body.len())];
    let decoded = Decoder::new()
        .decode(body, &REQUEST, &Limits::default(), Mode::Whole, &mut record)
        .expect("generated events are valid");
    assert_eq!(decoded.accepted, events);
    record.truncate(decoded.record_len);
    record
}

/// A durable batch of `events` generated events, numbered from `first`.
#[must_use]
pub fn batch(events: usize, first: i64) -> LogBatch {
    let record = record(events, 1);
    let mut builder = BatchBuilder::new();
    builder.append(&Record::parse(&record).expect("the record was just written"));
    let (batch, bytes) = builder.finish();
    assert_eq!(batch.num_rows(), events);
    LogBatch { shard: 0, first, batch, bytes }
}

/// `rows` generated events in batches of at most 8,192, as the shards make them.
#[must_use]
pub fn batches(rows: usize) -> Vec<LogBatch> {
    (0..rows)
        .step_by(8_192)
        .map(|start| {
            let first = i64::try_from(start).expect("a bench is small") + 1;
            batch(8_192.min(rows - start), first)
        })
        .collect()
}

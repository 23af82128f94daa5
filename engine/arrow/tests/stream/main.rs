//! Arrow IPC streams: the same events as from JSON, the same refusals, and nothing from hostile bytes
//! but an error.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod columns;
mod hostile;
mod rows;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use ringlake_arrow::{Body, decode};
use ringlake_event::{
    Assembly, DecodeError, Event, Limits, Mode, Record, Rejection, Request, Source, Tenant,
};
use serde_json::Value;

const REQUEST: Request<'static> = Request {
    received_at: 1_795_286_700_000_000,
    source: Source::Events,
    tenant: Tenant::Open,
    correct_clock: true,
    sender: None,
};

const LIMITS: Limits = Limits { event_max_bytes: 10_000, events_max: 1_000 };
const BODY: Body<'static> = Body {
    request: &REQUEST,
    limits: &LIMITS,
    mode: Mode::Whole,
    unpacked_max_bytes: 1 << 20,
    record_max_bytes: 1 << 20,
};

struct Outcome {
    record: Vec<u8>,
    rejected: Vec<Rejection>,
}

impl Outcome {
    fn events(&self) -> Vec<Event<'_>> {
        match self.record.is_empty() {
            true => Vec::new(),
            false => Record::parse(&self.record).unwrap().iter().collect(),
        }
    }
}

fn read(bytes: &[u8], body: &Body<'_>) -> Result<Outcome, DecodeError> {
    let mut assembly = Assembly::new();
    let rejected = decode(bytes, body, &mut assembly)?;
    let mut record = vec![0; assembly.record_len(body.request)];
    let len = assembly.write(body.request, &mut record);
    record.truncate(len);
    let outcome = Outcome { record, rejected };
    for event in outcome.events() {
        for text in [event.properties, event.context].into_iter().flatten() {
            assert!(serde_json::from_str::<Value>(text).unwrap().is_object(), "{text}");
        }
    }
    Ok(outcome)
}

fn column(name: &str, array: impl Array + 'static) -> (String, ArrayRef) {
    (name.to_owned(), Arc::new(array))
}

fn batch(columns: impl IntoIterator<Item = (String, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, array)| (name, array, true)),
    )
    .unwrap()
}

fn stream_with(batch: &RecordBatch, options: IpcWriteOptions) -> Vec<u8> {
    let mut writer =
        StreamWriter::try_new_with_options(Vec::new(), batch.schema_ref(), options).unwrap();
    writer.write(batch).unwrap();
    writer.into_inner().unwrap()
}

/// A stream of one batch.
fn stream(columns: impl IntoIterator<Item = (String, ArrayRef)>) -> Vec<u8> {
    stream_with(&batch(columns), IpcWriteOptions::default())
}

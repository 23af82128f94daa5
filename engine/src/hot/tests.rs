//! The flusher against a DuckDB that refuses rows.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{bounded, unbounded};
use ringlake_event::{Decoder, Limits, Mode, Record, Request, Source, Tenant, record_bound};

use super::*;
use crate::config::{DuckDbConfig, HotConfig};
use crate::log::quarantined_ranges;
use crate::shard::BatchBuilder;
use crate::snapshot::{HotTable, Snapshot, Snapshots};

/// A durable batch of the events in `lines`, numbered from `first`.
pub(crate) fn logged(shard: u32, first: i64, lines: &[String]) -> LogBatch {
    let body = lines.join("\n");
    let request = Request {
        received_at: 1_795_000_000_000_000,
        source: Source::Events,
        tenant: Tenant::Open,
        correct_clock: true,
    };
    let mut record = vec![0; record_bound(body.len())];
    let decoded = Decoder::new()
        .decode(body.as_bytes(), &request, &Limits::default(), Mode::Whole, &mut record)
        .unwrap();
    let mut builder = BatchBuilder::new();
    builder.append(&Record::parse(&record[..decoded.record_len]).unwrap());
    let (batch, bytes) = builder.finish();
    LogBatch { shard, first, batch, bytes, durable: Instant::now() }
}

fn batch(shard: u32, first: i64, rows: usize) -> LogBatch {
    let lines: Vec<String> = (0..rows).map(|row| format!(r#"{{"event":"e{row}"}}"#)).collect();
    logged(shard, first, &lines)
}

/// Runs a flusher over `batches` and a marker that asks for a roll; gives what the roller gets.
/// The open table exists in DuckDB only when `with_table`.
fn flush(scratch: &Path, with_table: bool, batches: Vec<LogBatch>) -> Vec<ToRoller> {
    let database = Database::open(&DuckDbConfig::default(), scratch, scratch).unwrap();
    let (queue, receiving) = queue(1 << 20);
    let (unused_sender, unused) = unbounded();
    let (roller, rolls) = bounded(8);
    let table = Arc::new(HotTable::new("hot_1".into(), unused_sender.clone()));
    let snapshot = Snapshot { version: 0, files: Arc::from([]), hot: vec![Arc::clone(&table)] };
    let flusher = Flusher {
        appender: HotAppender::new(&database).unwrap(),
        node: "0123456789ab".into(),
        config: HotConfig { flush_interval: Duration::from_secs(3_600), ..HotConfig::default() },
        messages: receiving.messages,
        wakes: receiving.wakes,
        budget: receiving.budget,
        roller,
        snapshots: Arc::new(Snapshots::new(snapshot)),
        unused,
        unused_sender,
        quarantine: scratch.join("quarantine"),
        operations: Arc::default(),
        state: Arc::default(),
    };
    if with_table {
        flusher.appender.create("hot_1").unwrap();
    }
    let (marker, _answer) = Marker::new(Goal::Rolled, 1);
    for batch in batches {
        queue.send(batch);
    }
    queue.send_message(Message::Marker(marker));
    queue.send_message(Message::Stop);
    flusher.run(table, vec![(0, 0)]);
    rolls.try_iter().collect()
}

fn sealed(messages: &[ToRoller]) -> &Sealed {
    match messages {
        [ToRoller::Roll(sealed), ToRoller::Marker(_)] => sealed,
        other => panic!("a sealed table and the marker were expected: {other:?}"),
    }
}

#[test]
fn a_sealed_table_says_how_far_it_holds_each_shard() {
    let scratch = tempfile::tempdir().unwrap();
    let batches = vec![batch(0, 1, 10), batch(1, 1, 5), batch(0, 11, 2)];
    let messages = flush(scratch.path(), true, batches);
    let sealed = sealed(&messages);
    assert_eq!(sealed.rows, 17);
    assert_eq!(sealed.sequences, [(0, 12), (1, 5)]);
}

/// Rule 8: a batch is passed only when it is in a table or its quarantine file is synced. DuckDB
/// refuses every append here, because the table is not there.
#[test]
fn batches_that_cannot_be_appended_are_set_aside_and_then_passed() {
    let scratch = tempfile::tempdir().unwrap();
    let messages = flush(scratch.path(), false, vec![batch(0, 1, 10), batch(0, 11, 4)]);
    let sealed = sealed(&messages);
    assert_eq!((sealed.rows, sealed.sequences.as_slice()), (0, [(0, 14)].as_slice()));

    let quarantine = scratch.path().join("quarantine");
    let mut ranges: Vec<_> = quarantined_ranges(&quarantine)
        .unwrap()
        .into_iter()
        .map(|report| report.sequences)
        .collect();
    ranges.sort_unstable();
    assert_eq!(ranges, [Some((1, 10)), Some((11, 14))]);
    let aside = crate::quarantine::read(&quarantine.join("batch-0-11-14.arrow")).unwrap();
    assert_eq!((aside.first, aside.last, aside.events()), (11, 14, 4));
    assert!(aside.reason.contains("hot_1"), "{}", aside.reason);
}

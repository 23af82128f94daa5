//! What is counted: each stage with its smallest and a large request, by the engine's own types.
//!
//! **Memory**: some megabytes, most of them the table of message ids.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringlake_benches::records::{self, REQUEST};
use ringlake_benches::ring::{CAPACITY, payload, push, read, sum};
use ringlake_dedup::Dedup;
use ringlake_engine::disk::RealDisk;
use ringlake_engine::log::{Identity, Log};
use ringlake_engine::schema::log_schema;
use ringlake_engine::shard::Intake;
use ringlake_event::{Decoder, Limits, Mode, record_bound};
use ringlake_ring::ring;

/// Seed of the first request; the others follow.
const SEED: u64 = 1;
/// Requests and their events, as beacons come …
const SINGLE: (u64, usize) = (1_000, 1);
/// … and as bulk clients send them.
const BATCH: (u64, usize) = (4, 1_000);
/// Records through the ring, of one event each.
const RECORDS: u64 = 10_000;
const RECORD_BYTES: usize = 420;
/// Ids that the shard remembers.
const IDS: usize = 100_000;
/// Frames that are written and synced.
const FRAMES: i64 = 16;
/// The server's own default.
const SEGMENT_BYTES: u64 = 64 << 20;

/// A piece of work that can be done any number of times.
pub struct Work {
    /// By which a count is divided.
    pub events: u64,
    /// Does it.
    pub once: Box<dyn FnMut() -> Result<()>>,
}

/// A name, and what prepares the work.
type Named = (&'static str, fn() -> Result<Work>);

/// All of it, in the order of the data's way; the names are those of files too.
pub const ALL: [Named; 7] = [
    ("decode-1", || Ok(decode(SINGLE))),
    ("decode-1000", || Ok(decode(BATCH))),
    ("ring-1", || Ok(through_ring())),
    ("shard-1", || Ok(shard(SINGLE))),
    ("shard-1000", || Ok(shard(BATCH))),
    ("log-1", || log(SINGLE.1)),
    ("log-1000", || log(BATCH.1)),
];

fn decode((requests, events): (u64, usize)) -> Work {
    let bodies = seeds(requests).map(|seed| records::body(events, seed));
    let bodies: Vec<Vec<u8>> = bodies.collect();
    let longest = bodies.iter().map(Vec::len).max().unwrap_or(0);
    let mut record = vec![0; record_bound(longest)];
    let mut decoder = Decoder::new();
    let once = move || {
        for body in &bodies {
            let limits = Limits::default();
            let decoded = decoder.decode(body, &REQUEST, &limits, Mode::Whole, &mut record);
            let accepted = decoded.map_or(0, |decoded| decoded.accepted);
            ensure!(accepted == events, "{accepted} of {events} events were accepted");
        }
        Ok(())
    };
    work(requests, events, once)
}

fn through_ring() -> Work {
    let (mut producer, mut consumer) = ring(CAPACITY);
    let record = payload(RECORD_BYTES);
    let expected = sum(&record);
    let once = move || {
        for _ in 0..RECORDS {
            push(&mut producer, &record);
            ensure!(read(&mut consumer, 1, |_| ()) == expected, "a record was changed");
        }
        Ok(())
    };
    work(RECORDS, 1, once)
}

/// Every event is new: a batch that is given up costs the same as one that is stored.
fn shard((requests, events): (u64, usize)) -> Work {
    let limits = ringlake_dedup::Limits {
        ids: NonZeroUsize::new(IDS).unwrap_or(NonZeroUsize::MIN),
        window: Duration::from_secs(86_400),
    };
    let mut intake = Intake::new(Some(Arc::new(Dedup::new(&limits, [7; 16], || {}))), 0);
    let records: Vec<_> = seeds(requests).map(|seed| records::record(events, seed)).collect();
    let rows = records.len() * events;
    let once = move || {
        for (record, ticket) in records.iter().zip(1..) {
            let _ = intake.take(ticket, record)?;
        }
        let (batch, _) = intake.builder.finish();
        intake.lost();
        ensure!(batch.num_rows() == rows, "{} of {rows} rows", batch.num_rows());
        Ok(())
    };
    work(requests, events, once)
}

/// Frames of so many rows, encoded, written and synced.
fn log(rows: usize) -> Result<Work> {
    let scratch = tempfile::tempdir().context("no directory for a log")?;
    let identity = Identity { node: "0123456789ab".into(), shard: 0, schema: log_schema() };
    let (disk, none) = (Arc::new(RealDisk), Vec::new);
    let path = scratch.path().into();
    let mut log = Log::new(path, disk, identity, SEGMENT_BYTES, none(), Vec::new())?;
    let batch = records::batch(rows, 1).batch;
    let mut first = 1;
    let once = move || {
        for _ in 0..FRAMES {
            log.append(&batch, first)?;
            first += i64::try_from(rows)?;
        }
        ensure!(scratch.path().exists(), "the log's directory is gone");
        Ok(())
    };
    Ok(work(FRAMES.unsigned_abs(), rows, once))
}

fn seeds(requests: u64) -> std::ops::Range<u64> {
    SEED..SEED + requests
}

fn work(requests: u64, events: usize, once: impl FnMut() -> Result<()> + 'static) -> Work {
    Work { events: requests * events as u64, once: Box::new(once) }
}

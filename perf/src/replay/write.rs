//! Writes the log of a server that never rolled: one thread a shard, each with the generator, the
//! decoder, the builder and the log that a server has.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use ringlake_engine::directory::Directory;
use ringlake_engine::disk::RealDisk;
use ringlake_engine::log::{Identity, Log};
use ringlake_engine::schema::log_schema;
use ringlake_engine::shard::BatchBuilder;
use ringlake_event::generate::Generator;
use ringlake_event::{Decoder, Limits, Mode, Record, Request, Source, Tenant, record_bound};
use rustix::fs::{Advice, fadvise};

/// Text of one frame: a request of 1 MiB, as in the bulk case.
const PIECE_BYTES: usize = 1 << 20;
/// The server's own default.
const SEGMENT_BYTES: u64 = 16 << 20;

/// What was written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Written {
    /// Events in all frames.
    pub events: u64,
    /// Bytes of all segments.
    pub bytes: u64,
}

/// Fills the data directory `data` with logs of `bytes` bytes together; nothing of them is left in
/// the page cache.
pub fn log(data: &Path, bytes: u64, shards: u32, seed: u64) -> Result<Written> {
    let directory = Arc::new(Directory::open(data)?);
    directory.create_shard_logs(shards)?;
    let threads: Vec<_> = (0..shards)
        .map(|shard| {
            let directory = Arc::clone(&directory);
            let target = bytes / u64::from(shards);
            // Seeds of their own: message ids must not repeat between shards.
            let seed = seed + u64::from(shard) * 1_000_003;
            std::thread::spawn(move || shard_log(&directory, shard, target, seed))
        })
        .collect();
    let mut all = Written::default();
    for thread in threads {
        let written = thread.join().map_err(|_| anyhow::anyhow!("a writer panicked"))??;
        all.events += written.events;
        all.bytes += written.bytes;
    }
    Ok(all)
}

fn shard_log(directory: &Directory, shard: u32, target: u64, seed: u64) -> Result<Written> {
    let path = directory.shard_log(shard);
    let node = directory.node().to_owned();
    let identity = Identity { node, shard, schema: log_schema() };
    let disk = Arc::new(RealDisk);
    let mut log = Log::new(path.clone(), disk, identity, SEGMENT_BYTES, Vec::new(), Vec::new())?;
    let mut generator = Generator::new(seed);
    let mut decoder = Decoder::new();
    let mut builder = BatchBuilder::new();
    let mut text = Vec::with_capacity(PIECE_BYTES + 4_096);
    let mut record = vec![0; record_bound(PIECE_BYTES + 4_096)];
    let mut written = Written::default();
    while written.bytes < target {
        text.clear();
        while text.len() < PIECE_BYTES {
            generator.write_event(&mut text);
        }
        let request = Request {
            received_at: RECEIVED_AT + i64::try_from(written.events)?,
            source: Source::Events,
            tenant: Tenant::Open,
            correct_clock: true,
            sender: None,
        };
        let decoded = decoder
            .decode(&text, &request, &Limits::default(), Mode::Whole, &mut record)
            .map_err(|error| anyhow::anyhow!("a generated event was refused: {}", error.message))?;
        let parsed = Record::parse(&record[..decoded.record_len])?;
        builder.append(&parsed);
        let (batch, _) = builder.finish();
        ensure!(batch.num_rows() == decoded.accepted, "the record lost events");
        log.append(&batch, i64::try_from(written.events)? + 1)?;
        written.events += batch.num_rows() as u64;
        written.bytes = log.size().0;
    }
    evict(&path)?;
    Ok(written)
}

/// 2026-11-21T12:00:00Z in microseconds; all of the log is one day's.
const RECEIVED_AT: i64 = 1_795_262_400_000_000;

/// A machine that has just started has nothing of the log in memory.
fn evict(directory: &Path) -> Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let file = File::open(&path)?;
        file.sync_all()?;
        fadvise(&file, 0, None, Advice::DontNeed)
            .with_context(|| format!("cannot evict {}", path.display()))?;
    }
    Ok(())
}

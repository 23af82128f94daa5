//! Recovery: what a start does before the first event is accepted.
//!
//! **Guarantees**
//! - Every shard log that is found is made sound and synced first, whatever the number of shards
//!   now; then everything above the table's numbers is replayed into the hot tables, once.
//! - Numbering goes on above the larger of log and table.
//! - Replaying again after a crash in the middle gives the same result: the Delta numbers decide.
//!
//! **Memory.** One frame at a time, and the flusher's bounded queue.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::directory::Directory;
use crate::error::Error;
use crate::hot::{LogBatch, Queue};
use crate::log::{self, Recovered};

/// How far recovery is; read by `/readyz`.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Bytes of log to read, known once the directories have been listed.
    pub bytes_total: AtomicU64,
    /// Bytes read so far.
    pub bytes_done: AtomicU64,
    /// Events replayed.
    pub events: AtomicU64,
    /// Stretches of damaged bytes set aside.
    pub quarantined: AtomicU64,
}

/// One shard's log after recovery.
#[derive(Debug)]
pub(crate) struct ShardLog {
    pub directory: PathBuf,
    pub recovered: Recovered,
    /// The number that the shard's next event gets.
    pub next_sequence: i64,
}

/// Makes every log sound: the ones found on disk and those of the first `shards` shards.
pub(crate) fn recover_logs(
    directory: &Directory,
    shards: u32,
    committed: &BTreeMap<u32, i64>,
    progress: &Progress,
) -> Result<BTreeMap<u32, ShardLog>, Error> {
    for shard in 0..shards {
        directory.shard_log(shard)?;
    }
    let mut logs = BTreeMap::new();
    for (shard, path) in log::shard_directories(&directory.log())? {
        let recovered = log::recover(shard, &path, &directory.quarantine())?;
        let in_table = committed.get(&shard).copied().unwrap_or(0);
        let next_sequence = recovered.last.max(in_table) + 1;
        let bytes: u64 = recovered.segments.iter().map(|segment| segment.bytes).sum();
        // Relaxed, here and below: statistics.
        progress.bytes_total.fetch_add(bytes, Ordering::Relaxed);
        progress.quarantined.fetch_add(recovered.quarantined.len() as u64, Ordering::Relaxed);
        logs.insert(shard, ShardLog { directory: path, recovered, next_sequence });
    }
    Ok(logs)
}

/// Sends everything that the table does not hold yet to the flusher, each shard in order.
pub(crate) fn replay(
    logs: &BTreeMap<u32, ShardLog>,
    committed: &BTreeMap<u32, i64>,
    queue: &Queue,
    progress: &Progress,
) -> Result<(), Error> {
    for (&shard, shard_log) in logs {
        // A frame that was written again into a second segment comes twice.
        let mut done = committed.get(&shard).copied().unwrap_or(0);
        let voids = &shard_log.recovered.voids;
        log::scan(&shard_log.directory, &mut |frame| {
            // Relaxed: statistics.
            progress.bytes_done.fetch_add(frame.bytes(), Ordering::Relaxed);
            let void = voids.iter().any(|void| void.contains(&frame.first()));
            if frame.last() <= done || void {
                return Ok(());
            }
            let batch = frame
                .batch()
                .map_err(|source| Error::Arrow { action: "read a log frame", source })?;
            // The table may hold a part of the frame only if another version cut it there.
            let known = usize::try_from(done + 1 - frame.first()).unwrap_or(0);
            let batch = batch.slice(known, batch.num_rows() - known);
            let first = frame.first().max(done + 1);
            done = frame.last();
            // Relaxed: statistics.
            progress.events.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
            let bytes = log::batch_bytes(&batch);
            queue.send(LogBatch { shard, first, batch, bytes, durable: Instant::now() });
            Ok(())
        })?;
    }
    Ok(())
}

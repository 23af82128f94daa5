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
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use arrow::error::ArrowError;

use crate::directory::Directory;
use crate::error::Error;
use crate::hot::{LogBatch, Queue};
use crate::log::{self, Frame, Quarantined, Recovered};

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
    quarantine: &Path,
    queue: &Queue,
    progress: &Progress,
) -> Result<(), Error> {
    for (&shard, shard_log) in logs {
        // A frame that was written again into a second segment comes twice.
        let mut done = committed.get(&shard).copied().unwrap_or(0);
        let voids = &shard_log.recovered.voids;
        log::scan::<Error>(&shard_log.directory, &mut |frame| {
            // Relaxed: statistics.
            progress.bytes_done.fetch_add(frame.bytes(), Ordering::Relaxed);
            let void = voids.iter().any(|void| void.contains(&frame.first()));
            if frame.last() <= done || void {
                return Ok(());
            }
            let batch = match frame.batch() {
                Ok(batch) => batch,
                Err(error) => {
                    let first = frame.first().max(done + 1);
                    set_frame_aside(shard, first, frame, &error, quarantine)?;
                    // Relaxed: statistics.
                    progress.quarantined.fetch_add(1, Ordering::Relaxed);
                    done = frame.last();
                    return Ok(());
                }
            };
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

/// A frame whose bytes are what was written but which arrow cannot read must not keep the rest of
/// the log from coming back.
fn set_frame_aside(
    shard: u32,
    first: i64,
    frame: &Frame,
    error: &ArrowError,
    quarantine: &Path,
) -> Result<(), Error> {
    let report = Quarantined {
        shard,
        sequences: Some((first, frame.last())),
        origin: "an intact log frame".into(),
        reason: error.to_string(),
        bytes: frame.body().len() as u64,
    };
    let name = format!("frame-{shard}-{}-{}", frame.first(), frame.last());
    log::set_aside(quarantine, &name, frame.body(), &report)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]

    use super::*;
    use crate::hot::{Message, logged, queue};
    use crate::log::{Identity, Log, RealDisk, quarantined_ranges};
    use crate::schema::log_schema;

    /// Any start succeeds: here arrow cannot read the first of two intact frames, because it has
    /// fewer columns than the segment says.
    #[test]
    fn a_frame_that_cannot_be_read_is_set_aside_and_the_rest_is_replayed() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = Directory::open(scratch.path()).unwrap();
        let lines = [r#"{"event":"a"}"#.to_owned(), r#"{"event":"b"}"#.to_owned()];
        let good = logged(0, 3, &lines).batch;
        let narrow = good.project(&[0, 1]).unwrap();
        let path = directory.shard_log(0).unwrap();
        let node = directory.node().to_owned();
        let identity = Identity { node, shard: 0, schema: log_schema() };
        let mut log =
            Log::new(path, Box::new(RealDisk), identity, 1 << 20, Vec::new(), Vec::new()).unwrap();
        log.append(&narrow, 1).unwrap();
        log.append(&good, 3).unwrap();
        drop(log);

        let (progress, committed) = (Progress::default(), BTreeMap::new());
        let logs = recover_logs(&directory, 1, &committed, &progress).unwrap();
        assert_eq!(logs[&0].next_sequence, 5);
        let (queue, receiving) = queue(1 << 20);
        replay(&logs, &committed, &directory.quarantine(), &queue, &progress).unwrap();
        let replayed: Vec<Message> = receiving.messages.try_iter().collect();
        let [Message::Batch(batch)] = replayed.as_slice() else { panic!("{replayed:?}") };
        assert_eq!((batch.first, batch.last()), (3, 4));
        let reports = quarantined_ranges(&directory.quarantine()).unwrap();
        assert_eq!(reports.len(), 1);
        assert_eq!(reports[0].sequences, Some((1, 2)));
    }
}

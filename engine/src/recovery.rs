//! Recovery: what a start does before the first event is accepted.
//!
//! **Guarantees**
//! - Every shard log that is found is made sound and synced first, whatever the number of shards
//!   now; then everything above the table's numbers is replayed into the hot tables, once.
//! - Numbering goes on above the larger of log and table.
//! - The message ids of what is stored are known before the first event comes. What was numbered
//!   once is replayed whatever its id: that was decided when it came.
//! - Replaying again after a crash in the middle gives the same result: the Delta numbers decide.
//! - When the engine stops it ends at the next frame; the next start begins again.
//!
//! **Memory.** One frame at a time, and the flusher's bounded queue.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use arrow::error::ArrowError;

pub(crate) mod ids;
mod progress;

pub(crate) use progress::Progress;
pub use progress::{Phase, RecoveryStatus};

use crate::directory::Directory;
use crate::error::Error;
use crate::hot::{LogBatch, Queue};
use crate::log::{self, Frame, Quarantined, Recovered};

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
    directory.create_shard_logs(shards)?;
    let mut logs = BTreeMap::new();
    let directories = log::shard_directories(&directory.log())?;
    progress.begin_checking(directories.iter().map(|(_, path)| log::bytes_in(path)).sum());
    for (shard, path) in directories {
        progress.check()?;
        let mut checked = |bytes| {
            // Relaxed: statistics.
            progress.bytes_checked.fetch_add(bytes, Ordering::Relaxed);
            progress.tell();
        };
        let (quarantine, disk) = (directory.quarantine(), &**directory.disk());
        let in_table = committed.get(&shard).copied().unwrap_or(0);
        let recovered = log::recover(shard, in_table, &path, &quarantine, disk, &mut checked)?;
        let next_sequence = recovered.last.max(in_table) + 1;
        let bytes: u64 = recovered.segments.iter().map(|segment| segment.bytes).sum();
        // Relaxed, here and below: statistics.
        progress.bytes_total.fetch_add(bytes, Ordering::Relaxed);
        progress.quarantined.fetch_add(recovered.quarantined.len() as u64, Ordering::Relaxed);
        progress.torn_bytes.fetch_add(recovered.torn_bytes, Ordering::Relaxed);
        logs.insert(shard, ShardLog { directory: path, recovered, next_sequence });
    }
    Ok(logs)
}

/// Sends everything that the table does not hold yet to the flusher, each shard in order; its ids
/// go to `ids`.
pub(crate) fn replay(
    logs: &BTreeMap<u32, ShardLog>,
    committed: &BTreeMap<u32, i64>,
    directory: &Directory,
    queue: &Queue,
    progress: &Progress,
    mut ids: Option<ids::Reader<'_>>,
) -> Result<(), Error> {
    progress.begin_replaying();
    for (&shard, shard_log) in logs {
        // A frame that was written again into a second segment comes twice.
        let mut done = committed.get(&shard).copied().unwrap_or(0);
        let voids = &shard_log.recovered.voids;
        // Relaxed, here and below: statistics; this thread is the only writer.
        let before = progress.bytes_done.load(Ordering::Relaxed);
        log::scan::<Error>(&shard_log.directory, &mut |frame| {
            progress.check()?;
            // Relaxed: statistics.
            progress.bytes_done.fetch_add(frame.bytes(), Ordering::Relaxed);
            progress.tell();
            let void = voids.iter().any(|void| void.contains(&frame.first()));
            if frame.last() <= done || void {
                return Ok(());
            }
            let batch = match frame.batch() {
                Ok(batch) => batch,
                Err(error) => {
                    let first = frame.first().max(done + 1);
                    set_frame_aside(shard, first, frame, &error, directory)?;
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
            if let Some(ids) = &mut ids {
                ids.frame(&batch);
            }
            // Relaxed: statistics.
            progress.events.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
            let bytes = log::batch_bytes(&batch);
            queue.send(LogBatch { shard, first, batch, bytes });
            Ok(())
        })?;
        // The segments' headers too.
        let bytes: u64 = shard_log.recovered.segments.iter().map(|segment| segment.bytes).sum();
        progress.bytes_done.store(before + bytes, Ordering::Relaxed);
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
    directory: &Directory,
) -> Result<(), Error> {
    let report = Quarantined {
        shard,
        sequences: Some((first, frame.last())),
        origin: "an intact log frame".into(),
        reason: error.to_string(),
        bytes: frame.body().len() as u64,
    };
    let name = format!("frame-{shard}-{}-{}.bin", frame.first(), frame.last());
    log::set_aside(&**directory.disk(), &directory.quarantine(), &name, frame.body(), &report)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]

    use std::num::NonZeroUsize;
    use std::sync::Arc;

    use ringlake_dedup::{Claim, Claims, Dedup, Limits};
    use ringlake_disk::RealDisk;

    use super::*;
    use crate::config::DedupConfig;
    use crate::hot::{Message, logged, test_queue};
    use crate::log::{Identity, Log, quarantined_ranges};
    use crate::schema::log_schema;
    use crate::shard::testing::TestDisk;

    /// Any start succeeds: here arrow cannot read the first of two intact frames, because it has
    /// fewer columns than the segment says.
    #[test]
    fn a_frame_that_cannot_be_read_is_set_aside_and_the_rest_is_replayed() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = Directory::open(scratch.path()).unwrap();
        let lines = [r#"{"event":"a"}"#.to_owned(), r#"{"event":"b"}"#.to_owned()];
        let good = logged(0, 3, &lines).batch;
        let narrow = good.project(&[0, 1]).unwrap();
        directory.create_shard_logs(1).unwrap();
        let path = directory.shard_log(0);
        let node = directory.node().to_owned();
        let identity = Identity { node, shard: 0, schema: log_schema() };
        let mut log =
            Log::new(path, Arc::new(RealDisk), identity, 1 << 20, Vec::new(), Vec::new()).unwrap();
        log.append(&narrow, 1).unwrap();
        log.append(&good, 3).unwrap();
        drop(log);

        let (progress, committed) = (Progress::default(), BTreeMap::new());
        let logs = recover_logs(&directory, 1, &committed, &progress).unwrap();
        assert_eq!(logs[&0].next_sequence, 5);
        let (queue, receiving) = test_queue(1 << 20);
        replay(&logs, &committed, &directory, &queue, &progress, None).unwrap();
        let replayed: Vec<Message> = receiving.messages.try_iter().collect();
        let [Message::Batch(batch)] = replayed.as_slice() else { panic!("{replayed:?}") };
        assert_eq!((batch.first, batch.last()), (3, 4));
        let reports = quarantined_ranges(&directory.quarantine()).unwrap();
        assert_eq!(reports.len(), 1);
        assert_eq!(reports[0].sequences, Some((1, 2)));
    }

    fn with_id(first: i64, id: &str) -> LogBatch {
        logged(0, first, &[format!(r#"{{"event":"e","message_id":"{id}"}}"#)])
    }

    /// Rules 3 and 4: the frame of a batch whose requests were told "not stored" may still lie in
    /// the file. Its numbers are void and its id is unknown, so that the retry is stored.
    #[test]
    fn the_ids_of_a_void_batch_are_forgotten_and_those_of_durable_ones_are_known() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = Directory::open(scratch.path()).unwrap();
        directory.create_shard_logs(1).unwrap();
        let path = directory.shard_log(0);
        let identity =
            Identity { node: directory.node().to_owned(), shard: 0, schema: log_schema() };
        let disk = TestDisk::default();
        let mut log =
            Log::new(path.clone(), Arc::new(disk.clone()), identity, 1 << 20, vec![], vec![])
                .unwrap();
        log.append(&with_id(1, "a").batch, 1).unwrap();
        disk.go_on(true);
        log.append(&with_id(2, "b").batch, 2).unwrap_err();
        disk.go_on(false);
        log.append(&with_id(3, "c").batch, 3).unwrap();
        drop(log);
        let mut frames = Vec::new();
        let mut visit = |frame: &Frame| {
            frames.push(frame.first());
            Ok::<_, Error>(())
        };
        log::scan(&path, &mut visit).unwrap();
        assert!(frames.contains(&2), "the void frame is there: {frames:?}");

        let (progress, committed) = (Progress::default(), BTreeMap::new());
        let logs = recover_logs(&directory, 1, &committed, &progress).unwrap();
        let config = DedupConfig::default();
        let limits = Limits { ids: NonZeroUsize::MAX, window: config.window };
        let dedup = Arc::new(Dedup::new(&limits, [0; 16], || {}));
        let now = 1_795_000_000_000_000;
        let ids = ids::Reader::new(&dedup, directory.node(), &config, now);
        let (queue, _receiving) = test_queue(1 << 20);
        replay(&logs, &committed, &directory, &queue, &progress, Some(ids)).unwrap();

        let keys = ["a", "b", "c"].map(|id| dedup.key("default", id));
        let mut keys: Vec<_> = keys.into_iter().zip(0..).collect();
        let mut is_new = [false; 3];
        let claim = Claims::new(dedup, 0).claim(&mut keys, |index, new| is_new[index] = new);
        assert_eq!(claim, Claim::Decided { duplicates: 2 });
        assert_eq!(is_new, [false, true, false]);
    }
}

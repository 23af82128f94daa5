//! One look at everything countable, as `/v1/status` shows it.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use serde::Serialize;

use crate::accounting::Accounting;
use crate::clock::now_micros;
use crate::engine::Shared;
use crate::lake::DataFile;
use crate::lake::retention::expired;
use crate::recovery::RecoveryStatus;
use crate::space::Room;

/// The engine's numbers at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// This node's id.
    pub node: String,
    /// Each shard.
    pub shards: Vec<ShardStatus>,
    /// All logs together, in bytes.
    pub log_bytes: u64,
    /// Hot tables.
    pub hot: HotStatus,
    /// Queries.
    pub queries: QueryStatus,
    /// Room for log and table.
    pub space: SpaceStatus,
    /// The Delta table.
    pub lake: LakeStatus,
    /// The known message ids; absent when they are not looked at.
    pub dedup: Option<DedupStatus>,
    /// What compaction has done.
    pub compaction: CompactionStatus,
    /// What retention has done, and would do now.
    pub retention: RetentionStatus,
    /// Where every event of this process is.
    pub accounting: Accounting,
    /// Events that the start replayed from the log.
    pub recovered: u64,
    /// How far the start is, or what it took.
    pub recovery: RecoveryStatus,
    /// Damaged stretches and refused batches set aside since the start, and rows in the latter.
    pub quarantined: Quarantine,
    /// Sequence numbers given out and lost with a failed batch: they will never exist.
    pub void: u64,
    /// Values that were not of the type of their promoted column and are null in it, by configured
    /// column.
    pub wrong_types: BTreeMap<String, u64>,
}

/// One shard's numbers.
#[derive(Debug, Clone, Serialize)]
pub struct ShardStatus {
    /// Its number.
    pub shard: u32,
    /// Bytes in its ring that it has not read yet.
    pub ring_bytes: usize,
    /// The ring's size in bytes.
    pub ring_capacity: usize,
    /// The highest sequence number given out.
    pub last_sequence: i64,
    /// The highest durable one.
    pub durable_sequence: i64,
    /// Bytes of its segments.
    pub log_bytes: u64,
    /// Number of its segments.
    pub log_segments: u64,
}

/// The queries' numbers.
#[derive(Debug, Clone, Serialize)]
pub struct QueryStatus {
    /// Those that run.
    pub running: usize,
    /// Those that wait for a worker.
    pub waiting: usize,
}

/// The hot tables' numbers.
#[derive(Debug, Clone, Serialize)]
pub struct HotStatus {
    /// Tables that the current snapshot names.
    pub tables: usize,
    /// Rows not yet in the lake.
    pub rows: usize,
    /// Bytes of durable batches that wait for the flusher.
    pub queue_bytes: usize,
    /// Times that DuckDB has refused rows, which were then rolled to be seen.
    pub refused: u64,
}

/// Room for what is accepted, as it was found last, and the limits at which events are refused.
#[derive(Debug, Clone, Serialize)]
pub struct SpaceStatus {
    /// Where the log is.
    pub log: PlaceStatus,
    /// Where the table is.
    pub lake: PlaceStatus,
    /// Size of all logs together at which events are refused.
    pub log_max_bytes: u64,
}

/// One file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PlaceStatus {
    /// Its free bytes; absent when they cannot be seen.
    pub free_bytes: Option<u64>,
    /// Below this many events are refused.
    pub free_min_bytes: u64,
}

impl From<Room> for PlaceStatus {
    fn from(room: Room) -> Self {
        let free_bytes = Some(room.free).filter(|free| *free != u64::MAX);
        Self { free_bytes, free_min_bytes: room.floor }
    }
}

/// The Delta table's numbers.
#[derive(Debug, Clone, Serialize)]
pub struct LakeStatus {
    /// Where it is.
    pub location: String,
    /// Its version.
    pub version: u64,
    /// Live files.
    pub files: usize,
    /// Bytes in them.
    pub bytes: u64,
    /// Rows in them.
    pub rows: u64,
    /// Files that are known to be damaged, with what is wrong.
    pub damaged: Vec<String>,
}

/// The numbers of the known message ids.
#[derive(Debug, Clone, Serialize)]
pub struct DedupStatus {
    /// Ids that are known.
    pub ids: usize,
    /// The most that there may be.
    pub ids_max: usize,
    /// A repetition of any id that was received in the last so many seconds is recognised.
    pub window_age_seconds: u64,
    /// Requests that wait for another shard, which is writing an event with an id of theirs.
    pub held_requests: usize,
}

/// What compaction has done since the start of the process.
#[derive(Debug, Clone, Serialize)]
pub struct CompactionStatus {
    /// Commits that replaced files by fewer or larger ones.
    pub commits: u64,
    /// Files that were joined.
    pub files_read: u64,
    /// Bytes in them.
    pub bytes_read: u64,
    /// Files that took their place.
    pub files_written: u64,
    /// Bytes in them.
    pub bytes_written: u64,
    /// Times that it waited for a roll or for a ring that filled.
    pub pauses: u64,
    /// Replaced files that are kept for other readers for now.
    pub files_waiting: u64,
    /// Files removed because nobody needs them any more.
    pub files_removed: u64,
    /// Why the last compaction failed; absent when it did not.
    pub problem: Option<String>,
}

/// What is kept of the table, what has gone because of that since the start of the process, and what
/// the next look takes.
#[derive(Debug, Clone, Serialize)]
pub struct RetentionStatus {
    /// Events received longer ago than this go; 0: any age stays.
    pub age_ms: u64,
    /// The oldest files go above this size of all; 0: any size stays.
    pub max_bytes: u64,
    /// Files past what is kept that are still in the table.
    pub due_files: usize,
    /// Bytes in them.
    pub due_bytes: u64,
    /// Events in them.
    pub due_rows: u64,
    /// Files taken out of the table.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Events in them.
    pub rows: u64,
    /// Why the last look did not take all; absent when it did.
    pub problem: Option<String>,
}

/// What was set aside since the start of the process.
#[derive(Debug, Clone, Serialize)]
pub struct Quarantine {
    /// Stretches of damaged log.
    pub stretches: u64,
    /// Batches that the table cannot take.
    pub batches: u64,
    /// Rows in those batches.
    pub rows: u64,
}

impl Quarantine {
    pub(crate) fn of(shared: &Shared) -> Self {
        // Relaxed, all: statistics.
        Self {
            stretches: shared.progress.quarantined.load(Ordering::Relaxed),
            batches: shared.flusher.quarantined_batches.load(Ordering::Relaxed),
            rows: shared.flusher.quarantined_rows.load(Ordering::Relaxed),
        }
    }
}

impl Status {
    pub(crate) fn of(shared: &Shared) -> Self {
        // Relaxed, all: statistics. The accounting has its own rules.
        let accounting = Accounting::of(shared.shards.iter().map(|shard| &shard.tally));
        let shards: Vec<ShardStatus> = shared
            .shards
            .iter()
            .map(|shard| ShardStatus {
                shard: shard.shard,
                ring_bytes: shard.gauge.used_bytes(),
                ring_capacity: shard.gauge.capacity(),
                last_sequence: shard.last_sequence.load(Ordering::Relaxed),
                durable_sequence: shard.durable_sequence.load(Ordering::Relaxed),
                log_bytes: shard.log_bytes.load(Ordering::Relaxed),
                log_segments: shard.log_segments.load(Ordering::Relaxed),
            })
            .collect();
        let snapshot = shared.snapshots.load();
        let [log, lake] = shared.space.rooms().map(PlaceStatus::from);
        let dedup = shared.dedup.as_ref().map(|dedup| {
            let look = dedup.look(now_micros());
            let held = shared.shards.iter().map(|shard| &shard.held_requests);
            DedupStatus {
                ids: look.ids,
                ids_max: shared.config.dedup.ids,
                window_age_seconds: look.age.as_secs(),
                held_requests: held.map(|held| held.load(Ordering::Relaxed)).sum(),
            }
        });
        Self {
            node: shared.directory.node().to_owned(),
            log_bytes: shards.iter().map(|shard| shard.log_bytes).sum(),
            shards,
            hot: HotStatus {
                tables: snapshot.hot.len(),
                rows: shared.flusher.hot_rows.load(Ordering::Relaxed),
                queue_bytes: shared.queue.waiting().bytes,
                refused: shared.flusher.refused.load(Ordering::Relaxed),
            },
            queries: QueryStatus { running: shared.pool.running(), waiting: shared.pool.waiting() },
            space: SpaceStatus { log, lake, log_max_bytes: shared.space.log_max_bytes() },
            lake: LakeStatus {
                location: shared.location.url().to_string(),
                version: snapshot.version,
                files: snapshot.files.len(),
                bytes: snapshot.files.iter().map(|file| file.bytes).sum(),
                rows: snapshot.files.iter().filter_map(|file| file.rows).sum(),
                damaged: shared
                    .checked
                    .damaged()
                    .iter()
                    .map(|file| file.problem.to_string())
                    .collect(),
            },
            compaction: CompactionStatus::of(shared),
            retention: RetentionStatus::of(shared, &snapshot.files),
            dedup,
            accounting,
            recovered: shared.progress.events.load(Ordering::Relaxed),
            recovery: shared.progress.status(),
            quarantined: Quarantine::of(shared),
            wrong_types: shared.wrong_types.counts().into_iter().collect(),
            void: shared.shards.iter().map(|shard| shard.void.load(Ordering::Relaxed)).sum(),
        }
    }
}

impl CompactionStatus {
    fn of(shared: &Shared) -> Self {
        let state = &shared.compactor;
        // Relaxed, all: statistics.
        Self {
            commits: state.commits.load(Ordering::Relaxed),
            files_read: state.files_read.load(Ordering::Relaxed),
            bytes_read: state.bytes_read.load(Ordering::Relaxed),
            files_written: state.files_written.load(Ordering::Relaxed),
            bytes_written: state.bytes_written.load(Ordering::Relaxed),
            pauses: state.pauses.load(Ordering::Relaxed),
            files_waiting: shared.roller.waiting_files.load(Ordering::Relaxed),
            files_removed: state.files_removed.load(Ordering::Relaxed),
            problem: state.problem.text(),
        }
    }
}

impl RetentionStatus {
    fn of(shared: &Shared, files: &[DataFile]) -> Self {
        let (state, config) = (&shared.compactor, &shared.config.retention);
        let due = expired(files, shared.directory.node(), config.keep(now_micros() / 1_000));
        // Relaxed, all: statistics.
        Self {
            age_ms: u64::try_from(config.age.as_millis()).unwrap_or(u64::MAX),
            max_bytes: config.max_bytes,
            due_files: due.len(),
            due_bytes: due.iter().map(|file| file.bytes).sum(),
            due_rows: due.iter().filter_map(|file| file.rows).sum(),
            files: state.expired_files.load(Ordering::Relaxed),
            bytes: state.expired_bytes.load(Ordering::Relaxed),
            rows: state.expired_rows.load(Ordering::Relaxed),
            problem: state.retention_problem.text(),
        }
    }
}

//! The engine's configuration: plain data, each field with its unit, default and extremes.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::Error;
use crate::lake::RETENTION_MAX;
use crate::log::FRAME_BYTES_MAX;
use crate::promoted::Promotion;

pub use crate::promoted::ColumnConfig;

/// Default capacity of a shard's ring. Half of it must hold the largest request that the default
/// limits allow (4 MiB of JSON with 50,000 events), so that such a request is never refused for
/// its size alone.
pub const DEFAULT_RING_BYTES: usize = 16 << 20;
/// Shards that can be configured. Delta keeps a number for each, `verify` a bitmap.
const SHARDS_MAX: usize = 1_024;
const _: () = assert!(SHARDS_MAX <= ringlake_dedup::OWNERS_MAX as usize);
/// Rows of one DuckDB row group, which is also one of a Parquet file.
pub const ROW_GROUP_ROWS: usize = 122_880;
/// Uncompressed size at which a page of a Parquet file ends, in bytes. Whoever reads a column holds
/// one; DuckDB would make one page of a whole row group's column.
pub const PAGE_BYTES: usize = 512 << 10;

/// Everything the engine can be told.
#[derive(Debug, Clone)]
pub struct Config {
    /// The data directory: log, node id, lock, quarantine and, by default, the table.
    pub data: PathBuf,
    /// Where the table lives: a path or a `file://` URL; `<data>/events` when absent.
    pub lake: Option<String>,
    /// Rings, shard threads and logs. Default: one per available core.
    pub shards: NonZeroUsize,
    /// Capacity of each ring in bytes, a power of two. A full ring refuses requests.
    pub ring_bytes: usize,
    /// The window of known message ids.
    pub dedup: DedupConfig,
    /// The segment log.
    pub log: LogConfig,
    /// The file systems of log and table.
    pub disk: DiskConfig,
    /// The hot tables.
    pub hot: HotConfig,
    /// DuckDB's own limits.
    pub duckdb: DuckDbConfig,
    /// Values of `properties` and `context` that are columns of their own. Default none. See
    /// [`promoted`](crate::promoted) for what a column may be, and how many.
    pub columns: Vec<ColumnConfig>,
    /// Whether the events of known robots say so in their `context`. Default no.
    pub mark_bots: bool,
    /// Queries.
    pub query: QueryConfig,
    /// Joining small files of the table, and removing those that they replace.
    pub compaction: CompactionConfig,
    /// How much of the table is kept.
    pub retention: RetentionConfig,
}

/// The smallest default of [`LogConfig::max_bytes`].
const LOG_MAX_BYTES: u64 = 4 << 30;

impl Config {
    /// The cap that holds for all logs together.
    #[must_use]
    pub fn log_max_bytes(&self) -> u64 {
        let derived = LOG_MAX_BYTES.max(4 * self.open_log_bytes());
        self.log.max_bytes.unwrap_or(derived)
    }

    /// What the open segments of all shards may hold: they stay when everything in them has long
    /// been rolled. A segment is closed before the batch that follows its last byte.
    #[must_use]
    pub fn open_log_bytes(&self) -> u64 {
        let batch = (self.log.batch_bytes + self.ring_bytes / 2) as u64;
        self.shards.get() as u64 * (self.log.segment_bytes + batch)
    }

    /// The defaults, for the data directory `data`.
    #[must_use]
    pub fn new(data: impl Into<PathBuf>) -> Self {
        let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self {
            data: data.into(),
            lake: None,
            shards: cores,
            ring_bytes: DEFAULT_RING_BYTES,
            dedup: DedupConfig::default(),
            log: LogConfig::default(),
            disk: DiskConfig::default(),
            hot: HotConfig::default(),
            duckdb: DuckDbConfig::default(),
            columns: Vec::new(),
            mark_bots: false,
            query: QueryConfig::default(),
            compaction: CompactionConfig::default(),
            retention: RetentionConfig::default(),
        }
    }

    /// Checks ranges and contradictions.
    ///
    /// # Errors
    /// [`Error::Config`] names the first value that cannot be, and what it may be;
    /// [`Error::Columns`] does that for a promoted column.
    pub fn check(&self) -> Result<(), Error> {
        let out_of_range =
            |name, value: String, limit: String| Err(Error::Config { name, value, limit });
        if self.shards.get() > SHARDS_MAX {
            return out_of_range(
                "shards",
                self.shards.to_string(),
                format!("at most {SHARDS_MAX}"),
            );
        }
        let ring = ringlake_ring::MIN_CAPACITY..=ringlake_ring::MAX_CAPACITY;
        if !ring.contains(&self.ring_bytes) || !self.ring_bytes.is_power_of_two() {
            let limit = format!("a power of two from {} to {}", ring.start(), ring.end());
            return out_of_range("ring_bytes", self.ring_bytes.to_string(), limit);
        }
        let least = 2 * self.open_log_bytes();
        if self.log_max_bytes() < least {
            let limit = format!(
                "at least {least}, twice what the open segments of {} shards may hold \
                 (log.segment_bytes, log.batch_bytes and half of ring_bytes each)",
                self.shards
            );
            return out_of_range("log.max_bytes", self.log_max_bytes().to_string(), limit);
        }
        // A batch closes between requests, of which one takes half of the ring at most; in Arrow's
        // form it may be longer.
        let frame = FRAME_BYTES_MAX / 2;
        let most = frame.saturating_sub(self.ring_bytes / 2);
        if self.log.batch_bytes > most {
            let limit = format!(
                "at most {most}, which half of ring_bytes leaves of the {frame} bytes of a log frame"
            );
            return out_of_range("log.batch_bytes", self.log.batch_bytes.to_string(), limit);
        }
        Promotion::new(&self.columns)?;
        let retained = self.compaction.retain_replaced;
        if retained > RETENTION_MAX {
            let limit = format!("at most {RETENTION_MAX:?}");
            return out_of_range("compaction.retain_replaced", format!("{retained:?}"), limit);
        }
        Ok(())
    }
}

/// How long message ids are known.
#[derive(Debug, Clone)]
pub struct DedupConfig {
    /// Ids that are remembered at most; the oldest eighth goes when there would be more. Default
    /// 4,000,000, about 100 MB. 0: message ids are stored and not looked at.
    pub ids: usize,
    /// How long an id is remembered, if their number allows it. Default 24 h: what a client that
    /// lost its network for a day sends again is still known.
    pub window: Duration,
}

impl Default for DedupConfig {
    fn default() -> Self {
        Self { ids: 4_000_000, window: Duration::from_secs(24 * 3_600) }
    }
}

/// Bounds of the segment log.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// A segment takes no new frame once it is this long, in bytes. Default 16 MiB: small enough
    /// that every roll lets some go to be recycled, large enough that starting one is rare.
    pub segment_bytes: u64,
    /// A batch closes at this many rows, checked between requests. Default 8,192: one sync then
    /// covers about 3 MB of JSON.
    pub batch_rows: usize,
    /// A batch closes at this many bytes of ring records, checked between requests. Default 4 MiB.
    pub batch_bytes: usize,
    /// Size of all logs together, in bytes, from which on events are refused; they are accepted
    /// again below three quarters of it. Released segments that wait to be used again do not count.
    /// By default 4 GiB, or four times what the open segments may hold when that is more: rolls keep
    /// the log far below that, and a start has to read and append all of it.
    pub max_bytes: Option<u64>,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { segment_bytes: 16 << 20, batch_rows: 8_192, batch_bytes: 4 << 20, max_bytes: None }
    }
}

/// The most that [`DiskConfig::free_min_bytes`] is by default. What is accepted and not yet Parquet
/// is at most two hot tables of 96 MiB, the queue of 24 MiB, rings of 16 MiB, and all of it must
/// still find room in the table; as much again is for queries that spill, the Delta log, and what
/// others write between two looks.
pub const DEFAULT_FREE_MIN_BYTES: u64 = 512 << 20;
/// The part of a file system that [`DiskConfig::free_min_bytes`] is at most by default, so that a
/// small one can be used at all.
pub const DEFAULT_FREE_MIN_PART: u64 = 8;

/// Bounds of the file systems that hold log and table.
#[derive(Debug, Clone, Default)]
pub struct DiskConfig {
    /// Free bytes of either file system below which events are refused; they are accepted again a
    /// quarter above it. By default [`DEFAULT_FREE_MIN_BYTES`], or an eighth of the file system when
    /// that is less. 0 turns the floor off: a disk that the log has filled to the last byte then has
    /// no room for the table until somebody makes some.
    pub free_min_bytes: Option<u64>,
}

/// Bounds of the hot tables.
#[derive(Debug, Clone)]
pub struct HotConfig {
    /// Longest time until the flusher takes a durable event, which then goes to followers. Whoever asks by
    /// SQL or for a page sees it before. Default 100 ms: ten looks a second cost an idle core nothing to
    /// speak of.
    pub flush_interval: Duration,
    /// Bytes of durable batches that may wait for the flusher; above it shards wait, rings fill
    /// and requests are refused. They are taken at once when half of them wait. Default 16 MiB, some
    /// 50,000 events of 420 bytes of JSON; the open table takes what comes while the roller is at another
    /// one, so that 24 MiB or 8 make no difference to a bulk load but 10 MB of memory each way.
    pub queue_bytes: usize,
    /// A hot table is rolled at this many rows, or once the roller is free: it takes up to twice as many
    /// meanwhile. Default 32,768: with 65,536 and no more meanwhile, a bulk load took 30 MB more and was no
    /// faster. Rows that somebody has asked for are held twice until they are rolled, as Arrow data and in
    /// DuckDB. Compaction joins the files anyway.
    pub roll_rows: usize,
    /// A hot table is rolled at this many bytes of Arrow data, and takes no more meanwhile. Default 96 MiB.
    pub roll_bytes: usize,
    /// A hot table is rolled this long after its first row. Default 60 s.
    pub roll_age: Duration,
}

impl Default for HotConfig {
    fn default() -> Self {
        Self {
            flush_interval: Duration::from_millis(100),
            queue_bytes: 16 << 20,
            roll_rows: 32_768,
            roll_bytes: 96 << 20,
            roll_age: Duration::from_secs(60),
        }
    }
}

/// Limits given to DuckDB once, at start; they are locked afterwards.
#[derive(Debug, Clone)]
pub struct DuckDbConfig {
    /// `memory_limit`. Default `1GB`; DuckDB's own default of 80 % of the machine is never used.
    pub memory_limit: String,
    /// `threads`. Default 1: a statement then runs on the thread that asked for it, and several at
    /// a time. With 2 on two cores the parallel insert makes two small row groups that DuckDB
    /// copies into one, and threads that wait for each other spin: a bulk load took 8.2 instead of
    /// 6.0 µs of processor time an event. More make single large queries faster.
    pub threads: usize,
    /// `max_temp_directory_size`, for sorts that spill. Default `4GB`.
    pub temp_max: String,
}

impl Default for DuckDbConfig {
    fn default() -> Self {
        Self { memory_limit: "1GB".into(), threads: 1, temp_max: "4GB".into() }
    }
}

/// Bounds of queries.
#[derive(Debug, Clone)]
pub struct QueryConfig {
    /// Queries that run at the same time. Default 4.
    pub workers: usize,
    /// Queries that may wait for a worker; one more is refused. Default 32.
    pub waiting: usize,
    /// Longest wait for a worker. Default 5 s.
    pub wait: Duration,
    /// Longest run of a query, reading its result included. Default 60 s.
    pub timeout: Duration,
}

impl Default for QueryConfig {
    fn default() -> Self {
        Self {
            workers: 4,
            waiting: 32,
            wait: Duration::from_secs(5),
            timeout: Duration::from_secs(60),
        }
    }
}

/// Joining small files of the table.
#[derive(Debug, Clone)]
pub struct CompactionConfig {
    /// How often the compactor looks for work; it then goes on until there is none. Zero turns that
    /// off: files are then joined on request only. Default 60 s, about one roll of a quiet server.
    pub interval: Duration,
    /// Size of the files that it makes. Larger ones make listings read more at once, smaller ones
    /// make more files to open. Default 256 MiB.
    pub file_bytes: u64,
    /// How long files stay on disk after they have been replaced, for readers outside this process
    /// that still use an older version of the table. Default 24 h, at most
    /// [`RETENTION_MAX`].
    pub retain_replaced: Duration,
}

impl Default for CompactionConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(60),
            file_bytes: 256 << 20,
            retain_replaced: Duration::from_hours(24),
        }
    }
}

/// How much of the table is kept. What is past it goes in whole files, oldest first, at each look of
/// the compactor (every [`CompactionConfig::interval`], or minute when that is zero).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetentionConfig {
    /// A file goes when all of its events were received longer ago than this. A file holds events of
    /// one day, so that the oldest of them may stay a day longer. Zero, the default, keeps events of
    /// any age.
    pub age: Duration,
    /// The oldest files go while all files of this node in the table are larger than this. Files
    /// that have gone stay on disk for [`CompactionConfig::retain_replaced`] and do not count. Zero,
    /// the default, keeps any number.
    pub max_bytes: u64,
}

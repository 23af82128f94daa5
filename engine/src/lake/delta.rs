//! The Delta table: its log, its live files, and commits that move shards forward. The only module
//! that uses the Delta library.
//!
//! **Guarantees.**
//! - A commit is durable when [`Table::commit`] returns `Ok`, and holds the files and the shards'
//!   new numbers together or neither.
//! - A commit goes onto the very version whose shard numbers have been checked, so repeating one
//!   adds nothing, whoever else writes to the table.
//! - A failed commit counts as of unknown outcome until the table has been read again.
//!
//! **Not guaranteed.** The library enforces no application ids and detects no logical conflicts:
//! whatever commits to the table must go through here. It does not look at the files either.
//!
//! **Roles.** One thread at a time; every call blocks on files, so none may come from a thread that
//! drives a current-thread async runtime. One [`Table`] commits for a node.
//!
//! **Limits.** [`COMMIT_TRIES`] attempts against other writers. All live files are held in memory,
//! about 300 bytes each.
//!
//! **Failure.** After any error the caller may call [`Table::commit`] again with the same
//! arguments. Files of a roll that is given up are the caller's to remove ([`Table::discard`]).

mod adds;
mod change;
mod columns;
mod commit;
mod live;
mod log;
mod replace;
mod tombstones;
mod upkeep;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, OnceLock};

use delta_kernel::committer::FileSystemCommitter;
use delta_kernel::crc::SetTransactionState;
use delta_kernel::schema::{DataType, StructField, StructType};
use delta_kernel::snapshot::{IncrementalReplay, Snapshot, SnapshotRef};
use delta_kernel::transaction::CommitResult;
use delta_kernel::transaction::create_table::create_table;
use delta_kernel::transaction::data_layout::DataLayout;
use delta_kernel::{KernelError, KernelResult};
use delta_kernel_default_engine::executor::tokio::TokioMultiThreadExecutor;
use delta_kernel_default_engine::{DefaultEngine, DefaultEngineBuilder};
use object_store::path;

use self::log::LogFiles;
use super::error::{Cause, LakeError, Result};
use super::footer::{NewFile, STATS_COLUMNS};
use super::location::{Location, check_node};
use crate::schema::{COLUMNS, PARTITION};

use tombstones::Replaced;

pub use change::COMMIT_TRIES;
pub use commit::{CommitOutcome, ShardSequence};
pub use live::{Bounds, DataFile};
pub use replace::ReplaceOutcome;
pub use tombstones::RETENTION_MAX;
pub(in crate::lake) use tombstones::millis;
pub use upkeep::{DEFAULT_CHECKPOINT_COMMITS, DEFAULT_LOG_RETENTION, Upkeep};

/// Shards that are asked for one by one when the log has no list of application ids.
const PROBED_SHARDS: u32 = 256;
/// Files of the log that are read ahead. The library's own 1,000 open every commit since the last
/// checkpoint at once, and each takes about 1 MB of decoder before its first line is read.
const READ_AHEAD_FILES: NonZeroUsize = NonZeroUsize::MIN.saturating_add(7);
/// Who we say we are in the table's history.
const ENGINE_INFO: &str = concat!("ringlake/", env!("CARGO_PKG_VERSION"));

/// The Delta table, open for one node.
pub struct Table {
    location: Location,
    node: String,
    kernel: Kernel,
    /// The newest version that we know; the base of the next commit.
    snapshot: SnapshotRef,
    /// The files of `snapshot`, once somebody asked.
    live: OnceLock<Arc<[DataFile]>>,
    /// Files of ours that are no part of `snapshot` any more and still on disk.
    replaced: Vec<Replaced>,
    upkeep: Upkeep,
    /// As of our last commit; 0 before it.
    commits_since_checkpoint: u64,
    /// No checkpoint is tried below this version, because one has just failed.
    checkpoint_not_before: u64,
}

type Kernel = DefaultEngine<TokioMultiThreadExecutor>;

impl fmt::Debug for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Table")
            .field("url", &self.location.url().as_str())
            .field("node", &self.node)
            .field("version", &self.version())
            .finish_non_exhaustive()
    }
}

impl Table {
    /// Opens the table for writing and creates it when there is none. What its present version
    /// rests on is on the medium afterwards.
    ///
    /// # Errors
    ///
    /// [`LakeError::Node`]; [`LakeError::DamagedLog`] when reading the log would lose commits;
    /// [`LakeError::Foreign`] when the table has other columns; [`LakeError::Delta`] and
    /// [`LakeError::Io`] when files cannot be used.
    pub fn open_or_create(location: &Location, node: &str) -> Result<Self> {
        check_node(node)?;
        location.create()?;
        if LogFiles::list(location)?.is_empty() {
            create(&kernel(location), location).map_err(delta_error("create the log"))?;
        }
        let mut table = Self::open(location, node)?;
        LogFiles::list(location)?.sync(location)?;
        LogFiles::remove_staged(location);
        table.write_checksum();
        Ok(table)
    }

    /// Opens an existing table and writes nothing.
    ///
    /// # Errors
    ///
    /// [`LakeError::NoTable`] when there is none, otherwise as [`Table::open_or_create`].
    pub fn open(location: &Location, node: &str) -> Result<Self> {
        check_node(node)?;
        let files = LogFiles::list(location)?;
        if files.is_empty() {
            return Err(LakeError::NoTable { url: location.url().to_string() });
        }
        files.check(location)?;
        let kernel = kernel(location);
        let snapshot = Snapshot::builder_for(location.url().as_str())
            .with_incremental_crc_replay(IncrementalReplay::Unlimited)
            .build(&kernel)
            .map_err(delta_error("read the log"))?;
        let table = Self {
            location: location.clone(),
            node: node.to_owned(),
            kernel,
            snapshot,
            live: OnceLock::new(),
            replaced: Vec::new(),
            upkeep: Upkeep::default(),
            commits_since_checkpoint: 0,
            checkpoint_not_before: 0,
        };
        table.check_columns()?;
        Ok(table)
    }

    /// Where the table lives.
    #[must_use]
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// The node that this table is open for.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The newest version that we know.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.snapshot.version()
    }

    /// The files of [`Table::version`].
    ///
    /// # Errors
    ///
    /// [`LakeError::Delta`] when the log cannot be read, [`LakeError::Unsupported`] when a file
    /// holds more than plain Parquet readers would see.
    pub fn live_files(&self) -> Result<Arc<[DataFile]>> {
        if let Some(files) = self.live.get() {
            return Ok(Arc::clone(files));
        }
        let files = live::read(&self.kernel, &self.snapshot, &self.location)?;
        Ok(Arc::clone(self.live.get_or_init(|| files.into())))
    }

    /// The files of the log that [`Table::version`] is read from, relative to the table's root.
    ///
    /// # Errors
    ///
    /// [`LakeError::Io`] when the log cannot be listed.
    pub fn log_files(&self) -> Result<Vec<path::Path>> {
        let log = LogFiles::list(&self.location)?;
        Ok(log.of_version(self.version()).map(|file| file.location.clone()).collect())
    }

    /// How far `shard` of our node is in the table: everything up to this number is in it or
    /// recorded as gone. 0 when the table knows nothing of the shard.
    ///
    /// # Errors
    ///
    /// [`LakeError::Delta`] when the log cannot be read.
    pub fn sequence(&self, shard: u32) -> Result<i64> {
        self.application_version(&self.application(shard))
    }

    /// The `txn` number of an application; 0 when it has none.
    fn application_version(&self, application: &str) -> Result<i64> {
        let found = self.snapshot.get_app_id_version(application, &self.kernel);
        Ok(found.map_err(delta_error("read the sequence numbers"))?.unwrap_or(0))
    }

    /// How far each shard of our node is; shards that the table knows nothing of are left out.
    ///
    /// # Errors
    ///
    /// [`LakeError::Delta`] when the log cannot be read.
    pub fn all_sequences(&self) -> Result<BTreeMap<u32, i64>> {
        let checksum = self.snapshot.crc_at_version().map(|crc| &crc.set_transaction_state);
        if let Some(SetTransactionState::Complete(known)) = checksum {
            let prefix = self.application_prefix();
            let shard = |id: &str| id.strip_prefix(&prefix)?.parse().ok();
            return Ok(known
                .iter()
                .filter_map(|(id, transaction)| Some((shard(id)?, transaction.version())))
                .collect());
        }
        let mut found = BTreeMap::new();
        for shard in 0..PROBED_SHARDS {
            let last = self.sequence(shard)?;
            if last != 0 {
                found.insert(shard, last);
            }
        }
        Ok(found)
    }

    /// Removes those of `files` that are no part of the table, after a roll was given up.
    ///
    /// # Errors
    ///
    /// As [`Table::remove_orphans`]; what is left over is removed by the next start.
    pub fn discard(&self, files: &[NewFile]) -> Result<()> {
        let live = self.live_files()?;
        for file in files {
            if !live.iter().any(|live| *live.path == *file.path.as_ref()) {
                self.location.remove(&file.path)?;
            }
        }
        Ok(())
    }

    /// Reads the table again.
    ///
    /// # Errors
    ///
    /// [`LakeError::Delta`] when the log cannot be read; the known version stays.
    pub fn refresh(&mut self) -> Result<()> {
        let snapshot = Snapshot::builder_from(Arc::clone(&self.snapshot))
            .with_incremental_crc_replay(IncrementalReplay::Unlimited)
            .build(&self.kernel)
            .map_err(delta_error("read the log"))?;
        if snapshot.version() == self.snapshot.version() {
            return Ok(());
        }
        self.snapshot = snapshot;
        let Some(before) = self.live.take() else { return Ok(()) };
        // Another writer may have taken out files of ours. Which they were is only noted for
        // readers of this process: a failure here costs the files a stay until the next start.
        if let Ok(now) = self.live_files() {
            let now: HashSet<&str> = now.iter().map(|file| &*file.path).collect();
            let gone = before.iter().filter(|file| !now.contains(&*file.path));
            self.note_replaced(gone.map(|file| &file.path), false);
        }
        Ok(())
    }

    /// Writes the checksum of the version at hand: with it application ids are found without a scan
    /// of the log, in this process and the next.
    fn write_checksum(&mut self) {
        match self.snapshot.write_checksum(&self.kernel) {
            Ok((_, snapshot)) => self.snapshot = snapshot,
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "no checksum of the table was written; starts are slower");
            }
        }
    }

    /// Refuses a table that lacks a column or has it with another type.
    fn check_columns(&self) -> Result<()> {
        let foreign =
            |problem| Err(LakeError::Foreign { url: self.location.url().to_string(), problem });
        let schema = self.snapshot.schema();
        for expected in built_in() {
            match schema.field(expected.name()) {
                None => return foreign(format!("it has no column {:?}", expected.name())),
                Some(field) if field.data_type() != expected.data_type() => {
                    return foreign(format!(
                        "its column {:?} has the type {}, not {}",
                        expected.name(),
                        field.data_type(),
                        expected.data_type()
                    ));
                }
                Some(_) => {}
            }
        }
        let partitions = self.snapshot.table_configuration().metadata().partition_columns();
        if partitions != [PARTITION] {
            return foreign(format!("it is partitioned by {partitions:?}, not by {PARTITION:?}"));
        }
        Ok(())
    }

    fn application_prefix(&self) -> String {
        format!("ringlake/{}/", self.node)
    }

    fn application(&self, shard: u32) -> String {
        format!("{}{shard}", self.application_prefix())
    }
}

/// The library's file access: synced writes, on the location's threads. It takes absolute paths.
fn kernel(location: &Location) -> Kernel {
    let store = Arc::new(location.files());
    let executor = Arc::new(TokioMultiThreadExecutor::new(location.runtime()));
    DefaultEngineBuilder::new(store)
        .with_task_executor(executor)
        .with_buffer_size(READ_AHEAD_FILES)
        .build()
}

/// Creates the table; whoever else does so at the same time is welcome.
fn create(kernel: &Kernel, location: &Location) -> KernelResult<()> {
    let schema = Arc::new(StructType::try_new(built_in())?);
    let created = create_table(location.url().as_str(), schema, ENGINE_INFO, false)
        .with_data_layout(DataLayout::partitioned([PARTITION]))
        .with_table_properties([
            ("delta.checkpointInterval", DEFAULT_CHECKPOINT_COMMITS.to_string()),
            ("delta.dataSkippingStatsColumns", STATS_COLUMNS.join(",")),
        ])
        .build(kernel, Box::new(FileSystemCommitter::new()));
    let created = match created {
        Err(KernelError::TableAlreadyExistsAtPath(_)) => return Ok(()),
        created => created?,
    };
    match created.commit(kernel)? {
        CommitResult::Committed(_) | CommitResult::Conflicted(_) => Ok(()),
        CommitResult::Retryable(failed) => Err(failed.error),
    }
}

/// The table's built-in columns.
///
/// All may be null: a column that may not puts the feature `invariants` on the table, and every
/// other writer has to know it. The log and the hot tables refuse events that lack a value.
fn built_in() -> impl Iterator<Item = StructField> {
    let partition = StructField::nullable(PARTITION, DataType::DATE);
    COLUMNS
        .iter()
        .map(|column| StructField::nullable(column.name, columns::data_type(column.kind)))
        .chain([partition])
}

fn cause(error: KernelError) -> Cause {
    Box::new(error)
}

/// Wraps an error of the Delta library with what was tried.
fn delta_error(action: &'static str) -> impl FnOnce(KernelError) -> LakeError {
    move |error| LakeError::Delta { action, source: cause(error) }
}

#[cfg(test)]
mod tests;

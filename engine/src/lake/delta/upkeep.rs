//! Keeping the Delta log short: checkpoints, and the removal of what they make unnecessary.
//!
//! **Guarantees.** A log file is removed only when a complete checkpoint has stood in for it for
//! the whole retention, so that whoever opened the table within it can go on reading.
//!
//! **Limits.** A checkpoint takes about 50 ms for 4,000 files and 1 s for 100,000.
//!
//! **Failure.** Nothing in here fails a commit: problems are logged and tried again later.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use delta_kernel::KernelError;

use super::log::LogFiles;
use super::{Table, delta_error};
use crate::lake::error::Result;

/// Commits after which a checkpoint pays: opening a table without one reads every commit since.
pub const DEFAULT_CHECKPOINT_COMMITS: u64 = 100;
/// How long superseded log files stay for readers that opened the table before the checkpoint.
pub const DEFAULT_LOG_RETENTION: Duration = Duration::from_hours(24);
/// Commits to let pass after a checkpoint that failed.
const RETRY_COMMITS: u64 = 10;

/// When the log is tidied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upkeep {
    /// Commits between checkpoints. Default [`DEFAULT_CHECKPOINT_COMMITS`]; 0 counts as 1.
    pub checkpoint_commits: u64,
    /// How long superseded log files stay. Default [`DEFAULT_LOG_RETENTION`]. Zero removes them at
    /// once, under readers that still need them.
    pub log_retention: Duration,
}

impl Default for Upkeep {
    fn default() -> Self {
        Self {
            checkpoint_commits: DEFAULT_CHECKPOINT_COMMITS,
            log_retention: DEFAULT_LOG_RETENTION,
        }
    }
}

impl Table {
    /// Replaces the default times of upkeep.
    #[must_use]
    pub fn with_upkeep(mut self, upkeep: Upkeep) -> Self {
        self.upkeep = upkeep;
        self
    }

    /// Writes a checkpoint when enough commits have passed since the last, and removes log files
    /// that are superseded. To be called after every commit, once readers have the new version:
    /// it may take a second. Returns the version of the checkpoint when it wrote one.
    pub fn upkeep(&mut self) -> Option<u64> {
        if !self.is_upkeep_due(0) {
            return None;
        }
        let version = self.version();
        if let Err(error) = self.checkpoint() {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(version, error, "no checkpoint of the table was written");
            self.checkpoint_not_before = version.saturating_add(RETRY_COMMITS);
            return None;
        }
        if let Err(error) = self.remove_superseded(self.upkeep.log_retention) {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(version, error, "old files of the table's log were not removed");
        }
        Some(version)
    }

    /// Whether a checkpoint has been due for `late` commits.
    pub(super) fn is_upkeep_due(&self, late: u64) -> bool {
        let due = self.upkeep.checkpoint_commits.max(1).saturating_add(late);
        self.commits_since_checkpoint >= due && self.version() >= self.checkpoint_not_before
    }

    fn checkpoint(&mut self) -> Result<(), KernelError> {
        let (_, snapshot) = self.snapshot.checkpoint(&self.kernel, None)?;
        self.snapshot = snapshot;
        self.commits_since_checkpoint = 0;
        self.write_checksum();
        Ok(())
    }

    /// Leaves nothing of the log but a checkpoint of the version at hand and what comes after it.
    /// Readers outside this process that opened an older version have to open the table again.
    ///
    /// # Errors
    ///
    /// [`crate::lake::LakeError::Delta`] when no checkpoint can be written,
    /// [`crate::lake::LakeError::Store`] when a file cannot be removed; the same call may be
    /// repeated.
    pub fn forget_history(&mut self) -> Result<()> {
        self.checkpoint().map_err(delta_error("write a checkpoint"))?;
        self.remove_superseded(Duration::ZERO)
    }

    /// Removes log files below the newest checkpoint that is older than `retention`.
    fn remove_superseded(&self, retention: Duration) -> Result<()> {
        let files = LogFiles::list(&self.location)?;
        files.sync(&self.location)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let written = match retention {
            // The clock may have been set back since the checkpoint was written.
            Duration::ZERO => i64::MAX,
            some => i64::try_from(now.saturating_sub(some).as_millis()).unwrap_or(i64::MAX),
        };
        // Never beyond our own version: the snapshot in hand still reads what is after its own
        // checkpoint, which has just been written.
        let superseded = files.superseded(&self.location, self.version(), written);
        for file in &superseded {
            self.location.remove(&file.location)?;
        }
        if !superseded.is_empty() {
            tracing::debug!(files = superseded.len(), "removed old files of the table's log");
        }
        Ok(())
    }
}

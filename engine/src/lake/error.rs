//! What can go wrong between the engine and its table.

use std::path::{Path, PathBuf};

use super::delta::ShardSequence;

/// The cause below a [`LakeError`], whichever library it comes from.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// The result of a call into the lake.
pub type Result<T, E = LakeError> = std::result::Result<T, E>;

/// A call into the lake that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LakeError {
    /// The location names a kind of storage that is not supported.
    #[error(
        "the table cannot live at {location}: object storage is not supported yet, \
         give a local path or a file:// URL"
    )]
    Scheme {
        /// The location as it was given.
        location: String,
    },
    /// The location cannot be turned into a local directory.
    #[error("the table cannot live at {location}: {problem}")]
    Place {
        /// The location as it was given.
        location: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The node id would not make an unambiguous file name.
    #[error(
        "the node id {node:?} is not usable: it must be 1 to {max} ASCII letters, digits or hyphens"
    )]
    Node {
        /// The node id as it was given.
        node: String,
        /// The longest id, in bytes.
        max: usize,
    },
    /// There is no table at the location.
    #[error("there is no table at {url}")]
    NoTable {
        /// Where it was looked for.
        url: String,
    },
    /// A file of the table's log is empty or cut off. Reading on would move the table back to an
    /// earlier state, so nothing is read.
    #[error(
        "the table's log is damaged: {} {problem}; nothing was read or changed, \
         restore that file from a copy",
        path.display()
    )]
    DamagedLog {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, as a verb phrase.
        problem: String,
    },
    /// The table at the location does not have the columns of the events table.
    #[error("the table at {url} is not ours: {problem}")]
    Foreign {
        /// Where the table is.
        url: String,
        /// What differs.
        problem: String,
    },
    /// The table has a column of the configuration's name with another type.
    #[error(
        "the table has the column {column:?} with the type {found}, not {wanted}: \
         give the column of the configuration another name, or the type of the table's"
    )]
    Column {
        /// The column's name.
        column: String,
        /// Its type in the table.
        found: String,
        /// Its configured type.
        wanted: &'static str,
    },
    /// The table would have too many promoted columns.
    #[error(
        "the table would have {count} promoted columns, those that are not configured any more \
         included; it must not have more than {max}"
    )]
    Columns {
        /// How many it would have.
        count: usize,
        /// How many it may have.
        max: usize,
    },
    /// The table uses a Delta feature that plain Parquet reads would get wrong.
    #[error("the file {path} of the table {problem}")]
    Unsupported {
        /// The data file.
        path: String,
        /// What is not supported, as a verb phrase.
        problem: String,
    },
    /// A shard's number in the table is neither where the roll began nor where it ends.
    #[error(
        "the table holds shard {} up to {found}, but the roll goes from {} to {}",
        expected.shard, expected.previous, expected.last
    )]
    Sequence {
        /// What the caller expected to move.
        expected: ShardSequence,
        /// What the table says.
        found: i64,
    },
    /// A commit with files that moves no shard: repeating it would add the rows again.
    #[error("{files} files were to be added to the table without moving a shard forward")]
    Unnumbered {
        /// Files of the commit.
        files: usize,
    },
    /// The files that were to stand for others do not have their rows.
    #[error("files with {removed:?} rows were to be replaced by files with {added}")]
    Unequal {
        /// Rows of the files that were to go, when all of them are known.
        removed: Option<u64>,
        /// Rows of the files that were to come.
        added: u64,
    },
    /// Other writers were faster every time.
    #[error("the table had another writer's commit in the way {tries} times in a row")]
    Contended {
        /// Attempts made, all in conflict.
        tries: u32,
    },
    /// The commit failed and the table, read again, does not hold it.
    #[error("the commit to the table failed and is not in it")]
    NotCommitted {
        /// Why it failed.
        #[source]
        source: Cause,
    },
    /// The commit failed and the table could not be read again: it may or may not hold it.
    #[error("the commit to the table failed ({failure}) and the table cannot be read again")]
    Unknown {
        /// Why the commit failed.
        failure: String,
        /// Why the table could not be read.
        #[source]
        source: Cause,
    },
    /// The Delta log could not be read or written.
    #[error("cannot {action} of the table")]
    Delta {
        /// What was tried, as a verb phrase that ends in a noun.
        action: &'static str,
        /// The Delta library's reason.
        #[source]
        source: Cause,
    },
    /// A file or directory could not be used.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, as a verb phrase.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The object store refused something.
    #[error("cannot {action} {path}")]
    Store {
        /// What was tried, as a verb phrase.
        action: &'static str,
        /// On which object, relative to the table.
        path: String,
        /// Why it failed.
        #[source]
        source: object_store::Error,
    },
    /// A Parquet file could not be read.
    #[error("cannot read {}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: parquet::errors::ParquetError,
    },
    /// A Parquet file was written or read that does not hold what it should.
    #[error("{} {problem}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, as a verb phrase.
        problem: String,
    },
    /// A data file is not what was written, or not there.
    #[error("the file {} of the table is damaged: it {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, as a verb phrase.
        problem: String,
    },
    /// The caller gave the work up before it was done; nothing was changed.
    #[error("the work was given up before it was done")]
    GivenUp,
}

impl LakeError {
    /// The file that could not be read or written, or does not hold what it should.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Io { path, .. }
            | Self::Parquet { path, .. }
            | Self::Content { path, .. }
            | Self::Damaged { path, .. }
            | Self::DamagedLog { path, .. } => Some(path),
            _ => None,
        }
    }

    /// Whether a commit that ended in this error has certainly changed nothing.
    #[must_use]
    pub fn is_without_effect(&self) -> bool {
        matches!(
            self,
            Self::NotCommitted { .. }
                | Self::Contended { .. }
                | Self::Unequal { .. }
                | Self::Unnumbered { .. }
                | Self::Sequence { .. }
        )
    }

    /// Wraps an input or output error with what was tried on which file.
    pub(super) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    /// A data file that is not what was written; `problem` is a verb phrase.
    pub(super) fn damaged(path: impl Into<PathBuf>, problem: impl Into<String>) -> Self {
        Self::Damaged { path: path.into(), problem: problem.into() }
    }

    /// Wraps an object store's error with what was tried on which object.
    pub(super) fn store(
        action: &'static str,
        path: impl ToString,
    ) -> impl FnOnce(object_store::Error) -> Self {
        let path = path.to_string();
        move |source| Self::Store { action, path, source }
    }

    /// Wraps a Parquet error with the file it came from.
    pub(super) fn parquet(
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(parquet::errors::ParquetError) -> Self {
        let path = path.into();
        move |source| Self::Parquet { path, source }
    }
}

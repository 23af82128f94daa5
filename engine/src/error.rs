//! What can go wrong in the engine, as its callers see it.

use std::path::PathBuf;

use crate::lake::LakeError;

/// An engine call that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or directory could not be read or written.
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
    /// Another process works on the data directory.
    #[error("the data directory {} is in use by process {owner}", path.display())]
    Locked {
        /// The data directory.
        path: PathBuf,
        /// What the owner wrote about itself: its process id and, for a server, its address.
        owner: String,
    },
    /// A file of the data directory holds what this version cannot read.
    #[error("{} {problem}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, as a verb phrase.
        problem: String,
    },
    /// The log could not be read or written.
    #[error(transparent)]
    Log(#[from] ringlake_log::Error),
    /// The table could not be read or written.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// DuckDB refused something.
    #[error("cannot {action} in DuckDB")]
    DuckDb {
        /// What was tried, as a verb phrase.
        action: &'static str,
        /// DuckDB's reason.
        #[source]
        source: duckdb::Error,
    },
    /// DuckDB's C interface refused something.
    #[error("cannot {action} in DuckDB")]
    Append {
        /// What was tried, as a verb phrase.
        action: &'static str,
        /// DuckDB's reason.
        #[source]
        source: crate::hot::Refused,
    },
    /// Arrow refused something.
    #[error("cannot {action}")]
    Arrow {
        /// What was tried, as a verb phrase.
        action: &'static str,
        /// Arrow's reason.
        #[source]
        source: arrow::error::ArrowError,
    },
    /// Events are durable but have not come further for a while. They go on being tried.
    #[error("the events are durable, but cannot be passed on: {problem}")]
    Stuck {
        /// What keeps them.
        problem: String,
    },
    /// Nothing is accepted until the next start.
    #[error("{problem}")]
    Broken {
        /// What failed.
        problem: String,
    },
    /// Too much of something waits already.
    #[error("{limit} {what} wait already, which is the most")]
    Crowded {
        /// What waits.
        what: &'static str,
        /// How many may.
        limit: usize,
    },
    /// The engine is starting, is stopping or has stopped.
    #[error("the engine is starting or shutting down; try again when it is ready")]
    Closed,
    /// Something did not happen in the time allowed for it.
    #[error("{what} took longer than {limit:?}")]
    Deadline {
        /// What was waited for.
        what: &'static str,
        /// The time that was allowed.
        limit: std::time::Duration,
    },
    /// A promoted column cannot be as it is configured.
    #[error(transparent)]
    Columns {
        /// What is wrong with it.
        #[from]
        unfit: crate::promoted::Unfit,
    },
    /// A configured value is out of its range.
    #[error("{name} is {value}; it must be {limit}")]
    Config {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: String,
        /// What is allowed.
        limit: String,
    },
}

impl Error {
    /// Wraps an input or output error with what was tried on which file.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = source.source();
    }
    text
}

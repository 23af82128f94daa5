//! What can go wrong with a log.

use std::path::PathBuf;

/// A log operation that failed.
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
    /// A file holds what this version cannot read.
    #[error("{} {problem}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, as a verb phrase.
        problem: String,
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

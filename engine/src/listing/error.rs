//! The ways in which a page cannot be read.

use std::time::Duration;

/// A page that was refused or could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListError {
    /// The cursor was not made by this instance, or for other filters or another tenant.
    #[error(
        "the cursor is not one that this listing gave; it goes with the same filters, range and \
         order only"
    )]
    Cursor,
    /// Too many listings wait already, or none ended in time.
    #[error("too many listings: {waiting} may wait, each for at most {wait:?}")]
    Busy {
        /// The configured number of waiting queries.
        waiting: usize,
        /// The configured longest wait.
        wait: Duration,
    },
    /// Too many follow.
    #[error("too many follow the events; {max} may")]
    Followers {
        /// How many may.
        max: usize,
    },
    /// A file of the table that the page needs is damaged. Pages of other times can be read.
    #[error("a file that the listing needs is damaged: {file}; `ringlake verify` says more")]
    Damaged {
        /// The file, by its name in the table.
        file: String,
    },
    /// The engine is starting or shutting down.
    #[error("the engine is starting or shutting down; try again when it is ready")]
    NotReady,
    /// Something of ours went wrong. The message is for the log, not for the client.
    #[error("the listing failed: {message}")]
    Failed {
        /// The cause.
        message: String,
    },
}

impl ListError {
    pub(super) fn failed(message: impl std::fmt::Display) -> Self {
        Self::Failed { message: message.to_string() }
    }
}

//! SQL over one snapshot of `events`, streamed as Arrow batches.
//!
//! ```text
//!  QueryRequest ─▶ pool ─▶ sandbox ─▶ view ─▶ session ─▶ QueryStream ─▶ format
//!                  admit   one SELECT  events  DuckDB     bounded        bytes
//! ```
//!
//! **Guarantees.** A query reads one [`Snapshot`](crate::snapshot::Snapshot) from its first to its
//! last row. It changes nothing: the statement is checked before DuckDB plans it, and it runs in a
//! read-only transaction that is always rolled back. A result either ends cleanly after its last
//! row or with an error item; a stream that stops without either does not exist.
//!
//! **Tenants.** A query of a tenant sees the events of that tenant: its view has the filter in it. No
//! message of an error that rows cause is passed on to it, because the planner may look at a row
//! before the filter does.
//!
//! **Not guaranteed.** Row order without `ORDER BY`. DuckDB is not a security boundary: the checks
//! here are one layer, the settings that the engine locks at start are another.
//!
//! **Limits.** `workers` queries run, `waiting` wait, each for at most `wait`; a query and the
//! reading of its result take at most `timeout` together (see
//! [`QueryConfig`](crate::config::QueryConfig)).
//!
//! **Memory.** Four batches of about 1 MB wait between a query and its reader; DuckDB buffers what
//! its own settings allow; [`room`] bounds what it does not count.

mod batch;
mod error;
pub mod format;
mod params;
mod pool;
pub mod room;
mod sandbox;
mod session;
mod stream;
mod view;
mod watch;

#[cfg(test)]
mod tests;

use std::time::Duration;

pub use error::QueryError;
pub use params::Params;
pub use pool::Pool;
pub use stream::QueryStream;

/// One query as a user sends it.
#[derive(Debug, Clone, Default)]
pub struct QueryRequest {
    /// One `SELECT` over `events`.
    pub sql: String,
    /// Values for its parameters.
    pub params: Params,
    /// Longest run, reading included; never longer than the configured timeout, which also
    /// applies when this is absent.
    pub timeout: Option<Duration>,
    /// Whose events there are to be; all when absent. With a tenant, an error that the rows cause
    /// carries its class and position only.
    pub tenant: Option<String>,
}

impl QueryRequest {
    /// A query over the events of all tenants, without parameters and with the configured timeout.
    #[must_use]
    pub fn new(sql: impl Into<String>) -> Self {
        Self { sql: sql.into(), ..Self::default() }
    }
}

/// Locks a mutex whose data stays valid at every step, so that a panic elsewhere changes nothing.
fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

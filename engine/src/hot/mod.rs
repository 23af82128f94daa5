//! Hot tables: what is durable and not yet Parquet, in DuckDB's memory.
//!
//! **Guarantees**
//! - A batch that a shard has made durable is visible to SQL within the flush interval, as long
//!   as the flusher keeps up.
//! - Each shard's batches are appended strictly in order, so that one number per shard says what
//!   a table holds. A batch is passed only when it is in a table or its quarantine file is synced.
//! - A table is sealed at batch boundaries, by rows, bytes or age.
//!
//! **Not guaranteed.** Hot tables survive nothing: any start rebuilds them from the log.
//!
//! **Roles.** One flusher thread owns the only DuckDB connection that writes hot tables: it
//! creates, appends and drops them. It never waits for a reader. It does wait for the roller when
//! one table is being rolled and the next one is full.
//!
//! **Memory.** When nothing can be passed on there are, at most: a table that is being rolled, an
//! open table at its limit, the queue at its own, and what the rings held when the queue filled.
//! Everything else is refused.
//!
//! **Failure.** A failed append is tried again with a growing pause; after five attempts the
//! batch is set aside as an Arrow file in `quarantine/` ([`quarantine`](crate::quarantine)), unless memory is what is lacking: then
//! the flusher waits, the queue fills and requests are refused.

mod append;
mod database;
#[expect(unsafe_code, reason = "calls DuckDB's C interface")]
mod ffi;
mod flusher;
mod pass;
mod queue;

pub use append::{HotAppender, rows_of};
pub use database::Database;
pub(crate) use database::literal;
pub use ffi::Refused;
pub(crate) use flusher::{Flusher, FlusherState, Sealed};
pub(crate) use pass::Passing;
pub use queue::LogBatch;
pub(crate) use queue::{Goal, Marker, Message, Overflow, Queue, Receiving, Wake, queue};

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::{logged, test_queue};

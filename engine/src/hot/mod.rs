//! Hot tables: what is durable and not yet Parquet, in memory.
//!
//! Their rows are Arrow data, which a roll writes as Parquet. DuckDB gets them as well, but only when
//! somebody asks: bringing them there costs about as much as storing them, and under load most are
//! rolled before anybody has looked.
//!
//! **Guarantees**
//! - Whatever was committed to a ring before a query begins is visible to it, as long as rolls go
//!   through: a marker follows the events to here.
//! - Each shard's batches are taken strictly in order, so that one number per shard says what a
//!   table holds. A batch is passed only when it is in a table or its quarantine file is synced.
//! - A table is sealed at batch boundaries, by rows, bytes or age.
//!
//! **Not guaranteed.** Hot tables survive nothing: any start rebuilds them from the log.
//!
//! **Roles.** One flusher thread owns the only DuckDB connection that writes hot tables: it
//! creates, fills and drops them. It never waits for a reader. It does wait for the roller when
//! one table is being rolled and the next one is full.
//!
//! **Memory.** When nothing can be passed on there are, at most: a table that is being rolled, an
//! open table at its limit, both twice if somebody has asked, the queue at its own, and what the
//! rings held when the queue filled. Everything else is refused.
//!
//! **Failure.** DuckDB is not needed for anything but showing: rows that it refuses, for lack of
//! memory or for good, are rolled at once for those who asked. A batch that the table cannot take
//! is set aside as an Arrow file in `quarantine/` ([`quarantine`](crate::quarantine)).

mod append;
mod database;
#[expect(unsafe_code, reason = "calls DuckDB's C interface")]
mod ffi;
mod flusher;
mod pass;
mod queue;
mod rows;

pub(crate) use append::rows_to_set_aside;
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

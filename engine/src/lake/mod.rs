//! The lake: an open Delta table of Parquet files, and how events get into it.
//!
//! ```text
//!  hot rows ──▶ roll ──▶ Parquet files ──▶ seal ──▶ footer ──▶ statistics
//!                            │ synced, not yet part of the table        │
//!                            └────────────▶ delta ◀─────────────────────┘
//!                                            │ one commit: the files, and how far each shard got
//!                                            ▼
//!                       check ◀── live files and sequence numbers
//! ```
//!
//! | module | what it knows |
//! |---|---|
//! | [`location`] | where the table is, names of its files, syncing, orphans |
//! | `store` | the table's objects on a local disk, written durably |
//! | [`delta`] | the Delta log; the only module that uses the Delta library |
//! | [`roll`] | hot rows to one sorted Parquet file a day |
//! | `output` | a data file under way: how it is laid out, that it holds what it should |
//! | `group` | a row group of it: columns to encoded columns, on two threads |
//! | [`seal`] | checksums on every byte of a written file |
//! | [`check`] | looking at them before a file is read |
//! | [`footer`] | statistics of a written file |
//! | [`plan`] | which small files are joined next |
//! | [`merge`] | sorted files to fewer sorted files, in bounded memory |
//! | [`copy`] | the newest version of a table that goes on changing |
//! | [`erase`] | which rows of a file are to go, and the file without them |
//! | [`retention`] | which files are past what is kept |
//! | [`mod@vacuum`] | which files nobody needs |
//! | `reader` | one file for asynchronous readers |
//! | [`verify`] | which sequence numbers the files hold |
//!
//! **Guarantees.** A file is synced, and its directory, before a commit names it. A commit holds
//! the files of a roll and the shards' new sequence numbers or nothing of both. A commit that is
//! repeated adds nothing.
//!
//! **Not guaranteed.** Protection from a second process with the same node id: the lock on the
//! data directory sees to that. Isolation from other writers' deletions.
//!
//! **Failure.** A crash before the commit leaves files that no commit names; the next start removes
//! those that carry its node id ([`Table::remove_orphans`]).

pub mod check;
pub mod copy;
pub mod delta;
pub mod erase;
pub mod footer;
pub mod location;
pub mod merge;
pub mod plan;
pub(crate) mod reader;
pub mod retention;
pub mod roll;
pub mod seal;
pub mod vacuum;
pub mod verify;

mod error;
mod group;
mod output;
mod store;

#[cfg(test)]
mod testing;

pub use check::{Checked, DamagedFile};
pub use delta::{
    Bounds, CommitOutcome, DataFile, RETENTION_MAX, ReplaceOutcome, ShardSequence, Table, Upkeep,
};
pub use error::{Cause, LakeError, Result};
pub use footer::{NewFile, Stats};
pub use location::Location;
pub use plan::Job;
pub use roll::write_rows;
pub use vacuum::{Vacuumed, vacuum};
pub use verify::{SequenceSet, ShardCheck, TableCheck, check_table};

//! ringlake's engine: from a ring of bytes to SQL over a lake of Parquet files.
//!
//! The modules stand in the order of an event's way:
//!
//! ```text
//!  Ingest ─▶ ring ─▶ shard ─▶ log ─▶ hot ─▶ lake ─▶ query, listing
//! ```
//!
//! **Architecture invariants**
//! - Nothing in here knows HTTP; `server/` holds no queue and no file format.
//! - The log is the truth, a hot table is a cache of it, the Delta log says what has left it.
//! - One thread owns each thing that is written: a ring's consumer and a log belong to their
//!   shard, the hot tables to the flusher, the Delta table to the roller. The compactor writes
//!   files that are nobody's until the roller commits them.
//! - Whatever changes a file that is to last goes through a [`disk::Disk`], so that tests can make
//!   it fail and take back what was not synced.

#![deny(unsafe_code)]

pub mod config;
pub mod promoted;
pub mod schema;

pub mod ack;
pub mod export;
pub mod feed;
pub mod hot;
pub mod ingest;
pub mod lake;
pub mod listing;
pub mod query;
pub mod shard;
pub mod snapshot;

pub mod accounting;
pub mod backup;
pub mod directory;
pub mod engine;
pub mod erase;
pub mod metrics;
pub mod quarantine;
pub mod recovery;
pub mod restore;
pub mod status;
pub mod verify;
pub mod webhook;

mod bots;
mod checked_json;
mod clock;
mod compactor;
mod error;
mod markers;
mod problem;
mod readiness;
mod retention;
mod roller;
mod secret;
mod shutdown;
mod space;
mod visitor;
mod vital;

pub use backup::{BackupReport, backup};
pub use compactor::{CompactReport, VacuumReport};
pub use config::Config;
pub use engine::{Engine, RollReport};
pub use error::Error;
pub use ringlake_disk as disk;
pub use ringlake_log as log;

pub use ingest::{Ingest, IngestError};
pub use readiness::Readiness;
pub use shutdown::ShutdownReport;
pub use verify::{VerifyReport, verify};

/// The target of the spans that the engine opens around background work: `roll`, `compaction`, `erase`
/// and `export`. The field `error` says why one has failed. Nobody enters them: they stand in no log
/// line.
pub const WORK: &str = "work";

#[cfg(test)]
mod tests;

/// The result of an engine call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

//! The segment log: what makes an event durable before it is acknowledged.
//!
//! **Guarantees**
//! - When [`Log::append`] returns `Ok`, the batch survives `kill -9` and power loss: its bytes
//!   and the directory entry of its segment are synced.
//! - A frame is read back whole or not at all: a CRC32C covers its bytes, its segment's stamp and
//!   its sequence range, so that a stale or recycled frame never passes. The stamp is a random
//!   number that is drawn with the segment: what a client sends never passes either, though it lies
//!   in the file as it was sent and may look like a frame.
//! - After a failed write or sync a segment takes no more frames. The same batch, with the same
//!   numbers, is written once more into a new segment; if that fails too, its numbers are void and
//!   the next segment header says so.
//!
//! **Not guaranteed.** Nothing is compacted or rewritten; a segment goes whole, once every number in
//! it is in the lake.
//!
//! **Recycling.** A full segment that goes is renamed to `<segment>.spare`, at most four a shard, and
//! its blocks become a later segment: a sync into blocks that are already allocated and written
//! changes no file size, so that the file system has no journal of its own to commit (98 us instead
//! of 155 on ext4). Old frames stay behind the new ones; their stamp gives them away.
//!
//! **Page cache.** Frames go past it, in whole blocks, where the file system can
//! ([`ringlake_disk::Access::Direct`]).
//!
//! **Roles.** Each shard thread owns one [`Log`]. Recovery reads segments before any shard runs.
//!
//! **Layout.** `<data>/log/<shard>/<segment>.log`, numbers in decimal. All integers are
//! little-endian; every part starts at a multiple of 8 bytes.
//!
//! ```text
//! segment := header frame* end rest
//! header  := magic "ringlog\0" · version u32 · crc32c u32 (of the rest) · length u64 (of the rest)
//!            node [u8;16] · shard u64 · segment u64 · stamp u64 · first sequence i64
//!            void count u64 · (from i64, to i64)* · schema length u64 · schema (Arrow IPC message)
//! frame   := magic "RFRM" · crc32c u32 (of the rest) · body length u32 · message length u32
//!            rows u32 · shard u32 · stamp u64 · first sequence i64 · last sequence i64
//!            body: message (Arrow IPC RecordBatch message) · buffers (its body, LZ4 or plain)
//! end     := 48 zero bytes, written with every frame and overwritten by the next one
//! rest    := what a recycled segment held before; empty in a new one
//! ```
//!
//! A row's node, shard and sequence number are in the headers, not in its columns: they are constant
//! or dense. The log knows nothing else about the columns.
//!
//! **Limits.** A segment closes at `segment_bytes`; a frame is at most [`FRAME_BYTES_MAX`].

#![forbid(unsafe_code)]

mod copy;
mod error;
mod format;
mod quarantine;
mod reader;
mod recover;
mod writer;

pub use copy::copy_shard;
pub use error::Error;
pub use format::{FRAME_BYTES_MAX, FrameEncoder, SegmentHeader, batch_bytes};
pub use quarantine::{Quarantined, quarantine_reports, quarantined_ranges, read_aside, set_aside};
pub use reader::{Frame, Item, OpenError, SegmentReader};
pub use recover::{Recovered, SegmentFile, bytes_in, node_of, recover, scan, shard_directories};
pub use writer::{Identity, Log};

use std::ops::RangeInclusive;

/// A run of sequence numbers that will never exist, and why `verify` need not look for them.
pub type Void = RangeInclusive<i64>;

/// What [`scan`] calls with each frame.
pub type FrameVisitor<'a, E> = dyn FnMut(&Frame) -> Result<(), E> + 'a;

#[cfg(test)]
mod tests;

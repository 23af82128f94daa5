//! Who goes first when a core is short: answers, then what comes after them.
//!
//! A serving loop and its shard spend part of every batch waiting for the disk. The flusher and the
//! roller run in these gaps, and no longer take turns with them as equals: with one core for all of
//! it and `ack=disk` that is a tenth more requests a second.
//!
//! **Bounds.** They cannot starve: when the flusher's queue is full shards wait, rings fill and
//! requests wait for room, which leaves the core to them.

/// As `nice` counts, for the calling thread only: one 28th of the weight of the others.
const BEHIND: i32 = 15;

/// Puts the calling thread behind those that answer requests. Linux keeps a niceness for each
/// thread; elsewhere the process has one, and is left as it is.
pub(crate) fn step_behind() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, BEHIND) {
        tracing::debug!(%error, "a background thread runs like any other");
    }
}

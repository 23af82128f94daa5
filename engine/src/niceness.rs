//! Who goes first when a core is short: answers, then what comes after them and queries, then
//! compaction.
//!
//! A serving loop and its shard spend part of every batch waiting for the disk. The flusher and the
//! roller run in these gaps, and no longer take turns with them as equals: with one core for all of
//! it and `ack=disk` that is a tenth more requests a second.
//!
//! **Bounds.** They cannot starve: when the flusher's queue is full shards wait, rings fill and
//! requests wait for room, which leaves the core to them. Compaction can, as long as all cores are
//! busy: then small files stay for longer.

/// Behind those that answer requests, as `nice` counts: one 28th of their weight.
pub(crate) const BEHIND_ANSWERS: i32 = 15;
/// Behind the flusher and the roller too: less than half of their weight.
pub(crate) const BEHIND_ROLLS: i32 = 19;

/// Gives the calling thread the niceness `behind`. Linux keeps one for each thread; elsewhere the
/// process has one, and is left as it is.
pub(crate) fn step_behind(behind: i32) {
    #[cfg(not(target_os = "linux"))]
    let _ = behind;
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, behind) {
        tracing::debug!(%error, "a background thread runs like any other");
    }
}

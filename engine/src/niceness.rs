//! Who goes first when a core is short: answers, then what brings their events to the table, then
//! whatever can wait, queries as well.
//!
//! A serving loop and its shard spend part of every batch waiting for the disk. The flusher and the
//! roller run in these gaps, and yield to them when all want a core at once. They must not yield as
//! much as queries do: a query that never ends takes from them what they are short of, and with
//! the weight of one it slowed a saturated machine to half of its events, at these numbers to three
//! quarters.
//!
//! **Bounds.** Flusher and roller cannot starve: when the queue is full shards wait, rings fill and
//! requests wait for room, which leaves the core to them. What is behind the events can, as long as
//! all cores are busy: small files stay for longer, and queries run into their timeout.

/// Behind those that answer requests, as `nice` counts: half of their weight.
pub(crate) const BEHIND_ANSWERS: i32 = 3;
/// Behind the flusher and the roller too: one 35th of their weight.
pub(crate) const BEHIND_EVENTS: i32 = 19;

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

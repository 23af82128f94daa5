//! How an engine stops.
//!
//! **Order**
//! 1. The gate closes. A replay that still runs is broken off: it began with a sound log.
//! 2. Each shard drains its ring, syncs its log and answers every request that was in the ring. From
//!    here on nothing can be lost.
//! 3. The flusher ends where it is: the log holds what it held.
//! 4. A roll that runs may finish within half of the time that is left, then it is broken off. Its
//!    files are removed, now or by the next start.
//! 5. A merge of files is given up between two steps. What it has written is removed. An export is
//!    broken off; the next start begins it again.
//! 6. Queries end, and the directory is released.
//!
//! **Failure.** Only the second step has to be done in time. A thread that is late after it is named
//! in the report and keeps the directory locked until it ends, because it may still write; ending
//! the process before is as safe as a `kill -9`.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::accounting::{Accounting, Tally};
use crate::compactor::Order;
use crate::engine::Engine;
use crate::error::Error;
use crate::ingest::Bar;

/// What a shutdown left behind.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ShutdownReport {
    /// Everything accepted is in the synced log or the table. Events that were refused because the
    /// log took nothing had not been accepted.
    pub everything_durable: bool,
    /// Rows that only the log holds; the next start replays them.
    pub rows_to_replay: usize,
    /// A thread that had not ended in time. Nothing is lost with it, but it holds the data
    /// directory until it ends.
    pub late: Option<&'static str>,
}

impl Engine {
    /// Stops: no event is accepted any more, the rings are drained, the logs synced, the threads
    /// ended, in this order. Drop the [`Ingest`](crate::Ingest) handles, or at
    /// least stop using them, before.
    ///
    /// # Errors
    /// [`Error::Deadline`] when a shard did not drain its ring in time.
    pub fn shutdown(&self, limit: Duration) -> Result<ShutdownReport, Error> {
        let shared = &self.shared;
        let until = Instant::now() + limit;
        self.tell_to_stop();
        // A replay that is late has started no shard: nothing has been accepted since the start.
        let recovery = self.join("recovery", until);
        if !self.join("shard", until) {
            return Err(Error::Deadline { what: "draining the rings", limit });
        }
        let check = self.join("check", until);
        let export = self.join("export", until);
        let flusher = self.join("flusher", until);
        let roller = self.end_roller(until);
        let compactor = self.join("compactor", until);
        shared.pool.close();
        let ends = [
            ("recovery", recovery),
            ("check", check),
            ("export", export),
            ("flusher", flusher),
            ("roller", roller),
            ("compactor", compactor),
        ];
        let late = ends.into_iter().find_map(|(name, ended)| (!ended).then_some(name));
        if late.is_none() {
            shared.directory.release();
        }
        // Relaxed: statistics; or the thread that writes them has ended.
        let hot = shared.flusher.hot_rows.load(Ordering::Relaxed);
        Ok(ShutdownReport {
            everything_durable: self.kept_everything(),
            rows_to_replay: hot + shared.queue.waiting().rows,
            late,
        })
    }

    /// What came in has been stored or refused, and nobody was told "accepted" for what was lost.
    fn kept_everything(&self) -> bool {
        let tallies = || self.shared.shards.iter().map(|shard| &shard.tally);
        // A shard that panicked leaves events without an end.
        Accounting::of(tallies()).in_flight == 0 && tallies().all(Tally::kept_promises)
    }

    fn tell_to_stop(&self) {
        let shared = &self.shared;
        // Relaxed, all but one: each only says "no more"; nothing is handed over with it.
        shared.closing.store(true, Ordering::Relaxed);
        shared.gate.bar(Bar::Closed);
        shared.progress.stop.store(true, Ordering::Relaxed);
        shared.roller.stop();
        shared.compactor.stop();
        // It may have ended already.
        let _ = shared.orders.send(Order::Stop);
        shared.exports.stop();
        for shard in shared.shards.iter() {
            // Release: pairs with the Acquire load in `Shard::run`.
            shard.stop.store(true, Ordering::Release);
            shard.waker.wake();
        }
        // What the shards still send is in the log already; nobody need take it.
        shared.queue.lift_bounds();
        shared.flusher.stop.store(true, Ordering::Relaxed);
        shared.queue.wake();
    }

    fn end_roller(&self, until: Instant) -> bool {
        let half = until.saturating_duration_since(Instant::now()) / 2;
        if self.join("roller", Instant::now() + half) {
            return true;
        }
        self.shared.roller.give_up();
        self.join("roller", until)
    }

    /// Waits for every thread whose name starts with `kind`; false when one has not ended in time.
    fn join(&self, kind: &str, until: Instant) -> bool {
        let threads = self.shared.threads.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // Nothing is ever sent: the channel disconnects when the thread ends.
        threads
            .iter()
            .filter(|(name, _)| name.starts_with(kind))
            .all(|(_, ended)| ended.recv_deadline(until).is_err_and(|error| !error.is_timeout()))
    }
}

//! Asking for an erase.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::{EraseJob, Erasure};
use crate::compactor::Order;
use crate::engine::Engine;
use crate::error::Error;
use crate::hot::Goal;
use crate::recovery::ShardLog;

impl Engine {
    /// Asks for every event of somebody to be erased that was accepted before the call, and waits
    /// until the request is durable. [`Engine::erasure`] says how far it is.
    ///
    /// # Errors
    /// [`Error::Crowded`] when too many wait; [`Error::Closed`] while starting or shutting down; as
    /// [`Engine::flush`]; and what keeps the request from being made durable.
    pub fn erase(&self, erasure: Erasure) -> Result<EraseJob, Error> {
        // What is in a ring has no number yet.
        self.reach(Goal::Visible)?;
        let mut through = self.shared.found.get().cloned().unwrap_or_default();
        for shard in self.shared.shards.iter() {
            // Relaxed: the flush above has passed everything that the call covers.
            through.insert(shard.shard, shard.last_sequence.load(Ordering::Relaxed));
        }
        let job = self.shared.erasures.add(erasure, through)?;
        // When the compactor has ended the next start does it.
        let _ = self.shared.orders.send(Order::Erase);
        Ok(job)
    }

    /// All erasures that were ever asked for, newest first.
    #[must_use]
    pub fn erasures(&self) -> Vec<EraseJob> {
        self.shared.erasures.all()
    }

    /// The erasure with this id.
    #[must_use]
    pub fn erasure(&self, id: &str) -> Option<EraseJob> {
        self.shared.erasures.one(id)
    }

    /// Remembers how far the numbers of all shards go, also of those that are not configured any
    /// more.
    pub(crate) fn note_found(
        &self,
        logs: &BTreeMap<u32, ShardLog>,
        committed: &BTreeMap<u32, i64>,
    ) {
        let mut found = committed.clone();
        for (&shard, log) in logs {
            found.insert(shard, log.next_sequence - 1);
        }
        self.shared.found.get_or_init(|| found);
    }
}

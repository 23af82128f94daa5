//! A log that took nothing, and how it comes back.
//!
//! After a batch that failed twice the gate is closed, and the shard starts a segment by itself:
//! after [`PAUSE_MIN`] at first, later every [`PAUSE_MAX`]. When that works events are accepted
//! again, and the void ranges are durable. So a full disk costs the batches that were in the ring
//! when it filled, no request has to try it out, and nobody is busy with it.

use std::time::{Duration, Instant};

use super::{IDLE_SLEEP, Shard};
use crate::error::chain;

/// The pause before a log that failed is tried again; it doubles until a batch is durable.
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// The longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(8);

/// When a log that failed is tried again.
#[derive(Debug)]
pub(crate) struct Mending {
    /// Absent while the log works.
    at: Option<Instant>,
    /// The pause after the next failure.
    pause: Duration,
}

impl Default for Mending {
    fn default() -> Self {
        Self { at: None, pause: PAUSE_MIN }
    }
}

impl Mending {
    /// How long an idle shard may sleep.
    pub(super) fn sleep(&self) -> Duration {
        let until = self.at.map(|at| at.saturating_duration_since(Instant::now()));
        until.map_or(IDLE_SLEEP, |until| until.min(IDLE_SLEEP))
    }
}

impl Shard {
    /// The log took nothing: events are refused until it does.
    pub(super) fn log_failed(&mut self, error: &crate::log::Error) {
        let problem = chain(error);
        if self.state.log_problem.set(problem.clone()) {
            let shard = self.state.shard;
            tracing::error!(shard, %problem, "the log cannot be written; events are refused until it can");
        }
        let mending = &mut self.mending;
        mending.at = Some(Instant::now() + mending.pause);
        mending.pause = (mending.pause * 2).min(PAUSE_MAX);
        self.space.look();
    }

    /// A batch is durable.
    pub(super) fn log_took_a_batch(&mut self) {
        self.mending.pause = PAUSE_MIN;
        self.log_works();
    }

    /// Tries a log that failed again, when its time has come.
    pub(super) fn mend_log(&mut self) {
        if self.mending.at.is_none_or(|at| Instant::now() < at) {
            return;
        }
        match self.log.start_segment(self.next_sequence) {
            Ok(()) => self.log_works(),
            Err(error) => self.log_failed(&error),
        }
        self.publish_log_size();
    }

    fn log_works(&mut self) {
        if self.mending.at.take().is_none() {
            return;
        }
        if self.state.log_problem.clear() {
            tracing::info!(shard = self.state.shard, "the log can be written again");
        }
        self.space.look();
    }
}

#[cfg(test)]
mod tests;

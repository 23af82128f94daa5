//! Whether events are accepted and can be made durable, and if not, why.

use std::sync::atomic::{Ordering, fence};

use crate::engine::Engine;
use crate::ingest::{Bar, IngestError};

/// Whether events are accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// They are, and made durable.
    Ready,
    /// They are not, or cannot be made durable now.
    NotReady {
        /// Why, in one sentence without a full stop.
        reason: String,
    },
}

impl Engine {
    /// Whether events can be accepted durably now, and if not, why. It may say no while events are
    /// still accepted: when rolls fail, the log holds them for a while.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        // Before the reasons: whoever closes the gate gives its reason first, so that what is looked
        // at here in the other order says why.
        let accepts = self.accepts();
        // Pairs with the release in `Gate::bar`.
        fence(Ordering::Acquire);
        match self.not_started(accepts).or_else(|| self.not_working(accepts)) {
            Some(reason) => Readiness::NotReady { reason },
            None => Readiness::Ready,
        }
    }

    /// Whether events are accepted; one relaxed load.
    ///
    /// # Errors
    /// Why not; [`Engine::readiness`] says it at length.
    pub fn accepts(&self) -> Result<(), IngestError> {
        self.shared.gate.check()
    }

    /// Recovery has ended and nobody has stopped the engine.
    pub(crate) fn is_running(&self) -> bool {
        !self.shared.gate.has(Bar::Closed)
    }

    fn not_started(&self, accepts: Result<(), IngestError>) -> Option<String> {
        let shared = &self.shared;
        // Relaxed: a look at statistics.
        if shared.closing.load(Ordering::Relaxed) {
            return Some("the server is shutting down".into());
        }
        let closed = accepts == Err(IngestError::NotReady);
        let starting = || closed.then(|| shared.progress.sentence());
        shared.broken.text().or_else(starting)
    }

    fn not_working(&self, accepts: Result<(), IngestError>) -> Option<String> {
        let shared = &self.shared;
        let log = || {
            let problem = shared.shards.iter().find_map(|shard| shard.log_problem.text())?;
            Some(format!("the log cannot be written: {problem}"))
        };
        let hot = || {
            let problem = shared.flusher.problem.text()?;
            Some(format!("the hot table takes no rows: {problem}"))
        };
        let roll = || {
            let problem = shared.roller.problem.text()?;
            Some(format!("the table takes no commit: {problem}"))
        };
        // A bar may stay up for a while after what put it up has ended.
        let gate = || accepts.err().map(|error| error.to_string());
        shared.space.lack().or_else(log).or_else(hot).or_else(roll).or_else(gate)
    }
}

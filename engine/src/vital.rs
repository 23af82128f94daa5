//! A thread without which the engine is of no use, and what happens when it panics.
//!
//! **Guarantees.** The gate closes, and readiness says why: events that nobody would make durable or
//! pass on are not accepted. Queries over what is visible go on.
//!
//! **Not guaranteed.** That it goes on without a restart: what the thread held may be half done. The
//! log has everything that was acknowledged, and the next start begins from there.

use std::sync::Arc;
use std::thread;

use crate::ingest::{Bar, Gate};
use crate::problem::Problem;

/// Held by such a thread for as long as it runs.
#[derive(Debug)]
pub(crate) struct Vital {
    pub gate: Arc<Gate>,
    /// Why the engine is of no use until the next start.
    pub broken: Arc<Problem>,
}

impl Drop for Vital {
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        let thread = thread::current();
        let problem =
            format!("the thread {} has panicked; restart it", thread.name().unwrap_or("?"));
        if self.broken.set(problem.clone()) {
            tracing::error!("{problem}; no events are accepted");
        }
        self.gate.bar(Bar::Closed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]

    use std::time::{Duration, Instant};

    use crate::query::QueryRequest;
    use crate::{Config, Engine, Error, IngestError, Readiness};

    /// Longer than anything here may take.
    const PATIENCE: Duration = Duration::from_secs(30);

    #[test]
    fn when_a_vital_thread_panics_nothing_is_accepted_and_queries_go_on() {
        let scratch = tempfile::tempdir().unwrap();
        let (engine, mut ingests) = Engine::open(Config::new(scratch.path())).unwrap();
        engine.wait_ready(PATIENCE).unwrap();
        engine.spawn_vital("flusher-2", || panic!("a mistake")).unwrap();
        let until = Instant::now() + PATIENCE;
        let reason = loop {
            assert!(Instant::now() < until, "the engine notices");
            if let Readiness::NotReady { reason } = engine.readiness() {
                break reason;
            }
            std::thread::yield_now();
        };
        assert!(reason.starts_with("the thread flusher-2 has panicked"), "{reason}");
        while engine.accepts().is_ok() {
            assert!(Instant::now() < until, "the gate closes");
        }
        assert_eq!(ingests[0].reserve(1).map(|_| ()).unwrap_err(), IngestError::NotReady);
        assert!(matches!(engine.flush(), Err(Error::Broken { .. })));
        let mut stream = engine.query(QueryRequest::new("SELECT 1")).unwrap();
        assert_eq!(stream.blocking_next().unwrap().unwrap().num_rows(), 1);

        ingests.clear();
        let report = engine.shutdown(PATIENCE).unwrap();
        assert!(report.everything_durable && report.late.is_none(), "{report:?}");
    }
}

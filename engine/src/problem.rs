//! Why something does not work, while it does not.
//!
//! **Guarantees.** The log gets at most one line a minute from each [`Problem`], however often it
//! comes and goes: a disk that stays full for an hour must not fill another one with its log.
//!
//! **Roles.** One thread sets and clears it; anyone reads it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Time between two log lines about the same thing.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// One thing that may fail, and why it does at the moment.
#[derive(Debug, Default)]
pub(crate) struct Problem(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Why, and since when something has been wrong.
    now: Option<(String, Instant)>,
    /// When the log last got a line about it.
    said: Option<Instant>,
}

impl Problem {
    /// Why it does not work, if it does not.
    pub(crate) fn text(&self) -> Option<String> {
        self.lock().now.as_ref().map(|(text, _)| text.clone())
    }

    /// Whether it does not work.
    pub(crate) fn is_there(&self) -> bool {
        self.lock().now.is_some()
    }

    /// Why it does not work, if it has not for `long`.
    pub(crate) fn lasting(&self, long: Duration) -> Option<String> {
        let state = self.lock();
        let (text, since) = state.now.as_ref()?;
        (since.elapsed() >= long).then(|| text.clone())
    }

    /// It does not work because of `text`. True when the log should get a line about it.
    #[must_use = "a problem that nobody hears of is hard to solve"]
    pub(crate) fn set(&self, text: String) -> bool {
        let mut state = self.lock();
        let since = state.now.take().map_or_else(Instant::now, |(_, since)| since);
        state.now = Some((text, since));
        let due = state.said.is_none_or(|said| said.elapsed() >= SAY_EVERY);
        if due {
            state.said = Some(Instant::now());
        }
        due
    }

    /// It works. True when it did not before.
    pub(crate) fn clear(&self) -> bool {
        self.lock().now.take().is_some()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_that_comes_and_goes_is_said_once_a_minute() {
        let problem = Problem::default();
        assert!(problem.set("full".into()));
        assert!(!problem.set("still full".into()));
        assert_eq!(problem.text().as_deref(), Some("still full"));
        assert_eq!(problem.lasting(Duration::ZERO).as_deref(), Some("still full"));
        assert_eq!(problem.lasting(Duration::from_secs(3_600)), None);
        assert!(problem.clear() && !problem.clear() && !problem.is_there());
        assert!(!problem.set("full again".into()));
    }
}

//! Log lines that repeat: the first few of a kind are written, the others counted.
//!
//! A kind is the place in the code that writes the line. What a stranger can make happen as often as
//! he likes, or a sick disk does, must neither fill a disk with log lines nor hide the other ones.
//!
//! **Guarantees.** Of the warnings and errors of one kind [`LINES_MAX`] are written in [`INTERVAL`];
//! [`Repeats::report`], called once in that time, says how many were left out, so that none goes
//! unnoticed. Other levels are left alone: nobody but the operator makes them frequent.
//!
//! **Memory.** An entry for each place in the code that has ever warned.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Filter};

/// Lines of one kind in an interval: enough to see which shards or files something happened to.
pub const LINES_MAX: u32 = 5;
/// Longer than a glance at the log, shorter than anybody waits for news.
pub const INTERVAL: Duration = Duration::from_secs(10);
/// What is quoted of a line that was left out.
const TEXT_MAX_CHARS: usize = 200;

/// What has been written and left out; all clones count together.
#[derive(Debug, Clone, Default)]
pub struct Repeats(Arc<Mutex<HashMap<Identifier, Kind>>>);

/// The lines of one place in the code.
#[derive(Debug)]
struct Kind {
    /// When the interval began.
    since: Instant,
    /// Lines written in it.
    written: u32,
    /// Lines left out and not reported yet.
    left_out: u64,
    /// What the first line that was left out said.
    text: String,
    metadata: &'static Metadata<'static>,
}

impl Repeats {
    /// Writes how many lines of each kind were left out since the last time.
    pub fn report(&self) {
        // Each line written here comes by the lock.
        for (left_out, like, metadata) in self.take_left_out() {
            let from = metadata.target();
            match *metadata.level() {
                Level::ERROR => tracing::error!(left_out, like, from, "lines were left out"),
                _ => tracing::warn!(left_out, like, from, "lines were left out"),
            }
        }
    }

    fn take_left_out(&self) -> Vec<(u64, String, &'static Metadata<'static>)> {
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kinds = kinds.values_mut().filter(|kind| kind.left_out > 0);
        kinds
            .map(|kind| {
                (std::mem::take(&mut kind.left_out), std::mem::take(&mut kind.text), kind.metadata)
            })
            .collect()
    }

    /// Whether `event`, which happens `now`, is written.
    fn admits(&self, event: &Event<'_>, now: Instant) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::WARN || metadata.target() == module_path!() {
            return true;
        }
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = kinds.entry(metadata.callsite()).or_insert_with(|| Kind {
            since: now,
            written: 0,
            left_out: 0,
            text: String::new(),
            metadata,
        });
        if now.saturating_duration_since(kind.since) >= INTERVAL {
            (kind.since, kind.written) = (now, 0);
        }
        if kind.written < LINES_MAX {
            kind.written += 1;
            return true;
        }
        if kind.left_out == 0 {
            event.record(&mut Message(&mut kind.text));
        }
        kind.left_out += 1;
        false
    }
}

impl<S> Filter<S> for Repeats {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn callsite_enabled(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::always()
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        self.admits(event, Instant::now())
    }
}

/// Takes the text of a line, without its other fields.
struct Message<'a>(&'a mut String);

impl Visit for Message<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0.extend(format!("{value:?}").chars().take(TEXT_MAX_CHARS));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use std::io::Write;

    use tracing_subscriber::EnvFilter;
    use tracing_subscriber::filter::FilterExt;
    use tracing_subscriber::layer::{Layer, SubscriberExt};

    use super::*;

    /// Where a test's lines go.
    #[derive(Debug, Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Written {
        fn lines(&self, with: &str) -> Vec<String> {
            let bytes = self.0.lock().unwrap().clone();
            let text = String::from_utf8(bytes).unwrap();
            text.lines().filter(|line| line.contains(with)).map(str::to_owned).collect()
        }
    }

    /// The clock of the test: lines happen at `start` and [`Clock::later`].
    #[derive(Debug, Clone)]
    struct Clock(Repeats, Arc<Mutex<Instant>>);

    impl Clock {
        fn later(&self, by: Duration) {
            *self.1.lock().unwrap() += by;
        }
    }

    impl<S> Filter<S> for Clock {
        fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
            true
        }

        fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
            self.0.admits(event, *self.1.lock().unwrap())
        }
    }

    fn with_log(test: impl FnOnce(&Repeats, &Clock, &Written)) {
        let (repeats, written) = (Repeats::default(), Written::default());
        let clock = Clock(repeats.clone(), Arc::new(Mutex::new(Instant::now())));
        let writer = written.clone();
        let lines = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .with_filter(EnvFilter::new("info").and(clock.clone()));
        let subscriber = tracing_subscriber::registry().with(lines);
        tracing::subscriber::with_default(subscriber, || test(&repeats, &clock, &written));
    }

    fn a_disk_fails(shard: u32) {
        tracing::warn!(shard, "the disk of the test is sick");
    }

    #[test]
    fn the_first_lines_of_a_kind_are_written_and_the_rest_is_counted() {
        with_log(|repeats, _, written| {
            (0..100).for_each(a_disk_fails);
            let lines = written.lines("is sick");
            assert_eq!(lines.len(), LINES_MAX as usize);
            assert!(lines[0].contains("shard=0") && lines[4].contains("shard=4"), "{lines:?}");
            repeats.report();
            let left_out = written.lines("left_out=95");
            assert_eq!(left_out.len(), 1);
            assert!(left_out[0].contains("like=\"the disk of the test is sick\""), "{left_out:?}");
            // Nothing is told twice.
            repeats.report();
            assert_eq!(written.lines("left_out").len(), 1);
        });
    }

    #[test]
    fn a_new_interval_has_lines_again_and_what_was_left_out_is_still_known() {
        with_log(|repeats, clock, written| {
            (0..7).for_each(a_disk_fails);
            clock.later(INTERVAL - Duration::from_millis(1));
            a_disk_fails(7);
            assert_eq!(written.lines("is sick").len(), 5);
            clock.later(Duration::from_millis(1));
            (8..20).for_each(a_disk_fails);
            assert_eq!(written.lines("is sick").len(), 10);
            repeats.report();
            assert_eq!(written.lines("left_out=10").len(), 1);
        });
    }

    #[test]
    fn one_kind_does_not_hide_another() {
        with_log(|_, _, written| {
            (0..50).for_each(a_disk_fails);
            tracing::error!("something else is wrong");
            for line in 0..50 {
                tracing::info!(line, "the operator wants to know");
            }
            assert_eq!(written.lines("something else").len(), 1);
            assert_eq!(written.lines("the operator").len(), 50);
        });
    }

    #[test]
    fn what_the_filter_leaves_out_counts_for_nothing() {
        with_log(|repeats, _, written| {
            for _ in 0..50 {
                tracing::debug!("not asked for");
            }
            repeats.report();
            assert!(written.lines("").is_empty());
        });
    }
}

//! How far a start is: counted by the recovery thread, read by `/readyz`, status and metrics, told
//! in the log about once a second.
//!
//! **Not guaranteed.** That the numbers of one look belong together.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::error::Error;

/// Time between two lines in the log.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// The counters of a start.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Bytes of log that have to be checked.
    pub bytes_to_check: AtomicU64,
    /// Bytes checked so far.
    pub bytes_checked: AtomicU64,
    /// Parquet files whose message ids are to be read, known once their footers have been.
    pub id_files_total: AtomicU64,
    /// Those that have been.
    pub id_files_done: AtomicU64,
    /// Bytes of log to read again for the replay, known once all are checked.
    pub bytes_total: AtomicU64,
    /// Bytes read so far.
    pub bytes_done: AtomicU64,
    /// Events replayed.
    pub events: AtomicU64,
    /// Stretches of damaged bytes set aside.
    pub quarantined: AtomicU64,
    /// Bytes cut off behind the last frame of a segment.
    pub torn_bytes: AtomicU64,
    /// Set to make the start end.
    pub stop: AtomicBool,
    checking: OnceLock<Instant>,
    reading_ids: OnceLock<Instant>,
    replaying: OnceLock<Instant>,
    /// How long checking and replaying took together.
    ended: OnceLock<Duration>,
    last_line: Mutex<Option<Instant>>,
}

/// Where a start is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It makes the logs sound.
    Checking,
    /// It reads message ids from the table.
    Ids,
    /// It brings back what the table does not hold.
    Replaying,
    /// It is over.
    Done,
}

/// One look at a start.
#[derive(Debug, Clone, Serialize)]
pub struct RecoveryStatus {
    /// Where it is.
    pub phase: Phase,
    /// Bytes of log that checking or replaying reads.
    pub bytes_total: u64,
    /// Bytes that it has read.
    pub bytes_done: u64,
    /// Parquet files whose message ids are to be read.
    pub id_files_total: u64,
    /// Those that have been.
    pub id_files_done: u64,
    /// Events replayed.
    pub events: u64,
    /// Time since it began, or that it took.
    pub seconds: f64,
    /// Events replayed a second.
    pub events_per_second: f64,
    /// What this phase will still take at its present pace; absent until that can be said.
    pub seconds_left: Option<f64>,
    /// Bytes behind the last frames, cut off: what a crash leaves, never acknowledged.
    pub torn_bytes: u64,
}

impl Progress {
    /// Whether the start may go on.
    ///
    /// # Errors
    /// [`Error::Closed`] when it is to end.
    pub(crate) fn check(&self) -> Result<(), Error> {
        // Relaxed: nothing is handed over with it.
        if self.stop.load(Ordering::Relaxed) { Err(Error::Closed) } else { Ok(()) }
    }

    /// Checking begins: so many bytes.
    pub(crate) fn begin_checking(&self, bytes: u64) {
        // Relaxed, in here and below: statistics.
        self.bytes_to_check.store(bytes, Ordering::Relaxed);
        let _ = self.checking.set(Instant::now());
    }

    /// The reading of message ids begins.
    pub(crate) fn begin_reading_ids(&self) {
        let _ = self.reading_ids.set(Instant::now());
    }

    /// Replaying begins.
    pub(crate) fn begin_replaying(&self) {
        let _ = self.replaying.set(Instant::now());
    }

    /// Nothing is left to do.
    pub(crate) fn end(&self) {
        let took = self.checking.get().map_or(Duration::ZERO, Instant::elapsed);
        let _ = self.ended.set(took);
        let status = self.status();
        if status.events > 0 || took >= LINE_EVERY {
            tracing::info!(
                events = status.events,
                bytes = status.bytes_total,
                seconds = rounded(status.seconds),
                events_per_second = status.events_per_second.round(),
                "log replayed"
            );
        }
    }

    /// Tells how far it is, unless it has been told within the last second.
    pub(crate) fn tell(&self) {
        let now = Instant::now();
        {
            let mut last = self.last_line.lock().unwrap_or_else(PoisonError::into_inner);
            // A start that takes less than a second says only its end.
            let since = last.or(self.checking.get().copied()).unwrap_or(now);
            if now.duration_since(since) < LINE_EVERY {
                return;
            }
            *last = Some(now);
        }
        let status = self.status();
        tracing::info!(
            events = status.events,
            events_per_second = status.events_per_second.round(),
            "{}",
            status.sentence()
        );
    }

    /// A look at it.
    pub(crate) fn status(&self) -> RecoveryStatus {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let phase = match (self.ended.get(), self.replaying.get(), self.reading_ids.get()) {
            (Some(_), _, _) => Phase::Done,
            (None, Some(_), _) => Phase::Replaying,
            (None, None, Some(_)) => Phase::Ids,
            (None, None, None) => Phase::Checking,
        };
        let (bytes_done, bytes_total, began) = match phase {
            Phase::Replaying | Phase::Done => {
                (read(&self.bytes_done), read(&self.bytes_total), self.replaying.get())
            }
            Phase::Checking | Phase::Ids => {
                (read(&self.bytes_checked), read(&self.bytes_to_check), self.checking.get())
            }
        };
        let (ids_done, ids_total) = (read(&self.id_files_done), read(&self.id_files_total));
        let since = |began: Option<&Instant>| began.map_or(Duration::ZERO, Instant::elapsed);
        let seconds = self.ended.get().copied().unwrap_or_else(|| since(self.checking.get()));
        let pace = if phase == Phase::Done { seconds } else { since(began) }.as_secs_f64();
        let events = read(&self.events);
        // What is left of the phase takes as long as what is done of it took.
        let (done, total, pace) = match phase {
            Phase::Ids => (ids_done, ids_total, since(self.reading_ids.get()).as_secs_f64()),
            _ => (bytes_done, bytes_total, pace),
        };
        let left = total.saturating_sub(done);
        let left = (done > 0).then(|| pace * float(left) / float(done));
        RecoveryStatus {
            phase,
            bytes_total,
            bytes_done,
            id_files_total: ids_total,
            id_files_done: ids_done,
            events,
            seconds: seconds.as_secs_f64(),
            events_per_second: if pace > 0.0 { float(events) / pace } else { 0.0 },
            seconds_left: left.filter(|_| phase != Phase::Done),
            torn_bytes: read(&self.torn_bytes),
        }
    }

    /// Why events are not accepted yet.
    pub(crate) fn sentence(&self) -> String {
        self.status().sentence()
    }
}

impl RecoveryStatus {
    fn sentence(&self) -> String {
        let (what, done, total, unit) = match self.phase {
            Phase::Checking => ("checking the log", self.bytes_done, self.bytes_total, "bytes"),
            Phase::Ids => ("reading message ids", self.id_files_done, self.id_files_total, "files"),
            Phase::Replaying | Phase::Done => {
                ("replaying the log", self.bytes_done, self.bytes_total, "bytes")
            }
        };
        let left = self.seconds_left.map(|left| format!(", about {left:.0} s left"));
        format!("{what}: {done} of {total} {unit}{}", left.unwrap_or_default())
    }
}

#[expect(clippy::cast_precision_loss, reason = "for rates and estimates")]
fn float(count: u64) -> f64 {
    count as f64
}

/// Seconds as people read them.
fn rounded(seconds: f64) -> f64 {
    (seconds * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]

    use super::*;

    #[test]
    fn a_start_goes_from_checking_to_replaying_to_its_end() {
        let progress = Progress::default();
        assert_eq!(progress.status().phase, Phase::Checking);
        progress.begin_checking(1_000);
        progress.bytes_checked.store(250, Ordering::Relaxed);
        let status = progress.status();
        assert_eq!((status.bytes_done, status.bytes_total), (250, 1_000));
        assert!(status.seconds_left.unwrap() >= 0.0);
        assert!(progress.sentence().starts_with("checking the log: 250 of 1000 bytes, about "));

        progress.begin_reading_ids();
        progress.id_files_total.store(4, Ordering::Relaxed);
        progress.id_files_done.store(1, Ordering::Relaxed);
        assert_eq!(progress.status().phase, Phase::Ids);
        assert!(progress.sentence().starts_with("reading message ids: 1 of 4 files, about "));

        progress.begin_replaying();
        progress.bytes_total.store(800, Ordering::Relaxed);
        let status = progress.status();
        assert_eq!((status.phase, status.bytes_done), (Phase::Replaying, 0));
        assert!(status.seconds_left.is_none(), "nothing has been read yet");
        assert_eq!(progress.sentence(), "replaying the log: 0 of 800 bytes");

        progress.bytes_done.store(800, Ordering::Relaxed);
        progress.events.store(7, Ordering::Relaxed);
        progress.end();
        let (first, second) = (progress.status(), progress.status());
        assert_eq!((first.phase, first.events), (Phase::Done, 7));
        assert!(first.seconds_left.is_none());
        assert!((first.seconds - second.seconds).abs() < f64::EPSILON, "the time stands still");
    }
}

//! Duration histograms that cost a few nanoseconds to feed and nothing to keep.
//!
//! **Not guaranteed.** A scrape while others observe may see a bucket and not yet the sum.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets in seconds: a look at a key takes a tenth of a microsecond, a sync 0.1 to
/// 10 ms, a roll up to seconds.
pub const BOUNDS_SECONDS: [f64; 19] = [
    0.000_000_25,
    0.000_001,
    0.000_01,
    0.000_1,
    0.000_25,
    0.000_5,
    0.001,
    0.002_5,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
];

/// How often durations fell into each bucket.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS_SECONDS.len() + 1],
    sum_nanos: AtomicU64,
}

impl Histogram {
    /// Counts one duration.
    pub fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = BOUNDS_SECONDS.partition_point(|bound| *bound < seconds);
        // Relaxed: statistics; nothing is handed over with them.
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        // Relaxed: as above.
        self.sum_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// Adds what `self` holds to `total`.
    pub fn add_to(&self, total: &mut Totals) {
        for (total, bucket) in total.buckets.iter_mut().zip(&self.buckets) {
            // Relaxed: statistics.
            *total += bucket.load(Ordering::Relaxed);
        }
        // Relaxed: statistics.
        total.sum_seconds +=
            Duration::from_nanos(self.sum_nanos.load(Ordering::Relaxed)).as_secs_f64();
    }
}

/// Histograms added up.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Totals {
    /// Observations per bucket (not cumulative), the last one without an upper bound.
    pub buckets: [u64; BOUNDS_SECONDS.len() + 1],
    /// All durations together.
    pub sum_seconds: f64,
}

impl Totals {
    /// Number of observations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// How long the engine's own operations take.
#[derive(Debug, Default)]
pub struct Operations {
    /// Writing and syncing one log batch.
    pub log: Histogram,
    /// One flush into a hot table.
    pub flush: Histogram,
    /// One roll: sorted Parquet, syncs and the Delta commit.
    pub roll: Histogram,
    /// One compaction: the merge with its pauses, syncs and the Delta commit.
    pub compact: Histogram,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_in_the_first_bucket_that_holds_it() {
        let histogram = Histogram::default();
        histogram.observe(Duration::from_micros(100));
        histogram.observe(Duration::from_micros(101));
        histogram.observe(Duration::from_secs(60));
        let mut totals = Totals::default();
        histogram.add_to(&mut totals);
        histogram.observe(Duration::from_nanos(200));
        assert_eq!((totals.buckets[3], totals.buckets[4], totals.buckets[19]), (1, 1, 1));
        assert_eq!(totals.count(), 3);
        assert!((totals.sum_seconds - 60.000_201).abs() < 1e-6);
        histogram.add_to(&mut totals);
        assert_eq!((totals.buckets[0], totals.buckets[3], totals.count()), (1, 2, 7));
    }
}

//! Duration histograms that cost a few nanoseconds to feed and nothing to keep.
//!
//! **Not guaranteed.** A scrape while others observe may see a bucket and not yet the sum.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets in nanoseconds: a look at a key takes a tenth of a microsecond, a sync
/// 0.1 to 10 ms, a roll up to seconds.
pub const BOUNDS_NANOS: [u64; 19] = [
    250,
    1_000,
    10_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// How often durations fell into each bucket.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS_NANOS.len() + 1],
    sum_nanos: AtomicU64,
}

impl Histogram {
    /// Counts one duration.
    pub fn observe(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        // Most are short: theirs is among the first few.
        let bucket = BOUNDS_NANOS.iter().take_while(|bound| **bound < nanos).count();
        // Relaxed: statistics; nothing is handed over with them.
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
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
    pub buckets: [u64; BOUNDS_NANOS.len() + 1],
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
    /// Bringing to DuckDB what somebody has asked for.
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

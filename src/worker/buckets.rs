//! Durations counted in buckets of fixed bounds, which one thread fills while others read. Never
//! allocates, never waits.

use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds, in nanoseconds: three a decade from 10 µs, below which no frame comes back, to 10 s,
/// beyond which TCP has given up or an operator has looked.
pub const BOUNDS_NS: [u64; 19] = [
    10_000,
    25_000,
    50_000,
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

/// The buckets; the last one is for all that is longer.
#[derive(Debug, Default)]
pub struct Buckets {
    counts: [AtomicU64; BOUNDS_NS.len() + 1],
    sum_ns: AtomicU64,
}

impl Buckets {
    /// Counts one duration.
    pub fn record(&self, nanos: u64) {
        let at = BOUNDS_NS.partition_point(|bound| *bound < nanos);
        if let Some(count) = self.counts.get(at) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_ns.fetch_add(nanos, Ordering::Relaxed);
    }

    /// How many are in each bucket, and the sum of all in nanoseconds, as of now.
    #[must_use]
    pub fn read(&self) -> ([u64; BOUNDS_NS.len() + 1], u64) {
        let counts = self
            .counts
            .each_ref()
            .map(|count| count.load(Ordering::Relaxed));
        (counts, self.sum_ns.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::{BOUNDS_NS, Buckets};

    #[test]
    fn a_duration_is_in_the_first_bucket_whose_bound_it_does_not_pass() {
        let buckets = Buckets::default();
        for nanos in [0, 10_000, 10_001, 10_000_000_000, 10_000_000_001] {
            buckets.record(nanos);
        }
        let (counts, sum) = buckets.read();
        assert_eq!((counts[0], counts[1]), (2, 1));
        assert_eq!(
            (counts[BOUNDS_NS.len() - 1], counts[BOUNDS_NS.len()]),
            (1, 1)
        );
        assert_eq!(sum, 20_000_020_002);
        assert!(BOUNDS_NS.is_sorted());
    }
}

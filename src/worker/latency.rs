//! How long a frame is away from the host: from the instant at which `steer` took it to the return
//! of the system call that gave it back. One sample a turn, the oldest frame of the batch, so that
//! the clock is read once more a turn and not once a frame. Fixed in size; never allocates after
//! its making.

use hdrhistogram::Histogram;

/// Longest latency that the quantiles tell apart, in nanoseconds: one second, when TCP has long
/// retransmitted. The longest of all is kept beside them, as it was.
const MAX_NS: u64 = 1_000_000_000;

/// Two significant digits: a latency is known to 1 %, and the histogram takes some 20 KiB.
const DIGITS: u8 = 2;

/// What the samples come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LatencySummary {
    /// Turns sampled.
    pub samples: u64,
    /// Median, in nanoseconds; one second stands for all that is longer.
    pub p50_ns: u64,
    /// 99th percentile, in nanoseconds; one second stands for all that is longer.
    pub p99_ns: u64,
    /// The longest, in nanoseconds, whatever its length.
    pub max_ns: u64,
}

/// The samples of one worker.
#[derive(Debug)]
pub(super) struct Latency {
    /// `None` only if the bounds above were not valid; then nothing is measured.
    histogram: Option<Histogram<u64>>,
    longest_ns: u64,
}

impl Latency {
    pub(super) fn new() -> Self {
        Self {
            histogram: Histogram::new_with_bounds(1, MAX_NS, DIGITS).ok(),
            longest_ns: 0,
        }
    }

    /// Takes one sample.
    pub(super) fn record(&mut self, nanos: u64) {
        self.longest_ns = self.longest_ns.max(nanos);
        if let Some(histogram) = &mut self.histogram {
            histogram.saturating_record(nanos.max(1));
        }
    }

    pub(super) fn summary(&self) -> LatencySummary {
        self.histogram
            .as_ref()
            .map(|histogram| LatencySummary {
                samples: histogram.len(),
                // A bucket's upper end may lie beyond the longest.
                p50_ns: histogram
                    .value_at_quantile(0.5)
                    .min(MAX_NS)
                    .min(self.longest_ns),
                p99_ns: histogram
                    .value_at_quantile(0.99)
                    .min(MAX_NS)
                    .min(self.longest_ns),
                max_ns: self.longest_ns,
            })
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::{DIGITS, Latency, MAX_NS};
    use hdrhistogram::Histogram;

    #[test]
    fn quantiles_are_known_to_a_percent_and_the_longest_of_all_exactly() {
        assert!(Histogram::<u64>::new_with_bounds(1, MAX_NS, DIGITS).is_ok());
        let mut latency = Latency::new();
        for micros in 1..=100 {
            latency.record(micros * 1000);
        }
        let summary = latency.summary();
        assert_eq!(summary.samples, 100);
        assert!((49_500..=50_500).contains(&summary.p50_ns), "{summary:?}");
        assert!((98_000..=100_000).contains(&summary.p99_ns), "{summary:?}");
        latency.record(7_123_456_789);
        assert_eq!(latency.summary().max_ns, 7_123_456_789);
        for _ in 0..200 {
            latency.record(u64::MAX);
        }
        assert_eq!(latency.summary().p99_ns, MAX_NS);
    }
}

//! Numbers about the sensor itself, in the forms of Prometheus and OpenMetrics, served over HTTP, and as
//! a table for a terminal. Where the numbers come from is not known here. No label ever holds an address
//! of the watched traffic: labels come from fixed words, interface names and queue numbers.

mod console;
mod exposition;
mod request;
mod serve;

pub use console::table;
pub use exposition::{Form, render};
pub use serve::{Board, Server};

/// What a family's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only goes up; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations in buckets, in seconds.
    Histogram,
}

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Of a counter or a gauge.
    Number(u64),
    /// Of a histogram.
    Durations {
        /// Upper bounds in nanoseconds and how many durations are not longer.
        buckets: Vec<(u64, u64)>,
        /// All durations.
        count: u64,
        /// Their sum in nanoseconds.
        sum_ns: u64,
    },
}

/// One value with what tells it from its like.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Names and values.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: Value,
}

/// Values of one meaning.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    /// Without `_total`.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// What the values are.
    pub kind: Kind,
    /// The values.
    pub samples: Vec<Sample>,
}

impl Family {
    /// A family without values yet.
    #[must_use]
    pub const fn new(kind: Kind, name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            help,
            kind,
            samples: Vec::new(),
        }
    }

    /// Adds a number.
    pub fn number(&mut self, labels: &[(&'static str, &str)], number: u64) {
        self.push(labels, Value::Number(number));
    }

    /// Adds durations: how many are in each bucket, the last of which has no bound.
    pub fn durations(
        &mut self,
        labels: &[(&'static str, &str)],
        bounds_ns: &[u64],
        counts: &[u64],
        sum_ns: u64,
    ) {
        let mut below = 0;
        let buckets = bounds_ns
            .iter()
            .zip(counts)
            .map(|(bound, count)| {
                below += count;
                (*bound, below)
            })
            .collect();
        let count = counts.iter().sum();
        self.push(
            labels,
            Value::Durations {
                buckets,
                count,
                sum_ns,
            },
        );
    }

    fn push(&mut self, labels: &[(&'static str, &str)], value: Value) {
        let labels = labels
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect();
        self.samples.push(Sample { labels, value });
    }
}

#[cfg(test)]
pub(crate) mod sample {
    use super::{Family, Kind};

    /// One family of each kind.
    pub(crate) fn families() -> Vec<Family> {
        let mut frames = Family::new(
            Kind::Counter,
            "rstscope_frames",
            "Frames by what became of them.",
        );
        frames.number(&[("interface", "up\"0"), ("reason", "passed")], 7);
        let mut flows = Family::new(Kind::Gauge, "rstscope_flows", "Flows that are remembered.");
        flows.number(&[], 3);
        let mut away = Family::new(Kind::Histogram, "rstscope_handback_seconds", "Time away.");
        away.durations(
            &[("queue", "0")],
            &[10_000, 1_000_000_000],
            &[1, 2, 1],
            2_500_000_000,
        );
        vec![frames, flows, away]
    }
}

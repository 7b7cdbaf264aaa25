//! Families of numbers as text: OpenMetrics 1.0, and Prometheus' older format (0.0.4), which is still
//! what most ask for. They differ in the names of counters' heads and in the last line. Written by hand: a
//! library would give one of both, and bring a registry that these numbers do not need.

use std::fmt::Write;

use super::{Family, Kind, Sample, Value};

/// Which text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `text/plain; version=0.0.4`.
    Prometheus,
    /// `application/openmetrics-text; version=1.0.0`.
    OpenMetrics,
}

impl Form {
    /// Its media type.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The text; families without a value are left out.
#[must_use]
pub fn render(families: &[Family], form: Form) -> String {
    let mut text = String::new();
    for family in families.iter().filter(|family| !family.samples.is_empty()) {
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let total = if family.kind == Kind::Counter {
            "_total"
        } else {
            ""
        };
        // In OpenMetrics the family's name has no suffix; in the older format the head names the series.
        let head = match form {
            Form::Prometheus => total,
            Form::OpenMetrics => "",
        };
        let name = family.name;
        // Writing to a string does not fail.
        let _ = writeln!(text, "# HELP {name}{head} {}", family.help);
        let _ = writeln!(text, "# TYPE {name}{head} {kind}");
        for sample in &family.samples {
            write_sample(&mut text, name, total, sample);
        }
    }
    if form == Form::OpenMetrics {
        text.push_str("# EOF\n");
    }
    text
}

fn write_sample(text: &mut String, name: &str, total: &str, sample: &Sample) {
    let labels = |more: Option<(&str, &str)>| labeled(sample, more);
    let _ = match &sample.value {
        Value::Number(number) => writeln!(text, "{name}{total}{} {number}", labels(None)),
        Value::Durations {
            buckets,
            count,
            sum_ns,
        } => {
            for (bound_ns, below) in buckets {
                let bound = seconds(*bound_ns);
                let labels = labels(Some(("le", &bound)));
                let _ = writeln!(text, "{name}_bucket{labels} {below}");
            }
            let last = labels(Some(("le", "+Inf")));
            let plain = labels(None);
            let _ = writeln!(text, "{name}_bucket{last} {count}");
            let _ = writeln!(text, "{name}_sum{plain} {}", seconds(*sum_ns));
            writeln!(text, "{name}_count{plain} {count}")
        }
    };
}

/// Seconds, exactly, with a point, as OpenMetrics wants bounds to be.
fn seconds(nanos: u64) -> String {
    let text = format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000);
    let short = text.trim_end_matches('0');
    if short.ends_with('.') {
        format!("{short}0")
    } else {
        short.to_owned()
    }
}

fn labeled(sample: &Sample, more: Option<(&str, &str)>) -> String {
    let own = sample
        .labels
        .iter()
        .map(|(name, value)| (*name, value.as_str()));
    let all: Vec<String> = own
        .chain(more)
        .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
        .collect();
    if all.is_empty() {
        String::new()
    } else {
        format!("{{{}}}", all.join(","))
    }
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::{Form, render, seconds};
    use crate::metrics::sample::families;

    #[test]
    fn both_forms_name_counters_as_their_readers_expect() {
        let old = render(&families(), Form::Prometheus);
        assert!(
            old.contains("# TYPE rstscope_frames_total counter\n"),
            "{old}"
        );
        assert!(!old.contains("EOF"));
        let new = render(&families(), Form::OpenMetrics);
        assert!(new.contains("# TYPE rstscope_frames counter\n"), "{new}");
        assert!(new.ends_with("# EOF\n"));
        for text in [old, new] {
            let line = "rstscope_frames_total{interface=\"up\\\"0\",reason=\"passed\"} 7\n";
            assert!(text.contains(line), "{text}");
            assert!(text.contains("\nrstscope_flows 3\n"), "{text}");
        }
    }

    #[test]
    fn buckets_hold_all_below_their_bound() {
        let text = render(&families(), Form::Prometheus);
        for line in [
            "rstscope_handback_seconds_bucket{queue=\"0\",le=\"0.00001\"} 1",
            "rstscope_handback_seconds_bucket{queue=\"0\",le=\"1.0\"} 3",
            "rstscope_handback_seconds_bucket{queue=\"0\",le=\"+Inf\"} 4",
            "rstscope_handback_seconds_sum{queue=\"0\"} 2.5",
            "rstscope_handback_seconds_count{queue=\"0\"} 4",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert_eq!(seconds(0), "0.0");
        assert_eq!(seconds(1), "0.000000001");
    }
}

//! Families of numbers as a table for a person. What is zero is left out, and named at the end: most of it is what
//! must stay zero.

use std::fmt::Write;

use super::{Family, Sample, Value};
use crate::amount::{counted, span};

/// Columns of a list behind its indent, a comma and the end left room for.
const LIST_COLUMNS: usize = 74;

/// The table.
#[must_use]
pub fn table(families: &[Family]) -> String {
    let mut text = String::new();
    let mut zero = Vec::new();
    for family in families {
        let rows: Vec<(String, String)> = family.samples.iter().filter_map(row).collect();
        if family.samples.is_empty() {
            continue;
        }
        if rows.is_empty() {
            let name = family.name;
            zero.push(name.strip_prefix("rstscope_").unwrap_or(name));
            continue;
        }
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}", family.help);
        let width = rows
            .iter()
            .map(|(name, _)| name.len())
            .max()
            .unwrap_or_default();
        for (name, value) in rows {
            let _ = writeln!(text, "    {name:width$}  {value}");
        }
    }
    if !zero.is_empty() {
        let _ = writeln!(
            text,
            "None of these, by the names of their metrics (docs/metrics.md)."
        );
        listed(&mut text, &zero);
    }
    text
}

/// Names in lines that a terminal of 80 columns shows whole.
fn listed(text: &mut String, names: &[&str]) {
    let mut line = String::new();
    for name in names {
        if !line.is_empty() && line.len() + name.len() > LIST_COLUMNS {
            let _ = writeln!(text, "    {}", line.trim_end());
            line.clear();
        }
        let _ = write!(line, "{name}, ");
    }
    let _ = writeln!(text, "    {}", line.trim_end_matches(", "));
}

/// Of a sample that is not zero.
fn row(sample: &Sample) -> Option<(String, String)> {
    let labels: Vec<&str> = sample
        .labels
        .iter()
        .map(|(_, value)| value.as_str())
        .collect();
    let name = labels.join(" ");
    match &sample.value {
        Value::Number(0) | Value::Durations { count: 0, .. } => None,
        Value::Number(number) => Some((name, number.to_string())),
        Value::Durations {
            buckets,
            count,
            sum_ns,
        } => {
            let mean = span(sum_ns / count);
            let (half, most) = (quantile(buckets, *count, 50), quantile(buckets, *count, 99));
            let text = format!(
                "{}, mean {mean}, half {half}, 99 % {most}",
                counted(*count, "time")
            );
            Some((name, text))
        }
    }
}

/// The bound of the bucket in which that percentile is.
fn quantile(buckets: &[(u64, u64)], count: u64, percent: u64) -> String {
    let rank = (count * percent).div_ceil(100);
    let found = buckets.iter().find(|(_, below)| *below >= rank);
    match (found, buckets.last()) {
        (Some((bound, _)), _) => format!("within {}", span(*bound)),
        (None, Some((longest, _))) => format!("beyond {}", span(*longest)),
        (None, None) => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{quantile, table};
    use crate::metrics::sample::families;
    use crate::metrics::{Family, Kind};

    #[test]
    fn every_family_has_its_sentence_and_its_rows() {
        let mut families = families();
        let mut lost = Family::new(Kind::Counter, "rstscope_lost", "Records that were lost.");
        lost.number(&[("output", "-")], 0);
        families.push(lost);
        families.push(Family::new(
            Kind::Gauge,
            "rstscope_absent",
            "Nothing to say.",
        ));
        let text = table(&families);
        assert!(
            text.contains("Frames by what became of them.\n    up\"0 passed  7\n"),
            "{text}"
        );
        assert!(
            text.contains("4 times, mean 625.0 ms, half within 1.0 s, 99 % beyond 1.0 s"),
            "{text}"
        );
        assert!(text.ends_with("(docs/metrics.md).\n    lost\n"), "{text}");
        assert!(!text.contains("Records that were lost."), "{text}");
        assert!(!text.contains("Nothing to say"));
        assert_eq!(
            quantile(&[(10_000, 99), (20_000, 100)], 100, 99),
            "within 10 µs"
        );
    }
}

//! Numbers as a person reads them: a count with its noun in the right number, a time span in the unit that
//! fits it. Rounds for the eye alone: what is computed with, or written as a field, keeps its own unit.

/// `1 record`, `2 records`: nouns whose plural ends in an s.
#[must_use]
pub fn counted(number: u64, noun: &str) -> String {
    let end = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{end}")
}

/// A time span: `80 µs`, `12.3 ms`, `7.0 s`, and from ten minutes on as clocks have it beside the seconds
/// that timers are set in: `7200 s (2 h)`.
#[must_use]
pub fn span(nanos: u64) -> String {
    let (micros, millis) = (nanos / 1_000, nanos / 1_000_000);
    let seconds = nanos / 1_000_000_000;
    match seconds {
        0 if millis == 0 => format!("{micros} µs"),
        0 => format!("{}.{} ms", millis, micros % 1_000 / 100),
        1..600 => format!("{seconds}.{} s", millis % 1_000 / 100),
        _ => format!("{seconds} s ({})", clock(seconds)),
    }
}

/// `2 h`, `1 h 5 min`, `3 d 4 h`: the two greatest units, the second where it is not nothing.
fn clock(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    let (great, small) = match (days, hours) {
        (0, 0) => return format!("{minutes} min"),
        (0, _) => ((hours, "h"), (minutes % 60, "min")),
        _ => ((days, "d"), (hours % 24, "h")),
    };
    match small.0 {
        0 => format!("{} {}", great.0, great.1),
        _ => format!("{} {} {} {}", great.0, great.1, small.0, small.1),
    }
}

#[cfg(test)]
mod tests {
    use super::{counted, span};

    #[test]
    fn one_is_one_and_all_else_is_many() {
        let said = [0, 1, 2].map(|number| counted(number, "record"));
        assert_eq!(said, ["0 records", "1 record", "2 records"]);
    }

    #[test]
    fn a_span_is_told_in_the_unit_that_fits_it() {
        for (nanos, said) in [
            (999, "0 µs"),
            (80_400, "80 µs"),
            (999_999, "999 µs"),
            (12_345_678, "12.3 ms"),
            (1_000_000_000, "1.0 s"),
            (59_960_000_000, "59.9 s"),
            (600_000_000_000, "600 s (10 min)"),
            (3_900_000_000_000, "3900 s (1 h 5 min)"),
            (7_200_000_000_000, "7200 s (2 h)"),
            (273_600_000_000_000, "273600 s (3 d 4 h)"),
        ] {
            assert_eq!(span(nanos), said);
        }
    }
}

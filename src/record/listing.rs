//! A written record in a line, for who looks for one among many: when, what, how sure, its id, and its sentence.
//! It reads the JSON form, as `story` does.

use serde_json::Value;

use super::one_line::one_line;

/// Columns of the widest verdict with its cause: `REMOTE/consequence`.
const VERDICT_COLUMNS: usize = 18;
/// UTC, to the millisecond, as one word.
const TIME: &str = "%Y-%m-%dT%H:%M:%S%.3fZ";

/// A line, with its end.
#[derive(Debug, PartialEq, Eq)]
pub enum Listed {
    /// Of a reset flow.
    Reset(String),
    /// Of an interval that was not watched whole.
    Gap(String),
}

/// The line of a record; `None` when it is none of ours, or of an interval that was watched whole.
#[must_use]
pub fn listed(record: &Value) -> Option<Listed> {
    let text = |path| record.pointer(path).and_then(Value::as_str);
    let line = |what: &str, sure: &str| {
        let time = text("/@timestamp").unwrap_or("?");
        let time = time
            .parse::<jiff::Timestamp>()
            .map_or_else(|_| time.to_owned(), |time| time.strftime(TIME).to_string());
        let (id, message) = (text("/event/id").unwrap_or("?"), text("/message"));
        let line = format!(
            "{time} {what:<VERDICT_COLUMNS$} {sure:>4} {id} {}",
            message.unwrap_or_default()
        );
        format!("{}\n", one_line(line.trim_end()))
    };
    match text("/event/dataset")? {
        "rstscope.reset" => {
            let verdict = text("/rstscope/verdict").unwrap_or("?").to_uppercase();
            let cause = text("/rstscope/cause").map(|cause| format!("/{cause}"));
            let what = format!("{verdict}{}", cause.unwrap_or_default());
            let sure = record
                .pointer("/rstscope/confidence")
                .and_then(Value::as_f64);
            // Rounded down: 99.7 % is not certain, and must not look it.
            let sure = sure.map(|sure| format!("{}%", (sure * 1e4).round().div_euclid(100.0)));
            Some(Listed::Reset(line(&what, &sure.unwrap_or_default())))
        }
        "rstscope.coverage" => {
            let complete = record.pointer("/rstscope/coverage/complete");
            (complete != Some(&Value::Bool(true))).then(|| Listed::Gap(line("gap", "")))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Listed, listed};
    use crate::record::sample::{coverage, emission, injected};
    use crate::record::{Record, to_json};

    fn written(record: &Record) -> Value {
        serde_json::from_str(&to_json(record, &emission())).unwrap()
    }

    #[test]
    fn a_line_says_when_what_how_sure_which_and_why() {
        let mut reset = injected();
        reset.message = "why".to_owned();
        let record = written(&Record::Reset(Box::new(reset)));
        let Some(Listed::Reset(line)) = listed(&record) else {
            panic!("{record}");
        };
        let words: Vec<_> = line
            .splitn(5, ' ')
            .filter(|word| !word.is_empty())
            .collect();
        assert_eq!(words[0], "2026-05-09T02:31:06.833Z", "{line}");
        assert_eq!(words[1], "INJECTED/on_path", "{line}");
        let id = record["event"]["id"].as_str().unwrap();
        let end = format!("% {id} why\n");
        assert!(line.ends_with(&end), "{line}");
    }

    #[test]
    fn of_what_was_watched_only_gaps_are_listed() {
        let mut record = coverage();
        record.complete = true;
        assert_eq!(
            listed(&written(&Record::Coverage(Box::new(record.clone())))),
            None
        );
        record.complete = false;
        let gap = listed(&written(&Record::Coverage(Box::new(record))));
        let Some(Listed::Gap(line)) = gap else {
            panic!("{gap:?}");
        };
        assert!(
            line.contains("Z gap ") && line.contains("had gaps"),
            "{line}"
        );
    }

    #[test]
    fn what_is_not_sure_does_not_look_it_and_nothing_ends_the_line() {
        let record = json!({
            "@timestamp": "x\ny", "event": {"dataset": "rstscope.reset"}, "message": "a\u{1b}[2J",
            "rstscope": {"verdict": "remote", "confidence": 0.9968},
        });
        let Some(Listed::Reset(line)) = listed(&record) else {
            panic!("{record}");
        };
        assert_eq!(line, "x\u{fffd}y REMOTE              99% ? a\u{fffd}[2J\n");
        assert_eq!(listed(&json!({"event": {"dataset": "suricata"}})), None);
        assert_eq!(listed(&json!([1])), None);
    }
}

//! Which of the records that a file holds were asked for. Pure.

use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use serde_json::Value;

use crate::cli::When;
use crate::config::Wanted;

/// What was asked for, at an instant.
#[derive(Debug, Clone)]
pub(super) struct Selection {
    wanted: Wanted,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl Selection {
    pub(super) fn of(wanted: &Wanted, now: Timestamp) -> Self {
        let instant = |when| match when {
            When::At(instant) => instant,
            // Before the calendar begins, everything is later.
            When::Ago(span) => now.checked_sub(span).unwrap_or(Timestamp::MIN),
        };
        Self {
            wanted: wanted.clone(),
            since: wanted.since.map(instant),
            until: wanted.until.map(instant),
        }
    }

    /// Whether it was asked for. What a record does not tell of itself fits no question.
    pub(super) fn takes(&self, record: &Value) -> bool {
        let text = |path| record.pointer(path).and_then(Value::as_str);
        let wanted = &self.wanted;
        if wanted.event_id.is_some() && wanted.event_id.as_deref() != text("/event/id") {
            return false;
        }
        let verdict = text("/rstscope/verdict");
        if !wanted.verdicts.is_empty()
            && !wanted.verdicts.iter().any(|it| Some(it.name()) == verdict)
        {
            return false;
        }
        self.takes_time(record) && self.takes_ends(record)
    }

    fn takes_ends(&self, record: &Value) -> bool {
        let ends = [end(record, "source"), end(record, "destination")];
        let flow = self.wanted.flow;
        let address = self.wanted.address;
        flow.is_none_or(|(one, other)| {
            ends == [Some(one), Some(other)] || ends == [Some(other), Some(one)]
        }) && address.is_none_or(|network| {
            let is_in_it = |end: &SocketAddr| network.contains(end.ip());
            ends.iter().flatten().any(is_in_it)
        })
    }

    /// Of gaps in what was watched only time is asked.
    pub(super) fn takes_time(&self, record: &Value) -> bool {
        if self.since.is_none() && self.until.is_none() {
            return true;
        }
        let time = record.get("@timestamp").and_then(Value::as_str);
        let Some(time) = time.and_then(|time| time.parse::<Timestamp>().ok()) else {
            return false;
        };
        self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time < until)
    }
}

/// What was asked for, to follow "no reset record"; empty where that was all there is.
pub(super) fn words(wanted: &Wanted) -> String {
    let mut words = String::new();
    if let Some(id) = &wanted.event_id {
        words.push_str(" with event.id ");
        words.push_str(id);
    }
    if let Some((one, other)) = wanted.flow {
        words.push_str(&format!(" of {one} and {other}"));
    }
    if let Some(network) = wanted.address {
        words.push_str(&format!(" of {network}"));
    }
    if !wanted.verdicts.is_empty() {
        let names: Vec<_> = wanted.verdicts.iter().map(|it| it.name()).collect();
        words.push_str(&format!(" that is {}", names.join(" or ")));
    }
    if wanted.since.is_some() || wanted.until.is_some() {
        words.push_str(" of that time");
    }
    words
}

fn end(record: &Value, name: &str) -> Option<SocketAddr> {
    let end = record.get(name)?;
    let address: IpAddr = end.get("ip")?.as_str()?.parse().ok()?;
    let port = u16::try_from(end.get("port")?.as_u64()?).ok()?;
    Some(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Selection, words};
    use crate::cli::When;
    use crate::config::Wanted;
    use crate::verdict::Verdict;

    const NOTHING: Wanted = Wanted {
        event_id: None,
        flow: None,
        address: None,
        verdicts: Vec::new(),
        since: None,
        until: None,
    };

    fn record() -> Value {
        json!({
            "@timestamp": "2026-11-23T09:18:02.500000000Z",
            "event": {"id": "lb1-7"},
            "source": {"ip": "2001:db8::1", "port": 443},
            "destination": {"ip": "2001:db8:1::2", "port": 50000},
            "rstscope": {"verdict": "injected"},
        })
    }

    fn takes(change: impl FnOnce(&mut Wanted)) -> bool {
        let mut wanted = NOTHING;
        change(&mut wanted);
        let now = "2026-11-23T10:18:02.5Z".parse().unwrap();
        let taken = Selection::of(&wanted, now).takes(&record());
        assert_eq!(words(&wanted).is_empty(), wanted == NOTHING);
        taken
    }

    #[test]
    fn nothing_asked_is_everything() {
        assert!(takes(|_| ()));
        let now = jiff::Timestamp::UNIX_EPOCH;
        assert!(Selection::of(&NOTHING, now).takes(&json!({})));
    }

    #[test]
    fn each_question_is_answered_by_what_the_record_tells() {
        assert!(takes(|w| w.event_id = Some("lb1-7".to_owned())));
        assert!(!takes(|w| w.event_id = Some("lb1-70".to_owned())));
        assert!(takes(
            |w| w.verdicts = vec![Verdict::Stray, Verdict::Injected]
        ));
        assert!(!takes(|w| w.verdicts = vec![Verdict::Remote]));
        let ends = |one: &str, other: &str| Some((one.parse().unwrap(), other.parse().unwrap()));
        assert!(takes(
            |w| w.flow = ends("[2001:db8:1::2]:50000", "[2001:db8::1]:443")
        ));
        assert!(!takes(
            |w| w.flow = ends("[2001:db8:1::2]:50000", "[2001:db8::1]:80")
        ));
        assert!(takes(
            |w| w.address = Some("2001:db8:1::/48".parse().unwrap())
        ));
        assert!(takes(|w| w.address = Some("2001:db8::1".parse().unwrap())));
        assert!(!takes(
            |w| w.address = Some("2001:db8:2::/48".parse().unwrap())
        ));
    }

    #[test]
    fn time_is_from_on_and_up_to_and_may_be_told_as_a_span_before_now() {
        let when = |typed: &str| Some(typed.parse::<When>().unwrap());
        assert!(takes(|w| w.since = when("2026-11-23T09:18:02.5Z")));
        assert!(!takes(|w| w.until = when("2026-11-23T09:18:02.5Z")));
        assert!(takes(|w| w.until = when("2026-11-23T11:18:02.6+02:00")));
        assert!(takes(|w| w.since = when("1h")));
        assert!(!takes(|w| w.since = when("59m")));
        assert!(takes(|w| w.since = when("1d")));
        for odd in ["", "soon", "-5m", "5", "1 month"] {
            assert!(odd.parse::<When>().is_err(), "{odd}");
        }
    }
}

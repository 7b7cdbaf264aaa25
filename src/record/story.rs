//! A written record as a person would tell it: what came and when, what speaks for whom and how
//! loudly, the sum, what the verdict means, and what to do next. It reads the JSON form, so that
//! records of another day and another host can be told too; what a record lacks is left out.

use std::fmt::Write;

use serde_json::Value;

use super::advice::Judged;
use super::one_line::one_line;
use super::{Manner, Stood};
use crate::amount::{counted, span};
use crate::evidence::{ALREADY_CLOSED, Circumstances, NEVER_ACCEPTED, PROCESS_ENDED};

/// The story of one reset record; `None` when this is none. Ends with a line's end. Every text of
/// the record is stripped of control characters: it may come from anywhere.
#[must_use]
pub fn story(record: &Value) -> Option<String> {
    if text(record, "/event/dataset")? != "rstscope.reset" {
        return None;
    }
    let mut out = String::new();
    head(&mut out, record);
    timeline(&mut out, record);
    circumstances(&mut out, record);
    evidence(&mut out, record);
    conclusion(&mut out, record);
    Some(out)
}

fn line(out: &mut String, indent: usize, text: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{:indent$}{}", "", one_line(text.trim_end()));
}

fn text<'a>(value: &'a Value, path: &str) -> Option<&'a str> {
    value.pointer(path)?.as_str()
}

fn number(value: &Value, path: &str) -> Option<i64> {
    value.pointer(path)?.as_i64()
}

fn list<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    value
        .pointer(path)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// `192.0.2.1:443`, of `/source` and its like.
fn end(value: &Value, path: &str) -> Option<String> {
    let address = text(value, &format!("{path}/ip"))?;
    let port = number(value, &format!("{path}/port"))?;
    Some(if address.contains(':') {
        format!("[{address}]:{port}")
    } else {
        format!("{address}:{port}")
    })
}

fn flow(value: &Value, path: &str) -> Option<String> {
    let source = end(value, &format!("{path}/source"))?;
    let destination = end(value, &format!("{path}/destination"))?;
    Some(format!("{source} → {destination}"))
}

fn head(out: &mut String, record: &Value) {
    let verdict = text(record, "/rstscope/verdict").unwrap_or("undetermined");
    let cause = text(record, "/rstscope/cause")
        .map(|cause| format!(" ({})", cause.replace('_', " ")))
        .unwrap_or_default();
    let flow = flow(record, "").unwrap_or_default();
    line(
        out,
        0,
        &format!("{flow}: {}{cause}", verdict.to_uppercase()),
    );
    if let Some(id) = text(record, "/event/id") {
        line(out, 2, &format!("event {id}"));
    }
    line(out, 2, text(record, "/message").unwrap_or_default());
}

/// Time of day in nanoseconds; two of one record are compared only.
fn nanos(text: &str) -> Option<i128> {
    text.parse::<jiff::Timestamp>()
        .ok()
        .map(jiff::Timestamp::as_nanosecond)
}

fn timeline(out: &mut String, record: &Value) {
    out.push('\n');
    let begin = text(record, "/@timestamp").unwrap_or_default();
    line(out, 0, &format!("What came, from {begin} on"));
    let resets = list(record, "/rstscope/resets");
    let usual = number(record, "/rstscope/baseline/hop_limit");
    for reset in resets {
        line(out, 2, &reset_line(reset, nanos(begin), usual));
    }
    let all = number(record, "/rstscope/reset_count").unwrap_or_default();
    let told = i64::try_from(resets.len()).unwrap_or(i64::MAX);
    if all > told {
        line(
            out,
            2,
            &format!(
                "… and {}",
                counted((all - told).unsigned_abs(), "more reset")
            ),
        );
    }
    for item in list(record, "/rstscope/evidence") {
        if text(item, "/group") == Some("race")
            && let Some(observed) = text(item, "/observed")
        {
            let words = text(item, "/name").unwrap_or_default().replace('_', " ");
            line(out, 2, &format!("afterwards: {words}: {observed}"));
        }
    }
}

fn reset_line(reset: &Value, begin: Option<i128>, usual: Option<i64>) -> String {
    let time = text(reset, "/time").and_then(nanos);
    let after = match (time, begin) {
        // A record spans minutes at the most: well within what a float holds exactly.
        (Some(time), Some(begin)) => format!("{:+.3} ms", (time - begin) as f64 / 1e6),
        _ => "?".to_owned(),
    };
    let way = match text(reset, "/direction") {
        Some("ingress") => "in ",
        Some("egress") => "out",
        _ => "   ",
    };
    let flags = text(reset, "/flags").unwrap_or_default();
    let mut words = format!("{after:>14}  {way} {flags:<4}");
    if let Some(seq) = number(reset, "/seq") {
        let _ = write!(words, " seq {seq}");
    }
    let fit = text(reset, "/seq_fit").unwrap_or("unknown");
    let _ = write!(words, " ({}", fit.replace('_', " "));
    match number(reset, "/seq_offset") {
        Some(0) | None => words.push(')'),
        Some(offset) => {
            let _ = write!(words, ", {offset:+})");
        }
    }
    if let Some(ack) = number(reset, "/ack") {
        let _ = write!(words, " ack {ack}");
    }
    if let Some(hops) = number(reset, "/hop_limit") {
        let _ = write!(words, " hop limit {hops}");
        if let Some(usual) = usual.filter(|usual| *usual != hops) {
            let _ = write!(words, " (usual {usual})");
        }
    }
    for (path, name) in [("/ip_id", "IP ID"), ("/window", "window")] {
        if let Some(value) = number(reset, path) {
            let _ = write!(words, " {name} {value}");
        }
    }
    if let Some(mac) = text(reset, "/mac") {
        let _ = write!(words, " MAC {mac}");
    }
    words
}

fn circumstances(out: &mut String, record: &Value) {
    let mut words = Vec::new();
    let stage = text(record, "/rstscope/stage").unwrap_or("unknown");
    words.push(format!("stage {stage}"));
    if let Some(client) = end(record, "/client") {
        words.push(format!("opened by {client}"));
    }
    for (path, name) in [("age_ns", "old"), ("idle_ns", "idle")] {
        if let Some(nanos) = number(record, &format!("/rstscope/{path}")) {
            words.push(format!("{} {name}", span(nanos.unsigned_abs())));
        }
    }
    for (path, name) in [
        ("bytes_in", "bytes from the purported sender"),
        ("bytes_out", "bytes to it"),
    ] {
        if let Some(bytes) = number(record, &format!("/rstscope/{path}")) {
            words.push(format!("{bytes} {name}"));
        }
    }
    line(out, 2, &format!("the connection: {}", words.join(", ")));
    baseline(out, record);
    kernel(out, record);
    // Nothing came first where this host's process ended both.
    let is_local = text(record, "/rstscope/verdict") == Some("local");
    let is_late = is_local && text(record, "/rstscope/cause") == Some("kernel");
    for other in list(record, "/rstscope/related") {
        let sure = other.pointer("/confidence").and_then(Value::as_f64);
        let flow = flow(other, "").unwrap_or_default();
        let before = number(other, "/delta_ns")
            .map(|nanos| span(nanos.unsigned_abs()))
            .unwrap_or_default();
        let percent = sure.unwrap_or_default() * 100.0;
        let id = text(other, "/id").map(|id| format!(", event {id}"));
        let joined = match text(other, "/join") {
            Some("correction") => "corrects the record of",
            Some("closing") if is_late => "its process had closed it for that",
            Some("closing") if is_local => "its process closed with it",
            Some("process") if is_local => "its process reset with it",
            Some("closing") => "its process closed for it",
            _ => "belongs to",
        };
        line(
            out,
            2,
            &format!(
                "{joined}: {flow}, {before} apart, {percent:.0} % sure{}",
                id.unwrap_or_default()
            ),
        );
    }
}

fn baseline(out: &mut String, record: &Value) {
    let Some(known) = record.pointer("/rstscope/baseline") else {
        line(out, 2, "before: nothing was seen of the purported sender");
        return;
    };
    let mut words = Vec::new();
    for (path, name) in [("/hop_limit", "hop limit"), ("/window", "window")] {
        if let Some(value) = number(known, path) {
            words.push(format!("{name} {value}"));
        }
    }
    if let Some(mac) = text(known, "/mac") {
        words.push(format!("MAC {mac}"));
    }
    match known.pointer("/timestamps").and_then(Value::as_bool) {
        Some(true) => words.push("TCP timestamps".to_owned()),
        Some(false) => words.push("no TCP timestamps".to_owned()),
        None => {}
    }
    let from = match text(known, "/source") {
        Some("syn") => "its SYN",
        Some("syn_ack") => "its SYN-ACK",
        Some("path") => "other connections of its address",
        Some("after") => "what came after the reset",
        _ => "its segments",
    };
    line(
        out,
        2,
        &format!("before: {} (from {from})", words.join(", ")),
    );
}

fn kernel(out: &mut String, record: &Value) {
    let mut words = Vec::new();
    match record
        .pointer("/rstscope/kernel/accepted")
        .and_then(Value::as_bool)
    {
        Some(true) => words.push("took the first reset and ended the socket".to_owned()),
        Some(false) => words.push("did not take the first reset".to_owned()),
        None => {}
    }
    if let Some(reason) = text(record, "/rstscope/kernel/reset_reason") {
        words.push(format!("sent a reset itself: {reason}"));
    }
    if let Some(state) = text(record, "/rstscope/kernel/socket_state") {
        words.push(format!("socket state {state}"));
    }
    if !words.is_empty() {
        line(out, 2, &format!("this host's kernel: {}", words.join("; ")));
    }
    if let (Some(name), Some(pid)) = (
        text(record, "/process/name"),
        number(record, "/process/pid"),
    ) {
        let thread = text(record, "/process/thread/name");
        let thread = thread.map_or_else(String::new, |thread| format!(", thread {thread}"));
        line(out, 2, &format!("process: {name} (pid {pid}{thread})"));
    }
}

/// Of an item, in decibans: above 0 for a third party, below for the endpoint. What the kernel
/// attests of this host is on neither side.
fn signed_db(item: &Value) -> Option<f64> {
    let db = item.pointer("/weight_db")?.as_f64()?;
    match text(item, "/favors")? {
        "injected" => Some(db),
        "remote" => Some(-db),
        _ => None,
    }
}

fn evidence(out: &mut String, record: &Value) {
    let items = list(record, "/rstscope/evidence");
    out.push('\n');
    line(
        out,
        0,
        "What speaks for whom, in decibans (+ a third party, − the endpoint itself)",
    );
    let mut groups: Vec<(&str, f64)> = Vec::new();
    for item in items {
        let name = text(item, "/name").unwrap_or_default().replace('_', " ");
        let favors = text(item, "/favors").unwrap_or_default();
        let shown = match (text(item, "/observed"), text(item, "/expected")) {
            (Some(seen), Some(usual)) if seen == usual => format!(": {seen}, as expected"),
            (Some(seen), Some(usual)) => format!(": {seen}; a genuine one would show {usual}"),
            (Some(seen), None) => format!(": {seen}"),
            (None, Some(usual)) => format!(": a genuine one would show {usual}"),
            (None, None) => String::new(),
        };
        let signed = signed_db(item);
        let weight = item.pointer("/weight_db").and_then(Value::as_f64);
        let db = signed.or(weight).unwrap_or_default();
        line(
            out,
            2,
            &format!("{db:>+6.1}  for {favors:<9}  {name}{shown}"),
        );
        if let (Some(signed), Some(group)) = (signed, text(item, "/group")) {
            match groups.iter_mut().find(|(other, _)| *other == group) {
                Some((_, sum)) => *sum += signed,
                None => groups.push((group, signed)),
            }
        }
    }
    if items.is_empty() {
        line(out, 2, "no evidence applied");
    }
    sums(out, record, &groups);
}

/// The sum, where the evidence was weighed: what the kernel attests needs none.
fn sums(out: &mut String, record: &Value, groups: &[(&str, f64)]) {
    let db = |path| record.pointer(path).and_then(Value::as_f64);
    let (Some(prior), Some(total)) = (db("/rstscope/prior_db"), db("/rstscope/total_db")) else {
        let attested = text(record, "/rstscope/verdict")
            .is_some_and(|verdict| verdict == "local" || verdict == "forwarded");
        if attested {
            line(out, 2, "the origin is attested: nothing had to be weighed");
        }
        return;
    };
    line(out, 2, "the sum:");
    line(
        out,
        4,
        &format!("{prior:>+6.1}  before anything is known: forged resets are rare"),
    );
    let mut plain = prior;
    for (group, sum) in groups.iter().filter(|(_, sum)| sum.abs() > 0.0) {
        plain += sum;
        line(out, 4, &format!("{sum:>+6.1}  {}", group.replace('_', " ")));
    }
    let bounded = total - plain;
    if bounded.abs() >= 0.05 {
        let why =
            "taken back: facts with one cause, and likeness that can be copied, count only so much";
        line(out, 4, &format!("{bounded:>+6.1}  {why}"));
    }
    let odds = 100.0 / (1.0 + 10_f64.powf(-total / 10.0));
    line(
        out,
        4,
        &format!("{total:>+6.1}  in all: a third party at {odds:.1} %"),
    );
}

/// How the connection stood, as far as the record tells.
fn manner(record: &Value) -> Manner {
    let bytes = |path| record.pointer(path).and_then(Value::as_u64);
    let opener = end(record, "/client");
    let named = |name| {
        let mut items = list(record, "/rstscope/evidence").iter();
        items.find(|item| text(item, "/name") == Some(name))
    };
    Manner::of(&Stood {
        verdict: text(record, "/rstscope/verdict").unwrap_or_default(),
        cause: text(record, "/rstscope/cause"),
        reason: text(record, "/rstscope/kernel/reset_reason"),
        socket_state: text(record, "/rstscope/kernel/socket_state"),
        circumstances: Circumstances {
            ending: named(PROCESS_ENDED).and_then(|item| text(item, "/observed")),
            is_unaccepted: named(NEVER_ACCEPTED).is_some(),
            closed: named(ALREADY_CLOSED).and_then(|item| text(item, "/observed")),
        },
        has_closed: text(record, "/rstscope/stage") == Some("closed"),
        is_opener: opener.map(|opener| Some(opener) == end(record, "/source")),
        bytes_in: bytes("/rstscope/bytes_in"),
        bytes_out: bytes("/rstscope/bytes_out"),
        idle_ns: bytes("/rstscope/idle_ns"),
    })
}

fn conclusion(out: &mut String, record: &Value) {
    let verdict = text(record, "/rstscope/verdict").unwrap_or("undetermined");
    let judged = Judged {
        verdict,
        cause: text(record, "/rstscope/cause"),
        reason: text(record, "/rstscope/kernel/reset_reason"),
        answers_syn: number(record, "/rstscope/resets/0/seq") == Some(0)
            && text(record, "/rstscope/resets/0/flags").is_some_and(|flags| flags.contains('A')),
        manner: manner(record),
        device: text(record, "/rstscope/device"),
    };
    let confidence = record
        .pointer("/rstscope/confidence")
        .and_then(Value::as_f64);
    let percent = confidence.unwrap_or_default() * 100.0;
    out.push('\n');
    line(out, 0, &format!("Verdict: {verdict}, {percent:.1} % sure"));
    line(out, 2, judged.meaning());
    line(out, 0, "What to do next");
    line(out, 2, &judged.next_step());
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::story;
    use crate::record::sample::{coverage, emission, injected};
    use crate::record::{Record, ResetRecord, to_json};

    fn told(record: ResetRecord) -> String {
        let json = to_json(&Record::Reset(Box::new(record)), &emission());
        story(&serde_json::from_str(&json).unwrap()).unwrap()
    }

    #[test]
    fn the_story_tells_timeline_evidence_sum_and_what_to_do() {
        let text = told(injected());
        for words in [
            "203.0.113.9:51514 → 198.51.100.10:443: INJECTED (on path)",
            "+0.000 ms  in  RA   seq 4294967295 (exact) ack 7 hop limit 243 (usual 52) IP ID 0 window 0",
            "afterwards: peer went on: 1.2 ms later",
            "before: hop limit 52, window 502, MAC 02-00-00-00-00-01, TCP timestamps (from its SYN)",
            " +14.0  for injected   hop limit: 243; a genuine one would show 52",
            "  -2.0  for remote     exact",
            " -15.0  before anything is known",
            "  +6.5  in all: a third party at 81.7 %",
            "Verdict: injected, 97.0 % sure",
            "your own device fw1 at that time",
        ] {
            assert!(text.contains(words), "{words}\n{text}");
        }
        assert!(
            !text.contains("taken back"),
            "14 + 9.5 − 2 − 15 is 6.5\n{text}"
        );
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
    }

    #[test]
    fn caps_are_told_where_the_sum_shows_them() {
        let mut record = injected();
        record.total_db = Some(4.0);
        assert!(told(record).contains("  -2.5  taken back"));
    }

    #[test]
    fn a_leg_that_was_closed_for_the_reset_is_told_as_such() {
        let mut record = injected();
        record.related[0].join = "closing";
        let words = "its process closed for it: 192.0.2.1:1 → 192.0.2.2:2";
        assert!(told(record).contains(words));
    }

    #[test]
    fn a_record_with_little_in_it_is_told_all_the_same() {
        let bare = r#"{"event": {"dataset": "rstscope.reset"}, "message": "a\u001b[31m"}"#;
        let text = story(&serde_json::from_str::<Value>(bare).unwrap()).unwrap();
        assert!(text.contains("Verdict: undetermined") && !text.contains('\u{1b}'));
    }

    #[test]
    fn coverage_has_no_story() {
        let json = to_json(&Record::Coverage(Box::new(coverage())), &emission());
        assert_eq!(story(&serde_json::from_str(&json).unwrap()), None);
        assert_eq!(story(&Value::Null), None);
    }
}

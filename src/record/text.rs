//! A record for a person on a terminal: one aligned line, two where it is narrow, and on request the evidence
//! behind it.
//! The verdict is always a word; color only repeats it.

use std::fmt::Write;

use super::coverage::coverage_message;
use super::emission::Emission;
use super::one_line::one_line;
use super::writer::rounded;
use super::{CoverageRecord, Record, ResetRecord, silence};
use crate::amount::counted;
use crate::evidence::{Circumstances, Evidence, Favors, Group, SequenceFit};
use crate::flow::Endpoint;
use crate::verdict::{Cause, PRIOR_DB, Verdict};

/// Whether to color.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Palette {
    /// No escape sequences.
    Plain,
    /// The verdict in color (SGR, ECMA-48).
    Color,
}

impl Palette {
    const fn of(self, verdict: Verdict) -> (&'static str, &'static str) {
        if matches!(self, Self::Plain) {
            return ("", "");
        }
        let begin = match verdict {
            Verdict::Injected => "\x1b[1;31m",
            Verdict::Remote => "\x1b[32m",
            Verdict::Local => "\x1b[36m",
            Verdict::Forwarded => "\x1b[34m",
            Verdict::Stray => "\x1b[2m",
            Verdict::Undetermined => "\x1b[33m",
        };
        (begin, "\x1b[0m")
    }
}

/// Columns of the widest verdict.
const VERDICT_COLUMNS: usize = 12;
/// Columns that a pair of IPv4 endpoints needs, so that what follows stands in line.
const FLOW_COLUMNS: usize = 43;
/// Facts are not squeezed into less than this: in a terminal of 80 columns they would come to a word and a
/// half, and are what somebody is looking for. They get a line of their own.
const FACTS_COLUMNS: usize = 40;
/// Where that line begins: below the verdict.
const TIME_COLUMNS: usize = 14;
/// UTC, and said to be: the host's other logs may have its own time.
const TIME: &str = "%H:%M:%S%.3fZ";

/// One line, without its end, or two where `columns` are few; cut to them where only the facts at its end
/// would exceed them.
#[must_use]
pub fn to_line(record: &Record, emission: &Emission, palette: Palette, columns: usize) -> String {
    match record {
        Record::Reset(reset) => reset_line(reset, emission, palette, columns),
        Record::Coverage(coverage) => coverage_line(coverage, emission),
    }
}

fn reset_line(
    record: &ResetRecord,
    emission: &Emission,
    palette: Palette,
    columns: usize,
) -> String {
    let (begin, end) = palette.of(record.verdict);
    let verdict = record.verdict.name().to_uppercase();
    let flow = format!("{} → {}", shown(record.source), shown(record.destination));
    // Rounded down: 99.7 % is not certain, and must not look it.
    let percent = rounded(record.confidence * 100.0, 2).floor();
    let time = emission.wall(record.start).exact().strftime(TIME);
    let head = format!("{percent:>3}% {flow:<FLOW_COLUMNS$}  ");
    let shown_columns = head.chars().count();
    let head = format!("{time} {begin}{verdict:<VERDICT_COLUMNS$}{end} {head}");
    let used = TIME_COLUMNS + VERDICT_COLUMNS + 1 + shown_columns;
    let facts = facts(record);
    let room = columns.saturating_sub(used);
    if room >= FACTS_COLUMNS || facts.chars().count() <= room {
        let facts = cut(&facts, room);
        return format!("{head}{facts}").trim_end().to_owned();
    }
    let facts = cut(
        &facts,
        columns.saturating_sub(TIME_COLUMNS).max(FACTS_COLUMNS),
    );
    let head = head.trim_end();
    format!("{head}\n{:TIME_COLUMNS$}{facts}", "")
}

fn coverage_line(record: &CoverageRecord, emission: &Emission) -> String {
    let time = emission.wall(record.end).exact().strftime(TIME);
    format!(
        "{time} {:<VERDICT_COLUMNS$} {}",
        "coverage",
        coverage_message(record, emission)
    )
}

/// RFC 5952 §6: an IPv6 address beside a port stands in brackets.
fn shown(endpoint: Endpoint) -> String {
    std::net::SocketAddr::new(endpoint.address, endpoint.port).to_string()
}

fn cut(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(columns.saturating_sub(1)).collect();
    short.truncate(short.trim_end().len());
    short.push('…');
    short
}

/// What decided, the strongest first, as far as a line carries.
fn facts(record: &ResetRecord) -> String {
    let mut facts = Vec::new();
    let first = record.resets.first();
    if let Some(cause) = record.cause {
        facts.push(cause.name().replace('_', " "));
    }
    // Of another verdict the process is the one that was hit, not the one that did it.
    if matches!(record.verdict, Verdict::Local | Verdict::Forwarded) {
        let stood = Circumstances::of(&record.evidence);
        if let Some(process) = record.process {
            let closed = stood.closed.map(|before| format!(" closed it {before}"));
            let closed = closed.unwrap_or_default();
            facts.push(format!("{}[{}]{closed}", process.name(), process.pid));
        }
        facts.extend(reset_for(record));
        let answers_syn = first.is_some_and(|entry| entry.segment.answers_syn());
        facts.extend(stood.ending.map(|how| format!("ended ({how})")));
        let unaccepted = stood.is_unaccepted.then(|| "never accepted".to_owned());
        facts.extend(unaccepted);
        let reason = record.kernel.reset_reason.filter(|_| !stood.is_unaccepted);
        if let Some(meaning) = reason.and_then(|reason| reason.meaning(answers_syn)) {
            facts.push(meaning.to_owned());
        }
        if record.cause == Some(Cause::Process) {
            facts.extend(silence(record.idle_ns));
        }
    }
    let usual = record.baseline.as_ref().and_then(|known| known.hop_limit);
    if let (Some(first), Some(usual)) = (first, usual)
        && first.segment.hop_limit != usual
    {
        facts.push(format!("ttl {}≠{usual}", first.segment.hop_limit));
    }
    match first.map(|entry| entry.fit) {
        Some(SequenceFit::Exact) => facts.push("seq exact".to_owned()),
        Some(SequenceFit::InWindow) => facts.push("seq in window".to_owned()),
        Some(SequenceFit::OutOfWindow) => facts.push("seq out of window".to_owned()),
        Some(SequenceFit::Unknown) | None => {}
    }
    // Hop limit and sequence fit are told above.
    let told = |item: &&Evidence| !matches!(item.group, Group::HopLimit | Group::Validity);
    if let Some(item) = record.evidence.iter().find(told) {
        facts.push(item_words(item));
    }
    if let Some(many) = &record.aggregate {
        facts.push(format!(
            "{} to or from {}",
            counted(many.flows, "flow"),
            many.network
        ));
    }
    let flags = first
        .map(|entry| entry.segment.flags.letters())
        .unwrap_or_default();
    let count = match record.reset_count {
        0 | 1 => String::new(),
        count => format!("×{count}"),
    };
    one_line(format!("{flags}{count} {}", facts.join(", ")).trim()).into_owned()
}

/// For which leg a proxy reset this one, or for which of two where that cannot be told.
fn reset_for(record: &ResetRecord) -> Option<String> {
    if record.cause != Some(Cause::Proxy) || record.related.is_empty() {
        return None;
    }
    let legs = record.related.iter();
    let legs = legs.map(|leg| format!("{} → {}", shown(leg.source), shown(leg.destination)));
    Some(format!("for {}", legs.collect::<Vec<_>>().join(" or ")))
}

/// `peer_went_on` with the value 3 as `peer went on 3`.
fn item_words(item: &Evidence) -> String {
    let mut words = item.name.replace('_', " ");
    if let Some(observed) = &item.observed {
        let _ = write!(words, " {observed}");
    }
    words
}

/// The evidence as a person would tell it, one item a line, with the decibans and their sum for
/// and against a third party. Empty for a coverage record. Ends with a line's end.
#[must_use]
pub fn to_story(record: &Record) -> String {
    let Record::Reset(record) = record else {
        return String::new();
    };
    let mut story = format!("    {}\n", one_line(&record.message));
    let mut sum = PRIOR_DB;
    for item in &record.evidence {
        let signed = if item.favors == Favors::Injected {
            item.weight_db
        } else {
            -item.weight_db
        };
        sum += signed;
        let _ = write!(
            story,
            "    {:>5.1} dB for {:<9}  {}",
            rounded(item.weight_db, 1),
            item.favors.name(),
            item.name.replace('_', " ")
        );
        match (&item.observed, &item.expected) {
            (Some(observed), Some(expected)) => {
                story.push_str(&one_line(&format!(
                    ": {observed}, a genuine one would show {expected}"
                )));
            }
            (Some(observed), None) => story.push_str(&one_line(&format!(": {observed}"))),
            (None, Some(expected)) => {
                story.push_str(&one_line(&format!(": a genuine one would show {expected}")));
            }
            (None, None) => {}
        }
        story.push('\n');
    }
    // What is attested was not weighed and has no sum.
    if let Some(total) = record.total_db {
        let mut line = |db: f32, words| {
            let _ = writeln!(story, "    {:>+5.1} dB {words}", rounded(db, 1));
        };
        line(PRIOR_DB, "before any evidence: forged resets are rare");
        let bounded = total - sum;
        // What the one decimal shows.
        if bounded.abs() >= 0.05 {
            line(
                bounded,
                "taken back: facts with one cause, and likeness, count only so much",
            );
        }
        line(total, "in all for a third party");
    }
    story
}

#[cfg(test)]
mod tests {
    use super::{Palette, to_line, to_story};
    use crate::record::sample::{coverage, emission, injected};
    use crate::record::{Record, ResetRecord};
    use crate::verdict::{Cause, Verdict};

    fn line(palette: Palette, columns: usize) -> String {
        to_line(
            &Record::Reset(Box::new(injected())),
            &emission(),
            palette,
            columns,
        )
    }

    #[test]
    fn a_line_tells_time_verdict_flow_and_reasons() {
        assert_eq!(
            line(Palette::Plain, 120),
            "02:31:06.833Z INJECTED      97% 203.0.113.9:51514 → 198.51.100.10:443        RA×2 \
             on path, ttl 243≠52, seq exact, peer…"
        );
    }

    #[test]
    fn in_a_narrow_terminal_the_reasons_have_a_line_of_their_own() {
        assert_eq!(
            line(Palette::Plain, 80),
            "02:31:06.833Z INJECTED      97% 203.0.113.9:51514 → 198.51.100.10:443\n              \
             RA×2 on path, ttl 243≠52, seq exact, peer went on 1.2 ms later, 7…"
        );
        for columns in 70..200 {
            for row in line(Palette::Plain, columns).lines() {
                assert!(row.chars().count() <= columns, "{columns}: {row}");
            }
        }
        assert_eq!(
            line(Palette::Plain, 20).lines().count(),
            2,
            "wrapped by the terminal"
        );
    }

    #[test]
    fn a_local_reset_names_its_process_and_the_kernels_reason() {
        let record = ResetRecord {
            verdict: Verdict::Local,
            cause: Some(Cause::Kernel),
            resets: Vec::new(),
            evidence: Vec::new(),
            ..injected()
        };
        let record = Record::Reset(Box::new(record));
        let line = to_line(&record, &emission(), Palette::Plain, 200);
        assert!(
            line.contains("×2 kernel, ng\u{fffd}inx[7], no socket took the segment"),
            "{line}"
        );
    }

    #[test]
    fn a_reset_that_a_proxy_passed_on_names_the_leg_that_was_reset_first() {
        let mut record = ResetRecord {
            verdict: Verdict::Forwarded,
            cause: Some(Cause::Proxy),
            ..injected()
        };
        let told = |record: &ResetRecord| {
            let record = Record::Reset(Box::new(record.clone()));
            to_line(&record, &emission(), Palette::Plain, 200)
        };
        let line = told(&record);
        assert!(
            line.contains("proxy, ng\u{fffd}inx[7], for 192.0.2.1:1 → 192.0.2.2:2, no socket"),
            "{line}"
        );
        record.related.push(record.related[0]);
        record.related[1].source.port = 3;
        let line = told(&record);
        assert!(
            line.contains("192.0.2.2:2 or 192.0.2.1:3 → 192.0.2.2:2,"),
            "{line}"
        );
        // A router's record has the same frame's way in there.
        record.cause = Some(Cause::Router);
        assert!(!told(&record).contains(" for "));
    }

    #[test]
    fn color_only_surrounds_the_word() {
        let colored = line(Palette::Color, 120);
        assert!(colored.contains("\u{1b}[1;31mINJECTED"));
        let plain = colored.replace("\u{1b}[1;31m", "").replace("\u{1b}[0m", "");
        assert_eq!(plain, line(Palette::Plain, 120));
    }

    #[test]
    fn ipv6_stands_in_brackets() {
        let mut record = injected();
        record.source.address = "2001:db8::1".parse().unwrap();
        record.destination.address = "2001:db8::2".parse().unwrap();
        let line = to_line(
            &Record::Reset(Box::new(record)),
            &emission(),
            Palette::Plain,
            200,
        );
        assert!(
            line.contains("[2001:db8::1]:51514 → [2001:db8::2]:443"),
            "{line}"
        );
    }

    #[test]
    fn the_story_adds_up_and_is_free_of_control_characters() {
        let mut record = injected();
        record.message = "one\u{1b}[31mtwo\nthree".to_owned();
        let story = to_story(&Record::Reset(Box::new(record)));
        assert!(
            story.contains("14.0 dB for injected   hop limit: 243, a genuine one would show 52")
        );
        let sum = "  -15.0 dB before any evidence: forged resets are rare\n     \
                   +6.5 dB in all for a third party\n";
        assert!(
            story.ends_with(sum),
            "14 + 9.5 − 2 − 15 is 6.5, as in the record\n{story}"
        );
        assert!(
            story.chars().all(|c| c == '\n' || !c.is_control()),
            "{story}"
        );
    }

    #[test]
    fn the_storys_sum_is_the_records_where_likeness_is_bounded_and_absent_where_none_was_made() {
        let mut record = injected();
        record.total_db = Some(4.0);
        let story = to_story(&Record::Reset(Box::new(record)));
        let taken_back = "   -2.5 dB taken back: ";
        assert!(story.contains(taken_back), "{story}");
        assert!(story.ends_with("   +4.0 dB in all for a third party\n"));
        let attested = ResetRecord {
            total_db: None,
            ..injected()
        };
        assert!(!to_story(&Record::Reset(Box::new(attested))).contains("in all"));
    }

    #[test]
    fn a_line_is_never_surer_than_its_verdict() {
        for (confidence, shown) in [(0.9968, " 99% "), (0.004, "  0% "), (1.0, "100% ")] {
            let record = ResetRecord {
                confidence,
                ..injected()
            };
            let record = Record::Reset(Box::new(record));
            let line = to_line(&record, &emission(), Palette::Plain, 120);
            assert!(line.contains(shown), "{line}");
        }
    }

    #[test]
    fn a_coverage_line_says_whether_anything_was_missed() {
        let line = to_line(
            &Record::Coverage(Box::new(coverage())),
            &emission(),
            Palette::Plain,
            80,
        );
        assert_eq!(
            line,
            "02:31:16.000Z coverage     up0: had gaps; 12 frames looked at, 3000 passed, 2 \
             bypassed, 1 header copied, 1 lost to the sensor"
        );
        assert_eq!(to_story(&Record::Coverage(Box::new(coverage()))), "");
    }
}

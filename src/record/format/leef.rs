//! QRadar's Log Event Extended Format 2.0. The delimiter is `^` and not the usual tab, so that no
//! control character stands in the line; LEEF knows no escape, so a `^` in a value becomes U+FFFD.
//! At most 2048 bytes: long texts are cut.

use std::fmt::Display;

use super::line::{NAME_BYTES, SENTENCE_BYTES, append, evidence_words, with_colons};
use super::severity::Severity;
use crate::record::coverage::coverage_message;
use crate::record::emission::Emission;
use crate::record::{CoverageRecord, Record, ResetRecord, community_id};
use crate::time::Timestamp;

/// Between fields; QRadar takes any single character that the header names.
const DELIMITER: char = '^';
/// `devTimeFormat` as `SimpleDateFormat` reads it, and the same for `strftime`.
const TIME_FORMAT: (&str, &str) = ("MMM dd yyyy HH:mm:ss.SSS zzz", "%b %d %Y %H:%M:%S%.3f UTC");

/// An event under construction.
struct Leef {
    text: String,
    /// Where the fields begin. Not told by a bar at the end: a value may end in one too.
    fields: usize,
}

impl Leef {
    fn new(event: &str) -> Self {
        let text = format!(
            "LEEF:2.0|rstscope|rstscope|{}|{event}|{DELIMITER}|",
            env!("CARGO_PKG_VERSION")
        );
        Self {
            fields: text.len(),
            text,
        }
    }

    fn text(&mut self, key: &'static str, value: &str, bytes: usize) {
        if self.text.len() > self.fields {
            self.text.push(DELIMITER);
        }
        self.text.push_str(key);
        self.text.push('=');
        append(&mut self.text, value, bytes, |out, c| {
            out.push(if c == DELIMITER {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            });
        });
    }

    fn text_if(&mut self, key: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(key, value, NAME_BYTES);
        }
    }

    fn shown(&mut self, key: &'static str, value: impl Display) {
        self.text(key, &value.to_string(), NAME_BYTES);
    }

    fn shown_if(&mut self, key: &'static str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.shown(key, value);
        }
    }

    /// What every event begins with.
    fn begin(&mut self, category: &str, severity: Severity, time: Timestamp, emission: &Emission) {
        self.text("cat", category, NAME_BYTES);
        self.shown("sev", severity.of_ten());
        self.shown(
            "devTime",
            emission.wall(time).exact().strftime(TIME_FORMAT.1),
        );
        self.text("devTimeFormat", TIME_FORMAT.0, NAME_BYTES);
        self.text_if("identHostName", emission.observer.hostname.as_deref());
    }
}

/// A record as LEEF.
#[must_use]
pub fn leef(record: &Record, emission: &Emission) -> String {
    match record {
        Record::Reset(reset) => reset_leef(reset, emission),
        Record::Coverage(coverage) => coverage_leef(coverage, emission),
    }
}

fn reset_leef(record: &ResetRecord, emission: &Emission) -> String {
    let mut event = Leef::new(&format!("reset-{}", record.verdict.name()));
    let severity = Severity::of(record);
    event.begin("tcp-reset", severity, record.start, emission);
    event.text("proto", "TCP", NAME_BYTES);
    event.shown("src", record.source.address);
    event.shown("srcPort", record.source.port);
    event.shown("dst", record.destination.address);
    event.shown("dstPort", record.destination.port);
    event.shown_if("srcMAC", record.source_mac.map(with_colons));
    event.shown_if("dstMAC", record.destination_mac.map(with_colons));
    event.shown_if("srcBytes", record.bytes_in);
    event.shown_if("dstBytes", record.bytes_out);
    event.text("verdict", record.verdict.name(), NAME_BYTES);
    event.text_if("cause", record.cause.map(|cause| cause.name()));
    event.shown("confidence", format_args!("{:.4}", record.confidence));
    event.text("stage", record.stage.name(), NAME_BYTES);
    event.shown("resets", record.reset_count);
    if let Some(many) = &record.aggregate {
        event.shown("flows", many.flows);
        event.shown("network", many.network);
    }
    event.text_if(
        "communityId",
        community_id(record.source, record.destination).as_deref(),
    );
    event.shown("eventId", emission.event_id(record.sequence));
    let direction = record
        .incoming
        .map(|incoming| if incoming { "ingress" } else { "egress" });
    event.text_if("direction", direction);
    for (key, interface) in [
        ("inInterface", record.ingress_interface),
        ("outInterface", record.egress_interface),
    ] {
        event.text_if(
            key,
            interface.and_then(|id| emission.observer.interface(id)),
        );
    }
    if let Some(process) = record.process {
        event.text("process", &process.name(), NAME_BYTES);
        event.shown("pid", process.pid);
    }
    event.text_if("container", record.container.as_deref());
    event.text_if("ownDevice", record.device.as_deref());
    if !record.evidence.is_empty() {
        let words = evidence_words(&record.evidence);
        event.text("evidence", &words, SENTENCE_BYTES);
    }
    event.text("msg", &record.message, SENTENCE_BYTES);
    event.text
}

fn coverage_leef(record: &CoverageRecord, emission: &Emission) -> String {
    let mut event = Leef::new("coverage");
    let severity = Severity::of_coverage(record);
    event.begin("sensor-coverage", severity, record.end, emission);
    event.text_if("inInterface", emission.observer.interface(record.interface));
    event.shown("observed", record.observed);
    event.shown_if("passed", record.passed);
    event.shown("bypassed", record.bypassed);
    event.shown("copied", record.copied);
    event.shown("lost", record.lost);
    event.shown("complete", record.complete);
    event.shown("eventId", emission.event_id(record.sequence));
    event.text("msg", &coverage_message(record, emission), SENTENCE_BYTES);
    event.text
}

#[cfg(test)]
mod tests {
    use super::leef;
    use crate::record::Record;
    use crate::record::sample::{coverage, emission, injected};

    #[test]
    fn a_reset_stands_in_the_predefined_keys() {
        let line = leef(&Record::Reset(Box::new(injected())), &emission());
        let version = env!("CARGO_PKG_VERSION");
        assert!(
            line.starts_with(&format!(
                "LEEF:2.0|rstscope|rstscope|{version}|reset-injected|^|cat=tcp-reset^sev=8\
                 ^devTime=May 09 2026 02:31:06.833 UTC^devTimeFormat=MMM dd yyyy HH:mm:ss.SSS zzz\
                 ^identHostName=lb1^proto=TCP^src=203.0.113.9^srcPort=51514^dst=198.51.100.10\
                 ^dstPort=443^srcMAC=02:00:00:00:00:AB^srcBytes=0^"
            )),
            "{line}"
        );
    }

    #[test]
    fn a_delimiter_in_a_value_forges_no_field() {
        let mut record = injected();
        record.message = "a^dst=192.0.2.1\tb\nLEEF:2.0|x".to_owned();
        let line = leef(&Record::Reset(Box::new(record)), &emission());
        assert!(
            line.ends_with("^msg=a\u{fffd}dst=192.0.2.1\u{fffd}b\u{fffd}LEEF:2.0|x"),
            "{line}"
        );
    }

    #[test]
    fn coverage_tells_every_count() {
        let line = leef(&Record::Coverage(Box::new(coverage())), &emission());
        assert!(
            line.contains(
                "^inInterface=up0^observed=12^passed=3000^bypassed=2^copied=1^lost=1\
                 ^complete=false^eventId=host-boot-43^msg="
            ),
            "{line}"
        );
    }
}

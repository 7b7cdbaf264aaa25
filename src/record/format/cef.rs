//! ArcSight's Common Event Format, version 0, with the keys of its dictionary and no others: custom
//! strings carry what it has no key for. IPv6 addresses stand in the custom IPv6 fields, because `src`
//! and `dst` are IPv4 addresses there. At most 2048 bytes: long texts are cut.

use std::fmt::{Display, Write};
use std::net::IpAddr;

use super::line::{NAME_BYTES, SENTENCE_BYTES, append, evidence_words, with_colons};
use super::severity::Severity;
use crate::flow::Endpoint;
use crate::host::ResetReason;
use crate::record::coverage::coverage_message;
use crate::record::emission::Emission;
use crate::record::{CoverageRecord, Record, ResetRecord, community_id};

/// An event under construction.
struct Cef {
    text: String,
    /// Where the extension begins. Not told by a bar at the end: a value may end in one too.
    extension: usize,
}

impl Cef {
    /// The header. Its parts are this program's own words; they are escaped all the same.
    fn new(signature: &str, name: &str, severity: Severity) -> Self {
        let mut text = "CEF:0".to_owned();
        let severity = severity.of_ten().to_string();
        let version = env!("CARGO_PKG_VERSION");
        for part in [
            "rstscope", "rstscope", version, signature, name, &severity, "",
        ] {
            text.push('|');
            append(&mut text, part, NAME_BYTES, |out, c| {
                if matches!(c, '|' | '\\') {
                    out.push('\\');
                }
                out.push(c);
            });
        }
        Self {
            extension: text.len(),
            text,
        }
    }

    fn key(&mut self, key: &'static str) {
        if self.text.len() > self.extension {
            self.text.push(' ');
        }
        self.text.push_str(key);
        self.text.push('=');
    }

    fn text(&mut self, key: &'static str, value: &str, bytes: usize) {
        self.key(key);
        append(&mut self.text, value, bytes, |out, c| {
            if matches!(c, '=' | '\\') {
                out.push('\\');
            }
            out.push(c);
        });
    }

    fn text_if(&mut self, key: &'static str, value: Option<&str>, bytes: usize) {
        if let Some(value) = value {
            self.text(key, value, bytes);
        }
    }

    /// What prints without a character that needs an escape: numbers, addresses.
    fn plain(&mut self, key: &'static str, value: impl Display) {
        self.key(key);
        // Writing to a String cannot fail.
        let _ = write!(self.text, "{value}");
    }

    fn plain_if(&mut self, key: &'static str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.plain(key, value);
        }
    }

    /// A custom field and its label.
    fn custom(
        &mut self,
        keys: (&'static str, &'static str),
        label: &'static str,
        value: &str,
        bytes: usize,
    ) {
        self.text(keys.0, value, bytes);
        self.text(keys.1, label, NAME_BYTES);
    }
}

/// A record as CEF.
#[must_use]
pub fn cef(record: &Record, emission: &Emission) -> String {
    match record {
        Record::Reset(reset) => reset_cef(reset, emission),
        Record::Coverage(coverage) => coverage_cef(coverage, emission),
    }
}

fn reset_cef(record: &ResetRecord, emission: &Emission) -> String {
    let verdict = record.verdict.name();
    let signature = match record.cause {
        Some(cause) => format!("reset-{verdict}-{}", cause.name()),
        None => format!("reset-{verdict}"),
    };
    let name = format!("TCP reset {}", super::judgement(record));
    let mut event = Cef::new(&signature, &name, Severity::of(record));
    event.plain("rt", emission.millis(record.start));
    event.plain("start", emission.millis(record.start));
    event.plain("end", emission.millis(record.end));
    event.plain("cat", format_args!("reset/{verdict}"));
    event.plain("act", "reset");
    event.plain("proto", "TCP");
    endpoints(&mut event, record);
    event.plain_if("cnt", Some(record.reset_count));
    event.plain_if("in", record.bytes_in);
    event.plain_if("out", record.bytes_out);
    event.plain_if(
        "deviceDirection",
        record.incoming.map(|incoming| u8::from(!incoming)),
    );
    event.text_if("reason", record.cause.map(|cause| cause.name()), NAME_BYTES);
    process(&mut event, record);
    observer(&mut event, emission);
    for (key, interface) in [
        ("deviceInboundInterface", record.ingress_interface),
        ("deviceOutboundInterface", record.egress_interface),
    ] {
        let name = interface.and_then(|id| emission.observer.interface(id));
        event.text_if(key, name, NAME_BYTES);
    }
    customs(&mut event, record, emission);
    event.text("msg", &record.message, SENTENCE_BYTES);
    event.text
}

fn endpoints(event: &mut Cef, record: &ResetRecord) {
    let mut address = |end: Endpoint,
                       v4: &'static str,
                       v6: (&'static str, &'static str),
                       label,
                       port: &'static str| {
        match end.address {
            IpAddr::V4(address) => event.plain(v4, address),
            IpAddr::V6(address) => {
                event.plain(v6.0, address);
                event.plain(v6.1, label);
            }
        }
        event.plain(port, end.port);
    };
    address(
        record.source,
        "src",
        ("c6a2", "c6a2Label"),
        "Source IPv6 Address",
        "spt",
    );
    address(
        record.destination,
        "dst",
        ("c6a3", "c6a3Label"),
        "Destination IPv6 Address",
        "dpt",
    );
    event.plain_if("smac", record.source_mac.map(with_colons));
    event.plain_if("dmac", record.destination_mac.map(with_colons));
}

/// The local process: at the source of a reset that left, at the destination of one that came.
fn process(event: &mut Cef, record: &ResetRecord) {
    if let (Some(process), Some(incoming)) = (record.process, record.incoming) {
        let (name, pid) = if incoming {
            ("dproc", "dpid")
        } else {
            ("sproc", "spid")
        };
        event.text(name, &process.name(), NAME_BYTES);
        event.plain(pid, process.pid);
    }
}

fn observer(event: &mut Cef, emission: &Emission) {
    event.text_if("dvchost", emission.observer.hostname.as_deref(), NAME_BYTES);
}

fn customs(event: &mut Cef, record: &ResetRecord, emission: &Emission) {
    if let Some(id) = community_id(record.source, record.destination) {
        event.custom(("cs1", "cs1Label"), "communityId", &id, NAME_BYTES);
    }
    event.custom(
        ("cs2", "cs2Label"),
        "verdict",
        record.verdict.name(),
        NAME_BYTES,
    );
    if !record.evidence.is_empty() {
        let words = evidence_words(&record.evidence);
        event.custom(("cs3", "cs3Label"), "evidence", &words, SENTENCE_BYTES);
    }
    event.custom(
        ("cs4", "cs4Label"),
        "stage",
        record.stage.name(),
        NAME_BYTES,
    );
    if let Some(reason) = record.kernel.reset_reason {
        let words = match reason {
            ResetReason::Other(number) => number.to_string(),
            ResetReason::Known(_) => reason.name().unwrap_or_default().to_owned(),
        };
        event.custom(("cs5", "cs5Label"), "kernelReason", &words, NAME_BYTES);
    }
    event_id(event, emission, record.sequence);
    event.plain("cfp1", format_args!("{:.4}", record.confidence));
    event.plain("cfp1Label", "confidence");
}

/// In a custom string: `externalId` holds 40 characters, and what tells two ids apart is the end.
fn event_id(event: &mut Cef, emission: &Emission, sequence: u64) {
    let id = emission.event_id(sequence);
    event.custom(("cs6", "cs6Label"), "eventId", &id, NAME_BYTES);
}

fn coverage_cef(record: &CoverageRecord, emission: &Emission) -> String {
    let mut event = Cef::new("coverage", "Sensor coverage", Severity::of_coverage(record));
    event.plain("rt", emission.millis(record.end));
    event.plain("start", emission.millis(record.start));
    event.plain("end", emission.millis(record.end));
    event.plain("cat", "coverage");
    let outcome = if record.complete { "complete" } else { "gaps" };
    event.plain("outcome", outcome);
    observer(&mut event, emission);
    let interface = emission.observer.interface(record.interface);
    event.text_if("deviceInboundInterface", interface, NAME_BYTES);
    for (keys, label, count) in [
        (("cn1", "cn1Label"), "observed", record.observed),
        (("cn2", "cn2Label"), "bypassed", record.bypassed),
        (("cn3", "cn3Label"), "lost", record.lost),
    ] {
        event.plain(keys.0, count);
        event.plain(keys.1, label);
    }
    event_id(&mut event, emission, record.sequence);
    event.text("msg", &coverage_message(record, emission), SENTENCE_BYTES);
    event.text
}

#[cfg(test)]
mod tests {
    use super::cef;
    use crate::record::Record;
    use crate::record::sample::{coverage, emission, injected};

    #[test]
    fn a_reset_stands_in_the_dictionarys_keys() {
        let line = cef(&Record::Reset(Box::new(injected())), &emission());
        let version = env!("CARGO_PKG_VERSION");
        assert!(
            line.starts_with(&format!(
                "CEF:0|rstscope|rstscope|{version}|reset-injected-on_path|TCP reset injected \
                 (on path)|8|rt=1778293866833 start=1778293866833 end=1778293866833 \
                 cat=reset/injected act=reset proto=TCP src=203.0.113.9 spt=51514 \
                 dst=198.51.100.10 dpt=443 smac=02:00:00:00:00:AB cnt=2 in=0 \
                 out=18446744073709551615 deviceDirection=0 reason=on_path \
                 dproc=ng\u{fffd}inx dpid=7 dvchost=lb1 deviceInboundInterface=up0 cs1="
            )),
            "{line}"
        );
        assert!(
            line.contains(
                " cs1=1:AmNVnFw8Q4XsrblguNcRicNO9g4\\= cs1Label=communityId cs2=injected "
            ),
            "{line}"
        );
    }

    #[test]
    fn bars_equal_signs_and_backslashes_forge_nothing() {
        let mut record = injected();
        record.message = "a|b dst=192.0.2.1 \\=\nCEF:0|x".to_owned();
        let line = cef(&Record::Reset(Box::new(record)), &emission());
        assert!(
            line.ends_with(" msg=a|b dst\\=192.0.2.1 \\\\\\=\u{fffd}CEF:0|x"),
            "{line}"
        );
    }

    #[test]
    fn ipv6_stands_in_the_custom_address_fields() {
        let mut record = injected();
        record.source.address = "2001:db8::1".parse().unwrap();
        record.destination.address = "2001:db8::2".parse().unwrap();
        let line = cef(&Record::Reset(Box::new(record)), &emission());
        assert!(line.contains(" c6a2=2001:db8::1 c6a2Label=Source IPv6 Address spt=51514 "));
        assert!(line.contains(" c6a3=2001:db8::2 c6a3Label=Destination IPv6 Address dpt=443 "));
        assert!(!line.contains(" src=") && !line.contains(" dst="));
    }

    #[test]
    fn coverage_tells_the_gap() {
        let line = cef(&Record::Coverage(Box::new(coverage())), &emission());
        assert!(line.contains("|coverage|Sensor coverage|3|rt="), "{line}");
        assert!(line.contains(" outcome=gaps ") && line.contains(" cn3=1 cn3Label=lost "));
    }
}

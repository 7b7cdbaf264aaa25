//! Open Cybersecurity Schema Framework 1.8.0. A forged reset is a Detection Finding (2004), any other
//! a Network Activity (4001, Reset or Refuse), a coverage record a Base Event (0). One record is one
//! event. What OCSF has no name for stands under `unmapped.rstscope` as in the native form.

use super::severity::{Severity, confidence};
use super::{ends, judgement, source_opened};
use crate::evidence::Circumstances;
use crate::flow::Endpoint;
use crate::record::Manner;
use crate::record::advice::Judged;
use crate::record::coverage::{self, coverage_message};
use crate::record::emission::Emission;
use crate::record::json::{self, never_opened};
use crate::record::one_line::one_line;
use crate::record::writer::{Object, object, rounded};
use crate::record::{CoverageRecord, Record, ResetRecord, community_id};
use crate::time::Timestamp;
use crate::verdict::{Cause, Verdict};
use crate::wire::Flags;
use crate::wire::ipv4::PROTOCOL_TCP;

/// `metadata.version`.
pub const OCSF_VERSION: &str = "1.8.0";

/// An event class and what happened, with captions as the schema has them.
struct Kind {
    category: (u32, &'static str),
    class: (u32, &'static str),
    activity: (u32, &'static str),
}

const RESET: Kind = Kind {
    category: (4, "Network Activity"),
    class: (4001, "Network Activity"),
    activity: (3, "Reset"),
};
const REFUSE: Kind = Kind {
    activity: (5, "Refuse"),
    ..RESET
};
const FINDING: Kind = Kind {
    category: (2, "Findings"),
    class: (2004, "Detection Finding"),
    activity: (1, "Create"),
};
const COVERAGE: Kind = Kind {
    category: (0, "Uncategorized"),
    class: (0, "Base Event"),
    activity: (99, "Sensor Coverage"),
};

/// What every event has.
struct Common<'a> {
    kind: Kind,
    severity: Severity,
    time: Timestamp,
    start: Timestamp,
    end: Timestamp,
    message: &'a str,
    log: &'static str,
    sequence: u64,
}

/// A record as OCSF.
#[must_use]
pub fn ocsf(record: &Record, emission: &Emission) -> String {
    match record {
        Record::Reset(reset) if reset.verdict == Verdict::Injected => finding(reset, emission),
        Record::Reset(reset) => activity(reset, emission),
        Record::Coverage(record) => coverage(record, emission),
    }
}

fn common(o: &mut Object, common: &Common<'_>, emission: &Emission) {
    let Kind {
        category,
        class,
        activity,
    } = common.kind;
    o.number("activity_id", activity.0);
    o.text("activity_name", activity.1);
    o.number("category_uid", category.0);
    o.text("category_name", category.1);
    o.number("class_uid", class.0);
    o.text("class_name", class.1);
    o.number("type_uid", class.0 * 100 + activity.0);
    o.shown("type_name", format_args!("{}: {}", class.1, activity.1));
    let (id, caption) = common.severity.ocsf();
    o.number("severity_id", id);
    o.text("severity", caption);
    o.number("time", emission.millis(common.time));
    o.number("start_time", emission.millis(common.start));
    o.number("end_time", emission.millis(common.end));
    o.number(
        "duration",
        emission.millis(common.end) - emission.millis(common.start),
    );
    o.text("message", &one_line(common.message));
    o.object("metadata", |o| {
        o.text("version", OCSF_VERSION);
        o.object("product", |o| {
            o.text("name", "rstscope");
            o.text("vendor_name", "rstscope");
            o.text("version", env!("CARGO_PKG_VERSION"));
        });
        o.text("uid", &emission.event_id(common.sequence));
        o.text("log_name", common.log);
        o.texts("profiles", &["host"]);
    });
}

/// The host that looked. What kind of device it is, the sensor does not know.
fn device(o: &mut Object, emission: &Emission, interface: Option<&str>) {
    if let Some(hostname) = &emission.observer.hostname {
        o.object("device", |o| {
            o.text("hostname", &one_line(hostname));
            o.number("type_id", 0_u8);
            o.text_if("interface_name", interface.map(one_line).as_deref());
        });
    }
}

fn reset_common(kind: Kind, record: &ResetRecord) -> Common<'_> {
    Common {
        kind,
        severity: Severity::of(record),
        time: record.start,
        start: record.start,
        end: record.end,
        message: &record.message,
        log: "rstscope.reset",
        sequence: record.sequence,
    }
}

fn reset_device(o: &mut Object, record: &ResetRecord, emission: &Emission) {
    let interface = record.ingress_interface.or(record.egress_interface);
    device(
        o,
        emission,
        interface.and_then(|id| emission.observer.interface(id)),
    );
}

fn unmapped(o: &mut Object, record: &ResetRecord, emission: &Emission) {
    o.object("unmapped", |o| {
        o.object("rstscope", |o| json::rstscope(o, record, emission));
        if !is_actor(record) {
            process(o, record);
        }
        container(o, record);
    });
}

/// Whether the process sent the reset. Of other verdicts it is the one that was hit; where the kernel answered what came
/// too late, the one that had closed the connection.
fn is_actor(record: &ResetRecord) -> bool {
    record.verdict == Verdict::Local && Circumstances::of(&record.evidence).closed.is_none()
}

fn process(o: &mut Object, record: &ResetRecord) {
    if let Some(process) = record.process {
        o.object("process", |o| {
            o.number("pid", process.pid);
            let name = process.name();
            o.text_if("name", (!name.is_empty()).then_some(&*one_line(&name)));
        });
    }
}

/// Its container, by the full id.
fn container(o: &mut Object, record: &ResetRecord) {
    if let Some(container) = &record.container {
        o.object("container", |o| o.text("uid", &one_line(container)));
    }
}

fn activity(record: &ResetRecord, emission: &Emission) -> String {
    let refused = never_opened(record);
    let kind = if refused { REFUSE } else { RESET };
    object(|o| {
        common(o, &reset_common(kind, record), emission);
        o.number("count", record.reset_count);
        connection(o, record);
        o.flag_if(
            "is_src_dst_assignment_known",
            Some(record.client.is_some() && record.server.is_some()),
        );
        reset_device(o, record, emission);
        if is_actor(record) {
            o.object("actor", |o| process(o, record));
        }
        unmapped(o, record, emission);
    })
}

/// Endpoints by their roles in the connection; the fields of the frame at the one that it bears.
fn connection(o: &mut Object, record: &ResetRecord) {
    let (src, dst) = ends(record);
    for (key, end) in [("src_endpoint", src), ("dst_endpoint", dst)] {
        o.object(key, |o| endpoint(o, end, record));
    }
    o.object("connection_info", |o| connection_info(o, record));
}

fn endpoint(o: &mut Object, end: Endpoint, record: &ResetRecord) {
    o.shown("ip", end.address);
    o.number("port", end.port);
    let mac = if end == record.source {
        record.source_mac
    } else {
        record.destination_mac
    };
    if let Some(mac) = mac {
        o.shown("mac", mac);
    }
    if let (true, Some(vlan)) = (end == record.source, record.vlan) {
        o.shown("vlan_uid", vlan);
    }
}

fn connection_info(o: &mut Object, record: &ResetRecord) {
    // Of the connection, not of the reset: who opened it decides.
    let (id, caption) = match (source_opened(record), record.incoming) {
        (Some(source_opened), Some(incoming)) if source_opened == incoming => (1, "Inbound"),
        (Some(_), Some(_)) => (2, "Outbound"),
        _ => (0, "Unknown"),
    };
    o.number("direction_id", id);
    o.text("direction", caption);
    o.text_if(
        "community_uid",
        community_id(record.source, record.destination).as_deref(),
    );
    o.text("protocol_name", "tcp");
    o.number("protocol_num", PROTOCOL_TCP);
    let version = if record.source.address.is_ipv4() {
        4
    } else {
        6
    };
    o.number("protocol_ver_id", version);
    if let Some(first) = record.resets.first() {
        let Flags(bits) = first.segment.flags;
        o.number("tcp_flags", bits);
    }
}

fn finding(record: &ResetRecord, emission: &Emission) -> String {
    object(|o| {
        common(o, &reset_common(FINDING, record), emission);
        o.number("count", record.reset_count);
        o.flag_if("is_alert", Some(true));
        o.number("status_id", 1_u8);
        o.text("status", "New");
        let (id, caption) = confidence(record.confidence);
        o.number("confidence_id", id);
        o.text("confidence", caption);
        // 0 to 100: well within what the cast holds.
        #[expect(
            clippy::cast_possible_truncation,
            reason = "`as` saturates, and a confidence is 0 to 1"
        )]
        let score = rounded(record.confidence * 100.0, 0) as i64;
        o.number("confidence_score", score);
        o.object("finding_info", |o| finding_info(o, record, emission));
        let evidence = [record];
        o.objects("evidences", &evidence, |record, o| {
            connection(o, record);
            process(o, record);
            container(o, record);
        });
        // Only what is forged is a finding: no reason of this kernel's, and no SYN that it answered.
        let judged = Judged {
            verdict: record.verdict.name(),
            cause: record.cause.map(Cause::name),
            reason: None,
            answers_syn: false,
            manner: Manner::Plain,
            device: record.device.as_deref(),
        };
        o.object("remediation", |o| {
            o.text("desc", &one_line(&judged.next_step()));
        });
        reset_device(o, record, emission);
        o.object("unmapped", |o| {
            o.object("rstscope", |o| json::rstscope(o, record, emission));
        });
    })
}

fn finding_info(o: &mut Object, record: &ResetRecord, emission: &Emission) {
    o.text("uid", &emission.event_id(record.sequence));
    o.shown("title", format_args!("TCP reset {}", judgement(record)));
    o.text("desc", &one_line(&record.message));
    o.texts("types", &["TCP reset injection"]);
    o.number("first_seen_time", emission.millis(record.start));
    o.number("last_seen_time", emission.millis(record.end));
    o.object("analytic", |o| {
        o.text("name", "rstscope");
        o.text("version", env!("CARGO_PKG_VERSION"));
        // Statistical: likelihood ratios are added up.
        o.number("type_id", 3_u8);
    });
    let events: Vec<u64> = record.related.iter().filter_map(|one| one.record).collect();
    o.objects("related_events", &events, |sequence, o| {
        o.text("uid", &emission.event_id(*sequence));
    });
}

fn coverage(record: &CoverageRecord, emission: &Emission) -> String {
    let message = coverage_message(record, emission);
    object(|o| {
        let event = Common {
            kind: COVERAGE,
            severity: Severity::of_coverage(record),
            time: record.end,
            start: record.start,
            end: record.end,
            message: &message,
            log: "rstscope.coverage",
            sequence: record.sequence,
        };
        common(o, &event, emission);
        device(o, emission, emission.observer.interface(record.interface));
        o.object("unmapped", |o| {
            o.object("rstscope", |o| coverage::coverage(o, record));
        });
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::ocsf;
    use crate::record::sample::{coverage, emission, injected};
    use crate::record::{Record, ResetRecord};
    use crate::verdict::{Cause, Stage, Verdict};

    fn read(record: ResetRecord) -> Value {
        let line = ocsf(&Record::Reset(Box::new(record)), &emission());
        serde_json::from_str(&line).unwrap()
    }

    #[test]
    fn a_forged_reset_is_a_finding_with_what_to_do() {
        let event = read(injected());
        assert_eq!(event["class_uid"], 2004);
        assert_eq!(event["type_uid"], 200_401);
        assert_eq!(event["severity_id"], 4);
        assert_eq!(event["confidence_score"], 97);
        assert_eq!(event["finding_info"]["uid"], "host-boot-42");
        assert_eq!(
            event["finding_info"]["related_events"],
            json!([{"uid": "host-boot-41"}])
        );
        let evidence = &event["evidences"][0];
        assert_eq!(evidence["src_endpoint"]["ip"], "203.0.113.9");
        assert_eq!(evidence["connection_info"]["direction_id"], 1);
        assert!(
            event["remediation"]["desc"]
                .as_str()
                .unwrap()
                .contains("fw1")
        );
        assert_eq!(event["unmapped"]["rstscope"]["verdict"], "injected");
    }

    #[test]
    fn another_is_network_activity_with_endpoints_by_their_roles() {
        let mut record = injected();
        record.verdict = Verdict::Local;
        record.cause = Some(Cause::Process);
        // The server sends it: the purported sender is not the initiator.
        std::mem::swap(&mut record.source, &mut record.destination);
        record.incoming = Some(false);
        let event = read(record.clone());
        assert_eq!(event["type_uid"], 400_103);
        assert_eq!(event["src_endpoint"]["ip"], "203.0.113.9");
        assert_eq!(event["src_endpoint"].get("mac"), None);
        assert_eq!(event["dst_endpoint"]["mac"], "02-00-00-00-00-AB");
        assert_eq!(event["connection_info"]["direction_id"], 1);
        assert_eq!(event["connection_info"]["tcp_flags"], 0x14);
        assert_eq!(event["actor"]["process"]["pid"], 7);
        record.stage = Stage::Handshake;
        assert_eq!(read(record)["type_uid"], 400_105);
    }

    #[test]
    fn unknown_roles_are_said_to_be_unknown() {
        let mut record = injected();
        record.verdict = Verdict::Remote;
        (record.client, record.server) = (None, None);
        let event = read(record);
        assert_eq!(event["is_src_dst_assignment_known"], false);
        assert_eq!(event["connection_info"]["direction_id"], 0);
        assert_eq!(event.get("actor"), None);
        assert_eq!(event["unmapped"]["process"]["pid"], 7);
        assert_eq!(event["unmapped"]["container"]["uid"], "c0ffee");
    }

    #[test]
    fn coverage_is_a_base_event() {
        let line = ocsf(&Record::Coverage(Box::new(coverage())), &emission());
        let event: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(event["type_uid"], 99);
        assert_eq!(event["severity_id"], 2);
        assert_eq!(event["unmapped"]["rstscope"]["coverage"]["lost"], 1);
    }
}

//! Suricata's EVE, with the keys of Suricata 8's own schema (`etc/schema.json`) and one object of
//! ours, `rstscope`. A forged reset is an `alert`, any other a `flow`, a coverage record `stats`.
//! Counts that Suricata would have and this sensor has not (packets, bytes with headers) are absent.

use super::severity::Severity;
use super::{ends, judgement, source_opened};
use crate::record::coverage;
use crate::record::emission::Emission;
use crate::record::identity::hash;
use crate::record::json;
use crate::record::one_line::one_line;
use crate::record::writer::{Object, object};
use crate::record::{CoverageRecord, Record, ResetRecord, community_id};
use crate::time::{SECOND, Timestamp};
use crate::verdict::{Cause, Verdict};
use crate::wire::{Flags, Mac};

/// Suricata's own (`CreateIsoTimeString`): microseconds, and no colon in the zone.
const TIME_FORMAT: &str = "%Y-%m-%dT%H:%M:%S%.6f+0000";
/// Suricata keeps 51 bits of a flow's id, because readers in JavaScript hold no more
/// (`FlowGetId`, `src/flow.h`).
const FLOW_ID_BITS: u64 = (1 << 51) - 1;
/// First of the signature ids. 1,000,000 to 1,999,999 are for local rules: no published rule set has
/// them.
const SIGNATURES: u32 = 1_750_000;
/// A class of Suricata's `classification.config`.
const CATEGORY: &str = "Misc Attack";

/// A record as EVE.
#[must_use]
pub fn eve(record: &Record, emission: &Emission) -> String {
    match record {
        Record::Reset(reset) => reset_eve(reset, emission),
        Record::Coverage(coverage) => coverage_eve(coverage, emission),
    }
}

fn time(o: &mut Object, key: &'static str, time: Timestamp, emission: &Emission) {
    o.shown(key, emission.wall(time).exact().strftime(TIME_FORMAT));
}

fn host(o: &mut Object, emission: &Emission, interface: Option<&str>) {
    let hostname = emission.observer.hostname.as_deref().map(one_line);
    o.text_if("host", hostname.as_deref());
    o.text_if("in_iface", interface.map(one_line).as_deref());
}

/// The same for both directions, as Suricata's; not the number that Suricata itself would give.
fn flow_id(record: &ResetRecord) -> Option<u64> {
    let id = community_id(record.source, record.destination)?;
    Some(hash(&[id.as_bytes()]) & FLOW_ID_BITS)
}

fn reset_eve(record: &ResetRecord, emission: &Emission) -> String {
    let injected = record.verdict == Verdict::Injected;
    object(|o| {
        time(o, "timestamp", record.start, emission);
        o.number_if("flow_id", flow_id(record));
        let interface = record
            .ingress_interface
            .and_then(|id| emission.observer.interface(id));
        host(o, emission, interface);
        o.text("event_type", if injected { "alert" } else { "flow" });
        // An alert is about a packet; a flow has the direction of its first one.
        let (src, dst) = if injected {
            (record.source, record.destination)
        } else {
            ends(record)
        };
        o.shown("src_ip", src.address);
        o.number("src_port", src.port);
        o.shown("dest_ip", dst.address);
        o.number("dest_port", dst.port);
        o.text("proto", "TCP");
        o.number("ip_v", if src.address.is_ipv4() { 4 } else { 6 });
        if let Some(vlan) = record.vlan {
            o.numbers("vlan", &[u64::from(vlan)]);
        }
        o.text_if(
            "community_id",
            community_id(record.source, record.destination).as_deref(),
        );
        if injected {
            let direction =
                source_opened(record).map(
                    |to_server| {
                        if to_server { "to_server" } else { "to_client" }
                    },
                );
            o.text_if("direction", direction);
            o.object("ether", |o| ether(o, record));
            o.object("alert", |o| alert(o, record));
        } else {
            o.object("flow", |o| flow(o, record, emission));
            o.object("tcp", |o| tcp(o, record));
        }
        o.object("rstscope", |o| {
            o.text("id", &emission.event_id(record.sequence));
            o.text("message", &one_line(&record.message));
            json::rstscope(o, record, emission);
            if let Some(process) = record.process {
                o.object("process", |o| {
                    o.number("pid", process.pid);
                    o.text("name", &one_line(&process.name()));
                });
            }
            let container = record.container.as_deref().map(one_line);
            o.text_if("container", container.as_deref());
        });
    })
}

/// Suricata writes MACs in lower case with colons.
fn mac(mac: Mac) -> String {
    mac.to_string().replace('-', ":").to_lowercase()
}

fn ether(o: &mut Object, record: &ResetRecord) {
    o.text_if("src_mac", record.source_mac.map(mac).as_deref());
    o.text_if("dest_mac", record.destination_mac.map(mac).as_deref());
}

fn alert(o: &mut Object, record: &ResetRecord) {
    o.text("action", "allowed");
    o.number("gid", 1_u8);
    let number = match record.cause {
        Some(Cause::OnPath) => 1,
        Some(Cause::Blind) => 2,
        Some(Cause::Adjacent) => 3,
        Some(Cause::Middlebox) => 4,
        _ => 0,
    };
    o.number("signature_id", SIGNATURES + number);
    o.number("rev", 1_u8);
    o.shown(
        "signature",
        format_args!("rstscope TCP reset {}", judgement(record)),
    );
    o.text("category", CATEGORY);
    o.number("severity", Severity::of(record).eve());
}

fn flow(o: &mut Object, record: &ResetRecord, emission: &Emission) {
    if let Some(age) = record.age_ns {
        let began = Timestamp::from_nanos(record.start.as_nanos().saturating_sub(age));
        time(o, "start", began, emission);
    }
    time(o, "end", record.end, emission);
    o.number_if("age", record.age_ns.map(|age| age / SECOND));
    o.text("state", "closed");
    o.flag_if("alerted", Some(false));
}

fn tcp(o: &mut Object, record: &ResetRecord) {
    let bits = record
        .resets
        .iter()
        .fold(0, |bits, entry| bits | entry.segment.flags.0);
    o.shown("tcp_flags", format_args!("{bits:02x}"));
    for (key, bit) in [("rst", Flags::RST), ("ack", Flags::ACK)] {
        if bits & bit != 0 {
            o.flag_if(key, Some(true));
        }
    }
    o.text("state", "closed");
}

fn coverage_eve(record: &CoverageRecord, emission: &Emission) -> String {
    object(|o| {
        time(o, "timestamp", record.end, emission);
        host(o, emission, emission.observer.interface(record.interface));
        o.text("event_type", "stats");
        o.object("stats", |o| {
            o.object("capture", |o| {
                o.number("kernel_packets", record.observed);
                o.number("kernel_drops", record.lost);
            });
        });
        o.object("rstscope", |o| {
            o.text("id", &emission.event_id(record.sequence));
            coverage::coverage(o, record);
        });
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::eve;
    use crate::record::sample::{coverage, emission, injected};
    use crate::record::{Record, ResetRecord};
    use crate::verdict::{Cause, Verdict};

    fn read(record: ResetRecord) -> Value {
        let line = eve(&Record::Reset(Box::new(record)), &emission());
        serde_json::from_str(&line).unwrap()
    }

    #[test]
    fn a_forged_reset_is_an_alert_about_its_packet() {
        let event = read(injected());
        assert_eq!(event["timestamp"], "2026-05-09T02:31:06.833123+0000");
        assert_eq!(event["event_type"], "alert");
        assert_eq!(event["src_ip"], "203.0.113.9");
        assert_eq!(event["direction"], "to_server");
        assert_eq!(event["vlan"], json!([12]));
        assert_eq!(event["ether"], json!({"src_mac": "02:00:00:00:00:ab"}));
        assert_eq!(event["alert"]["signature_id"], 1_750_001);
        assert_eq!(
            event["alert"]["signature"],
            "rstscope TCP reset injected (on path)"
        );
        assert_eq!(event["rstscope"]["id"], "host-boot-42");
        assert_eq!(event["rstscope"]["process"]["pid"], 7);
        assert_eq!(event["rstscope"]["container"], "c0ffee");
        assert!(event["flow_id"].as_u64().unwrap() < 1 << 51);
    }

    #[test]
    fn another_is_a_flow_from_its_originator() {
        let mut record = injected();
        record.verdict = Verdict::Remote;
        record.cause = Some(Cause::Abort);
        record.age_ns = Some(2_500_000_000);
        let id = read(record.clone())["flow_id"].clone();
        std::mem::swap(&mut record.source, &mut record.destination);
        let event = read(record);
        assert_eq!(event["event_type"], "flow");
        assert_eq!(event["src_ip"], "203.0.113.9", "the client, as before");
        assert_eq!(event["flow"]["start"], "2026-05-09T02:31:04.333123+0000");
        assert_eq!(event["flow"]["age"], 2);
        assert_eq!(event["tcp"]["tcp_flags"], "14");
        assert_eq!(event["flow_id"], id, "both directions have one id");
        assert_eq!(event.get("alert"), None);
    }

    #[test]
    fn coverage_is_stats() {
        let line = eve(&Record::Coverage(Box::new(coverage())), &emission());
        let event: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(event["event_type"], "stats");
        assert_eq!(event["stats"]["capture"]["kernel_drops"], 1);
        assert_eq!(event["rstscope"]["coverage"]["complete"], false);
    }
}

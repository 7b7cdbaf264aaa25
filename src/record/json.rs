//! The JSON form of a record: docs/record.md, which follows ECS. What is not known is absent.

use super::community::community;
use super::coverage::coverage_fields;
use super::emission::{Emission, Observer};
use super::writer::{Object, append_object, object};
use super::{
    Aggregate, BaselineEntry, ECS_VERSION, Record, Related, ResetEntry, ResetRecord, SCHEMA_VERSION,
};
use crate::evidence::{Evidence, SequenceFit, Value};
use crate::flow::Endpoint;
use crate::host::ResetReason;
use crate::vantage::InterfaceId;
use crate::verdict::{Cause, PRIOR_DB, Stage, Verdict};

/// One record as one line of JSON, without the line's end.
#[must_use]
pub fn to_json(record: &Record, emission: &Emission) -> String {
    match record {
        Record::Reset(reset) => object(|o| reset_fields(o, reset, emission)),
        Record::Coverage(record) => object(|o| coverage_fields(o, record, emission)),
    }
}

/// The same at the end of `out`.
pub fn append_json(out: &mut Vec<u8>, record: &Record, emission: &Emission) {
    append_object(out, |o| match record {
        Record::Reset(reset) => reset_fields(o, reset, emission),
        Record::Coverage(record) => coverage_fields(o, record, emission),
    });
}

fn reset_fields(o: &mut Object, record: &ResetRecord, emission: &Emission) {
    o.time("@timestamp", emission.wall(record.start));
    o.object("ecs", |o| o.word("version", ECS_VERSION));
    o.line("message", &record.message);
    o.object("event", |o| event(o, record, emission));
    o.object("source", |o| {
        endpoint(o, record.source);
        if let Some(mac) = record.source_mac {
            o.mac("mac", mac);
        }
    });
    o.object("destination", |o| {
        endpoint(o, record.destination);
        if let Some(mac) = record.destination_mac {
            o.mac("mac", mac);
        }
    });
    if let Some(client) = record.client {
        o.object("client", |o| endpoint(o, client));
    }
    if let Some(server) = record.server {
        o.object("server", |o| endpoint(o, server));
    }
    o.object("network", |o| network(o, record));
    let (ingress, egress) = (record.ingress_interface, record.egress_interface);
    o.object("observer", |o| {
        observer(o, &emission.observer, ingress, egress)
    });
    if let Some(process) = record.process {
        o.object("process", |o| {
            o.number("pid", process.pid);
            let name = process.name();
            o.text_if("name", (!name.is_empty()).then_some(name.as_str()));
        });
    }
    if let Some(container) = &record.container {
        o.object("container", |o| o.line("id", container));
    }
    o.object("rstscope", |o| rstscope(o, record, emission));
}

fn event(o: &mut Object, record: &ResetRecord, emission: &Emission) {
    let injected = record.verdict == Verdict::Injected;
    o.word("kind", if injected { "alert" } else { "event" });
    o.texts(
        "category",
        if injected {
            &["network", "intrusion_detection"]
        } else {
            &["network"]
        },
    );
    let how = if never_opened(record) {
        "denied"
    } else {
        "end"
    };
    o.texts("type", &["connection", how]);
    o.word("action", action(record.verdict));
    o.time("start", emission.wall(record.start));
    o.time("end", emission.wall(record.end));
    o.number("duration", record.end.since(record.start));
    o.word("dataset", "rstscope.reset");
    o.word("module", "rstscope");
    event_id(o, record.sequence, emission);
}

pub(super) fn event_id(o: &mut Object, sequence: u64, emission: &Emission) {
    o.numbered("id", &emission.observer.id_prefix, sequence);
}

const fn action(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Local => "tcp-reset-local",
        Verdict::Remote => "tcp-reset-remote",
        Verdict::Forwarded => "tcp-reset-forwarded",
        Verdict::Injected => "tcp-reset-injected",
        Verdict::Stray => "tcp-reset-stray",
        Verdict::Undetermined => "tcp-reset-undetermined",
    }
}

/// The reset denied a connection rather than ended one.
pub(super) fn never_opened(record: &ResetRecord) -> bool {
    record.stage == Stage::Handshake || record.cause == Some(Cause::Refused)
}

fn endpoint(o: &mut Object, endpoint: Endpoint) {
    o.address("ip", endpoint.address);
    o.number("port", endpoint.port);
}

fn network(o: &mut Object, record: &ResetRecord) {
    o.word("transport", "tcp");
    o.word(
        "type",
        if record.source.address.is_ipv4() {
            "ipv4"
        } else {
            "ipv6"
        },
    );
    if let Some(incoming) = record.incoming {
        o.word("direction", direction(incoming));
    }
    if let Some(id) = community(record.source, record.destination) {
        o.plain("community_id", &id);
    }
    if let Some(vlan) = record.vlan {
        // A keyword in ECS.
        o.object("vlan", |o| o.shown("id", vlan));
    }
}

const fn direction(incoming: bool) -> &'static str {
    if incoming { "ingress" } else { "egress" }
}

pub(super) fn observer(
    o: &mut Object,
    observer: &Observer,
    ingress: Option<InterfaceId>,
    egress: Option<InterfaceId>,
) {
    if let Some(hostname) = &observer.hostname {
        o.line("hostname", hostname);
    }
    for (way, interface) in [("ingress", ingress), ("egress", egress)] {
        if let Some(name) = interface.and_then(|id| observer.interface(id)) {
            o.object(way, |o| o.object("interface", |o| o.line("name", name)));
        }
    }
    o.word("product", "rstscope");
    o.word("version", env!("CARGO_PKG_VERSION"));
    o.word("type", "sensor");
}

/// What ECS has no name for; other formats carry it as it stands.
pub(super) fn rstscope(o: &mut Object, record: &ResetRecord, emission: &Emission) {
    o.word("schema", SCHEMA_VERSION);
    o.word("verdict", record.verdict.name());
    if let Some(cause) = record.cause {
        o.word("cause", Cause::name(cause));
    }
    o.fraction("confidence", record.confidence, 4);
    if let Some(total) = record.total_db {
        o.fraction("prior_db", PRIOR_DB, 2);
        o.fraction("total_db", total, 2);
    }
    if let Some(device) = &record.device {
        o.line("device", device);
    }
    o.word("stage", record.stage.name());
    o.objects("evidence", &record.evidence, evidence);
    o.objects("resets", &record.resets, |entry, o| {
        reset(entry, o, emission)
    });
    o.number("reset_count", record.reset_count);
    if let Some(known) = &record.baseline {
        o.object("baseline", |o| baseline(o, known));
    }
    o.number_if("bytes_in", record.bytes_in);
    o.number_if("bytes_out", record.bytes_out);
    o.number_if("age_ns", record.age_ns);
    o.number_if("idle_ns", record.idle_ns);
    o.object("kernel", |o| {
        o.flag_if("accepted", record.kernel.accepted);
        if let Some(reason) = record.kernel.reset_reason {
            match (reason.name(), reason) {
                (Some(name), _) => o.text("reset_reason", name),
                (None, ResetReason::Other(number)) => o.shown("reset_reason", number),
                (None, ResetReason::Known(_)) => {}
            }
        }
        o.text_if(
            "socket_state",
            record.kernel.socket_state.map(|state| state.name()),
        );
    });
    o.objects("related", &record.related, |other, o| {
        related(other, o, emission)
    });
    if let Some(many) = &record.aggregate {
        o.object("aggregate", |o| aggregate(o, many));
    }
}

fn aggregate(o: &mut Object, many: &Aggregate) {
    o.shown("network", many.network);
    o.number("flows", many.flows);
    o.objects("sample", &many.sample, |tuple, o| {
        let end = |address, port| Endpoint { address, port };
        o.object("source", |o| endpoint(o, end(tuple.src, tuple.src_port)));
        o.object("destination", |o| {
            endpoint(o, end(tuple.dst, tuple.dst_port))
        });
    });
}

/// Observed and expected are texts even where they are numbers: one field has one type, or a store
/// that took the first record's type refuses the others.
fn evidence(item: &Evidence, o: &mut Object) {
    o.word("name", item.name);
    o.word("group", item.group.name());
    o.word("favors", item.favors.name());
    o.fraction("weight_db", item.weight_db, 2);
    for (key, value) in [("observed", &item.observed), ("expected", &item.expected)] {
        match value {
            Some(Value::Number(number)) => o.number_as_text(key, *number),
            Some(Value::Text(text)) => o.line(key, text),
            None => {}
        }
    }
}

/// The word for a sequence fit in a record.
pub(super) const fn fit_name(fit: SequenceFit) -> &'static str {
    match fit {
        SequenceFit::Exact => "exact",
        SequenceFit::InWindow => "in_window",
        SequenceFit::OutOfWindow => "out_of_window",
        SequenceFit::Unknown => "unknown",
    }
}

fn reset(entry: &ResetEntry, o: &mut Object, emission: &Emission) {
    let segment = &entry.segment;
    o.time("time", emission.wall(entry.time));
    if let Some(incoming) = entry.incoming {
        o.word("direction", direction(incoming));
    }
    o.flags("flags", segment.flags);
    o.number("seq", segment.seq.0);
    // Without the ACK flag a genuine reset has 0 there, which acknowledges nothing; another value
    // is a mark of its maker.
    if segment.flags.ack() || segment.ack.0 != 0 {
        o.number("ack", segment.ack.0);
    }
    o.word("seq_fit", fit_name(entry.fit));
    o.number_if("seq_offset", entry.offset);
    o.number("hop_limit", segment.hop_limit);
    o.number_if("ip_id", segment.ip_id);
    o.number("window", segment.window);
    if let Some(link) = segment.link {
        o.mac("mac", link.src);
    }
}

fn baseline(o: &mut Object, known: &BaselineEntry) {
    o.number_if("hop_limit", known.hop_limit);
    if let Some(mac) = known.mac {
        o.mac("mac", mac);
    }
    o.number_if("window", known.window);
    o.flag_if("timestamps", known.timestamps);
    o.word("source", known.source);
}

fn related(other: &Related, o: &mut Object, emission: &Emission) {
    if let Some(sequence) = other.record {
        event_id(o, sequence, emission);
    }
    o.object("source", |o| endpoint(o, other.source));
    o.object("destination", |o| endpoint(o, other.destination));
    o.number("delta_ns", other.delta_ns);
    o.fraction("confidence", other.confidence, 4);
    o.word("join", other.join);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::to_json;
    use crate::host::ResetReason;
    use crate::record::sample::{bare, coverage, emission, injected};
    use crate::record::{Record, ResetRecord};
    use crate::verdict::{Cause, Stage, Verdict};

    fn read(record: ResetRecord) -> Value {
        let line = to_json(&Record::Reset(Box::new(record)), &emission());
        assert!(!line.contains('\n'));
        serde_json::from_str(&line).unwrap()
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "one record with every field")]
    fn a_record_has_every_documented_field_in_its_place() {
        let expected = json!({
            "@timestamp": "2026-05-09T02:31:06.833123456Z",
            "ecs": {"version": "9.4.0"},
            "message": "a third party sent this reset \"with\" \u{fffd}another's address",
            "event": {
                "kind": "alert",
                "category": ["network", "intrusion_detection"],
                "type": ["connection", "end"],
                "action": "tcp-reset-injected",
                "start": "2026-05-09T02:31:06.833123456Z",
                "end": "2026-05-09T02:31:06.833123461Z",
                "duration": 5,
                "dataset": "rstscope.reset",
                "module": "rstscope",
                "id": "host-boot-42",
            },
            "source": {"ip": "203.0.113.9", "port": 51514, "mac": "02-00-00-00-00-AB"},
            "destination": {"ip": "198.51.100.10", "port": 443},
            "client": {"ip": "203.0.113.9", "port": 51514},
            "server": {"ip": "198.51.100.10", "port": 443},
            "network": {
                "transport": "tcp",
                "type": "ipv4",
                "direction": "ingress",
                "community_id": "1:AmNVnFw8Q4XsrblguNcRicNO9g4=",
                "vlan": {"id": "12"},
            },
            "observer": {
                "hostname": "lb1",
                "ingress": {"interface": {"name": "up0"}},
                "product": "rstscope",
                "version": env!("CARGO_PKG_VERSION"),
                "type": "sensor",
            },
            "process": {"pid": 7, "name": "ng\u{fffd}inx"},
            "container": {"id": "c0ffee"},
            "rstscope": {
                "schema": "1",
                "verdict": "injected",
                "cause": "on_path",
                "confidence": 0.97,
                "prior_db": -15.0,
                "total_db": 6.5,
                "device": "fw1",
                "stage": "established",
                "evidence": [
                    {"name": "hop_limit", "group": "hop_limit", "favors": "injected", "weight_db": 14.0,
                     "observed": "243", "expected": "52"},
                    {"name": "peer_went_on", "group": "race", "favors": "injected", "weight_db": 9.5,
                     "observed": "1.2 ms later"},
                    {"name": "exact", "group": "validity", "favors": "remote", "weight_db": 2.0},
                ],
                "resets": [
                    {"time": "2026-05-09T02:31:06.833123456Z", "direction": "ingress",
                     "flags": "RA", "seq": 4_294_967_295_u32, "ack": 7, "seq_fit": "exact",
                     "seq_offset": 0, "hop_limit": 243, "ip_id": 0, "window": 0,
                     "mac": "02-00-00-00-00-AB"},
                    {"time": "2026-05-09T02:31:06.833123461Z", "flags": "R",
                     "seq": 4_294_967_295_u32, "seq_fit": "unknown", "hop_limit": 243,
                     "window": 0},
                ],
                "reset_count": 2,
                "baseline": {"hop_limit": 52, "mac": "02-00-00-00-00-01", "window": 502,
                             "timestamps": true, "source": "syn"},
                "bytes_in": 0,
                "bytes_out": u64::MAX,
                "age_ns": 1,
                "kernel": {"accepted": true, "reset_reason": "NO_SOCKET",
                           "socket_state": "established"},
                "related": [
                    {"id": "host-boot-41", "source": {"ip": "192.0.2.1", "port": 1},
                     "destination": {"ip": "192.0.2.2", "port": 2}, "delta_ns": 3,
                     "confidence": 1.0, "join": "process"},
                ],
                "aggregate": {
                    "network": "198.51.100.0/24", "flows": 70_000,
                    "sample": [
                        {"source": {"ip": "203.0.113.9", "port": 51514},
                         "destination": {"ip": "198.51.100.10", "port": 443}},
                    ],
                },
            },
        });
        let line = to_json(&Record::Reset(Box::new(injected())), &emission());
        // The order of fields counts too: people read these lines.
        assert_eq!(line, expected.to_string());
    }

    #[test]
    fn what_is_not_known_is_absent() {
        let record = bare();
        let line = to_json(&Record::Reset(Box::new(record)), &emission());
        for absent in [
            "null",
            "\"\"",
            "[]",
            "{}",
            "client",
            "\"server\"",
            "vlan",
            "process",
            "container",
            "cause",
            "evidence",
            "baseline",
            "bytes",
            "age_ns",
            "idle_ns",
            "kernel",
            "related",
            "aggregate",
        ] {
            assert!(!line.contains(absent), "{absent} in {line}");
        }
        let record: Value = serde_json::from_str(&line).unwrap();
        assert!(record["source"].get("mac").is_none());
        assert!(record["network"].get("direction").is_none());
        assert!(record["observer"].get("ingress").is_none());
    }

    #[test]
    fn kind_and_type_follow_verdict_and_stage() {
        let remote = ResetRecord {
            verdict: Verdict::Remote,
            cause: None,
            ..injected()
        };
        let event = &read(remote.clone())["event"];
        assert_eq!(event["kind"], "event");
        assert_eq!(event["category"], json!(["network"]));
        assert_eq!(event["type"], json!(["connection", "end"]));
        assert_eq!(event["action"], "tcp-reset-remote");
        let refused = ResetRecord {
            cause: Some(Cause::Refused),
            ..remote.clone()
        };
        assert_eq!(
            read(refused)["event"]["type"],
            json!(["connection", "denied"])
        );
        let handshake = ResetRecord {
            stage: Stage::Handshake,
            ..remote
        };
        assert_eq!(
            read(handshake)["event"]["type"],
            json!(["connection", "denied"])
        );
    }

    #[test]
    fn a_reason_that_only_the_kernel_knows_is_its_number() {
        let mut record = injected();
        record.kernel.reset_reason = Some(ResetReason::Other(99));
        assert_eq!(read(record)["rstscope"]["kernel"]["reset_reason"], "99");
    }

    #[test]
    fn times_at_the_ends_of_the_clock_still_print() {
        for (nanos, offset) in [(0, i64::MIN), (u64::MAX, i64::MAX), (0, 0)] {
            let time = crate::time::Timestamp::from_nanos(nanos);
            let mut emission = emission();
            emission.wall_offset_ns = offset;
            let record = ResetRecord {
                start: time,
                end: time,
                ..injected()
            };
            let line = to_json(&Record::Reset(Box::new(record)), &emission);
            let read: Value = serde_json::from_str(&line).unwrap();
            let text = read["@timestamp"].as_str().unwrap();
            assert!(text.ends_with('Z') && text.len() == 30, "{text}");
        }
    }

    #[test]
    fn coverage_is_a_metric_of_its_own_dataset() {
        let line = to_json(&Record::Coverage(Box::new(coverage())), &emission());
        let read: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["event"]["kind"], "metric");
        assert_eq!(read["event"]["dataset"], "rstscope.coverage");
        assert_eq!(read["@timestamp"], "2026-05-09T02:31:16.000000000Z");
        assert_eq!(read["observer"]["ingress"]["interface"]["name"], "up0");
        assert_eq!(
            read["rstscope"]["coverage"],
            json!({"observed": 12, "passed": 3000, "bypassed": 2, "copied": 1, "lost": 1,
                   "complete": false})
        );
        assert!(read["rstscope"].get("verdict").is_none());
    }
}

//! The JSON form of a record: docs/record.md, which follows ECS. What is not known is absent.

use super::community::community;
use super::coverage::coverage_fields;
use super::emission::{Emission, Observer};
use super::fact::fact;
use super::writer::{Key, Object, Written, append_object, key, object};
use super::{
    Aggregate, BaselineEntry, ECS_VERSION, Record, Related, ResetEntry, ResetRecord, SCHEMA_VERSION,
};
use crate::evidence::SequenceFit;
use crate::flow::Endpoint;
use crate::host::ResetReason;
use crate::vantage::InterfaceId;
use crate::verdict::{Cause, PRIOR_DB, Stage, Verdict};
use crate::wire::Mac;

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
    o.time(key!("@timestamp"), emission.wall(record.start));
    ecs(o);
    o.line(key!("message"), &record.message);
    o.object(key!("event"), |o| event(o, record, emission));
    let ends = [
        ended(o, key!("source"), record.source, record.source_mac),
        ended(
            o,
            key!("destination"),
            record.destination,
            record.destination_mac,
        ),
    ];
    role(o, key!("client"), record.client, &ends);
    role(o, key!("server"), record.server, &ends);
    o.object(key!("network"), |o| network(o, record));
    let (ingress, egress) = (record.ingress_interface, record.egress_interface);
    o.object(key!("observer"), |o| {
        observer(o, &emission.observer, ingress, egress)
    });
    if let Some(process) = record.process {
        o.object(key!("process"), |o| {
            o.number(key!("pid"), process.pid);
            let name = process.name();
            o.text_if(key!("name"), (!name.is_empty()).then_some(name.as_str()));
            if let Some(name) = process.thread_name() {
                o.object(key!("thread"), |o| {
                    o.number(key!("id"), process.thread);
                    o.text(key!("name"), &name);
                });
            }
        });
    }
    if let Some(container) = &record.container {
        o.object(key!("container"), |o| o.line(key!("id"), container));
    }
    o.object(key!("rstscope"), |o| rstscope(o, record, emission));
}

/// One end of the connection; answers where it stands.
#[inline(always)]
fn ended(o: &mut Object, key: Key, end: Endpoint, mac: Option<Mac>) -> (Endpoint, Written) {
    let mut written = Written::default();
    o.object(key, |o| {
        written = o.written(|o| endpoint(o, end));
        if let Some(mac) = mac {
            o.mac(key!("mac"), mac);
        }
    });
    (end, written)
}

/// The end that called, or was called: nearly always one of the two that were just written.
#[inline(always)]
fn role(o: &mut Object, key: Key, role: Option<Endpoint>, ends: &[(Endpoint, Written); 2]) {
    let Some(role) = role else {
        return;
    };
    match ends.iter().find(|(end, _)| *end == role) {
        Some((_, written)) => o.object(key, |o| o.again(written)),
        None => o.object(key, |o| endpoint(o, role)),
    }
}

pub(super) fn ecs(o: &mut Object) {
    o.object(key!("ecs"), |o| o.word(key!("version"), ECS_VERSION));
}

fn event(o: &mut Object, record: &ResetRecord, emission: &Emission) {
    if record.verdict == Verdict::Injected {
        o.ready(r#""kind":"alert","category":["network","intrusion_detection"],"#);
    } else {
        o.ready(r#""kind":"event","category":["network"],"#);
    }
    if never_opened(record) {
        o.ready(r#""type":["connection","denied"],"#);
    } else {
        o.ready(r#""type":["connection","end"],"#);
    }
    match record.verdict {
        Verdict::Local => o.ready(r#""action":"tcp-reset-local","#),
        Verdict::Remote => o.ready(r#""action":"tcp-reset-remote","#),
        Verdict::Forwarded => o.ready(r#""action":"tcp-reset-forwarded","#),
        Verdict::Injected => o.ready(r#""action":"tcp-reset-injected","#),
        Verdict::Stray => o.ready(r#""action":"tcp-reset-stray","#),
        Verdict::Undetermined => o.ready(r#""action":"tcp-reset-undetermined","#),
    }
    o.time(key!("start"), emission.wall(record.start));
    o.time(key!("end"), emission.wall(record.end));
    o.number(key!("duration"), record.end.since(record.start));
    o.ready(r#""dataset":"rstscope.reset","module":"rstscope","#);
    event_id(o, record.sequence, emission);
}

pub(super) fn event_id(o: &mut Object, sequence: u64, emission: &Emission) {
    o.numbered(key!("id"), &emission.observer.id_prefix, sequence);
}

/// The reset denied a connection rather than ended one.
pub(super) fn never_opened(record: &ResetRecord) -> bool {
    record.stage == Stage::Handshake || record.cause == Some(Cause::Refused)
}

fn endpoint(o: &mut Object, endpoint: Endpoint) {
    o.address(key!("ip"), endpoint.address);
    o.number(key!("port"), endpoint.port);
}

fn network(o: &mut Object, record: &ResetRecord) {
    if record.source.address.is_ipv4() {
        o.ready(r#""transport":"tcp","type":"ipv4","#);
    } else {
        o.ready(r#""transport":"tcp","type":"ipv6","#);
    }
    if let Some(incoming) = record.incoming {
        direction(o, incoming);
    }
    if let Some(id) = community(record.source, record.destination) {
        o.plain(key!("community_id"), &id);
    }
    if let Some(vlan) = record.vlan {
        // A keyword in ECS.
        o.object(key!("vlan"), |o| o.shown(key!("id"), vlan));
    }
}

fn direction(o: &mut Object, incoming: bool) {
    if incoming {
        o.ready(r#""direction":"ingress","#);
    } else {
        o.ready(r#""direction":"egress","#);
    }
}

pub(super) fn observer(
    o: &mut Object,
    observer: &Observer,
    ingress: Option<InterfaceId>,
    egress: Option<InterfaceId>,
) {
    if let Some(hostname) = &observer.hostname {
        o.line(key!("hostname"), hostname);
    }
    for (way, interface) in [(key!("ingress"), ingress), (key!("egress"), egress)] {
        if let Some(name) = interface.and_then(|id| observer.interface(id)) {
            o.object(way, |o| {
                o.object(key!("interface"), |o| o.line(key!("name"), name))
            });
        }
    }
    o.ready(concat!(
        r#""product":"rstscope","version":""#,
        env!("CARGO_PKG_VERSION"),
        r#"","type":"sensor","#
    ));
}

/// What ECS has no name for; other formats carry it as it stands.
pub(super) fn rstscope(o: &mut Object, record: &ResetRecord, emission: &Emission) {
    o.word(key!("schema"), SCHEMA_VERSION);
    o.word(key!("verdict"), record.verdict.name());
    if let Some(cause) = record.cause {
        o.word(key!("cause"), Cause::name(cause));
    }
    o.fraction(key!("confidence"), record.confidence, 4);
    if let Some(total) = record.total_db {
        o.fraction(key!("prior_db"), PRIOR_DB, 2);
        o.fraction(key!("total_db"), total, 2);
    }
    if let Some(device) = &record.device {
        o.line(key!("device"), device);
    }
    o.word(key!("stage"), record.stage.name());
    o.objects(key!("evidence"), &record.evidence, fact);
    o.objects(key!("resets"), &record.resets, |entry, o| {
        reset(entry, o, emission)
    });
    o.number(key!("reset_count"), record.reset_count);
    if let Some(known) = &record.baseline {
        o.object(key!("baseline"), |o| baseline(o, known));
    }
    o.number_if(key!("bytes_in"), record.bytes_in);
    o.number_if(key!("bytes_out"), record.bytes_out);
    o.number_if(key!("age_ns"), record.age_ns);
    o.number_if(key!("idle_ns"), record.idle_ns);
    o.object(key!("kernel"), |o| {
        o.flag_if(key!("accepted"), record.kernel.accepted);
        if let Some(reason) = record.kernel.reset_reason {
            match (reason.name(), reason) {
                (Some(name), _) => o.text(key!("reset_reason"), name),
                (None, ResetReason::Other(number)) => o.shown(key!("reset_reason"), number),
                (None, ResetReason::Known(_)) => {}
            }
        }
        o.text_if(
            key!("socket_state"),
            record.kernel.socket_state.map(|state| state.name()),
        );
    });
    o.objects(key!("related"), &record.related, |other, o| {
        related(other, o, emission)
    });
    if let Some(many) = &record.aggregate {
        o.object(key!("aggregate"), |o| aggregate(o, many));
    }
}

fn aggregate(o: &mut Object, many: &Aggregate) {
    o.shown(key!("network"), many.network);
    o.number(key!("flows"), many.flows);
    o.objects(key!("sample"), &many.sample, |tuple, o| {
        let end = |address, port| Endpoint { address, port };
        o.object(key!("source"), |o| {
            endpoint(o, end(tuple.src, tuple.src_port))
        });
        o.object(key!("destination"), |o| {
            endpoint(o, end(tuple.dst, tuple.dst_port))
        });
    });
}

/// [`fit_name`] as a field, in one piece.
fn seq_fit(o: &mut Object, fit: SequenceFit) {
    match fit {
        SequenceFit::Exact => o.ready(r#""seq_fit":"exact","#),
        SequenceFit::InWindow => o.ready(r#""seq_fit":"in_window","#),
        SequenceFit::OutOfWindow => o.ready(r#""seq_fit":"out_of_window","#),
        SequenceFit::Unknown => o.ready(r#""seq_fit":"unknown","#),
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
    o.time(key!("time"), emission.wall(entry.time));
    if let Some(incoming) = entry.incoming {
        direction(o, incoming);
    }
    o.flags(key!("flags"), segment.flags);
    o.number(key!("seq"), segment.seq.0);
    // Without the ACK flag a genuine reset has 0 there, which acknowledges nothing; another value
    // is a mark of its maker.
    if segment.flags.ack() || segment.ack.0 != 0 {
        o.number(key!("ack"), segment.ack.0);
    }
    seq_fit(o, entry.fit);
    o.number_if(key!("seq_offset"), entry.offset);
    o.number(key!("hop_limit"), segment.hop_limit);
    o.number_if(key!("ip_id"), segment.ip_id);
    o.number(key!("window"), segment.window);
    if let Some(link) = segment.link {
        o.mac(key!("mac"), link.src);
    }
}

fn baseline(o: &mut Object, known: &BaselineEntry) {
    o.number_if(key!("hop_limit"), known.hop_limit);
    if let Some(mac) = known.mac {
        o.mac(key!("mac"), mac);
    }
    o.number_if(key!("window"), known.window);
    o.flag_if(key!("timestamps"), known.timestamps);
    o.word(key!("source"), known.source);
}

fn related(other: &Related, o: &mut Object, emission: &Emission) {
    if let Some(sequence) = other.record {
        event_id(o, sequence, emission);
    }
    o.object(key!("source"), |o| endpoint(o, other.source));
    o.object(key!("destination"), |o| endpoint(o, other.destination));
    o.number(key!("delta_ns"), other.delta_ns);
    o.fraction(key!("confidence"), other.confidence, 4);
    o.word(key!("join"), other.join);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::to_json;
    use crate::evidence::{Favors, Group};
    use crate::flow::Endpoint;
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
            "process": {"pid": 7, "name": "ng\u{fffd}inx", "thread": {"id": 7, "name": "wrk:\u{fffd}0"}},
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
    fn every_group_and_side_has_its_name() {
        for (group, favors) in Group::ALL
            .into_iter()
            .flat_map(|group| Favors::ALL.map(|favors| (group, favors)))
        {
            let mut record = injected();
            (record.evidence[0].group, record.evidence[0].favors) = (group, favors);
            let fact = &read(record)["rstscope"]["evidence"][0];
            assert_eq!(fact["group"], group.name());
            assert_eq!(fact["favors"], favors.name());
        }
    }

    #[test]
    fn roles_that_are_neither_end_are_told_all_the_same() {
        let mut record = injected();
        let other = Endpoint {
            address: "2001:db8::7".parse().unwrap(),
            port: 9,
        };
        (record.client, record.server) = (Some(record.destination), Some(other));
        let read = read(record);
        assert_eq!(read["client"], json!({"ip": "198.51.100.10", "port": 443}));
        assert_eq!(read["server"], json!({"ip": "2001:db8::7", "port": 9}));
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

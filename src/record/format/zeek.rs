//! Zeek's logs as one stream of JSON lines, in the form of its json-streaming-logs package: flat keys,
//! `_path` names the log. A forged reset is a `notice`, any other a `conn`, a coverage record
//! `rstscope_coverage`. A column that Zeek fills from traffic that this sensor does not see (packet
//! counts, `history`) is absent; `conn_state` is there where a reset alone decides it.

use super::{ends, judgement, source_opened};
use crate::record::coverage::coverage_message;
use crate::record::emission::Emission;
use crate::record::identity::hash;
use crate::record::one_line::one_line;
use crate::record::writer::{Object, object};
use crate::record::{CoverageRecord, Record, ResetRecord, community_id};
use crate::time::Timestamp;
use crate::verdict::{Cause, Stage, Verdict};
use crate::wire::ipv4::PROTOCOL_TCP;

/// Digits of a `uid`, in Zeek's order (`uitoa_n`, `src/util.cc`).
const BASE62: &[u8; 62] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
/// Digits behind the `C`, as Zeek's 96-bit ids usually have.
const UID_DIGITS: usize = 17;

/// A record as a line of a Zeek log.
#[must_use]
pub fn zeek(record: &Record, emission: &Emission) -> String {
    match record {
        Record::Reset(reset) => reset_zeek(reset, emission),
        Record::Coverage(coverage) => coverage_zeek(coverage, emission),
    }
}

fn begin(o: &mut Object, path: &'static str, time: Timestamp, emission: &Emission) {
    o.text("_path", path);
    o.seconds("ts", emission.wall(time).exact().as_nanosecond());
}

/// One for each record, made from `event.id`.
fn uid(emission: &Emission, sequence: u64) -> String {
    let id = emission.event_id(sequence);
    let halves = [hash(&[id.as_bytes()]), hash(&[id.as_bytes(), b"uid"])];
    let mut rest = u128::from(halves[0]) << 64 | u128::from(halves[1]);
    let mut uid = String::from("C");
    for _ in 0..UID_DIGITS {
        let digit = usize::try_from(rest % 62).unwrap_or_default();
        uid.push(char::from(BASE62.get(digit).copied().unwrap_or(b'0')));
        rest /= 62;
    }
    uid
}

fn reset_zeek(record: &ResetRecord, emission: &Emission) -> String {
    let injected = record.verdict == Verdict::Injected;
    object(|o| {
        if injected {
            begin(o, "notice", record.start, emission);
        } else {
            let age = record.age_ns.unwrap_or_default();
            let began = Timestamp::from_nanos(record.start.as_nanos().saturating_sub(age));
            begin(o, "conn", began, emission);
        }
        o.text("uid", &uid(emission, record.sequence));
        let (orig, resp) = ends(record);
        o.shown("id.orig_h", orig.address);
        o.number("id.orig_p", orig.port);
        o.shown("id.resp_h", resp.address);
        o.number("id.resp_p", resp.port);
        o.text("proto", "tcp");
        if injected {
            notice(o, record, emission);
        } else {
            conn(o, record);
        }
        o.text_if(
            "community_id",
            community_id(record.source, record.destination).as_deref(),
        );
        ours(o, record, emission);
    })
}

fn conn(o: &mut Object, record: &ResetRecord) {
    if let Some(age) = record.age_ns {
        o.seconds("duration", i128::from(age));
    }
    if let Some(by_source) = source_opened(record) {
        let (orig, resp) = if by_source {
            (record.bytes_in, record.bytes_out)
        } else {
            (record.bytes_out, record.bytes_in)
        };
        o.number_if("orig_bytes", orig);
        o.number_if("resp_bytes", resp);
    }
    o.text_if("conn_state", conn_state(record));
    if let Some(vlan) = record.vlan {
        o.number("vlan", vlan);
    }
    o.number("ip_proto", PROTOCOL_TCP);
}

/// By the rules of `scripts/base/protocols/conn/main.zeek`, where what came before the reset does
/// not matter to them or is known. An originator that resets its own SYN may be `RSTOS0` or `RSTO`:
/// that hangs on whether Zeek would have seen the SYN-ACK.
fn conn_state(record: &ResetRecord) -> Option<&'static str> {
    match (record.stage, source_opened(record)?) {
        (Stage::Established | Stage::Closing, true) => Some("RSTO"),
        (Stage::Established | Stage::Closing, false) => Some("RSTR"),
        (Stage::Handshake, false) => Some("REJ"),
        _ => None,
    }
}

fn notice(o: &mut Object, record: &ResetRecord, emission: &Emission) {
    o.text("note", "Rstscope::Injected_Reset");
    o.text("msg", &one_line(&record.message));
    o.text("sub", &judgement(record));
    o.shown("src", record.source.address);
    o.shown("dst", record.destination.address);
    o.number("p", record.destination.port);
    o.number("n", record.reset_count);
    let hostname = emission.observer.hostname.as_deref().map(one_line);
    o.text_if("peer_descr", hostname.as_deref());
    o.texts("actions", &["Notice::ACTION_LOG"]);
    // Nothing is suppressed: each is a record.
    o.seconds("suppress_for", 0);
}

/// Names with a dot, as Zeek prints a record within a record.
fn ours(o: &mut Object, record: &ResetRecord, emission: &Emission) {
    o.text("rstscope.id", &emission.event_id(record.sequence));
    o.text("rstscope.verdict", record.verdict.name());
    o.text_if("rstscope.cause", record.cause.map(Cause::name));
    o.fraction("rstscope.confidence", record.confidence, 4);
    o.text("rstscope.stage", record.stage.name());
    o.flag_if("rstscope.by_orig", source_opened(record));
    o.number("rstscope.reset_count", record.reset_count);
    if let Some(many) = &record.aggregate {
        o.number("rstscope.flows", many.flows);
        o.shown("rstscope.network", many.network);
    }
    o.text_if(
        "rstscope.device",
        record.device.as_deref().map(one_line).as_deref(),
    );
    if record.verdict != Verdict::Injected {
        o.text("rstscope.msg", &one_line(&record.message));
    }
    if let Some(process) = record.process {
        o.number("rstscope.pid", process.pid);
        o.text("rstscope.process", &one_line(&process.name()));
    }
    let container = record.container.as_deref().map(one_line);
    o.text_if("rstscope.container", container.as_deref());
    let evidence: Vec<String> = record
        .evidence
        .iter()
        .map(|item| {
            format!(
                "{} {:.1} dB {}",
                item.name,
                item.weight_db,
                item.favors.name()
            )
        })
        .collect();
    let evidence: Vec<&str> = evidence.iter().map(String::as_str).collect();
    if !evidence.is_empty() {
        o.texts("rstscope.evidence", &evidence);
    }
}

fn coverage_zeek(record: &CoverageRecord, emission: &Emission) -> String {
    object(|o| {
        begin(o, "rstscope_coverage", record.end, emission);
        o.seconds("ts_delta", i128::from(record.end.since(record.start)));
        let hostname = emission.observer.hostname.as_deref().map(one_line);
        o.text_if("peer", hostname.as_deref());
        let interface = emission.observer.interface(record.interface).map(one_line);
        o.text_if("interface", interface.as_deref());
        o.text("id", &emission.event_id(record.sequence));
        o.number("observed", record.observed);
        o.number_if("passed", record.passed);
        o.number("bypassed", record.bypassed);
        o.number("copied", record.copied);
        o.number("lost", record.lost);
        o.flag_if("complete", Some(record.complete));
        o.text("msg", &coverage_message(record, emission));
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::zeek;
    use crate::record::sample::{coverage, emission, injected};
    use crate::record::{Record, ResetRecord};
    use crate::verdict::{Cause, Stage, Verdict};

    fn read(record: ResetRecord) -> Value {
        let line = zeek(&Record::Reset(Box::new(record)), &emission());
        serde_json::from_str(&line).unwrap()
    }

    #[test]
    fn a_forged_reset_is_a_notice() {
        let log = read(injected());
        assert_eq!(log["_path"], "notice");
        assert_eq!(log["ts"].to_string(), "1778293866.833123");
        assert_eq!(log["note"], "Rstscope::Injected_Reset");
        assert_eq!(log["actions"], json!(["Notice::ACTION_LOG"]));
        let uid = log["uid"].as_str().unwrap();
        assert!(uid.len() == 18 && uid.starts_with('C'), "{uid}");
        assert_eq!(log["rstscope.evidence"][1], "peer_went_on 9.5 dB injected");
        assert!(
            log.as_object()
                .unwrap()
                .values()
                .all(|value| !value.is_object())
        );
    }

    #[test]
    fn another_is_a_connection_that_began_before_its_reset() {
        let mut record = injected();
        record.verdict = Verdict::Remote;
        record.cause = Some(Cause::Abort);
        record.age_ns = Some(1_500_000_000);
        record.bytes_out = Some(9);
        let log = read(record.clone());
        assert_eq!(log["_path"], "conn");
        assert_eq!(log["ts"].to_string(), "1778293865.333123");
        assert_eq!(log["duration"].to_string(), "1.5");
        assert_eq!(
            (&log["orig_bytes"], &log["resp_bytes"]),
            (&json!(0), &json!(9))
        );
        assert_eq!(log["conn_state"], "RSTO");
        std::mem::swap(&mut record.source, &mut record.destination);
        let log = read(record.clone());
        assert_eq!(log["id.orig_h"], "203.0.113.9");
        assert_eq!(
            (&log["orig_bytes"], &log["resp_bytes"]),
            (&json!(9), &json!(0))
        );
        assert_eq!(log["conn_state"], "RSTR");
        record.stage = Stage::Handshake;
        record.cause = Some(Cause::Refused);
        assert_eq!(read(record.clone())["conn_state"], "REJ");
        (record.client, record.server) = (None, None);
        assert_eq!(read(record).get("conn_state"), None);
    }

    #[test]
    fn coverage_is_a_log_of_its_own() {
        let line = zeek(&Record::Coverage(Box::new(coverage())), &emission());
        let log: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(log["_path"], "rstscope_coverage");
        assert_eq!(log["ts_delta"].to_string(), "9.166876");
        assert_eq!(log["lost"], 1);
    }
}

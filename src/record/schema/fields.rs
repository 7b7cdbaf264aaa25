//! Every field of the records: name, values, and when it is there. docs/record.md tells what each means.

use super::{Field, Kind, Presence};
use crate::evidence::{Favors, Group, SequenceFit};
use crate::record::json::fit_name;
use crate::record::{ECS_VERSION, SCHEMA_VERSION};
use crate::verdict::{Cause, Stage, Verdict};

const fn always(path: &'static str, kind: Kind) -> Field {
    Field {
        path,
        kind,
        presence: Presence::Always,
    }
}

const fn within(path: &'static str, kind: Kind) -> Field {
    Field {
        path,
        kind,
        presence: Presence::Within,
    }
}

const fn known(path: &'static str, kind: Kind) -> Field {
    Field {
        path,
        kind,
        presence: Presence::Known,
    }
}

const PORT: Kind = Kind::Number(0, u16::MAX as u64);
const BYTE: Kind = Kind::Number(0, u8::MAX as u64);
const SHORT: Kind = Kind::Number(0, u16::MAX as u64);
const WORD: Kind = Kind::Number(0, u32::MAX as u64);
const COUNT: Kind = Kind::Number(0, u64::MAX);
const SHARE: Kind = Kind::Fraction(0.0, 1.0);
const DECIBANS: Kind = Kind::Fraction(f64::NEG_INFINITY, f64::INFINITY);
const WEIGHT: Kind = Kind::Fraction(0.0, f64::INFINITY);
const DIRECTION: Kind = Kind::Word(|| vec!["ingress", "egress"]);

fn actions() -> Vec<&'static str> {
    Verdict::ALL
        .iter()
        .map(|verdict| match verdict {
            Verdict::Local => "tcp-reset-local",
            Verdict::Remote => "tcp-reset-remote",
            Verdict::Forwarded => "tcp-reset-forwarded",
            Verdict::Injected => "tcp-reset-injected",
            Verdict::Stray => "tcp-reset-stray",
            Verdict::Undetermined => "tcp-reset-undetermined",
        })
        .collect()
}

fn verdicts() -> Vec<&'static str> {
    Verdict::ALL.iter().map(|verdict| verdict.name()).collect()
}

fn causes() -> Vec<&'static str> {
    Cause::ALL.iter().map(|cause| cause.name()).collect()
}

fn stages() -> Vec<&'static str> {
    Stage::ALL.iter().map(|stage| stage.name()).collect()
}

fn groups() -> Vec<&'static str> {
    Group::ALL.iter().map(|group| group.name()).collect()
}

fn sides() -> Vec<&'static str> {
    Favors::ALL.iter().map(|side| side.name()).collect()
}

fn fits() -> Vec<&'static str> {
    use SequenceFit::{Exact, InWindow, OutOfWindow, Unknown};
    [Exact, InWindow, OutOfWindow, Unknown]
        .map(fit_name)
        .to_vec()
}

pub(super) const RESET: &[Field] = &[
    always("@timestamp", Kind::Time),
    always("ecs.version", Kind::Word(|| vec![ECS_VERSION])),
    always("message", Kind::Sentence),
    always("event.kind", Kind::Word(|| vec!["alert", "event"])),
    always(
        "event.category",
        Kind::Words(&["network", "intrusion_detection"]),
    ),
    always("event.type", Kind::Words(&["connection", "denied", "end"])),
    always("event.action", Kind::Word(actions)),
    always("event.start", Kind::Time),
    always("event.end", Kind::Time),
    always("event.duration", COUNT),
    always("event.dataset", Kind::Word(|| vec!["rstscope.reset"])),
    always("event.module", Kind::Word(|| vec!["rstscope"])),
    always("event.id", Kind::Text),
    always("source.ip", Kind::Ip),
    always("source.port", PORT),
    known("source.mac", Kind::Mac),
    always("destination.ip", Kind::Ip),
    always("destination.port", PORT),
    known("destination.mac", Kind::Mac),
    within("client.ip", Kind::Ip),
    within("client.port", PORT),
    within("server.ip", Kind::Ip),
    within("server.port", PORT),
    always("network.transport", Kind::Word(|| vec!["tcp"])),
    always("network.type", Kind::Word(|| vec!["ipv4", "ipv6"])),
    known("network.direction", DIRECTION),
    always("network.community_id", Kind::Text),
    // A keyword in ECS, although it is a number.
    within("network.vlan.id", Kind::Text),
    known("observer.hostname", Kind::Text),
    within("observer.ingress.interface.name", Kind::Text),
    within("observer.egress.interface.name", Kind::Text),
    always("observer.product", Kind::Word(|| vec!["rstscope"])),
    always("observer.version", Kind::Text),
    always("observer.type", Kind::Word(|| vec!["sensor"])),
    within("process.pid", WORD),
    known("process.name", Kind::Text),
    within("process.thread.id", WORD),
    within("process.thread.name", Kind::Text),
    within("container.id", Kind::Text),
    always("rstscope.schema", Kind::Word(|| vec![SCHEMA_VERSION])),
    always("rstscope.verdict", Kind::Word(verdicts)),
    known("rstscope.cause", Kind::Word(causes)),
    always("rstscope.confidence", SHARE),
    known("rstscope.prior_db", DECIBANS),
    known("rstscope.total_db", DECIBANS),
    known("rstscope.device", Kind::Text),
    always("rstscope.stage", Kind::Word(stages)),
    within("rstscope.evidence[].name", Kind::Text),
    within("rstscope.evidence[].group", Kind::Word(groups)),
    within("rstscope.evidence[].favors", Kind::Word(sides)),
    within("rstscope.evidence[].weight_db", WEIGHT),
    known("rstscope.evidence[].observed", Kind::Text),
    known("rstscope.evidence[].expected", Kind::Text),
    always("rstscope.resets[].time", Kind::Time),
    known("rstscope.resets[].direction", DIRECTION),
    always("rstscope.resets[].flags", Kind::Text),
    always("rstscope.resets[].seq", WORD),
    known("rstscope.resets[].ack", WORD),
    always("rstscope.resets[].seq_fit", Kind::Word(fits)),
    known(
        "rstscope.resets[].seq_offset",
        Kind::Number(i32::MIN as i64, i32::MAX as u64),
    ),
    always("rstscope.resets[].hop_limit", BYTE),
    known("rstscope.resets[].ip_id", SHORT),
    always("rstscope.resets[].window", SHORT),
    known("rstscope.resets[].mac", Kind::Mac),
    always("rstscope.reset_count", COUNT),
    known("rstscope.baseline.hop_limit", BYTE),
    known("rstscope.baseline.mac", Kind::Mac),
    known("rstscope.baseline.window", SHORT),
    known("rstscope.baseline.timestamps", Kind::Flag),
    within(
        "rstscope.baseline.source",
        Kind::Word(|| vec!["syn", "syn_ack", "segments", "path", "after"]),
    ),
    known("rstscope.bytes_in", COUNT),
    known("rstscope.bytes_out", COUNT),
    known("rstscope.age_ns", COUNT),
    known("rstscope.idle_ns", COUNT),
    known("rstscope.kernel.accepted", Kind::Flag),
    known("rstscope.kernel.reset_reason", Kind::Text),
    known("rstscope.kernel.socket_state", Kind::Text),
    known("rstscope.related[].id", Kind::Text),
    within("rstscope.related[].source.ip", Kind::Ip),
    within("rstscope.related[].source.port", PORT),
    within("rstscope.related[].destination.ip", Kind::Ip),
    within("rstscope.related[].destination.port", PORT),
    within("rstscope.related[].delta_ns", COUNT),
    within("rstscope.related[].confidence", SHARE),
    within(
        "rstscope.related[].join",
        Kind::Word(|| {
            vec![
                "process",
                "closing",
                "time",
                "segment",
                "flow",
                "correction",
            ]
        }),
    ),
    within("rstscope.aggregate.network", Kind::Text),
    within("rstscope.aggregate.flows", COUNT),
    within("rstscope.aggregate.sample[].source.ip", Kind::Ip),
    within("rstscope.aggregate.sample[].source.port", PORT),
    within("rstscope.aggregate.sample[].destination.ip", Kind::Ip),
    within("rstscope.aggregate.sample[].destination.port", PORT),
];

pub(super) const COVERAGE: &[Field] = &[
    always("@timestamp", Kind::Time),
    always("ecs.version", Kind::Word(|| vec![ECS_VERSION])),
    always("message", Kind::Sentence),
    always("event.kind", Kind::Word(|| vec!["metric"])),
    always("event.category", Kind::Words(&["network"])),
    always("event.type", Kind::Words(&["info"])),
    always("event.action", Kind::Word(|| vec!["sensor-coverage"])),
    always("event.start", Kind::Time),
    always("event.end", Kind::Time),
    always("event.duration", COUNT),
    always("event.dataset", Kind::Word(|| vec!["rstscope.coverage"])),
    always("event.module", Kind::Word(|| vec!["rstscope"])),
    always("event.id", Kind::Text),
    known("observer.hostname", Kind::Text),
    within("observer.ingress.interface.name", Kind::Text),
    always("observer.product", Kind::Word(|| vec!["rstscope"])),
    always("observer.version", Kind::Text),
    always("observer.type", Kind::Word(|| vec!["sensor"])),
    always("rstscope.schema", Kind::Word(|| vec![SCHEMA_VERSION])),
    always("rstscope.coverage.observed", COUNT),
    known("rstscope.coverage.passed", COUNT),
    always("rstscope.coverage.bypassed", COUNT),
    always("rstscope.coverage.copied", COUNT),
    always("rstscope.coverage.lost", COUNT),
    always("rstscope.coverage.complete", Kind::Flag),
];

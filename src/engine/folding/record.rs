//! A flood as a record: by what most of its resets were it is told what it is, in one sentence and with
//! one fact. Judges none of them.

use super::{Folded, Kind, Place};
use crate::amount::counted;
use crate::engine::EngineConfig;
use crate::engine::attested::{self, attested};
use crate::engine::facts;
use crate::evidence::{Evidence, Favors};
use crate::flow::Endpoint;
use crate::record::{Aggregate, KernelFacts, ResetRecord};
use crate::vantage::Path;
use crate::verdict::{Cause, Stage, Verdict};

/// The record of many.
pub(super) fn compose(
    place: Place,
    mut folded: Folded,
    config: &EngineConfig,
    sequence: u64,
) -> ResetRecord {
    folded.sample.sort_by_key(|reset| reset.time);
    // A flow that has two resets is one.
    let flows = folded.flows.count().clamp(1, folded.count);
    let told = tell(place, &folded, flows);
    let first = &folded.first;
    let (tuple, link) = (first.segment.tuple, first.segment.link);
    let leaves = matches!(first.vantage.path, Path::Egress { .. });
    ResetRecord {
        sequence,
        start: first.time,
        end: folded.last,
        source: Endpoint {
            address: tuple.src,
            port: tuple.src_port,
        },
        destination: Endpoint {
            address: tuple.dst,
            port: tuple.dst_port,
        },
        client: None,
        server: None,
        source_mac: link.map(|link| link.src),
        destination_mac: link.and_then(|link| link.dst),
        vlan: first.segment.vlan,
        incoming: facts::incoming(first, config),
        ingress_interface: (first.vantage.path == Path::Ingress).then_some(first.vantage.interface),
        egress_interface: leaves.then_some(first.vantage.interface),
        process: None,
        container: None,
        closed_at: None,
        verdict: told.verdict,
        cause: told.cause,
        confidence: told.confidence,
        total_db: None,
        device: None,
        stage: Stage::Unknown,
        message: told.message,
        evidence: vec![told.evidence],
        resets: folded
            .sample
            .iter()
            .map(|reset| facts::entry(reset, config))
            .collect(),
        reset_count: folded.count,
        baseline: None,
        bytes_in: None,
        bytes_out: None,
        age_ns: None,
        idle_ns: None,
        kernel: KernelFacts::default(),
        related: Vec::new(),
        aggregate: Some(Box::new(Aggregate {
            network: place.network,
            flows,
            sample: folded
                .sample
                .iter()
                .map(|reset| reset.segment.tuple)
                .collect(),
        })),
    }
}

/// What a flood is, by what most of its resets were.
struct Told {
    verdict: Verdict,
    cause: Option<Cause>,
    confidence: f32,
    evidence: Evidence,
    message: String,
}

fn tell(place: Place, folded: &Folded, flows: u64) -> Told {
    let (count, network) = (folded.count, place.network);
    let (resets, flows) = (counted(count, "reset"), counted(flows, "flow"));
    let fact = |name, favors, weight_db| attested(name, favors, weight_db, resets.clone().into());
    match place.kind {
        Kind::Answer => Told {
            verdict: Verdict::Local,
            cause: (folded.attested == count).then_some(Cause::Kernel),
            confidence: attested::LEFT,
            evidence: fact("left_this_host", Favors::Local, attested::LEFT_DB),
            message: format!(
                "this host sent {resets} from {network} in answer to segments of about \
                 {flows} that it has no connection for"
            ),
        },
        Kind::Stray if folded.routed > count / 2 => Told {
            verdict: Verdict::Forwarded,
            cause: Some(Cause::Router),
            confidence: attested::ROUTED,
            evidence: fact(
                "left_by_another_interface",
                Favors::Forwarded,
                attested::ROUTED_DB,
            ),
            message: format!(
                "this host passed on {resets} of about {flows} to {network}, of whose \
                 connections it had seen nothing"
            ),
        },
        // Another network namespace, or another host behind this one, may have the sockets.
        Kind::Stray if folded.elsewhere > count / 2 => Told {
            verdict: Verdict::Undetermined,
            cause: None,
            confidence: attested::UNJUDGED,
            evidence: fact(
                "no_flow_and_no_socket",
                Favors::Remote,
                attested::OF_NOTHING_DB,
            ),
            message: format!(
                "{resets} of about {flows} passed by to {network}, for sockets of others, if for \
                 any, and nothing else was seen of their connections"
            ),
        },
        Kind::Stray => Told {
            verdict: Verdict::Stray,
            cause: None,
            confidence: attested::OF_NOTHING,
            evidence: fact(
                "no_flow_and_no_socket",
                Favors::Remote,
                attested::OF_NOTHING_DB,
            ),
            message: format!(
                "{resets} of about {flows} to {network}, of no connection that this host knows"
            ),
        },
    }
}

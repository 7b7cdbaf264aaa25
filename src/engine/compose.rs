//! From a settled and judged episode to its record.

use super::attested;
use super::attribute::{Attribution, attribute, routed_evidence};
use super::device;
use super::episode::{self, Settled, View};
use super::facts;
use super::legs::{Join, Legs};
use super::message::{Told, tell};
use super::other_leg;
use super::{EngineConfig, Judged};
use crate::evidence::{
    Case, Circumstances, Evidence, Favors, Group, InjectorMemory, ReorderingMemory, SiblingMemory,
};
use crate::flow::{Endpoint, Side};
use crate::host::{KnownReason, ResetReason, TcpState};
use crate::record::{KernelFacts, Manner, Related, ResetRecord, Stood};
use crate::time::Timestamp;
use crate::vantage::Path;
use crate::verdict::{Cause, Judgement, Lateness, Stage, Verdict, judge, judge_answer, lateness};

/// What is known beside the episode itself.
pub(super) struct Context<'a> {
    pub(super) config: &'a EngineConfig,
    pub(super) legs: &'a Legs,
    /// What earlier forged resets had in common.
    pub(super) injectors: &'a InjectorMemory,
    /// The resets of late, of whatever origin.
    pub(super) siblings: &'a SiblingMemory,
    /// Where segments come out of order of late.
    pub(super) reordering: &'a ReorderingMemory,
    /// An earlier episode of the same flow, already recorded.
    pub(super) earlier: Option<Judged>,
    pub(super) sequence: u64,
}

/// What was decided, by attestation or by weighing.
pub(super) struct Decision {
    /// The side whose reset decided: of an episode's several resets, a forged one counts most.
    sender: Side,
    pub(super) verdict: Verdict,
    cause: Option<Cause>,
    confidence: f32,
    evidence: Vec<Evidence>,
    missing: Option<&'static str>,
    /// The sum of the weighing, when there was one.
    total_db: Option<f32>,
    device: Option<String>,
    related: Vec<Related>,
    /// Its reset came from one of the first two of them, and which cannot be told.
    is_either: bool,
    process: Option<crate::host::Process>,
    /// When that had closed the connection, where the kernel reset it then.
    closed_at: Option<Timestamp>,
    reason: Option<ResetReason>,
}

/// The record of an episode and of what was decided on it.
pub(super) fn compose(
    settled: &Settled<'_>,
    decision: Decision,
    context: &Context<'_>,
) -> ResetRecord {
    let accepted = facts::accepted(settled, &settled.view, context.config);
    let first = &settled.view.first;
    let key = &settled.episode.key;
    let (source, destination) = (
        key.endpoint(settled.view.sender),
        key.endpoint(settled.view.sender.other()),
    );
    let (client, server) = facts::roles(settled, source, destination);
    let stage = facts::stage(settled);
    let idle_ns = facts::idle(settled, context.config);
    let (bytes_in, bytes_out) = facts::bytes(settled);
    let message = sentence(settled, &decision, stage, idle_ns);
    let link = first.segment.link;
    ResetRecord {
        sequence: context.sequence,
        start: first.time,
        end: settled
            .episode
            .resets()
            .last()
            .map_or(first.time, |reset| reset.time),
        source,
        destination,
        client,
        server,
        source_mac: link.map(|link| link.src),
        destination_mac: link.and_then(|link| link.dst),
        vlan: first.segment.vlan,
        incoming: facts::incoming(first, context.config),
        ingress_interface: matches!(first.vantage.path, Path::Ingress)
            .then_some(first.vantage.interface),
        egress_interface: facts::egress_interface(settled),
        process: decision.process,
        container: None,
        closed_at: decision.closed_at,
        verdict: decision.verdict,
        cause: decision.cause,
        confidence: decision.confidence,
        total_db: decision.total_db,
        device: decision.device,
        stage,
        message,
        evidence: decision.evidence,
        resets: settled
            .episode
            .resets()
            .iter()
            .map(|reset| facts::entry(reset, context.config))
            .collect(),
        reset_count: settled.episode.reset_count,
        baseline: facts::baseline(settled),
        bytes_in,
        bytes_out,
        age_ns: settled
            .view
            .facts
            .first_seen
            .map(|began| first.time.since(began))
            .filter(|age| *age > 0),
        idle_ns,
        kernel: KernelFacts {
            accepted,
            reset_reason: decision.reason,
            socket_state: facts::socket_state(settled),
        },
        related: decision.related,
        aggregate: None,
    }
}

fn sentence(
    settled: &Settled<'_>,
    decision: &Decision,
    stage: Stage,
    idle_ns: Option<u64>,
) -> String {
    let key = &settled.episode.key;
    tell(&Told {
        verdict: decision.verdict,
        cause: decision.cause,
        source: key.endpoint(decision.sender),
        destination: key.endpoint(decision.sender.other()),
        stage,
        process: decision.process,
        reason: decision
            .reason
            .filter(|reason| means_what_it_says(settled, *reason)),
        answers_syn: facts::answers_syn(settled),
        idle_ns,
        manner: manner(settled, decision, idle_ns),
        related: decision.related.first().copied(),
        rival: decision
            .related
            .get(1)
            .copied()
            .filter(|_| decision.is_either),
        evidence: &decision.evidence,
        missing: decision.missing,
        device: decision.device.as_deref(),
    })
}

fn manner(settled: &Settled<'_>, decision: &Decision, idle_ns: Option<u64>) -> Manner {
    // Its facts are those of the first reset's sender.
    if decision.sender != settled.view.sender {
        return Manner::Plain;
    }
    let facts = &settled.view.facts;
    let (bytes_in, bytes_out) = facts::bytes(settled);
    Manner::of(&Stood {
        verdict: decision.verdict.name(),
        cause: decision.cause.map(Cause::name),
        reason: decision.reason.and_then(ResetReason::name),
        socket_state: facts::socket_state(settled).map(TcpState::name),
        circumstances: Circumstances::of(&decision.evidence),
        has_closed: facts.sender.is_some_and(|half| half.fin.is_some()),
        is_opener: facts.sender_is_originator,
        bytes_in,
        bytes_out,
        idle_ns,
    })
}

/// MPTCP ends every connection that it aborts with one reason, whatever the process did (`mptcp_do_fastclose`),
/// so that nothing is known of unread data.
fn means_what_it_says(settled: &Settled<'_>, reason: ResetReason) -> bool {
    let is_of_mptcp = settled.view.first.segment.options.mptcp;
    !(is_of_mptcp && reason == ResetReason::Known(KnownReason::AbortOnClose))
}

/// Judges an episode.
pub(super) fn decide(settled: &Settled<'_>, context: &Context<'_>) -> Decision {
    let mut decision = match attribute(settled, context.config, context.legs) {
        Some(attribution) => attested_or_told(settled, attribution, context),
        None => weigh(settled, &settled.view, context),
    };
    if decision.verdict != Verdict::Injected {
        decision = forged_later(settled, context).unwrap_or(decision);
    }
    as_forwarded(settled, &mut decision);
    as_consequence(settled, context.earlier.as_ref(), &mut decision);
    decision
        .related
        .extend(other_leg::of(settled, context.legs));
    let strength = |item: &Evidence| item.weight_db;
    decision
        .evidence
        .sort_by(|a, b| strength(b).total_cmp(&strength(a)));
    decision
}

/// A forged reset among those that look unlike all before them. What only answers late segments of a connection that
/// its sender had ended itself is held against nobody.
fn forged_later(settled: &Settled<'_>, context: &Context<'_>) -> Option<Decision> {
    let came_in = |view: &View<'_>| facts::incoming(view.first, context.config) != Some(false);
    let of_first = Some(&settled.view).filter(|view| came_in(view));
    let of_other = settled
        .other_views()
        .find(|view| view.sender != settled.view.sender && came_in(view));
    let late = |view: &View<'_>| {
        let own = match view.sender == settled.view.sender {
            true => of_first,
            false => of_other.as_ref(),
        };
        own.filter(|own| !std::ptr::eq(own.first, view.first))
            .map(|own| lateness(&case_of(settled, own, context), view.first))
    };
    settled
        .other_views()
        .filter(came_in)
        .filter_map(|view| match late(&view) {
            Some(Lateness::Ended) => None,
            Some(Lateness::Answers) => Some(weigh_by(judge_answer, settled, &view, context)),
            Some(Lateness::Another) | None => Some(weigh(settled, &view, context)),
        })
        .find(|decision| decision.verdict == Verdict::Injected)
}

/// What is attested. A capture may begin after the connection did: that it holds no other segment of
/// a reset's flow makes it a stray only as long as the reset itself does not tell of a third party (a
/// device that writes its name, a known injector's fingerprint).
fn attested_or_told(
    settled: &Settled<'_>,
    attribution: Attribution,
    context: &Context<'_>,
) -> Decision {
    if attribution.verdict == Verdict::Stray && context.config.offline {
        let weighed = weigh(settled, &settled.view, context);
        if weighed.total_db.is_some_and(|total| total > 0.0) {
            return weighed;
        }
    }
    attested(settled, attribution)
}

fn case_of<'a>(settled: &Settled<'_>, view: &'a View<'_>, context: &Context<'_>) -> Case<'a> {
    let config = context.config;
    let interface = usize::from(view.first.vantage.interface.0);
    Case {
        resets: &view.resets,
        flow: view.facts,
        after: &view.after,
        answered: &view.answered,
        accepted: facts::accepted(settled, view, config),
        reopened: settled.episode.reopened.is_some(),
        from_capture: config.offline,
        own_mac: config.own_macs.get(interface).copied().flatten(),
        injectors: context.injectors.facts(
            &view.first.segment,
            view.facts.sender_is_originator,
            view.first.time,
        ),
        siblings: context
            .siblings
            .facts(&view.first.segment, view.facts, view.first.time),
        path_reorders: context
            .reordering
            .path_reorders(view.first.segment.tuple.src, view.first.time),
    }
}

fn weigh(settled: &Settled<'_>, view: &View<'_>, context: &Context<'_>) -> Decision {
    weigh_by(judge, settled, view, context)
}

fn weigh_by(
    judge: fn(&Case<'_>) -> Judgement,
    settled: &Settled<'_>,
    view: &View<'_>,
    context: &Context<'_>,
) -> Decision {
    let config = context.config;
    let judgement = judge(&case_of(settled, view, context));
    let judged = view.resets.get(judgement.at..).unwrap_or_default();
    let device = (judgement.verdict == Verdict::Injected)
        .then(|| device::recognize(&config.own_devices, judged))
        .flatten();
    let (mut cause, mut evidence) = (judgement.cause, judgement.evidence);
    if let Some(device) = device {
        let sender = settled.episode.key.endpoint(view.sender);
        cause = Some(Cause::Middlebox);
        evidence.push(device::evidence(device, sender));
    }
    Decision {
        sender: view.sender,
        verdict: judgement.verdict,
        cause,
        confidence: judgement.confidence,
        evidence,
        missing: judgement.missing,
        total_db: Some(judgement.total_db),
        device: device.map(|device| device.name.clone()),
        related: Vec::new(),
        is_either: false,
        process: settled.episode.owner,
        closed_at: None,
        reason: settled.episode.sent.first().and_then(|sent| sent.reason),
    }
}

fn attested(settled: &Settled<'_>, attribution: Attribution) -> Decision {
    let beside = attribution.beside.as_ref().map(other_leg::named);
    let joined = attribution.join.iter().flat_map(legs_of_join);
    let related = joined.chain(beside).collect();
    let is_either = attribution
        .join
        .is_some_and(|(join, _)| join.rival.is_some());
    Decision {
        sender: settled.view.sender,
        verdict: attribution.verdict,
        cause: attribution.cause,
        confidence: attribution.confidence,
        evidence: attribution.evidence,
        missing: None,
        total_db: None,
        device: None,
        related,
        is_either,
        process: attribution.process,
        closed_at: attribution.closed_at,
        reason: attribution
            .reason
            .or_else(|| settled.episode.sent.first().and_then(|sent| sent.reason)),
    }
}

/// The leg that was reset first, or both that it may have been.
fn legs_of_join((join, how): &(Join, &'static str)) -> impl Iterator<Item = Related> {
    let legs = [Some(join.leg), join.rival];
    let (join, how) = (*join, *how);
    legs.into_iter().flatten().map(move |leg| Related {
        record: None,
        source: leg.key.endpoint(leg.sender),
        destination: leg.key.endpoint(leg.sender.other()),
        delta_ns: (join.leg.time.as_nanos() + join.delta_ns).saturating_sub(leg.time.as_nanos()),
        confidence: join.confidence,
        join: how,
    })
}

/// A reset that came in, was not forged, and left by another interface: this host routed it.
fn as_forwarded(settled: &Settled<'_>, decision: &mut Decision) {
    // Only its leaving was seen: that is told already, and there is no other sighting to join.
    if settled.view.first.vantage.path == (Path::Egress { forwarded: true }) {
        return;
    }
    let Some(copy) = settled.episode.routed.iter().find(|copy| {
        copy.segment.tuple == settled.view.first.segment.tuple
            && copy.segment.seq == settled.view.first.segment.seq
    }) else {
        return;
    };
    decision.evidence.push(routed_evidence(copy));
    if decision.verdict == Verdict::Injected {
        return;
    }
    let first = &settled.view.first.segment.tuple;
    decision.verdict = Verdict::Forwarded;
    decision.cause = Some(Cause::Router);
    decision.confidence = decision.confidence.max(attested::ROUTED);
    decision.missing = None;
    // The second sighting attests it, whatever the weighing came to.
    decision.total_db = None;
    decision.related.push(Related {
        record: None,
        source: Endpoint {
            address: first.src,
            port: first.src_port,
        },
        destination: Endpoint {
            address: first.dst,
            port: first.dst_port,
        },
        delta_ns: copy.time.since(settled.view.first.time),
        confidence: attested::SAME_SEGMENT,
        join: "segment",
    });
}

/// A genuine reset on a flow that a forged one had broken a moment before.
fn as_consequence(settled: &Settled<'_>, earlier: Option<&Judged>, decision: &mut Decision) {
    let Some(earlier) = earlier.filter(|earlier| earlier.verdict == Verdict::Injected) else {
        return;
    };
    let here = episode::here(settled.view.sender, settled.view.first);
    let is_of_another = earlier.local.is_some_and(|local| local != here);
    if decision.verdict != Verdict::Remote || is_of_another {
        return;
    }
    decision.cause = Some(Cause::Consequence);
    decision.related.push(Related {
        record: Some(earlier.sequence),
        source: settled.episode.key.endpoint(earlier.sender),
        destination: settled.episode.key.endpoint(earlier.sender.other()),
        delta_ns: settled.view.first.time.since(earlier.start),
        confidence: decision.confidence,
        join: "flow",
    });
    decision.evidence.push(Evidence {
        name: "follows_forged_reset",
        group: Group::Origin,
        favors: Favors::Remote,
        weight_db: 10.0,
        observed: None,
        expected: None,
    });
}

//! Origins that need no weighing, because this host's own kernel attests them: resets that it sent
//! itself, resets that it routes, and resets that belong to nothing it knows. What is left goes to
//! `verdict::judge`.

use super::EngineConfig;
use super::attested::{self, attested};
use super::episode::{Sent, Settled};
use super::facts;
use super::legs::{Answer, Call, Join, Legs, Passed, is_outbound};
use crate::amount::span;
use crate::evidence::{
    ALREADY_CLOSED, Evidence, Favors, NEVER_ACCEPTED, PROCESS_ENDED, ResetSeen, Value,
};
use crate::flow::{FlowKey, Side};
use crate::host::{Closed, KernelTells, KnownReason, Process, ResetReason, SocketView, TcpState};
use crate::record::silence;
use crate::time::{MILLISECOND, Timestamp};
use crate::vantage::Path;
use crate::verdict::{Cause, Verdict};
use crate::wire::{FourTuple, Segment};

/// Two events of equal order in a capture of a proxy host, one leg each, at most this far apart:
/// HAProxy and Envoy take 43 to 244 µs. Without the kernel's word, time is all there is.
const CAPTURE_JOIN_NS: u64 = 2 * MILLISECOND;

/// An attested origin.
#[derive(Debug)]
pub(super) struct Attribution {
    pub(super) verdict: Verdict,
    pub(super) cause: Option<Cause>,
    pub(super) confidence: f32,
    pub(super) evidence: Vec<Evidence>,
    pub(super) process: Option<Process>,
    /// When that had closed the connection, before its kernel reset it.
    pub(super) closed_at: Option<Timestamp>,
    pub(super) reason: Option<ResetReason>,
    pub(super) join: Option<(Join, &'static str)>,
    /// What its process ended beside it, out of itself.
    pub(super) beside: Option<Answer>,
}

impl Attribution {
    fn new(
        verdict: Verdict,
        cause: Option<Cause>,
        confidence: f32,
        evidence: Vec<Evidence>,
    ) -> Self {
        Self {
            verdict,
            cause,
            confidence,
            evidence,
            process: None,
            closed_at: None,
            reason: None,
            join: None,
            beside: None,
        }
    }

    fn local(cause: Option<Cause>, confidence: f32, evidence: Vec<Evidence>) -> Self {
        Self::new(Verdict::Local, cause, confidence, evidence)
    }

    /// A reset that belongs to nothing, as the fact of that name shows.
    fn stray(settled: &Settled<'_>, confidence: f32, fact: &'static str) -> Self {
        let letters = settled.view.first.segment.flags.letters().into();
        let evidence = attested(fact, Favors::Remote, attested::OF_NOTHING_DB, letters);
        Self::new(Verdict::Stray, None, confidence, vec![evidence])
    }
}

/// The attested origin of an episode's first reset; `None` when it has to be weighed.
pub(super) fn attribute(
    settled: &Settled<'_>,
    config: &EngineConfig,
    legs: &Legs,
) -> Option<Attribution> {
    match settled.view.first.vantage.path {
        Path::Egress { forwarded: false } => Some(sent_here(settled, config, legs)),
        Path::Egress { forwarded: true } => Some(routed(settled)),
        Path::Ingress => stray(settled, config),
        Path::Capture => in_capture(settled, config, legs),
    }
}

fn sent_here(settled: &Settled<'_>, config: &EngineConfig, legs: &Legs) -> Attribution {
    match event_of_first(settled) {
        Some(sent) => attested_by_kernel(settled, sent, config, legs),
        None => without_event(settled, config),
    }
}

/// The kernel event of the first reset, which this host sent. Which it is, order and form tell and no
/// clock does: the kernel tells of an answer before it sends it (`tcp_v4_send_reset`) and of a socket's
/// own reset after it (`tcp_send_active_reset`), and a virtual CPU may rest for long in between.
fn event_of_first<'a>(settled: &Settled<'a>) -> Option<&'a Sent> {
    let (view, sent) = (&settled.view, &settled.episode.sent);
    let first = &view.first;
    let is_answer = |reset: &ResetSeen| cause_by_shape(&reset.segment) == Cause::Kernel;
    // A socket's reset may look like an answer, when its window is shut; no answer has a window.
    let own = |event: &&Sent| {
        let resets = settled.episode.resets().iter();
        let before = resets
            .filter(|reset| reset.vantage.path == first.vantage.path && reset.time <= event.time);
        let latest = before.max_by_key(|reset| (!is_answer(reset), reset.time));
        event.active && latest.is_none_or(|latest| latest.time == first.time)
    };
    let answer =
        |event: &&Sent| !event.active && first.segment.window == 0 && event.time <= first.time;
    let answers = sent.iter().filter(answer);
    answers
        .max_by_key(|event| event.time)
        .or_else(|| sent.iter().filter(own).min_by_key(|event| event.time))
}

fn attested_by_kernel(
    settled: &Settled<'_>,
    sent: &Sent,
    config: &EngineConfig,
    legs: &Legs,
) -> Attribution {
    let form = if sent.active { "active" } else { "passive" };
    let observed = match sent.reason.and_then(ResetReason::name) {
        Some(reason) => format!("{form}, {reason}"),
        None => form.to_owned(),
    };
    let mut evidence = vec![attested(
        "kernel_sent_reset",
        Favors::Local,
        attested::KERNEL_TOLD_DB,
        observed.into(),
    )];
    evidence.extend(circumstances(settled, sent));
    let process = sent
        .caller()
        .or(settled.episode.owner.filter(|_| sent.active));
    let cause = cause_of_event(sent, process, config.kernel);
    let mut attribution = Attribution::local(cause, attested::KERNEL_TOLD, evidence);
    attribution.process = process;
    attribution.reason = sent.reason;
    if let Some(closed) = closed_before(settled, sent) {
        attribution.process = sent.process;
        answered_after_close(settled, &mut attribution, sent.time, closed, legs);
    }
    if attribution.cause != Some(Cause::Kernel) {
        pass_on(settled, &mut attribution, sent.time, legs);
        if attribution.join.is_none() && attribution.process.is_some() {
            let process = attribution.process;
            attribution.beside = beside(settled, process, sent.time, config, legs);
        }
    }
    attribution
}

/// What the kernel says of the moment of a socket's own abort: that its process was ending, and that no process had ever
/// accepted the connection. Who closes his own socket still has a file of it (`__tcp_close`); the reasons of orphans are
/// others, as are those of MPTCP, whose subflows no process accepts.
fn circumstances(settled: &Settled<'_>, sent: &Sent) -> impl Iterator<Item = Evidence> {
    let told = |name, observed| {
        let db = attested::CIRCUMSTANCE_DB;
        attested(name, Favors::Local, db, observed)
    };
    let ending = sent.counts.and_then(|counts| counts.ending);
    let was_closed = sent.reason == Some(ResetReason::Known(KnownReason::State))
        && sent.state == Some(TcpState::Close)
        && !settled.view.first.segment.options.mptcp;
    let is_unaccepted = was_closed && sent.counts.is_some_and(|counts| counts.is_unclaimed);
    let ended = ending.map(|how| told(PROCESS_ENDED, how.to_string().into()));
    let waited = is_unaccepted.then(|| told(NEVER_ACCEPTED, "in the accept queue".into()));
    ended.into_iter().chain(waited)
}

/// That a process had closed the connection before its kernel answered what still came: this one, not one before it between
/// the same ports.
fn closed_before(settled: &Settled<'_>, sent: &Sent) -> Option<Closed> {
    let age = |began: Timestamp| sent.time.since(began);
    let began = settled.view.facts.first_seen;
    sent.closed
        .filter(|closed| !sent.active && began.is_none_or(|began| closed.ago_ns <= age(began)))
}

/// The kernel's answer was owed to whoever had closed the connection, and to why he had.
fn answered_after_close(
    settled: &Settled<'_>,
    attribution: &mut Attribution,
    time: Timestamp,
    closed: Closed,
    legs: &Legs,
) {
    let told = |name, observed: String| {
        let db = attested::CIRCUMSTANCE_DB;
        attested(name, Favors::Local, db, observed.into())
    };
    let before = format!("{} before", span(closed.ago_ns));
    let ended = closed
        .ending
        .map(|how| told(PROCESS_ENDED, how.to_string()));
    attribution.evidence.push(told(ALREADY_CLOSED, before));
    attribution.evidence.extend(ended);
    let then = Timestamp::from_nanos(time.as_nanos().saturating_sub(closed.ago_ns));
    attribution.closed_at = Some(then);
    let join = legs.closed_for(&(settled.episode.key, settled.view.sender), then);
    // Between the two resets, as of every pair; the closing has its own place in the evidence.
    attribution.join = join.map(|join| {
        let delta_ns = time.since(join.leg.time);
        (Join { delta_ns, ..join }, "closing")
    });
}

/// A socket's own abort is the application's doing, but for those that TCP decides alone, or MPTCP: of a subflow that
/// broke its rules, or whose connection the peer ended by another. A process's abort has a reason of TCP's there too.
/// Without a reason (Linux before 6.10) a timer's reset is told by nobody having called: where owners are told at all.
fn cause_of_event(sent: &Sent, process: Option<Process>, kernel: KernelTells) -> Option<Cause> {
    if !sent.active {
        return Some(Cause::Kernel);
    }
    if sent.reason.is_none() && process.is_none() {
        return kernel.owners.then_some(Cause::Kernel);
    }
    let by_itself = matches!(
        sent.reason,
        Some(ResetReason::Known(
            KnownReason::KeepaliveTimeout | KnownReason::AbortOnMemory | KnownReason::Mptcp
        ))
    );
    Some(if by_itself {
        Cause::Kernel
    } else {
        Cause::Process
    })
}

/// A reset that a process sent because its other leg had been reset is forwarded.
fn pass_on(settled: &Settled<'_>, attribution: &mut Attribution, time: Timestamp, legs: &Legs) {
    let sent = attribution.process.map(|process| Call { process, time });
    let own = passed(settled, sent);
    let by_process = legs.cause_of(&own).map(|join| (join, "process"));
    // A leg of which the kernel's word is missing is known to nobody's turn.
    let by_time = || legs.nearest_untold(&own).map(|join| (join, "time"));
    let Some((join, how)) = by_process.or_else(by_time) else {
        return;
    };
    let legs = [Some(&join.leg), join.rival.as_ref()].into_iter().flatten();
    let legs: Vec<_> = legs.map(|leg| describe(&leg.key, leg.sender)).collect();
    let observed = format!(
        "{} ended by a reset {} before",
        legs.join(" or "),
        span(join.delta_ns)
    );
    attribution.evidence.push(attested(
        "other_leg_was_reset",
        Favors::Forwarded,
        odds_db(join.passed_on),
        observed.into(),
    ));
    attribution.join = Some((join, how));
    attribution.verdict = Verdict::Forwarded;
    attribution.cause = Some(Cause::Proxy);
    attribution.confidence = join.passed_on;
}

/// What a process that aborted a connection out of itself ended with it.
fn beside(
    settled: &Settled<'_>,
    process: Option<Process>,
    time: Timestamp,
    config: &EngineConfig,
    legs: &Legs,
) -> Option<Answer> {
    let own = passed(settled, process.map(|process| Call { process, time }));
    let is_silent = silence(facts::idle(settled, config)).is_some();
    legs.beside(&Passed { time, ..own }, is_silent)
}

/// The reset that this host sent, as the one that may pass another on.
fn passed(settled: &Settled<'_>, sent: Option<Call>) -> Passed {
    let view = &settled.view;
    let key = settled.episode.key;
    Passed {
        key,
        local: view.sender,
        time: view.first.time,
        sent,
        began: view.facts.first_seen,
        is_outbound: is_outbound(view.facts.sender_is_originator, &key, view.sender),
    }
}

/// An egress reset without a kernel event. Where its packet belongs to a socket, that of another network
/// namespace sent it, or its addresses are translated. Else no socket sent it, as long as every event
/// reached us, and for the answers to segments of no connection only where the kernel tells of them. Where
/// an event is missing that should have come, nobody is named: no process, no packet filter.
fn without_event(settled: &Settled<'_>, config: &EngineConfig) -> Attribution {
    let segment = &settled.view.first.segment;
    let is_lossy = settled.episode.lossy;
    let is_of_a_socket = settled.view.first.socket.and_then(|s| s.sender()).is_some();
    // A timer's reset has the form of a process's (`tcp_keepalive_timer` and `tcp_out_of_resources` call
    // `tcp_send_active_reset` as well). Where events are heard and a socket's own is not, it was skipped, as
    // those in interrupts are, counted or not, or is another network namespace's: of either, nobody knows.
    let is_untold = is_lossy || (config.kernel.resets && is_of_a_socket);
    let shown = cause_by_shape(segment);
    let by_shape = Some(shown).filter(|cause| !is_untold || *cause != Cause::Process);
    let left = |seen: Value| attested("left_this_host", Favors::Local, attested::LEFT_DB, seen);
    if is_of_a_socket {
        let seen = if is_lossy {
            "from a socket, and events were lost"
        } else {
            "from a socket"
        };
        return Attribution::local(by_shape, attested::LEFT_A_SOCKET, vec![left(seen.into())]);
    }
    let left = left(segment.flags.letters().into());
    if !config.kernel.resets || is_lossy {
        return Attribution::local(by_shape, attested::LEFT, vec![left]);
    }
    if shown == Cause::Kernel && !config.kernel.answers && !answers_belong(segment) {
        let cause = Some(Cause::Kernel).filter(|_| is_labeled(segment));
        return Attribution::local(cause, attested::LEFT, vec![left]);
    }
    let untold = attested(
        "no_socket_sent_it",
        Favors::Local,
        attested::NO_EVENT_DB,
        "no kernel event".into(),
    );
    Attribution::local(
        Some(Cause::Firewall),
        attested::NO_EVENT,
        vec![left, untold],
    )
}

/// Whether TCP's answers of this family belong to the socket that it answers with (`ip_send_unicast_reply`), on
/// kernels that do not tell of them. Those of IPv6 belong to none there (`tcp_v6_send_response`).
fn answers_belong(segment: &Segment) -> bool {
    segment.tuple.src.is_ipv4()
}

/// TCP's answers by IPv6 are labeled (`ip6_make_flowlabel`, unless `net.ipv6.auto_flowlabels` is off), a packet
/// filter's are not (`nf_reject_ip6hdr_put`).
fn is_labeled(segment: &Segment) -> bool {
    segment.flow_label.is_some_and(|label| label != 0)
}

/// RFC 9293 §3.5.2 form (window 0, no options) is TCP's answer to a segment; a socket's own abort
/// carries its window and, where negotiated, its timestamps (`tcp_send_active_reset`).
fn cause_by_shape(segment: &Segment) -> Cause {
    if segment.window == 0 && segment.options.len == 0 {
        Cause::Kernel
    } else {
        Cause::Process
    }
}

fn routed(settled: &Settled<'_>) -> Attribution {
    let evidence = vec![routed_evidence(settled.view.first)];
    let cause = Some(Cause::Router);
    Attribution::new(Verdict::Forwarded, cause, attested::ROUTED, evidence)
}

/// The evidence that this host routed a reset, seen leaving.
pub(super) fn routed_evidence(copy: &ResetSeen) -> Evidence {
    let hop_limit = i64::from(copy.segment.hop_limit);
    attested(
        "left_by_another_interface",
        Favors::Forwarded,
        attested::ROUTED_DB,
        hop_limit.into(),
    )
}

/// Neither flow nor socket: backscatter of somebody else's trouble, or a scan. Nothing of the kind is
/// said where another network namespace, or another host behind this one, may have the socket: the reset is
/// for an address of theirs, or for a connection that they opened by this host, which gave them its own; nor of
/// a connection that was there before the sensor.
fn stray(settled: &Settled<'_>, config: &EngineConfig) -> Option<Attribution> {
    let to = settled.view.first.segment.tuple.dst;
    let own = config.own_addresses.as_ref();
    if own.is_some_and(|own| !own.contains(&to)) {
        return None;
    }
    let nobody = matches!(
        settled.view.first.socket,
        Some(SocketView::Absent | SocketView::Listener)
    );
    let facts = settled.view.facts;
    let is_routed = facts.first_seen.is_some();
    let unknown_flow = facts.sender.is_none() && facts.receiver.is_none() && !is_routed;
    let is_older = config.older.contains(&settled.episode.key);
    let silent = settled.episode.routed.is_empty()
        && settled.episode.accepted.is_none()
        && settled.view.after.is_empty()
        && !settled.episode.resets().iter().any(|reset| {
            matches!(
                reset.socket,
                Some(SocketView::Full { .. } | SocketView::TimeWait)
            )
        });
    let is_stray = nobody && unknown_flow && silent && !is_older;
    is_stray.then(|| Attribution::stray(settled, attested::OF_NOTHING, "no_flow_and_no_socket"))
}

fn in_capture(settled: &Settled<'_>, config: &EngineConfig, legs: &Legs) -> Option<Attribution> {
    let tuple = settled.view.first.segment.tuple;
    let is_local = |address| config.local.iter().any(|network| network.contains(address));
    if is_local(tuple.src) && !is_local(tuple.dst) {
        return Some(local_in_capture(settled, legs));
    }
    let unheard = settled.view.facts.sender.is_none() && settled.view.facts.receiver.is_none();
    let is_stray = unheard
        && settled.view.after.is_empty()
        && settled.view.resets.iter().all(|reset| reset.from_sender);
    let confidence = attested::OF_NOTHING_IN_CAPTURE;
    is_stray.then(|| Attribution::stray(settled, confidence, "no_flow_in_capture"))
}

fn local_in_capture(settled: &Settled<'_>, legs: &Legs) -> Attribution {
    let first = &settled.view.first;
    let evidence = vec![attested(
        "source_is_local",
        Favors::Local,
        attested::LOCAL_ADDRESS_DB,
        first.segment.tuple.src.to_string().into(),
    )];
    let cause = cause_by_shape(&first.segment);
    let mut attribution = Attribution::local(Some(cause), attested::LOCAL_ADDRESS, evidence);
    if cause == Cause::Process {
        let join = legs.nearest(&passed(settled, None), CAPTURE_JOIN_NS);
        if let Some(join) = join {
            attribution.verdict = Verdict::Forwarded;
            attribution.cause = Some(Cause::Proxy);
            attribution.confidence = join.confidence;
            attribution.evidence.push(attested(
                "other_leg_was_reset",
                Favors::Forwarded,
                odds_db(join.confidence),
                describe(&join.leg.key, join.leg.sender).into(),
            ));
            attribution.join = Some((join, "time"));
        }
    }
    attribution
}

/// A probability as the decibans that stand for it.
fn odds_db(probability: f32) -> f32 {
    10.0 * (probability / (1.0 - probability)).log10()
}

fn describe(key: &FlowKey, sender: Side) -> String {
    let FourTuple {
        src,
        src_port,
        dst,
        dst_port,
    } = key.tuple_from(sender);
    format!("{src} port {src_port} to {dst} port {dst_port}")
}

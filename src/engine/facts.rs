//! What is known of a settled episode beside its verdict: stage, roles, baseline, bytes, times. Each
//! a function of the episode; what is not known is `None`.

use super::EngineConfig;
use super::episode::{Settled, View};
use crate::evidence::{ResetSeen, SequenceFit};
use crate::flow::{Endpoint, HalfFlow, PathFacts};
use crate::host::{SocketCounts, SocketSequence, SocketView, TcpState};
use crate::record::{BaselineEntry, ResetEntry};
use crate::time::Timestamp;
use crate::vantage::{InterfaceId, Path};
use crate::verdict::Stage;
use crate::wire::Segment;

/// How far behind its sender's SYN a reset's SEQ counts as data: the largest window (RFC 7323 §2.3), so that a SEQ
/// that somebody guessed is taken for data once in four times. Of a connection that carried more, nothing is
/// known by its SEQ.
const DATA_MAX: u32 = 1 << 30;

/// Whether the kernel accepted the episode's first reset. The event names the socket, not the
/// frame: it belongs to the reset that fits exactly.
pub(super) fn accepted(
    settled: &Settled<'_>,
    view: &View<'_>,
    config: &EngineConfig,
) -> Option<bool> {
    let first = &view.first;
    if first.vantage.path != Path::Ingress || !config.kernel.resets {
        return None;
    }
    let is_connection = first
        .socket
        .as_ref()
        .and_then(SocketView::state)
        .is_some_and(TcpState::is_connection);
    match (&settled.episode.accepted, first.fit) {
        (Some(_), SequenceFit::Exact | SequenceFit::Unknown) => Some(true),
        (Some(_), _) => Some(
            settled
                .view
                .resets
                .iter()
                .all(|reset| reset.fit != SequenceFit::Exact),
        ),
        (None, _) if is_connection && !settled.episode.lossy => Some(false),
        (None, _) => None,
    }
}

pub(super) fn sequence<'a>(settled: &Settled<'a>) -> Option<&'a SocketSequence> {
    settled
        .view
        .first
        .socket
        .as_ref()
        .and_then(SocketView::sequence)
}

pub(super) fn socket_state(settled: &Settled<'_>) -> Option<TcpState> {
    settled
        .view
        .first
        .socket
        .as_ref()
        .and_then(SocketView::state)
        .or_else(|| settled.episode.accepted.and_then(|accepted| accepted.state))
        .or_else(|| settled.episode.sent.first().and_then(|sent| sent.state))
}

pub(super) fn roles(
    settled: &Settled<'_>,
    source: Endpoint,
    destination: Endpoint,
) -> (Option<Endpoint>, Option<Endpoint>) {
    match settled.view.facts.sender_is_originator {
        Some(true) => (Some(source), Some(destination)),
        Some(false) => (Some(destination), Some(source)),
        None if answers_syn(settled) => (Some(destination), Some(source)),
        None => (None, None),
    }
}

/// What the first reset's looks say of the SYN that it answers: the worker alone saw that. Of what comes in they
/// prove nothing, unless somebody was heard to ask: it may answer a SYN that another forged.
pub(super) fn answers_syn(settled: &Settled<'_>) -> bool {
    let first = settled.view.first;
    let was_asked = match first.vantage.path {
        Path::Egress { .. } => true,
        Path::Ingress | Path::Capture => settled.view.facts.first_seen.is_some(),
    };
    was_asked && first.segment.answers_syn()
}

pub(super) fn incoming(reset: &ResetSeen, config: &EngineConfig) -> Option<bool> {
    let is_local = |address| config.local.iter().any(|network| network.contains(address));
    match reset.vantage.path {
        Path::Ingress => Some(true),
        Path::Egress { .. } => Some(false),
        Path::Capture => {
            let tuple = reset.segment.tuple;
            match (is_local(tuple.src), is_local(tuple.dst)) {
                (true, false) => Some(false),
                (false, true) => Some(true),
                _ => None,
            }
        }
    }
}

pub(super) fn egress_interface(settled: &Settled<'_>) -> Option<InterfaceId> {
    let first = &settled.view.first;
    match first.vantage.path {
        Path::Egress { .. } => Some(first.vantage.interface),
        _ => settled
            .episode
            .routed
            .first()
            .map(|copy| copy.vantage.interface),
    }
}

pub(super) fn entry(reset: &ResetSeen, config: &EngineConfig) -> ResetEntry {
    ResetEntry {
        time: reset.time,
        vantage: reset.vantage,
        incoming: incoming(reset, config),
        segment: reset.segment,
        fit: reset.fit,
        offset: reset.offset,
    }
}

pub(super) fn baseline(settled: &Settled<'_>) -> Option<BaselineEntry> {
    if let Some(half) = &settled.view.facts.sender {
        let source = match half.syn {
            Some(syn) if syn.is_syn_ack => "syn_ack",
            Some(_) => "syn",
            None => "segments",
        };
        return Some(BaselineEntry {
            hop_limit: half.hop_limits.usual(),
            mac: half.mac,
            window: Some(half.window),
            timestamps: Some(half.timestamps.is_some()),
            source,
        });
    }
    if let Some(path) = settled.view.facts.path.filter(PathFacts::has_address) {
        return Some(BaselineEntry {
            hop_limit: path.hop_limits.usual(),
            mac: path.mac,
            window: None,
            timestamps: sequence(settled).map(|s| s.ts_recent.is_some()),
            source: "path",
        });
    }
    let after = settled.view.after.first()?;
    Some(BaselineEntry {
        hop_limit: Some(after.segment.hop_limit),
        mac: after.segment.link.map(|link| link.src),
        window: Some(after.segment.window),
        timestamps: Some(after.segment.options.timestamps.is_some()),
        source: "after",
    })
}

/// Payload bytes from the purported sender, and to it.
pub(super) fn bytes(settled: &Settled<'_>) -> (Option<u64>, Option<u64>) {
    let facts = &settled.view.facts;
    let is_originator = facts.sender_is_originator;
    if let Some(socket) = sequence(settled) {
        let (peer, opened) = (facts.sender.as_ref(), is_originator == Some(false));
        let counted = (socket.bytes_in, socket.bytes_out);
        return payload(counted, peer, opened, socket_state(settled));
    }
    if let Some(counts) = counts(settled) {
        let (peer, opened) = (facts.receiver.as_ref(), is_originator == Some(true));
        let counted = (Some(counts.bytes_received), Some(counts.bytes_acked));
        let (received, acked) = payload(counted, peer, opened, None);
        return (acked, received);
    }
    (bytes_by_sequence(settled), None)
}

/// Payload that a socket of this host received, and that its peer acknowledged, of what the kernel counts: to that a
/// FIN is a byte, and so is the SYN of who opened the connection.
fn payload(
    (received, acked): (Option<u64>, Option<u64>),
    peer: Option<&HalfFlow>,
    opened: bool,
    state: Option<TcpState>,
) -> (Option<u64>, Option<u64>) {
    let took_fin = matches!(
        state,
        Some(TcpState::CloseWait | TcpState::LastAck | TcpState::Closing)
    ) || peer.is_some_and(|half| half.fin.is_some());
    let fin_was_taken = state == Some(TcpState::FinWait2);
    let less = |bytes: u64, numbers: u64| bytes.saturating_sub(numbers);
    (
        received.map(|bytes| less(bytes, u64::from(took_fin))),
        acked.map(|bytes| less(bytes, u64::from(opened) + u64::from(fin_was_taken))),
    )
}

/// SEQ of a reset that stands at the end of what its sender sent tells (RFC 9293 §3.4: ISN + 1 + bytes, and 1 for
/// a FIN), as long as the connection carried less than 4 GiB. A reset elsewhere tells nothing: its SEQ may be
/// anybody's ACK.
fn bytes_by_sequence(settled: &Settled<'_>) -> Option<u64> {
    let first = &settled.view.first;
    let sender = settled.view.facts.sender.as_ref()?;
    let numbers = first.segment.seq.bytes_since(sender.syn?.isn.plus(1));
    let bytes = u64::from(numbers).saturating_sub(u64::from(sender.fin.is_some()));
    let stands_at_end = sender.end == Some(first.segment.seq);
    (first.fit == SequenceFit::Exact && stands_at_end).then_some(bytes)
}

/// What the socket that sent the first reset told of itself.
fn counts(settled: &Settled<'_>) -> Option<SocketCounts> {
    settled.episode.sent.iter().find_map(|sent| sent.counts)
}

pub(super) fn idle(settled: &Settled<'_>, config: &EngineConfig) -> Option<u64> {
    let idle = |socket: &SocketSequence| socket.idle_ns;
    let own = || counts(settled).and_then(|counts| counts.idle_ns);
    if let Some(idle) = sequence(settled).and_then(idle).or_else(own) {
        return Some(idle);
    }
    if !config.offline {
        return None;
    }
    let last = |half: &Option<HalfFlow>| half.map(|half| half.last_seen);
    let seen: Option<Timestamp> =
        last(&settled.view.facts.sender).max(last(&settled.view.facts.receiver));
    seen.map(|seen| settled.view.first.time.since(seen))
}

/// Whether a reset stands beyond its sender's SYN. Where a connection is routed, its other end's SYN or SYN-ACK may
/// never be seen, or leave by a watched interface only, under addresses that this host gave it.
fn has_sent_data(sender: Option<&HalfFlow>, reset: &Segment) -> bool {
    let syn = sender.and_then(|half| half.syn);
    syn.is_some_and(|syn| (1..DATA_MAX).contains(&reset.seq.bytes_since(syn.isn.plus(1))))
}

/// How far the connection was, from the socket if there is one, else from what was seen of it.
pub(super) fn stage(settled: &Settled<'_>) -> Stage {
    let facts = &settled.view.facts;
    match socket_state(settled) {
        Some(TcpState::SynSent | TcpState::SynRecv | TcpState::NewSynRecv) => {
            return Stage::Handshake;
        }
        Some(TcpState::Established) => return Stage::Established,
        Some(
            TcpState::FinWait1
            | TcpState::FinWait2
            | TcpState::CloseWait
            | TcpState::LastAck
            | TcpState::Closing,
        ) => return Stage::Closing,
        Some(TcpState::TimeWait) => return Stage::Closed,
        _ => {}
    }
    let closed = |half: &Option<HalfFlow>| half.is_some_and(|h| h.fin.is_some());
    match (closed(&facts.sender), closed(&facts.receiver)) {
        (true, true) => Stage::Closed,
        (true, false) | (false, true) => Stage::Closing,
        _ if facts.established => Stage::Established,
        _ => {
            let syn = |half: &Option<HalfFlow>| half.is_some_and(|half| half.syn.is_some());
            let first = &settled.view.first.segment;
            match (syn(&facts.sender), syn(&facts.receiver)) {
                (true, true) => Stage::Established,
                (true, false) if has_sent_data(facts.sender.as_ref(), first) => Stage::Established,
                (true, false) | (false, true) => Stage::Handshake,
                _ if answers_syn(settled) => Stage::Handshake,
                _ => Stage::Unknown,
            }
        }
    }
}

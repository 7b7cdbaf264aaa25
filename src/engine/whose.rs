//! Which connection what is known belongs to. A worker hears what comes in by its rings, and the engine's own table
//! what went past them and what leaves: where the end of a connection, or the SYN of the next one on its four-tuple,
//! was heard by one of them or by nobody, a table still has the connection before. Held against a peer that took the
//! ports from another, as behind an address that many hosts share, that would be a false witness.

use crate::evidence::ResetSeen;
use crate::flow::{FlowFacts, HalfFlow, SynFacts};
use crate::host::{SocketView, TcpState};
use crate::time::Timestamp;
use crate::vantage::Path;
use crate::wire::SeqNum;

/// What the engine's own table and the worker's know of the flow of a reset that came in, as far as it is of the
/// connection that the reset met.
pub(super) fn joined(
    own: FlowFacts,
    workers: &FlowFacts,
    socket: Option<&SocketView>,
) -> FlowFacts {
    if let Some(isn) = peers_isn(socket) {
        return of_isn(own, isn).completed(&of_isn(*workers, isn));
    }
    let (Some(ours), Some(theirs)) = (syn(&own), syn(workers)) else {
        return own.completed(workers);
    };
    if ours.isn == theirs.isn || theirs.time >= ours.time {
        return own.completed(workers);
    }
    // The last SYN went past the worker. Anybody can write one into a living connection (RFC 5961 §4): it stands for
    // the next where its receiver agreed. Where nobody tells, neither table is a witness.
    let is_agreed = own.receiver.and_then(|half| half.syn);
    if is_agreed.is_some_and(|answer| answer.is_syn_ack && answer.time >= ours.time) {
        own.completed(&another(workers))
    } else {
        another(&own).completed(&another(workers))
    }
}

/// Whether the connection that a reset ends may have taken its ports while frames went past unseen: it met no
/// socket of this host, which would tell. What this host sends itself is not asked for.
pub(super) fn may_be_anothers(reset: &ResetSeen) -> bool {
    let is_met = reset
        .socket
        .as_ref()
        .is_some_and(|s| s.sequence().is_some());
    reset.vantage.path == Path::Ingress && !is_met
}

/// What was heard last before `unseen` may be another connection's.
pub(super) fn doubt(known: &mut FlowFacts, unseen: Timestamp) {
    if known.sender.is_some_and(|half| half.last_seen <= unseen) {
        *known = another(known);
    }
}

/// The ISN of the peer of a socket: what it expects less what it received. `None` where there is no such socket, or
/// the kernel does not tell (before Linux 6.8).
fn peers_isn(socket: Option<&SocketView>) -> Option<SeqNum> {
    let SocketView::Full { state, sequence } = socket? else {
        return None;
    };
    // It expects nothing yet.
    let has_peer = *state != TcpState::SynSent;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "sequence numbers are modulo 2^32"
    )]
    let received = sequence.bytes_in.filter(|_| has_peer)? as u32;
    let before = received.wrapping_add(1);
    Some(SeqNum(sequence.rcv_nxt.0.wrapping_sub(before)))
}

/// What is known, where it is of the connection that the sender began with `isn`, or may be.
fn of_isn(known: FlowFacts, isn: SeqNum) -> FlowFacts {
    match syn(&known) {
        Some(syn) if syn.isn != isn => another(&known),
        _ => known,
    }
}

/// What is left of what is known of another connection: what its sender's address does.
fn another(known: &FlowFacts) -> FlowFacts {
    FlowFacts {
        path: known.path,
        ..FlowFacts::default()
    }
}

fn syn(known: &FlowFacts) -> Option<SynFacts> {
    known.sender.as_ref().and_then(|half: &HalfFlow| half.syn)
}

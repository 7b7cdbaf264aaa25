//! What several tests hold a reset against: hop counts, the round-trip time, how the peer's stack
//! introduces itself. Measures only; nothing here is evidence.

use crate::host::SocketSequence;
use crate::time::{MILLISECOND, Timestamp};
use crate::wire::hop_limit::initial_hop_limit;
use crate::wire::{Segment, SeqNum};

use super::Case;
use super::opener::is_syn_anothers;

/// The stack that a SYN or SYN-ACK shows by its option order and hop limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stack {
    /// MSS, SACK permitted, timestamps, NOP, window scale; 64. Or, of one that asks for no timestamps
    /// (`net.ipv4.tcp_timestamps`), MSS, twice NOP, SACK permitted, NOP, window scale: in a SYN alone, since others answer so
    /// who was asked for none (OpenBSD).
    Linux,
    /// Starts at 128.
    Windows,
    /// MSS, NOP, window scale, NOP, NOP, timestamps, SACK permitted; 64.
    Apple,
    /// MSS, NOP, window scale, SACK permitted, timestamps; 64.
    FreeBsd,
    /// None of these.
    Other,
}

const LINUX_ORDER: u32 = 0x2_4813;
const LINUX_ORDER_WITHOUT_TIMESTAMPS: u32 = 0x21_1413;
const APPLE_ORDER: u32 = 0x213_1184;
const FREEBSD_ORDER: u32 = 0x2_1348;

/// The stack of the purported sender; `None` when its SYN or SYN-ACK was not seen, or may be a proxy's.
pub(super) fn sender_stack(case: &Case<'_>) -> Option<Stack> {
    let syn = case.sender()?.syn.filter(|_| !is_syn_anothers(case))?;
    Some(
        match (initial_hop_limit(syn.hop_limit), syn.options.order) {
            (128, _) => Stack::Windows,
            (64, LINUX_ORDER) => Stack::Linux,
            (64, LINUX_ORDER_WITHOUT_TIMESTAMPS) if !syn.is_syn_ack => Stack::Linux,
            (64, APPLE_ORDER) => Stack::Apple,
            (64, FREEBSD_ORDER) => Stack::FreeBsd,
            _ => Stack::Other,
        },
    )
}

/// Timestamps were negotiated: exactly from the local socket, else both SYNs had them (RFC 7323
/// §1.3: in use only when both did). `None` when neither is known.
pub(super) fn timestamps_in_use(case: &Case<'_>) -> Option<bool> {
    if let Some(sequence) = sequence(case) {
        return Some(sequence.ts_recent.is_some());
    }
    let ours = case.receiver()?.syn?.options.timestamps.is_some();
    let theirs = case.sender()?.syn?.options.timestamps.is_some();
    Some(ours && theirs)
}

/// The round-trip time in nanoseconds, where something tells it: the socket's own estimate, else
/// the time between SYN and SYN-ACK, which at a capture point near one end is too short.
pub(super) fn round_trip_ns(case: &Case<'_>) -> Option<u64> {
    if let Some(us) = socket_round_trip_us(case) {
        return Some(u64::from(us) * 1_000);
    }
    let (a, b) = (case.sender()?.syn?, case.receiver()?.syn?);
    Some(a.time.distance(b.time))
}

fn socket_round_trip_us(case: &Case<'_>) -> Option<u32> {
    sequence(case)?.srtt_us.filter(|us| *us > 0)
}

fn sequence<'a>(case: &Case<'a>) -> Option<&'a SocketSequence> {
    case.first()?.socket.as_ref()?.sequence()
}

/// Whether the network brings segments out of order: those of this very connection, or of others from there. What is
/// usual there proves nothing: a bare reset that answers this host's segment may overtake all that its sender had sent
/// before.
pub(super) fn reorders(case: &Case<'_>) -> bool {
    case.path_reorders || sequence(case).is_some_and(|socket| socket.has_reordered)
}

/// By how much one segment may be late at least where segments were: as long as Linux holds back an acknowledgment
/// (`TCP_DELACK_MIN`), which no round-trip time shows.
const LATE_NS: u64 = 40 * MILLISECOND;

/// How long segments that were sent before the reset may still come in after it: half a
/// round-trip, at least 20 ms, or 3 ms where the socket's own estimate is there to say how long a
/// round-trip is (evidence notes E-R1, E-R2). Where segments came out of order, as long as no sender waits for them:
/// the round-trip and four times its deviation (RFC 6298 §2, without the floor).
pub(super) fn reorder_guard_ns(case: &Case<'_>) -> u64 {
    if reorders(case) {
        return longest_late_ns(case);
    }
    let half = round_trip_ns(case).unwrap_or(0) / 2;
    let floor = if socket_round_trip_us(case).is_some() {
        3
    } else {
        20
    };
    half.max(floor * MILLISECOND)
}

/// How long they may on a path of which nothing is known: as where segments came out of order.
pub(super) fn longest_late_ns(case: &Case<'_>) -> u64 {
    let deviation = sequence(case).map_or(0, |socket| socket.rtt_deviation);
    let round_trip = round_trip_ns(case).unwrap_or(0);
    (round_trip + round_trip / 16 * u64::from(deviation)).max(LATE_NS)
}

/// RST and ACK with a window: what a stack sends that aborts a connection of its own
/// (`tcp_send_active_reset`). Its SEQ is SND.NXT: nothing that the sender sent can lie beyond.
pub(super) const fn is_active(segment: &Segment) -> bool {
    segment.flags.ack() && segment.window != 0
}

/// The largest order of one option (`Options::order`: four bits each). Scanners write none or one; a kernel's SYN has
/// an MSS and more.
const ONE_OPTION: u32 = 0xf;

/// Bare and without window, Don't Fragment set and ID 0: what Linux answers by no socket, whatever those of its host do
/// about fragments (`ip_no_pmtu_disc`, `IP_PMTUDISC_DONT`), since one of its own says it all (`tcp_sk_init`). Not so
/// beside a SYN with one option at most, which no such kernel sends.
pub(super) fn is_of_no_socket(case: &Case<'_>) -> bool {
    let syn = case.sender().and_then(|sender| sender.syn);
    let is_kernels = syn.is_none_or(|syn| syn.options.order > ONE_OPTION);
    let answers = case.first().is_some_and(|first| {
        let segment = &first.segment;
        !segment.flags.ack()
            && segment.window == 0
            && segment.dont_fragment == Some(true)
            && segment.ip_id == Some(0)
    });
    is_kernels && answers
}

/// The reset is one that answers a SYN, or would be: nothing but a SYN of the receiver was seen.
pub(super) fn answers_syn(case: &Case<'_>) -> bool {
    let syn_sent = case
        .receiver()
        .and_then(|r| r.syn)
        .is_some_and(|syn| !syn.is_syn_ack);
    let socket_open = case
        .first()
        .and_then(|first| first.socket.as_ref())
        .and_then(|socket| socket.state())
        .is_some_and(|state| state != crate::host::TcpState::SynSent && state.is_connection());
    syn_sent
        && case.sender().is_none_or(|s| s.syn.is_none())
        && !case.flow.established
        && !socket_open
}

/// Hop limits that may be of one sender: a route that shifts by a hop or two makes no other
/// (`hop_limit::distance` says nothing at 2 either, and accuses from 3 on).
pub(super) const fn may_be_one_way(one: u8, other: u8) -> bool {
    one.abs_diff(other) <= 2
}

/// Milliseconds from `earlier` to `later`.
pub(super) fn millis(later: Timestamp, earlier: Timestamp) -> i64 {
    i64::try_from(later.since(earlier) / MILLISECOND).unwrap_or(i64::MAX)
}

/// The ISN of the purported sender: from its SYN or SYN-ACK, else from what the other's SYN-ACK
/// acknowledged.
pub(super) fn sender_isn(case: &Case<'_>) -> Option<SeqNum> {
    if let Some(syn) = case.sender().and_then(|s| s.syn) {
        return Some(syn.isn);
    }
    let answer = case.receiver()?.syn?;
    answer.ack.map(|ack| SeqNum(ack.0.wrapping_sub(1)))
}

/// The ISN of the receiver, in the same way.
pub(super) fn receiver_isn(case: &Case<'_>) -> Option<SeqNum> {
    if let Some(syn) = case.receiver().and_then(|r| r.syn) {
        return Some(syn.isn);
    }
    let answer = case.sender()?.syn?;
    answer.ack.map(|ack| SeqNum(ack.0.wrapping_sub(1)))
}

//! Segments that came after a reset and were sent before it, by what their sender says itself: its abort's numbers
//! and clock, its FIN, and what the local socket had of it when the reset came. By time alone
//! `basis::reorder_guard_ns` tells. Weighs nothing: what is named here is no sign of life to `race`.

use super::basis::{is_active, may_be_one_way};
use super::race::{is_at_or_beyond, own_segments};
use super::{Case, ResetSeen};
use crate::flow::HalfFlow;
use crate::host::{SocketSequence, SocketView, TcpState};
use crate::wire::{Segment, SeqNum, Timestamps};

/// Whether whoever sent `abort` had sent `segment` before it, however late that comes: its SEQ is SND.NXT and its
/// ACK RCV.NXT (`tcp_send_active_reset`), and by its clock (RFC 7323 §3.2) the segment is no younger. Resets overtake
/// data where the network reorders: the abort, and the bare ones with which its sender's kernel answers from then on.
///
/// Who forges a reset that is accepted has the next number of the living peer, so that what the peer sends
/// lies beyond. Where there are no timestamps, as Windows asks for none, the IP IDs tell the order, and where there are
/// none either, only what ends where the abort stands was sent just before it.
#[must_use]
pub fn is_sent_before(segment: &Segment, abort: &Segment) -> bool {
    let stamp = abort.options.timestamps.map(|stamps| stamps.value);
    is_below(segment.end(), abort)
        && !segment.ack.is_after(abort.ack)
        && may_be_one_way(abort.hop_limit, segment.hop_limit)
        && is_no_younger(segment, stamp, abort.ip_id, abort.seq)
            .unwrap_or((segment.end(), segment.ack) == (abort.seq, abort.ack))
}

/// Whether `segment`, which came after a reset, had been sent before something of its sender's that came before that: by
/// what the local socket had from the peer by then, or as what lies below the sender's FIN and is no younger. The
/// network reordered or doubled it, and it says nothing of what its sender did later.
#[must_use]
pub fn is_older_than_the_reset(
    segment: &Segment,
    reset: &ResetSeen,
    sender: Option<&HalfFlow>,
) -> bool {
    // One that waits for its SYN to be answered knows no number of its peer's.
    let knows = |state: TcpState| state.is_connection() && state != TcpState::SynSent;
    let socket = reset.socket.as_ref();
    if socket
        .filter(|socket| socket.state().is_some_and(knows))
        .and_then(SocketView::sequence)
        .is_some_and(|known| is_older_than_known(segment, known))
    {
        return true;
    }
    let closed = sender.and_then(|half| Some((half, half.fin?)));
    closed.is_some_and(|(half, fin)| {
        let stamp = half.timestamps.map(|(_, stamps)| stamps.value);
        is_at_or_beyond(fin, segment.end())
            && is_no_younger(segment, stamp, half.ip_id, fin) == Some(true)
    })
}

/// Whether the socket had something newer of its peer's, which takes back neither its clock (TS.Recent) nor what it
/// acknowledged (SND.UNA); or had all of the segment's data, which is then a copy if it is no younger.
fn is_older_than_known(segment: &Segment, known: &SocketSequence) -> bool {
    let stamps = segment.options.timestamps.zip(known.ts_recent);
    let newest = |(own, recent): (Timestamps, u32)| SeqNum(recent).offset_from(SeqNum(own.value));
    let is_older = stamps.is_some_and(|stamps| newest(stamps) > 0);
    let took_back = segment.flags.ack() && known.snd_una.is_after(segment.ack);
    let is_copy = !segment.is_empty()
        && is_at_or_beyond(known.rcv_nxt, segment.end())
        && stamps.is_none_or(|stamps| newest(stamps) >= 0);
    is_older || took_back || is_copy
}

/// Segments for which a sender's IP ID may have stepped on beyond those of the bytes in between: they were sent again,
/// or had no data.
const STEPS: u32 = 16;
/// Bytes of a segment: no fewer where many are under way.
const SMALL_SEGMENT: u32 = 256;

/// Whether `segment` was sent no later than what bears this TSval and IP ID and lies at `seq`. `None`: there is neither.
fn is_no_younger(
    segment: &Segment,
    stamp: Option<u32>,
    ip_id: Option<u16>,
    seq: SeqNum,
) -> Option<bool> {
    match (segment.options.timestamps, stamp) {
        (Some(own), Some(known)) => Some(!SeqNum(own.value).is_after(SeqNum(known))),
        (None, None) => {
            let ids = segment.ip_id.zip(ip_id);
            let (own, known) = ids.filter(|(own, known)| *own != 0 && *known != 0)?;
            let most = STEPS + seq.bytes_since(segment.seq) / SMALL_SEGMENT;
            Some((1..=most).contains(&known.wrapping_sub(own).into()))
        }
        _ => Some(false),
    }
}

/// Whether what ends there was sent after `abort`, if by one sender: a socket aborts once, at SND.NXT. Another abort
/// farther on excuses no such segment: who forged the one may have forged the other behind what the peer sent
/// meanwhile, as who misses RCV.NXT does.
#[must_use]
pub fn is_beyond(end: SeqNum, abort: &Segment) -> bool {
    is_active(abort) && end != abort.seq && is_at_or_beyond(end, abort.seq)
}

/// Whether `reset`, which came no earlier than `first` in the same name, may be the one abort of whoever sent
/// `first`: that is a bare answer, which its abort may follow, or the very same abort. One that acknowledges more,
/// or has another clock, is not: who forges one abort after the other, each with what the living peer last said,
/// would excuse by the last one all that the peer said since the first.
#[must_use]
pub fn may_be_the_abort(reset: &Segment, first: &Segment) -> bool {
    !is_active(first)
        || (reset.seq == first.seq
            && reset.ack == first.ack
            && reset.options.timestamps == first.options.timestamps)
}

/// Whether what ends there had been sent when its sender aborted.
#[must_use]
pub fn is_below(end: SeqNum, abort: &Segment) -> bool {
    is_active(abort) && is_at_or_beyond(abort.seq, end)
}

/// Whether the sender's own FIN comes on the heels of a bare reset: who closed in order answers what comes
/// then with bare resets, and these may overtake the end of what it had sent, FIN and all.
pub(super) fn closes_soon(case: &Case<'_>, first: &ResetSeen, guard: u64) -> bool {
    !is_active(&first.segment)
        && own_segments(case).any(|a| a.segment.flags.fin() && a.time.since(first.time) <= guard)
}

#[cfg(test)]
mod tests {
    use super::{is_below, is_beyond, is_older_than_the_reset};
    use crate::evidence::race::{acks_on, answered, sends_on};
    use crate::evidence::testing::{Scene, name};
    use crate::host::{SocketSequence, SocketView, TcpState};
    use crate::wire::{Flags, Segment, SeqNum, Timestamps};

    fn data(segment: &mut Segment) {
        segment.payload_len = 100;
    }

    #[test]
    fn the_acknowledgement_that_a_stack_still_owed_when_it_aborted_is_one_sign_only() {
        let owed = |change: fn(&mut Segment), ms| {
            let scene = Scene::established().socket(|s| s.srtt_us = Some(100));
            let seq = scene.resets[0].segment.seq;
            let scene = scene.after(ms, change).answered(ms, seq, 0);
            (scene.check(acks_on), scene.check(answered))
        };
        let soon = name("peer_acknowledges_soon");
        assert_eq!(owed(|_| (), 1), (soon, None));
        // Who acknowledges more, sends, or speaks long after, lives.
        let more = owed(|s| s.ack = s.ack.plus(1), 1);
        assert_eq!(more.1, name("kernel_answered_peer"));
        let late = (name("peer_acknowledges_on"), name("kernel_answered_peer"));
        assert_eq!(owed(|_| (), 50), late);
        assert_eq!(owed(data, 1).1, name("kernel_answered_peer"));
    }

    #[test]
    fn who_closes_at_once_may_have_been_overtaken_by_its_kernels_answers() {
        let fin = |s: &mut Segment| s.flags = Flags(Flags::FIN | Flags::ACK);
        let bare = Scene::established().passive();
        let seq = bare.resets[0].segment.seq;
        let closing = bare.after(1, data).after(2, fin);
        assert_eq!(closing.check(sends_on), None);
        assert_eq!(closing.clone().answered(2, seq, 100).check(answered), None);
        // Later than anything can still be under way, it lives.
        assert_eq!(
            closing.clone().after(100, data).check(sends_on),
            name("peer_sends_on")
        );
        assert_eq!(
            closing.answered(100, seq, 100).check(answered),
            name("kernel_answered_new_data")
        );
    }

    #[test]
    fn where_segments_come_out_of_order_what_comes_soon_proves_nothing() {
        let seq = Scene::established().passive().resets[0].segment.seq;
        let own = |s: &mut SocketSequence| {
            (s.has_reordered, s.srtt_us, s.rtt_deviation) = (true, Some(20_000), 32);
        };
        let seen = Scene::established().passive().socket(own);
        let mut beside = Scene::established().passive();
        beside = beside.socket(|s| s.srtt_us = Some(1_000));
        beside.path_reorders = true;
        // The round-trip and four deviations; and no less than an acknowledgment is held back.
        for (scene, guard) in [(seen, 60), (beside, 40)] {
            for (ms, lives) in [(1, false), (guard, false), (guard + 1, true)] {
                let told = |kind| name(kind).filter(|_| lives);
                let ack = |s: &mut Segment| s.ack = s.ack.plus(0);
                let acks = scene.clone().after(ms, ack).after(ms, ack).after(ms, ack);
                assert_eq!(acks.check(acks_on), told("peer_acknowledges_on"));
                let sent = scene.clone().after(ms, data);
                assert_eq!(sent.check(sends_on), told("peer_sends_on"));
                let reset = scene.clone().answered(ms, seq, 10);
                assert_eq!(reset.check(answered), told("kernel_answered_new_data"));
            }
        }
        // Nothing was sent before an abort that lies beyond it.
        let abort = Scene::established().socket(own);
        let beyond = abort.clone().after(0, data).answered(0, seq, 10);
        assert_eq!(beyond.check(sends_on), name("peer_sends_on"));
        assert_eq!(beyond.check(answered), name("kernel_answered_new_data"));
        let stands = abort.answered(0, seq, 0);
        assert_eq!(stands.check(answered), None);
    }

    #[test]
    fn what_ends_at_an_abort_was_sent_before_it_and_what_ends_farther_was_not() {
        let abort = Scene::established().resets[0].segment;
        for (end, beyond) in [
            (abort.seq, false),
            (abort.seq.plus(1), true),
            (abort.seq.plus(u32::MAX), false),
        ] {
            assert_eq!(is_beyond(end, &abort), beyond);
            assert_eq!(is_below(end, &abort), !beyond);
        }
        let bare = Scene::established().passive().resets[0].segment;
        assert!(!is_beyond(bare.seq.plus(1), &bare));
    }

    #[test]
    fn whose_syn_is_not_answered_yet_knows_no_clock_of_its_peer() {
        let sequence = SocketSequence {
            ts_recent: Some(0),
            ..SocketSequence::BLANK
        };
        let told = |state| {
            let mut reset = Scene::refused().resets[0];
            reset.socket = Some(SocketView::Full { state, sequence });
            let mut answer = reset.segment;
            answer.flags = Flags(Flags::SYN | Flags::ACK);
            answer.seq = SeqNum(4_000_000_000);
            answer.options.timestamps = Some(Timestamps {
                value: 4_000_000_000,
                echo: 1,
            });
            is_older_than_the_reset(&answer, &reset, None)
        };
        assert!(!told(TcpState::SynSent));
        assert!(told(TcpState::Established));
    }
}

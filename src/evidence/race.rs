//! What the purported sender did after "its" reset. A peer that goes on talking never sent it.
//! Everything here guards against segments that were sent before the reset and came after it.

use super::basis::{
    answers_syn, is_active, may_be_one_way, receiver_isn, reorder_guard_ns, reorders, sender_isn,
};
use super::held_back::{answers_held_back, is_held_back};
use super::overtaken::closes_soon;
use super::sequence::missed_rcv_nxt;
use super::{AfterReset, Case, Evidence, Group, Kind, ResetSeen};
use crate::amount::{counted, span};
use crate::wire::SeqNum;
use crate::wire::hop_limit::is_far;

/// New data or a FIN at or beyond the reset's SEQ.
pub const SENDS_ON: Kind = Kind::injected("peer_sends_on", Group::Race);
/// The same so soon that the network may have reordered it.
pub const SENDS_ON_SOON: Kind = Kind::injected("peer_sends_on_soon", Group::Race);
/// Acknowledges what the reset had not, or long after it what its sender had not by then.
pub const ACKS_NEW: Kind = Kind::injected("peer_acknowledges_more", Group::Race);
/// Acknowledges at all, long after.
pub const ACKS_ON: Kind = Kind::injected("peer_acknowledges_on", Group::Race);
/// Acknowledges, so soon after a bare reset, what it had not acknowledged when that came.
pub const ACKS_NEW_SOON: Kind = Kind::injected("peer_acknowledges_more_soon", Group::Race);
/// Acknowledges so soon that the network may have reordered it.
pub const ACKS_ON_SOON: Kind = Kind::injected("peer_acknowledges_soon", Group::Race);
/// This host's kernel answered new data of the sender.
pub const ANSWERED_NEW: Kind = Kind::injected("kernel_answered_new_data", Group::Race);
/// This host's kernel answered another segment of the sender, long after.
pub const ANSWERED: Kind = Kind::injected("kernel_answered_peer", Group::Race);
/// The SYN-ACK came after the refusal.
pub const SYN_ACK: Kind = Kind::injected("syn_ack_after_reset", Group::Race);

/// Two sequence numbers further apart than this belong to no one connection (Zeek's limit).
const NEAR: u32 = 1 << 20;

/// `seq` lies at or beyond `reset` and belongs to the same connection.
pub(super) const fn is_at_or_beyond(seq: SeqNum, reset: SeqNum) -> bool {
    seq.bytes_since(reset) < NEAR
}

/// The segments after the reset that look like the sender's: from about where its others came. A
/// forger may send more than resets. Not what was held back and had been sent before.
pub(super) fn own_segments<'a>(case: &'a Case<'a>) -> impl Iterator<Item = &'a AfterReset> {
    let guard = reorder_guard_ns(case);
    let own = case.after.iter().filter(|a| looks_like_senders(case, a));
    own.filter(move |a| !is_held_back(case, a, guard))
}

/// Whether a segment comes from about where the sender's others came.
pub(super) fn looks_like_senders(case: &Case<'_>, after: &AfterReset) -> bool {
    let hop = after.segment.hop_limit;
    let known = case.sender().map(|s| s.hop_limits);
    known
        .and_then(|k| k.nearest(hop))
        .is_none_or(|near| may_be_one_way(near, hop))
}

/// Whether the reset can be a kernel's answer to a SYN-ACK that a raw socket tool on the same host
/// asked for (ZMap and the like, which then go on): bare, at ISN + 1, handshake not complete.
pub(super) fn may_be_raw_socket_tool(case: &Case<'_>) -> bool {
    let Some(first) = case.first() else {
        return false;
    };
    !first.segment.flags.ack()
        && first.segment.window == 0
        && sender_isn(case).is_some_and(|isn| first.segment.seq == isn.plus(1))
        && case.sender().is_none_or(|s| !s.has_data)
}

/// E-R1: data or a FIN from the sender at or beyond the reset's SEQ, or beyond all its earlier data
/// (Weaver et al., NDSS 2009: RST_SEQ_DATA; Suricata's `STREAM_SUSPECTED_RST_INJECT`; Zeek's
/// `data_after_reset`). An active reset has SEQ = SND.NXT: nothing sent before can lie beyond it. Behind a bare one that
/// missed RCV.NXT and was refused, whatever the socket had not had yet shows that its sender has a connection.
///
/// False positives, each silent: ports used anew (the engine ends the episode at the SYN); a
/// segment that the network reordered (below the reset's SEQ, or within half a round-trip of a bare
/// reset: [`SENDS_ON_SOON`], and not even that where its FIN comes as soon, or where the connection's segments came out
/// of order before: there for a round-trip and four deviations); SEQ more than 1 MiB
/// apart, as in a kernel's answer to a wrong ACK during the handshake; a raw socket tool beside its
/// kernel.
#[must_use]
pub fn sends_on(case: &Case<'_>) -> Option<Evidence> {
    let first = case.first()?;
    if answers_syn(case) || may_be_raw_socket_tool(case) {
        return None;
    }
    let guard = reorder_guard_ns(case);
    let overtakes = reorders(case) || closes_soon(case, first, guard);
    let missed = missed_rcv_nxt(case, first);
    let mut soon = None;
    for after in own_segments(case) {
        let segment = &after.segment;
        if segment.flags.syn() || segment.is_empty() {
            continue;
        }
        let late = after.time.since(first.time) > guard;
        let beyond = is_at_or_beyond(segment.seq, first.segment.seq)
            || late && missed.is_some_and(|rcv_nxt| is_at_or_beyond(segment.seq, rcv_nxt));
        // Beyond all that the sender sent before, where the reset at least belongs there.
        let end = case.sender().and_then(|s| s.end);
        let new = end.is_some_and(|end| {
            segment.end().is_after(end)
                && is_at_or_beyond(segment.seq, end)
                && first.segment.seq.offset_from(end).unsigned_abs() < NEAR
        });
        let found = |kind: Kind| kind.found(what(after, first), "silence");
        if late && (beyond || (new && case.from_capture)) || beyond && is_active(&first.segment) {
            return Some(found(SENDS_ON));
        }
        if beyond && !overtakes {
            soon = soon.or_else(|| Some(found(SENDS_ON_SOON)));
        }
    }
    soon
}

fn what(after: &AfterReset, first: &ResetSeen) -> String {
    let segment = &after.segment;
    let offset = segment.seq.offset_from(first.segment.seq);
    format!(
        "{} of {} at {offset:+} after {}",
        segment.flags.letters(),
        counted(segment.payload_len.into(), "byte"),
        span(after.time.since(first.time))
    )
}

/// E-R1 for segments without data: the sender acknowledges more than "its" reset did, or
/// acknowledges long after it. An active reset closes its socket; nobody is left to acknowledge.
///
/// A bare reset has no ACK, but the socket knows what its sender had acknowledged when it came: who
/// acknowledges more a moment later, as in a download, either lives or was overtaken by a reset of
/// his own, for which he would have to lose the connection just then. Later than that (an ACK that was
/// held back, RFC 9293 §3.8.6.3) he lives.
///
/// False positives: segments in flight that the network reordered: they acknowledge no more than
/// the reset, and no later than half a round-trip: only three or more of them count in full before. Where segments of
/// the connection came out of order before, none counts, and for longer.
#[must_use]
pub fn acks_on(case: &Case<'_>) -> Option<Evidence> {
    let first = case.first()?;
    if answers_syn(case) || may_be_raw_socket_tool(case) {
        return None;
    }
    let guard = reorder_guard_ns(case);
    let overtakes = reorders(case);
    let mut best: Option<(Kind, &AfterReset)> = None;
    let mut count = 0;
    for after in own_segments(case) {
        let segment = &after.segment;
        // A keep-alive probe lies one below SND.NXT.
        let fits = is_at_or_beyond(segment.seq.plus(1), first.segment.seq);
        if !segment.is_empty() || !segment.flags.ack() || !fits {
            continue;
        }
        count += 1;
        let late = after.time.since(first.time) > guard;
        if is_beyond_acked(first, segment.ack, late) {
            best = Some((ACKS_NEW, after));
            break;
        }
        if overtakes && !late {
            continue;
        }
        if late || (count >= 3 && !case.from_capture) {
            best = Some((ACKS_ON, after));
        } else if !first.segment.flags.ack() && acknowledges_new(first, segment.ack) {
            best = best
                .filter(|(kind, _)| *kind == ACKS_ON)
                .or(Some((ACKS_NEW_SOON, after)));
        } else if !case.from_capture {
            // Captures of several interfaces mix the order of frames; one queue does not.
            best = best.or(Some((ACKS_ON_SOON, after)));
        }
    }
    best.map(|(kind, after)| kind.found(what(after, first), "silence"))
}

/// Whether only a living peer acknowledges `ack`: it is more than its abort did, or, once nothing sent
/// before a bare reset can still be under way, more than the local socket had seen when that came.
pub(super) fn is_beyond_acked(reset: &ResetSeen, ack: SeqNum, late: bool) -> bool {
    let abort = &reset.segment;
    let more = ack.offset_from(abort.ack);
    let beyond_abort = is_active(abort) && more > 0 && is_at_or_beyond(ack, abort.ack);
    let is_bare = !abort.flags.ack();
    beyond_abort || (is_bare && late && acknowledges_new(reset, ack))
}

/// Whether `ack` lies beyond all that the local socket had seen acknowledged when the reset came,
/// and not beyond what it had sent.
fn acknowledges_new(reset: &ResetSeen, ack: SeqNum) -> bool {
    let sequence = reset.socket.as_ref().and_then(|s| s.sequence());
    sequence.is_some_and(|s| ack.is_after(s.snd_una) && !ack.is_after(s.write_seq))
}

/// E-R2: this host's kernel answered a segment of the sender with a reset of its own, and the
/// kernel says which: the sender still talks, although only resets are seen.
///
/// Without a look at the segment's SEQ it says nothing (10 % of injected, 15 % of genuine flows).
/// Where only the answer's frame tells, its SEQ is what the segment acknowledged: it counts where that is
/// more than the sender had acknowledged ([`acks_on`]).
///
/// False positives: data in flight at the abort: SEQ below the reset's: silent. In flight behind a bare reset, as for
/// [`sends_on`]. One acknowledgement that its sender's stack still owed, of no more than the abort acknowledges and right
/// behind it (lwIP's `tcp_close` with unread data: `tcp_rst`, then the ACK that was due), is what [`acks_on`] weighs
/// already, and no second witness: silent.
#[must_use]
pub fn answered(case: &Case<'_>) -> Option<Evidence> {
    let first = case.first()?;
    if answers_syn(case) || may_be_raw_socket_tool(case) {
        return None;
    }
    let guard = reorder_guard_ns(case);
    let overtakes = reorders(case) || closes_soon(case, first, guard);
    let mut weak = None;
    for answer in case.answered {
        let passed = answer.time.since(first.time);
        let late = passed > guard;
        // What lies beyond an abort was not sent before it, in whatever order it comes.
        if overtakes && !late && !is_active(&first.segment) || answers_held_back(case, answer) {
            continue;
        }
        if answer
            .ack
            .is_some_and(|ack| is_beyond_acked(first, ack, late))
        {
            let observed = format!("segment that acknowledges more after {}", span(passed));
            weak = weak.or_else(|| Some(ANSWERED.found(observed, "silence")));
        }
        let Some(seq) = answer
            .seq
            .filter(|seq| is_at_or_beyond(*seq, first.segment.seq))
        else {
            continue;
        };
        let offset = seq.offset_from(first.segment.seq);
        let observed = format!("segment at {offset:+} after {}", span(passed));
        let new = offset > 0 || answer.len.is_some_and(|len| len > 0);
        if new && (late || is_active(&first.segment)) {
            return Some(ANSWERED_NEW.found(observed, "silence"));
        }
        if !late && (overtakes || says_no_more(case, first, seq, guard)) {
            continue;
        }
        weak = weak.or_else(|| Some(ANSWERED.found(observed, "silence")));
    }
    weak
}

/// Whether all that came at `seq` so far only says again what the abort `first` says itself.
fn says_no_more(case: &Case<'_>, first: &ResetSeen, seq: SeqNum, guard: u64) -> bool {
    let mut copies = case
        .after
        .iter()
        .filter(|a| a.segment.seq == seq && a.time.since(first.time) <= guard)
        .peekable();
    let repeats = |a: &AfterReset| {
        a.segment.is_empty() && (seq, a.segment.ack) == (first.segment.seq, first.segment.ack)
    };
    is_active(&first.segment) && copies.peek().is_some() && copies.all(repeats)
}

/// E-R5: the SYN is refused, and then its SYN-ACK comes.
///
/// False positives: the port opened between two SYNs of one ISN, or a capture holds each frame
/// several times on its way through a router: the refusal is then valid (ACK = ISN + 1) and comes
/// from where the SYN-ACK comes: silent.
#[must_use]
pub fn syn_ack(case: &Case<'_>) -> Option<Evidence> {
    let first = case.first()?;
    let isn = receiver_isn(case)?;
    if !answers_syn(case) {
        return None;
    }
    let answer = case
        .after
        .iter()
        .find(|a| a.segment.flags.syn() && a.segment.flags.ack() && a.segment.ack == isn.plus(1))?;
    let foreign = first.segment.ack != isn.plus(1)
        || is_far(first.segment.hop_limit, answer.segment.hop_limit)
        || first.segment.dont_fragment != answer.segment.dont_fragment;
    let passed = answer.time.since(first.time);
    foreign.then(|| SYN_ACK.found(format!("SYN-ACK after {}", span(passed)), "none"))
}

#[cfg(test)]
mod tests {
    use super::{acks_on, answered, sends_on, syn_ack};
    use crate::evidence::testing::{RECEIVER_ISN, Scene, name};
    use crate::wire::{Flags, Segment, SeqNum};

    fn data(segment: &mut Segment) {
        segment.payload_len = 100;
    }

    #[test]
    fn data_beyond_an_active_reset_is_impossible_at_any_time() {
        assert_eq!(
            Scene::established().after(0, data).check(sends_on),
            name("peer_sends_on")
        );
        let fin = Scene::established().after(1, |s| s.flags = Flags(Flags::FIN | Flags::ACK));
        assert_eq!(fin.check(sends_on), name("peer_sends_on"));
    }

    #[test]
    fn data_beyond_a_bare_reset_must_not_be_in_flight() {
        let passive = Scene::established().passive();
        assert_eq!(
            passive.clone().after(100, data).check(sends_on),
            name("peer_sends_on")
        );
        assert_eq!(
            passive.after(1, data).check(sends_on),
            name("peer_sends_on_soon")
        );
    }

    #[test]
    fn the_guard_follows_the_round_trip() {
        let slow = Scene::established()
            .passive()
            .socket(|s| s.srtt_us = Some(300_000));
        assert_eq!(
            slow.after(100, data).check(sends_on),
            name("peer_sends_on_soon")
        );
        let fast = Scene::established()
            .passive()
            .socket(|s| s.srtt_us = Some(100));
        assert_eq!(fast.after(5, data).check(sends_on), name("peer_sends_on"));
    }

    #[test]
    fn reordered_data_lies_below_the_reset() {
        let scene = Scene::established().after(1, |s| {
            data(s);
            s.seq = SeqNum(s.seq.0 - 100);
        });
        assert_eq!(scene.check(sends_on), None);
        assert_eq!(scene.check(acks_on), None);
    }

    #[test]
    fn data_of_the_forger_is_not_the_peers() {
        let scene = Scene::established().forged().after(100, |s| {
            data(s);
            s.hop_limit = 100;
        });
        assert_eq!(scene.check(sends_on), None);
    }

    #[test]
    fn an_answer_to_a_wrong_ack_lies_anywhere() {
        let scene = Scene::established()
            .passive()
            .after(100, data)
            .reset(|r| r.seq = SeqNum(r.seq.0.wrapping_sub(1 << 28)));
        assert_eq!(scene.check(sends_on), None);
    }

    #[test]
    fn a_raw_socket_tool_goes_on_beside_its_kernel() {
        let scene = Scene::established()
            .passive()
            .reset(|r| r.seq = SeqNum(1001));
        assert_eq!(scene.clone().after(100, data).check(sends_on), None);
        assert_eq!(scene.clone().after(100, |_| ()).check(acks_on), None);
        assert_eq!(scene.answered(100, SeqNum(1001), 10).check(answered), None);
    }

    #[test]
    fn acknowledging_more_than_the_reset_did_is_impossible() {
        let scene = Scene::established().after(0, |s| s.ack = s.ack.plus(1_000));
        assert_eq!(scene.check(acks_on), name("peer_acknowledges_more"));
    }

    #[test]
    fn a_late_or_repeated_ack_shows_that_the_peer_lives() {
        let live = Scene::established().passive().socket(|_| ());
        let late = live.clone().after(100, |_| ());
        assert_eq!(late.check(acks_on), name("peer_acknowledges_on"));
        let soon = live.clone().after(1, |_| ());
        assert_eq!(soon.check(acks_on), name("peer_acknowledges_soon"));
        let three = soon.after(2, |_| ()).after(3, |_| ());
        assert_eq!(three.check(acks_on), name("peer_acknowledges_on"));
        let probe = live.after(100, |s| s.seq = SeqNum(s.seq.0 - 1));
        assert_eq!(probe.check(acks_on), name("peer_acknowledges_on"));
    }

    #[test]
    fn a_download_that_goes_on_is_told_by_what_it_acknowledges() {
        let sending = Scene::established()
            .passive()
            .socket(|s| s.write_seq = s.snd_una.plus(9_000));
        let old = sending.clone().after(1, |_| ());
        assert_eq!(old.check(acks_on), name("peer_acknowledges_soon"));
        let new = old.after(1, |s| s.ack = s.ack.plus(3_000));
        assert_eq!(new.check(acks_on), name("peer_acknowledges_more_soon"));
        let unsent = sending.clone().after(1, |s| s.ack = s.ack.plus(30_000));
        assert_eq!(unsent.check(acks_on), name("peer_acknowledges_soon"));
        let held_back = sending.after(100, |s| s.ack = s.ack.plus(3_000));
        assert_eq!(held_back.check(acks_on), name("peer_acknowledges_more"));
        // An abort says itself what was acknowledged: no more than that proves nothing new.
        let abort = Scene::established().socket(|s| s.write_seq = s.snd_una.plus(9_000));
        let covering = abort.reset(|r| r.ack = r.ack.plus(3_000));
        let overtaken = covering.clone().after(1, |s| s.ack = s.ack.plus(2_000));
        assert_eq!(overtaken.check(acks_on), name("peer_acknowledges_soon"));
        let repeated = covering.after(100, |s| s.ack = s.ack.plus(3_000));
        assert_eq!(repeated.check(acks_on), name("peer_acknowledges_on"));
    }

    #[test]
    fn a_capture_may_mix_the_order_of_frames() {
        let scene = Scene::established()
            .after(0, |_| ())
            .after(0, |_| ())
            .after(0, |_| ());
        assert_eq!(scene.check(acks_on), None);
        assert_eq!(
            scene.after(100, |_| ()).check(acks_on),
            name("peer_acknowledges_on")
        );
    }

    #[test]
    fn silence_after_the_reset_says_nothing() {
        for test in [sends_on, acks_on, answered, syn_ack] {
            assert_eq!(Scene::established().check(test), None);
        }
    }

    #[test]
    fn the_kernels_answer_counts_by_the_seq_that_it_answered() {
        let scene = Scene::established();
        let seq = scene.resets[0].segment.seq;
        assert_eq!(
            scene.clone().answered(1, seq, 10).check(answered),
            name("kernel_answered_new_data")
        );
        assert_eq!(
            scene.clone().answered(1, seq, 0).check(answered),
            name("kernel_answered_peer")
        );
        assert_eq!(
            scene.answered(100, SeqNum(seq.0 - 50), 50).check(answered),
            None
        );
    }

    #[test]
    fn an_answers_frame_counts_by_what_the_answered_segment_acknowledged() {
        let abort = Scene::established();
        let acked = abort.resets[0].segment.ack;
        let more = abort.clone().answered_by_frame(0, acked.plus(22));
        assert_eq!(more.check(answered), name("kernel_answered_peer"));
        let old = abort.answered_by_frame(100, acked);
        assert_eq!(old.check(answered), None);
        let bare = Scene::established()
            .passive()
            .socket(|s| s.write_seq = s.snd_una.plus(22));
        let socket = bare.resets[0].socket.as_ref();
        let una = socket.and_then(|s| s.sequence()).unwrap().snd_una;
        let late = bare.clone().answered_by_frame(100, una.plus(22));
        assert_eq!(late.check(answered), name("kernel_answered_peer"));
        let soon = bare.clone().answered_by_frame(1, una.plus(22));
        assert_eq!(soon.check(answered), None);
        assert_eq!(bare.answered_by_frame(100, una).check(answered), None);
    }

    fn accepted_later(change: impl FnOnce(&mut Segment)) -> Scene {
        Scene::refused().after(1_000, |s| {
            s.flags = Flags(Flags::SYN | Flags::ACK);
            s.seq = SeqNum(7);
            s.ack = RECEIVER_ISN.plus(1);
            change(s);
        })
    }

    #[test]
    fn a_syn_ack_after_a_refusal_from_elsewhere_tells() {
        assert_eq!(
            accepted_later(|s| s.hop_limit = 42).check(syn_ack),
            name("syn_ack_after_reset")
        );
        let mirrored = accepted_later(|_| ()).reset(|r| r.ack = RECEIVER_ISN);
        assert_eq!(mirrored.check(syn_ack), name("syn_ack_after_reset"));
    }

    #[test]
    fn a_port_that_opened_meanwhile_is_no_forgery() {
        assert_eq!(accepted_later(|_| ()).check(syn_ack), None);
    }
}

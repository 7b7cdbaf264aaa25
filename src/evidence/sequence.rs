//! Whether SEQ and ACK of the reset fit the connection. Exact fits come from the local socket at
//! the instant of arrival; a capture only gives bounds, so that most of this is silent there: real
//! stacks answer stray segments with the SEQ that these ask for.

use super::basis::{Stack, answers_syn, is_active, receiver_isn, sender_stack};
use super::shape::is_of_the_link;
use super::{Case, Evidence, Group, Kind, ResetSeen, SequenceFit};
use crate::amount::span;
use crate::host::TcpState;
use crate::time::{MILLISECOND, SECOND};
use crate::wire::{Segment, SeqNum};

/// Exactly RCV.NXT: the sender sees the connection.
pub const EXACT: Kind = Kind::remote("sequence_exact", Group::Validity);
/// Inside the window and not exact.
pub const IN_WINDOW: Kind = Kind::injected("sequence_in_window", Group::Validity);
/// Outside the window.
pub const OUT_OF_WINDOW: Kind = Kind::injected("sequence_out_of_window", Group::Validity);
/// A bare reset ahead of all that the receiver ever acknowledged.
pub const AHEAD: Kind = Kind::injected("sequence_never_acknowledged", Group::Validity);
/// The same from a stack that is not known.
pub const AHEAD_ANY: Kind =
    Kind::injected("sequence_never_acknowledged_unknown_stack", Group::Validity);
/// ACK of what the receiver never sent, or took back what it had acknowledged.
pub const ACK_IMPOSSIBLE: Kind = Kind::injected("ack_impossible", Group::Validity);
/// The answer to a SYN acknowledges the ISN and not the SYN.
pub const SYN_ACKS_ISN: Kind = Kind::injected("syn_answer_acks_isn", Group::Validity);
/// The answer to a SYN has no ACK.
pub const SYN_BARE: Kind = Kind::injected("syn_answer_bare", Group::Validity);
/// The answer to a SYN has a SEQ of its own.
pub const SYN_SEQ: Kind = Kind::injected("syn_answer_with_seq", Group::Validity);

/// A bare reset that nothing of ours can have provoked, from a stack that only answers.
pub const UNPROVOKED: Kind = Kind::injected("unprovoked_bare_reset", Group::Validity);
/// The same from a stack that is not known.
pub const UNPROVOKED_ANY: Kind =
    Kind::injected("unprovoked_bare_reset_unknown_stack", Group::Validity);

/// Further behind than this is no old acknowledgement but another connection or a guess (Zeek's
/// limit for a trustworthy SEQ, 1 MiB).
const STALE: i32 = 1 << 20;
/// ACK this far ahead of the ISN is no connection's (4 GiB wrap set aside).
const GROSS: u32 = 1 << 30;

pub(super) fn met_connection(reset: &ResetSeen) -> bool {
    reset
        .socket
        .as_ref()
        .is_some_and(|s| s.sequence().is_some())
}

/// E-V1: SEQ is exactly RCV.NXT (RFC 5961 §3.2). A single blind packet hits it with 2⁻³²; whoever
/// sees the traffic hits it always, so that it speaks against guessing only.
#[must_use]
pub fn exact(case: &Case<'_>) -> Option<Evidence> {
    let first = case.first()?;
    (met_connection(first) && first.fit == SequenceFit::Exact).then(|| EXACT.found(0_i64, 0_i64))
}

/// E-V2 and E-V3: the socket was there and SEQ does not fit.
///
/// False positives: data just before the reset was lost, or is still on its way through the
/// kernel (the kernel accepted the reset after all: silent); the true abort follows with the exact
/// SEQ (silent, but behind a bare one, after which nobody has anything to abort); a kernel answers an older segment, so that SEQ is an older ACK of ours (less than
/// 1 MiB behind, and not before the peer's first number: silent). A bare reset ahead of RCV.NXT has none of these excuses: its SEQ is an ACK
/// that this host sent, and this host never acknowledged so far. Stacks that abort with a bare reset: lighter unless the
/// SYN is of one that does not.
#[must_use]
pub fn inexact(case: &Case<'_>) -> Option<Evidence> {
    let first = case.first()?;
    let offset = first.offset?;
    if !met_connection(first) || case.accepted == Some(true) || is_old_ack(first, offset) {
        return None;
    }
    let hop = first.segment.hop_limit;
    let bare = is_bare(&first.segment);
    // Who has a socket to abort had one before, and sent no bare reset.
    let corrected = case.from_sender().any(|r| {
        r.fit == SequenceFit::Exact
            && r.segment.hop_limit.abs_diff(hop) <= 1
            && !(bare && is_active(&r.segment))
    });
    if corrected {
        return None;
    }
    let kind = match first.fit {
        SequenceFit::InWindow if bare && only_answers_bare(case) => AHEAD,
        SequenceFit::InWindow if bare => AHEAD_ANY,
        SequenceFit::InWindow => IN_WINDOW,
        SequenceFit::OutOfWindow => OUT_OF_WINDOW,
        SequenceFit::Exact | SequenceFit::Unknown => return None,
    };
    Some(kind.found(i64::from(offset), 0_i64))
}

/// RCV.NXT of the socket that `first` met, where that is a guess that missed it: bare, farther on in the window, and
/// refused.
pub(super) fn missed_rcv_nxt(case: &Case<'_>, first: &ResetSeen) -> Option<SeqNum> {
    let is_ahead = first.fit == SequenceFit::InWindow && first.offset? > 0;
    let rcv_nxt = first.socket.as_ref()?.sequence()?.rcv_nxt;
    (is_ahead && is_bare(&first.segment) && case.accepted != Some(true)).then_some(rcv_nxt)
}

const fn is_bare(segment: &Segment) -> bool {
    !segment.flags.ack() && segment.window == 0
}

/// Whether the sender's stack is one whose aborts have ACK, so that a bare reset of its only answers.
fn only_answers_bare(case: &Case<'_>) -> bool {
    let stack = sender_stack(case);
    matches!(stack, Some(Stack::Linux | Stack::FreeBsd | Stack::Apple))
}

/// Whether `offset` from RCV.NXT may be an ACK that this host sent before: less than 1 MiB behind, and no farther than the
/// peer's first number, where the socket tells what it had of it.
pub(super) fn is_old_ack(reset: &ResetSeen, offset: i32) -> bool {
    let socket = reset.socket.as_ref().and_then(|s| s.sequence());
    let received = socket.and_then(|socket| i32::try_from(socket.bytes_in?).ok());
    (-received.unwrap_or(STALE).min(STALE)..=0).contains(&offset)
}

/// E-V7: ACK lies beyond all that was written to the socket, or before SND.UNA. The sender's RCV.NXT never exceeds what was
/// sent to it and never goes back, and an active reset is the last segment that it sends.
///
/// False positives: stacks that answer with RST+ACK and an old ACK (p0f: "a good proportion of RSTs
/// have illegal ACK numbers"): without a window the bound is 1 MiB below SND.UNA; a probe, which lies one below it
/// (of a shut window or to keep alive: `tcp_xmit_probe_skb`), answered with RST+ACK and a window by a device that was
/// restarted (lwIP's `tcp_rst`): silent;
/// sequence numbers rewritten on the way. Without the socket only gross errors count, beyond 1 GiB from the ISN or,
/// in a capture that holds the receiver's data, 64 KiB beyond all that was seen: one that was filtered for SYN,
/// FIN and RST shows nothing of what the sender may acknowledge.
#[must_use]
pub fn ack(case: &Case<'_>) -> Option<Evidence> {
    let first = case.first()?;
    let segment = &first.segment;
    if !segment.flags.ack() || answers_syn(case) {
        return None;
    }
    if let Some(socket) = first.socket.as_ref().and_then(|s| s.sequence()) {
        let behind = segment.ack.offset_from(socket.snd_una);
        let tolerance = match is_active(segment) {
            true => -1,
            false => -STALE,
        };
        let impossible = segment.ack.is_after(socket.write_seq) || behind < tolerance;
        return impossible.then(|| ACK_IMPOSSIBLE.found(segment.ack.0, socket.write_seq.0));
    }
    if let Some(isn) = receiver_isn(case)
        && segment.ack.bytes_since(isn.plus(1)) > GROSS
        && segment.ack != isn
    {
        return Some(ACK_IMPOSSIBLE.found(segment.ack.0, isn.plus(1).0));
    }
    let receiver = case.receiver();
    let end = receiver.filter(|r| case.from_capture && r.has_data)?.end?;
    (segment.ack.offset_from(end) > 65_536).then(|| ACK_IMPOSSIBLE.found(segment.ack.0, end.0))
}

/// E-V8 and E-V10: the answer to a SYN is RST+ACK with SEQ 0 and ACK = ISN + 1 (RFC 9293
/// §3.10.7.1). ACK = ISN is no stack's: injectors of 2007 mirrored the SYN (Zeek's
/// `rst-inject-rae`); Linux ignores it. A bare reset is not allowed. A SEQ of its own is what
/// CenTrace's device at 200.115.176.142 sends.
///
/// False positives: a SYN for a port that was in use before is answered for the old connection
/// (RFC 9293 §3.10.7.4): silent unless nothing of the other side was seen. passt of Debian 12 refuses by a bare reset,
/// from the link as all that it sends: silent where the address's other flows came from there.
#[must_use]
pub fn syn_answer(case: &Case<'_>) -> Option<Evidence> {
    let segment = &case.first()?.segment;
    if !answers_syn(case) || case.sender().is_some() {
        return None;
    }
    let isn = receiver_isn(case)?;
    if !segment.flags.ack() {
        let is_of_link = segment.hop_limit == u8::MAX && is_of_the_link(case) == Some(true);
        return (!is_of_link).then(|| SYN_BARE.found("R", "RA"));
    }
    if segment.ack == isn {
        return Some(SYN_ACKS_ISN.found(segment.ack.0, isn.plus(1).0));
    }
    (segment.ack == isn.plus(1) && segment.seq != SeqNum(0))
        .then(|| SYN_SEQ.found(segment.seq.0, 0_i64))
}

/// Longest that Linux holds an acknowledgement back (`TCP_DELACK_MAX`, 200 ms), and two ticks.
const HELD_BACK_NS: u64 = 210 * MILLISECOND;
/// A segment stays on its way this much longer than four round-trips at most.
const STRAGGLER_NS: u64 = 60 * MILLISECOND;
/// Longer than this nothing is claimed: probes of other kinds (path MTU, zero window) come up.
const FORGOTTEN_NS: u64 = 60 * SECOND;

/// A bare reset is only ever an answer to a segment with ACK (RFC 9293 §3.5.2 and §3.10.7.1;
/// `tcp_v4_send_reset`); a stack that aborts sets ACK (`tcp_send_active_reset`; the BSDs since 4.4,
/// Windows). The local socket was open and had sent nothing that could still be answered: all its
/// data was acknowledged long ago, and long ago was the last segment that it may have acknowledged.
///
/// False positives: keep-alive probes (silent with SO_KEEPALIVE); a peer that lost its state unnoticed answers what
/// is no data: the window update of an application that reads after a pause (a read touches the socket,
/// `tcp_rcv_space_adjust`: silent), or our challenge when it calls anew from the same port (it is heard
/// just before: silent); stacks that abort with a bare reset, passt's alone today: lighter unless the SYN is
/// Linux', FreeBSD's or Apple's; raw socket tools. Only in ESTABLISHED and, since nothing of ours follows the peer's FIN
/// but its ACK, in CLOSE-WAIT: our FIN would provoke too.
#[must_use]
pub fn unprovoked(case: &Case<'_>) -> Option<Evidence> {
    let first = case.first()?;
    let socket = first.socket.as_ref()?;
    let sequence = socket.sequence()?;
    let (idle, sent) = (sequence.idle_ns?, sequence.sent_ago_ns?);
    let on_its_way = STRAGGLER_NS + 4 * 1_000 * u64::from(sequence.srtt_us.filter(|us| *us > 0)?);
    let is_open = matches!(
        socket.state(),
        Some(TcpState::Established | TcpState::CloseWait)
    );
    let quiet = is_open
        && !sequence.has_keepalive
        && sequence.snd_una == sequence.write_seq
        && (on_its_way + HELD_BACK_NS..FORGOTTEN_NS).contains(&idle)
        && (on_its_way..FORGOTTEN_NS).contains(&sent)
        && sequence.touched_ago_ns.is_none_or(|ago| ago >= on_its_way);
    // A SYN on an open connection is answered with a challenge ACK (RFC 5961 §4.2), which a peer that
    // lost its state and took the same port again answers with this.
    let heard = case.sender().map(|s| first.time.since(s.last_seen));
    let just_spoke = heard.is_some_and(|ago| ago < on_its_way);
    if first.segment.flags.ack() || !quiet || just_spoke {
        return None;
    }
    let kind = match only_answers_bare(case) {
        true => UNPROVOKED,
        false => UNPROVOKED_ANY,
    };
    let quiet = span(idle.min(sent));
    Some(kind.found(format!("nothing to answer for {quiet}"), "an answer"))
}

#[cfg(test)]
mod tests {
    use super::{ack, exact, inexact, syn_answer, unprovoked};
    use crate::evidence::own_reset::own_reset_follows;
    use crate::evidence::race::sends_on;
    use crate::evidence::testing::{RECEIVER_ISN, SENDER_ISN, Scene, name};
    use crate::host::{SocketSequence, SocketView, TcpState};
    use crate::time::{MILLISECOND, SECOND, Timestamp};
    use crate::wire::{Flags, Options, SeqNum};

    fn expecting(rcv_nxt: SeqNum, scene: Scene) -> Scene {
        let received = rcv_nxt.bytes_since(SENDER_ISN.plus(1));
        scene.socket(|s| (s.rcv_nxt, s.bytes_in) = (rcv_nxt, Some(received.into())))
    }

    #[test]
    fn an_exact_seq_speaks_against_guessing() {
        assert_eq!(
            Scene::established().socket(|_| ()).check(exact),
            name("sequence_exact")
        );
        assert_eq!(Scene::established().check(exact), None);
    }

    #[test]
    fn who_talks_on_behind_a_guess_that_missed_has_a_connection() {
        let (next, talks) = (SENDER_ISN.plus(1), name("peer_sends_on"));
        let guess = expecting(next, Scene::established().passive());
        let data =
            |at: SeqNum| move |s: &mut crate::wire::Segment| (s.seq, s.payload_len) = (at, 100);
        assert_eq!(guess.clone().after(100, data(next)).check(sends_on), talks);
        assert_eq!(guess.clone().after(1, data(next)).check(sends_on), None);
        let again = data(SeqNum(next.0 - 100));
        assert_eq!(guess.clone().after(100, again).check(sends_on), None);
        // What was taken for one was none.
        let mut accepted = guess.after(100, data(next));
        accepted.accepted = Some(true);
        assert_eq!(accepted.check(sends_on), None);
        let aborted = expecting(next, Scene::established()).after(100, data(next));
        assert_eq!(aborted.check(sends_on), None);
    }

    #[test]
    fn who_aborts_behind_a_guess_that_missed_had_a_connection() {
        let next = SENDER_ISN.plus(1);
        let guess = Scene::established().passive();
        let abort = |active: bool| {
            let after = guess.clone().again(300, move |r| {
                r.seq = next;
                if active {
                    (r.flags, r.window) = (Flags(Flags::RST | Flags::ACK), 500);
                }
            });
            expecting(next, after)
        };
        let own = abort(true);
        assert_eq!(own.check(inexact), name("sequence_never_acknowledged"));
        assert_eq!(own.check(own_reset_follows), name("own_reset_follows"));
        // A stack whose aborts are bare, and lost data: it answers our challenge.
        let answer = abort(false);
        assert_eq!(answer.check(inexact), None);
        assert_eq!(answer.check(own_reset_follows), None);
    }

    #[test]
    fn a_seq_that_misses_is_weighed_by_how_it_misses() {
        let ahead = expecting(SENDER_ISN.plus(1), Scene::established());
        assert_eq!(ahead.check(inexact), name("sequence_in_window"));
        let bare = expecting(SENDER_ISN.plus(1), Scene::established().passive());
        assert_eq!(bare.check(inexact), name("sequence_never_acknowledged"));
        let other = bare.sender(|s| s.syn.as_mut().unwrap().options.order = 1);
        assert_eq!(
            other.check(inexact),
            name("sequence_never_acknowledged_unknown_stack")
        );
        let far = expecting(SENDER_ISN.plus(1 << 30), Scene::established());
        assert_eq!(far.check(inexact), name("sequence_out_of_window"));
    }

    #[test]
    fn an_older_ack_of_ours_is_a_genuine_seq() {
        let scene = expecting(SENDER_ISN.plus(9_000), Scene::established().passive());
        assert_eq!(scene.check(inexact), None);
    }

    #[test]
    fn a_reset_that_the_kernel_took_was_exact_by_then() {
        let mut scene = expecting(SENDER_ISN.plus(1), Scene::established());
        scene.accepted = Some(true);
        assert_eq!(scene.check(inexact), None);
    }

    #[test]
    fn the_exact_abort_that_follows_explains_the_first() {
        let scene = expecting(
            SENDER_ISN.plus(1),
            Scene::established().again(100_000, |r| r.seq = SENDER_ISN.plus(1)),
        );
        assert_eq!(scene.check(inexact), None);
    }

    #[test]
    fn captures_do_not_know_rcv_nxt() {
        assert_eq!(Scene::established().check(inexact), None);
    }

    #[test]
    fn an_ack_of_what_was_never_written_or_was_taken_back_is_impossible() {
        let with_ack = |ack| Scene::established().reset(|r| r.ack = ack).socket(|_| ());
        assert_eq!(
            with_ack(RECEIVER_ISN.plus(2)).check(ack),
            name("ack_impossible")
        );
        let taken_back = SeqNum(RECEIVER_ISN.0 - 99);
        assert_eq!(with_ack(taken_back).check(ack), name("ack_impossible"));
        assert_eq!(with_ack(RECEIVER_ISN.plus(1)).check(ack), None);
    }

    #[test]
    fn a_restarted_device_answers_a_probe_that_lies_below_all_data() {
        let answered = |below: u32, keeps_alive: bool| {
            let probe = SeqNum(RECEIVER_ISN.plus(1).0.wrapping_sub(below));
            let scene = Scene::established().reset(|r| r.ack = probe);
            scene.socket(|s| s.has_keepalive = keeps_alive).check(ack)
        };
        assert_eq!(answered(1, true), None);
        // Of a window that was shut when the device went down: no socket option tells of that.
        assert_eq!(answered(1, false), None);
        assert_eq!(answered(2, true), name("ack_impossible"));
    }

    #[test]
    fn a_stack_that_answers_with_an_old_ack_is_broken_and_genuine() {
        let scene = Scene::established().reset(|r| {
            r.ack = RECEIVER_ISN;
            r.window = 0;
        });
        assert_eq!(scene.socket(|_| ()).check(ack), None);
    }

    #[test]
    fn without_a_socket_only_gross_acks_count() {
        let with_ack = |bytes| {
            let scene = Scene::established().receiver(|r| r.has_data = true);
            scene.reset(|r| r.ack = RECEIVER_ISN.plus(bytes))
        };
        assert_eq!(with_ack(1 << 31).check(ack), name("ack_impossible"));
        assert_eq!(with_ack(181_000_000).check(ack), name("ack_impossible"));
        assert_eq!(with_ack(60_000).check(ack), None);
        assert_eq!(Scene::established().passive().check(ack), None);
    }

    #[test]
    fn a_capture_of_handshakes_and_resets_alone_does_not_tell_what_was_sent() {
        let filtered = |bytes| Scene::established().reset(|r| r.ack = RECEIVER_ISN.plus(bytes));
        assert_eq!(filtered(181_000_000).check(ack), None);
        assert_eq!(filtered(1 << 31).check(ack), name("ack_impossible"));
    }

    #[test]
    fn answers_to_a_syn_have_one_valid_form() {
        assert_eq!(Scene::refused().check(syn_answer), None);
        assert_eq!(
            Scene::refused()
                .reset(|r| r.ack = RECEIVER_ISN)
                .check(syn_answer),
            name("syn_answer_acks_isn")
        );
        assert_eq!(
            Scene::refused()
                .reset(|r| r.seq = SeqNum(5))
                .check(syn_answer),
            name("syn_answer_with_seq")
        );
        let bare = Scene::refused().reset(|r| {
            r.flags = Flags(Flags::RST);
            r.options = Options::default();
        });
        assert_eq!(bare.check(syn_answer), name("syn_answer_bare"));
        assert_eq!(Scene::established().check(syn_answer), None);
    }

    fn quiet(change: impl FnOnce(&mut SocketSequence)) -> Scene {
        Scene::established().passive().socket(|s| {
            s.srtt_us = Some(10_000);
            (s.idle_ns, s.sent_ago_ns) = (Some(SECOND), Some(SECOND));
            s.touched_ago_ns = Some(800 * MILLISECOND);
            change(s);
        })
    }

    #[test]
    fn a_bare_reset_out_of_the_blue_is_no_answer() {
        assert_eq!(
            quiet(|_| ()).check(unprovoked),
            name("unprovoked_bare_reset")
        );
        let unknown = quiet(|_| ()).sender(|s| s.syn = None);
        assert_eq!(
            unknown.check(unprovoked),
            name("unprovoked_bare_reset_unknown_stack")
        );
    }

    #[test]
    fn linux_without_timestamps_is_known_by_its_syn() {
        let of = |change: fn(&mut crate::flow::SynFacts)| {
            quiet(|_| ()).sender(|s| {
                let syn = s.syn.as_mut().unwrap();
                (syn.options.order, syn.options.timestamps) = (0x21_1413, None);
                change(syn);
            })
        };
        let known = of(|_| ()).check(unprovoked);
        assert_eq!(known, name("unprovoked_bare_reset"));
        let answers = of(|syn| syn.is_syn_ack = true).check(unprovoked);
        assert_eq!(answers, name("unprovoked_bare_reset_unknown_stack"));
    }

    #[test]
    fn whatever_may_have_provoked_a_bare_reset_excuses_it() {
        let excused = |change: fn(&mut SocketSequence)| {
            assert_eq!(quiet(change).check(unprovoked), None);
        };
        excused(|s| s.has_keepalive = true);
        excused(|s| s.sent_ago_ns = Some(70 * MILLISECOND));
        excused(|s| s.write_seq = s.write_seq.plus(1));
        // An acknowledgement that was held back.
        excused(|s| s.idle_ns = Some(240 * MILLISECOND));
        // A long way.
        excused(|s| s.srtt_us = Some(300_000));
        excused(|s| s.idle_ns = Some(90 * SECOND));
        // A window update.
        excused(|s| s.touched_ago_ns = Some(70 * MILLISECOND));
        excused(|s| s.sent_ago_ns = None);
        excused(|s| s.srtt_us = None);
    }

    #[test]
    fn a_peer_that_calls_anew_was_provoked_by_our_challenge() {
        let mut scene = quiet(|_| ());
        let time = scene.resets[0].time;
        let heard = |ms| Timestamp::from_nanos(time.as_nanos() - ms * MILLISECOND);
        let sender = scene.flow.sender.as_mut().unwrap();
        sender.last_seen = heard(1);
        assert_eq!(scene.check(unprovoked), None);
        scene.flow.sender.as_mut().unwrap().last_seen = heard(900);
        assert_eq!(scene.check(unprovoked), name("unprovoked_bare_reset"));
    }

    #[test]
    fn an_abort_needs_no_provocation() {
        let scene = quiet(|_| ()).reset(|r| r.flags = Flags(Flags::RST | Flags::ACK));
        assert_eq!(scene.check(unprovoked), None);
    }

    #[test]
    fn a_closing_connection_is_provoked_by_our_fin() {
        let mut scene = quiet(|_| ());
        let sequence = *scene.resets[0].socket.unwrap().sequence().unwrap();
        let mut at = |state| {
            scene.resets[0].socket = Some(SocketView::Full { state, sequence });
            scene.check(unprovoked)
        };
        assert_eq!(at(TcpState::FinWait1), None);
        assert_eq!(at(TcpState::LastAck), None);
        // The peer's alone provokes nothing but its acknowledgement.
        assert_eq!(at(TcpState::CloseWait), name("unprovoked_bare_reset"));
    }
}

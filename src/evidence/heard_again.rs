//! Whether the purported sender is heard a second time: what one segment shows may be a frame that was doubled, mangled
//! or handed on by somebody, what two show is a connection that goes on.

use super::basis::{answers_syn, is_active, longest_late_ns};
use super::held_back::lateness_ns;
use super::race::{is_at_or_beyond, is_beyond_acked, may_be_raw_socket_tool, own_segments};
use super::sequence::missed_rcv_nxt;
use super::{AfterReset, Case, Evidence, Group, Kind, ResetSeen};
use crate::amount::span;
use crate::wire::Segment;

/// Two different segments of the sender, each of which only a living one sends.
pub const AGAIN: Kind = Kind::injected("peer_heard_again", Group::Race);

/// E-R1 once more, by a second segment: as [`sends_on`](super::race::sends_on) and [`acks_on`](super::race::acks_on)
/// have it, but behind a bare reset only what comes later than the network can hold it back, whether or not that is
/// known to bring segments out of order, by its sender's clock, too, where there is one. It is what tells of a peer that
/// goes on sending where the reset was refused, so that this host's kernel answers nothing, and of one whose abort was
/// forged where the network reorders.
///
/// False positives: one frame twice, or the same sent again (the same end, ACK and clock): silent. So is a burst of a peer
/// without timestamps that was held back while its reset was not. Else those of the first segment.
#[must_use]
pub fn heard_again(case: &Case<'_>) -> Option<Evidence> {
    let first = case.first()?;
    if answers_syn(case) || may_be_raw_socket_tool(case) {
        return None;
    }
    let guard = longest_late_ns(case);
    let mut alive = own_segments(case).filter(|after| {
        let passed = after.time.since(first.time);
        let late = lateness_ns(case, after).map_or(passed, |by_clock| by_clock.min(passed));
        is_of_a_living_peer(case, first, &after.segment, late > guard)
    });
    let one = alive.next()?;
    let again = alive.find(|other| {
        !is_alike(&one.segment, &other.segment) && is_of_another_cause(case, one, other, guard)
    })?;
    let after = |seen: &AfterReset| span(seen.time.since(first.time));
    let observed = format!("after {} and {}", after(one), after(again));
    Some(AGAIN.found(observed, "silence"))
}

/// Data beyond an abort, or an ACK beyond its, at any time; behind a bare reset anything that is `late`.
fn is_of_a_living_peer(case: &Case<'_>, first: &ResetSeen, segment: &Segment, late: bool) -> bool {
    if segment.flags.syn() {
        return false;
    }
    let reset = &first.segment;
    let fits = is_at_or_beyond(segment.seq.plus(1), reset.seq);
    if segment.is_empty() {
        return segment.flags.ack() && fits && (is_beyond_acked(first, segment.ack, late) || late);
    }
    let beyond_socket =
        || missed_rcv_nxt(case, first).is_some_and(|next| is_at_or_beyond(segment.seq, next));
    let beyond = is_at_or_beyond(segment.seq, reset.seq);
    (beyond && (late || is_active(reset))) || (late && beyond_socket())
}

/// Whether what made the first come late behind a bare reset cannot have made the second: that was sent late by its own
/// clock, comes as long after the first, or acknowledges what had not been written when the reset came, and so answers
/// what came after. A burst that was held back is one cause.
fn is_of_another_cause(case: &Case<'_>, one: &AfterReset, other: &AfterReset, guard: u64) -> bool {
    let first = case.first();
    let has_abort = first.is_some_and(|first| is_active(&first.segment));
    let written = first
        .and_then(|first| first.socket.as_ref()?.sequence())
        .map(|socket| socket.write_seq);
    has_abort
        || lateness_ns(case, other).is_some()
        || other.time.since(one.time) > guard
        || written.is_some_and(|end| other.segment.ack.is_after(end))
}

/// Whether the second says no more than the first.
fn is_alike(one: &Segment, other: &Segment) -> bool {
    (one.end(), one.ack, one.options.timestamps)
        == (other.end(), other.ack, other.options.timestamps)
}

#[cfg(test)]
mod tests {
    use super::heard_again;
    use crate::evidence::testing::{SENDER_ISN, Scene};
    use crate::wire::{Flags, Segment, SeqNum, Timestamps};

    const SOME: Option<&str> = Some("peer_heard_again");

    fn data(segment: &mut Segment) {
        segment.payload_len = 100;
    }

    fn next(segment: &mut Segment) {
        data(segment);
        segment.seq = segment.seq.plus(100);
    }

    #[test]
    fn a_second_segment_beyond_an_abort_tells_at_any_time() {
        let abort = Scene::established();
        assert_eq!(abort.clone().after(0, data).check(heard_again), None);
        let twice = abort.clone().after(0, data).after(0, data);
        assert_eq!(twice.check(heard_again), None, "one frame twice");
        let on = abort.clone().after(0, data).after(0, next);
        assert_eq!(on.check(heard_again), SOME);
        let more = |bytes| move |s: &mut Segment| s.ack = s.ack.plus(bytes);
        let download = abort.clone().after(1, more(9)).after(1, more(18));
        assert_eq!(download.check(heard_again), SOME);
        let owed = abort
            .after(1, more(0))
            .after(2, |s| s.seq = SeqNum(s.seq.0 - 1));
        assert_eq!(owed.check(heard_again), None, "no more than the abort");
    }

    #[test]
    fn behind_a_bare_reset_both_are_later_than_the_network_holds_back() {
        let bare = Scene::established()
            .passive()
            .socket(|s| (s.srtt_us, s.rtt_deviation) = (Some(40_000), 16));
        // The round-trip and four deviations.
        for (first, second, told) in [(80, 162, false), (81, 80, false), (81, 162, true)] {
            let scene = bare.clone().after(first, data).after(second, next);
            assert_eq!(scene.check(heard_again), SOME.filter(|_| told));
        }
        let quick = Scene::established()
            .passive()
            .socket(|s| s.srtt_us = Some(100));
        let soon = quick.clone().after(30, data).after(99, next);
        assert_eq!(
            soon.check(heard_again),
            None,
            "no less than an ACK is held back"
        );
        let on = quick.after(50, |_| ()).after(91, data);
        assert_eq!(on.check(heard_again), SOME);
    }

    #[test]
    fn a_burst_that_was_held_back_is_one_cause() {
        let bare = Scene::established()
            .passive()
            .socket(|s| s.srtt_us = Some(100));
        let burst = bare.clone().after(300, data).after(300, next);
        assert_eq!(burst.check(heard_again), None);
        let still = bare.clone().after(300, data).after(340, next);
        assert_eq!(still.check(heard_again), None);
        assert_eq!(burst.after(341, next).check(heard_again), SOME);
        // What was not written when the reset came is acknowledged since.
        let answers = |bytes: u32| {
            let scene = bare.clone().after(300, data);
            let scene = scene.after(300, |s| s.ack = s.ack.plus(bytes));
            scene.check(heard_again)
        };
        assert_eq!(answers(0), None);
        assert_eq!(answers(1), SOME);
        // Who has a clock shows by it that he sent them late.
        let at = |value, change: fn(&mut Segment)| {
            move |s: &mut Segment| {
                change(s);
                s.options.timestamps = Some(Timestamps { value, echo: 1 });
            }
        };
        let late = |one, other| {
            let scene = bare.clone().after(300, at(one, data));
            scene.after(300, at(other, next)).check(heard_again)
        };
        assert_eq!(late(501_100, 501_100), SOME);
        assert_eq!(late(501_100, 501_039), None, "within the guard");
        assert_eq!(late(501_100, 501_040), SOME);
    }

    #[test]
    fn a_peer_that_goes_on_behind_its_refused_reset_convicts_it() {
        use crate::verdict::{Verdict, judge};
        let refused = |scene: Scene| {
            let mut scene =
                scene.socket(|s| (s.srtt_us, s.rcv_nxt) = (Some(100), s.rcv_nxt.plus(50)));
            scene.accepted = Some(false);
            scene
        };
        for scene in [Scene::established(), Scene::established().passive()] {
            let once = refused(scene).after(60, data);
            assert_ne!(judge(&once.case()).verdict, Verdict::Injected);
            assert_eq!(
                judge(&once.after(101, next).case()).verdict,
                Verdict::Injected
            );
        }
    }

    #[test]
    fn an_answer_to_a_syn_has_no_sender_to_hear_again() {
        let syn = |s: &mut Segment| s.flags = Flags(Flags::SYN | Flags::ACK);
        let scene = Scene::refused().after(50, syn).after(60, syn);
        assert_eq!(scene.check(heard_again), None);
        // Whoever sends data where the SYN was refused was let in, or is of the connection before.
        let sends = |scene: Scene| scene.after(50, data).after(200, next).check(heard_again);
        assert_eq!(sends(Scene::refused()), None);
        let mut open = Scene::refused();
        open.flow.established = true;
        assert_eq!(sends(open), SOME);
    }

    #[test]
    fn a_raw_socket_tool_goes_on_beside_its_kernel() {
        let denied = |has_data| {
            let scene = Scene::established().passive();
            let scene = scene.reset(|r| r.seq = SENDER_ISN.plus(1));
            let scene = scene.sender(|s| s.has_data = has_data);
            scene.after(50, data).after(200, next).check(heard_again)
        };
        assert_eq!(denied(false), None);
        assert_eq!(denied(true), SOME);
    }
}

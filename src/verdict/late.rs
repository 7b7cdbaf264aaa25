//! Resets that come after the purported sender had ended the connection itself. Its NAT, firewall or
//! balancer, which saw that end, has forgotten the connection with it, and answers what is still on its
//! way as any host does that knows of none: such a reset is another's, and ended nothing.

use super::judge::judge_first;
use super::weights::PRIOR_DB;
use super::{Judgement, Verdict};
use crate::evidence::{Case, ResetSeen, train};
use crate::wire::{Flags, Options, SeqNum};

/// What a later reset is to its sender's first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lateness {
    /// Another reset, to be judged by itself.
    Another,
    /// After the sender's own, of one who only answers what comes: no train, and a device's way.
    Answers,
    /// The same, and the sender's own had ended the connection: nothing to hold against anybody.
    Ended,
}

/// Hop limits this far apart are not one sender's by the jitter of a route (evidence notes §12).
const ELSEWHERE: u8 = 3;

/// Facts of a train that answers make, too: one to each segment, each with that segment's end as its ACK.
const OF_ANSWERS: [&str; 3] = [
    train::ACK_STEPS.name,
    train::ACK_STEPS_ANY.name,
    train::REPEATS.name,
];

/// What `reset`, a later one of the same sender as the first of `case`, is to that one.
#[must_use]
pub fn lateness(case: &Case<'_>, reset: &ResetSeen) -> Lateness {
    let own = judge_first(case);
    if own.verdict != Verdict::Remote || !is_answer(case, reset) {
        Lateness::Another
    } else if is_over(case, &own) {
        Lateness::Ended
    } else if is_elsewhere(case, reset) && others_answer(case) {
        Lateness::Answers
    } else {
        Lateness::Another
    }
}

/// Whether `reset` bears the sender's address and, by the number of hops, comes from elsewhere than the first.
pub(super) fn is_elsewhere(case: &Case<'_>, reset: &ResetSeen) -> bool {
    let apart = case
        .first()
        .map(|first| first.segment.hop_limit.abs_diff(reset.segment.hop_limit));
    reset.from_sender && apart.is_some_and(|apart| apart >= ELSEWHERE)
}

/// Whether all resets from elsewhere do no more than answer.
pub(super) fn others_answer(case: &Case<'_>) -> bool {
    let mut others = case.resets.iter().filter(|reset| is_elsewhere(case, reset));
    others.all(|reset| is_answer(case, reset))
}

/// Whether a fact of a train says nothing where each of its members answers another segment.
pub(super) fn is_of_answers(fact: &str) -> bool {
    OF_ANSWERS.contains(&fact)
}

/// Whether `judgement`, of the first reset, says that the sender's own ended the connection: this kernel accepted
/// it, or the sender had sent its FIN before. Who answers with a reset after that has no socket any more, and
/// so it is over whether the receiver accepts that reset (its SEQ is as old as what it answers) or not.
pub(super) fn is_over(case: &Case<'_>, judgement: &Judgement) -> bool {
    // Where no kernel says so, nothing at all may speak against it.
    let had_closed = || {
        let seq = case.first().map(|first| first.segment.seq);
        case.sender().is_some_and(|s| s.fin.is_some())
            && judgement.total_db <= PRIOR_DB
            && seq.is_some_and(|seq| is_of_past(case, seq))
    };
    judgement.verdict == Verdict::Remote && (case.accepted == Some(true) || had_closed())
}

/// Whether `reset` has the form in which a segment of an unknown connection is answered: bare and without a window
/// (RFC 9293 §3.10.7.1), or, as firewalls do it, with that segment's end as its ACK. Each segment is answered
/// once, and none acknowledged what was not sent yet; a forger repeats himself, or goes beyond. A few old stacks (Cisco
/// IOS) write a window into bare resets, too: that of their own abort.
pub(super) fn is_answer(case: &Case<'_>, reset: &ResetSeen) -> bool {
    let segment = &reset.segment;
    if !segment.flags.ack() {
        let is_first_senders = case.first().is_some_and(|first| {
            first.segment.window == segment.window && first.segment.hop_limit == segment.hop_limit
        });
        return segment.window == 0 || (is_first_senders && is_of_past(case, segment.seq));
    }
    let is_same =
        |other: &&ResetSeen| (other.segment.seq, other.segment.ack) == (segment.seq, segment.ack);
    segment.flags == Flags(Flags::RST | Flags::ACK)
        && segment.options == Options::default()
        && segment.payload_len == 0
        && is_of_past(case, segment.seq)
        && case.from_sender().filter(is_same).count() == 1
}

/// Whether the sender is known to have come as far as `seq`: by its data and FIN, or by its own reset, where this
/// kernel accepted that, and so said that it was exact.
fn is_of_past(case: &Case<'_>, seq: SeqNum) -> bool {
    let said = case.sender().and_then(|s| s.end);
    let accepted = case.first().filter(|_| case.accepted == Some(true));
    [said, accepted.map(|first| first.segment.seq)]
        .into_iter()
        .flatten()
        .any(|end| !seq.is_after(end))
}

#[cfg(test)]
mod tests {
    use super::{Lateness, lateness};
    use crate::evidence::testing::{RECEIVER_ISN, SENDER_ISN, Scene};
    use crate::verdict::judge::{judge, verdict};
    use crate::verdict::{Cause, Verdict};
    use crate::wire::{Flags, Options, Segment, SeqNum};

    /// The end of what the sender sent.
    const END: SeqNum = SENDER_ISN.plus(101);

    /// A device far from the peer turns a segment of the receiver's around that acknowledges all.
    fn of_device(reset: &mut Segment) {
        (reset.hop_limit, reset.dont_fragment) = (126, Some(false));
        (reset.ip_id, reset.options) = (Some(3_503), Options::default());
        (reset.flags, reset.seq) = (Flags(Flags::RST), END.plus(1));
    }

    /// The peer sends its FIN, and its kernel answers an older segment; it lies `behind` what it sent.
    fn closed(behind: i32) -> Scene {
        let scene = Scene::established().passive().sender(|s| {
            (s.segments, s.end, s.fin) = (9, Some(END.plus(1)), Some(END));
        });
        scene.reset(|r| r.seq = SeqNum(r.seq.0.wrapping_sub(behind.cast_unsigned())))
    }

    /// An abort, and what a device answers to `acks` bytes of a download.
    fn turned_around(acks: &[u32]) -> Scene {
        let abort = Scene::established().hop_limit(116).reset(|r| {
            (r.hop_limit, r.window) = (116, 0);
        });
        // It counts, as all that it sent before shows.
        let abort = abort.sender(|s| {
            (s.end, s.ip_id, s.ip_id_steps) = (Some(END), Some(30_233), 9);
        });
        let answers = acks.iter().zip(1_u32..);
        answers.fold(abort, |scene, (ack, n)| {
            scene.again(u64::from(n) * 1_000, |r| {
                of_device(r);
                (r.flags, r.ack) = (Flags(Flags::RST | Flags::ACK), RECEIVER_ISN.plus(*ack));
                (r.hop_limit, r.ip_id) = (244, Some(46_339));
                (r.seq, r.dont_fragment) = (END, Some(true));
            })
        })
    }

    #[test]
    fn who_answers_after_the_peer_closed_and_answered_ended_nothing() {
        let own = (Verdict::Remote, Some(Cause::Answer));
        let device = |scene: Scene| scene.again(290_000, of_device);
        assert_eq!(verdict(&device(closed(0))), own);
        assert_eq!(verdict(&device(closed(172))), own);
        let mut refused = device(closed(172));
        refused.accepted = Some(false);
        assert_eq!(verdict(&refused), own);
    }

    #[test]
    fn a_peer_that_had_not_closed_may_have_been_cut_off() {
        let open = closed(0).sender(|s| s.fin = None).again(9_000, of_device);
        assert_eq!(verdict(&open).0, Verdict::Injected);
        // Beyond all that the peer sent no kernel of its answers.
        let beyond = closed(-5_000).again(9_000, of_device);
        assert_eq!(verdict(&beyond).0, Verdict::Injected);
        // Something speaks against the first one, too.
        let odd = closed(0).reset(|r| r.dont_fragment = Some(false));
        let odd = odd.again(9_000, of_device);
        assert_eq!(verdict(&odd).0, Verdict::Injected);
    }

    #[test]
    fn answers_to_late_data_are_no_train_of_a_forger() {
        let judged = judge(&turned_around(&[1_352, 2_704, 5_408, 4_056]).case());
        assert_eq!(judged.cause, Some(Cause::Middlebox));
        assert!(judged.confidence < 0.9, "{}", judged.confidence);
        let twice = judge(&turned_around(&[1_352, 2_704, 2_704]).case());
        assert_eq!(twice.cause, Some(Cause::OnPath));
        assert!(twice.evidence.iter().any(|e| e.name == "train_ack_steps"));
    }

    #[test]
    fn what_answers_with_an_ack_ended_nothing_either_where_this_kernel_took_the_abort() {
        let live = |scene: Scene| {
            let mut scene = scene.socket(|s| s.segs_in = None);
            scene.accepted = Some(true);
            verdict(&scene)
        };
        let own = (Verdict::Remote, Some(Cause::Abort));
        assert_eq!(live(turned_around(&[1_352, 2_704, 5_408])), own);
        let forged = |change: fn(&mut Segment)| {
            let scene = turned_around(&[1_352]).again(1_500, |r| {
                of_device(r);
                (r.flags, r.hop_limit) = (Flags(Flags::RST | Flags::ACK), 244);
                (r.ack, r.ip_id) = (RECEIVER_ISN.plus(2_704), Some(46_340));
                change(r);
            });
            live(scene).0
        };
        assert_eq!(forged(|r| r.seq = END.plus(1_460)), Verdict::Injected);
        assert_eq!(forged(|r| r.payload_len = 10), Verdict::Injected);
    }

    #[test]
    fn an_old_stack_that_writes_a_window_into_its_answers_ended_the_connection_before() {
        let answers = |window: u16, seq: SeqNum| {
            let mut scene = Scene::established().socket(|s| s.segs_in = None);
            scene.accepted = Some(true);
            let scene = scene.again(900, |r| {
                (r.flags, r.window, r.seq) = (Flags(Flags::RST), window, seq);
                r.options = Options::default();
            });
            lateness(&scene.case(), &scene.resets[1])
        };
        // The window of its own abort, and the SEQ of what it had sent.
        assert_eq!(answers(63, END), Lateness::Ended);
        assert_eq!(answers(64, END), Lateness::Another);
        assert_eq!(answers(63, END.plus(1)), Lateness::Another);
    }
}

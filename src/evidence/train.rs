//! Several resets of one sender: their order, steps and copies. A stack aborts a connection once;
//! an injector that races the true peer sends a train. Bare resets with window 0 are left out: a
//! kernel sends one for each segment that it does not know, with SEQ as that segment's ACK.

use super::basis::{Stack, answers_syn, sender_stack};
use super::{Case, Evidence, Group, Kind, ResetSeen, SequenceFit};
use crate::host::TcpState;
use crate::time::{MILLISECOND, SECOND};
use crate::wire::{Flags, Options, Segment, SeqNum};

/// Strictly rising SEQ beyond what the sender sent.
pub const RISING: Kind = Kind::injected("train_seq_rising", Group::Train);
/// One SEQ, different ACKs, within 50 ms.
pub const ACK_STEPS: Kind = Kind::injected("train_ack_steps", Group::Train);
/// The same from where a sender stands whose stack may answer each segment so.
pub const ACK_STEPS_ANY: Kind = Kind::injected("train_ack_steps_unknown_stack", Group::Train);
/// Three or more active resets with one SEQ within 100 ms.
pub const REPEATS: Kind = Kind::injected("train_repeats", Group::Train);
/// Two copies with one IP ID within 100 µs, or three within a millisecond.
pub const COPIES: Kind = Kind::injected("train_copies", Group::Train);
/// Window and hop limit step together.
pub const LOCK_STEP: Kind = Kind::injected("train_lock_step", Group::Train);
/// An abort that was ahead of lost data, then the kernel's answer with the exact SEQ.
pub const FALLING: Kind = Kind::remote("train_seq_falling", Group::Train);

/// Resets further apart belong to no train (Weaver et al., NDSS 2009, by INTANG's 2 s).
const TRAIN_NS: u64 = 2 * SECOND;
/// The widest step between members of a train: a window without scaling.
const WIDEST_STEP: i32 = 65_536;

/// The resets of the purported sender that a stack sends once at most: active ones, and bare ones
/// with a window, in one train with the first. None where the handshake was still under way: each
/// SYN retransmission is refused anew.
fn train<'a>(case: &Case<'a>) -> impl Iterator<Item = &'a ResetSeen> + Clone {
    let first = case.first().filter(|_| !answers_syn(case));
    let is_member = move |r: &&ResetSeen| {
        first.is_some_and(|first| {
            r.from_sender
                && r.time.since(first.time) <= TRAIN_NS
                && is_single(&r.segment)
                && is_one_sender(&first.segment, &r.segment)
        })
    };
    case.resets.iter().filter(is_member)
}

/// Whether there is a second member.
pub(super) fn is_train(case: &Case<'_>) -> bool {
    train(case).nth(1).is_some()
}

/// A device that answers late segments after the peer's own reset makes no train with it. A
/// generator may step its hop limit, by as much as it steps the window.
const fn is_one_sender(first: &Segment, other: &Segment) -> bool {
    let hops = first.hop_limit.abs_diff(other.hop_limit);
    hops <= 3 || hops as u16 == first.window.abs_diff(other.window)
}

const fn is_single(segment: &Segment) -> bool {
    segment.window != 0 || segment.flags.ack()
}

/// E-V4: two or more resets with different SEQ, one beyond the sender's data (Weaver et al.,
/// NDSS 2009: RST_SEQ_CHANGE, which a compliant stack never does). Known steps: 1460, 4380 (GFW;
/// Clayton 2006), 12503 (peer-to-peer resetters of 2006).
///
/// By value, not by arrival: a train may be reordered. False positives: bare resets with window 0
/// (13 genuine hits in one capture before they were left out); a stack that answers each acknowledgement of ours by
/// RST+ACK, or with a window (lwIP's `tcp_rst`), which bears what this host had acknowledged: silent; a new connection
/// on the same ports: the engine shows none of its resets; data between the resets: silent.
#[must_use]
pub fn rising(case: &Case<'_>) -> Option<Evidence> {
    let members = train(case);
    let first = members.clone().next()?;
    let offset = |r: &&ResetSeen| r.segment.seq.offset_from(first.segment.seq);
    let last = members.clone().max_by_key(offset)?;
    let lowest = members.clone().min_by_key(offset)?;
    let step = last.segment.seq.offset_from(lowest.segment.seq);
    let beyond = is_beyond_all(case, members.clone(), last.segment.seq);
    let until = last.time.max(lowest.time);
    let data_between = case
        .after
        .iter()
        .any(|a| a.time <= until && !a.segment.is_empty());
    (step > 0 && step <= WIDEST_STEP && beyond && !data_between)
        .then(|| RISING.found(format!("{} resets, +{step}", members.count()), "one reset"))
}

/// Whether `seq` lies beyond all that the sender is known to have sent: by its segments, by what the socket had of it
/// when a member came, and by its own abort where this kernel accepted that, and so said that it was exact, or where
/// nothing else is there to tell.
fn is_beyond_all<'a>(
    case: &Case<'a>,
    members: impl Iterator<Item = &'a ResetSeen> + Clone,
    seq: SeqNum,
) -> bool {
    let said = case.sender().and_then(|s| s.end);
    let taken = members.clone().filter_map(|r| {
        let socket = r.socket.as_ref()?;
        let is_open = socket.state().is_some_and(TcpState::is_connection);
        socket.sequence().filter(|_| is_open).map(|s| s.rcv_nxt)
    });
    // Its data may still be on the way through the kernel; but where another one fits, that was accepted.
    let others_fit = members.skip(1).any(|r| r.fit == SequenceFit::Exact);
    let is_accepted = case.accepted == Some(true) && !others_fit;
    // A capture has the data; of a connection that this host routes, or had ended, nobody tells how far it had come.
    let is_untold = |first: &ResetSeen| {
        !case.from_capture
            && first.socket.as_ref().and_then(|s| s.sequence()).is_none()
            && first.segment.flags.ack()
            && is_from_there(case, first.segment.hop_limit)
    };
    let own = case.first().filter(|first| is_accepted || is_untold(first));
    let mut ends = said
        .into_iter()
        .chain(taken)
        .chain(own.map(|first| first.segment.seq));
    ends.all(|end| seq.is_after(end))
}

/// Whether a hop limit is one that the sender showed in this flow, give or take one.
fn is_from_there(case: &Case<'_>, hop_limit: u8) -> bool {
    let known = case.sender().and_then(|s| s.hop_limits.nearest(hop_limit));
    known.is_some_and(|near| near.abs_diff(hop_limit) <= 1)
}

/// Whether the members may be a stack's answers to what this host sent, with its own abort before them: each another
/// segment's, without options, from where the sender stands. lwIP answers so (`tcp_rst` sets ACK and a window, always),
/// and some balancers do; Linux, the BSDs, Apple and Windows answer a segment with ACK by a bare reset.
fn may_answer_each<'a>(case: &Case<'a>, members: impl Iterator<Item = &'a ResetSeen>) -> bool {
    let answers: Vec<&Segment> = members.skip(1).map(|r| &r.segment).collect();
    let is_answer = |(at, s): (usize, &&Segment)| {
        let others = answers.get(..at).unwrap_or_default();
        s.flags == Flags(Flags::RST | Flags::ACK)
            && s.options == Options::default()
            && is_from_there(case, s.hop_limit)
            && !others.iter().any(|o| (o.seq, o.ack) == (s.seq, s.ack))
    };
    sender_stack(case) == Some(Stack::Other)
        && case
            .first()
            .is_some_and(|first| is_from_there(case, first.segment.hop_limit))
        && answers.iter().enumerate().all(is_answer)
}

/// E-V6: two active resets with one SEQ whose ACKs differ (RST_ACK_CHANGE), within 50 ms: one for
/// each segment of the other side that the injector saw.
///
/// False positives: Linux' pair of RST+ACK and R (ACK field 0): R does not count; a receiver that
/// went on sending and a stack that answers with RST+ACK each time: the time limit, and lighter from where a
/// sender stands whose stack is not known to answer by bare resets.
#[must_use]
pub fn ack_steps(case: &Case<'_>) -> Option<Evidence> {
    let mut members = train(case);
    let first = members.next()?;
    let other = members.find(|r| {
        r.segment.flags.ack()
            && first.segment.flags.ack()
            && r.segment.seq == first.segment.seq
            && r.segment.ack != first.segment.ack
            && r.time.since(first.time) <= 50 * MILLISECOND
    })?;
    let step = other.segment.ack.offset_from(first.segment.ack);
    let kind = match may_answer_each(case, train(case)) {
        true => ACK_STEPS_ANY,
        false => ACK_STEPS,
    };
    Some(kind.found(i64::from(step), 0_i64))
}

/// E-V5: one reset several times. Linux never retransmits its active reset. With one IP ID
/// at once it is a copy: GFW type II sends three (median gap 2 µs at the server, up to 200 µs a
/// continent away).
///
/// Measured: two or more RST+ACK in 57 % of injected and 9.4 % of genuine flows; with one ID that is
/// not 0 in 18 % and 1.4 %, the genuine ones in a capture that holds every frame four times: silent
/// where the sender's other frames came more than once too, or where none was seen to tell. A host
/// showed the resets of its guest, and nothing else, before and behind its bridge (620 genuine flows of one
/// laboratory): what comes from another MAC is one frame on two links. A stack that answers each segment so repeats
/// nothing: silent.
#[must_use]
pub fn repeats(case: &Case<'_>) -> Option<Evidence> {
    let sender = case
        .sender()
        .filter(|s| s.duplicates == 0 && s.segments > 0)?;
    // Copies are told by their ID: a sender that only ever showed 0 (a Linux SYN-ACK) cannot be told
    // from one whose frames were doubled.
    if sender.ip_id.is_none() && sender.syn.is_some_and(|syn| syn.count > 1) {
        return None;
    }
    let members = train(case);
    let first = members.clone().next()?;
    let mac = |r: &ResetSeen| r.segment.link.map(|link| link.src);
    let same = |r: &&ResetSeen| {
        r.segment.flags.ack() && r.segment.seq == first.segment.seq && mac(r) == mac(first)
    };
    let copies_within = |ns: u64| {
        let copy = |r: &&ResetSeen| {
            r.segment.ip_id == first.segment.ip_id && r.time.since(first.time) < ns
        };
        members.clone().filter(same).filter(copy).count()
    };
    let copies = copies_within(MILLISECOND);
    let has_id = first.segment.ip_id.is_some_and(|id| id != 0);
    if has_id && (copies >= 3 || copies_within(MILLISECOND / 10) >= 2) {
        return Some(COPIES.found(i64::try_from(copies).unwrap_or(i64::MAX), 1_i64));
    }
    let count = members
        .clone()
        .filter(same)
        .filter(|r| r.time.since(first.time) <= 100 * MILLISECOND)
        .count();
    (count >= 3 && !may_answer_each(case, members))
        .then(|| REPEATS.found(i64::try_from(count).unwrap_or(i64::MAX), 1_i64))
}

/// E-H4 within one burst: from one reset to the next, window and hop limit grow by one amount
/// (GFW type II counts both up together: 73 of 73 resets of one capture have (window − TTL) mod 200
/// of one of two devices; GFW 2025: windows 1980, 1981, 1982).
///
/// False positives: none measured; two packets of one path have one hop limit.
#[must_use]
pub fn lock_step(case: &Case<'_>) -> Option<Evidence> {
    let mut members = train(case);
    let first = members.next()?;
    let (window, hop) = (
        i32::from(first.segment.window),
        i32::from(first.segment.hop_limit),
    );
    let other = members.find(|r| {
        let step = i32::from(r.segment.hop_limit) - hop;
        step != 0 && window != 0 && step == i32::from(r.segment.window) - window
    })?;
    let found = format!("{} and {}", other.segment.hop_limit, other.segment.window);
    Some(LOCK_STEP.found(found, format!("{hop} and {window}")))
}

/// E-V2 (i): RST+ACK ahead of what the receiver has (data was lost), and then, when the challenge
/// ACK came back, R with a lower SEQ from the kernel: a genuine abort. Injected pairs go up or stay.
///
/// It would lie where the second reset is the true peer's and the first forged: silent unless both
/// have one hop limit.
#[must_use]
pub fn falling(case: &Case<'_>) -> Option<Evidence> {
    let first = &case.first()?.segment;
    if !first.flags.ack() {
        return None;
    }
    let answer = case.from_sender().find(|r| {
        let s = &r.segment;
        !s.flags.ack()
            && s.window == 0
            && first.seq.is_after(s.seq)
            && first.seq.offset_from(s.seq) < WIDEST_STEP
            && s.hop_limit.abs_diff(first.hop_limit) <= 1
            && s.dont_fragment == first.dont_fragment
    })?;
    Some(FALLING.found(
        i64::from(answer.segment.seq.offset_from(first.seq)),
        "down or none",
    ))
}

#[cfg(test)]
mod tests {
    use super::{ack_steps, falling, lock_step, repeats, rising};
    use crate::evidence::SequenceFit;
    use crate::evidence::testing::{SENDER_ISN, Scene, name};
    use crate::wire::{Flags, Mac, Options, SeqNum};

    fn forged() -> Scene {
        Scene::established().forged()
    }

    #[test]
    fn a_train_that_climbs_is_no_stack() {
        let scene = forged().again(100, |r| r.seq = r.seq.plus(1_460));
        assert_eq!(scene.check(rising), name("train_seq_rising"));
        let swapped = forged()
            .reset(|r| r.seq = r.seq.plus(1_460))
            .again(100, |r| {
                r.seq = SeqNum(r.seq.0 - 1_460);
            });
        assert_eq!(swapped.check(rising), name("train_seq_rising"));
    }

    #[test]
    fn a_train_climbs_across_the_wrap() {
        let scene = forged()
            .sender(|s| s.end = Some(SeqNum(u32::MAX - 100)))
            .reset(|r| r.seq = SeqNum(u32::MAX - 99))
            .again(100, |r| r.seq = r.seq.plus(1_460));
        assert_eq!(scene.check(rising), name("train_seq_rising"));
    }

    #[test]
    fn bare_resets_rise_with_the_segments_that_they_answer() {
        let scene = Scene::established()
            .passive()
            .again(100, |r| r.seq = r.seq.plus(1_460));
        assert_eq!(scene.check(rising), None);
    }

    #[test]
    fn resets_seconds_apart_or_around_data_are_no_train() {
        let late = forged().again(3_000_000, |r| r.seq = r.seq.plus(1_460));
        assert_eq!(late.check(rising), None);
        let around = forged()
            .again(100_000, |r| r.seq = r.seq.plus(1_460))
            .after(50, |s| s.payload_len = 10);
        assert_eq!(around.check(rising), None);
    }

    #[test]
    fn refusals_of_repeated_syns_are_no_train() {
        let scene = Scene::refused().again(10, |_| ()).again(20, |_| ());
        assert_eq!(scene.check(repeats), None);
        assert_eq!(scene.check(rising), None);
    }

    #[test]
    fn acks_that_step_under_one_seq_are_an_injectors() {
        let scene = forged().again(50, |r| r.ack = r.ack.plus(1_424));
        assert_eq!(scene.check(ack_steps), name("train_ack_steps"));
        let late = forged().again(100_000, |r| r.ack = r.ack.plus(1_424));
        assert_eq!(late.check(ack_steps), None);
        let pair = Scene::established().again(50, |r| {
            r.flags = Flags(Flags::RST);
            r.ack = SeqNum(0);
            r.window = 0;
        });
        assert_eq!(pair.check(ack_steps), None);
    }

    /// A stack like lwIP's, by what its SYN shows, that sent `sent` bytes and aborted at their end.
    fn embedded(sent: u32) -> Scene {
        let scene = Scene::established().sender(|s| {
            s.syn.as_mut().unwrap().options.order = 0x1;
        });
        scene.reset(|r| {
            (r.seq, r.options) = (SENDER_ISN.plus(1 + sent), Options::default());
        })
    }

    #[test]
    fn who_answers_each_acknowledgement_of_ours_goes_no_farther_than_these() {
        let answered = |scene: Scene| {
            let scene = scene.again(100, |r| r.seq = SENDER_ISN.plus(1_401));
            scene.again(140, |r| r.seq = SENDER_ISN.plus(2_801))
        };
        let taken =
            |sent: u32| answered(embedded(4_200).socket(|s| s.rcv_nxt = SENDER_ISN.plus(1 + sent)));
        assert_eq!(taken(4_200).check(rising), None);
        // The last data is on its way through the kernel, which accepts the abort then.
        let mut lags = taken(2_800);
        assert_eq!(lags.check(rising), name("train_seq_rising"));
        lags.accepted = Some(true);
        assert_eq!(lags.check(rising), None);
        // Forgotten without a word: nothing but answers.
        // No socket: one that is routed, or that this host had aborted itself.
        let mut routed = answered(embedded(4_200));
        assert_eq!(routed.check(rising), name("train_seq_rising"));
        routed.from_capture = false;
        assert_eq!(routed.check(rising), None);
        let elsewhere = routed.reset(|r| r.hop_limit += 2);
        assert_eq!(elsewhere.check(rising), name("train_seq_rising"));
        let forgot = answered(embedded(0)).socket(|s| s.rcv_nxt = SENDER_ISN.plus(2_801));
        assert_eq!(forgot.check(rising), None);
    }

    #[test]
    fn a_train_that_climbs_past_what_the_socket_had_is_an_injectors() {
        let exact = embedded(0).socket(|s| s.rcv_nxt = SENDER_ISN.plus(1));
        let mut train = exact.again(100, |r| r.seq = r.seq.plus(1_460));
        train.accepted = Some(true);
        assert_eq!(train.check(rising), name("train_seq_rising"));
        // The farther one overtook the one that fits and was accepted.
        let farther = embedded(1_460).socket(|s| s.rcv_nxt = SENDER_ISN.plus(1));
        let mut swapped = farther.again(100, |r| r.seq = SENDER_ISN.plus(1));
        swapped.resets[1].fit = SequenceFit::Exact;
        swapped.accepted = Some(true);
        assert_eq!(swapped.check(rising), name("train_seq_rising"));
    }

    #[test]
    fn a_stack_may_answer_each_segment_by_a_reset_of_the_same_form() {
        let step = |n: u32| {
            move |r: &mut crate::wire::Segment| {
                (r.ack, r.options) = (r.ack.plus(n * 1_424), Options::default());
                r.ip_id = r.ip_id.map(|id| id + 1);
            }
        };
        let steps = |scene: Scene| {
            scene
                .again(50, step(1))
                .again(60, step(2))
                .again(70, step(3))
        };
        let lwip = steps(embedded(100));
        assert_eq!(lwip.check(ack_steps), name("train_ack_steps_unknown_stack"));
        assert_eq!(lwip.check(repeats), None);
        // Of one that answers by bare resets, from elsewhere, or one answer twice: an injector's.
        let linux = steps(Scene::established());
        let elsewhere = steps(embedded(100).reset(|r| r.hop_limit -= 2));
        let twice = lwip.again(80, step(3));
        for scene in [linux, elsewhere, twice] {
            assert_eq!(scene.check(ack_steps), name("train_ack_steps"));
            assert!(scene.check(repeats).is_some());
        }
    }

    #[test]
    fn copies_are_told_from_a_capture_that_doubles_frames() {
        let scene = forged().again(2, |_| ()).again(4, |_| ());
        assert_eq!(scene.check(repeats), name("train_copies"));
        assert_eq!(
            scene.clone().sender(|s| s.duplicates = 1).check(repeats),
            None
        );
        let untold = scene.clone().sender(|s| {
            s.ip_id = None;
            s.syn.as_mut().unwrap().count = 3;
        });
        assert_eq!(untold.check(repeats), None);
        assert_eq!(scene.no_sender().check(repeats), None);
    }

    #[test]
    fn a_frame_before_and_behind_a_bridge_is_one() {
        let bridged = |r: &mut crate::wire::Segment| {
            r.link.as_mut().unwrap().src = Mac([2, 0, 0, 0, 0, 9]);
        };
        let twice = forged().again(14, bridged);
        assert_eq!(twice.check(repeats), None);
        assert_eq!(twice.again(28, bridged).check(repeats), None);
        assert_eq!(
            forged().again(14, |_| ()).check(repeats),
            name("train_copies")
        );
    }

    #[test]
    fn three_in_a_tenth_of_a_second_repeat() {
        let other = |id| move |r: &mut crate::wire::Segment| r.ip_id = Some(id);
        let scene = forged().again(2_000, other(7)).again(4_000, other(8));
        assert_eq!(scene.check(repeats), name("train_repeats"));
        assert_eq!(forged().again(2_000, other(7)).check(repeats), None);
    }

    #[test]
    fn window_and_hop_limit_in_step_are_a_generators() {
        let scene = forged().again(100, |r| {
            r.window += 2;
            r.hop_limit += 2;
        });
        assert_eq!(scene.check(lock_step), name("train_lock_step"));
        assert_eq!(forged().again(100, |_| ()).check(lock_step), None);
        assert_eq!(
            forged().again(100, |r| r.window += 2).check(lock_step),
            None
        );
    }

    #[test]
    fn an_abort_ahead_of_lost_data_is_followed_by_the_kernels_answer() {
        let answer = |r: &mut crate::wire::Segment| {
            r.seq = SeqNum(r.seq.0 - 50);
            r.flags = Flags(Flags::RST);
            r.window = 0;
        };
        assert_eq!(
            Scene::established().again(100_000, answer).check(falling),
            name("train_seq_falling")
        );
        // The true peer's answer to a reset that was forged.
        let forged = Scene::established().reset(|r| r.hop_limit = 96);
        let both = forged.again(100_000, |r| {
            answer(r);
            r.hop_limit = 50;
        });
        assert_eq!(both.check(falling), None);
    }
}

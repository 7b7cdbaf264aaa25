//! How late a segment was sent after a bare reset, by its sender's own clock: what a queue, a radio or a device held
//! back comes late, but had been sent before. Measures only; nothing here is evidence.

use super::basis::{is_active, reorder_guard_ns};
use super::opener::is_syn_anothers;
use super::race::looks_like_senders;
use super::{AfterReset, AnsweredAfterReset, Case};
use crate::host::{SocketSequence, SocketView, TcpState};
use crate::time::{MILLISECOND, SECOND};
use crate::wire::SeqNum;

/// Two looks at a clock so far apart tell what it counts.
const APART_NS: u64 = 100 * MILLISECOND;
/// The usual tick of a Linux kernel (`CONFIG_HZ=250`).
const KERNEL_TICK_NS: u64 = 4 * MILLISECOND;
/// So many ticks (12 days of milliseconds) tell before from behind.
const LAPPED: u64 = 1 << 30;

/// Whether `after`, which came more than `guard` after a bare reset, had been sent before that or no later than `guard`
/// after it: by its clock, or since it comes right behind such a one, as what was behind it in the same queue. That it is
/// late says nothing of its sender. Data beyond an abort was not sent before it, whatever held it back.
pub(super) fn is_held_back(case: &Case<'_>, after: &AfterReset, guard: u64) -> bool {
    let Some(first) = case.first().filter(|first| !is_active(&first.segment)) else {
        return false;
    };
    let is_late = |other: &AfterReset| other.time.since(first.time) > guard;
    let by_clock = |other: &AfterReset| {
        is_late(other) && lateness_ns(case, other).is_some_and(|late| late <= guard)
    };
    let is_behind = |other: &&AfterReset| {
        other.time <= after.time
            && after.time.since(other.time) <= guard
            && looks_like_senders(case, other)
    };
    is_late(after) && (by_clock(after) || case.after.iter().filter(is_behind).any(by_clock))
}

/// Whether this host's kernel answered what had been held back: all copies that may be of it.
pub(super) fn answers_held_back(case: &Case<'_>, answer: &AnsweredAfterReset) -> bool {
    let guard = reorder_guard_ns(case);
    let is_answered = |after: &&AfterReset| {
        let segment = &after.segment;
        after.time <= answer.time
            && match answer.seq {
                Some(seq) => segment.seq == seq,
                None => answer.ack == Some(segment.ack),
            }
    };
    let mut copies = case.after.iter().filter(is_answered).peekable();
    copies.peek().is_some() && copies.all(|after| is_held_back(case, after, guard))
}

/// How long after the first reset came `after` would have come at the latest, had it been under way no longer than what
/// its sender had sent last before. `None` where no clock tells.
pub(super) fn lateness_ns(case: &Case<'_>, after: &AfterReset) -> Option<u64> {
    let own = after.segment.options.timestamps?.value;
    let (known, age) = last_known(case)?;
    let ticks = SeqNum(own).offset_from(SeqNum(known));
    let Ok(ticks) = u64::try_from(ticks) else {
        return Some(0);
    };
    let tick = tick_ns(case, known, age)?;
    let is_lapped = ticks.max(age / tick) >= LAPPED;
    (!is_lapped).then(|| ((ticks + 1) * tick).saturating_sub(age))
}

/// The TSval that was last heard of the sender before the first reset, and how long before.
///
/// Where TS.Recent is older than what was last heard (an acknowledgement was held back, data is missing: RFC 7323 §4.3),
/// what comes later seems to be sent later than it was.
fn last_known(case: &Case<'_>) -> Option<(u32, u64)> {
    let first = case.first()?;
    let knows = |state: TcpState| state.is_connection() && state != TcpState::SynSent;
    let socket = first.socket.as_ref();
    if let Some(known) = socket
        .filter(|socket| socket.state().is_some_and(knows))
        .and_then(SocketView::sequence)
    {
        return known.ts_recent.zip(age_ns(known));
    }
    let (time, stamps) = case.sender()?.timestamps?;
    Some((stamps.value, first.time.since(time)))
}

/// How long ago the socket had heard of its peer. The kernel writes that down in whole ticks of its own; within one, when the
/// socket was last touched is no longer ago and exact.
fn age_ns(known: &SocketSequence) -> Option<u64> {
    let idle = known.idle_ns?;
    let touched = known.touched_ago_ns.filter(|_| idle <= KERNEL_TICK_NS);
    Some(touched.map_or(idle, |touched| touched.min(idle)))
}

/// What the sender's clock counts: milliseconds as all of today's do, unless its SYN tells of more. `None` for less,
/// such as microseconds, and for more than RFC 7323 §5.4 allows: that is no clock.
fn tick_ns(case: &Case<'_>, known: u32, age: u64) -> Option<u64> {
    let first = case.first()?;
    let syn = case
        .sender()
        .and_then(|sender| sender.syn)
        .filter(|_| !is_syn_anothers(case));
    let measured = syn.and_then(|syn| {
        let passed = first.time.since(syn.time).saturating_sub(age);
        let ticks = known.wrapping_sub(syn.options.timestamps?.value);
        (passed >= APART_NS && ticks > 0).then(|| passed / u64::from(ticks))
    });
    match measured.unwrap_or(MILLISECOND) {
        tick if tick < MILLISECOND * 7 / 10 => None,
        tick if tick < MILLISECOND * 14 / 10 => Some(MILLISECOND),
        tick => Some(tick).filter(|tick| *tick <= SECOND),
    }
}

#[cfg(test)]
mod tests {
    use super::lateness_ns;
    use crate::evidence::Test;
    use crate::evidence::heard_again::heard_again;
    use crate::evidence::race::{acks_on, answered, sends_on};
    use crate::evidence::testing::{RECEIVER_ISN, Scene, at_ms, name};
    use crate::host::{SocketSequence, SocketView, TcpState};
    use crate::time::{MILLISECOND, Timestamp};
    use crate::verdict::{Verdict, judge};
    use crate::wire::Timestamps;

    /// What the sender's clock shows when the reset comes.
    const AT_RESET: u32 = 501_000;
    /// The round-trip is 100 us, so that the guard is 3 ms.
    const SOON: u32 = 2;

    fn bare() -> Scene {
        Scene::established()
            .passive()
            .socket(|s| s.srtt_us = Some(100))
    }

    fn stamped(scene: Scene, ms: u64, value: u32, seq: u32) -> Scene {
        scene.after(ms, |s| {
            s.payload_len = 100;
            s.seq = s.seq.plus(seq);
            s.options.timestamps = Some(Timestamps { value, echo: 1 });
        })
    }

    fn lateness(scene: &Scene) -> Option<u64> {
        let late = lateness_ns(&scene.case(), &scene.after[0]);
        late.map(|ns| ns / MILLISECOND)
    }

    #[test]
    fn what_was_held_back_is_no_sign_of_life_however_late_it_comes() {
        let told = |stamp: u32| {
            let scene = stamped(stamped(bare(), 300, stamp, 0), 300, stamp, 100);
            let seq = scene.resets[0].segment.seq;
            let scene = scene.answered(300, seq, 100);
            let is_injected = judge(&scene.case()).verdict == Verdict::Injected;
            let tests: [Test; 3] = [sends_on, answered, heard_again];
            (tests.map(|test| scene.check(test)), is_injected)
        };
        let alive = [
            "peer_sends_on",
            "kernel_answered_new_data",
            "peer_heard_again",
        ];
        assert_eq!(told(AT_RESET + 300), (alive.map(name), true));
        for stamp in [AT_RESET - 200, AT_RESET - 1, AT_RESET + SOON] {
            assert_eq!(told(stamp), ([None; 3], false), "{stamp}");
        }
        assert!(told(AT_RESET + SOON + 1).1);
        let ack = bare().after(300, |s| {
            s.options.timestamps = Some(Timestamps {
                value: AT_RESET - 9,
                echo: 1,
            });
        });
        assert_eq!(ack.check(acks_on), None);
    }

    #[test]
    fn what_comes_right_behind_it_was_in_the_same_queue() {
        let held = stamped(bare(), 300, AT_RESET - 9, 0);
        let then = |ms, seq| stamped(held.clone(), ms, AT_RESET + 5, seq).check(sends_on);
        assert_eq!(then(303, 100), None);
        assert_eq!(then(299, 100), name("peer_sends_on"), "before it");
        assert_eq!(then(304, 100), name("peer_sends_on"), "no longer behind it");
        let mut far = held.clone();
        far.after[0].segment.hop_limit = 200;
        let far = stamped(far, 303, AT_RESET + 5, 100);
        assert_eq!(far.check(sends_on), name("peer_sends_on"), "a forger's");
    }

    #[test]
    fn what_answers_it_is_known_by_its_frame_too() {
        let acked = RECEIVER_ISN.plus(20);
        let told = |value| {
            let scene = bare()
                .socket(|s| {
                    s.srtt_us = Some(100);
                    s.write_seq = s.snd_una.plus(90);
                })
                .after(60, |s| {
                    s.ack = acked;
                    s.options.timestamps = Some(Timestamps { value, echo: 1 });
                });
            scene.answered_by_frame(60, acked).check(answered)
        };
        assert_eq!(told(AT_RESET + 60), name("kernel_answered_peer"));
        assert_eq!(told(AT_RESET - 9), None);
    }

    #[test]
    fn nothing_beyond_an_abort_was_sent_before_it() {
        let abort = Scene::established().socket(|s| s.srtt_us = Some(100));
        let on = stamped(abort, 300, AT_RESET - 50, 0);
        assert_eq!(on.check(sends_on), name("peer_sends_on"));
    }

    #[test]
    fn the_sender_s_own_segments_tell_what_its_clock_counts() {
        // The SYN came a second before the reset at 500,000, TS.Recent 100 ms before it.
        let at = |recent, value| {
            let scene = bare().socket(|s| s.ts_recent = Some(recent));
            lateness(&stamped(scene, 300, value, 0))
        };
        assert_eq!(at(500_900, 501_039), Some(40));
        assert_eq!(at(500_900, 500_899), Some(0), "before what is known");
        // Hundredths of a second.
        assert_eq!(at(500_090, 500_103), Some(40));
        assert_eq!(at(500_900, 500_900 + (1 << 30)), None, "lapped");
        assert_eq!(at(1_400_000, 1_440_000), None, "microseconds");
        let stands = Scene::established()
            .passive()
            .sender(|s| s.first_seen = Timestamp::default())
            .sender(|s| s.syn.as_mut().unwrap().time = Timestamp::default())
            .socket(|s| (s.srtt_us, s.ts_recent) = (Some(100), Some(500_001)));
        let mut stands = stamped(stands, 300, 500_000 + (1 << 30) - 2, 0);
        stands.resets[0].time = at_ms(40_000);
        stands.after[0].time = at_ms(40_300);
        assert_eq!(lateness(&stands), None, "it counts nothing");
        let unopened = bare().sender(|s| s.syn = None);
        assert_eq!(
            lateness(&stamped(unopened, 300, AT_RESET + 39, 0)),
            Some(40)
        );
        let blank = bare().socket(|s| s.ts_recent = None);
        assert_eq!(lateness(&stamped(blank, 300, AT_RESET + 39, 0)), None);
    }

    #[test]
    fn without_a_socket_the_last_that_was_heard_tells() {
        let last = Timestamps {
            value: 500_950,
            echo: 1,
        };
        let scene = Scene::established()
            .passive()
            .sender(|s| s.timestamps = Some((at_ms(1_950), last)));
        let on = stamped(scene.clone(), 300, AT_RESET + 39, 0);
        assert_eq!(lateness(&on), Some(40));
        let mut asks = on;
        asks.resets[0].socket = Some(SocketView::Full {
            state: TcpState::SynSent,
            sequence: SocketSequence::BLANK,
        });
        assert_eq!(lateness(&asks), Some(40), "it knows nothing of its peer");
    }

    #[test]
    fn within_a_tick_of_the_kernel_the_last_touch_is_exact() {
        let at = |idle: u64, touched: Option<u64>| {
            let scene = bare().socket(|s| {
                s.ts_recent = Some(500_996);
                s.idle_ns = Some(idle * MILLISECOND);
                s.touched_ago_ns = touched.map(|ms| ms * MILLISECOND);
            });
            lateness(&stamped(scene, 300, 500_999, 0))
        };
        assert_eq!(at(4, Some(1)), Some(3));
        assert_eq!(at(4, None), Some(0));
        assert_eq!(at(4, Some(9)), Some(0), "never longer ago");
        assert_eq!(at(8, Some(1)), Some(0));
    }
}

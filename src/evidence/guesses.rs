//! Whether several resets in one name are guesses: their SEQ are none that this host ever acknowledged.

use super::basis::sender_isn;
use super::sequence::{is_old_ack, met_connection};
use super::{Case, Evidence, Group, Kind, ResetSeen, SequenceFit};

/// Several different guesses.
pub const GUESSES: Kind = Kind::injected("sequence_guesses", Group::Validity);
/// Guesses in equal steps.
pub const STEPS: Kind = Kind::injected("sequence_guesses_in_steps", Group::Validity);

/// By how much the SEQ of a reset misses all that this host ever acknowledged: on a connection that is open, or that was
/// opened and closed in order before.
fn miss(case: &Case<'_>, reset: &ResetSeen) -> Option<i32> {
    if met_connection(reset) {
        let has_missed = matches!(reset.fit, SequenceFit::InWindow | SequenceFit::OutOfWindow);
        return reset
            .offset
            .filter(|offset| has_missed && !is_old_ack(reset, *offset));
    }
    let (isn, end) = (sender_isn(case)?, case.sender()?.fin?.plus(1));
    let is_outside = reset.segment.seq.bytes_since(isn) > end.bytes_since(isn);
    is_outside.then(|| reset.segment.seq.offset_from(end))
}

/// E-T6: three or more resets of one sender with different SEQ that none of its own segments
/// explains; in equal steps it is a scan (RFC 5961 §3: one reset a window).
///
/// False positives: a burst of a kernel's answers, whose SEQ are older ACKs of ours: those less
/// than 1 MiB behind do not count, unless the peer had sent less than that; a genuine abort with loss gives one or two. Where no
/// socket is left, those of a connection that was seen from SYN to FIN lie in between.
#[must_use]
pub fn guesses(case: &Case<'_>) -> Option<Evidence> {
    let mut offsets: Vec<i32> = case.from_sender().filter_map(|r| miss(case, r)).collect();
    offsets.sort_unstable();
    offsets.dedup();
    if offsets.len() < 3 {
        return None;
    }
    let mut steps = offsets.windows(2).map(|pair| match pair {
        [a, b] => b.wrapping_sub(*a),
        _ => 0,
    });
    let step = steps.next()?;
    let kind = if steps.all(|other| other == step) {
        STEPS
    } else {
        GUESSES
    };
    Some(kind.found(format!("{} different", offsets.len()), "exact"))
}

#[cfg(test)]
mod tests {
    use super::guesses;
    use crate::evidence::SequenceFit;
    use crate::evidence::sequence::inexact;
    use crate::evidence::testing::{SENDER_ISN, Scene, name};
    use crate::host::SocketView;
    use crate::wire::{Segment, SeqNum};

    fn expecting(rcv_nxt: SeqNum, scene: Scene) -> Scene {
        let received = rcv_nxt.bytes_since(SENDER_ISN.plus(1));
        scene.socket(|s| (s.rcv_nxt, s.bytes_in) = (rcv_nxt, Some(received.into())))
    }

    fn swept(steps: [u32; 3]) -> Scene {
        let base = Scene::established().reset(|r| r.seq = SENDER_ISN.plus(1 << 24));
        let [a, b, c] = steps;
        base.again(10, |r| r.seq = r.seq.plus(a))
            .again(20, |r| r.seq = r.seq.plus(a + b))
            .again(30, |r| r.seq = r.seq.plus(a + b + c))
    }

    fn scan(steps: [u32; 3]) -> Scene {
        expecting(SENDER_ISN.plus(1), swept(steps))
    }

    #[test]
    fn several_misses_are_guesses_and_equal_steps_a_scan() {
        assert_eq!(
            scan([100, 9_000, 77]).check(guesses),
            name("sequence_guesses")
        );
        assert_eq!(
            scan([65_535; 3]).check(guesses),
            name("sequence_guesses_in_steps")
        );
    }

    #[test]
    fn a_reset_without_a_socket_is_no_guess() {
        // Nobody tells what the peer sent, and its answers may be to anything.
        assert_eq!(swept([65_535; 3]).check(guesses), None);
        let closed = swept([65_535; 3]).sender(|s| s.fin = Some(SENDER_ISN.plus(300)));
        assert_eq!(closed.check(guesses), name("sequence_guesses_in_steps"));
        // None of its own, but that of a listener.
        let mut listens = swept([65_535; 3]);
        for (reset, offset) in listens.resets.iter_mut().zip(1 << 24..) {
            reset.socket = Some(SocketView::Listener);
            (reset.fit, reset.offset) = (SequenceFit::OutOfWindow, Some(offset));
        }
        assert_eq!(listens.check(guesses), None);
    }

    #[test]
    fn a_burst_of_a_kernels_answers_is_no_scan() {
        let burst = Scene::established()
            .passive()
            .again(10, |r| r.seq = r.seq.plus(1_460))
            .again(20, |r| r.seq = r.seq.plus(2_920));
        assert_eq!(
            expecting(SENDER_ISN.plus(9_000), burst).check(guesses),
            None
        );
    }

    #[test]
    fn what_lies_before_the_peers_first_number_is_no_old_ack() {
        let burst = Scene::established()
            .passive()
            .again(10, |r| r.seq = r.seq.plus(30_001))
            .again(20, |r| r.seq = r.seq.plus(60_002));
        let at = |received| {
            let scene = burst.clone().socket(|s| {
                s.rcv_nxt = SENDER_ISN.plus(300_001);
                s.bytes_in = Some(received);
            });
            (scene.check(inexact), scene.check(guesses))
        };
        let tells = (
            name("sequence_out_of_window"),
            name("sequence_guesses_in_steps"),
        );
        assert_eq!(at(1_000), tells);
        assert_eq!(at(300_000), (None, None));
    }

    #[test]
    fn guesses_at_a_connection_that_was_closed_lie_outside_of_it() {
        let swept = |end: u32| {
            let steps = |r: &mut Segment, n: u32| r.seq = SENDER_ISN.plus(1 + n * 30_000);
            let mut scene = Scene::established()
                .passive()
                .sender(|s| s.fin = Some(SENDER_ISN.plus(end)));
            for n in 1..4 {
                scene = scene.again(u64::from(n), |r| steps(r, n));
            }
            scene.check(guesses)
        };
        assert_eq!(swept(300), name("sequence_guesses_in_steps"));
        assert_eq!(swept(100_000), None, "answers to what was acknowledged");
    }
}

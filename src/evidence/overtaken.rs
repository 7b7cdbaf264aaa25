//! Segments that came after a reset and were sent before it, by what their sender says itself: its abort's numbers
//! and clock, its FIN. By time alone `basis::reorder_guard_ns` tells. Weighs nothing: what is named here is no sign of
//! life to `race`.

use super::basis::{is_active, may_be_one_way};
use super::race::{is_at_or_beyond, own_segments};
use super::{Case, ResetSeen};
use crate::wire::{Segment, SeqNum};

/// Whether whoever sent `abort` had sent `segment` before it, however late that comes: its SEQ is SND.NXT and its
/// ACK RCV.NXT (`tcp_send_active_reset`), and by its clock (RFC 7323 §3.2) the segment is no younger. Resets overtake
/// data where the network reorders: the abort, and the bare ones with which its sender's kernel answers from then on.
///
/// Who forges a reset that is accepted has the next number of the living peer, so that what the peer sends
/// lies beyond. Without timestamps nothing is said.
#[must_use]
pub fn is_sent_before(segment: &Segment, abort: &Segment) -> bool {
    let stamps = segment.options.timestamps.zip(abort.options.timestamps);
    is_below(segment.end(), abort)
        && !segment.ack.is_after(abort.ack)
        && may_be_one_way(abort.hop_limit, segment.hop_limit)
        && stamps.is_some_and(|(sent, aborted)| !SeqNum(sent.value).is_after(SeqNum(aborted.value)))
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
    use super::{is_below, is_beyond};
    use crate::evidence::race::{answered, sends_on};
    use crate::evidence::testing::{Scene, name};
    use crate::wire::{Flags, Segment};

    fn data(segment: &mut Segment) {
        segment.payload_len = 100;
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
}

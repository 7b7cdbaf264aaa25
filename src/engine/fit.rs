//! How a reset's SEQ fits its receiver, as RFC 5961 §3.2 and Linux (`tcp_validate_incoming`,
//! `tcp_rcv_synsent_state_process`) sort it: exactly, from the local socket at the instant of
//! arrival; by estimate, from both directions of a capture.

use crate::evidence::SequenceFit;
use crate::flow::{FlowFacts, HalfFlow};
use crate::host::{SocketSequence, SocketView, TcpState};
use crate::wire::{Segment, SeqNum};

/// The fit, and how far SEQ lies from the expected number where there is one. For the answer to a
/// SYN the acknowledgement number is what must fit, and the distance is its.
pub(super) fn fit(
    segment: &Segment,
    socket: Option<&SocketView>,
    flow: &FlowFacts,
    offline: bool,
) -> (SequenceFit, Option<i32>) {
    match socket {
        Some(SocketView::Full {
            state: TcpState::SynSent,
            sequence,
        }) => answers_syn(segment, sequence.snd_una.plus(1), sequence.write_seq),
        Some(SocketView::Full { state, sequence }) => against_socket(segment, *state, sequence),
        _ => against_flow(segment, flow, offline),
    }
}

fn against_socket(
    segment: &Segment,
    state: TcpState,
    sequence: &SocketSequence,
) -> (SequenceFit, Option<i32>) {
    let offset = segment.seq.offset_from(sequence.rcv_nxt);
    // `tcp_reset_check`: after the peer's FIN the number before RCV.NXT is accepted as well.
    let after_fin = matches!(
        state,
        TcpState::CloseWait | TcpState::LastAck | TcpState::Closing
    );
    let fit = if offset == 0 || (after_fin && offset == -1) {
        SequenceFit::Exact
    } else if sequence.allows(segment.seq) {
        SequenceFit::InWindow
    } else {
        SequenceFit::OutOfWindow
    };
    (fit, Some(offset))
}

/// RFC 9293 §3.10.7.3: in SYN-SENT a reset counts only if it acknowledges the SYN, `first`. What data the SYN had, as
/// far as `last`, may or may not be acknowledged with it (RFC 7413).
fn answers_syn(segment: &Segment, first: SeqNum, last: SeqNum) -> (SequenceFit, Option<i32>) {
    if !segment.flags.ack() {
        return (SequenceFit::OutOfWindow, None);
    }
    let offset = segment.ack.offset_from(first);
    if (0..=last.offset_from(first)).contains(&offset) {
        (SequenceFit::Exact, Some(0))
    } else {
        (SequenceFit::OutOfWindow, Some(offset))
    }
}

fn against_flow(segment: &Segment, flow: &FlowFacts, offline: bool) -> (SequenceFit, Option<i32>) {
    let unknown = (SequenceFit::Unknown, None);
    let (sender, receiver) = (flow.sender.as_ref(), flow.receiver.as_ref());
    let unanswered_syn = receiver
        .and_then(|half| half.syn.as_ref())
        .filter(|syn| !syn.is_syn_ack && sender.is_none_or(|half| half.syn.is_none()));
    if let Some(syn) = unanswered_syn.filter(|_| !flow.established) {
        return if segment.flags.ack() {
            let end = receiver
                .and_then(|half| half.end)
                .unwrap_or(syn.isn.plus(1));
            answers_syn(segment, syn.isn.plus(1), end)
        } else {
            unknown
        };
    }
    if !offline {
        // Between handshake and FIN a live sensor sees no data, so that only a FIN tells the end.
        let Some(end) = sender.and_then(|half| half.fin).map(|fin| fin.plus(1)) else {
            return unknown;
        };
        let offset = segment.seq.offset_from(end);
        return if offset == 0 {
            (SequenceFit::Exact, Some(0))
        } else {
            unknown
        };
    }
    estimate(segment, sender, receiver)
}

/// From a capture: the receiver expects something between what it last acknowledged and the end of
/// what the sender sent.
fn estimate(
    segment: &Segment,
    sender: Option<&HalfFlow>,
    receiver: Option<&HalfFlow>,
) -> (SequenceFit, Option<i32>) {
    let sent = sender.and_then(|half| half.end);
    let acked = receiver.and_then(|half| half.acked);
    let Some(expected) = sent.or(acked) else {
        return (SequenceFit::Unknown, None);
    };
    if sent == Some(segment.seq) || acked == Some(segment.seq) {
        return (SequenceFit::Exact, Some(0));
    }
    let offset = segment.seq.offset_from(expected);
    let start = acked.unwrap_or(expected);
    let window = receiver.map_or(u32::from(u16::MAX), |half| scaled_window(half, sender));
    let fit = if segment.seq.is_within(start, window.max(1)) {
        SequenceFit::InWindow
    } else {
        SequenceFit::OutOfWindow
    };
    (fit, Some(offset))
}

/// RFC 7323 §2.2: the shift counts only if both SYNs offered one.
fn scaled_window(half: &HalfFlow, other: Option<&HalfFlow>) -> u32 {
    let shift = |half: &HalfFlow| half.syn.and_then(|syn| syn.options.window_scale);
    let scale = match (shift(half), other.and_then(shift)) {
        (Some(shift), Some(_)) => u32::from(shift.min(14)),
        _ => 0,
    };
    u32::from(half.window) << scale
}

#[cfg(test)]
mod tests {
    use super::fit;
    use crate::engine::testing::{segment, tuple};
    use crate::evidence::SequenceFit;
    use crate::flow::{FlowFacts, FlowKey, Tracker, TrackerConfig};
    use crate::host::{SocketSequence, SocketView, TcpState};
    use crate::time::Timestamp;
    use crate::vantage::{InterfaceId, Path, Vantage};
    use crate::wire::{Flags, Segment, SeqNum};

    fn reset(seq: u32, ack: u32, flags: u8) -> Segment {
        Segment {
            ack: SeqNum(ack),
            ..segment(tuple(), flags, seq)
        }
    }

    fn socket(state: TcpState) -> SocketView {
        SocketView::Full {
            state,
            sequence: SocketSequence {
                rcv_nxt: SeqNum(1000),
                rcv_wnd: 500,
                write_seq: SeqNum(77),
                snd_una: SeqNum(70),
                ..SocketSequence::BLANK
            },
        }
    }

    #[test]
    fn the_socket_sorts_as_rfc_5961_does() {
        let sort = |seq, state| {
            let (fit, offset) = fit(
                &reset(seq, 0, Flags::RST),
                Some(&socket(state)),
                &FlowFacts::default(),
                false,
            );
            (fit, offset.unwrap())
        };
        assert_eq!(sort(1000, TcpState::Established), (SequenceFit::Exact, 0));
        assert_eq!(
            sort(1499, TcpState::Established),
            (SequenceFit::InWindow, 499)
        );
        assert_eq!(
            sort(1500, TcpState::Established),
            (SequenceFit::InWindow, 500)
        );
        assert_eq!(
            sort(1501, TcpState::Established),
            (SequenceFit::OutOfWindow, 501)
        );
        assert_eq!(
            sort(999, TcpState::Established),
            (SequenceFit::OutOfWindow, -1)
        );
        assert_eq!(sort(999, TcpState::CloseWait), (SequenceFit::Exact, -1));
    }

    #[test]
    fn in_syn_sent_only_the_acknowledgement_counts() {
        let sort = |ack, flags| {
            let view = socket(TcpState::SynSent);
            fit(
                &reset(0, ack, flags),
                Some(&view),
                &FlowFacts::default(),
                false,
            )
            .0
        };
        let answers = Flags::RST | Flags::ACK;
        // The SYN alone, or with it data of a Fast Open.
        assert_eq!(sort(71, answers), SequenceFit::Exact);
        assert_eq!(sort(77, answers), SequenceFit::Exact);
        assert_eq!(sort(70, answers), SequenceFit::OutOfWindow);
        assert_eq!(sort(78, answers), SequenceFit::OutOfWindow);
        assert_eq!(sort(77, Flags::RST), SequenceFit::OutOfWindow);
    }

    #[test]
    fn in_a_capture_a_reset_at_the_acknowledged_number_is_no_distance_away() {
        let mut tracker = Tracker::for_capture(TrackerConfig {
            capacity: 16,
            key: [1, 2],
        });
        let at = Timestamp::from_nanos;
        let vantage = Vantage {
            interface: InterfaceId(0),
            path: Path::Capture,
        };
        let data = |seq, payload_len| Segment {
            payload_len,
            ..reset(seq, 77, Flags::ACK)
        };
        let answer = reset(77, 1000, Flags::ACK);
        let answer = Segment {
            tuple: answer.tuple.reversed(),
            window: 1000,
            ..answer
        };
        for (time, segment) in [(1, data(900, 100)), (2, answer), (3, data(1000, 4000))] {
            tracker.observe(at(time), vantage, &segment, None);
        }
        let (key, side) = FlowKey::of(data(0, 0).tuple);
        let flow = tracker.facts(&key, side, at(4));
        let sort = |seq| fit(&reset(seq, 77, Flags::RST), None, &flow, true);
        assert_eq!(sort(1000), (SequenceFit::Exact, Some(0)));
        assert_eq!(sort(5000), (SequenceFit::Exact, Some(0)));
        assert_eq!(sort(900), (SequenceFit::OutOfWindow, Some(-4100)));
    }

    #[test]
    fn without_socket_and_flow_nothing_is_claimed() {
        let answer = fit(
            &reset(1, 1, Flags::RST),
            Some(&SocketView::Absent),
            &FlowFacts::default(),
            false,
        );
        assert_eq!(answer, (SequenceFit::Unknown, None));
    }
}

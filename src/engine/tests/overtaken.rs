//! Resets that overtake what their sender had sent before: where the network reorders, the peer's abort and its
//! kernel's bare resets come ahead of its last data.

use crate::engine::testing::{
    IN, OUT, established, event, incoming, observe, records, segment, sent, tuple,
};
use crate::flow::Sighting;
use crate::host::{KernelEventKind, KnownReason};
use crate::record::ResetRecord;
use crate::wire::{Flags, Segment, SeqNum, Timestamps};

/// A segment of the peer's by its clock.
fn by_clock(flags: u8, seq: u32, value: u32) -> Segment {
    let mut made = Segment {
        ack: SeqNum(77),
        window: 500,
        ..segment(tuple(), flags, seq)
    };
    made.options.timestamps = Some(Timestamps { value, echo: 1 });
    made
}

/// The peer's bare reset is taken; 2 ms later 100 bytes of it come, which this kernel answers; then what
/// `follows`.
fn raced(follows: Option<Segment>) -> ResetRecord {
    raced_after(incoming(10, tuple(), 5, established(5)), follows)
}

/// The same after a reset of any kind.
fn raced_after(reset: Sighting, follows: Option<Segment>) -> ResetRecord {
    let mut told = records(|engine, _| {
        engine.sight(&reset);
        let taken = KernelEventKind::ResetAccepted { state: None };
        engine.kernel_event(&event(10, tuple().reversed(), taken));
        let late = Segment {
            payload_len: 100,
            ..by_clock(Flags::ACK, 5, 40)
        };
        observe(engine, 12, IN, &late);
        let mut answer = sent(false, KnownReason::NoSocket, None);
        if let KernelEventKind::ResetSent {
            answered_seq,
            answered_len,
            ..
        } = &mut answer
        {
            (*answered_seq, *answered_len) = (Some(SeqNum(5)), Some(100));
        }
        engine.kernel_event(&event(12, tuple().reversed(), answer));
        let by_frame = segment(tuple().reversed(), Flags::RST, 77);
        observe(engine, 12, OUT, &by_frame);
        if let Some(segment) = follows {
            engine.sight(&Sighting {
                segment,
                ..incoming(14, tuple(), 5, established(5))
            });
        }
    });
    told.remove(0)
}

fn lives(record: &ResetRecord) -> bool {
    let of_life = |name: &str| name.starts_with("peer_") || name.starts_with("kernel_answered");
    record.evidence.iter().any(|fact| of_life(fact.name))
}

#[test]
fn what_the_peer_sent_before_its_own_abort_is_no_sign_of_life() {
    let abort = |seq, value| by_clock(Flags::RST | Flags::ACK, seq, value);
    assert!(lives(&raced(None)), "a forged reset, as far as can be told");
    assert!(!lives(&raced(Some(abort(105, 40)))));
    // An abort that a device forged: at the number that the host expects, or with a clock of its own, or none.
    assert!(lives(&raced(Some(abort(5, 40)))));
    assert!(lives(&raced(Some(abort(105, 39)))));
    let mut plain = abort(105, 40);
    plain.options.timestamps = None;
    assert!(lives(&raced(Some(plain))));
    // From elsewhere.
    let far = Segment {
        hop_limit: 40,
        ..abort(105, 40)
    };
    assert!(lives(&raced(Some(far))));
}

#[test]
fn of_two_aborts_the_later_one_excuses_nothing_that_lies_beyond_the_first() {
    let abort = |seq, value| by_clock(Flags::RST | Flags::ACK, seq, value);
    let first = |seq| Sighting {
        segment: abort(seq, 39),
        ..incoming(10, tuple(), 5, established(5))
    };
    // Right in everything, and again behind what the peer sent in between.
    assert!(lives(&raced_after(first(5), Some(abort(105, 40)))));
    // What the first one itself had overtaken: data that was lost and is sent again.
    assert!(!lives(&raced_after(first(105), Some(abort(105, 40)))));
}

#[test]
fn of_two_aborts_the_later_one_excuses_nothing_that_the_first_had_not_acknowledged() {
    let told = |first: Segment, second: Segment| {
        let acknowledged = Segment {
            ack: SeqNum(97),
            ..by_clock(Flags::ACK, 5, 40)
        };
        let came = |segment, at| Sighting {
            segment,
            ..incoming(at, tuple(), 5, established(5))
        };
        let mut told = records(|engine, _| {
            engine.sight(&came(first, 10));
            observe(engine, 60, IN, &acknowledged);
            engine.sight(&came(second, 62));
        });
        told.remove(0)
    };
    let abort = |ack, value| Segment {
        ack: SeqNum(ack),
        ..by_clock(Flags::RST | Flags::ACK, 5, value)
    };
    // In a download, where the peer's number stands still: each forged abort has what the peer last said.
    assert!(lives(&told(abort(77, 39), abort(97, 40))));
    assert!(lives(&told(abort(97, 39), abort(97, 40))));
    // The peer's own, which the network doubles.
    assert!(!lives(&told(abort(97, 40), abort(97, 40))));
}

//! Resets that overtake what their sender had sent before: where the network reorders, the peer's abort and its
//! kernel's bare resets come ahead of its last data.

use crate::engine::testing::{
    IN, OUT, PROXY, answered, established, event, incoming, observe, records, segment, sent, tuple,
};
use crate::flow::Sighting;
use crate::host::{KernelEventKind, KnownReason, SocketSequence, SocketView, TcpState};
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
    raced_by(None, reset, by_clock(Flags::ACK, 5, 40), follows)
}

/// The same after what came `before`, with 100 bytes that look like `late`.
fn raced_by(
    before: Option<Segment>,
    reset: Sighting,
    late: Segment,
    follows: Option<Segment>,
) -> ResetRecord {
    let data = Segment {
        payload_len: 100,
        ..late
    };
    let mut told = records(|engine, _| {
        if let Some(segment) = before {
            observe(engine, 8, IN, &segment);
        }
        engine.sight(&reset);
        let taken = KernelEventKind::ResetAccepted { state: None };
        engine.kernel_event(&event(10, tuple().reversed(), taken));
        observe(engine, 12, IN, &data);
        let answer = answered(5, 100);
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

/// A segment without timestamps, as Windows sends them.
fn by_id(flags: u8, seq: u32, ip_id: Option<u16>) -> Segment {
    let mut made = by_clock(flags, seq, 0);
    (made.options.timestamps, made.ip_id) = (None, ip_id);
    made
}

fn bare() -> Sighting {
    incoming(10, tuple(), 5, established(5))
}

#[test]
fn without_timestamps_the_ip_ids_tell_what_was_sent_before_an_abort() {
    let told = |late, (seq, id)| {
        let late = by_id(Flags::ACK, 5, late);
        let abort = by_id(Flags::RST | Flags::ACK, seq, id);
        lives(&raced_by(None, bare(), late, Some(abort)))
    };
    assert!(!told(Some(700), (105, Some(701))));
    assert!(!told(Some(65_535), (105, Some(1))), "it wraps");
    assert!(!told(Some(700), (9_105, Some(740))), "more was under way");
    for other in [699, 700, 4_660] {
        assert!(told(Some(700), (105, Some(other))), "{other}");
    }
    // Where there are no IDs, only what ends where the abort stands.
    assert!(!told(None, (105, None)));
    assert!(!told(Some(0), (105, Some(0))));
    assert!(told(None, (106, None)));
}

/// The same where the local socket knew this of the peer when the reset came.
fn raced_at(known: SocketSequence, late: Segment) -> ResetRecord {
    let socket = SocketView::Full {
        state: TcpState::Established,
        sequence: known,
    };
    raced_by(None, incoming(10, tuple(), 5, socket), late, None)
}

const KNOWN: SocketSequence = SocketSequence {
    rcv_nxt: SeqNum(5),
    rcv_wnd: 65_535,
    write_seq: SeqNum(77),
    snd_una: SeqNum(77),
    ..SocketSequence::BLANK
};

#[test]
fn what_is_older_than_what_the_socket_had_when_the_reset_came_is_no_sign_of_life() {
    let late = by_clock(Flags::ACK, 5, 40);
    let by_clock = |recent| {
        let known = SocketSequence {
            ts_recent: Some(recent),
            ..KNOWN
        };
        lives(&raced_at(known, late))
    };
    assert!(!by_clock(41));
    // A segment of the same tick may have come behind it.
    assert!(by_clock(40) && by_clock(39));
    // It acknowledges less than the peer had already.
    let plain = by_id(Flags::ACK, 5, None);
    let by_ack = |ack| {
        let mut late = plain;
        late.ack = SeqNum(ack);
        lives(&raced_at(KNOWN, late))
    };
    assert!(!by_ack(76));
    assert!(by_ack(77));
}

#[test]
fn a_copy_of_what_the_socket_had_already_is_no_sign_of_life() {
    let told = |rcv_nxt, late| {
        let known = SocketSequence {
            rcv_nxt: SeqNum(rcv_nxt),
            ts_recent: Some(40),
            ..KNOWN
        };
        lives(&raced_at(known, late))
    };
    let copy = |value| by_clock(Flags::ACK, 5, value);
    assert!(!told(105, copy(40)));
    assert!(told(104, copy(40)));
    // Sent again since: an acknowledgment of ours was lost.
    assert!(told(105, copy(41)));
}

/// A process of this host aborts, or has closed when more comes; the peer's kernel answers what was under way, and its
/// answer overtakes its data.
#[test]
fn what_answers_our_own_reset_is_nobodys_forgery() {
    let aborts = sent(true, KnownReason::AbortOnClose, Some(PROXY));
    let refuses = sent(false, KnownReason::AbortOnData, None);
    let told = |reset: Option<KernelEventKind>| {
        let mut told = records(|engine, _| {
            if let Some(reset) = reset {
                engine.kernel_event(&event(8, tuple().reversed(), reset));
                let frame = by_clock(Flags::RST | Flags::ACK, 77, 9);
                let tuple = tuple().reversed();
                observe(engine, 8, OUT, &Segment { tuple, ..frame });
            }
            engine.sight(&bare());
            let late = Segment {
                payload_len: 100,
                ..by_clock(Flags::ACK, 5, 40)
            };
            observe(engine, 40, IN, &late);
        });
        told.remove(0)
    };
    assert!(lives(&told(None)));
    assert!(!lives(&told(Some(aborts))));
    assert!(!lives(&told(Some(refuses))));
}

#[test]
fn what_lies_below_the_senders_fin_and_is_no_younger_is_no_sign_of_life() {
    let told = |fin: Segment, late| lives(&raced_by(Some(fin), bare(), late, None));
    let closing = Flags::FIN | Flags::ACK;
    let late = by_clock(Flags::ACK, 5, 40);
    assert!(!told(by_clock(closing, 105, 40), late));
    // Lost and sent again, since the FIN; or of a connection that had closed before.
    assert!(told(by_clock(closing, 105, 39), late));
    assert!(told(by_clock(closing, 5, 40), late));
    let plain = by_id(Flags::ACK, 5, Some(700));
    assert!(!told(by_id(closing, 105, Some(701)), plain));
    assert!(told(by_id(closing, 105, Some(699)), plain));
    let none = by_id(Flags::ACK, 5, None);
    assert!(told(by_id(closing, 105, None), none));
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

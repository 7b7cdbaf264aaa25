//! What a connection had carried when it was reset, and for how long its peer had been silent: payload alone, of what
//! the kernel counts with SYN and FIN.

use crate::engine::testing::{
    IN, OUT, PROXY, at, backend, event, incoming, observe, records, segment, sent, tuple,
};
use crate::host::{
    KernelEventKind, KnownReason, SocketCounts, SocketSequence, SocketView, TcpState,
};
use crate::record::ResetRecord;
use crate::verdict::Cause;
use crate::wire::{Flags, Segment, SeqNum};

/// This host's proxy asks a backend, which answers 30 bytes of payload and, maybe, a FIN; then it aborts.
fn aborted(closes: bool, idle_ns: Option<u64>) -> ResetRecord {
    let (ours, theirs) = (backend(), backend().reversed());
    let mut told = records(|engine, _| {
        let mut hears = |ms, vantage, flags, tuple, seq| {
            observe(engine, ms, vantage, &segment(tuple, flags, seq));
        };
        hears(0, OUT, Flags::SYN, ours, 99);
        hears(1, IN, Flags::SYN | Flags::ACK, theirs, 499);
        if closes {
            hears(5, IN, Flags::FIN | Flags::ACK, theirs, 530);
        }
        hears(3000, OUT, Flags::RST | Flags::ACK, ours, 120);
        let mut kind = sent(true, KnownReason::State, Some(PROXY));
        if let KernelEventKind::ResetSent { counts, .. } = &mut kind {
            *counts = Some(SocketCounts {
                bytes_received: 30 + u64::from(closes),
                bytes_acked: 21,
                idle_ns,
                is_unclaimed: false,
                ending: None,
            });
        }
        engine.kernel_event(&event(3000, ours, kind));
    });
    told.remove(0)
}

#[test]
fn a_sockets_own_abort_tells_payload_and_how_long_its_peer_was_silent() {
    for closes in [false, true] {
        let record = aborted(closes, Some(2_999_000_000));
        assert_eq!(record.cause, Some(Cause::Process));
        assert_eq!((record.bytes_in, record.bytes_out), (Some(20), Some(30)));
        assert_eq!(record.idle_ns, Some(2_999_000_000));
        let words = "with 203.0.113.9:8080, silent for 2.9 s: the application aborted";
        assert!(record.message.contains(words), "{}", record.message);
    }
}

#[test]
fn who_waited_for_less_than_a_second_was_not_kept_waiting() {
    for idle_ns in [None, Some(999_000_000)] {
        let message = aborted(false, idle_ns).message;
        assert!(!message.contains("silent"), "{message}");
    }
}

/// A process of this host aborts a connection of which it had heard so many bytes and said none, which it had opened or
/// accepted, and whose socket was in that state.
fn aborted_at_once(opened: bool, state: TcpState, bytes_received: u64) -> String {
    let (opener, other) = if opened { (OUT, IN) } else { (IN, OUT) };
    let ours = if opened {
        backend()
    } else {
        tuple().reversed()
    };
    let first = if opened { ours } else { ours.reversed() };
    let mut told = records(|engine, _| {
        let mut hears = |ms, vantage, flags, tuple, seq| {
            observe(engine, ms, vantage, &segment(tuple, flags, seq));
        };
        hears(0, opener, Flags::SYN, first, 99);
        hears(1, other, Flags::SYN | Flags::ACK, first.reversed(), 499);
        let seq = if opened { 100 } else { 500 };
        hears(2, OUT, Flags::RST | Flags::ACK, ours, seq);
        let mut kind = sent(true, KnownReason::State, Some(PROXY));
        if let KernelEventKind::ResetSent {
            counts, state: of, ..
        } = &mut kind
        {
            *of = Some(state);
            *counts = Some(SocketCounts {
                bytes_received,
                bytes_acked: u64::from(opened),
                idle_ns: Some(1_000),
                is_unclaimed: false,
                ending: None,
            });
        }
        engine.kernel_event(&event(2, ours, kind));
    });
    told.remove(0).message
}

#[test]
fn a_health_check_a_client_turned_away_and_a_killed_socket_are_told_apart() {
    let probe = aborted_at_once(true, TcpState::Close, 0);
    assert!(
        probe.contains("aborted it unused, as a health check does"),
        "{probe}"
    );
    let away = aborted_at_once(false, TcpState::Close, 0);
    assert!(
        away.contains("before a byte came: the application aborted"),
        "{away}"
    );
    let rejected = aborted_at_once(false, TcpState::Close, 70);
    assert!(
        rejected.contains("without having answered a byte: the application aborted"),
        "{rejected}"
    );
    let killed = aborted_at_once(true, TcpState::Established, 0);
    assert!(killed.contains("killed the socket"), "{killed}");
}

#[test]
fn who_answers_after_his_own_fin_is_not_said_to_have_lost_the_connection() {
    let answered = |state| {
        let sequence = SocketSequence {
            rcv_nxt: SeqNum(5),
            rcv_wnd: 65535,
            ..SocketSequence::BLANK
        };
        let mut told = records(|engine, _| {
            let mut reset = incoming(10, tuple(), 5, SocketView::Full { state, sequence });
            reset.segment.flags = Flags(Flags::RST);
            reset.segment.window = 0;
            engine.sight(&reset);
        });
        let record = told.remove(0);
        assert_eq!(record.cause, Some(Cause::Answer));
        record.message
    };
    assert!(answered(TcpState::CloseWait).contains("had closed the connection and reset"));
    let unknown = answered(TcpState::Established);
    assert!(
        unknown.contains("does not know the connection"),
        "{unknown}"
    );
    // What is as it should be does not look odd.
    assert!(unknown.contains(", as expected)"), "{unknown}");
}

#[test]
fn what_this_hosts_socket_counts_of_a_peers_reset_is_told_as_payload() {
    let bytes = |tuple, opener: Option<bool>, state| {
        let sequence = SocketSequence {
            rcv_nxt: SeqNum(5),
            rcv_wnd: 65535,
            bytes_in: Some(10),
            bytes_out: Some(20),
            ..SocketSequence::BLANK
        };
        let mut told = records(|engine, _| {
            let mut reset = incoming(10, tuple, 5, SocketView::Full { state, sequence });
            reset.flow.first_seen = opener.map(|_| at(1));
            reset.flow.sender_is_originator = opener;
            engine.sight(&reset);
        });
        let record = told.remove(0);
        (record.bytes_in, record.bytes_out)
    };
    let open = TcpState::Established;
    assert_eq!(bytes(tuple(), Some(true), open), (Some(10), Some(20)));
    // This host's SYN was acknowledged as a byte.
    assert_eq!(
        bytes(backend().reversed(), Some(false), open),
        (Some(10), Some(19))
    );
    let closed_by_peer = bytes(tuple(), Some(true), TcpState::CloseWait);
    assert_eq!(closed_by_peer, (Some(9), Some(20)));
    let closed_here = bytes(tuple(), Some(true), TcpState::FinWait2);
    assert_eq!(closed_here, (Some(10), Some(19)));
}

#[test]
fn a_reset_behind_its_senders_fin_tells_what_came_before_that() {
    let records = records(|engine, _| {
        let (ours, theirs) = (tuple().reversed(), tuple());
        let mut hears = |ms, vantage, segment| observe(engine, ms, vantage, &segment);
        hears(0, IN, segment(theirs, Flags::SYN, 99));
        hears(1, OUT, segment(ours, Flags::SYN | Flags::ACK, 499));
        let last = Segment {
            payload_len: 7,
            ..segment(ours, Flags::FIN | Flags::ACK, 500)
        };
        hears(5, OUT, last);
        let closes = Segment {
            ack: SeqNum(508),
            ..segment(theirs, Flags::FIN | Flags::ACK, 100)
        };
        hears(6, IN, closes);
        hears(9, OUT, segment(ours, Flags::RST, 508));
    });
    assert_eq!(records[0].bytes_in, Some(7));
}

//! What a server's resets say of it: that it never sent a byte, never took one, or had been silent for long.

use crate::engine::testing::{at, backend, incoming, records};
use crate::host::{SocketSequence, SocketView, TcpState};
use crate::verdict::{Cause, Verdict};
use crate::wire::{Flags, SeqNum};

/// This host calls a server, which resets the connection: what the record says, and its cause.
fn told(flags: u8, window: u16, carried: (u64, u64), idle_ns: u64) -> (Option<Cause>, String) {
    // As the kernel counts: this host's SYN was acknowledged too.
    let sequence = SocketSequence {
        rcv_nxt: SeqNum(5),
        rcv_wnd: 65535,
        bytes_in: Some(carried.0),
        bytes_out: Some(carried.1 + 1),
        idle_ns: Some(idle_ns),
        ..SocketSequence::BLANK
    };
    let state = TcpState::Established;
    let records = records(|engine, _| {
        let view = SocketView::Full { state, sequence };
        let mut reset = incoming(3000, backend().reversed(), 5, view);
        reset.segment.flags = Flags(flags);
        reset.segment.window = window;
        reset.flow.first_seen = Some(at(1));
        reset.flow.sender_is_originator = Some(false);
        engine.sight(&reset);
    });
    assert_eq!(records[0].verdict, Verdict::Remote);
    (records[0].cause, records[0].message.clone())
}

#[test]
fn a_server_that_aborts_tells_whether_it_had_sent_a_byte_and_for_how_long_it_was_silent() {
    let abort = |carried, idle_ns| {
        let (cause, message) = told(Flags::RST | Flags::ACK, 500, carried, idle_ns);
        assert_eq!(cause, Some(Cause::Abort));
        message
    };
    let mute = abort((0, 21), 2_000_000_000);
    let words = " before it had sent a byte, having been silent for 2.0 s: ";
    assert!(mute.contains(words), "{mute}");
    let soon = abort((30, 21), 999_000_000);
    assert!(
        !soon.contains("silent") && !soon.contains("a byte"),
        "{soon}"
    );
}

#[test]
fn a_server_that_never_took_a_byte_is_not_said_to_have_forgotten_the_connection() {
    let answer = |carried| {
        let (cause, message) = told(Flags::RST, 0, carried, 2_000_000_000);
        assert_eq!(cause, Some(Cause::Answer));
        message
    };
    let never = answer((0, 0));
    assert!(never.contains(" before it had taken a byte: "), "{never}");
    for carried in [(0, 21), (30, 21)] {
        let message = answer(carried);
        assert!(
            message.contains("does not know the connection"),
            "{message}"
        );
    }
}

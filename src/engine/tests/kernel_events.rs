//! Resets and what the kernel said of them: which event is whose, and what its absence means.

use crate::engine::testing::{
    OUT, PROXY, at, backend, config, established, event, incoming, observe, records, segment, sent,
    tuple,
};
use crate::engine::{Engine, EngineConfig};
use crate::flow::FlowKey;
use crate::host::{KernelEvent, KernelEventKind, KnownReason, ResetReason, SocketView};
use crate::record::ResetRecord;
use crate::time::{MILLISECOND, Timestamp};
use crate::verdict::{Cause, Verdict};
use crate::wire::{Flags, FourTuple, Segment};

#[test]
fn an_abort_with_its_kernel_event_is_the_process_that_made_it() {
    let records = records(|engine, _| {
        observe(
            engine,
            10,
            OUT,
            &segment(tuple().reversed(), Flags::RST | Flags::ACK, 5),
        );
        let kind = sent(true, KnownReason::AbortOnClose, Some(PROXY));
        engine.kernel_event(&event(10, tuple().reversed(), kind));
    });
    let [record] = &records[..] else {
        panic!("{records:?}")
    };
    assert_eq!(
        (record.verdict, record.cause),
        (Verdict::Local, Some(Cause::Process))
    );
    assert_eq!(record.process, Some(PROXY));
    assert!(
        record.message.contains("haproxy (pid 42)"),
        "{}",
        record.message
    );
    assert!(record.message.contains("unread data"), "{}", record.message);
}

#[test]
fn what_mptcp_aborts_is_not_told_to_have_been_unread() {
    let records = records(|engine, _| {
        let mut abort = segment(tuple().reversed(), Flags::RST | Flags::ACK, 5);
        abort.options.mptcp = true;
        observe(engine, 10, OUT, &abort);
        let kind = sent(true, KnownReason::AbortOnClose, Some(PROXY));
        engine.kernel_event(&event(10, tuple().reversed(), kind));
    });
    let message = &records[0].message;
    assert!(message.contains("haproxy (pid 42)"), "{message}");
    assert!(!message.contains("unread data"), "{message}");
}

#[test]
fn a_handshake_that_found_no_room_is_told_from_a_syn_inside_a_connection() {
    let told = |flags, seq| {
        let records = records(|engine, _| {
            observe(engine, 10, OUT, &segment(tuple().reversed(), flags, seq));
            let kind = sent(false, KnownReason::InvalidSyn, None);
            engine.kernel_event(&event(10, tuple().reversed(), kind));
        });
        records[0].message.clone()
    };
    let full = told(Flags::RST, 5);
    assert!(
        full.ends_with(": the listener had no room for the connection"),
        "{full}"
    );
    let again = told(Flags::RST | Flags::ACK, 0);
    assert!(
        again.ends_with(": a SYN came inside a connection"),
        "{again}"
    );
}

#[test]
fn the_kernels_own_answers_are_not_a_process() {
    for (active, reason) in [
        (false, KnownReason::NoSocket),
        (false, KnownReason::Flags),
        (true, KnownReason::KeepaliveTimeout),
        (true, KnownReason::Mptcp),
    ] {
        let records = records(|engine, _| {
            engine.kernel_event(&event(10, tuple().reversed(), sent(active, reason, None)));
            observe(engine, 10, OUT, &segment(tuple().reversed(), Flags::RST, 5));
        });
        let [record] = &records[..] else {
            panic!("{records:?}")
        };
        assert_eq!(
            (record.verdict, record.cause),
            (Verdict::Local, Some(Cause::Kernel))
        );
        assert_eq!(record.kernel.reset_reason, Some(ResetReason::Known(reason)));
    }
}

#[test]
fn a_reset_that_no_socket_sent_is_a_packet_filters() {
    let records = records(|engine, _| {
        observe(engine, 10, OUT, &segment(tuple().reversed(), Flags::RST, 5));
    });
    assert_eq!(records[0].cause, Some(Cause::Firewall));
}

#[test]
fn a_packet_that_belongs_to_a_socket_is_no_packet_filters() {
    let cause = |segment: Segment| {
        let records = records(|engine, _| {
            let socket = Some(SocketView::Sender { cookie: 7 });
            engine.observe(at(10), OUT, &segment, socket, &mut |_| ());
        });
        assert_eq!(records[0].verdict, Verdict::Local);
        records[0].cause
    };
    let answer = segment(tuple().reversed(), Flags::RST, 5);
    let own = Segment {
        window: 64,
        ..answer
    };
    // That of another network namespace, by macvlan: its kernel's events are not told here. Its own abort
    // may be a timer's as well as a process's.
    assert_eq!(cause(answer), Some(Cause::Kernel));
    assert_eq!(cause(own), None);
}

#[test]
fn a_translated_socket_is_found_by_its_peer_and_number() {
    let own = Segment {
        window: 64,
        ..segment(tuple().reversed(), Flags::RST | Flags::ACK, 5)
    };
    let inner = FourTuple {
        src_port: 9999,
        ..tuple().reversed()
    };
    let records = records(|engine, _| {
        let socket = Some(SocketView::Sender { cookie: 7 });
        engine.observe(at(10), OUT, &own, socket, &mut |_| ());
        let kind = sent(true, KnownReason::AbortOnClose, Some(PROXY));
        engine.kernel_event(&KernelEvent {
            cookie: Some(7),
            ..event(10, inner, kind)
        });
    });
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].process, Some(PROXY));
}

#[test]
fn a_translated_socket_s_abort_is_its_process_s_though_what_was_under_way_is_answered_after_it() {
    let answers = |flags| segment(tuple().reversed(), flags, 5);
    let own = Segment {
        window: 64,
        ..answers(Flags::RST | Flags::ACK)
    };
    let inner = FourTuple {
        src_port: 9999,
        ..tuple().reversed()
    };
    let told = |first: &Segment, answered: FourTuple| {
        let records = records(|engine, _| {
            let socket = Some(SocketView::Sender { cookie: 7 });
            if first.window != 0 {
                engine.observe(at(10), OUT, first, socket, &mut |_| ());
                let kind = sent(true, KnownReason::AbortOnClose, Some(PROXY));
                engine.kernel_event(&KernelEvent {
                    cookie: Some(7),
                    ..event(10, inner, kind)
                });
            }
            // One segment of the client after the other meets nobody any more.
            for ms in [11, 12] {
                let kind = sent(false, KnownReason::NoSocket, None);
                engine.kernel_event(&event(ms, answered, kind));
                observe(engine, ms, OUT, &answers(Flags::RST));
            }
        });
        assert_eq!(records.len(), 1);
        (records[0].verdict, records[0].cause, records[0].process)
    };
    let process = (Verdict::Local, Some(Cause::Process), Some(PROXY));
    assert_eq!(told(&own, inner), process);
    // Connection tracking may take it for none of the connection's, which is not translated then.
    assert_eq!(told(&own, tuple().reversed()), process);
    // Without an abort they are TCP's own, and no packet filter's.
    let kernel = (Verdict::Local, Some(Cause::Kernel), None);
    assert_eq!(told(&answers(Flags::RST), inner), kernel);
}

#[test]
fn a_translated_socket_that_took_the_reset_was_there_to_measure_it_by() {
    let inner = FourTuple {
        dst_port: 9999,
        ..tuple()
    };
    let told = |is_taken: bool| {
        let older = EngineConfig {
            older: std::iter::once(FlowKey::of(tuple()).0).collect(),
            ..config()
        };
        let mut engine = Engine::new(older);
        if is_taken {
            let taken = KernelEventKind::ResetAccepted { state: None };
            engine.kernel_event(&event(10, inner.reversed(), taken));
        }
        let mut abort = incoming(10, tuple(), 5, SocketView::Absent);
        (abort.segment.flags, abort.segment.window) = (Flags(Flags::RST | Flags::ACK), 64);
        engine.sight(&abort);
        let mut records = Vec::new();
        engine.finish(&mut |record| records.push(record));
        let of_frame = records.first().unwrap();
        (of_frame.verdict, of_frame.kernel.accepted)
    };
    // Nothing of its sender was heard before.
    assert_eq!(told(true), (Verdict::Remote, Some(true)));
    assert_eq!(told(false), (Verdict::Undetermined, None));
}

#[test]
fn a_reset_that_was_taken_on_one_port_was_not_taken_on_another() {
    let other = FourTuple {
        dst_port: 9999,
        ..tuple()
    };
    let records = records(|engine, _| {
        let taken = KernelEventKind::ResetAccepted { state: None };
        // The worker's sighting may come after the kernel's word.
        engine.kernel_event(&event(10, tuple().reversed(), taken));
        engine.sight(&incoming(10, tuple(), 5, established(5)));
        engine.sight(&incoming(11, other, 5, SocketView::Absent));
    });
    let accepted = |port| {
        let of = |record: &&ResetRecord| record.destination.port == port;
        records.iter().find(of).unwrap().kernel.accepted
    };
    assert_eq!(accepted(tuple().dst_port), Some(true));
    assert_ne!(accepted(9999), Some(true));
}

#[test]
fn an_event_that_comes_late_still_belongs_to_its_reset() {
    let own = Segment {
        window: 64,
        ..segment(tuple().reversed(), Flags::RST | Flags::ACK, 5)
    };
    let records = records(|engine, _| {
        observe(engine, 10, OUT, &own);
        // The virtual CPU was taken away between the frame and the tracepoint.
        let kind = sent(true, KnownReason::KeepaliveTimeout, None);
        engine.kernel_event(&event(600, tuple().reversed(), kind));
    });
    assert_eq!(records[0].cause, Some(Cause::Kernel));
}

#[test]
fn a_later_reset_keeps_its_event_and_the_packet_filter_its_reset() {
    let rejected = segment(tuple().reversed(), Flags::RST | Flags::ACK, 5);
    let own = Segment {
        window: 64,
        ..rejected
    };
    let records = records(|engine, _| {
        observe(engine, 10, OUT, &rejected);
        observe(engine, 12, OUT, &own);
        let kind = sent(true, KnownReason::AbortOnClose, Some(PROXY));
        engine.kernel_event(&event(12, tuple().reversed(), kind));
    });
    assert_eq!(records[0].cause, Some(Cause::Firewall));
}

#[test]
fn a_missing_event_proves_nothing_when_events_were_lost() {
    let records = records(|engine, _| {
        observe(engine, 10, OUT, &segment(tuple().reversed(), Flags::RST, 5));
        engine.note_loss();
    });
    assert_eq!(
        (records[0].verdict, records[0].cause),
        (Verdict::Local, Some(Cause::Kernel))
    );
    assert!(records[0].confidence < 0.95);
}

#[test]
fn where_two_clients_resets_explain_one_equally_well_it_is_forwarded_and_both_are_named() {
    let other = FourTuple {
        src_port: 40001,
        ..tuple()
    };
    let us = |us: u64| Timestamp::from_nanos(10 * MILLISECOND + us * 1000);
    let records = records(|engine, _| {
        for client in [tuple(), other] {
            let taken = KernelEventKind::ResetAccepted { state: None };
            engine.sight(&incoming(9, client, 5, established(5)));
            engine.kernel_event(&event(9, client.reversed(), taken));
        }
        let own = Segment {
            window: 64,
            ..segment(backend(), Flags::RST | Flags::ACK, 9)
        };
        engine.observe(us(100), OUT, &own, None, &mut |_| ());
        let kind = sent(true, KnownReason::State, Some(PROXY));
        engine.kernel_event(&KernelEvent {
            time: us(100),
            ..event(10, backend(), kind)
        });
        for (client, closed) in [(tuple(), 80), (other, 120)] {
            let kind = KernelEventKind::OwnerKnown { process: PROXY };
            engine.kernel_event(&KernelEvent {
                time: us(closed),
                ..event(10, client.reversed(), kind)
            });
        }
    });
    let of_backend = |record: &&ResetRecord| record.destination.port == backend().dst_port;
    let record = records.iter().find(of_backend).unwrap();
    assert_eq!(
        (record.verdict, record.cause),
        (Verdict::Forwarded, Some(Cause::Proxy))
    );
    assert!(record.confidence > 0.9);
    let named: Vec<_> = record.related.iter().map(|one| one.source.port).collect();
    assert_eq!(named, [40000, 40001]);
    assert!(record.related.iter().all(|one| one.confidence == 0.5));
    assert!(
        record.message.ends_with("which cannot be told"),
        "{}",
        record.message
    );
}

/// What is said of a reset that left by a socket, in the form of its own abort, and of which no event
/// came: the program that tells of it was interrupted by a timer that reset another connection.
#[test]
fn a_reset_whose_event_was_lost_is_this_hosts_and_names_no_process() {
    let own = Segment {
        window: 64,
        ..segment(tuple().reversed(), Flags::RST | Flags::ACK, 5)
    };
    let of_socket = Some(SocketView::Sender { cookie: 7 });
    for (socket, is_counted) in [(None, true), (of_socket, true), (of_socket, false)] {
        let records = records(|engine, _| {
            engine.observe(at(10), OUT, &own, socket, &mut |_| ());
            if is_counted {
                engine.note_loss();
            }
        });
        let [record] = &records[..] else {
            panic!("{records:?}")
        };
        // Linux 6.18 tcp_keepalive_timer: a keepalive's reset has the very form of a process's.
        assert_eq!((record.verdict, record.cause), (Verdict::Local, None));
        assert_eq!(record.process, None);
        assert!(record.confidence <= 0.95);
        assert!(
            record.message.starts_with("this host reset the connection"),
            "{}",
            record.message
        );
    }
}

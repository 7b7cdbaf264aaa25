//! Resets on a kernel before 6.10, which tells of what its sockets send and accept, but neither why nor of its
//! answers to segments of no connection.

use crate::engine::testing::{
    IN, OUT, PROXY, at, config, established, event, incoming, observe, segment, sent, tuple,
};
use crate::engine::{Engine, EngineConfig};
use crate::host::{KernelEventKind, KernelTells, KnownReason, SocketView};
use crate::verdict::{Cause, Verdict};
use crate::wire::{Flags, Segment, SeqNum};

/// A kernel before 6.10, on a machine where owners are told.
fn without_reasons() -> EngineConfig {
    EngineConfig {
        kernel: KernelTells {
            answers: false,
            ..config().kernel
        },
        ..config()
    }
}

#[test]
fn a_kernel_that_does_not_tell_of_its_answers_is_known_by_whom_they_belong_to() {
    let sent_by = |segment: Segment, socket| {
        let mut engine = Engine::new(without_reasons());
        let mut out = Vec::new();
        engine.observe(at(10), OUT, &segment, socket, &mut |_| ());
        engine.finish(&mut |record| out.push(record));
        out[0].cause
    };
    let answer = segment(tuple().reversed(), Flags::RST, 5);
    let of_socket = Some(SocketView::Sender { cookie: 7 });
    assert_eq!(sent_by(answer, of_socket), Some(Cause::Kernel));
    assert_eq!(sent_by(answer, None), Some(Cause::Firewall));
    // Those of IPv6 belong to nobody, and are labeled; a packet filter's are neither.
    let mut by_ipv6 = answer;
    by_ipv6.tuple.src = "2001:db8::1".parse().unwrap();
    by_ipv6.tuple.dst = "2001:db8::2".parse().unwrap();
    by_ipv6.flow_label = Some(0x1234);
    assert_eq!(sent_by(by_ipv6, None), Some(Cause::Kernel));
    by_ipv6.flow_label = Some(0);
    assert_eq!(sent_by(by_ipv6, None), None);
    // Of its sockets' own aborts it tells.
    let abort = Segment {
        window: 64,
        ..segment(tuple().reversed(), Flags::RST | Flags::ACK, 5)
    };
    assert_eq!(sent_by(abort, None), Some(Cause::Firewall));
}

#[test]
fn without_a_reason_a_reset_that_no_process_called_for_is_a_timers() {
    let own = Segment {
        window: 64,
        ..segment(tuple().reversed(), Flags::RST | Flags::ACK, 5)
    };
    let cause_of = |owners, process| {
        let mut config = without_reasons();
        config.kernel.owners = owners;
        let mut engine = Engine::new(config);
        let mut out = Vec::new();
        engine.observe(at(10), OUT, &own, None, &mut |_| ());
        let mut kind = sent(true, KnownReason::AbortOnClose, process);
        if let KernelEventKind::ResetSent { reason, .. } = &mut kind {
            *reason = None;
        }
        engine.kernel_event(&event(10, tuple().reversed(), kind));
        engine.finish(&mut |record| out.push(record));
        (out[0].verdict, out[0].cause)
    };
    assert_eq!(
        cause_of(true, Some(PROXY)),
        (Verdict::Local, Some(Cause::Process))
    );
    assert_eq!(cause_of(true, None), (Verdict::Local, Some(Cause::Kernel)));
    // Where owners are never told, that none is says nothing.
    assert_eq!(cause_of(false, None), (Verdict::Local, None));
}

/// The peer sends on after a reset in its name, and this host's TCP answers: the frame alone tells, and
/// the copy of what it answers.
#[test]
fn an_answer_that_only_its_frame_tells_of_names_what_it_answers_by_its_number() {
    let found = |answer: u32| {
        let mut engine = Engine::new(without_reasons());
        engine.sight(&incoming(10, tuple(), 5, established(5)));
        engine.kernel_event(&event(
            10,
            tuple().reversed(),
            KernelEventKind::ResetAccepted { state: None },
        ));
        let data = Segment {
            ack: SeqNum(77),
            payload_len: 100,
            ..segment(tuple(), Flags::ACK | Flags::PSH, 5)
        };
        observe(&mut engine, 110, IN, &data);
        let answer = segment(tuple().reversed(), Flags::RST, answer);
        observe(&mut engine, 111, OUT, &answer);
        let mut out = Vec::new();
        engine.finish(&mut |record| out.push(record));
        let is_answer =
            |fact: &&crate::evidence::Evidence| fact.name.starts_with("kernel_answered");
        out[0].evidence.iter().find(is_answer).map(|fact| fact.name)
    };
    assert_eq!(found(77), Some("kernel_answered_new_data"));
    // It answers something else, of which nothing is known.
    assert_eq!(found(78), None);
}

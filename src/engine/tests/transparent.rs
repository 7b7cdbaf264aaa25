//! Two connections of one four-tuple: a proxy is called by the backend's address, and calls that by its client's.

use crate::engine::Engine;
use crate::engine::testing::{
    IN, OUT, PROXY, at, established, event, incoming, records, segment, sent, tuple,
};
use crate::flow::{FlowFacts, Sighting};
use crate::host::{KernelEventKind, KnownReason, SocketView, TcpState};
use crate::record::ResetRecord;
use crate::verdict::{Cause, Verdict};
use crate::wire::{Flags, FourTuple, Segment};

/// The client's abort, with a number that its socket expected; another is expected by the backend.
fn abort_of_client(engine: &mut Engine) {
    let reset = incoming(10, tuple(), 500, established(500));
    engine.sight(&Sighting {
        segment: abort(tuple(), 500),
        ..reset
    });
    let state = Some(TcpState::Established);
    let accepted = KernelEventKind::ResetAccepted { state };
    engine.kernel_event(&event(10, tuple().reversed(), accepted));
}

fn abort(tuple: FourTuple, seq: u32) -> Segment {
    Segment {
        window: 63,
        ..segment(tuple, Flags::RST | Flags::ACK, seq)
    }
}

/// What the proxy's own socket, which bears the client's address, says to the backend.
fn abort_of_proxy(engine: &mut Engine) {
    let socket = Some(SocketView::Sender { cookie: 7 });
    engine.observe(at(11), OUT, &abort(tuple(), 9000), socket, &mut |_| {
        unreachable!("nothing has settled")
    });
    let kind = sent(true, KnownReason::State, Some(PROXY));
    engine.kernel_event(&event(11, tuple(), kind));
}

/// Both ends have shown themselves before.
fn shaken(engine: &mut Engine) {
    for (vantage, tuple) in [(IN, tuple()), (OUT, tuple().reversed())] {
        let syn = match vantage == IN {
            true => Flags::SYN,
            false => Flags::SYN | Flags::ACK,
        };
        engine.observe(at(1), vantage, &segment(tuple, syn, 499), None, &mut |_| {});
    }
}

fn told(records: &[ResetRecord]) -> Vec<(Verdict, Option<Cause>, u64)> {
    let told = |record: &ResetRecord| (record.verdict, record.cause, record.reset_count);
    records.iter().map(told).collect()
}

#[test]
fn the_proxys_own_reset_is_no_train_with_its_clients() {
    let records = records(|engine, _| {
        shaken(engine);
        abort_of_client(engine);
        abort_of_proxy(engine);
    });
    assert_eq!(
        told(&records),
        [
            (Verdict::Remote, Some(Cause::Abort), 1),
            (Verdict::Local, Some(Cause::Process), 1)
        ],
        "{records:#?}"
    );
    assert_eq!(records[0].kernel.accepted, Some(true));
    assert_eq!(records[1].process, Some(PROXY));
}

#[test]
fn which_of_both_passed_the_others_reset_on_is_told() {
    let records = records(|engine, _| {
        shaken(engine);
        abort_of_client(engine);
        let process = PROXY;
        engine.kernel_event(&event(11, tuple(), {
            sent(true, KnownReason::State, Some(process))
        }));
        let owner = KernelEventKind::OwnerKnown { process };
        engine.kernel_event(&event(11, tuple().reversed(), owner));
        let socket = Some(SocketView::Sender { cookie: 7 });
        let reset = abort(tuple(), 9000);
        engine.observe(at(11), OUT, &reset, socket, &mut |_| {});
    });
    assert_eq!(
        told(&records),
        [
            (Verdict::Remote, Some(Cause::Abort), 1),
            (Verdict::Forwarded, Some(Cause::Proxy), 1)
        ],
        "{records:#?}"
    );
    assert_eq!(records[1].related[0].source, records[0].source);
}

#[test]
fn what_no_socket_of_this_host_sent_is_of_the_same_connection() {
    let records = records(|engine, _| {
        shaken(engine);
        abort_of_client(engine);
        // A packet filter speaks for whom it likes.
        let socket = None;
        engine.observe(at(11), OUT, &abort(tuple(), 9000), socket, &mut |_| {});
    });
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].reset_count, 2);
}

#[test]
fn this_hosts_answer_to_the_one_that_it_met_is_of_the_same_connection() {
    let records = records(|engine, _| {
        shaken(engine);
        abort_of_client(engine);
        let answer = segment(tuple().reversed(), Flags::RST, 77);
        let socket = Some(SocketView::Sender { cookie: 1 });
        engine.observe(at(11), OUT, &answer, socket, &mut |_| {});
        let flow = FlowFacts::default();
        let again = incoming(12, tuple(), 500, SocketView::Absent);
        engine.sight(&Sighting { flow, ..again });
    });
    assert_eq!(records.len(), 1, "{records:#?}");
    assert_eq!(records[0].reset_count, 3);
}

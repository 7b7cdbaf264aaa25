//! Two connections of one four-tuple: a proxy is called by the backend's address, and calls that by its client's.

use crate::engine::Engine;
use crate::engine::testing::{
    IN, OUT, PROXY, THROUGH, answered, at, established, event, incoming, observe, records, segment,
    sent, tuple,
};
use crate::flow::{FlowFacts, Sighting};
use crate::host::{KernelEventKind, KnownReason, SocketView, TcpState};
use crate::record::ResetRecord;
use crate::verdict::{Cause, Verdict};
use crate::wire::{Flags, FourTuple, Segment, SeqNum};

/// The client's abort, with a number that its socket expected; another is expected by the backend.
fn abort_of_client(engine: &mut Engine) {
    let reset = incoming(10, tuple(), 500, established(500));
    engine.sight(&Sighting {
        segment: abort(tuple(), 500),
        ..reset
    });
    accept(engine, 10, tuple().reversed());
}

/// The socket at that end takes a reset.
fn accept(engine: &mut Engine, ms: u64, local: FourTuple) {
    let state = Some(TcpState::Established);
    let accepted = KernelEventKind::ResetAccepted { state };
    engine.kernel_event(&event(ms, local, accepted));
}

fn abort(tuple: FourTuple, seq: u32) -> Segment {
    Segment {
        window: 63,
        ack: SeqNum(77),
        ..segment(tuple, Flags::RST | Flags::ACK, seq)
    }
}

fn abort_of_backend(ms: u64) -> Sighting {
    Sighting {
        segment: abort(tuple().reversed(), 9000),
        ..incoming(ms, tuple().reversed(), 9000, established(9000))
    }
}

/// What the proxy's own socket, which bears the client's address, says to the backend.
fn abort_of_proxy(engine: &mut Engine) {
    abort_of_proxy_at(engine, 11);
}

fn abort_of_proxy_at(engine: &mut Engine, ms: u64) {
    let socket = Some(SocketView::Sender { cookie: 7 });
    engine.observe(at(ms), OUT, &abort(tuple(), 9000), socket, &mut |_| {
        unreachable!("nothing has settled")
    });
    let kind = sent(true, KnownReason::State, Some(PROXY));
    engine.kernel_event(&event(ms, tuple(), kind));
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

/// The kernel's own answer to what comes for a connection that is gone, by its event and its frame.
fn answer(engine: &mut Engine, ms: u64, from: FourTuple, seq: u32) {
    let told = answered(seq, 100);
    engine.kernel_event(&event(ms, from, told));
    engine.observe(
        at(ms),
        OUT,
        &segment(from, Flags::RST, 77),
        None,
        &mut |_| unreachable!("nothing has settled"),
    );
}

#[test]
fn what_the_backend_still_sends_is_no_word_of_the_client() {
    let records = records(|engine, _| {
        shaken(engine);
        abort_of_client(engine);
        // The proxy has closed the other connection, and what comes for it is answered in the client's name.
        answer(engine, 12, tuple(), 9000);
    });
    assert_eq!(
        told(&records),
        [
            (Verdict::Remote, Some(Cause::Abort), 1),
            (Verdict::Local, Some(Cause::Kernel), 1)
        ],
        "{records:#?}"
    );
}

#[test]
fn nor_where_no_socket_shows_the_clients_end() {
    let records = records(|engine, _| {
        shaken(engine);
        let socket = SocketView::Absent;
        engine.sight(&Sighting {
            segment: abort(tuple(), 500),
            ..incoming(10, tuple(), 500, socket)
        });
        let told = answered(500, 100);
        engine.kernel_event(&event(12, tuple(), told));
    });
    let [client] = &records[..] else {
        panic!("{records:#?}")
    };
    let held_against = client
        .evidence
        .iter()
        .filter(|evidence| evidence.name.starts_with("kernel_answered"));
    assert_eq!(held_against.count(), 0, "{client:#?}");
}

#[test]
fn a_sweep_at_the_one_connection_hides_no_reset_of_the_other() {
    let records = records(|engine, _| {
        shaken(engine);
        for n in 0..40_u32 {
            let ms = 10 + u64::from(n);
            let guess = incoming(ms, tuple(), 500 + 7 * n, established(500));
            engine.sight(&guess);
        }
        abort_of_proxy_at(engine, 60);
    });
    let locals = records
        .iter()
        .filter(|record| record.verdict == Verdict::Local);
    assert_eq!(
        locals.map(|record| record.reset_count).collect::<Vec<_>>(),
        [1],
        "{records:#?}"
    );
    assert_eq!(
        records.iter().map(|record| record.reset_count).sum::<u64>(),
        41
    );
}

#[test]
fn events_of_the_other_connection_are_nothing_of_this_one() {
    let records = records(|engine, _| {
        shaken(engine);
        abort_of_client(engine);
        // The backend's interface is not watched: of that connection the kernel alone tells.
        let told = answered(500, 100);
        engine.kernel_event(&event(12, tuple(), told));
    });
    assert_eq!(
        told(&records),
        [(Verdict::Remote, Some(Cause::Abort), 1)],
        "{records:#?}"
    );
}

#[test]
fn the_fin_in_a_clients_name_is_not_the_clients() {
    let records = records(|engine, _| {
        shaken(engine);
        abort_of_client(engine);
        let fin = segment(tuple(), Flags::FIN | Flags::ACK, 500);
        observe(engine, 12, OUT, &fin);
        observe(engine, 300, OUT, &fin);
    });
    assert_eq!(
        told(&records),
        [(Verdict::Remote, Some(Cause::Abort), 1)],
        "{records:#?}"
    );
}

#[test]
fn both_connections_may_be_reset_by_their_peers() {
    let mut processes = [PROXY, PROXY];
    processes[1].pid = 43;
    let records = records(|engine, _| {
        shaken(engine);
        abort_of_client(engine);
        engine.sight(&abort_of_backend(11));
        accept(engine, 11, tuple());
        for (process, local) in processes.into_iter().zip([tuple().reversed(), tuple()]) {
            let owner = KernelEventKind::OwnerKnown { process };
            engine.kernel_event(&event(12, local, owner));
        }
    });
    assert_eq!(
        told(&records),
        [
            (Verdict::Remote, Some(Cause::Abort), 1),
            (Verdict::Remote, Some(Cause::Abort), 1)
        ],
        "{records:#?}"
    );
    for (record, process) in records.iter().zip(processes) {
        assert_eq!(record.kernel.accepted, Some(true));
        assert_eq!(record.process, Some(process));
    }
}

#[test]
fn what_the_proxys_host_routes_once_its_socket_is_gone_keeps_nothing_together() {
    let records = records(|engine, _| {
        shaken(engine);
        abort_of_client(engine);
        let reset = abort_of_backend(11);
        engine.sight(&reset);
        let copy = Segment {
            hop_limit: 62,
            ..reset.segment
        };
        observe(engine, 11, THROUGH, &copy);
        abort_of_proxy(engine);
    });
    assert_eq!(
        told(&records),
        [
            (Verdict::Remote, Some(Cause::Abort), 1),
            (Verdict::Forwarded, Some(Cause::Router), 2)
        ],
        "{records:#?}"
    );
}

#[test]
fn whose_the_one_socket_was_is_not_said_of_the_other() {
    let records = records(|engine, _| {
        shaken(engine);
        abort_of_client(engine);
        let process = PROXY;
        let owner = KernelEventKind::OwnerKnown { process };
        engine.kernel_event(&event(11, tuple().reversed(), owner));
        let socket = Some(SocketView::Sender { cookie: 7 });
        let reset = abort(tuple(), 9000);
        engine.observe(at(11), OUT, &reset, socket, &mut |_| {});
        // A timer's.
        engine.kernel_event(&event(11, tuple(), sent(true, KnownReason::State, None)));
    });
    assert_eq!(records.len(), 2, "{records:#?}");
    assert_eq!(records[0].process, Some(PROXY));
    assert_eq!(records[1].process, None);
}

#[test]
fn what_the_proxy_looks_like_is_nothing_to_hold_against_its_client() {
    let records = records(|engine, _| {
        let near = |segment: Segment| Segment {
            hop_limit: 128,
            ..segment
        };
        for (ms, tuple, flags) in [
            (1, tuple().reversed(), Flags::SYN | Flags::ACK),
            (2, tuple(), Flags::SYN),
        ] {
            observe(engine, ms, OUT, &near(segment(tuple, flags, 8999)));
        }
        let socket = Some(SocketView::Sender { cookie: 7 });
        let reset = near(abort(tuple(), 9000));
        engine.observe(at(9), OUT, &reset, socket, &mut |_| {});
        let kind = sent(true, KnownReason::State, Some(PROXY));
        engine.kernel_event(&event(9, tuple(), kind));
        abort_of_client(engine);
    });
    assert_eq!(
        told(&records),
        [
            (Verdict::Local, Some(Cause::Process), 1),
            (Verdict::Remote, Some(Cause::Abort), 1)
        ],
        "{records:#?}"
    );
}

/// More of the client's data, which this host's kernel answers.
fn client_goes_on(engine: &mut Engine, ms: u64) {
    let data = Segment {
        ack: SeqNum(77),
        payload_len: 100,
        ..segment(tuple(), Flags::ACK | Flags::PSH, 500)
    };
    observe(engine, ms, IN, &data);
    answer(engine, ms, tuple().reversed(), 500);
}

/// The client's abort is judged and rests; what is said `later` comes 1.8 s after it.
fn later(say: impl FnOnce(&mut Engine)) -> Vec<ResetRecord> {
    records(|engine, records| {
        let agreed = segment(tuple().reversed(), Flags::SYN | Flags::ACK, 76);
        observe(engine, 1, OUT, &agreed);
        let reset = incoming(10, tuple(), 500, established(500));
        engine.sight(&reset);
        accept(engine, 10, tuple().reversed());
        engine.tick(at(1500), &mut |record| records.push(record));
        assert_eq!(records.len(), 1);
        say(engine);
    })
}

#[test]
fn what_the_backend_sends_later_corrects_nothing_of_the_client() {
    let records = later(|engine| {
        let fin = segment(tuple(), Flags::FIN | Flags::ACK, 600);
        observe(engine, 1790, OUT, &fin);
        answer(engine, 1800, tuple(), 500);
    });
    assert_eq!(records.len(), 2, "{records:#?}");
    assert_eq!(records[1].verdict, Verdict::Local);
}

#[test]
fn a_correction_leaves_the_other_connection_its_record() {
    let records = later(|engine| {
        client_goes_on(engine, 1800);
        abort_of_proxy_at(engine, 1801);
    });
    let [_, corrected, other] = &records[..] else {
        panic!("{records:#?}")
    };
    assert_eq!(corrected.verdict, Verdict::Injected, "{records:#?}");
    assert_eq!(corrected.related[0].join, "correction");
    assert_eq!(corrected.reset_count, 2);
    assert_eq!(
        (other.verdict, other.cause, other.reset_count),
        (Verdict::Local, Some(Cause::Process), 1)
    );
}

#[test]
fn of_both_connections_a_peer_may_be_heard_again() {
    let records = later(|engine| {
        // The backend's abort rests as well.
        let reset = incoming(1550, tuple().reversed(), 9000, established(9000));
        engine.sight(&reset);
        accept(engine, 1550, tuple());
        engine.tick(at(3000), &mut |_| {});
        client_goes_on(engine, 3100);
    });
    let corrected = records.last().unwrap();
    assert_eq!(corrected.verdict, Verdict::Injected, "{records:#?}");
    assert_eq!(corrected.source.port, 40000);
}

#[test]
fn what_follows_on_the_other_connection_is_no_consequence_of_a_forged_reset() {
    let records = records(|engine, records| {
        // A guess at the client's connection, and the client goes on.
        engine.sight(&incoming(10, tuple(), 500, established(500)));
        accept(engine, 10, tuple().reversed());
        client_goes_on(engine, 300);
        engine.tick(at(1900), &mut |record| records.push(record));
        engine.sight(&abort_of_backend(2000));
        accept(engine, 2000, tuple());
    });
    assert_eq!(
        told(&records)[1..],
        [(Verdict::Remote, Some(Cause::Abort), 1)],
        "{records:#?}"
    );
    assert_eq!(records[0].verdict, Verdict::Injected);
}

//! What the engine decides without weighing: resets that this host routes, that its proxy passes on, and
//! those that belong to nothing.

use crate::engine::testing::{
    IN, OUT, PROXY, THROUGH, backend, config, established, event, incoming, observe, records,
    segment, sent, tuple,
};
use crate::engine::{Engine, EngineConfig};
use crate::evidence::SequenceFit;
use crate::flow::{Endpoint, FlowKey};
use crate::host::{KernelEventKind, KnownReason, SocketView, TcpState};
use crate::record::ResetRecord;
use crate::vantage::InterfaceId;
use crate::verdict::{Cause, Stage, Verdict};
use crate::wire::{Flags, FourTuple, Segment, SeqNum};

#[test]
fn a_reset_that_comes_in_and_leaves_elsewhere_is_routed_and_one_record() {
    let records = records(|engine, _| {
        let sighting = incoming(10, tuple(), 5, SocketView::Absent);
        engine.sight(&sighting);
        let copy = Segment {
            hop_limit: 62,
            ..sighting.segment
        };
        observe(engine, 11, THROUGH, &copy);
    });
    let [record] = &records[..] else {
        panic!("{records:?}")
    };
    assert_eq!(
        (record.verdict, record.cause),
        (Verdict::Forwarded, Some(Cause::Router))
    );
    assert_eq!(record.reset_count, 1);
    // It is attested: no sum of a weighing, and the strongest evidence first.
    assert_eq!(record.total_db, None);
    assert_eq!(record.evidence[0].name, "left_by_another_interface");
    assert_eq!(record.egress_interface, Some(InterfaceId(1)));
    assert_eq!(record.ingress_interface, Some(InterfaceId(0)));
}

#[test]
fn a_routed_reset_whose_arrival_was_not_watched_counts_once() {
    let records = records(|engine, _| {
        observe(engine, 11, THROUGH, &segment(tuple(), Flags::RST, 5));
    });
    let [record] = &records[..] else {
        panic!("{records:?}")
    };
    assert_eq!(
        (record.verdict, record.cause),
        (Verdict::Forwarded, Some(Cause::Router))
    );
    assert_eq!(record.evidence.len(), 1, "{:?}", record.evidence);
    assert!(record.related.is_empty(), "{:?}", record.related);
}

#[test]
fn a_proxy_that_resets_its_backend_after_its_client_did_passes_it_on() {
    let records = records(|engine, _| {
        engine.kernel_event(&event(
            1,
            tuple().reversed(),
            KernelEventKind::Established {
                process: None,
                originator: false,
            },
        ));
        engine.kernel_event(&event(
            2,
            backend(),
            KernelEventKind::Established {
                process: Some(PROXY),
                originator: true,
            },
        ));
        engine.sight(&incoming(10, tuple(), 5, established(5)));
        let local = tuple().reversed();
        engine.kernel_event(&event(
            10,
            local,
            KernelEventKind::ResetAccepted {
                state: Some(TcpState::Established),
            },
        ));
        observe(
            engine,
            11,
            OUT,
            &segment(backend(), Flags::RST | Flags::ACK, 9),
        );
        engine.kernel_event(&event(
            11,
            backend(),
            sent(true, KnownReason::State, Some(PROXY)),
        ));
        engine.kernel_event(&event(
            12,
            local,
            KernelEventKind::OwnerKnown { process: PROXY },
        ));
    });
    let [client, forwarded] = &records[..] else {
        panic!("{records:?}")
    };
    assert_eq!(client.kernel.accepted, Some(true));
    assert_eq!(client.process, Some(PROXY));
    assert_eq!(
        (forwarded.verdict, forwarded.cause),
        (Verdict::Forwarded, Some(Cause::Proxy))
    );
    let related = forwarded.related[0];
    assert_eq!((related.source.port, related.join), (40000, "process"));
    assert_eq!(forwarded.server.map(|server| server.port), Some(8080));
}

/// Some kernels do not run tracing programs while an interrupt breaks in on certain threads, and count
/// that nowhere. Then nobody tells that the client's reset was accepted, nor whose socket that was.
#[test]
fn a_proxys_reset_is_forwarded_though_the_kernel_does_not_tell_of_its_clients() {
    let backends = |later_ms: u64, told: bool| {
        let records = records(|engine, _| {
            engine.kernel_event(&event(
                2,
                backend(),
                KernelEventKind::Established {
                    process: Some(PROXY),
                    originator: true,
                },
            ));
            engine.sight(&incoming(10, tuple(), 5, established(5)));
            if told {
                let taken = KernelEventKind::ResetAccepted { state: None };
                engine.kernel_event(&event(10, tuple().reversed(), taken));
            }
            let at = 10 + later_ms;
            let own = segment(backend(), Flags::RST | Flags::ACK, 9);
            observe(engine, at, OUT, &own);
            let kind = sent(true, KnownReason::State, Some(PROXY));
            engine.kernel_event(&event(at, backend(), kind));
        });
        let of_backend = |record: &ResetRecord| record.destination.port == backend().dst_port;
        records.into_iter().find(of_backend).unwrap()
    };
    let record = backends(1, false);
    assert_eq!(
        (record.verdict, record.cause),
        (Verdict::Forwarded, Some(Cause::Proxy))
    );
    assert_eq!((record.related[0].join, record.confidence), ("time", 0.7));
    // Much later it is the process's own doing; and where the kernel tells, its word counts.
    for own in [backends(20, false), backends(1, true)] {
        assert_eq!(
            (own.verdict, own.cause),
            (Verdict::Local, Some(Cause::Process))
        );
    }
}

#[test]
fn a_reset_for_nothing_that_anybody_knows_is_stray() {
    let records = records(|engine, _| {
        engine.sight(&incoming(10, tuple(), 5, SocketView::Absent));
    });
    assert_eq!(records[0].verdict, Verdict::Stray);
}

#[test]
fn a_reset_for_an_address_elsewhere_is_nobodys_stray() {
    let verdict = |own: &str| {
        let records = records(|engine, _| {
            engine.set_own_addresses([own.parse().unwrap()].into());
            engine.sight(&incoming(10, tuple(), 5, SocketView::Absent));
        });
        records[0].verdict
    };
    let to = tuple().dst.to_string();
    assert_eq!(verdict(&to), Verdict::Stray);
    assert_ne!(verdict("192.0.2.77"), Verdict::Stray);
}

#[test]
fn a_refusal_of_what_this_host_asked_for_in_its_name_for_others_is_nobodys_stray() {
    let answer = |asks: bool| {
        let records = records(|engine, _| {
            engine.set_own_addresses([tuple().dst].into());
            if asks {
                // Another connection to the same server went well.
                let mut heard = segment(tuple(), Flags::SYN | Flags::ACK, 7);
                heard.tuple.src_port += 1;
                observe(engine, 4, IN, &heard);
                let syn = segment(tuple().reversed(), Flags::SYN, 77);
                observe(engine, 5, THROUGH, &syn);
            }
            let mut refusal = incoming(10, tuple(), 0, SocketView::Absent);
            refusal.segment.flags = Flags(Flags::RST | Flags::ACK);
            engine.sight(&refusal);
        });
        (records[0].verdict, records[0].cause, records[0].client)
    };
    let client = Endpoint {
        address: tuple().dst,
        port: tuple().dst_port,
    };
    let told = (Verdict::Remote, Some(Cause::Refused), Some(client));
    assert_eq!(answer(true), told);
    assert_eq!(answer(false), (Verdict::Stray, None, None));
}

#[test]
fn what_refuses_a_syn_ended_an_attempt_though_nobody_else_saw_it() {
    let records = records(|engine, _| {
        let kind = sent(false, KnownReason::NoSocket, None);
        engine.kernel_event(&event(10, tuple().reversed(), kind));
        let refusal = Segment {
            ack: SeqNum(78),
            ..segment(tuple().reversed(), Flags::RST | Flags::ACK, 0)
        };
        observe(engine, 10, OUT, &refusal);
    });
    let record = &records[0];
    assert_eq!(
        (record.stage, record.cause),
        (Stage::Handshake, Some(Cause::Kernel))
    );
    assert_eq!(record.client.unwrap().address, tuple().src);
    let begins = "the kernel of this host reset the attempt from 192.0.2.7:40000";
    assert!(record.message.starts_with(begins), "{}", record.message);
    assert!(record.message.ends_with(": nothing listens there"));
}

#[test]
fn a_routed_connection_of_which_one_end_was_seen_was_open_once_that_had_sent_data() {
    let stage = |bytes: u32| {
        let records = records(|engine, _| {
            observe(engine, 5, IN, &segment(tuple(), Flags::SYN, 99));
            engine.sight(&incoming(10, tuple(), 100 + bytes, SocketView::Absent));
        });
        records[0].stage
    };
    assert_eq!(stage(0), Stage::Handshake);
    assert_eq!(stage(5), Stage::Established);
    assert_eq!(stage(1 << 31), Stage::Handshake);
}

#[test]
fn a_reset_of_a_connection_that_was_there_before_the_sensor_is_no_stray() {
    let verdict = |older: &[FourTuple]| {
        let keys = older.iter().map(|tuple| FlowKey::of(*tuple).0);
        let mut engine = Engine::new(EngineConfig {
            older: keys.collect(),
            ..config()
        });
        engine.set_own_addresses([tuple().dst].into());
        engine.sight(&incoming(10, tuple(), 5, SocketView::Absent));
        let mut records = Vec::new();
        engine.finish(&mut |record| records.push(record));
        records[0].verdict
    };
    assert_eq!(verdict(&[backend()]), Verdict::Stray);
    assert_ne!(verdict(&[backend(), tuple().reversed()]), Verdict::Stray);
}

#[test]
fn a_routed_reset_is_not_out_of_a_window_that_nobody_knows() {
    let fit = |ack: u32, seq: u32| {
        let records = records(|engine, _| {
            observe(engine, 5, IN, &segment(tuple(), Flags::SYN, 99));
            let reset = Segment {
                ack: SeqNum(ack),
                ..segment(tuple().reversed(), Flags::RST | Flags::ACK, seq)
            };
            observe(engine, 10, THROUGH, &reset);
        });
        (records[0].resets[0].fit, records[0].resets[0].offset)
    };
    // Of an open connection, whose SYN-ACK left by the same way; and a refusal.
    assert_eq!(fit(105, 7_001), (SequenceFit::Unknown, None));
    assert_eq!(fit(100, 0), (SequenceFit::Exact, Some(0)));
}

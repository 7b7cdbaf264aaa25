//! What the engine decides without weighing: resets that this host routes, that its proxy passes on, and
//! those that belong to nothing.

use crate::engine::testing::{
    OUT, PROXY, THROUGH, backend, established, event, incoming, observe, records, segment, sent,
    tuple,
};
use crate::host::{KernelEventKind, KnownReason, SocketView, TcpState};
use crate::vantage::InterfaceId;
use crate::verdict::{Cause, Verdict};
use crate::wire::{Flags, Segment};

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

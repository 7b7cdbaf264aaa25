//! What is learned of a reset only after it was taken in: a peer that speaks again, ports that are used
//! anew, the word of the worker that the reset went past.

use crate::engine::Engine;
use crate::engine::testing::{
    IN, OUT, at, config, established, event, incoming, observe, records, segment, tuple,
};
use crate::evidence::testing::Scene;
use crate::flow::{FlowKey, PassedFlow, PassedReset};
use crate::host::{KernelEventKind, KnownReason, ResetReason, SocketView, TcpState};
use crate::record::ResetRecord;
use crate::verdict::Verdict;
use crate::wire::{Flags, Segment};

/// A bare reset that fits and is accepted, judged and written; 1.8 s later its purported sender
/// sends `data` on the same four-tuple, and this host answers.
fn heard_again(data: Segment, answer_flags: u8) -> Vec<ResetRecord> {
    let mut engine = Engine::new(config());
    let mut records = Vec::new();
    engine.sight(&incoming(10, tuple(), 5, established(5)));
    let local = tuple().reversed();
    let accepted = KernelEventKind::ResetAccepted {
        state: Some(TcpState::Established),
    };
    engine.kernel_event(&event(10, local, accepted));
    engine.tick(at(1500), &mut |record| records.push(record));
    assert_eq!(records.len(), 1);
    observe(&mut engine, 1800, IN, &data);
    let answered = KernelEventKind::ResetSent {
        active: false,
        reason: Some(ResetReason::Known(KnownReason::NoSocket)),
        state: None,
        process: None,
        answered_seq: Some(data.seq),
        answered_len: Some(data.payload_len),
    };
    engine.kernel_event(&event(1800, local, answered));
    observe(&mut engine, 1801, OUT, &segment(local, answer_flags, 77));
    engine.finish(&mut |record| records.push(record));
    records
}

#[test]
fn a_peer_that_is_heard_after_its_record_was_written_corrects_the_record() {
    let data = Segment {
        payload_len: 100,
        ..segment(tuple(), Flags::ACK | Flags::PSH, 5)
    };
    let records = heard_again(data, Flags::RST);
    let [first, corrected] = &records[..] else {
        panic!("{records:?}")
    };
    assert_ne!(first.verdict, Verdict::Injected);
    assert_eq!(corrected.verdict, Verdict::Injected);
    assert_eq!(corrected.start, first.start);
    let related = corrected.related[0];
    assert_eq!((related.record, related.join), (Some(1), "correction"));
    assert!(corrected.message.starts_with("correction: "));
}

#[test]
fn a_new_connection_on_the_same_ports_corrects_nothing() {
    // Its SYN met a closed port: the answer bears ACK (RFC 9293 §3.5.2).
    let syn = segment(tuple(), Flags::SYN, 90_000);
    let records = heard_again(syn, Flags::RST | Flags::ACK);
    assert!(
        records.iter().all(|r| r.verdict != Verdict::Injected),
        "{records:?}"
    );
}

#[test]
fn ports_used_anew_hold_nothing_against_the_reset_before() {
    let judged = |state: TcpState| {
        let mut engine = Engine::new(config());
        let mut records = Vec::new();
        let SocketView::Full { sequence, .. } = established(5) else {
            unreachable!()
        };
        let met = SocketView::Full { state, sequence };
        engine.sight(&incoming(10, tuple(), 5, met));
        let opened = KernelEventKind::Established {
            process: None,
            originator: false,
        };
        engine.kernel_event(&event(300, tuple().reversed(), opened));
        // The new connection's ISN is near by chance.
        let data = Segment {
            payload_len: 100,
            ..segment(tuple(), Flags::ACK | Flags::PSH, 900)
        };
        observe(&mut engine, 310, IN, &data);
        engine.finish(&mut |record| records.push(record));
        let lives = |name: &str| records[0].evidence.iter().any(|fact| fact.name == name);
        lives("peer_sends_on")
    };
    assert!(!judged(TcpState::Established));
    assert!(
        judged(TcpState::SynRecv),
        "the handshake that the reset did not end"
    );
}

#[test]
fn a_reset_that_went_past_its_worker_meets_what_the_worker_knew() {
    // Hop limit 40 where the worker had heard 63: of the peer the engine's own table knows nothing.
    let met = Scene::established();
    let forged = Segment {
        hop_limit: 40,
        ..segment(tuple(), Flags::RST, 500)
    };
    let judged = |completes: bool| {
        records(|engine, out| {
            let socket = Some(established(500));
            engine.observe(at(5), IN, &forged, socket, &mut |r| out.push(r));
            let (key, side) = FlowKey::of(forged.tuple);
            let reset = PassedReset {
                key,
                side,
                time: at(5),
                is_living: true,
            };
            if completes {
                let flow = met.flow;
                engine.complete(&PassedFlow { reset, flow });
            }
        })
    };
    let names = |records: &[ResetRecord]| {
        let evidence = records[0].evidence.iter();
        evidence.map(|found| found.name).collect::<Vec<_>>()
    };
    assert!(!names(&judged(false)).contains(&"hop_limit_mismatch"));
    assert!(names(&judged(true)).contains(&"hop_limit_mismatch"));
}

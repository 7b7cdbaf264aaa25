//! What is learned of a reset only after it was taken in: a peer that speaks again, ports that are used
//! anew, the word of the worker that the reset went past.

use crate::engine::Engine;
use crate::engine::testing::{
    IN, OUT, answered, at, config, established, event, incoming, observe, records, segment, tuple,
};
use crate::evidence::testing::Scene;
use crate::flow::{FlowKey, PassedFlow, PassedReset, Sighting, Tracker, TrackerConfig};
use crate::host::{KernelEventKind, SocketSequence, SocketView, TcpState};
use crate::record::ResetRecord;
use crate::vantage::{Path, Vantage};
use crate::verdict::Verdict;
use crate::wire::{Flags, Options, Segment, SeqNum, Timestamps};

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
    let answered = answered(data.seq.0, data.payload_len);
    engine.kernel_event(&event(1800, local, answered));
    observe(&mut engine, 1801, OUT, &segment(local, answer_flags, 77));
    engine.finish(&mut |record| records.push(record));
    records
}

#[test]
fn a_peer_that_is_heard_after_its_record_was_written_corrects_the_record() {
    let data = Segment {
        ack: SeqNum(77),
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
fn a_refused_syn_on_the_same_ports_is_no_sign_of_life() {
    let judged = |answer: Segment| {
        let local = tuple().reversed();
        let mut told = records(|engine, _| {
            engine.sight(&incoming(10, tuple(), 5, established(5)));
            let answered = answered(900, 0);
            engine.kernel_event(&event(100, local, answered));
            observe(engine, 100, OUT, &answer);
        });
        let record = told.remove(0);
        let mut names = record.evidence.iter().map(|fact| fact.name);
        names.any(|name| name.starts_with("kernel_answered"))
    };
    let to_syn = Segment {
        ack: SeqNum(901),
        ..segment(tuple().reversed(), Flags::RST | Flags::ACK, 0)
    };
    assert!(!judged(to_syn));
    assert!(judged(segment(tuple().reversed(), Flags::RST, 77)));
}

#[test]
fn resets_of_the_next_connection_on_the_same_ports_are_no_train_with_the_first() {
    let judged = |is_opened: bool| {
        let abort = |time, seq| {
            let mut seen = incoming(time, tuple(), seq, established(5));
            seen.segment.flags = Flags(Flags::RST | Flags::ACK);
            seen.segment.window = 500;
            seen
        };
        let mut told = records(|engine, _| {
            engine.sight(&abort(10, 5));
            if is_opened {
                let opened = KernelEventKind::Established {
                    process: None,
                    originator: false,
                };
                engine.kernel_event(&event(12, tuple().reversed(), opened));
            }
            engine.sight(&abort(14, 4_000));
            engine.sight(&abort(16, 9_000));
        });
        told.remove(0)
    };
    let in_train = |record: &ResetRecord| {
        let mut names = record.evidence.iter().map(|fact| fact.name);
        names.any(|name| name.starts_with("train_"))
    };
    let anew = judged(true);
    assert!(!in_train(&anew), "{:?}", anew.evidence);
    // Told are all of them.
    assert_eq!((anew.resets.len(), anew.reset_count), (3, 3));
    assert!(in_train(&judged(false)));
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
            ack: SeqNum(77),
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

/// A reset that met a connection in `state`; then this host sends a SYN-ACK, the peer acknowledges, the
/// kernel says that the handshake is complete, and the peer sends data. The reset is heard in its turn or,
/// by the way through a worker, after all the rest. Whether what follows is held against it.
fn is_accused_of_the_next_connection(state: TcpState, heard_last: bool) -> bool {
    let SocketView::Full { sequence, .. } = established(5) else {
        unreachable!()
    };
    let reset = Segment {
        window: 500,
        ack: SeqNum(77),
        ..segment(tuple(), Flags::RST | Flags::ACK, 5)
    };
    let reset = Sighting {
        segment: reset,
        ..incoming(10, tuple(), 5, SocketView::Full { state, sequence })
    };
    // The new connection's numbers lie near the old one's: a second of the kernel's clock.
    let from_peer = |flags: u8, payload_len: u32| Segment {
        ack: SeqNum(60_000),
        payload_len,
        ..segment(tuple(), flags, 50_000)
    };
    let found = records(|engine, _| {
        if !heard_last {
            engine.sight(&reset);
        }
        let agreed = Flags::SYN | Flags::ACK;
        observe(
            engine,
            12,
            OUT,
            &segment(tuple().reversed(), agreed, 59_999),
        );
        observe(engine, 13, IN, &from_peer(Flags::ACK, 0));
        let opened = KernelEventKind::Established {
            process: None,
            originator: false,
        };
        engine.kernel_event(&event(14, tuple().reversed(), opened));
        observe(engine, 15, IN, &from_peer(Flags::ACK | Flags::PSH, 100));
        if heard_last {
            // The SYN of what is reset here, which took the worker's way too.
            engine.sight(&Sighting {
                time: at(5),
                segment: segment(tuple(), Flags::SYN, 4),
                begins_anew: true,
                ..reset
            });
            engine.sight(&reset);
        }
    });
    let mut evidence = found[0].evidence.iter();
    evidence.any(|fact| fact.name.starts_with("peer_"))
}

#[test]
fn the_next_connection_begins_with_this_hosts_answer_whatever_is_heard_first() {
    for heard_last in [false, true] {
        let accused = |state| is_accused_of_the_next_connection(state, heard_last);
        assert!(!accused(TcpState::Established), "{heard_last}");
        assert!(!accused(TcpState::CloseWait), "{heard_last}");
        assert!(
            accused(TcpState::SynRecv),
            "{heard_last}: the handshake that the reset did not end"
        );
    }
}

#[test]
fn another_syn_that_this_host_agrees_to_is_the_next_connection_even_after_a_handshake() {
    let accused = |agreed_to: u32| {
        let SocketView::Full { sequence, .. } = established(5) else {
            unreachable!()
        };
        let state = TcpState::SynRecv;
        let mut reset = incoming(10, tuple(), 5, SocketView::Full { state, sequence });
        reset.segment.flags = Flags(Flags::RST | Flags::ACK);
        reset.segment.window = 500;
        let mut sender = Scene::established().flow.sender.unwrap();
        sender.syn.as_mut().unwrap().isn = SeqNum(4);
        sender.hop_limits = crate::flow::HopLimits::default();
        reset.flow.sender = Some(sender);
        let found = records(|engine, _| {
            engine.sight(&reset);
            let agreed = Segment {
                ack: SeqNum(agreed_to + 1),
                ..segment(tuple().reversed(), Flags::SYN | Flags::ACK, 59_999)
            };
            observe(engine, 12, OUT, &agreed);
            let data = Segment {
                payload_len: 100,
                ..segment(tuple(), Flags::ACK | Flags::PSH, agreed_to + 1)
            };
            observe(engine, 60, IN, &data);
        });
        let mut evidence = found[0].evidence.iter();
        evidence.any(|fact| fact.name.starts_with("peer_sends_on"))
    };
    assert!(!accused(50_000));
    assert!(accused(4), "the SYN of the connection that was reset");
}

#[test]
fn a_reset_that_is_heard_late_is_not_measured_by_what_the_next_connection_was_sent() {
    let stamped = |segment: Segment, value: u32, echo: u32| Segment {
        options: Options {
            timestamps: Some(Timestamps { value, echo }),
            ..segment.options
        },
        ..segment
    };
    let mut flow = Scene::established().flow;
    let known = Timestamps {
        value: 100,
        echo: 1,
    };
    flow.receiver = None;
    flow.sender.as_mut().unwrap().timestamps = Some((at(9), known));
    let found = records(|engine, _| {
        let agreed = segment(tuple().reversed(), Flags::SYN | Flags::ACK, 59_999);
        observe(engine, 12, OUT, &stamped(agreed, 9_000, 1));
        let SocketView::Full { state, sequence } = established(5) else {
            unreachable!()
        };
        let sequence = SocketSequence {
            ts_recent: Some(known.value),
            ..sequence
        };
        let reset = incoming(10, tuple(), 5, SocketView::Full { state, sequence });
        engine.sight(&Sighting {
            segment: stamped(reset.segment, known.value, 8_000),
            flow,
            ..reset
        });
    });
    let mut evidence = found[0].evidence.iter();
    assert!(!evidence.any(|fact| fact.name == "timestamps_wrong"));
}

#[test]
fn a_connection_that_is_routed_anew_holds_nothing_against_the_reset_before() {
    let judged = |isn: u32, heard_last: bool| {
        let found = records(|engine, _| {
            let mut reset = incoming(10, tuple(), 5, SocketView::Absent);
            reset.segment.flags = Flags(Flags::RST | Flags::ACK);
            reset.segment.window = 500;
            if !heard_last {
                engine.sight(&reset);
            }
            let routed = Vantage {
                path: Path::Egress { forwarded: true },
                ..OUT
            };
            observe(engine, 12, routed, &segment(tuple(), Flags::SYN, isn));
            let data = Segment {
                payload_len: 100,
                ..segment(tuple(), Flags::ACK | Flags::PSH, 900)
            };
            observe(engine, 14, IN, &data);
            if heard_last {
                engine.sight(&reset);
            }
        });
        let mut evidence = found[0].evidence.iter();
        evidence.any(|fact| fact.name == "peer_sends_on")
    };
    for heard_last in [false, true] {
        assert!(!judged(800, heard_last), "{heard_last}");
        assert!(judged(4, heard_last), "{heard_last}: its own SYN again");
    }
}

/// Where only the way in is watched, the next connection's SYN is the worker's alone.
#[test]
fn a_routed_connection_of_which_a_worker_saw_the_syn_holds_nothing_against_the_reset_before() {
    let judged = |isn: u32, socket: SocketView| {
        let found = records(|engine, _| {
            let mut worker = Tracker::new(TrackerConfig {
                capacity: 64,
                key: [3, 5],
            });
            let mut reset = segment(tuple(), Flags::RST | Flags::ACK, 5);
            reset.window = 500;
            for (ms, segment, socket) in [
                (1, segment(tuple(), Flags::SYN, 4), None),
                (10, reset, Some(socket)),
                (12, segment(tuple(), Flags::SYN, isn), None),
            ] {
                let sighting = worker.observe(at(ms), IN, &segment, socket);
                if let Some(sighting) = sighting {
                    engine.sight(&sighting);
                }
            }
            let data = Segment {
                payload_len: 100,
                ..segment(tuple(), Flags::ACK | Flags::PSH, 900)
            };
            observe(engine, 14, IN, &data);
        });
        let mut evidence = found[0].evidence.iter();
        evidence.any(|fact| fact.name == "peer_sends_on")
    };
    assert!(!judged(800, SocketView::Absent));
    assert!(judged(4, SocketView::Absent), "its own SYN again");
    assert!(
        judged(800, established(5)),
        "this host did not agree to that SYN"
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
                engine.complete(&PassedFlow {
                    reset,
                    flow: met.flow,
                    answer: None,
                });
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

/// This host asks at 1 ms, a refusal goes past the worker at 2 ms, the SYN-ACK does not, and is there before
/// the worker is told.
fn refused_and_answered(refusal_hop_limit: u8, acked: u32) -> ResetRecord {
    let asked = segment(tuple().reversed(), Flags::SYN, 700);
    let numbered = |flags, acked: u32, hop_limit| Segment {
        ack: SeqNum(acked),
        hop_limit,
        ..segment(tuple(), flags | Flags::ACK, 0)
    };
    let refusal = numbered(Flags::RST, 701, refusal_hop_limit);
    let syn_ack = numbered(Flags::SYN, acked, 63);
    let (key, side) = FlowKey::of(tuple());
    let reset = PassedReset {
        key,
        side,
        time: at(2),
        is_living: true,
    };
    let sequence = SocketSequence {
        write_seq: SeqNum(701),
        snd_una: SeqNum(700),
        ..SocketSequence::BLANK
    };
    let state = TcpState::SynSent;
    let mut records = records(|engine, out| {
        let mut hear = |ms, vantage, segment: &Segment, socket| {
            engine.observe(at(ms), vantage, segment, socket, &mut |r| out.push(r));
        };
        hear(1, OUT, &asked, None);
        let socket = Some(SocketView::Full { state, sequence });
        hear(2, IN, &refusal, socket);
        let mut worker = Tracker::new(TrackerConfig {
            capacity: 64,
            key: [3, 5],
        });
        worker.observe(at(9), IN, &syn_ack, None);
        engine.complete(&worker.note_passed(&reset).unwrap());
        let taken = KernelEventKind::ResetAccepted { state: Some(state) };
        engine.kernel_event(&event(2, tuple().reversed(), taken));
    });
    records.remove(0)
}

#[test]
fn a_forged_refusal_that_went_past_the_worker_is_followed_by_the_syn_ack_that_it_overtook() {
    let record = refused_and_answered(40, 701);
    assert_eq!(record.verdict, Verdict::Injected);
    let has = |name| record.evidence.iter().any(|found| found.name == name);
    assert!(has("syn_ack_after_reset"));
    assert_eq!(record.baseline.iter().find_map(|known| known.window), None);
}

#[test]
fn a_port_that_opens_right_after_it_was_refused_accuses_nobody() {
    assert_eq!(refused_and_answered(63, 701).verdict, Verdict::Remote);
    // What another attempt is answered with, from where the refusal did not come.
    let anew = refused_and_answered(62, 9_001);
    let names: Vec<_> = anew.evidence.iter().map(|found| found.name).collect();
    assert!(!names.contains(&"syn_ack_after_reset"), "{names:?}");
    assert_ne!(anew.verdict, Verdict::Injected);
}

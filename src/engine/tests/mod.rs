//! What the engine decides without weighing, event by event, and how an episode settles.

mod kernel_events;

use super::{Device, Engine, EngineConfig, IpIdMode};
use crate::evidence::testing::Scene;
use crate::flow::{FlowFacts, FlowKey, PassedFlow, PassedReset, Sighting};
use crate::host::{
    KernelEvent, KernelEventKind, KnownReason, Process, ResetReason, SocketSequence, SocketView,
    TcpState,
};
use crate::record::ResetRecord;
use crate::time::{MILLISECOND, SECOND, Timestamp};
use crate::vantage::{InterfaceId, Path, Vantage};
use crate::verdict::{Cause, Verdict};
use crate::wire::{Flags, FourTuple, Options, PAYLOAD_HEAD, Segment, SeqNum};

const IN: Vantage = Vantage {
    interface: InterfaceId(0),
    path: Path::Ingress,
};
const OUT: Vantage = Vantage {
    interface: InterfaceId(0),
    path: Path::Egress { forwarded: false },
};
const THROUGH: Vantage = Vantage {
    interface: InterfaceId(1),
    path: Path::Egress { forwarded: true },
};
const PROXY: Process = Process {
    pid: 42,
    thread: 42,
    sleeps: 0,
    comm: *b"haproxy\0\0\0\0\0\0\0\0\0",
};

fn config() -> EngineConfig {
    EngineConfig {
        settle_ns: SECOND,
        forged_linger_ns: 0,
        flow_capacity: 64,
        episode_capacity: 16,
        local: Vec::new(),
        own_addresses: None,
        offline: false,
        kernel_events: true,
        tells_answers: true,
        own_macs: vec![None],
        own_devices: Vec::new(),
        hash_key: [11, 13],
    }
}

fn at(ms: u64) -> Timestamp {
    Timestamp::from_nanos(ms * MILLISECOND)
}

/// From the client at 192.0.2.7 to this host.
fn tuple() -> FourTuple {
    FourTuple {
        src: "192.0.2.7".parse().unwrap(),
        src_port: 40000,
        dst: "198.51.100.1".parse().unwrap(),
        dst_port: 443,
    }
}

/// From this host to the backend at 203.0.113.9.
fn backend() -> FourTuple {
    FourTuple {
        src: "198.51.100.1".parse().unwrap(),
        src_port: 50000,
        dst: "203.0.113.9".parse().unwrap(),
        dst_port: 8080,
    }
}

fn segment(tuple: FourTuple, flags: u8, seq: u32) -> Segment {
    Segment {
        tuple,
        link: None,
        vlan: None,
        hop_limit: 63,
        ip_id: Some(0),
        dont_fragment: Some(true),
        traffic_class: 0,
        flow_label: None,
        seq: SeqNum(seq),
        ack: SeqNum(0),
        flags: Flags(flags),
        reserved: 0,
        window: 0,
        options: Options::default(),
        payload_len: 0,
        payload_head: [0; PAYLOAD_HEAD],
    }
}

fn established(rcv_nxt: u32) -> SocketView {
    SocketView::Full {
        state: TcpState::Established,
        sequence: SocketSequence {
            rcv_nxt: SeqNum(rcv_nxt),
            rcv_wnd: 65535,
            snd_nxt: SeqNum(77),
            snd_una: SeqNum(77),
            ts_recent: None,
            segs_in: None,
            bytes_in: None,
            bytes_out: None,
            srtt_us: None,
            idle_ns: None,
            sent_ago_ns: None,
            has_keepalive: false,
        },
    }
}

fn incoming(ms: u64, tuple: FourTuple, seq: u32, socket: SocketView) -> Sighting {
    Sighting {
        time: at(ms),
        vantage: IN,
        segment: segment(tuple, Flags::RST, seq),
        socket: Some(socket),
        flow: FlowFacts::default(),
    }
}

fn event(ms: u64, tuple: FourTuple, kind: KernelEventKind) -> KernelEvent {
    KernelEvent {
        time: at(ms),
        tuple,
        cookie: None,
        kind,
    }
}

fn sent(active: bool, reason: KnownReason, process: Option<Process>) -> KernelEventKind {
    KernelEventKind::ResetSent {
        active,
        reason: Some(ResetReason::Known(reason)),
        state: None,
        process,
        answered_seq: None,
        answered_len: None,
    }
}

/// Runs the engine, then lets everything settle.
fn records(run: impl FnOnce(&mut Engine, &mut Vec<ResetRecord>)) -> Vec<ResetRecord> {
    let mut engine = Engine::new(config());
    let mut records = Vec::new();
    run(&mut engine, &mut records);
    engine.finish(&mut |record| records.push(record));
    records
}

fn observe(engine: &mut Engine, ms: u64, vantage: Vantage, segment: &Segment) {
    engine.observe(at(ms), vantage, segment, None, &mut |_| {
        unreachable!("nothing has settled")
    });
}

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

#[test]
fn an_episode_settles_after_its_last_reset_and_a_later_reset_is_another_record() {
    let mut engine = Engine::new(config());
    let mut records = Vec::new();
    engine.sight(&incoming(0, tuple(), 5, established(5)));
    engine.sight(&incoming(900, tuple(), 5, SocketView::Absent));
    engine.tick(at(1800), &mut |record| records.push(record));
    assert!(records.is_empty());
    engine.tick(at(1900), &mut |record| records.push(record));
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].reset_count, 2);
    engine.sight(&incoming(4000, tuple(), 5, SocketView::Absent));
    engine.finish(&mut |record| records.push(record));
    assert_eq!(records.len(), 2);
}

#[test]
fn a_storm_on_one_flow_is_judged_before_it_ends() {
    let mut engine = Engine::new(config());
    let mut records = Vec::new();
    for ms in (0..20_000).step_by(100) {
        engine.sight(&incoming(ms, tuple(), 5, established(999)));
        engine.tick(at(ms), &mut |record| records.push(record));
    }
    assert!(records.len() >= 3, "{}", records.len());
    assert!(records.iter().all(|record| record.resets.len() <= 16));
    assert!(records[0].reset_count > 40);
}

#[test]
fn resets_beyond_the_capacity_are_counted() {
    let mut engine = Engine::new(config());
    for port in 0..20 {
        let tuple = FourTuple {
            src_port: port,
            ..tuple()
        };
        engine.sight(&incoming(1, tuple, 5, established(5)));
    }
    assert_eq!(engine.counters().open, 16);
    assert_eq!(engine.counters().episodes_refused, 4);
}

#[test]
fn kernel_events_without_a_frame_make_no_record() {
    let mut engine = Engine::new(config());
    engine.kernel_event(&event(
        1,
        tuple(),
        sent(true, KnownReason::State, Some(PROXY)),
    ));
    engine.finish(&mut |record| panic!("{record:?}"));
    assert_eq!(engine.counters().events_without_frame, 1);
}

#[test]
fn in_a_capture_what_follows_a_forged_reset_within_seconds_is_one_record() {
    let records = captured(Vec::new(), |forged| forged);
    let [record] = &records[..] else {
        panic!("{records:?}")
    };
    assert_eq!((record.verdict, record.reset_count), (Verdict::Injected, 2));
    assert_eq!(record.device, None);
}

/// A SYN, a forged reset as `change` makes it, and the genuine one three seconds later.
fn captured(own_devices: Vec<Device>, change: impl FnOnce(Segment) -> Segment) -> Vec<ResetRecord> {
    captured_until(own_devices, change, 3000)
}

/// The same, with the genuine reset at `ms`.
fn captured_until(
    own_devices: Vec<Device>,
    change: impl FnOnce(Segment) -> Segment,
    ms: u64,
) -> Vec<ResetRecord> {
    let capture = Vantage {
        interface: InterfaceId(0),
        path: Path::Capture,
    };
    let mut engine = Engine::new(EngineConfig {
        offline: true,
        kernel_events: false,
        tells_answers: false,
        forged_linger_ns: 5 * SECOND,
        own_devices,
        ..config()
    });
    let mut records = Vec::new();
    let syn = Segment {
        ip_id: Some(100),
        window: 64240,
        ..segment(tuple(), Flags::SYN, 4)
    };
    let forged = Segment {
        hop_limit: 117,
        window: 512,
        dont_fragment: Some(false),
        ip_id: Some(4660),
        ..segment(tuple(), Flags::RST, 5)
    };
    let genuine = segment(tuple(), Flags::RST, 5);
    for (time, segment) in [(0, syn), (100, change(forged)), (ms, genuine)] {
        let mut emit = |record| records.push(record);
        engine.observe(at(time), capture, &segment, None, &mut emit);
    }
    engine.tick(at(60_000), &mut |record| records.push(record));
    records
}

fn own_device(hop_limit: u8) -> Device {
    Device {
        name: "fw1".to_owned(),
        mac: None,
        hop_limit: Some((hop_limit, hop_limit)),
        ip_id: IpIdMode::Any,
        speaks_for: Vec::new(),
    }
}

#[test]
fn an_own_device_gives_its_name_to_what_it_forged() {
    let unnamed = captured(Vec::new(), |forged| forged).remove(0);
    let record = captured(vec![own_device(117)], |forged| forged).remove(0);
    assert_eq!(record.verdict, Verdict::Injected);
    assert_eq!(record.cause, Some(Cause::Middlebox));
    assert_eq!(record.device.as_deref(), Some("fw1"));
    assert!(record.message.contains("your own device fw1"));
    assert!(record.evidence.iter().any(|item| item.name == "own_device"));
    assert!((record.confidence - unnamed.confidence).abs() < f32::EPSILON);
    let other = captured(vec![own_device(118)], |forged| forged).remove(0);
    assert_eq!(other, unnamed);
}

#[test]
fn a_genuine_reset_after_the_record_of_a_forged_one_is_its_consequence() {
    let records = captured_until(Vec::new(), |forged| forged, 40_000);
    let [forged, genuine] = &records[..] else {
        panic!("{records:?}")
    };
    assert_eq!(forged.verdict, Verdict::Injected);
    assert_eq!(
        (genuine.verdict, genuine.cause),
        (Verdict::Remote, Some(Cause::Consequence))
    );
    let related = genuine.related[0];
    assert_eq!(
        (related.record, related.join),
        (Some(forged.sequence), "flow")
    );
}

#[test]
fn an_own_device_changes_no_verdict() {
    // What the true peer sent looks like the device: by hop limit they are the same.
    let genuine = |forged: Segment| segment(tuple(), Flags::RST, forged.seq.0);
    let hop_limit = segment(tuple(), Flags::RST, 5).hop_limit;
    let with = captured(vec![own_device(hop_limit)], genuine);
    assert_eq!(with, captured(Vec::new(), genuine));
    assert!(
        with.iter()
            .all(|record| record.verdict != Verdict::Injected)
    );
    // Nor does it lend its name to a reset that another one forged in the same episode.
    let forged = captured(vec![own_device(hop_limit)], |forged| forged).remove(0);
    assert_eq!((forged.verdict, forged.device), (Verdict::Injected, None));
}

/// A bare reset that fits and is accepted, judged and written; 1.8 s later its purported sender
/// sends `flags` on the same four-tuple, and this host answers.
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

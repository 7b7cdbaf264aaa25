//! The engine: a story of segments, kernel events and pauses, decoded from bytes, 16 of them a
//! step. Whatever happens in whatever order, nothing panics, resets and records are conserved,
//! nothing is called injected without the witnesses that the judge asks for, and every form in which
//! a record is told is whole.

use std::net::IpAddr;
use std::sync::Arc;

use rstscope::engine::{Engine, EngineConfig};
use rstscope::evidence::{Favors, Group, KEPT};
use rstscope::flow::{FlowKey, PassedReset, Tracker, TrackerConfig};
use rstscope::host::{
    Closed, Ending, KernelEvent, KernelEventKind, KernelTells, KnownReason, Process, ResetReason,
    SocketCounts, SocketSequence, SocketView, TcpState,
};
use rstscope::record::{
    Emission, Format, Listed, Observer, Palette, Record, ResetRecord, listed, story, to_line,
    to_story,
};
use rstscope::time::{MILLISECOND, SECOND, Timestamp};
use rstscope::vantage::{InterfaceId, Path, Vantage};
use rstscope::verdict::{STRANGER, Verdict};
use rstscope::wire::{
    Flags, FourTuple, LinkAddresses, Mac, Options, PAYLOAD_HEAD, Segment, SeqNum, Timestamps,
};

/// Bytes of one step.
const STEP: usize = 16;
/// Steps that are played: a story longer than this teaches nothing that a shorter one does not.
const STEPS: usize = 256;
/// Episodes that may be open: few, so that a short story fills them.
const EPISODES: usize = 4;
/// The hosts' addresses; the first is ours.
const HOSTS: [&str; 6] = [
    "192.0.2.1",
    "192.0.2.2",
    "198.51.100.3",
    "2001:db8::1",
    "2001:db8::2",
    "2001:db8::3",
];

/// What the kernel may say of a reset of its own; the rest says nothing that another does not.
const REASONS: [Option<ResetReason>; 16] = {
    use KnownReason::*;
    const fn of(reason: KnownReason) -> Option<ResetReason> {
        Some(ResetReason::Known(reason))
    }
    [
        None,
        of(NotSpecified),
        of(NoSocket),
        of(InvalidAckSequence),
        of(Paws),
        of(AckUnsentData),
        of(Flags),
        of(AbortOnData),
        of(TimeWaitSocket),
        of(InvalidSyn),
        of(AbortOnClose),
        of(AbortOnLinger),
        of(AbortOnMemory),
        of(State),
        of(KeepaliveTimeout),
        Some(ResetReason::Other(77)),
    ]
};

/// Plays the story.
pub fn run(bytes: &[u8]) {
    let Some((&shape, story)) = bytes.split_first() else {
        return;
    };
    let mut play = Play::new(shape);
    for step in story.chunks_exact(STEP).take(STEPS) {
        if let Some(step) = step.first_chunk() {
            play.step(step);
        }
    }
    play.end();
}

struct Play {
    engine: Engine,
    worker: Tracker,
    now: Timestamp,
    /// Resets given to the engine.
    given: u64,
    records: Vec<ResetRecord>,
    offline: bool,
}

impl Play {
    fn new(shape: u8) -> Self {
        let offline = shape & 1 != 0;
        let local = HOSTS[0].parse().into_iter();
        let key = [u64::from(shape), 7];
        Self {
            engine: Engine::new(EngineConfig {
                settle_ns: [0, MILLISECOND, SECOND, 60 * SECOND][usize::from(shape >> 1 & 3)],
                forged_linger_ns: u64::from(shape >> 3 & 1) * 3 * SECOND,
                flow_capacity: 64,
                episode_capacity: EPISODES,
                local: local.collect(),
                own_addresses: None,
                older: Default::default(),
                offline,
                kernel: KernelTells {
                    resets: shape & 16 != 0,
                    answers: shape & 32 != 0,
                    owners: shape & 64 != 0,
                },
                own_macs: vec![Some(Mac([2, 0, 0, 0, 0, 1])), None],
                own_devices: Vec::new(),
                hash_key: key,
            }),
            worker: Tracker::new(TrackerConfig { capacity: 64, key }),
            now: Timestamp::from_nanos(u64::from(shape >> 5) * 100 * SECOND),
            given: 0,
            records: Vec::new(),
            offline,
        }
    }

    fn step(&mut self, step: &[u8; STEP]) {
        let records = &mut self.records;
        let mut emit = |record| records.push(record);
        let pause = 1_u64 << (step[11] & 31);
        self.now = match step[11] >> 5 {
            // Clocks of several CPUs: a little back.
            7 => Timestamp::from_nanos(self.now.as_nanos().saturating_sub(pause)),
            6 => self.now.plus_nanos(pause << 6),
            _ => self.now.plus_nanos(pause),
        };
        let vantage = vantage(step[12], self.offline);
        match step[0] & 15 {
            0..=5 => {
                let segment = segment(step);
                let socket = socket(step).filter(|_| !self.offline && step[0] & 16 != 0);
                self.given += u64::from(segment.flags.rst());
                self.engine
                    .observe(self.now, vantage, &segment, socket, &mut emit);
                if segment.flags.rst() && !self.offline && step[0] & 32 != 0 {
                    self.tell_worker(&segment, step[0] & 64 != 0);
                }
            }
            6..=9 if !self.offline => {
                let segment = segment(step);
                let sighted = self
                    .worker
                    .observe(self.now, vantage, &segment, socket(step));
                if let Some(sighting) = sighted {
                    self.given += u64::from(sighting.segment.flags.rst());
                    self.engine.sight(&sighting);
                }
            }
            10 | 11 if !self.offline => self.engine.kernel_event(&kernel_event(step, self.now)),
            12 if !self.offline => {
                let mut segment = segment(step);
                segment.flags.0 &= !Flags::RST;
                self.engine.learn(self.now, vantage, &segment);
            }
            13 => self.engine.note_loss(),
            // Times of another capture, from its beginning.
            14 if self.offline && step[0] & 16 != 0 => self.engine.begin_anew(&mut emit),
            _ => self.engine.tick(self.now, &mut emit),
        }
    }

    /// The worker hears of a reset that went past it, and tells what it knew.
    fn tell_worker(&mut self, reset: &Segment, is_living: bool) {
        let (key, side) = FlowKey::of(reset.tuple);
        let time = self.now;
        let passed = PassedReset {
            key,
            side,
            time,
            is_living,
        };
        if let Some(known) = self.worker.note_passed(&passed) {
            self.engine.complete(&known);
        }
    }

    fn end(mut self) {
        let records = &mut self.records;
        self.engine.finish(&mut |record| records.push(record));
        let counters = self.engine.counters();
        assert_eq!(counters.open, 0, "episodes stay open");
        // Offline, the engine drops nothing and takes every reset that it was shown.
        assert!(
            counters.resets <= self.given,
            "{counters:?} of {}",
            self.given
        );
        let emitted: u64 = counters.records.iter().sum();
        assert_eq!(emitted, self.records.len() as u64, "records and counts");
        let told = self.records.iter().filter(|record| !is_correction(record));
        let told: u64 = told.map(|record| record.reset_count).sum();
        assert!(
            told + counters.episodes_refused >= counters.resets.min(1),
            "resets vanish: {told} told, {counters:?}"
        );
        assert!(told <= counters.resets, "{told} told, {counters:?}");
        for (record, number) in self.records.iter().zip(1..) {
            assert_eq!(record.sequence, number, "sequence numbers have no gap");
            check(record);
        }
        self.write();
    }

    fn write(self) {
        let emission = Emission {
            observer: Arc::new(Observer {
                hostname: None,
                interfaces: vec![Some("up0".to_owned())],
                id_prefix: "fuzz".to_owned(),
            }),
            wall_offset_ns: i64::MAX,
        };
        for record in self.records {
            check_forms(&Record::Reset(Box::new(record)), &emission);
        }
    }
}

/// Every form of a record is whole, and nothing in it ends a line or moves a terminal.
fn check_forms(record: &Record, emission: &Emission) {
    for format in Format::ALL {
        let told = format.render(record, emission).unwrap_or_default();
        assert!(!told.contains('\n'), "a record is one line: {told}");
        let parsed = serde_json::from_str::<serde_json::Value>(&told);
        assert_eq!(
            parsed.is_ok(),
            format.is_json(),
            "{}: {told}",
            format.name()
        );
    }
    let native = Format::Native.render(record, emission).unwrap_or_default();
    let native = serde_json::from_str(&native).unwrap_or_default();
    let (Some(Listed::Reset(listed)), Some(story)) = (listed(&native), story(&native)) else {
        panic!("a reset's record is not listed, or has no story: {native}")
    };
    let line = to_line(record, emission, Palette::Plain, 80);
    for told in [line, to_story(record), story, listed] {
        let odd = told.chars().find(|c| c.is_control() && *c != '\n');
        assert_eq!(odd, None, "a terminal is moved by {told:?}");
    }
}

fn is_correction(record: &ResetRecord) -> bool {
    record
        .related
        .iter()
        .any(|other| other.join == "correction")
}

fn check(record: &ResetRecord) {
    assert!((0.0..=1.0).contains(&record.confidence), "{record:#?}");
    assert!(record.start <= record.end, "{record:#?}");
    assert!(!record.message.is_empty());
    assert!(!record.resets.is_empty() && record.resets.len() <= KEPT);
    assert!(record.reset_count >= record.resets.len() as u64);
    if record.verdict != Verdict::Injected {
        return;
    }
    // Origin: the kernel attests that nobody here sent what bears our address.
    let signs = record
        .evidence
        .iter()
        .filter(|fact| fact.favors == Favors::Injected && fact.group != Group::Context)
        .count();
    let is_stranger = record.evidence.iter().any(|f| STRANGER.contains(&f.name));
    let is_attested = record.total_db.is_none();
    assert!(
        signs >= 2 || is_stranger || is_attested,
        "called injected on one sign: {record:#?}"
    );
}

fn vantage(byte: u8, offline: bool) -> Vantage {
    let path = match byte & 3 {
        _ if offline => Path::Capture,
        2 => Path::Egress { forwarded: false },
        3 => Path::Egress { forwarded: true },
        _ => Path::Ingress,
    };
    Vantage {
        interface: InterfaceId(u16::from(byte >> 2 & 1)),
        path,
    }
}

fn tuple(byte: u8) -> FourTuple {
    let hosts = if byte & 4 == 0 {
        &HOSTS[..3]
    } else {
        &HOSTS[3..]
    };
    let host = |at: usize| -> IpAddr { hosts[at].parse().unwrap_or(IpAddr::from([0; 4])) };
    let tuple = FourTuple {
        src: host(0),
        src_port: 80 + u16::from(byte >> 3 & 1),
        dst: host(1 + usize::from(byte >> 1 & 1)),
        dst_port: 40_000 + u16::from(byte >> 4 & 3),
    };
    if byte & 1 == 0 {
        tuple
    } else {
        tuple.reversed()
    }
}

/// A sequence number near the one that its side has, or anywhere.
fn number(byte: u8, base: u32) -> SeqNum {
    match byte >> 6 {
        0 => SeqNum(base.wrapping_add(u32::from(byte & 63))),
        1 => SeqNum(base.wrapping_sub(u32::from(byte & 63) << 8)),
        2 => SeqNum(base.wrapping_add(u32::from(byte & 63) << 10)),
        _ => SeqNum(u32::from(byte & 63) << 26),
    }
}

fn segment(step: &[u8; STEP]) -> Segment {
    let tuple = tuple(step[1]);
    let is_four = tuple.src.is_ipv4();
    let (ours, theirs) = if step[1] & 1 == 0 {
        (0xffff_ff00, 0x1000_0000)
    } else {
        (0x1000_0000, 0xffff_ff00)
    };
    let bit = |bit: u8| step[9] >> bit & 1 != 0;
    let payload_len = u32::from(step[10]) * if bit(7) { 6 } else { 1 };
    let mut payload_head = [0; PAYLOAD_HEAD];
    let kept = usize::try_from(payload_len).unwrap_or(0).min(PAYLOAD_HEAD);
    payload_head[..kept].fill(step[14]);
    Segment {
        tuple,
        link: bit(6).then_some(LinkAddresses {
            src: Mac([2, 0, 0, 0, 0, step[13] & 3]),
            dst: (step[13] & 4 != 0).then_some(Mac([2, 0, 0, 0, 0, 9])),
        }),
        vlan: (step[13] & 8 != 0).then_some(u16::from(step[13] >> 4)),
        hop_limit: step[3],
        ip_id: is_four.then_some(u16::from_be_bytes([step[4], step[5]])),
        dont_fragment: is_four.then_some(step[15] & 1 != 0),
        traffic_class: step[15] & 0xfc,
        flow_label: (!is_four).then_some(u32::from(step[4])),
        seq: number(step[6], ours),
        ack: number(step[7], theirs),
        flags: Flags(step[2]),
        reserved: step[15] >> 1 & 1,
        window: u16::from(step[8]) << (step[15] & 7),
        options: Options {
            mss: bit(0).then_some(1460),
            window_scale: bit(1).then_some(step[14]),
            sack_permitted: bit(2),
            timestamps: bit(3).then_some(Timestamps {
                value: u32::from(step[14]) << 20,
                echo: u32::from(step[5]),
            }),
            sack_right_edge: bit(4).then_some(number(step[14], theirs)),
            malformed: bit(5),
            order: u32::from(step[9]),
            len: step[9] & 40,
            ..Options::default()
        },
        payload_len,
        payload_head,
    }
}

fn socket(step: &[u8; STEP]) -> Option<SocketView> {
    Some(match step[15] >> 4 {
        0..=3 => return None,
        4 | 5 => SocketView::Absent,
        6 => SocketView::Listener,
        7 => SocketView::TimeWait,
        8 => SocketView::Request,
        _ => SocketView::Full {
            state: TcpState::from_kernel(step[14] % 13).unwrap_or(TcpState::Established),
            sequence: SocketSequence {
                rcv_nxt: number(step[14], 0x1000_0000),
                rcv_wnd: u32::from(step[8]) << 8,
                write_seq: number(step[7], 0xffff_ff00),
                snd_una: number(step[6], 0xffff_ff00),
                ts_recent: (step[9] & 8 != 0).then_some(u32::from(step[14]) << 20),
                segs_in: Some(u32::from(step[10])),
                bytes_in: Some(u64::from(step[10])),
                bytes_out: None,
                srtt_us: (step[8] != 0).then_some(u32::from(step[8]) * 100),
                idle_ns: (step[5] != 0).then_some(1 << (step[5] & 63)),
                touched_ago_ns: (step[5] != 0).then_some(1 << (step[5] & 63)),
                sent_ago_ns: (step[4] != 0).then_some(1 << (step[4] & 63)),
                has_keepalive: step[15] & 1 != 0,
                has_reordered: step[15] & 2 != 0,
                rtt_deviation: step[15] >> 2,
            },
        },
    })
}

fn kernel_event(step: &[u8; STEP], time: Timestamp) -> KernelEvent {
    let process = Process {
        pid: 1 + u32::from(step[8] & 3),
        thread: 1 + u32::from(step[8]),
        sleeps: u64::from(step[10]),
        major_faults: u64::from(step[14] & 3),
        comm: [step[14]; 16],
        thread_comm: [step[14] & !1; 16],
    };
    let some_process = (step[8] & 4 != 0).then_some(process);
    let state = TcpState::from_kernel(step[9] & 15);
    let kind = match step[2] & 7 {
        0..=2 => KernelEventKind::ResetSent {
            active: step[2] & 8 != 0,
            reason: REASONS[usize::from(step[3] & 15)],
            state,
            process: some_process,
            closed: (step[9] & 16 != 0).then_some(Closed {
                ago_ns: 1 << (step[13] & 63),
                ending: (step[12] & 1 != 0).then_some(Ending::Signal(9)),
            }),
            answered_seq: (step[2] & 16 != 0).then_some(number(step[6], 0x1000_0000)),
            answered_len: (step[2] & 16 != 0).then_some(u32::from(step[10])),
            counts: (step[2] & 8 != 0).then_some(SocketCounts {
                bytes_received: u64::from(step[11]),
                bytes_acked: u64::from(step[12]),
                idle_ns: (step[13] != 0).then_some(u64::from(step[13]) << 24),
                is_unclaimed: false,
                ending: None,
            }),
        },
        3 | 4 => KernelEventKind::ResetAccepted { state },
        5 => KernelEventKind::Established {
            process: some_process,
            originator: step[2] & 8 != 0,
        },
        6 => KernelEventKind::OwnerKnown { process },
        _ => KernelEventKind::Closed { process },
    };
    KernelEvent {
        time,
        tuple: tuple(step[1] & !1),
        cookie: (step[4] != 0).then_some(u64::from(step[4])),
        kind,
    }
}

//! Records with anything that may be in one, made by chance from a seed: every verdict, cause and
//! stage, fields there or absent, and in every text whatever the caller wants there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use rstscope::evidence::{Evidence, Favors, Group, SequenceFit, Value};
use rstscope::flow::Endpoint;
use rstscope::host::{Process, ResetReason, TcpState};
use rstscope::record::{
    Aggregate, BaselineEntry, CoverageRecord, Emission, KernelFacts, Observer, Record, Related,
    ResetEntry, ResetRecord,
};
use rstscope::time::Timestamp;
use rstscope::vantage::{InterfaceId, Path, Vantage};
use rstscope::verdict::{Cause, Stage, Verdict};
use rstscope::wire::{
    Flags, FourTuple, LinkAddresses, Mac, Network, Options, PAYLOAD_HEAD, Segment, SeqNum,
};

/// A generator of numbers (xorshift64*, Vigna 2016).
pub struct Chance(u64);

impl Chance {
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        (self.number() >> 16) % end
    }

    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.number().to_le_bytes()[4])
    }

    pub fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }

    fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.below(3) > 0).then(|| make(self))
    }
}

/// Where texts come from.
pub struct Texts<'a> {
    pub text: &'a mut dyn FnMut() -> String,
    pub comm: &'a mut dyn FnMut() -> [u8; 16],
}

pub fn emission(texts: &mut Texts<'_>) -> Emission {
    Emission {
        observer: Arc::new(Observer {
            hostname: Some((texts.text)()),
            interfaces: vec![Some((texts.text)()), None],
            id_prefix: "0123456789abcdef-01234567-1a2b3c4d5e6f".to_owned(),
        }),
        wall_offset_ns: 1_777_293_866_000_000_000,
    }
}

fn endpoint(chance: &mut Chance, is_v6: bool) -> Endpoint {
    let address = if is_v6 {
        IpAddr::from(Ipv6Addr::from(chance.bytes::<16>()))
    } else {
        IpAddr::from(Ipv4Addr::from(chance.bytes::<4>()))
    };
    let port = u16::try_from(chance.below(65536)).unwrap();
    Endpoint { address, port }
}

fn mac(chance: &mut Chance) -> Mac {
    Mac(chance.bytes())
}

fn reset(chance: &mut Chance, time: Timestamp, source: Endpoint, dest: Endpoint) -> ResetEntry {
    ResetEntry {
        time,
        vantage: Vantage {
            interface: InterfaceId(0),
            path: Path::Ingress,
        },
        incoming: chance.maybe(|c| c.below(2) > 0),
        segment: Segment {
            tuple: FourTuple {
                src: source.address,
                src_port: source.port,
                dst: dest.address,
                dst_port: dest.port,
            },
            link: chance.maybe(|c| LinkAddresses {
                src: mac(c),
                dst: None,
            }),
            vlan: None,
            hop_limit: chance.bytes::<1>()[0],
            ip_id: chance.maybe(|c| u16::from_le_bytes(c.bytes())),
            dont_fragment: None,
            traffic_class: 0,
            flow_label: None,
            seq: SeqNum(u32::from_le_bytes(chance.bytes())),
            ack: SeqNum(u32::from_le_bytes(chance.bytes())),
            flags: Flags(chance.bytes::<1>()[0] | Flags::RST),
            reserved: 0,
            window: u16::from_le_bytes(chance.bytes()),
            options: Options::parse(&[]),
            payload_len: 0,
            payload_head: [0; PAYLOAD_HEAD],
        },
        fit: chance.one(&[
            SequenceFit::Exact,
            SequenceFit::InWindow,
            SequenceFit::OutOfWindow,
            SequenceFit::Unknown,
        ]),
        offset: chance.maybe(|c| i32::from_le_bytes(c.bytes())),
    }
}

fn evidence(chance: &mut Chance, texts: &mut Texts<'_>) -> Evidence {
    Evidence {
        name: chance.one(&["hop_limit", "peer_acknowledges_more_soon", "exact"]),
        group: chance.one(&Group::ALL),
        favors: chance.one(&Favors::ALL),
        weight_db: chance.below(4000) as f32 / 100.0,
        observed: Some(Value::from((texts.text)())),
        expected: chance.maybe(|c| Value::from(c.bytes::<1>()[0])),
    }
}

/// A process whose thread, where its number is odd, has a name of its own.
fn process(pid: u32, texts: &mut Texts<'_>) -> Process {
    let comm = (texts.comm)();
    let mut thread_comm = (texts.comm)();
    thread_comm[0] = b'w';
    Process {
        pid,
        thread: pid,
        sleeps: 0,
        major_faults: 0,
        comm,
        thread_comm: if pid.is_multiple_of(2) {
            comm
        } else {
            thread_comm
        },
    }
}

#[expect(clippy::too_many_lines, reason = "one record with every field")]
pub fn reset_record(chance: &mut Chance, texts: &mut Texts<'_>) -> Record {
    let is_v6 = chance.below(2) > 0;
    let (source, destination) = (endpoint(chance, is_v6), endpoint(chance, is_v6));
    let start = Timestamp::from_nanos(1_000_000_000_000_000 + chance.below(1 << 50));
    let end = start.plus_nanos(chance.below(1 << 30));
    let opened = chance.one(&[Some(true), Some(false), None]);
    let verdict = chance.one(&Verdict::ALL);
    let (client, server) = match opened {
        Some(true) => (Some(source), Some(destination)),
        Some(false) => (Some(destination), Some(source)),
        None => (None, None),
    };
    let resets: Vec<ResetEntry> = (0..=chance.below(16))
        .map(|_| reset(chance, start, source, destination))
        .collect();
    Record::Reset(Box::new(ResetRecord {
        sequence: chance.number(),
        start,
        end,
        source,
        destination,
        client,
        server,
        source_mac: chance.maybe(mac),
        destination_mac: chance.maybe(mac),
        vlan: chance.maybe(|c| u16::try_from(c.below(4095)).unwrap()),
        incoming: chance.maybe(|c| c.below(2) > 0),
        ingress_interface: chance.maybe(|c| InterfaceId(u16::try_from(c.below(3)).unwrap())),
        egress_interface: chance.maybe(|_| InterfaceId(0)),
        process: chance
            .maybe(|c| u32::from_le_bytes(c.bytes()))
            .map(|pid| process(pid, texts)),
        container: chance.maybe(|_| (texts.text)()),
        closed_at: None,
        verdict,
        cause: chance.maybe(|c| c.one(&Cause::ALL)),
        confidence: chance.below(10_001) as f32 / 10_000.0,
        total_db: chance.maybe(|c| c.below(900) as f32 / 10.0 - 45.0),
        device: chance.maybe(|_| (texts.text)()),
        stage: chance.one(&Stage::ALL),
        evidence: (0..chance.below(30))
            .map(|_| evidence(chance, texts))
            .collect(),
        message: (texts.text)(),
        reset_count: resets.len() as u64,
        resets,
        baseline: chance.maybe(|c| BaselineEntry {
            hop_limit: c.maybe(|c| c.bytes::<1>()[0]),
            mac: c.maybe(mac),
            window: c.maybe(|c| u16::from_le_bytes(c.bytes())),
            timestamps: c.maybe(|c| c.below(2) > 0),
            source: c.one(&["syn", "syn_ack", "segments", "path", "after"]),
        }),
        bytes_in: chance.maybe(Chance::number),
        bytes_out: chance.maybe(Chance::number),
        age_ns: chance.maybe(|c| c.below(1 << 48)),
        idle_ns: chance.maybe(|c| c.below(1 << 48)),
        kernel: KernelFacts {
            accepted: chance.maybe(|c| c.below(2) > 0),
            reset_reason: chance.maybe(|c| {
                let number = u16::from_le_bytes(c.bytes());
                ResetReason::from_kernel_name(c.one(&["NO_SOCKET", "\u{1b}x"]), number)
            }),
            socket_state: chance
                .maybe(|c| TcpState::from_kernel(c.bytes::<1>()[0] % 12 + 1))
                .flatten(),
        },
        related: (0..chance.below(3))
            .map(|_| Related {
                record: chance.maybe(Chance::number),
                source: endpoint(chance, is_v6),
                destination: endpoint(chance, is_v6),
                delta_ns: chance.number(),
                confidence: 1.0,
                join: chance.one(&["process", "time", "segment", "flow", "correction"]),
            })
            .collect(),
        aggregate: chance.maybe(|c| {
            Box::new(Aggregate {
                network: Network::around(destination.address, 24),
                flows: c.number(),
                sample: vec![FourTuple {
                    src: source.address,
                    src_port: source.port,
                    dst: destination.address,
                    dst_port: destination.port,
                }],
            })
        }),
    }))
}

pub fn coverage_record(chance: &mut Chance) -> Record {
    let start = Timestamp::from_nanos(1_000_000_000_000_000);
    Record::Coverage(Box::new(CoverageRecord {
        sequence: chance.number(),
        start,
        end: start.plus_nanos(chance.below(1 << 40)),
        interface: InterfaceId(u16::try_from(chance.below(3)).unwrap()),
        observed: chance.number(),
        passed: chance.maybe(Chance::number),
        bypassed: chance.number(),
        copied: chance.number(),
        lost: chance.number(),
        complete: chance.below(2) > 0,
    }))
}

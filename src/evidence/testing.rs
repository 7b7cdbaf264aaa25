//! Makes cases for tests: a plain Linux connection, of which each test changes what it is about.

use std::net::IpAddr;

use crate::flow::{FlowFacts, HalfFlow, HopLimits, PathFacts, SynFacts};
use crate::host::{SocketSequence, SocketView, TcpState};
use crate::time::{MILLISECOND, Timestamp};
use crate::vantage::{InterfaceId, Path, Vantage};
use crate::wire::{
    Flags, FourTuple, LinkAddresses, Mac, Options, PAYLOAD_HEAD, Segment, SeqNum, Timestamps,
};

use super::{
    AfterReset, AnsweredAfterReset, Case, Evidence, InjectorFacts, ResetSeen, SequenceFit,
    SiblingFacts, Test,
};

pub const SENDER_ISN: SeqNum = SeqNum(1000);
pub const RECEIVER_ISN: SeqNum = SeqNum(0xffff_fff0);
pub const SENDER_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
/// When the reset comes; the SYN came a second before.
pub const RESET_AT_MS: u64 = 2_000;
const LINUX_ORDER: u32 = 0x2_4813;

/// A flow, its resets and what followed.
#[derive(Debug, Clone)]
pub struct Scene {
    pub flow: FlowFacts,
    pub resets: Vec<ResetSeen>,
    pub after: Vec<AfterReset>,
    pub answered: Vec<AnsweredAfterReset>,
    pub accepted: Option<bool>,
    pub reopened: bool,
    pub from_capture: bool,
    pub injectors: InjectorFacts,
    pub siblings: SiblingFacts,
    pub path_reorders: bool,
}

/// What [`Scene::check`] gives when a test fires with that name.
pub fn name(name: &'static str) -> Option<&'static str> {
    Some(name)
}

/// An established connection whose sender is known at one hop limit, and whose reset has another.
pub fn at_hops(known: u8, reset: u8) -> Scene {
    Scene::established()
        .hop_limit(known)
        .reset(|r| r.hop_limit = reset)
}

pub fn at_ms(ms: u64) -> Timestamp {
    Timestamp::from_nanos(ms * MILLISECOND)
}

fn syn(is_syn_ack: bool) -> SynFacts {
    SynFacts {
        time: at_ms(1_000),
        is_syn_ack,
        isn: if is_syn_ack { RECEIVER_ISN } else { SENDER_ISN },
        ack: is_syn_ack.then(|| SENDER_ISN.plus(1)),
        ip_id: Some(if is_syn_ack { 0 } else { 30_222 }),
        hop_limit: 50,
        dont_fragment: Some(true),
        window: if is_syn_ack { 65_160 } else { 64_240 },
        options: Options {
            timestamps: Some(Timestamps {
                value: if is_syn_ack { 900_000 } else { 500_000 },
                echo: 0,
            }),
            order: LINUX_ORDER,
            ..Options::default()
        },
        flow_label: None,
        count: 1,
    }
}

fn half(syn: SynFacts, hop_limit: u8) -> HalfFlow {
    let mut hop_limits = HopLimits::default();
    hop_limits.note(hop_limit);
    HalfFlow {
        first_seen: syn.time,
        last_seen: at_ms(1_900),
        segments: 1,
        syn: Some(syn),
        hop_limits,
        mac: Some(SENDER_MAC),
        mac_count: 1,
        vlan: None,
        ip_id: syn.ip_id.filter(|id| *id != 0),
        ip_id_steps: 0,
        ip_id_jumps: 0,
        dont_fragment: (true, false),
        end: Some(syn.isn.plus(1)),
        acked: None,
        window: syn.window,
        timestamps: syn.options.timestamps.map(|t| (syn.time, t)),
        fin: None,
        has_data: false,
        duplicates: 0,
    }
}

impl Scene {
    /// An open connection whose originator is reset-sender; the reset is a Linux abort.
    pub fn established() -> Self {
        let segment = Segment {
            tuple: FourTuple {
                src: "10.1.0.2".parse::<IpAddr>().unwrap(),
                src_port: 48_138,
                dst: "10.2.0.2".parse::<IpAddr>().unwrap(),
                dst_port: 443,
            },
            link: Some(LinkAddresses {
                src: SENDER_MAC,
                dst: None,
            }),
            vlan: None,
            hop_limit: 50,
            ip_id: Some(30_234),
            dont_fragment: Some(true),
            traffic_class: 0,
            flow_label: None,
            seq: SENDER_ISN.plus(101),
            ack: RECEIVER_ISN.plus(1),
            flags: Flags(Flags::RST | Flags::ACK),
            reserved: 0,
            window: 63,
            options: Options {
                timestamps: Some(Timestamps {
                    value: 501_000,
                    echo: 900_900,
                }),
                ..Options::default()
            },
            payload_len: 0,
            payload_head: [0; PAYLOAD_HEAD],
        };
        let first = ResetSeen {
            time: at_ms(RESET_AT_MS),
            vantage: Vantage {
                interface: InterfaceId(0),
                path: Path::Capture,
            },
            segment,
            from_sender: true,
            socket: None,
            fit: SequenceFit::Unknown,
            offset: None,
        };
        Self {
            flow: FlowFacts {
                sender: Some(half(syn(false), 50)),
                receiver: Some(half(syn(true), 64)),
                path: None,
                sender_is_originator: Some(true),
                established: true,
                first_seen: Some(at_ms(1_000)),
                of_two: false,
            },
            resets: vec![first],
            after: Vec::new(),
            answered: Vec::new(),
            accepted: None,
            reopened: false,
            from_capture: true,
            injectors: InjectorFacts::default(),
            siblings: SiblingFacts::default(),
            path_reorders: false,
        }
    }

    /// The receiver sent a SYN and nothing else was seen; the reset refuses it, as Linux does.
    pub fn refused() -> Self {
        let mut scene = Self::established();
        let mut receiver = half(syn(false), 64);
        receiver.syn = receiver.syn.map(|s| SynFacts {
            isn: RECEIVER_ISN,
            hop_limit: 64,
            ..s
        });
        scene.flow = FlowFacts {
            sender: None,
            receiver: Some(receiver),
            sender_is_originator: Some(false),
            established: false,
            ..scene.flow
        };
        scene.reset(|r| {
            r.seq = SeqNum(0);
            r.ack = RECEIVER_ISN.plus(1);
            r.window = 0;
            r.ip_id = Some(0);
            r.options = Options::default();
        })
    }

    /// The reset becomes a bare one, as Linux sends it for a connection that it does not know.
    pub fn passive(self) -> Self {
        self.reset(|r| {
            r.flags = Flags(Flags::RST);
            r.ack = SeqNum(0);
            r.window = 0;
            r.ip_id = Some(0);
            r.options = Options::default();
        })
    }

    /// The reset becomes what a careless injector sends: no options, an IP ID of its own.
    pub fn forged(self) -> Self {
        self.reset(|r| {
            r.options = Options::default();
            r.ip_id = Some(4_660);
            r.window = 1_980;
            r.hop_limit = 100;
        })
    }

    pub fn reset(mut self, change: impl FnOnce(&mut Segment)) -> Self {
        change(&mut self.resets[0].segment);
        self
    }

    /// Another reset of the sender, a copy of the first but for `change`, `us` later.
    pub fn again(mut self, us: u64, change: impl FnOnce(&mut Segment)) -> Self {
        let mut more = self.resets[0];
        more.time = more.time.plus_nanos(us * 1_000);
        change(&mut more.segment);
        self.resets.push(more);
        self
    }

    pub fn hop_limit(self, hop_limit: u8) -> Self {
        self.sender(|s| {
            s.hop_limits = HopLimits::default();
            s.hop_limits.note(hop_limit);
            if let Some(syn) = s.syn.as_mut() {
                syn.hop_limit = hop_limit;
            }
        })
    }

    pub fn path_hop_limit(mut self, hop_limit: u8) -> Self {
        let mut hop_limits = HopLimits::default();
        hop_limits.note(hop_limit);
        self.flow.path = Some(PathFacts {
            hop_limits,
            flows: 1,
            ..PathFacts::default()
        });
        self
    }

    /// A peer at 50, known by nine segments and nine flows, whose reset comes from there.
    pub fn well_known(reset: u8) -> Self {
        let scene = Self::established().path_hop_limit(50);
        let mut scene = scene
            .sender(|s| s.segments = 9)
            .reset(|r| r.hop_limit = reset);
        let path = scene.flow.path.as_mut().unwrap();
        path.flows = 9;
        (1..9).for_each(|_| path.hop_limits.note(50));
        scene
    }

    pub fn sender(mut self, change: impl FnOnce(&mut HalfFlow)) -> Self {
        change(self.flow.sender.as_mut().unwrap());
        self
    }

    pub fn receiver(mut self, change: impl FnOnce(&mut HalfFlow)) -> Self {
        change(self.flow.receiver.as_mut().unwrap());
        self
    }

    pub fn no_sender(mut self) -> Self {
        self.flow.sender = None;
        self
    }

    /// A segment of the sender `ms` after the reset: an ACK at the reset's SEQ but for `change`.
    pub fn after(mut self, ms: u64, change: impl FnOnce(&mut Segment)) -> Self {
        let first = self.resets[0];
        let mut segment = Segment {
            flags: Flags(Flags::ACK),
            hop_limit: 50,
            ip_id: Some(30_235),
            ack: RECEIVER_ISN.plus(1),
            ..first.segment
        };
        change(&mut segment);
        self.after.push(AfterReset {
            time: first.time.plus_nanos(ms * MILLISECOND),
            segment,
        });
        self
    }

    pub fn answered(mut self, ms: u64, seq: SeqNum, len: u32) -> Self {
        let time = self.resets[0].time.plus_nanos(ms * MILLISECOND);
        self.answered.push(AnsweredAfterReset {
            time,
            seq: Some(seq),
            len: Some(len),
            ack: None,
        });
        self
    }

    /// The same where only the answer's frame tells of it: it answered a segment with that SEG.ACK.
    pub fn answered_by_frame(mut self, ms: u64, ack: SeqNum) -> Self {
        let time = self.resets[0].time.plus_nanos(ms * MILLISECOND);
        self.answered.push(AnsweredAfterReset {
            time,
            seq: None,
            len: None,
            ack: Some(ack),
        });
        self
    }

    /// A local socket that expects exactly the first reset's SEQ.
    pub fn socket(mut self, change: impl FnOnce(&mut SocketSequence)) -> Self {
        let mut sequence = SocketSequence {
            rcv_nxt: self.resets[0].segment.seq,
            rcv_wnd: 65_535,
            write_seq: RECEIVER_ISN.plus(1),
            snd_una: RECEIVER_ISN.plus(1),
            ts_recent: Some(500_900),
            segs_in: Some(13),
            bytes_in: Some(100),
            bytes_out: Some(0),
            srtt_us: Some(100_000),
            idle_ns: Some(100 * MILLISECOND),
            sent_ago_ns: Some(100 * MILLISECOND),
            touched_ago_ns: Some(100 * MILLISECOND),
            has_keepalive: false,
            has_reordered: false,
            rtt_deviation: 0,
        };
        change(&mut sequence);
        for reset in &mut self.resets {
            reset.socket = Some(SocketView::Full {
                state: TcpState::Established,
                sequence,
            });
            let offset = reset.segment.seq.offset_from(sequence.rcv_nxt);
            reset.offset = Some(offset);
            reset.fit = match offset {
                0 => SequenceFit::Exact,
                1..65_535 => SequenceFit::InWindow,
                _ => SequenceFit::OutOfWindow,
            };
        }
        self.from_capture = false;
        self
    }

    pub fn v6(mut self) -> Self {
        for reset in &mut self.resets {
            reset.segment.ip_id = None;
            reset.segment.dont_fragment = None;
        }
        for half in [&mut self.flow.sender, &mut self.flow.receiver]
            .into_iter()
            .flatten()
        {
            half.ip_id = None;
            half.dont_fragment = (false, false);
            if let Some(syn) = half.syn.as_mut() {
                syn.ip_id = None;
                syn.dont_fragment = None;
            }
        }
        self
    }

    pub fn case(&self) -> Case<'_> {
        Case {
            resets: &self.resets,
            flow: &self.flow,
            after: &self.after,
            answered: &self.answered,
            accepted: self.accepted,
            reopened: self.reopened,
            from_capture: self.from_capture,
            own_mac: None,
            injectors: self.injectors,
            siblings: self.siblings,
            path_reorders: self.path_reorders,
        }
    }

    pub fn evidence(&self, test: Test) -> Option<Evidence> {
        test(&self.case())
    }

    /// The name under which `test` fires here.
    pub fn check(&self, test: Test) -> Option<&'static str> {
        self.evidence(test).map(|e| e.name)
    }
}

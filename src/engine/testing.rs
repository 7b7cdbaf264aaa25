//! Makes what the engine's tests feed it: a client, a backend and this host between them, their resets and
//! what the kernel says of them.

use std::collections::HashSet;

use super::{Engine, EngineConfig};
use crate::flow::{FlowFacts, Sighting};
use crate::host::{
    KernelEvent, KernelEventKind, KernelTells, KnownReason, Process, ResetReason, SocketSequence,
    SocketView, TcpState,
};
use crate::record::ResetRecord;
use crate::time::{MILLISECOND, SECOND, Timestamp};
use crate::vantage::{InterfaceId, Path, Vantage};
use crate::wire::{Flags, FourTuple, Segment, SeqNum};

pub(super) const IN: Vantage = Vantage {
    interface: InterfaceId(0),
    path: Path::Ingress,
};
pub(super) const OUT: Vantage = Vantage {
    interface: InterfaceId(0),
    path: Path::Egress { forwarded: false },
};
pub(super) const THROUGH: Vantage = Vantage {
    interface: InterfaceId(1),
    path: Path::Egress { forwarded: true },
};
pub(super) const PROXY: Process = Process {
    pid: 42,
    thread: 42,
    sleeps: 0,
    major_faults: 0,
    comm: *b"haproxy\0\0\0\0\0\0\0\0\0",
    thread_comm: *b"haproxy\0\0\0\0\0\0\0\0\0",
};

pub(super) fn config() -> EngineConfig {
    EngineConfig {
        settle_ns: SECOND,
        forged_linger_ns: 0,
        flow_capacity: 64,
        episode_capacity: 16,
        local: Vec::new(),
        own_addresses: None,
        older: HashSet::new(),
        offline: false,
        kernel: KernelTells {
            resets: true,
            answers: true,
            owners: true,
        },
        own_macs: vec![None],
        own_devices: Vec::new(),
        hash_key: [11, 13],
    }
}

pub(super) fn at(ms: u64) -> Timestamp {
    Timestamp::from_nanos(ms * MILLISECOND)
}

/// From the client at 192.0.2.7 to this host.
pub(super) fn tuple() -> FourTuple {
    FourTuple {
        src: "192.0.2.7".parse().unwrap(),
        src_port: 40000,
        dst: "198.51.100.1".parse().unwrap(),
        dst_port: 443,
    }
}

/// From this host to the backend at 203.0.113.9.
pub(super) fn backend() -> FourTuple {
    FourTuple {
        src: "198.51.100.1".parse().unwrap(),
        src_port: 50000,
        dst: "203.0.113.9".parse().unwrap(),
        dst_port: 8080,
    }
}

pub(super) fn segment(tuple: FourTuple, flags: u8, seq: u32) -> Segment {
    Segment {
        tuple,
        hop_limit: 63,
        ip_id: Some(0),
        dont_fragment: Some(true),
        seq: SeqNum(seq),
        flags: Flags(flags),
        ..Segment::BLANK
    }
}

pub(super) fn established(rcv_nxt: u32) -> SocketView {
    SocketView::Full {
        state: TcpState::Established,
        sequence: SocketSequence {
            rcv_nxt: SeqNum(rcv_nxt),
            rcv_wnd: 65535,
            write_seq: SeqNum(77),
            snd_una: SeqNum(77),
            ..SocketSequence::BLANK
        },
    }
}

pub(super) fn incoming(ms: u64, tuple: FourTuple, seq: u32, socket: SocketView) -> Sighting {
    Sighting {
        time: at(ms),
        vantage: IN,
        segment: segment(tuple, Flags::RST, seq),
        socket: Some(socket),
        begins_anew: false,
        flow: FlowFacts::default(),
    }
}

pub(super) fn event(ms: u64, tuple: FourTuple, kind: KernelEventKind) -> KernelEvent {
    KernelEvent {
        time: at(ms),
        tuple,
        cookie: None,
        kind,
    }
}

pub(super) fn sent(active: bool, reason: KnownReason, process: Option<Process>) -> KernelEventKind {
    KernelEventKind::ResetSent {
        active,
        reason: Some(ResetReason::Known(reason)),
        state: None,
        process,
        closed: None,
        answered_seq: None,
        answered_len: None,
        counts: None,
    }
}

/// By the kernel's word this host answered a segment of no connection.
pub(super) fn answered(seq: u32, len: u32) -> KernelEventKind {
    let mut told = sent(false, KnownReason::NoSocket, None);
    if let KernelEventKind::ResetSent {
        answered_seq,
        answered_len,
        ..
    } = &mut told
    {
        (*answered_seq, *answered_len) = (Some(SeqNum(seq)), Some(len));
    }
    told
}

/// Runs the engine, then lets everything settle.
pub(super) fn records(run: impl FnOnce(&mut Engine, &mut Vec<ResetRecord>)) -> Vec<ResetRecord> {
    let mut engine = Engine::new(config());
    let mut records = Vec::new();
    run(&mut engine, &mut records);
    engine.finish(&mut |record| records.push(record));
    records
}

pub(super) fn observe(engine: &mut Engine, ms: u64, vantage: Vantage, segment: &Segment) {
    engine.observe(at(ms), vantage, segment, None, &mut |_| {
        unreachable!("nothing has settled")
    });
}

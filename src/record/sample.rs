//! Records that the tests of this folder print.

use std::sync::Arc;

use super::{
    Aggregate, BaselineEntry, CoverageRecord, Emission, KernelFacts, Observer, Related, ResetEntry,
    ResetRecord,
};
use crate::evidence::{Evidence, Favors, Group, SequenceFit, Value};
use crate::flow::Endpoint;
use crate::host::{KnownReason, Process, ResetReason, TcpState};
use crate::time::Timestamp;
use crate::vantage::{InterfaceId, Path, Vantage};
use crate::verdict::{Cause, Stage, Verdict};
use crate::wire::{Flags, FourTuple, LinkAddresses, Mac, Network, Segment, SeqNum};

/// 2026-05-09T02:31:06.833123456Z on a clock that began a million seconds before.
const START: Timestamp = Timestamp::from_nanos(1_000_000_833_123_456);

/// Names, prefix and offset for [`injected`].
pub fn emission() -> Emission {
    Emission {
        observer: Arc::new(Observer {
            hostname: Some("lb1".to_owned()),
            interfaces: vec![Some("up0".to_owned()), None],
            id_prefix: "host-boot".to_owned(),
        }),
        wall_offset_ns: 1_777_293_866_000_000_000,
    }
}

fn end(address: &str, port: u16) -> Endpoint {
    Endpoint {
        address: address.parse().unwrap(),
        port,
    }
}

fn segment() -> Segment {
    Segment {
        tuple: FourTuple {
            src: "203.0.113.9".parse().unwrap(),
            src_port: 51514,
            dst: "198.51.100.10".parse().unwrap(),
            dst_port: 443,
        },
        link: Some(LinkAddresses {
            src: Mac([2, 0, 0, 0, 0, 0xab]),
            dst: None,
        }),
        vlan: Some(12),
        hop_limit: 243,
        ip_id: Some(0),
        dont_fragment: Some(true),
        seq: SeqNum(u32::MAX),
        ack: SeqNum(7),
        flags: Flags(Flags::RST | Flags::ACK),
        ..Segment::BLANK
    }
}

fn evidence(
    name: &'static str,
    group: Group,
    favors: Favors,
    weight_db: f32,
    observed: Option<Value>,
    expected: Option<Value>,
) -> Evidence {
    Evidence {
        name,
        group,
        favors,
        weight_db,
        observed,
        expected,
    }
}

/// A forged reset with everything known.
#[expect(clippy::too_many_lines, reason = "one record with every field")]
pub fn injected() -> ResetRecord {
    let entry = ResetEntry {
        time: START,
        vantage: Vantage {
            interface: InterfaceId(0),
            path: Path::Ingress,
        },
        incoming: Some(true),
        segment: segment(),
        fit: SequenceFit::Exact,
        offset: Some(0),
    };
    let bare = Segment {
        flags: Flags(Flags::RST),
        ack: SeqNum(0),
        ..segment()
    };
    let later = ResetEntry {
        time: START.plus_nanos(5),
        segment: Segment {
            ip_id: None,
            link: None,
            ..bare
        },
        incoming: None,
        fit: SequenceFit::Unknown,
        offset: None,
        ..entry
    };
    ResetRecord {
        sequence: 42,
        start: START,
        end: START.plus_nanos(5),
        source: end("203.0.113.9", 51514),
        destination: end("198.51.100.10", 443),
        client: Some(end("203.0.113.9", 51514)),
        server: Some(end("198.51.100.10", 443)),
        source_mac: Some(Mac([2, 0, 0, 0, 0, 0xab])),
        destination_mac: None,
        vlan: Some(12),
        incoming: Some(true),
        ingress_interface: Some(InterfaceId(0)),
        egress_interface: Some(InterfaceId(1)),
        process: Some(Process {
            pid: 7,
            thread: 7,
            sleeps: 0,
            major_faults: 0,
            comm: *b"ng\x1binx\0\0\0\0\0\0\0\0\0\0",
            thread_comm: *b"wrk:\x1b0\0\0\0\0\0\0\0\0\0\0",
        }),
        container: Some("c0ffee".to_owned()),
        closed_at: None,
        verdict: Verdict::Injected,
        cause: Some(Cause::OnPath),
        confidence: 0.97,
        total_db: Some(6.5),
        device: Some("fw1".to_owned()),
        stage: Stage::Established,
        evidence: vec![
            evidence(
                "hop_limit",
                Group::HopLimit,
                Favors::Injected,
                14.0,
                Some(Value::Number(243)),
                Some(Value::Number(52)),
            ),
            evidence(
                "peer_went_on",
                Group::Race,
                Favors::Injected,
                9.5,
                Some("1.2 ms later".into()),
                None,
            ),
            evidence("exact", Group::Validity, Favors::Remote, 2.0, None, None),
        ],
        message: "a third party sent this reset \"with\" \u{7}another's address".to_owned(),
        resets: vec![entry, later],
        reset_count: 2,
        baseline: Some(BaselineEntry {
            hop_limit: Some(52),
            mac: Some(Mac([2, 0, 0, 0, 0, 1])),
            window: Some(502),
            timestamps: Some(true),
            source: "syn",
        }),
        bytes_in: Some(0),
        bytes_out: Some(u64::MAX),
        age_ns: Some(1),
        idle_ns: None,
        kernel: KernelFacts {
            accepted: Some(true),
            reset_reason: Some(ResetReason::Known(KnownReason::NoSocket)),
            socket_state: Some(TcpState::Established),
        },
        related: vec![Related {
            record: Some(41),
            source: end("192.0.2.1", 1),
            destination: end("192.0.2.2", 2),
            delta_ns: 3,
            confidence: 1.0,
            join: "process",
        }],
        aggregate: Some(Box::new(Aggregate {
            network: Network::around(segment().tuple.dst, 24),
            flows: 70_000,
            sample: vec![segment().tuple],
        })),
    }
}

/// Ten seconds on `up0` with a gap.
pub fn coverage() -> CoverageRecord {
    let end = START.plus_nanos(9_166_876_544);
    CoverageRecord {
        sequence: 43,
        start: START,
        end,
        interface: InterfaceId(0),
        observed: 12,
        passed: Some(3000),
        bypassed: 2,
        copied: 1,
        lost: 1,
        complete: false,
    }
}

/// [`injected`] without what need not be known.
pub fn bare() -> ResetRecord {
    ResetRecord {
        client: None,
        server: None,
        source_mac: None,
        vlan: None,
        incoming: None,
        ingress_interface: None,
        egress_interface: None,
        process: None,
        container: None,
        closed_at: None,
        verdict: Verdict::Undetermined,
        cause: None,
        total_db: None,
        device: None,
        stage: Stage::Unknown,
        evidence: Vec::new(),
        baseline: None,
        bytes_in: None,
        bytes_out: None,
        age_ns: None,
        kernel: KernelFacts::default(),
        related: Vec::new(),
        aggregate: None,
        ..injected()
    }
}

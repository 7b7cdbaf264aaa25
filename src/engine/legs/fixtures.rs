//! What the tests of this module are made of: connections of one proxy, by their ports, at times in
//! microseconds.

use super::{Call, Leg, Own, Passed};
use crate::flow::{FlowKey, Side};
use crate::host::Process;
use crate::time::Timestamp;
use crate::wire::FourTuple;

pub(super) const PROXY: Process = Process {
    pid: 42,
    thread: 42,
    sleeps: 7,
    major_faults: 0,
    comm: *b"haproxy\0\0\0\0\0\0\0\0\0",
    thread_comm: *b"haproxy\0\0\0\0\0\0\0\0\0",
};

pub(super) fn key(port: u16) -> FlowKey {
    FlowKey::of(FourTuple {
        src: "192.0.2.7".parse().unwrap(),
        src_port: port,
        dst: "198.51.100.1".parse().unwrap(),
        dst_port: 443,
    })
    .0
}

/// Its connection, as `leg` and `sent` make it.
pub(super) fn connection(port: u16) -> Own {
    (key(port), Side::High)
}

pub(super) fn at(us: u64) -> Timestamp {
    Timestamp::from_nanos((1_000_000 + us) * 1000)
}

/// A leg that was reset and closed at these times, in microseconds.
pub(super) fn leg(port: u16, reset: u64, closed: u64, process: Process) -> Leg {
    Leg {
        closed: Some(Call {
            process,
            time: at(closed),
        }),
        time: at(reset),
        key: key(port),
        sender: Side::Low,
        began: Some(at(10)),
        is_outbound: Some(false),
    }
}

pub(super) fn sent(port: u16, us: u64, process: Process) -> Passed {
    Passed {
        key: key(port),
        local: Side::High,
        time: at(us),
        sent: Some(Call {
            process,
            time: at(us),
        }),
        began: None,
        is_outbound: Some(true),
    }
}

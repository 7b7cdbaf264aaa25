//! A worker with a flow table of its own: under a flood, and beside a closed gate.

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;

use super::mock::MockRings;
use super::tests::{SYN, frame};
use super::{NewsItem, Shared, Worker, WorkerConfig};
use crate::flow::{Confirmed, FlowKey, PassedReset, Side, Tracker, TrackerConfig};
use crate::sys::Gates;
use crate::time::{MILLISECOND, Timestamp};
use crate::vantage::InterfaceId;

/// A SYN from `10.h.h.h` and that port to a port of ours.
fn syn(host: u32, port: u16) -> Vec<u8> {
    let mut bytes = frame(SYN, port);
    let [_, b, c, d] = host.to_be_bytes();
    bytes[27..30].copy_from_slice(&[b, c, d]);
    bytes[34..36].copy_from_slice(&port.to_be_bytes());
    bytes[38..42].copy_from_slice(&host.to_be_bytes());
    bytes
}

/// The connection of such a SYN, and its side.
fn flow_of(host: u32, port: u16) -> (FlowKey, Side) {
    let bytes = syn(host, port);
    let segment = crate::wire::parse(crate::wire::LinkLayer::Ethernet, &bytes).unwrap();
    FlowKey::of(segment.tuple)
}

fn key_of(host: u32, port: u16) -> FlowKey {
    flow_of(host, port).0
}

#[test]
fn connections_that_the_kernel_confirms_outlast_a_flood_of_syns_at_the_worker() {
    // A hundred SYNs for each place of the table; under Miri, which is slow, three.
    let (capacity, flood) = if cfg!(miri) {
        (256, 768)
    } else {
        (4096, 400_000)
    };
    let gates: Gates = crate::sys::test_gates(1);
    let shared = Arc::new(Shared::new());
    let tracker = Tracker::new(TrackerConfig {
        capacity,
        key: [11, 13],
    });
    let mut worker = Worker::new(
        WorkerConfig::new(InterfaceId(0)),
        MockRings::new(256),
        gates.take(0).unwrap(),
        tracker,
        Arc::new(ArrayQueue::new(8)),
        Arc::clone(&shared),
    );
    worker.prepare(0);
    let connections = u32::try_from(capacity / 20).unwrap().min(200);
    let mut now_ns = 0;
    let mut turn = |worker: &mut Worker<MockRings, Tracker>| {
        now_ns += MILLISECOND;
        worker.turn(now_ns);
        now_ns
    };
    // Twice as many connections; the kernel tells of every other one.
    for host in 0..connections * 2 {
        worker.gate.pretend_produced(1);
        worker.rings.deliver(&syn(host, 7), &[]);
        let now_ns = turn(&mut worker);
        if host % 2 == 0 {
            shared.tell(NewsItem::Confirmed(Confirmed {
                key: key_of(host, 7),
                time: Timestamp::from_nanos(now_ns + 1),
            }));
        }
    }
    for number in 0..flood {
        worker.gate.pretend_produced(1);
        worker.rings.deliver(&syn(number, 9), &[]);
        if number % 64 == 63 {
            turn(&mut worker);
        }
    }
    let now = Timestamp::from_nanos(turn(&mut worker));
    let is_known = |host: &u32| {
        let key = key_of(*host, 7);
        let facts = worker.observer.facts(&key, Side::High, now);
        facts
            .sender
            .or(facts.receiver)
            .and_then(|end| end.syn)
            .is_some()
    };
    let told = (0..connections * 2).step_by(2).filter(is_known).count();
    let untold = (1..connections * 2).step_by(2).filter(is_known).count();
    assert_eq!(
        told, connections as usize,
        "of those that the kernel confirmed"
    );
    assert!(
        untold < connections as usize / 10,
        "{untold}: the flood was none"
    );
    assert_eq!(shared.news_lost(), 0);
    let counters = worker.observer.counters();
    assert_eq!(counters.evicted_connections, 0, "{counters:?}");
}

#[test]
fn what_follows_a_reset_that_went_past_the_worker_is_passed_on() {
    let gates: Gates = crate::sys::test_gates(1);
    let shared = Arc::new(Shared::new());
    let sightings = Arc::new(ArrayQueue::new(8));
    let tracker = Tracker::new(TrackerConfig {
        capacity: 64,
        key: [11, 13],
    });
    let mut worker = Worker::new(
        WorkerConfig::new(InterfaceId(0)),
        MockRings::new(64),
        gates.take(0).unwrap(),
        tracker,
        Arc::clone(&sightings),
        Arc::clone(&shared),
    );
    worker.prepare(0);
    // A reset came in the name of the first and of the second host, by a closed gate; only the first
    // met a connection, which this worker had never heard of. The third host had none.
    for (host, is_living) in [(1, true), (2, false)] {
        let (key, side) = flow_of(host, 7);
        shared.tell(NewsItem::Passed(PassedReset {
            key,
            side,
            time: Timestamp::from_nanos(1),
            is_living,
        }));
    }
    worker.turn(MILLISECOND);
    for host in [1, 2, 3] {
        let mut answer = syn(host, 7);
        answer[47] |= 0x10;
        worker.gate.pretend_produced(1);
        worker.rings.deliver(&answer, &[]);
    }
    worker.turn(2 * MILLISECOND);
    let passed_on = sightings.pop().unwrap();
    assert_eq!(FlowKey::of(passed_on.segment.tuple), flow_of(1, 7));
    assert!(passed_on.segment.flags.syn() && passed_on.segment.flags.ack());
    assert!(sightings.pop().is_none(), "only one connection was reset");
    assert_eq!(shared.answer(), None, "of neither was anything known");
}

#[test]
fn what_the_worker_knew_of_a_reset_that_went_past_is_answered() {
    let gates: Gates = crate::sys::test_gates(1);
    let shared = Arc::new(Shared::new());
    let mut worker = Worker::new(
        WorkerConfig::new(InterfaceId(0)),
        MockRings::new(64),
        gates.take(0).unwrap(),
        Tracker::new(TrackerConfig {
            capacity: 64,
            key: [11, 13],
        }),
        Arc::new(ArrayQueue::new(8)),
        Arc::clone(&shared),
    );
    worker.prepare(0);
    // The SYN still waits in the ring when the worker is told of the reset that came after it.
    worker.gate.pretend_produced(1);
    worker.rings.deliver(&syn(1, 7), &[]);
    let (key, side) = flow_of(1, 7);
    let reset = PassedReset {
        key,
        side,
        time: Timestamp::from_nanos(2 * MILLISECOND),
        is_living: true,
    };
    shared.tell(NewsItem::Passed(reset));
    worker.turn(MILLISECOND);
    let known = shared.answer().unwrap();
    assert_eq!(known.reset, reset);
    assert!(known.flow.sender.unwrap().syn.is_some());
    assert_eq!(shared.answer(), None);
}

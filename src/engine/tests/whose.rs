//! A four-tuple that another host took over behind one address, while the SYN of its connection, and the end of the one
//! before, went past the worker or were heard by nobody.

use crate::engine::testing::{IN, OUT, at, established, records, segment, tuple};
use crate::flow::{FlowFacts, FlowKey, PassedFlow, PassedReset, Sighting};
use crate::flow::{Tracker, TrackerConfig};
use crate::host::{SocketView, TcpState};
use crate::record::ResetRecord;
use crate::wire::{Flags, Segment, SeqNum};

/// The ISN of the connection before, and of the one that took its ports.
const BEFORE: u32 = 100;
const NEXT: u32 = 90_000;
/// What either of them sent, and the hop limits of their hosts.
const BYTES: u32 = 10;
const HOPS_BEFORE: u8 = 63;
const HOPS_NEXT: u8 = 57;

fn syn(isn: u32, hop_limit: u8) -> Segment {
    Segment {
        hop_limit,
        ..segment(tuple(), Flags::SYN, isn)
    }
}

/// What the worker knows: the connection before.
fn workers() -> FlowFacts {
    let mut worker = Tracker::new(TrackerConfig {
        capacity: 64,
        key: [3, 5],
    });
    worker.observe(at(1), IN, &syn(BEFORE, HOPS_BEFORE), None);
    let (key, side) = FlowKey::of(tuple());
    worker.facts(&key, side, at(2))
}

/// The socket of the connection that `isn` began.
fn socket_of(isn: u32) -> SocketView {
    let SocketView::Full { mut sequence, .. } = established(isn + 1 + BYTES) else {
        unreachable!("it is one")
    };
    sequence.bytes_in = Some(u64::from(BYTES));
    SocketView::Full {
        state: TcpState::Established,
        sequence,
    }
}

/// A reset that a worker brings, which met `socket`.
fn met(reset: Segment, socket: SocketView) -> Sighting {
    Sighting {
        time: at(500),
        vantage: IN,
        segment: reset,
        socket: Some(socket),
        begins_anew: false,
        flow: workers(),
    }
}

/// A reset of the next host's distance meets `socket`; of its SYN the engine heard what went past the worker: nothing,
/// the SYN, or also this host's answer.
fn judged(heard: usize, socket: SocketView, is_passed: bool) -> ResetRecord {
    let answer = Segment {
        ack: SeqNum(NEXT + 1),
        ..segment(tuple().reversed(), Flags::SYN | Flags::ACK, 76)
    };
    let spoken = [(IN, syn(NEXT, HOPS_NEXT)), (OUT, answer)];
    let reset = Segment {
        hop_limit: HOPS_NEXT,
        ..segment(tuple(), Flags::RST, NEXT + 1 + BYTES)
    };
    let records = records(|engine, out| {
        for (vantage, segment) in &spoken[..heard] {
            engine.observe(at(50), *vantage, segment, None, &mut |r| out.push(r));
        }
        if is_passed {
            engine.observe(at(500), IN, &reset, Some(socket), &mut |r| out.push(r));
            let (key, side) = FlowKey::of(tuple());
            engine.complete(&PassedFlow {
                reset: PassedReset {
                    key,
                    side,
                    time: at(500),
                    is_living: true,
                },
                flow: workers(),
                answer: None,
            });
        } else {
            engine.sight(&met(reset, socket));
        }
    });
    records.into_iter().next().unwrap()
}

fn is_accused(record: &ResetRecord) -> bool {
    let mut evidence = record.evidence.iter();
    evidence.any(|found| found.name == "hop_limit_mismatch")
}

fn is_cleared(record: &ResetRecord) -> bool {
    let mut evidence = record.evidence.iter();
    evidence.any(|found| found.name == "hop_limit_match")
}

#[test]
fn the_host_before_is_no_witness_against_the_one_that_took_its_ports() {
    for is_passed in [false, true] {
        for heard in 0..=2 {
            let record = judged(heard, socket_of(NEXT), is_passed);
            assert!(!is_accused(&record), "{heard} {is_passed}: {record:?}");
            assert_eq!(is_cleared(&record), heard > 0, "{heard} {is_passed}");
        }
    }
}

#[test]
fn without_a_socket_the_next_one_is_believed_in_where_this_host_agreed() {
    let absent = |heard| judged(heard, SocketView::Absent, false);
    assert!(is_accused(&absent(0)), "nothing tells of another");
    for heard in 1..=2 {
        let record = absent(heard);
        assert!(!is_accused(&record), "{heard}: {record:?}");
        assert_eq!(is_cleared(&record), heard == 2, "{heard}");
    }
}

#[test]
fn a_syn_written_into_a_living_connection_hides_no_forger() {
    for is_passed in [false, true] {
        for heard in 0..=1 {
            let record = judged(heard, socket_of(BEFORE), is_passed);
            assert!(is_accused(&record), "{heard} {is_passed}: {record:?}");
        }
    }
}

#[test]
fn what_was_heard_before_a_loss_is_no_witness_where_no_socket_vouches_for_it() {
    let accused = |socket, unseen: Option<u64>| {
        let reset = Segment {
            hop_limit: HOPS_NEXT,
            ..segment(tuple(), Flags::RST, BEFORE + 1 + BYTES)
        };
        let records = records(|engine, _| {
            engine.sight(&met(reset, socket));
            if let Some(unseen) = unseen {
                engine.note_unseen(at(unseen));
            }
        });
        is_accused(&records[0])
    };
    for (socket, unseen, is_accused) in [
        (SocketView::Absent, None, true),
        (SocketView::Absent, Some(300), false),
        (socket_of(BEFORE), Some(300), true),
    ] {
        assert_eq!(accused(socket, unseen), is_accused, "{socket:?} {unseen:?}");
    }
}

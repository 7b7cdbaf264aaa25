//! What a worker owes `steer` and the ledger: its heartbeat, a gate that closes before it ends, credit for
//! no frame that is still to come, and a count of whatever went wrong.

use std::rc::Rc;

use super::mock::Kernel;
use super::tests::{Bench, SYN, frame};
use super::{CARE_NS, NewsItem, Rings, monotonic_ns};
use crate::flow::{Confirmed, FlowKey};
use crate::time::{MILLISECOND, SECOND, Timestamp};
use crate::wire::FourTuple;

#[test]
fn each_turn_tells_steer_that_the_worker_lives() {
    let mut bench = Bench::new(64, 8);
    for turn in 1..=3 {
        bench.turn();
        assert_eq!(bench.gates.seen_by_steer(0).1, turn * MILLISECOND);
    }
}

#[test]
fn a_worker_that_ends_closes_its_gate_before_it_waits_for_what_is_under_way() {
    let mut bench = Bench::new(64, 8);
    bench.turn();
    let was_open = Rc::clone(&bench.worker.rings.was_open);
    bench.worker.rings.gates = Some(bench.gates.clone());
    bench.worker.rings.wait(1);
    assert!(was_open.take(), "the gate is not looked at");
    bench.deliver(&frame(SYN, 1), &[]);
    let finished = bench.worker.finish();
    assert!(finished.is_drained);
    assert!(!was_open.take(), "frames came that nobody would wait for");
}

#[test]
fn what_was_lost_at_the_very_end_is_in_the_last_count() {
    let mut bench = Bench::new(64, 8);
    bench.turn();
    // The kernel is not asked for its losses before the end.
    bench.worker.cared_ns = monotonic_ns() + SECOND;
    bench.worker.rings.losses.dropped = 3;
    assert_eq!(bench.worker.finish().counters.lost(), 3);
}

#[test]
fn frames_that_found_no_room_to_go_back_are_abandoned_too() {
    let mut bench = Bench::new(64, 8);
    bench.turn();
    bench.worker.rings.tx_room = 1;
    bench.worker.rings.kernel = Kernel::Refuses;
    bench.deliver(&frame(SYN, 1), &[]);
    bench.turn();
    for id in 2..4 {
        bench.deliver(&frame(SYN, id), &[]);
    }
    bench.turn();
    let finished = bench.worker.finish();
    assert_eq!((finished.balance.held, finished.abandoned), (2, 3));
    assert_eq!(finished.counters.received, 3);
}

/// Credit that was given back for them would let more in than the rings hold.
#[test]
fn frames_that_wait_in_the_worker_or_before_it_keep_their_credit() {
    let mut bench = Bench::new(64, 8);
    bench.turn();
    bench.worker.rings.tx_room = 0;
    bench.deliver(&frame(SYN, 1), &[]);
    bench.turn();
    let keeps = |bench: &mut Bench, frames: i64| {
        for _ in 0..3 {
            bench.pass(CARE_NS);
            assert_eq!(bench.worker.gate.in_flight(), frames);
        }
        assert_eq!(bench.shared.counters().credit_written_off, 0);
    };
    keeps(&mut bench, 1);
    bench.deliver(&frame(SYN, 2), &[]);
    keeps(&mut bench, 2);
}

#[test]
fn a_send_that_fails_as_nobody_foresaw_is_counted_and_tried_again() {
    let mut bench = Bench::new(64, 8);
    bench.turn();
    bench.worker.rings.kernel = Kernel::Fails;
    bench.deliver(&frame(SYN, 1), &[]);
    bench.turn();
    bench.turn();
    assert_eq!(bench.shared.counters().handback_errors, 2);
    bench.worker.rings.kernel = Kernel::Sends(32);
    bench.turn();
    assert_eq!(bench.worker.rings.host.len(), 1);
}

#[test]
fn who_has_news_left_does_not_sleep() {
    let mut bench = Bench::new(64, 8);
    let ends = FourTuple {
        src: "203.0.113.9".parse().unwrap(),
        src_port: 4242,
        dst: "192.0.2.1".parse().unwrap(),
        dst_port: 443,
    };
    bench.shared.tell(NewsItem::Confirmed(Confirmed {
        key: FlowKey::of(ends).0,
        time: Timestamp::from_nanos(1),
    }));
    bench.worker.rest(MILLISECOND, 0);
    assert_eq!(bench.worker.rings.waits.get(), 0);
    bench.turn();
    bench.worker.rest(MILLISECOND, 0);
    assert_eq!(bench.worker.rings.waits.get(), 1);
}

//! What is shared between threads, or with the kernel, played by loom in every order. The gate between `steer`
//! and a worker: the very code of the worker (src/sys/credit.rs) against the kernel's side of bpf/gate.h.
//! The ring between them is a count: what is asked is who gives credit, not how a ring works. And the
//! engine's sleep (src/sys/nap.rs): the queue is a count, the eventfd a flag.

#![cfg(all(loom, test))]

#[allow(dead_code, reason = "the models need not all that the worker does")]
#[path = "../../src/sys/credit.rs"]
mod credit;
#[path = "../../src/sys/nap.rs"]
mod nap;

use std::sync::Arc as Plain;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use loom::thread;

use credit::Words;
use nap::Nap;

/// The gate, and the frames that `steer` redirected and the host got back.
struct Model {
    gate: Words,
    redirected: AtomicU64,
    handed_back: AtomicU64,
}

impl Model {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            gate: Words::new(),
            redirected: AtomicU64::new(0),
            handed_back: AtomicU64::new(0),
        })
    }

    /// `steer` meets a frame; whether it went to the worker.
    fn meet(&self, now_ns: u64) -> bool {
        let admitted = self.gate.admits(now_ns, 10);
        if admitted {
            let before = self.redirected.load(Ordering::Relaxed);
            self.redirected.store(before + 1, Ordering::Release);
        }
        admitted
    }

    /// The worker hands back all that has come, then gives the credit for it.
    fn turn(&self) {
        let come = self.redirected.load(Ordering::Acquire);
        let done = self.handed_back.load(Ordering::Relaxed);
        self.handed_back.store(come, Ordering::Relaxed);
        self.gate.give_back(come - done);
    }
}

fn explore(play: impl Fn() + Sync + Send + 'static) {
    let play = Plain::new(play);
    loom::model(move || play());
}

#[test]
fn never_is_more_under_way_than_the_credit() {
    explore(|| {
        let model = Model::new();
        model.gate.open(2);
        let worker = {
            let model = Arc::clone(&model);
            thread::spawn(move || {
                model.turn();
                model.turn();
            })
        };
        for _ in 0..3 {
            model.meet(0);
            let handed_back = model.handed_back.load(Ordering::Relaxed);
            let redirected = model.redirected.load(Ordering::Relaxed);
            assert!(redirected - handed_back <= 2, "more than the credit");
        }
        worker.join().unwrap();
        model.turn();
        assert_eq!(model.gate.in_flight(), 0, "credit was lost or made");
    });
}

/// After a frame that passed by, none is redirected before all earlier ones are back with the host:
/// else a SYN could be overtaken again and again.
#[test]
fn a_bypass_lasts_until_all_that_was_under_way_is_back() {
    explore(|| {
        let model = Model::new();
        model.gate.open(1);
        let worker = {
            let model = Arc::clone(&model);
            thread::spawn(move || {
                model.turn();
                model.turn();
            })
        };
        let mut passed_by = false;
        for _ in 0..3 {
            let before = model.redirected.load(Ordering::Relaxed);
            if !model.meet(0) {
                passed_by = true;
            } else if passed_by {
                let back = model.handed_back.load(Ordering::Relaxed);
                assert!(back >= before, "{before} redirected, {back} back");
                passed_by = false;
            }
        }
        worker.join().unwrap();
    });
}

#[test]
fn closing_lets_in_no_frame_later_than_the_one_that_was_being_judged() {
    explore(|| {
        let model = Model::new();
        model.gate.open(4);
        let worker = {
            let model = Arc::clone(&model);
            thread::spawn(move || {
                model.gate.open(0);
                // What follows a closed gate ends: turn until nothing is under way.
                model.turn();
            })
        };
        model.meet(0);
        worker.join().unwrap();
        assert!(!model.meet(0), "the gate is closed");
        model.turn();
        assert_eq!(model.gate.in_flight(), 0);
    });
}

/// A new worker on a map that an earlier one left, with `steer` running all the time.
#[test]
fn a_new_worker_never_takes_credit_for_a_frame_that_is_still_to_come() {
    explore(|| {
        let model = Model::new();
        model.gate.open(1);
        let kernel = {
            let model = Arc::clone(&model);
            thread::spawn(move || {
                model.meet(0);
                model.meet(0);
            })
        };
        model.gate.reset();
        kernel.join().unwrap();
        let flight = model.gate.in_flight();
        assert!(
            (0..=1).contains(&flight),
            "{flight} under way after a reset"
        );
    });
}

#[test]
fn a_late_worker_is_passed_by_and_a_heartbeat_brings_frames_back() {
    explore(|| {
        let model = Model::new();
        model.gate.open(1);
        assert!(!model.meet(100), "no heartbeat for 100 ns");
        let worker = {
            let model = Arc::clone(&model);
            thread::spawn(move || model.gate.heartbeat(95))
        };
        let early = model.meet(100);
        worker.join().unwrap();
        assert!(early || model.meet(100), "the heartbeat is not seen");
    });
}

/// Two workers leave sightings while the engine lies down: either it finds them, or it is rung for.
#[test]
fn no_sighting_waits_while_the_engine_sleeps_unrung() {
    explore(|| {
        let bed = Arc::new((Nap::new(), AtomicU64::new(0), AtomicBool::new(false)));
        let workers = [(); 2].map(|()| {
            let bed = Arc::clone(&bed);
            thread::spawn(move || {
                let (nap, waiting, rung) = &*bed;
                waiting.fetch_add(1, Ordering::Release);
                if nap.must_wake() {
                    rung.store(true, Ordering::Release);
                }
            })
        });
        let (nap, waiting, rung) = &*bed;
        nap.lie_down();
        let found = waiting.load(Ordering::Acquire);
        // From here on it sleeps, until the workers have done what they do.
        for worker in workers {
            worker.join().unwrap();
        }
        let is_awake = found > 0 || rung.load(Ordering::Acquire);
        assert!(is_awake, "two sightings wait, and nobody rang");
        nap.rise();
        assert!(!nap.must_wake(), "who is awake is rung for");
    });
}

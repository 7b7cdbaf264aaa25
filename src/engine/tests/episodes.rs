//! How an episode grows and settles, and what the engine's bounds do to it.

use crate::engine::Engine;
use crate::engine::testing::{
    OUT, PROXY, at, config, established, event, incoming, observe, records, segment, sent, tuple,
};
use crate::host::{KnownReason, SocketView};
use crate::verdict::Verdict;
use crate::wire::{Flags, FourTuple};

#[test]
fn an_episode_settles_after_its_last_reset_and_a_later_reset_is_another_record() {
    let mut engine = Engine::new(config());
    let mut records = Vec::new();
    engine.sight(&incoming(0, tuple(), 5, established(5)));
    engine.sight(&incoming(900, tuple(), 5, SocketView::Absent));
    engine.tick(at(1800), &mut |record| records.push(record));
    assert!(records.is_empty());
    engine.tick(at(1900), &mut |record| records.push(record));
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].reset_count, 2);
    engine.sight(&incoming(4000, tuple(), 5, SocketView::Absent));
    engine.finish(&mut |record| records.push(record));
    assert_eq!(records.len(), 2);
}

#[test]
fn a_storm_on_one_flow_is_judged_before_it_ends() {
    let mut engine = Engine::new(config());
    let mut records = Vec::new();
    for ms in (0..20_000).step_by(100) {
        engine.sight(&incoming(ms, tuple(), 5, established(999)));
        engine.tick(at(ms), &mut |record| records.push(record));
    }
    assert!(records.len() >= 3, "{}", records.len());
    assert!(records.iter().all(|record| record.resets.len() <= 16));
    assert!(records[0].reset_count > 40);
}

#[test]
fn resets_beyond_the_capacity_are_counted() {
    let mut engine = Engine::new(config());
    for port in 0..20 {
        let tuple = FourTuple {
            src_port: port,
            ..tuple()
        };
        engine.sight(&incoming(1, tuple, 5, established(5)));
    }
    assert_eq!(engine.counters().open, 16);
    assert_eq!(engine.counters().episodes_refused, 4);
}

#[test]
fn kernel_events_without_a_frame_make_no_record() {
    let mut engine = Engine::new(config());
    engine.kernel_event(&event(
        1,
        tuple(),
        sent(true, KnownReason::State, Some(PROXY)),
    ));
    engine.finish(&mut |record| panic!("{record:?}"));
    assert_eq!(engine.counters().events_without_frame, 1);
}

#[test]
fn what_ended_the_connection_is_kept_though_all_answers_to_what_came_then_are_heard_before() {
    let told = records(|engine, _| {
        let local = tuple().reversed();
        for n in 1..=20 {
            observe(
                engine,
                10 + u64::from(n),
                OUT,
                &segment(local, Flags::RST, n),
            );
            engine.kernel_event(&event(
                10 + u64::from(n),
                local,
                sent(false, KnownReason::NoSocket, None),
            ));
        }
        // Its worker was late.
        engine.sight(&incoming(10, tuple(), 5, established(5)));
    });
    let [record] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!((record.resets.len(), record.reset_count), (16, 21));
    assert_ne!(record.verdict, Verdict::Local);
    assert_eq!(record.source.address, tuple().src);
}

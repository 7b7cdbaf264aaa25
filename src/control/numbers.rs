//! The numbers of a running sensor, gathered from its parts for whoever looks at it. Some parts are read
//! a moment later than others; each number by itself is right as of the last second.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::clock;
use super::engine_loop::{Causes, EngineNumbers, EngineShared, NO_CAUSE};
use super::ledger;
use super::outputs::Outputs;
use super::post::Post;
use crate::events::HostCounters;
use crate::flow::TableCounters;
use crate::metrics::{Family, Kind};
use crate::sink::Counters as Numbers;
use crate::time::SECOND;
use crate::verdict::{Cause, Verdict};
use crate::wire::Reject;
use crate::worker::{BOUNDS_NS, Counters, Health, Shared};
use crate::xdp;

/// Everything there is to tell.
pub(super) fn gather(posts: &[Post], engine: &EngineShared, outputs: &Outputs) -> Vec<Family> {
    let mut families = vec![version()];
    let ledgers = posts.iter().map(|post| (post, post.ledger()));
    families.extend(ledger::families(
        ledgers.filter_map(|(post, ledger)| Some((post.name.as_str(), ledger?))),
    ));
    families.extend(frames(posts));
    families.extend(workers(posts));
    let numbers = engine
        .numbers
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    families.extend(tables(posts, &numbers));
    families.extend(judged(engine, &numbers));
    families.extend(lost(engine, &numbers, outputs));
    families.extend(delivery(outputs));
    families
}

fn version() -> Family {
    let mut family = Family::new(
        Kind::Gauge,
        "rstscope_build_info",
        "The program that runs; always 1.",
    );
    family.number(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    family
}

fn frames(posts: &[Post]) -> [Family; 2] {
    let mut frames = Family::new(
        Kind::Counter,
        "rstscope_frames",
        "Frames that came in, by interface, queue, and what the XDP program did with them.",
    );
    let mut watched = Family::new(
        Kind::Gauge,
        "rstscope_interface_watched",
        "Whether an interface is watched: 1, or 0 when it is gone, cut off or handed over.",
    );
    for post in posts {
        let is_watched = !post.is_gone && !post.is_blind && !post.is_handed_over;
        watched.number(&[("interface", &post.name)], u64::from(is_watched));
        for (queue, counters) in post.steered().iter().enumerate() {
            let queue = queue.to_string();
            for (reason, count) in xdp::COUNTER_NAMES.iter().zip(counters) {
                let labels = [
                    ("interface", post.name.as_str()),
                    ("queue", &queue),
                    ("reason", reason),
                ];
                frames.number(&labels, *count);
            }
        }
    }
    [frames, watched]
}

/// The worker's side of the ledger, by stage of a frame's way.
fn stages(counters: &Counters) -> [(&'static str, u64); 4] {
    [
        ("received", counters.received),
        ("handed_back", counters.handed_back),
        ("live", counters.live),
        ("completed", counters.completed),
    ]
}

/// Where frames and what is seen of them can be lost.
fn drops(counters: &Counters) -> [(&'static str, u64); 5] {
    [
        ("before_ring", counters.losses.dropped),
        ("ring_full", counters.losses.ring_full),
        ("fill_ring_empty", counters.losses.fill_ring_empty),
        ("handback", counters.handback_dropped),
        ("sighting", counters.sightings_lost),
    ]
}

/// What a worker had to cope with. Frames are not lost by it, unless they are among [`drops`] too.
fn incidents(counters: &Counters, news_lost: u64) -> [(&'static str, u64); 9] {
    [
        ("burst_failed", counters.live_failed),
        ("credit_resynced", counters.credit_resynced),
        ("credit_written_off", counters.credit_written_off),
        ("descriptor_invalid", counters.losses.invalid_descs),
        ("news_lost", news_lost),
        ("no_metadata", counters.without_meta),
        ("send_failed", counters.handback_errors),
        ("stuck", counters.handback_stuck),
        ("tx_ring_full", counters.tx_full),
    ]
}

fn workers(posts: &[Post]) -> [Family; 8] {
    let mut ledger = Family::new(
        Kind::Counter,
        "rstscope_worker_frames",
        "Frames in user space, by interface, queue and stage; redirected ones come back handed back.",
    );
    let mut lost = Family::new(
        Kind::Counter,
        "rstscope_dropped",
        "Frames, or sightings of them, that were lost, by interface, queue and stage.",
    );
    let mut odd = Family::new(
        Kind::Counter,
        "rstscope_rejected_frames",
        "Frames that are no TCP segment, by reason; they were handed back like all others.",
    );
    let mut troubles = Family::new(
        Kind::Counter,
        "rstscope_worker_incidents",
        "What a worker had to cope with on the way back, by interface, queue and kind.",
    );
    let mut under_way = Family::new(
        Kind::Gauge,
        "rstscope_frames_under_way",
        "Frames that were redirected and are not back yet.",
    );
    let mut waiting = Family::new(
        Kind::Gauge,
        "rstscope_sightings_waiting",
        "Segments that wait for the engine.",
    );
    let mut running = Family::new(
        Kind::Gauge,
        "rstscope_worker_running",
        "Whether a worker hands frames back: 1, or 0 while frames pass by it.",
    );
    let mut away = Family::new(
        Kind::Histogram,
        "rstscope_handback_seconds",
        "How long frames were away from the host; the oldest of each turn.",
    );
    each_queue(posts, |labels, shared, depth| {
        let counters = shared.counters();
        let with = |key, value| [labels[0], labels[1], (key, value)];
        for (stage, count) in stages(&counters) {
            ledger.number(&with("stage", stage), count);
        }
        for (stage, count) in drops(&counters) {
            lost.number(&with("stage", stage), count);
        }
        for (kind, count) in incidents(&counters, shared.news_lost()) {
            troubles.number(&with("kind", kind), count);
        }
        for (reject, count) in Reject::ALL.iter().zip(counters.rejects) {
            odd.number(&with("reason", reject.name()), count);
        }
        under_way.number(&labels, shared.in_flight());
        waiting.number(&labels, depth);
        running.number(&labels, u64::from(shared.health() == Health::Running));
        let (counts, sum_ns) = shared.away().read();
        away.durations(&labels, &BOUNDS_NS, &counts, sum_ns);
    });
    [
        ledger, lost, troubles, odd, under_way, waiting, running, away,
    ]
}

/// Calls with the labels of each queue, its worker, and how many sightings wait.
fn each_queue(posts: &[Post], mut tell: impl FnMut([(&'static str, &str); 2], &Shared, u64)) {
    for post in posts {
        for (queue, (shared, sightings)) in post.queues().enumerate() {
            let queue = queue.to_string();
            let labels = [("interface", post.name.as_str()), ("queue", queue.as_str())];
            tell(labels, shared, sightings.len() as u64);
        }
    }
}

fn tables(posts: &[Post], numbers: &EngineNumbers) -> [Family; 4] {
    let mut live = Family::new(
        Kind::Gauge,
        "rstscope_flows",
        "Connections that are remembered, by flow table: the engine's, or a worker's.",
    );
    let mut made = Family::new(
        Kind::Counter,
        "rstscope_flows_made",
        "Connections taken into a flow table.",
    );
    let mut evicted = Family::new(
        Kind::Counter,
        "rstscope_flow_evictions",
        "Connections displaced for want of room: such that had ended, on probation, or alive.",
    );
    let mut parts = Family::new(
        Kind::Counter,
        "rstscope_flow_parts_lost",
        "What was not remembered of connections for want of room: their second end, or how a SYN or MAC looks.",
    );
    let mut add = |table: &str, counters: TableCounters| {
        live.number(&[("table", table)], counters.live);
        made.number(&[("table", table)], counters.inserted);
        for (kind, count) in [
            ("ended", counters.reused),
            ("probation", counters.evicted_probation),
            ("connection", counters.evicted_connections),
        ] {
            evicted.number(&[("table", table), ("kind", kind)], count);
        }
        for (part, count) in [
            ("end", counters.ends_lost),
            ("look", counters.looks_refused),
        ] {
            parts.number(&[("table", table), ("part", part)], count);
        }
    };
    add("engine", numbers.table);
    each_queue(posts, |[(_, interface), (_, queue)], shared, _| {
        add(&format!("{interface}-{queue}"), shared.table());
    });
    [live, made, evicted, parts]
}

/// Records that were counted, and 0 for those of which there is none yet: who counts by differences sees the first record
/// only where there was a number before it.
fn with_zeros(counted: &Causes) -> Causes {
    let named = Cause::ALL.map(|cause| (cause.verdict().name(), cause.name()));
    let unnamed = Verdict::ALL.map(|verdict| (verdict.name(), NO_CAUSE));
    let mut all: Causes = named.into_iter().chain(unnamed).map(|of| (of, 0)).collect();
    all.extend(counted);
    all
}

fn judged(engine: &EngineShared, numbers: &EngineNumbers) -> [Family; 4] {
    let mut resets = Family::new(Kind::Counter, "rstscope_resets", "Resets that were seen.");
    resets.number(&[], numbers.counters.resets);
    let mut records = Family::new(
        Kind::Counter,
        "rstscope_records",
        "Records of resets, by verdict and cause.",
    );
    for ((verdict, cause), count) in with_zeros(&numbers.causes) {
        records.number(&[("verdict", verdict), ("cause", cause)], count);
    }
    let mut open = Family::new(
        Kind::Gauge,
        "rstscope_episodes_open",
        "Reset flows that are not judged yet.",
    );
    open.number(&[], numbers.counters.open);
    let mut took = Family::new(
        Kind::Histogram,
        "rstscope_verdict_seconds",
        "Time from the last reset of a flow to its record; the settle time is part of it.",
    );
    let (counts, sum_ns) = engine.verdicts_took.read();
    took.durations(&[], &BOUNDS_NS, &counts, sum_ns);
    [resets, records, open, took]
}

fn lost(engine: &EngineShared, numbers: &EngineNumbers, outputs: &Outputs) -> [Family; 4] {
    let mut events = Family::new(
        Kind::Counter,
        "rstscope_kernel_records_lost",
        "Kernel events and copies of headers that found the ring buffer full, by kind; events missed came while their CPU was telling another, unknown ones were not understood, and unread copies do not hold the segment.",
    );
    events.number(&[("kind", "event")], numbers.host.events_lost);
    events.number(&[("kind", "event_missed")], numbers.host.events_missed);
    let host = &numbers.host;
    events.number(&[("kind", "egress")], host.egress_lost);
    events.number(&[("kind", "egress_reset")], host.egress_reset_lost);
    events.number(&[("kind", "mirror")], host.mirror_lost);
    events.number(&[("kind", "mirror_reset")], host.mirror_reset_lost);
    events.number(&[("kind", "unknown")], numbers.host.unknown);
    let unread = engine.unread.load(Ordering::Relaxed);
    events.number(&[("kind", "unread")], unread);
    let mut skipped = Family::new(
        Kind::Counter,
        "rstscope_kernel_skipped",
        "What the programs at egress, at tracepoints and of mirror mode did not tell of, by reason: packets that they could not follow to a TCP header, orderly closings beyond the budget.",
    );
    for (reason, count) in skips(&numbers.host) {
        skipped.number(&[("reason", reason)], count);
    }
    let mut unjudged = Family::new(
        Kind::Counter,
        "rstscope_resets_unjudged",
        "Resets that were not judged: too many flows were reset at once.",
    );
    unjudged.number(&[], numbers.counters.episodes_refused);
    let mut records = Family::new(
        Kind::Counter,
        "rstscope_records_lost",
        "Records that an output should have and does not.",
    );
    records.number(&[], outputs.lost());
    [events, skipped, unjudged, records]
}

/// What the kernel's side passed over on purpose.
const fn skips(host: &HostCounters) -> [(&'static str, u64); 5] {
    let unread = &host.unread;
    [
        ("closing", host.closings_untold),
        ("fragment", unread.fragment),
        ("malformed", unread.malformed),
        ("too_deep", unread.too_deep),
        ("truncated", unread.truncated),
    ]
}

/// Outputs are told apart by their place in the configuration and their kind: their names may hold
/// addresses.
fn delivery(outputs: &Outputs) -> [Family; 7] {
    let mut queued = Family::new(
        Kind::Gauge,
        "rstscope_records_queued",
        "Records that wait to be given to the outputs.",
    );
    let mut went = Family::new(
        Kind::Counter,
        "rstscope_output_records",
        "Records of each output, by what became of them.",
    );
    let mut waiting = Family::new(
        Kind::Gauge,
        "rstscope_output_waiting",
        "Records that wait for their receiver.",
    );
    let mut bytes = Family::new(
        Kind::Gauge,
        "rstscope_output_spool_bytes",
        "Bytes of the spool on disk.",
    );
    let mut age = Family::new(
        Kind::Gauge,
        "rstscope_output_oldest_seconds",
        "Age of the oldest record that waits.",
    );
    let mut failures = Family::new(
        Kind::Counter,
        "rstscope_output_failures",
        "Attempts to deliver, or to write the spool, that failed, by kind.",
    );
    let mut failing = Family::new(
        Kind::Gauge,
        "rstscope_output_failing",
        "Whether the receiver takes nothing now: 1, or 0.",
    );
    let output = outputs.output();
    queued.number(&[], output.queued() as u64);
    let now = clock::monotonic();
    let wall_ns = clock::wall_offset_ns(now).saturating_add_unsigned(now.as_nanos());
    for (place, (target, (_, counters))) in
        outputs.targets().iter().zip(output.counters()).enumerate()
    {
        let place = place.to_string();
        let labels = [("output", place.as_str()), ("kind", target.scheme.as_str())];
        for (fate, count) in [
            ("accepted", &counters.accepted),
            ("delivered", &counters.delivered),
            ("refused", &counters.refused),
            ("dropped", &counters.dropped),
            ("damaged", &counters.damaged),
            ("set_aside", &counters.set_aside),
        ] {
            went.number(&[labels[0], labels[1], ("fate", fate)], Numbers::get(count));
        }
        waiting.number(&labels, Numbers::get(&counters.waiting));
        bytes.number(&labels, Numbers::get(&counters.spool_bytes));
        let oldest_ns = Numbers::get(&counters.oldest_ns);
        age.number(&labels, age_seconds(wall_ns, oldest_ns));
        for (what, count) in [
            ("delivery", &counters.failures),
            ("spool", &counters.spool_errors),
        ] {
            failures.number(&[labels[0], labels[1], ("what", what)], Numbers::get(count));
        }
        failing.number(&labels, u64::from(counters.failing.load(Ordering::Relaxed)));
    }
    [queued, went, waiting, bytes, age, failures, failing]
}

/// 0 when nothing waits, or the clock was set back meanwhile.
fn age_seconds(wall_ns: i64, oldest_ns: u64) -> u64 {
    match (oldest_ns, u64::try_from(wall_ns)) {
        (0, _) | (_, Err(_)) => 0,
        (oldest, Ok(now)) => now.saturating_sub(oldest) / SECOND,
    }
}

#[cfg(test)]
mod tests {
    use super::{Causes, age_seconds, drops, incidents, stages, with_zeros};
    use crate::sys::RxLosses;
    use crate::time::SECOND;
    use crate::wire::Reject;
    use crate::worker::Counters;

    /// A counter that is added to [`Counters`] does not compile here until it is told somewhere.
    #[test]
    fn every_counter_of_a_worker_is_told_once() {
        let counters = Counters {
            received: 1,
            handed_back: 2,
            completed: 3,
            live: 4,
            live_failed: 5,
            // Told by their own names.
            rejects: [0; Reject::ALL.len()],
            without_meta: 6,
            sightings: 7,
            sightings_lost: 8,
            tx_full: 9,
            wakes: 10,
            handback_dropped: 11,
            handback_errors: 12,
            handback_stuck: 13,
            credit_written_off: 14,
            credit_resynced: 15,
            losses: RxLosses {
                dropped: 16,
                ring_full: 17,
                fill_ring_empty: 18,
                invalid_descs: 19,
            },
        };
        let of_stages = stages(&counters);
        let (of_drops, of_incidents) = (drops(&counters), incidents(&counters, 20));
        let all = of_stages.iter().chain(&of_drops).chain(&of_incidents);
        let mut told: Vec<u64> = all.map(|(_, number)| *number).collect();
        told.sort_unstable();
        // Neither the sightings that the engine got nor system calls are an incident.
        let untold = [7, 10];
        let wanted: Vec<u64> = (1..=20).filter(|number| !untold.contains(number)).collect();
        assert_eq!(told, wanted);
    }

    #[test]
    fn a_first_record_is_an_increase() {
        let none = with_zeros(&Causes::new());
        assert_eq!(none.get(&("injected", "on_path")), Some(&0));
        assert_eq!(none.get(&("stray", "unknown")), Some(&0));
        assert_eq!(none.get(&("stray", "abort")), None, "strays have no cause");
        let counted = with_zeros(&Causes::from([(("local", "process"), 3)]));
        assert_eq!(counted.get(&("local", "process")), Some(&3));
        assert_eq!(counted.len(), none.len());
    }

    #[test]
    fn the_age_of_nothing_and_of_the_future_is_none() {
        assert_eq!(age_seconds(5_000_000_000, 0), 0);
        assert_eq!(age_seconds(5_000_000_000, 9 * SECOND), 0);
        assert_eq!(age_seconds(5_900_000_000, 2 * SECOND), 3);
        assert_eq!(age_seconds(-1, SECOND), 0);
    }
}

//! The closing words of a run on standard error: what was seen, what was judged, and the ledger of
//! frames, which must balance.

use std::fmt::Write;

use super::engine_loop::EngineFinished;
use super::post::Closed;
use crate::events::HostCounters;
use crate::flow::TableCounters;
use crate::notice;
use crate::sink;
use crate::time::SECOND;
use crate::verdict::Verdict;
use crate::worker::LatencySummary;
use crate::xdp;

/// Prints the summary.
pub(super) fn print(
    posts: &[(String, Closed)],
    engine: &EngineFinished,
    host: &HostCounters,
    written: &sink::Totals,
) {
    notice::say(verdicts(engine));
    for (name, post) in posts {
        if let Some(ledger) = Ledger::of(post) {
            notice::say(ledger.line(name));
            for (queue, worker) in post.workers.iter().enumerate() {
                notice::say(away(name, queue, &worker.latency));
                notice::say(table(&format!("{name}: queue {queue}"), &worker.table));
                untold(name, queue, worker.news_lost);
            }
        }
    }
    notice::say(table("what leaves, and copies", &engine.table));
    let lost = host.lost();
    if lost > 0 {
        notice::warn(format_args!(
            "{lost} kernel events were lost: the ring buffer was full, or a CPU was telling one when the next came"
        ));
    }
    if host.closings_untold > 0 {
        notice::say(format_args!(
            "rstscope: {} orderly closings soon after a reset were not looked at",
            host.closings_untold
        ));
    }
    if engine.counters.episodes_refused > 0 {
        let refused = engine.counters.episodes_refused;
        notice::warn(format_args!(
            "{refused} resets were not judged: too many flows at once"
        ));
    }
    for output in &written.outputs {
        notice::say(format_args!("rstscope: {}", delivered(output)));
    }
}

/// What became of an output's records; what is nothing is not said.
fn delivered(output: &sink::OutputTotals) -> String {
    let mut line = format!("{}: {} records", output.name, output.written);
    if output.left > 0 {
        let _ = write!(line, ", {} wait on disk for the next start", output.left);
    }
    if output.lost > 0 {
        let _ = write!(line, ", {} lost", output.lost);
    }
    line
}

/// How long frames were away from the host. The quantiles end at a second; the longest does not.
fn away(name: &str, queue: usize, latency: &LatencySummary) -> String {
    if latency.samples == 0 {
        return format!("rstscope: {name}: queue {queue}: no frame was away");
    }
    let micros = |nanos: u64| nanos as f64 / 1e3;
    let at_least = |nanos: u64| if nanos >= SECOND { "at least " } else { "" };
    format!(
        "rstscope: {name}: queue {queue}: frames were away for {}{:.0} µs (median), {}{:.0} µs \
         (99 %), {:.0} µs (longest)",
        at_least(latency.p50_ns),
        micros(latency.p50_ns),
        at_least(latency.p99_ns),
        micros(latency.p99_ns),
        micros(latency.max_ns)
    )
}

/// Established connections that a worker could not be told of.
fn untold(name: &str, queue: usize, connections: u64) {
    if connections > 0 {
        notice::warn(format_args!(
            "{name}: queue {queue}: {connections} established connections were not told to the worker, \
             which may give them up for others"
        ));
    }
}

/// What a flow table held, and what it had to give up.
fn table(whose: &str, table: &TableCounters) -> String {
    format!(
        "rstscope: {whose}: {} flows, {} of them still known; given up for others: {} connections, \
         {} lone SYNs; no room for {} second ends, {} kinds of SYN or MACs",
        table.inserted,
        table.live,
        table.evicted_connections,
        table.evicted_probation,
        table.ends_lost,
        table.looks_refused
    )
}

fn verdicts(engine: &EngineFinished) -> String {
    // Resets are frames; all that a flow has within the settle time are one record.
    let records = engine.counters.records.iter().sum::<u64>();
    let mut line = format!("rstscope: {} resets", engine.counters.resets);
    let mut before = format!(" in {records} records: ");
    for (verdict, count) in Verdict::ALL.iter().zip(engine.counters.records) {
        if count > 0 {
            let _ = write!(line, "{before}{count} {}", verdict.name());
            before = String::from(", ");
        }
    }
    let (folded, many) = (engine.counters.folded, engine.counters.aggregates);
    if many > 0 {
        let _ = write!(
            line,
            "; {folded} of no connection were folded into {many} of them"
        );
    }
    line
}

/// The way of all steered frames of one interface (docs/operations.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Ledger {
    redirected: u64,
    bypassed: u64,
    copied: u64,
    copies_lost: u64,
    received: u64,
    lost_before_ring: u64,
    handed_back: u64,
    abandoned: u64,
    dropped_at_veth: u64,
    in_flight: u64,
}

impl Ledger {
    fn of(post: &Closed) -> Option<Self> {
        let steer = post.steer.as_ref()?;
        let named = |name: &str| {
            let at = xdp::COUNTER_NAMES.iter().position(|known| *known == name);
            at.and_then(|at| steer.get(at)).copied().unwrap_or_default()
        };
        let mut ledger = Self {
            redirected: named("redirected"),
            bypassed: super::post::BYPASSED.iter().map(|name| named(name)).sum(),
            copied: named("copied"),
            copies_lost: named("copy_lost"),
            ..Self::default()
        };
        for worker in &post.workers {
            ledger.received += worker.counters.received;
            ledger.lost_before_ring +=
                worker.counters.losses.dropped + worker.counters.losses.ring_full;
            ledger.handed_back += worker.counters.handed_back;
            ledger.abandoned += worker.abandoned;
            ledger.dropped_at_veth += worker.counters.handback_dropped;
            ledger.in_flight += worker.in_flight;
        }
        Some(ledger)
    }

    fn balances(&self) -> bool {
        self.redirected == self.received + self.lost_before_ring
            && self.received == self.handed_back + self.abandoned
            && self.lost_before_ring + self.abandoned + self.dropped_at_veth == 0
    }

    fn line(&self, name: &str) -> String {
        let balance = if self.balances() {
            "balances"
        } else {
            "DOES NOT BALANCE"
        };
        format!(
            "rstscope: {name}: {} redirected, {} received, {} handed back, {} bypassed, {} copied, \
             {} copies lost; lost to the host: {} before the ring, {} in the worker, {} at the veth; \
             the ledger {balance}",
            self.redirected,
            self.received,
            self.handed_back,
            self.bypassed,
            self.copied,
            self.copies_lost,
            self.lost_before_ring,
            self.abandoned,
            self.dropped_at_veth,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{Ledger, away, delivered, table};
    use crate::flow::TableCounters;
    use crate::sink::OutputTotals;
    use crate::time::SECOND;
    use crate::worker::LatencySummary;

    #[test]
    fn what_the_quantiles_cannot_tell_apart_is_said_to_be_at_least_so_long() {
        let stalled = LatencySummary {
            samples: 2,
            p50_ns: 80_000,
            p99_ns: SECOND,
            max_ns: 7 * SECOND,
        };
        assert!(
            away("eth0", 0, &stalled)
                .ends_with("80 µs (median), at least 1000000 µs (99 %), 7000000 µs (longest)")
        );
        assert!(away("eth0", 0, &LatencySummary::default()).ends_with("no frame was away"));
    }

    #[test]
    fn what_waits_and_what_is_lost_is_said_where_there_is_any() {
        let mut output = OutputTotals {
            name: "https://h".to_owned(),
            written: 7,
            ..OutputTotals::default()
        };
        assert_eq!(delivered(&output), "https://h: 7 records");
        (output.left, output.lost) = (3, 1);
        let line = delivered(&output);
        assert!(
            line.ends_with("3 wait on disk for the next start, 1 lost"),
            "{line}"
        );
    }

    #[test]
    fn what_a_table_gave_up_is_said_by_kind() {
        let counters = TableCounters {
            live: 1,
            inserted: 2,
            reused: 3,
            evicted_probation: 4,
            evicted_connections: 5,
            ends_lost: 6,
            looks_refused: 7,
        };
        assert_eq!(
            table("eth0: queue 0", &counters),
            "rstscope: eth0: queue 0: 2 flows, 1 of them still known; given up for others: \
             5 connections, 4 lone SYNs; no room for 6 second ends, 7 kinds of SYN or MACs"
        );
    }

    #[test]
    fn a_ledger_with_a_frame_missing_says_so() {
        let whole = Ledger {
            redirected: 10,
            received: 10,
            handed_back: 10,
            ..Ledger::default()
        };
        assert!(whole.line("eth0").ends_with("the ledger balances"));
        let lost = Ledger {
            received: 9,
            handed_back: 9,
            ..whole
        };
        assert!(lost.line("eth0").ends_with("DOES NOT BALANCE"));
        let stuck = Ledger {
            handed_back: 9,
            abandoned: 1,
            ..whole
        };
        assert!(!stuck.balances());
    }
}

//! The closing words of a run on standard error: what was seen, what was judged, and the ledger of
//! frames, which must balance.

use std::fmt::Write;

use super::engine_loop::EngineFinished;
use super::ledger::{self, Ledger};
use super::post::Closed;
use crate::amount::{counted, span};
use crate::events::HostCounters;
use crate::flow::TableCounters;
use crate::notice;
use crate::sink;
use crate::sys::BURST_FRAMES;
use crate::time::SECOND;
use crate::verdict::Verdict;
use crate::worker::LatencySummary;

/// Prints the summary.
pub(super) fn print(
    posts: &[(String, Closed)],
    engine: &EngineFinished,
    host: &HostCounters,
    written: &sink::Totals,
) {
    notice::say(verdicts(engine));
    ledgers(posts, host);
    notice::say(table("what leaves, and copies", &engine.table));
    if host.lost() > 0 {
        notice::warn(lost(host));
    }
    if engine.unread > 0 {
        notice::warn(format_args!(
            "could not read {}: the headers are longer than what is copied",
            counted(engine.unread, "copied frame")
        ));
    }
    if host.closings_untold > 0 {
        notice::say(format_args!(
            "rstscope: did not look at {} soon after a reset",
            counted(host.closings_untold, "orderly closing")
        ));
    }
    if engine.counters.episodes_refused > 0 {
        let refused = engine.counters.episodes_refused;
        notice::warn(format_args!(
            "did not judge {}: too many flows at once",
            counted(refused, "reset")
        ));
    }
    for output in by_name(&written.outputs) {
        notice::say(format_args!("rstscope: {}", delivered(&output)));
    }
}

/// What the host's programs could not tell, and how much of it may be a record that is not there.
fn lost(host: &HostCounters) -> String {
    let resets = match host.resets_lost() {
        0 => "no reset's copy among them".to_owned(),
        lost => format!(
            "copies of {} among them, which may have no record",
            counted(lost, "reset")
        ),
    };
    format!(
        "lost {} ({resets}): the ring buffer was full, a CPU was telling one when the next came, or they were not understood",
        counted(host.lost(), "kernel event")
    )
}

/// The ledger of each interface; then, over all of them, what the host's side says of it.
fn ledgers(posts: &[(String, Closed)], host: &HostCounters) {
    let mut all = Vec::new();
    for (name, post) in posts {
        if let Some(ledger) = ledger_of(post) {
            notice::say(format_args!("rstscope: {}", ledger.line(name)));
            for (queue, worker) in post.workers.iter().enumerate() {
                notice::say(away(name, queue, &worker.latency));
                notice::say(table(&format!("{name}: queue {queue}"), &worker.table));
                untold(name, queue, worker.news_lost);
            }
            all.push(ledger);
        }
    }
    let workers = posts.iter().flat_map(|(_, post)| &post.workers);
    let failed: u64 = workers.map(|worker| worker.counters.live_failed).sum();
    if all.len() == posts.len() && all.iter().any(|ledger| ledger.received() > 0) {
        let doubled = failed * BURST_FRAMES as u64;
        let arrivals = ledger::arrivals(all.iter(), host.handed_back, doubled);
        notice::say(format_args!("rstscope: {arrivals}"));
    }
}

/// `None` in mirror mode, and where the counters of `steer` could not be read.
fn ledger_of(post: &Closed) -> Option<Ledger> {
    let mut ledger = Ledger::default();
    post.workers.iter().for_each(|worker| ledger.add(worker));
    ledger.set_steered(post.steer.as_ref()?);
    Some(ledger)
}

/// A row an output, also where a reload opened it anew: what waits then is the last one's.
fn by_name(outputs: &[sink::OutputTotals]) -> Vec<sink::OutputTotals> {
    let mut rows: Vec<sink::OutputTotals> = Vec::new();
    for output in outputs {
        match rows.iter_mut().find(|row| row.name == output.name) {
            Some(row) => {
                row.written += output.written;
                row.lost += output.lost;
                row.left = output.left;
            }
            None => rows.push(output.clone()),
        }
    }
    rows
}

/// What became of an output's records; what is nothing is not said.
fn delivered(output: &sink::OutputTotals) -> String {
    let mut line = format!(
        "output {}: {}",
        output.name,
        counted(output.written, "record")
    );
    if output.left > 0 {
        let wait = if output.left == 1 { "waits" } else { "wait" };
        let left = output.left;
        let _ = write!(line, ", {left} {wait} on disk for the next start");
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
    let at_least = |nanos: u64| if nanos >= SECOND { "at least " } else { "" };
    format!(
        "rstscope: {name}: queue {queue}: frames were away for {}{} (median), {}{} (99 %), {} \
         (longest)",
        at_least(latency.p50_ns),
        span(latency.p50_ns),
        at_least(latency.p99_ns),
        span(latency.p99_ns),
        span(latency.max_ns)
    )
}

/// Established connections that a worker could not be told of.
fn untold(name: &str, queue: usize, connections: u64) {
    if connections > 0 {
        notice::warn(format_args!(
            "{name}: queue {queue}: the worker was not told of {}, established or reset past it: \
             it may give such up for others",
            counted(connections, "connection")
        ));
    }
}

/// What a flow table held, and what it had to give up.
fn table(whose: &str, table: &TableCounters) -> String {
    format!(
        "rstscope: {whose}: {}, {} of them still known; given up for others: {}, {}; no room for {}, {} \
         kinds of SYN or MACs",
        counted(table.inserted, "flow"),
        table.live,
        counted(table.evicted_connections, "connection"),
        counted(table.evicted_probation, "lone SYN"),
        counted(table.ends_lost, "second end"),
        table.looks_refused
    )
}

fn verdicts(engine: &EngineFinished) -> String {
    // Resets are frames; all that a flow has within the settle time are one record.
    let records = engine.counters.records.iter().sum::<u64>();
    let mut line = format!("rstscope: {}", counted(engine.counters.resets, "reset"));
    let mut before = format!(" in {}: ", counted(records, "record"));
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
            "; {folded} of no connection folded into {many} of them"
        );
    }
    line
}

#[cfg(test)]
mod tests {
    use super::{away, by_name, delivered, lost, table};
    use crate::events::HostCounters;
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
                .ends_with("80 µs (median), at least 1.0 s (99 %), 7.0 s (longest)")
        );
        assert!(away("eth0", 0, &LatencySummary::default()).ends_with("no frame was away"));
    }

    #[test]
    fn resets_among_what_was_lost_are_said() {
        let mut host = HostCounters {
            egress_lost: 19_000,
            ..HostCounters::default()
        };
        let spared = lost(&host);
        assert!(
            spared.starts_with("lost 19000 kernel events (no reset's copy among them): "),
            "{spared}"
        );
        host.mirror_reset_lost = 1;
        let said = lost(&host);
        assert!(
            said.starts_with("lost 19001 kernel events (copies of 1 reset among them, which may have no record): "),
            "{said}"
        );
    }

    #[test]
    fn what_waits_and_what_is_lost_is_said_where_there_is_any() {
        let mut output = OutputTotals {
            name: "https://h".to_owned(),
            written: 7,
            ..OutputTotals::default()
        };
        assert_eq!(delivered(&output), "output https://h: 7 records");
        (output.left, output.lost) = (3, 1);
        let line = delivered(&output);
        assert!(
            line.ends_with("3 wait on disk for the next start, 1 lost"),
            "{line}"
        );
    }

    #[test]
    fn an_output_that_a_reload_opened_anew_has_one_row() {
        let told = |name: &str, written, left| OutputTotals {
            name: name.to_owned(),
            written,
            left,
            ..OutputTotals::default()
        };
        let rows = by_name(&[
            told("file:///a", 3, 2),
            told("-", 4, 0),
            told("file:///a", 7, 0),
        ]);
        assert_eq!(rows, [told("file:///a", 10, 0), told("-", 4, 0)]);
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
}

//! What the counters of `steer` and of the workers mean for coverage. It reads none of them itself.

use crate::control::coverage::Totals;
use crate::worker::Counters;
use crate::xdp;

/// Counters of `steer` by meaning, as [`xdp::COUNTER_NAMES`] names them.
const NOT_OURS: [&str; 7] = [
    "passed",
    "not_ip",
    "not_tcp",
    "fragment",
    "truncated",
    "malformed",
    "too_deep",
];

/// What coverage makes of the counters of `steer` and of all workers of a post.
pub(super) fn totals(
    steer: &[u64; xdp::COUNTERS],
    workers: impl Iterator<Item = Counters>,
) -> Totals {
    let sum = |names: &[&str]| names.iter().map(|name| counter(steer, name)).sum::<u64>();
    let mut totals = Totals {
        observed: 0,
        passed: Some(sum(&NOT_OURS)),
        bypassed: sum(&xdp::BYPASSED),
        copied: counter(steer, "copied"),
        lost: counter(steer, "copy_lost"),
    };
    for counters in workers {
        totals.observed += counters.received;
        totals.lost += counters.sightings_lost + counters.lost();
    }
    totals
}

fn counter(steer: &[u64; xdp::COUNTERS], name: &str) -> u64 {
    xdp::COUNTER_NAMES
        .iter()
        .position(|known| *known == name)
        .and_then(|at| steer.get(at))
        .copied()
        .unwrap_or_default()
}

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
        lost: copies_lost(steer),
    };
    for counters in workers {
        totals.observed += counters.received;
        totals.lost += counters.sightings_lost + counters.lost();
    }
    totals
}

/// Headers that `steer` should have copied and could not.
pub(super) fn copies_lost(steer: &[u64; xdp::COUNTERS]) -> u64 {
    counter(steer, "copy_lost")
}

fn counter(steer: &[u64; xdp::COUNTERS], name: &str) -> u64 {
    xdp::COUNTER_NAMES
        .iter()
        .position(|known| *known == name)
        .and_then(|at| steer.get(at))
        .copied()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::totals;
    use crate::sys::RxLosses;
    use crate::worker::Counters;
    use crate::xdp;

    /// Each reason by itself, so that none hides behind another.
    #[test]
    fn whatever_steer_or_a_worker_lost_is_lost_to_coverage() {
        let none = [0; xdp::COUNTERS];
        let of = |steer: &[u64; xdp::COUNTERS], worker: Counters| {
            totals(steer, [Counters::default(), worker].into_iter()).lost
        };
        let mut copies = none;
        let at = xdp::COUNTER_NAMES.iter().position(|n| *n == "copy_lost");
        copies[at.unwrap()] = 5;
        assert_eq!(of(&copies, Counters::default()), 5);
        let losses = RxLosses {
            dropped: 1,
            ring_full: 2,
            ..RxLosses::default()
        };
        for (worker, lost) in [
            (
                Counters {
                    sightings_lost: 7,
                    ..Counters::default()
                },
                7,
            ),
            (
                Counters {
                    handback_dropped: 4,
                    ..Counters::default()
                },
                4,
            ),
            (
                Counters {
                    losses,
                    ..Counters::default()
                },
                3,
            ),
        ] {
            assert_eq!(of(&none, worker), lost, "{worker:?}");
        }
    }

    #[test]
    fn each_frame_of_steer_is_in_one_sum() {
        for (at, name) in xdp::COUNTER_NAMES.iter().enumerate() {
            let mut steer = [0; xdp::COUNTERS];
            steer[at] = 1;
            let totals = totals(&steer, std::iter::empty());
            let sums = [totals.passed.unwrap(), totals.bypassed, totals.copied];
            let is_apart = matches!(*name, "redirected" | "copy_lost");
            assert_eq!(sums.iter().sum::<u64>(), u64::from(!is_apart), "{name}");
        }
    }
}

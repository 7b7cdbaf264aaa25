//! Ways by which the segments of one address come: what its other flows and its network show of them, and
//! what may choose another. Says nothing of who sent a reset; `hop_limit` and `link` ask.

use super::Case;
use crate::flow::HopLimits;

/// Segments from which on a way is known: those of a flow that began and ended, and one more.
const SEGMENTS_OF_WAY: u16 = 3;

/// Other flows of the sender's address came from as far as the reset, give or take one: its route
/// changed, or several machines stand behind it. A forger's way is heard in its name only where he forges
/// handshakes too.
pub(super) fn is_of_a_known_way(case: &Case<'_>, reset: u8) -> bool {
    let path = case.flow.path.as_ref();
    path.is_some_and(|path| has_way(&path.hop_limits, reset))
}

/// The same of other addresses of its network, where all of it may have been routed anew.
pub(super) fn is_of_the_networks_way(case: &Case<'_>, reset: u8) -> bool {
    let path = case.flow.path.as_ref();
    path.is_some_and(|path| !path.prefix.is_crowded && has_way(&path.prefix.hop_limits, reset))
}

fn has_way(heard: &HopLimits, reset: u8) -> bool {
    heard
        .modes()
        .any(|mode| mode.count >= SEGMENTS_OF_WAY && mode.hop_limit.abs_diff(reset) <= 1)
}

/// Whether the reset bears another IPv6 flow label than the SYN or SYN-ACK: routers choose among equal ways
/// by it (RFC 6438), and Linux takes a new one when a retransmission times out (`tcp_write_timeout`,
/// `sk_rethink_txhash`), and for the answer of no socket (`tcp_v6_send_response`).
pub(super) fn has_another_label(case: &Case<'_>) -> bool {
    let of_syn = case.sender().and_then(|sender| sender.syn?.flow_label);
    let of_reset = case.first().and_then(|first| first.segment.flow_label);
    matches!((of_syn, of_reset), (Some(syn), Some(reset)) if syn != 0 && syn != reset)
}

#[cfg(test)]
mod tests {
    use crate::evidence::hop_limit::{distance, steady};
    use crate::evidence::testing::{Scene, name};

    #[test]
    fn a_way_that_other_flows_of_the_address_came_by_is_no_strangers() {
        let heard = |times: usize| {
            let mut scene = Scene::well_known(45);
            let path = scene.flow.path.as_mut().unwrap();
            (0..times).for_each(|_| path.hop_limits.note(46));
            scene
        };
        assert_eq!(heard(0).check(distance), name("hop_limit_mismatch"));
        assert_eq!(heard(0).check(steady), name("hop_limit_steady"));
        assert_eq!(heard(2).check(distance), name("hop_limit_mismatch"));
        assert_eq!(heard(3).check(distance), None);
        assert_eq!(heard(3).check(steady), None);
    }

    #[test]
    fn a_way_that_the_rest_of_the_network_came_by_leaves_the_mismatch_one_witness() {
        let mut scene = Scene::well_known(45);
        let prefix = &mut scene.flow.path.as_mut().unwrap().prefix;
        (0..3).for_each(|_| prefix.hop_limits.note(45));
        assert_eq!(scene.check(distance), name("hop_limit_mismatch"));
        assert_eq!(scene.check(steady), None);
        let path = scene.flow.path.as_mut().unwrap();
        path.prefix.is_crowded = true;
        assert_eq!(scene.check(steady), name("hop_limit_steady"));
    }

    #[test]
    fn another_flow_label_may_have_taken_another_way_but_not_a_far_one() {
        let labels = |reset: u8, label: u32| {
            Scene::well_known(reset)
                .v6()
                .sender(|s| s.syn.as_mut().unwrap().flow_label = Some(77))
                .reset(|r| r.flow_label = Some(label))
        };
        assert_eq!(labels(45, 78).check(steady), None);
        assert_eq!(labels(45, 77).check(steady), name("hop_limit_steady"));
        assert_eq!(labels(40, 78).check(steady), name("hop_limit_steady"));
    }
}

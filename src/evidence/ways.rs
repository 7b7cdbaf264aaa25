//! Ways by which the segments of one address come: what its other flows and its network show of them, and
//! what may choose another. Says nothing of who sent a reset; `hop_limit` and `link` ask.

use super::Case;
use super::basis::receiver_isn;
use crate::flow::{HalfFlow, HopLimits, SynFacts};
use crate::host::{SocketView, TcpState};
use crate::wire::SeqNum;

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

/// Whether the SYN at hand may be of another one than whoever sent the reset, and nothing but SYNs was heard in
/// that name: neither its hop limit nor its header says anything of the reset's sender.
pub(super) fn is_syn_anothers(case: &Case<'_>) -> bool {
    is_opened_by_proxy(case) || is_denied(case)
}

/// Whether the SYN at hand may be a proxy's, and nothing but SYNs was heard of its client: what that one sends
/// itself comes by its own hop limit, IP IDs and stack. Such a proxy opens connections to this host; or the SYN
/// bears an echo, which there is nothing for yet (RFC 7323 §3.2), as Linux' SYNPROXY writes it
/// (`synproxy_send_server_syn`; known in captures only, live the echo of a SYN is not kept).
pub(super) fn is_opened_by_proxy(case: &Case<'_>) -> bool {
    let (mut is_alone, mut has_echo) = (true, false);
    if let Some(sender) = case.sender() {
        let syn = lone_syn(sender);
        is_alone = syn.is_some();
        let stamps = syn.and_then(|syn| syn.options.timestamps);
        has_echo = stamps.is_some_and(|stamps| stamps.echo != 0);
    }
    is_alone && (has_echo || case.flow.path.is_some_and(|path| path.is_opened_by_proxy))
}

/// Whether the reset is what a kernel sends to a SYN-ACK that it did not ask for (RFC 9293 §3.10.7.1), so that
/// the SYN may have been written past it: by a scanner on that host, with a hop limit and header of its own
/// (nmap's are 37 to 59, without Don't Fragment), or by anybody in its name, for a flood or to have answers sent
/// there. An address is proven by who knows this host's ISN: a handshake that was completed, be it after the reset.
fn is_denied(case: &Case<'_>) -> bool {
    let (Some(first), Some(sender)) = (case.first(), case.sender()) else {
        return false;
    };
    let segment = &first.segment;
    let denies = !segment.flags.ack() && segment.window == 0;
    let is_of_syn = lone_syn(sender).is_some_and(|syn| segment.seq == syn.isn.plus(1));
    let state = first.socket.as_ref().and_then(SocketView::state);
    let is_open =
        case.flow.established || state.is_some_and(|s| s.is_connection() && s != TcpState::SynRecv);
    denies && is_of_syn && !is_open && !is_completed_later(case, sender)
}

/// Whether somebody who stands where the SYN came from acknowledges this host's ISN after the reset.
fn is_completed_later(case: &Case<'_>, sender: &HalfFlow) -> bool {
    let acknowledges = |ack: SeqNum| {
        let known = receiver_isn(case);
        known.is_none_or(|isn| (1..=NEAR_ISN).contains(&ack.bytes_since(isn)))
    };
    case.after.iter().any(|after| {
        let segment = &after.segment;
        let near = sender.hop_limits.nearest(segment.hop_limit);
        let is_there = near.is_some_and(|near| near.abs_diff(segment.hop_limit) <= 2);
        segment.flags.ack() && !segment.flags.syn() && is_there && acknowledges(segment.ack)
    })
}

/// What a client acknowledges within the moments after its handshake at most.
const NEAR_ISN: u32 = 1 << 20;

/// The SYN of an end of which nothing else was heard.
fn lone_syn(sender: &HalfFlow) -> Option<SynFacts> {
    let syn = sender.syn.filter(|syn| !syn.is_syn_ack);
    syn.filter(|syn| sender.segments <= u32::from(syn.count))
}

#[cfg(test)]
mod tests {
    use crate::evidence::hop_limit::{distance, steady};
    use crate::evidence::testing::{Scene, name};

    /// A peer at 50, known by nine segments and nine flows, whose reset comes from there.
    fn well_known(reset: u8) -> Scene {
        let scene = Scene::established().path_hop_limit(50);
        let mut scene = scene
            .sender(|s| s.segments = 9)
            .reset(|r| r.hop_limit = reset);
        let path = scene.flow.path.as_mut().unwrap();
        path.flows = 9;
        (1..9).for_each(|_| path.hop_limits.note(50));
        scene
    }

    #[test]
    fn a_way_that_other_flows_of_the_address_came_by_is_no_strangers() {
        let heard = |times: usize| {
            let mut scene = well_known(45);
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
        let mut scene = well_known(45);
        let prefix = &mut scene.flow.path.as_mut().unwrap().prefix;
        (0..3).for_each(|_| prefix.hop_limits.note(45));
        assert_eq!(scene.check(distance), name("hop_limit_mismatch"));
        assert_eq!(scene.check(steady), None);
        let path = scene.flow.path.as_mut().unwrap();
        path.prefix.is_crowded = true;
        assert_eq!(scene.check(steady), name("hop_limit_steady"));
    }

    #[test]
    fn a_syn_that_a_proxy_sent_tells_nothing_of_its_client() {
        use crate::evidence::{ip_id, stamps};
        let opened = |is_by_proxy: bool, more: u32| {
            let mut scene = well_known(31)
                .sender(|s| s.segments = 1 + more)
                .reset(|r| (r.ip_id, r.dont_fragment) = (Some(4_660), Some(false)))
                .reset(|r| r.options.timestamps = None);
            scene.flow.path.as_mut().unwrap().is_opened_by_proxy = is_by_proxy;
            [
                scene.check(distance),
                scene.check(steady),
                scene.check(ip_id::counter),
                scene.check(ip_id::dont_fragment),
                scene.check(stamps::timestamps_missing),
            ]
        };
        let all = [
            "hop_limit_mismatch",
            "hop_limit_steady",
            "ip_id_off_counter",
            "dont_fragment_flip",
            "timestamps_missing",
        ];
        assert_eq!(opened(false, 0), all.map(name));
        let weaker = name("timestamps_missing_unknown_stack");
        assert_eq!(opened(true, 0), [None, None, None, None, weaker]);
        // A segment that the client sent itself is a base.
        assert_eq!(opened(true, 1), all.map(name));
        let echoing = well_known(31).sender(|s| {
            let stamps = &mut s.syn.as_mut().unwrap().options.timestamps;
            (s.segments, stamps.as_mut().unwrap().echo) = (1, 84_844_826);
        });
        assert_eq!(echoing.check(distance), None);
        let syn_ack = well_known(31).sender(|s| s.syn.as_mut().unwrap().is_syn_ack = true);
        assert_eq!(syn_ack.check(distance), name("hop_limit_mismatch"));
    }

    #[test]
    fn another_flow_label_may_have_taken_another_way_but_not_a_far_one() {
        let labels = |reset: u8, label: u32| {
            well_known(reset)
                .v6()
                .sender(|s| s.syn.as_mut().unwrap().flow_label = Some(77))
                .reset(|r| r.flow_label = Some(label))
        };
        assert_eq!(labels(45, 78).check(steady), None);
        assert_eq!(labels(45, 77).check(steady), name("hop_limit_steady"));
        assert_eq!(labels(40, 78).check(steady), name("hop_limit_steady"));
    }
}

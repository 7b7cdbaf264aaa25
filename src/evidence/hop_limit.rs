//! The hop limit of the reset against that of the purported sender's other segments. It tells that
//! a segment came another way; it cannot tell a device that copies the hop limit from the peer. That a reset comes
//! from next door, whoever its sender is, is `next_door`'s.

use super::opener::{is_opened_by_proxy, is_syn_anothers};
use super::ways::{has_another_label, is_of_a_known_way, is_of_the_networks_way};
use super::{Case, Evidence, Group, Kind, Value};
use crate::amount::counted;
use crate::flow::{HopLimits, PrefixFacts};
use crate::wire::hop_limit::{hops, is_far};

/// Three or more away from everything that the sender showed, by value and by hops.
pub const MISMATCH: Kind = Kind::injected("hop_limit_mismatch", Group::HopLimit);
/// The same, but only other connections of the sender are known.
pub const PATH_MISMATCH: Kind = Kind::injected("hop_limit_path_mismatch", Group::HopLimit);
/// Another initial value and one or two hops: a device next to the peer.
pub const CLASS_NEAR: Kind = Kind::injected("hop_limit_class_near", Group::HopLimit);
/// Another initial value and the same number of hops: as often a second stack of the peer.
pub const CLASS_SAME: Kind = Kind::injected("hop_limit_class_same", Group::HopLimit);
/// That of the handshake, while all data since came from elsewhere: a load balancer speaks.
pub const HANDSHAKE_ONLY: Kind = Kind::injected("hop_limit_handshake_only", Group::HopLimit);
/// The sender's own hop limit, give or take one.
pub const MATCH: Kind = Kind::remote("hop_limit_match", Group::HopLimit);
/// The same, but only other connections of the sender are known.
pub const PATH_MATCH: Kind = Kind::remote("hop_limit_path_match", Group::HopLimit);
/// The same, but only other addresses of the sender's network are known, all at one distance.
pub const PREFIX_MISMATCH: Kind = Kind::injected("hop_limit_prefix_mismatch", Group::HopLimit);
/// That network's distance, give or take one.
pub const PREFIX_MATCH: Kind = Kind::remote("hop_limit_prefix_match", Group::HopLimit);
/// A mismatch with a distance that more than one witness had found always the same.
pub const STEADY: Kind = Kind::injected("hop_limit_steady", Group::HopLimit);

/// Up to this a hop limit was set on purpose (BGP with TTL 1, probes that are to die on the way)
/// and says nothing about a distance.
pub(super) const SET_ON_PURPOSE: u8 = 5;

/// Of whom a hop limit is known.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Source {
    Flow,
    Path,
    Prefix,
}

/// Flows of a network from which on it says something of an address that was never heard: one
/// alone may have been anybody's.
const FLOWS_OF_NETWORK: u32 = 3;

/// The hop limit to compare with: the nearest known mode of the sender in this flow; else what the
/// true peer sent after the reset; else what its address showed in other flows; else its network.
pub(super) fn base(case: &Case<'_>) -> Option<(u8, Source)> {
    let reset = case.first()?.segment.hop_limit;
    if let Some(known) = case
        .sender()
        .and_then(|sender| sender.hop_limits.nearest(reset))
    {
        return Some((known, Source::Flow));
    }
    let after = case.after.iter().map(|a| a.segment.hop_limit);
    if let Some(known) = after.min_by_key(|known| known.abs_diff(reset)) {
        return Some((known, Source::Flow));
    }
    let path = case.flow.path.as_ref()?;
    if let Some(known) = path.hop_limits.nearest(reset) {
        return Some((known, Source::Path));
    }
    let known = one_distance(&path.prefix)?.nearest(reset)?;
    Some((known, Source::Prefix))
}

/// The hop limits of a network all of whose addresses are equally far, give or take one hop.
fn one_distance(prefix: &PrefixFacts) -> Option<HopLimits> {
    let usual = prefix.hop_limits.usual()?;
    let even = prefix
        .hop_limits
        .modes()
        .all(|mode| hops(mode.hop_limit).abs_diff(hops(usual)) <= 1);
    let many = prefix.has_several && prefix.flows >= FLOWS_OF_NETWORK;
    (even && many && !prefix.is_crowded).then_some(prefix.hop_limits)
}

/// Whether the first reset's hop limit lies far from the sender's own, for other tests.
pub(super) fn reset_is_far(case: &Case<'_>) -> bool {
    let reset = case.first().map(|first| first.segment.hop_limit);
    let known = reset.and_then(|r| case.sender().and_then(|s| s.hop_limits.nearest(r)));
    !is_syn_anothers(case)
        && matches!((reset, known), (Some(reset), Some(known)) if is_far(reset, known))
}

/// E-H1 and E-H2: how far the reset's hop limit is from the sender's.
///
/// Measured over labeled captures: |Δ| ≥ 3 in 160 of 163 injected flows and 3 of 303 genuine ones,
/// these three all between initial values at one hop count; Raman et al., SIGCOMM 2023 §4.3: over
/// 99 % of unmatched connections have no large TTL jump, 95 % differ by at most 1.
///
/// False positives: a socket with its own TTL (GTSM, RFC 5082) next to a kernel reset with the
/// default one; a load balancer front whose SYN-ACK and resets come from different machines
/// (hence all known modes of the sender count); an anycast or ECMP shift of one or two hops
/// (hence nothing is said at 2); a route that changes under a connection, or a pool whose machines
/// answer from several distances (hence nothing is said where other flows of the address came by the
/// reset's way); a proxy before this host that answers SYNs with cookies and sends its own (hence nothing is
/// said of a SYN alone where connections are closed from elsewhere than they were opened from); a SYN that a
/// scanner or a stranger wrote, and the kernel of its address denies (silent); a network whose hosts stand at several distances (hence it speaks
/// only where all that was heard of it is equally far). False negatives: devices that copy the hop
/// limit.
#[must_use]
pub fn distance(case: &Case<'_>) -> Option<Evidence> {
    let reset = case.first()?.segment.hop_limit;
    let (kind, known) = distance_of(case)?;
    Some(kind.found(reset, expected(case, known)))
}

/// What [`distance`] finds, and the hop limit that the reset was held against.
fn distance_of(case: &Case<'_>) -> Option<(Kind, u8)> {
    let reset = case.first()?.segment.hop_limit;
    let (known, source) = base(case)?;
    let elsewhere = source != Source::Flow;
    let raw = reset.abs_diff(known);
    let kind = match raw {
        0 | 1 if source == Source::Prefix => PREFIX_MATCH,
        0 | 1 if elsewhere => PATH_MATCH,
        0 | 1 if is_handshake_only(case, known) => HANDSHAKE_ONLY,
        0 | 1 => MATCH,
        2 => return None,
        _ if is_opened_by_proxy(case) => return None,
        // One machine's program and kernel differ by the initial value alone.
        _ if is_far(reset, known) && is_syn_anothers(case) => return None,
        _ if known <= SET_ON_PURPOSE || reset <= SET_ON_PURPOSE && hops(known) == 0 => return None,
        _ if is_kernels_own(case, known, reset) => CLASS_SAME,
        _ if is_far(reset, known) && source == Source::Prefix => PREFIX_MISMATCH,
        _ if is_far(reset, known) && elsewhere => PATH_MISMATCH,
        _ if is_far(reset, known) && is_of_a_known_way(case, reset) => return None,
        _ if is_far(reset, known) => MISMATCH,
        // Other flows may have ended at another machine behind the same address.
        _ if elsewhere => return None,
        _ if hops(reset) == hops(known) => CLASS_SAME,
        _ => CLASS_NEAR,
    };
    Some((kind, known))
}

/// More hops than any route has: the initial value was none of the usual ones.
const NO_ROUTE: u8 = 33;

/// A program of the sender chose the hop limit of its socket (`IP_TTL`), and its kernel answers with the
/// usual one: what no socket sends goes out by the kernel's own (`ip_send_unicast_reply`, `ctl_sk`).
fn is_kernels_own(case: &Case<'_>, known: u8, reset: u8) -> bool {
    let is_answer = case.first().is_some_and(|first| {
        let segment = &first.segment;
        !segment.flags.ack() && segment.window == 0
    });
    is_answer && hops(known) >= NO_ROUTE && hops(reset) < NO_ROUTE
}

/// Flows of one address from which on its distance is known.
const WITNESSES: u32 = 3;
/// Hops between a load balancer that answers SYNs and a server behind it that resets: fewer.
const WIDE: u8 = 8;

/// E-H1 with a second witness: the reset is a mismatch, and all that is known of the sender, of
/// this flow and of its address's others, came over one number of hops, give or take one: two or
/// more segments of its own, or `WITNESSES` flows. A jump for one reset alone is then no route's.
///
/// False positives: a proxy or SYN-cookie device that answers the handshake while a server behind
/// it resets: where nothing but the answers to SYNs was seen, only `WIDE` jumps count, and so where an
/// IPv6 flow label chose another way; anycast and fronts with several distances, and a network of which
/// others were heard by the reset's way: silent; a route that changed while the connection slept, as one of a
/// pool does for hours: the segments of a sender that was silent for as long as makes an address unknown are no
/// witnesses, its other flows are; stacks with two initial values at one distance, and
/// hop limits set on purpose: no mismatch in the first place.
#[must_use]
pub fn steady(case: &Case<'_>) -> Option<Evidence> {
    let first = case.first()?;
    let reset = first.segment.hop_limit;
    // A mismatch is one that lies far away; nearly none does, which takes a look.
    base(case).filter(|(known, _)| is_far(reset, *known))?;
    let (mismatch, _) = distance_of(case)?;
    if mismatch != MISMATCH && mismatch != PATH_MISMATCH {
        return None;
    }
    let (sender, path) = (case.sender(), case.flow.path.as_ref());
    let usual = sender
        .and_then(|s| s.hop_limits.usual())
        .or_else(|| path?.hop_limits.usual())?;
    let known = [sender.map(|s| s.hop_limits), path.map(|p| p.hop_limits)];
    let steady = known
        .iter()
        .flatten()
        .flat_map(|limits| limits.modes())
        .all(|mode| hops(mode.hop_limit).abs_diff(hops(usual)) <= 1);
    // A SYN that was sent again is no second witness.
    let own = sender.map_or(0, |s| {
        let again = s
            .syn
            .map_or(0, |syn| u32::from(syn.count).saturating_sub(1));
        s.segments.saturating_sub(again)
    });
    let is_old = sender.is_some_and(|s| s.is_stale(first.time));
    let flows = path.map_or(0, |p| p.flows);
    if !steady || ((own < 2 || is_old) && flows < WITNESSES) {
        return None;
    }
    if is_of_the_networks_way(case, reset) {
        return None;
    }
    let wide = hops(reset).abs_diff(hops(usual)) >= WIDE;
    let is_routed_alike = !is_known_by_answers_only(case) && !has_another_label(case);
    (wide || is_routed_alike).then(|| {
        STEADY.found(
            reset,
            format!(
                "{usual} in {}, {}",
                counted(own.into(), "segment"),
                counted(flows.into(), "flow")
            ),
        )
    })
}

/// Nothing but SYN-ACKs was seen of the sender here, and nothing but the first segments of flows of
/// its address elsewhere.
fn is_known_by_answers_only(case: &Case<'_>) -> bool {
    let own = case.sender().is_none_or(|s| {
        s.syn
            .is_some_and(|syn| syn.is_syn_ack && s.segments <= u32::from(syn.count))
    });
    let elsewhere = case.flow.path.as_ref().is_none_or(|p| {
        let seen: u32 = p.hop_limits.modes().map(|m| u32::from(m.count)).sum();
        seen <= p.flows
    });
    own && elsewhere
}

/// Whether `known` is the hop limit of the sender's SYN and most of what it sent since came from far
/// elsewhere: a load balancer that answers the handshake and hands the rest to its servers, and
/// resets what it finds idle (seen at 231 beside 212 and 219, at 251 beside 52).
///
/// False positives: a socket with its own TTL after accept(): at one hop count; a few segments by a
/// second route: at least three, and twice as many as at `known`.
fn is_handshake_only(case: &Case<'_>, known: u8) -> bool {
    let Some(sender) = case.sender() else {
        return false;
    };
    let of_syn = sender.syn.is_some_and(|syn| syn.hop_limit == known);
    if !of_syn || sender.hop_limits.modes().nth(1).is_none() {
        // All that was seen of it is the hop limit at hand, or nothing was.
        return false;
    }
    let count_at = |want: bool| -> u32 {
        sender
            .hop_limits
            .modes()
            .filter(|m| is_far(m.hop_limit, known) == want && m.hop_limit > SET_ON_PURPOSE)
            .map(|m| u32::from(m.count))
            .sum()
    };
    let (here, elsewhere) = (count_at(false), count_at(true));
    elsewhere >= 3 && elsewhere >= 2 * here
}

fn expected(case: &Case<'_>, known: u8) -> Value {
    let modes = || case.sender().into_iter().flat_map(|s| s.hop_limits.modes());
    if modes().nth(1).is_none() {
        return known.into();
    }
    let mut others: Vec<u8> = modes().map(|m| m.hop_limit).collect();
    others.sort_unstable();
    let list: Vec<String> = others.iter().map(u8::to_string).collect();
    Value::from(list.join(", "))
}

#[cfg(test)]
mod tests {
    use super::{distance, steady};
    use crate::evidence::testing::{Scene, at_hops, at_ms, name};
    use crate::flow::PathFacts;

    #[test]
    fn a_far_reset_is_a_mismatch() {
        for (base, reset) in [(50, 96), (45, 128), (42, 27), (53, 229)] {
            assert_eq!(
                at_hops(base, reset).check(distance),
                name("hop_limit_mismatch")
            );
        }
    }

    #[test]
    fn the_senders_own_hop_limit_speaks_for_it() {
        for (base, reset) in [(63, 63), (50, 51), (50, 49)] {
            assert_eq!(
                at_hops(base, reset).check(distance),
                name("hop_limit_match")
            );
        }
    }

    #[test]
    fn two_hops_of_route_change_say_nothing() {
        assert_eq!(at_hops(50, 52).check(distance), None);
        assert_eq!(at_hops(50, 48).check(distance), None);
    }

    #[test]
    fn another_initial_value_is_told_apart_by_its_hops() {
        assert_eq!(
            at_hops(44, 237).check(distance),
            name("hop_limit_class_near")
        );
        // A front end that starts data at 128 and resets at 64.
        assert_eq!(
            at_hops(123, 59).check(distance),
            name("hop_limit_class_same")
        );
    }

    #[test]
    fn any_known_mode_of_the_sender_will_do() {
        let scene = at_hops(39, 231).sender(|s| s.hop_limits.note(231));
        assert_eq!(scene.check(distance), name("hop_limit_match"));
    }

    #[test]
    fn a_load_balancer_that_speaks_for_its_servers_is_told() {
        let behind = |others: u8, times: usize| {
            at_hops(231, 231).sender(|s| (0..times).for_each(|_| s.hop_limits.note(others)))
        };
        assert_eq!(
            behind(212, 5).check(distance),
            name("hop_limit_handshake_only")
        );
        assert_eq!(behind(212, 2).check(distance), name("hop_limit_match"));
        // One distance, another initial value; probes that are to die on the way.
        assert_eq!(behind(104, 5).check(distance), name("hop_limit_match"));
        assert_eq!(behind(3, 5).check(distance), name("hop_limit_match"));
    }

    #[test]
    fn a_hop_limit_set_on_purpose_is_no_distance() {
        assert_eq!(at_hops(1, 64).check(distance), None);
        assert_eq!(at_hops(3, 128).check(distance), None);
    }

    #[test]
    fn a_kernel_answers_with_a_hop_limit_of_its_own_where_a_program_chose_another() {
        // IP_TTL 100 at ten hops.
        assert_eq!(
            at_hops(90, 54).passive().check(distance),
            name("hop_limit_class_same")
        );
        assert_eq!(at_hops(90, 54).check(distance), name("hop_limit_mismatch"));
        assert_eq!(
            at_hops(54, 90).passive().check(distance),
            name("hop_limit_mismatch")
        );
    }

    #[test]
    fn without_a_baseline_the_peer_after_the_reset_serves() {
        let scene = Scene::established()
            .no_sender()
            .reset(|r| r.hop_limit = 100)
            .after(50, |s| s.hop_limit = 50);
        assert_eq!(scene.check(distance), name("hop_limit_mismatch"));
    }

    #[test]
    fn without_a_baseline_other_flows_of_the_address_serve_and_weigh_less() {
        let scene = Scene::established().no_sender().path_hop_limit(50);
        assert_eq!(
            scene.clone().reset(|r| r.hop_limit = 100).check(distance),
            name("hop_limit_path_mismatch")
        );
        assert_eq!(
            scene.clone().reset(|r| r.hop_limit = 50).check(distance),
            name("hop_limit_path_match")
        );
        assert_eq!(scene.reset(|r| r.hop_limit = 242).check(distance), None);
    }

    fn in_network(hop_limits: &[u8], reset: u8) -> Scene {
        let mut scene = Scene::established().no_sender().path_hop_limit(0);
        let path = scene.flow.path.as_mut().unwrap();
        *path = PathFacts::default();
        for hop_limit in hop_limits {
            path.prefix.hop_limits.note(*hop_limit);
            path.prefix.flows += 1;
        }
        path.prefix.has_several = true;
        scene.reset(|r| r.hop_limit = reset)
    }

    #[test]
    fn a_network_at_one_distance_speaks_for_addresses_never_heard() {
        let near = |reset| in_network(&[50, 114, 50], reset);
        assert_eq!(near(100).check(distance), name("hop_limit_prefix_mismatch"));
        assert_eq!(near(51).check(distance), name("hop_limit_prefix_match"));
        assert_eq!(near(242).check(distance), None);
        assert_eq!(near(100).check(steady), None, "hearsay is no witness");
    }

    #[test]
    fn a_network_that_is_hardly_known_or_uneven_says_nothing() {
        assert_eq!(in_network(&[50, 50], 100).check(distance), None);
        assert_eq!(in_network(&[50, 50, 47], 100).check(distance), None);
        let mut crowded = in_network(&[50, 50, 50], 100);
        crowded.flow.path.as_mut().unwrap().prefix.is_crowded = true;
        assert_eq!(crowded.check(distance), None);
        let mut one = in_network(&[50, 50, 50], 100);
        one.flow.path.as_mut().unwrap().prefix.has_several = false;
        assert_eq!(one.check(distance), None);
    }

    #[test]
    fn nothing_known_says_nothing() {
        assert_eq!(Scene::established().no_sender().check(distance), None);
    }

    fn seen_before(base: u8, reset: u8, segments: u32) -> Scene {
        at_hops(base, reset).sender(|s| s.segments = segments)
    }

    fn with_path(scene: Scene, flows: u32, count: u32) -> Scene {
        let mut scene = scene.path_hop_limit(50);
        let path = scene.flow.path.as_mut().unwrap();
        path.flows = flows;
        (1..count).for_each(|_| path.hop_limits.note(50));
        scene
    }

    fn answered_only(scene: Scene) -> Scene {
        scene.sender(|s| s.syn.as_mut().unwrap().is_syn_ack = true)
    }

    #[test]
    fn a_jump_off_a_steady_distance_has_two_witnesses() {
        let steadily = name("hop_limit_steady");
        assert_eq!(seen_before(50, 45, 2).check(steady), steadily);
        assert_eq!(seen_before(50, 45, 1).check(steady), None);
        let sent_again = |s: &mut crate::flow::HalfFlow| s.syn.as_mut().unwrap().count = 2;
        assert_eq!(
            seen_before(50, 45, 2).sender(sent_again).check(steady),
            None
        );
        assert_eq!(with_path(at_hops(50, 45), 3, 3).check(steady), steadily);
        assert_eq!(with_path(at_hops(50, 45), 2, 2).check(steady), None);
        let older = Scene::established().no_sender().reset(|r| r.hop_limit = 45);
        assert_eq!(with_path(older.clone(), 3, 4).check(steady), steadily);
        assert_eq!(with_path(older, 3, 3).check(steady), None);
    }

    #[test]
    fn what_was_heard_long_ago_is_no_witness() {
        let asleep = |seconds: u64| {
            let mut scene = seen_before(50, 45, 9);
            scene.resets[0].time = at_ms(1_900 + seconds * 1_000);
            scene
        };
        assert_eq!(asleep(899).check(steady), name("hop_limit_steady"));
        assert_eq!(asleep(900).check(steady), None);
        assert_eq!(asleep(900).check(distance), name("hop_limit_mismatch"));
        let others_awake = with_path(asleep(3_600), 3, 3);
        assert_eq!(others_awake.check(steady), name("hop_limit_steady"));
    }

    #[test]
    fn one_route_change_or_a_second_stack_is_no_jump() {
        assert_eq!(seen_before(50, 52, 9).check(steady), None);
        assert_eq!(seen_before(123, 59, 9).check(steady), None);
        assert_eq!(seen_before(1, 64, 9).check(steady), None);
    }

    #[test]
    fn an_address_at_several_distances_is_not_steady() {
        let anycast = seen_before(50, 40, 9).sender(|s| s.hop_limits.note(57));
        assert_eq!(anycast.check(steady), None);
        let mut elsewhere = with_path(at_hops(50, 40), 5, 9);
        let path = elsewhere.flow.path.as_mut().unwrap();
        path.hop_limits.note(57);
        assert_eq!(elsewhere.check(steady), None);
        // Two machines behind one address, at one distance.
        let two = seen_before(50, 40, 9).sender(|s| s.hop_limits.note(114));
        assert_eq!(two.check(steady), name("hop_limit_steady"));
    }

    #[test]
    fn a_proxy_that_answers_syns_for_servers_behind_it_is_no_jump() {
        let near = answered_only(with_path(at_hops(50, 45), 5, 5));
        assert_eq!(near.check(steady), None);
        let wide = answered_only(with_path(at_hops(50, 38), 5, 5));
        assert_eq!(wide.check(steady), name("hop_limit_steady"));
        // Servers that were heard closing come from the same distance.
        let closing = answered_only(with_path(at_hops(50, 45), 5, 6));
        assert_eq!(closing.check(steady), name("hop_limit_steady"));
    }
}

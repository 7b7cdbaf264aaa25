//! The layer below: MAC, VLAN and flow label of the reset against those of the sender's other
//! frames. An equal MAC proves nothing about anything beyond the gateway and is never counted.

use super::basis::is_active;
use super::hop_limit::reset_is_far;
use super::{Case, Evidence, Group, Kind};
use crate::flow::PathFacts;
use crate::time::SECOND;
use crate::wire::Mac;

/// Another MAC than the sender's frames, and that one is well established.
pub const MAC: Kind = Kind::injected("mac_mismatch", Group::Link);
/// Another MAC than both this flow's frames and all of its address's others, many and of late.
pub const MAC_STEADY: Kind = Kind::injected("mac_mismatch_steady", Group::Link);
/// Another MAC than the few frames that were seen.
pub const MAC_FEW: Kind = Kind::injected("mac_mismatch_few_seen", Group::Link);
/// Another VLAN.
pub const VLAN: Kind = Kind::injected("vlan_mismatch", Group::Link);
/// An active reset with another flow label.
pub const FLOW_LABEL: Kind = Kind::injected("flow_label_changed", Group::Link);

/// A MAC that this many frames of an address bore in a row is the way to it.
const SETTLED: u16 = 32;
/// With this many frames in a row, of [`STEADY_FLOWS`] flows or more, the flow and the address's
/// others are two witnesses.
const STEADY: u16 = 16;
const STEADY_FLOWS: u32 = 3;
/// A router that is silent for longer may have been replaced: VRRP takes 3 to 4 s for it (RFC 9568
/// §6.1, three advertisements and the skew), HSRP 10 s.
const REPLACED_NS: u64 = 3 * SECOND;

/// E-H16: source MAC. A device on this link (ARP or NDP spoofing, an IDS on a mirror port) answers
/// with its own. Snort 129:9 and 129:10.
///
/// A router that takes over with a MAC of its own makes genuine resets look so, many at once. It is no
/// stranger from the first handshakes on that it carries for the sender's network, or for many
/// others; before that the old one has fallen silent, so that nothing is steady unless the usual MAC
/// was heard just before; and a bare reset that may be an answer counts as such a takeover's. Nothing is
/// steady in captures, whose order of interfaces is not known.
///
/// False positives, each silent: VRRP and HSRP addresses move between routers; two routers share
/// the way back (ECMP, MLAG), so that other frames of the address or its network bore the reset's
/// MAC; a router's own frames in a capture of both its sides. Not so a neighbor's MAC, which carries
/// one address: that many hosts of a link are heard says nothing for any of them. An address that another
/// host took over while its connection slept: what the flow showed a quarter of an hour ago settles nothing,
/// as what an address did. Blind to a bridge
/// that keeps the MAC (`nf_send_reset`), and to a neighbor who forges handshakes first.
#[must_use]
pub fn mac(case: &Case<'_>) -> Option<Evidence> {
    let first = case.first()?;
    let seen = first.segment.link?.src;
    let sender = case.sender();
    let path = case.flow.path.as_ref();
    let usual = sender
        .and_then(|s| s.mac)
        .or_else(|| path.and_then(|p| p.mac))?;
    if seen == usual
        || path.is_some_and(|p| carries(p, seen))
        || seen.is_virtual_router()
        || usual.is_virtual_router()
    {
        return None;
    }
    // Loopback and captures without Ethernet have none.
    if seen == Mac::default() || usual == Mac::default() {
        return None;
    }
    // A capture of both sides of a router shows the sender's frames under two MACs.
    if case.from_capture && sender.is_some_and(|s| s.duplicates > 0) {
        return None;
    }
    let settled = path.is_some_and(|p| p.mac == Some(usual) && p.mac_count >= SETTLED)
        || sender.is_some_and(|s| s.mac_count >= SETTLED && !s.is_stale(first.time));
    let own = sender.is_some_and(|s| s.mac.is_some());
    let agreed = path.is_some_and(|p| is_steady(p, usual));
    let kind = match own {
        true if agreed && !case.from_capture && !may_answer(case) => MAC_STEADY,
        true if settled => MAC,
        _ => MAC_FEW,
    };
    Some(kind.found(seen.to_string(), usual.to_string()))
}

/// Whether genuine handshakes came by this MAC: of the address, its network, or many networks.
fn carries(path: &PathFacts, mac: Mac) -> bool {
    path.mac == Some(mac) || path.prefix.macs.contains(mac) || path.routers.contains(mac)
}

/// How long after this host's last segment a bare reset may be its answer: four round-trips of a long
/// way, or a retransmission that the first one's loss asked for (RFC 6298 §2.4, one second).
const ANSWER_NS: u64 = 2 * SECOND;

/// A bare reset soon after this host sent something. A host that takes an address over without warning
/// (a planned failover) answers its connections so, by its own MAC and before any handshake.
fn may_answer(case: &Case<'_>) -> bool {
    let Some(first) = case.first().filter(|first| !first.segment.flags.ack()) else {
        return false;
    };
    let sequence = first.socket.as_ref().and_then(|socket| socket.sequence());
    sequence.is_none_or(|sequence| {
        sequence.snd_una != sequence.write_seq
            || sequence.sent_ago_ns.is_none_or(|ago| ago < ANSWER_NS)
    })
}

/// Whether all that came of the address of late came by this MAC, which is still in use.
fn is_steady(path: &PathFacts, usual: Mac) -> bool {
    path.mac == Some(usual)
        && path.mac_count >= STEADY
        && path.flows >= STEADY_FLOWS
        && path
            .mac_silent_ns
            .is_some_and(|silent| silent < REPLACED_NS)
}

/// E-H17: VLAN. False positives: sub-interfaces of one bundle, policy routing; a capture of both
/// sides of a router or of an interface and its tagged parent: silent in captures.
#[must_use]
pub fn vlan(case: &Case<'_>) -> Option<Evidence> {
    let seen = case.first()?.segment.vlan;
    let sender = case.sender()?;
    if seen == sender.vlan || case.from_capture {
        return None;
    }
    let word = |vlan: Option<u16>| vlan.map_or_else(|| "untagged".to_owned(), |id| id.to_string());
    Some(VLAN.found(word(seen), word(sender.vlan)))
}

/// E-H18: Linux keeps the flow label of a connection in its active resets (not in passive ones:
/// silent there). No IPv6 injector was ever captured: a small weight.
///
/// False positives: label 0 (labels off, or cleared on the way): silent; a label that changes when
/// a path fails (`net.ipv6.auto_flowlabels`, RFC 6438 §3): rare. Silent where the hop limit changed as well,
/// since the label chooses the way: that is one sign, not two.
#[must_use]
pub fn flow_label(case: &Case<'_>) -> Option<Evidence> {
    let segment = &case.first()?.segment;
    let seen = segment.flow_label?;
    let usual = case
        .sender()?
        .syn
        .filter(|syn| !syn.is_syn_ack)?
        .flow_label?;
    let is_other = is_active(segment) && usual != 0 && seen != usual;
    (is_other && !reset_is_far(case)).then(|| FLOW_LABEL.found(seen, usual))
}

#[cfg(test)]
mod tests {
    use super::{flow_label, mac, vlan};
    use crate::evidence::testing::{SENDER_MAC, Scene, at_ms, name};
    use crate::flow::PathFacts;
    use crate::time::SECOND;
    use crate::wire::{LinkAddresses, Mac};

    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 9]);

    fn from(src: Mac) -> Scene {
        Scene::established().reset(|r| r.link = Some(LinkAddresses { src, dst: None }))
    }

    fn path(mut scene: Scene, mac: Mac, mac_count: u16) -> Scene {
        scene.flow.path = Some(PathFacts {
            mac: Some(mac),
            mac_count,
            mac_silent_ns: Some(SECOND / 10),
            flows: 9,
            ..PathFacts::default()
        });
        scene
    }

    #[test]
    fn a_foreign_mac_weighs_by_how_settled_the_usual_one_is() {
        assert_eq!(from(OTHER).check(mac), name("mac_mismatch_few_seen"));
        assert_eq!(
            path(from(OTHER), SENDER_MAC, 100).check(mac),
            name("mac_mismatch")
        );
        assert_eq!(
            from(OTHER).sender(|s| s.mac_count = 40).check(mac),
            name("mac_mismatch")
        );
    }

    #[test]
    fn a_mac_that_was_usual_long_ago_is_not_settled() {
        let asleep = |seconds: u64| {
            let mut scene = from(OTHER).sender(|s| s.mac_count = 40);
            scene.resets[0].time = at_ms(1_900 + seconds * 1_000);
            scene
        };
        assert_eq!(asleep(899).check(mac), name("mac_mismatch"));
        assert_eq!(asleep(900).check(mac), name("mac_mismatch_few_seen"));
        let others_awake = path(asleep(900), SENDER_MAC, 100);
        assert_eq!(others_awake.check(mac), name("mac_mismatch"));
    }

    #[test]
    fn the_flow_and_its_addresss_others_are_two_witnesses() {
        let live = |count| path(from(OTHER).socket(|_| ()), SENDER_MAC, count).check(mac);
        assert_eq!(live(16), name("mac_mismatch_steady"));
        assert_eq!(live(15), name("mac_mismatch_few_seen"));
        let older = path(from(OTHER).socket(|_| ()).no_sender(), SENDER_MAC, 99);
        assert_eq!(older.check(mac), name("mac_mismatch_few_seen"));
    }

    #[test]
    fn the_usual_mac_is_never_counted() {
        assert_eq!(from(SENDER_MAC).check(mac), None);
    }

    #[test]
    fn virtual_routers_move() {
        assert_eq!(from(Mac([0, 0, 0x5e, 0, 1, 7])).check(mac), None);
        let moved = from(OTHER).sender(|s| s.mac = Some(Mac([0, 0, 0x0c, 7, 0xac, 1])));
        assert_eq!(moved.check(mac), None);
    }

    #[test]
    fn a_second_router_of_the_path_is_no_stranger() {
        assert_eq!(path(from(OTHER), OTHER, 3).check(mac), None);
    }

    fn known(change: impl FnOnce(&mut PathFacts)) -> Scene {
        let mut scene = path(from(OTHER).socket(|_| ()), SENDER_MAC, 99);
        change(scene.flow.path.as_mut().unwrap());
        scene
    }

    #[test]
    fn a_mac_that_carries_other_handshakes_is_no_stranger() {
        assert_eq!(known(|_| ()).check(mac), name("mac_mismatch_steady"));
        let of_network = known(|p| p.prefix.macs.insert(OTHER));
        assert_eq!(of_network.check(mac), None);
        assert_eq!(known(|p| p.routers.insert(OTHER)).check(mac), None);
        let another = known(|p| p.prefix.macs.insert(SENDER_MAC));
        assert_eq!(another.check(mac), name("mac_mismatch_steady"));
    }

    #[test]
    fn a_router_that_fell_silent_may_have_been_replaced() {
        let silent = |ns| known(|p| p.mac_silent_ns = Some(ns)).check(mac);
        assert_eq!(silent(2 * SECOND), name("mac_mismatch_steady"));
        assert_eq!(silent(4 * SECOND), name("mac_mismatch"));
    }

    #[test]
    fn who_takes_an_address_over_answers_by_its_own_mac() {
        let bare = |sent_ago_ns, unacked| {
            let scene = Scene::established().passive().socket(|s| {
                s.sent_ago_ns = sent_ago_ns;
                s.write_seq = s.snd_una.plus(unacked);
            });
            let link = LinkAddresses {
                src: OTHER,
                dst: None,
            };
            path(scene.reset(|r| r.link = Some(link)), SENDER_MAC, 99).check(mac)
        };
        assert_eq!(bare(Some(SECOND / 10), 0), name("mac_mismatch"));
        assert_eq!(bare(Some(9 * SECOND), 1), name("mac_mismatch"));
        assert_eq!(bare(None, 0), name("mac_mismatch"));
        assert_eq!(bare(Some(9 * SECOND), 0), name("mac_mismatch_steady"));
    }

    #[test]
    fn a_capture_of_both_sides_of_a_router_says_nothing() {
        assert_eq!(from(OTHER).sender(|s| s.duplicates = 1).check(mac), None);
    }

    #[test]
    fn loopback_has_no_macs() {
        assert_eq!(from(Mac::default()).check(mac), None);
    }

    #[test]
    fn another_vlan_counts_where_the_interface_is_known() {
        let live = Scene::established().socket(|_| ());
        assert_eq!(live.check(vlan), None);
        assert_eq!(
            live.reset(|r| r.vlan = Some(5)).check(vlan),
            name("vlan_mismatch")
        );
        let captured = Scene::established().reset(|r| r.vlan = Some(5));
        assert_eq!(captured.check(vlan), None);
    }

    fn labels(syn: u32, reset: u32) -> Scene {
        Scene::established()
            .v6()
            .sender(|s| s.syn.as_mut().unwrap().flow_label = Some(syn))
            .reset(|r| r.flow_label = Some(reset))
    }

    #[test]
    fn an_active_reset_keeps_the_flow_label() {
        assert_eq!(labels(77, 78).check(flow_label), name("flow_label_changed"));
        assert_eq!(labels(77, 77).check(flow_label), None);
        assert_eq!(labels(0, 78).check(flow_label), None);
        assert_eq!(labels(77, 78).passive().check(flow_label), None);
        let routed_anew = labels(77, 78).reset(|r| r.hop_limit = 45);
        assert_eq!(routed_anew.check(flow_label), None);
    }
}

//! The judging of interface facts, without the interfaces.

use super::super::{Outcome, Refusal};
use super::*;
use crate::nic::{Features, XdpFeatures};
use crate::sys::netlink::{Link, XdpProgram};
use crate::wire::Mac;

fn nic() -> InterfaceFacts {
    let link = Link {
        ifindex: 4,
        name: "eth0".to_owned(),
        is_ethernet: true,
        is_up: true,
        has_carrier: true,
        mac: Some(Mac([2; 6])),
        mtu: 1500,
        ..Link::default()
    };
    let xdp_features = Some(XdpFeatures {
        is_native: true,
        can_redirect: true,
        has_zero_copy: true,
        has_multi_buffer: false,
    });
    let interface = Interface {
        link,
        driver: Some("ice".to_owned()),
        rx_queue_count: 4,
        xdp_features,
        ..Interface::default()
    };
    InterfaceFacts {
        interface,
        is_watched: None,
        pair_name_taken: None,
        may_lock_memory: true,
        routes_by_hash: false,
    }
}

fn neighbor(name: &str, kind: &str) -> Neighbor {
    Neighbor {
        ifindex: 9,
        name: name.to_owned(),
        kind: Some(kind.to_owned()),
    }
}

fn find(facts: &InterfaceFacts, mode: Mode, name: &str) -> Option<Check> {
    facts
        .checks(mode)
        .into_iter()
        .find(|check| check.name == name)
}

#[test]
fn a_plain_interface_is_good_throughout() {
    for mode in [Mode::Inline, Mode::Mirror] {
        let checks = nic().checks(mode);
        assert!(
            checks.iter().all(|c| c.outcome == Outcome::Good),
            "{checks:#?}"
        );
    }
}

#[test]
fn a_bond_is_refused_with_its_slaves_as_the_remedy() {
    let mut facts = nic();
    facts.interface.link.kind = Some("bond".to_owned());
    facts.interface.ports = vec![neighbor("eth1", ""), neighbor("eth2", "")];
    let checks = facts.checks(Mode::Inline);
    assert_eq!(checks.len(), 1);
    let text = "eth0 is a bond: frames arrive at its slaves' queues; use --iface eth1 --iface eth2";
    assert_eq!(Refusal::of(&checks).unwrap().to_string(), text);
    assert_eq!(Refusal::of(&facts.checks(Mode::Mirror)), None);
}

#[test]
fn a_slave_is_fine_and_says_where_frames_go() {
    let mut facts = nic();
    facts.interface.master = Some(neighbor("bond0", "bond"));
    let check = find(&facts, Mode::Inline, "link").unwrap();
    assert_eq!(check.outcome, Outcome::Good);
    assert!(check.sentence.contains("bond0 (bond)"), "{check}");
}

#[test]
fn links_without_queues_point_to_the_one_below() {
    for kind in ["vlan", "macvlan", "ipvlan", "macsec"] {
        let mut facts = nic();
        facts.interface.link.kind = Some(kind.to_owned());
        facts.interface.lower = Some(neighbor("eth7", "x"));
        let check = find(&facts, Mode::Inline, "link").unwrap();
        assert!(check.is_bad(), "{kind}");
        assert_eq!(check.remedy.as_deref(), Some("use --iface eth7"), "{kind}");
    }
}

#[test]
fn loopback_and_what_is_not_ethernet_are_refused_in_both_modes() {
    let mut loopback = nic();
    loopback.interface.link.is_loopback = true;
    let mut tunnel = nic();
    tunnel.interface.link.is_ethernet = false;
    for facts in [loopback, tunnel] {
        for mode in [Mode::Inline, Mode::Mirror] {
            assert!(find(&facts, mode, "link").unwrap().is_bad());
        }
    }
}

#[test]
fn a_taken_slot_names_the_program_and_both_ways_out() {
    let mut facts = nic();
    facts.interface.link.xdp = Some(XdpProgram {
        mode: XdpMode::Generic,
        program_id: Some(7),
    });
    let check = find(&facts, Mode::Inline, "xdp slot").unwrap();
    assert!(check.is_bad());
    assert_eq!(
        check.sentence,
        "eth0 has a generic XDP program (id 7) already"
    );
    let remedy = check.remedy.unwrap();
    assert!(
        remedy.contains("ip link set dev eth0 xdpgeneric off"),
        "{remedy}"
    );
    assert!(remedy.contains("--mode mirror"), "{remedy}");
    assert_eq!(
        find(&facts, Mode::Mirror, "xdp slot").unwrap().outcome,
        Outcome::Warn
    );
}

#[test]
fn what_a_running_sensor_holds_is_no_fault() {
    let mut facts = nic();
    facts.interface.link.xdp = Some(XdpProgram {
        mode: XdpMode::Native,
        program_id: Some(7),
    });
    facts.pair_name_taken = Some(("rstx4".to_owned(), true));
    facts.is_watched = Some(true);
    assert_eq!(Refusal::of(&facts.checks(Mode::Inline)), None);
    assert_eq!(
        find(&facts, Mode::Inline, "lock").unwrap().outcome,
        Outcome::Warn
    );
    facts.is_watched = Some(false);
    assert!(find(&facts, Mode::Inline, "xdp slot").unwrap().is_bad());
    assert_eq!(
        find(&facts, Mode::Inline, "hand-back").unwrap().outcome,
        Outcome::Warn
    );
}

#[test]
fn vlan_links_need_the_tag_in_the_frame() {
    let mut facts = nic();
    facts.interface.features = Features {
        rx_vlan: Some(true),
        ..Features::default()
    };
    assert_eq!(
        find(&facts, Mode::Inline, "vlan"),
        None,
        "nobody needs tags"
    );
    facts.interface.tag_readers = vec![neighbor("eth0.5", "vlan")];
    let check = find(&facts, Mode::Inline, "vlan").unwrap();
    assert!(
        check.is_bad() && check.sentence.ends_with("lost to eth0.5"),
        "{check}"
    );
    assert_eq!(check.remedy.as_deref(), Some("ethtool -K eth0 rxvlan off"));
    assert!(facts.interface.loses_tags());
    assert!(!find(&facts, Mode::Mirror, "vlan").unwrap().is_bad());
    facts.interface.features.rx_vlan = Some(false);
    assert_eq!(
        find(&facts, Mode::Inline, "vlan").unwrap().outcome,
        Outcome::Good
    );
    assert!(!facts.interface.loses_tags());
}

#[test]
fn guests_that_may_read_tags_are_warned_of() {
    let mut facts = nic();
    facts.interface.features.rx_vlan = Some(true);
    for is_bridge in [true, false] {
        facts.interface.master = is_bridge.then(|| neighbor("br0", "bridge"));
        facts.interface.uppers = vec![neighbor("mv0", "macvlan")];
        assert!(!facts.interface.loses_tags());
        let check = find(&facts, Mode::Inline, "vlan").unwrap();
        assert_eq!(check.outcome, Outcome::Warn, "{check}");
        assert_eq!(check.sentence.contains("mv0, br0"), is_bridge, "{check}");
        assert_eq!(find(&facts, Mode::Mirror, "vlan"), None);
    }
    facts.interface.features.rx_vlan = Some(false);
    assert_eq!(find(&facts, Mode::Inline, "vlan"), None);
}

#[test]
fn a_veth_keeps_tags_when_its_peer_puts_them_in() {
    let mut facts = nic();
    facts.interface.link.kind = Some("veth".to_owned());
    facts.interface.tag_readers = vec![neighbor("eth0.5", "vlan")];
    for (rx_vlan, outcome) in [(true, Outcome::Bad(Fault::Host)), (false, Outcome::Warn)] {
        facts.interface.features.rx_vlan = Some(rx_vlan);
        let check = find(&facts, Mode::Inline, "vlan").unwrap();
        assert_eq!(check.outcome, outcome, "{check}");
        let remedy = check.remedy.unwrap();
        assert!(remedy.starts_with("ethtool -K PEER txvlan off"), "{remedy}");
    }
}

#[test]
fn native_support_comes_from_the_kernel_then_from_the_list_then_from_trying() {
    let mut facts = nic();
    facts.interface.xdp_features = None;
    assert_eq!(
        find(&facts, Mode::Inline, "native xdp").unwrap().outcome,
        Outcome::Good
    );
    facts.interface.driver = Some("e1000e".to_owned());
    assert_eq!(
        find(&facts, Mode::Inline, "native xdp").unwrap().outcome,
        Outcome::Warn
    );
    facts.interface.xdp_features = Some(XdpFeatures {
        is_native: false,
        can_redirect: false,
        has_zero_copy: false,
        has_multi_buffer: false,
    });
    assert!(find(&facts, Mode::Inline, "native xdp").unwrap().is_bad());
    assert_eq!(find(&facts, Mode::Mirror, "native xdp"), None);
}

#[test]
fn frames_longer_than_a_chunk_are_warned_of_and_no_sooner() {
    let mut facts = nic();
    facts.interface.link.mtu = FRAME_BYTES_MAX - LINK_HEADER_BYTES;
    assert_eq!(
        find(&facts, Mode::Inline, "mtu").unwrap().outcome,
        Outcome::Good
    );
    facts.interface.link.mtu += 1;
    assert_eq!(
        find(&facts, Mode::Inline, "mtu").unwrap().outcome,
        Outcome::Warn
    );
}

#[test]
fn a_link_that_is_down_is_refused() {
    let mut facts = nic();
    facts.interface.link.is_up = false;
    let check = find(&facts, Mode::Mirror, "state").unwrap();
    assert_eq!(check.to_string(), "eth0 is down; ip link set dev eth0 up");
    assert!(check.is_bad());
}

#[test]
fn a_strangers_link_with_our_name_is_refused() {
    let mut facts = nic();
    facts.pair_name_taken = Some(("rstx4".to_owned(), false));
    assert!(find(&facts, Mode::Inline, "hand-back").unwrap().is_bad());
    assert_eq!(find(&facts, Mode::Mirror, "hand-back"), None);
}

#[test]
fn memory_that_may_not_be_locked_is_told_in_mib() {
    let facts = InterfaceFacts {
        may_lock_memory: false,
        ..nic()
    };
    let check = find(&facts, Mode::Inline, "memlock").unwrap();
    assert!(check.sentence.contains("32 MiB"), "{check}");
}

#[test]
fn next_hops_that_are_chosen_by_ports_are_told_inline_alone() {
    let facts = InterfaceFacts {
        routes_by_hash: true,
        ..nic()
    };
    let check = find(&facts, Mode::Inline, "next hops").unwrap();
    assert!(check.sentence.contains("judged by copies"), "{check}");
    assert_eq!(find(&facts, Mode::Mirror, "next hops"), None);
    assert_eq!(find(&nic(), Mode::Inline, "next hops"), None);
}

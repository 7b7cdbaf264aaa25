//! Resets whose hop limit says that they were made on this link or right behind it, while their sender is far
//! away. What is known of the sender's own hop limit is `hop_limit`'s.

use std::net::{IpAddr, Ipv4Addr};

use super::hop_limit::{SET_ON_PURPOSE, Source, base};
use super::opener::is_syn_anothers;
use super::{Case, Evidence, Group, Kind};
use crate::wire::hop_limit::{hops, initial_hop_limit};

/// The reset comes from at most one hop away, the sender does not.
pub const ADJACENT: Kind = Kind::injected("hop_limit_adjacent", Group::HopLimit);
/// From a public address to a private one without a single hop: the NAT between made it.
pub const NO_HOPS: Kind = Kind::injected("hop_limit_zero_across_nat", Group::HopLimit);

/// E-H20: the reset comes from this link or the next router (hop limit 255, 254, 128, 127, 64, 63),
/// the sender from more than three hops away: a gateway, NAT or load balancer next to the sensor.
///
/// Seen at VirtualBox NAT (255 where relayed traffic has 64), home gateways (255 where the peer has
/// 53), cloud NAT. False positive: a sender with its own TTL next door: silent when the sender's
/// hop limit was set on purpose or when it lies within two of the reset's.
#[must_use]
pub fn adjacent(case: &Case<'_>) -> Option<Evidence> {
    let reset = case.first()?.segment.hop_limit;
    if initial_hop_limit(reset) < 64 || hops(reset) > 1 {
        return None;
    }
    let (known, source) = base(case)?;
    let fires = source == Source::Flow
        && !is_syn_anothers(case)
        && known > SET_ON_PURPOSE
        && hops(known) > 3
        && reset.abs_diff(known) >= 3;
    fires.then(|| ADJACENT.found(hops(reset), hops(known)))
}

/// A reset from a public IPv4 address reaches a private one (RFC 1918) with an initial hop limit:
/// some NAT lies between and every router takes one (RFC 1812 §5.3.1), so the NAT itself or
/// something behind it sent the reset. Seen at VirtualBox' NAT, which refuses SYNs for the world.
///
/// False positives: a user-mode NAT sends all that it relays with its own hop limit: silent where
/// the sender's other segments have no hops either, in this flow or others.
#[must_use]
pub fn no_hops(case: &Case<'_>) -> Option<Evidence> {
    let segment = &case.first()?.segment;
    let (IpAddr::V4(from), IpAddr::V4(to)) = (segment.tuple.src, segment.tuple.dst) else {
        return None;
    };
    let reset = segment.hop_limit;
    let bare = hops(reset) == 0 && initial_hop_limit(reset) >= 64;
    let near = |known: u8| hops(known) == 0;
    let usual = || base(case).is_some_and(|(known, _)| near(known));
    (bare && is_public(from) && to.is_private() && !usual()).then(|| NO_HOPS.found(reset, "hops"))
}

fn is_public(address: Ipv4Addr) -> bool {
    // RFC 6598 (carrier NAT) and RFC 2544 (benchmarks) have no stable method in std.
    let [a, b, ..] = address.octets();
    let shared = a == 100 && b & 0xc0 == 64;
    let benchmark = a == 198 && b & 0xfe == 18;
    !(shared
        || benchmark
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast()
        || address.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::{adjacent, no_hops};
    use crate::evidence::testing::{Scene, at_hops, name};

    fn from_public(hop_limit: u8) -> Scene {
        Scene::refused().reset(|r| {
            r.hop_limit = hop_limit;
            r.tuple.src = "61.238.173.128".parse().unwrap();
        })
    }

    #[test]
    fn a_public_address_cannot_be_no_hops_from_a_private_one() {
        for hop_limit in [64, 128, 255] {
            let scene = from_public(hop_limit);
            assert_eq!(scene.check(no_hops), name("hop_limit_zero_across_nat"));
        }
        assert_eq!(from_public(54).check(no_hops), None);
        assert_eq!(
            Scene::refused().reset(|r| r.hop_limit = 64).check(no_hops),
            None
        );
    }

    #[test]
    fn a_nat_that_makes_every_segment_anew_is_no_sign() {
        assert_eq!(from_public(255).path_hop_limit(64).check(no_hops), None);
    }

    #[test]
    fn addresses_for_laboratories_are_not_public() {
        for src in ["203.0.113.9", "198.18.0.1", "100.64.3.3", "172.16.0.9"] {
            let scene = from_public(64).reset(|r| r.tuple.src = src.parse().unwrap());
            assert_eq!(scene.check(no_hops), None, "{src}");
        }
    }

    #[test]
    fn a_hop_limit_set_on_purpose_is_far_from_nobody() {
        assert_eq!(at_hops(1, 64).check(adjacent), None);
    }

    #[test]
    fn a_reset_from_the_next_router_is_adjacent_unless_the_sender_is_too() {
        assert_eq!(at_hops(53, 255).check(adjacent), name("hop_limit_adjacent"));
        assert_eq!(at_hops(64, 255).check(adjacent), None);
        assert_eq!(at_hops(61, 64).check(adjacent), None);
        assert_eq!(at_hops(53, 96).check(adjacent), None);
    }
}

//! The netlink requests that make, change and remove a hand-back pair, as bytes. No input or
//! output here.

use crate::sys::netlink::filter::{bpf_filter, traffic};
use crate::sys::netlink::{Body, attributes, find, read_u32, uapi};
use crate::wire::Mac;

/// Priority of our only filter on each side.
const PRIORITY: u32 = 1;

/// `struct sock_filter` of one instruction: `BPF_RET | BPF_K`.
const CLASSIC_RETURN: u16 = 0x06;

/// What both ends of a new pair are.
#[derive(Debug, Clone, Copy)]
pub(super) struct PairShape<'a> {
    pub(super) transmit_name: &'a str,
    pub(super) transmit_mac: Mac,
    pub(super) inject_name: &'a str,
    /// The interface's address: the stack then sorts a frame (for us, for others, for all) at the
    /// injecting end exactly as it would have at the interface.
    pub(super) inject_mac: Mac,
    pub(super) mtu: u32,
    pub(super) queue_count: u32,
}

/// RTM_NEWLINK: both ends at once, down, without ARP.
pub(super) fn new_pair(shape: &PairShape<'_>) -> Body {
    let end = |name: &str| {
        Body::link(0, uapi::IFF_NOARP, uapi::IFF_NOARP | uapi::IFF_UP)
            .string(uapi::IFLA_IFNAME, name)
            .u32(uapi::IFLA_MTU, shape.mtu)
            .u32(uapi::IFLA_NUM_TX_QUEUES, shape.queue_count)
            .u32(uapi::IFLA_NUM_RX_QUEUES, shape.queue_count)
    };
    let peer = end(shape.inject_name).attr(uapi::IFLA_ADDRESS, &shape.inject_mac.0);
    let info = Body::default().string(uapi::IFLA_INFO_KIND, "veth").nest(
        uapi::IFLA_INFO_DATA,
        Body::default().nest(uapi::VETH_INFO_PEER, peer),
    );
    end(shape.transmit_name)
        .attr(uapi::IFLA_ADDRESS, &shape.transmit_mac.0)
        .nest(uapi::IFLA_LINKINFO, info)
}

/// RTM_SETLINK: the alias by which a later run knows the pair as ours.
pub(super) fn alias(ifindex: u32, alias: &str) -> Body {
    Body::link(ifindex, 0, 0).string(uapi::IFLA_IFALIAS, alias)
}

/// RTM_SETLINK: IPv6 makes itself no link-local address here.
pub(super) fn no_ipv6_address(ifindex: u32) -> Body {
    let inet6 = Body::default().attr(
        uapi::IFLA_INET6_ADDR_GEN_MODE,
        &[uapi::IN6_ADDR_GEN_MODE_NONE],
    );
    let family = u16::try_from(libc::AF_INET6).unwrap_or(10);
    Body::link(ifindex, 0, 0).nest(uapi::IFLA_AF_SPEC, Body::default().nest(family, inet6))
}

/// RTM_SETLINK: up.
pub(super) fn up(ifindex: u32) -> Body {
    Body::link(ifindex, uapi::IFF_UP, uapi::IFF_UP)
}

/// RTM_SETLINK: another MAC address.
pub(super) fn mac(ifindex: u32, mac: Mac) -> Body {
    Body::link(ifindex, 0, 0).attr(uapi::IFLA_ADDRESS, &mac.0)
}

/// RTM_NEWQDISC: `clsact`, which holds filters and no queue.
pub(super) fn clsact(ifindex: u32) -> Body {
    traffic(
        ifindex,
        uapi::TC_H_CLSACT & 0xFFFF_0000,
        uapi::TC_H_CLSACT,
        0,
    )
    .string(uapi::TCA_KIND, "clsact")
}

/// RTM_NEWTFILTER on ingress: the classifier, then mirred to the interface's ingress.
///
/// Not direct action: mirred calls `netif_receive_skb` at once, where `bpf_redirect` would queue
/// the frame a second time; and it marks the frame as redirected, which keeps a generic XDP
/// program from seeing it again and again (net/sched/act_mirred.c, net/core/dev.c).
pub(super) fn give_to(ifindex: u32, nic_ifindex: u32, classifier_fd: u32) -> Body {
    let mirred = Body::default().string(uapi::TCA_ACT_KIND, "mirred").nest(
        uapi::TCA_ACT_OPTIONS,
        Body::default().attr(uapi::TCA_MIRRED_PARMS, &mirred(nic_ifindex)),
    );
    let options = Body::default()
        .u32(uapi::TCA_BPF_FD, classifier_fd)
        .string(uapi::TCA_BPF_NAME, "rstscope_handback")
        .nest(uapi::TCA_BPF_ACT, Body::default().nest(1, mirred));
    filter(ifindex, uapi::TC_H_MIN_INGRESS).nest(uapi::TCA_OPTIONS, options)
}

/// RTM_NEWTFILTER on egress: drop. The host's own chatter (MLD, mDNS, DHCP clients) must not
/// cross the pair and come in at the interface as if from the wire; AF_XDP's transmit does not
/// pass here (`__dev_direct_xmit`).
pub(super) fn drop_egress(ifindex: u32) -> Body {
    let mut instruction = [0_u8; 8];
    instruction[..2].copy_from_slice(&CLASSIC_RETURN.to_ne_bytes());
    instruction[4..].copy_from_slice(&uapi::TC_ACT_SHOT.to_ne_bytes());
    let options = Body::default()
        .attr(uapi::TCA_BPF_OPS_LEN, &1_u16.to_ne_bytes())
        .attr(uapi::TCA_BPF_OPS, &instruction)
        .u32(uapi::TCA_BPF_FLAGS, uapi::TCA_BPF_FLAG_ACT_DIRECT);
    filter(ifindex, uapi::TC_H_MIN_EGRESS).nest(uapi::TCA_OPTIONS, options)
}

/// RTM_GETTFILTER of the ingress filters.
pub(super) fn ask_filters(ifindex: u32) -> Body {
    traffic(ifindex, 0, uapi::TC_H_MIN_INGRESS, 0)
}

/// What the mirred action counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct ActionCounts {
    pub(super) packets: u64,
    pub(super) overlimits: u64,
}

/// The counts in an RTM_NEWTFILTER answer; `None` in one that has no action (a chain's head).
pub(super) fn action_counts(body: &[u8]) -> Option<ActionCounts> {
    let options = find(body.get(20..)?, uapi::TCA_OPTIONS)?;
    let actions = find(options, uapi::TCA_BPF_ACT)?;
    let (_, action) = attributes(actions).next()?;
    let stats = find(action, uapi::TCA_ACT_STATS)?;
    // struct gnet_stats_basic: bytes, then 32 bits of packets; the rest of 64 bits stands in its
    // own attribute once they do not suffice.
    let basic = find(stats, uapi::TCA_STATS_BASIC)?;
    let wide = find(stats, uapi::TCA_STATS_PKT64)
        .and_then(|b| b.first_chunk())
        .map(|b| u64::from_ne_bytes(*b));
    let packets = wide.or_else(|| basic.get(8..).and_then(read_u32).map(u64::from))?;
    // struct gnet_stats_queue: qlen, backlog, drops, requeues, overlimits.
    let overlimits = find(stats, uapi::TCA_STATS_QUEUE)
        .and_then(|queue| read_u32(queue.get(16..)?))
        .map_or(0, u64::from);
    Some(ActionCounts {
        packets,
        overlimits,
    })
}

fn filter(ifindex: u32, parent: u32) -> Body {
    bpf_filter(ifindex, 0, parent, PRIORITY)
}

/// `struct tc_mirred`: index, capab, action, refcnt, bindcnt, eaction, ifindex.
fn mirred(nic_ifindex: u32) -> [u8; 28] {
    let mut parms = [0_u8; 28];
    parms[8..12].copy_from_slice(&uapi::TC_ACT_STOLEN.to_ne_bytes());
    parms[20..24].copy_from_slice(&uapi::TCA_INGRESS_REDIR.to_ne_bytes());
    parms[24..].copy_from_slice(&nic_ifindex.to_ne_bytes());
    parms
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::netlink::read_text;

    #[test]
    fn a_new_pair_has_names_and_addresses_at_once() {
        let shape = PairShape {
            transmit_name: "rstx4",
            transmit_mac: Mac([2, 0, 0, 0, 0, 9]),
            inject_name: "rsti4",
            inject_mac: Mac([2, 0, 0, 0, 0, 4]),
            mtu: 1564,
            queue_count: 3,
        };
        let body = new_pair(&shape);
        let top = &body.bytes()[16..];
        assert_eq!(
            find(top, uapi::IFLA_IFNAME).map(read_text).as_deref(),
            Some("rstx4")
        );
        assert_eq!(find(top, uapi::IFLA_ADDRESS), Some(&[2, 0, 0, 0, 0, 9][..]));
        let info = find(top, uapi::IFLA_LINKINFO).unwrap();
        let peer = find(
            find(info, uapi::IFLA_INFO_DATA).unwrap(),
            uapi::VETH_INFO_PEER,
        )
        .unwrap();
        let peer_attrs = &peer[16..];
        assert_eq!(
            find(peer_attrs, uapi::IFLA_IFNAME)
                .map(read_text)
                .as_deref(),
            Some("rsti4")
        );
        assert_eq!(
            find(peer_attrs, uapi::IFLA_ADDRESS),
            Some(&[2, 0, 0, 0, 0, 4][..])
        );
        assert_eq!(
            find(peer_attrs, uapi::IFLA_NUM_RX_QUEUES).and_then(read_u32),
            Some(3)
        );
        assert_eq!(read_u32(&peer[8..]), Some(uapi::IFF_NOARP));
    }

    #[test]
    fn the_ingress_filter_redirects_to_the_interfaces_ingress() {
        let body = give_to(8, 4, 11);
        let bytes = body.bytes();
        assert_eq!(read_u32(&bytes[4..]), Some(8));
        assert_eq!(read_u32(&bytes[12..]), Some(0xFFFF_FFF2));
        assert_eq!(
            bytes[16..20],
            (1_u32 << 16 | u32::from(3_u16.to_be())).to_ne_bytes()
        );
        let options = find(&bytes[20..], uapi::TCA_OPTIONS).unwrap();
        assert_eq!(find(options, uapi::TCA_BPF_FD).and_then(read_u32), Some(11));
        assert_eq!(
            find(options, uapi::TCA_BPF_FLAGS),
            None,
            "not direct action"
        );
        let action = find(find(options, uapi::TCA_BPF_ACT).unwrap(), 1).unwrap();
        assert_eq!(
            find(action, uapi::TCA_ACT_KIND).map(read_text).as_deref(),
            Some("mirred")
        );
        let parms = find(find(action, uapi::TCA_ACT_OPTIONS).unwrap(), 2).unwrap();
        assert_eq!(read_u32(&parms[8..]), Some(4), "TC_ACT_STOLEN");
        assert_eq!(read_u32(&parms[20..]), Some(3), "TCA_INGRESS_REDIR");
        assert_eq!(read_u32(&parms[24..]), Some(4), "the interface");
    }

    #[test]
    fn the_egress_filter_is_one_classic_instruction_that_drops() {
        let body = drop_egress(8);
        let options = find(&body.bytes()[20..], uapi::TCA_OPTIONS).unwrap();
        let ops = find(options, uapi::TCA_BPF_OPS).unwrap();
        assert_eq!(ops.len(), 8);
        assert_eq!(read_u32(&ops[4..]), Some(2), "TC_ACT_SHOT");
        assert_eq!(
            find(options, uapi::TCA_BPF_FLAGS).and_then(read_u32),
            Some(1)
        );
    }

    #[test]
    fn action_counts_use_the_wide_packet_count_where_there_is_one() {
        let basic = [7_u64.to_ne_bytes(), [5, 0, 0, 0, 0, 0, 0, 0]].concat();
        let answer = |stats: Body| {
            let action = Body::default().nest(uapi::TCA_ACT_STATS, stats);
            let actions = Body::default().nest(1, action);
            let options = Body::default().nest(uapi::TCA_BPF_ACT, actions);
            traffic(8, 0, 0, 0)
                .nest(uapi::TCA_OPTIONS, options)
                .bytes()
                .to_vec()
        };
        let stats = Body::default().attr(uapi::TCA_STATS_BASIC, &basic);
        assert_eq!(action_counts(&answer(stats.clone())).unwrap().packets, 5);
        let wide = stats.attr(uapi::TCA_STATS_PKT64, &(1_u64 << 40).to_ne_bytes());
        assert_eq!(action_counts(&answer(wide)).unwrap().packets, 1 << 40);
        assert_eq!(action_counts(traffic(8, 0, 0, 0).bytes()), None);
    }
}

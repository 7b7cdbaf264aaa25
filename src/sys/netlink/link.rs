//! What the kernel says of one link (RTM_NEWLINK), decoded leniently: an attribute that is absent
//! or odd leaves its field empty. It asks nothing but rtnetlink.

use crate::wire::Mac;

use super::{Body, Conversation, Message, Refusal, find, read_text, read_u32, uapi};

/// Which way an XDP program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the stack, after the socket buffer was made ("generic", skb mode).
    Generic,
    /// On the network card.
    Offload,
    /// In more than one of these at once.
    Multiple,
}

impl XdpMode {
    /// As a person says it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Offload => "offload",
            Self::Multiple => "multiple",
        }
    }
}

/// The XDP program that holds an interface's slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct XdpProgram {
    /// Which way it is attached.
    pub mode: XdpMode,
    /// The kernel's program id, as `bpftool prog show id` takes it; `None` with
    /// [`XdpMode::Multiple`].
    pub program_id: Option<u32>,
}

/// Packets of one link since it was made (`struct rtnl_link_stats64`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkPackets {
    /// Packets received.
    pub received: u64,
    /// Packets transmitted.
    pub sent: u64,
    /// Packets dropped while receiving.
    pub receive_dropped: u64,
    /// Packets dropped while transmitting.
    pub send_dropped: u64,
}

/// One link, as rtnetlink shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Link {
    /// Interface index.
    pub ifindex: u32,
    /// Interface name.
    pub name: String,
    /// Its alias (`ip link set … alias`).
    pub alias: Option<String>,
    /// Hardware type is Ethernet (`ARPHRD_ETHER`).
    pub is_ethernet: bool,
    /// The loopback interface.
    pub is_loopback: bool,
    /// Administratively up.
    pub is_up: bool,
    /// The lower layer is up: there is a carrier.
    pub has_carrier: bool,
    /// Its MAC address; `None` where it has none of six bytes.
    pub mac: Option<Mac>,
    /// Maximum transmission unit in bytes, without the Ethernet header.
    pub mtu: u32,
    /// Kind of a virtual link (`bond`, `vlan`, `veth`, …); `None` for hardware.
    pub kind: Option<String>,
    /// It is a bridge that sorts frames by their tags (`vlan_filtering`).
    pub filters_vlans: bool,
    /// What it is to its master (`bond`, `bridge`, …).
    pub port_kind: Option<String>,
    /// Index of its master (bond, bridge, team, VRF).
    pub master: Option<u32>,
    /// Index of the link it sits on, only when that link is in the same network namespace.
    pub lower: Option<u32>,
    /// Parent device and its bus, for example (`pci`, `0000:00:03.0`).
    pub parent: Option<(String, String)>,
    /// Receive queues that were allocated; fewer may be in use.
    pub rx_queues_allocated: Option<u32>,
    /// The XDP program attached.
    pub xdp: Option<XdpProgram>,
    /// Packet counters.
    pub packets: LinkPackets,
}

impl Link {
    /// Whether it sorts frames by their tags: a VLAN link, a bridge that filters, Open vSwitch.
    #[must_use]
    pub fn reads_tags(&self) -> bool {
        self.filters_vlans || matches!(self.kind.as_deref(), Some("vlan" | "openvswitch"))
    }

    /// Decodes RTM_NEWLINK or RTM_DELLINK; `None` when the body is no link of the whole host (a
    /// bridge's own notices have family AF_BRIDGE and say less).
    pub(crate) fn decode(message: &Message) -> Option<Self> {
        const AF_UNSPEC: u8 = 0;
        let header = message.body.get(..16)?;
        if header.first() != Some(&AF_UNSPEC) {
            return None;
        }
        let flags = read_u32(header.get(8..)?)?;
        let hardware = u16::from_ne_bytes(*header.get(2..)?.first_chunk()?);
        let rest = message.body.get(16..)?;
        let number = |kind| find(rest, kind).and_then(read_u32);
        let text = |kind| find(rest, kind).map(read_text);
        let info = find(rest, uapi::IFLA_LINKINFO).unwrap_or_default();
        let kind = find(info, uapi::IFLA_INFO_KIND).map(read_text);
        let is_bridge = kind.as_deref() == Some("bridge");
        let filtering = find(info, uapi::IFLA_INFO_DATA)
            .filter(|_| is_bridge)
            .and_then(|data| find(data, uapi::IFLA_BR_VLAN_FILTERING)?.first());
        Some(Self {
            ifindex: read_u32(header.get(4..)?)?,
            name: text(uapi::IFLA_IFNAME).unwrap_or_default(),
            alias: text(uapi::IFLA_IFALIAS),
            is_ethernet: hardware == uapi::ARPHRD_ETHER,
            is_loopback: flags & uapi::IFF_LOOPBACK != 0,
            is_up: flags & uapi::IFF_UP != 0,
            has_carrier: flags & uapi::IFF_LOWER_UP != 0,
            mac: find(rest, uapi::IFLA_ADDRESS)
                .and_then(|b| b.try_into().ok())
                .map(Mac),
            mtu: number(uapi::IFLA_MTU).unwrap_or(0),
            kind,
            filters_vlans: filtering.is_some_and(|filtering| *filtering != 0),
            port_kind: find(info, uapi::IFLA_INFO_SLAVE_KIND).map(read_text),
            master: number(uapi::IFLA_MASTER),
            lower: number(uapi::IFLA_LINK)
                .filter(|index| *index != 0 && find(rest, uapi::IFLA_LINK_NETNSID).is_none()),
            parent: text(uapi::IFLA_PARENT_DEV_BUS_NAME).zip(text(uapi::IFLA_PARENT_DEV_NAME)),
            rx_queues_allocated: number(uapi::IFLA_NUM_RX_QUEUES),
            xdp: find(rest, uapi::IFLA_XDP).and_then(xdp_program),
            packets: find(rest, uapi::IFLA_STATS64)
                .and_then(packets)
                .unwrap_or_default(),
        })
    }

    /// Every link of this network namespace.
    pub(crate) fn all(route: &mut Conversation) -> Result<Vec<Self>, Refusal> {
        let answers = route.ask(uapi::RTM_GETLINK, uapi::NLM_F_DUMP, &Body::link(0, 0, 0))?;
        Ok(answers.iter().filter_map(Self::decode).collect())
    }

    /// The link of that name; `None` when there is none.
    pub(crate) fn named(route: &mut Conversation, name: &str) -> Result<Option<Self>, Refusal> {
        // IFNAMSIZ with its NUL: the kernel has no longer name, and would answer ERANGE.
        if name.is_empty() || name.len() > 15 {
            return Ok(None);
        }
        let body = Body::link(0, 0, 0).string(uapi::IFLA_IFNAME, name);
        Self::one(route, &body)
    }

    /// The link of that index; `None` when there is none.
    pub(crate) fn indexed(route: &mut Conversation, ifindex: u32) -> Result<Option<Self>, Refusal> {
        Self::one(route, &Body::link(ifindex, 0, 0))
    }

    fn one(route: &mut Conversation, body: &Body) -> Result<Option<Self>, Refusal> {
        match route.ask(uapi::RTM_GETLINK, 0, body) {
            Ok(answers) => Ok(answers.iter().find_map(Self::decode)),
            Err(refusal) if refusal.is(libc::ENODEV) => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }
}

fn xdp_program(nest: &[u8]) -> Option<XdpProgram> {
    // enum: XDP_ATTACHED_NONE, _DRV, _SKB, _HW, _MULTI.
    let mode = match find(nest, uapi::IFLA_XDP_ATTACHED)?.first()? {
        1 => XdpMode::Native,
        2 => XdpMode::Generic,
        3 => XdpMode::Offload,
        4 => XdpMode::Multiple,
        _ => return None,
    };
    let program_id = find(nest, uapi::IFLA_XDP_PROG_ID)
        .and_then(read_u32)
        .filter(|id| *id != 0);
    Some(XdpProgram { mode, program_id })
}

fn packets(bytes: &[u8]) -> Option<LinkPackets> {
    let counter = |index: usize| -> Option<u64> {
        bytes
            .get(index * 8..)?
            .first_chunk()
            .map(|b| u64::from_ne_bytes(*b))
    };
    Some(LinkPackets {
        received: counter(0)?,
        sent: counter(1)?,
        receive_dropped: counter(6)?,
        send_dropped: counter(7)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(body: &Body) -> Message {
        Message::for_tests(uapi::RTM_NEWLINK, body.bytes().to_vec())
    }

    #[test]
    fn a_bond_port_with_a_native_program_is_read_whole() {
        let body = Body::link(4, uapi::IFF_UP | uapi::IFF_LOWER_UP, 0)
            .string(uapi::IFLA_IFNAME, "eth0")
            .attr(uapi::IFLA_ADDRESS, &[2, 0, 0, 0, 0, 9])
            .u32(uapi::IFLA_MTU, 9000)
            .u32(uapi::IFLA_MASTER, 6)
            .nest(
                uapi::IFLA_LINKINFO,
                Body::default().string(uapi::IFLA_INFO_SLAVE_KIND, "bond"),
            )
            .nest(
                uapi::IFLA_XDP,
                Body::default()
                    .attr(uapi::IFLA_XDP_ATTACHED, &[1])
                    .u32(uapi::IFLA_XDP_PROG_ID, 77),
            );
        let link = Link::decode(&message(&body)).unwrap();
        assert_eq!((link.ifindex, link.mtu, link.master), (4, 9000, Some(6)));
        assert!(link.is_up && link.has_carrier && !link.is_loopback);
        assert_eq!(link.port_kind.as_deref(), Some("bond"));
        assert_eq!(link.mac, Some(Mac([2, 0, 0, 0, 0, 9])));
        let program = XdpProgram {
            mode: XdpMode::Native,
            program_id: Some(77),
        };
        assert_eq!(link.xdp, Some(program));
    }

    #[test]
    fn a_bridge_reads_tags_when_it_filters_by_them() {
        let bridge = |kind: &str, filtering: u8| {
            let data = Body::default().attr(uapi::IFLA_BR_VLAN_FILTERING, &[filtering]);
            let info = Body::default()
                .string(uapi::IFLA_INFO_KIND, kind)
                .nest(uapi::IFLA_INFO_DATA, data);
            let body = Body::link(6, 0, 0).nest(uapi::IFLA_LINKINFO, info);
            Link::decode(&message(&body)).unwrap().reads_tags()
        };
        assert!(bridge("bridge", 1));
        assert!(!bridge("bridge", 0));
        // Attribute 7 of another kind is another thing.
        assert!(!bridge("vxlan", 1));
        assert!(bridge("vlan", 0) && bridge("openvswitch", 0));
    }

    #[test]
    fn a_lower_link_in_another_namespace_is_not_a_lower_link_here() {
        let body = Body::link(4, 0, 0)
            .u32(uapi::IFLA_LINK, 4)
            .u32(uapi::IFLA_LINK_NETNSID, 0);
        assert_eq!(Link::decode(&message(&body)).unwrap().lower, None);
        let body = Body::link(4, 0, 0).u32(uapi::IFLA_LINK, 3);
        assert_eq!(Link::decode(&message(&body)).unwrap().lower, Some(3));
    }

    #[test]
    fn an_address_that_is_not_six_bytes_is_no_mac() {
        let body = Body::link(4, 0, 0).attr(uapi::IFLA_ADDRESS, &[0; 20]);
        assert_eq!(Link::decode(&message(&body)).unwrap().mac, None);
    }

    #[test]
    fn a_bridge_notice_is_not_a_link() {
        let mut bytes = Body::link(4, 0, 0).bytes().to_vec();
        bytes[0] = 7; // AF_BRIDGE
        assert_eq!(
            Link::decode(&Message::for_tests(uapi::RTM_DELLINK, bytes)),
            None
        );
    }

    #[test]
    fn a_short_body_is_not_a_link() {
        assert_eq!(
            Link::decode(&Message::for_tests(uapi::RTM_NEWLINK, vec![0; 15])),
            None
        );
    }
}

//! What two generic netlink families say of an interface: `ethtool` (features, channels) and
//! `netdev` (which XDP actions the driver has). Reads only; a family or a command that the kernel
//! lacks leaves its answer unknown.

use crate::sys::netlink::{
    Body, Conversation, attributes, find, read_text, read_u32, read_uint, uapi,
};

/// Version of a generic netlink request; every family here answers version 1.
const GENERIC_VERSION: u8 = 1;

/// Offloads that matter to a sensor, as `ethtool -k` shows them; `None` where the kernel said
/// nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Features {
    /// `rx-vlan-offload`: the card takes the VLAN tag out of the frame.
    pub rx_vlan: Option<bool>,
    /// `rx-checksumming`.
    pub rx_checksum: Option<bool>,
    /// `generic-receive-offload`.
    pub gro: Option<bool>,
    /// `large-receive-offload`.
    pub lro: Option<bool>,
    /// `rx-gro-hw`.
    pub gro_hw: Option<bool>,
}

/// Channels in use, as `ethtool -l` shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Channels {
    /// Receive only.
    pub rx_count: u32,
    /// Transmit only.
    pub tx_count: u32,
    /// Both ways.
    pub combined_count: u32,
}

impl Channels {
    /// Receive queues that these channels make.
    #[must_use]
    pub const fn rx_queue_count(self) -> u32 {
        self.rx_count.saturating_add(self.combined_count)
    }
}

/// What the driver says of its XDP support (`NETDEV_XDP_ACT_*`, Linux 6.3 and later).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XdpFeatures {
    /// PASS, DROP, TX and aborted, in the driver.
    pub is_native: bool,
    /// XDP_REDIRECT.
    pub can_redirect: bool,
    /// AF_XDP zero copy. For information: this program binds in copy mode.
    pub has_zero_copy: bool,
    /// Frames in more than one buffer.
    pub has_multi_buffer: bool,
}

impl XdpFeatures {
    const fn from_bits(bits: u64) -> Self {
        Self {
            is_native: bits & uapi::NETDEV_XDP_ACT_BASIC != 0,
            can_redirect: bits & uapi::NETDEV_XDP_ACT_REDIRECT != 0,
            has_zero_copy: bits & uapi::NETDEV_XDP_ACT_XSK_ZEROCOPY != 0,
            has_multi_buffer: bits & uapi::NETDEV_XDP_ACT_RX_SG != 0,
        }
    }
}

/// Asks the named families.
#[derive(Debug)]
pub(crate) struct Generic(Conversation);

impl Generic {
    pub(crate) fn open() -> std::io::Result<Self> {
        Conversation::generic().map(Self)
    }

    /// Offloads of the interface.
    pub(crate) fn features(&mut self, ifindex: u32) -> Features {
        self.ethtool(uapi::ETHTOOL_MSG_FEATURES_GET, ifindex)
            .map_or_else(Features::default, |attrs| features(&attrs))
    }

    /// Channels in use; `None` where the driver does not tell.
    pub(crate) fn channels(&mut self, ifindex: u32) -> Option<Channels> {
        let attrs = self.ethtool(uapi::ETHTOOL_MSG_CHANNELS_GET, ifindex)?;
        let count = |kind| find(&attrs, kind).and_then(read_u32).unwrap_or(0);
        Some(Channels {
            rx_count: count(uapi::ETHTOOL_A_CHANNELS_RX_COUNT),
            tx_count: count(uapi::ETHTOOL_A_CHANNELS_TX_COUNT),
            combined_count: count(uapi::ETHTOOL_A_CHANNELS_COMBINED_COUNT),
        })
    }

    /// XDP support; `None` before Linux 6.3.
    pub(crate) fn xdp_features(&mut self, ifindex: u32) -> Option<XdpFeatures> {
        let body = command(uapi::NETDEV_CMD_DEV_GET).u32(uapi::NETDEV_A_DEV_IFINDEX, ifindex);
        let attrs = self.ask("netdev", &body)?;
        find(&attrs, uapi::NETDEV_A_DEV_XDP_FEATURES)
            .and_then(read_uint)
            .map(XdpFeatures::from_bits)
    }

    fn ethtool(&mut self, which: u8, ifindex: u32) -> Option<Vec<u8>> {
        let target = Body::default().u32(uapi::ETHTOOL_A_HEADER_DEV_INDEX, ifindex);
        // ethtool validates strictly: a nest must say that it is one.
        let body = command(which).nest(uapi::ETHTOOL_A_HEADER | NESTED, target);
        self.ask("ethtool", &body)
    }

    /// The attributes of the first answer.
    fn ask(&mut self, family: &str, body: &Body) -> Option<Vec<u8>> {
        let lookup = command(uapi::CTRL_CMD_GETFAMILY).string(uapi::CTRL_ATTR_FAMILY_NAME, family);
        let answers = self.0.ask(uapi::GENL_ID_CTRL, 0, &lookup).ok()?;
        let id = find(answers.first()?.body.get(4..)?, uapi::CTRL_ATTR_FAMILY_ID)?;
        let id = u16::from_ne_bytes(*id.first_chunk()?);
        let answers = self.0.ask(id, 0, body).ok()?;
        answers.first()?.body.get(4..).map(<[u8]>::to_vec)
    }
}

/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;

/// `struct genlmsghdr`.
fn command(which: u8) -> Body {
    Body::new(&[which, GENERIC_VERSION, 0, 0])
}

fn features(attrs: &[u8]) -> Features {
    let Some(active) = find(attrs, uapi::ETHTOOL_A_FEATURES_ACTIVE) else {
        return Features::default();
    };
    let set = names(active);
    let has = |name: &str| Some(set.iter().any(|n| n == name));
    Features {
        rx_vlan: has("rx-vlan-hw-parse"),
        rx_checksum: has("rx-checksum"),
        gro: has("rx-gro"),
        lro: has("rx-lro"),
        gro_hw: has("rx-gro-hw"),
    }
}

/// Names of the bits set in an ethtool bitset: a list without mask names only those that are set,
/// a list with mask gives each a value flag.
fn names(bitset: &[u8]) -> Vec<String> {
    let is_plain_list = find(bitset, uapi::ETHTOOL_A_BITSET_NOMASK).is_some();
    attributes(find(bitset, uapi::ETHTOOL_A_BITSET_BITS).unwrap_or_default())
        .filter(|(kind, _)| *kind == uapi::ETHTOOL_A_BITSET_BITS_BIT)
        .filter(|(_, bit)| is_plain_list || find(bit, uapi::ETHTOOL_A_BITSET_BIT_VALUE).is_some())
        .filter_map(|(_, bit)| find(bit, uapi::ETHTOOL_A_BITSET_BIT_NAME).map(read_text))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bit(name: &str, value: bool) -> Body {
        let bit = Body::default().string(uapi::ETHTOOL_A_BITSET_BIT_NAME, name);
        if value {
            bit.attr(uapi::ETHTOOL_A_BITSET_BIT_VALUE, &[])
        } else {
            bit
        }
    }

    #[test]
    fn a_plain_list_names_what_is_on() {
        let bits = Body::default()
            .nest(uapi::ETHTOOL_A_BITSET_BITS_BIT, bit("rx-gro", false))
            .nest(
                uapi::ETHTOOL_A_BITSET_BITS_BIT,
                bit("rx-vlan-hw-parse", false),
            );
        let set = Body::default()
            .attr(uapi::ETHTOOL_A_BITSET_NOMASK, &[])
            .nest(uapi::ETHTOOL_A_BITSET_BITS, bits);
        let attrs = Body::default().nest(uapi::ETHTOOL_A_FEATURES_ACTIVE, set);
        let features = features(attrs.bytes());
        assert_eq!(features.rx_vlan, Some(true));
        assert_eq!(features.gro, Some(true));
        assert_eq!(features.lro, Some(false));
    }

    #[test]
    fn a_list_with_mask_counts_only_bits_with_a_value() {
        let bits = Body::default()
            .nest(uapi::ETHTOOL_A_BITSET_BITS_BIT, bit("rx-gro", false))
            .nest(uapi::ETHTOOL_A_BITSET_BITS_BIT, bit("rx-lro", true));
        let set = Body::default().nest(uapi::ETHTOOL_A_BITSET_BITS, bits);
        assert_eq!(names(set.bytes()), ["rx-lro"]);
    }

    #[test]
    fn no_answer_is_unknown_not_off() {
        assert_eq!(features(&[]), Features::default());
        assert_eq!(Features::default().rx_vlan, None);
    }

    #[test]
    fn xdp_bits_are_those_of_netdev_h() {
        let features = XdpFeatures::from_bits(0b10_1011);
        assert!(features.is_native && features.can_redirect);
        assert!(features.has_zero_copy && features.has_multi_buffer);
        assert!(!XdpFeatures::from_bits(0).is_native);
    }
}

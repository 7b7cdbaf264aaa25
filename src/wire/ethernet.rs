//! Ethernet addresses and the numbers of the frame header (IEEE 802.3, 802.1Q).

use std::fmt;

/// Bytes of an Ethernet header without tags.
pub const HEADER_LEN: usize = 14;
/// EtherType of IPv4.
pub const TYPE_IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const TYPE_IPV6: u16 = 0x86dd;
/// EtherType of a customer VLAN tag (802.1Q).
pub const TYPE_VLAN: u16 = 0x8100;
/// EtherType of a service VLAN tag (802.1ad).
pub const TYPE_QINQ: u16 = 0x88a8;
/// EtherType that QinQ gear used before 802.1ad.
pub const TYPE_QINQ_OLD: u16 = 0x9100;
/// EtherType of MPLS unicast (RFC 5332).
pub const TYPE_MPLS: u16 = 0x8847;
/// EtherType of a PPPoE session (RFC 2516).
pub const TYPE_PPPOE: u16 = 0x8864;

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The virtual router addresses of VRRP (RFC 9568 §7.3) and HSRP: they move between devices,
    /// so a change to or from one says nothing.
    #[must_use]
    pub const fn is_virtual_router(self) -> bool {
        matches!(
            self.0,
            [0x00, 0x00, 0x5e, 0x00, 0x01 | 0x02, _] | [0x00, 0x00, 0x0c, 0x07, 0xac, _]
        )
    }
}

/// Upper case with dashes, the form of the Elastic Common Schema.
impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02X}-{b:02X}-{c:02X}-{d:02X}-{e:02X}-{g:02X}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

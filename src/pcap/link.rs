//! Link type numbers of capture files (the LINKTYPE registry of tcpdump.org) to the link layers
//! that the parser knows.

use crate::wire::LinkLayer;

/// The link layer of a LINKTYPE number; `None` when this program does not read it.
#[must_use]
pub const fn link_layer(link_type: u16) -> Option<LinkLayer> {
    Some(match link_type {
        // LINKTYPE_NULL; LINKTYPE_LOOP.
        0 | 108 => LinkLayer::Null,
        1 => LinkLayer::Ethernet,
        // DLT_RAW of BSD systems (12) and OpenBSD (14), which some writers put into files;
        // LINKTYPE_RAW; LINKTYPE_IPV4; LINKTYPE_IPV6.
        12 | 14 | 101 | 228 | 229 => LinkLayer::Raw,
        113 => LinkLayer::LinuxSll,
        276 => LinkLayer::LinuxSll2,
        _ => return None,
    })
}

/// What people call a link type that is often met but not read.
#[must_use]
pub const fn link_name(link_type: u16) -> Option<&'static str> {
    Some(match link_type {
        8 => "SLIP",
        9 => "PPP",
        10 => "FDDI",
        50 => "PPP in HDLC frames",
        51 => "PPPoE",
        100 => "ATM",
        104 => "Cisco HDLC",
        105 => "IEEE 802.11",
        107 => "Frame Relay",
        117 => "pflog",
        119 => "IEEE 802.11 with Prism header",
        127 => "IEEE 802.11 with radiotap",
        130..=137 | 164 | 167 | 168 | 178..=181 | 183 => "Juniper",
        147..=162 => "private use",
        187 | 201 => "Bluetooth HCI",
        192 => "per-packet information",
        195 | 230 => "IEEE 802.15.4",
        220 | 249 => "USB",
        227 => "CAN bus",
        239 => "netfilter log",
        242 => "IP over InfiniBand",
        252 => "exported PDUs",
        253 => "Netlink",
        258 => "PKTAP",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::{link_layer, link_name};
    use crate::wire::LinkLayer;

    #[test]
    fn every_documented_link_type_is_read() {
        for (number, layer) in [
            (0, LinkLayer::Null),
            (108, LinkLayer::Null),
            (1, LinkLayer::Ethernet),
            (12, LinkLayer::Raw),
            (14, LinkLayer::Raw),
            (101, LinkLayer::Raw),
            (228, LinkLayer::Raw),
            (229, LinkLayer::Raw),
            (113, LinkLayer::LinuxSll),
            (276, LinkLayer::LinuxSll2),
        ] {
            assert_eq!(link_layer(number), Some(layer), "link type {number}");
        }
        assert_eq!(link_layer(127), None);
    }

    #[test]
    fn a_link_type_is_read_or_may_have_a_name_and_never_both() {
        for number in 0..=u16::MAX {
            assert!(link_layer(number).is_none() || link_name(number).is_none());
        }
        assert_eq!(link_name(104), Some("Cisco HDLC"));
        assert_eq!(link_name(60_000), None);
    }
}

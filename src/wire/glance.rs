//! What a flow table needs to know of a segment, in words that are read and compared in a few steps, and
//! the frames of which it can be read at once: the SYN and FIN that nearly all are. Each is told by its
//! bytes at fixed places; for whatever is otherwise there is [`parse`](super::parse()). What is read is
//! the same both ways: a test holds them against each other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::ethernet::{self, TYPE_IPV4, TYPE_IPV6};
use super::ipv4::PROTOCOL_TCP;
use super::{Flags, FourTuple, Mac, Options, Segment, SeqNum, Timestamps, ipv6, tcp};

/// Where TCP begins behind an IPv4 header without options.
const TCP_OF_IPV4: usize = ethernet::HEADER_LEN + 20;
/// Where TCP begins behind an IPv6 header.
const TCP_OF_IPV6: usize = ethernet::HEADER_LEN + ipv6::HEADER_LEN;

/// Where a frame came from, in one word: the MAC, and above it the VLAN; which of them are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Link(pub(crate) u64);

impl Link {
    const VLAN_SHIFT: u32 = 48;
    /// Bits of a VLAN id (IEEE 802.1Q).
    const VLAN_BITS: u32 = 12;
    const HAS_VLAN: u64 = 1 << 60;
    const HAS_MAC: u64 = 1 << 61;

    /// The link of that MAC and VLAN.
    #[must_use]
    #[inline]
    pub fn new(mac: Option<Mac>, vlan: Option<u16>) -> Self {
        let mac = mac.map_or(0, |Mac([a, b, c, d, e, f])| {
            Self::HAS_MAC | u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
        });
        let vlan = vlan.map_or(0, |vlan| {
            let id = u64::from(vlan) & ((1 << Self::VLAN_BITS) - 1);
            Self::HAS_VLAN | id << Self::VLAN_SHIFT
        });
        Self(mac | vlan)
    }

    /// The MAC and the VLAN.
    #[must_use]
    pub fn parts(self) -> (Option<Mac>, Option<u16>) {
        let [a, b, c, d, e, f, high, low] = self.0.to_le_bytes();
        let mac = (self.0 & Self::HAS_MAC != 0).then_some(Mac([a, b, c, d, e, f]));
        let id = u16::from_le_bytes([high, low]) & ((1 << Self::VLAN_BITS) - 1);
        (mac, (self.0 & Self::HAS_VLAN != 0).then_some(id))
    }

    /// That VLAN, whatever the MAC.
    #[must_use]
    pub const fn without_mac(self) -> Self {
        Self(self.0 & (u64::MAX << Self::VLAN_SHIFT) & !Self::HAS_MAC)
    }

    /// That MAC, whatever the VLAN; 0 when there is none.
    #[must_use]
    pub const fn mac_alone(self) -> u64 {
        self.0 & (((1 << Self::VLAN_SHIFT) - 1) | Self::HAS_MAC)
    }
}

/// How a list of options looks: everything of it but the values of timestamps, in two words. The order
/// (`Options::order`); and from the lowest byte on the length, the window scale, and bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shape {
    pub(crate) order: u32,
    pub(crate) rest: u32,
    pub(crate) mss: u16,
}

const HAS_MSS: u8 = 1;
const SACK: u8 = 2;
const SIGNED: u8 = 4;
const MPTCP: u8 = 8;
const ODD: u8 = 16;
const MALFORMED: u8 = 32;
const STAMPED: u8 = 64;
/// "No window scale": RFC 7323 §2.3 allows 0 to 14, and the field cannot hold 255 in good faith.
const NO_SCALE: u8 = u8::MAX;

impl Shape {
    /// Of any options.
    #[must_use]
    pub fn of(options: &Options) -> Self {
        let flag = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
        let bits = flag(options.mss.is_some(), HAS_MSS)
            | flag(options.sack_permitted, SACK)
            | flag(options.is_signed, SIGNED)
            | flag(options.mptcp, MPTCP)
            | flag(options.has_unknown, ODD)
            | flag(options.malformed, MALFORMED)
            | flag(options.timestamps.is_some(), STAMPED);
        let scale = options.window_scale.unwrap_or(NO_SCALE);
        Self {
            order: options.order,
            rest: u32::from_le_bytes([options.len, scale, bits, 0]),
            mss: options.mss.unwrap_or(0),
        }
    }

    /// The options; the timestamps' value is `stamp`.
    #[must_use]
    pub(crate) fn options(self, stamp: u32) -> Options {
        let [len, scale, bits, _] = self.rest.to_le_bytes();
        let has = |bit: u8| bits & bit != 0;
        let stamps = Timestamps {
            value: stamp,
            echo: 0,
        };
        Options {
            mss: has(HAS_MSS).then_some(self.mss),
            window_scale: (scale != NO_SCALE).then_some(scale),
            sack_permitted: has(SACK),
            timestamps: has(STAMPED).then_some(stamps),
            sack_right_edge: None::<SeqNum>,
            is_signed: has(SIGNED),
            mptcp: has(MPTCP),
            has_unknown: has(ODD),
            malformed: has(MALFORMED),
            order: self.order,
            len,
        }
    }
}

/// A segment, as far as a flow table remembers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Glance {
    /// Addresses and ports.
    pub tuple: FourTuple,
    /// MAC and VLAN that it came from.
    pub link: Link,
    /// SEG.SEQ.
    pub seq: SeqNum,
    /// The sequence number after its last.
    pub end: SeqNum,
    /// The acknowledgement field.
    pub ack: SeqNum,
    /// TSval, where it has timestamps.
    pub stamp: Option<u32>,
    /// IPv6 flow label.
    pub flow_label: Option<u32>,
    /// Its options.
    pub shape: Shape,
    /// SEG.WND, not scaled.
    pub window: u16,
    /// IPv4 identification; 0 where there is none.
    pub ip_id: u16,
    /// IPv4 TTL or IPv6 Hop Limit.
    pub hop_limit: u8,
    /// Control bits.
    pub flags: Flags,
    /// IPv4 Don't Fragment.
    pub dont_fragment: Option<bool>,
    /// It has payload.
    pub has_data: bool,
}

impl Glance {
    /// Of a segment of which nothing was read yet.
    pub const BLANK: Self = Self {
        tuple: Segment::BLANK.tuple,
        link: Link(0),
        seq: SeqNum(0),
        end: SeqNum(0),
        ack: SeqNum(0),
        stamp: None,
        flow_label: None,
        shape: Shape {
            order: 0,
            rest: 0,
            mss: 0,
        },
        window: 0,
        ip_id: 0,
        hop_limit: 0,
        flags: Flags(0),
        dont_fragment: None,
        has_data: false,
    };

    /// Of any segment.
    #[must_use]
    pub fn of(segment: &Segment) -> Self {
        Self {
            tuple: segment.tuple,
            link: Link::new(segment.link.map(|link| link.src), segment.vlan),
            seq: segment.seq,
            end: segment.end(),
            ack: segment.ack,
            stamp: segment.options.timestamps.map(|stamps| stamps.value),
            flow_label: segment.flow_label,
            shape: Shape::of(&segment.options),
            window: segment.window,
            ip_id: segment.ip_id.unwrap_or(0),
            hop_limit: segment.hop_limit,
            flags: segment.flags,
            dont_fragment: segment.dont_fragment,
            has_data: segment.payload_len > 0,
        }
    }

    /// Reads one Ethernet frame over `self`, when it is untagged IPv4 without options or IPv6 without
    /// extension headers, a SYN or FIN without payload, and its TCP options stand in one of the usual lists;
    /// `false` when it is not, and then some fields may be written.
    #[inline]
    pub fn read(&mut self, frame: &[u8]) -> bool {
        self.read_usual(frame).is_some()
    }

    #[inline]
    fn read_usual(&mut self, frame: &[u8]) -> Option<()> {
        let link = frame.first_chunk::<{ ethernet::HEADER_LEN }>()?;
        let [.., a, b, c, d, e, f, high, low] = *link;
        let mac = u64::from_le_bytes([a, b, c, d, e, f, high, low]) & ((1 << Link::VLAN_SHIFT) - 1);
        self.link = Link(mac | Link::HAS_MAC);
        let (tcp, len) = match u16::from_be_bytes([high, low]) {
            TYPE_IPV4 => (TCP_OF_IPV4, self.read_ipv4(frame.first_chunk()?)?),
            TYPE_IPV6 => (TCP_OF_IPV6, self.read_ipv6(frame.first_chunk()?)?),
            _ => return None,
        };
        self.read_tcp(frame.get(tcp..)?, len)
    }

    /// Answers the length of header and payload.
    #[inline]
    fn read_ipv4(&mut self, head: &[u8; TCP_OF_IPV4]) -> Option<usize> {
        let ip = head.last_chunk::<20>()?;
        let fragment = u16::from_be_bytes([ip[6], ip[7]]);
        if ip[0] != 0x45 || ip[9] != PROTOCOL_TCP || fragment & 0x3fff != 0 {
            return None;
        }
        self.tuple.src = IpAddr::V4(Ipv4Addr::new(ip[12], ip[13], ip[14], ip[15]));
        self.tuple.dst = IpAddr::V4(Ipv4Addr::new(ip[16], ip[17], ip[18], ip[19]));
        self.hop_limit = ip[8];
        self.ip_id = u16::from_be_bytes([ip[4], ip[5]]);
        self.dont_fragment = Some(fragment & 0x4000 != 0);
        self.flow_label = None;
        usize::from(u16::from_be_bytes([ip[2], ip[3]])).checked_sub(ip.len())
    }

    #[inline]
    fn read_ipv6(&mut self, head: &[u8; TCP_OF_IPV6]) -> Option<usize> {
        let ip = head.last_chunk::<{ ipv6::HEADER_LEN }>()?;
        if ip[0] >> 4 != 6 || ip[6] != PROTOCOL_TCP {
            return None;
        }
        let (src, dst) = ip[8..].split_first_chunk::<16>()?;
        self.tuple.src = IpAddr::V6(Ipv6Addr::from(*src));
        self.tuple.dst = IpAddr::V6(Ipv6Addr::from(*dst.first_chunk::<16>()?));
        self.hop_limit = ip[7];
        self.ip_id = 0;
        self.dont_fragment = None;
        self.flow_label = Some(u32::from_be_bytes([0, ip[1] & 0x0f, ip[2], ip[3]]));
        Some(usize::from(u16::from_be_bytes([ip[4], ip[5]])))
    }

    #[inline]
    fn read_tcp(&mut self, bytes: &[u8], len: usize) -> Option<()> {
        let (fixed, rest) = bytes.split_first_chunk::<{ tcp::HEADER_LEN }>()?;
        let flags = Flags(fixed[13]);
        let is_usual = flags.0 & (Flags::SYN | Flags::FIN) != 0 && !flags.rst();
        if !is_usual || usize::from(fixed[12] >> 4) * 4 != len {
            return None;
        }
        let word = |at: usize| {
            u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]])
        };
        self.tuple.src_port = u16::from_be_bytes([fixed[0], fixed[1]]);
        self.tuple.dst_port = u16::from_be_bytes([fixed[2], fixed[3]]);
        self.seq = SeqNum(word(4));
        self.ack = SeqNum(word(8));
        let len_of_flags = u32::from(flags.syn()) + u32::from(flags.fin());
        self.end = self.seq.plus(len_of_flags);
        self.flags = flags;
        self.window = u16::from_be_bytes([fixed[14], fixed[15]]);
        self.has_data = false;
        self.read_options(rest.get(..len.checked_sub(tcp::HEADER_LEN)?)?)
    }

    /// The lists that nearly all segments carry: none; timestamps behind two NOPs (RFC 7323 Appendix A);
    /// Linux's SYN: MSS, SACK permitted, timestamps, NOP, window scale (`tcp_options_write`).
    #[inline]
    fn read_options(&mut self, bytes: &[u8]) -> Option<()> {
        let word = |[a, b, c, d]: [u8; 4]| u32::from_be_bytes([a, b, c, d]);
        let rest = |len: u8, scale: u8, bits: u8| u32::from_le_bytes([len, scale, bits, 0]);
        let shape = &mut self.shape;
        if bytes.is_empty() {
            (shape.order, shape.rest, shape.mss) = (0, rest(0, NO_SCALE, 0), 0);
            self.stamp = None;
        } else if let Ok([a, b, c, d, e, f, g, h, ..]) = <&[u8; 12]>::try_from(bytes) {
            if word([*a, *b, *c, *d]) != 0x0101_080a {
                return None;
            }
            (shape.order, shape.rest, shape.mss) = (0x118, rest(12, NO_SCALE, STAMPED), 0);
            self.stamp = Some(word([*e, *f, *g, *h]));
        } else {
            let [a, b, c, d, e, f, g, h, i, j, k, l, .., m, n, o, p] =
                <&[u8; 20]>::try_from(bytes).ok()?;
            let (mss, scale) = (word([*a, *b, *c, *d]), word([*m, *n, *o, *p]));
            if mss >> 16 != 0x0204
                || word([*e, *f, *g, *h]) != 0x0402_080a
                || scale >> 8 != 0x01_0303
            {
                return None;
            }
            shape.order = 0x2_4813;
            shape.rest = rest(20, *p, HAS_MSS | SACK | STAMPED);
            shape.mss = u16::from_be_bytes([*c, *d]);
            self.stamp = Some(word([*i, *j, *k, *l]));
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Glance, Shape};
    use crate::wire::{Flags, LinkLayer, Options, parse, testing};

    const STAMPS: &[u8] = &[1, 1, 8, 10, 0, 0, 1, 7, 0, 0, 0, 9];
    const LINUX: &[u8] = &[
        2, 4, 5, 0xb4, 4, 2, 8, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 3, 3, 7,
    ];

    fn frame(is_ipv4: bool, flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
        testing::frame(is_ipv4, (0, flags), options, payload)
    }

    /// Whether a glance was enough; if so, holds it against all of the frame.
    fn compare(bytes: &[u8], glance: &mut Glance) -> bool {
        if !glance.read(bytes) {
            return false;
        }
        let segment = parse(LinkLayer::Ethernet, bytes).unwrap();
        assert_eq!(*glance, Glance::of(&segment), "{bytes:02x?}");
        assert!(!segment.flags.rst() && segment.payload_len == 0);
        true
    }

    #[test]
    fn syn_and_fin_are_known_at_a_glance_and_resets_and_payload_never() {
        const FIN: u8 = Flags::FIN | Flags::ACK;
        let mut glance = Glance::BLANK;
        for is_ipv4 in [true, false] {
            for (flags, options) in [(Flags::SYN, LINUX), (Flags::SYN, &[]), (FIN, STAMPS)] {
                let mut bytes = frame(is_ipv4, flags, options, &[]);
                assert!(compare(&bytes, &mut glance), "{bytes:02x?}");
                bytes.extend([0xee; 9]);
                assert!(compare(&bytes, &mut glance), "with padding");
                bytes.truncate(bytes.len() - 10);
                assert!(!compare(&bytes, &mut glance), "cut short");
                let bytes = frame(is_ipv4, flags, options, b"data");
                assert!(!compare(&bytes, &mut glance), "payload");
                let bytes = frame(is_ipv4, flags | Flags::RST, options, &[]);
                assert!(!compare(&bytes, &mut glance), "a reset");
            }
        }
    }

    #[test]
    fn whatever_the_bytes_are_a_glance_says_what_the_parser_says() {
        let mut seeds: Vec<Vec<u8>> = Vec::new();
        for (at, options) in [&[], STAMPS, LINUX, &[2, 4, 5, 0xb4]].iter().enumerate() {
            seeds.push(frame(at % 2 == 0, Flags::SYN, options, &[]));
            seeds.push(frame(at % 2 == 1, Flags::FIN, options, &[]));
            seeds.push(frame(at % 2 == 0, Flags::FIN, options, b"data"));
        }
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/frame");
        for file in std::fs::read_dir(corpus).unwrap() {
            seeds.push(std::fs::read(file.unwrap().path()).unwrap());
        }
        assert!(seeds.len() > 20, "the corpus is not there");
        let mut glance = Glance::BLANK;
        let enough = testing::count_mutants(&seeds, |bytes| compare(bytes, &mut glance));
        assert!(enough > testing::MUTANTS / 20, "{enough} glances");
    }

    #[test]
    fn a_shape_keeps_all_of_the_options_but_the_values_of_timestamps() {
        for list in [
            &[],
            STAMPS,
            LINUX,
            &[3, 3, 9, 2, 4, 5, 0xb4, 30, 4, 1, 1, 0],
        ] {
            let mut options = Options::parse(list);
            let back = Shape::of(&options).options(9);
            if let Some(stamps) = &mut options.timestamps {
                (stamps.value, stamps.echo) = (9, 0);
            }
            assert_eq!(back, options, "{list:02x?}");
        }
    }
}

//! What a flow table needs to know of a segment, in words that are read and compared in a few steps, and
//! the frames of which it can be read at once: the SYN, FIN and reset that nearly all are. Each is told by its
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
    /// TSval; 0 where it has no timestamps.
    pub stamp: u32,
    /// IPv6 flow label, and [`Glance::LABELED`]; 0 where there is none.
    pub flow_label: u32,
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
    /// What it shows: `Glance::FIN` and those after it.
    pub marks: u32,
}

impl Glance {
    // The bits of `marks` stand where a flow keeps them, so that it takes them over as they are.

    /// It is a FIN.
    pub const FIN: u32 = 1 << Self::FIN_SHIFT;
    /// It has payload.
    pub const DATA: u32 = 1 << 19;
    /// IPv4 Don't Fragment is set.
    pub const DF_SET: u32 = 1 << 20;
    /// It is clear.
    pub const DF_CLEAR: u32 = 1 << 21;
    /// It has timestamps.
    pub const STAMPED: u32 = 1 << 22;
    /// The flow label is known.
    pub const LABELED: u32 = 1 << 31;

    const FIN_SHIFT: u32 = 18;

    /// Of a segment of which nothing was read yet.
    pub const BLANK: Self = Self {
        tuple: Segment::BLANK.tuple,
        link: Link(0),
        seq: SeqNum(0),
        end: SeqNum(0),
        ack: SeqNum(0),
        stamp: 0,
        flow_label: 0,
        shape: Shape {
            order: 0,
            rest: 0,
            mss: 0,
        },
        window: 0,
        ip_id: 0,
        hop_limit: 0,
        flags: Flags(0),
        marks: 0,
    };

    /// Of any segment.
    #[must_use]
    pub fn of(segment: &Segment) -> Self {
        let stamps = segment.options.timestamps;
        let flag = |is_set: bool, bit: u32| if is_set { bit } else { 0 };
        Self {
            tuple: segment.tuple,
            link: Link::new(segment.link.map(|link| link.src), segment.vlan),
            seq: segment.seq,
            end: segment.end(),
            ack: segment.ack,
            stamp: stamps.map_or(0, |stamps| stamps.value),
            flow_label: segment.flow_label.map_or(0, |label| label | Self::LABELED),
            shape: Shape::of(&segment.options),
            window: segment.window,
            ip_id: segment.ip_id.unwrap_or(0),
            hop_limit: segment.hop_limit,
            flags: segment.flags,
            marks: flag(segment.flags.fin(), Self::FIN)
                | flag(segment.payload_len > 0, Self::DATA)
                | flag(segment.dont_fragment == Some(true), Self::DF_SET)
                | flag(segment.dont_fragment == Some(false), Self::DF_CLEAR)
                | flag(stamps.is_some(), Self::STAMPED),
        }
    }

    /// Ends, control bits and [`Self::has_data`] of any segment; nothing else of `self` is of use then.
    pub const fn set_headers(&mut self, segment: &Segment) {
        self.tuple = segment.tuple;
        self.flags = segment.flags;
        self.marks = if segment.payload_len > 0 {
            Self::DATA
        } else {
            0
        };
    }

    /// It has payload.
    #[must_use]
    #[inline]
    pub const fn has_data(&self) -> bool {
        self.marks & Self::DATA != 0
    }

    /// Reads one Ethernet frame over `self`, when it is untagged IPv4 without options or IPv6 without
    /// extension headers, a SYN, FIN or reset, and its TCP options stand in one of the usual lists;
    /// `false` when it is not, and then some fields may be written.
    #[inline]
    pub fn read(&mut self, frame: &[u8]) -> bool {
        self.read_usual(frame).is_some()
    }

    #[inline]
    fn read_usual(&mut self, frame: &[u8]) -> Option<()> {
        /// The types as they stand behind a MAC.
        const IPV4: u64 = TYPE_IPV4.swap_bytes() as u64;
        const IPV6: u64 = TYPE_IPV6.swap_bytes() as u64;
        let head = frame.first_chunk::<{ TCP_OF_IPV4 + tcp::HEADER_LEN }>()?;
        let from = u64_at(head, 6);
        self.link = Link(from & ((1 << Link::VLAN_SHIFT) - 1) | Link::HAS_MAC);
        match from >> Link::VLAN_SHIFT {
            IPV4 => {
                let known = self.read_ipv4(head)?;
                self.read_tcp(head.last_chunk()?, known, frame.get(head.len()..)?)
            }
            IPV6 => self.read_ipv6(frame),
            _ => None,
        }
    }

    /// Answers the length of header and payload, and the marks.
    #[inline]
    fn read_ipv4<const N: usize>(&mut self, head: &[u8; N]) -> Option<(u32, u32)> {
        /// Of the first eight bytes: version and length of the header, no fragment.
        const MASK: u64 = u64::from_le_bytes([0xff, 0, 0, 0, 0, 0, 0x3f, 0xff]);
        const PLAIN: u64 = u64::from_le_bytes([0x45, 0, 0, 0, 0, 0, 0, 0]);
        const IP: usize = ethernet::HEADER_LEN;
        if u64_at(head, IP) & MASK != PLAIN || head[IP + 9] != PROTOCOL_TCP {
            return None;
        }
        self.tuple.src = IpAddr::V4(Ipv4Addr::from_bits(u32_at(head, IP + 12)));
        self.tuple.dst = IpAddr::V4(Ipv4Addr::from_bits(u32_at(head, IP + 16)));
        self.hop_limit = head[IP + 8];
        self.ip_id = u16_at(head, IP + 4);
        self.flow_label = 0;
        // A length of less than the header is longer than any packet.
        let len = u32::from(u16_at(head, IP + 2)).wrapping_sub(20);
        Some((len, Self::DF_CLEAR >> (head[IP + 6] >> 6 & 1)))
    }

    #[inline(never)]
    fn read_ipv6(&mut self, frame: &[u8]) -> Option<()> {
        const IP: usize = ethernet::HEADER_LEN;
        let head = frame.first_chunk::<{ TCP_OF_IPV6 + tcp::HEADER_LEN }>()?;
        if head[IP] >> 4 != 6 || head[IP + 6] != PROTOCOL_TCP {
            return None;
        }
        let (src, dst) = head[IP + 8..].split_first_chunk::<16>()?;
        self.tuple.src = IpAddr::V6(Ipv6Addr::from(*src));
        self.tuple.dst = IpAddr::V6(Ipv6Addr::from(*dst.first_chunk::<16>()?));
        self.hop_limit = head[IP + 7];
        self.ip_id = 0;
        self.flow_label = u32_at(head, IP) & 0x000f_ffff | Self::LABELED;
        let len = u32::from(u16_at(head, IP + 4));
        self.read_tcp(head.last_chunk()?, (len, 0), frame.get(head.len()..)?)
    }

    /// Reads the TCP header; of what is before it, length and marks are known.
    #[inline]
    fn read_tcp(
        &mut self,
        fixed: &[u8; tcp::HEADER_LEN],
        (len, mut marks): (u32, u32),
        rest: &[u8],
    ) -> Option<()> {
        let flags = Flags(fixed[13]);
        let is_usual = flags.0 & (Flags::SYN | Flags::FIN | Flags::RST) != 0;
        let data_offset = u32::from(fixed[12] >> 4) * 4;
        if !is_usual {
            return None;
        }
        // Turned so that both lie as they are kept, and the compiler stores them as one.
        let [a, b, c, d] = u32_at(fixed, 0).rotate_left(16).to_le_bytes();
        self.tuple.src_port = u16::from_le_bytes([a, b]);
        self.tuple.dst_port = u16::from_le_bytes([c, d]);
        self.seq = SeqNum(u32_at(fixed, 4));
        self.ack = SeqNum(u32_at(fixed, 8));
        let (syn, fin) = (u32::from(flags.0 >> 1 & 1), u32::from(flags.0 & 1));
        self.end = self.seq.plus(syn + fin);
        self.flags = flags;
        self.window = u16_at(fixed, 14);
        marks |= fin << Self::FIN_SHIFT;
        if len != data_offset {
            self.add_payload(len.wrapping_sub(data_offset))?;
            marks |= Self::DATA;
        }
        self.marks = match data_offset {
            20 => {
                self.set_options((0, 0, NO_SCALE, 0), 0, 0);
                marks
            }
            32 => {
                self.read_stamps(rest.first_chunk()?)?;
                marks | Self::STAMPED
            }
            40 => {
                self.read_options_of_linux(rest.first_chunk()?)?;
                marks | Self::STAMPED
            }
            _ => return None,
        };
        Some(())
    }

    /// Payload of that length, which is more than any packet holds where the header itself does not fit into it.
    fn add_payload(&mut self, len: u32) -> Option<()> {
        if len > u32::from(u16::MAX) {
            return None;
        }
        self.end = self.end.plus(len);
        Some(())
    }

    /// What is left of the lists that nearly all segments carry, beside none: timestamps behind two NOPs (RFC
    /// 7323 Appendix A).
    #[inline]
    fn read_stamps(&mut self, bytes: &[u8; 12]) -> Option<()> {
        if u32_at(bytes, 0) != 0x0101_080a {
            return None;
        }
        self.set_options((0x118, 12, NO_SCALE, STAMPED), 0, u32_at(bytes, 4));
        Some(())
    }

    /// Linux's SYN: MSS, SACK permitted, timestamps, NOP, window scale (`tcp_options_write`).
    #[inline]
    fn read_options_of_linux(&mut self, bytes: &[u8; 20]) -> Option<()> {
        /// Kinds and lengths, but for the MSS between them.
        const MASK: u64 = u64::from_le_bytes([0xff, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        const LIST: u64 = u64::from_le_bytes([2, 4, 0, 0, 4, 2, 8, 10]);
        let scale = u32_at(bytes, 16);
        if u64_at(bytes, 0) & MASK != LIST || scale >> 8 != 0x01_0303 {
            return None;
        }
        let bits = HAS_MSS | SACK | STAMPED;
        let mss = u16_at(bytes, 2);
        self.set_options((0x2_4813, 20, bytes[19], bits), mss, u32_at(bytes, 8));
        Some(())
    }

    /// The options: order, length, window scale and bits of their shape; MSS; TSval.
    #[inline]
    fn set_options(&mut self, (order, len, scale, bits): (u32, u8, u8, u8), mss: u16, stamp: u32) {
        self.shape.order = order;
        self.shape.rest = u32::from_le_bytes([len, scale, bits, 0]);
        self.shape.mss = mss;
        self.stamp = stamp;
    }
}

#[inline]
const fn u16_at<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[inline]
const fn u32_at<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Eight bytes as they lie in memory, the first one lowest: to be compared with a pattern.
#[inline]
const fn u64_at<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    match bytes.split_at(at).1.first_chunk() {
        Some(word) => u64::from_le_bytes(*word),
        None => 0,
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
        true
    }

    #[test]
    fn syn_fin_and_resets_are_known_at_a_glance_with_payload_and_without() {
        const FIN: u8 = Flags::FIN | Flags::ACK;
        let mut glance = Glance::BLANK;
        for is_ipv4 in [true, false] {
            for (flags, options) in [
                (Flags::SYN, LINUX),
                (Flags::SYN, &[]),
                (FIN, STAMPS),
                (Flags::RST, &[]),
                (Flags::RST | Flags::ACK, STAMPS),
            ] {
                let mut bytes = frame(is_ipv4, flags, options, &[]);
                assert!(compare(&bytes, &mut glance), "{bytes:02x?}");
                bytes.extend([0xee; 9]);
                assert!(compare(&bytes, &mut glance), "with padding");
                bytes.truncate(bytes.len() - 10);
                assert!(!compare(&bytes, &mut glance), "cut short");
                let mut bytes = frame(is_ipv4, flags, options, b"data");
                assert!(compare(&bytes, &mut glance), "payload");
                assert!(glance.has_data());
                bytes.truncate(bytes.len() - 3);
                assert!(compare(&bytes, &mut glance), "payload cut short");
                let length = if is_ipv4 { 16 } else { 18 };
                bytes[length..length + 2].fill(0);
                assert!(!compare(&bytes, &mut glance), "a length of nothing");
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

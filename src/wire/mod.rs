//! Bytes to [`Segment`]: Ethernet or one of the other link layers, up to two VLAN tags, IPv4 or
//! IPv6 with its extension headers, TCP. A frame that is not understood is a [`Reject`] with its
//! reason; no input panics, nothing allocates, nothing is checked that a reset need not pass
//! (checksums in captures are often wrong; addresses were rewritten by their authors).

pub mod ethernet;
mod glance;
pub mod hop_limit;
pub mod ipv4;
pub mod ipv6;
pub mod network;
mod parse;
mod quick;
pub mod seq;
pub mod tcp;
#[cfg(test)]
mod testing;

use std::net::{IpAddr, Ipv4Addr};

pub use ethernet::Mac;
pub use glance::{Glance, Link, Shape};
pub use network::{Network, NetworkError};
pub use parse::{LinkLayer, parse};
pub use quick::parse_into;
pub use seq::SeqNum;
pub use tcp::{Flags, Options, Timestamps};

/// Addresses and ports as they stand in one segment: directed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FourTuple {
    /// Source address.
    pub src: IpAddr,
    /// Source port.
    pub src_port: u16,
    /// Destination address.
    pub dst: IpAddr,
    /// Destination port.
    pub dst_port: u16,
}

impl FourTuple {
    /// The same connection as the other end writes it.
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self {
            src: self.dst,
            src_port: self.dst_port,
            dst: self.src,
            dst_port: self.src_port,
        }
    }
}

/// The addresses of an Ethernet header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LinkAddresses {
    /// Sender on this link.
    pub src: Mac,
    /// Receiver on this link; `None` where the link layer does not keep it (Linux cooked).
    pub dst: Option<Mac>,
}

/// How many payload bytes of a segment are kept: enough for the known payload signatures of
/// forged resets (10 bytes, Wu et al. S&P 2025) and the start of a self-declaration.
pub const PAYLOAD_HEAD: usize = 16;

/// A TCP segment with what IP and the link layer said about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Addresses and ports.
    pub tuple: FourTuple,
    /// Link-layer addresses, where the link layer has them.
    pub link: Option<LinkAddresses>,
    /// VLAN id of the outer tag.
    pub vlan: Option<u16>,
    /// IPv4 TTL or IPv6 Hop Limit.
    pub hop_limit: u8,
    /// IPv4 identification; IPv6 has none outside fragments.
    pub ip_id: Option<u16>,
    /// IPv4 Don't Fragment; IPv6 has none.
    pub dont_fragment: Option<bool>,
    /// IPv4 TOS or IPv6 Traffic Class.
    pub traffic_class: u8,
    /// IPv6 flow label.
    pub flow_label: Option<u32>,
    /// SEG.SEQ.
    pub seq: SeqNum,
    /// The acknowledgement field, whatever the ACK flag says.
    pub ack: SeqNum,
    /// Control bits.
    pub flags: Flags,
    /// The four bits between data offset and control bits (RFC 9293 §3.1: must be zero).
    pub reserved: u8,
    /// SEG.WND as it stands in the header, not scaled.
    pub window: u16,
    /// TCP options.
    pub options: Options,
    /// Payload bytes by the IP header's length, even where the capture cut them off.
    pub payload_len: u32,
    /// The first payload bytes, as far as captured.
    pub payload_head: [u8; PAYLOAD_HEAD],
}

impl Segment {
    /// A segment of which nothing was read yet: what [`parse_into`] may be given to write over.
    pub const BLANK: Self = Self {
        tuple: FourTuple {
            src: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            src_port: 0,
            dst: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            dst_port: 0,
        },
        link: None,
        vlan: None,
        hop_limit: 0,
        ip_id: None,
        dont_fragment: None,
        traffic_class: 0,
        flow_label: None,
        seq: SeqNum(0),
        ack: SeqNum(0),
        flags: Flags(0),
        reserved: 0,
        window: 0,
        options: Options::NONE,
        payload_len: 0,
        payload_head: [0; PAYLOAD_HEAD],
    };

    /// SEG.LEN: payload plus one each for SYN and FIN (RFC 9293 §3.4).
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.payload_len + self.flags.syn() as u32 + self.flags.fin() as u32
    }

    /// Whether the segment occupies no sequence space.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The sequence number after the segment's last.
    #[must_use]
    pub const fn end(&self) -> SeqNum {
        self.seq.plus(self.len())
    }

    /// Whether a reset looks as TCP answers a segment without ACK: with ACK, SEQ 0 and no window (RFC 9293
    /// §3.10.7.1). Of all that TCP sends that is a SYN; every other answer bears the number that was
    /// acknowledged.
    #[must_use]
    pub const fn answers_syn(&self) -> bool {
        self.flags.ack() && self.seq.0 == 0 && self.window == 0
    }
}

/// Why a frame is not a segment. Each variant is one counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reject {
    /// Shorter than its headers claim.
    Truncated,
    /// An EtherType or link layer that is not IP.
    NotIp,
    /// IP, but not TCP.
    NotTcp,
    /// A fragment: its TCP header may be elsewhere.
    Fragment,
    /// A header that contradicts itself.
    Malformed,
    /// More IPv6 extension headers or VLAN tags than are followed.
    TooDeep,
}

impl Reject {
    /// Every reason, in counter order.
    pub const ALL: [Self; 6] = [
        Self::Truncated,
        Self::NotIp,
        Self::NotTcp,
        Self::Fragment,
        Self::Malformed,
        Self::TooDeep,
    ];

    /// The name its counter carries.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::NotIp => "not_ip",
            Self::NotTcp => "not_tcp",
            Self::Fragment => "fragment",
            Self::Malformed => "malformed",
            Self::TooDeep => "too_deep",
        }
    }
}

//! The key of a connection: its four-tuple in canonical order, so that both directions meet.

use std::net::IpAddr;

use crate::wire::FourTuple;

/// One end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
}

/// Which end of a [`FlowKey`] sent a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The numerically lower endpoint.
    Low,
    /// The higher one.
    High,
}

impl Side {
    /// The other end.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Low => Self::High,
            Self::High => Self::Low,
        }
    }

    /// 0 for low, 1 for high.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Low => 0,
            Self::High => 1,
        }
    }
}

/// Both endpoints, the lower first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    /// The lower endpoint.
    pub low: Endpoint,
    /// The higher endpoint.
    pub high: Endpoint,
}

/// Bits of an endpoint of IPv4.
const ENDPOINT_BITS: u32 = 48;

/// The key of an IPv4 connection in as few words as it takes: an endpoint is 48 bits, its address above its
/// port; the lower endpoint comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Ipv4Key {
    /// The lower endpoint, and the higher one's port above it.
    pub(super) first: u64,
    /// The higher endpoint's address.
    pub(super) last: u32,
}

impl Ipv4Key {
    /// The key of a segment's connection, and which end sent the segment: without a branch on it.
    #[inline]
    pub(super) fn of(tuple: &FourTuple) -> Option<(Self, Side)> {
        let (IpAddr::V4(src), IpAddr::V4(dst)) = (tuple.src, tuple.dst) else {
            return None;
        };
        let (src, dst) = (src.to_bits(), dst.to_bits());
        Some(Self::between((src, tuple.src_port), (dst, tuple.dst_port)))
    }

    /// The same of a segment from one address and port to another.
    #[inline]
    pub(super) fn between(src: (u32, u16), dst: (u32, u16)) -> (Self, Side) {
        // Address and port in one number, which is in order where the endpoints are.
        let src = u64::from(src.0) << 16 | u64::from(src.1);
        let dst = u64::from(dst.0) << 16 | u64::from(dst.1);
        let (low, high) = (src.min(dst), src.max(dst));
        let side = if src <= dst { Side::Low } else { Side::High };
        let key = Self {
            first: high << ENDPOINT_BITS | low,
            last: halves(high >> 16).0,
        };
        (key, side)
    }

    /// Its three words.
    #[inline]
    pub(super) const fn words(self) -> [u32; 3] {
        let (low, high) = halves(self.first);
        [low, high, self.last]
    }

    /// The key that has these words.
    #[inline]
    pub(super) const fn from_words([low, high, last]: [u32; 3]) -> Self {
        Self {
            first: (high as u64) << 32 | low as u64,
            last,
        }
    }
}

/// The key of any other connection, as its flow's words have it: addresses of four words each, IPv4 as
/// IPv6 maps it, then both ports; the lower end's first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WideKey(pub(super) [u32; 9]);

impl WideKey {
    /// The key of a segment's connection, and which end sent the segment.
    #[inline]
    pub(super) fn of(tuple: &FourTuple) -> (Self, Side) {
        let (IpAddr::V6(src), IpAddr::V6(dst)) = (tuple.src, tuple.dst) else {
            return Self::of_mixed(tuple);
        };
        let src = (src.to_bits(), tuple.src_port);
        let dst = (dst.to_bits(), tuple.dst_port);
        if src <= dst {
            (Self::new(src, dst), Side::Low)
        } else {
            (Self::new(dst, src), Side::High)
        }
    }

    #[cold]
    fn of_mixed(tuple: &FourTuple) -> (Self, Side) {
        let (key, side) = FlowKey::of(*tuple);
        let bits = |address: IpAddr| match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
            IpAddr::V6(v6) => v6.to_bits(),
        };
        let [low, high] = [key.low, key.high].map(|end| (bits(end.address), end.port));
        (Self::new(low, high), side)
    }

    #[inline]
    const fn new(low: (u128, u16), high: (u128, u16)) -> Self {
        let ([a, b, c, d], [e, f, g, h]) = (quarters(low.0), quarters(high.0));
        Self([a, b, c, d, e, f, g, h, (low.1 as u32) << 16 | high.1 as u32])
    }

    /// The halves of the lower end's address, and of the higher one's.
    #[inline]
    pub(super) fn addresses(&self) -> ([u64; 2], [u64; 2]) {
        let [a, b, c, d, _] = self.wide();
        ([b, a], [d, c])
    }

    /// The words two at a time, and the ports: to be compared in fewer steps.
    #[inline]
    pub(super) fn wide(&self) -> [u64; 5] {
        let Self([a, b, c, d, e, f, g, h, ports]) = *self;
        let whole = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
        let (low, high) = ([whole(a, b), whole(c, d)], [whole(e, f), whole(g, h)]);
        [low[0], low[1], high[0], high[1], u64::from(ports)]
    }

    /// Writes a key of IPv4 to the front.
    #[inline]
    pub(super) const fn set_ipv4(&mut self, key: Ipv4Key) {
        [self.0[0], self.0[1], self.0[2]] = key.words();
    }

    /// The key of IPv4 that was written there.
    #[inline]
    pub(super) const fn ipv4(&self) -> Ipv4Key {
        let [low, high, last, ..] = self.0;
        Ipv4Key::from_words([low, high, last])
    }

    /// The higher end's port, and the lower one's above it.
    #[inline]
    pub(super) const fn ports(&self) -> u32 {
        self.0[8]
    }
}

/// The four words of an address, the last one first.
#[expect(clippy::cast_possible_truncation, reason = "the quarters are wanted")]
const fn quarters(bits: u128) -> [u32; 4] {
    [
        bits as u32,
        (bits >> 32) as u32,
        (bits >> 64) as u32,
        (bits >> 96) as u32,
    ]
}

/// The lower half of a word, and the upper one.
#[expect(clippy::cast_possible_truncation, reason = "the halves are wanted")]
pub(super) const fn halves(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

impl FlowKey {
    /// The key of a segment's connection, and which end sent the segment.
    #[must_use]
    #[inline]
    pub fn of(tuple: FourTuple) -> (Self, Side) {
        let src = Endpoint {
            address: tuple.src,
            port: tuple.src_port,
        };
        let dst = Endpoint {
            address: tuple.dst,
            port: tuple.dst_port,
        };
        let is_in_order = match (src.address, dst.address) {
            // What the derived order says too, in one comparison each.
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                (from.to_bits(), src.port) <= (to.to_bits(), dst.port)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                (from.to_bits(), src.port) <= (to.to_bits(), dst.port)
            }
            _ => src <= dst,
        };
        if is_in_order {
            (
                Self {
                    low: src,
                    high: dst,
                },
                Side::Low,
            )
        } else {
            (
                Self {
                    low: dst,
                    high: src,
                },
                Side::High,
            )
        }
    }

    /// The endpoint of that side.
    #[must_use]
    pub const fn endpoint(&self, side: Side) -> Endpoint {
        match side {
            Side::Low => self.low,
            Side::High => self.high,
        }
    }

    /// The four-tuple of a segment that `side` sends.
    #[must_use]
    pub const fn tuple_from(&self, side: Side) -> FourTuple {
        let (src, dst) = (self.endpoint(side), self.endpoint(side.other()));
        FourTuple {
            src: src.address,
            src_port: src.port,
            dst: dst.address,
            dst_port: dst.port,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::{Endpoint, FlowKey, Ipv4Key, Side};
    use crate::wire::FourTuple;

    #[test]
    fn both_directions_have_one_key_and_opposite_sides() {
        let tuple = FourTuple {
            src: "10.0.0.2".parse().unwrap(),
            src_port: 4000,
            dst: "10.0.0.1".parse().unwrap(),
            dst_port: 80,
        };
        let (there, from) = FlowKey::of(tuple);
        let (back, answer) = FlowKey::of(tuple.reversed());
        assert_eq!(there, back);
        assert_eq!((from, answer), (Side::High, Side::Low));
        assert_eq!(there.tuple_from(from), tuple);
    }

    #[test]
    fn the_short_key_of_ipv4_says_what_the_long_one_says() {
        let ports = [(1, 443), (443, 1), (7, 7), (u16::MAX, 0)];
        let addresses = ["10.0.0.1", "10.0.0.2", "255.0.0.0", "0.0.0.255"];
        for (src, dst) in addresses.iter().flat_map(|a| addresses.map(|b| (*a, b))) {
            for (src_port, dst_port) in ports {
                let tuple = FourTuple {
                    src: src.parse().unwrap(),
                    src_port,
                    dst: dst.parse().unwrap(),
                    dst_port,
                };
                let (key, side) = FlowKey::of(tuple);
                let (short, from) = Ipv4Key::of(&tuple).unwrap();
                assert_eq!(from, side);
                let end = |endpoint: Endpoint| match endpoint.address {
                    IpAddr::V4(v4) => u128::from(v4.to_bits()) << 16 | u128::from(endpoint.port),
                    IpAddr::V6(_) => panic!("{endpoint:?}"),
                };
                let all = u128::from(short.last) << 64 | u128::from(short.first);
                assert_eq!(all, end(key.high) << 48 | end(key.low));
                assert_eq!(Ipv4Key::from_words(short.words()), short);
            }
        }
    }
}

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
    use super::{FlowKey, Side};
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
}

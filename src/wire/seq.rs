//! Sequence numbers modulo 2³² (RFC 9293 §3.4). Compared only through this type; every operation
//! wraps and none panics, since both operands come from the wire.

/// A TCP sequence or acknowledgement number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SeqNum(pub u32);

impl SeqNum {
    /// `self + bytes`, modulo 2³².
    #[must_use]
    pub const fn plus(self, bytes: u32) -> Self {
        Self(self.0.wrapping_add(bytes))
    }

    /// How far `self` lies behind (< 0) or ahead (> 0) of `other`: the short way round the circle.
    #[must_use]
    #[expect(
        clippy::cast_possible_wrap,
        reason = "the sign is the point: RFC 1982 comparison"
    )]
    pub const fn offset_from(self, other: Self) -> i32 {
        self.0.wrapping_sub(other.0) as i32
    }

    /// Bytes from `earlier` on to `self`, the long way if need be.
    #[must_use]
    pub const fn bytes_since(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }

    /// Whether `self` comes after `other`.
    #[must_use]
    pub const fn is_after(self, other: Self) -> bool {
        self.offset_from(other) > 0
    }

    /// Whether `self` lies in `[start, start + len)`.
    #[must_use]
    pub const fn is_within(self, start: Self, len: u32) -> bool {
        self.bytes_since(start) < len
    }
}

#[cfg(test)]
mod tests {
    use super::SeqNum;

    #[test]
    fn order_wraps_at_the_end_of_the_circle() {
        let end = SeqNum(u32::MAX);
        assert!(end.plus(1).is_after(end));
        assert_eq!(end.plus(6).offset_from(end), 6);
        assert_eq!(end.offset_from(end.plus(6)), -6);
        assert_eq!(SeqNum(3).bytes_since(SeqNum(u32::MAX)), 4);
    }

    #[test]
    fn a_window_holds_its_first_and_not_its_end() {
        let start = SeqNum(u32::MAX - 1);
        assert!(start.is_within(start, 4));
        assert!(start.plus(3).is_within(start, 4));
        assert!(!start.plus(4).is_within(start, 4));
        assert!(!start.is_within(start, 0));
    }
}

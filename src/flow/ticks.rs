//! Times and spans in few bits. A time is a number of ticks modulo a power of two, made whole
//! again by a time that is known to be near; a span is a small floating point number. What is
//! rounded is rounded in the direction that accuses nobody: the caller says which.

use crate::time::Timestamp;

/// log2 of the nanoseconds of a tick of "last seen": 1.05 ms. TCP clocks tick at 1 ms or more
/// slowly, and the evidence that compares with them allows 30 ms. 32 bits span 52 days, as does a
/// TCP timestamp at 1000 Hz.
pub(super) const LAST_SHIFT: u32 = 20;
/// Bits of "last seen".
pub(super) const LAST_BITS: u32 = 32;
/// log2 of the nanoseconds of a tick of "first seen": 16 µs. A proxy opens its second connection
/// some 50 µs after the first, and their order tells the legs apart.
pub(super) const FIRST_SHIFT: u32 = 14;
/// Bits of "first seen": 104 days, for connections that live long.
pub(super) const FIRST_BITS: u32 = 39;
/// Exponent bits of a span: with any of the mantissas used here, up to 2³² ticks.
const EXPONENT_BITS: u32 = 5;

/// The ticks of a time, modulo 2^`bits`.
pub(super) const fn ticks(time: Timestamp, shift: u32, bits: u32) -> u64 {
    (time.as_nanos() >> shift) & ((1 << bits) - 1)
}

/// The time of these ticks that is nearest to `near`: before it, or a little after, since frames
/// of different queues come a little out of order.
pub(super) const fn time(ticks: u64, near: Timestamp, shift: u32, bits: u32) -> Timestamp {
    let mask = (1_u64 << bits) - 1;
    let near_ticks = near.as_nanos() >> shift;
    let ago = near_ticks.wrapping_sub(ticks) & mask;
    let whole = if ago > mask / 2 {
        near_ticks.saturating_add(mask + 1 - ago)
    } else {
        near_ticks.saturating_sub(ago)
    };
    Timestamp::from_nanos(whole << shift)
}

/// A span as a floating point number of `5 + mantissa_bits` bits; exact below
/// 2^(`mantissa_bits` + 1), rounded up or down above, saturating at the largest.
pub(super) fn encode_span(span: u64, mantissa_bits: u32, rounds_up: bool) -> u32 {
    let hidden = 1_u64 << mantissa_bits;
    let largest = (1_u64 << (EXPONENT_BITS + mantissa_bits)) - 1;
    let code = if span < hidden {
        span
    } else {
        let exponent = span.ilog2() - mantissa_bits;
        let is_cut = span & ((1 << exponent) - 1) != 0;
        let mantissa = (span >> exponent) + u64::from(is_cut && rounds_up);
        // A mantissa that rounding made one bit longer carries into the exponent, as it should.
        (u64::from(exponent + 1) << mantissa_bits) + (mantissa - hidden)
    };
    u32::try_from(code.min(largest)).unwrap_or(u32::MAX)
}

/// The span of a code.
pub(super) const fn decode_span(code: u32, mantissa_bits: u32) -> u64 {
    let hidden = 1_u64 << mantissa_bits;
    let exponent = code >> mantissa_bits;
    if exponent == 0 {
        return code as u64;
    }
    ((code as u64 & (hidden - 1)) + hidden) << (exponent - 1)
}

#[cfg(test)]
mod tests {
    use super::{FIRST_BITS, FIRST_SHIFT, LAST_BITS, LAST_SHIFT};
    use super::{decode_span, encode_span, ticks, time};
    use crate::time::{SECOND, Timestamp};

    #[test]
    fn a_time_is_found_again_across_the_wrap_and_a_little_ahead() {
        let days = 86_400 * SECOND;
        for (shift, bits) in [(LAST_SHIFT, LAST_BITS), (FIRST_SHIFT, FIRST_BITS)] {
            for start in [0, 3 * SECOND, 51 * days + 7, 208 * days, 20_000 * days] {
                for ago in [0, 1, SECOND / 3, 20 * days] {
                    let near = Timestamp::from_nanos(start + ago);
                    let then = Timestamp::from_nanos(start);
                    let found = time(ticks(then, shift, bits), near, shift, bits);
                    assert!(found <= then && then.since(found) < 1 << shift, "{found:?}");
                    let later = time(ticks(near, shift, bits), then, shift, bits);
                    assert!(near.distance(later) < 1 << shift);
                }
            }
        }
    }

    #[test]
    fn a_span_is_rounded_as_told_and_never_by_more_than_its_last_bit() {
        for mantissa in [7, 10] {
            let mut span = 0_u64;
            while span < 1 << 33 {
                let down = decode_span(encode_span(span, mantissa, false), mantissa);
                let up = decode_span(encode_span(span, mantissa, true), mantissa);
                assert!(down <= span && span <= up, "{down} {span} {up}");
                assert!(up - down <= span >> mantissa, "{down} {span} {up}");
                span = span * 33 / 32 + 1;
            }
        }
        assert_eq!(encode_span(u64::MAX, 7, true), (1 << 12) - 1);
    }
}

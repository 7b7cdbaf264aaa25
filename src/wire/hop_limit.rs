//! What an IPv4 TTL or an IPv6 hop limit says of how far a segment has come. A guess from the value alone,
//! as all are; whose value it is, and what that means, others decide.

/// The hop limit that a stack most likely started with: 32, 64, 128 or 255 (p0f's guess).
#[must_use]
pub const fn initial_hop_limit(hop_limit: u8) -> u8 {
    match hop_limit {
        0..=32 => 32,
        33..=64 => 64,
        65..=128 => 128,
        _ => 255,
    }
}

/// Hops that a segment has come, by [`initial_hop_limit`].
#[must_use]
pub const fn hops(hop_limit: u8) -> u8 {
    initial_hop_limit(hop_limit) - hop_limit
}

/// Whether two hop limits are as far apart as no known path makes them: by 3 or more, and by 3 or
/// more hops (evidence notes E-H1).
#[must_use]
pub const fn is_far(a: u8, b: u8) -> bool {
    a.abs_diff(b) >= 3 && hops(a).abs_diff(hops(b)) >= 3
}

#[cfg(test)]
mod tests {
    use super::{hops, initial_hop_limit, is_far};

    #[test]
    fn the_nearest_usual_start_is_assumed() {
        for (seen, start) in [
            (1, 32),
            (32, 32),
            (33, 64),
            (64, 64),
            (65, 128),
            (128, 128),
            (129, 255),
        ] {
            assert_eq!(initial_hop_limit(seen), start);
        }
        assert_eq!((hops(59), hops(123), hops(255)), (5, 5, 0));
    }

    #[test]
    fn two_initial_values_at_one_distance_are_not_far_apart() {
        assert!(!is_far(59, 123));
        assert!(is_far(50, 96));
        assert!(!is_far(50, 52));
    }
}

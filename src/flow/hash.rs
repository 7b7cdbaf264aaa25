//! The keyed hash of the flow table. Not linear in its input, unlike CRC, whose collisions are the
//! same under every seed: who does not know this run's random key cannot make two keys collide on
//! purpose.

use super::key::{Ipv4Key, WideKey};
use super::{FlowKey, Side};

/// Odd constants without structure, so that no word of a key is ever multiplied by 0 under a key
/// of 0: the fractional digits of the golden ratio and of the square root of 3 (as in wyhash).
const MIX: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xd1b5_4a32_d192_ed03];

/// Folded 64×64→128 bit multiplication: both halves of the product, over each other.
pub(crate) const fn fold(a: u64, b: u64) -> u64 {
    multiply(a ^ MIX[0], b ^ MIX[1])
}

/// A word as the second one of [`fold`], to be folded with many.
pub(super) const fn mixed(b: u64) -> u64 {
    b ^ MIX[1]
}

/// The same as [`fold`], of a word that is mixed already.
#[inline]
pub(super) const fn fold_mixed(a: u64, mixed: u64) -> u64 {
    multiply(a ^ MIX[0], mixed)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the two halves of the product are the point"
)]
const fn multiply(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}

/// The hash of a connection's key under the secret of this run.
#[inline]
pub(super) fn hash(key: &FlowKey, secret: [u64; 2]) -> u64 {
    let tuple = key.tuple_from(Side::Low);
    match Ipv4Key::of(&tuple) {
        Some((key, _)) => hash_ipv4(key, secret),
        None => hash_wide(&WideKey::of(&tuple).0, secret),
    }
}

/// The hash of an IPv4 connection's key.
#[inline]
pub(super) const fn hash_ipv4(key: Ipv4Key, secret: [u64; 2]) -> u64 {
    Ipv4Hash::new(secret).of(key)
}

/// The hash of IPv4 connections under one secret, for many of them: constants and secret are mixed once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ipv4Hash {
    first: u64,
    last: u64,
    again: u64,
}

impl Ipv4Hash {
    /// Under the secret of this run.
    #[inline]
    pub(super) const fn new(secret: [u64; 2]) -> Self {
        Self {
            first: secret[0] ^ MIX[0],
            last: secret[1] ^ MIX[1],
            again: secret[0] ^ MIX[1],
        }
    }

    /// Of one key: what [`fold`] and then `finish` say of it.
    #[inline]
    pub(super) const fn of(self, key: Ipv4Key) -> u64 {
        let last = key.last as u64;
        let state = multiply(self.first ^ key.first, self.last ^ last);
        multiply(state ^ MIX[0], self.again ^ last.rotate_left(32))
    }
}

/// The hash of any other connection's key.
#[inline]
pub(super) fn hash_wide(key: &WideKey, secret: [u64; 2]) -> u64 {
    let ports = u64::from(key.ports());
    let ([a, b], [c, d]) = key.addresses();
    let state = fold(secret[0] ^ a, secret[1] ^ b);
    let state = fold(state ^ c, secret[1] ^ d.rotate_left(32));
    finish(fold(state, secret[1] ^ ports), ports, secret)
}

/// A second round, so that each bit of the secret reaches each bit of the result.
#[inline]
fn finish(state: u64, ports: u64, secret: [u64; 2]) -> u64 {
    fold(state, secret[0] ^ ports.rotate_left(32))
}

#[cfg(test)]
mod tests {
    use super::{hash, hash_ipv4, hash_wide};
    use crate::flow::FlowKey;
    use crate::flow::key::{Ipv4Key, WideKey};
    use crate::wire::FourTuple;

    fn key(src: &str, port: u16) -> FlowKey {
        FlowKey::of(FourTuple {
            src: src.parse().unwrap(),
            src_port: port,
            dst: "2001:db8::1".parse().unwrap(),
            dst_port: 443,
        })
        .0
    }

    fn spread(keys: impl Iterator<Item = FlowKey>, secret: [u64; 2]) -> usize {
        let mut filled = [0_usize; 256];
        for key in keys {
            filled[usize::try_from(hash(&key, secret) & 255).unwrap()] += 1;
        }
        filled.into_iter().max().unwrap()
    }

    #[test]
    fn keys_that_differ_in_one_field_are_spread_evenly() {
        // 16 keys a bucket on the average; 48 would be eight standard deviations off. Miri, a thousand times
        // slower, has one for four buckets, and more than 7 in one of them once in six million runs.
        let (count, limit) = if cfg!(miri) { (64, 8) } else { (4096, 48) };
        let ports = || (0..count).map(|port| key("2001:db8::7", port));
        assert!(spread(ports(), [1, 2]) < limit);
        let hosts = (0..count).map(|host| key(&format!("2001:db8::{host:x}"), 7));
        assert!(spread(hosts, [0, 0]) < limit);
    }

    fn hash_of(tuple: &FourTuple, secret: [u64; 2]) -> (u64, bool) {
        match Ipv4Key::of(tuple) {
            Some((key, _)) => (hash_ipv4(key, secret), true),
            None => (hash_wide(&WideKey::of(tuple).0, secret), false),
        }
    }

    #[test]
    fn a_segment_has_the_hash_of_its_key_in_both_directions() {
        let ports = [1, 443, 443, u16::MAX];
        for (src, dst) in [
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1", "10.0.0.255"),
            ("9.255.0.0", "200.0.0.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("2001:db8::1", "192.0.2.1"),
        ] {
            for (src_port, dst_port) in ports.into_iter().zip(ports.into_iter().rev()) {
                let tuple = FourTuple {
                    src: src.parse().unwrap(),
                    src_port,
                    dst: dst.parse().unwrap(),
                    dst_port,
                };
                let of_key = hash(&FlowKey::of(tuple).0, [3, 9]);
                assert_eq!(hash_of(&tuple, [3, 9]).0, of_key, "{tuple:?}");
                let (back, is_ipv4) = hash_of(&tuple.reversed(), [3, 9]);
                assert_eq!(
                    (back, is_ipv4),
                    (of_key, dst.contains('.') && src.contains('.'))
                );
            }
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "130,000 hashes, which touch no memory but their own")]
    fn keys_that_collide_under_one_secret_are_spread_under_another() {
        let made = [0x7273_7473, 0x1234_5678];
        let colliding: Vec<FlowKey> = (0..u16::MAX)
            .flat_map(|port| ["2001:db8::7", "192.0.2.7"].map(|src| key(src, port)))
            .filter(|key| hash(key, made) & 255 == 7)
            .collect();
        assert!(colliding.len() > 400);
        let most = spread(colliding.iter().copied(), [0xfeed_f00d, 0x0bad_cafe]);
        assert!(most < 16, "{most} of {} in one bucket", colliding.len());
    }
}

//! Community ID v1 (github.com/corelight/community-id-spec), seed 0: the same for both directions
//! of a connection, so that records join those of Zeek, Suricata and others.

use std::net::IpAddr;

use sha1::compress;

use super::digits;
use crate::flow::Endpoint;
use crate::wire::ipv4::PROTOCOL_TCP;

/// Seed of the specification's default, which the other tools use as well.
const SEED: [u8; 2] = [0, 0];

/// Version and colon, and the 28 letters of a hash of 20 bytes.
pub type CommunityId = [u8; 30];

/// The Community ID of a TCP connection; `None` when its ends are of different families.
#[must_use]
pub fn community_id(source: Endpoint, destination: Endpoint) -> Option<String> {
    community(source, destination).map(|id| digits::into_text(id.to_vec()))
}

/// The same in place: a record has one, and there may be hundreds of thousands.
#[must_use]
pub(super) fn community(source: Endpoint, destination: Endpoint) -> Option<CommunityId> {
    let order = |end: &Endpoint| (end.address, end.port);
    let (low, high) = match order(&source) <= order(&destination) {
        true => (source, destination),
        false => (destination, source),
    };
    let mut block = [0; BLOCK];
    let ([a, b], [c, d]) = (low.port.to_be_bytes(), high.port.to_be_bytes());
    let ends = [PROTOCOL_TCP, 0, a, b, c, d];
    let filled = match (low.address, high.address) {
        (IpAddr::V4(low), IpAddr::V4(high)) => {
            fill(&mut block, [&SEED, &low.octets(), &high.octets(), &ends])
        }
        (IpAddr::V6(low), IpAddr::V6(high)) => {
            fill(&mut block, [&SEED, &low.octets(), &high.octets(), &ends])
        }
        _ => return None,
    };
    let mut id = *b"1:                           =";
    let [_, _, letters @ .., _] = &mut id;
    base64(hash(block, filled), letters);
    Some(id)
}

/// Bytes that SHA-1 takes in at a time. The longest that is hashed here (seed, two IPv6 addresses, protocol,
/// a zero, two ports: 40 bytes) and its padding fill one.
const BLOCK: usize = 64;

/// What SHA-1 begins with (FIPS 180-4 §5.3.1).
const SHA1_START: [u32; 5] = [
    0x6745_2301,
    0xefcd_ab89,
    0x98ba_dcfe,
    0x1032_5476,
    0xc3d2_e1f0,
];

/// The SHA-1 of a message that leaves room for its padding (FIPS 180-4 §5.1.1): a one behind it, and its
/// length in bits at the end.
fn hash(mut block: [u8; BLOCK], len: usize) -> [u32; 5] {
    if let Some(one) = block.get_mut(len) {
        *one = 0x80;
    }
    if let Some(bits) = block.last_chunk_mut() {
        *bits = (8 * len as u64).to_be_bytes();
    }
    let mut state = SHA1_START;
    compress(&mut state, &[block.into()]);
    state
}

/// The letters of a hash in base 64 (RFC 4648 §4), but for the equals sign at the end.
fn base64(hash: [u32; 5], letters: &mut [u8; 27]) {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let [a, b, c, d, e] = hash.map(u64::from);
    // Sixty bits at a time, with two zeros behind the last.
    let parts = [
        (a << 28 | b >> 4, 10),
        ((b & 0xf) << 56 | c << 24 | d >> 8, 10),
        ((d & 0xff) << 34 | e << 2, 7),
    ];
    let mut places = letters.iter_mut();
    for (bits, count) in parts {
        for (at, place) in (0..count).rev().zip(places.by_ref()) {
            *place = LETTERS[(bits >> (6 * at) & 63) as usize];
        }
    }
}

/// These parts one behind the other; how long they are.
fn fill(bytes: &mut [u8], parts: [&[u8]; 4]) -> usize {
    let mut filled = 0;
    for part in parts {
        if let Some(place) = bytes.get_mut(filled..filled + part.len()) {
            place.copy_from_slice(part);
            filled += part.len();
        }
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::community_id;
    use crate::flow::Endpoint;

    fn end(address: &str, port: u16) -> Endpoint {
        Endpoint {
            address: address.parse().unwrap(),
            port,
        }
    }

    /// The first is a TCP row of the specification's baseline (`baseline_deflt.json`); the others
    /// were worked out from its pseudo code with another SHA-1.
    #[test]
    fn the_specifications_vectors_come_out_from_both_ends() {
        for (a, b, id) in [
            (
                end("128.232.110.120", 34855),
                end("66.35.250.204", 80),
                "1:LQU9qZlK+B5F3KDmev6m5PMibrg=",
            ),
            (
                end("10.0.0.1", 10),
                end("10.0.0.2", 20),
                "1:9j2Dzwrw7T9E+IZi4b4IVT66HBI=",
            ),
            (
                end("10.0.0.1", 10),
                end("10.0.0.1", 20),
                "1:1Lc+0H/HgLmR5V4rmOeuDZQS11k=",
            ),
            (
                end("1.2.3.4", 1122),
                end("5.6.7.8", 3344),
                "1:wCb3OG7yAFWelaUydu0D+125CLM=",
            ),
            (
                end("2001:db8::1", 51514),
                end("2001:db8::2", 443),
                "1:668Vh7q82TQI0r9tUbpJ/Y6jZYQ=",
            ),
        ] {
            assert_eq!(community_id(a, b).as_deref(), Some(id));
            assert_eq!(community_id(b, a).as_deref(), Some(id));
        }
    }

    #[test]
    fn mixed_families_have_none() {
        assert_eq!(community_id(end("10.0.0.1", 1), end("::1", 2)), None);
    }
}

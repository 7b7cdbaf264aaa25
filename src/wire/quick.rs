//! The frames that nearly all are, read field by field into a segment that is there already:
//! untagged Ethernet, IPv4 without options or IPv6 without extension headers, a whole TCP header.
//! Each shape is told by its bytes at fixed places; whatever is otherwise is left to `parse`, and what
//! comes out is the same: a test holds both ways against each other.
//!
//! In place, because a segment is larger than two cache lines, and what is handed from function to
//! function is copied at each step: that alone took as long as the reading.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::ethernet::{self, TYPE_IPV4, TYPE_IPV6};
use super::ipv4::PROTOCOL_TCP;
use super::{
    Flags, LinkAddresses, LinkLayer, Mac, PAYLOAD_HEAD, Reject, Segment, SeqNum, ipv6, parse, tcp,
};

/// Bytes of an IPv4 header without options.
const IPV4_LEN: usize = 20;
/// Where TCP begins behind it.
const TCP_OF_IPV4: usize = ethernet::HEADER_LEN + IPV4_LEN;
/// Where TCP begins behind an IPv6 header.
const TCP_OF_IPV6: usize = ethernet::HEADER_LEN + ipv6::HEADER_LEN;

/// Reads one Ethernet frame over `segment`, all of whose fields are written; the same as [`parse()`].
///
/// # Errors
///
/// A [`Reject`] that says why the frame is not a TCP segment; then `segment` holds nothing of use.
#[inline]
pub fn parse_into(frame: &[u8], segment: &mut Segment) -> Result<(), Reject> {
    if read_usual(frame, segment).is_none() {
        *segment = parse(LinkLayer::Ethernet, frame)?;
    }
    Ok(())
}

/// `None` when the frame is not one of the usual; then some fields may be written.
#[inline]
fn read_usual(frame: &[u8], segment: &mut Segment) -> Option<()> {
    let link = frame.first_chunk::<{ ethernet::HEADER_LEN }>()?;
    let len = match u16::from_be_bytes([link[12], link[13]]) {
        TYPE_IPV4 => read_ipv4(frame.first_chunk()?, segment)?,
        TYPE_IPV6 => read_ipv6(frame.first_chunk()?, segment)?,
        _ => return None,
    };
    let [a, b, c, d, e, f, g, h, i, j, k, l, ..] = *link;
    segment.link = Some(LinkAddresses {
        src: Mac([g, h, i, j, k, l]),
        dst: Some(Mac([a, b, c, d, e, f])),
    });
    segment.vlan = None;
    match len {
        Len::Ipv4(len) => read_options(frame.get(TCP_OF_IPV4..)?, len, segment),
        Len::Ipv6(len) => read_options(frame.get(TCP_OF_IPV6..)?, len, segment),
    }
}

/// Bytes of TCP header and payload, by the IP header.
#[derive(Clone, Copy)]
enum Len {
    Ipv4(usize),
    Ipv6(usize),
}

#[inline]
fn read_ipv4(head: &[u8; TCP_OF_IPV4 + tcp::HEADER_LEN], segment: &mut Segment) -> Option<Len> {
    let (ip, fixed) = head[ethernet::HEADER_LEN..].split_first_chunk::<IPV4_LEN>()?;
    let fragment = u16::from_be_bytes([ip[6], ip[7]]);
    if ip[0] != 0x45 || ip[9] != PROTOCOL_TCP || fragment & 0x3fff != 0 {
        return None;
    }
    // A length of 0, which captures may hold, is left to `parse`.
    let len = usize::from(u16::from_be_bytes([ip[2], ip[3]])).checked_sub(IPV4_LEN)?;
    segment.tuple.src = IpAddr::V4(Ipv4Addr::new(ip[12], ip[13], ip[14], ip[15]));
    segment.tuple.dst = IpAddr::V4(Ipv4Addr::new(ip[16], ip[17], ip[18], ip[19]));
    segment.hop_limit = ip[8];
    segment.ip_id = Some(u16::from_be_bytes([ip[4], ip[5]]));
    segment.dont_fragment = Some(fragment & 0x4000 != 0);
    segment.traffic_class = ip[1];
    segment.flow_label = None;
    read_fixed(fixed.first_chunk()?, segment);
    Some(Len::Ipv4(len))
}

#[inline]
fn read_ipv6(head: &[u8; TCP_OF_IPV6 + tcp::HEADER_LEN], segment: &mut Segment) -> Option<Len> {
    let (ip, fixed) = head[ethernet::HEADER_LEN..].split_first_chunk::<{ ipv6::HEADER_LEN }>()?;
    if ip[0] >> 4 != 6 || ip[6] != PROTOCOL_TCP {
        return None;
    }
    // A length of 0 fails in `read_options`, and is left to `parse` too.
    let len = usize::from(u16::from_be_bytes([ip[4], ip[5]]));
    let (src, dst) = ip[8..].split_first_chunk::<16>()?;
    segment.tuple.src = IpAddr::V6(Ipv6Addr::from(*src));
    segment.tuple.dst = IpAddr::V6(Ipv6Addr::from(*dst.first_chunk::<16>()?));
    segment.hop_limit = ip[7];
    segment.ip_id = None;
    segment.dont_fragment = None;
    segment.traffic_class = ip[0] << 4 | ip[1] >> 4;
    segment.flow_label = Some(u32::from_be_bytes([0, ip[1] & 0x0f, ip[2], ip[3]]));
    read_fixed(fixed.first_chunk()?, segment);
    Some(Len::Ipv6(len))
}

/// The TCP header without its options.
#[inline]
fn read_fixed(fixed: &[u8; tcp::HEADER_LEN], segment: &mut Segment) {
    let word =
        |at: usize| u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
    segment.tuple.src_port = u16::from_be_bytes([fixed[0], fixed[1]]);
    segment.tuple.dst_port = u16::from_be_bytes([fixed[2], fixed[3]]);
    segment.seq = SeqNum(word(4));
    segment.ack = SeqNum(word(8));
    segment.flags = Flags(fixed[13]);
    segment.reserved = fixed[12] & 0x0f;
    segment.window = u16::from_be_bytes([fixed[14], fixed[15]]);
}

/// What follows it. `bytes` begin with it; `len` is that of header and payload, by the IP header.
#[inline]
fn read_options(bytes: &[u8], len: usize, segment: &mut Segment) -> Option<()> {
    let (fixed, rest) = bytes.split_first_chunk::<{ tcp::HEADER_LEN }>()?;
    let data_offset = usize::from(fixed[12] >> 4) * 4;
    let payload_len = len.checked_sub(data_offset)?;
    let (options, payload) = rest.split_at_checked(data_offset.checked_sub(tcp::HEADER_LEN)?)?;
    segment.options.read(options);
    segment.payload_len = u32::try_from(payload_len).unwrap_or(u32::MAX);
    segment.payload_head = [0; PAYLOAD_HEAD];
    if payload_len > 0 {
        read_payload(payload, payload_len, &mut segment.payload_head);
    }
    Some(())
}

#[inline(never)]
fn read_payload(captured: &[u8], payload_len: usize, head: &mut [u8; PAYLOAD_HEAD]) {
    let kept = payload_len.min(PAYLOAD_HEAD);
    for (to, from) in head.iter_mut().zip(captured).take(kept) {
        *to = *from;
    }
}

#[cfg(test)]
mod tests {
    use super::{parse_into, read_usual};
    use crate::wire::{LinkLayer, Segment, parse, testing};

    /// Options that the quick way knows, some that it does not, and some that only look alike.
    const LISTS: [&[u8]; 7] = [
        &[],
        &[1, 1, 8, 10, 0, 0, 1, 7, 0, 0, 0, 9],
        &[
            2, 4, 5, 0xb4, 4, 2, 8, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 3, 3, 7,
        ],
        &[2, 4, 5, 0xb4, 1, 3, 3, 8, 1, 1, 4, 2],
        &[1, 1, 5, 10, 0, 0, 1, 7, 0, 0, 0, 9],
        &[
            2, 4, 5, 0xb4, 4, 2, 8, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 3, 2, 7,
        ],
        &[2, 4, 5, 0xb4, 0, 0, 0, 0],
    ];

    /// With one of the reserved bits, and as many bytes of payload.
    fn frame(is_ipv4: bool, options: &[u8], payload: usize) -> Vec<u8> {
        let payload: Vec<u8> = (1..=u8::try_from(payload).unwrap()).rev().collect();
        testing::frame(is_ipv4, (1, 0x12), options, &payload)
    }

    /// Both ways over a segment that held something else; whether it was one of the usual frames.
    fn compare(bytes: &[u8], segment: &mut Segment) -> bool {
        let full = parse(LinkLayer::Ethernet, bytes);
        let told = parse_into(bytes, segment);
        assert_eq!(told.map(|()| *segment), full, "{bytes:02x?}");
        read_usual(bytes, segment).is_some()
    }

    #[test]
    fn the_usual_frames_are_read_quickly_and_as_the_full_parser_reads_them() {
        // Under Miri a frame takes half a second.
        let lengths: &[usize] = if cfg!(miri) {
            &[0, 17]
        } else {
            &[0, 1, 15, 16, 17, 100]
        };
        let mut segment = Segment::BLANK;
        for is_ipv4 in [true, false] {
            for options in LISTS {
                for &payload in lengths {
                    let mut bytes = frame(is_ipv4, options, payload);
                    assert!(compare(&bytes, &mut segment), "{bytes:02x?}");
                    bytes.extend([0xee; 9]);
                    assert!(compare(&bytes, &mut segment), "with padding");
                    bytes.truncate(bytes.len() - 9 - payload / 2);
                    assert!(compare(&bytes, &mut segment), "payload cut short");
                }
            }
        }
    }

    #[test]
    fn whatever_the_bytes_are_both_ways_agree() {
        let mut seeds: Vec<Vec<u8>> = Vec::new();
        for (at, options) in LISTS.iter().enumerate() {
            seeds.push(frame(at % 2 == 0, options, at * 5));
            seeds.push(frame(at % 2 == 1, options, 0));
        }
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/frame");
        for file in std::fs::read_dir(corpus).unwrap() {
            seeds.push(std::fs::read(file.unwrap().path()).unwrap());
        }
        assert!(seeds.len() > 20, "the corpus is not there");
        let mut segment = Segment::BLANK;
        let usual = testing::count_mutants(&seeds, |bytes| compare(bytes, &mut segment));
        assert!(usual > testing::MUTANTS / 10, "{usual} usual frames");
    }
}

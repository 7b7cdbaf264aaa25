//! The IPv6 header and its extension headers (RFC 8200), followed a bounded way.

use std::net::{IpAddr, Ipv6Addr};

use super::Reject;
use super::ipv4::{Header, PROTOCOL_TCP};

/// Bytes of the fixed header.
pub const HEADER_LEN: usize = 40;

/// How many extension headers are followed. RFC 8200 §4.1 recommends an order in which at most
/// six stand before the upper layer; `steer` follows as many, and the two must agree.
pub const EXTENSION_LIMIT: usize = 6;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

/// Reads the header at the start of `packet` and the extension headers behind it.
///
/// # Errors
///
/// A [`Reject`] for what is not an unfragmented TCP packet.
#[inline]
pub fn parse(packet: &[u8]) -> Result<Header, Reject> {
    let fixed: &[u8; HEADER_LEN] = packet.first_chunk().ok_or(Reject::Truncated)?;
    let word = u32::from_be_bytes([fixed[0], fixed[1], fixed[2], fixed[3]]);
    if word >> 28 != 6 {
        return Err(Reject::Malformed);
    }
    let payload_len = usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
    let end = if payload_len == 0 {
        packet.len()
    } else {
        HEADER_LEN + payload_len
    };
    let (transport_offset, protocol) = skip_extensions(packet, fixed[6])?;
    if protocol != PROTOCOL_TCP {
        return Err(Reject::NotTcp);
    }
    let address = |at: usize| {
        let mut octets = [0; 16];
        octets.copy_from_slice(fixed.get(at..at + 16).unwrap_or(&[0; 16]));
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    Ok(Header {
        src: address(8),
        dst: address(24),
        hop_limit: fixed[7],
        ip_id: None,
        dont_fragment: None,
        traffic_class: u8::try_from((word >> 20) & 0xff).unwrap_or_default(),
        flow_label: Some(word & 0x000f_ffff),
        transport_offset,
        transport_len: end.checked_sub(transport_offset).ok_or(Reject::Malformed)?,
    })
}

fn skip_extensions(packet: &[u8], first: u8) -> Result<(usize, u8), Reject> {
    let (mut at, mut next) = (HEADER_LEN, first);
    for _ in 0..EXTENSION_LIMIT {
        let unit = match next {
            HOP_BY_HOP | ROUTING | DESTINATION => 8,
            // RFC 4302 §2.2: in units of four bytes, minus two.
            AUTHENTICATION => 4,
            FRAGMENT => return Err(Reject::Fragment),
            _ => return Ok((at, next)),
        };
        let header = packet.get(at..at + 2).ok_or(Reject::Truncated)?;
        let len = usize::from(header[1]);
        next = header[0];
        at += if unit == 8 {
            (len + 1) * 8
        } else {
            (len + 2) * 4
        };
    }
    match next {
        HOP_BY_HOP | ROUTING | DESTINATION | AUTHENTICATION => Err(Reject::TooDeep),
        FRAGMENT => Err(Reject::Fragment),
        _ => Ok((at, next)),
    }
}

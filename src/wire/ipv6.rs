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

/// No extension header is shorter (RFC 8200 §4, RFC 4302 §2); a fragment header is as long.
const EXTENSION_LEN: usize = 8;

/// Offset and M flag of a fragment header (RFC 8200 §4.5). Without both it is an atomic fragment: the whole
/// packet, which hosts take as if it had none (RFC 6946 §4), and which some senders make.
const FRAGMENT_OFFSET_OR_MORE: u16 = 0xfff9;

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
        if !is_extension(next) {
            return Ok((at, next));
        }
        let header = packet.get(at..at + EXTENSION_LEN);
        let header: &[u8; EXTENSION_LEN] = header
            .and_then(|bytes| bytes.first_chunk())
            .ok_or(Reject::Truncated)?;
        let len = usize::from(header[1]);
        at += match next {
            FRAGMENT if is_part(header) => return Err(Reject::Fragment),
            FRAGMENT => EXTENSION_LEN,
            // RFC 4302 §2.2: in units of four bytes, minus two.
            AUTHENTICATION => (len + 2) * 4,
            _ => (len + 1) * 8,
        };
        next = header[0];
    }
    if is_extension(next) {
        return Err(Reject::TooDeep);
    }
    Ok((at, next))
}

const fn is_extension(next: u8) -> bool {
    matches!(
        next,
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION
    )
}

/// Whether a fragment header says that the packet goes on elsewhere.
const fn is_part(header: &[u8; EXTENSION_LEN]) -> bool {
    u16::from_be_bytes([header[2], header[3]]) & FRAGMENT_OFFSET_OR_MORE != 0
}

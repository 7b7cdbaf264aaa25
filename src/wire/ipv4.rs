//! The IPv4 header (RFC 791), options included.

use std::net::{IpAddr, Ipv4Addr};

use super::Reject;

/// Protocol number of TCP, also as an IPv6 next header.
pub const PROTOCOL_TCP: u8 = 6;

/// What an IP header of either version says.
#[derive(Debug, Clone, Copy)]
pub struct Header {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// TTL or Hop Limit.
    pub hop_limit: u8,
    /// Identification (IPv4).
    pub ip_id: Option<u16>,
    /// Don't Fragment (IPv4).
    pub dont_fragment: Option<bool>,
    /// TOS or Traffic Class.
    pub traffic_class: u8,
    /// Flow label (IPv6).
    pub flow_label: Option<u32>,
    /// Offset of the TCP header from the start of the IP header.
    pub transport_offset: usize,
    /// Bytes from the start of the TCP header to the end of the packet, by the IP length.
    pub transport_len: usize,
}

/// Reads the header at the start of `packet`.
///
/// # Errors
///
/// A [`Reject`] for what is not an unfragmented TCP packet.
#[inline]
pub fn parse(packet: &[u8]) -> Result<Header, Reject> {
    let fixed: &[u8; 20] = packet.first_chunk().ok_or(Reject::Truncated)?;
    let header_len = usize::from(fixed[0] & 0x0f) * 4;
    let total_len = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    if fixed[0] >> 4 != 4 || header_len < 20 {
        return Err(Reject::Malformed);
    }
    // A capture of segments that the NIC had yet to cut (TSO) may say 0: the frame's end counts. Where that
    // comes before the header's, nothing of the segment is here, which the caller finds.
    let total_len = if total_len == 0 {
        packet.len().max(header_len)
    } else {
        total_len
    };
    if total_len < header_len {
        return Err(Reject::Malformed);
    }
    let fragment = u16::from_be_bytes([fixed[6], fixed[7]]);
    // RFC 791: more fragments, or an offset: the TCP header is not all here.
    if fragment & 0x3fff != 0 {
        return Err(Reject::Fragment);
    }
    if fixed[9] != PROTOCOL_TCP {
        return Err(Reject::NotTcp);
    }
    Ok(Header {
        src: IpAddr::V4(Ipv4Addr::new(fixed[12], fixed[13], fixed[14], fixed[15])),
        dst: IpAddr::V4(Ipv4Addr::new(fixed[16], fixed[17], fixed[18], fixed[19])),
        hop_limit: fixed[8],
        ip_id: Some(u16::from_be_bytes([fixed[4], fixed[5]])),
        dont_fragment: Some(fragment & 0x4000 != 0),
        traffic_class: fixed[1],
        flow_label: None,
        transport_offset: header_len,
        transport_len: total_len - header_len,
    })
}

//! From a captured frame of any link layer to a [`Segment`].

use super::ethernet::{
    HEADER_LEN, TYPE_IPV4, TYPE_IPV6, TYPE_MPLS, TYPE_PPPOE, TYPE_QINQ, TYPE_QINQ_OLD, TYPE_VLAN,
};
use super::{
    Flags, FourTuple, LinkAddresses, Mac, Options, PAYLOAD_HEAD, Reject, Segment, SeqNum, ipv4,
    ipv6, tcp,
};

/// How the bytes of a frame begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LinkLayer {
    /// Ethernet II.
    Ethernet,
    /// Linux cooked capture, version 1 (LINKTYPE_LINUX_SLL).
    LinuxSll,
    /// Linux cooked capture, version 2 (LINKTYPE_LINUX_SLL2).
    LinuxSll2,
    /// IPv4 or IPv6 with nothing before it (LINKTYPE_RAW and its kin).
    Raw,
    /// A four-byte protocol family in the capturing host's byte order (LINKTYPE_NULL), or in
    /// network order (LINKTYPE_LOOP); the family is told from the IP version instead.
    Null,
}

/// Tags and labels that are followed before IP: two VLAN tags, and below them MPLS or PPPoE as
/// captures of provider networks have them. `steer` follows the VLAN tags only.
const SHIM_LIMIT: usize = 6;

/// Reads one frame.
///
/// # Errors
///
/// A [`Reject`] that says why the frame is not a TCP segment.
#[inline]
pub fn parse(layer: LinkLayer, frame: &[u8]) -> Result<Segment, Reject> {
    match layer {
        LinkLayer::Ethernet => {
            let header: &[u8; HEADER_LEN] = frame.first_chunk().ok_or(Reject::Truncated)?;
            let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = *header;
            let link = LinkAddresses {
                src: Mac([s0, s1, s2, s3, s4, s5]),
                dst: Some(Mac([d0, d1, d2, d3, d4, d5])),
            };
            network(
                Some(link),
                u16::from_be_bytes([t0, t1]),
                tail(frame, HEADER_LEN)?,
            )
        }
        LinkLayer::LinuxSll => {
            let header: &[u8; 16] = frame.first_chunk().ok_or(Reject::Truncated)?;
            // The address counts when its stated length is that of an Ethernet address.
            let link = (header[4..6] == [0, 6]).then(|| LinkAddresses {
                src: Mac([
                    header[6], header[7], header[8], header[9], header[10], header[11],
                ]),
                dst: None,
            });
            network(
                link,
                u16::from_be_bytes([header[14], header[15]]),
                tail(frame, 16)?,
            )
        }
        LinkLayer::LinuxSll2 => {
            let header: &[u8; 20] = frame.first_chunk().ok_or(Reject::Truncated)?;
            let link = (header[11] == 6).then(|| LinkAddresses {
                src: Mac([
                    header[12], header[13], header[14], header[15], header[16], header[17],
                ]),
                dst: None,
            });
            network(
                link,
                u16::from_be_bytes([header[0], header[1]]),
                tail(frame, 20)?,
            )
        }
        LinkLayer::Raw => internet(None, None, frame),
        LinkLayer::Null => internet(None, None, tail(frame, 4)?),
    }
}

fn tail(bytes: &[u8], at: usize) -> Result<&[u8], Reject> {
    bytes.get(at..).ok_or(Reject::Truncated)
}

#[inline]
fn network(
    link: Option<LinkAddresses>,
    mut ether_type: u16,
    mut rest: &[u8],
) -> Result<Segment, Reject> {
    let mut vlan = None;
    for _ in 0..SHIM_LIMIT {
        match ether_type {
            TYPE_IPV4 | TYPE_IPV6 => return internet(link, vlan, rest),
            TYPE_VLAN | TYPE_QINQ | TYPE_QINQ_OLD => {
                let tag: &[u8; 4] = rest.first_chunk().ok_or(Reject::Truncated)?;
                vlan = vlan.or(Some(u16::from_be_bytes([tag[0], tag[1]]) & 0x0fff));
                ether_type = u16::from_be_bytes([tag[2], tag[3]]);
                rest = tail(rest, 4)?;
            }
            TYPE_MPLS => {
                let label: &[u8; 4] = rest.first_chunk().ok_or(Reject::Truncated)?;
                rest = tail(rest, 4)?;
                // RFC 3032: bottom of stack; what follows is told by its first nibble.
                if label[2] & 1 == 1 {
                    return internet(link, vlan, rest);
                }
            }
            TYPE_PPPOE => {
                let session: &[u8; 8] = rest.first_chunk().ok_or(Reject::Truncated)?;
                // PPP protocol numbers of IPv4 and IPv6 (RFC 1332, RFC 5072).
                if !matches!(session[6..8], [0x00, 0x21 | 0x57]) {
                    return Err(Reject::NotIp);
                }
                return internet(link, vlan, tail(rest, 8)?);
            }
            _ => return Err(Reject::NotIp),
        }
    }
    Err(Reject::TooDeep)
}

#[inline]
fn internet(
    link: Option<LinkAddresses>,
    vlan: Option<u16>,
    packet: &[u8],
) -> Result<Segment, Reject> {
    let header = match packet.first().ok_or(Reject::Truncated)? >> 4 {
        4 => ipv4::parse(packet)?,
        6 => ipv6::parse(packet)?,
        _ => return Err(Reject::NotIp),
    };
    let bytes = tail(packet, header.transport_offset)?;
    let fixed: &[u8; tcp::HEADER_LEN] = bytes.first_chunk().ok_or(Reject::Truncated)?;
    let data_offset = usize::from(fixed[12] >> 4) * 4;
    if data_offset < tcp::HEADER_LEN || data_offset > header.transport_len {
        return Err(Reject::Malformed);
    }
    let options = bytes
        .get(tcp::HEADER_LEN..data_offset)
        .ok_or(Reject::Truncated)?;
    let payload_len = header.transport_len - data_offset;
    let captured = bytes.get(data_offset..).unwrap_or_default();
    // Behind the packet's end there may be Ethernet padding; it is no payload.
    let captured = captured.get(..payload_len).unwrap_or(captured);
    let mut payload_head = [0; PAYLOAD_HEAD];
    let kept = captured.len().min(PAYLOAD_HEAD);
    if kept > 0
        && let (Some(to), Some(from)) = (payload_head.get_mut(..kept), captured.get(..kept))
    {
        to.copy_from_slice(from);
    }
    Ok(Segment {
        tuple: FourTuple {
            src: header.src,
            src_port: u16::from_be_bytes([fixed[0], fixed[1]]),
            dst: header.dst,
            dst_port: u16::from_be_bytes([fixed[2], fixed[3]]),
        },
        link,
        vlan,
        hop_limit: header.hop_limit,
        ip_id: header.ip_id,
        dont_fragment: header.dont_fragment,
        traffic_class: header.traffic_class,
        flow_label: header.flow_label,
        seq: SeqNum(u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]])),
        ack: SeqNum(u32::from_be_bytes([
            fixed[8], fixed[9], fixed[10], fixed[11],
        ])),
        flags: Flags(fixed[13]),
        reserved: fixed[12] & 0x0f,
        window: u16::from_be_bytes([fixed[14], fixed[15]]),
        options: Options::parse(options),
        payload_len: u32::try_from(payload_len).unwrap_or(u32::MAX),
        payload_head,
    })
}

#[cfg(test)]
mod tests {
    use super::{LinkLayer, parse};
    use crate::wire::{Flags, Mac, Reject, SeqNum, Timestamps};

    const ETHERNET: [u8; 12] = [0x02, 0, 0, 0, 0, 0x0a, 0x02, 0, 0, 0, 0, 0x0b];

    fn tcp(options: &[u8], payload: &[u8]) -> Vec<u8> {
        let data_offset = u8::try_from((20 + options.len()) / 4).unwrap() << 4;
        let mut bytes = vec![0x9c, 0x40, 0x01, 0xbb, 0, 0, 0, 5, 0, 0, 0, 9];
        bytes.extend([data_offset, Flags::RST | Flags::ACK, 0x02, 0x00, 0, 0, 0, 0]);
        bytes.extend(options);
        bytes.extend(payload);
        bytes
    }

    fn ipv4(options: &[u8], fragment: u16, body: &[u8]) -> Vec<u8> {
        let header_len = 20 + options.len();
        let total = u16::try_from(header_len + body.len())
            .unwrap()
            .to_be_bytes();
        let mut bytes = vec![
            0x40 | u8::try_from(header_len / 4).unwrap(),
            0,
            total[0],
            total[1],
        ];
        bytes.extend([0x12, 0x34]);
        bytes.extend(fragment.to_be_bytes());
        bytes.extend([63, 6, 0, 0, 192, 0, 2, 7, 198, 51, 100, 1]);
        bytes.extend(options);
        bytes.extend(body);
        bytes
    }

    fn ipv6(next: u8, body: &[u8]) -> Vec<u8> {
        let len = u16::try_from(body.len()).unwrap().to_be_bytes();
        let mut bytes = vec![0x60, 0x0a, 0xbc, 0xde, len[0], len[1], next, 57];
        bytes.extend(
            "2001:db8::7"
                .parse::<std::net::Ipv6Addr>()
                .unwrap()
                .octets(),
        );
        bytes.extend(
            "2001:db8::1"
                .parse::<std::net::Ipv6Addr>()
                .unwrap()
                .octets(),
        );
        bytes.extend(body);
        bytes
    }

    fn frame(tags: &[u8], ether_type: u16, packet: &[u8]) -> Vec<u8> {
        let mut bytes = ETHERNET.to_vec();
        bytes.extend(tags);
        bytes.extend(ether_type.to_be_bytes());
        bytes.extend(packet);
        bytes
    }

    #[test]
    fn an_ipv4_reset_is_read_field_by_field() {
        let bytes = frame(&[], 0x0800, &ipv4(&[], 0x4000, &tcp(&[], &[])));
        let segment = parse(LinkLayer::Ethernet, &bytes).unwrap();
        assert_eq!(segment.tuple.src.to_string(), "192.0.2.7");
        assert_eq!(
            (segment.tuple.src_port, segment.tuple.dst_port),
            (40000, 443)
        );
        assert_eq!(segment.link.unwrap().src, Mac([0x02, 0, 0, 0, 0, 0x0b]));
        assert_eq!((segment.seq, segment.ack), (SeqNum(5), SeqNum(9)));
        assert_eq!((segment.hop_limit, segment.ip_id), (63, Some(0x1234)));
        assert_eq!(segment.dont_fragment, Some(true));
        assert_eq!((segment.window, segment.payload_len), (512, 0));
        assert_eq!(segment.flags.letters(), "RA");
    }

    #[test]
    fn padding_behind_the_packet_is_no_payload() {
        let mut bytes = frame(&[], 0x0800, &ipv4(&[], 0, &tcp(&[], b"ab")));
        bytes.extend([0xee; 10]);
        let segment = parse(LinkLayer::Ethernet, &bytes).unwrap();
        assert_eq!(segment.payload_len, 2);
        assert_eq!(&segment.payload_head[..4], b"ab\0\0");
    }

    #[test]
    fn tags_ip_options_and_tcp_options_are_passed_over() {
        let timestamps = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
        let packet = ipv4(&[1, 1, 1, 0], 0, &tcp(&timestamps, &[]));
        let bytes = frame(
            &[0x88, 0xa8, 0x20, 0x07, 0x81, 0x00, 0x00, 0x63],
            0x0800,
            &packet,
        );
        let segment = parse(LinkLayer::Ethernet, &bytes).unwrap();
        assert_eq!(segment.vlan, Some(7));
        assert_eq!(
            segment.options.timestamps,
            Some(Timestamps { value: 1, echo: 2 })
        );
    }

    #[test]
    fn ipv6_extension_headers_are_followed_a_bounded_way() {
        let destination = |next: u8| vec![next, 0, 1, 4, 0, 0, 0, 0];
        let mut body = destination(60);
        body.extend(destination(6));
        body.extend(tcp(&[], &[]));
        let bytes = frame(&[], 0x86dd, &ipv6(60, &body));
        let segment = parse(LinkLayer::Ethernet, &bytes).unwrap();
        assert_eq!(segment.tuple.src.to_string(), "2001:db8::7");
        assert_eq!(segment.flow_label, Some(0xabcde));
        assert_eq!((segment.hop_limit, segment.ip_id), (57, None));
        let mut deep = Vec::new();
        for _ in 0..7 {
            deep.extend(destination(60));
        }
        let bytes = frame(&[], 0x86dd, &ipv6(60, &deep));
        assert_eq!(parse(LinkLayer::Ethernet, &bytes), Err(Reject::TooDeep));
    }

    #[test]
    fn a_fragment_that_is_the_whole_packet_is_read() {
        let behind = |frag_off: u16| {
            let [high, low] = frag_off.to_be_bytes();
            let mut body = vec![6, 0, high, low, 0, 0, 0, 1];
            body.extend(tcp(&[], &[]));
            parse(LinkLayer::Ethernet, &frame(&[], 0x86dd, &ipv6(44, &body)))
        };
        let segment = behind(0).unwrap();
        assert_eq!((segment.tuple.dst_port, segment.payload_len), (443, 0));
        assert!(behind(0x0006).is_ok(), "two bits are reserved");
        assert_eq!(behind(0x0001), Err(Reject::Fragment));
        assert_eq!(behind(0x0008), Err(Reject::Fragment));
    }

    #[test]
    fn what_is_no_whole_tcp_segment_says_why() {
        let refused = |bytes: &[u8]| parse(LinkLayer::Ethernet, bytes).unwrap_err();
        let segment = tcp(&[], &[]);
        assert_eq!(refused(&frame(&[], 0x0806, &[0; 28])), Reject::NotIp);
        assert_eq!(
            refused(&frame(&[], 0x0800, &ipv4(&[], 0x2000, &segment))),
            Reject::Fragment
        );
        assert_eq!(
            refused(&frame(&[], 0x0800, &ipv4(&[], 0x0001, &segment))),
            Reject::Fragment
        );
        let mut udp = ipv4(&[], 0, &segment);
        udp[9] = 17;
        assert_eq!(refused(&frame(&[], 0x0800, &udp)), Reject::NotTcp);
        let mut short = segment.clone();
        short[12] = 0x40;
        assert_eq!(
            refused(&frame(&[], 0x0800, &ipv4(&[], 0, &short))),
            Reject::Malformed
        );
    }

    /// The kernel's program sees it so too (found by scripts/fuzz steer).
    #[test]
    fn a_frame_that_ends_in_the_header_of_a_segment_yet_to_be_cut_is_truncated() {
        let mut packet = ipv4(&[1; 12], 0x4000, &tcp(&[], &[]));
        packet[2..4].fill(0);
        let whole = frame(&[], 0x0800, &packet);
        assert!(parse(LinkLayer::Ethernet, &whole).is_ok());
        for end in 34..whole.len() {
            let cut = parse(LinkLayer::Ethernet, &whole[..end]);
            assert_eq!(cut.map(|_| ()), Err(Reject::Truncated), "{end}");
        }
    }

    #[test]
    fn every_truncation_is_refused_and_none_panics() {
        let whole = frame(
            &[0x81, 0, 0, 1],
            0x0800,
            &ipv4(&[], 0, &tcp(&[1, 1, 1, 0], &[])),
        );
        for len in 0..whole.len() {
            assert_eq!(
                parse(LinkLayer::Ethernet, &whole[..len]),
                Err(Reject::Truncated),
                "{len}"
            );
        }
        assert!(parse(LinkLayer::Ethernet, &whole).is_ok());
    }

    #[test]
    fn no_bytes_at_all_panic() {
        // A seeded xorshift: the same bytes on every run.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let layers = [
            LinkLayer::Ethernet,
            LinkLayer::LinuxSll,
            LinkLayer::LinuxSll2,
            LinkLayer::Raw,
            LinkLayer::Null,
        ];
        let mut body = vec![6, 0, 1, 4, 0, 0, 0, 0];
        body.extend(tcp(&[8, 10, 0, 0], b"payload"));
        let template = frame(&[], 0x86dd, &ipv6(0, &body));
        let mut parsed = 0;
        for round in 0..20_000_usize {
            let mut bytes = template.clone();
            for _ in 0..round % 9 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let at = usize::try_from(state >> 8).unwrap() % bytes.len();
                bytes[at] = state.to_le_bytes()[0];
            }
            let layer = layers[round % layers.len()];
            parsed += usize::from(parse(layer, &bytes[..bytes.len() - round % 5]).is_ok());
        }
        assert!(
            (1..20_000).contains(&parsed),
            "{parsed}: some are broken, some are whole"
        );
    }

    #[test]
    fn other_link_layers_lead_to_the_same_segment() {
        let packet = ipv4(&[], 0, &tcp(&[], &[]));
        let raw = parse(LinkLayer::Raw, &packet).unwrap();
        let mut null = vec![2, 0, 0, 0];
        null.extend(&packet);
        assert_eq!(parse(LinkLayer::Null, &null), Ok(raw));
        let mut cooked = vec![0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 0x0b, 0, 0, 0x08, 0x00];
        cooked.extend(&packet);
        let sll = parse(LinkLayer::LinuxSll, &cooked).unwrap();
        assert_eq!(sll.tuple, raw.tuple);
        assert_eq!(sll.link.unwrap().src, Mac([2, 0, 0, 0, 0, 0x0b]));
        let mut cooked = vec![
            0x08, 0x00, 0, 0, 0, 0, 0, 2, 0, 1, 0, 6, 2, 0, 0, 0, 0, 0x0b, 0, 0,
        ];
        cooked.extend(&packet);
        let sll2 = parse(LinkLayer::LinuxSll2, &cooked).unwrap();
        assert_eq!((sll2.tuple, sll2.link), (raw.tuple, sll.link));
    }
}

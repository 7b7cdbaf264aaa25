//! The frame parser: bytes as they come from the wire. Whatever they are, it does not panic, says
//! the same twice, and never speaks of bytes that are not there.

use rstscope::host_bytes;
use rstscope::wire::{LinkLayer, Reject, Segment, parse};

/// Every way in which a frame may begin.
const LINKS: [LinkLayer; 5] = [
    LinkLayer::Ethernet,
    LinkLayer::LinuxSll,
    LinkLayer::LinuxSll2,
    LinkLayer::Raw,
    LinkLayer::Null,
];

/// Parses the bytes as each link layer, and as what may stand before a frame.
pub fn run(bytes: &[u8]) {
    for link in LINKS {
        let parsed = parse(link, bytes);
        assert_eq!(parsed, parse(link, bytes), "the parser has a memory");
        match parsed {
            Ok(segment) => check(&segment, bytes),
            Err(reject) => assert!(Reject::ALL.contains(&reject)),
        }
    }
    if let Some((_, view)) = host_bytes::frame_meta(bytes) {
        assert!(bytes.len() >= host_bytes::FRAME_META_SHORT_LEN, "{view:?}");
    }
}

fn check(segment: &Segment, bytes: &[u8]) {
    assert!(
        bytes.len() >= 40,
        "20 bytes of IP and 20 of TCP: {segment:?}"
    );
    assert_eq!(segment.tuple.src.is_ipv4(), segment.tuple.dst.is_ipv4());
    assert_eq!(segment.ip_id.is_some(), segment.tuple.src.is_ipv4());
    assert_eq!(segment.flow_label.is_none(), segment.tuple.src.is_ipv4());
    assert!(segment.options.len <= 40, "{segment:?}");
    assert!(segment.payload_len <= 1 << 16, "{segment:?}");
    assert_eq!(segment.end(), segment.seq.plus(segment.len()));
    let head = usize::try_from(segment.payload_len).unwrap_or(usize::MAX);
    let past = segment.payload_head.iter().skip(head);
    assert!(past.into_iter().all(|byte| *byte == 0), "{segment:?}");
}

//! Frames byte by byte, so that each may be wrong in one place.

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

pub(crate) fn tcp(flags: u8, options: &[u8]) -> Vec<u8> {
    let mut header = vec![
        0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 1, 0, 0, 0, 0, 0,
    ];
    header[12] = ((20 + options.len()) as u8 / 4) << 4;
    header.extend_from_slice(options);
    header
}

pub(crate) fn ethernet(kind: u16, tags: &[u16], packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    for tag in tags {
        frame.extend_from_slice(&tag.to_be_bytes());
        frame.extend_from_slice(&[0, 7]);
    }
    frame.extend_from_slice(&kind.to_be_bytes());
    frame.extend_from_slice(packet);
    frame
}

pub(crate) fn ipv4(options: usize, protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let len = 20 + options;
    let mut packet = vec![0; len];
    packet[0] = 0x40 | (len / 4) as u8;
    packet[2..4].copy_from_slice(&((len + payload.len()) as u16).to_be_bytes());
    packet[6..8].copy_from_slice(&fragment.to_be_bytes());
    packet[8..10].copy_from_slice(&[64, protocol]);
    packet[12..20].copy_from_slice(&[192, 0, 2, 1, 192, 0, 2, 2]);
    packet.extend_from_slice(payload);
    packet
}

/// `chain`: next header numbers of eight bytes each, before `last`.
pub(crate) fn ipv6(chain: &[u8], last: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; 40];
    packet[0] = 0x60;
    packet[4..6].copy_from_slice(&((chain.len() * 8 + payload.len()) as u16).to_be_bytes());
    packet[6] = *chain.first().unwrap_or(&last);
    packet[7] = 64;
    packet[8..24].copy_from_slice(&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    packet[24..40].copy_from_slice(&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    for index in 0..chain.len() {
        let next = *chain.get(index + 1).unwrap_or(&last);
        packet.extend_from_slice(&[next, 0, 0, 0, 0, 0, 0, 0]);
    }
    packet.extend_from_slice(payload);
    packet
}

pub(crate) fn v4(flags: u8) -> Vec<u8> {
    ethernet(0x0800, &[], &ipv4(0, 6, 0, &tcp(flags, &[])))
}

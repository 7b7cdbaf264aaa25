//! Captures made on the spot: one conversation that ends in a reset, in every format and link
//! layer.

/// A packet: microseconds after the capture's start, and its bytes from the IP header on.
pub type Packet = (u64, Vec<u8>);

/// 2023-11-14T22:13:20Z.
const START_S: u64 = 1_700_000_000;

const CLIENT: [u8; 4] = [203, 0, 113, 9];
const SERVER: [u8; 4] = [198, 51, 100, 10];

/// Byte order and resolution of a pcap file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavor {
    LittleMicro,
    LittleNano,
    BigMicro,
    BigNano,
}

impl Flavor {
    pub const ALL: [Self; 4] = [
        Self::LittleMicro,
        Self::LittleNano,
        Self::BigMicro,
        Self::BigNano,
    ];

    const fn is_big(self) -> bool {
        matches!(self, Self::BigMicro | Self::BigNano)
    }

    const fn is_nano(self) -> bool {
        matches!(self, Self::LittleNano | Self::BigNano)
    }
}

fn tcp(from_client: bool, flags: u8, seq: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
    let (src, dst, src_port, dst_port, ttl) = if from_client {
        (CLIENT, SERVER, 51514_u16, 443_u16, 52)
    } else {
        (SERVER, CLIENT, 443, 51514, 64)
    };
    let total = u16::try_from(40 + payload.len()).unwrap();
    let mut bytes = vec![0x45, 0];
    bytes.extend(total.to_be_bytes());
    bytes.extend([0, 1, 0x40, 0, ttl, 6, 0, 0]);
    bytes.extend(src);
    bytes.extend(dst);
    bytes.extend(src_port.to_be_bytes());
    bytes.extend(dst_port.to_be_bytes());
    bytes.extend(seq.to_be_bytes());
    bytes.extend(ack.to_be_bytes());
    bytes.extend([0x50, flags, 0x10, 0, 0, 0, 0, 0]);
    bytes.extend(payload);
    bytes
}

/// Handshake, a request, the server's reset.
pub fn conversation() -> Vec<Packet> {
    const SYN: u8 = 2;
    const RST: u8 = 4;
    const ACK: u8 = 16;
    vec![
        (0, tcp(true, SYN, 1000, 0, b"")),
        (1000, tcp(false, SYN | ACK, 5000, 1001, b"")),
        (2000, tcp(true, ACK, 1001, 5001, b"")),
        (3000, tcp(true, ACK, 1001, 5001, b"GET / HTTP/1.1\r\n\r\n")),
        (4000, tcp(false, RST | ACK, 5001, 1019, b"")),
    ]
}

/// The packet behind an Ethernet header.
pub fn ethernet(packet: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0][..], packet].concat()
}

/// The packet alone.
pub fn bare(packet: &[u8]) -> Vec<u8> {
    packet.to_vec()
}

/// The packet behind a Linux cooked header, version 1.
pub fn cooked(packet: &[u8]) -> Vec<u8> {
    [
        &[0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0, 8, 0][..],
        packet,
    ]
    .concat()
}

/// The packet behind a Linux cooked header, version 2.
pub fn cooked2(packet: &[u8]) -> Vec<u8> {
    let header = [8, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0];
    [&header[..], packet].concat()
}

struct Bytes {
    big: bool,
    out: Vec<u8>,
}

impl Bytes {
    fn u16(&mut self, value: u16) {
        let bytes = if self.big {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        };
        self.out.extend(bytes);
    }

    fn u32(&mut self, value: u32) {
        let bytes = if self.big {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        };
        self.out.extend(bytes);
    }

    /// A pcapng block around `body`, padded.
    fn block(&mut self, kind: u32, body: &[u8]) {
        let padded = body.len().next_multiple_of(4);
        let length = u32::try_from(padded + 12).unwrap();
        self.u32(kind);
        self.u32(length);
        self.out.extend(body);
        self.out.resize(self.out.len() + padded - body.len(), 0);
        self.u32(length);
    }

    fn within(big: bool, fill: impl FnOnce(&mut Self)) -> Vec<u8> {
        let mut bytes = Self {
            big,
            out: Vec::new(),
        };
        fill(&mut bytes);
        bytes.out
    }
}

/// A pcap file of one link type; `wrap` puts the link layer before each packet.
pub fn legacy(
    flavor: Flavor,
    link_type: u32,
    packets: &[Packet],
    wrap: impl Fn(&[u8]) -> Vec<u8>,
) -> Vec<u8> {
    Bytes::within(flavor.is_big(), |file| {
        file.u32(if flavor.is_nano() {
            0xa1b2_3c4d
        } else {
            0xa1b2_c3d4
        });
        file.u16(2);
        file.u16(4);
        for word in [0, 0, 262_144, link_type] {
            file.u32(word);
        }
        for (micros, packet) in packets {
            let frame = wrap(packet);
            let len = u32::try_from(frame.len()).unwrap();
            let fraction = if flavor.is_nano() {
                micros * 1000
            } else {
                *micros
            };
            file.u32(u32::try_from(START_S).unwrap());
            file.u32(u32::try_from(fraction).unwrap());
            file.u32(len);
            file.u32(len);
            file.out.extend(frame);
        }
    })
}

/// A pcapng file with two interfaces, Ethernet in microseconds and raw IP in nanoseconds (7 ns
/// later), used in turn; with blocks among the packets that carry none.
pub fn blocks(big: bool, packets: &[Packet]) -> Vec<u8> {
    Bytes::within(big, |file| {
        let section = Bytes::within(big, |body| {
            body.u32(0x1a2b_3c4d);
            body.u16(1);
            body.u16(0);
            body.u32(u32::MAX);
            body.u32(u32::MAX);
        });
        file.block(0x0a0d_0d0a, &section);
        for (link_type, resolution) in [(1, None), (101, Some(9_u8))] {
            let interface = Bytes::within(big, |body| {
                body.u16(link_type);
                body.u16(0);
                body.u32(0);
                // if_name
                body.u16(2);
                body.u16(3);
                body.out.extend(b"up0\0");
                if let Some(resolution) = resolution {
                    body.u16(9);
                    body.u16(1);
                    body.out.extend([resolution, 0, 0, 0]);
                }
                body.u32(0);
            });
            file.block(1, &interface);
        }
        for (index, (micros, packet)) in packets.iter().enumerate() {
            // An unknown block, longer than any packet would be.
            file.block(0x0bad, &vec![0xaa; 3000]);
            let interface = u32::from(index + 1 == packets.len());
            let (frame, units) = if interface == 0 {
                (ethernet(packet), START_S * 1_000_000 + micros)
            } else {
                (packet.clone(), (START_S * 1_000_000 + micros) * 1000 + 7)
            };
            let body = Bytes::within(big, |body| {
                body.u32(interface);
                body.u32(u32::try_from(units >> 32).unwrap());
                body.u32(u32::try_from(units & 0xffff_ffff).unwrap());
                body.u32(u32::try_from(frame.len()).unwrap());
                body.u32(u32::try_from(frame.len()).unwrap());
                body.out.extend(frame);
            });
            file.block(6, &body);
        }
    })
}

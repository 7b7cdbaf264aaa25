//! The classic capture format (draft-ietf-opsawg-pcap): one header, then packets. Both byte
//! orders, µs and ns, and the longer packet headers of Kuznetzov's variant.

use super::input::Input;
use super::{Found, Order, PACKET_LIMIT, Trouble};

/// Bytes of the file header.
const FILE_HEADER: usize = 24;

/// What the file header says.
#[derive(Debug, Clone, Copy)]
pub struct Legacy {
    order: Order,
    /// Nanoseconds in one unit of the fraction.
    unit_ns: u64,
    /// Bytes of a packet header: 16, or 24 in Kuznetzov's variant.
    header: usize,
    link_type: u16,
}

/// Whether a file begins as this format does: its byte order, unit and packet header length.
fn magic(bytes: [u8; 4]) -> Option<(Order, u64, usize)> {
    Some(match u32::from_be_bytes(bytes) {
        0xa1b2_c3d4 => (Order::Big, 1000, 16),
        0xa1b2_3c4d => (Order::Big, 1, 16),
        0xa1b2_cd34 => (Order::Big, 1000, 24),
        0xd4c3_b2a1 => (Order::Little, 1000, 16),
        0x4d3c_b2a1 => (Order::Little, 1, 16),
        0x34cd_b2a1 => (Order::Little, 1000, 24),
        _ => return None,
    })
}

impl Legacy {
    /// Reads the file header; `Ok(None)` when this is another format.
    pub fn begin(input: &mut Input) -> Result<Option<Self>, Trouble> {
        let ready = input.ready(FILE_HEADER)?;
        let Some((order, unit_ns, header)) = input.bytes().first_chunk().copied().and_then(magic)
        else {
            return Ok(None);
        };
        let Some(bytes) = input.bytes().first_chunk::<FILE_HEADER>() else {
            return Err(Trouble::Truncated {
                wanted: FILE_HEADER as u64,
                found: ready as u64,
            });
        };
        // The upper half of the word may tell the length of a frame check sequence.
        let [.., a, b, c, d] = *bytes;
        let [link_low, link_high] = match order {
            Order::Big => [d, c],
            Order::Little => [a, b],
        };
        let link_type = u16::from_le_bytes([link_low, link_high]);
        input.consume(FILE_HEADER);
        Ok(Some(Self {
            order,
            unit_ns,
            header,
            link_type,
        }))
    }

    /// The next packet, consumed; `None` at the end.
    #[inline]
    pub fn next(&self, input: &mut Input) -> Result<Option<Found>, Trouble> {
        let ready = input.ready(self.header)?;
        let Some(
            &[
                s0,
                s1,
                s2,
                s3,
                f0,
                f1,
                f2,
                f3,
                c0,
                c1,
                c2,
                c3,
                w0,
                w1,
                w2,
                w3,
            ],
        ) = input
            .bytes()
            .first_chunk::<16>()
            .filter(|_| ready >= self.header)
        else {
            if ready == 0 {
                return Ok(None);
            }
            return Err(Trouble::Truncated {
                wanted: self.header as u64,
                found: ready as u64,
            });
        };
        let seconds = self.order.u32([s0, s1, s2, s3]);
        let fraction = self.order.u32([f0, f1, f2, f3]);
        let captured = self.order.u32([c0, c1, c2, c3]);
        if captured > PACKET_LIMIT {
            return Err(Trouble::Damaged(
                "a packet header claims an impossible length",
            ));
        }
        let whole = self.header + captured as usize;
        let ready = input.ready(whole)?;
        if ready < whole {
            return Err(Trouble::Truncated {
                wanted: whole as u64,
                found: ready as u64,
            });
        }
        input.consume(whole);
        Ok(Some(Found {
            // Both fit: at most 2³² s and 2³² µs are less than 2⁶⁴ ns.
            time_ns: u64::from(seconds) * 1_000_000_000 + u64::from(fraction) * self.unit_ns,
            link_type: self.link_type,
            interface: 0,
            back: captured as usize,
            len: captured as usize,
            wire_len: self.order.u32([w0, w1, w2, w3]),
        }))
    }
}

//! The block format (draft-ietf-opsawg-pcapng): sections with interfaces, each with a link type and
//! clock of its own. Blocks that carry no packets are stepped over without being kept.

use super::input::Input;
use super::{Found, Order, PACKET_LIMIT, Trouble};

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const OBSOLETE_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
/// Bytes of a block's type and length, and of the length that ends it.
const HEAD: usize = 8;
const FOOT: usize = 4;
/// Longest block that is looked into: a packet and its options.
const BLOCK_LIMIT: u32 = PACKET_LIMIT + (1 << 16);
/// Interfaces of one section. A file that claims more is damaged, or means to fill our memory.
const INTERFACE_LIMIT: usize = 1 << 12;
/// Longest interface name that is kept.
const NAME_LIMIT: usize = 64;

const OPTION_NAME: u16 = 2;
const OPTION_RESOLUTION: u16 = 9;
const OPTION_OFFSET: u16 = 14;

/// One interface of the current section.
#[derive(Debug, Clone)]
pub struct Interface {
    link_type: u16,
    snap_len: u32,
    clock: Clock,
    /// `if_name`.
    pub name: Option<String>,
}

/// How an interface counts time.
#[derive(Debug, Clone, Copy)]
struct Clock {
    /// Units in one second.
    per_second: u128,
    /// Nanoseconds in one unit, where that is a whole number: the usual case, without a division.
    whole_ns: Option<u64>,
    /// Seconds to add.
    offset_s: i64,
}

impl Clock {
    /// From `if_tsresol`: a negative power of ten, or of two when the top bit is set.
    fn new(resolution: u8) -> Option<Self> {
        let exponent = u32::from(resolution & 0x7f);
        let base: u128 = if resolution & 0x80 == 0 { 10 } else { 2 };
        let per_second = base.checked_pow(exponent)?;
        let whole_ns = (1_000_000_000 % per_second == 0)
            .then(|| u64::try_from(1_000_000_000 / per_second).ok())
            .flatten();
        Some(Self {
            per_second,
            whole_ns,
            offset_s: 0,
        })
    }

    /// Nanoseconds since 1970; ends of time instead of wrapping.
    fn nanos(&self, units: u64) -> u64 {
        let nanos = match self.whole_ns {
            Some(whole) => units.saturating_mul(whole),
            None => {
                let nanos = u128::from(units).saturating_mul(1_000_000_000) / self.per_second;
                u64::try_from(nanos).unwrap_or(u64::MAX)
            }
        };
        let offset_ns = self.offset_s.unsigned_abs().saturating_mul(1_000_000_000);
        if self.offset_s < 0 {
            nanos.saturating_sub(offset_ns)
        } else {
            nanos.saturating_add(offset_ns)
        }
    }
}

/// The current section.
#[derive(Debug)]
pub struct Blocks {
    order: Order,
    interfaces: Vec<Interface>,
    /// Time of the last packet that had one: a simple packet block has none.
    last_ns: u64,
}

impl Blocks {
    /// A reader, when the file begins as this format does.
    pub fn begin(input: &mut Input) -> Result<Option<Self>, Trouble> {
        input.ready(HEAD + 4)?;
        if input.bytes().get(..4) != Some(&SECTION_HEADER.to_be_bytes()) {
            return Ok(None);
        }
        Ok(Some(Self {
            order: Order::Little,
            interfaces: Vec::new(),
            last_ns: 0,
        }))
    }

    /// Name of an interface of the current section.
    pub fn name(&self, interface: u16) -> Option<&str> {
        self.interfaces.get(usize::from(interface))?.name.as_deref()
    }

    /// Reads on to the next packet, and consumes it; `None` at the end.
    pub fn next(&mut self, input: &mut Input) -> Result<Option<Found>, Trouble> {
        loop {
            let ready = input.ready(HEAD + 4)?;
            if ready == 0 {
                return Ok(None);
            }
            let Some(&[t0, t1, t2, t3, l0, l1, l2, l3, m0, m1, m2, m3]) =
                input.bytes().first_chunk::<12>()
            else {
                return Err(Trouble::Truncated {
                    wanted: 12,
                    found: ready as u64,
                });
            };
            // A section header's type reads the same in both orders; its magic tells the order.
            if [t0, t1, t2, t3] == SECTION_HEADER.to_be_bytes() {
                self.order = match u32::from_be_bytes([m0, m1, m2, m3]) {
                    BYTE_ORDER_MAGIC => Order::Big,
                    swapped if swapped == BYTE_ORDER_MAGIC.swap_bytes() => Order::Little,
                    _ => return Err(Trouble::Damaged("a section header without its magic")),
                };
            }
            let kind = self.order.u32([t0, t1, t2, t3]);
            let length = self.order.u32([l0, l1, l2, l3]);
            if length < 12 || !length.is_multiple_of(4) {
                return Err(Trouble::Damaged("a block with an impossible length"));
            }
            if let Some(found) = self.block(kind, length, input)? {
                return Ok(Some(found));
            }
        }
    }

    /// One block, consumed.
    fn block(
        &mut self,
        kind: u32,
        length: u32,
        input: &mut Input,
    ) -> Result<Option<Found>, Trouble> {
        if !matches!(
            kind,
            INTERFACE | OBSOLETE_PACKET | SIMPLE_PACKET | ENHANCED_PACKET
        ) {
            if kind == SECTION_HEADER {
                self.interfaces.clear();
            }
            let missing = input.skip(u64::from(length))?;
            if missing > 0 {
                let found = u64::from(length) - missing;
                return Err(Trouble::SkippedShort {
                    wanted: u64::from(length),
                    found,
                });
            }
            return Ok(None);
        }
        if length > BLOCK_LIMIT {
            return Err(Trouble::Damaged("a block with an impossible length"));
        }
        let whole = length as usize;
        let ready = input.ready(whole)?;
        if ready < whole {
            return Err(Trouble::Truncated {
                wanted: u64::from(length),
                found: ready as u64,
            });
        }
        let block = input.bytes().get(..whole).unwrap_or_default();
        if block.last_chunk::<FOOT>().map(|foot| self.order.u32(*foot)) != Some(length) {
            return Err(Trouble::Damaged("a block whose two lengths differ"));
        }
        let body = block.get(HEAD..whole - FOOT).unwrap_or_default();
        let found = match kind {
            INTERFACE => {
                let interface = self.interface(body)?;
                self.interfaces.push(interface);
                None
            }
            SIMPLE_PACKET => Some(self.simple(body)?),
            _ => Some(self.packet(kind, body)?),
        };
        input.consume(whole);
        Ok(found.map(|(found, at)| Found {
            back: whole - HEAD - at,
            ..found
        }))
    }

    fn interface(&self, body: &[u8]) -> Result<Interface, Trouble> {
        const DAMAGED: Trouble = Trouble::Damaged("an interface description that is cut short");
        if self.interfaces.len() >= INTERFACE_LIMIT {
            return Err(Trouble::Damaged("more interfaces than a capture can have"));
        }
        let &[t0, t1, _, _, s0, s1, s2, s3] = body.first_chunk::<8>().ok_or(DAMAGED)?;
        let mut interface = Interface {
            link_type: self.order.u16([t0, t1]),
            snap_len: self.order.u32([s0, s1, s2, s3]),
            // Microseconds, unless said otherwise.
            clock: Clock {
                per_second: 1_000_000,
                whole_ns: Some(1000),
                offset_s: 0,
            },
            name: None,
        };
        let mut offset_s = 0;
        let mut rest = body.get(8..).unwrap_or_default();
        while let Some(&[c0, c1, l0, l1]) = rest.first_chunk::<4>() {
            let (code, len) = (
                self.order.u16([c0, c1]),
                usize::from(self.order.u16([l0, l1])),
            );
            let value = rest.get(4..4 + len).ok_or(DAMAGED)?;
            match (code, value) {
                (0, _) => break,
                (OPTION_NAME, name) => interface.name = printable(name),
                (OPTION_RESOLUTION, [resolution]) => {
                    interface.clock = Clock::new(*resolution)
                        .ok_or(Trouble::Damaged("an interface with an impossible clock"))?;
                }
                (OPTION_OFFSET, &[a, b, c, d, e, f, g, h]) => {
                    offset_s = self.order.u64([a, b, c, d, e, f, g, h]).cast_signed();
                }
                _ => {}
            }
            rest = rest.get(4 + len.next_multiple_of(4)..).unwrap_or_default();
        }
        interface.clock.offset_s = offset_s;
        Ok(interface)
    }

    /// An enhanced packet block, or its predecessor, which has a drop count beside a shorter
    /// interface number. Also says where in the body the packet begins.
    fn packet(&mut self, kind: u32, body: &[u8]) -> Result<(Found, usize), Trouble> {
        let &[
            i0,
            i1,
            i2,
            i3,
            h0,
            h1,
            h2,
            h3,
            l0,
            l1,
            l2,
            l3,
            c0,
            c1,
            c2,
            c3,
            w0,
            w1,
            w2,
            w3,
        ] = body
            .first_chunk::<20>()
            .ok_or(Trouble::Damaged("a packet that is cut short"))?;
        let number = if kind == OBSOLETE_PACKET {
            u32::from(self.order.u16([i0, i1]))
        } else {
            self.order.u32([i0, i1, i2, i3])
        };
        let interface = usize::try_from(number)
            .ok()
            .and_then(|number| self.interfaces.get(number))
            .ok_or(Trouble::Damaged(
                "a packet of an interface that was not described",
            ))?;
        let (high, low) = (
            self.order.u32([h0, h1, h2, h3]),
            self.order.u32([l0, l1, l2, l3]),
        );
        self.last_ns = interface
            .clock
            .nanos(u64::from(high) << 32 | u64::from(low));
        let captured = self.order.u32([c0, c1, c2, c3]) as usize;
        if captured > body.len() - 20 {
            return Err(Trouble::Damaged("a packet that is longer than its block"));
        }
        let found = Found {
            time_ns: self.last_ns,
            link_type: interface.link_type,
            interface: u16::try_from(number).unwrap_or(u16::MAX),
            back: 0,
            len: captured,
            wire_len: self.order.u32([w0, w1, w2, w3]),
        };
        Ok((found, 20))
    }

    /// A simple packet block: the first interface, no time of its own.
    fn simple(&self, body: &[u8]) -> Result<(Found, usize), Trouble> {
        let wire_len = body.first_chunk::<4>().map(|len| self.order.u32(*len));
        let wire_len = wire_len.ok_or(Trouble::Damaged("a packet that is cut short"))?;
        let interface = self.interfaces.first().ok_or(Trouble::Damaged(
            "a packet of an interface that was not described",
        ))?;
        let snap_len = if interface.snap_len == 0 {
            u32::MAX
        } else {
            interface.snap_len
        };
        let len = (wire_len.min(snap_len) as usize).min(body.len() - 4);
        let found = Found {
            time_ns: self.last_ns,
            link_type: interface.link_type,
            interface: 0,
            back: 0,
            len,
            wire_len,
        };
        Ok((found, 4))
    }
}

/// A name from a file, fit to be printed: the file's author may not be a friend.
fn printable(name: &[u8]) -> Option<String> {
    let text: String = String::from_utf8_lossy(name)
        .trim_end_matches('\0')
        .chars()
        .map(|c| {
            if c.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .take(NAME_LIMIT)
        .collect();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::Clock;

    #[test]
    fn clocks_of_any_resolution_give_nanoseconds() {
        let micro = Clock::new(6).unwrap();
        assert_eq!(micro.nanos(1_500_000), 1_500_000_000);
        assert_eq!(Clock::new(9).unwrap().nanos(7), 7);
        assert_eq!(Clock::new(0).unwrap().nanos(3), 3_000_000_000);
        // Picoseconds, and units of 2⁻¹⁰ s.
        assert_eq!(Clock::new(12).unwrap().nanos(7_999), 7);
        assert_eq!(Clock::new(0x8a).unwrap().nanos(1536), 1_500_000_000);
        assert!(Clock::new(0x7f).is_none(), "10^127 is beyond any clock");
    }

    #[test]
    fn an_offset_moves_the_clock_and_never_wraps() {
        let mut clock = Clock::new(6).unwrap();
        clock.offset_s = -5;
        assert_eq!(clock.nanos(6_000_000), 1_000_000_000);
        assert_eq!(clock.nanos(0), 0);
        clock.offset_s = i64::MAX;
        assert_eq!(clock.nanos(0), u64::MAX);
    }
}

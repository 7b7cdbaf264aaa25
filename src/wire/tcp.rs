//! The TCP header's control bits and options (RFC 9293 §3.1, RFC 7323). Options are walked once
//! and reduced to what evidence needs; an option list that lies about its lengths is cut short
//! and marked, not rejected: a forged segment may well carry one.

use super::SeqNum;

/// Control bits, in header order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// FIN: no more data from the sender.
    pub const FIN: u8 = 0x01;
    /// SYN: synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// RST: reset the connection.
    pub const RST: u8 = 0x04;
    /// PSH: push.
    pub const PSH: u8 = 0x08;
    /// ACK: the acknowledgement field counts.
    pub const ACK: u8 = 0x10;
    /// URG: the urgent pointer counts.
    pub const URG: u8 = 0x20;
    /// ECE (RFC 3168).
    pub const ECE: u8 = 0x40;
    /// CWR (RFC 3168).
    pub const CWR: u8 = 0x80;

    /// FIN is set.
    #[must_use]
    pub const fn fin(self) -> bool {
        self.0 & Self::FIN != 0
    }

    /// SYN is set.
    #[must_use]
    pub const fn syn(self) -> bool {
        self.0 & Self::SYN != 0
    }

    /// RST is set.
    #[must_use]
    pub const fn rst(self) -> bool {
        self.0 & Self::RST != 0
    }

    /// ACK is set.
    #[must_use]
    pub const fn ack(self) -> bool {
        self.0 & Self::ACK != 0
    }

    /// The set bits as letters, `RA` for RST and ACK: the form that people write on whiteboards.
    #[must_use]
    pub fn letters(self) -> String {
        self.each_letter().collect()
    }

    /// These letters one by one.
    pub fn each_letter(self) -> impl Iterator<Item = char> {
        const LETTERS: [(u8, char); 8] = [
            (Flags::SYN, 'S'),
            (Flags::FIN, 'F'),
            (Flags::RST, 'R'),
            (Flags::PSH, 'P'),
            (Flags::ACK, 'A'),
            (Flags::URG, 'U'),
            (Flags::ECE, 'E'),
            (Flags::CWR, 'C'),
        ];
        LETTERS
            .into_iter()
            .filter(move |(bit, _)| self.0 & bit != 0)
            .map(|(_, letter)| letter)
    }
}

/// The timestamps option (RFC 7323 §3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Timestamps {
    /// TSval: the sender's clock.
    pub value: u32,
    /// TSecr: what it last saw of ours.
    pub echo: u32,
}

/// What the options say, as far as evidence needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Maximum segment size.
    pub mss: Option<u16>,
    /// Window scale shift.
    pub window_scale: Option<u8>,
    /// SACK permitted.
    pub sack_permitted: bool,
    /// Timestamps.
    pub timestamps: Option<Timestamps>,
    /// The end of the right-most SACK block: a reset is accepted there too (RFC 5961 §3.2 as
    /// Linux does it, `tcp_reset_check` and its SACK exception).
    pub sack_right_edge: Option<SeqNum>,
    /// MD5 (RFC 2385) or TCP-AO (RFC 5925) signs the segment.
    pub is_signed: bool,
    /// An MPTCP option (RFC 8684), MP_TCPRST among them.
    pub mptcp: bool,
    /// Some other option stands there.
    pub has_unknown: bool,
    /// The list contradicts its own lengths.
    pub malformed: bool,
    /// Kinds in order, four bits each (15 for a kind over 14): the order is a stack's signature.
    pub order: u32,
    /// Bytes of options.
    pub len: u8,
}

/// Bytes of a TCP header without options.
pub const HEADER_LEN: usize = 20;

impl Options {
    /// No options.
    pub const NONE: Self = Self {
        mss: None,
        window_scale: None,
        sack_permitted: false,
        timestamps: None,
        sack_right_edge: None,
        is_signed: false,
        mptcp: false,
        has_unknown: false,
        malformed: false,
        order: 0,
        len: 0,
    };

    /// Reads the option bytes of one header.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        let mut options = Self::NONE;
        options.read(bytes);
        options
    }

    /// Reads the option bytes of one header over what was known. The lists that nearly all segments
    /// carry are told by a comparison or three: none; timestamps behind two NOPs (RFC 7323
    /// Appendix A); Linux's SYN: MSS, SACK permitted, timestamps, NOP, window scale
    /// (`tcp_options_write`).
    #[inline]
    pub(super) fn read(&mut self, bytes: &[u8]) {
        let stamps = |value: [u8; 4], echo: [u8; 4]| {
            Some(Timestamps {
                value: u32::from_be_bytes(value),
                echo: u32::from_be_bytes(echo),
            })
        };
        match *bytes {
            [] => *self = Self::NONE,
            [1, 1, 8, 10, a, b, c, d, e, f, g, h] => {
                *self = Self {
                    timestamps: stamps([a, b, c, d], [e, f, g, h]),
                    order: 0x118,
                    len: 12,
                    ..Self::NONE
                }
            }
            [
                2,
                4,
                high,
                low,
                4,
                2,
                8,
                10,
                a,
                b,
                c,
                d,
                e,
                f,
                g,
                h,
                1,
                3,
                3,
                shift,
            ] => {
                *self = Self {
                    mss: Some(u16::from_be_bytes([high, low])),
                    window_scale: Some(shift),
                    sack_permitted: true,
                    timestamps: stamps([a, b, c, d], [e, f, g, h]),
                    order: 0x2_4813,
                    len: 20,
                    ..Self::NONE
                }
            }
            _ => self.walk(bytes),
        }
    }

    /// Any list, option by option.
    #[inline(never)]
    fn walk(&mut self, bytes: &[u8]) {
        let options = self;
        *options = Self {
            len: u8::try_from(bytes.len()).unwrap_or(u8::MAX),
            ..Self::NONE
        };
        let mut rest = bytes;
        while let Some((&kind, after_kind)) = rest.split_first() {
            match kind {
                0 => break,
                1 => {
                    options.note(kind);
                    rest = after_kind;
                }
                _ => {
                    let Some(body_len) = after_kind.first().and_then(|len| len.checked_sub(2))
                    else {
                        options.malformed = true;
                        break;
                    };
                    let Some(body) = after_kind.get(1..1 + usize::from(body_len)) else {
                        options.malformed = true;
                        break;
                    };
                    options.note(kind);
                    options.take(kind, body);
                    rest = after_kind
                        .get(1 + usize::from(body_len)..)
                        .unwrap_or_default();
                }
            }
        }
    }

    fn note(&mut self, kind: u8) {
        self.order = (self.order << 4) | u32::from(kind.min(15));
    }

    fn take(&mut self, kind: u8, body: &[u8]) {
        match (kind, body) {
            (2, [a, b]) => self.mss = Some(u16::from_be_bytes([*a, *b])),
            (3, [shift]) => self.window_scale = Some(*shift),
            (4, []) => self.sack_permitted = true,
            (5, blocks) => {
                for block in blocks.chunks_exact(8) {
                    if let [.., a, b, c, d] = block {
                        let edge = SeqNum(u32::from_be_bytes([*a, *b, *c, *d]));
                        if self
                            .sack_right_edge
                            .is_none_or(|known| edge.is_after(known))
                        {
                            self.sack_right_edge = Some(edge);
                        }
                    }
                }
            }
            (8, [a, b, c, d, e, f, g, h]) => {
                self.timestamps = Some(Timestamps {
                    value: u32::from_be_bytes([*a, *b, *c, *d]),
                    echo: u32::from_be_bytes([*e, *f, *g, *h]),
                });
            }
            (19 | 29, _) => self.is_signed = true,
            (30, _) => self.mptcp = true,
            _ => self.has_unknown = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Flags, Options, Timestamps};
    use crate::wire::SeqNum;

    #[test]
    fn a_linux_syn_is_read_in_full() {
        let options = Options::parse(&[
            2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 7, 0, 0, 0, 0, 1, 3, 3, 10,
        ]);
        assert_eq!(options.mss, Some(1460));
        assert_eq!(options.window_scale, Some(10));
        assert!(options.sack_permitted && !options.malformed && !options.has_unknown);
        assert_eq!(options.timestamps, Some(Timestamps { value: 7, echo: 0 }));
        assert_eq!(options.order, 0x2_4813);
        assert_eq!(options.len, 20);
    }

    #[test]
    fn a_list_that_lies_about_its_length_is_marked_and_cut() {
        for bytes in [&[8_u8, 10, 0][..], &[8], &[8, 0], &[8, 1, 1, 1]] {
            let options = Options::parse(bytes);
            assert!(options.malformed, "{bytes:?}");
            assert_eq!(options.timestamps, None);
        }
    }

    #[test]
    fn the_right_most_sack_edge_wins_across_the_wrap() {
        let mut bytes = vec![1, 1, 5, 18];
        for edge in [0xffff_ff00_u32, 0xffff_fff0, 0x10, 0x20] {
            bytes.extend_from_slice(&edge.to_be_bytes());
        }
        assert_eq!(Options::parse(&bytes).sack_right_edge, Some(SeqNum(0x20)));
    }

    #[test]
    fn letters_name_every_bit() {
        assert_eq!(Flags(Flags::RST | Flags::ACK).letters(), "RA");
        assert_eq!(Flags(0xff).letters(), "SFRPAUEC");
    }
}

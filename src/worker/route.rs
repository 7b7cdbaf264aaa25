//! Which frames of a batch may go back live, and which must take the veth. A pure function over
//! what was read of them. Frames of one flow never take different ways in one batch, so that none overtakes another.

use std::net::IpAddr;

use crate::sys::{BATCH_FRAMES, BURST_BYTES};
use crate::wire::FourTuple;
use crate::worker::Headers;

/// Fewest frames that go back live. A call costs some 16 us whatever it carries and saves half a
/// microsecond a frame: below two dozen the veth is cheaper (benches/path.rs).
pub(super) const LIVE_MIN: usize = 24;

/// Bits of the set that tells whether two ways share a flow. With 32 frames on each way, one batch in
/// sixteen takes the veth for two flows that look alike; that costs time, not order.
const SET_BITS: usize = 16_384;

/// A set of flows that may hold more than was put into it, never less.
struct Flows([u64; SET_BITS / 64]);

impl Flows {
    const fn new() -> Self {
        Self([0; SET_BITS / 64])
    }

    fn place(hash: u64) -> (usize, u64) {
        let bit = usize::try_from(hash >> 50).unwrap_or(0) % SET_BITS;
        (bit / 64, 1 << (bit % 64))
    }

    fn insert(&mut self, hash: u64) {
        let (word, bit) = Self::place(hash);
        if let Some(word) = self.0.get_mut(word) {
            *word |= bit;
        }
    }

    fn may_hold(&self, hash: u64) -> bool {
        let (word, bit) = Self::place(hash);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }
}

/// The frames that may go back live, one bit each, the first frame's lowest; 0 when all take the
/// veth.
///
/// Live goes what the stack is done with at once: SYN and RST without payload. A frame whose memory
/// it may keep (payload; a FIN, which waits in the socket for the process to read the end) would
/// hold the kernel's page pool of the whole call.
///
/// Each frame as it was read, and its length.
pub(super) fn live_mask<'a, F>(frames: F) -> u64
where
    F: Iterator<Item = (Option<Headers<'a>>, usize)> + Clone,
{
    let (mut mask, mut count) = (0_u64, 0_usize);
    for (at, (segment, len)) in frames.clone().take(BATCH_FRAMES).enumerate() {
        // Nobody knows the flow of what is no segment: it keeps the batch together.
        let Some(segment) = segment else {
            return 0;
        };
        let is_brief = segment.flags.syn() || segment.flags.rst();
        let is_empty = !segment.has_data && !segment.flags.fin();
        if is_brief && is_empty && len <= BURST_BYTES {
            mask |= 1 << at;
        }
        count = at + 1;
    }
    let live = mask.count_ones() as usize;
    if live < LIVE_MIN || (live < count && share_a_flow(frames, mask)) {
        0
    } else {
        mask
    }
}

/// Whether a frame of the mask may be of one flow with a frame that is not.
fn share_a_flow<'a, F>(frames: F, mask: u64) -> bool
where
    F: Iterator<Item = (Option<Headers<'a>>, usize)> + Clone,
{
    let hashes = |is_live: bool| {
        let frames = frames.clone().take(BATCH_FRAMES).enumerate();
        frames
            .filter(move |(at, _)| (mask >> at & 1 != 0) == is_live)
            .filter_map(|(_, (segment, _))| segment)
            .map(|segment| hash(segment.tuple))
    };
    let mut others = Flows::new();
    hashes(false).for_each(|hash| others.insert(hash));
    hashes(true).any(|hash| others.may_hold(hash))
}

/// A number for a flow. It need not be keyed: who makes flows meet wins them the veth.
fn hash(tuple: &FourTuple) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let folded = |address: IpAddr| match address {
        IpAddr::V4(address) => u64::from(u32::from(address)),
        IpAddr::V6(address) => {
            let bits = u128::from(address);
            // Both halves, folded: truncation is meant.
            #[expect(clippy::cast_possible_truncation, reason = "the halves are folded")]
            let halves = (bits as u64) ^ ((bits >> 64) as u64).wrapping_mul(ODD);
            halves
        }
    };
    let ports = u64::from(tuple.src_port) << 16 | u64::from(tuple.dst_port);
    folded(tuple.src)
        .wrapping_mul(ODD)
        .rotate_left(23)
        .wrapping_add(folded(tuple.dst))
        .wrapping_mul(ODD)
        .wrapping_add(ports)
        .wrapping_mul(ODD)
}

#[cfg(test)]
mod tests {
    use super::{LIVE_MIN, live_mask};
    use crate::time::Timestamp;
    use crate::worker::{Parsed, read_frame};

    const FIN: u8 = 1;
    const SYN: u8 = 2;
    const RST: u8 = 4;
    const ACK: u8 = 16;

    fn frame(port: u16, flags: u8, payload: usize) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00, 0x45, 0];
        bytes.extend(u16::try_from(40 + payload).unwrap().to_be_bytes());
        bytes.extend([0, 0, 0x40, 0, 64, 6, 0, 0, 10, 9, 0, 1, 10, 9, 0, 2]);
        bytes.extend(port.to_be_bytes());
        bytes.extend([0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 1, 0, 0, 0, 0, 0]);
        bytes.extend(vec![0x55; payload]);
        bytes
    }

    fn mask(frames: &[Vec<u8>]) -> u64 {
        let read = |frame: &Vec<u8>| {
            let mut parsed = Parsed::BLANK;
            read_frame(Timestamp::default(), frame, None, &mut parsed);
            (parsed, frame.len())
        };
        let read: Vec<_> = frames.iter().map(read).collect();
        live_mask(read.iter().map(|(parsed, len)| (parsed.headers(), *len)))
    }

    fn syns(count: usize) -> Vec<Vec<u8>> {
        let ports = (1000..).step_by(7).take(count);
        ports.map(|port| frame(port, SYN, 0)).collect()
    }

    #[test]
    fn a_full_batch_of_syns_and_resets_goes_live() {
        let mut frames = syns(32);
        frames.extend((40_000..40_032).map(|port| frame(port, RST | ACK, 0)));
        assert_eq!(mask(&frames), u64::MAX);
    }

    #[test]
    fn few_frames_take_the_veth() {
        assert_eq!(mask(&syns(LIVE_MIN - 1)), 0);
        assert_eq!(mask(&syns(LIVE_MIN)).count_ones() as usize, LIVE_MIN);
        assert_eq!(mask(&[]), 0);
    }

    #[test]
    fn payload_and_fin_take_the_veth_beside_others_that_go_live() {
        for odd in [
            frame(9, SYN, 1),
            frame(9, FIN | ACK, 0),
            frame(9, FIN | RST, 0),
            frame(9, RST, 20),
        ] {
            let mut frames = syns(30);
            frames.insert(11, odd);
            assert_eq!(mask(&frames), ((1 << 31) - 1) & !(1 << 11));
        }
    }

    #[test]
    fn a_flow_with_frames_on_both_ways_keeps_the_batch_on_the_veth() {
        let mut frames = syns(40);
        frames.push(frame(1000, FIN | ACK, 0));
        assert_eq!(mask(&frames), 0);
    }

    #[test]
    fn a_frame_that_is_no_segment_keeps_the_batch_on_the_veth() {
        let mut frames = syns(40);
        frames.push(vec![0; 60]);
        assert_eq!(mask(&frames), 0);
    }
}

//! The bytes of `struct socket_view` and `struct frame_meta` (bpf/shared.h) as values of `host`, and
//! the keys of the `watched` map. Pure (but for the length of a tick): the worker reads them in
//! front of a frame, `events` inside a ring buffer record. Whatever the bytes are, nothing panics;
//! what makes no sense is `None`.

use std::net::IpAddr;

use crate::host::{SocketSequence, SocketView, TcpState};
use crate::time::Timestamp;
use crate::wire::{FourTuple, SeqNum};

/// Bytes of `struct socket_view`.
pub const SOCKET_VIEW_LEN: usize = 72;
/// Of `enum socket_trait`.
const HAS_TIMESTAMPS: u8 = 1;
const HAS_KEEPALIVE: u8 = 2;
const HAS_REORDERED: u8 = 4;
/// Bytes of `struct frame_meta`.
pub const FRAME_META_LEN: usize = 88;
/// Bytes of `struct frame_meta_short`.
pub const FRAME_META_SHORT_LEN: usize = 32;

/// Bytes of `struct flow_key`.
pub const FLOW_KEY_LEN: usize = 36;
/// Bytes of `struct watch`.
pub const WATCH_LEN: usize = 32;

/// `FRAME_OLDER` of `enum frame_origin`.
const FRAME_OLDER: u64 = 6;

const MAGIC: u32 = 0x5253_5431;
const MAGIC_SHORT: u16 = 0x5332;
const SHORT_HAS_TIMESTAMPS: u8 = 0x80;

/// A number in the machine's byte order at `at`.
#[must_use]
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|b| u16::from_ne_bytes(*b))
}

/// A number in the machine's byte order at `at`.
#[must_use]
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|b| u32::from_ne_bytes(*b))
}

/// A number in the machine's byte order at `at`.
#[must_use]
pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|b| u64::from_ne_bytes(*b))
}

/// Length of the kernel's tick in nanoseconds: what its coarse clock steps by.
#[must_use]
pub fn tick_ns() -> u64 {
    let step = rustix::time::clock_getres(rustix::time::ClockId::MonotonicCoarse);
    u64::try_from(step.tv_nsec).unwrap_or(4_000_000)
}

/// Reads a `struct socket_view`; `None` when no lookup was made, or the bytes make no sense.
#[must_use]
pub fn socket_view(bytes: &[u8]) -> Option<SocketView> {
    let [kind, state, traits, rtt_deviation, ..] = *bytes.first_chunk::<SOCKET_VIEW_LEN>()?;
    view(kind, state, || {
        Some(SocketSequence {
            rcv_nxt: SeqNum(u32_at(bytes, 4)?),
            rcv_wnd: u32_at(bytes, 8)?,
            write_seq: SeqNum(u32_at(bytes, 12)?),
            snd_una: SeqNum(u32_at(bytes, 16)?),
            ts_recent: u32_at(bytes, 20).filter(|_| traits & HAS_TIMESTAMPS != 0),
            segs_in: u32_at(bytes, 24),
            bytes_in: u64_at(bytes, 32),
            bytes_out: u64_at(bytes, 40),
            // 0: no round trip was measured yet; no clock shows a true one of under a microsecond.
            srtt_us: u32_at(bytes, 28).filter(|srtt| *srtt != 0),
            idle_ns: u64_at(bytes, 48).filter(|idle| *idle != 0),
            sent_ago_ns: u64_at(bytes, 56).filter(|ago| *ago != 0),
            touched_ago_ns: u64_at(bytes, 64).filter(|ago| *ago != 0),
            has_keepalive: traits & HAS_KEEPALIVE != 0,
            has_reordered: traits & HAS_REORDERED != 0,
            rtt_deviation,
        })
    })
}

/// Reads the metadata that `steer` left right before a redirected frame. `before` ends where the
/// frame begins, and may begin anywhere. The view is `None` when no lookup was made (SYN).
#[must_use]
pub fn frame_meta(before: &[u8]) -> Option<(Timestamp, Option<SocketView>)> {
    if let Some(meta) = before.last_chunk::<FRAME_META_LEN>()
        && u32_at(meta, 84) == Some(MAGIC)
    {
        return Some((Timestamp::from_nanos(u64_at(meta, 72)?), socket_view(meta)));
    }
    let meta = before.last_chunk::<FRAME_META_SHORT_LEN>()?;
    if u16_at(meta, 30) != Some(MAGIC_SHORT) {
        return None;
    }
    let [kind, state] = [meta[28], meta[29]];
    let view = view(kind & !SHORT_HAS_TIMESTAMPS, state, || {
        Some(SocketSequence {
            rcv_nxt: SeqNum(u32_at(meta, 8)?),
            rcv_wnd: u32_at(meta, 12)?,
            write_seq: SeqNum(u32_at(meta, 16)?),
            snd_una: SeqNum(u32_at(meta, 20)?),
            ts_recent: u32_at(meta, 24).filter(|_| kind & SHORT_HAS_TIMESTAMPS != 0),
            ..SocketSequence::BLANK
        })
    });
    Some((Timestamp::from_nanos(u64_at(meta, 0)?), view))
}

/// When the frame behind it came, as [`frame_meta`] says, written over `time` where there is metadata; answers
/// whether there is. Does not look at the socket, which begins in another cache line.
#[inline]
pub fn read_frame_time(before: &[u8], time: &mut Timestamp) -> bool {
    if let Some(meta) = before.last_chunk::<FRAME_META_LEN>()
        && u32_at(meta, 84) == Some(MAGIC)
        && let Some(stamp) = u64_at(meta, 72)
    {
        *time = Timestamp::from_nanos(stamp);
        return true;
    }
    read_frame_time_short(before, time)
}

#[inline(never)]
fn read_frame_time_short(before: &[u8], time: &mut Timestamp) -> bool {
    let meta = frame_meta(before);
    if let Some((stamp, _)) = meta {
        *time = stamp;
    }
    meta.is_some()
}

/// A `struct flow_key` (bpf/watch.h) of the segments that go from `tuple.src` to `tuple.dst`.
#[must_use]
pub fn flow_key(tuple: &FourTuple) -> [u8; FLOW_KEY_LEN] {
    let mut key = [0; FLOW_KEY_LEN];
    let (src, rest) = key.split_at_mut(16);
    let (dst, ports) = rest.split_at_mut(16);
    for (to, address) in [(src, tuple.src), (dst, tuple.dst)] {
        match address {
            IpAddr::V4(v4) => to[..4].copy_from_slice(&v4.octets()),
            IpAddr::V6(v6) => to.copy_from_slice(&v6.octets()),
        }
    }
    ports[..2].copy_from_slice(&tuple.src_port.to_be_bytes());
    ports[2..].copy_from_slice(&tuple.dst_port.to_be_bytes());
    key
}

/// A `struct watch` (bpf/watch.h) of a connection that is older than the sensor.
#[must_use]
pub fn watch_of_older(until: Timestamp, frames: u64) -> [u8; WATCH_LEN] {
    let mut watch = [0; WATCH_LEN];
    let words = [until.as_nanos(), frames, FRAME_OLDER];
    for (to, word) in watch.chunks_exact_mut(8).zip(words) {
        to.copy_from_slice(&word.to_ne_bytes());
    }
    watch
}

fn view(
    kind: u8,
    state: u8,
    sequence: impl FnOnce() -> Option<SocketSequence>,
) -> Option<SocketView> {
    // enum socket_kind
    Some(match kind {
        1 => SocketView::Absent,
        2 => SocketView::Listener,
        3 => SocketView::TimeWait,
        4 => SocketView::Request,
        5 => SocketView::Full {
            state: TcpState::from_kernel(state)?,
            sequence: sequence()?,
        },
        _ => return None,
    })
}

#[cfg(test)]
#[allow(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that panics has failed, as it should"
)]
mod tests {
    use super::{FRAME_META_LEN, MAGIC, MAGIC_SHORT, frame_meta, read_frame_time, socket_view};
    use crate::host::{SocketSequence, SocketView, TcpState};
    use crate::time::Timestamp;
    use crate::wire::SeqNum;

    fn full() -> [u8; 72] {
        let mut bytes = [0; 72];
        bytes[..4].copy_from_slice(&[5, 1, 1, 32]);
        for (index, at) in (4..32).step_by(4).enumerate() {
            bytes[at..at + 4].copy_from_slice(&(10 + index as u32).to_ne_bytes());
        }
        for (index, at) in (32..72).step_by(8).enumerate() {
            bytes[at..at + 8].copy_from_slice(&(100 + index as u64).to_ne_bytes());
        }
        bytes
    }

    #[test]
    fn every_field_of_a_full_socket_has_its_place() {
        let Some(SocketView::Full { state, sequence }) = socket_view(&full()) else {
            panic!("no full socket");
        };
        assert_eq!(state, TcpState::Established);
        assert_eq!((sequence.rcv_nxt, sequence.rcv_wnd), (SeqNum(10), 11));
        assert_eq!(
            (sequence.write_seq, sequence.snd_una),
            (SeqNum(12), SeqNum(13))
        );
        assert_eq!((sequence.ts_recent, sequence.segs_in), (Some(14), Some(15)));
        assert_eq!((sequence.srtt_us, sequence.idle_ns), (Some(16), Some(102)));
        assert_eq!(
            (sequence.sent_ago_ns, sequence.touched_ago_ns),
            (Some(103), Some(104))
        );
        assert_eq!(
            (sequence.bytes_in, sequence.bytes_out),
            (Some(100), Some(101))
        );
        let traits = |sequence: SocketSequence| {
            let SocketSequence {
                ts_recent,
                has_keepalive,
                has_reordered,
                rtt_deviation,
                ..
            } = sequence;
            let has_timestamps = ts_recent.is_some();
            (has_timestamps, has_keepalive, has_reordered, rtt_deviation)
        };
        assert_eq!(traits(sequence), (true, false, false, 32));
        let mut bytes = full();
        bytes[2] = 2 | 4;
        let other = socket_view(&bytes).and_then(|view| view.sequence().copied());
        assert_eq!(other.map(traits), Some((false, true, true, 32)));
    }

    #[test]
    fn other_kinds_and_odd_bytes_are_told_apart() {
        let mut bytes = full();
        for (kind, view) in [
            (0, None),
            (1, Some(SocketView::Absent)),
            (2, Some(SocketView::Listener)),
            (3, Some(SocketView::TimeWait)),
            (4, Some(SocketView::Request)),
            (6, None),
        ] {
            bytes[0] = kind;
            assert_eq!(socket_view(&bytes), view);
        }
        bytes[..2].copy_from_slice(&[5, 200]);
        assert_eq!(socket_view(&bytes), None, "a state that no kernel has");
        assert_eq!(socket_view(&bytes[..71]), None, "too short");
    }

    #[test]
    fn metadata_is_found_right_before_the_frame() {
        let mut before = vec![0xaa; 20];
        before.extend_from_slice(&full());
        before.extend_from_slice(&77_u64.to_ne_bytes());
        before.extend_from_slice(&0_u32.to_ne_bytes());
        before.extend_from_slice(&MAGIC.to_ne_bytes());
        let (time, view) = frame_meta(&before).unwrap();
        assert_eq!(
            (time, view),
            (Timestamp::from_nanos(77), socket_view(&full()))
        );
        assert_eq!(frame_meta(&before[20..]).map(|_| ()), Some(()));
        for kind in [0, 1, 5, 6] {
            before[20] = kind;
            let mut told = Timestamp::from_nanos(1);
            assert!(read_frame_time(&before, &mut told), "of kind {kind}");
            assert_eq!(frame_meta(&before).map(|(time, _)| time), Some(told));
        }
        assert_eq!(
            frame_meta(&before[before.len() - FRAME_META_LEN + 1..]),
            None
        );
        before.push(0);
        assert_eq!(frame_meta(&before), None, "one byte off");
        let mut told = Timestamp::from_nanos(1);
        assert!(!read_frame_time(&before, &mut told));
        assert_eq!(told, Timestamp::from_nanos(1));
        assert_eq!(frame_meta(&[]), None);
    }

    #[test]
    fn the_short_form_holds_what_decides() {
        let mut meta = 77_u64.to_ne_bytes().to_vec();
        for number in 1..=5_u32 {
            meta.extend_from_slice(&number.to_ne_bytes());
        }
        meta.extend_from_slice(&[0x85, 8]);
        meta.extend_from_slice(&MAGIC_SHORT.to_ne_bytes());
        let (time, view) = frame_meta(&meta).unwrap();
        let mut told = Timestamp::default();
        assert!(read_frame_time(&meta, &mut told));
        assert_eq!(told, time);
        let Some(SocketView::Full { state, sequence }) = view else {
            panic!("{view:?}")
        };
        assert_eq!((time.as_nanos(), state), (77, TcpState::CloseWait));
        assert_eq!((sequence.rcv_nxt, sequence.rcv_wnd), (SeqNum(1), 2));
        assert_eq!(
            (sequence.write_seq, sequence.snd_una),
            (SeqNum(3), SeqNum(4))
        );
        assert_eq!((sequence.ts_recent, sequence.segs_in), (Some(5), None));
    }
}

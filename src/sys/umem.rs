//! Frame memory shared with the kernel, and [`Frame`], the right to use one piece of it. A `Frame`
//! can only be moved: who gave it to a ring cannot touch it again, which is xsk-rs's contract.

use std::io;
use std::num::NonZeroU32;
use std::ptr;
use std::slice;
use std::sync::atomic::{AtomicU32, Ordering};

use xsk_rs::FrameDesc;
use xsk_rs::config::{FrameSize, QueueSize, UmemConfig};

use super::Error;

/// Bytes that the kernel keeps free before each received frame (XDP_PACKET_HEADROOM of
/// `include/uapi/linux/bpf.h`). In copy mode the XDP metadata lands at its end
/// (`__xsk_rcv`, net/xdp/xsk.c).
pub(super) const XDP_HEADROOM: usize = 256;

/// Shape of a UMEM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UmemLayout {
    /// How many frames.
    pub frame_count: u32,
    /// Bytes of one frame with its headroom: a power of two, 2048 or 4096.
    pub frame_bytes: u32,
    /// Take huge pages, of which the host must have reserved some.
    pub huge_pages: bool,
}

impl Default for UmemLayout {
    /// 4096 frames of 2048 bytes: 8 MiB a queue.
    fn default() -> Self {
        Self {
            frame_count: 4096,
            frame_bytes: 2048,
            huge_pages: false,
        }
    }
}

impl UmemLayout {
    /// The longest frame that a UMEM of this shape can receive, in bytes.
    #[must_use]
    pub const fn longest_frame(&self) -> u32 {
        self.frame_bytes.saturating_sub(256)
    }

    /// Entries of each ring: all frames fit into any of them, so that none is ever full.
    pub(super) const fn ring_entries(&self) -> u32 {
        self.frame_count.next_power_of_two()
    }

    const fn bytes(&self) -> usize {
        self.frame_count as usize * self.frame_bytes as usize
    }

    /// Where `len` bytes that begin `before` bytes ahead of `addr` start, when all of them are
    /// inside the one chunk that `addr` points into.
    const fn locate(&self, addr: usize, before: usize, len: usize) -> Option<usize> {
        let chunk = addr & !(self.frame_bytes as usize - 1);
        let (Some(start), Some(chunk_end)) = (
            addr.checked_sub(before),
            chunk.checked_add(self.frame_bytes as usize),
        ) else {
            return None;
        };
        let Some(end) = start.checked_add(len) else {
            return None;
        };
        if start < chunk || end > chunk_end || chunk_end > self.bytes() {
            return None;
        }
        Some(start)
    }
}

/// Tells the UMEMs of this process apart, so that a frame of one cannot enter a ring of another.
static NEXT_ID: AtomicU32 = AtomicU32::new(1);

/// The right to use one frame's memory: neither `Copy` nor `Clone`. Dropping it loses the memory
/// until the UMEM ends; [`FramePool::outstanding`](super::FramePool::outstanding) shows that.
#[must_use = "a dropped frame's memory is lost to the pool"]
#[derive(Debug)]
pub struct Frame {
    desc: FrameDesc,
    umem: u32,
}

impl Frame {
    /// Bytes of the packet in it; 0 when it was not received or written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.desc.lengths().data()
    }

    /// Whether it holds no packet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A frame from the descriptor that a ring of UMEM `umem` gave out.
    pub(super) const fn from_ring(desc: FrameDesc, umem: u32) -> Self {
        Self { desc, umem }
    }

    /// Its descriptor, for the ring that takes it over.
    pub(super) const fn desc(&self) -> FrameDesc {
        self.desc
    }

    /// Whether it belongs to UMEM `umem`.
    pub(super) const fn is_of(&self, umem: u32) -> bool {
        self.umem == umem
    }
}

/// Frame memory that one NIC queue and one hand-back socket share.
#[derive(Debug)]
pub struct Umem {
    inner: xsk_rs::Umem,
    /// Address of the memory's first byte; `inner` keeps it mapped.
    base: usize,
    layout: UmemLayout,
    id: u32,
}

impl Umem {
    /// Maps and registers the memory, and hands out all its frames.
    ///
    /// # Errors
    ///
    /// [`Error::Layout`] for sizes that cannot be, [`Error::Umem`] when memory or permission is
    /// missing.
    pub fn new(layout: UmemLayout) -> Result<(Self, Vec<Frame>), Error> {
        let refuse = |reason: &str| Error::Layout {
            reason: reason.to_owned(),
        };
        let count =
            NonZeroU32::new(layout.frame_count).ok_or_else(|| refuse("it has no frames"))?;
        if layout.frame_count > 1 << 20 {
            return Err(refuse("more than 1048576 frames"));
        }
        if layout.frame_bytes > 4096 {
            return Err(refuse(
                "the kernel allows at most one page (4096 bytes) a frame",
            ));
        }
        let ring = QueueSize::new(layout.ring_entries()).map_err(|e| refuse(&e.to_string()))?;
        let config = UmemConfig::builder()
            .frame_size(FrameSize::new(layout.frame_bytes).map_err(|e| refuse(&e.to_string()))?)
            .fill_queue_size(ring)
            .comp_queue_size(ring)
            .frame_headroom(0)
            .build()
            .map_err(|e| refuse(&e.to_string()))?;
        let (inner, descs) =
            xsk_rs::Umem::new(config, count, layout.huge_pages).map_err(|e| Error::Umem {
                bytes: layout.bytes(),
                source: os_error(&e),
            })?;
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let first = descs.first().ok_or_else(|| refuse("it has no frames"))?;
        // SAFETY: `first` came from this very UMEM a moment ago and no ring has it yet, so that
        // nobody writes to its memory; only the address is used.
        let data = unsafe { inner.data(first) };
        let base = data.contents().as_ptr().addr() - first.addr();
        let frames = descs
            .into_iter()
            .map(|desc| Frame { desc, umem: id })
            .collect();
        Ok((
            Self {
                inner,
                base,
                layout,
                id,
            },
            frames,
        ))
    }

    /// Its shape.
    #[must_use]
    pub const fn layout(&self) -> UmemLayout {
        self.layout
    }

    /// The packet in `frame`; empty for a frame of another UMEM.
    #[must_use]
    pub fn bytes<'a>(&'a self, frame: &'a Frame) -> &'a [u8] {
        self.view(frame, 0, frame.len()).unwrap_or_default()
    }

    /// The `len` bytes of XDP metadata right before the packet's first byte; `None` where the
    /// frame has no room for so many. What they hold, only their last word (the magic) can tell:
    /// without metadata they are whatever an earlier frame left.
    #[must_use]
    pub fn meta<'a>(&'a self, frame: &'a Frame, len: usize) -> Option<&'a [u8]> {
        if len > XDP_HEADROOM {
            return None;
        }
        self.view(frame, len, len)
    }

    /// Overwrites the metadata's last word, so that a later frame without metadata cannot be
    /// taken for one with it.
    pub fn clear_meta(&self, frame: &mut Frame) {
        const MAGIC_BYTES: usize = 4;
        if !frame.is_of(self.id) {
            return;
        }
        let Some(start) = self
            .layout
            .locate(frame.desc.addr(), MAGIC_BYTES, MAGIC_BYTES)
        else {
            return;
        };
        let at = ptr::with_exposed_provenance_mut::<[u8; MAGIC_BYTES]>(self.base + start);
        // SAFETY: `locate` found the bytes inside one chunk of the mapping, which `inner` keeps
        // alive and writable; `&mut Frame` is the only right to that chunk.
        unsafe { at.write([0; MAGIC_BYTES]) };
    }

    /// Puts a packet into `frame`. Answers whether it fitted.
    pub fn write(&self, frame: &mut Frame, packet: &[u8]) -> bool {
        if !frame.is_of(self.id)
            || self
                .layout
                .locate(frame.desc.addr(), 0, packet.len())
                .is_none()
        {
            return false;
        }
        // SAFETY: the frame is of this UMEM (checked above), and `&mut Frame` is the only right
        // to its chunk, so that no other reference and no ring has it.
        let mut data = unsafe { self.inner.data_mut(&mut frame.desc) };
        let mut cursor = data.cursor();
        cursor.set_pos(0);
        io::Write::write_all(&mut cursor, packet).is_ok()
    }

    /// What xsk-rs knows it by.
    pub(super) const fn inner(&self) -> &xsk_rs::Umem {
        &self.inner
    }

    /// Its number in this process.
    pub(super) const fn id(&self) -> u32 {
        self.id
    }

    fn view<'a>(&'a self, frame: &'a Frame, before: usize, len: usize) -> Option<&'a [u8]> {
        if !frame.is_of(self.id) {
            return None;
        }
        let start = self.layout.locate(frame.desc.addr(), before, len)?;
        // The mapping's address went to the kernel and to C (`xsk_umem__create`), hence its
        // provenance is exposed; xsk-rs has no accessor that reaches the XDP headroom.
        let at = ptr::with_exposed_provenance::<u8>(self.base + start);
        // SAFETY: `locate` found the bytes inside one chunk of the mapping, which `inner` keeps
        // alive; the borrowed `Frame` is the only right to that chunk, so that neither the kernel
        // nor anybody here writes to it while the slice lives.
        Some(unsafe { slice::from_raw_parts(at, len) })
    }
}

/// The operating system's error behind one of xsk-rs's.
pub(super) fn os_error(error: &(dyn std::error::Error + 'static)) -> io::Error {
    let errno = error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>())
        .and_then(io::Error::raw_os_error);
    errno.map_or_else(
        || io::Error::other(error.to_string()),
        io::Error::from_raw_os_error,
    )
}

#[cfg(test)]
mod tests {
    use super::{UmemLayout, XDP_HEADROOM};

    const LAYOUT: UmemLayout = UmemLayout {
        frame_count: 4,
        frame_bytes: 2048,
        huge_pages: false,
    };

    #[test]
    fn bytes_are_found_only_inside_their_own_chunk() {
        let second = 2048 + XDP_HEADROOM;
        assert_eq!(LAYOUT.locate(second, 0, 1792), Some(second));
        assert_eq!(LAYOUT.locate(second, 0, 1793), None);
        assert_eq!(LAYOUT.locate(second, 80, 80), Some(second - 80));
        assert_eq!(LAYOUT.locate(second, 256, 256), Some(2048));
        assert_eq!(LAYOUT.locate(second, 257, 257), None);
    }

    #[test]
    fn an_address_outside_the_umem_is_refused() {
        assert_eq!(LAYOUT.locate(4 * 2048, 0, 1), None);
        assert_eq!(LAYOUT.locate(usize::MAX, 0, 1), None);
        assert_eq!(LAYOUT.locate(usize::MAX, usize::MAX, usize::MAX), None);
        assert_eq!(LAYOUT.locate(0, 1, 1), None);
    }

    #[test]
    fn rings_hold_every_frame() {
        assert_eq!(
            UmemLayout {
                frame_count: 4096,
                ..LAYOUT
            }
            .ring_entries(),
            4096
        );
        assert_eq!(
            UmemLayout {
                frame_count: 5000,
                ..LAYOUT
            }
            .ring_entries(),
            8192
        );
    }
}

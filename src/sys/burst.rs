//! Bursts of frames that go back to the host live: memory that the worker and `give_back`
//! (bpf/live.bpf.c) share, and the system call that runs the program over it. Decides nothing of
//! which frame may go this way; refuses frames longer than a slot.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use libbpf_rs::libbpf_sys;

use super::Error;
use super::per_queue::PerQueue;

/// Frames that one call gives back at most (BURST_FRAMES of bpf/shared.h).
pub const BURST_FRAMES: usize = 64;

/// Longest frame that fits a slot, in bytes (BURST_BYTES of bpf/shared.h).
pub const BURST_BYTES: usize = 240;

/// Length of the frame that each run starts with, in bytes: it holds the queue's number, and an
/// Ethernet header must fit (`bpf_prog_test_run_xdp`, net/bpf/test_run.c).
const ORDER_BYTES: usize = 64;

/// `struct burst_slot` of bpf/shared.h.
#[repr(C)]
struct Slot {
    len: u32,
    pad: [u32; 3],
    bytes: [u8; BURST_BYTES],
}

/// `struct burst` of bpf/shared.h. Its size is a multiple of 64, so that no two queues share a
/// cache line.
#[repr(C)]
struct SharedBurst {
    taken: AtomicU64,
    given: AtomicU64,
    pad: [u64; 6],
    slots: [Slot; BURST_FRAMES],
}

/// Bytes of one queue's entry.
pub(crate) const BURST_LEN: usize = size_of::<SharedBurst>();
const _: () = assert!(size_of::<Slot>() == 256);
const _: () = assert!(BURST_LEN == 64 + 256 * BURST_FRAMES);
const _: () = assert!(BURST_LEN.is_multiple_of(64));

/// The context of a run: `struct xdp_md` of include/uapi/linux/bpf.h.
#[repr(C)]
#[derive(Debug, Default)]
struct Context {
    data: u32,
    data_end: u32,
    data_meta: u32,
    ingress_ifindex: u32,
    rx_queue_index: u32,
    egress_ifindex: u32,
}

/// The bursts of all queues of one interface.
pub struct Bursts {
    mapping: Arc<PerQueue<SharedBurst>>,
    program: OwnedFd,
    ifindex: u32,
}

impl fmt::Debug for Bursts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bursts")
            .field("queues", &self.mapping.queues())
            .finish()
    }
}

impl Bursts {
    /// Maps the BPF array `bursts`, which has `queues` entries. `program` is the loaded
    /// `give_back`, `ifindex` the interface that it gives frames to.
    ///
    /// # Errors
    ///
    /// [`Error::Gate`] when `queues` is 0 or the array cannot be mapped.
    pub fn map(
        array: BorrowedFd<'_>,
        queues: u32,
        program: OwnedFd,
        ifindex: u32,
    ) -> Result<Self, Error> {
        let mapping =
            PerQueue::map(array, queues).map_err(|source| Error::Gate { queues, source })?;
        Ok(Self {
            mapping: Arc::new(mapping),
            program,
            ifindex,
        })
    }

    /// Runs the program once without a frame of anybody's, to see whether this kernel, this
    /// interface and our privileges allow live frames at all.
    ///
    /// # Errors
    ///
    /// What BPF_PROG_RUN says: `EINVAL` before Linux 5.18, `EPERM` without CAP_NET_ADMIN.
    pub fn probe(&self) -> io::Result<()> {
        // No queue has this number: `give_back` drops the frame, which is none.
        run(self.program.as_fd(), self.ifindex, 0, u32::MAX, 1)
    }

    /// The burst of `queue`, for its one worker; `None` for a queue that is not there or whose
    /// burst is in use.
    #[must_use]
    pub fn take(&self, queue: u32) -> Option<Burst> {
        let program = self.program.try_clone().ok()?;
        if !self.mapping.claim(queue) {
            return None;
        }
        Some(Burst {
            mapping: Arc::clone(&self.mapping),
            program,
            ifindex: self.ifindex,
            queue,
            len: 0,
        })
    }
}

/// One queue's burst, from the worker's side.
pub struct Burst {
    mapping: Arc<PerQueue<SharedBurst>>,
    program: OwnedFd,
    ifindex: u32,
    queue: u32,
    len: usize,
}

impl fmt::Debug for Burst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Burst")
            .field("queue", &self.queue)
            .field("len", &self.len)
            .finish()
    }
}

impl Burst {
    fn at(&self) -> *mut SharedBurst {
        // Never null: `Bursts::take` gives out only queues that the mapping holds.
        self.mapping
            .at(self.queue)
            .map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    /// Frames in it.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds no frame.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets what is in it.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Copies one frame into it; `false` when there is no room or the frame is too long.
    pub fn put(&mut self, frame: &[u8]) -> bool {
        if self.len >= BURST_FRAMES || frame.len() > BURST_BYTES {
            return false;
        }
        // SAFETY: `at` is inside the mapping, and a place is taken without reading it.
        let slots = unsafe { &raw mut (*self.at()).slots };
        // SAFETY: `len` is below BURST_FRAMES (checked above), the number of slots.
        let slot = unsafe { slots.cast::<Slot>().add(self.len) };
        // SAFETY: as above; nobody reads the slot before `give`.
        let bytes = unsafe { &raw mut (*slot).bytes };
        // SAFETY: the frame is no longer than the slot's bytes (checked above), and cannot overlap
        // them, since no reference into the mapping is ever given out.
        unsafe { ptr::copy_nonoverlapping(frame.as_ptr(), bytes.cast::<u8>(), frame.len()) };
        // The length is at most BURST_BYTES (checked above).
        let len = u32::try_from(frame.len()).unwrap_or(0);
        // SAFETY: as above.
        unsafe { (*slot).len = len };
        self.len += 1;
        true
    }

    /// Gives all frames to the interface's ingress, in order, and forgets them. When it returns
    /// `Ok`, the host's stack has every one of them.
    ///
    /// # Errors
    ///
    /// What BPF_PROG_RUN says (`ENOMEM` when the host has no memory left). Frames of the burst may
    /// or may not have arrived then: which ones, the kernel does not tell.
    pub fn give(&mut self) -> io::Result<()> {
        let count = self.len;
        self.len = 0;
        // SAFETY: `at` is inside the mapping; the two words are atomics and may be shared with the
        // kernel.
        let taken = unsafe { &(*self.at()).taken };
        // SAFETY: as above.
        let given = unsafe { &(*self.at()).given };
        taken.store(0, Ordering::Relaxed);
        given.store(0, Ordering::Release);
        run(
            self.program.as_fd(),
            self.ifindex,
            self.queue,
            self.queue,
            count,
        )?;
        if given.load(Ordering::Acquire) == count as u64 {
            Ok(())
        } else {
            Err(io::Error::from(io::ErrorKind::InvalidData))
        }
    }
}

impl Drop for Burst {
    fn drop(&mut self) {
        self.mapping.release(self.queue);
    }
}

/// BPF_PROG_RUN with live frames (Documentation/bpf/bpf_prog_run.rst): `count` runs in one batch,
/// each on a frame that holds `entry` and seems to come in by `queue` of `ifindex`.
fn run(
    program: BorrowedFd<'_>,
    ifindex: u32,
    queue: u32,
    entry: u32,
    count: usize,
) -> io::Result<()> {
    let mut order = [0_u8; ORDER_BYTES];
    if let Some(place) = order.first_chunk_mut() {
        *place = entry.to_ne_bytes();
    }
    let context = Context {
        data_end: u32::try_from(ORDER_BYTES).unwrap_or(0),
        ingress_ifindex: ifindex,
        rx_queue_index: queue,
        ..Context::default()
    };
    let repeat = i32::try_from(count).unwrap_or(0);
    let mut options = libbpf_sys::bpf_test_run_opts {
        sz: size_of::<libbpf_sys::bpf_test_run_opts>() as libbpf_sys::size_t,
        data_in: order.as_ptr().cast(),
        data_size_in: u32::try_from(ORDER_BYTES).unwrap_or(0),
        ctx_in: (&raw const context).cast(),
        ctx_size_in: u32::try_from(size_of::<Context>()).unwrap_or(0),
        repeat,
        flags: libbpf_sys::BPF_F_TEST_XDP_LIVE_FRAMES,
        batch_size: repeat.cast_unsigned(),
        ..Default::default()
    };
    // SAFETY: `order` and `context` outlive the call and have the sizes that are stated; no output
    // is asked for.
    let answer =
        unsafe { libbpf_sys::bpf_prog_test_run_opts(program.as_raw_fd(), &raw mut options) };
    if answer < 0 {
        Err(io::Error::from_raw_os_error(-answer))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{BURST_BYTES, BURST_FRAMES, BURST_LEN, Bursts};
    use std::os::fd::AsFd;

    /// Bursts in anonymous memory; the descriptor in place of the program runs nothing.
    fn bursts(queues: u32) -> Bursts {
        let fd = rustix::fs::memfd_create("bursts", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&fd, u64::from(queues) * BURST_LEN as u64).unwrap();
        Bursts::map(fd.as_fd(), queues, fd.try_clone().unwrap(), 1).unwrap()
    }

    #[test]
    fn a_burst_holds_so_many_frames_and_no_longer_ones() {
        let mut burst = bursts(2).take(1).unwrap();
        assert!(!burst.put(&[0; BURST_BYTES + 1]));
        for _ in 0..BURST_FRAMES {
            assert!(burst.put(&[7; BURST_BYTES]));
        }
        assert!(!burst.put(&[7; 60]));
        assert_eq!(burst.len(), BURST_FRAMES);
        burst.clear();
        assert!(burst.is_empty() && burst.put(&[7; 60]));
    }

    #[test]
    fn what_is_no_program_gives_nothing_and_says_so() {
        let bursts = bursts(1);
        assert!(bursts.probe().is_err());
        let mut burst = bursts.take(0).unwrap();
        assert!(burst.put(&[1; 60]));
        assert!(burst.give().is_err());
        assert!(burst.is_empty());
    }

    #[test]
    fn a_burst_has_one_worker() {
        let bursts = bursts(1);
        let first = bursts.take(0);
        assert!(first.is_some() && bursts.take(0).is_none() && bursts.take(1).is_none());
        drop(first);
        assert!(bursts.take(0).is_some());
    }
}

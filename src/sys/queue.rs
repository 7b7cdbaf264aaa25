//! The AF_XDP socket on a NIC queue: it receives, and takes free frames for that. It never sends.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use xsk_rs::config::{BindFlags, Interface, LibxdpFlags, QueueSize, SocketConfig};
use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, Socket, TxQueue};

use super::sockopt::{self, RxLosses};
use super::umem::os_error;
use super::{BATCH_FRAMES, Error, Frame, FramePool, Umem};

/// Times that a bind is tried. The kernel releases a closed socket's queue a little later
/// (`xp_put_pool` runs from a work queue), so that a quick restart meets EBUSY.
const BIND_TRIES: u32 = 50;
/// Pause between two tries: all of them are one second.
const BIND_PAUSE: Duration = Duration::from_millis(20);
/// Entries of a ring that is mapped but never used; xsk-rs always makes all four.
const UNUSED_RING_ENTRIES: u32 = 2;

/// All rings of one bound socket. A socket lives until the last of them is dropped.
#[derive(Debug)]
pub(super) struct Rings {
    pub(super) rx: RxQueue,
    pub(super) tx: TxQueue,
    pub(super) fill: FillQueue,
    pub(super) completion: CompQueue,
}

/// Which of a socket's own two rings carry frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Receive,
    Transmit,
}

impl Rings {
    /// Binds a socket in copy mode with need-wakeup.
    ///
    /// Copy mode, because zero copy would hand all buffers of the NIC's queue to this process, and
    /// its passed frames would starve when it stalls. Without XDP_COPY the kernel tries zero copy
    /// first.
    pub(super) fn bind(umem: &Umem, interface: &str, queue: u32, used: Use) -> Result<Self, Error> {
        let failed = |source| Error::Bind {
            interface: interface.to_owned(),
            queue,
            source,
        };
        let name: Interface = interface
            .parse()
            .map_err(|_| failed(std::io::Error::from_raw_os_error(libc::ENODEV)))?;
        let (rx, tx) = match used {
            Use::Receive => (umem.layout().ring_entries(), UNUSED_RING_ENTRIES),
            Use::Transmit => (UNUSED_RING_ENTRIES, umem.layout().ring_entries()),
        };
        let size = |entries| {
            QueueSize::new(entries).map_err(|e| Error::Layout {
                reason: e.to_string(),
            })
        };
        let config = SocketConfig::builder()
            .rx_queue_size(size(rx)?)
            .tx_queue_size(size(tx)?)
            .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
            .bind_flags(BindFlags::XDP_COPY | BindFlags::XDP_USE_NEED_WAKEUP)
            .build();
        for tries in 1.. {
            // SAFETY: the contract concerns sockets for which libxdp loads its program; the flag
            // that inhibits it is set above.
            let made = unsafe { Socket::new(config, umem.inner(), &name, queue) };
            match made {
                Ok((tx, rx, Some((fill, completion)))) => {
                    return Ok(Self {
                        rx,
                        tx,
                        fill,
                        completion,
                    });
                }
                // Bound before from the same UMEM: its fill ring belongs to the other socket.
                Ok((_, _, None)) => break,
                Err(error) => {
                    let source = os_error(&error);
                    if source.raw_os_error() != Some(libc::EBUSY) || tries >= BIND_TRIES {
                        return Err(failed(source));
                    }
                    thread::sleep(BIND_PAUSE);
                }
            }
        }
        Err(failed(std::io::Error::from_raw_os_error(libc::EBUSY)))
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the rings keep the socket, and with it the descriptor, open; the borrow cannot
        // outlive `self`.
        unsafe { BorrowedFd::borrow_raw(self.rx.fd().as_raw_fd()) }
    }
}

/// The receiving socket of one NIC queue.
#[derive(Debug)]
pub struct QueueSocket {
    rings: Rings,
    umem: u32,
    /// Frames in the fill ring, in the RX ring, or between them in the kernel.
    in_kernel: u32,
    scratch: [FrameDesc; BATCH_FRAMES],
}

impl QueueSocket {
    /// Binds to `queue` of `interface`; waits up to a second for a queue that was just closed.
    ///
    /// # Errors
    ///
    /// [`Error::Bind`] with the interface, the queue and the kernel's reason.
    pub fn open(umem: &Umem, interface: &str, queue: u32) -> Result<Self, Error> {
        Ok(Self {
            rings: Rings::bind(umem, interface, queue, Use::Receive)?,
            umem: umem.id(),
            in_kernel: 0,
            scratch: [FrameDesc::default(); BATCH_FRAMES],
        })
    }

    /// Frames that the kernel has for receiving.
    #[must_use]
    pub const fn in_kernel(&self) -> u32 {
        self.in_kernel
    }

    /// Moves free frames into the fill ring until the pool is empty or the ring full; answers how
    /// many.
    pub fn fill(&mut self, pool: &mut FramePool<Frame>) -> u32 {
        let mut filled = 0;
        loop {
            let room = self.rings.fill.nb_free(super::frames(BATCH_FRAMES)) as usize;
            let mut count = 0;
            for slot in self.scratch.iter_mut().take(room) {
                let Some(frame) = pool.take() else { break };
                if !frame.is_of(self.umem) {
                    debug_assert!(false, "a pool holds a frame of another UMEM");
                    pool.put(frame);
                    break;
                }
                *slot = frame.desc();
                count += 1;
            }
            let Some(descs) = self.scratch.get(..count) else {
                break;
            };
            // SAFETY: every descriptor was taken out of a `Frame` of this UMEM (checked above)
            // that is consumed by it, so that nobody can use the memory until RX gives it back.
            let produced = unsafe { self.rings.fill.produce(descs) };
            debug_assert_eq!(produced, count, "nb_free never overestimates");
            filled += super::frames(produced);
            if count < BATCH_FRAMES {
                break;
            }
        }
        self.in_kernel += filled;
        filled
    }

    /// Moves received frames to the end of `batch`, as many as its spare capacity holds and at
    /// most [`BATCH_FRAMES`]; answers how many.
    pub fn receive(&mut self, batch: &mut Vec<Frame>) -> usize {
        let spare = batch
            .capacity()
            .saturating_sub(batch.len())
            .min(BATCH_FRAMES);
        let Some(slots) = self.scratch.get_mut(..spare) else {
            return 0;
        };
        // SAFETY: the ring overwrites the descriptors; it only ever yields frames that `fill` gave
        // to the kernel, which are of this UMEM.
        let count = unsafe { self.rings.rx.consume(slots) };
        for desc in slots.iter().take(count) {
            batch.push(Frame::from_ring(*desc, self.umem));
        }
        self.in_kernel = self.in_kernel.saturating_sub(super::frames(count));
        count
    }

    /// Received frames that wait in the RX ring.
    pub fn waiting(&mut self) -> u32 {
        self.rings.rx.nb_avail_exact()
    }

    /// Sleeps until a frame is there, but no longer than `timeout_ns`.
    pub fn wait(&self, timeout_ns: u64) {
        let timeout = Timespec {
            tv_sec: (timeout_ns / 1_000_000_000).cast_signed(),
            tv_nsec: (timeout_ns % 1_000_000_000).cast_signed(),
        };
        let fd = self.rings.fd();
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        // An interrupted or failed poll only means that the caller looks at the ring earlier.
        let _ = rustix::event::poll(&mut fds, Some(&timeout));
    }

    /// What the kernel dropped before it reached the RX ring, since the bind.
    ///
    /// # Errors
    ///
    /// The kernel's, when XDP_STATISTICS cannot be read.
    pub fn losses(&self) -> std::io::Result<RxLosses> {
        let statistics = self.rings.rx.fd().xdp_statistics()?;
        Ok(RxLosses {
            dropped: statistics.rx_dropped(),
            ring_full: statistics.rx_ring_full(),
            fill_ring_empty: statistics.rx_fill_ring_empty_descs(),
            invalid_descs: statistics.rx_invalid_descs(),
        })
    }

    /// Whether the interface was removed since the last call: the socket is then unbound for good.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        sockopt::has_error(self.rings.fd())
    }
}

impl AsFd for QueueSocket {
    /// The descriptor that the XSKMAP takes.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.rings.fd()
    }
}

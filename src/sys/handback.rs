//! The AF_XDP socket on the private veth: it sends frames back towards the host, and gets their
//! memory back when the stack is done with them. It never receives.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::SendFlags;
use xsk_rs::FrameDesc;

use super::queue::{Rings, Use};
use super::{BATCH_FRAMES, Error, Frame, FramePool, Umem, sockopt};

/// Descriptors that one system call may send, where the kernel lets us say so (6.17): a full
/// batch. Else it is 32 (TX_BATCH_SIZE, net/xdp/xsk.c).
const SEND_BUDGET: u32 = 64;

/// How a wake-up of the TX ring went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// The kernel took everything there was.
    Done,
    /// It took some, or had no memory for more at the moment: wake it again.
    Again,
    /// It took some, and dropped the last one of them: the other end has no carrier, or the
    /// backlog (net.core.netdev_max_backlog) is full. The frame is lost (NET_XMIT_DROP counts as
    /// sent, net/xdp/xsk.c).
    Dropped,
    /// The interface is down: nothing was taken.
    Down,
    /// The interface was removed: this socket never sends again.
    Gone,
    /// Something else, which the kernel's error number names.
    Failed(i32),
}

impl Wake {
    const fn from_errno(errno: Errno) -> Self {
        match errno {
            Errno::AGAIN | Errno::NOBUFS | Errno::INTR => Self::Again,
            Errno::BUSY => Self::Dropped,
            Errno::NETDOWN => Self::Down,
            Errno::NXIO | Errno::NODEV | Errno::BADF => Self::Gone,
            other => Self::Failed(other.raw_os_error()),
        }
    }
}

/// The sending socket on our end of the hand-back veth.
#[derive(Debug)]
pub struct HandbackSocket {
    rings: Rings,
    umem: u32,
    ring_entries: u32,
    /// Frames in the TX ring, in an skb, or in the completion ring.
    in_kernel: u32,
    scratch: [FrameDesc; BATCH_FRAMES],
    interface: String,
    /// Any socket at all: interface flags are asked through it.
    control: OwnedFd,
}

impl HandbackSocket {
    /// Binds to `queue` of our veth end. The NIC's socket must have been bound before, from the
    /// same UMEM: the kernel gives this one the same mode.
    ///
    /// # Errors
    ///
    /// [`Error::Bind`] with the interface, the queue and the kernel's reason.
    pub fn open(umem: &Umem, interface: &str, queue: u32) -> Result<Self, Error> {
        let rings = Rings::bind(umem, interface, queue, Use::Transmit)?;
        let control = sockopt::control_socket().map_err(|errno| Error::Bind {
            interface: interface.to_owned(),
            queue,
            source: errno.into(),
        })?;
        // Both only save system calls; a kernel without them still works.
        let _ = sockopt::set_send_budget(rings.fd(), SEND_BUDGET);
        let _ = sockopt::set_send_memory(rings.fd(), umem.layout().frame_count);
        Ok(Self {
            rings,
            umem: umem.id(),
            ring_entries: umem.layout().ring_entries(),
            in_kernel: 0,
            scratch: [FrameDesc::default(); BATCH_FRAMES],
            interface: interface.to_owned(),
            control,
        })
    }

    /// Frames that were sent and whose memory has not come back yet.
    #[must_use]
    pub const fn in_kernel(&self) -> u32 {
        self.in_kernel
    }

    /// Moves the frames of `batch`, at most [`BATCH_FRAMES`] of them, into the TX ring: all or
    /// none; answers how many. They leave only after [`Self::wake`].
    pub fn transmit(&mut self, batch: &mut Vec<Frame>) -> usize {
        let count = batch.len().min(BATCH_FRAMES);
        let first = batch.len() - count;
        let ours = batch.iter().all(|frame| frame.is_of(self.umem));
        debug_assert!(ours, "a frame of another UMEM was to be sent");
        if !ours || count == 0 {
            return 0;
        }
        for (slot, frame) in self.scratch.iter_mut().zip(batch.iter().skip(first)) {
            *slot = frame.desc();
        }
        let Some(descs) = self.scratch.get(..count) else {
            return 0;
        };
        // SAFETY: every descriptor is that of a `Frame` of this UMEM (checked above). Those that
        // the ring took are dropped right below, before anybody can use them again.
        let sent = unsafe { self.rings.tx.produce(descs) };
        if sent > 0 {
            batch.truncate(first);
            self.in_kernel += super::frames(count);
        }
        sent
    }

    /// Descriptors that the kernel has not taken out of the TX ring yet.
    pub fn unsent(&mut self) -> u32 {
        self.ring_entries
            .saturating_sub(self.rings.tx.nb_free_exact())
    }

    /// Tells the kernel to send: in copy mode nothing leaves without this. One call takes 32
    /// frames at most (or the budget), so call it again while [`Self::unsent`] is not 0.
    ///
    /// xsk-rs's own `wakeup` hides EAGAIN, EBUSY and ENETDOWN, of which the second means that a
    /// frame was lost; hence a call of ours.
    pub fn wake(&self) -> Wake {
        match rustix::net::send(self.rings.fd(), &[], SendFlags::DONTWAIT) {
            Ok(_) => Wake::Done,
            Err(errno) => Wake::from_errno(errno),
        }
    }

    /// Moves frames that the stack is done with into the pool; answers how many.
    pub fn reclaim(&mut self, pool: &mut FramePool<Frame>) -> u32 {
        let mut reclaimed = 0;
        loop {
            // SAFETY: the ring overwrites the descriptors; it only ever yields frames that
            // `transmit` gave to the kernel, which are of this UMEM.
            let count = unsafe { self.rings.completion.consume(&mut self.scratch) };
            for desc in self.scratch.iter().take(count) {
                pool.put(Frame::from_ring(*desc, self.umem));
            }
            reclaimed += super::frames(count);
            if count < BATCH_FRAMES {
                break;
            }
        }
        self.in_kernel = self.in_kernel.saturating_sub(reclaimed);
        reclaimed
    }

    /// Whether the interface is up and has a carrier, so that a wake-up would not lose frames.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        sockopt::is_running(&self.control, &self.interface)
    }

    /// Whether the interface was removed since the last call: the socket is then unbound for good.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        sockopt::has_error(self.rings.fd())
    }
}

#[cfg(test)]
mod tests {
    use super::Wake;
    use rustix::io::Errno;

    #[test]
    fn a_drop_is_told_from_a_full_kernel() {
        assert_eq!(Wake::from_errno(Errno::AGAIN), Wake::Again);
        assert_eq!(Wake::from_errno(Errno::BUSY), Wake::Dropped);
        assert_eq!(Wake::from_errno(Errno::NETDOWN), Wake::Down);
        assert_eq!(Wake::from_errno(Errno::NXIO), Wake::Gone);
        assert_eq!(Wake::from_errno(Errno::INVAL), Wake::Failed(libc::EINVAL));
    }
}

//! The real rings of one queue: a NIC queue's socket and a hand-back socket over one UMEM.

use std::os::fd::{AsFd, BorrowedFd};

use super::rings::{Balance, Doubt, Rings};
use crate::sys::{
    Burst, Error, Frame, FramePool, HandbackSocket, QueueSocket, RxLosses, Umem, UmemLayout, Wake,
};

/// What a [`Port`] is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortConfig {
    /// The NIC.
    pub interface: String,
    /// Its queue.
    pub queue: u32,
    /// Our end of the hand-back veth.
    pub handback: String,
    /// The veth's TX queue that this worker alone uses.
    pub handback_queue: u32,
    /// The frame memory.
    pub umem: UmemLayout,
}

/// Sockets, memory and free frames of one queue.
#[derive(Debug)]
pub struct Port {
    umem: Umem,
    pool: FramePool<Frame>,
    queue: QueueSocket,
    handback: HandbackSocket,
    burst: Option<Burst>,
}

impl Port {
    /// Makes the memory, binds both sockets and fills the fill ring, so that the socket may go
    /// into the XSKMAP at once. To be called in the interfaces' network namespace.
    ///
    /// # Errors
    ///
    /// Any [`Error`] of the steps, which names the interface and the queue.
    pub fn open(config: &PortConfig) -> Result<Self, Error> {
        let (umem, frames) = Umem::new(config.umem)?;
        // The NIC's socket first: the second one inherits copy mode and need-wakeup from it.
        let queue = QueueSocket::open(&umem, &config.interface, config.queue)?;
        let handback = HandbackSocket::open(&umem, &config.handback, config.handback_queue)?;
        let mut port = Self {
            umem,
            pool: FramePool::new(frames),
            queue,
            handback,
            burst: None,
        };
        port.refill();
        Ok(port)
    }

    /// With a second way back for bursts, where the kernel has it.
    #[must_use]
    pub fn with_burst(mut self, burst: Option<Burst>) -> Self {
        self.burst = burst;
        self
    }

    /// The frame memory.
    #[must_use]
    pub const fn umem(&self) -> &Umem {
        &self.umem
    }
}

impl AsFd for Port {
    /// The descriptor that the XSKMAP takes, at the index of the queue.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }
}

impl Rings for Port {
    type Frame = Frame;

    fn reclaim(&mut self) -> u32 {
        self.handback.reclaim(&mut self.pool)
    }

    fn refill(&mut self) -> u32 {
        self.queue.fill(&mut self.pool)
    }

    fn receive(&mut self, batch: &mut Vec<Frame>) -> usize {
        self.queue.receive(batch)
    }

    fn bytes<'a>(&'a self, frame: &'a Frame) -> &'a [u8] {
        self.umem.bytes(frame)
    }

    fn meta<'a>(&'a self, frame: &'a Frame, len: usize) -> Option<&'a [u8]> {
        self.umem.meta(frame, len)
    }

    fn clear_meta(&self, frame: &mut Frame) {
        self.umem.clear_meta(frame);
    }

    fn transmit(&mut self, batch: &mut Vec<Frame>) -> usize {
        self.handback.transmit(batch)
    }

    fn can_burst(&self) -> bool {
        self.burst.is_some()
    }

    fn give_live(&mut self, frames: &mut Vec<Frame>) -> Result<usize, Doubt> {
        let Some(burst) = &mut self.burst else {
            return Err(Doubt);
        };
        burst.clear();
        for frame in frames.iter() {
            if !burst.put(self.umem.bytes(frame)) {
                return Err(Doubt);
            }
        }
        burst.give().map_err(|_| Doubt)?;
        let count = frames.len();
        frames.drain(..).for_each(|frame| self.pool.put(frame));
        Ok(count)
    }

    fn unsent(&mut self) -> u32 {
        self.handback.unsent()
    }

    fn wake(&mut self) -> Wake {
        self.handback.wake()
    }

    fn is_ready(&self) -> bool {
        self.handback.is_ready()
    }

    fn is_gone(&self) -> bool {
        // Both are asked: asking clears the error.
        let (queue, handback) = (self.queue.is_gone(), self.handback.is_gone());
        queue || handback
    }

    fn waiting(&mut self) -> u32 {
        self.queue.waiting()
    }

    fn wait(&self, timeout_ns: u64) {
        self.queue.wait(timeout_ns);
    }

    fn losses(&self) -> Option<RxLosses> {
        self.queue.losses().ok()
    }

    fn balance(&self, held: usize) -> Balance {
        Balance {
            free: self.pool.free(),
            receiving: self.queue.in_kernel(),
            held: u32::try_from(held).unwrap_or(u32::MAX),
            sending: self.handback.in_kernel(),
            frame_count: self.pool.frame_count(),
        }
    }
}

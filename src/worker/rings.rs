//! The rings as the worker sees them: a seam, so that tests and a fuzzer can drive the loop and
//! its bookkeeping without a kernel. No method blocks but [`Rings::wait`]; none allocates.

use crate::sys::{RxLosses, Wake};

/// Who has the frames of one UMEM. Each frame has exactly one owner, so that the parts add up to
/// the whole at every batch end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Balance {
    /// Unused, in the pool.
    pub free: u32,
    /// With the kernel for receiving: fill ring, RX ring, or between them.
    pub receiving: u32,
    /// In the worker's hands.
    pub held: u32,
    /// With the kernel for sending: TX ring, on the way through the stack, or completion ring.
    pub sending: u32,
    /// All of them.
    pub frame_count: u32,
}

impl Balance {
    /// Whether every frame has an owner.
    #[must_use]
    pub fn holds(&self) -> bool {
        let parts = [self.free, self.receiving, self.held, self.sending];
        parts.iter().map(|part| u64::from(*part)).sum::<u64>() == u64::from(self.frame_count)
    }
}

/// A burst failed, and how much of it arrived cannot be told. Its frames are to be sent once more:
/// a segment that comes twice harms nobody, one that never comes does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doubt;

/// One queue's rings: those of the NIC's socket, those of the hand-back socket, and the pool of
/// free frames between them.
pub trait Rings {
    /// The right to use one frame's memory.
    type Frame;

    /// Moves frames that the stack is done with into the pool; answers how many.
    fn reclaim(&mut self) -> u32;

    /// Moves free frames into the fill ring; answers how many.
    fn refill(&mut self) -> u32;

    /// Moves received frames to the end of `batch`, up to its capacity; answers how many.
    fn receive(&mut self, batch: &mut Vec<Self::Frame>) -> usize;

    /// The packet in a frame.
    fn bytes<'a>(&'a self, frame: &'a Self::Frame) -> &'a [u8];

    /// The `len` bytes of metadata before the packet, where there is room for them.
    fn meta<'a>(&'a self, frame: &'a Self::Frame, len: usize) -> Option<&'a [u8]>;

    /// Forgets the metadata, so that it is not read again with the memory's next packet.
    fn clear_meta(&self, frame: &mut Self::Frame);

    /// Moves all of `batch` into the TX ring, or nothing; answers how many.
    fn transmit(&mut self, batch: &mut Vec<Self::Frame>) -> usize;

    /// Whether frames can go back live, in bursts.
    fn can_burst(&self) -> bool;

    /// Gives all of `burst` to the host at once, and its frames to the pool; answers how many.
    ///
    /// # Errors
    ///
    /// [`Doubt`]: `burst` is as it was, and the host may have got some of it or nothing.
    fn give_live(&mut self, burst: &mut Vec<Self::Frame>) -> Result<usize, Doubt>;

    /// Frames in the TX ring that the kernel has not taken yet.
    fn unsent(&mut self) -> u32;

    /// Tells the kernel to send.
    fn wake(&mut self) -> Wake;

    /// Whether the hand-back interface can send now without loss.
    fn is_ready(&self) -> bool;

    /// Whether one of the interfaces was removed.
    fn is_gone(&self) -> bool;

    /// Received frames that wait in the RX ring.
    fn waiting(&mut self) -> u32;

    /// Sleeps until a frame arrives, `timeout_ns` at most.
    fn wait(&self, timeout_ns: u64);

    /// What the kernel lost before the RX ring; `None` when it does not say.
    fn losses(&self) -> Option<RxLosses>;

    /// Who has the frames, when the worker holds `held`.
    fn balance(&self, held: usize) -> Balance;
}

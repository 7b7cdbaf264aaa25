//! The way back for bursts: many small frames of a batch are given to the host in one call, which costs
//! half as much a frame as the veth. What may not go this way stays in the batch and takes the veth, and
//! so does a burst that failed, as a whole: a segment that comes twice harms nobody.

use super::route::{LIVE_MIN, live_mask};
use super::{Counters, Doubt, Parsed, Rings};
use crate::sys::BATCH_FRAMES;

/// Bursts that may fail in a row before the worker gives them up for good: one may find the host out
/// of memory, four find a kernel or an interface that has changed.
const FAILURES_MAX: u32 = 4;

/// What goes back live of a batch.
#[derive(Debug)]
pub(super) struct Live<F> {
    /// The CPU that the worker's thread is bound to, if it is to any.
    cpu: Option<u32>,
    /// Frames of this turn that go back live; empty between turns.
    burst: Vec<F>,
    /// What of a batch takes the veth, while it is divided; empty between turns.
    kept: Vec<F>,
    /// Which frames of the batch that was just taken in may go back live.
    mask: u64,
    /// Bursts that failed one after the other.
    failures: u32,
}

impl<F> Live<F> {
    /// For a worker whose thread is to run on `cpu`.
    pub(super) fn new(cpu: Option<u32>) -> Self {
        Self {
            cpu,
            burst: Vec::with_capacity(BATCH_FRAMES),
            kept: Vec::with_capacity(BATCH_FRAMES),
            mask: 0,
            failures: 0,
        }
    }

    /// Starts in the worker's thread: its memory is made there, and without its CPU nothing goes live,
    /// since [`Self::give`] could not tell whether the host has what it was given before.
    pub(super) fn start(&mut self, is_pinned: bool) {
        *self = Self::new(self.cpu);
        if !is_pinned {
            self.failures = FAILURES_MAX;
        }
    }

    /// The worker's thread is bound to `cpu` from now on.
    pub(super) const fn follow(&mut self, cpu: u32) {
        self.cpu = Some(cpu);
    }

    /// Chooses the frames of a batch that may go back live, from what was read of them.
    pub(super) fn choose<R: Rings<Frame = F>>(&mut self, rings: &R, batch: &[F], read: &[Parsed]) {
        if self.may_give(rings, batch.len()) {
            let lengths = batch.iter().map(|frame| rings.bytes(frame).len());
            let headers = read.iter().map(Parsed::headers);
            self.mask = live_mask(headers.zip(lengths));
        }
    }

    fn may_give<R: Rings>(&self, rings: &R, held: usize) -> bool {
        held >= LIVE_MIN
            && self.failures < FAILURES_MAX
            && rings.can_burst()
            && self.is_on_its_cpu()
            && rings.balance(held).sending == 0
    }

    /// Somebody may have moved this thread since it was bound (a cpuset, a CPU taken away).
    fn is_on_its_cpu(&self) -> bool {
        let cpu = self.cpu;
        cpu.is_none_or(|cpu| rustix::thread::sched_getcpu() == cpu as usize)
    }

    /// Gives the host what was chosen of `batch`. Whatever is left in it takes the veth.
    ///
    /// Only while none is on its way by the veth: the call gives its frames to the host before it returns,
    /// and they must overtake nothing. That none is on its way is what the completion ring says. In copy
    /// mode a frame comes back there when its skb loses its owner (`xsk_destruct_skb`, net/xdp/xsk.c), and
    /// neither veth, backlog nor mirred take that away, only the receiver: `ip_rcv_core` and `ip6_rcv_core`,
    /// or whoever frees it. What still waits in a backlog, or in a queue that somebody put behind the
    /// interface's ingress, counts as sending (tests/path.rs holds a frame there). From `ip_rcv_core` on a
    /// frame goes through the stack in one go, with softirqs off, on the CPU that sent it. This worker is
    /// bound to that CPU, so that it cannot have seen the completion before the frame was through, and goes to
    /// another one only when it has seen all of them; one that is not bound gives nothing live
    /// ([`Self::start`]), nor does one that somebody else moved.
    pub(super) fn give<R: Rings<Frame = F>>(
        &mut self,
        rings: &mut R,
        batch: &mut Vec<F>,
        counters: &mut Counters,
    ) {
        let mask = std::mem::take(&mut self.mask);
        if mask == 0 {
            return;
        }
        for (at, frame) in batch.drain(..).enumerate() {
            let way = match mask >> at & 1 {
                0 => &mut self.kept,
                _ => &mut self.burst,
            };
            way.push(frame);
        }
        match rings.give_live(&mut self.burst) {
            Ok(given) => {
                let given = given as u64;
                counters.live += given;
                counters.handed_back += given;
                counters.completed += given;
                self.failures = 0;
            }
            Err(Doubt) => {
                counters.live_failed += 1;
                self.failures += 1;
            }
        }
        // The flows of both ways are distinct, so that their order among each other is nobody's.
        batch.append(&mut self.burst);
        batch.append(&mut self.kept);
    }
}

//! The gate of each queue: memory that `steer` and the worker share. A frame is redirected only
//! while `produced - consumed < limit` and the heartbeat is fresh (`struct gate`, bpf/shared.h).
//! A closed gate costs the host nothing: its frames pass in the kernel.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::Error;
use super::credit::Words as SharedGate;
use super::per_queue::PerQueue;

// A line for each side, and no line of two queues: the array begins at a page.
const _: () = assert!(size_of::<SharedGate>() == 128);

/// The gates of all queues of one interface.
#[derive(Clone)]
pub struct Gates {
    mapping: Arc<PerQueue<SharedGate>>,
}

impl fmt::Debug for Gates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gates")
            .field("queues", &self.mapping.queues())
            .finish()
    }
}

impl Gates {
    /// Maps the BPF array `gates` (BPF_F_MMAPABLE), which has at least `queues` entries. The
    /// descriptor may be closed afterwards.
    ///
    /// # Errors
    ///
    /// [`Error::Gate`] when `queues` is 0 or more than the array holds, or when it is not mappable.
    pub fn map(fd: BorrowedFd<'_>, queues: u32) -> Result<Self, Error> {
        let mapping = PerQueue::map(fd, queues).map_err(|source| Error::Gate { queues, source })?;
        Ok(Self {
            mapping: Arc::new(mapping),
        })
    }

    /// The gate of `queue`, closed and with nothing under way, for its one worker. `None` for a
    /// queue that is not there or whose gate is in use.
    #[must_use]
    pub fn take(&self, queue: u32) -> Option<Gate> {
        if !self.mapping.claim(queue) {
            return None;
        }
        let gate = Gate {
            mapping: Arc::clone(&self.mapping),
            queue,
        };
        gate.reset();
        Some(gate)
    }

    /// Limit and heartbeat of a queue's gate, as `steer` would find them now, whoever has it.
    #[cfg(test)]
    pub(crate) fn seen_by_steer(&self, queue: u32) -> (u64, u64) {
        let gate = words(&self.mapping, queue).unwrap();
        (gate.limit(), gate.beaten_ns())
    }
}

fn words(mapping: &PerQueue<SharedGate>, queue: u32) -> Option<&SharedGate> {
    let at = mapping.at(queue)?;
    // SAFETY: `at` is mapped for as long as `mapping` lives, aligned (page plus a multiple of 128), valid
    // for any bits, and written elsewhere only as aligned 64-bit words.
    Some(unsafe { at.as_ref() })
}

/// One queue's gate, from the worker's side. Dropping it closes it.
pub struct Gate {
    mapping: Arc<PerQueue<SharedGate>>,
    queue: u32,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("queue", &self.queue)
            .field("limit", &self.limit())
            .field("in_flight", &self.in_flight())
            .finish()
    }
}

impl Gate {
    fn shared(&self) -> Option<&SharedGate> {
        words(&self.mapping, self.queue)
    }

    /// The queue.
    #[must_use]
    pub const fn queue(&self) -> u32 {
        self.queue
    }

    /// Closes the gate and forgets what an earlier process left under way.
    pub fn reset(&self) {
        if let Some(gate) = self.shared() {
            gate.reset();
        }
    }

    /// Lets up to `limit` frames be under way.
    pub fn open(&self, limit: u32) {
        if let Some(gate) = self.shared() {
            gate.open(u64::from(limit));
        }
    }

    /// Sends all further frames past this process. Those under way still arrive.
    pub fn close(&self) {
        self.open(0);
    }

    /// Frames that may be under way; 0 when closed.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.shared().map_or(0, SharedGate::limit)
    }

    /// Tells `steer` that the worker lives, at `now_ns` of CLOCK_MONOTONIC.
    pub fn heartbeat(&self, now_ns: u64) {
        if let Some(gate) = self.shared() {
            gate.heartbeat(now_ns);
        }
    }

    /// Gives credit back for `frames` frames. Call it after as many were put into the fill ring:
    /// the release store makes that order visible.
    pub fn consumed(&self, frames: u32) {
        if let Some(gate) = self.shared() {
            gate.give_back(u64::from(frames));
        }
    }

    /// Gives back all credit, whatever was counted before.
    pub fn resync(&self) {
        if let Some(gate) = self.shared() {
            gate.resync();
        }
    }

    /// Frames that `steer` redirected since the map was made.
    #[must_use]
    pub fn produced(&self) -> u64 {
        self.shared().map_or(0, SharedGate::produced)
    }

    /// The CPU on which `steer` redirected the last of them: the one that polls the queue. 0 before
    /// there was one.
    #[must_use]
    pub fn cpu(&self) -> u32 {
        let cpu = self.shared().map_or(0, SharedGate::cpu);
        u32::try_from(cpu).unwrap_or(u32::MAX)
    }

    /// Frames that were redirected and for which no credit was given back yet. Negative when more
    /// was given back than taken, which [`Self::resync`] heals.
    #[must_use]
    pub fn in_flight(&self) -> i64 {
        self.shared().map_or(0, SharedGate::in_flight)
    }

    /// Redirects `frames` frames in the kernel's stead.
    #[cfg(test)]
    pub(crate) fn pretend_produced(&self, frames: u64) {
        if let Some(gate) = self.shared() {
            gate.pretend_produced(frames);
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.close();
        self.mapping.release(self.queue);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{Gates, PerQueue};
    use std::os::fd::AsFd;
    use std::sync::Arc;

    /// Gates in anonymous memory, as a stand-in for the BPF array.
    pub(crate) fn gates(queues: u32) -> Gates {
        Gates {
            mapping: Arc::new(PerQueue::anonymous(queues).unwrap()),
        }
    }

    #[test]
    fn who_maps_the_same_array_sees_the_same_gate() {
        let fd = rustix::fs::memfd_create("gates", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&fd, 2 * 128).unwrap();
        let [kernel, worker] = [0, 1].map(|_| Gates::map(fd.as_fd(), 2).unwrap());
        let (kernel, worker) = (kernel.take(1).unwrap(), worker.take(1).unwrap());
        worker.open(3);
        kernel.pretend_produced(2);
        assert_eq!((kernel.limit(), worker.in_flight()), (3, 2));
    }

    #[test]
    fn credit_is_taken_by_the_kernel_and_given_back_by_the_worker() {
        let gate = gates(2).take(1).unwrap();
        gate.open(512);
        gate.pretend_produced(3);
        assert_eq!(
            (gate.limit(), gate.in_flight(), gate.produced()),
            (512, 3, 3)
        );
        gate.consumed(2);
        assert_eq!(gate.in_flight(), 1);
        gate.close();
        assert_eq!((gate.limit(), gate.in_flight()), (0, 1));
    }

    #[test]
    fn a_new_worker_starts_with_a_closed_gate_and_nothing_under_way() {
        let gates = gates(1);
        let gate = gates.take(0).unwrap();
        gate.open(9);
        gate.pretend_produced(7);
        drop(gate);
        let gate = gates.take(0).unwrap();
        assert_eq!((gate.limit(), gate.in_flight(), gate.produced()), (0, 0, 7));
    }

    #[test]
    fn a_gate_has_one_worker() {
        let gates = gates(1);
        let first = gates.take(0);
        assert!(first.is_some());
        assert!(gates.take(0).is_none());
        assert!(gates.take(1).is_none());
        drop(first);
        assert!(gates.take(0).is_some());
    }

    #[test]
    fn a_gate_without_a_worker_is_closed() {
        let gates = gates(2);
        let gate = gates.take(1).unwrap();
        gate.open(9);
        assert_eq!(gates.seen_by_steer(1).0, 9);
        drop(gate);
        assert_eq!(gates.seen_by_steer(1).0, 0);
    }

    #[test]
    fn too_much_credit_shows_as_negative_and_heals() {
        let gate = gates(1).take(0).unwrap();
        gate.pretend_produced(1);
        gate.consumed(3);
        assert_eq!(gate.in_flight(), -2);
        gate.resync();
        assert_eq!(gate.in_flight(), 0);
    }

    #[test]
    fn gates_of_no_queue_are_refused() {
        let fd = rustix::fs::memfd_create("gates", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        assert!(Gates::map(fd.as_fd(), 0).is_err());
    }
}

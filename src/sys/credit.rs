//! The words of a gate and what the worker does with them: credit, heartbeat, limit. Atomics and
//! nothing else, so that tests/models can play it against `steer` in every order (`cfg(loom)`). It
//! knows no mapping and no queue; `gate` does.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering};

/// `struct gate` of bpf/shared.h: one cache line that the kernel writes, one that we write.
#[repr(C)]
pub struct Words {
    produced: AtomicU64,
    cpu: AtomicU64,
    pad_kernel: [u64; 6],
    consumed: AtomicU64,
    heartbeat_ns: AtomicU64,
    limit: AtomicU64,
    draining: AtomicU64,
    pad_worker: [u64; 4],
}

#[cfg(not(loom))]
const _: () = assert!(std::mem::offset_of!(Words, consumed) == 64);
#[cfg(not(loom))]
const _: () = assert!(std::mem::offset_of!(Words, draining) == 88);

impl Words {
    /// Closes the gate and forgets what an earlier process left under way.
    pub fn reset(&self) {
        self.open(0);
        self.draining.store(0, Ordering::Relaxed);
        self.heartbeat_ns.store(0, Ordering::Relaxed);
        self.resync();
    }

    /// Lets up to `limit` frames be under way; 0 closes.
    pub fn open(&self, limit: u64) {
        self.limit.store(limit, Ordering::Release);
    }

    /// Frames that may be under way.
    pub fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// The worker lives at `now_ns`.
    pub fn heartbeat(&self, now_ns: u64) {
        self.heartbeat_ns.store(now_ns, Ordering::Release);
    }

    /// Gives credit back for `frames` frames that are in the fill ring again.
    pub fn give_back(&self, frames: u64) {
        // Only this worker writes the word, so that a load and a store are enough.
        let consumed = self.consumed.load(Ordering::Relaxed);
        self.consumed
            .store(consumed.wrapping_add(frames), Ordering::Release);
    }

    /// Gives back all credit, whatever was counted before.
    pub fn resync(&self) {
        self.consumed
            .store(self.produced.load(Ordering::Acquire), Ordering::Release);
    }

    /// Frames that were redirected since the map was made.
    pub fn produced(&self) -> u64 {
        self.produced.load(Ordering::Acquire)
    }

    /// The CPU that redirected the last of them; 0 before there was one.
    pub fn cpu(&self) -> u64 {
        self.cpu.load(Ordering::Relaxed)
    }

    /// Frames that were redirected and for which no credit was given back yet; negative when more
    /// was given back than taken.
    pub fn in_flight(&self) -> i64 {
        let produced = self.produced.load(Ordering::Acquire);
        produced
            .wrapping_sub(self.consumed.load(Ordering::Relaxed))
            .cast_signed()
    }

    /// When the worker last said that it lives.
    #[cfg(all(test, not(loom)))]
    pub fn beaten_ns(&self) -> u64 {
        self.heartbeat_ns.load(Ordering::Acquire)
    }

    /// Redirects `frames` frames in the kernel's stead.
    #[cfg(test)]
    pub fn pretend_produced(&self, frames: u64) {
        self.produced.fetch_add(frames, Ordering::Release);
    }
}

/// The kernel's side, bpf/gate.h and its caller in bpf/steer.bpf.c, for the models.
#[cfg(loom)]
impl Words {
    /// A closed gate with nothing under way.
    pub fn new() -> Self {
        Self {
            produced: AtomicU64::new(0),
            cpu: AtomicU64::new(0),
            pad_kernel: [0; 6],
            consumed: AtomicU64::new(0),
            heartbeat_ns: AtomicU64::new(0),
            limit: AtomicU64::new(0),
            draining: AtomicU64::new(0),
            pad_worker: [0; 4],
        }
    }

    /// `closed_because`, without the counters: whether a frame at `now_ns` is redirected; then it is
    /// counted as under way. `consumed` is loaded as a CPU does that orders loads (x86).
    pub fn admits(&self, now_ns: u64, heartbeat_max_ns: u64) -> bool {
        let limit = self.limit.load(Ordering::Acquire);
        let consumed = self.consumed.load(Ordering::Acquire);
        let heartbeat = self.heartbeat_ns.load(Ordering::Acquire);
        let produced = self.produced.load(Ordering::Relaxed);
        let under_way = produced.wrapping_sub(consumed);
        let late = now_ns.wrapping_sub(heartbeat).cast_signed() > heartbeat_max_ns.cast_signed();
        let mut closed = limit == 0 || under_way >= limit || late;
        if self.draining.load(Ordering::Acquire) != 0 {
            if !closed && under_way != 0 {
                closed = true;
            } else if !closed {
                self.draining.store(0, Ordering::Relaxed);
            }
        } else if closed {
            self.draining.store(1, Ordering::Relaxed);
        }
        if !closed {
            self.produced.store(produced + 1, Ordering::Release);
        }
        !closed
    }
}

//! Whether a thread has lain down for a long sleep, and who wakes it: one word between the sleeper and
//! those who leave work for it. Atomics and nothing else, so that tests/models can play it in every
//! order (`cfg(loom)`). It neither sleeps nor wakes; `bell` does.

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// Set while the sleeper sleeps, or is about to.
#[derive(Debug)]
pub struct Nap {
    is_asleep: AtomicBool,
}

impl Nap {
    /// Of a sleeper that is awake.
    pub fn new() -> Self {
        Self {
            is_asleep: AtomicBool::new(false),
        }
    }

    /// The sleeper is about to sleep. Only then it looks for work once more: what it does not find there is
    /// left by somebody whom [`Self::must_wake`] tells to wake it.
    pub fn lie_down(&self) {
        self.is_asleep.store(true, Ordering::Relaxed);
        // Against the fence of `must_wake`: of the two, one at least sees what the other wrote before.
        fence(Ordering::SeqCst);
    }

    /// The sleeper is awake again.
    pub fn rise(&self) {
        self.is_asleep.store(false, Ordering::Relaxed);
    }

    /// For who has left work: whether the sleeper has to be woken for it. Of several who ask, one is told.
    pub fn must_wake(&self) -> bool {
        fence(Ordering::SeqCst);
        self.is_asleep.load(Ordering::Relaxed) && self.is_asleep.swap(false, Ordering::Relaxed)
    }
}

//! What became of the records of one output, in numbers that any thread may read at any time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// One output's numbers. Every record that the output's filter lets pass is, in the end, in exactly one
/// of `delivered`, `refused`, `dropped`, `set_aside` and `waiting`; `damaged` ones were written by an earlier
/// run or lost by the disk. What others left for us is in `delivered` too, and was not accepted here.
#[derive(Debug, Default)]
pub struct Counters {
    /// Records that the filter let pass.
    pub accepted: AtomicU64,
    /// Records that the receiver has.
    pub delivered: AtomicU64,
    /// Records that were written to a receiver whose word is waited for, each time that they were.
    pub sent: AtomicU64,
    /// Records that the receiver will never take; they are kept aside with its reason.
    pub refused: AtomicU64,
    /// Records for which there was no room: the spool's limit, a full disk and full memory.
    pub dropped: AtomicU64,
    /// Records left on disk for whoever has the spool, since it was another process's: who takes them in
    /// delivers them.
    pub set_aside: AtomicU64,
    /// Records of the spool that could not be read back.
    pub damaged: AtomicU64,
    /// Attempts that failed.
    pub failures: AtomicU64,
    /// Records that wait, on disk and in memory.
    pub waiting: AtomicU64,
    /// Bytes of the spool on disk.
    pub spool_bytes: AtomicU64,
    /// When the oldest record that waits was made, nanoseconds since 1970; 0 when none waits.
    pub oldest_ns: AtomicU64,
    /// Times that the spool could not be written to.
    pub spool_errors: AtomicU64,
    /// The receiver cannot be reached, or takes nothing.
    pub failing: AtomicBool,
    /// The reader went away for good (`-` of `read` only).
    pub closed: AtomicBool,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64, number: u64) {
        counter.fetch_add(number, Ordering::Relaxed);
    }

    pub(super) fn set(counter: &AtomicU64, number: u64) {
        counter.store(number, Ordering::Relaxed);
    }

    /// A number as it is now.
    #[must_use]
    pub fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Acquire)
    }

    /// Records that the receiver should have and never will.
    #[must_use]
    pub fn lost(&self) -> u64 {
        Self::get(&self.refused) + Self::get(&self.dropped) + Self::get(&self.damaged)
    }
}

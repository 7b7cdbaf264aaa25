//! A BPF array that is mapped into this process, one entry a queue, each for one owner at a time.
//! Maps, hands out addresses and unmaps; refuses to read what lies behind them.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, Ordering};

/// The mapped array. `T` is the layout of an entry, valid for any bits.
pub(super) struct PerQueue<T> {
    base: NonNull<T>,
    bytes: usize,
    /// Whether the queue's entry has been handed out.
    taken: Box<[AtomicBool]>,
}

// SAFETY: only addresses are handed out; who reads through one answers for it. Unmapped by the last
// owner.
unsafe impl<T> Send for PerQueue<T> {}
// SAFETY: as for `Send`; what is changed here are atomics.
unsafe impl<T> Sync for PerQueue<T> {}

impl<T> PerQueue<T> {
    /// Maps an array with BPF_F_MMAPABLE that has at least `queues` entries. The descriptor may be
    /// closed afterwards.
    ///
    /// # Errors
    ///
    /// `EINVAL` when `queues` is 0, else what mmap says.
    pub(super) fn map(array: BorrowedFd<'_>, queues: u32) -> io::Result<Self> {
        Self::map_with(
            libc::MAP_SHARED | libc::MAP_POPULATE,
            array.as_raw_fd(),
            queues,
        )
    }

    /// As many entries in memory of this process alone, as a stand-in for an array; Miri knows no other.
    #[cfg(test)]
    pub(super) fn anonymous(queues: u32) -> io::Result<Self> {
        Self::map_with(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, queues)
    }

    fn map_with(flags: libc::c_int, fd: libc::c_int, queues: u32) -> io::Result<Self> {
        let bytes = queues as usize * size_of::<T>();
        if queues == 0 {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let at = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                fd,
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(at.cast::<T>())
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
        let taken = (0..queues).map(|_| AtomicBool::new(false)).collect();
        Ok(Self { base, bytes, taken })
    }

    /// How many entries there are.
    pub(super) fn queues(&self) -> usize {
        self.taken.len()
    }

    /// Takes the entry of `queue`; `false` when it is not there or has an owner.
    pub(super) fn claim(&self, queue: u32) -> bool {
        self.taken
            .get(queue as usize)
            .is_some_and(|taken| !taken.swap(true, Ordering::AcqRel))
    }

    /// Gives it back.
    pub(super) fn release(&self, queue: u32) {
        if let Some(taken) = self.taken.get(queue as usize) {
            taken.store(false, Ordering::Release);
        }
    }

    /// Where the entry of `queue` lies: aligned to a page and a multiple of `T`'s size, mapped for as
    /// long as `self` lives.
    pub(super) fn at(&self, queue: u32) -> Option<NonNull<T>> {
        if queue as usize >= self.taken.len() {
            return None;
        }
        // SAFETY: the mapping holds `taken.len()` entries, and `queue` is less than that.
        Some(unsafe { self.base.add(queue as usize) })
    }
}

impl<T> Drop for PerQueue<T> {
    fn drop(&mut self) {
        // SAFETY: address and length are those that mmap gave in `map`, and no address of it is used
        // after `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

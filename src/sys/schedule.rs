//! How soon the scheduler lets a woken thread run. A thread may ask for a short time slice, which
//! changes nothing about its share of the CPU; it refuses real-time classes, which could starve the
//! host.

use std::io;

/// The shortest slice that the kernel grants (`sched_setattr`, kernel/sched/syscalls.c: it clamps
/// to 100 us). A worker's turn takes some microseconds, so that it is never cut short by it.
const SLICE_NS: u64 = 100_000;

/// Asks for a slice of 100 us for the calling thread, so that it preempts a busy thread at once
/// when a frame wakes it (EEVDF's earlier deadline), and does not wait for the end of a slice of
/// 3 ms. Class and niceness stay what they are. Kernels before 6.12 ignore the wish.
///
/// # Errors
///
/// What `sched_setattr` says; nothing has changed then.
pub fn ask_for_short_slice() -> io::Result<()> {
    let mut wish = attributes()?;
    if wish.sched_policy != SCHED_OTHER {
        // Somebody chose a class for this process (chrt, systemd): it knows better.
        return Ok(());
    }
    wish.sched_runtime = SLICE_NS;
    // SAFETY: the kernel reads `wish.size` bytes of a struct of ours, which outlives the call;
    // 0 is the calling thread, and the call has no flags.
    let answer = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const wish, 0) };
    if answer == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Slice of the calling thread in nanoseconds, as the kernel says; 0 where it does not say.
///
/// # Errors
///
/// What `sched_getattr` says.
pub fn slice_ns() -> io::Result<u64> {
    attributes().map(|attributes| attributes.sched_runtime)
}

/// SCHED_OTHER of `include/uapi/linux/sched.h`: what every thread is unless somebody changed it.
const SCHED_OTHER: u32 = 0;

/// The first version of `struct sched_attr` (`include/uapi/linux/sched/types.h`), which all
/// kernels know.
#[repr(C)]
#[derive(Debug, Default)]
struct Attributes {
    size: u32,
    sched_policy: u32,
    sched_flags: u64,
    sched_nice: i32,
    sched_priority: u32,
    sched_runtime: u64,
    sched_deadline: u64,
    sched_period: u64,
}

/// SCHED_ATTR_SIZE_VER0.
const ATTRIBUTES_BYTES: u32 = 48;
const _: () = assert!(size_of::<Attributes>() == ATTRIBUTES_BYTES as usize);

fn attributes() -> io::Result<Attributes> {
    let mut found = Attributes::default();
    // SAFETY: the kernel writes at most the given number of bytes, which is the struct's size.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_sched_getattr,
            0,
            &raw mut found,
            ATTRIBUTES_BYTES,
            0,
        )
    };
    if answer == 0 {
        found.size = ATTRIBUTES_BYTES;
        Ok(found)
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::{SLICE_NS, ask_for_short_slice, slice_ns};

    #[test]
    fn a_thread_that_asked_has_the_short_slice_or_runs_on_an_older_kernel() {
        std::thread::spawn(|| {
            let before = slice_ns().unwrap();
            ask_for_short_slice().unwrap();
            let after = slice_ns().unwrap();
            // Before 6.12 the kernel says 0 for a thread of this class, and keeps saying it.
            assert!(
                after == SLICE_NS || (before == 0 && after == 0),
                "{before} {after}"
            );
        })
        .join()
        .unwrap();
    }
}

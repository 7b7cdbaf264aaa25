//! Advice about memory that somebody else owns: to the kernel, and to the processor. None of it
//! changes what a program does, only how fast.

use std::ffi::c_void;

/// Bytes of a huge page on x86-64 and, with pages of 4 KiB, on 64-bit ARM.
const HUGE_PAGE: usize = 2 << 20;

/// Asks the kernel to back this memory with huge pages, as far as whole ones lie in it (`MADV_HUGEPAGE`,
/// `Documentation/admin-guide/mm/transhuge.rst`): random reads of a large table otherwise wait for
/// the page tables too. Best before the memory is first used. Nothing changes but speed, so that a
/// kernel that does not want to is no error; answers whether it took the advice.
pub fn advise_huge_pages<T>(memory: &[T]) -> bool {
    let start = memory.as_ptr().addr();
    let end = start + size_of_val(memory);
    let first = start.next_multiple_of(HUGE_PAGE);
    let bytes = (end - end % HUGE_PAGE).saturating_sub(first);
    if bytes == 0 {
        return false;
    }
    let at = memory
        .as_ptr()
        .cast::<c_void>()
        .wrapping_byte_add(first - start);
    // SAFETY: `at` and `bytes` lie inside `memory`, which is borrowed for the call. The advice
    // changes neither its contents nor who may access it.
    let result = unsafe { libc::madvise(at.cast_mut(), bytes, libc::MADV_HUGEPAGE) };
    result == 0
}

/// Bytes that a processor fetches at a time, on all that the program runs on. Where it is more,
/// some advice is given twice.
const CACHE_LINE: usize = 64;

/// Asks the processor to fetch an object into its nearest cache, and does not wait for it. A load
/// in its place would hold up everything behind it: what has been fetched can only retire in order,
/// so that a core keeps a few loads under way where it keeps a dozen prefetches.
#[inline]
pub fn bring_near<T: ?Sized>(object: &T) {
    let start = std::ptr::from_ref(object).cast::<u8>();
    if size_of_val(object) <= CACHE_LINE {
        // In one line or two. To ask twice for one line costs less than to guess which it is.
        prefetch(start);
        prefetch(start.wrapping_add(size_of_val(object).saturating_sub(1)));
        return;
    }
    let into_line = start.addr() % CACHE_LINE;
    let bytes = size_of_val(object) + into_line;
    let mut line = 0;
    while line < bytes {
        prefetch(start.wrapping_sub(into_line).wrapping_add(line));
        line += CACHE_LINE;
    }
}

/// The same for the first line alone of an object that is aligned to one.
#[inline]
pub fn bring_line_near<T>(object: &T) {
    prefetch(std::ptr::from_ref(object).cast());
}

/// The same for the first line of one of many objects, without a look at whether there is one: beyond them, a
/// line is fetched that nobody reads.
#[inline]
pub fn bring_line_near_at<T>(objects: &[T], at: usize) {
    prefetch(objects.as_ptr().wrapping_add(at).cast());
}

#[inline]
#[cfg(all(target_arch = "x86_64", not(miri)))]
fn prefetch(address: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: PREFETCHT0 is SSE, which every x86-64 has; it reads nothing that the program could
    // see and does not fault at any address (Intel SDM, vol. 2, PREFETCHh).
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
}

#[inline]
#[cfg(all(target_arch = "aarch64", not(miri)))]
fn prefetch(address: *const u8) {
    // SAFETY: PRFM is a hint that touches no register and does not fault at any address (Arm ARM,
    // C6.2 PRFM).
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{0}]", in(reg) address, options(nostack, readonly, preserves_flags));
    }
}

/// Elsewhere the processor finds out by itself what is needed.
#[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
const fn prefetch(_address: *const u8) {}

#[cfg(test)]
mod tests {
    use super::{CACHE_LINE, HUGE_PAGE, advise_huge_pages, bring_near};

    #[test]
    fn anything_may_be_brought_near_and_stays_as_it_is() {
        let memory: Vec<u32> = (0..1000).collect();
        bring_near(memory.as_slice());
        bring_near(&memory[7]);
        bring_near::<[u32]>(&[]);
        bring_near(&());
        bring_near(&[7_u8; 3 * CACHE_LINE + 1]);
        assert!(memory.iter().copied().eq(0..1000));
    }

    #[test]
    fn memory_keeps_its_contents_and_less_than_a_page_is_left_alone() {
        let mut memory = vec![7_u32; 2 * HUGE_PAGE / 4 + 3];
        let _taken = advise_huge_pages(&memory);
        memory.push(8);
        assert!(memory.iter().rev().skip(1).all(|word| *word == 7));
        assert!(!advise_huge_pages(&memory[..100]));
        assert!(!advise_huge_pages::<u8>(&[]));
    }
}

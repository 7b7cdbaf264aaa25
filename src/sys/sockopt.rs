//! Socket options and interface flags that no crate of ours offers.

use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// XDP_MAX_TX_SKB_BUDGET of `include/uapi/linux/if_xdp.h`, since Linux 6.17.
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;

/// Length of an option that is one u32.
const U32_BYTES: libc::socklen_t = 4;

/// What one small frame costs the socket's send memory while it is under way: the skb's true size
/// with its headroom, rounded up.
const SKB_BYTES: usize = 2304;

/// Frames that the kernel could not put into the RX ring, counted since the bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RxLosses {
    /// Lost: longer than a UMEM frame, or no free frame for it.
    pub dropped: u64,
    /// Lost: the RX ring was full.
    pub ring_full: u64,
    /// How often the fill ring was found empty. Each such frame is in `dropped` too.
    pub fill_ring_empty: u64,
    /// Entries of the fill ring that were no frames. Must be 0.
    pub invalid_descs: u64,
}

/// Sets how many descriptors one send may take.
pub(super) fn set_send_budget(fd: BorrowedFd<'_>, frames: u32) -> std::io::Result<()> {
    // SAFETY: the option takes a u32 (`xsk_setsockopt`, net/xdp/xsk.c); pointer and length are
    // those of `frames`, which lives until the call returns.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_XDP,
            XDP_MAX_TX_SKB_BUDGET,
            (&raw const frames).cast(),
            U32_BYTES,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

/// Gives the socket send memory for `frames` frames under way at once, beyond wmem_max.
pub(super) fn set_send_memory(fd: BorrowedFd<'_>, frames: u32) -> Result<(), Errno> {
    rustix::net::sockopt::set_socket_send_buffer_size_force(fd, frames as usize * SKB_BYTES)
}

/// Whether the socket has a pending error, which it has once its interface was removed
/// (`xsk_notifier`, net/xdp/xsk.c). Asking clears it.
pub(super) fn has_error(fd: BorrowedFd<'_>) -> bool {
    !matches!(rustix::net::sockopt::socket_error(fd), Ok(Ok(())))
}

/// A socket that only serves to ask for interface flags in this thread's network namespace.
pub(super) fn control_socket() -> Result<OwnedFd, Errno> {
    rustix::net::socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )
}

/// Whether `interface` is up and running, that is, has a carrier. False when it does not exist.
pub(super) fn is_running(control: &OwnedFd, interface: &str) -> bool {
    // SAFETY: `ifreq` is a C struct of integers and byte arrays, for which all zeros are valid.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return false;
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from.cast_signed();
    }
    // SAFETY: SIOCGIFFLAGS reads and writes one `ifreq` (netdevice(7)), which is ours.
    let result = unsafe {
        libc::ioctl(
            control.as_fd().as_raw_fd(),
            libc::SIOCGIFFLAGS,
            &raw mut request,
        )
    };
    if result != 0 {
        return false;
    }
    // SAFETY: SIOCGIFFLAGS succeeded, so that the kernel has filled this member.
    let flags = libc::c_int::from(unsafe { request.ifr_ifru.ifru_flags });
    let wanted = libc::IFF_UP | libc::IFF_RUNNING;
    flags & wanted == wanted
}

#[cfg(test)]
mod tests {
    use super::{control_socket, is_running};

    #[test]
    fn an_interface_that_is_not_there_does_not_run() {
        let control = control_socket().unwrap();
        assert!(!is_running(&control, "no-such-if0"));
        assert!(!is_running(
            &control,
            "a-name-that-is-much-too-long-for-an-interface"
        ));
    }
}

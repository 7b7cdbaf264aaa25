//! BPF links that libbpf-rs cannot make: XDP in native mode only, and tcx. A link is a descriptor
//! that is not pinned: when the process ends, however it ends, the program is off the interface.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libbpf_rs::libbpf_sys;

/// `XDP_FLAGS_DRV_MODE` (linux/if_link.h): native mode or an error. Without it the kernel would
/// silently fall back to generic XDP, where redirected frames come round again.
const NATIVE_MODE: u32 = 1 << 2;

/// Attaches an XDP program in native mode.
///
/// # Errors
///
/// `EBUSY` or `EEXIST` when another program holds the slot, `EOPNOTSUPP` when the driver has no
/// native XDP, `ENODEV` when the interface is gone, `EPERM` without CAP_NET_ADMIN.
pub fn attach_xdp_native(program: BorrowedFd<'_>, ifindex: u32) -> io::Result<OwnedFd> {
    create(program, ifindex, libbpf_sys::BPF_XDP, NATIVE_MODE)
}

/// Attaches a tc program by tcx (Linux 6.6), behind those that are there.
///
/// # Errors
///
/// `EINVAL` on kernels without tcx, else as [`attach_xdp_native`].
pub fn attach_tcx(program: BorrowedFd<'_>, ifindex: u32, egress: bool) -> io::Result<OwnedFd> {
    let hook = if egress {
        libbpf_sys::BPF_TCX_EGRESS
    } else {
        libbpf_sys::BPF_TCX_INGRESS
    };
    create(program, ifindex, hook, 0)
}

/// How often the kernel left a tracing program out because it was running on that CPU already, in what
/// had been interrupted (`__bpf_trace_run` of kernel/trace/bpf_trace.c).
///
/// # Errors
///
/// What `BPF_OBJ_GET_INFO_BY_FD` says.
pub fn runs_missed(program: BorrowedFd<'_>) -> io::Result<u64> {
    let mut info = libbpf_sys::bpf_prog_info::default();
    let mut len = u32::try_from(size_of_val(&info)).unwrap_or(0);
    // SAFETY: the descriptor is borrowed for the whole call, which writes no more than `len` bytes of
    // `info`, and follows none of its pointers, since all its counts are 0.
    let answer = unsafe {
        libbpf_sys::bpf_obj_get_info_by_fd(
            program.as_raw_fd(),
            (&raw mut info).cast(),
            &raw mut len,
        )
    };
    if answer < 0 {
        Err(io::Error::from_raw_os_error(-answer))
    } else {
        Ok(info.recursion_misses)
    }
}

/// Puts another program into a link, in one step: each frame meets the old one or the new one. The
/// program must be of the same type; the interface and its driver see no change.
///
/// # Errors
///
/// What `BPF_LINK_UPDATE` says: `ENOLINK` when the interface is gone, `EPERM` without CAP_NET_ADMIN.
pub fn replace_program(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both descriptors are borrowed for the whole call, and no options are allowed.
    let answer = unsafe {
        libbpf_sys::bpf_link_update(link.as_raw_fd(), program.as_raw_fd(), std::ptr::null())
    };
    if answer < 0 {
        Err(io::Error::from_raw_os_error(-answer))
    } else {
        Ok(())
    }
}

/// The kernel's id of a link, as `bpftool link` shows it.
///
/// # Errors
///
/// What `BPF_OBJ_GET_INFO_BY_FD` says.
pub fn link_id(link: BorrowedFd<'_>) -> io::Result<u32> {
    info(link).map(|info| info.id)
}

/// The index of the interface that an XDP link is on; 0 when it was detached from outside, or the
/// interface is gone.
///
/// # Errors
///
/// What `BPF_OBJ_GET_INFO_BY_FD` says.
pub fn xdp_ifindex(link: BorrowedFd<'_>) -> io::Result<u32> {
    let info = info(link)?;
    if info.type_ != libbpf_sys::BPF_LINK_TYPE_XDP {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the kernel filled in the member for XDP links, which is what this link is; any bits
    // are a valid number.
    Ok(unsafe { info.__bindgen_anon_1.xdp.ifindex })
}

/// The index of the interface that a tcx link is on; 0 when it was detached from outside, or the
/// interface is gone.
///
/// # Errors
///
/// What `BPF_OBJ_GET_INFO_BY_FD` says.
pub fn tcx_ifindex(link: BorrowedFd<'_>) -> io::Result<u32> {
    let info = info(link)?;
    if info.type_ != libbpf_sys::BPF_LINK_TYPE_TCX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the kernel filled in the member for tcx links, which is what this link is; any bits
    // are a valid number.
    Ok(unsafe { info.__bindgen_anon_1.tcx.ifindex })
}

fn info(link: BorrowedFd<'_>) -> io::Result<libbpf_sys::bpf_link_info> {
    let mut info = libbpf_sys::bpf_link_info::default();
    let mut len = u32::try_from(size_of::<libbpf_sys::bpf_link_info>()).unwrap_or(u32::MAX);
    // SAFETY: `info` is a valid, writable struct of `len` bytes for the whole call.
    let answer = unsafe {
        libbpf_sys::bpf_link_get_info_by_fd(link.as_raw_fd(), &raw mut info, &raw mut len)
    };
    if answer < 0 {
        Err(io::Error::from_raw_os_error(-answer))
    } else {
        Ok(info)
    }
}

fn create(program: BorrowedFd<'_>, ifindex: u32, hook: u32, flags: u32) -> io::Result<OwnedFd> {
    let target = i32::try_from(ifindex).map_err(|_| io::ErrorKind::InvalidInput)?;
    let options = libbpf_sys::bpf_link_create_opts {
        sz: size_of::<libbpf_sys::bpf_link_create_opts>() as u64,
        flags,
        ..Default::default()
    };
    // SAFETY: `options` outlives the call and says its own size; the descriptor is borrowed.
    let answer = unsafe {
        libbpf_sys::bpf_link_create(program.as_raw_fd(), target, hook, &raw const options)
    };
    if answer < 0 {
        return Err(io::Error::from_raw_os_error(-answer));
    }
    // SAFETY: a non-negative answer is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(answer) })
}

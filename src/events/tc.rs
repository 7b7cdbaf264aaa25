//! A tc program on an interface: by tcx link where the kernel has it (6.6), else by a filter of
//! the clsact qdisc, which is taken off again when the value is dropped.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use libbpf_rs::{TC_EGRESS, TC_INGRESS, TcHook, TcHookBuilder};

use crate::sys::link;

/// Our place in the order of clsact filters; far behind others, since we only look.
const PRIORITY: u32 = 49_000;

/// One attached program.
#[derive(Debug)]
pub enum Attachment {
    /// A link; detached when closed.
    Tcx(OwnedFd),
    /// A filter. A killed process leaves it; the next start replaces it.
    Filter(TcHook),
}

impl Attachment {
    /// Attaches `program` to what leaves (`egress`) or enters by that interface.
    ///
    /// # Errors
    ///
    /// `ENODEV` when the interface is gone, `EPERM` without CAP_NET_ADMIN.
    pub fn make(program: BorrowedFd<'_>, ifindex: u32, egress: bool) -> io::Result<Self> {
        match link::attach_tcx(program, ifindex, egress) {
            Ok(link) => return Ok(Self::Tcx(link)),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            Err(error) => return Err(error),
        }
        let index = i32::try_from(ifindex).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut builder = TcHookBuilder::new(program);
        builder
            .ifindex(index)
            .replace(true)
            .handle(1)
            .priority(PRIORITY);
        let mut hook = builder.hook(if egress { TC_EGRESS } else { TC_INGRESS });
        hook.create()
            .and_then(|mut hook| hook.attach())
            .map(Self::Filter)
            .map_err(|error| io::Error::other(error.to_string()))
    }

    /// Whether somebody took the program off, or the interface is gone. Of a filter it is not asked:
    /// that takes a netlink socket, and kernels with tcx do without filters.
    pub fn is_cut_off(&self) -> bool {
        match self {
            Self::Tcx(link) => matches!(link::tcx_ifindex(link.as_fd()), Ok(0)),
            Self::Filter(_) => false,
        }
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        if let Self::Filter(hook) = self {
            // The interface may be gone, and the filter with it: nothing is left to do.
            let _ = hook.detach();
        }
    }
}

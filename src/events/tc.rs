//! A tc program on an interface: by tcx link where the kernel has it (6.6), else by a filter of
//! the clsact qdisc, which is taken off again when the value is dropped.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use libbpf_rs::{ErrorKind, PrintLevel, TC_EGRESS, TC_INGRESS, TcHook, TcHookBuilder, set_print};

use crate::notice;
use crate::sys::link;

/// Our place in the order of clsact filters; far behind others, since we only look.
const PRIORITY: u32 = 49_000;

/// One attached program.
#[derive(Debug)]
pub enum Attachment {
    /// A link; detached when closed.
    Tcx(OwnedFd),
    /// A filter, the number of its program, and whether it is known to be gone: then it is not asked for
    /// again, since libbpf complains each time. A killed process leaves it; the next start replaces it.
    Filter(TcHook, u32, Cell<bool>),
    /// Nothing any more: the interface left.
    Off,
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
        Self::filter(program, ifindex, egress)
    }

    /// The same by a filter of clsact, which every kernel has.
    ///
    /// # Errors
    ///
    /// As [`Attachment::make`].
    pub fn filter(program: BorrowedFd<'_>, ifindex: u32, egress: bool) -> io::Result<Self> {
        set_print(Some((PrintLevel::Info, complain)));
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
            .and_then(|mut hook| Ok(Self::Filter(hook, hook.query()?, Cell::new(false))))
            .map_err(|error| io::Error::other(error.to_string()))
    }

    /// Takes a link off an interface that left for another network namespace, where it would go on. A filter
    /// went with its qdisc (`dev_shutdown`).
    pub fn let_go(&mut self) {
        if matches!(self, Self::Tcx(_)) {
            *self = Self::Off;
        }
    }

    /// Whether somebody took the program off, put another one in its place, or the interface is gone.
    pub fn is_cut_off(&self) -> bool {
        match self {
            Self::Tcx(link) => matches!(link::tcx_ifindex(link.as_fd()), Ok(0)),
            Self::Filter(hook, program, gone) => {
                if !gone.get() {
                    gone.set(is_another_there(*hook, *program));
                }
                gone.get()
            }
            Self::Off => true,
        }
    }
}

/// Says what libbpf has to say, but for the kernel's words to a request by netlink (`libbpf_nla_dump_errormsg`):
/// that there is a clsact already, or no filter any more, is an answer here.
fn complain(_: PrintLevel, text: String) {
    if !text.starts_with("libbpf: Kernel error message") {
        notice::say(text.trim_end());
    }
}

/// Whether the filter's place is empty or another's. That the question cannot be asked (no descriptor is left
/// for a netlink socket) is no answer.
fn is_another_there(mut hook: TcHook, program: u32) -> bool {
    match hook.query() {
        Ok(found) => found != program,
        // Without the filter ENOENT, without its qdisc EINVAL.
        Err(error) => matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput),
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        if let Self::Filter(hook, program, _) = self {
            // Who took over from us has put its own there (`run --replace`).
            if !is_another_there(*hook, *program) {
                // The interface may be gone, and the filter with it: nothing is left to do.
                let _ = hook.detach();
            }
        }
    }
}

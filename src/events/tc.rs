//! A tc program on an interface: by tcx link where the kernel has it (6.6), else by a filter of
//! the clsact qdisc, which is taken off again when the value is dropped.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use libbpf_rs::{PrintLevel, TC_EGRESS, TC_INGRESS, TcHookBuilder, set_print};

use crate::notice;
use crate::sys::link;
use crate::sys::netlink::filter::{BpfFilter, bpf_filter, bpf_filter_in};
use crate::sys::netlink::{Body, Conversation, Refusal, uapi};

/// Our place in the order of clsact filters; far behind others, since we only look.
const PRIORITY: u32 = 49_000;
/// The handle of our filter in that place.
const HANDLE: u32 = 1;

/// The kernel's answers to a question for a filter that is not there: without it, without its qdisc, without the
/// interface.
const NOTHING_THERE: [i32; 3] = [libc::ENOENT, libc::EINVAL, libc::ENODEV];

/// Where a filter of ours is: on which side of which interface.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    ifindex: u32,
    parent: u32,
}

impl Place {
    /// What leaves by that interface.
    const fn egress(ifindex: u32) -> Self {
        let parent = uapi::TC_H_MIN_EGRESS;
        Self { ifindex, parent }
    }

    /// What enters by it.
    const fn ingress(ifindex: u32) -> Self {
        let parent = uapi::TC_H_MIN_INGRESS;
        Self { ifindex, parent }
    }

    fn body(self) -> Body {
        bpf_filter(self.ifindex, HANDLE, self.parent, PRIORITY)
    }

    /// The filter that is there.
    fn found(self) -> Result<Option<BpfFilter>, Refusal> {
        let nothing = |refusal: &Refusal| NOTHING_THERE.iter().any(|errno| refusal.is(*errno));
        match Conversation::route()?.ask(uapi::RTM_GETTFILTER, 0, &self.body()) {
            Ok(answers) => Ok(answers.iter().find_map(|a| bpf_filter_in(&a.body))),
            Err(refusal) if nothing(&refusal) => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    fn clear(self) -> Result<(), Refusal> {
        let mut route = Conversation::route()?;
        route.ask(uapi::RTM_DELTFILTER, 0, &self.body()).map(|_| ())
    }
}

/// One attached program.
#[derive(Debug)]
pub enum Attachment {
    /// A link; detached when closed.
    Tcx(OwnedFd),
    /// A filter, the number of its program, and whether it is known to be gone: then it is not asked for
    /// again. A killed process leaves it; the next start replaces it.
    Filter(Place, u32, Cell<bool>),
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
            .handle(HANDLE)
            .priority(PRIORITY);
        let (side, place) = match egress {
            true => (TC_EGRESS, Place::egress(ifindex)),
            false => (TC_INGRESS, Place::ingress(ifindex)),
        };
        let made = builder.hook(side).create();
        made.and_then(|mut hook| hook.attach())
            .map_err(|error| io::Error::other(error.to_string()))?;
        match place.found() {
            Ok(ours) => {
                // Without a number it was taken off again at once.
                let number = ours.and_then(|filter| filter.program).unwrap_or(0);
                Ok(Self::Filter(place, number, Cell::new(false)))
            }
            Err(refusal) => {
                let _ = place.clear();
                Err(refusal.error)
            }
        }
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
            Self::Filter(place, program, gone) => {
                if !gone.get() {
                    gone.set(is_another_there(*place, *program));
                }
                gone.get()
            }
            Self::Off => true,
        }
    }
}

/// Takes off the filter by which a killed sensor's `program` still looks at what enters by that interface, and
/// answers whether there was one. A program with another name is somebody else's.
///
/// # Errors
///
/// What the kernel answers, but for that there is none.
pub fn take_off_left_ingress(ifindex: u32, program: &str) -> Result<bool, Refusal> {
    let place = Place::ingress(ifindex);
    let is_ours = |filter: BpfFilter| filter.name.split(':').next() == Some(program);
    if !place.found()?.is_some_and(is_ours) {
        return Ok(false);
    }
    place.clear().map(|()| true)
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
fn is_another_there(place: Place, program: u32) -> bool {
    match place.found() {
        Ok(found) => found.and_then(|filter| filter.program) != Some(program),
        Err(_) => false,
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        if let Self::Filter(place, program, _) = self {
            // Who took over from us has put its own there (`run --replace`).
            if !is_another_there(*place, *program) {
                // The interface may be gone, and the filter with it: nothing is left to do.
                let _ = place.clear();
            }
        }
    }
}

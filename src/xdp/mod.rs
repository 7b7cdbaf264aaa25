//! Loads `steer` for one interface, attaches it in native mode, puts AF_XDP sockets into its map
//! and reads its counters. Refuses generic XDP and an interface whose slot is taken. The link is
//! not pinned: it goes with this value, or with the process.

use std::fmt;
use std::io;
use std::mem::{MaybeUninit, offset_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapImpl, libbpf_sys};

use crate::bpf::steer::{SteerSkelBuilder, types};
use crate::host_bytes;
use crate::sys::{link, watched};
use crate::time::Timestamp;
use crate::wire::FourTuple;

/// Counters of one interface, by `enum steer_counter` of bpf/shared.h.
pub const COUNTERS: usize = 20;

/// Their names, in order.
pub const COUNTER_NAMES: [&str; COUNTERS] = [
    "passed",
    "not_ip",
    "not_tcp",
    "fragment",
    "truncated",
    "malformed",
    "too_deep",
    "too_long",
    "no_metadata",
    "redirected",
    "bypass_credit",
    "bypass_heartbeat",
    "bypass_draining",
    "bypass_closed",
    "no_socket",
    "copied",
    "copy_lost",
    "checksum_partial",
    "fast_open",
    "routed",
];

/// Those of them that count frames which should have gone to a worker and passed to the host directly.
pub const BYPASSED: [&str; 10] = [
    "too_long",
    "checksum_partial",
    "fast_open",
    "routed",
    "no_metadata",
    "bypass_credit",
    "bypass_heartbeat",
    "bypass_draining",
    "bypass_closed",
    "no_socket",
];

/// Queues of one interface that `steer` serves.
pub const QUEUES_MAX: u32 = 256;

/// Bytes of one queue's `struct queue_counters`.
const QUEUE_COUNTERS_LEN: usize = 192;

const _: () = assert!(size_of::<types::queue_counters>() == QUEUE_COUNTERS_LEN);
const _: () = assert!(COUNTERS * 8 <= QUEUE_COUNTERS_LEN);
const _: () = assert!(size_of::<types::gate>() == 128);

/// What `steer` is told before it is loaded.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Longest frame that fits a UMEM frame behind its headroom, in bytes.
    pub frame_bytes_max: u32,
    /// How late a worker may be before its queue is bypassed, in nanoseconds.
    pub heartbeat_max_ns: u64,
    /// How long frames are copied after a reset of their flow, in nanoseconds; 0: not at all.
    pub watch_ns: u64,
    /// How many of them, after each reset.
    pub watch_budget: u64,
    /// Metadata of 32 bytes, for kernels before 6.8; see [`needs_short_metadata`].
    pub short_metadata: bool,
    /// Takes frames in several buffers, which an MTU beyond a page needs; see
    /// [`knows_fragments`].
    pub fragments: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            frame_bytes_max: 1536,
            heartbeat_max_ns: 10_000_000,
            watch_ns: 3_000_000_000,
            watch_budget: 8,
            short_metadata: needs_short_metadata(),
            fragments: knows_fragments(),
        }
    }
}

/// Whether this kernel's XDP metadata ends at 32 bytes (before Linux 6.8, `xdp_metalen_invalid`).
#[must_use]
pub fn needs_short_metadata() -> bool {
    kernel_version() < (6, 8)
}

/// Whether this kernel knows XDP programs for frames in several buffers (Linux 5.18,
/// `BPF_F_XDP_HAS_FRAGS`).
#[must_use]
pub fn knows_fragments() -> bool {
    kernel_version() >= (5, 18)
}

fn kernel_version() -> (u32, u32) {
    let release = rustix::system::uname();
    let release = release.release().to_string_lossy();
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || {
        parts
            .next()
            .and_then(|part| part.parse::<u32>().ok())
            .unwrap_or(0)
    };
    (number(), number())
}

/// Why `steer` could not be put on an interface.
#[derive(Debug)]
pub enum Error {
    /// The kernel did not take the program.
    Load(libbpf_rs::Error),
    /// A map of the program could not be read or written.
    Map(&'static str, libbpf_rs::Error),
    /// Another XDP program is there.
    SlotTaken(String),
    /// The driver has no native XDP, or not in this set-up (MTU, offloads).
    NoNativeMode(String),
    /// No CAP_NET_ADMIN.
    NoPermission(String),
    /// The interface is gone.
    Gone(String),
    /// Anything else.
    Attach(String, io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Load(source) => write!(
                f,
                "the kernel refused the XDP program: {source:#}; needs Linux 5.15 with BTF and \
                 CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON"
            ),
            Self::Map(map, source) => write!(f, "BPF map {map}: {source}"),
            Self::SlotTaken(interface) => write!(
                f,
                "{interface}: another XDP program is attached; remove it (ip link set dev \
                 {interface} xdp off) or use --mode mirror"
            ),
            Self::NoNativeMode(interface) => write!(
                f,
                "{interface}: the driver refuses native XDP in this set-up: lower the MTU if it is \
                 above 3500 (drivers without multi-buffer XDP, Linux before 5.18), give a veth as \
                 many RX queues as its peer has TX queues (ethtool -L {interface} rx N), see \
                 `rstscope doctor --iface {interface}`, or use --mode mirror"
            ),
            Self::NoPermission(interface) => {
                write!(
                    f,
                    "{interface}: attaching XDP needs root or CAP_NET_ADMIN and CAP_BPF"
                )
            }
            Self::Gone(interface) => write!(f, "{interface}: the interface is gone"),
            Self::Attach(interface, source) => {
                write!(f, "{interface}: attaching XDP failed: {source}")
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Load(source) | Self::Map(_, source) => Some(source),
            Self::Attach(_, source) => Some(source),
            _ => None,
        }
    }
}

impl Error {
    fn attach(interface: &str, source: io::Error) -> Self {
        let name = interface.to_owned();
        match source.raw_os_error() {
            Some(libc::EBUSY | libc::EEXIST) => Self::SlotTaken(name),
            // ENOSPC: a veth whose peer could send to more queues than it has (veth_xdp_set).
            Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ERANGE | libc::ENOSPC) => {
                Self::NoNativeMode(name)
            }
            Some(libc::EPERM | libc::EACCES) => Self::NoPermission(name),
            Some(libc::ENODEV) => Self::Gone(name),
            _ => Self::Attach(name, source),
        }
    }
}

/// One loaded `steer`.
#[derive(Debug)]
pub struct Steer {
    program: OwnedFd,
    sockets: MapHandle,
    gates: MapHandle,
    counters: MapHandle,
    watched: MapHandle,
    state: MapHandle,
    routes: MapHandle,
    link: Option<OwnedFd>,
}

impl Steer {
    /// Loads the program; nothing is attached yet. `events` is the ring buffer of
    /// [`crate::events`] and its like.
    ///
    /// # Errors
    ///
    /// [`Error::Load`], [`Error::Map`].
    pub fn load(config: Config, events: BorrowedFd<'_>) -> Result<Self, Error> {
        let mut place = MaybeUninit::uninit();
        let mut open = SteerSkelBuilder::default()
            .open(&mut place)
            .map_err(Error::Load)?;
        if let Some(rodata) = open.maps.rodata_data.as_mut() {
            rodata.frame_bytes_max = config.frame_bytes_max;
            rodata.heartbeat_max_ns = config.heartbeat_max_ns;
            rodata.watch_ns = config.watch_ns;
            rodata.watch_budget = config.watch_budget;
            rodata.short_metadata = u8::from(config.short_metadata);
            rodata.has_fragments = u8::from(config.fragments);
            rodata.tick_ns = host_bytes::tick_ns();
        }
        if config.fragments {
            open.progs.steer.set_flags(libbpf_sys::BPF_F_XDP_HAS_FRAGS);
        }
        open.maps
            .events
            .reuse_fd(events)
            .map_err(|source| Error::Map("events", source))?;
        let skel = open.load().map_err(Error::Load)?;
        let program = skel.progs.steer.as_fd().try_clone_to_owned();
        Ok(Self {
            program: program.map_err(|source| Error::Load(source.into()))?,
            sockets: handle("xsks", &skel.maps.xsks)?,
            gates: handle("gates", &skel.maps.gates)?,
            counters: handle("counters", &skel.maps.data_counters)?,
            watched: handle("watched", &skel.maps.watched)?,
            state: handle("bss", &skel.maps.bss)?,
            routes: handle("routes", &skel.maps.data_routes)?,
            link: None,
        })
    }

    /// Makes it copy the next frames of connections that are older than the sensor (`src` is this
    /// host), until `until`. Before [`Steer::attach`].
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn watch_older(&self, older: &[FourTuple], until: Timestamp) -> Result<(), Error> {
        let offset = offset_of!(types::bss, watching_until_ns);
        watched::watch_older(&self.watched, &self.state, offset, older, until)
            .map_err(|source| Error::Map("watched", source))
    }

    /// Whether the host chooses next hops by a frame's hash, which a frame that was handed back has not: then
    /// those of no socket pass.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn set_routes_by_hash(&self, does: bool) -> Result<(), Error> {
        let value = u32::from(does).to_ne_bytes();
        self.routes
            .update(&0_u32.to_ne_bytes(), &value, MapFlags::ANY)
            .map_err(|source| Error::Map("routes", source))
    }

    /// Attaches it, native mode only. `interface` names it in errors.
    ///
    /// # Errors
    ///
    /// Any of [`Error`] but `Load` and `Map`.
    pub fn attach(&mut self, interface: &str, ifindex: u32) -> Result<(), Error> {
        let link = link::attach_xdp_native(self.program.as_fd(), ifindex).map_err(|source| {
            // The kernel says EINVAL for an index that is no more.
            if Path::new("/sys/class/net").join(interface).exists() {
                Error::attach(interface, source)
            } else {
                Error::Gone(interface.to_owned())
            }
        })?;
        self.link = Some(link);
        Ok(())
    }

    /// Takes over the link of another process's `steer`: from this instant each frame meets this
    /// program, and between the two is none that meets neither. `interface` names it in errors.
    ///
    /// # Errors
    ///
    /// As [`Steer::attach`].
    pub fn adopt(&mut self, interface: &str, link: OwnedFd) -> Result<(), Error> {
        link::replace_program(link.as_fd(), self.program.as_fd()).map_err(|source| {
            match source.raw_os_error() {
                // The link outlived its interface.
                Some(libc::ENOLINK) => Error::Gone(interface.to_owned()),
                _ => Error::attach(interface, source),
            }
        })?;
        self.link = Some(link);
        Ok(())
    }

    /// Puts this program back into its link, where another process has put its own.
    ///
    /// # Errors
    ///
    /// As [`Steer::attach`].
    pub fn reclaim(&self, interface: &str) -> Result<(), Error> {
        let Some(link) = &self.link else {
            return Ok(());
        };
        link::replace_program(link.as_fd(), self.program.as_fd())
            .map_err(|source| Error::attach(interface, source))
    }

    /// The link, to be given to another process; `None` while not attached.
    #[must_use]
    pub fn link_fd(&self) -> Option<BorrowedFd<'_>> {
        self.link.as_ref().map(AsFd::as_fd)
    }

    /// Whether somebody took the program off the interface from outside (`bpftool link detach`).
    #[must_use]
    pub fn is_cut_off(&self) -> bool {
        self.link
            .as_ref()
            .is_some_and(|link| matches!(link::xdp_ifindex(link.as_fd()), Ok(0)))
    }

    /// Takes it off again. Frames already redirected stay where they are.
    pub fn detach(&mut self) {
        self.link = None;
    }

    /// The kernel's id of the link, as `bpftool link` shows it; `None` while not attached.
    #[must_use]
    pub fn link_id(&self) -> Option<u32> {
        self.link
            .as_ref()
            .and_then(|link| link::link_id(link.as_fd()).ok())
    }

    /// From now on `queue`'s frames may go to that bound AF_XDP socket; its gate decides when.
    ///
    /// # Errors
    ///
    /// [`Error::Map`] when the queue is above [`QUEUES_MAX`] or the descriptor is no AF_XDP socket.
    pub fn insert_socket(&self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), Error> {
        let value = socket.as_raw_fd().to_ne_bytes();
        self.sockets
            .update(&queue.to_ne_bytes(), &value, MapFlags::ANY)
            .map_err(|source| Error::Map("xsks", source))
    }

    /// The array of `struct gate`, [`QUEUES_MAX`] long, to be mapped into memory.
    #[must_use]
    pub fn gate_fd(&self) -> BorrowedFd<'_> {
        self.gates.as_fd()
    }

    /// What became of the frames, summed over the queues, by `enum steer_counter`.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn counters(&self) -> Result<[u64; COUNTERS], Error> {
        self.counter_bytes().map(|bytes| sum(&bytes))
    }

    /// The same of each of the first `queues` queues.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn queue_counters(&self, queues: usize) -> Result<Vec<[u64; COUNTERS]>, Error> {
        let bytes = self.counter_bytes()?;
        let each = bytes.chunks_exact(QUEUE_COUNTERS_LEN).take(queues);
        Ok(each.map(sum).collect())
    }

    fn counter_bytes(&self) -> Result<Vec<u8>, Error> {
        self.counters
            .lookup(&0_u32.to_ne_bytes(), MapFlags::ANY)
            .map(Option::unwrap_or_default)
            .map_err(|source| Error::Map("counters", source))
    }
}

fn sum(bytes: &[u8]) -> [u64; COUNTERS] {
    let mut sums = [0_u64; COUNTERS];
    for queue in bytes.chunks_exact(QUEUE_COUNTERS_LEN) {
        for (sum, count) in sums.iter_mut().zip(queue.chunks_exact(8)) {
            let count = count
                .first_chunk()
                .map_or(0, |bytes| u64::from_ne_bytes(*bytes));
            *sum = sum.wrapping_add(count);
        }
    }
    sums
}

/// A descriptor of our own, since the skeleton's go with it. Made from the open one: to open a map by its
/// number takes CAP_SYS_ADMIN (`bpf_map_get_fd_by_id`), which a sensor does not have.
fn handle<T: std::fmt::Debug>(
    name: &'static str,
    map: &MapImpl<'_, T>,
) -> Result<MapHandle, Error> {
    MapHandle::try_from(map).map_err(|source| Error::Map(name, source))
}

#[cfg(test)]
#[allow(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that panics has failed, as it should"
)]
mod tests {
    use super::{COUNTERS, Error, QUEUE_COUNTERS_LEN, sum};

    #[test]
    fn counters_of_all_queues_are_summed() {
        let mut bytes = vec![0; QUEUE_COUNTERS_LEN * 2];
        bytes[8] = 3;
        bytes[QUEUE_COUNTERS_LEN + 8] = 4;
        bytes[QUEUE_COUNTERS_LEN - 8] = 9;
        let mut expected = [0; COUNTERS];
        expected[1] = 7;
        assert_eq!(sum(&bytes), expected);
    }

    #[test]
    fn errors_name_the_interface_and_the_remedy() {
        for (number, words) in [
            (libc::EBUSY, "another XDP program"),
            (libc::EEXIST, "another XDP program"),
            (libc::EOPNOTSUPP, "native XDP"),
            (libc::ENOSPC, "ethtool -L up0 rx N"),
            (libc::EPERM, "CAP_NET_ADMIN"),
            (libc::ENODEV, "gone"),
        ] {
            let error = Error::attach("up0", std::io::Error::from_raw_os_error(number));
            let text = error.to_string();
            assert!(text.contains("up0") && text.contains(words), "{text}");
        }
    }
}

//! The ring buffer that all BPF programs write to, and the programs that look at this host itself:
//! the tcp tracepoints, tc egress, tc ingress (mirror mode) and the hand-back counter. Answers
//! values of the core; judges nothing. What this kernel cannot tell is named in [`Events::missing`].

mod decode;
mod error;
mod reasons;
mod tc;

use std::fs;
use std::io;
use std::mem::{MaybeUninit, offset_of};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use libbpf_rs::btf::Btf;
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{
    Link, MapCore, MapFlags, MapHandle, MapType, ProgramMut, RingBuffer, RingBufferBuilder,
    libbpf_sys,
};

pub use decode::event as decode;
pub use error::Error;
pub use reasons::Reasons;

use crate::bpf::egress::EgressSkelBuilder;
use crate::bpf::handback::HandbackSkelBuilder;
use crate::bpf::mirror::{MirrorSkelBuilder, types};
use crate::bpf::sockets::SocketsSkelBuilder;
use crate::host::{KernelEvent, SocketView};
use crate::sys::watched;
use crate::time::Timestamp;
use crate::wire::FourTuple;
use tc::Attachment;

/// Where a copied frame was going.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameOrigin {
    /// It left this host.
    Egress {
        /// It had come in by another interface.
        forwarded: bool,
    },
    /// It came in while its queue's gate was closed; the host has it already.
    Bypassed,
    /// It came in on a flow that saw a reset a moment ago.
    AfterReset,
    /// It came in, in mirror mode.
    Mirrored,
    /// It came in on a connection that is older than the sensor.
    Older,
}

/// The head of a frame, copied by a BPF program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopiedFrame<'a> {
    /// When the program saw it, CLOCK_MONOTONIC.
    pub time: Timestamp,
    /// The interface.
    pub ifindex: u32,
    /// Where it was going.
    pub origin: FrameOrigin,
    /// The local socket, where a lookup was made.
    pub socket: Option<SocketView>,
    /// Its first bytes, Ethernet header included.
    pub frame: &'a [u8],
    /// Bytes of the whole frame.
    pub frame_len: u32,
}

/// One record of the ring buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// A copied frame.
    Frame(CopiedFrame<'a>),
    /// What a tracepoint said.
    Kernel(KernelEvent),
}

/// Counters of `enum host_counter` (bpf/shared.h), summed over the CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HostCounters {
    /// Control frames that left and were copied.
    pub egress_copied: u64,
    /// Those that found the ring buffer full.
    pub egress_lost: u64,
    /// Tracepoint events written.
    pub events: u64,
    /// Those that found the ring buffer full.
    pub events_lost: u64,
    /// Frames copied in mirror mode.
    pub mirrored: u64,
    /// Those that found the ring buffer full.
    pub mirror_lost: u64,
    /// Frames that the hand-back veth's peer gave to the interface.
    pub handed_back: u64,
    /// Orderly closings soon after a reset that were not told: more than the budget.
    pub closings_untold: u64,
}

const HOST_COUNTERS: u32 = 8;

/// What to load.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Inode of the network namespace whose sockets count; see [`own_netns`].
    pub netns_inum: u32,
    /// Bytes of the ring buffer; a power of two and a multiple of the page size.
    pub ring_bytes: u32,
    /// Mirror mode: how long frames are copied after a reset of their flow, in nanoseconds.
    pub watch_ns: u64,
    /// Mirror mode: how many of them, after each reset.
    pub watch_budget: u64,
}

impl Config {
    /// The defaults for that network namespace.
    #[must_use]
    pub const fn for_netns(netns_inum: u32) -> Self {
        Self {
            netns_inum,
            ring_bytes: 8 << 20,
            watch_ns: 3_000_000_000,
            watch_budget: 8,
        }
    }
}

/// Inode of this process's network namespace.
///
/// # Errors
///
/// When /proc is not mounted.
pub fn own_netns() -> io::Result<u32> {
    let inode = fs::metadata("/proc/self/ns/net")?.st_ino();
    u32::try_from(inode).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}

/// Records of one turn, copied out of the ring buffer so that it empties before they are judged.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// Records a turn takes at most; the rest waits for the next.
const BATCH_RECORDS: usize = 1024;

/// The ring buffer and what is attached.
#[derive(Debug)]
pub struct Events {
    ring: RingBuffer<'static>,
    batch: Arc<Mutex<Batch>>,
    map: MapHandle,
    counters: MapHandle,
    config: Config,
    reasons: Reasons,
    missing: Vec<String>,
    tells_answers: bool,
    egress: Option<OwnedFd>,
    mirror: Option<OwnedFd>,
    /// Tracepoints; detached when dropped.
    links: Vec<Link>,
    attachments: Vec<Attachment>,
    unknown_records: u64,
}

impl Events {
    /// Makes the ring buffer, loads and attaches the tracepoints. A tracepoint that this kernel
    /// does not have is named in [`Self::missing`].
    ///
    /// # Errors
    ///
    /// [`Error::Map`] when not even the ring buffer can be made.
    pub fn open(config: Config) -> Result<Self, Error> {
        let map = create_map("events", MapType::RingBuf, 0, 0, config.ring_bytes)?;
        let counters = create_map("host_counters", MapType::PercpuArray, 4, 8, HOST_COUNTERS)?;
        let batch = Arc::new(Mutex::new(Batch::default()));
        let filled = Arc::clone(&batch);
        let mut builder = RingBufferBuilder::new();
        builder
            .add(&map, move |record| {
                let mut batch = filled.lock().unwrap_or_else(PoisonError::into_inner);
                batch.bytes.extend_from_slice(record);
                let end = batch.bytes.len();
                batch.ends.push(end);
                if batch.ends.len() < BATCH_RECORDS {
                    0
                } else {
                    -libc::ECANCELED
                }
            })
            .map_err(Error::Poll)?;
        let ring = builder.build().map_err(Error::Poll)?;
        let mut events = Self {
            ring,
            batch,
            map,
            counters,
            config,
            reasons: Reasons::default(),
            missing: Vec::new(),
            tells_answers: false,
            egress: None,
            mirror: None,
            links: Vec::new(),
            attachments: Vec::new(),
            unknown_records: 0,
        };
        events.open_tracepoints();
        Ok(events)
    }

    /// The ring buffer, for `steer`.
    #[must_use]
    pub fn ring_fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }

    /// The map `host_counters`, for the programs that hand frames back.
    #[must_use]
    pub fn counters_fd(&self) -> BorrowedFd<'_> {
        self.counters.as_fd()
    }

    /// What this kernel cannot tell, one plain sentence each.
    #[must_use]
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// Whether this kernel also tells of the resets with which it answers segments of no connection:
    /// before 6.10, which gave the event its reason, it does not (`tcp_v4_send_reset`: the event was
    /// for full sockets only).
    #[must_use]
    pub const fn tells_answers(&self) -> bool {
        self.tells_answers
    }

    /// Records that this program did not understand; 0 unless it is at fault.
    #[must_use]
    pub const fn unknown_records(&self) -> u64 {
        self.unknown_records
    }

    /// Waits up to `timeout` for records and gives each to `take`; answers how many there were.
    ///
    /// # Errors
    ///
    /// [`Error::Poll`].
    pub fn poll(
        &mut self,
        timeout: Duration,
        take: &mut impl FnMut(Event<'_>),
    ) -> Result<usize, Error> {
        // The programs seldom wake their reader (bpf/copy.h): what is there is taken first, and
        // once more when the time is up.
        let mut answer = self.ring.consume_raw();
        if answer == 0 && !timeout.is_zero() {
            answer = self.ring.poll_raw(timeout);
            if answer == 0 {
                answer = self.ring.consume_raw();
            }
        }
        if answer < 0 && answer != -libc::ECANCELED && answer != -libc::EINTR {
            return Err(Error::Poll(libbpf_rs::Error::from_raw_os_error(-answer)));
        }
        let mut batch = self.batch.lock().unwrap_or_else(PoisonError::into_inner);
        let mut start = 0;
        for end in &batch.ends {
            let record = batch.bytes.get(start..*end).unwrap_or_default();
            match decode(record, &self.reasons) {
                Some(event) => take(event),
                None => self.unknown_records += 1,
            }
            start = *end;
        }
        let count = batch.ends.len();
        batch.bytes.clear();
        batch.ends.clear();
        Ok(count)
    }

    /// Counters of the programs on this host.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn host_counters(&self) -> Result<HostCounters, Error> {
        let read = |index: u32| -> Result<u64, Error> {
            let of_cpus = self
                .counters
                .lookup_percpu(&index.to_ne_bytes(), MapFlags::ANY)
                .map_err(|source| Error::Map("host_counters", source))?;
            let numbers = of_cpus.iter().flatten();
            Ok(numbers
                .filter_map(|bytes| crate::host_bytes::u64_at(bytes, 0))
                .sum())
        };
        Ok(HostCounters {
            egress_copied: read(0)?,
            egress_lost: read(1)?,
            events: read(2)?,
            events_lost: read(3)?,
            mirrored: read(4)?,
            mirror_lost: read(5)?,
            handed_back: read(6)?,
            closings_untold: read(7)?,
        })
    }

    /// Reports what leaves by that interface.
    ///
    /// # Errors
    ///
    /// [`Error::Load`], [`Error::Attach`].
    pub fn attach_egress(&mut self, interface: &str, ifindex: u32) -> Result<(), Error> {
        if self.egress.is_none() {
            let mut place = MaybeUninit::uninit();
            let load = |source| Error::Load("report_egress", source);
            let mut open = EgressSkelBuilder::default()
                .open(&mut place)
                .map_err(load)?;
            open.maps.events.reuse_fd(self.map.as_fd()).map_err(load)?;
            open.maps
                .host_counters
                .reuse_fd(self.counters.as_fd())
                .map_err(load)?;
            let skel = open.load().map_err(load)?;
            let program = skel.progs.report_egress.as_fd().try_clone_to_owned();
            self.egress = Some(program.map_err(|source| load(source.into()))?);
        }
        if let Some(program) = &self.egress {
            let attachment = Attachment::make(program.as_fd(), ifindex, true)
                .map_err(|source| Error::Attach(interface.to_owned(), source))?;
            self.attachments.push(attachment);
        }
        Ok(())
    }

    /// Mirror mode: reports what comes in by that interface, and consumes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Load`], [`Error::Attach`].
    pub fn attach_mirror(
        &mut self,
        interface: &str,
        ifindex: u32,
        older: &[FourTuple],
        until: Timestamp,
    ) -> Result<(), Error> {
        if self.mirror.is_none() {
            let mut place = MaybeUninit::uninit();
            let load = |source| Error::Load("report_ingress", source);
            let mut open = MirrorSkelBuilder::default()
                .open(&mut place)
                .map_err(load)?;
            if let Some(rodata) = open.maps.rodata_data.as_mut() {
                rodata.watch_ns = self.config.watch_ns;
                rodata.watch_budget = self.config.watch_budget;
                rodata.tick_ns = crate::host_bytes::tick_ns();
            }
            open.maps.events.reuse_fd(self.map.as_fd()).map_err(load)?;
            open.maps
                .host_counters
                .reuse_fd(self.counters.as_fd())
                .map_err(load)?;
            let skel = open.load().map_err(load)?;
            watched::watch_older(
                &skel.maps.watched,
                &skel.maps.bss,
                offset_of!(types::bss, watching_until_ns),
                older,
                until,
            )
            .map_err(load)?;
            let program = skel.progs.report_ingress.as_fd().try_clone_to_owned();
            self.mirror = Some(program.map_err(|source| load(source.into()))?);
        }
        if let Some(program) = &self.mirror {
            let attachment = Attachment::make(program.as_fd(), ifindex, false)
                .map_err(|source| Error::Attach(interface.to_owned(), source))?;
            self.attachments.push(attachment);
        }
        Ok(())
    }

    /// Loads the classifier for the hand-back veth's peer, which counts what it sees into
    /// [`HostCounters::handed_back`] and matches all. Who attaches it decides on the action.
    ///
    /// # Errors
    ///
    /// [`Error::Load`].
    pub fn load_handback(&self) -> Result<OwnedFd, Error> {
        let mut place = MaybeUninit::uninit();
        let load = |source| Error::Load("count_handback", source);
        let mut open = HandbackSkelBuilder::default()
            .open(&mut place)
            .map_err(load)?;
        open.maps
            .host_counters
            .reuse_fd(self.counters.as_fd())
            .map_err(load)?;
        let skel = open.load().map_err(load)?;
        let program = skel.progs.count_handback.as_fd().try_clone_to_owned();
        program.map_err(|source| load(source.into()))
    }

    fn open_tracepoints(&mut self) {
        let Ok(btf) = Btf::from_vmlinux() else {
            self.missing.push(
                "this kernel has no BTF (/sys/kernel/btf/vmlinux): which process sent a reset, \
                 and whether one was accepted, cannot be told"
                    .to_owned(),
            );
            return;
        };
        self.reasons = Reasons::of_kernel(&btf);
        let arguments = reasons::tracepoint_arguments(&btf, "tcp_send_reset");
        match arguments {
            Some(3..) => {}
            Some(_) => self.missing.push(
                "this kernel does not say why it sends a reset (Linux 6.10 and later do)"
                    .to_owned(),
            ),
            None => self
                .missing
                .push("this kernel does not report resets that it sends".to_owned()),
        }
        if let Err(source) = self.load_tracepoints(arguments) {
            self.missing.push(format!(
                "the kernel's own reports of resets and connections cannot be had: {source:#}"
            ));
        }
    }

    fn load_tracepoints(&mut self, send_reset_arguments: Option<usize>) -> libbpf_rs::Result<()> {
        let mut place = MaybeUninit::uninit();
        let mut open = SocketsSkelBuilder::default().open(&mut place)?;
        if let Some(rodata) = open.maps.rodata_data.as_mut() {
            rodata.netns_inum = self.config.netns_inum;
            rodata.task_stack_bytes = TASK_STACK_BYTES;
        }
        open.maps.events.reuse_fd(self.map.as_fd())?;
        open.maps.host_counters.reuse_fd(self.counters.as_fd())?;
        let (has_reason, has_tracepoint) = (
            matches!(send_reset_arguments, Some(3..)),
            send_reset_arguments.is_some(),
        );
        self.tells_answers = has_reason;
        open.progs.on_reset_sent.set_autoload(has_reason);
        open.progs
            .on_reset_sent_no_reason
            .set_autoload(has_tracepoint && !has_reason);
        let skel = open.load()?;
        let mut attach = |program: &ProgramMut<'_>, says: &str| match program.attach_trace() {
            Ok(link) => self.links.push(link),
            Err(source) => self.missing.push(format!("{says} cannot be had: {source}")),
        };
        if has_reason {
            attach(
                &skel.progs.on_reset_sent,
                "the kernel's report of resets that it sends",
            );
        } else if has_tracepoint {
            attach(
                &skel.progs.on_reset_sent_no_reason,
                "the kernel's report of resets that it sends",
            );
        }
        attach(
            &skel.progs.on_reset_accepted,
            "the kernel's report of resets that it accepts",
        );
        attach(
            &skel.progs.on_state_change,
            "the kernel's report of new connections",
        );
        attach(&skel.progs.on_destroyed, "the owners of reset connections");
        Ok(())
    }
}

/// Size of a task's kernel stack (`THREAD_SIZE`), where softirqs have a stack of their own; see
/// `is_process` in bpf/packet.h. Elsewhere 0: no owner is told rather than a wrong one.
const TASK_STACK_BYTES: u32 = if cfg!(target_arch = "x86_64") {
    16 << 10
} else {
    0
};

fn create_map(
    name: &'static str,
    kind: MapType,
    key_len: u32,
    value_len: u32,
    entries: u32,
) -> Result<MapHandle, Error> {
    let options = libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
        ..Default::default()
    };
    MapHandle::create(kind, Some(name), key_len, value_len, entries, &options)
        .map_err(|source| Error::Map(name, source))
}

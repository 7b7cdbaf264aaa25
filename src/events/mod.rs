//! The ring buffer that all BPF programs write to, and the programs that look at this host itself:
//! the tcp tracepoints, tc egress, tc ingress (mirror mode) and the hand-back counter. Answers
//! values of the core; judges nothing. What this kernel cannot tell is named in [`Events::missing`].

mod decode;
mod error;
mod programs;
mod reasons;
mod tc;

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use libbpf_rs::{
    Link, MapCore, MapFlags, MapHandle, MapType, RingBuffer, RingBufferBuilder, libbpf_sys,
};

pub use decode::event as decode;
pub use error::Error;
pub use reasons::Reasons;

use crate::host::{KernelEvent, KernelTells, SocketView};
use crate::sys::link::runs_missed;
use crate::time::Timestamp;
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
    /// Those without RST that found the ring buffer full.
    pub egress_lost: u64,
    /// Those with RST.
    pub egress_reset_lost: u64,
    /// Tracepoint events written.
    pub events: u64,
    /// Those that found the ring buffer full.
    pub events_lost: u64,
    /// Frames copied in mirror mode.
    pub mirrored: u64,
    /// Those without RST that found the ring buffer full.
    pub mirror_lost: u64,
    /// Those with RST.
    pub mirror_reset_lost: u64,
    /// Frames that the hand-back veth's peer gave to the interface.
    pub handed_back: u64,
    /// Orderly closings soon after a reset that were not told: more than the budget.
    pub closings_untold: u64,
    /// Resets sent and accepted that were not told, because one was being told on that CPU.
    pub events_missed: u64,
    /// Records that this program did not understand; 0 unless it is at fault.
    pub unknown: u64,
    /// Packets that left, or that mirror mode looked at, and were not followed to a TCP header.
    pub unread: Unread,
}

/// Why a packet was not followed to a TCP header, as for `steer`'s counters of the same names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unread {
    /// A fragment.
    pub fragment: u64,
    /// It ends within its headers.
    pub truncated: u64,
    /// Its lengths contradict each other.
    pub malformed: u64,
    /// More tags or extension headers than are followed.
    pub too_deep: u64,
}

impl HostCounters {
    /// Events and copies that should have reached us and did not.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        let copies = self.egress_lost + self.mirror_lost + self.resets_lost();
        self.events_lost + self.events_missed + copies + self.unknown
    }

    /// Copies of mirror mode among them.
    #[must_use]
    pub const fn mirror_copies_lost(&self) -> u64 {
        self.mirror_lost + self.mirror_reset_lost
    }

    /// Copies of resets among them: each may be a record that is not there.
    #[must_use]
    pub const fn resets_lost(&self) -> u64 {
        self.egress_reset_lost + self.mirror_reset_lost
    }
}

const HOST_COUNTERS: u32 = 14;

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
    /// Attach by filters of clsact, as on kernels before 6.6, even where the kernel has tcx.
    pub by_filter: bool,
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
            by_filter: false,
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
    tells: KernelTells,
    egress: Option<OwnedFd>,
    mirror: Option<OwnedFd>,
    /// Tracepoints; detached when dropped.
    links: Vec<Link>,
    /// The programs that tell of resets.
    tracers: Vec<OwnedFd>,
    /// By interface.
    attachments: Vec<(u32, Attachment)>,
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
        let counters = create_map(
            "host_counters",
            MapType::PercpuArray,
            4,
            HOST_COUNTERS * 8,
            1,
        )?;
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
            tells: KernelTells::default(),
            egress: None,
            mirror: None,
            links: Vec::new(),
            tracers: Vec::new(),
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

    /// What this kernel tells of resets, as far as the programs that hear it are attached.
    #[must_use]
    pub const fn tells(&self) -> KernelTells {
        self.tells
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

    fn runs_missed(&self) -> Result<u64, Error> {
        let of_each = self
            .tracers
            .iter()
            .map(|program| runs_missed(program.as_fd()));
        let sum: io::Result<u64> = of_each.sum();
        sum.map_err(Error::Info)
    }

    /// Counters of the programs on this host.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn host_counters(&self) -> Result<HostCounters, Error> {
        let of_cpus = self
            .counters
            .lookup_percpu(&0_u32.to_ne_bytes(), MapFlags::ANY)
            .map_err(|source| Error::Map("host_counters", source))?;
        let sum = |index: usize| -> u64 {
            let of_cpus = of_cpus.iter().flatten();
            of_cpus
                .filter_map(|counts| crate::host_bytes::u64_at(counts, index * 8))
                .sum()
        };
        Ok(HostCounters {
            egress_copied: sum(0),
            egress_lost: sum(1),
            events: sum(2),
            events_lost: sum(3),
            mirrored: sum(4),
            mirror_lost: sum(5),
            handed_back: sum(6),
            closings_untold: sum(7),
            events_missed: self.runs_missed()?,
            unknown: self.unknown_records,
            egress_reset_lost: sum(12),
            mirror_reset_lost: sum(13),
            unread: Unread {
                fragment: sum(8),
                truncated: sum(9),
                malformed: sum(10),
                too_deep: sum(11),
            },
        })
    }

    /// That interface is gone from this network namespace: what it carries elsewhere, and under an index that
    /// may be another interface's here, is no business of ours.
    pub fn let_go(&mut self, ifindex: u32) {
        let attachments = self.attachments.iter_mut();
        for (_, attachment) in attachments.filter(|(at, _)| *at == ifindex) {
            attachment.let_go();
        }
    }

    /// Interfaces of which some tc program of ours was taken off by somebody else.
    pub fn cut_off(&self) -> impl Iterator<Item = u32> {
        let cut_off = self.attachments.iter().filter(|(_, at)| at.is_cut_off());
        cut_off.map(|(ifindex, _)| *ifindex)
    }
}

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

#[cfg(test)]
mod tests {
    use super::{HostCounters, Unread};

    #[test]
    fn whatever_did_not_reach_us_is_lost() {
        let lost = HostCounters {
            egress_lost: 1,
            events_lost: 2,
            mirror_lost: 4,
            events_missed: 8,
            unknown: 16,
            egress_reset_lost: 32,
            mirror_reset_lost: 64,
            ..HostCounters::default()
        };
        assert_eq!((lost.lost(), lost.resets_lost()), (127, 96));
        assert_eq!(lost.mirror_copies_lost(), 4 + 64);
        let told = HostCounters {
            egress_copied: 1,
            events: 2,
            mirrored: 4,
            handed_back: 8,
            closings_untold: 16,
            unread: Unread {
                malformed: 32,
                ..Unread::default()
            },
            ..HostCounters::default()
        };
        assert_eq!(told.lost(), 0);
    }
}

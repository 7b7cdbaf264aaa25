//! The post at one interface: the program that steers, the workers, and the way back. It is set up
//! so that at no step a frame can be taken that nobody would hand back, and taken down in the
//! opposite order.

use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam::queue::ArrayQueue;

use super::coverage::Totals;
use super::error::Error;
use super::lock::InterfaceLock;
use crate::config::RunConfig;
use crate::events::Events;
use crate::flow::{Sighting, Tracker, TrackerConfig};
use crate::handback::Pair;
use crate::nic::Interface;
use crate::sys::{Gates, UmemLayout};
use crate::time::Timestamp;
use crate::vantage::InterfaceId;
use crate::wire::FourTuple;
use crate::worker::{Finished, Health, Port, PortConfig, Shared, Worker, WorkerConfig};
use crate::xdp::{self, Steer};

/// Sightings that may wait for the engine, a worker: at a million resets a second, 4 ms.
const SIGHTINGS_WAITING: usize = 4096;

/// How late a worker's heartbeat may be before its queue is bypassed. A busy host deschedules a
/// thread for some milliseconds; a SYN that waits longer would be felt.
const HEARTBEAT_MAX_NS: u64 = 20_000_000;

/// Counters of `steer` by meaning, as [`xdp::COUNTER_NAMES`] names them.
const NOT_OURS: [&str; 7] = [
    "passed",
    "not_ip",
    "not_tcp",
    "fragment",
    "truncated",
    "malformed",
    "too_deep",
];
pub(super) const BYPASSED: [&str; 7] = [
    "too_long",
    "no_metadata",
    "bypass_credit",
    "bypass_heartbeat",
    "bypass_draining",
    "bypass_closed",
    "no_socket",
];

/// Connections that exist when the sensor starts.
pub(super) struct Older {
    /// `src` is this host.
    pub(super) connections: Vec<FourTuple>,
    /// Until when their next frames are copied.
    pub(super) until: Timestamp,
}

/// One queue's worker, running.
struct Running {
    shared: Arc<Shared>,
    thread: JoinHandle<Finished>,
}

/// What remains of a post after it was taken down.
#[derive(Debug, Default)]
pub(super) struct Closed {
    pub(super) steer: Option<[u64; xdp::COUNTERS]>,
    pub(super) workers: Vec<Finished>,
    pub(super) warnings: Vec<String>,
}

/// One watched interface.
pub(super) struct Post {
    pub(super) id: InterfaceId,
    pub(super) name: String,
    pub(super) ifindex: u32,
    /// Inline only.
    inline: Option<Inline>,
    pub(super) is_gone: bool,
    _lock: InterfaceLock,
}

struct Inline {
    steer: Steer,
    pair: Option<Pair>,
    workers: Vec<Running>,
    sightings: Vec<Arc<ArrayQueue<Sighting>>>,
}

impl Post {
    /// Takes up the post for mirror mode: nothing but the tc programs.
    pub(super) fn mirror(
        id: InterfaceId,
        interface: &Interface,
        older: &Older,
        events: &mut Events,
        lock: InterfaceLock,
    ) -> Result<Self, Error> {
        let (name, ifindex) = (interface.name().to_owned(), interface.ifindex());
        events
            .attach_mirror(&name, ifindex, &older.connections, older.until)
            .map_err(Error::Events)?;
        events
            .attach_egress(&name, ifindex)
            .map_err(Error::Events)?;
        Ok(Self {
            id,
            name,
            ifindex,
            inline: None,
            is_gone: false,
            _lock: lock,
        })
    }

    /// Takes up the post inline: the way back first, then memory and sockets, then the workers, then
    /// egress, and `steer` last of all.
    pub(super) fn inline(
        id: InterfaceId,
        interface: &Interface,
        config: &RunConfig,
        hash_key: [u64; 2],
        older: &Older,
        events: &mut Events,
        lock: InterfaceLock,
    ) -> Result<Self, Error> {
        let (name, ifindex) = (interface.name().to_owned(), interface.ifindex());
        let queues = queues(interface, config);
        let layout = UmemLayout::default();
        let settings = xdp::Config {
            frame_bytes_max: layout.longest_frame(),
            heartbeat_max_ns: HEARTBEAT_MAX_NS,
            ..xdp::Config::default()
        };
        let mut steer = Steer::load(settings, events.ring_fd()).map_err(Error::Xdp)?;
        let classifier = events.load_handback().map_err(Error::Events)?;
        let pair = Pair::create(
            &interface.link,
            queues,
            std::os::fd::AsFd::as_fd(&classifier),
        )
        .map_err(Error::Handback)?;
        let gates = Gates::map(steer.gate_fd(), queues).map_err(Error::Sys)?;
        let mut inline = Inline {
            steer: {
                // Attached below, when everybody is in place.
                steer.detach();
                steer
            },
            pair: Some(pair),
            workers: Vec::new(),
            sightings: Vec::new(),
        };
        for queue in 0..queues {
            let tracker = Tracker::new(TrackerConfig {
                capacity: config.flow_capacity,
                key: hash_key,
            });
            inline.start_worker(id, &name, queue, layout, &gates, tracker)?;
        }
        events
            .attach_egress(&name, ifindex)
            .map_err(Error::Events)?;
        inline
            .steer
            .watch_older(&older.connections, older.until)
            .map_err(Error::Xdp)?;
        inline.steer.attach(&name, ifindex).map_err(Error::Xdp)?;
        Ok(Self {
            id,
            name,
            ifindex,
            inline: Some(inline),
            is_gone: false,
            _lock: lock,
        })
    }

    /// The queues in which the workers leave what they saw.
    pub(super) fn sightings(&self) -> Vec<Arc<ArrayQueue<Sighting>>> {
        self.inline
            .as_ref()
            .map(|inline| inline.sightings.clone())
            .unwrap_or_default()
    }

    /// How the workers are.
    pub(super) fn health(&self) -> Vec<Health> {
        let workers = self.inline.as_ref().map(|inline| inline.workers.as_slice());
        workers
            .unwrap_or_default()
            .iter()
            .map(|worker| worker.shared.health())
            .collect()
    }

    /// Follows a change of the interface's MAC, without which handed-back frames would be taken for
    /// somebody else's.
    pub(super) fn follow_mac(&mut self, mac: crate::wire::Mac) -> Result<(), Error> {
        match self.inline.as_mut().and_then(|inline| inline.pair.as_mut()) {
            Some(pair) => pair.follow_mac(mac).map_err(Error::Handback),
            None => Ok(()),
        }
    }

    /// Running totals for the coverage record; `None` when they cannot be read now.
    pub(super) fn totals(&self) -> Option<Totals> {
        let Some(inline) = &self.inline else {
            return Some(Totals::default());
        };
        let steer = inline.steer.counters().ok()?;
        let sum = |names: &[&str]| names.iter().map(|name| counter(&steer, name)).sum::<u64>();
        let mut totals = Totals {
            observed: 0,
            passed: Some(sum(&NOT_OURS)),
            bypassed: sum(&BYPASSED),
            copied: counter(&steer, "copied"),
            lost: counter(&steer, "copy_lost"),
        };
        for worker in &inline.workers {
            let counters = worker.shared.counters();
            totals.observed += counters.received;
            totals.lost += counters.sightings_lost + counters.lost();
        }
        Some(totals)
    }

    /// Leaves the post. Workers first: each closes its gate, from when on the kernel passes frames,
    /// and hands back what it holds; then `steer` is detached and the pair removed.
    pub(super) fn close(mut self) -> Closed {
        let Some(mut inline) = self.inline.take() else {
            return Closed::default();
        };
        let workers = inline.stop_workers();
        let steer = inline.steer.counters().ok();
        inline.steer.detach();
        let mut warnings = Vec::new();
        if let Some(pair) = inline.pair.take()
            && let Err(error) = pair.remove()
        {
            warnings.push(format!("{}: {error}", self.name));
        }
        Closed {
            steer,
            workers,
            warnings,
        }
    }
}

impl Inline {
    fn start_worker(
        &mut self,
        id: InterfaceId,
        name: &str,
        queue: u32,
        umem: UmemLayout,
        gates: &Gates,
        tracker: Tracker,
    ) -> Result<(), Error> {
        let Some(pair) = &self.pair else {
            return Ok(());
        };
        let port = Port::open(&PortConfig {
            interface: name.to_owned(),
            queue,
            handback: pair.names().transmit.clone(),
            handback_queue: queue,
            umem,
        })
        .map_err(Error::Sys)?;
        self.steer
            .insert_socket(queue, std::os::fd::AsFd::as_fd(&port))
            .map_err(Error::Xdp)?;
        let gate = gates.take(queue).ok_or_else(|| {
            let taken = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
            Error::System("take the gate of a queue", taken)
        })?;
        let sightings = Arc::new(ArrayQueue::new(SIGHTINGS_WAITING));
        let shared = Arc::new(Shared::new());
        let config = WorkerConfig {
            cpu: cpu_of(queue),
            ..WorkerConfig::new(id)
        };
        let worker = Worker::new(
            config,
            port,
            gate,
            tracker,
            Arc::clone(&sightings),
            Arc::clone(&shared),
        );
        let thread = worker
            .spawn(&format!("rst-{name}-{queue}"))
            .map_err(Error::Sys)?;
        self.workers.push(Running { shared, thread });
        self.sightings.push(sightings);
        Ok(())
    }

    fn stop_workers(&mut self) -> Vec<Finished> {
        for worker in &self.workers {
            worker.shared.stop();
        }
        // A panicked worker has aborted the process; in a debug build its numbers are missing.
        self.workers
            .drain(..)
            .filter_map(|worker| worker.thread.join().ok())
            .collect()
    }
}

/// A set-up that failed half-way must not leave threads with open gates behind.
impl Drop for Inline {
    fn drop(&mut self) {
        self.steer.detach();
        self.stop_workers();
    }
}

fn counter(steer: &[u64; xdp::COUNTERS], name: &str) -> u64 {
    xdp::COUNTER_NAMES
        .iter()
        .position(|known| *known == name)
        .and_then(|at| steer.get(at))
        .copied()
        .unwrap_or_default()
}

/// Receive queues to serve: all, or as many as were asked for. Frames of the others pass in the
/// kernel and are copied.
fn queues(interface: &Interface, config: &RunConfig) -> u32 {
    let limit = config.queue_limit.map_or(u32::MAX, u32::from);
    interface
        .rx_queue_count
        .clamp(1, xdp::QUEUES_MAX)
        .min(limit.max(1))
}

/// One CPU a queue, round the CPUs that this process may use. Interrupts of queue N are usually
/// served by the Nth of them.
fn cpu_of(queue: u32) -> Option<u32> {
    let allowed = rustix::thread::sched_getaffinity(None).ok()?;
    let cpus: Vec<u32> = (0..u32::try_from(rustix::thread::CpuSet::MAX_CPU).ok()?)
        .filter(|cpu| usize::try_from(*cpu).is_ok_and(|cpu| allowed.is_set(cpu)))
        .collect();
    cpus.get(usize::try_from(queue).ok()? % cpus.len().max(1))
        .copied()
}

//! What a post has inline: the program that steers, the way back, and a worker for each queue. It starts
//! and stops the workers, and reads what they and the program count; in which order all of that is set up
//! and taken down is the post's to say.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam::queue::ArrayQueue;

use super::Start;
use super::counted::{copies_lost, totals};
use crate::control::coverage::Totals;
use crate::control::error::Error;
use crate::control::ledger::Ledger;
use crate::flow::{Sighting, Tracker, TrackerConfig};
use crate::handback::{Live, Pair};
use crate::privilege::Jail;
use crate::sys::{Bell, Gates, UmemLayout};
use crate::vantage::InterfaceId;
use crate::worker::{Finished, Port, PortConfig, Shared, Worker, WorkerConfig};
use crate::xdp::Steer;

/// Sightings that may wait for the engine, a worker: what comes in while its thread rests (10 ms)
/// at 800,000 resets a second, more than one worker can look at.
const SIGHTINGS_WAITING: usize = 8192;

/// Times that a running ledger is read before it is left for the next time: an undisturbed reading takes
/// microseconds, in which fewer frames come than there is credit.
const LEDGER_TRIES: u32 = 4;

/// One queue's worker, running.
pub(super) struct Running {
    pub(super) shared: Arc<Shared>,
    thread: JoinHandle<Finished>,
}

/// Where one worker sits.
pub(super) struct Seat<'a> {
    pub(super) id: InterfaceId,
    pub(super) name: &'a str,
    pub(super) queue: u32,
    pub(super) jail: &'a Jail,
    pub(super) bell: &'a Arc<Bell>,
}

/// Program, way back and workers of one interface.
pub(super) struct Inline {
    pub(super) steer: Steer,
    pub(super) pair: Option<Pair>,
    /// The way back for bursts, where the kernel has it.
    pub(super) live: Option<Live>,
    pub(super) workers: Vec<Running>,
    /// Workers that have ended, while the post is still there.
    pub(super) finished: Vec<Finished>,
    pub(super) sightings: Vec<Arc<ArrayQueue<Sighting>>>,
}

impl Inline {
    /// Without workers yet.
    pub(super) const fn new(steer: Steer, pair: Pair, live: Option<Live>) -> Self {
        Self {
            steer,
            pair: Some(pair),
            live,
            workers: Vec::new(),
            finished: Vec::new(),
            sightings: Vec::new(),
        }
    }

    /// Opens a queue's socket and its way back, and starts its worker, which is in nobody's path until
    /// it opens its gate.
    pub(super) fn start_worker(
        &mut self,
        seat: &Seat<'_>,
        umem: UmemLayout,
        gates: &Gates,
        tracker: Tracker,
    ) -> Result<(), Error> {
        let Some(pair) = &self.pair else {
            return Ok(());
        };
        let (name, queue) = (seat.name, seat.queue);
        let port = Port::open(&PortConfig {
            interface: name.to_owned(),
            queue,
            handback: pair.names().transmit.clone(),
            handback_queue: queue,
            umem,
        })
        .map_err(Error::Sys)?
        .with_burst(self.live.as_ref().and_then(|live| live.take(queue)));
        self.steer
            .insert_socket(queue, port.as_fd())
            .map_err(Error::Xdp)?;
        let gate = gates.take(queue).ok_or_else(|| {
            let taken = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
            Error::System("take the gate of a queue", taken)
        })?;
        let sightings = Arc::new(ArrayQueue::new(SIGHTINGS_WAITING));
        let shared = Arc::new(Shared::with_bell(Arc::clone(seat.bell)));
        let config = WorkerConfig {
            cpu: cpu_of(queue),
            ..WorkerConfig::new(seat.id)
        };
        let worker = Worker::new(
            config,
            port,
            gate,
            tracker,
            Arc::clone(&sightings),
            Arc::clone(&shared),
        );
        // It holds open rings and needs no privilege.
        let thread = seat
            .jail
            .within_after(crate::worker::hurry, || {
                worker.spawn(&format!("rst-{name}-{queue}"))
            })
            .map_err(Error::Privilege)?
            .map_err(Error::Sys)?;
        self.workers.push(Running { shared, thread });
        self.sightings.push(sightings);
        Ok(())
    }

    /// Running totals; `None` when the program's counters cannot be read now.
    pub(super) fn totals(&self) -> Option<Totals> {
        let steer = self.steer.counters().ok()?;
        let running = self.workers.iter().map(|worker| worker.shared.counters());
        let finished = self.finished.iter().map(|worker| worker.counters);
        Some(totals(&steer, running.chain(finished)))
    }

    /// Headers that should have been copied and were not; `None` when it cannot be told now.
    pub(super) fn copies_lost(&self) -> Option<u64> {
        Some(copies_lost(&self.steer.counters().ok()?))
    }

    /// The ledger so far, where a worker may have `credit` frames under way; `None` when it cannot be
    /// told now.
    pub(super) fn ledger(&self, credit: u32) -> Option<Ledger> {
        let read = || {
            let mut ledger = Ledger::default();
            self.finished.iter().for_each(|worker| ledger.add(worker));
            for worker in &self.workers {
                ledger.add_running(&worker.shared.counters(), credit);
            }
            ledger
        };
        // This thread may be kept waiting between two readings, in which frames go on.
        for _ in 0..LEDGER_TRIES {
            let mut ledger = read();
            let steer = self.steer.counters().ok()?;
            if read().received() - ledger.received() <= u64::from(credit) {
                ledger.set_steered(&steer);
                return Some(ledger);
            }
        }
        None
    }

    /// Every worker closes its gate and hands back what it holds.
    pub(super) fn stop_workers(&mut self) -> Vec<Finished> {
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

/// A flow table for each queue, in large pages where the system has them; made before anything is
/// attached, since it takes a while.
pub(super) fn trackers(queues: u32, start: &Start<'_>) -> Vec<Tracker> {
    let config = TrackerConfig {
        capacity: start.config.flow_capacity,
        key: start.hash_key,
    };
    (0..queues)
        .map(|_| {
            let tracker = Tracker::new(config);
            for flows in tracker.memory() {
                crate::sys::advise_huge_pages(flows);
            }
            tracker
        })
        .collect()
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

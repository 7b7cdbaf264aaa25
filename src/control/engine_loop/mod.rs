//! The engine's thread: sightings from the workers, copies and events from the ring buffer, time;
//! records out. It never waits for a reader: a record that finds the writer's queue full is counted
//! and dropped.

mod outlet;
mod pace;
mod shared;
mod sightings;
mod telling;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crossbeam::channel::Receiver;
use crossbeam::queue::ArrayQueue;

pub(in crate::control) use outlet::{NO_CAUSE, Outlet};
pub(in crate::control) use pace::Pace;
pub(in crate::control) use shared::{Causes, EngineNumbers, EngineShared};

use crate::control::clock;
use crate::engine::{Device, Engine, EngineCounters};
use crate::events::{CopiedFrame, Event, Events, FrameOrigin, HostCounters};
use crate::flow::{Sighting, TableCounters};
use crate::record::{CoverageRecord, Record};
use crate::sink::Output;
use crate::sys::Bell;
use crate::time::{MILLISECOND, Timestamp};
use crate::vantage::{InterfaceId, Path, Vantage};
use crate::wire::{LinkLayer, Segment, parse};
use crate::worker;
use sightings::{SIGHTINGS_A_TURN, take_waiting};
use telling::{tell, tell_of_reset};

/// How long the thread sleeps when the ring buffer is quiet. Sightings wait as long at most; a
/// record settles for a second, so that nobody notices. Half of what a frame's events may
/// come later (`pace`).
const REST: Duration = Duration::from_millis(10);

/// How long it sleeps when nothing was heard for [`QUIET_NS`] and nothing is open: a tenth of the time
/// that a record settles, and as often as losses are counted ([`COUNT_LOSSES_NS`]). A sighting ends it at
/// once (`Bell`), and so does a ring buffer that fills (bpf/events.h).
const QUIET_REST: Duration = Duration::from_millis(100);

/// How long nothing was heard until it is quiet: a proxy's last words of a connection are milliseconds apart.
const QUIET_NS: u64 = 200 * MILLISECOND;

/// How often the kernel is asked what it lost: some system calls each time, and well within the
/// settle time of whatever the loss concerns.
const COUNT_LOSSES_NS: u64 = 100 * MILLISECOND;

/// Turns at the end, at most: the ring buffer's 8 MiB hold 28,000 records, taken 1024 a turn, and
/// nothing comes in any more but what leaves this host.
const LAST_TURNS_MAX: usize = 64;

/// How often the ring buffer is read before sightings that wait, until it is empty: 8,192 records and
/// some 30 ms at the most, so that under a flood the sightings do not wait until they find no room.
const HEARD_FIRST_TURNS_MAX: usize = 8;

/// What the control thread tells this one to change.
pub(in crate::control) enum Order {
    /// The user's own devices.
    Devices(Vec<Device>),
    /// This host's addresses.
    Addresses(HashSet<IpAddr>),
    /// The outputs from now on; those before are let go of.
    Output(Output),
    /// SYN, FIN or RST went past an interface unseen.
    Unseen,
    /// An interface is gone, by the kernel's index.
    Gone(u32),
    /// An interface has another name.
    Renamed(InterfaceId, String),
}

/// What the thread owns.
pub(in crate::control) struct EngineLoop {
    pub(in crate::control) engine: Engine,
    pub(in crate::control) events: Events,
    pub(in crate::control) sightings: Vec<Arc<ArrayQueue<Sighting>>>,
    /// Who is told of established connections, and of resets that went past.
    pub(in crate::control) workers: Vec<Arc<worker::Shared>>,
    /// Interfaces by the kernel's index.
    pub(in crate::control) interfaces: HashMap<u32, InterfaceId>,
    pub(in crate::control) coverage: Receiver<CoverageRecord>,
    pub(in crate::control) orders: Receiver<Order>,
    pub(in crate::control) out: Outlet,
    pub(in crate::control) shared: Arc<EngineShared>,
    /// When the kernel's count of losses was last read.
    pub(in crate::control) losses_counted: Timestamp,
    /// Copies that mirror mode had lost by then.
    pub(in crate::control) mirror_lost: u64,
    /// When something was heard last.
    pub(in crate::control) heard: Timestamp,
    /// By which it judges.
    pub(in crate::control) pace: Pace,
    /// Where the workers wake it.
    pub(in crate::control) bell: Arc<Bell>,
}

/// The thread's end: everything is judged, and only the last coverage is still to be told, which
/// counts what was lost until now.
pub(in crate::control) struct Ended {
    engine: Engine,
    events: Events,
    out: Outlet,
}

impl Ended {
    /// Sends the last coverage record of an interface.
    pub(in crate::control) fn report(&mut self, mut coverage: CoverageRecord) {
        coverage.sequence = self.engine.next_sequence();
        self.out.pass(Record::Coverage(Box::new(coverage)));
    }

    /// Lets go of the outputs, and of the programs that report what the host does.
    pub(in crate::control) fn finish(self) -> (EngineFinished, HostCounters) {
        let finished = EngineFinished {
            counters: self.engine.counters(),
            table: self.engine.table_counters(),
            unread: self.out.shared.unread.load(Ordering::Relaxed),
        };
        (finished, self.events.host_counters().unwrap_or_default())
    }
}

/// What the thread leaves behind.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::control) struct EngineFinished {
    pub(in crate::control) counters: EngineCounters,
    pub(in crate::control) table: TableCounters,
    /// Copies that told nothing.
    pub(in crate::control) unread: u64,
}

impl EngineLoop {
    /// Runs until told to stop; then everything that is open is judged and sent out.
    pub(in crate::control) fn run(mut self) -> Ended {
        let (mut losses_seen, mut rest) = (0, REST);
        while !self.shared.stop.load(Ordering::Acquire) {
            (losses_seen, rest) = self.turn(rest, losses_seen);
        }
        self.take_orders();
        // What the workers and the kernel still had for us when they stopped.
        for _ in 0..LAST_TURNS_MAX {
            if self.take_events(Duration::ZERO) + self.take_sightings() == 0 {
                break;
            }
        }
        self.count_losses();
        if self.shared.lost.load(Ordering::Relaxed) != losses_seen {
            self.engine.note_loss();
        }
        let out = &mut self.out;
        self.engine.finish(&mut |record| out.send(record));
        self.report_coverage();
        Ended {
            engine: self.engine,
            events: self.events,
            out: self.out,
        }
    }

    /// Answers the losses that are known now, and how long to rest before the next turn.
    fn turn(&mut self, rest: Duration, losses_seen: u64) -> (u64, Duration) {
        let heard = self.hear(rest);
        let taken = self.take_sightings();
        self.take_orders();
        self.shared.turns.fetch_add(1, Ordering::Relaxed);
        let now = clock::monotonic();
        if heard + taken > 0 {
            self.heard = now;
        }
        if now.since(self.losses_counted) >= COUNT_LOSSES_NS {
            self.losses_counted = now;
            self.count_losses();
            // The frames' clock never jumps; the time of day, in which records are written, may.
            let used = self.out.emission.wall_offset_ns;
            self.out.emission.wall_offset_ns =
                clock::follow_wall(used, clock::wall_offset_ns(clock::monotonic()));
        }
        let lost = self.shared.lost.load(Ordering::Relaxed);
        if lost != losses_seen {
            self.engine.note_loss();
        }
        let settled = self.pace.settled(now);
        let out = &mut self.out;
        self.engine.tick(settled, &mut |record| out.send(record));
        self.report_coverage();
        (lost, self.rest_after(taken, now))
    }

    fn rest_after(&self, taken: usize, now: Timestamp) -> Duration {
        if taken >= SIGHTINGS_A_TURN {
            Duration::ZERO
        } else if now.since(self.heard) >= QUIET_NS && self.engine.counters().open == 0 {
            QUIET_REST
        } else {
            REST
        }
    }

    /// Takes what there is, or sleeps and takes what has come; answers how much.
    fn hear(&mut self, rest: Duration) -> usize {
        if rest <= REST {
            return self.take_events(rest);
        }
        let sightings = &self.sightings;
        let has_work = || {
            let is_asked = self.shared.stop.load(Ordering::Acquire);
            is_asked || sightings.iter().any(|queue| !queue.is_empty())
        };
        // Returns at once where records wait.
        self.bell.sleep(self.events.ring_fd(), rest, has_work);
        self.take_events(Duration::ZERO)
    }

    /// Events of the host that found the ring buffer full, and programs that somebody took off.
    fn count_losses(&mut self) {
        self.note_cut_off();
        let host = self.events.host_counters();
        if let Ok(host) = &host {
            self.shared.lost.store(host.lost(), Ordering::Relaxed);
            let mirror_lost = host.mirror_copies_lost();
            if mirror_lost != std::mem::replace(&mut self.mirror_lost, mirror_lost) {
                self.engine.note_unseen(clock::monotonic());
            }
        }
        self.show_numbers(host.unwrap_or_default());
        let unjudged = self.engine.counters().episodes_refused;
        self.shared.unjudged.store(unjudged, Ordering::Relaxed);
    }

    /// Without such a program, that something was not seen proves nothing any more.
    fn note_cut_off(&mut self) {
        let mut any = false;
        for ifindex in self.events.cut_off() {
            any = true;
            let id = self.interfaces.get(&ifindex).map(|id| usize::from(id.0));
            if let Some(cut_off) = id.and_then(|id| self.shared.cut_off.get(id)) {
                cut_off.store(true, Ordering::Relaxed);
            }
        }
        if any {
            self.engine.note_loss();
        }
    }

    fn show_numbers(&self, host: HostCounters) {
        let numbers = EngineNumbers {
            counters: self.engine.counters(),
            table: self.engine.table_counters(),
            host,
            causes: self.out.causes.clone(),
        };
        *self
            .shared
            .numbers
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = numbers;
    }

    /// Answers how many there were.
    fn take_events(&mut self, rest: Duration) -> usize {
        let Self {
            engine,
            events,
            workers,
            interfaces,
            out,
            shared,
            ..
        } = self;
        let polled = events.poll(rest, &mut |event| match event {
            Event::Kernel(event) => {
                tell(workers, &event);
                engine.kernel_event(&event);
            }
            Event::Frame(copy) => match segment_of(&copy, interfaces) {
                Some((vantage, segment)) => {
                    if copy.origin == FrameOrigin::Mirrored {
                        shared.note_mirrored(vantage.interface);
                    }
                    take_copy(engine, workers, out, (&copy, vantage, &segment));
                }
                None => {
                    shared.unread.fetch_add(1, Ordering::Relaxed);
                }
            },
        });
        polled.unwrap_or_else(|_| {
            // Without the ring buffer nothing that rests on absence holds. The sightings still come.
            self.shared.polls_failed.fetch_add(1, Ordering::Relaxed);
            self.engine.note_loss();
            std::thread::sleep(rest);
            0
        })
    }

    /// Answers how many there were.
    fn take_sightings(&mut self) -> usize {
        let queues = std::mem::take(&mut self.sightings);
        let taken = take_waiting(
            self,
            &queues,
            |this| {
                let drained = |this: &mut Self| this.take_events(Duration::ZERO) == 0;
                let _ = (0..HEARD_FIRST_TURNS_MAX).any(|_| drained(this));
            },
            |this, sighting| this.engine.sight(sighting),
        );
        self.sightings = queues;
        for worker in &self.workers {
            while let Some(flow) = worker.answer() {
                self.engine.complete(&flow);
            }
        }
        taken
    }

    fn report_coverage(&mut self) {
        while let Ok(mut coverage) = self.coverage.try_recv() {
            // Whoever closed the interval may not have heard of it yet.
            self.note_cut_off();
            coverage.complete &= !self.shared.is_cut_off(coverage.interface);
            coverage.sequence = self.engine.next_sequence();
            let coverage = Record::Coverage(Box::new(coverage));
            self.out.pass(coverage);
        }
    }

    fn take_orders(&mut self) {
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Unseen => self.engine.note_unseen(clock::monotonic()),
                Order::Devices(devices) => self.engine.set_own_devices(devices),
                Order::Addresses(addresses) => self.engine.set_own_addresses(addresses),
                Order::Output(output) => self.out.output = output,
                Order::Gone(ifindex) => self.events.let_go(ifindex),
                Order::Renamed(id, name) => {
                    let observer = Arc::make_mut(&mut self.out.emission.observer);
                    observer.rename(id, name);
                }
            }
        }
    }
}

/// The segment in a copied frame, and where it was seen. `None`: [`EngineShared::unread`].
fn segment_of(
    copy: &CopiedFrame<'_>,
    interfaces: &HashMap<u32, InterfaceId>,
) -> Option<(Vantage, Segment)> {
    let interface = *interfaces.get(&copy.ifindex)?;
    let path = match copy.origin {
        FrameOrigin::Egress { forwarded } => Path::Egress { forwarded },
        _ => Path::Ingress,
    };
    let segment = parse(LinkLayer::Ethernet, copy.frame).ok()?;
    Some((Vantage { interface, path }, segment))
}

/// Has the engine judge what a copy shows, and tells the workers of a reset that went past them.
fn take_copy(
    engine: &mut Engine,
    workers: &[Arc<worker::Shared>],
    out: &mut Outlet,
    (copy, vantage, segment): (&CopiedFrame<'_>, Vantage, &Segment),
) {
    if copy.origin == FrameOrigin::Older {
        return engine.learn(copy.time, vantage, segment);
    }
    let mut emit = |record| out.send(record);
    engine.observe(copy.time, vantage, segment, copy.socket, &mut emit);
    if vantage.path == Path::Ingress && segment.flags.rst() {
        tell_of_reset(workers, engine, segment, (copy.time, copy.socket));
    }
}

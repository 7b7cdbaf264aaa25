//! The hot loop of one queue: frames come in, are looked at, and go back to the host. One thread
//! owns the rings, the flow table and the counters; it shares nothing but the queue of sightings
//! and [`Shared`].
//!
//! It decides nothing about a packet, and a frame goes back whatever [`examine()`] says of it. When
//! handing back does not work, it closes the gate, so that traffic passes in the kernel. On the
//! way of a frame it neither allocates, locks, logs nor reads a clock; time is read once a turn.

mod buckets;
mod counters;
mod credit;
mod examine;
#[cfg(test)]
mod flood;
#[cfg(test)]
mod kept;
mod latency;
mod live;
#[cfg(test)]
mod mock;
mod news;
mod observe;
mod place;
mod port;
mod received;
mod rest;
mod rings;
mod route;
#[cfg(test)]
mod tests;
mod veth;
mod waiting;

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam::queue::ArrayQueue;
use rustix::time::ClockId;

pub use buckets::{BOUNDS_NS, Buckets};
pub use counters::{Counters, Health, Shared};
pub use examine::{
    Batch, Examined, Headers, META_BYTES, Parsed, examine, fetch_frame, read_frame, take_in,
};
pub use latency::LatencySummary;
pub use news::NewsItem;
pub use observe::Observe;
pub use place::hurry;
pub use port::{Port, PortConfig};
pub use rings::{Balance, Doubt, Rings};

use crate::flow::{Sighting, TableCounters};
use crate::sys::{self, BATCH_FRAMES, Error, Gate};
use crate::time::{MILLISECOND, SECOND, Timestamp};
use crate::vantage::{InterfaceId, Path, Vantage};
use credit::Credit;
use latency::Latency;
use live::Live;
use place::Place;
use received::Received;
use rest::Rest;

/// How often links, losses and credit are looked after.
const CARE_NS: u64 = 100 * MILLISECOND;
/// How long stopping may take: 200 ms for what is under way to come in, and 200 ms to go out.
const STOP_NS: u64 = 400 * MILLISECOND;
/// How long a stopping worker waits at least: a NAPI poll that read the open gate ends meanwhile.
const GRACE_NS: u64 = 5 * MILLISECOND;

/// How one worker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerConfig {
    /// The interface that its sightings name.
    pub interface: InterfaceId,
    /// The CPU that its thread is bound to at first; while few frames come, it moves to where they come
    /// from. `None`: any, and it is never bound.
    pub cpu: Option<u32>,
    /// Frames that may be under way at once. Less than a batch below the UMEM's frame count, and
    /// less than net.core.netdev_max_backlog (1000), which all of them may enter at once.
    pub credit: u32,
    /// Longest sleep while frames come, in nanoseconds: less than a third of what `steer` allows between
    /// two heartbeats, so that two may come late. An idle worker's is [`Self::longest_rest_ns`].
    pub rest_ns: u64,
}

impl WorkerConfig {
    /// 512 frames of credit, 6 ms of rest, any CPU.
    #[must_use]
    pub const fn new(interface: InterfaceId) -> Self {
        Self {
            interface,
            cpu: None,
            credit: 512,
            rest_ns: 6 * MILLISECOND,
        }
    }

    /// Longest sleep of all, in nanoseconds.
    #[must_use]
    pub const fn longest_rest_ns(&self) -> u64 {
        Rest::longest_ns(self.rest_ns)
    }
}

/// What a worker leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finished {
    /// Its counters, final.
    pub counters: Counters,
    /// Where its frames were at the end.
    pub balance: Balance,
    /// Frames received but not handed over to the kernel: lost to the host. 0 but when the
    /// hand-back interface stayed down.
    pub abandoned: u64,
    /// Frames whose credit was still out: redirected, but not seen to come back.
    pub in_flight: u64,
    /// Everything that was under way had come back in time.
    pub is_drained: bool,
    /// How long frames were away from the host.
    pub latency: LatencySummary,
    /// What its flow table did.
    pub table: TableCounters,
    /// Established connections that it could not be told of.
    pub news_lost: u64,
}

/// The worker of one queue.
#[derive(Debug)]
pub struct Worker<R: Rings, O> {
    config: WorkerConfig,
    rings: R,
    gate: Gate,
    observer: O,
    sightings: Arc<ArrayQueue<Sighting>>,
    shared: Arc<Shared>,
    counters: Counters,
    latency: Latency,
    /// When the oldest frame of this turn was taken.
    oldest_ns: Option<u64>,
    rest: Rest,
    /// Where its thread is bound, if it is.
    place: Option<Place>,
    batch: Vec<R::Frame>,
    live: Live<R::Frame>,
    /// What was read of the frames of the last batch: places that the next one is read over.
    parsed: Vec<Parsed>,
    health: Health,
    is_stopping: bool,
    /// When the TX ring last got shorter, or was empty.
    progress_ns: u64,
    cared_ns: u64,
    /// Frames that had been redirected then.
    cared_produced: u64,
    credit: Credit,
}

impl<R: Rings, O: Observe> Worker<R, O> {
    /// A worker that has not started. `gate` is that of the queue that `rings` receive from.
    #[must_use]
    pub fn new(
        config: WorkerConfig,
        rings: R,
        gate: Gate,
        observer: O,
        sightings: Arc<ArrayQueue<Sighting>>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            config,
            rings,
            gate,
            observer,
            sightings,
            shared,
            counters: Counters::default(),
            latency: Latency::new(),
            oldest_ns: None,
            rest: Rest::new(config.rest_ns),
            place: None,
            batch: Vec::with_capacity(BATCH_FRAMES),
            live: Live::new(config.cpu),
            parsed: vec![Parsed::BLANK; BATCH_FRAMES],
            health: Health::Starting,
            is_stopping: false,
            progress_ns: 0,
            cared_ns: 0,
            cared_produced: 0,
            credit: Credit::default(),
        }
    }

    /// Starts the thread, which opens the gate and runs until [`Shared::stop`].
    ///
    /// # Errors
    ///
    /// [`Error::Thread`] when the system has no thread to give.
    pub fn spawn(self, name: &str) -> Result<JoinHandle<Finished>, Error>
    where
        R: Send + 'static,
        R::Frame: Send,
        O: Send + 'static,
    {
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || self.run())
            .map_err(|source| Error::Thread {
                name: name.to_owned(),
                source,
            })
    }

    /// Runs in this thread until [`Shared::stop`]. Sockets and gate close when it returns.
    pub fn run(mut self) -> Finished {
        self.place = self.config.cpu.and_then(Place::take);
        self.shared.set_pinned(self.place.is_some());
        // This thread's own memory: the allocator gives no two threads parts of one page.
        self.batch = Vec::with_capacity(BATCH_FRAMES);
        self.live.start(self.place.is_some());
        // Without either, frames wait longer where the CPU is busy; nothing else changes.
        let _ = sys::ask_for_short_slice();
        hurry();
        self.prepare(monotonic_ns());
        while !self.shared.is_stopping() {
            let now_ns = monotonic_ns();
            let received = self.turn(now_ns);
            self.rest(now_ns, received);
        }
        self.finish()
    }

    /// Everything before the first turn: all frames to the kernel, nothing under way.
    fn prepare(&mut self, now_ns: u64) {
        self.rings.refill();
        self.gate.reset();
        self.progress_ns = now_ns;
        self.cared_ns = now_ns;
        self.rest.note_frames(now_ns);
    }

    /// One round: frames that are done become free, free ones go to the kernel, received ones are
    /// looked at and handed back. Answers how many were received.
    fn turn(&mut self, now_ns: u64) -> usize {
        let told = self.counters.sightings;
        self.gate.heartbeat(now_ns);
        self.counters.completed += u64::from(self.rings.reclaim());
        if self.place.as_ref().is_some_and(Place::is_to_move) {
            self.change_cpu();
        }
        let refilled = self.rings.refill();
        if refilled > 0 {
            self.gate.consumed(refilled);
        }
        // What did not fit into the TX ring goes first: no frame overtakes another.
        let received = if self.batch.is_empty() {
            self.take_in(now_ns)
        } else {
            0
        };
        // After the frames: a reset that went past came after those which wait in the ring, since the
        // gate stays closed until they are taken.
        self.shared.pass_news(&mut self.observer);
        self.live
            .give(&mut self.rings, &mut self.batch, &mut self.counters);
        self.hand_back();
        self.push_out(now_ns);
        if let Some(oldest_ns) = self.oldest_ns.take() {
            let away_ns = monotonic_ns().saturating_sub(oldest_ns);
            self.latency.record(away_ns);
            self.shared.away().record(away_ns);
        }
        // Once the frames are back with the host: it may be a system call, and the one woken may want this CPU.
        if self.counters.sightings != told {
            self.shared.wake_engine();
        }
        if now_ns.saturating_sub(self.cared_ns) >= CARE_NS {
            self.care(now_ns);
        }
        self.try_open();
        let balance = self.rings.balance(self.batch.len());
        debug_assert!(balance.holds(), "a frame was lost or doubled: {balance:?}");
        self.shared
            .publish(self.counters, balance, self.gate.in_flight());
        received
    }

    fn take_in(&mut self, now_ns: u64) -> usize {
        let received = self.rings.receive(&mut self.batch);
        self.counters.received += received as u64;
        let vantage = Vantage {
            interface: self.config.interface,
            path: Path::Ingress,
        };
        let now = Timestamp::from_nanos(now_ns);
        // A batch is never larger than what was made room for.
        self.parsed
            .resize(received.max(self.parsed.len()), Parsed::BLANK);
        for frame in &self.batch {
            fetch_frame(self.rings.bytes(frame), self.rings.meta(frame, META_BYTES));
        }
        let places = self.parsed.get_mut(..received).unwrap_or_default();
        let mut batch = Received {
            rings: &self.rings,
            frames: &mut self.batch,
            sightings: &self.sightings,
            counters: &mut self.counters,
        };
        take_in(&mut self.observer, (now, vantage), &mut batch, places);
        // In order of arrival: the first one is the oldest.
        self.oldest_ns = places.first().map(|parsed| parsed.time.as_nanos());
        if self.health == Health::Running {
            self.live.choose(&self.rings, &self.batch, places);
        }
        received
    }

    /// Moves this thread, once the host's stack has all that it was given: what is sent from there could
    /// overtake what waits here.
    #[cold]
    fn change_cpu(&mut self) {
        if self.rings.balance(self.batch.len()).sending > 0 {
            return;
        }
        match self.place.as_mut().and_then(Place::go) {
            Some(cpu) => self.live.follow(cpu),
            None => self.place = None,
        }
    }

    /// What need not be done every turn.
    fn care(&mut self, now_ns: u64) {
        self.cared_ns = now_ns;
        if let Some(place) = &mut self.place {
            let produced = self.gate.produced();
            let frames = produced.wrapping_sub(self.cared_produced);
            self.cared_produced = produced;
            place.note(frames, self.gate.cpu());
        }
        if self.rings.is_gone() {
            self.part();
        } else if self.health == Health::Running && !self.rings.is_ready() {
            self.jam();
        }
        let held = self.batch.len();
        self.credit
            .settle(&mut self.rings, &self.gate, &mut self.counters, held);
        self.shared.publish_table(self.observer.table());
    }

    fn rest(&mut self, now_ns: u64, received: usize) {
        if received > 0 {
            return self.rest.note_frames(now_ns);
        }
        if self.shared.has_news() {
            return;
        }
        let is_moving =
            self.health == Health::Running && self.rings.balance(self.batch.len()).sending > 0;
        self.rings.wait(self.rest.after(now_ns, is_moving));
    }

    /// Closes the gate, and turns until everything that was under way has gone back.
    fn finish(mut self) -> Finished {
        self.is_stopping = true;
        self.gate.close();
        let started_ns = monotonic_ns();
        let is_drained = loop {
            let now_ns = monotonic_ns();
            let received = self.turn(now_ns);
            let balance = self.rings.balance(self.batch.len());
            let spent_ns = now_ns.saturating_sub(started_ns);
            let is_quiet = received == 0
                && balance.held == 0
                && balance.sending == 0
                && self.gate.in_flight() <= 0;
            if is_quiet && spent_ns >= GRACE_NS {
                break true;
            }
            if spent_ns >= STOP_NS {
                break false;
            }
            self.rings.wait(rest::SHORT_NS);
        };
        if let Some(losses) = self.rings.losses() {
            self.counters.losses = losses;
        }
        let balance = self.rings.balance(self.batch.len());
        let in_flight = self.gate.in_flight();
        self.shared.publish(self.counters, balance, in_flight);
        self.shared.set_health(Health::Stopped);
        Finished {
            counters: self.counters,
            balance,
            abandoned: u64::from(balance.held) + u64::from(self.rings.unsent()),
            in_flight: u64::try_from(in_flight).unwrap_or(0),
            is_drained,
            latency: self.latency.summary(),
            table: self.observer.table(),
            news_lost: self.shared.news_lost(),
        }
    }
}

/// CLOCK_MONOTONIC in nanoseconds, which is `bpf_ktime_get_ns()` too.
fn monotonic_ns() -> u64 {
    let time = rustix::time::clock_gettime(ClockId::Monotonic);
    // The clock counts from the machine's start: neither part is ever negative.
    time.tv_sec.cast_unsigned() * SECOND + time.tv_nsec.cast_unsigned()
}

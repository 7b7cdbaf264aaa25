//! The hot loop of one queue: frames come in, are looked at, and go back to the host. One thread
//! owns the rings, the flow table and the counters; it shares nothing but the queue of sightings
//! and [`Shared`].
//!
//! It decides nothing about a packet, and a frame goes back whatever [`examine()`] says of it. When
//! handing back does not work, it closes the gate, so that traffic passes in the kernel. On the
//! way of a frame it neither allocates, locks, logs nor reads a clock; time is read once a turn.

mod buckets;
mod counters;
mod examine;
#[cfg(test)]
mod flood;
mod latency;
#[cfg(test)]
mod mock;
mod news;
mod place;
mod port;
mod received;
mod rest;
mod rings;
mod route;
#[cfg(test)]
mod tests;
mod waiting;

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam::queue::ArrayQueue;
use rustix::time::ClockId;

pub use buckets::{BOUNDS_NS, Buckets};
pub use counters::{Counters, Health, Shared};
pub use examine::{
    Batch, Examined, Headers, META_BYTES, Observe, Parsed, examine, fetch_frame, read_frame,
    take_in,
};
pub use latency::LatencySummary;
pub use news::NewsItem;
pub use place::hurry;
pub use port::{Port, PortConfig};
pub use rings::{Balance, Doubt, Rings};

use crate::flow::{Sighting, TableCounters};
use crate::sys::{self, BATCH_FRAMES, Error, Gate, Wake};
use crate::time::{MILLISECOND, SECOND, Timestamp};
use crate::vantage::{InterfaceId, Path, Vantage};
use latency::Latency;
use place::pin;
use received::Received;
use rest::Rest;

/// Wake-ups of the TX ring in one turn: a batch of 64 needs two where the kernel sends 32 at a
/// time, and what was left from earlier turns is caught up with four times as fast as it comes.
const WAKES_PER_TURN: u32 = 8;
/// How long the TX ring may stand still before the gate is closed: longer than a softirq storm,
/// shorter than TCP's first retransmission (200 ms).
const STUCK_NS: u64 = 50 * MILLISECOND;
/// How often links, losses and credit are looked after.
const CARE_NS: u64 = 100 * MILLISECOND;
/// How long stopping may take: 200 ms for what is under way to come in, and 200 ms to go out.
const STOP_NS: u64 = 400 * MILLISECOND;
/// How long a stopping worker waits at least: a NAPI poll that read the open gate ends meanwhile.
const GRACE_NS: u64 = 5 * MILLISECOND;

/// Bursts that may fail in a row before the worker gives them up for good: one may find the host out
/// of memory, four find a kernel or an interface that has changed.
const BURST_FAILURES_MAX: u32 = 4;

/// How one worker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerConfig {
    /// The interface that its sightings name.
    pub interface: InterfaceId,
    /// The CPU for its thread: best the one that serves the queue's interrupt. `None`: any.
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
    batch: Vec<R::Frame>,
    /// Frames of this turn that go back live; empty between turns.
    burst: Vec<R::Frame>,
    /// What of a batch takes the veth, while it is divided; empty between turns.
    kept: Vec<R::Frame>,
    /// Which frames of the batch that was just taken in may go back live.
    live_mask: u64,
    /// Bursts that failed one after the other.
    burst_failures: u32,
    /// What was read of the frames of the last batch: places that the next one is read over.
    parsed: Vec<Parsed>,
    health: Health,
    is_stopping: bool,
    /// When the TX ring last got shorter, or was empty.
    progress_ns: u64,
    cared_ns: u64,
    /// `steer`'s count and ours at the last care, to see whether all is quiet.
    quiet_mark: (u64, u64),
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
            batch: Vec::with_capacity(BATCH_FRAMES),
            burst: Vec::with_capacity(BATCH_FRAMES),
            kept: Vec::with_capacity(BATCH_FRAMES),
            live_mask: 0,
            burst_failures: 0,
            parsed: vec![Parsed::BLANK; BATCH_FRAMES],
            health: Health::Starting,
            is_stopping: false,
            progress_ns: 0,
            cared_ns: 0,
            quiet_mark: (0, 0),
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
        let is_pinned = self.config.cpu.is_some_and(pin);
        self.shared.set_pinned(is_pinned);
        if !is_pinned {
            // Then `give_live` could not tell whether the host has what it was given before.
            self.burst_failures = BURST_FAILURES_MAX;
        }
        // This thread's own memory: the allocator gives no two threads parts of one page.
        for frames in [&mut self.batch, &mut self.burst, &mut self.kept] {
            *frames = Vec::with_capacity(BATCH_FRAMES);
        }
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
        self.give_live();
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
        self.live_mask = self.live_mask_of(received);
        received
    }

    /// Which frames of the batch may go back live.
    fn live_mask_of(&self, received: usize) -> u64 {
        if !self.may_burst() {
            return 0;
        }
        let batch = self.parsed.get(..received).unwrap_or_default();
        let lengths = self.batch.iter().map(|frame| self.rings.bytes(frame).len());
        let headers = batch.iter().map(Parsed::headers);
        route::live_mask(headers.zip(lengths))
    }

    fn may_burst(&self) -> bool {
        self.batch.len() >= route::LIVE_MIN
            && self.health == Health::Running
            && self.burst_failures < BURST_FAILURES_MAX
            && self.rings.can_burst()
            && self.is_on_its_cpu()
            && self.rings.balance(self.batch.len()).sending == 0
    }

    /// Many small frames at once go back live, which costs half as much a frame. Whatever is left in the
    /// batch takes the veth.
    ///
    /// Only while none is on its way by the veth: the call gives its frames to the host before it returns,
    /// and they must overtake nothing. That none is on its way is what the completion ring says. In copy
    /// mode a frame comes back there when its skb loses its owner (`xsk_destruct_skb`, net/xdp/xsk.c), and
    /// neither veth, backlog nor mirred take that away, only the receiver: `ip_rcv_core` and `ip6_rcv_core`,
    /// or whoever frees it. What still waits in a backlog, or in a queue that somebody put behind the
    /// interface's ingress, counts as sending (tests/path.rs holds a frame there). From `ip_rcv_core` on a
    /// frame goes through the stack in one go, with softirqs off, on the CPU that sent it. This worker is
    /// bound to that CPU, so that it cannot have seen the completion before the frame was through; one that
    /// is not bound gives nothing live ([`Self::run`]), nor does one that was moved.
    fn give_live(&mut self) {
        let mask = std::mem::take(&mut self.live_mask);
        if mask == 0 {
            return;
        }
        for (at, frame) in self.batch.drain(..).enumerate() {
            let way = match mask >> at & 1 {
                0 => &mut self.kept,
                _ => &mut self.burst,
            };
            way.push(frame);
        }
        match self.rings.give_live(&mut self.burst) {
            Ok(given) => {
                let given = given as u64;
                self.counters.live += given;
                self.counters.handed_back += given;
                self.counters.completed += given;
                self.burst_failures = 0;
            }
            Err(Doubt) => {
                self.counters.live_failed += 1;
                self.burst_failures += 1;
            }
        }
        // The flows of both ways are distinct, so that their order among each other is nobody's.
        self.batch.append(&mut self.burst);
        self.batch.append(&mut self.kept);
    }

    /// Somebody may have moved this thread since it was bound (a cpuset, a CPU taken away).
    fn is_on_its_cpu(&self) -> bool {
        let cpu = self.config.cpu;
        cpu.is_none_or(|cpu| rustix::thread::sched_getcpu() == cpu as usize)
    }

    fn hand_back(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let sent = self.rings.transmit(&mut self.batch);
        self.counters.handed_back += sent as u64;
        if !self.batch.is_empty() {
            self.counters.tx_full += 1;
        }
    }

    /// Makes the kernel send what is in the TX ring, as far as this turn allows.
    fn push_out(&mut self, now_ns: u64) {
        let mut before = self.rings.unsent();
        if before == 0 {
            self.progress_ns = now_ns;
            return;
        }
        // Without a carrier, each wake-up would cost a frame.
        let is_waiting = self.health != Health::Running && !self.is_stopping;
        if self.health == Health::Gone || (is_waiting && !self.rings.is_ready()) {
            return;
        }
        for _ in 0..WAKES_PER_TURN {
            self.counters.wakes += 1;
            let wake = self.rings.wake();
            let after = self.rings.unsent();
            if after < before {
                self.progress_ns = now_ns;
            }
            match wake {
                Wake::Done | Wake::Again => {}
                Wake::Dropped => {
                    self.counters.handback_dropped += 1;
                    if !self.rings.is_ready() {
                        return self.jam();
                    }
                }
                Wake::Down => return self.jam(),
                Wake::Gone => return self.part(),
                Wake::Failed(_) => self.counters.handback_errors += 1,
            }
            if after == 0 || after >= before {
                break;
            }
            before = after;
        }
        if self.rings.unsent() > 0 && now_ns.saturating_sub(self.progress_ns) >= STUCK_NS {
            self.jam();
        }
    }

    /// Frames cannot go back: no more may come in.
    fn jam(&mut self) {
        self.gate.close();
        if self.health == Health::Running {
            self.counters.handback_stuck += 1;
        }
        if self.health != Health::Gone {
            self.set_health(Health::Stuck);
        }
    }

    /// An interface was removed; its socket cannot be bound again.
    fn part(&mut self) {
        self.gate.close();
        self.set_health(Health::Gone);
    }

    /// Opens the gate at the start, and again once everything that was stuck has gone out.
    fn try_open(&mut self) {
        let is_shut = matches!(self.health, Health::Starting | Health::Stuck);
        if !is_shut || self.is_stopping || !self.batch.is_empty() || self.rings.unsent() > 0 {
            return;
        }
        if !self.rings.is_ready() {
            return self.set_health(Health::Stuck);
        }
        self.gate.open(self.config.credit);
        self.set_health(Health::Running);
    }

    fn set_health(&mut self, health: Health) {
        if self.health != health {
            self.health = health;
            self.shared.set_health(health);
        }
    }

    /// What need not be done every turn.
    fn care(&mut self, now_ns: u64) {
        self.cared_ns = now_ns;
        if self.rings.is_gone() {
            self.part();
        } else if self.health == Health::Running && !self.rings.is_ready() {
            self.jam();
        }
        self.settle_credit();
        self.shared.publish_table(self.observer.table());
    }

    /// Gives back the credit of frames that the kernel lost after `steer` had redirected them;
    /// else each such frame would narrow the gate for good.
    fn settle_credit(&mut self) {
        if let Some(losses) = self.rings.losses() {
            let known = self.counters.losses;
            let lost =
                (losses.dropped + losses.ring_full).saturating_sub(known.dropped + known.ring_full);
            self.counters.losses = losses;
            self.write_off(lost);
        }
        let in_flight = self.gate.in_flight();
        let mark = (self.gate.produced(), self.counters.received);
        let is_quiet = mark == self.quiet_mark && self.rings.waiting() == 0;
        self.quiet_mark = mark;
        let Ok(in_flight) = u64::try_from(in_flight) else {
            self.counters.credit_resynced += 1;
            return self.gate.resync();
        };
        // Nothing was redirected and nothing came in since the last care: what is neither in our
        // hands nor on its way out will not come any more.
        let balance = self.rings.balance(self.batch.len());
        let ours = u64::from(balance.free) + u64::from(balance.held) + u64::from(balance.sending);
        if is_quiet {
            self.write_off(in_flight.saturating_sub(ours));
        }
    }

    fn write_off(&mut self, frames: u64) {
        let frames = u32::try_from(frames).unwrap_or(u32::MAX);
        if frames > 0 {
            self.counters.credit_written_off += u64::from(frames);
            self.gate.consumed(frames);
        }
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

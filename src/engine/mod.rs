//! From sightings and kernel events to records. [`Engine`] gathers all resets of one flow into an
//! episode, lets it settle, has it judged, and emits one record. No I/O, no clock, no thread:
//! `run` and `read` share it. Events may arrive out of order by less than the settle time.

mod attested;
mod attribute;
mod by_flow;
mod closing;
mod compose;
mod device;
mod due;
mod episode;
mod facts;
mod fit;
mod folding;
mod kernel;
mod legs;
mod message;
mod openings;
mod other_leg;
mod resting;
mod sketch;
mod spare;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod translated;

use std::collections::{HashSet, VecDeque};
use std::net::IpAddr;

use crate::evidence::{AfterReset, InjectorMemory, ResetSeen, SequenceFit, SiblingMemory};
use crate::flow::{
    FlowFacts, FlowKey, PassedFlow, Side, Sighting, TableCounters, Tracker, TrackerConfig,
};
use crate::host::SocketView;
use crate::record::ResetRecord;
use crate::time::{SECOND, Timestamp};
use crate::vantage::{Path, Vantage};
use crate::verdict::Verdict;
use crate::wire::{Mac, Network, Segment};
use by_flow::{ByFlow, Entry};
pub use device::{Device, IpIdMode};
use due::Due;
use episode::Episode;
use folding::Folding;
use legs::{Leg, Legs};
use openings::{How, Opening, Openings};
use resting::Resting;
use spare::Spare;
use translated::Translated;

/// A flow that is reset without pause would never settle: after this many settle times, but at
/// least [`EPISODE_NS_MAX`], its episode is judged all the same.
const EPISODE_SETTLES_MAX: u64 = 5;

/// The shortest bound on an episode's length: a retransmitting peer backs off from 200 ms, so that
/// five seconds hold its first four tries.
const EPISODE_NS_MAX: u64 = 5 * SECOND;

/// How many judged episodes are remembered, so that what follows on the same flow can refer to
/// them. Residual blocking lasts 60 to 180 s; at 50 resets a second this is that long.
const CLOSED_REMEMBERED: usize = 8192;

/// What the engine needs to know at start.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// How long after the last reset of a flow its episode is judged; 0: at the next tick.
    pub settle_ns: u64,
    /// How long after its last reset an episode with a forged reset, or with one that is undetermined
    /// so far, is judged, if that is later: for captures, where time costs nothing. Live an alert does
    /// not wait: 0.
    pub forged_linger_ns: u64,
    /// Flows that its own tracker holds.
    pub flow_capacity: usize,
    /// Episodes that may be open at once; a reset beyond that is counted, not judged.
    pub episode_capacity: usize,
    /// Addresses that are "this host", where the vantage point does not tell (capture files).
    pub local: Vec<Network>,
    /// This host's addresses, where its interfaces tell; `None`: not known.
    pub own_addresses: Option<HashSet<IpAddr>>,
    /// Frames come from a capture: both directions, data segments, no kernel.
    pub offline: bool,
    /// The kernel's events reach us, so that their absence means something.
    pub kernel_events: bool,
    /// They tell of resets in answer to segments of no connection as well (Linux 6.10 and later).
    pub tells_answers: bool,
    /// MAC of each interface, by `InterfaceId`.
    pub own_macs: Vec<Option<Mac>>,
    /// Devices that give their name to the resets that they forge.
    pub own_devices: Vec<Device>,
    /// Random hash key of this run.
    pub hash_key: [u64; 2],
}

/// What the engine did, for counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EngineCounters {
    /// Resets taken in.
    pub resets: u64,
    /// Records emitted, in the order of [`Verdict::ALL`].
    pub records: [u64; Verdict::ALL.len()],
    /// Resets of flows that nobody knows, told in the records of many instead of one of their own.
    pub folded: u64,
    /// Records of many.
    pub aggregates: u64,
    /// Resets that found no room for an episode.
    pub episodes_refused: u64,
    /// Kernel events without a frame: their reset went by an interface that is not watched.
    pub events_without_frame: u64,
    /// Episodes open now.
    pub open: u64,
}

/// A SYN that may open a connection anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// Which one.
    pub key: FlowKey,
    /// When it came.
    pub time: Timestamp,
}

/// A judged episode, for what may follow on its flow.
#[derive(Debug, Clone, Copy)]
struct Closed {
    verdict: Verdict,
    sequence: u64,
    sender: Side,
    start: Timestamp,
}

/// The part of the sensor that remembers, weighs and writes.
#[derive(Debug)]
pub struct Engine {
    config: EngineConfig,
    tracker: Tracker,
    /// Boxed: an episode is a kilobyte, and the map moves its entries.
    episodes: ByFlow<Box<Episode>>,
    /// Episodes by the time at which to look at them next.
    queue: Due,
    legs: Legs,
    resting: Resting,
    openings: Openings,
    translated: Translated,
    injectors: InjectorMemory,
    siblings: SiblingMemory,
    closed: ByFlow<Closed>,
    closed_order: VecDeque<FlowKey>,
    folding: Folding,
    spare: Spare,
    sequence: u64,
    counters: EngineCounters,
}

impl Engine {
    /// An engine without memory of anything.
    #[must_use]
    pub fn new(config: EngineConfig) -> Self {
        let table = TrackerConfig {
            capacity: config.flow_capacity,
            key: config.hash_key,
        };
        let tracker = if config.offline {
            Tracker::for_capture(table)
        } else {
            Tracker::new(table)
        };
        Self::with_tracker(config, tracker)
    }

    fn with_tracker(config: EngineConfig, tracker: Tracker) -> Self {
        Self {
            folding: Folding::new(config.hash_key),
            episodes: ByFlow::new(config.hash_key),
            resting: Resting::new(config.hash_key),
            closed: ByFlow::new(config.hash_key),
            config,
            tracker,
            queue: Due::default(),
            legs: Legs::default(),
            openings: Openings::default(),
            translated: Translated::default(),
            injectors: InjectorMemory::default(),
            siblings: SiblingMemory::default(),
            closed_order: VecDeque::new(),
            spare: Spare::default(),
            sequence: 0,
            counters: EngineCounters::default(),
        }
    }

    /// What it did so far.
    #[must_use]
    pub fn counters(&self) -> EngineCounters {
        EngineCounters {
            open: self.episodes.len() as u64,
            ..self.counters
        }
    }

    /// What its own flow table did so far.
    #[must_use]
    pub fn table_counters(&self) -> TableCounters {
        self.tracker.counters()
    }

    /// Resets of that side in the episode that is open on a connection; 0 where none is.
    #[must_use]
    pub fn resets_open(&self, key: &FlowKey, side: Side) -> usize {
        let episode = self.episodes.get(key);
        episode.map_or(0, |episode| episode.resets_of(side))
    }

    /// Other devices of the user's from now on; also for what is open.
    pub fn set_own_devices(&mut self, devices: Vec<Device>) {
        self.config.own_devices = devices;
    }

    /// This host's addresses from now on.
    pub fn set_own_addresses(&mut self, addresses: HashSet<IpAddr>) {
        self.config.own_addresses = Some(addresses);
    }

    /// The large pieces of its memory, for advice to the system before they are used.
    #[must_use]
    pub fn memory(&self) -> [&[u32]; 4] {
        self.tracker.memory()
    }

    /// The sequence number for a record that the composition makes itself (coverage), so that all
    /// records of a run have one count.
    pub fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// Takes in a segment that no worker saw: every one of a capture; live, what leaves this host,
    /// what passed by a closed gate, what follows a reset, and all of mirror mode.
    pub fn observe(
        &mut self,
        time: Timestamp,
        vantage: Vantage,
        segment: &Segment,
        socket: Option<SocketView>,
        emit: &mut impl FnMut(ResetRecord),
    ) {
        if self.config.offline {
            self.tick(time, emit);
        }
        let (key, side) = FlowKey::of(segment.tuple);
        if vantage.path == (Path::Egress { forwarded: true }) {
            // Its hop limit is one less than where it came in: no baseline for anything.
            if segment.flags.rst() {
                self.add_reset(
                    &key,
                    side,
                    &Sighting {
                        time,
                        vantage,
                        segment: *segment,
                        socket,
                        begins_anew: false,
                        flow: self.tracker.facts(&key, side, time),
                    },
                );
            } else if segment.flags.syn() && !segment.flags.ack() {
                let isn = Some(segment.seq);
                let how = How::Asked { isn };
                self.note_opening(key, Opening { time, how });
            }
            return;
        }
        let is_control = segment.flags.rst() || segment.flags.syn() || segment.flags.fin();
        if !self.config.offline && vantage.path == Path::Ingress && !is_control {
            self.add_after(&key, side, time, segment);
            return;
        }
        let is_anew = segment.flags.syn() && !segment.flags.ack();
        if segment.flags.syn() {
            self.resting.forget(&key);
            self.note_agreed(key, side, (time, vantage, segment));
        }
        match self.tracker.observe(time, vantage, segment, socket) {
            // Our own tracker knows no more than it has just told.
            Some(sighting) if !sighting.begins_anew && socket.is_none() => self.hear(&sighting),
            Some(sighting) if !sighting.begins_anew => self.sight(&sighting),
            _ if is_anew => self.hear_opened(&Opened { key, time }),
            _ => {}
        }
    }

    /// The flow table, for a thread of its own, where the engine is that of a capture: what the table
    /// answers then comes by [`Engine::hear`] and [`Engine::hear_opened`], after a [`Engine::tick`] at the
    /// time of each segment. To [`Engine::observe`] such an engine knows no flow.
    #[must_use]
    pub fn take_tracker(&mut self) -> Tracker {
        let none = TrackerConfig {
            capacity: 0,
            key: self.config.hash_key,
        };
        std::mem::replace(&mut self.tracker, Tracker::for_capture(none))
    }

    /// Takes in what a capture's flow table told of a reset, or of what follows one.
    pub fn hear(&mut self, sighting: &Sighting) {
        let (key, side) = FlowKey::of(sighting.segment.tuple);
        if sighting.segment.flags.rst() {
            self.take_reset(&key, side, sighting, &sighting.flow);
        } else {
            self.add_after(&key, side, sighting.time, &sighting.segment);
        }
    }

    /// Takes in that a SYN, which follows no reset, asks for a connection.
    pub fn hear_opened(&mut self, opened: &Opened) {
        let opening = Opening {
            time: opened.time,
            how: How::Asked { isn: None },
        };
        self.note_opening(opened.key, opening);
    }

    /// A SYN-ACK that this host's own kernel sends: it has no connection on that four-tuple (any more).
    /// Heard before the handshake's last segment, which the kernel's word that it is complete is not.
    fn note_agreed(
        &mut self,
        key: FlowKey,
        side: Side,
        (time, vantage, segment): (Timestamp, Vantage, &Segment),
    ) {
        let is_ours = vantage.path == (Path::Egress { forwarded: false });
        if is_ours && segment.flags.ack() && !self.config.offline {
            let opener = side.other();
            let how = How::Agreed { opener };
            self.note_opening(key, Opening { time, how });
        }
    }

    /// A connection is opened: what follows is not of one that was reset before, be that heard or not.
    fn note_opening(&mut self, key: FlowKey, opening: Opening) {
        if let Some(episode) = self.episodes.get_mut(&key) {
            episode.note_opening(&opening);
        }
        if !self.config.offline {
            self.openings.note(key, opening);
        }
    }

    /// Another capture begins, whose time is another: what is open is judged, and all that was learned
    /// is forgotten. The records' numbers go on.
    pub fn begin_anew(&mut self, emit: &mut impl FnMut(ResetRecord)) {
        self.finish(emit);
        let mut fresh = Self::with_tracker(self.config.clone(), self.take_tracker());
        (fresh.sequence, fresh.counters) = (self.sequence, self.counters);
        *self = fresh;
    }

    /// Takes in a segment of a connection that is older than the sensor: what its sender looks like.
    pub fn learn(&mut self, time: Timestamp, vantage: Vantage, segment: &Segment) {
        let (key, side) = FlowKey::of(segment.tuple);
        if self.tracker.observe(time, vantage, segment, None).is_some() {
            // A reset came first after all.
            self.add_after(&key, side, time, segment);
        } else {
            self.tracker.note_older(&key, time);
        }
    }

    /// Brings what is known of the flows of these segments near, where memory is far: they will be
    /// observed next. Changes nothing else.
    pub fn warm<'a>(&mut self, segments: impl Iterator<Item = &'a Segment>) {
        self.tracker.warm(segments);
    }

    /// Takes in what a worker's tracker found.
    pub fn sight(&mut self, sighting: &Sighting) {
        let (key, side) = FlowKey::of(sighting.segment.tuple);
        if sighting.segment.flags.rst() {
            self.add_reset(&key, side, sighting);
        } else if sighting.begins_anew {
            // The reset before it came the same way, or the quicker one: it was heard already.
            let (time, how) = (sighting.time, How::CameIn);
            self.resting.forget(&key);
            if let Some(episode) = self.episodes.get_mut(&key) {
                episode.note_opening(&Opening { time, how });
            }
        } else {
            self.add_after(&key, side, sighting.time, &sighting.segment);
        }
    }

    /// Takes in what the worker whose flow it is knew of a reset that only we saw.
    pub fn complete(&mut self, known: &PassedFlow) {
        if let Some(episode) = self.episodes.get_mut(&known.reset.key) {
            episode.complete(known.reset.side, known.reset.time, &known.flow);
        }
    }

    /// Frames or events were lost: for the episodes that are open, absence proves nothing.
    pub fn note_loss(&mut self) {
        for episode in self.episodes.values_mut() {
            episode.lossy = true;
        }
    }

    /// Time passes: what has settled is judged.
    pub fn tick(&mut self, now: Timestamp, emit: &mut impl FnMut(ResetRecord)) {
        self.resting.expire(now);
        self.unfold(Some(now), emit);
        while let Some(key) = self.queue.pop(now) {
            match self.episodes.get(&key).map(|episode| episode.due) {
                Some(later) if later > now => self.queue.push(later, key),
                Some(_) => self.close(&key, false, emit),
                None => {}
            }
        }
    }

    /// The end: everything that is open is judged.
    pub fn finish(&mut self, emit: &mut impl FnMut(ResetRecord)) {
        while let Some(key) = self.queue.pop(Timestamp::from_nanos(u64::MAX)) {
            self.close(&key, true, emit);
        }
        self.unfold(None, emit);
    }

    /// Takes in a reset that was seen by another's tracker, or by none.
    fn add_reset(&mut self, key: &FlowKey, side: Side, sighting: &Sighting) {
        let mut flow = self.tracker.facts(key, side, sighting.time);
        self.tracker.note_reset(key, side, sighting.time);
        if let Some((opener, time)) = self.openings.agreed_after(key, sighting.time) {
            // What this host sent may be the next connection's already, which the table now begins with.
            flow.receiver = None;
            self.tracker.note_established(key, opener, time);
        }
        let flow = flow.completed(&sighting.flow);
        self.take_reset(key, side, sighting, &flow);
    }

    /// Takes in a reset that the tracker knows of; `flow` is all that was known before it.
    fn take_reset(&mut self, key: &FlowKey, side: Side, sighting: &Sighting, flow: &FlowFacts) {
        self.counters.resets += 1;
        let (fit, offset) = fit::fit(
            &sighting.segment,
            sighting.socket.as_ref(),
            flow,
            self.config.offline,
        );
        let is_known = flow.sender.is_some()
            || flow.receiver.is_some()
            || sighting
                .socket
                .as_ref()
                .is_some_and(|s| s.sequence().is_some());
        let comes_in = matches!(sighting.vantage.path, Path::Ingress | Path::Capture);
        if is_known && comes_in {
            // What belongs to no connection, as in a flood, shall not crowd the others out.
            self.siblings.learn(&sighting.segment, flow, sighting.time);
        }
        let reset = ResetSeen {
            time: sighting.time,
            vantage: sighting.vantage,
            segment: sighting.segment,
            from_sender: true,
            socket: sighting.socket,
            fit,
            offset,
        };
        if self.folds(key, &reset, flow) {
            return;
        }
        let is_of_capture =
            self.config.offline && facts::incoming(&reset, &self.config) == Some(true);
        let ends_a_socket = self.must_be_accepted(&reset);
        let leg = (is_of_capture || ends_a_socket).then(|| {
            let outbound = flow.sender_is_originator.map(|peer| !peer);
            Leg {
                closed: None,
                time: reset.time,
                key: *key,
                sender: side,
                began: flow.first_seen,
                is_outbound: legs::is_outbound(outbound, key, side.other()),
            }
        });
        if let Some(leg) = leg.filter(|_| is_of_capture) {
            self.legs.remember(leg);
        }
        let tuple = reset.segment.tuple;
        let from_here = if comes_in { tuple.reversed() } else { tuple };
        self.translated.forget(&from_here);
        let openings = std::mem::take(&mut self.openings);
        if let Some(episode) = self.episode(key, sighting.time) {
            episode.add_reset(side, reset, Some(flow));
            let later = openings.after(key, sighting.time);
            later.for_each(|opening| episode.note_opening(&opening));
            // The kernel's word may have come first.
            let is_told = episode.accepted.is_some();
            if let Some(leg) = leg.filter(|_| ends_a_socket && !is_told) {
                self.legs.expect(leg);
            }
        }
        self.openings = openings;
    }

    /// A socket that is open takes a reset with just the number that it expects (RFC 5961 §3.2), and the
    /// kernel tells of that, unless a packet filter drops the reset or the tracing program is not run.
    fn must_be_accepted(&self, reset: &ResetSeen) -> bool {
        let is_open = reset
            .socket
            .as_ref()
            .is_some_and(|s| s.sequence().is_some());
        self.config.kernel_events
            && reset.vantage.path == Path::Ingress
            && is_open
            && reset.fit == SequenceFit::Exact
    }

    fn add_after(&mut self, key: &FlowKey, side: Side, time: Timestamp, segment: &Segment) {
        // Offline every later segment of a flow comes by here; only an open episode cares. Live, the
        // copy of a frame may overtake its reset, which took the way through a worker.
        if self.config.offline && !self.episodes.contains(key) {
            return;
        }
        if let Some(episode) = self.episode_at(key, time, false) {
            episode.add_after(
                side,
                AfterReset {
                    time,
                    segment: *segment,
                },
            );
        }
    }

    fn episode(&mut self, key: &FlowKey, time: Timestamp) -> Option<&mut Episode> {
        self.episode_at(key, time, true)
    }

    /// The open episode of a flow, or a new one; `extends` when this event lets it settle later.
    fn episode_at(
        &mut self,
        key: &FlowKey,
        time: Timestamp,
        extends: bool,
    ) -> Option<&mut Episode> {
        let settle_ns = self.config.settle_ns;
        let due = time.plus_nanos(settle_ns);
        let is_full = self.episodes.len() >= self.config.episode_capacity;
        let episode = match self.episodes.entry(*key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(_) if is_full => {
                self.counters.episodes_refused += 1;
                return None;
            }
            Entry::Vacant(place) => {
                self.queue.push(due, *key);
                place.insert(self.spare.episode(*key, time, due))
            }
        };
        if extends {
            let longest = EPISODE_NS_MAX.max(settle_ns.saturating_mul(EPISODE_SETTLES_MAX));
            episode.due = episode.due.max(due).min(episode.opened.plus_nanos(longest));
        }
        Some(episode)
    }
}

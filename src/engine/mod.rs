//! From sightings and kernel events to records. [`Engine`] gathers all resets of one flow into an
//! episode, lets it settle, has it judged, and emits one record. No I/O, no clock, no thread:
//! `run` and `read` share it. Events may arrive out of order by less than the settle time.

mod attested;
mod attribute;
mod by_flow;
mod closing;
mod compose;
mod config;
mod device;
mod due;
mod episode;
mod facts;
mod fit;
mod folding;
mod gathering;
mod hearing;
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
mod whose;

use std::collections::{HashSet, VecDeque};
use std::net::IpAddr;

use crate::evidence::{InjectorMemory, ReorderingMemory, SiblingMemory};
use crate::flow::{FlowKey, Side, TableCounters, Tracker, TrackerConfig};
use crate::record::ResetRecord;
use crate::time::Timestamp;
use crate::verdict::Verdict;
use crate::wire::Segment;
use by_flow::ByFlow;
pub use config::EngineConfig;
pub use device::{Device, IpIdMode};
use due::Due;
use episode::Episode;
use folding::Folding;
pub use hearing::Opened;
use legs::Legs;
use openings::Openings;
use resting::Resting;
use spare::Spare;
use translated::Translated;

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

/// A judged episode, for what may follow on its flow.
#[derive(Debug, Clone, Copy)]
struct Judged {
    verdict: Verdict,
    sequence: u64,
    sender: Side,
    /// Which end of the connection this host is, where one has shown itself.
    local: Option<Side>,
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
    reordering: ReorderingMemory,
    judged: ByFlow<Judged>,
    judged_order: VecDeque<FlowKey>,
    folding: Folding,
    spare: Spare,
    /// When frames were found last to have gone past unseen.
    unseen: Option<Timestamp>,
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
            judged: ByFlow::new(config.hash_key),
            config,
            tracker,
            queue: Due::default(),
            legs: Legs::default(),
            openings: Openings::default(),
            translated: Translated::default(),
            injectors: InjectorMemory::default(),
            siblings: SiblingMemory::default(),
            reordering: ReorderingMemory::default(),
            judged_order: VecDeque::new(),
            spare: Spare::default(),
            unseen: None,
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

    /// Another capture begins, whose time is another: what is open is judged, and all that was learned
    /// is forgotten. The records' numbers go on.
    pub fn begin_anew(&mut self, emit: &mut impl FnMut(ResetRecord)) {
        self.finish(emit);
        let mut fresh = Self::with_tracker(self.config.clone(), self.take_tracker());
        (fresh.sequence, fresh.counters) = (self.sequence, self.counters);
        *self = fresh;
    }

    /// Brings what is known of the flows of these segments near, where memory is far: they will be
    /// observed next. Changes nothing else.
    pub fn warm<'a>(&mut self, segments: impl Iterator<Item = &'a Segment>) {
        self.tracker.warm(segments);
    }

    /// Frames or events were lost: for the episodes that are open, absence proves nothing.
    pub fn note_loss(&mut self) {
        for episode in self.episodes.values_mut() {
            episode.lossy = true;
        }
    }

    /// SYN, FIN or RST went past unseen until `now`: a connection may have ended, and another taken its ports.
    pub const fn note_unseen(&mut self, now: Timestamp) {
        self.unseen = Some(now);
    }

    /// Time passes: what has settled is judged.
    pub fn tick(&mut self, now: Timestamp, emit: &mut impl FnMut(ResetRecord)) {
        self.resting.expire(now);
        self.unfold(Some(now), emit);
        self.legs.learn(now);
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
        let end = Timestamp::from_nanos(u64::MAX);
        self.legs.learn(end);
        while let Some(key) = self.queue.pop(end) {
            self.close(&key, true, emit);
        }
        self.unfold(None, emit);
    }
}

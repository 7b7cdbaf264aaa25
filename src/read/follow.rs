//! The first of the two threads of `read`: packets to segments, and segments into the flow table. What
//! the table tells of each goes to the engine's thread in batches, in the order of the capture. The
//! table knows nothing of records and the engine asks nothing of the table, so that what comes out is
//! what one thread would have made.

use crossbeam::channel::{Receiver, Sender};

use super::jump::Clock;
use super::tally::Tally;
use crate::engine::{Engine, Opened};
use crate::flow::{Announced, Sighting, Tracker, TrackerConfig};
use crate::pcap::{self, Reader};
use crate::record::ResetRecord;
use crate::time::{MILLISECOND, Timestamp};
use crate::vantage::{self, Vantage};
use crate::wire::Segment;

/// Packets that are looked at together: enough for the waits for memory to overlap.
const TOGETHER: usize = 32;
/// Packets of a batch: to hand one over costs as much as to follow some ten packets, and what is known
/// of the resets among so many still fits into a core's nearer caches.
const BATCH_PACKETS: usize = 512;
/// With fewer bytes than this at hand the source is asked for more, and may keep us waiting.
const PAUSE_BYTES: usize = 4096;
/// The engine is told of the passing of time in steps of this, where packets are no segments. The records
/// do not depend on it beyond that.
const TICK_NS: u64 = MILLISECOND;

/// What a packet is to the engine, beside its time.
#[derive(Debug, Clone, Copy)]
enum Step {
    Passes,
    /// The next of [`Batch::opened`].
    Opens,
    /// The next of [`Batch::sighted`].
    Sighted,
    /// Another capture begins here.
    Anew,
}

/// What some packets told.
#[derive(Debug, Default)]
pub(super) struct Batch {
    steps: Vec<(Timestamp, Step)>,
    opened: Vec<Opened>,
    sighted: Vec<Sighting>,
    /// The source may keep us waiting now: nothing else shall wait.
    pub(super) pauses: bool,
}

impl Batch {
    /// Tells an engine of all of it.
    pub(super) fn tell(&self, engine: &mut Engine, emit: &mut impl FnMut(ResetRecord)) {
        let (mut opened, mut sighted) = (self.opened.iter(), self.sighted.iter());
        for (time, step) in &self.steps {
            engine.tick(*time, emit);
            match step {
                Step::Passes => {}
                Step::Opens => opened
                    .next()
                    .into_iter()
                    .for_each(|o| engine.hear_opened(o)),
                Step::Sighted => sighted.next().into_iter().for_each(|s| engine.hear(s)),
                Step::Anew => engine.begin_anew(emit),
            }
        }
    }

    fn clear(&mut self) {
        self.steps.clear();
        self.opened.clear();
        self.sighted.clear();
    }
}

/// A packet that was read and not yet followed.
#[derive(Debug)]
struct Waiting {
    vantage: Vantage,
    is_segment: bool,
    segment: Segment,
}

/// The ends at which batches go out and come back empty.
pub(super) struct Ways {
    pub(super) batches: Sender<Batch>,
    pub(super) spent: Receiver<Batch>,
}

/// Reads a capture and follows its flows.
pub(super) struct Follower {
    reader: Reader,
    tracker: Tracker,
    table: TrackerConfig,
    clock: Clock,
    /// Times and packets that were read, as many as the former.
    times: Vec<Timestamp>,
    waiting: Box<[Waiting]>,
    /// What the table found out of the segments among those that are followed together.
    announced: Box<[Announced]>,
    batch: Batch,
    last_tick: Timestamp,
    /// Time is to pass with every packet.
    ticks_always: bool,
    tally: Tally,
}

impl Follower {
    /// `tracker` is the table to begin with, and `table` what others are made of; `ticks_always` when
    /// nothing is to wait in the engine.
    pub(super) fn new(
        reader: Reader,
        tracker: Tracker,
        table: TrackerConfig,
        ticks_always: bool,
    ) -> Self {
        let blank = || Waiting {
            vantage: vantage(0),
            is_segment: false,
            segment: Segment::BLANK,
        };
        Self {
            reader,
            tracker,
            table,
            clock: Clock::default(),
            times: Vec::with_capacity(TOGETHER),
            waiting: std::iter::repeat_with(blank).take(TOGETHER).collect(),
            announced: vec![Announced::NONE; TOGETHER].into_boxed_slice(),
            batch: Batch::default(),
            last_tick: Timestamp::default(),
            ticks_always,
            tally: Tally::default(),
        }
    }

    /// From the first packet to the last, to the damage, or until nobody listens any more.
    pub(super) fn run(mut self, ways: &Ways) -> (Tally, Result<(), pcap::Error>) {
        let mut damage = Ok(());
        let mut at_end = false;
        while !at_end {
            if let Err(error) = self.read(&mut at_end) {
                (damage, at_end) = (Err(error), true);
            }
            let pauses = at_end || self.reader.held() < PAUSE_BYTES;
            self.follow_all(at_end);
            if (pauses || self.batch.steps.len() >= BATCH_PACKETS) && !self.send(pauses, ways) {
                break;
            }
        }
        (self.tally, damage)
    }

    /// Reads packets until enough wait, the source may keep us waiting, or there are no more.
    fn read(&mut self, at_end: &mut bool) -> Result<(), pcap::Error> {
        while let Some(slot) = self.waiting.get_mut(self.times.len()) {
            let Some(packet) = self.reader.next_packet()? else {
                *at_end = true;
                return Ok(());
            };
            self.times.push(packet.time);
            slot.vantage = vantage(packet.interface.0);
            slot.is_segment = self.tally.packet(&packet, &mut slot.segment);
            if self.reader.held() < PAUSE_BYTES {
                break;
            }
        }
        Ok(())
    }

    /// Follows what waits, but for the little that may belong to another capture.
    fn follow_all(&mut self, is_all: bool) {
        while !self.times.is_empty() {
            let cut = self.clock.cut(&self.times, is_all);
            self.follow(cut.count);
            if cut.begins_anew {
                self.tracker = Tracker::for_capture(self.table);
                self.last_tick = Timestamp::default();
                self.batch.steps.push((Timestamp::default(), Step::Anew));
            } else {
                return;
            }
        }
    }

    fn follow(&mut self, count: usize) {
        let waiting = self.waiting.get(..count).unwrap_or_default();
        let segments = waiting.iter().filter(|packet| packet.is_segment);
        let segments = segments.map(|packet| &packet.segment);
        self.tracker.warm_and_keep(segments, &mut self.announced);
        let mut announced = self.announced.iter();
        for (time, packet) in self.times.drain(..count).zip(waiting) {
            // A time that jumped back a little is a new time too. The engine copes with either.
            let is_new = time < self.last_tick || time.since(self.last_tick) >= TICK_NS;
            let ticks = is_new || self.ticks_always;
            if ticks {
                self.last_tick = time;
            }
            if packet.is_segment {
                let known = announced.next().unwrap_or(&Announced::NONE);
                let step = follow(&mut self.tracker, &mut self.batch, time, (packet, known));
                self.batch.steps.push((time, step));
            } else if ticks {
                self.batch.steps.push((time, Step::Passes));
            }
        }
        // Those that wait on stand at the beginning.
        self.waiting.rotate_left(count % TOGETHER);
    }

    /// Hands the batch over; `false` when nobody takes it.
    fn send(&mut self, pauses: bool, ways: &Ways) -> bool {
        let mut next = ways.spent.try_recv().unwrap_or_default();
        next.clear();
        let mut batch = std::mem::replace(&mut self.batch, next);
        batch.pauses = pauses;
        ways.batches.send(batch).is_ok()
    }
}

#[inline]
fn follow(
    tracker: &mut Tracker,
    batch: &mut Batch,
    time: Timestamp,
    (packet, known): (&Waiting, &Announced),
) -> Step {
    let segment = &packet.segment;
    let vantage = packet.vantage;
    if let Some(sighting) = tracker.observe_announced(time, vantage, segment, known, None) {
        batch.sighted.push(sighting);
        return Step::Sighted;
    }
    if segment.flags.syn() && !segment.flags.ack() {
        batch.opened.push(Opened::by(segment, time));
        return Step::Opens;
    }
    Step::Passes
}

const fn vantage(interface: u16) -> Vantage {
    Vantage {
        interface: vantage::InterfaceId(interface),
        path: vantage::Path::Capture,
    }
}

//! What a worker asks of whoever remembers connections: the flow table of the program, or a test's
//! stand-in. It knows of segments and flows only, nothing of frames or rings.

use crate::flow::{
    Announced, Confirmed, PassedFlow, PassedReset, Sighting, TableCounters, Tracker,
};
use crate::host::SocketView;
use crate::time::Timestamp;
use crate::vantage::Vantage;
use crate::wire::{FourTuple, Glance, Segment};

/// Who is told of every segment.
pub trait Observe {
    /// One segment in order of arrival; answers what a verdict may need.
    fn observe(
        &mut self,
        time: Timestamp,
        vantage: Vantage,
        segment: &Segment,
        socket: Option<SocketView>,
    ) -> Option<Sighting>;

    /// The same of a segment that was announced, with what was answered then.
    fn observe_announced(
        &mut self,
        time: Timestamp,
        vantage: Vantage,
        segment: &Segment,
        _announced: &Announced,
        socket: Option<SocketView>,
    ) -> Option<Sighting> {
        self.observe(time, vantage, segment, socket)
    }

    /// What was seen at a glance of a segment that was announced and is no reset. `false` when that is not
    /// enough; then nothing was done, and all of it is to be observed.
    fn observe_glance(
        &mut self,
        _time: Timestamp,
        _vantage: Vantage,
        _glance: &Glance,
        _announced: &Announced,
    ) -> bool {
        false
    }

    /// Segments between these ends will be observed soon. Goes through all of them; what was found out for that is
    /// written over each `Announced`, and what leads to their flows is brought near. Changes nothing that a
    /// verdict could see, nor does the next one.
    fn announce<'a>(&mut self, segments: impl Iterator<Item = (&'a FourTuple, &'a mut Announced)>) {
        segments.for_each(drop);
    }

    /// Brings near the flows of segments that were announced.
    fn reach<'a>(&mut self, _announced: impl Iterator<Item = &'a Announced>) {}

    /// The kernel says that this connection's handshake is complete. It may not be known here.
    fn confirm(&mut self, _confirmed: &Confirmed) {}

    /// A reset went past the worker, by a closed gate. Answers what it would have met here.
    fn note_passed(&mut self, _reset: &PassedReset) -> Option<PassedFlow> {
        None
    }

    /// What its flow table did so far.
    fn table(&self) -> TableCounters {
        TableCounters::default()
    }
}

impl Observe for Tracker {
    #[inline]
    fn observe(
        &mut self,
        time: Timestamp,
        vantage: Vantage,
        segment: &Segment,
        socket: Option<SocketView>,
    ) -> Option<Sighting> {
        // Inlined down to where a frame needs no sighting, whose kilobyte would be moved else.
        Self::observe(self, time, vantage, segment, socket)
    }

    #[inline]
    fn observe_announced(
        &mut self,
        time: Timestamp,
        vantage: Vantage,
        segment: &Segment,
        announced: &Announced,
        socket: Option<SocketView>,
    ) -> Option<Sighting> {
        Self::observe_announced(self, time, vantage, segment, announced, socket)
    }

    #[inline]
    fn observe_glance(
        &mut self,
        time: Timestamp,
        vantage: Vantage,
        glance: &Glance,
        announced: &Announced,
    ) -> bool {
        Self::observe_glance(self, time, vantage, glance, announced)
    }

    #[inline]
    fn announce<'a>(&mut self, segments: impl Iterator<Item = (&'a FourTuple, &'a mut Announced)>) {
        self.announce_all(segments);
    }

    #[inline]
    fn reach<'a>(&mut self, announced: impl Iterator<Item = &'a Announced>) {
        self.reach_all(announced);
    }

    fn confirm(&mut self, confirmed: &Confirmed) {
        Self::confirm(self, confirmed);
    }

    fn note_passed(&mut self, reset: &PassedReset) -> Option<PassedFlow> {
        Self::note_passed(self, reset)
    }

    fn table(&self) -> TableCounters {
        self.counters()
    }
}

//! What a worker does with one frame's bytes. A pure function, without rings, so that a test or a
//! fuzzer can call it; whatever it answers, the frame goes back to the host.

use crate::flow::{Sighting, TableCounters, Tracker};
use crate::host::SocketView;
use crate::host_bytes;
use crate::time::Timestamp;
use crate::vantage::Vantage;
use crate::wire::{self, LinkLayer, Reject, Segment};

/// Bytes of `struct frame_meta` (bpf/shared.h), which stands right before a frame.
pub const META_BYTES: usize = crate::host_bytes::FRAME_META_LEN;

/// Who is told of every segment. The flow table of the program, or a test's stand-in.
pub trait Observe {
    /// One segment in order of arrival; answers what a verdict may need.
    fn observe(
        &mut self,
        time: Timestamp,
        vantage: Vantage,
        segment: &Segment,
        socket: Option<SocketView>,
    ) -> Option<Sighting>;

    /// What its flow table did so far.
    fn table(&self) -> TableCounters {
        TableCounters::default()
    }
}

impl Observe for Tracker {
    fn observe(
        &mut self,
        time: Timestamp,
        vantage: Vantage,
        segment: &Segment,
        socket: Option<SocketView>,
    ) -> Option<Sighting> {
        Self::observe(self, time, vantage, segment, socket)
    }

    fn table(&self) -> TableCounters {
        self.counters()
    }
}

/// What came of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Examined {
    /// The sighting, nothing to tell, or the reason why the frame is no segment.
    pub outcome: Result<Option<Sighting>, Reject>,
    /// When it arrived, as `steer` says; the worker's time where it does not.
    pub time: Timestamp,
    /// `steer` had put metadata before it.
    pub had_meta: bool,
}

/// Reads one frame and tells `observer` of it.
///
/// `now` stands in for the frame's own time where `meta_bytes` holds no metadata.
pub fn examine<O: Observe>(
    observer: &mut O,
    now: Timestamp,
    vantage: Vantage,
    bytes: &[u8],
    meta_bytes: Option<&[u8]>,
) -> Examined {
    let meta = meta_bytes.and_then(host_bytes::frame_meta);
    let (time, socket) = meta.unwrap_or((now, None));
    let outcome = wire::parse(LinkLayer::Ethernet, bytes)
        .map(|segment| observer.observe(time, vantage, &segment, socket));
    Examined {
        outcome,
        time,
        had_meta: meta.is_some(),
    }
}

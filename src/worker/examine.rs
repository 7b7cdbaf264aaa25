//! What a worker does with one frame's bytes: reads it, and tells the flow table of it. Pure
//! functions, without rings, so that a test or a fuzzer can call them; whatever they answer, the
//! frame goes back to the host. A worker reads all frames of a batch before it tells of any, so that
//! the flow table can fetch what it will need from memory meanwhile.

use crate::flow::{Confirmed, PassedReset, Sighting, TableCounters, Tracker};
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

    /// These segments will be observed next, in this order: time to bring near what is known of
    /// their flows. Changes nothing that a verdict could see.
    fn warm<'a>(&mut self, _segments: impl Iterator<Item = &'a Segment>)
    where
        Self: Sized,
    {
    }

    /// The kernel says that this connection's handshake is complete. It may not be known here.
    fn confirm(&mut self, _confirmed: &Confirmed) {}

    /// A reset went past the worker, by a closed gate.
    fn note_passed(&mut self, _reset: &PassedReset) {}

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

    fn warm<'a>(&mut self, segments: impl Iterator<Item = &'a Segment>) {
        Self::warm(self, segments);
    }

    fn confirm(&mut self, confirmed: &Confirmed) {
        Self::confirm(self, confirmed);
    }

    fn note_passed(&mut self, reset: &PassedReset) {
        Self::note_passed(self, reset);
    }

    fn table(&self) -> TableCounters {
        self.counters()
    }
}

/// One frame as it was read, before anybody is told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parsed {
    /// The segment, or the reason why the frame is none.
    pub segment: Result<Segment, Reject>,
    /// When it arrived, as `steer` says; the worker's time where it does not.
    pub time: Timestamp,
    /// The local socket that it met, where `steer` could ask.
    pub socket: Option<SocketView>,
    /// `steer` had put metadata before it.
    pub had_meta: bool,
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

/// Reads one frame. `now` stands in for its own time where `meta_bytes` holds no metadata.
#[must_use]
#[inline]
pub fn read_frame(now: Timestamp, bytes: &[u8], meta_bytes: Option<&[u8]>) -> Parsed {
    let meta = meta_bytes.and_then(host_bytes::frame_meta);
    let (time, socket) = meta.unwrap_or((now, None));
    Parsed {
        segment: wire::parse(LinkLayer::Ethernet, bytes),
        time,
        socket,
        had_meta: meta.is_some(),
    }
}

/// Tells `observer` of one frame; what it answers goes to `found`. It is a kilobyte that most frames
/// do not have, and is not to be moved about for them.
///
/// # Errors
///
/// Why the frame is no segment; then there was nothing to tell.
#[inline]
pub fn observe_frame<O: Observe>(
    observer: &mut O,
    vantage: Vantage,
    parsed: &Parsed,
    found: impl FnOnce(Sighting),
) -> Result<(), Reject> {
    match &parsed.segment {
        Ok(segment) => {
            if let Some(sighting) = observer.observe(parsed.time, vantage, segment, parsed.socket) {
                found(sighting);
            }
            Ok(())
        }
        Err(reject) => Err(*reject),
    }
}

/// Both for a single frame.
pub fn examine<O: Observe>(
    observer: &mut O,
    now: Timestamp,
    vantage: Vantage,
    bytes: &[u8],
    meta_bytes: Option<&[u8]>,
) -> Examined {
    let parsed = read_frame(now, bytes, meta_bytes);
    let mut sighting = None;
    let told = observe_frame(observer, vantage, &parsed, |found| sighting = Some(found));
    Examined {
        outcome: told.map(|()| sighting),
        time: parsed.time,
        had_meta: parsed.had_meta,
    }
}

//! What a worker does with one frame's bytes: reads it, and tells the flow table of it. Pure
//! functions, without rings, so that a test or a fuzzer can call them; whatever they answer, the
//! frame goes back to the host. A worker reads all frames of a batch before it tells of any, and announces
//! each as soon as it was read, so that the flow table can fetch what it will need from memory meanwhile.

use crate::flow::{Confirmed, PassedFlow, PassedReset, Sighting, TableCounters, Tracker};
use crate::host::SocketView;
use crate::host_bytes;
use crate::sys::bring_near;
use crate::time::Timestamp;
use crate::vantage::Vantage;
use crate::wire::{self, Reject, Segment};

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

    /// This segment will be observed soon, in the order of these calls: time to bring near what is
    /// known of its flow. Changes nothing that a verdict could see.
    fn announce(&mut self, _segment: &Segment) {}

    /// No more segments will be announced before those that were are observed.
    fn announced(&mut self) {}

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
    fn announce(&mut self, segment: &Segment) {
        Self::announce(self, segment);
    }

    #[inline]
    fn announced(&mut self) {
        Self::announced(self);
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

impl Parsed {
    /// A place for what will be read.
    pub const BLANK: Self = Self {
        segment: Ok(Segment::BLANK),
        time: Timestamp::from_nanos(0),
        socket: None,
        had_meta: false,
    };
}

/// Bytes of a frame's front in which all its headers stand: Ethernet, IPv6, TCP with options.
const FRONT_BYTES: usize = 14 + 40 + 60;

/// Brings a frame near that will be read soon. The kernel wrote it, perhaps on another CPU.
#[inline]
pub fn fetch_frame(bytes: &[u8], meta_bytes: Option<&[u8]>) {
    bring_near(bytes.get(..FRONT_BYTES).unwrap_or(bytes));
    if let Some(meta) = meta_bytes {
        // Its last line is the one in which the frame begins.
        bring_near(meta);
    }
}

/// Reads one frame over what `parsed` held. `now` stands in for its own time where `meta_bytes`
/// holds no metadata.
#[inline]
pub fn read_frame(now: Timestamp, bytes: &[u8], meta_bytes: Option<&[u8]>, parsed: &mut Parsed) {
    parsed.had_meta = meta_bytes.is_some_and(|before| {
        host_bytes::read_frame_meta(before, &mut parsed.time, &mut parsed.socket)
    });
    if !parsed.had_meta {
        parsed.time = now;
        parsed.socket = None;
    }
    if parsed.segment.is_err() {
        parsed.segment = Ok(Segment::BLANK);
    }
    if let Ok(segment) = &mut parsed.segment
        && let Err(reject) = wire::parse_into(bytes, segment)
    {
        parsed.segment = Err(reject);
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
    let mut parsed = Parsed::BLANK;
    read_frame(now, bytes, meta_bytes, &mut parsed);
    let mut sighting = None;
    let told = observe_frame(observer, vantage, &parsed, |found| sighting = Some(found));
    Examined {
        outcome: told.map(|()| sighting),
        time: parsed.time,
        had_meta: parsed.had_meta,
    }
}

//! What a worker does with one frame's bytes: reads it, and tells the flow table of it. Pure
//! functions, without rings, so that a test or a fuzzer can call them; whatever they answer, the
//! frame goes back to the host. Of the frames that nearly all are no more is read than the flow table
//! needs ([`Glance`]); of the others, and where that is not enough, all. A worker announces each frame as soon
//! as it was read and tells of it some frames later, so that the flow table can fetch what it will need
//! from memory meanwhile.

use super::Observe;
use crate::flow::{Announced, Sighting};
use crate::host::SocketView;
use crate::host_bytes;
use crate::sys::bring_line_near;
use crate::time::Timestamp;
use crate::vantage::Vantage;
use crate::wire::{self, Flags, FourTuple, Glance, Reject, Segment};

/// Bytes of `struct frame_meta` (bpf/shared.h), which stands right before a frame.
pub const META_BYTES: usize = crate::host_bytes::FRAME_META_LEN;

/// One frame as far as it was read, before anybody is told of it. Small, since those of a batch and the
/// lines of its flows are to stay in the first level cache together.
#[derive(Debug, Clone, Copy)]
pub struct Parsed {
    /// What a flow table remembers of it, if it is a segment.
    glance: Glance,
    kind: Kind,
    /// `steer` had put metadata before it.
    pub had_meta: bool,
    /// When it arrived, as `steer` says; the worker's time where it does not.
    pub time: Timestamp,
    /// What was found out when it was announced, if it was.
    announced: Announced,
}

/// What a frame was found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A segment, which may be known at a glance.
    Usual,
    /// A segment, of which all is to be read.
    Other,
    /// None.
    Rejected(Reject),
}

/// What else than the flow table asks of a segment.
#[derive(Debug, Clone, Copy)]
pub struct Headers<'a> {
    /// Addresses and ports.
    pub tuple: &'a FourTuple,
    /// Control bits.
    pub flags: Flags,
    /// It has payload.
    pub has_data: bool,
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
        glance: Glance::BLANK,
        kind: Kind::Other,
        had_meta: false,
        time: Timestamp::from_nanos(0),
        announced: Announced::NONE,
    };

    /// Ends, flags and payload; `None` for what is no segment.
    #[must_use]
    #[inline]
    pub fn headers(&self) -> Option<Headers<'_>> {
        let Glance { tuple, flags, .. } = &self.glance;
        let is_segment = !matches!(self.kind, Kind::Rejected(_));
        is_segment.then_some(Headers {
            tuple,
            flags: *flags,
            has_data: self.glance.has_data(),
        })
    }

    /// Reads all of the frame, and keeps what others ask for.
    #[inline(never)]
    fn read_whole(&mut self, bytes: &[u8]) {
        let mut segment = Segment::BLANK;
        match wire::parse_into(bytes, &mut segment) {
            Ok(()) => {
                self.glance.set_headers(&segment);
                self.kind = Kind::Other;
            }
            Err(reject) => self.kind = Kind::Rejected(reject),
        }
    }

    /// What is to be announced of it: the ends of a segment, and where to write what is found out of them.
    #[inline]
    fn announcement(&mut self) -> Option<(&FourTuple, &mut Announced)> {
        let is_segment = !matches!(self.kind, Kind::Rejected(_));
        is_segment.then_some((&self.glance.tuple, &mut self.announced))
    }
}

/// A byte in the last line of what nearly all frames have of headers: Ethernet, IPv6, TCP, the options of a
/// Linux SYN.
const LAST_BYTE: usize = 14 + 40 + 20 + 20 - 1;

/// Brings a frame near that will be read soon. The kernel wrote it, perhaps on another CPU.
#[inline]
pub fn fetch_frame(bytes: &[u8], meta_bytes: Option<&[u8]>) {
    // A frame with no options ends earlier: in the line before, or a prefetch too many.
    if let (Some(first), Some(last)) = (bytes.first(), bytes.get(LAST_BYTE).or(bytes.last())) {
        bring_line_near(first);
        bring_line_near(last);
    }
    // Its time stands in the line in which the frame begins, or the one before; its socket is asked for by
    // few.
    if let Some(last) = meta_bytes.and_then(<[u8]>::last) {
        bring_line_near(last);
    }
}

/// Reads one frame over what `parsed` held. `now` stands in for its own time where `meta_bytes`
/// holds no metadata.
#[inline]
pub fn read_frame(now: Timestamp, bytes: &[u8], meta_bytes: Option<&[u8]>, parsed: &mut Parsed) {
    parsed.had_meta =
        meta_bytes.is_some_and(|before| host_bytes::read_frame_time(before, &mut parsed.time));
    if !parsed.had_meta {
        parsed.time = now;
    }
    parsed.announced.clear();
    parsed.kind = Kind::Usual;
    if !parsed.glance.read(bytes) {
        parsed.read_whole(bytes);
    } else if parsed.glance.flags.rst() {
        // Its sighting has all of it, and is read when it is told of.
        parsed.kind = Kind::Other;
    }
}

/// The frames of a batch, and who wants to know what came of them.
pub trait Batch {
    /// The frame's bytes, and those before it where its metadata may stand.
    fn frame(&self, at: usize) -> (&[u8], Option<&[u8]>);

    /// Nothing of it is needed any more.
    fn was_read(&mut self, _at: usize) {}

    /// What came of the frame: nothing to tell, or the reason why it is no segment.
    fn told(&mut self, parsed: &Parsed, told: Result<(), Reject>);

    /// A sighting came of a frame. It is a kilobyte that most frames do not have, and is not to be
    /// moved about for them.
    fn found(&mut self, sighting: Sighting);
}

/// Takes in a batch: reads all frames into their places and announces them to `observer`, has it fetch what
/// it will need of each, and tells of them, in the order of arrival. `now` stands in for the time of a
/// frame without metadata.
///
/// Tags and addresses are fetched as soon as a frame was read, since reading needs nothing from afar; then the
/// flows, in a loop of their own. When these fetches stood among the telling, at whatever distance, a frame
/// took a seventh longer (benches/runs/2026-11-21-frame).
#[inline]
pub fn take_in<O: Observe, B: Batch>(
    observer: &mut O,
    (now, vantage): (Timestamp, Vantage),
    batch: &mut B,
    places: &mut [Parsed],
) {
    let read = places.iter_mut().enumerate().filter_map(|(at, parsed)| {
        let (bytes, meta_bytes) = batch.frame(at);
        read_frame(now, bytes, meta_bytes, parsed);
        parsed.announcement()
    });
    observer.announce(read);
    observer.reach(places.iter().map(|parsed| &parsed.announced));
    for (at, parsed) in places.iter().enumerate() {
        let told = observe_frame(observer, vantage, parsed, batch, at);
        batch.was_read(at);
        batch.told(parsed, told);
    }
}

/// Tells `observer` of one frame; what it answers goes to the batch.
#[inline]
fn observe_frame<O: Observe, B: Batch>(
    observer: &mut O,
    vantage: Vantage,
    parsed: &Parsed,
    batch: &mut B,
    at: usize,
) -> Result<(), Reject> {
    let (glance, announced) = (&parsed.glance, &parsed.announced);
    if parsed.kind == Kind::Usual
        && observer.observe_glance(parsed.time, vantage, glance, announced)
    {
        return Ok(());
    }
    observe_whole(observer, vantage, parsed, batch, at)
}

#[inline(never)]
fn observe_whole<O: Observe, B: Batch>(
    observer: &mut O,
    vantage: Vantage,
    parsed: &Parsed,
    batch: &mut B,
    at: usize,
) -> Result<(), Reject> {
    if let Kind::Rejected(reject) = parsed.kind {
        return Err(reject);
    }
    let (bytes, meta_bytes) = batch.frame(at);
    let mut segment = Segment::BLANK;
    wire::parse_into(bytes, &mut segment)?;
    let socket = socket_before(meta_bytes);
    let (time, announced) = (parsed.time, &parsed.announced);
    let sighting = observer.observe_announced(time, vantage, &segment, announced, socket);
    if let Some(sighting) = sighting {
        batch.found(sighting);
    }
    Ok(())
}

/// The local socket that a frame met, where `steer` could ask.
fn socket_before(meta_bytes: Option<&[u8]>) -> Option<SocketView> {
    host_bytes::frame_meta(meta_bytes?)?.1
}

/// The same for a single frame, which is not announced.
pub fn examine<O: Observe>(
    observer: &mut O,
    now: Timestamp,
    vantage: Vantage,
    bytes: &[u8],
    meta_bytes: Option<&[u8]>,
) -> Examined {
    let mut parsed = Parsed::BLANK;
    read_frame(now, bytes, meta_bytes, &mut parsed);
    let Parsed { time, had_meta, .. } = parsed;
    let mut segment = Segment::BLANK;
    let read = wire::parse_into(bytes, &mut segment);
    let socket = socket_before(meta_bytes);
    Examined {
        outcome: read.map(|()| observer.observe(time, vantage, &segment, socket)),
        time,
        had_meta,
    }
}

#[cfg(test)]
mod tests {
    use super::{Batch, Parsed, examine, take_in};
    use crate::flow::{Sighting, Tracker, TrackerConfig};
    use crate::time::Timestamp;
    use crate::vantage::{InterfaceId, Path, Vantage};
    use crate::wire::Reject;

    const VANTAGE: Vantage = Vantage {
        interface: InterfaceId(0),
        path: Path::Ingress,
    };

    /// How many batches, of how many frames at most (a power of two, less 1), and how many sightings they bring
    /// at least. Under Miri, a frame takes a second.
    const ROUNDS: (u64, u8, usize) = if cfg!(miri) {
        (6, 15, 5)
    } else {
        (300, 63, 2_100)
    };

    struct Frames {
        frames: Vec<Vec<u8>>,
        found: Vec<Sighting>,
        rejects: Vec<Option<Reject>>,
    }

    impl Batch for Frames {
        fn frame(&self, at: usize) -> (&[u8], Option<&[u8]>) {
            (&self.frames[at], None)
        }

        fn told(&mut self, _: &Parsed, told: Result<(), Reject>) {
            self.rejects.push(told.err());
        }

        fn found(&mut self, sighting: Sighting) {
            self.found.push(sighting);
        }
    }

    /// xorshift64*: seeded, so that a failure comes again.
    fn roll(state: &mut u64) -> u8 {
        *state ^= *state >> 12;
        *state ^= *state << 25;
        *state ^= *state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_be_bytes()[0]
    }

    /// A frame of one of a few flows, from either end: SYN, SYN-ACK, FIN, with or without payload, resets;
    /// some that is no TCP.
    fn frame(dice: &mut u64) -> Vec<u8> {
        const STAMPS: [u8; 12] = [1, 1, 8, 10, 0, 0, 1, 7, 0, 0, 0, 9];
        const FLAGS: [u8; 8] = [2, 2, 0x12, 0x11, 0x11, 0x19, 4, 0x14];
        let options = if roll(dice) < 128 { &STAMPS[..] } else { &[] };
        let payload = if roll(dice) < 40 { &b"data"[..] } else { &[] };
        let mut ends = [[100, 0, 0, roll(dice) & 3], [10, 0, 0, 1]];
        let mut ports = [[0x9c, roll(dice) & 7], [1, 0xbb]];
        if roll(dice) < 40 {
            ends.reverse();
            ports.reverse();
        }
        let mut tcp = ports.concat();
        tcp.extend([0, 0, 0, roll(dice) & 1, 0, 0, 0, 9]);
        let data_offset = if options.is_empty() { 0x50 } else { 0x80 };
        let flags = FLAGS[usize::from(roll(dice) & 7)];
        tcp.extend([data_offset, flags, 0xfa, 0xf0, 0, 0, 0, 0]);
        tcp.extend(options);
        tcp.extend(payload);
        let mut bytes = vec![
            2,
            0,
            0,
            0,
            0,
            1,
            2,
            0,
            0,
            0,
            0,
            roll(dice) & 1,
            8,
            0,
            0x45,
            0,
        ];
        bytes.extend(u16::try_from(20 + tcp.len()).unwrap().to_be_bytes());
        let protocol = if roll(dice) < 8 { 17 } else { 6 };
        let hop_limit = 57 + (roll(dice) & 1);
        bytes.extend([0, roll(dice) & 3, 0x40, 0, hop_limit, protocol, 0, 0]);
        bytes.extend(ends.concat());
        bytes.extend(tcp);
        bytes
    }

    /// A glance, and what was found out ahead, change nothing of what comes of a frame.
    #[test]
    fn a_batch_brings_the_sightings_that_its_frames_bring_one_by_one() {
        let config = TrackerConfig {
            capacity: 64,
            key: [3, 5],
        };
        let (mut ahead, mut alone) = (Tracker::new(config), Tracker::new(config));
        let mut parsed = vec![Parsed::BLANK; 64];
        let (mut dice, mut sightings) = (7, 0);
        let (rounds, most, least) = ROUNDS;
        for round in 1..rounds {
            let now = Timestamp::from_nanos(round << 30);
            let count = usize::from(roll(&mut dice) & most);
            let mut batch = Frames {
                frames: (0..count).map(|_| frame(&mut dice)).collect(),
                found: Vec::new(),
                rejects: Vec::new(),
            };
            take_in(&mut ahead, (now, VANTAGE), &mut batch, &mut parsed[..count]);
            let one_by_one = batch.frames.iter();
            let outcomes: Vec<_> = one_by_one
                .map(|bytes| examine(&mut alone, now, VANTAGE, bytes, None).outcome)
                .collect();
            let rejects: Vec<_> = outcomes.iter().map(|outcome| outcome.err()).collect();
            let found: Vec<_> = outcomes.iter().flatten().flatten().copied().collect();
            assert_eq!(batch.rejects, rejects);
            assert_eq!(batch.found, found);
            assert_eq!(ahead.memory(), alone.memory());
            assert_eq!(ahead.counters(), alone.counters());
            sightings += found.len();
        }
        assert!(sightings > least, "{sightings} sightings");
    }
}

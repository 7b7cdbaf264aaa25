//! What one end of a connection looked like before the reset: the baseline that a reset is held
//! against. Resets never enter it, nor does what came after one.

use super::PathFacts;
use super::prefix::STALE_AFTER_NS;
use crate::time::Timestamp;
use crate::wire::{Flags, FourTuple, Mac, Options, Segment, SeqNum, Timestamps};

/// How many different hop limits of one end are remembered. Anycast and load balancer fronts show
/// two or three (evidence notes §12: at most four modes); a fifth replaces the rarest.
pub const HOP_LIMIT_MODES: usize = 4;

/// A value and how often it was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mode {
    /// The hop limit.
    pub hop_limit: u8,
    /// Always 0: with it a mode is written and read in one piece.
    spare: u8,
    /// Segments that had it; 0 marks an unused slot.
    pub count: u16,
}

impl Mode {
    /// A hop limit that so many segments had.
    #[must_use]
    pub const fn new(hop_limit: u8, count: u16) -> Self {
        Self {
            hop_limit,
            spare: 0,
            count,
        }
    }
}

/// The hop limits of one end, most of them one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HopLimits(pub [Mode; HOP_LIMIT_MODES]);

impl HopLimits {
    /// Those of one segment.
    pub(super) fn of(hop_limit: u8) -> Self {
        let first = Mode::new(hop_limit, 1);
        let none = Mode::default();
        Self([first, none, none, none])
    }

    /// Counts one segment's hop limit, when it is the first value that was ever seen: most often.
    #[inline]
    pub(super) fn note_first(&mut self, hop_limit: u8) -> bool {
        let [first, ..] = &mut self.0;
        let is_first = first.count > 0 && first.hop_limit == hop_limit;
        if is_first {
            first.count = first.count.saturating_add(1);
        }
        is_first
    }

    /// Counts one segment's hop limit.
    pub fn note(&mut self, hop_limit: u8) {
        if let Some(mode) = self
            .0
            .iter_mut()
            .find(|m| m.count > 0 && m.hop_limit == hop_limit)
        {
            mode.count = mode.count.saturating_add(1);
            return;
        }
        if let Some(rarest) = self.0.iter_mut().min_by_key(|mode| mode.count) {
            *rarest = Mode::new(hop_limit, 1);
        }
    }

    /// The values seen, with their counts.
    pub fn modes(&self) -> impl Iterator<Item = Mode> + '_ {
        self.0.iter().copied().filter(|mode| mode.count > 0)
    }

    /// The value seen most.
    #[must_use]
    pub fn usual(&self) -> Option<u8> {
        self.modes()
            .max_by_key(|mode| mode.count)
            .map(|mode| mode.hop_limit)
    }

    /// The known value that is nearest to `hop_limit`.
    #[must_use]
    pub fn nearest(&self, hop_limit: u8) -> Option<u8> {
        self.modes()
            .map(|m| m.hop_limit)
            .min_by_key(|known| known.abs_diff(hop_limit))
    }
}

/// The SYN or SYN-ACK that this end sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SynFacts {
    /// When the first copy was seen.
    pub time: Timestamp,
    /// It carried ACK: this end is the responder.
    pub is_syn_ack: bool,
    /// Its sequence number: the ISN.
    pub isn: SeqNum,
    /// The acknowledgement number of a SYN-ACK. A live sensor forgets it once more of that end was
    /// heard.
    pub ack: Option<SeqNum>,
    /// Its IP ID. A Linux SYN-ACK always has 0 (`ip_build_and_send_pkt`), so that only a SYN's
    /// is a baseline.
    pub ip_id: Option<u16>,
    /// Its hop limit.
    pub hop_limit: u8,
    /// Its Don't Fragment bit.
    pub dont_fragment: Option<bool>,
    /// Its window, which is never scaled.
    pub window: u16,
    /// Its options.
    pub options: Options,
    /// Its flow label.
    pub flow_label: Option<u32>,
    /// How many copies were seen, retransmissions included.
    pub count: u16,
}

impl SynFacts {
    /// The SYN-ACK that it was, as far as it is remembered; `None` for a SYN, and where it is not known what it
    /// acknowledged.
    #[must_use]
    pub fn as_syn_ack(&self, tuple: FourTuple) -> Option<Segment> {
        Some(Segment {
            tuple,
            hop_limit: self.hop_limit,
            ip_id: self.ip_id,
            dont_fragment: self.dont_fragment,
            flow_label: self.flow_label,
            seq: self.isn,
            ack: self.ack.filter(|_| self.is_syn_ack)?,
            flags: Flags(Flags::SYN | Flags::ACK),
            window: self.window,
            options: self.options,
            ..Segment::BLANK
        })
    }
}

/// What one end looked like, from its SYN, SYN-ACK and FIN, and from other segments where the
/// sensor saw them (a capture file; the few after an earlier reset).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HalfFlow {
    /// Time of the first segment.
    pub first_seen: Timestamp,
    /// Time of the last.
    pub last_seen: Timestamp,
    /// Segments seen that are not resets.
    pub segments: u32,
    /// Its SYN or SYN-ACK.
    pub syn: Option<SynFacts>,
    /// Hop limits.
    pub hop_limits: HopLimits,
    /// Source MAC of the last segment.
    pub mac: Option<Mac>,
    /// Segments in a row that had this MAC.
    pub mac_count: u16,
    /// VLAN of the last segment.
    pub vlan: Option<u16>,
    /// IP ID of the last segment whose ID was not 0.
    pub ip_id: Option<u16>,
    /// How often an IP ID followed its predecessor by 1 to 64: this end counts.
    pub ip_id_steps: u16,
    /// How often it did not.
    pub ip_id_jumps: u16,
    /// Don't Fragment was seen set, and seen clear.
    pub dont_fragment: (bool, bool),
    /// The highest sequence number after its data (SEG.SEQ + SEG.LEN).
    pub end: Option<SeqNum>,
    /// The highest acknowledgement number that it sent.
    pub acked: Option<SeqNum>,
    /// Window of the last segment, raw.
    pub window: u16,
    /// Timestamps of the last segment that had them, and when.
    pub timestamps: Option<(Timestamp, Timestamps)>,
    /// Sequence number of its FIN.
    pub fin: Option<SeqNum>,
    /// It sent payload.
    pub has_data: bool,
    /// Same frame seen again within microseconds: this capture holds frames more than once.
    pub duplicates: u16,
}

impl HalfFlow {
    /// Whether it was silent for so long by `now` that what it showed witnesses nothing any more, as what an
    /// address did.
    #[must_use]
    pub const fn is_stale(&self, now: Timestamp) -> bool {
        now.since(self.last_seen) >= STALE_AFTER_NS
    }
}

/// A snapshot of both ends at one moment, with the side that matters first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FlowFacts {
    /// The end that sent the segment in question.
    pub sender: Option<HalfFlow>,
    /// The other end.
    pub receiver: Option<HalfFlow>,
    /// Other traffic from the sender's address and network.
    pub path: Option<PathFacts>,
    /// The sender of this segment also sent the connection's first SYN; `None` when no SYN and no
    /// SYN-ACK was seen.
    pub sender_is_originator: Option<bool>,
    /// The handshake is known to be complete (the kernel said so, or data or a FIN was seen).
    pub established: bool,
    /// When the flow's first segment was seen.
    pub first_seen: Option<Timestamp>,
    /// It is of two connections that have one four-tuple, and which of them a segment is of is not known.
    pub of_two: bool,
}

impl FlowFacts {
    /// These, completed by what a worker saw of the same flow: what came in by it is nearer to the
    /// truth of the sender than what the engine's own table has.
    #[must_use]
    pub fn completed(self, worker: &Self) -> Self {
        Self {
            sender: worker.sender.or(self.sender),
            receiver: self.receiver.or(worker.receiver),
            path: worker.path.or(self.path),
            sender_is_originator: worker.sender_is_originator.or(self.sender_is_originator),
            established: self.established || worker.established,
            first_seen: match (self.first_seen, worker.first_seen) {
                (Some(ours), Some(theirs)) => Some(ours.min(theirs)),
                (ours, theirs) => ours.or(theirs),
            },
            of_two: self.of_two || worker.of_two,
        }
    }
}

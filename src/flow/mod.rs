//! What we remember of a connection. [`Tracker`] is the part that each worker owns: it folds every
//! segment into the flow table and hands out a [`Sighting`] for those that a verdict may need,
//! with a snapshot of what the flow looked like *before*.

mod ahead;
mod baseline;
mod capture;
mod carriers;
mod closings;
mod family;
mod fold;
mod half;
mod hash;
mod index;
mod key;
mod learned;
mod looks;
mod packed;
mod path;
mod prefix;
mod quick;
mod seconds;
mod store;
mod take_in;
#[cfg(test)]
mod tests;
mod ticks;
mod tracker;
mod words;

pub use ahead::Announced;
pub use baseline::{FlowFacts, HOP_LIMIT_MODES, HalfFlow, HopLimits, Mode, SynFacts};
pub(crate) use hash::fold as mix;
pub use index::TableCounters;
pub use key::{Endpoint, FlowKey, Side};
pub use path::{PathFacts, PathTable};
pub(crate) use prefix::network;
pub use prefix::{MacSet, PrefixFacts};
pub use tracker::{Tracker, TrackerConfig};

use crate::host::SocketView;
use crate::time::Timestamp;
use crate::vantage::Vantage;
use crate::wire::Segment;

/// A connection whose handshake the kernel calls complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confirmed {
    /// Which one.
    pub key: FlowKey,
    /// When it was.
    pub time: Timestamp,
}

/// A reset that came in past the worker whose flow it is, by a closed gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PassedReset {
    /// Which connection's.
    pub key: FlowKey,
    /// Who is said to have sent it.
    pub side: Side,
    /// When it was.
    pub time: Timestamp,
    /// It met a connection of this host's, known or not.
    pub is_living: bool,
}

/// What the worker whose flow it is knew when such a reset came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PassedFlow {
    /// The reset.
    pub reset: PassedReset,
    /// The flow as the reset met it.
    pub flow: FlowFacts,
    /// The SYN-ACK that came after the reset, and before the worker was told of that.
    pub answer: Option<SynFacts>,
}

/// A segment that a verdict may need: a reset, or what follows one on its flow. A plain value of
/// fixed size, so that a worker can pass it on without allocating.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighting {
    /// When it arrived.
    pub time: Timestamp,
    /// Where it was seen.
    pub vantage: Vantage,
    /// The segment itself.
    pub segment: Segment,
    /// The local socket that it met, where the sensor could ask.
    pub socket: Option<SocketView>,
    /// It is a SYN that begins another connection on the four-tuple: the flow is that one's.
    pub begins_anew: bool,
    /// The flow before this segment.
    pub flow: FlowFacts,
}

//! What leaves the program. [`Record`] is the only thing that is ever serialized; its form is a
//! contract (docs/record.md) and [`SCHEMA_VERSION`] changes when its meaning does.

mod advice;
mod community;
mod coverage;
pub(crate) mod digits;
mod emission;
mod fact;
pub mod format;
mod identity;
mod json;
mod listing;
mod manner;
mod one_line;
#[cfg(test)]
pub(crate) mod sample;
pub mod schema;
mod story;
mod text;
mod wrap;
mod writer;

pub use community::community_id;
pub use emission::{Emission, Observer};
pub use format::Format;
pub use identity::{capture_prefix, live_prefix};
pub use json::{append_json, to_json};
pub use listing::{Listed, listed};
pub(crate) use manner::{Manner, Stood};
pub use story::story;
pub use text::{Palette, to_line, to_story};
pub use wrap::wrapped;

use crate::amount::span;
use crate::evidence::{Evidence, SequenceFit};
use crate::flow::Endpoint;
use crate::host::{Process, ResetReason, TcpState};
use crate::time::Timestamp;
use crate::vantage::{InterfaceId, Vantage};
use crate::verdict::{Cause, Stage, Verdict};
use crate::wire::{FourTuple, Mac, Network, Segment};

/// `rstscope.schema`.
pub const SCHEMA_VERSION: &str = "1";
/// The Elastic Common Schema whose names and types hold outside `rstscope`.
pub const ECS_VERSION: &str = "9.4.0";

/// Silence of a peer that is told beside an abort, in nanoseconds: who gives up waiting has waited for a second or longer.
const SILENCE_NS: u64 = 1_000_000_000;

/// For how long the peer had been silent, where that may be why it was given up.
pub(crate) fn silence(idle_ns: Option<u64>) -> Option<String> {
    let idle = idle_ns.filter(|idle| *idle >= SILENCE_NS)?;
    Some(format!("silent for {}", span(idle)))
}

/// One line of output.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// A reset flow, judged.
    Reset(Box<ResetRecord>),
    /// What the sensor watched in one interval on one interface.
    Coverage(Box<CoverageRecord>),
}

/// One reset of a record's list.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ResetEntry {
    /// When it was seen, in the engine's clock.
    pub time: Timestamp,
    /// Where and on which way.
    pub vantage: Vantage,
    /// It came into this host (`ingress`) rather than left it (`egress`); in a capture told by
    /// the addresses that are local, `None` when none is.
    pub incoming: Option<bool>,
    /// The segment.
    pub segment: Segment,
    /// How its SEQ fits RCV.NXT of its receiver.
    pub fit: SequenceFit,
    /// SEQ minus RCV.NXT.
    pub offset: Option<i32>,
}

/// What this direction looked like before the reset.
#[derive(Debug, Clone, PartialEq)]
pub struct BaselineEntry {
    /// Usual hop limit.
    pub hop_limit: Option<u8>,
    /// Source MAC.
    pub mac: Option<Mac>,
    /// Window of the last segment.
    pub window: Option<u16>,
    /// Timestamps were in use.
    pub timestamps: Option<bool>,
    /// From where it is known: `syn`, `syn_ack`, `segments`, `path`, `after` (what the true peer
    /// sent after the reset).
    pub source: &'static str,
}

/// A proxy's other leg, the forged reset before a `consequence`, or the record that this one corrects.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Related {
    /// `event.id` sequence of its record, when that was written already.
    pub record: Option<u64>,
    /// The flow, source of its first reset first.
    pub source: Endpoint,
    /// The other end.
    pub destination: Endpoint,
    /// Nanoseconds between its reset, or close, and this one.
    pub delta_ns: u64,
    /// Probability that the join is right.
    pub confidence: f32,
    /// How the join was made: `process`, `closing` (the process closed that one in order), `time` (in a capture), `segment` (the same frame, one hop
    /// later), `flow` (the same connection earlier), `correction` (the record that this one
    /// replaces).
    pub join: &'static str,
}

/// What the kernel said about the episode.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct KernelFacts {
    /// It accepted the first reset and ended a socket.
    pub accepted: Option<bool>,
    /// Why it sent one itself.
    pub reset_reason: Option<ResetReason>,
    /// State of the socket at the first reset.
    pub socket_state: Option<TcpState>,
}

/// A judged reset flow. Fields that are not known are `None` and absent from the output.
#[derive(Debug, Clone, PartialEq)]
pub struct ResetRecord {
    /// Counts records of this run, from 1: the last part of `event.id`.
    pub sequence: u64,
    /// Arrival of the first reset.
    pub start: Timestamp,
    /// The last reset of the episode.
    pub end: Timestamp,
    /// Purported sender of the first reset.
    pub source: Endpoint,
    /// The other end.
    pub destination: Endpoint,
    /// Who sent the connection's first SYN.
    pub client: Option<Endpoint>,
    /// The other end of that.
    pub server: Option<Endpoint>,
    /// Source MAC of the first reset.
    pub source_mac: Option<Mac>,
    /// Destination MAC of the first reset.
    pub destination_mac: Option<Mac>,
    /// VLAN of the first reset.
    pub vlan: Option<u16>,
    /// The first reset came in (`true`) or left; `None` when a capture does not tell.
    pub incoming: Option<bool>,
    /// Interface by which the first reset came in.
    pub ingress_interface: Option<InterfaceId>,
    /// Interface by which it left.
    pub egress_interface: Option<InterfaceId>,
    /// The local process that sent the reset, or whose socket it ended.
    pub process: Option<Process>,
    /// Its container.
    pub container: Option<String>,
    /// When that process had closed the connection, where it had before the kernel's reset. (It may have gone since, and
    /// its number be another's. Not written as such: the evidence says how long before.)
    pub closed_at: Option<Timestamp>,
    /// Who sent it.
    pub verdict: Verdict,
    /// One level down.
    pub cause: Option<Cause>,
    /// Probability that the verdict is right.
    pub confidence: f32,
    /// The sum of the evidence with the prior, in decibans, above 0 for a third party; `None` when
    /// the kernel attests the origin and nothing was weighed.
    pub total_db: Option<f32>,
    /// Name of the user's own device that forged it.
    pub device: Option<String>,
    /// How far the connection was.
    pub stage: Stage,
    /// The evidence, strongest first.
    pub evidence: Vec<Evidence>,
    /// One sentence for a person: who sent it and why we say so.
    pub message: String,
    /// The first resets, at most [`crate::evidence::KEPT`].
    pub resets: Vec<ResetEntry>,
    /// All resets of the episode.
    pub reset_count: u64,
    /// What this direction looked like before.
    pub baseline: Option<BaselineEntry>,
    /// Payload bytes from the purported sender.
    pub bytes_in: Option<u64>,
    /// Payload bytes to it.
    pub bytes_out: Option<u64>,
    /// Age of the connection at the first reset.
    pub age_ns: Option<u64>,
    /// Time since anything was seen on it.
    pub idle_ns: Option<u64>,
    /// The kernel's word.
    pub kernel: KernelFacts,
    /// Other legs, and other records of this story.
    pub related: Vec<Related>,
    /// This record is about many flows, of which it shows a sample; `source`, `destination` and all
    /// that is said of one reset are those of the first.
    pub aggregate: Option<Box<Aggregate>>,
}

/// Flows that were reset by nobody's connection, too many to tell of one by one.
#[derive(Debug, Clone, PartialEq)]
pub struct Aggregate {
    /// Where the resets went; of this host's own answers, where they came from.
    pub network: Network,
    /// About how many flows.
    pub flows: u64,
    /// Four-tuples of some of them, those of `resets` in the same order.
    pub sample: Vec<FourTuple>,
}

/// What became of the frames of one interface in one interval: without it nobody can prove that a
/// host did not send a reset. The counts are those of the ledger (docs/operations.md).
#[derive(Debug, Clone, PartialEq)]
pub struct CoverageRecord {
    /// Counts records of this run.
    pub sequence: u64,
    /// Start of the interval.
    pub start: Timestamp,
    /// End of the interval.
    pub end: Timestamp,
    /// The interface.
    pub interface: InterfaceId,
    /// SYN, FIN and RST frames that a worker looked at, or that mirror mode copied.
    pub observed: u64,
    /// Frames that were none of our business and passed; mirror mode does not count them.
    pub passed: Option<u64>,
    /// SYN, FIN and RST frames that passed by the workers: busy, absent, or the frame too long.
    pub bypassed: u64,
    /// Headers that `steer` copied for the sensor: of bypassed frames, of those that follow a reset,
    /// and of the first ones of connections older than the sensor.
    pub copied: u64,
    /// Frames, events or records that were lost to the sensor. The host still got every frame.
    pub lost: u64,
    /// The sensor watched during the whole interval and lost nothing.
    pub complete: bool,
}

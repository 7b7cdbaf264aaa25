//! How sure the engine is of what facts of this host attest, and what such a fact weighs among the
//! evidence. Nothing here is weighed against anything: the fact decides, and its decibans are shown so
//! that a reader can hold them against those of `evidence` (docs/evidence.md, "Attested, not weighed").
//!
//! The confidences are not fitted. The lab's plays (`scripts/live`) go wrong in one of some thousand, too
//! few to tell 0.97 from 0.99; each says instead how often its way of being wrong may be expected on a
//! host, and none is 1.

use crate::evidence::{Evidence, Favors, Group, Value};

/// The kernel itself tells that it sent the reset. Wrong only where the event belongs to another reset of
/// the same connection, which order and form tell apart.
pub(super) const KERNEL_TOLD: f32 = 0.995;
pub(super) const KERNEL_TOLD_DB: f32 = 40.0;

/// It left by a socket of this host, whose event is missing: lost, or skipped because an interrupt broke in
/// on another one. That it is ours is certain; the cause is told by its form alone.
pub(super) const LEFT_A_SOCKET: f32 = 0.95;

/// It left this host and had not come in. A raw socket of some tool can do that too, in anybody's name, and
/// without kernel events nothing tells the two apart.
pub(super) const LEFT: f32 = 0.9;
pub(super) const LEFT_DB: f32 = 30.0;

/// It left, events were heard without a loss, and none told of it: a packet filter (`nf_send_reset`), or a
/// raw socket, which is rarer on a host that has rules.
pub(super) const NO_EVENT: f32 = 0.97;
pub(super) const NO_EVENT_DB: f32 = 20.0;

/// How the process or its socket stood when it reset the connection: that names what happened, and decides nothing.
pub(super) const CIRCUMSTANCE_DB: f32 = 0.0;

/// The same reset came in by one interface and left by another. Wrong where somebody answers in the name of
/// both ends at once.
pub(super) const ROUTED: f32 = 0.95;
pub(super) const ROUTED_DB: f32 = 40.0;

/// Neither flow nor socket is there for it to belong to. Wrong for a connection that is older than the
/// sensor and had closed here, whose peer resets what it still had.
pub(super) const OF_NOTHING: f32 = 0.95;
/// The same in a capture, which may begin late or hold one direction.
pub(super) const OF_NOTHING_IN_CAPTURE: f32 = 0.6;
/// Nothing is attested of whom it came from.
pub(super) const OF_NOTHING_DB: f32 = 0.0;

/// A capture shows it with an address that the user called local. As [`LEFT`], and addresses can be forged
/// on the way to where the capture was taken.
pub(super) const LOCAL_ADDRESS: f32 = 0.9;
pub(super) const LOCAL_ADDRESS_DB: f32 = 20.0;

/// Two sightings are the same segment: addresses, ports and sequence number, within milliseconds.
pub(super) const SAME_SEGMENT: f32 = 0.99;

/// Resets to a network that is not this host's: told, not judged.
pub(super) const UNJUDGED: f32 = 0.5;

/// A fact as evidence: all of them are about the origin, and expect nothing.
pub(super) fn attested(
    name: &'static str,
    favors: Favors,
    weight_db: f32,
    observed: Value,
) -> Evidence {
    Evidence {
        name,
        group: Group::Origin,
        favors,
        weight_db,
        observed: Some(observed),
        expected: None,
    }
}

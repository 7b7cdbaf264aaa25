//! What the tracker asks of a place where flows are kept. There are two: `packed`, of fixed size,
//! for a live sensor that sees the first and last segments of each connection, and `capture`, for
//! files, where every segment adds to what is known.

use super::index::{Rank, TableCounters};
use super::{FlowKey, HalfFlow, Side};
use crate::time::{SECOND, Timestamp};
use crate::wire::Segment;

/// How long an ended flow is kept: Linux's TIME-WAIT (60 s, `TCP_TIMEWAIT_LEN`), in which late
/// segments are still to be understood.
pub(super) const ENDED_KEPT_NS: u64 = 60 * SECOND;

/// What is known of a connection apart from its ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FlowState {
    /// Which end sent the first SYN.
    pub(super) originator: Option<Side>,
    /// The handshake is complete.
    pub(super) established: bool,
    /// It is older than the sensor: when it began is not known.
    pub(super) is_older: bool,
    /// It ended: both FINs were seen, or a reset.
    pub(super) ended: bool,
    /// A reset was seen from that end, by `Side::index`; its baseline is frozen.
    pub(super) reset_from: [bool; 2],
    /// When the first segment was seen.
    pub(super) first_seen: Timestamp,
    /// Another connection opened on the same four-tuple while this one lived. Captures alone know: live, the sockets do.
    pub(super) of_two: bool,
}

impl FlowState {
    /// A flow that begins now.
    pub(super) const fn new(now: Timestamp) -> Self {
        Self {
            originator: None,
            established: false,
            is_older: false,
            ended: false,
            reset_from: [false, false],
            first_seen: now,
            of_two: false,
        }
    }

    /// A reset was seen from either end.
    pub(super) const fn has_reset(&self) -> bool {
        self.reset_from[0] || self.reset_from[1]
    }
}

/// Flows by key. `now` is the time of the segment at hand: stored times are relative to it.
pub(super) trait FlowStore {
    /// Where a flow is kept, until the next `entry`.
    type Place: Copy;
    /// What several stores use together.
    type Shared;
    /// A key in the form in which the store keeps it.
    type Key: Copy;

    /// A key in that form.
    fn key(key: &FlowKey) -> Self::Key;

    /// The flow of that key.
    fn find(&self, key: &FlowKey) -> Option<Self::Place>;

    /// The same where its hash is known.
    fn find_hashed(&self, key: &FlowKey, hash: u64) -> Option<Self::Place>;

    /// The flow of that key, which has that hash, and whether it is new: then it took the place of another one, where
    /// there was no empty place.
    fn entry(
        &mut self,
        shared: &mut Self::Shared,
        key: &Self::Key,
        hash: u64,
        now: Timestamp,
    ) -> Option<(Self::Place, bool)>;

    /// What is known of the connection.
    fn state(&self, place: Self::Place, now: Timestamp) -> FlowState;

    /// Changes it.
    fn set_state(&mut self, place: Self::Place, state: &FlowState);

    /// When the last segment was seen that entered a baseline.
    fn last_seen(&self, place: Self::Place, now: Timestamp) -> Timestamp;

    /// Whether that end was heard.
    fn has_half(&self, place: Self::Place, side: Side) -> bool;

    /// Whether that end sent its FIN.
    fn has_fin(&self, place: Self::Place, side: Side) -> bool;

    /// What that end looked like.
    fn half(
        &self,
        shared: &Self::Shared,
        place: Self::Place,
        side: Side,
        now: Timestamp,
    ) -> Option<HalfFlow>;

    /// Changes what that end looked like.
    fn set_half(
        &mut self,
        shared: &mut Self::Shared,
        place: Self::Place,
        side: Side,
        half: &HalfFlow,
        now: Timestamp,
    );

    /// Takes in a SYN or SYN-ACK on a flow that was known before, ahead of what it changes. For those who have nobody to
    /// ask whether it is of a second connection: a live sensor has the sockets.
    fn note_handshake(
        &mut self,
        _place: Self::Place,
        _side: Side,
        _segment: &Segment,
        _now: Timestamp,
    ) {
    }

    /// Forgets everything of the flow but its key: another connection begins.
    fn reopen(&mut self, shared: &mut Self::Shared, place: Self::Place, now: Timestamp);

    /// The flow showed that much of itself; a rank never falls.
    fn raise(&mut self, place: Self::Place, rank: Rank);

    /// What the store did so far.
    fn counters(&self) -> TableCounters;
}

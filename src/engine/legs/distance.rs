//! How near two calls of a process lie that each ended a connection, where its turn does not pair
//! them: it was interrupted for long, slept in between, or has several threads. Only where nothing
//! else happens near does the distance alone say that they are the legs of one.

use super::ending::{Call, Leg, Passed};
use super::turn::Turn;
use crate::time::MILLISECOND;

/// It slept between two calls this near: it waited for a lock or a page.
const ADJACENT_NS: u64 = MILLISECOND / 10;

/// Legs on two threads (a runtime that moves its tasks): only when nothing else happens near.
const OTHER_THREAD_NS: u64 = 5 * MILLISECOND;

/// How near two calls of one process lie.
#[derive(Debug, Clone, Copy)]
pub(super) struct Distance {
    on_another_thread: bool,
    in_another_turn: bool,
    /// One of the two connections is a pool's, and may be somebody else's.
    is_lent: bool,
    nanos: u64,
}

impl Distance {
    /// Between a connection that was reset and one that may be its other leg. `None`: that cannot
    /// be, or two processes ended them.
    pub(super) fn of(passed: &Passed, leg: &Leg) -> Option<Self> {
        let (closed, sent) = (leg.closed.as_ref()?, passed.sent.as_ref()?);
        if !passed.may_follow(leg) {
            return None;
        }
        Self::between(closed, sent, passed.is_lent(leg))
    }

    fn between(one: &Call, other: &Call, is_lent: bool) -> Option<Self> {
        let (a, b) = (one.process, other.process);
        let on_another_thread = a.thread != b.thread;
        (a.pid == b.pid).then(|| Self {
            on_another_thread,
            in_another_turn: !a.is_in_turn_of(&b),
            is_lent,
            nanos: one.time.distance(other.time),
        })
    }

    /// Whether it tells anything of two ends, of which one is in that turn: where both are and others too, the row
    /// of these tells more.
    pub(super) const fn counts_in(self, turn: &Turn) -> bool {
        turn.is_quiet() || self.on_another_thread || self.in_another_turn
    }

    /// How sure a join at this distance is, where there is no other candidate for either. A lone pair
    /// of a quiet host; too few in any run to be measured, so that these stay modest.
    pub(super) fn confidence(self) -> Option<f32> {
        match (self.on_another_thread, self.in_another_turn) {
            (false, false) => Some(if self.is_lent { 0.6 } else { 0.8 }),
            _ if self.is_lent => None,
            (false, true) if self.nanos <= ADJACENT_NS => Some(0.75),
            (true, _) if self.nanos <= OTHER_THREAD_NS => Some(0.6),
            _ => None,
        }
    }
}

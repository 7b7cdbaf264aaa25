//! One turn of a thread's event loop: the connections that it ended in it, in order, and which of
//! them are the two legs of one. A proxy ends both legs one right after the other, so that a busy
//! turn reads `client, upstream, client, upstream, …`, with a lone one now and then; the distance
//! between two pairs may be shorter than that within one. Hence not the nearest two are paired, but
//! all neighbors of the turn at once, in the way that costs least. Resets that came in, resets that
//! went out and orderly closings take part alike: each explains its neighbor.

use super::ending::{Call, Leg, Passed};
use crate::flow::FlowKey;
use crate::time::{MICROSECOND, Timestamp};

/// What it costs to leave one end without a partner, as time. HAProxy and nginx take 6 to 60 µs from
/// one leg to the other, seldom up to 0.5 ms; two lone ends cost as much as a pair this doubled apart.
const ALONE_NS: u64 = 300 * MICROSECOND;

/// What it costs to pair a client with an upstream connection that was there before it: a pool may
/// have lent that, but far more often it is somebody else's.
const LENT_NS: u64 = 400 * MICROSECOND;

/// How long an interrupted thread may take from one leg to the other: some slices of a scheduler that
/// has more to run than CPUs.
const INTERRUPTED_NS: u64 = 10_000 * MICROSECOND;

/// Ends on each side of the one that is asked about: what lies farther does not change its pair.
const NEIGHBORS: usize = 32;

/// An end of a connection, with what it takes part with.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    /// By a reset that came in; its place is where its process closed the socket.
    Leg(Leg),
    /// By its process.
    Passed {
        /// By a reset, not in order.
        by_reset: bool,
        passed: Passed,
    },
}

impl End {
    fn key(&self) -> FlowKey {
        match self {
            Self::Leg(leg) => leg.key,
            Self::Passed { passed, .. } => passed.key,
        }
    }

    fn call(&self) -> Option<Call> {
        match self {
            Self::Leg(leg) => leg.closed,
            Self::Passed { passed, .. } => passed.sent,
        }
    }

    fn time(&self) -> Timestamp {
        self.call().map_or(Timestamp::default(), |call| call.time)
    }

    /// Whether this host opened it, and when it began.
    fn origin(&self) -> (Option<bool>, Option<Timestamp>) {
        match self {
            Self::Leg(leg) => (leg.is_outbound, leg.began),
            Self::Passed { passed, .. } => (passed.is_outbound, passed.began),
        }
    }

    /// How far apart two neighbors are, and whether one of them would be lent; `None`: they cannot be
    /// one connection's legs.
    fn fits(&self, next: &Self) -> Option<(u64, bool)> {
        let is_possible = match (self, next) {
            (Self::Leg(_), Self::Leg(_)) => false,
            (Self::Leg(leg), Self::Passed { passed, .. })
            | (Self::Passed { passed, .. }, Self::Leg(leg)) => passed.may_follow(leg),
            (Self::Passed { .. }, Self::Passed { .. }) => true,
        };
        let ((mine, began), (theirs, next_began)) = (self.origin(), next.origin());
        let roles_differ = matches!((mine, theirs), (Some(a), Some(b)) if a != b);
        let (opened, answered) = if mine == Some(true) {
            (began, next_began)
        } else {
            (next_began, began)
        };
        let is_lent =
            matches!((opened, answered), (Some(opened), Some(answered)) if opened < answered);
        let gap = self.time().distance(next.time());
        (is_possible && roles_differ).then_some((gap, is_lent))
    }

    /// What it costs to pair two neighbors; `None`: they are not to be paired.
    fn cost(&self, next: &Self) -> Option<u64> {
        let (gap, is_lent) = self.fits(next)?;
        let cost = gap + if is_lent { LENT_NS } else { 0 };
        (cost < 2 * ALONE_NS).then_some(cost)
    }
}

/// The ends of one turn, in order of time.
#[derive(Debug)]
pub(super) struct Turn(Vec<End>);

impl Turn {
    /// The turn in which `call` was made, out of ends in any order.
    pub(super) fn of(call: &Call, ends: impl Iterator<Item = End>) -> Self {
        let same = |other: &Call| call.process.is_in_turn_of(&other.process);
        let mut all: Vec<_> = ends
            .filter(|end| end.call().as_ref().is_some_and(same))
            .collect();
        all.sort_by_key(End::time);
        let center = all.partition_point(|end| end.time() < call.time);
        let mut turn: Vec<End> = Vec::new();
        let (from, to) = (center.saturating_sub(NEIGHBORS), center + NEIGHBORS);
        for end in all.into_iter().take(to).skip(from) {
            match turn.iter().position(|known| known.key() == end.key()) {
                None => turn.push(end),
                Some(at) => Self::merge(&mut turn, at, end),
            }
        }
        Self(turn)
    }

    /// One connection is ended once. That a reset ended it says more than that its process had
    /// closed it before; that its process reset it, more than that it first sent a FIN.
    fn merge(turn: &mut Vec<End>, at: usize, later: End) {
        match (turn.get_mut(at), later) {
            (Some(End::Passed { .. }), End::Leg(_)) => {
                turn.remove(at);
                turn.push(later);
            }
            (Some(End::Passed { by_reset, .. }), End::Passed { by_reset: true, .. }) => {
                *by_reset = true;
            }
            _ => {}
        }
    }

    /// Where a connection's end stands.
    pub(super) fn place_of(&self, key: &FlowKey) -> Option<usize> {
        self.0.iter().position(|end| end.key() == *key)
    }

    /// The end at that place.
    pub(super) fn end(&self, at: usize) -> Option<&End> {
        self.0.get(at)
    }

    /// Where its partner in the best pairing of the whole turn stands, and by how much time the
    /// pairing would cost more without the two.
    pub(super) fn pair_of(&self, at: usize) -> Option<(usize, u64)> {
        let before = at.checked_sub(1);
        let before = before.and_then(|first| Some((first, self.margin(first)?)));
        before.or_else(|| Some((at + 1, self.margin(at)?)))
    }

    /// The neighbors of an end that may be its other leg, be it that its thread was interrupted for
    /// long in between; and whether a pool would have lent one of the two.
    pub(super) fn fitting(&self, at: usize) -> impl Iterator<Item = (usize, bool)> {
        let own = self.0.get(at);
        let neighbors = [at.checked_sub(1), Some(at + 1)].into_iter().flatten();
        neighbors.filter_map(move |other| {
            let (gap, is_lent) = own?.fits(self.0.get(other)?)?;
            (gap < INTERRUPTED_NS).then_some((other, is_lent))
        })
    }

    /// By how much leaving the pair (`first`, its neighbor) out costs more than having it; `None`
    /// when it is not part of the one best pairing.
    fn margin(&self, first: usize) -> Option<u64> {
        let cost = self.0.get(first)?.cost(self.0.get(first + 1)?)?;
        let with = self.cheapest(0, first) + cost + self.cheapest(first + 2, self.0.len());
        let without = self.cheapest(0, first + 1) + self.cheapest(first + 1, self.0.len());
        without.checked_sub(with).filter(|margin| *margin > 0)
    }

    /// What the best pairing of the ends `from..to` costs.
    fn cheapest(&self, from: usize, to: usize) -> u64 {
        let ends = self.0.get(from..to).unwrap_or_default();
        let (mut before, mut best) = (0, 0);
        for (index, end) in ends.iter().enumerate() {
            let pair = index
                .checked_sub(1)
                .and_then(|previous| ends.get(previous)?.cost(end));
            let alone = best + ALONE_NS;
            let paired = pair.map_or(alone, |cost| before + cost);
            (before, best) = (best, alone.min(paired));
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{PROXY, at, key, leg, sent};
    use super::{Call, End, Passed, Turn};
    use crate::flow::FlowKey;

    /// A client that closes in order, at that time in microseconds.
    fn client(port: u16, us: u64) -> End {
        End::Passed {
            by_reset: false,
            passed: Passed {
                is_outbound: Some(false),
                ..sent(port, us, PROXY)
            },
        }
    }

    fn upstream(port: u16, us: u64) -> End {
        End::Passed {
            by_reset: true,
            passed: sent(port, us, PROXY),
        }
    }

    fn turn(ends: &[End]) -> Turn {
        let call = Call {
            process: PROXY,
            time: at(100),
        };
        Turn::of(&call, ends.iter().copied())
    }

    fn pair(turn: &Turn, port: u16) -> Option<(FlowKey, u64)> {
        let (other, margin) = turn.pair_of(turn.place_of(&key(port))?)?;
        Some((turn.0.get(other)?.key(), margin))
    }

    fn partner(turn: &Turn, port: u16) -> Option<FlowKey> {
        pair(turn, port).map(|(key, _)| key)
    }

    #[test]
    fn a_row_of_pairs_is_read_as_pairs_though_the_gaps_between_them_are_shorter() {
        let turn = turn(&[
            client(1, 100),
            upstream(11, 128),
            End::Leg(leg(2, 90, 138, PROXY)),
            upstream(12, 152),
            client(3, 160),
            upstream(13, 190),
        ]);
        for port in 1..=3 {
            assert_eq!(partner(&turn, port), Some(key(port + 10)));
            assert_eq!(partner(&turn, port + 10), Some(key(port)));
        }
    }

    #[test]
    fn a_lone_one_after_a_pair_stays_alone_and_makes_the_pair_less_sure() {
        let two = [client(1, 100), upstream(11, 110)];
        let (_, alone) = pair(&turn(&two), 1).unwrap();
        let lone = turn(&[two[0], two[1], End::Leg(leg(2, 90, 125, PROXY))]);
        assert_eq!(partner(&lone, 2), None);
        let (_, crowded) = pair(&lone, 1).unwrap();
        assert_eq!((alone, crowded), (590_000, 5_000));
    }

    #[test]
    fn of_two_ways_that_cost_the_same_neither_is_taken() {
        let turn = turn(&[client(1, 100), upstream(11, 110), client(2, 120)]);
        assert_eq!(partner(&turn, 11), None);
    }

    #[test]
    fn a_connection_that_was_closed_and_then_reset_is_one() {
        let turn = turn(&[
            upstream(2, 95),
            End::Leg(leg(2, 90, 130, PROXY)),
            upstream(11, 140),
            upstream(11, 150),
        ]);
        assert_eq!(partner(&turn, 2), Some(key(11)));
        assert_eq!(turn.0.len(), 2);
    }
}

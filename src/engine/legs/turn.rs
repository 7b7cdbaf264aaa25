//! One turn of a thread's event loop: the connections that it ended in it, in order, and which of
//! them are the two legs of one. A proxy ends both legs one right after the other, so that a busy
//! turn reads `client, upstream, client, upstream, …`, with a lone one now and then; the distance
//! between two pairs may be shorter than that within one. Hence not the nearest two are paired, but
//! all neighbors of the turn at once, in the way that costs least. Resets that came in, resets that
//! went out and orderly closings take part alike: each explains its neighbor, unless the process is known
//! to end the two legs of a connection the other way round.

use super::ending::{Call, Leg, Own, Passed};
use super::habit::{First, Habits, Service};
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
    fn own(&self) -> Own {
        match self {
            Self::Leg(leg) => leg.own(),
            Self::Passed { passed, .. } => passed.own(),
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

    /// The service whose client's connection this is; `None` for one that this host opened, or may have.
    fn service(&self) -> Option<Service> {
        let (key, local, by_client) = match self {
            Self::Leg(leg) => (leg.key, leg.sender.other(), true),
            Self::Passed { passed, .. } => (passed.key, passed.local, false),
        };
        let pid = self.call()?.process.pid;
        self.is_clients().then(|| Service {
            pid,
            end: key.endpoint(local),
            by_client,
        })
    }

    fn is_clients(&self) -> bool {
        matches!(self.origin(), (Some(false), _))
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
}

/// An end at its place in a turn.
#[derive(Debug)]
struct Placed {
    end: End,
    /// Of a client's: which leg its service ends first when this one was reset, or else when the other one was.
    usual: Option<First>,
}

impl Placed {
    /// Whether the process ends a client's leg and an upstream's in this order; `None`: that is not known.
    fn is_usual(&self, next: &Self) -> Option<bool> {
        let is_reset = |placed: &Self| matches!(placed.end, End::Leg(_));
        if !is_reset(self) && !is_reset(next) {
            return None;
        }
        let (client, first) = match self.end.is_clients() {
            true => (self, First::Client),
            false => (next, First::Upstream),
        };
        client.usual.map(|usual| usual == first)
    }

    /// What it costs to pair two neighbors; `None`: they are not to be paired.
    fn cost(&self, next: &Self) -> Option<u64> {
        let (gap, is_lent) = self.end.fits(&next.end)?;
        let cost = gap + if is_lent { LENT_NS } else { 0 };
        (cost < 2 * ALONE_NS && self.is_usual(next) != Some(false)).then_some(cost)
    }
}

/// The ends of one turn, in order of time.
#[derive(Debug)]
pub(super) struct Turn(Vec<Placed>);

impl Turn {
    /// The turn in which `call` was made, out of ends in any order.
    pub(super) fn of(call: &Call, ends: impl Iterator<Item = End>, habits: &Habits) -> Self {
        let same = |other: &Call| call.process.is_in_turn_of(&other.process);
        let mut all: Vec<_> = ends
            .filter(|end| end.call().as_ref().is_some_and(same))
            .collect();
        all.sort_by_key(End::time);
        let center = all.partition_point(|end| end.time() < call.time);
        let mut turn: Vec<End> = Vec::new();
        let (from, to) = (center.saturating_sub(NEIGHBORS), center + NEIGHBORS);
        for end in all.into_iter().take(to).skip(from) {
            match turn.iter().position(|known| known.own() == end.own()) {
                None => turn.push(end),
                Some(at) => Self::merge(&mut turn, at, end),
            }
        }
        let placed = turn.into_iter().map(|end| Placed {
            usual: end.service().and_then(|service| habits.of(&service)),
            end,
        });
        Self(placed.collect())
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
    pub(super) fn place_of(&self, own: &Own) -> Option<usize> {
        self.0.iter().position(|placed| placed.end.own() == *own)
    }

    /// The end at that place.
    pub(super) fn end(&self, at: usize) -> Option<&End> {
        self.0.get(at).map(|placed| &placed.end)
    }

    /// Whether two connections at most were ended in it.
    pub(super) const fn is_quiet(&self) -> bool {
        self.0.len() <= 2
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
        self.fitting_in_any_order(at)
            .filter(move |(other, _)| self.is_usual(at, *other) != Some(false))
    }

    /// The same, also those that the process is known to end the other way round.
    pub(super) fn fitting_in_any_order(&self, at: usize) -> impl Iterator<Item = (usize, bool)> {
        let own = self.end(at);
        let neighbors = [at.checked_sub(1), Some(at + 1)].into_iter().flatten();
        neighbors.filter_map(move |other| {
            let (gap, is_lent) = own?.fits(self.end(other)?)?;
            (gap < INTERRUPTED_NS).then_some((other, is_lent))
        })
    }

    /// Whether the process ends two neighbors in this order, where that is known.
    pub(super) fn is_usual(&self, one: usize, other: usize) -> Option<bool> {
        let first = one.min(other);
        self.0.get(first)?.is_usual(self.0.get(first + 1)?)
    }

    /// What the end at that place and its neighbor show of their service's order, where nothing else may
    /// explain either.
    pub(super) fn order_at(&self, at: usize) -> Option<(Service, First)> {
        let other = self.only_fitting(at)?;
        let first = at.min(other);
        let (one, next) = (self.end(first)?, self.end(first + 1)?);
        let (gap, is_lent) = one.fits(next)?;
        if is_lent || gap >= 2 * ALONE_NS || self.only_fitting(other) != Some(at) {
            return None;
        }
        let of_one = one.service().map(|service| (service, First::Client));
        of_one.or_else(|| Some((next.service()?, First::Upstream)))
    }

    /// The one end that may be the other leg of the end at that place; `None`: there are two, or none.
    pub(super) fn only_fitting(&self, at: usize) -> Option<usize> {
        let mut fitting = self.fitting_in_any_order(at);
        let (other, _) = fitting.next()?;
        fitting.next().is_none().then_some(other)
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
        for (index, placed) in ends.iter().enumerate() {
            let pair = index
                .checked_sub(1)
                .and_then(|previous| ends.get(previous)?.cost(placed));
            let alone = best + ALONE_NS;
            let paired = pair.map_or(alone, |cost| before + cost);
            (before, best) = (best, alone.min(paired));
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{PROXY, at, connection, key, leg, sent};
    use super::{Call, End, First, Habits, Passed, Turn};
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
        turn_by(ends, &Habits::default())
    }

    fn turn_by(ends: &[End], habits: &Habits) -> Turn {
        let call = Call {
            process: PROXY,
            time: at(100),
        };
        Turn::of(&call, ends.iter().copied(), habits)
    }

    fn pair(turn: &Turn, port: u16) -> Option<(FlowKey, u64)> {
        let (other, margin) = turn.pair_of(turn.place_of(&connection(port))?)?;
        Some((turn.end(other)?.own().0, margin))
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

    #[test]
    fn a_pair_that_nothing_else_explains_shows_the_order_of_its_service() {
        let client = End::Leg(leg(1, 90, 100, PROXY));
        let shown = |ends: &[End], port| {
            let turn = turn(ends);
            turn.order_at(turn.place_of(&connection(port)).unwrap())
        };
        let (service, first) = shown(&[client, upstream(11, 128)], 1).unwrap();
        assert_eq!((first, service.by_client), (First::Client, true));
        let (same, first) = shown(&[upstream(11, 95), client], 1).unwrap();
        assert_eq!((first, same), (First::Upstream, service));
        // Another end may belong to one of the two, or they are too far apart.
        let third = upstream(12, 140);
        assert_eq!(shown(&[upstream(11, 95), client, third], 1), None);
        let other = End::Leg(leg(2, 90, 140, PROXY));
        assert_eq!(shown(&[client, upstream(11, 128), other], 1), None);
        assert_eq!(shown(&[client, upstream(11, 900)], 1), None);
    }

    #[test]
    fn a_row_whose_first_pair_was_interrupted_is_not_read_one_off() {
        let unrelated = End::Leg(leg(9, 90, 1_205, PROXY));
        // For 1 ms the thread did not run between the first two.
        let row = [
            client(1, 100),
            upstream(11, 1_100),
            client(2, 1_140),
            upstream(12, 1_165),
            unrelated,
        ];
        assert_eq!(partner(&turn(&row), 12), Some(key(9)));
        let mut habits = Habits::default();
        let (service, _) = turn(&[unrelated, upstream(8, 1_220)]).order_at(0).unwrap();
        (0..8).for_each(|_| habits.note(service, First::Client));
        let turn = turn_by(&row, &habits);
        assert_eq!(partner(&turn, 9), None);
        assert_eq!(partner(&turn, 12), Some(key(2)));
    }
}

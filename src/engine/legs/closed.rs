//! The leg whose reset made a process close another connection in order, asked from that one's end. Refuses where the leg
//! itself would name another end.

use super::distance::Distance;
use super::ending::{Leg, Own, Passed};
use super::turn::End;
use super::{Join, Legs, QUIET_NS, near};
use crate::time::Timestamp;

impl Legs {
    /// The leg whose reset made a process close this connection in order then: as `answer_to`, from the other end.
    pub(in crate::engine) fn closed_for(&self, own: &Own, closed: Timestamp) -> Option<Join> {
        let closings = near(&self.closings, |end| end.time, closed, QUIET_NS);
        let own = closings.filter(|end| end.own() == *own).last()?;
        self.legs_beside(own)?.into_iter().find_map(|leg| {
            let (by_reset, passed, confidence) = self.end_of(&leg)?;
            let is_own = !by_reset && passed.own() == own.own() && passed.time == own.time;
            is_own.then(|| Join {
                leg,
                delta_ns: own.time.since(leg.time),
                confidence,
                rival: None,
                passed_on: confidence,
            })
        })
    }

    /// The legs that this end may be the answer to: its neighbors in its turn, or else a lone one near it.
    fn legs_beside(&self, own: &Passed) -> Option<Vec<Leg>> {
        let turn = self.turn(&own.sent?, None);
        let at = turn.place_of(&own.own())?;
        let neighbors = turn.fitting_in_any_order(at);
        let legs = neighbors.filter_map(|(place, _)| match turn.end(place)? {
            End::Leg(leg) => Some(*leg),
            End::Passed { .. } => None,
        });
        let mut legs: Vec<_> = legs.collect();
        if legs.is_empty() {
            let near = self.legs_near(own.time);
            legs.extend(near.filter(|leg| Distance::of(own, leg).is_some()));
            legs.truncate(if legs.len() == 1 { 1 } else { 0 });
        }
        Some(legs)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{PROXY, at, connection, key, leg, sent};
    use super::{Legs, Passed};
    use crate::host::Process;

    #[test]
    fn in_a_storm_each_closing_finds_the_leg_that_it_is_for() {
        let mut legs = Legs::default();
        let storm = 0..500_u16;
        for n in storm.clone() {
            let us = u64::from(n) * 200;
            let turn = |sleeps| Process { sleeps, ..PROXY };
            legs.remember(leg(n, us, us + 40, turn(us)));
            legs.note_closed(Passed {
                is_outbound: Some(true),
                ..sent(n + 1000, us + 60, turn(us))
            });
        }
        for n in storm {
            let time = at(u64::from(n) * 200 + 60);
            let join = legs.closed_for(&connection(n + 1000), time).unwrap();
            assert_eq!(join.leg.key, key(n));
        }
        assert!(legs.closed_for(&connection(1), at(40)).is_none());
    }
}

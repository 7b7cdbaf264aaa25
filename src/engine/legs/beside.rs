//! The connection that a process ended beside one that it reset out of itself. A proxy that gives a connection up, at a
//! time-out or by command, ends both of its legs in one turn: nobody reset it first, and which client an aborted backend's
//! connection was for is asked all the same. Refuses where another reading is near: a health check's end and some other
//! client's close share a turn on a busy host.

use super::ending::Passed;
use super::turn::End;
use super::{Answer, Legs};
use crate::time::{MILLISECOND, Timestamp};

/// A proxy opens its second leg so soon after its first, where no queue and no kept connection is between.
const TOGETHER_NS: u64 = 10 * MILLISECOND;

/// Two connections that began together, lived for so long and ended in one turn are one: short ones meet by chance,
/// thousands a second.
const LONG_NS: u64 = 100 * MILLISECOND;

/// Began and ended together. By construction, as all of these: too few in any run to be measured.
const TOGETHER: f32 = 0.95;

/// The peer had been silent for long, as at a time-out; the other leg began with an earlier request.
const AFTER_SILENCE: f32 = 0.8;

/// The process ended nothing else near.
const QUIET: f32 = 0.75;

impl Legs {
    /// What the process that reset `own` out of itself ended with it. `is_silent`: the peer had been silent for long.
    pub(in crate::engine) fn beside(&self, own: &Passed, is_silent: bool) -> Option<Answer> {
        let call = own.sent?;
        let turn = self.turn(
            &call,
            Some(End::Passed {
                by_reset: true,
                passed: *own,
            }),
        );
        let at = turn.place_of(&own.own())?;
        let (other, _) = turn.pair_of(at)?;
        let is_alone = turn.only_fitting(at) == Some(other) && turn.only_fitting(other) == Some(at);
        let End::Passed { by_reset, passed } = *turn.end(other)? else {
            return None;
        };
        if !is_alone {
            return None;
        }
        let confidence = match began(own, &passed) {
            Some((client, upstream)) if upstream < client => None,
            Some((client, upstream))
                if upstream.since(client) <= TOGETHER_NS && own.time.since(client) >= LONG_NS =>
            {
                Some(TOGETHER)
            }
            _ if is_silent => Some(AFTER_SILENCE),
            _ => self.is_only_pair(own, &passed).then_some(QUIET),
        };
        Some(Answer {
            passed,
            by_reset,
            delta_ns: own.time.distance(passed.time),
            confidence: confidence?,
        })
    }

    /// Whether the process ended no third connection near.
    fn is_only_pair(&self, own: &Passed, other: &Passed) -> bool {
        let pid = |passed: &Passed| passed.sent.map(|call| call.process.pid);
        let mine = pid(own);
        let third = |(_, end): (bool, &Passed)| {
            pid(end) == mine && end.key != own.key && end.key != other.key
        };
        let is_mine = |leg: &super::Leg| leg.closed.map(|call| call.process.pid) == mine;
        !self.ends_near(own.time).any(third) && !self.legs_near(own.time).any(is_mine)
    }
}

/// When the leg that this host answered began, and the one that it opened.
fn began(one: &Passed, other: &Passed) -> Option<(Timestamp, Timestamp)> {
    match one.is_outbound {
        Some(true) => Some((other.began?, one.began?)),
        _ => Some((one.began?, other.began?)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{PROXY, at, sent};
    use super::super::{Legs, Passed};
    use super::{QUIET, TOGETHER};
    use crate::host::Process;

    /// A second after the connections of these tests began, in microseconds.
    const LATER: u64 = 1_000_000;

    fn upstream(port: u16, us: u64, began: u64) -> Passed {
        Passed {
            began: Some(at(began)),
            ..sent(port, us, PROXY)
        }
    }

    fn client(port: u16, us: u64, began: u64) -> Passed {
        Passed {
            is_outbound: Some(false),
            ..upstream(port, us, began)
        }
    }

    /// The process resets the first and closes the others.
    fn beside(own: Passed, closed: &[Passed], is_silent: bool) -> Option<(u16, f32)> {
        let mut legs = Legs::default();
        legs.note_sent(own);
        closed.iter().for_each(|closed| legs.note_closed(*closed));
        let answer = legs.beside(&own, is_silent)?;
        let key = answer.passed.key;
        let low = key.endpoint(crate::flow::Side::Low).port;
        let high = key.endpoint(crate::flow::Side::High).port;
        Some((if low == 443 { high } else { low }, answer.confidence))
    }

    #[test]
    fn a_time_out_that_ends_both_legs_names_the_other_one_in_either_order() {
        for us in [LATER - 40, LATER + 40] {
            let own = upstream(9, LATER, 200);
            let found = beside(own, &[client(1, us, 10)], true);
            assert_eq!(found, Some((1, TOGETHER)));
        }
    }

    #[test]
    fn a_clients_connection_that_is_aborted_names_its_upstreams() {
        let found = beside(client(1, LATER, 10), &[upstream(9, LATER + 40, 200)], true);
        assert_eq!(found, Some((9, TOGETHER)));
    }

    #[test]
    fn of_two_clients_that_close_beside_it_none_is_named() {
        let own = upstream(9, LATER, 200);
        let closed = [client(1, LATER - 40, 10), client(2, LATER + 50, 20)];
        assert_eq!(beside(own, &closed, true), None);
    }

    #[test]
    fn a_short_connection_is_named_only_where_nothing_else_ends() {
        let own = upstream(9, 900, 200);
        let (near, far) = (client(1, 940, 10), client(2, 30_000, 10));
        assert_eq!(beside(own, &[near], false), Some((1, QUIET)));
        assert_eq!(beside(own, &[near, far], false), None);
    }

    #[test]
    fn a_connection_that_was_there_before_its_client_is_not_named() {
        let own = upstream(9, LATER, 5);
        assert_eq!(beside(own, &[client(1, LATER + 40, 100)], true), None);
    }

    #[test]
    fn a_close_in_another_turn_is_no_other_leg() {
        let mut closed = client(1, LATER + 40, 10);
        closed.sent = closed.sent.map(|call| super::super::Call {
            process: Process { sleeps: 8, ..PROXY },
            ..call
        });
        assert_eq!(beside(upstream(9, LATER, 200), &[closed], true), None);
    }
}

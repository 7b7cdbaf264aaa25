//! The other leg: resets that ended a local socket, and resets that a process then sent itself, so
//! that the second can be told as forwarded. A proxy that passes a reset on closes both of its
//! sockets within one turn of its event loop: the thread, and that it did not sleep in between, tell
//! which two belong together, where time alone would join any two that fall close.

use std::collections::VecDeque;

use crate::flow::{FlowKey, Side};
use crate::host::Process;
use crate::time::{MILLISECOND, SECOND, Timestamp};

/// How many resets of each kind are remembered: at 10,000 a second that is 1.6 s, longer than the
/// default settle time after which the join is made.
const REMEMBERED: usize = 16 * 1024;

/// How long after one leg's reset the other leg's may follow. A proxy that was not scheduled may be
/// late; which turn it was in says more than the time.
const JOIN_NS: u64 = SECOND;

/// Closing the two sockets of one connection takes HAProxy 18 to 61 µs in HTTP mode and up to
/// 0.55 ms in TCP mode, both on two busy cores.
const SAME_TURN_NS: u64 = 2 * MILLISECOND;

/// Two closings this near have nothing else between them.
const ADJACENT_NS: u64 = MILLISECOND / 10;

/// Legs on two threads (a runtime that moves its tasks): only when nothing else happens near.
const OTHER_THREAD_NS: u64 = 5 * MILLISECOND;

/// How far around a reset its leg is looked for.
const QUIET_NS: u64 = 50 * MILLISECOND;

/// A call of a process that ended a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) process: Process,
    pub(super) time: Timestamp,
}

/// A reset that ended a local socket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leg {
    /// Whose socket it was and when that was closed; `None` in a capture.
    pub(super) closed: Option<Call>,
    pub(super) time: Timestamp,
    pub(super) key: FlowKey,
    /// The side that is said to have sent the reset.
    pub(super) sender: Side,
    /// When its connection began, if that was seen.
    pub(super) began: Option<Timestamp>,
    /// This host sent the connection's SYN; `None` when that cannot be told.
    pub(super) is_outbound: Option<bool>,
}

impl Leg {
    /// When its socket was closed, or was reset where nobody tells.
    fn ended(&self) -> Timestamp {
        self.closed.map_or(self.time, |closed| closed.time)
    }
}

/// Which end of a connection this host is. A proxy's two legs differ in it: it answered the one and
/// opened the other.
pub(super) fn is_outbound(
    facts_of_local: Option<bool>,
    key: &FlowKey,
    local: Side,
) -> Option<bool> {
    facts_of_local.or_else(|| {
        let tuple = key.tuple_from(local);
        match (
            tuple.src_port >= EPHEMERAL_PORTS,
            tuple.dst_port >= EPHEMERAL_PORTS,
        ) {
            (true, false) => Some(true),
            (false, true) => Some(false),
            _ => None,
        }
    })
}

/// Linux takes the ports of its own connections from here on (`net.ipv4.ip_local_port_range`);
/// IANA's dynamic range begins later, services listen below.
const EPHEMERAL_PORTS: u16 = 32_768;

/// A leg that fits, and how surely.
#[derive(Debug, Clone, Copy)]
pub(super) struct Join {
    pub(super) leg: Leg,
    pub(super) delta_ns: u64,
    pub(super) confidence: f32,
}

/// A reset that a process of this host sent and that may pass another one on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Passed {
    pub(super) key: FlowKey,
    pub(super) time: Timestamp,
    /// Who sent it; `None` in a capture.
    pub(super) sent: Option<Call>,
    /// When its connection began, if that was seen.
    pub(super) began: Option<Timestamp>,
    /// This host opened its connection.
    pub(super) is_outbound: Option<bool>,
}

impl Passed {
    fn may_follow(&self, leg: &Leg) -> bool {
        // Two connections of one kind, or of a kind not known, are two clients of a server.
        let roles_differ =
            matches!((self.is_outbound, leg.is_outbound), (Some(a), Some(b)) if a != b);
        leg.key != self.key
            && leg.time <= self.time
            && self.time.since(leg.time) <= JOIN_NS
            && self.began.is_none_or(|began| began < leg.time)
            && roles_differ
            && !self.is_from_a_pool(leg)
    }

    /// The connection that this host opened is the older of the two: it was not made for the other
    /// one. A pool may have lent it, but far more often it is somebody else's.
    fn is_from_a_pool(&self, leg: &Leg) -> bool {
        let (opened, answered) = match self.is_outbound {
            Some(true) => (self.began, leg.began),
            _ => (leg.began, self.began),
        };
        matches!((opened, answered), (Some(opened), Some(answered)) if opened < answered)
    }
}

/// How near two calls of one process lie, the nearest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Distance {
    on_another_thread: bool,
    in_another_turn: bool,
    nanos: u64,
}

impl Distance {
    /// `None`: two processes.
    fn between(one: &Call, other: &Call) -> Option<Self> {
        let (a, b) = (one.process, other.process);
        let on_another_thread = a.thread != b.thread;
        (a.pid == b.pid).then(|| Self {
            on_another_thread,
            in_another_turn: on_another_thread || a.sleeps != b.sleeps,
            nanos: one.time.distance(other.time),
        })
    }

    /// How sure a join at this distance is. Measured at HAProxy, held against its own log: 1 of 296
    /// joins was wrong at 90 connections a second, 16 of 162 at 600, which kept its loop busy without
    /// a pause. That is more than these numbers admit: an orderly close of the other leg, which
    /// would tell them apart, is not seen.
    fn confidence(self) -> Option<f32> {
        let Self {
            on_another_thread,
            in_another_turn,
            nanos,
        } = self;
        match (on_another_thread, in_another_turn) {
            (false, false) if nanos <= ADJACENT_NS => Some(0.97),
            (false, false) if nanos <= SAME_TURN_NS => Some(0.85),
            // One long turn of a busy loop holds the closings of many connections.
            (false, false) => Some(0.6),
            // It slept in between: another turn, unless it waited for a lock or a page.
            (false, true) if nanos <= ADJACENT_NS => Some(0.75),
            (true, _) if nanos <= OTHER_THREAD_NS => Some(0.6),
            _ => None,
        }
    }
}

/// The legs of the last moments, and the resets that may belong to them.
#[derive(Debug, Default)]
pub(super) struct Legs {
    /// By the time of their end.
    recent: VecDeque<Leg>,
    /// By the time at which they were sent.
    sent: VecDeque<Passed>,
}

impl Legs {
    /// Takes in a leg at its place in time: whose socket a reset ended is known when the process
    /// closes it, and one may take longer over that than another.
    pub(super) fn remember(&mut self, leg: Leg) {
        insert(&mut self.recent, leg, Leg::ended);
    }

    /// Takes in a reset that a process sent, since a leg may belong to another one than the one
    /// that is asked about.
    pub(super) fn note_sent(&mut self, sent: Passed) {
        insert(&mut self.sent, sent, |sent| sent.time);
    }

    /// The leg whose reset made a process send the reset `to`: each is the other's nearest. A
    /// connection that began only after the other leg's reset (a health check) cannot be its other
    /// leg, nor can one that this host opened, or answered, just like it.
    pub(super) fn cause_of(&self, to: &Passed) -> Option<Join> {
        let call = to.sent?;
        let legs = || near(&self.recent, Leg::ended, call.time, QUIET_NS);
        let distance = |leg: &Leg| {
            let closed = leg.closed.filter(|_| to.may_follow(leg))?;
            Distance::between(&closed, &call)
        };
        let (best, leg) = legs()
            .filter_map(|leg| Some((distance(leg)?, *leg)))
            .min_by_key(|(distance, _)| *distance)?;
        let rivals = || self.rivals(&leg, to);
        if rivals().any(|rival| rival < best) {
            return None;
        }
        let is_crowded = legs()
            .filter(|other| other.key != leg.key)
            .filter_map(distance)
            .chain(rivals())
            .next()
            .is_some();
        if best.on_another_thread && is_crowded {
            return None;
        }
        Some(Join {
            leg,
            delta_ns: to.time.since(leg.time),
            confidence: best.confidence()?,
        })
    }

    /// How near the other resets lie that may belong to a leg.
    fn rivals<'a>(&'a self, leg: &'a Leg, to: &'a Passed) -> impl Iterator<Item = Distance> + 'a {
        near(&self.sent, |sent| sent.time, leg.ended(), QUIET_NS)
            .filter(|sent| sent.key != to.key && sent.may_follow(leg))
            .filter_map(|sent| Distance::between(leg.closed.as_ref()?, sent.sent.as_ref()?))
    }

    /// Where no kernel tells the process: the one leg that was reset within `within_ns` before, if
    /// there is exactly one. Time alone is a weak witness, and says so.
    pub(super) fn nearest(&self, to: &Passed, within_ns: u64) -> Option<Join> {
        let fits = |leg: &&Leg| to.may_follow(leg) && to.time.since(leg.time) <= within_ns;
        let mut near = near(&self.recent, Leg::ended, to.time, within_ns).filter(fits);
        let leg = *near.next()?;
        let alone = near.next().is_none();
        alone.then(|| Join {
            leg,
            delta_ns: to.time.since(leg.time),
            confidence: 0.7,
        })
    }
}

/// Events come in order but for what their threads held back, so that the place is near the end.
fn insert<T>(queue: &mut VecDeque<T>, item: T, time: impl Fn(&T) -> Timestamp) {
    if queue.len() == REMEMBERED {
        queue.pop_front();
    }
    let own = time(&item);
    let later = queue.iter().rev().take_while(|other| time(other) > own);
    let place = queue.len() - later.count();
    queue.insert(place, item);
}

/// The part of a queue in order of time that lies within `within_ns` of `center`.
fn near<T>(
    queue: &VecDeque<T>,
    time: impl Fn(&T) -> Timestamp,
    center: Timestamp,
    within_ns: u64,
) -> impl Iterator<Item = &T> {
    let begin = Timestamp::from_nanos(center.as_nanos().saturating_sub(within_ns));
    let start = queue.partition_point(|item| time(item) < begin);
    let end = queue.partition_point(|item| time(item) <= center.plus_nanos(within_ns));
    queue.range(start..end)
}

#[cfg(test)]
mod tests {
    use super::{Call, Leg, Legs, Passed, is_outbound};
    use crate::flow::{FlowKey, Side};
    use crate::host::Process;
    use crate::time::Timestamp;
    use crate::wire::FourTuple;

    const PROXY: Process = Process {
        pid: 42,
        thread: 42,
        sleeps: 7,
        comm: *b"haproxy\0\0\0\0\0\0\0\0\0",
    };

    fn key(port: u16) -> FlowKey {
        FlowKey::of(FourTuple {
            src: "192.0.2.7".parse().unwrap(),
            src_port: port,
            dst: "198.51.100.1".parse().unwrap(),
            dst_port: 443,
        })
        .0
    }

    fn at(us: u64) -> Timestamp {
        Timestamp::from_nanos((1_000_000 + us) * 1000)
    }

    /// A leg that was reset and closed at these times, in microseconds.
    fn leg(port: u16, reset: u64, closed: u64, process: Process) -> Leg {
        Leg {
            closed: Some(Call {
                process,
                time: at(closed),
            }),
            time: at(reset),
            key: key(port),
            sender: Side::Low,
            began: Some(at(10)),
            is_outbound: Some(false),
        }
    }

    fn sent(port: u16, us: u64, process: Process) -> Passed {
        Passed {
            key: key(port),
            time: at(us),
            sent: Some(Call {
                process,
                time: at(us),
            }),
            began: None,
            is_outbound: Some(true),
        }
    }

    fn legs<const N: usize, const M: usize>(reset: [Leg; N], sent: [Passed; M]) -> Legs {
        let mut legs = Legs::default();
        reset.into_iter().for_each(|leg| legs.remember(leg));
        sent.into_iter().for_each(|sent| legs.note_sent(sent));
        legs
    }

    #[test]
    fn two_sockets_closed_in_one_turn_are_two_legs_in_either_order() {
        for closed in [60, 640] {
            let own = sent(9, 100, PROXY);
            let join = legs([leg(1, 20, closed, PROXY)], [own])
                .cause_of(&own)
                .unwrap();
            assert_eq!((join.leg.key, join.delta_ns), (key(1), 80_000));
            assert!(join.confidence > 0.8);
        }
    }

    #[test]
    fn of_two_resets_near_one_leg_the_nearer_is_joined_and_the_other_is_not() {
        let (own, plain) = (sent(9, 100, PROXY), sent(10, 130, PROXY));
        let legs = legs([leg(1, 20, 70, PROXY)], [own, plain]);
        assert!(legs.cause_of(&own).is_some());
        assert!(legs.cause_of(&plain).is_none());
    }

    #[test]
    fn a_closing_in_a_later_turn_is_another_connections() {
        let later = Process { sleeps: 8, ..PROXY };
        let plain = sent(9, 900, later);
        let legs = legs([leg(1, 20, 70, PROXY)], [plain]);
        assert!(legs.cause_of(&plain).is_none());
    }

    #[test]
    fn legs_on_two_threads_are_joined_only_where_nothing_else_happens() {
        let other = Process {
            thread: 43,
            ..PROXY
        };
        let own = sent(9, 300, other);
        let quiet = legs([leg(1, 20, 70, PROXY)], [own]);
        assert!(quiet.cause_of(&own).unwrap().confidence > 0.5);
        let busy = legs([leg(1, 20, 70, PROXY)], [own, sent(10, 4000, PROXY)]);
        assert!(busy.cause_of(&own).is_none());
    }

    #[test]
    fn a_process_that_is_slow_to_close_hides_nobody_elses_leg() {
        let own = sent(9, 90_000, PROXY);
        let slow = Process { pid: 7, ..PROXY };
        // Reset earlier, closed later: known last.
        let legs = legs(
            [
                leg(1, 89_900, 89_950, PROXY),
                leg(2, 60_000, 95_000, slow),
                leg(3, 60_001, 95_000, slow),
            ],
            [own],
        );
        assert_eq!(legs.cause_of(&own).unwrap().leg.key, key(1));
        assert!(legs.recent.iter().is_sorted_by_key(Leg::ended));
    }

    #[test]
    fn another_process_and_a_health_check_are_not_joined() {
        let legs = legs([leg(1, 20, 70, PROXY)], []);
        let other = Process { pid: 43, ..PROXY };
        assert!(legs.cause_of(&sent(9, 100, other)).is_none());
        let check = Passed {
            began: Some(at(50)),
            ..sent(9, 100, PROXY)
        };
        assert!(legs.cause_of(&check).is_none());
        assert!(legs.cause_of(&sent(1, 100, PROXY)).is_none());
        assert!(legs.cause_of(&sent(9, 100, PROXY)).is_some());
    }

    #[test]
    fn two_connections_that_a_server_answered_are_no_two_legs() {
        let legs = legs([leg(1, 20, 70, PROXY)], []);
        let answered = Passed {
            is_outbound: Some(false),
            ..sent(9, 100, PROXY)
        };
        assert!(legs.cause_of(&answered).is_none());
        let unknown = Passed {
            is_outbound: None,
            ..sent(9, 100, PROXY)
        };
        assert!(legs.cause_of(&unknown).is_none());
    }

    #[test]
    fn a_backends_connection_older_than_the_clients_belongs_to_somebody_else() {
        let older = |us| Passed {
            began: Some(at(5)),
            ..sent(9, us, PROXY)
        };
        let legs = legs([leg(1, 20, 70, PROXY)], []);
        assert!(legs.cause_of(&older(100)).is_none());
    }

    #[test]
    fn ports_tell_who_opened_a_connection_that_is_older_than_the_sensor() {
        let key = key(50_000);
        assert_eq!(is_outbound(None, &key, Side::Low), Some(true));
        assert_eq!(is_outbound(None, &key, Side::High), Some(false));
        assert_eq!(is_outbound(Some(false), &key, Side::Low), Some(false));
    }
}

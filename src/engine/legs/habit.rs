//! In which order a process ends the two legs of a connection: its program decides that, and no chance, so that it is one
//! order for all connections of a service (HAProxy ends the client's leg first in HTTP mode, the other one first in TCP mode).
//! Learned from pairs that stand alone in their turn; where a row of ends may be paired in several ways, it tells which
//! neighbors are no pair. Without it, a pair whose thread was interrupted between the two leaves the second one to
//! whatever unrelated end comes next.

use std::collections::VecDeque;

use crate::flow::Endpoint;

/// Services whose order is known at a time; the one that was not heard of for longest makes room. One a process, frontend
/// and kind of reset: 32 frontends of one process. By choice; each is looked for one by one, so that they stay few.
const SERVICES: usize = 64;

/// How many pairs make an order: by chance so many are alike once in 32 times.
const PAIRS: u8 = 6;

/// How many pairs are remembered, all of which have to be alike: the bits of a byte, and more than make an order, so that
/// one that was by chance must stand two more.
const REMEMBERED: u8 = 8;

/// What has an order of its own: a program may take another one when its upstream resets a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) pid: u32,
    /// Where its clients connect to.
    pub(super) end: Endpoint,
    /// The client's leg was reset, not the upstream's.
    pub(super) by_client: bool,
}

/// Which leg is ended first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum First {
    Client,
    Upstream,
}

/// The last pairs of a service.
#[derive(Debug, Clone, Copy)]
struct Seen {
    count: u8,
    /// A bit a pair, the last one lowest: the client's leg was first.
    client_first: u8,
}

/// The orders that were seen.
#[derive(Debug, Default)]
pub(super) struct Habits(VecDeque<(Service, Seen)>);

impl Habits {
    /// A pair was ended in this order, and nothing else explains either end.
    pub(super) fn note(&mut self, service: Service, first: First) {
        let known = self.0.iter().position(|(other, _)| *other == service);
        let known = known.and_then(|at| self.0.remove(at));
        if self.0.len() == SERVICES {
            self.0.pop_front();
        }
        let (count, before) = known.map_or((0, 0), |(_, seen)| (seen.count, seen.client_first));
        let seen = Seen {
            count: REMEMBERED.min(count + 1),
            client_first: before << 1 | u8::from(first == First::Client),
        };
        self.0.push_back((service, seen));
    }

    /// The order of a service, where all of its last pairs had one.
    pub(super) fn of(&self, service: &Service) -> Option<First> {
        let (_, seen) = self.0.iter().find(|(other, _)| other == service)?;
        let all = u8::MAX >> (REMEMBERED - seen.count);
        match seen.client_first & all {
            _ if seen.count < PAIRS => None,
            0 => Some(First::Upstream),
            bits if bits == all => Some(First::Client),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::key;
    use super::{First, Habits, PAIRS, REMEMBERED, SERVICES, Service};
    use crate::flow::Side;

    fn service(pid: u32) -> Service {
        Service {
            pid,
            end: key(1).endpoint(Side::High),
            by_client: true,
        }
    }

    fn noted(habits: &mut Habits, first: First, times: u8) {
        (0..times).for_each(|_| habits.note(service(1), first));
    }

    #[test]
    fn an_order_is_known_from_some_pairs_on_until_one_contradicts_it() {
        for (usual, other) in [
            (First::Client, First::Upstream),
            (First::Upstream, First::Client),
        ] {
            let mut habits = Habits::default();
            noted(&mut habits, usual, PAIRS - 1);
            assert_eq!(habits.of(&service(1)), None);
            noted(&mut habits, usual, 1);
            assert_eq!(habits.of(&service(1)), Some(usual));
            noted(&mut habits, usual, 200);
            assert_eq!(habits.of(&service(1)), Some(usual));
            noted(&mut habits, other, 1);
            assert_eq!(habits.of(&service(1)), None);
            // A program that was told another way keeps to that.
            noted(&mut habits, other, REMEMBERED - 1);
            assert_eq!(habits.of(&service(1)), Some(other));
        }
    }

    #[test]
    fn each_service_has_its_own_and_the_one_not_heard_of_for_longest_goes() {
        let mut habits = Habits::default();
        noted(&mut habits, First::Client, PAIRS);
        let by_upstream = Service {
            by_client: false,
            ..service(1)
        };
        assert_eq!(habits.of(&by_upstream), None);
        (2..)
            .take(SERVICES - 1)
            .for_each(|pid| habits.note(service(pid), First::Client));
        assert!(habits.of(&service(1)).is_some());
        habits.note(service(9_999), First::Client);
        assert_eq!(habits.of(&service(1)), None);
        assert_eq!(habits.0.len(), SERVICES);
    }
}

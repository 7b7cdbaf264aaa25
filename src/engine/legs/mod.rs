//! The other leg: resets that ended a local socket, and connections that a process then ended
//! itself, by a reset (so that it can be told as forwarded) or in order (so that it can be named). A
//! proxy closes both of its sockets within one turn of its event loop: the thread, and that it did
//! not sleep in between, tell which two belong together, where time alone would join any two that
//! fall close.

mod beside;
mod closed;
mod distance;
mod ending;
#[cfg(test)]
mod fixtures;
mod habit;
mod reading;
mod turn;

use std::collections::VecDeque;

use crate::time::{MILLISECOND, SECOND, Timestamp};
use distance::Distance;
pub(super) use ending::{Call, Leg, Own, Passed, is_outbound};
use habit::{First, Habits, Service};
use reading::Reading;
use turn::{End, Turn};

/// How many of each kind are remembered: at 10,000 a second that is 1.6 s, longer than the default
/// settle time after which the join is made.
const REMEMBERED: usize = 16 * 1024;

/// How far around an end its other leg is looked for.
const QUIET_NS: u64 = 50 * MILLISECOND;

/// How long after an end all that was ended around it has been heard of: what is looked for so far around it, and as long
/// for the kernel's events to come here.
const HEARD_NS: u64 = 2 * QUIET_NS;

/// That a lone leg within that time is the other one: by choice, too few in any run to be measured.
const BY_TIME: f32 = 0.7;

/// How soon a process ends the other leg of a reset of which the kernel's word is missing: time alone
/// joins them. HAProxy, nginx and Envoy take less than a millisecond unless they wait for a CPU; beyond
/// a scheduler's slice chance explains as much.
const UNTOLD_NS: u64 = 5 * MILLISECOND;

/// How long the kernel's word on a reset may come after the reset; it takes microseconds, and the engine
/// hears of both within a turn or two of its loop.
const TOLD_NS: u64 = SECOND;

/// A leg that fits, and how surely.
#[derive(Debug, Clone, Copy)]
pub(super) struct Join {
    pub(super) leg: Leg,
    pub(super) delta_ns: u64,
    /// That it is this leg.
    pub(super) confidence: f32,
    /// Another leg that was reset, as likely as this one.
    pub(super) rival: Option<Leg>,
    /// That it is some leg that was reset.
    pub(super) passed_on: f32,
}

/// How a process ended the other leg: for a reset that came in, or with one that it sent out of itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    pub(super) passed: Passed,
    /// By a reset of its own, not in order.
    pub(super) by_reset: bool,
    pub(super) delta_ns: u64,
    pub(super) confidence: f32,
}

/// The legs of the last moments, and the ends that may belong to them.
#[derive(Debug, Default)]
pub(super) struct Legs {
    /// By the time of their end.
    recent: VecDeque<Leg>,
    /// Resets that a local socket must have accepted, and of which the kernel has not told, by time.
    untold: VecDeque<Leg>,
    /// Resets that a process sent, by time.
    sent: VecDeque<Passed>,
    /// Orderly closings, by time; only those soon after some reset, as `bpf/sockets` tells them.
    closings: VecDeque<Passed>,
    /// Which of two legs a process ends first.
    habits: Habits,
    /// Legs that ended until then were learned from.
    learned: Timestamp,
}

impl Legs {
    /// Takes in a leg at its place in time: whose socket a reset ended is known when the process
    /// closes it, and one may take longer over that than another.
    pub(super) fn remember(&mut self, leg: Leg) {
        insert(&mut self.recent, leg, Leg::ended);
    }

    /// Takes in a reset that must have ended a local socket, before the kernel tells of it. Where it never
    /// does (a tracing program that was not run), the leg is known by nothing else.
    pub(super) fn expect(&mut self, leg: Leg) {
        let is_late = |first: &Leg| leg.time.since(first.time) > TOLD_NS;
        while self.untold.front().is_some_and(is_late) {
            self.untold.pop_front();
        }
        insert(&mut self.untold, leg, |leg| leg.time);
    }

    /// The kernel tells that a reset of that connection ended its socket.
    pub(super) fn note_told(&mut self, own: &Own) {
        let place = self.untold.iter().rposition(|leg| leg.own() == *own);
        if let Some(place) = place {
            self.untold.remove(place);
        }
    }

    /// Takes in a reset that a process sent, since a leg may belong to another one than the one
    /// that is asked about.
    pub(super) fn note_sent(&mut self, sent: Passed) {
        insert(&mut self.sent, sent, |sent| sent.time);
    }

    /// Takes in an orderly close.
    pub(super) fn note_closed(&mut self, closed: Passed) {
        insert(&mut self.closings, closed, |closed| closed.time);
    }

    /// The leg whose reset made a process send the reset `to`. A connection that began only after
    /// the other leg's reset (a health check) cannot be its other leg, nor can one that this host
    /// opened, or answered, just like it.
    pub(super) fn cause_of(&self, to: &Passed) -> Option<Join> {
        let reading = self.reading_of(to)?;
        let delta_ns = to.time.since(reading.leg.time);
        Some(Join {
            leg: reading.leg,
            delta_ns,
            confidence: reading.named,
            rival: reading.rival,
            passed_on: reading.passed_on,
        })
    }

    /// Learns in which order processes end two legs from all resets around which nothing more will be heard of by
    /// `now`: before the first of them is judged, so that what comes first on a busy host finds its order known.
    pub(super) fn learn(&mut self, now: Timestamp) {
        let until = Timestamp::from_nanos(now.as_nanos().saturating_sub(HEARD_NS));
        let start = self
            .recent
            .partition_point(|leg| leg.ended() <= self.learned);
        let end = self.recent.partition_point(|leg| leg.ended() <= until);
        for at in start..end {
            if let Some((service, first)) = self.order_of(at) {
                self.habits.note(service, first);
            }
        }
        self.learned = self.learned.max(until);
    }

    fn order_of(&self, at: usize) -> Option<(Service, First)> {
        let leg = self.recent.get(at)?;
        let turn = self.turn(&leg.closed?, None);
        turn.order_at(turn.place_of(&leg.own())?)
    }

    /// What its process made of a reset that ended that socket at or after `time`.
    pub(super) fn answer_to(&self, own: &Own, time: Timestamp) -> Option<Answer> {
        let start = self.recent.partition_point(|leg| leg.ended() < time);
        let leg = self.recent.range(start..).find(|leg| leg.own() == *own)?;
        let (by_reset, passed, confidence) = self.end_of(leg)?;
        Some(Answer {
            passed,
            by_reset,
            delta_ns: passed.time.since(leg.time),
            confidence,
        })
    }

    fn reading_of(&self, to: &Passed) -> Option<Reading> {
        let call = to.sent?;
        let own = End::Passed {
            by_reset: true,
            passed: *to,
        };
        let turn = self.turn(&call, Some(own));
        if let Some(at) = turn.place_of(&to.own()) {
            let reading = Reading::of(&turn, at);
            if reading.is_some() || turn.fitting_in_any_order(at).next().is_some() {
                return reading;
            }
        }
        let mut near = self
            .legs_near(call.time)
            .filter_map(|leg| Some((Distance::of(to, leg)?, *leg)));
        let (distance, leg) = near.next()?;
        let is_alone = near.next().is_none()
            && self.possible_ends(&leg).count() <= 1
            && distance.counts_in(&turn);
        let confidence = distance.confidence().filter(|_| is_alone)?;
        Some(Reading::sure(leg, confidence))
    }

    fn end_of(&self, leg: &Leg) -> Option<(bool, Passed, f32)> {
        let turn = self.turn(&leg.closed?, None);
        if let Some(at) = turn.place_of(&leg.own()) {
            let answer = reading::answer_to(&turn, at);
            if answer.is_some() || turn.fitting_in_any_order(at).next().is_some() {
                return answer;
            }
        }
        let mut near = self.possible_ends(leg);
        let (distance, by_reset, passed) = near.next()?;
        let legs = self.legs_near(passed.sent?.time);
        let is_alone = near.next().is_none()
            && legs.filter_map(|leg| Distance::of(&passed, leg)).count() == 1
            && distance.counts_in(&turn);
        Some((
            by_reset,
            passed,
            distance.confidence().filter(|_| is_alone)?,
        ))
    }

    /// What was ended in the turn in which this call was made.
    fn turn(&self, call: &Call, own: Option<End>) -> Turn {
        let legs = self.legs_near(call.time).map(|leg| End::Leg(*leg));
        let ends = self.ends_near(call.time);
        let ends = ends.map(|(by_reset, passed)| End::Passed {
            by_reset,
            passed: *passed,
        });
        Turn::of(call, legs.chain(ends).chain(own), &self.habits)
    }

    /// The ends that may belong to a leg, each connection once.
    fn possible_ends(&self, leg: &Leg) -> impl Iterator<Item = (Distance, bool, Passed)> {
        let mut found: Vec<(Distance, bool, Passed)> = Vec::new();
        for (by_reset, end) in self.ends_near(leg.ended()) {
            let known = found.iter().any(|(.., known)| known.own() == end.own());
            if let Some(distance) = Distance::of(end, leg).filter(|_| !known) {
                found.push((distance, by_reset, *end));
            }
        }
        found.into_iter()
    }

    fn legs_near(&self, center: Timestamp) -> impl Iterator<Item = &Leg> {
        near(&self.recent, Leg::ended, center, QUIET_NS)
    }

    /// The ends near a time, resets first, and whether each is one.
    fn ends_near(&self, center: Timestamp) -> impl Iterator<Item = (bool, &Passed)> {
        let near = move |queue| near(queue, |end: &Passed| end.time, center, QUIET_NS);
        let resets = near(&self.sent).map(|end| (true, end));
        resets.chain(near(&self.closings).map(|end| (false, end)))
    }

    /// Where no kernel tells the process: the one leg that was reset within `within_ns` before, if
    /// there is exactly one. Time alone is a weak witness, and says so.
    pub(super) fn nearest(&self, to: &Passed, within_ns: u64) -> Option<Join> {
        let near = near(&self.recent, Leg::ended, to.time, within_ns);
        Self::lone(near, to, within_ns)
    }

    /// The same of the legs of which the kernel did not tell.
    pub(super) fn nearest_untold(&self, to: &Passed) -> Option<Join> {
        let near = near(&self.untold, |leg| leg.time, to.time, UNTOLD_NS);
        Self::lone(near, to, UNTOLD_NS)
    }

    fn lone<'a>(legs: impl Iterator<Item = &'a Leg>, to: &Passed, within_ns: u64) -> Option<Join> {
        let fits = |leg: &&Leg| {
            to.may_follow(leg) && !to.is_lent(leg) && to.time.since(leg.time) <= within_ns
        };
        let mut legs = legs.filter(fits);
        let leg = *legs.next()?;
        let alone = legs.next().is_none();
        alone.then(|| Join {
            leg,
            delta_ns: to.time.since(leg.time),
            confidence: BY_TIME,
            rival: None,
            passed_on: BY_TIME,
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
fn near<'a, T, F: Fn(&T) -> Timestamp>(
    queue: &'a VecDeque<T>,
    time: F,
    center: Timestamp,
    within_ns: u64,
) -> impl Iterator<Item = &'a T> + use<'a, T, F> {
    let begin = Timestamp::from_nanos(center.as_nanos().saturating_sub(within_ns));
    let start = queue.partition_point(|item| time(item) < begin);
    let end = queue.partition_point(|item| time(item) <= center.plus_nanos(within_ns));
    queue.range(start..end)
}

#[cfg(test)]
mod tests {
    use super::fixtures::{PROXY, at, connection, key, leg, sent};
    use super::{Leg, Legs, Passed};
    use crate::host::Process;

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
    fn a_page_that_was_still_on_disk_ends_no_turn() {
        let after = |waits, pages| Process {
            sleeps: PROXY.sleeps + waits,
            major_faults: PROXY.major_faults + pages,
            ..PROXY
        };
        let join = |process| {
            let own = sent(9, 100, PROXY);
            legs([leg(1, 20, 400, process)], [own]).cause_of(&own)
        };
        for (waits, pages) in [(1, 1), (0, 1), (2, 3)] {
            assert!(join(after(waits, pages)).unwrap().confidence > 0.9);
        }
        // It waited for something else, too.
        assert!(join(after(2, 1)).is_none());
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
    fn a_leg_of_which_the_kernel_does_not_tell_is_joined_by_time_alone_until_it_does() {
        let own = sent(9, 900, PROXY);
        let unheard = |port, us| Leg {
            closed: None,
            ..leg(port, us, us, PROXY)
        };
        let mut legs = legs([], [own]);
        legs.expect(unheard(1, 20));
        assert!(legs.cause_of(&own).is_none());
        let join = legs.nearest_untold(&own).unwrap();
        assert_eq!((join.leg.key, join.confidence), (key(1), 0.7));
        assert!(legs.nearest_untold(&sent(9, 8_000, PROXY)).is_none());
        legs.expect(unheard(2, 30));
        assert!(legs.nearest_untold(&own).is_none());
        legs.note_told(&connection(2));
        assert!(legs.nearest_untold(&own).is_some());
        let (key, side) = connection(1);
        legs.note_told(&(key, side.other()));
        assert!(legs.nearest_untold(&own).is_some(), "another on its ports");
        legs.note_told(&connection(1));
        assert!(legs.nearest_untold(&own).is_none());
        legs.expect(unheard(1, 20));
        legs.expect(unheard(3, 2_000_000));
        assert_eq!(legs.untold.len(), 1);
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
    fn a_lent_connection_is_joined_less_surely_and_gives_way_to_one_of_its_own() {
        let lent = Passed {
            began: Some(at(5)),
            ..sent(9, 100, PROXY)
        };
        let own = sent(10, 40, PROXY);
        let alone = legs([leg(1, 20, 70, PROXY)], [lent]);
        let sure = alone.cause_of(&lent).unwrap().confidence;
        let of_its_own = legs([leg(1, 20, 70, PROXY)], [own]);
        assert!(sure < of_its_own.cause_of(&own).unwrap().confidence);
        let both = legs([leg(1, 20, 70, PROXY)], [lent, own]);
        assert!(both.cause_of(&lent).is_none());
        assert!(both.cause_of(&own).is_some());
    }

    #[test]
    fn an_orderly_close_is_the_answer_to_a_reset_where_nothing_is_nearer() {
        let mut legs = legs([leg(1, 20, 70, PROXY)], []);
        legs.note_closed(sent(9, 100, PROXY));
        let answer = legs.answer_to(&connection(1), at(20)).unwrap();
        assert_eq!((answer.passed.key, answer.by_reset), (key(9), false));
        assert_eq!(answer.delta_ns, 80_000);
        assert!(legs.answer_to(&connection(2), at(20)).is_none());
        legs.note_sent(sent(10, 80, PROXY));
        let nearer = legs.answer_to(&connection(1), at(20)).unwrap();
        assert_eq!((nearer.passed.key, nearer.by_reset), (key(10), true));
    }

    #[test]
    fn a_close_that_is_another_legs_answer_is_not_ours() {
        let mut legs = legs([leg(1, 20, 70, PROXY), leg(2, 25, 160, PROXY)], []);
        legs.note_closed(sent(9, 150, PROXY));
        assert!(legs.answer_to(&connection(1), at(20)).is_none());
        assert!(legs.answer_to(&connection(2), at(25)).is_some());
    }

    #[test]
    fn a_leg_that_was_closed_in_order_next_to_its_reset_passed_no_reset_on() {
        let own = sent(9, 140, PROXY);
        let mut legs = legs([leg(1, 20, 70, PROXY)], [own]);
        assert!(legs.cause_of(&own).is_some());
        legs.note_closed(sent(10, 90, PROXY));
        assert!(legs.cause_of(&own).is_none());
    }

    #[test]
    fn a_thread_that_was_stopped_for_long_joins_what_it_ended_only_where_that_is_all() {
        let own = sent(9, 100, PROXY);
        let mut legs = legs([leg(1, 20, 20_100, PROXY)], [own]);
        assert_eq!(legs.cause_of(&own).unwrap().confidence, 0.8);
        assert!(legs.answer_to(&connection(1), at(20)).is_some());
        // The other end is a client's that closed in order.
        legs.note_closed(Passed {
            is_outbound: Some(false),
            ..sent(8, 60, PROXY)
        });
        assert!(legs.cause_of(&own).is_none());
        assert!(legs.answer_to(&connection(1), at(20)).is_none());
    }

    #[test]
    fn an_order_that_was_seen_again_and_again_tells_which_neighbor_it_is() {
        let own = sent(9, 100, PROXY);
        let mut legs = legs([leg(1, 20, 72, PROXY), leg(2, 20, 113, PROXY)], [own]);
        // A client's leg and then its upstream's, each in a turn of its own.
        for port in 100..108 {
            let process = Process {
                sleeps: u64::from(port),
                ..PROXY
            };
            let us = 200_000 * u64::from(port - 99);
            legs.remember(leg(port, us, us + 10, process));
            legs.note_sent(sent(200 + port, us + 40, process));
        }
        let near = legs.cause_of(&own).unwrap();
        assert_eq!((near.leg.key, near.confidence), (key(2), 0.9));
        // The first of them five times: what is learned, is learned once.
        (0..5).for_each(|_| legs.learn(at(400_000)));
        assert_eq!(legs.cause_of(&own).unwrap().leg.key, key(2));
        // Of the last one not all may have been heard.
        legs.learn(at(1_650_000));
        assert_eq!(legs.learned, at(1_550_000));
        let usual = legs.cause_of(&own).unwrap();
        assert_eq!((usual.leg.key, usual.confidence), (key(1), 0.99));
        assert!(legs.answer_to(&connection(2), at(20)).is_none());
        assert_eq!(
            legs.answer_to(&connection(1), at(20)).unwrap().passed.key,
            own.key
        );
    }
}

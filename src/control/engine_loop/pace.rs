//! Up to when the engine judges, so that it never judges what it could not yet ask about: after a stop of the process (a
//! debugger, a frozen cgroup, a virtual CPU that was taken away) the time of its resets to settle is over before it has
//! heard of them.

use crate::time::{MILLISECOND, SECOND, Timestamp};

/// A kernel event or a copy may reach us this much later than the frame that it belongs to: both
/// wait for one turn of their threads. An episode is judged when that time has passed as well.
const GRACE_NS: u64 = 20 * MILLISECOND;

/// The thread rests for 100 ms at most ([`super::QUIET_REST`]): what is much longer is a stop. What one of less takes
/// from the second in which a record settles leaves enough.
const STOPPED_NS: u64 = 300 * MILLISECOND;

/// After a stop, how long what waited is heard, and workers are asked what they knew of it and answer, before the
/// clock goes on: the ring buffer's 28,000 records are 28 turns, and a worker, which rests for 12 ms at most, takes
/// the 4096 resets that it can be told of in 64.
const CATCH_UP_NS: u64 = 200 * MILLISECOND;

/// It stands still for no longer than this, however often it is stopped: a process that is given a slice now and then
/// (`cpu.max`, whose periods are a second at most) comes to few turns in between, and has to judge all the same. A stop
/// that is longer is another one.
const HELD_NS_MAX: u64 = SECOND;

/// So many long stops in a row may each find it standing still: a process that is stopped for seconds and runs for some
/// milliseconds, again and again, would never judge.
const STOPS_MAX: u32 = 5;

/// The clock by which the engine judges.
#[derive(Debug, Default)]
pub(in crate::control) struct Pace {
    /// When it was asked last.
    asked: Option<Timestamp>,
    settled: Timestamp,
    held_since: Option<Timestamp>,
    held_until: Timestamp,
    /// It was not stopped before it was asked last.
    runs: bool,
    /// Long stops since it stands still.
    stops: u32,
}

impl Pace {
    /// Up to when all that belongs together was heard, at `now`.
    pub(super) fn settled(&mut self, now: Timestamp) -> Timestamp {
        let gap = self.asked.replace(now).map_or(0, |asked| now.since(asked));
        let is_stopped = gap > STOPPED_NS;
        if is_stopped {
            if self.runs && gap > HELD_NS_MAX && self.stops < STOPS_MAX {
                self.held_since = None;
                self.stops += 1;
            }
            let latest = self.held_since.get_or_insert(now).plus_nanos(HELD_NS_MAX);
            self.held_until = now.plus_nanos(CATCH_UP_NS).min(latest);
        }
        self.runs = !is_stopped;
        if now >= self.held_until {
            (self.held_since, self.stops) = (None, 0);
            self.settled = Timestamp::from_nanos(now.as_nanos().saturating_sub(GRACE_NS));
        }
        self.settled
    }
}

#[cfg(test)]
mod tests {
    use super::Pace;
    use crate::time::{MILLISECOND, Timestamp};

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_nanos(ms * MILLISECOND)
    }

    #[test]
    fn the_clock_follows_by_a_turn_of_the_threads() {
        let mut pace = Pace::default();
        // It begins anywhere.
        for ms in [5000, 5010, 5110, 5210, 5211] {
            assert_eq!(pace.settled(at(ms)), at(ms - 20));
        }
    }

    #[test]
    fn after_a_stop_it_stands_still_until_what_waited_was_heard() {
        let mut pace = Pace::default();
        assert_eq!(pace.settled(at(5000)), at(4980));
        for ms in [11_000, 11_001, 11_010, 11_199] {
            assert_eq!(pace.settled(at(ms)), at(4980));
        }
        assert_eq!(pace.settled(at(11_200)), at(11_180));
        // Again and again.
        assert_eq!(pace.settled(at(11_600)), at(11_180));
        assert_eq!(pace.settled(at(11_800)), at(11_780));
    }

    #[test]
    fn a_second_long_stop_while_it_stands_still_is_a_stop() {
        let mut pace = Pace::default();
        for ms in [5000, 11_000, 11_010, 17_010, 17_209] {
            assert_eq!(pace.settled(at(ms)), at(4980), "{ms}");
        }
        assert_eq!(pace.settled(at(17_210)), at(17_190));
        // Where no turn comes between, it judges at every other one.
        let settled = [20_000, 22_000, 24_000].map(|ms| pace.settled(at(ms)));
        assert_eq!(settled, [at(17_190), at(21_980), at(21_980)]);
    }

    #[test]
    fn who_is_stopped_for_long_again_and_again_judges_all_the_same() {
        let mut pace = Pace::default();
        // Stopped for a second and a half, and let go for 10 ms.
        let turns = (0..10).flat_map(|n| [5000 + n * 1510, 5010 + n * 1510]);
        let settled: Vec<_> = turns.map(|ms| pace.settled(at(ms))).collect();
        let stands = settled.iter().filter(|settled| **settled == at(4990));
        // The first two turns are of no stop; five stops, and the one that is not waited for.
        assert_eq!(stands.count(), 11, "{settled:?}");
        assert_eq!(settled[12], at(5000 + 6 * 1510 - 20));
    }

    #[test]
    fn who_is_given_a_slice_now_and_then_judges_all_the_same() {
        let mut pace = Pace::default();
        let settled: Vec<_> = (0..9).map(|n| pace.settled(at(5000 + n * 400))).collect();
        let stands = at(4980);
        assert_eq!(settled[..4], [stands; 4]);
        // A second after the first stop it goes on, and stops again.
        assert_eq!(
            settled[4..],
            [at(6580), at(6580), at(6580), at(6580), at(8180)]
        );
    }
}

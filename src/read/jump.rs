//! Where one file holds two captures, one behind the other, as `mergecap -a` and `cat` make them: time
//! goes back there and stays back. A packet that is late alone, or a file in which two clocks take turns,
//! is no other capture.

use crate::time::{SECOND, Timestamp};

/// So far back no packet is late: interfaces hand theirs over within a second or two, and what an engine
/// waits for (`--settle`, what follows a forged reset) is of seconds too. Half a minute is clear of both.
const BACK_NS: u64 = 30 * SECOND;

/// So many packets in a row must have stayed back, where so many follow. Of two interfaces with two
/// clocks that share a file one is seldom silent while the other takes in sixteen.
const SURE: usize = 16;

/// It may be once, with clocks that are 37 s apart as those of TAI and UTC. Then the other clock's time
/// returns after a burst, and not after a whole capture.
const BURST: u32 = 1024;

/// How far packets that wait belong to the capture at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    /// So many do.
    pub(super) count: usize,
    /// Another capture begins behind them. Otherwise the rest, if there is any, is not certain yet.
    pub(super) begins_anew: bool,
}

/// The time of the capture at hand.
#[derive(Debug, Default)]
pub(super) struct Clock {
    latest: Timestamp,
    /// Time went back before and returned: few packets that are back at the end are no other capture.
    takes_turns: bool,
    /// The latest time of the capture before, and packets since.
    before: Option<(Timestamp, u32)>,
    /// What was taken for another capture was another clock: the file is one.
    is_one: bool,
}

impl Clock {
    /// Looks at the times of the packets that wait; `is_all` when no more follow.
    pub(super) fn cut(&mut self, times: &[Timestamp], is_all: bool) -> Cut {
        for (at, time) in times.iter().enumerate() {
            if self.is_one || !self.is_back(*time) {
                self.go_on(*time);
                continue;
            }
            let rest = times.get(at..).unwrap_or_default();
            if rest.iter().any(|later| !self.is_back(*later)) {
                self.takes_turns = true;
                continue;
            }
            let begins_anew = rest.len() >= SURE || (is_all && !self.takes_turns);
            if begins_anew {
                self.before = Some((self.latest, 0));
                (self.latest, self.takes_turns) = (*time, false);
            } else if is_all {
                break;
            }
            return Cut {
                count: at,
                begins_anew,
            };
        }
        Cut {
            count: times.len(),
            begins_anew: false,
        }
    }

    fn go_on(&mut self, time: Timestamp) {
        self.latest = self.latest.max(time);
        if let Some((before, packets)) = &mut self.before {
            *packets += 1;
            self.is_one |= time > *before;
            if *packets >= BURST {
                self.before = None;
            }
        }
    }

    fn is_back(&self, time: Timestamp) -> bool {
        self.latest.since(time) > BACK_NS
    }
}

#[cfg(test)]
mod tests {
    use super::{Clock, Cut, SURE};
    use crate::time::{SECOND, Timestamp};

    fn at(seconds: &[u64]) -> Vec<Timestamp> {
        let time = |s: &u64| Timestamp::from_nanos(s * SECOND);
        seconds.iter().map(time).collect()
    }

    fn cut(count: usize, begins_anew: bool) -> Cut {
        Cut { count, begins_anew }
    }

    #[test]
    fn a_capture_behind_another_begins_where_time_goes_back_and_stays_back() {
        let mut clock = Clock::default();
        let mut times = at(&[9_000, 9_001]);
        times.extend(at(&[10; SURE]));
        assert_eq!(clock.cut(&times, false), cut(2, true));
        assert_eq!(clock.cut(&times[2..], false), cut(SURE, false));
        assert_eq!(clock.cut(&at(&[11, 12]), true), cut(2, false));
    }

    #[test]
    fn few_packets_that_are_back_wait_for_more_or_for_the_end() {
        let mut clock = Clock::default();
        let times = at(&[9_000, 10, 11]);
        assert_eq!(clock.cut(&times, false), cut(1, false));
        assert_eq!(clock.cut(&times[1..], false), cut(0, false));
        assert_eq!(clock.cut(&times[1..], true), cut(0, true));
        assert_eq!(clock.cut(&times[1..], true), cut(2, false));
    }

    #[test]
    fn two_clocks_in_one_file_and_a_late_packet_are_one_capture() {
        let mut clock = Clock::default();
        let times = at(&[9_000, 10, 9_001, 11, 12, 9_002]);
        assert_eq!(clock.cut(&times, true), cut(6, false));
        assert_eq!(clock.cut(&at(&[9_003, 8_800]), true), cut(2, false));
        assert_eq!(clock.cut(&at(&[9_004, 13, 14]), true), cut(3, false));
    }

    #[test]
    fn a_burst_of_a_slow_clock_is_mistaken_once_at_most() {
        let mut clock = Clock::default();
        let mut times = at(&[9_000]);
        times.extend(at(&[8_963; SURE]));
        assert_eq!(clock.cut(&times, false), cut(1, true));
        times[0] = Timestamp::from_nanos(9_001 * SECOND);
        times.rotate_left(1);
        assert_eq!(clock.cut(&times, false), cut(SURE + 1, false));
        assert_eq!(clock.cut(&at(&[8_964; SURE]), true), cut(SURE, false));
    }

    #[test]
    fn several_captures_of_one_time_are_several() {
        let mut clock = Clock::default();
        // As they come to wait: few at a time.
        let mut begun = |times: &[u64]| -> usize {
            let cuts = times.chunks(32).map(|some| {
                let cut = clock.cut(&at(some), false);
                let rest = &some[cut.count..];
                assert_eq!(clock.cut(&at(rest), false).count, rest.len());
                usize::from(cut.begins_anew)
            });
            cuts.sum()
        };
        let mut whole: Vec<u64> = (0..2_000).map(|n| 9_000 + n / 50).collect();
        assert_eq!(begun(&whole), 0);
        for end in [9_041, 9_042, 9_043] {
            whole.push(end);
            assert_eq!(begun(&whole), 1, "{end}");
        }
    }
}

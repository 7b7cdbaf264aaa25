//! The clocks of the composition: CLOCK_MONOTONIC, in which BPF stamps frames, and the distance to
//! the time of day, taken when a record is written.

use rustix::time::{ClockId, clock_gettime};

use crate::time::{MILLISECOND, Timestamp};

/// The time of day must have moved by this much against CLOCK_MONOTONIC before records follow it:
/// both are slewed alike, and two readings one after the other differ by less, so that more is a
/// step (settime, the first answer of a time server) or a suspended machine.
const STEP_NS: u64 = 50 * MILLISECOND;

/// Now, in the clock of the frames.
pub(super) fn monotonic() -> Timestamp {
    Timestamp::from_nanos(u64::try_from(nanos(ClockId::Monotonic)).unwrap_or_default())
}

/// Nanoseconds from `now`, just taken from [`monotonic`], to the time of day.
pub(super) fn wall_offset_ns(now: Timestamp) -> i64 {
    let wall = nanos(ClockId::Realtime);
    i64::try_from(wall - i128::from(now.as_nanos())).unwrap_or_default()
}

/// The distance that records are to use when `measured_ns` is found and `used_ns` was used so far:
/// a step of the clock is followed, a jitter is not, so that times within a record and between
/// records stay what they were apart.
pub(super) fn follow_wall(used_ns: i64, measured_ns: i64) -> i64 {
    if used_ns.abs_diff(measured_ns) >= STEP_NS {
        measured_ns
    } else {
        used_ns
    }
}

fn nanos(clock: ClockId) -> i128 {
    let time = clock_gettime(clock);
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}

#[cfg(test)]
mod tests {
    use super::{STEP_NS, follow_wall, monotonic, wall_offset_ns};

    #[test]
    fn a_step_of_the_time_of_day_is_followed_and_a_jitter_is_not() {
        let used = 1_700_000_000_000_000_000;
        for jitter in [0, 1, -1, 40_000_000, -40_000_000] {
            assert_eq!(follow_wall(used, used + jitter), used);
        }
        let step = i64::try_from(STEP_NS).unwrap();
        for jump in [step, -step, 3_600_000_000_000, -86_400_000_000_000] {
            assert_eq!(follow_wall(used, used + jump), used + jump);
        }
        assert_eq!(follow_wall(i64::MIN, i64::MAX), i64::MAX, "no overflow");
    }

    #[test]
    fn two_readings_are_no_step() {
        let first = wall_offset_ns(monotonic());
        assert_eq!(follow_wall(first, wall_offset_ns(monotonic())), first);
    }
}

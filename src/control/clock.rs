//! The clocks of the composition: CLOCK_MONOTONIC, in which BPF stamps frames, and the distance to
//! the time of day, taken when a record is written.

use rustix::time::{ClockId, clock_gettime};

use crate::time::Timestamp;

/// Now, in the clock of the frames.
pub(super) fn monotonic() -> Timestamp {
    Timestamp::from_nanos(u64::try_from(nanos(ClockId::Monotonic)).unwrap_or_default())
}

/// Nanoseconds from `now`, just taken from [`monotonic`], to the time of day.
pub(super) fn wall_offset_ns(now: Timestamp) -> i64 {
    let wall = nanos(ClockId::Realtime);
    i64::try_from(wall - i128::from(now.as_nanos())).unwrap_or_default()
}

fn nanos(clock: ClockId) -> i128 {
    let time = clock_gettime(clock);
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}

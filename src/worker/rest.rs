//! How long a worker sleeps when there is nothing to do: a quarter of a millisecond while frames are on
//! their way out, its rest while frames have come of late, and twice that when none came for a second.
//! `steer` passes the frames of a worker whose heartbeat is late, whatever it sleeps for: what is longer
//! here costs the host nothing, and at worst the sensor sees a frame by its copy.

use crate::time::{MILLISECOND, SECOND};

/// While frames are still on their way out, their memory is looked for soon.
pub(super) const SHORT_NS: u64 = MILLISECOND / 4;

/// How long no frame came until a worker is idle.
const IDLE_AFTER_NS: u64 = SECOND;

/// An idle worker's rest, in ordinary ones. Twice: the heartbeat of one that rests for 6 ms may be 12 ms
/// late, and of one that is idle 8 ms, before `steer` passes by its queue (20 ms). Each wake-up costs some
/// 25 us, of which the kernel's timer and switch are nearly all.
const IDLE_RESTS: u64 = 2;

/// Until when a worker is wide awake.
#[derive(Debug)]
pub(super) struct Rest {
    ordinary_ns: u64,
    last_frame_ns: u64,
}

impl Rest {
    pub(super) const fn new(ordinary_ns: u64) -> Self {
        Self {
            ordinary_ns,
            last_frame_ns: 0,
        }
    }

    /// The longest rest that there is for that ordinary one.
    pub(super) const fn longest_ns(ordinary_ns: u64) -> u64 {
        ordinary_ns * IDLE_RESTS
    }

    /// Frames came at `now_ns`, or the worker starts.
    pub(super) const fn note_frames(&mut self, now_ns: u64) {
        self.last_frame_ns = now_ns;
    }

    /// How long to sleep at most, in nanoseconds, after a turn that began at `now_ns`.
    pub(super) const fn after(&self, now_ns: u64, is_moving: bool) -> u64 {
        if is_moving {
            SHORT_NS
        } else if now_ns.saturating_sub(self.last_frame_ns) < IDLE_AFTER_NS {
            self.ordinary_ns
        } else {
            Self::longest_ns(self.ordinary_ns)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Rest;
    use crate::time::{MILLISECOND, SECOND};

    #[test]
    fn a_worker_rests_longer_once_no_frame_came_for_a_second_and_no_longer_with_the_next() {
        let mut rest = Rest::new(6 * MILLISECOND);
        rest.note_frames(5 * SECOND);
        assert_eq!(rest.after(5 * SECOND, false), 6 * MILLISECOND);
        assert_eq!(rest.after(6 * SECOND - 1, false), 6 * MILLISECOND);
        assert_eq!(rest.after(6 * SECOND, false), 12 * MILLISECOND);
        rest.note_frames(9 * SECOND);
        assert_eq!(rest.after(9 * SECOND, false), 6 * MILLISECOND);
    }

    #[test]
    fn nobody_sleeps_long_while_frames_are_on_their_way_out() {
        let rest = Rest::new(6 * MILLISECOND);
        for now in [0, 20 * SECOND] {
            assert_eq!(rest.after(now, true), MILLISECOND / 4);
        }
    }
}

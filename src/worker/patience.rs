//! When a worker that has nothing to do stays awake a little: right after frames, since the next
//! one often follows (a FIN, the SYN after it), and a sleeping thread costs it a wake-up, on a
//! virtual machine more than all the rest. Bounded in time and in its share of the CPU, and given up
//! at once where another thread wants the CPU. Pure: times in, decisions out.

use crate::time::{MICROSECOND, MILLISECOND, SECOND};

/// How long to stay awake after the last frame: several times what a handshake takes on a local
/// segment, and far below what would cost an idle host anything.
const WINDOW_NS: u64 = 60 * MICROSECOND;

/// One part in so many of the time may be spent awake without a frame: a quarter of a CPU at most,
/// and only of one that is otherwise idle.
const SHARE: u64 = 4;

/// What may be saved up for a burst of connections.
const SAVINGS_NS: u64 = 50 * MILLISECOND;

/// A pause this long between two looks at the ring means that another thread ran here: a look
/// takes less than a microsecond, an interrupt some ten.
const CROWDED_NS: u64 = 30 * MICROSECOND;

/// A frame that waited this long before the worker saw it means the same: a sleeping thread is
/// woken within a tenth of that on a CPU that has nothing else to do.
const LATE_NS: u64 = 200 * MICROSECOND;

/// How long a crowded CPU is left alone: that long, the worker only sleeps and is woken.
const CALM_NS: u64 = SECOND;

/// What may still be spent, and until when nothing is.
#[derive(Debug, Default)]
pub(super) struct Patience {
    last_frame_ns: u64,
    savings_ns: u64,
    earned_until_ns: u64,
    crowded_until_ns: u64,
}

impl Patience {
    /// Frames were dealt with at that time, the oldest of which had waited so long before.
    pub(super) fn saw_frames(&mut self, now_ns: u64, waited_ns: u64) {
        self.last_frame_ns = now_ns;
        if waited_ns > LATE_NS {
            self.crowded_until_ns = now_ns + CALM_NS;
        }
    }

    /// Until when to stay awake; `None`: sleep.
    pub(super) fn until(&mut self, now_ns: u64) -> Option<u64> {
        let earned = now_ns.saturating_sub(self.earned_until_ns) / SHARE;
        self.earned_until_ns = now_ns;
        self.savings_ns = (self.savings_ns + earned).min(SAVINGS_NS);
        let end_ns = self.last_frame_ns + WINDOW_NS;
        let is_affordable = self.savings_ns >= WINDOW_NS && now_ns >= self.crowded_until_ns;
        (self.last_frame_ns > 0 && now_ns < end_ns && is_affordable).then_some(end_ns)
    }

    /// The thread looked from `before_ns` until `now_ns` and found nothing; answers whether it may
    /// look again.
    pub(super) fn looked(&mut self, before_ns: u64, now_ns: u64) -> bool {
        let spent = now_ns.saturating_sub(before_ns);
        self.savings_ns = self.savings_ns.saturating_sub(spent);
        let is_crowded = spent > CROWDED_NS;
        if is_crowded {
            self.crowded_until_ns = now_ns + CALM_NS;
        }
        !is_crowded
    }
}

#[cfg(test)]
mod tests {
    use super::{CALM_NS, CROWDED_NS, LATE_NS, Patience, SAVINGS_NS, SHARE, WINDOW_NS};
    use crate::time::SECOND;

    const START: u64 = 10 * SECOND;

    #[test]
    fn a_worker_without_frames_sleeps_at_once() {
        let mut patience = Patience::default();
        assert_eq!(patience.until(START), None);
        patience.saw_frames(START, 0);
        assert_eq!(patience.until(START + WINDOW_NS), None);
    }

    #[test]
    fn after_a_frame_it_stays_awake_for_the_window() {
        let mut patience = Patience::default();
        patience.saw_frames(START, 0);
        assert_eq!(patience.until(START + 1000), Some(START + WINDOW_NS));
    }

    #[test]
    fn where_another_thread_ran_it_sleeps_for_a_second() {
        let mut patience = Patience::default();
        patience.saw_frames(START, 0);
        assert!(patience.looked(START, START + 500));
        assert!(!patience.looked(START + 500, START + 501 + CROWDED_NS));
        for later in [1, CALM_NS / 2, CALM_NS - 2] {
            let now = START + 501 + CROWDED_NS + later;
            patience.saw_frames(now, 0);
            assert_eq!(patience.until(now + 1), None, "{later}");
        }
        let now = START + 502 + CROWDED_NS + CALM_NS;
        patience.saw_frames(now, 0);
        assert!(patience.until(now + 1).is_some());
    }

    #[test]
    fn a_frame_that_waited_long_tells_of_a_crowded_cpu() {
        let mut patience = Patience::default();
        patience.saw_frames(START, LATE_NS + 1);
        assert_eq!(patience.until(START + 1000), None);
        patience.saw_frames(START + CALM_NS, LATE_NS);
        assert!(patience.until(START + CALM_NS + 1000).is_some());
    }

    #[test]
    fn it_never_spends_more_than_its_share() {
        let mut patience = Patience::default();
        let (mut now, mut spent) = (START, 0);
        // A frame every 20 us for a second: it would stay awake all the time.
        while now < START + SECOND {
            patience.saw_frames(now, 0);
            let mut at = now + 2000;
            while let Some(end) = patience.until(at) {
                if at >= (now + 20_000).min(end) {
                    break;
                }
                spent += 1000;
                patience.looked(at, at + 1000);
                at += 1000;
            }
            now += 20_000;
        }
        assert!(spent > SECOND / SHARE - SECOND / 50, "{spent}");
        assert!(spent <= SECOND / SHARE + SAVINGS_NS, "{spent}");
    }
}

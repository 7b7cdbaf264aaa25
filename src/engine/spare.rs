//! Memory of episodes that were judged, for those that open next. An episode is a kilobyte and more, and
//! what was judged a moment ago is near: to hand it back and ask for another took a tenth of the time of
//! a capture's resets. Holds nothing that anybody could see.

use super::episode::Episode;
use crate::flow::FlowKey;
use crate::time::Timestamp;

/// Episodes are opened and judged in turn, so that few are enough: some hundred kilobytes.
const KEPT: usize = 128;

/// What may be used anew.
#[derive(Debug, Default)]
pub(super) struct Spare {
    /// Boxed as they are in use: what moves is a pointer.
    #[expect(clippy::vec_box, reason = "boxes go in and come out")]
    episodes: Vec<Box<Episode>>,
}

impl Spare {
    /// An episode of no resets.
    pub(super) fn episode(&mut self, key: FlowKey, now: Timestamp, due: Timestamp) -> Box<Episode> {
        let Some(mut episode) = self.episodes.pop() else {
            return Box::new(Episode::new(key, now, due));
        };
        episode.again(key, now, due);
        episode
    }

    /// Takes an episode whose record was made.
    pub(super) fn keep(&mut self, episode: Box<Episode>) {
        if self.episodes.len() < KEPT {
            self.episodes.push(episode);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{KEPT, Spare};
    use crate::engine::episode::{Accepted, Episode, Sent};
    use crate::evidence::testing::Scene;
    use crate::evidence::{AfterReset, ResetSeen};
    use crate::flow::{FlowFacts, FlowKey, Side};
    use crate::host::Process;
    use crate::time::Timestamp;
    use crate::vantage::Path;

    #[test]
    fn an_episode_that_is_used_anew_is_as_a_new_one() {
        let Scene { resets, flow, .. } = Scene::established();
        let reset: ResetSeen = resets[0];
        let (key, side) = FlowKey::of(reset.segment.tuple);
        let time = |ns| Timestamp::from_nanos(ns);
        let mut used = Box::new(Episode::new(key, time(5), time(6)));
        used.add_reset(side, reset, Some(&flow));
        used.add_reset(side.other(), reset, Some(&FlowFacts::default()));
        used.add_after(
            side,
            Path::Ingress,
            AfterReset {
                time: time(7),
                segment: reset.segment,
            },
        );
        used.add_sent(Sent {
            time: time(8),
            local: side,
            active: true,
            reason: None,
            state: None,
            process: None,
            closed: None,
            answered_seq: None,
            answered_len: None,
            counts: None,
        });
        for local in [side, side.other()] {
            used.note_accepted(Accepted {
                time: time(9),
                local,
                state: None,
            });
        }
        let process = Process {
            pid: 1,
            thread: 1,
            sleeps: 1,
            major_faults: 0,
            comm: [0; 16],
            thread_comm: [0; 16],
        };
        assert!(used.note_owner(side, process).is_some());
        used.reopened = Some(time(10));
        used.routed.push(reset);
        used.lossy = true;
        let mut spare = Spare::default();
        spare.keep(used);
        let other = FlowKey::of(reset.segment.tuple.reversed()).0;
        let anew = spare.episode(other, time(20), time(30));
        let new = Episode::new(other, time(20), time(30));
        assert_eq!(format!("{anew:?}"), format!("{new:?}"));
        assert!(anew.resets_of(Side::Low) == 0 && !anew.has_reset());
    }

    #[test]
    fn no_more_are_kept_than_are_needed() {
        let key = FlowKey::of(Scene::established().resets[0].segment.tuple).0;
        let mut spare = Spare::default();
        for _ in 0..KEPT + 9 {
            let time = Timestamp::default();
            spare.keep(Box::new(Episode::new(key, time, time)));
        }
        assert_eq!(spare.episodes.len(), KEPT);
    }
}

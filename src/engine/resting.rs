//! Episodes that were judged, of resets that ended a local socket, kept a little longer: when the
//! purported sender is heard again after the record was written, it never sent that reset, and the
//! record has to be corrected. Live only; bounded in number and in time.

use std::collections::VecDeque;

use super::by_flow::ByFlow;
use super::episode::Episode;
use crate::flow::FlowKey;
use crate::time::{SECOND, Timestamp};

/// How long a peer's next word is waited for: its retransmissions come after 0.2, 0.6, 1.4, 3 and
/// 6.2 s (RFC 6298 from Linux's least RTO), so that ten seconds hold the first five.
const RESTING_NS: u64 = 10 * SECOND;

/// How many: at 400 accepted resets a second, ten seconds' worth. Beyond that the oldest goes.
const RESTING_MAX: usize = 4096;

/// Judged episodes whose sender may yet be heard.
#[derive(Debug)]
pub(super) struct Resting {
    kept: ByFlow<Kept>,
    order: VecDeque<(Timestamp, FlowKey)>,
}

#[derive(Debug)]
struct Kept {
    episode: Box<Episode>,
    /// `sequence` of the record that was written.
    record: u64,
    until: Timestamp,
}

impl Resting {
    /// Nothing rests.
    pub(super) fn new(secret: [u64; 2]) -> Self {
        Self {
            kept: ByFlow::new(secret),
            order: VecDeque::new(),
        }
    }

    /// Keeps an episode whose record was written.
    pub(super) fn keep(&mut self, episode: Box<Episode>, record: u64) {
        let (key, until) = (episode.key, episode.last_reset.plus_nanos(RESTING_NS));
        self.kept.insert(
            key,
            Kept {
                episode,
                record,
                until,
            },
        );
        self.order.push_back((until, key));
        while self.order.len() > RESTING_MAX {
            self.drop_oldest();
        }
    }

    /// Forgets what is too old at `now`.
    pub(super) fn expire(&mut self, now: Timestamp) {
        while self.order.front().is_some_and(|(until, _)| *until < now) {
            self.drop_oldest();
        }
    }

    /// An episode of that flow is kept.
    pub(super) fn holds(&self, key: &FlowKey) -> bool {
        self.kept.contains(key)
    }

    /// Another connection took the four-tuple: what comes now says nothing about the old one.
    pub(super) fn forget(&mut self, key: &FlowKey) {
        self.kept.remove(key);
    }

    /// The kept episode and its record, when `later` shows that its sender goes on: this host
    /// answered it with the bare reset that a segment of no connection gets. (A SYN gets one with
    /// ACK, RFC 9293 §3.5.2: that would be another connection.)
    pub(super) fn woken_by(&self, later: &Episode) -> Option<(Box<Episode>, u64)> {
        let kept = self.kept.get(&later.key)?;
        let answers = later.answers_a_stranger() && later.opened <= kept.until;
        answers.then(|| (kept.episode.clone().followed_by(later), kept.record))
    }

    fn drop_oldest(&mut self) {
        if let Some((until, key)) = self.order.pop_front()
            && self.kept.get(&key).is_some_and(|kept| kept.until == until)
        {
            self.kept.remove(&key);
        }
    }
}

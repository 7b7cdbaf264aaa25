//! Episodes that were judged, of resets that ended a local socket, kept a little longer: when the
//! purported sender is heard again after the record was written, it never sent that reset, and the
//! record has to be corrected. Live only; bounded in number and in time. Of two connections of one four-tuple each has
//! its own place.

use std::collections::VecDeque;

use super::by_flow::ByFlow;
use super::episode::Episode;
use crate::flow::{FlowKey, Side};
use crate::time::{SECOND, Timestamp};

/// How long a peer's next word is waited for: its retransmissions come after 0.2, 0.6, 1.4, 3 and
/// 6.2 s (RFC 6298 from Linux's least RTO), so that ten seconds hold the first five.
const RESTING_NS: u64 = 10 * SECOND;

/// How many: at 400 accepted resets a second, ten seconds' worth. Beyond that the oldest goes.
const RESTING_MAX: usize = 4096;

/// Judged episodes whose sender may yet be heard.
#[derive(Debug)]
pub(super) struct Resting {
    /// By the end that this host is.
    kept: [ByFlow<Kept>; 2],
    order: VecDeque<(Timestamp, FlowKey, Side)>,
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
            kept: [ByFlow::new(secret), ByFlow::new(secret)],
            order: VecDeque::new(),
        }
    }

    /// Keeps the episode of a reset that a socket at the end `local` took, and whose record was written.
    pub(super) fn keep(&mut self, episode: Box<Episode>, local: Side, record: u64) {
        let (key, until) = (episode.key, episode.last_reset.plus_nanos(RESTING_NS));
        self.at_mut(local).insert(
            key,
            Kept {
                episode,
                record,
                until,
            },
        );
        self.order.push_back((until, key, local));
        while self.order.len() > RESTING_MAX {
            self.drop_oldest();
        }
    }

    /// Forgets what is too old at `now`.
    pub(super) fn expire(&mut self, now: Timestamp) {
        while self.order.front().is_some_and(|(until, ..)| *until < now) {
            self.drop_oldest();
        }
    }

    /// An episode of that flow is kept.
    pub(super) fn holds(&self, key: &FlowKey) -> bool {
        self.kept.iter().any(|kept| kept.contains(key))
    }

    /// An episode of the connection whose end here is `local` is kept.
    pub(super) fn holds_at(&self, key: &FlowKey, local: Side) -> bool {
        self.at(local).contains(key)
    }

    /// Another connection took the four-tuple: what comes now says nothing about the old one.
    pub(super) fn forget(&mut self, key: &FlowKey) {
        for kept in &mut self.kept {
            kept.remove(key);
        }
    }

    /// There is nothing more to correct in the record of that connection.
    pub(super) fn forget_at(&mut self, key: &FlowKey, local: Side) {
        self.at_mut(local).remove(key);
    }

    /// The kept episode of the connection whose end here is `local` and its record, when `later`, of the same
    /// connection, shows that its sender goes on: this host answered it with the bare reset that a segment of no
    /// connection gets. (A SYN gets one with ACK, RFC 9293 §3.5.2: that would be another connection.)
    pub(super) fn woken_by(&self, local: Side, later: &Episode) -> Option<(Box<Episode>, u64)> {
        let kept = self.at(local).get(&later.key)?;
        let answers = later.answers_a_stranger(local) && later.opened <= kept.until;
        answers.then(|| (kept.episode.clone().followed_by(later), kept.record))
    }

    fn drop_oldest(&mut self) {
        if let Some((until, key, local)) = self.order.pop_front()
            && let kept = self.at_mut(local)
            && kept.get(&key).is_some_and(|kept| kept.until == until)
        {
            kept.remove(&key);
        }
    }

    fn at(&self, local: Side) -> &ByFlow<Kept> {
        let [low, high] = &self.kept;
        match local {
            Side::Low => low,
            Side::High => high,
        }
    }

    fn at_mut(&mut self, local: Side) -> &mut ByFlow<Kept> {
        let [low, high] = &mut self.kept;
        match local {
            Side::Low => low,
            Side::High => high,
        }
    }
}

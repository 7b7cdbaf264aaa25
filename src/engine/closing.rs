//! The end of an episode: judged, sent out as a record, and remembered as far as later ones of its
//! flow may need it. When that is, the engine's queue decides.

use super::compose::{Context, compose, decide};
use super::episode::{Episode, here};
use super::gathering::{EPISODE_NS_MAX, EPISODE_SETTLES_MAX};
use super::{Engine, Judged};
use crate::flow::{FlowKey, Side};
use crate::record::{Related, ResetEntry, ResetRecord};
use crate::time::Timestamp;
use crate::verdict::{Verdict, groups_against};

/// How many judged episodes are remembered, so that what follows on the same flow can refer to
/// them. Residual blocking lasts 60 to 180 s; at 50 resets a second this is that long.
const JUDGED_REMEMBERED: usize = 8192;

impl Engine {
    /// Judges an episode and sends its record out; `is_last` when nothing more will come.
    pub(super) fn close(
        &mut self,
        key: &FlowKey,
        is_last: bool,
        emit: &mut impl FnMut(ResetRecord),
    ) {
        let Some(episode) = self.episodes.remove(key) else {
            return;
        };
        if !episode.has_reset() {
            self.counters.events_without_frame += 1;
            return;
        }
        let Some(mut episode) = self.correct(episode, emit) else {
            return;
        };
        if let Some(unseen) = self.unseen {
            episode.doubt(unseen);
        }
        self.translated.complete(&mut episode);
        let until = self.linger_until(&episode).filter(|_| !is_last);
        let earlier = self.judged.get(key).copied();
        let Some(parts) = episode.apart() else {
            if let Some((episode, until)) = self.tell(episode, earlier, until, emit) {
                self.hold(episode, until);
            }
            return;
        };
        if let Some(until) = until
            && parts.iter().any(|part| self.is_open(part, earlier))
        {
            return self.hold(episode, until);
        }
        for part in parts {
            if part.has_reset() {
                self.tell(part, earlier, None, emit);
            } else {
                self.counters.events_without_frame += 1;
            }
        }
    }

    /// Corrects the records that it shows to be wrong; what is left of it, settled, is what says nothing of these.
    fn correct(
        &mut self,
        mut episode: Box<Episode>,
        emit: &mut impl FnMut(ResetRecord),
    ) -> Option<Box<Episode>> {
        let key = episode.key;
        episode.settle();
        for local in [Side::Low, Side::High] {
            if !self.resting.holds_at(&key, local) {
                continue;
            }
            let (own, other) = match episode.apart_from(local) {
                Some([own, other]) => (Some(own), Some(other)),
                None => (None, None),
            };
            let later = own.as_deref().unwrap_or(&episode);
            let Some(record) = self.correction(local, later) else {
                continue;
            };
            self.send_out(&key, Some(local), record, emit);
            self.resting.forget_at(&key, local);
            episode = other.filter(|other| other.has_reset())?;
        }
        Some(episode)
    }

    /// Whether more may come that tells of this one.
    fn is_open(&self, part: &Episode, earlier: Option<Judged>) -> bool {
        let context = self.context(earlier);
        let decision = part.settled().map(|settled| decide(&settled, &context));
        decision.is_some_and(|decision| is_open(decision.verdict))
    }

    fn hold(&mut self, mut episode: Box<Episode>, until: Timestamp) {
        let key = episode.key;
        self.queue.push(until, key);
        episode.due = until;
        self.episodes.insert(key, episode);
    }

    /// Judges what one connection's resets were and sends the record out, unless it is to be held `until` then: that is
    /// returned.
    fn tell(
        &mut self,
        episode: Box<Episode>,
        earlier: Option<Judged>,
        until: Option<Timestamp>,
        emit: &mut impl FnMut(ResetRecord),
    ) -> Option<(Box<Episode>, Timestamp)> {
        let key = episode.key;
        let settled = episode.settled()?;
        let context = self.context(earlier);
        let decision = decide(&settled, &context);
        if let Some(until) = until.filter(|_| is_open(decision.verdict)) {
            return Some((episode, until));
        }
        let record = compose(&settled, decision, &context);
        let local = Some(here(settled.view.sender, settled.view.first));
        let local = local.filter(|local| episode.shows(*local));
        let may_be_corrected = matches!(record.verdict, Verdict::Remote | Verdict::Undetermined);
        match episode.accepted.filter(|_| may_be_corrected) {
            Some(accepted) => self.resting.keep(episode, accepted.local, record.sequence),
            None => self.spare.keep(episode),
        }
        self.send_out(&key, local, record, emit);
        None
    }

    fn context(&self, earlier: Option<Judged>) -> Context<'_> {
        Context {
            config: &self.config,
            legs: &self.legs,
            injectors: &self.injectors,
            siblings: &self.siblings,
            reordering: &self.reordering,
            earlier,
            sequence: self.sequence + 1,
        }
    }

    /// The record of a reset that was not called forged, and was: its purported sender is heard
    /// again, as this host's answer in `later` shows, which is of the same connection: the one whose end here is `local`.
    fn correction(&self, local: Side, later: &Episode) -> Option<ResetRecord> {
        let (mut whole, corrected) = self.resting.woken_by(local, later)?;
        whole.settle();
        let settled = whole.settled()?;
        let delta_ns = later.opened.since(settled.view.first.time);
        let context = self.context(None);
        let mut record = compose(&settled, decide(&settled, &context), &context);
        record.related.push(Related {
            record: Some(corrected),
            source: record.source,
            destination: record.destination,
            delta_ns,
            confidence: record.confidence,
            join: "correction",
        });
        record.message = format!("correction: {}", record.message);
        (record.verdict == Verdict::Injected).then_some(record)
    }

    /// Counts and remembers a record, and emits it. `local`: which end of the connection this host is, where it is one.
    fn send_out(
        &mut self,
        key: &FlowKey,
        local: Option<Side>,
        record: ResetRecord,
        emit: &mut impl FnMut(ResetRecord),
    ) {
        self.count_record(&record);
        let is_low = key.low == record.source;
        let sender = if is_low { Side::Low } else { Side::High };
        // The first forged one stands for its flow; a train shares its residue.
        let forged = |reset: &&ResetEntry| reset.segment.tuple.src == record.source.address;
        if record.verdict == Verdict::Injected {
            match local {
                Some(local) => self.resting.forget_at(key, local),
                None => self.resting.forget(key),
            }
            // What rests on one group (a stranger's hop limit or MAC) is told, and teaches nothing: a
            // mistake shall not make the next one surer.
            if let Some(reset) = record.resets.iter().find(forged)
                && groups_against(&record.evidence) >= 2
            {
                let by_originator = record.client.map(|client| client == record.source);
                self.injectors
                    .learn(&reset.segment, by_originator, reset.time);
            }
        }
        self.remember(
            *key,
            Judged {
                verdict: record.verdict,
                sequence: record.sequence,
                sender,
                local,
                start: record.start,
            },
        );
        emit(record);
    }

    /// Counts a record that goes out.
    pub(super) fn count_record(&mut self, record: &ResetRecord) {
        self.sequence = record.sequence;
        if let Some(at) = Verdict::ALL
            .iter()
            .position(|verdict| *verdict == record.verdict)
            && let Some(count) = self.counters.records.get_mut(at)
        {
            *count += 1;
        }
    }

    /// Until when the episode of a reset that is not cleared is held open, where nobody waits for its record: what the
    /// two ends say to one another about it comes within some retransmissions. `None` once that
    /// time is over.
    fn linger_until(&self, episode: &Episode) -> Option<Timestamp> {
        let until = episode.last_reset.plus_nanos(self.config.forged_linger_ns);
        let longest = episode
            .opened
            .plus_nanos(EPISODE_NS_MAX * EPISODE_SETTLES_MAX);
        (until > episode.due && until < longest).then_some(until)
    }

    /// Only a forged reset says anything of what follows on its flow; another verdict later takes its
    /// place. So no storm of strays can crowd the forged ones out.
    fn remember(&mut self, key: FlowKey, judged: Judged) {
        let is_of = |known: &Judged| {
            let ends = known.local.zip(judged.local);
            ends.is_none_or(|(known, own)| known == own)
        };
        let is_known = self.judged.get(&key).is_some_and(is_of);
        if judged.verdict != Verdict::Injected && !is_known {
            return;
        }
        if self.judged.insert(key, judged).is_none() {
            self.judged_order.push_back(key);
        }
        if self.judged_order.len() > JUDGED_REMEMBERED
            && let Some(oldest) = self.judged_order.pop_front()
        {
            self.judged.remove(&oldest);
        }
    }
}

/// Also what is not decided yet: other flows may have more to say of the same device.
const fn is_open(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Injected | Verdict::Undetermined)
}

//! What came from a reset's sender after it, as this host's answers tell, and which of it had been sent before. It decides
//! nothing: what it leaves is held against the reset by `evidence`.

use super::{Episode, Sent, apart};
use crate::evidence::{AnsweredAfterReset, ResetSeen, overtaken};
use crate::flow::Side;
use crate::time::Timestamp;
use crate::vantage::Path;
use crate::wire::{Segment, SeqNum};

impl Episode {
    /// This host's answers to what `sender` sent after the reset `first`.
    pub(super) fn answered(&self, sender: Side, first: &ResetSeen) -> Vec<AnsweredAfterReset> {
        let mut answered = self.answers_to(sender, first);
        answered.retain(|answer| !self.answers_overtaken(sender, first, answer));
        answered
    }

    /// This host's answers to what came from `sender` after `first`: as the kernel tells them, or where it
    /// tells of none (before 6.10, or a tracing program that was not run) by their frames. At that reset's end here: what
    /// the other connection of a four-tuple is answered, its peer sent.
    fn answers_to(&self, sender: Side, first: &ResetSeen) -> Vec<AnsweredAfterReset> {
        let is_later = |at: Timestamp| at > first.time && self.is_of_old(at);
        let local = apart::here(sender, first);
        let told = self.sent.iter();
        let told = told.filter(|sent| !sent.active && sent.local == local);
        if told.clone().next().is_some() {
            let told = told.filter(|sent| is_later(sent.time) && !self.refuses_syn(sender, sent));
            let answers = told.map(|sent| AnsweredAfterReset {
                time: sent.time,
                seq: sent.answered_seq,
                len: sent.answered_len,
                ack: None,
            });
            return answers.collect();
        }
        let frames = self.of_side(sender.other()).filter(|reset| {
            let segment = &reset.segment;
            reset.vantage.path == (Path::Egress { forwarded: false })
                && !segment.flags.ack()
                && segment.window == 0
                && is_later(reset.time)
        });
        let answers = frames.map(|reset| {
            let answered = self.answered_by(sender, reset);
            AnsweredAfterReset {
                time: reset.time,
                seq: answered.map(|segment| segment.seq),
                len: answered.map(|segment| segment.payload_len),
                ack: Some(reset.segment.seq),
            }
        });
        answers.collect()
    }

    /// Whether an answer is to a SYN of `sender`, as its frame shows: SEQ 0, and ACK, which only a segment without an
    /// ACK is answered by (RFC 9293 §3.10.7.1). Whoever asks for a new connection does not go on with this one.
    fn refuses_syn(&self, sender: Side, sent: &Sent) -> bool {
        let Some((seq, len)) = sent.answered_seq.zip(sent.answered_len) else {
            return false;
        };
        self.of_side(sender.other()).any(|reset| {
            let segment = &reset.segment;
            reset.vantage.path == (Path::Egress { forwarded: false })
                && segment.flags.ack()
                && (segment.seq, segment.window) == (SeqNum(0), 0)
                && segment.ack == seq.plus(len).plus(1)
        })
    }

    /// Whether an abort of the sender's own overtook the segment, which came after the reset `first`, or something else
    /// of the sender's did that came before that.
    pub(super) fn is_overtaken(&self, sender: Side, first: &ResetSeen, segment: &Segment) -> bool {
        let facts = self.known(sender, apart::here(sender, first));
        let half = facts.and_then(|facts| facts.sender.as_ref());
        !overtaken::is_beyond(segment.end(), &first.segment)
            && (self.was_reset_here(sender, first)
                || overtaken::is_older_than_the_reset(segment, first, half)
                || self
                    .aborts(sender, &first.segment)
                    .any(|abort| overtaken::is_sent_before(segment, abort)))
    }

    /// Whether this host had reset the connection itself when a bare reset came: by an abort, or since it had closed it
    /// and more data came. That answers what was still under way, or our reset, and ended nothing; where it overtakes
    /// its sender's data, nobody goes on for that.
    fn was_reset_here(&self, sender: Side, first: &ResetSeen) -> bool {
        let mut sent = self.sent.iter();
        first.vantage.path == Path::Ingress
            && !first.segment.flags.ack()
            && first.segment.window == 0
            && sent.any(|sent| sent.time <= first.time && sent.local != sender)
    }

    /// The resets of `sender` that may be the abort that overtook what came after `first`: where `first` is an
    /// abort itself, no other one.
    fn aborts(&self, sender: Side, first: &Segment) -> impl Iterator<Item = &Segment> {
        let resets = self.of_side(sender).map(|reset| &reset.segment);
        resets.filter(move |reset| overtaken::may_be_the_abort(reset, first))
    }

    /// Whether what was answered after `first` had been sent before an abort of the sender's own: by its copies,
    /// or, where there is none, by its number.
    fn answers_overtaken(
        &self,
        sender: Side,
        first: &ResetSeen,
        answer: &AnsweredAfterReset,
    ) -> bool {
        let Some((seq, len)) = answer.seq.zip(answer.len) else {
            return false;
        };
        if overtaken::is_beyond(seq.plus(len), &first.segment) {
            return false;
        }
        if self.was_reset_here(sender, first) {
            return true;
        }
        let mut copies = self
            .after
            .iter()
            .filter(|later| later.sender == sender && later.local != sender)
            .map(|later| &later.seen.segment)
            .filter(|segment| segment.seq == seq)
            .peekable();
        if copies.peek().is_some() {
            return copies.all(|segment| self.is_overtaken(sender, first, segment));
        }
        self.aborts(sender, &first.segment)
            .any(|abort| overtaken::is_below(seq.plus(len), abort))
    }

    /// The segment of `sender` that this answer of TCP's answers: the last before it whose ACK is the
    /// answer's SEQ (RFC 9293 §3.10.7.1). `None`: it was not copied.
    fn answered_by(&self, sender: Side, answer: &ResetSeen) -> Option<&Segment> {
        let came = self
            .after
            .iter()
            .filter(|later| later.sender == sender && later.local != sender);
        let before = came
            .map(|later| &later.seen)
            .filter(|seen| seen.time <= answer.time && seen.segment.ack == answer.segment.seq);
        let last = before.max_by_key(|seen| seen.time)?;
        Some(&last.segment)
    }
}

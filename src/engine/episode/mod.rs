//! All resets of one flow within the settle time, with what the kernel said about them and what
//! came after: gathered here in whatever order it arrives, sorted by time before it is judged.

mod apart;

use std::borrow::Cow;

use super::openings::{How, Opening};
use super::whose;
use crate::evidence::{AfterReset, AnsweredAfterReset, KEPT, ResetSeen, overtaken};
use crate::flow::{FlowFacts, FlowKey, Side};
use crate::host::{Closed, Process, ResetReason, SocketCounts, SocketView, TcpState};
use crate::time::Timestamp;
use crate::vantage::Path;
use crate::wire::{Segment, SeqNum};

/// A `tcp_send_reset` event of this flow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sent {
    pub(super) time: Timestamp,
    /// Which end of the kernel's four-tuple this host is.
    pub(super) local: Side,
    pub(super) active: bool,
    pub(super) reason: Option<ResetReason>,
    pub(super) state: Option<TcpState>,
    pub(super) process: Option<Process>,
    pub(super) closed: Option<Closed>,
    pub(super) answered_seq: Option<SeqNum>,
    pub(super) answered_len: Option<u32>,
    pub(super) counts: Option<SocketCounts>,
}

impl Sent {
    /// The process whose call it was.
    pub(super) fn caller(&self) -> Option<Process> {
        self.process.filter(|_| self.closed.is_none())
    }
}

/// A `tcp_receive_reset` event of this flow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Accepted {
    pub(super) time: Timestamp,
    /// As of a reset that was sent.
    pub(super) local: Side,
    pub(super) state: Option<TcpState>,
}

/// One flow's resets, not yet judged.
#[derive(Debug, Clone)]
pub(super) struct Episode {
    pub(super) key: FlowKey,
    pub(super) opened: Timestamp,
    /// When it will be judged, unless another reset comes before.
    pub(super) due: Timestamp,
    /// The first [`KEPT`] resets; in order of time once it is settled.
    resets: Vec<ResetSeen>,
    /// Which side sent each.
    sides: Vec<Side>,
    pub(super) reset_count: u64,
    pub(super) last_reset: Timestamp,
    /// The flow before the first reset of each side.
    facts: [Option<FlowFacts>; 2],
    after: Vec<(Side, AfterReset)>,
    pub(super) sent: Vec<Sent>,
    pub(super) accepted: Option<Accepted>,
    pub(super) owner: Option<Process>,
    /// When a connection was opened anew on the same four-tuple, after a reset: what comes then is not
    /// of the one that was reset.
    pub(super) reopened: Option<Timestamp>,
    /// Frames of the same flow seen leaving by another interface: this host routes it.
    pub(super) routed: Vec<ResetSeen>,
    /// Something was lost while it was open: what is not there proves nothing.
    pub(super) lossy: bool,
}

impl Episode {
    pub(super) fn new(key: FlowKey, now: Timestamp, due: Timestamp) -> Self {
        Self {
            key,
            opened: now,
            due,
            resets: Vec::new(),
            sides: Vec::new(),
            reset_count: 0,
            last_reset: now,
            facts: [None, None],
            after: Vec::new(),
            sent: Vec::new(),
            accepted: None,
            owner: None,
            reopened: None,
            routed: Vec::new(),
            lossy: false,
        }
    }

    /// An empty one in the place of one that was judged: its lists keep their memory.
    pub(super) fn again(self: &mut Box<Self>, key: FlowKey, now: Timestamp, due: Timestamp) {
        (self.key, self.opened, self.due) = (key, now, due);
        (self.reset_count, self.last_reset) = (0, now);
        self.resets.clear();
        self.sides.clear();
        self.after.clear();
        self.sent.clear();
        self.routed.clear();
        (self.facts[0], self.facts[1]) = (None, None);
        (self.accepted, self.owner, self.reopened) = (None, None, None);
        self.lossy = false;
    }

    /// Takes in a reset. The copy that leaves by another interface is no further reset.
    pub(super) fn add_reset(&mut self, side: Side, reset: ResetSeen, facts: Option<&FlowFacts>) {
        if reset.vantage.path == (Path::Egress { forwarded: true }) {
            if self.routed.len() < KEPT {
                self.routed.push(reset);
            }
            self.last_reset = self.last_reset.max(reset.time);
            return;
        }
        self.reset_count += 1;
        self.last_reset = self.last_reset.max(reset.time);
        let is_earliest = self.of_side(side).all(|seen| reset.time < seen.time);
        if let (true, Some(facts)) = (is_earliest, facts) {
            self.facts[side.index()] = Some(*facts);
        }
        self.keep(side, reset);
    }

    /// Keeps the first by their time: one that came before others may be heard behind these, as what a worker sees
    /// is heard behind this host's answers to all that comes in after a reset.
    fn keep(&mut self, side: Side, reset: ResetSeen) {
        if self.resets.len() < KEPT {
            self.resets.push(reset);
            self.sides.push(side);
            return;
        }
        let kept = self.sides.iter_mut().zip(&mut self.resets);
        let last = kept.max_by_key(|(_, seen)| seen.time);
        if let Some((last_side, last)) = last.filter(|(_, last)| reset.time < last.time) {
            (*last_side, *last) = (side, reset);
        }
    }

    /// Takes in what another saw of the flow before that reset, where it was the first of its side.
    pub(super) fn complete(&mut self, side: Side, time: Timestamp, flow: &FlowFacts) {
        let is_earliest = self.of_side(side).all(|seen| time <= seen.time);
        let met = self.of_side(side).find(|seen| seen.time == time);
        let socket = met.and_then(|seen| seen.socket);
        if is_earliest && let Some(facts) = &mut self.facts[side.index()] {
            *facts = whose::joined(*facts, flow, socket.as_ref());
        }
    }

    /// Frames went past unseen until then: what was heard of a flow before is no witness where no socket vouches for it.
    pub(super) fn doubt(&mut self, unseen: Timestamp) {
        for side in [Side::Low, Side::High] {
            let first = self.of_side(side).min_by_key(|reset| reset.time);
            let is_doubtful = first.is_some_and(whose::may_be_anothers);
            if is_doubtful && let Some(facts) = &mut self.facts[side.index()] {
                whose::doubt(facts, unseen);
            }
        }
    }

    /// Takes in a segment that is no reset, from the side that is said to have sent one.
    pub(super) fn add_after(&mut self, side: Side, after: AfterReset) {
        keep_with_the_last(&mut self.after, (side, after), |(_, kept)| kept.time);
    }

    /// Takes in a kernel event of a reset sent by this host.
    pub(super) fn add_sent(&mut self, sent: Sent) {
        keep_with_the_last(&mut self.sent, sent, |kept| kept.time);
    }

    /// Resets of that side so far, but for copies that this host routed on.
    pub(super) fn resets_of(&self, side: Side) -> usize {
        self.of_side(side).count()
    }

    fn of_side(&self, side: Side) -> impl Iterator<Item = &ResetSeen> {
        let sent = self.sides.iter().zip(&self.resets);
        sent.filter_map(move |(sender, reset)| (*sender == side).then_some(reset))
    }

    /// Whether any reset was seen on the wire: kernel events alone make no record, since their
    /// frames went by an interface that is not watched.
    pub(super) fn has_reset(&self) -> bool {
        !self.resets.is_empty() || !self.routed.is_empty()
    }

    /// Whether its first reset is this host's answer to a segment of no connection: bare, by TCP and
    /// not by a socket.
    pub(super) fn answers_a_stranger(&self) -> bool {
        let first = self.resets.iter().min_by_key(|reset| reset.time);
        first.is_some_and(|reset| {
            reset.vantage.path == (Path::Egress { forwarded: false }) && !reset.segment.flags.ack()
        }) && self.sent.iter().any(|sent| !sent.active)
    }

    /// This episode and a later one of the same connection, as one.
    pub(super) fn followed_by(mut self: Box<Self>, later: &Self) -> Box<Self> {
        for (side, reset) in later.sides.iter().zip(&later.resets) {
            self.add_reset(*side, *reset, later.facts[side.index()].as_ref());
        }
        for (side, after) in &later.after {
            self.add_after(*side, *after);
        }
        for sent in &later.sent {
            self.add_sent(*sent);
        }
        self.lossy |= later.lossy;
        self
    }

    /// Sorts everything by time. It may go on to take in more afterwards.
    pub(super) fn settle(&mut self) {
        if self.resets.is_empty() {
            // Only the routed copies were seen: the way in is not watched.
            self.resets.clone_from(&self.routed);
            let side = |seen: &ResetSeen| FlowKey::of(seen.segment.tuple).1;
            self.sides = self.routed.iter().map(side).collect();
            self.reset_count = self.resets.len() as u64;
        }
        if !self.resets.is_sorted_by_key(|reset| reset.time) {
            let mut sent: Vec<_> = self.sides.drain(..).zip(self.resets.drain(..)).collect();
            sent.sort_by_key(|(_, reset)| reset.time);
            (self.sides, self.resets) = sent.into_iter().unzip();
        }
        self.after.sort_by_key(|(_, seen)| seen.time);
        let first = self.sides.first().copied();
        for (side, reset) in self.sides.iter().zip(&mut self.resets) {
            reset.from_sender = Some(*side) == first;
        }
    }

    /// The first reset, once it is settled.
    pub(super) fn first(&self) -> Option<&ResetSeen> {
        self.resets.first()
    }

    /// The whole, once it is settled; `None` when there was no reset.
    pub(super) fn settled(&self) -> Option<Settled<'_>> {
        Some(Settled {
            view: self.seen_from(0)?,
            episode: self,
        })
    }

    fn is_of_old(&self, time: Timestamp) -> bool {
        self.reopened.is_none_or(|reopened| time < reopened)
    }

    /// Takes in that a connection was opened. One that was opened before the reset, and only now comes to be
    /// heard (it went another way through the sensor), is the one that was reset.
    pub(super) fn note_opening(&mut self, opening: &Opening) {
        let time = opening.time;
        let is_another = |reset: &ResetSeen| {
            reset.time < time
                && match opening.how {
                    How::Asked { opener, isn } => {
                        self.asked_for(opener) != Some(isn) && !is_of(&reset.segment, isn)
                    }
                    How::CameIn => !met_open(reset),
                    // A reset during the handshake may have failed; then it is the same SYN that is agreed to.
                    How::Agreed { opener, isn } => {
                        let asked = self.asked_for(opener);
                        met_open(reset) || isn.zip(asked).is_some_and(|(isn, asked)| isn != asked)
                    }
                }
        };
        if self.resets.iter().any(is_another) {
            let first = self.reopened.map_or(time, |known| known.min(time));
            self.reopened = Some(first);
        }
    }

    /// The number of the SYN by which `opener` asked for the connection that was reset, where it was seen.
    fn asked_for(&self, opener: Side) -> Option<SeqNum> {
        let of = |side: Side| self.facts.get(side.index())?.as_ref();
        let own = of(opener).and_then(|facts| facts.sender?.syn);
        let others = || of(opener.other()).and_then(|facts| facts.receiver?.syn);
        let syn = own.or_else(others).filter(|syn| !syn.is_syn_ack)?;
        Some(syn.isn)
    }

    /// This host's answers to what came from `sender` after `time`: as the kernel tells them, or where it
    /// tells of none (before 6.10, or a tracing program that was not run) by their frames.
    fn answers_to(&self, sender: Side, time: Timestamp) -> Vec<AnsweredAfterReset> {
        let is_later = |at: Timestamp| at > time && self.is_of_old(at);
        let told = self.sent.iter().filter(|sent| !sent.active);
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
    fn is_overtaken(&self, sender: Side, first: &ResetSeen, segment: &Segment) -> bool {
        let facts = self.facts.get(sender.index()).and_then(Option::as_ref);
        let half = facts.and_then(|facts| facts.sender.as_ref());
        !overtaken::is_beyond(segment.end(), &first.segment)
            && (self.was_reset_here(first)
                || overtaken::is_older_than_the_reset(segment, first, half)
                || self
                    .aborts(sender, &first.segment)
                    .any(|abort| overtaken::is_sent_before(segment, abort)))
    }

    /// Whether this host had reset the connection itself when a bare reset came: by an abort, or since it had closed it
    /// and more data came. That answers what was still under way, or our reset, and ended nothing; where it overtakes
    /// its sender's data, nobody goes on for that.
    fn was_reset_here(&self, first: &ResetSeen) -> bool {
        first.vantage.path == Path::Ingress
            && !first.segment.flags.ack()
            && first.segment.window == 0
            && self.sent.iter().any(|sent| sent.time <= first.time)
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
        if self.was_reset_here(first) {
            return true;
        }
        let mut copies = self
            .after
            .iter()
            .filter(|(side, seen)| *side == sender && seen.segment.seq == seq)
            .peekable();
        if copies.peek().is_some() {
            return copies.all(|(_, seen)| self.is_overtaken(sender, first, &seen.segment));
        }
        self.aborts(sender, &first.segment)
            .any(|abort| overtaken::is_below(seq.plus(len), abort))
    }

    /// The segment of `sender` that this answer of TCP's answers: the last before it whose ACK is the
    /// answer's SEQ (RFC 9293 §3.10.7.1). `None`: it was not copied.
    fn answered_by(&self, sender: Side, answer: &ResetSeen) -> Option<&Segment> {
        let before = self.after.iter().filter(|(side, seen)| {
            *side == sender && seen.time <= answer.time && seen.segment.ack == answer.segment.seq
        });
        let (_, last) = before.max_by_key(|(_, seen)| seen.time)?;
        Some(&last.segment)
    }

    /// All resets that are kept, once it is settled, those of a connection opened anew included.
    pub(super) fn resets(&self) -> &[ResetSeen] {
        &self.resets
    }

    /// The episode as it looks when the reset at `index` is the one to be judged. What comes once the connection
    /// is opened anew is of the next one: other numbers, another counter. It is no train with the resets of this
    /// one, and what this one looked like is nothing to hold against it.
    fn seen_from(&self, index: usize) -> Option<View<'_>> {
        let sender = *self.sides.get(index)?;
        let of_old = self.resets.partition_point(|r| self.is_of_old(r.time));
        let rest = self.resets.get(index..of_old)?;
        let first = rest.first()?;
        let resets = if Some(&sender) == self.sides.first() {
            Cow::Borrowed(rest)
        } else {
            let other = |reset: &ResetSeen| ResetSeen {
                from_sender: !reset.from_sender,
                ..*reset
            };
            rest.iter().map(other).collect()
        };
        let after = self
            .after
            .iter()
            .filter(|(side, seen)| *side == sender && seen.time > first.time)
            .filter(|(_, seen)| self.is_of_old(seen.time))
            .filter(|(_, seen)| !self.is_overtaken(sender, first, &seen.segment))
            .map(|(_, seen)| *seen)
            .collect();
        let mut answered = self.answers_to(sender, first.time);
        answered.retain(|answer| !self.answers_overtaken(sender, first, answer));
        Some(View {
            sender,
            first,
            resets,
            after,
            answered,
            facts: self.facts[sender.index()].as_ref().unwrap_or(&UNKNOWN),
        })
    }
}

/// Keeps the first [`KEPT`], and of those the last in the place of its last: what comes right behind a reset may have been
/// sent before it, and what comes long after tells most.
fn keep_with_the_last<T>(kept: &mut Vec<T>, new: T, time: impl Fn(&T) -> Timestamp) {
    if kept.len() < KEPT {
        kept.push(new);
    } else if let Some(last) = kept.last_mut().filter(|last| time(last) < time(&new)) {
        *last = new;
    }
}

/// Whether a reset ends what the SYN with that number asks for: in the name of its sender, or as its answer.
fn is_of(reset: &Segment, isn: SeqNum) -> bool {
    reset.seq == isn.plus(1) || (reset.flags.ack() && reset.ack == isn.plus(1))
}

/// Whether a reset met a connection that was open already.
fn met_open(reset: &ResetSeen) -> bool {
    let state = reset.socket.as_ref().filter(|s| s.sequence().is_some());
    let state = state.and_then(SocketView::state);
    state.is_some_and(|s| !matches!(s, TcpState::SynSent | TcpState::SynRecv))
}

/// Of a flow of which nothing was seen before.
static UNKNOWN: FlowFacts = FlowFacts {
    sender: None,
    receiver: None,
    path: None,
    sender_is_originator: None,
    established: false,
    first_seen: None,
};

/// An episode in order of time, from one of its resets on.
#[derive(Debug)]
pub(super) struct View<'a> {
    /// The side that sent that reset, by its address.
    pub(super) sender: Side,
    pub(super) first: &'a ResetSeen,
    /// Copied only where they are seen from the other side.
    pub(super) resets: Cow<'a, [ResetSeen]>,
    pub(super) after: Vec<AfterReset>,
    pub(super) answered: Vec<AnsweredAfterReset>,
    pub(super) facts: &'a FlowFacts,
}

/// An episode in order of time.
#[derive(Debug)]
pub(super) struct Settled<'a> {
    /// From its first reset on.
    pub(super) view: View<'a>,
    pub(super) episode: &'a Episode,
}

impl Settled<'_> {
    /// Views from later resets that look unlike all before them: an episode may begin with a
    /// genuine reset, or with this host's answer to a forged segment, and hold a forged reset all
    /// the same.
    pub(super) fn other_views(&self) -> impl Iterator<Item = View<'_>> {
        let look = |(side, reset): (&Side, &ResetSeen)| {
            let segment = &reset.segment;
            let is_bare = segment.window == 0;
            (
                *side,
                segment.hop_limit,
                segment.flags,
                is_bare,
                segment.dont_fragment,
            )
        };
        let looks = move || {
            let sent = self.episode.sides.iter().zip(&self.episode.resets);
            sent.map(look)
        };
        looks()
            .enumerate()
            .skip(1)
            .filter(move |(index, own)| looks().take(*index).all(|before| before != *own))
            .filter_map(|(index, _)| self.episode.seen_from(index))
    }
}

#[cfg(test)]
mod tests {
    use super::{KEPT, keep_with_the_last};
    use crate::time::Timestamp;

    #[test]
    fn of_what_follows_a_reset_the_first_are_kept_and_the_last() {
        let mut kept = Vec::new();
        let mut keep = |ns| keep_with_the_last(&mut kept, ns, |ns| Timestamp::from_nanos(*ns));
        (0..KEPT as u64 - 1).for_each(&mut keep);
        // The last one is heard before others that came before it.
        [100, 300, 200].into_iter().for_each(&mut keep);
        let (first, last) = kept.split_at(KEPT - 1);
        assert!(first.iter().copied().eq(0..KEPT as u64 - 1));
        assert_eq!(last, [300]);
    }
}

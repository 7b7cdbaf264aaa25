//! All resets of one flow within the settle time, with what the kernel said about them and what
//! came after: gathered here in whatever order it arrives, sorted by time before it is judged.

mod answered;
mod apart;

pub(super) use apart::here;

use std::borrow::Cow;

use super::openings::{How, Opening};
use super::whose;
use crate::evidence::{AfterReset, AnsweredAfterReset, KEPT, ResetSeen};
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

/// A segment that followed a reset.
#[derive(Debug, Clone, Copy)]
struct Later {
    sender: Side,
    /// Which end this host is of its connection, as of a reset.
    local: Side,
    seen: AfterReset,
}

/// What was known of a flow before the first reset of `sender` by which this host's end is `local`.
#[derive(Debug, Clone, Copy)]
struct Known {
    sender: Side,
    local: Side,
    facts: FlowFacts,
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
    /// The flow before the first reset of each side and end.
    facts: Vec<Known>,
    after: Vec<Later>,
    pub(super) sent: Vec<Sent>,
    pub(super) accepted: Option<Accepted>,
    /// Whose socket took it.
    pub(super) owner: Option<Process>,
    /// What a socket at the other end took, and whose that was: of another connection.
    beyond: Option<(Accepted, Option<Process>)>,
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
            facts: Vec::new(),
            after: Vec::new(),
            sent: Vec::new(),
            accepted: None,
            owner: None,
            beyond: None,
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
        self.facts.clear();
        (self.accepted, self.owner, self.beyond) = (None, None, None);
        self.reopened = None;
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
        let local = apart::here(side, &reset);
        let is_earliest = self.of(side, local).all(|seen| reset.time < seen.time);
        if let (true, Some(facts)) = (is_earliest, facts) {
            self.learn(side, local, *facts);
        }
        self.keep(side, reset);
    }

    /// Keeps the first by their time: one that came before others may be heard behind these, as what a worker sees
    /// is heard behind this host's answers to all that comes in after a reset. Of either end one at least, however many
    /// come at the other: they may be two connections.
    fn keep(&mut self, side: Side, reset: ResetSeen) {
        if self.resets.len() < KEPT {
            self.resets.push(reset);
            self.sides.push(side);
            return;
        }
        let kept = self.sides.iter().zip(&self.resets);
        let is_low = |(side, seen): (&Side, &ResetSeen)| apart::here(*side, seen) == Side::Low;
        let low = kept.filter(|kept| is_low(*kept)).count();
        let at = |local: Side| match local {
            Side::Low => low,
            Side::High => KEPT - low,
        };
        let is_only = at(apart::here(side, &reset)) == 0;
        let kept = self.sides.iter_mut().zip(&mut self.resets);
        let spared = kept.filter(|(side, seen)| at(apart::here(**side, seen)) > 1);
        let last = spared.max_by_key(|(_, seen)| seen.time);
        if let Some((last_side, last)) = last.filter(|(_, last)| is_only || reset.time < last.time)
        {
            (*last_side, *last) = (side, reset);
        }
    }

    fn learn(&mut self, sender: Side, local: Side, facts: FlowFacts) {
        match self.known_mut(sender, local) {
            Some(known) => *known = facts,
            None => self.facts.push(Known {
                sender,
                local,
                facts,
            }),
        }
    }

    fn known(&self, sender: Side, local: Side) -> Option<&FlowFacts> {
        let mut known = self.facts.iter();
        let found = known.find(|known| (known.sender, known.local) == (sender, local));
        found.map(|known| &known.facts)
    }

    fn known_mut(&mut self, sender: Side, local: Side) -> Option<&mut FlowFacts> {
        let mut known = self.facts.iter_mut();
        let found = known.find(|known| (known.sender, known.local) == (sender, local));
        found.map(|known| &mut known.facts)
    }

    /// Takes in what another saw of the flow before that reset, where it was the first of its side.
    pub(super) fn complete(&mut self, side: Side, time: Timestamp, flow: &FlowFacts) {
        let Some(met) = self.of_side(side).find(|seen| seen.time == time) else {
            return;
        };
        let (local, socket) = (apart::here(side, met), met.socket);
        let is_earliest = self.of(side, local).all(|seen| time <= seen.time);
        if is_earliest && let Some(facts) = self.known_mut(side, local) {
            *facts = whose::joined(*facts, flow, socket.as_ref());
        }
    }

    /// Frames went past unseen until then: what was heard of a flow before is no witness where no socket vouches for it.
    pub(super) fn doubt(&mut self, unseen: Timestamp) {
        let mut facts = std::mem::take(&mut self.facts);
        for known in &mut facts {
            let resets = self.of(known.sender, known.local);
            let first = resets.min_by_key(|reset| reset.time);
            if first.is_some_and(whose::may_be_anothers) {
                whose::doubt(&mut known.facts, unseen);
            }
        }
        self.facts = facts;
    }

    /// Takes in a segment that is no reset, from the side that is said to have sent one, where it was seen on that way.
    pub(super) fn add_after(&mut self, sender: Side, path: Path, seen: AfterReset) {
        let local = apart::end_of(sender, path);
        self.keep_after(Later {
            sender,
            local,
            seen,
        });
    }

    fn keep_after(&mut self, later: Later) {
        keep_with_the_last(&mut self.after, later, |kept| kept.seen.time);
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

    /// Of the connection whose end here is that one.
    fn of(&self, side: Side, local: Side) -> impl Iterator<Item = &ResetSeen> {
        let of_side = self.of_side(side);
        of_side.filter(move |reset| apart::here(side, reset) == local)
    }

    /// Whether any reset was seen on the wire: kernel events alone make no record, since their
    /// frames went by an interface that is not watched.
    pub(super) fn has_reset(&self) -> bool {
        !self.resets.is_empty() || !self.routed.is_empty()
    }

    /// Whether its first reset is this host's answer at the end `local` to a segment of no connection: bare, by TCP
    /// and not by a socket.
    pub(super) fn answers_a_stranger(&self, local: Side) -> bool {
        let sent = self.sides.iter().zip(&self.resets);
        let first = sent.min_by_key(|(_, reset)| reset.time);
        let mut events = self.sent.iter();
        first.is_some_and(|(side, reset)| {
            *side == local
                && reset.vantage.path == (Path::Egress { forwarded: false })
                && !reset.segment.flags.ack()
        }) && events.any(|sent| !sent.active && sent.local == local)
    }

    /// This episode and a later one of the same connection, as one.
    pub(super) fn followed_by(mut self: Box<Self>, later: &Self) -> Box<Self> {
        for (side, reset) in later.sides.iter().zip(&later.resets) {
            let local = apart::here(*side, reset);
            self.add_reset(*side, *reset, later.known(*side, local));
        }
        for after in &later.after {
            self.keep_after(*after);
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
        self.after.sort_by_key(|later| later.seen.time);
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
        let of = |side: Side| self.facts.iter().filter(move |known| known.sender == side);
        let own = of(opener).find_map(|known| known.facts.sender?.syn);
        let others = || of(opener.other()).find_map(|known| known.facts.receiver?.syn);
        let syn = own.or_else(others).filter(|syn| !syn.is_syn_ack)?;
        Some(syn.isn)
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
        // What this host says in the name of a peer is not that peer's.
        let local = apart::here(sender, first);
        let after = self
            .after
            .iter()
            .filter(|later| (later.sender, later.local) == (sender, local))
            .map(|later| later.seen)
            .filter(|seen| seen.time > first.time)
            .filter(|seen| self.is_of_old(seen.time))
            .filter(|seen| !self.is_overtaken(sender, first, &seen.segment))
            .collect();
        Some(View {
            sender,
            first,
            resets,
            after,
            answered: self.answered(sender, first),
            facts: self.known(sender, local).unwrap_or(&UNKNOWN),
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
    of_two: false,
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

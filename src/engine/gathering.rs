//! From a reset to the episode of its flow: what was known of the flow joins it, and what may end a leg of a
//! proxy, or belongs to no connection at all, is told to those who look for that. It judges nothing.

use super::by_flow::Entry;
use super::episode::Episode;
use super::legs::{self, Leg};
use super::{Engine, facts, fit, whose};
use crate::evidence::{AfterReset, ResetSeen, SequenceFit};
use crate::flow::{FlowFacts, FlowKey, Side, Sighting};
use crate::time::{SECOND, Timestamp};
use crate::vantage::Path;
use crate::wire::Segment;

/// A flow that is reset without pause would never settle: after this many settle times, but at
/// least [`EPISODE_NS_MAX`], its episode is judged all the same.
pub(super) const EPISODE_SETTLES_MAX: u64 = 5;

/// The shortest bound on an episode's length: a retransmitting peer backs off from 200 ms, so that
/// five seconds hold its first four tries.
pub(super) const EPISODE_NS_MAX: u64 = 5 * SECOND;

impl Engine {
    /// Takes in a reset that was seen by another's tracker, or by none.
    pub(super) fn add_reset(&mut self, key: &FlowKey, side: Side, sighting: &Sighting) {
        let mut flow = self.tracker.facts(key, side, sighting.time);
        self.tracker.note_reset(key, side, sighting.time);
        if let Some((opener, time)) = self.openings.agreed_after(key, sighting.time) {
            // What this host sent may be the next connection's already, which the table now begins with.
            flow.receiver = None;
            self.tracker.note_established(key, opener, time);
        }
        let flow = whose::joined(flow, &sighting.flow, sighting.socket.as_ref());
        self.take_reset(key, side, sighting, &flow);
    }

    /// Takes in a reset that the tracker knows of; `flow` is all that was known before it.
    pub(super) fn take_reset(
        &mut self,
        key: &FlowKey,
        side: Side,
        sighting: &Sighting,
        flow: &FlowFacts,
    ) {
        self.counters.resets += 1;
        let (mut fit, mut offset) = fit::fit(
            &sighting.segment,
            sighting.socket.as_ref(),
            flow,
            self.config.offline,
        );
        // A SYN that was routed may have been answered: nobody listens to a SYN-ACK on its way through.
        let is_routed = sighting.vantage.path == (Path::Egress { forwarded: true });
        if is_routed && fit == SequenceFit::OutOfWindow {
            (fit, offset) = (SequenceFit::Unknown, None);
        }
        let is_known = flow.sender.is_some()
            || flow.receiver.is_some()
            || sighting
                .socket
                .as_ref()
                .is_some_and(|s| s.sequence().is_some());
        let comes_in = matches!(sighting.vantage.path, Path::Ingress | Path::Capture);
        if is_known && comes_in {
            // What belongs to no connection, as in a flood, shall not crowd the others out.
            self.siblings.learn(&sighting.segment, flow, sighting.time);
            let (source, socket) = (sighting.segment.tuple.src, sighting.socket.as_ref());
            self.reordering.learn(source, socket, sighting.time);
        }
        let reset = ResetSeen {
            time: sighting.time,
            vantage: sighting.vantage,
            segment: sighting.segment,
            from_sender: true,
            socket: sighting.socket,
            fit,
            offset,
        };
        if self.folds(key, &reset, flow) {
            return;
        }
        let is_of_capture =
            self.config.offline && facts::incoming(&reset, &self.config) == Some(true);
        let ends_a_socket = self.must_be_accepted(&reset);
        let leg = (is_of_capture || ends_a_socket).then(|| {
            let outbound = flow.sender_is_originator.map(|peer| !peer);
            Leg {
                closed: None,
                time: reset.time,
                key: *key,
                sender: side,
                began: flow.first_seen,
                is_outbound: legs::is_outbound(outbound, key, side.other()),
            }
        });
        if let Some(leg) = leg.filter(|_| is_of_capture) {
            self.legs.remember(leg);
        }
        let tuple = reset.segment.tuple;
        let from_here = if comes_in { tuple.reversed() } else { tuple };
        self.translated.forget(&from_here);
        let openings = std::mem::take(&mut self.openings);
        if let Some(episode) = self.episode(key, sighting.time) {
            episode.add_reset(side, reset, Some(flow));
            let later = openings.after(key, sighting.time);
            later.for_each(|opening| episode.note_opening(&opening));
            // The kernel's word may have come first.
            let is_told = episode.was_accepted_at(side.other());
            if let Some(leg) = leg.filter(|_| ends_a_socket && !is_told) {
                self.legs.expect(leg);
            }
        }
        self.openings = openings;
    }

    /// A socket that is open takes a reset with just the number that it expects (RFC 5961 §3.2), and the
    /// kernel tells of that, unless a packet filter drops the reset or the tracing program is not run.
    fn must_be_accepted(&self, reset: &ResetSeen) -> bool {
        let is_open = reset
            .socket
            .as_ref()
            .is_some_and(|s| s.sequence().is_some());
        self.config.kernel.resets
            && reset.vantage.path == Path::Ingress
            && is_open
            && reset.fit == SequenceFit::Exact
    }

    pub(super) fn add_after(
        &mut self,
        key: &FlowKey,
        side: Side,
        (time, path): (Timestamp, Path),
        segment: &Segment,
    ) {
        // Offline every later segment of a flow comes by here; only an open episode cares. Live, the
        // copy of a frame may overtake its reset, which took the way through a worker.
        if self.config.offline && !self.episodes.contains(key) {
            return;
        }
        if let Some(episode) = self.episode_at(key, time, false) {
            episode.add_after(
                side,
                path,
                AfterReset {
                    time,
                    segment: *segment,
                },
            );
        }
    }

    pub(super) fn episode(&mut self, key: &FlowKey, time: Timestamp) -> Option<&mut Episode> {
        self.episode_at(key, time, true)
    }

    /// The open episode of a flow, or a new one; `extends` when this event lets it settle later.
    fn episode_at(
        &mut self,
        key: &FlowKey,
        time: Timestamp,
        extends: bool,
    ) -> Option<&mut Episode> {
        let settle_ns = self.config.settle_ns;
        let due = time.plus_nanos(settle_ns);
        let is_full = self.episodes.len() >= self.config.episode_capacity;
        let episode = match self.episodes.entry(*key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(_) if is_full => {
                self.counters.episodes_refused += 1;
                return None;
            }
            Entry::Vacant(place) => {
                self.queue.push(due, *key);
                place.insert(self.spare.episode(*key, time, due))
            }
        };
        if extends {
            let longest = EPISODE_NS_MAX.max(settle_ns.saturating_mul(EPISODE_SETTLES_MAX));
            episode.due = episode.due.max(due).min(episode.opened.plus_nanos(longest));
        }
        Some(episode)
    }
}

//! What the engine makes of the kernel's events: whose they are, and what they tell of an episode, of the
//! other leg of a connection, of the flow. It judges nothing.

use super::Engine;
use super::episode::{Accepted, Sent};
use super::legs::{self, Call, Leg, Passed};
use super::openings::{How, Opening};
use crate::flow::{FlowKey, Side};
use crate::host::{KernelEvent, KernelEventKind, Process};
use crate::time::Timestamp;

impl Engine {
    /// Takes in what the kernel said.
    pub fn kernel_event(&mut self, event: &KernelEvent) {
        let (key, local) = FlowKey::of(event.tuple);
        match event.kind {
            KernelEventKind::ResetSent {
                active,
                reason,
                state,
                process,
                closed,
                answered_seq,
                answered_len,
                counts,
            } => {
                let sent = Sent {
                    time: event.time,
                    local,
                    active,
                    reason,
                    state,
                    process,
                    closed,
                    answered_seq,
                    answered_len,
                    counts,
                };
                self.reset_sent(&key, local, event, sent);
            }
            KernelEventKind::ResetAccepted { state } => {
                self.legs.note_told(&(key, local));
                let accepted = Accepted {
                    time: event.time,
                    local,
                    state,
                };
                if let Some(episode) = self.episode(&key, event.time) {
                    episode.note_accepted(accepted);
                    if !episode.has_reset() {
                        self.translated.note_accepted(event.tuple, accepted);
                    }
                }
            }
            KernelEventKind::Established { originator, .. } => {
                self.resting.forget(&key);
                let opener = if originator { local } else { local.other() };
                self.tracker.note_established(&key, opener, event.time);
                let (time, isn) = (event.time, None);
                let how = How::Agreed { opener, isn };
                self.note_opening(key, Opening { time, how });
            }
            KernelEventKind::Closed { process } => {
                let closed = self.passed(&key, local, event.time, process);
                self.legs.note_closed(closed);
            }
            KernelEventKind::OwnerKnown { process } => {
                self.owner_known(
                    key,
                    local,
                    Call {
                        process,
                        time: event.time,
                    },
                );
            }
        }
    }

    /// Whose socket a reset had ended.
    fn owner_known(&mut self, key: FlowKey, local: Side, closed: Call) {
        let Some(episode) = self.episodes.get_mut(&key) else {
            return;
        };
        let Some(accepted) = episode.note_owner(local, closed.process) else {
            return;
        };
        let facts = self.tracker.facts(&key, local, closed.time);
        self.legs.remember(Leg {
            closed: Some(closed),
            time: accepted.time,
            key,
            sender: local.other(),
            began: facts.first_seen,
            is_outbound: legs::is_outbound(facts.sender_is_originator, &key, local),
        });
    }

    fn reset_sent(&mut self, key: &FlowKey, local: Side, event: &KernelEvent, sent: Sent) {
        if sent.active
            && let Some(process) = sent.caller()
        {
            let passed = self.passed(key, local, event.time, process);
            self.legs.note_sent(passed);
        }
        if self.folds_answer(key, local, &sent) {
            return;
        }
        if let Some(episode) = self.episode(key, event.time) {
            episode.add_sent(sent);
            // With its frame at hand, it is no other's.
            if !episode.has_reset() {
                self.translated.note_sent(event.tuple, sent, event.cookie);
            }
        }
    }

    /// A process ended a connection: it may be the other leg of one that was reset.
    fn passed(&self, key: &FlowKey, local: Side, time: Timestamp, process: Process) -> Passed {
        let facts = self.tracker.facts(key, local, time);
        Passed {
            key: *key,
            local,
            time,
            sent: Some(Call { process, time }),
            began: facts.first_seen,
            is_outbound: legs::is_outbound(facts.sender_is_originator, key, local),
        }
    }
}

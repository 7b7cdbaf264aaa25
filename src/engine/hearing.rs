//! What the engine hears, from whomever: segments that no worker saw, what workers and a capture's flow table
//! found, what they knew of a flow. Here each finds its way to the flow table, to an episode, or to what is
//! remembered of connections that were opened. It judges nothing.

use super::Engine;
use super::openings::{How, Opening};
use crate::evidence::AfterReset;
use crate::flow::{FlowKey, PassedFlow, PassedReset, Side, Sighting};
use crate::host::SocketView;
use crate::record::ResetRecord;
use crate::time::Timestamp;
use crate::vantage::{Path, Vantage};
use crate::wire::{Segment, SeqNum};

/// A SYN that may open a connection anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// Which one.
    pub key: FlowKey,
    /// Who asks.
    pub opener: Side,
    /// Its sequence number: that of a connection that was reset is sent again.
    pub isn: SeqNum,
    /// When it came.
    pub time: Timestamp,
}

impl Opened {
    /// As a SYN tells it.
    #[must_use]
    pub fn by(syn: &Segment, time: Timestamp) -> Self {
        let (key, opener) = FlowKey::of(syn.tuple);
        let isn = syn.seq;
        Self {
            key,
            opener,
            isn,
            time,
        }
    }
}

impl Engine {
    /// Takes in a segment that no worker saw: every one of a capture; live, what leaves this host,
    /// what passed by a closed gate, what follows a reset, and all of mirror mode.
    pub fn observe(
        &mut self,
        time: Timestamp,
        vantage: Vantage,
        segment: &Segment,
        socket: Option<SocketView>,
        emit: &mut impl FnMut(ResetRecord),
    ) {
        if self.config.offline {
            self.tick(time, emit);
        }
        let (key, side) = FlowKey::of(segment.tuple);
        if vantage.path == (Path::Egress { forwarded: true }) {
            // Its hop limit is one less than where it came in: no baseline for anything.
            if segment.flags.rst() {
                self.add_reset(
                    &key,
                    side,
                    &Sighting {
                        time,
                        vantage,
                        segment: *segment,
                        socket,
                        begins_anew: false,
                        flow: self.tracker.facts(&key, side, time),
                    },
                );
            } else if segment.flags.syn() && !segment.flags.ack() {
                self.tracker.note_routed(&key, side, time);
                self.hear_opened(&Opened::by(segment, time));
            } else if segment.flags.syn() {
                // Where this host translates addresses, the SYN left by another name than it came, and only the
                // answer to it bears the one by which the client knows the connection.
                self.tracker.note_routed(&key, side.other(), time);
            }
            return;
        }
        let is_control = segment.flags.rst() || segment.flags.syn() || segment.flags.fin();
        if !self.config.offline && vantage.path == Path::Ingress && !is_control {
            self.add_after(&key, side, (time, vantage.path), segment);
            return;
        }
        let is_anew = segment.flags.syn() && !segment.flags.ack();
        if segment.flags.syn() {
            self.resting.forget(&key);
            self.note_agreed(key, side, (time, vantage, segment));
        }
        match self.tracker.observe(time, vantage, segment, socket) {
            // Our own tracker knows no more than it has just told.
            Some(sighting) if !sighting.begins_anew && socket.is_none() => self.hear(&sighting),
            Some(sighting) if !sighting.begins_anew => self.sight(&sighting),
            _ if is_anew => self.hear_opened(&Opened::by(segment, time)),
            _ => {}
        }
    }

    /// Takes in what a capture's flow table told of a reset, or of what follows one.
    pub fn hear(&mut self, sighting: &Sighting) {
        let (key, side) = FlowKey::of(sighting.segment.tuple);
        if sighting.segment.flags.rst() {
            self.take_reset(&key, side, sighting, &sighting.flow);
        } else {
            let seen = (sighting.time, sighting.vantage.path);
            self.add_after(&key, side, seen, &sighting.segment);
        }
    }

    /// Takes in that a SYN, which follows no reset, asks for a connection.
    pub fn hear_opened(&mut self, opened: &Opened) {
        let opening = Opening {
            time: opened.time,
            how: How::Asked {
                opener: opened.opener,
                isn: opened.isn,
            },
        };
        self.note_opening(opened.key, opening);
    }

    /// A SYN-ACK that this host's own kernel sends: it has no connection on that four-tuple (any more).
    /// Heard before the handshake's last segment, which the kernel's word that it is complete is not.
    fn note_agreed(
        &mut self,
        key: FlowKey,
        side: Side,
        (time, vantage, segment): (Timestamp, Vantage, &Segment),
    ) {
        let is_ours = vantage.path == (Path::Egress { forwarded: false });
        if is_ours && segment.flags.ack() && !self.config.offline {
            let opener = side.other();
            let isn = Some(SeqNum(segment.ack.0.wrapping_sub(1)));
            let how = How::Agreed { opener, isn };
            self.note_opening(key, Opening { time, how });
        }
    }

    /// A connection is opened: what follows is not of one that was reset before, be that heard or not.
    pub(super) fn note_opening(&mut self, key: FlowKey, opening: Opening) {
        if let Some(episode) = self.episodes.get_mut(&key) {
            episode.note_opening(&opening);
        }
        if !self.config.offline {
            self.openings.note(key, opening);
        }
    }

    /// Takes in a segment of a connection that is older than the sensor: what its sender looks like.
    pub fn learn(&mut self, time: Timestamp, vantage: Vantage, segment: &Segment) {
        let (key, side) = FlowKey::of(segment.tuple);
        if self.tracker.observe(time, vantage, segment, None).is_some() {
            // A reset came first after all.
            self.add_after(&key, side, (time, vantage.path), segment);
        } else {
            self.tracker.note_older(&key, time);
        }
    }

    /// Takes in what a worker's tracker found.
    pub fn sight(&mut self, sighting: &Sighting) {
        let (key, side) = FlowKey::of(sighting.segment.tuple);
        if sighting.segment.flags.rst() {
            self.add_reset(&key, side, sighting);
        } else if sighting.begins_anew {
            // The reset before it came the same way, or the quicker one: it was heard already.
            let (time, how) = (sighting.time, How::CameIn);
            self.resting.forget(&key);
            if let Some(episode) = self.episodes.get_mut(&key) {
                episode.note_opening(&Opening { time, how });
            }
        } else {
            let seen = (sighting.time, sighting.vantage.path);
            self.add_after(&key, side, seen, &sighting.segment);
        }
    }

    /// Takes in what the worker whose flow it is knew of a reset that only we saw.
    pub fn complete(&mut self, known: &PassedFlow) {
        let PassedReset {
            key, side, time, ..
        } = known.reset;
        let Some(episode) = self.episodes.get_mut(&key) else {
            return;
        };
        episode.complete(side, time, &known.flow);
        if let Some(answer) = &known.answer
            && let Some(segment) = answer.as_syn_ack(key.tuple_from(side))
        {
            let time = answer.time;
            // A worker sees what comes in.
            episode.add_after(side, Path::Ingress, AfterReset { time, segment });
        }
    }
}

//! The flow table for capture files, where every segment of a connection adds to what is known:
//! nothing is packed and nothing forgotten but whole flows. It grows with the flows that a file
//! has, up to its capacity; the same rules as in a live table say which flow gives way. Where two connections of one
//! four-tuple live at once it says so; it does not tell them apart.

use super::fold::FORGOTTEN_NS;
use super::hash::hash;
use super::index::{Index, Rank, Slot, TableCounters, WAYS};
use super::store::{ENDED_KEPT_NS, FlowState, FlowStore};
use super::{FlowKey, HalfFlow, Side};
use crate::sys::bring_near;
use crate::time::{SECOND, Timestamp};
use crate::wire::{Segment, SeqNum};

/// How long after a handshake behind which nothing was said a SYN with another ISN may be of a second connection beside
/// it. A proxy that calls before its client has said anything does so at once, within milliseconds; an attempt is not given
/// up, and its port not used for another, before a second has passed without an answer (RFC 6298 §2.1).
const BESIDE_NS: u64 = SECOND;

/// One connection.
#[derive(Debug, Clone)]
struct Flow {
    key: FlowKey,
    state: FlowState,
    last_seen: Timestamp,
    /// What each end looked like, by `Side::index`.
    halves: [Option<HalfFlow>; 2],
    /// Which end opens another connection while this one lives, and its ISN.
    beside: Option<(Side, SeqNum)>,
}

impl Flow {
    const fn new(key: FlowKey, now: Timestamp) -> Self {
        Self {
            key,
            state: FlowState::new(now),
            last_seen: now,
            halves: [None, None],
            beside: None,
        }
    }

    /// Takes a SYN or SYN-ACK in, before it is folded: a proxy that calls the backend by its client's address and port
    /// opens a second connection of one four-tuple, and the backend accepts it. A stack answers such a SYN within the
    /// connection that it has by a challenge (RFC 5961 §4), no SYN-ACK.
    fn note_handshake(&mut self, side: Side, segment: &Segment, now: Timestamp) {
        if segment.flags.ack() {
            let is_accepted = |(opener, isn): (Side, SeqNum)| {
                opener == side.other() && segment.ack == isn.plus(1)
            };
            self.state.of_two |= self.beside.is_some_and(is_accepted);
            return;
        }
        let opener = self.halves[side.index()].and_then(|half| half.syn);
        if opener.is_some_and(|syn| !syn.is_syn_ack && syn.isn != segment.seq) {
            self.beside = self.lives(now).then_some((side, segment.seq));
        }
    }

    /// Whether both ends were heard, and neither has ended it.
    fn lives(&self, now: Timestamp) -> bool {
        let is_open = |half: &Option<HalfFlow>| half.is_some_and(|half| half.fin.is_none());
        let open = !self.state.ended && !self.state.has_reset();
        let within = match self.state.established {
            true => FORGOTTEN_NS,
            false => BESIDE_NS,
        };
        open && self.halves.iter().all(is_open) && now.since(self.last_seen) <= within
    }

    /// Forgets everything but the key and what was seen of a second connection: another one begins.
    fn reopen(&mut self, now: Timestamp) {
        let is_recent = now.since(self.last_seen) <= FORGOTTEN_NS;
        let (beside, of_two) = (self.beside, self.state.of_two && is_recent);
        *self = Self::new(self.key, now);
        self.beside = beside;
        // One of two may be opened again while the other one lives.
        self.state.of_two = of_two;
    }

    const fn is_over(&self, now: Timestamp) -> bool {
        self.state.ended && now.since(self.last_seen) > ENDED_KEPT_NS
    }
}

/// Flows of capture files.
#[derive(Debug)]
pub(super) struct Captured {
    index: Index,
    /// By slot, which flow is there, plus 1.
    places: Box<[u32]>,
    flows: Vec<Flow>,
    secret: [u64; 2],
}

impl Captured {
    /// Room for at least `capacity` flows.
    pub(super) fn new(capacity: usize, secret: [u64; 2]) -> Self {
        let index = Index::new(capacity);
        let places = vec![0; index.sets() * WAYS].into_boxed_slice();
        Self {
            index,
            places,
            flows: Vec::new(),
            secret,
        }
    }

    /// Flows that it can hold.
    pub(super) fn capacity(&self) -> usize {
        self.places.len()
    }

    /// Bytes of memory, as far as flows were seen.
    pub(super) fn bytes(&self) -> usize {
        let flows = self.flows.capacity() * size_of::<Flow>();
        size_of_val(self.index.memory()) + size_of_val(&*self.places) + flows
    }

    /// Brings the tags near that a hash leads to.
    pub(super) fn warm_tags(&self, hash: u64) {
        self.index.warm(hash);
    }

    /// Brings the flow near that a hash probably leads to.
    pub(super) fn warm_flow(&self, hash: u64) {
        if let Some(flow) = self.flow(self.index.likely(hash)) {
            bring_near(flow);
        }
    }

    fn flow(&self, slot: Slot) -> Option<&Flow> {
        let place = *self.places.get(slot.number())?;
        self.flows.get((place as usize).checked_sub(1)?)
    }

    fn flow_mut(&mut self, slot: Slot) -> Option<&mut Flow> {
        let place = *self.places.get(slot.number())?;
        self.flows.get_mut((place as usize).checked_sub(1)?)
    }
}

impl FlowStore for Captured {
    type Place = Slot;
    type Shared = ();
    type Key = FlowKey;

    fn key(key: &FlowKey) -> FlowKey {
        *key
    }

    fn find(&self, key: &FlowKey) -> Option<Slot> {
        self.find_hashed(key, hash(key, self.secret))
    }

    fn find_hashed(&self, key: &FlowKey, hash: u64) -> Option<Slot> {
        let mut alike = self.index.alike(hash);
        alike.find(|slot| self.flow(*slot).is_some_and(|flow| flow.key == *key))
    }

    fn entry(
        &mut self,
        (): &mut (),
        key: &FlowKey,
        hash: u64,
        now: Timestamp,
    ) -> Option<(Slot, bool)> {
        let mut alike = self.index.alike(hash);
        let is_it = |slot: &Slot| self.flow(*slot).is_some_and(|flow| flow.key == *key);
        if let Some(slot) = alike.find(is_it) {
            return Some((slot, false));
        }
        let (places, flows) = (&self.places, &self.flows);
        let flow = |slot: Slot| flows.get((*places.get(slot.number())? as usize).checked_sub(1)?);
        let slot = self.index.take(
            hash,
            |slot| flow(slot).is_some_and(|flow| flow.is_over(now)),
            |slot| flow(slot).map_or(0, |flow| now.since(flow.last_seen)),
        );
        if let Some(flow) = self.flow_mut(slot) {
            *flow = Flow::new(*key, now);
        } else {
            self.flows.push(Flow::new(*key, now));
            // No more flows than slots, and these are fewer than 2^32 (bounds of `--flows`).
            *self.places.get_mut(slot.number())? = u32::try_from(self.flows.len()).ok()?;
        }
        Some((slot, true))
    }

    fn state(&self, slot: Slot, now: Timestamp) -> FlowState {
        self.flow(slot)
            .map_or(FlowState::new(now), |flow| flow.state)
    }

    fn set_state(&mut self, slot: Slot, state: &FlowState) {
        if let Some(flow) = self.flow_mut(slot) {
            flow.state = *state;
        }
    }

    fn last_seen(&self, slot: Slot, now: Timestamp) -> Timestamp {
        self.flow(slot).map_or(now, |flow| flow.last_seen)
    }

    fn has_half(&self, slot: Slot, side: Side) -> bool {
        self.flow(slot)
            .is_some_and(|flow| flow.halves[side.index()].is_some())
    }

    fn has_fin(&self, slot: Slot, side: Side) -> bool {
        let half = self
            .flow(slot)
            .and_then(|flow| flow.halves[side.index()].as_ref());
        half.is_some_and(|half| half.fin.is_some())
    }

    fn half(&self, (): &(), slot: Slot, side: Side, _now: Timestamp) -> Option<HalfFlow> {
        self.flow(slot)?.halves[side.index()]
    }

    fn set_half(&mut self, (): &mut (), slot: Slot, side: Side, half: &HalfFlow, now: Timestamp) {
        if let Some(flow) = self.flow_mut(slot) {
            flow.halves[side.index()] = Some(*half);
            flow.last_seen = now;
        }
    }

    fn note_handshake(&mut self, slot: Slot, side: Side, segment: &Segment, now: Timestamp) {
        if let Some(flow) = self.flow_mut(slot) {
            flow.note_handshake(side, segment, now);
        }
    }

    fn reopen(&mut self, (): &mut (), slot: Slot, now: Timestamp) {
        if let Some(flow) = self.flow_mut(slot) {
            flow.reopen(now);
        }
        self.index.set_rank(slot, Rank::Probation);
    }

    fn raise(&mut self, slot: Slot, rank: Rank) {
        if rank > self.index.rank(slot) {
            self.index.set_rank(slot, rank);
        }
    }

    fn counters(&self) -> TableCounters {
        self.index.counters
    }
}

#[cfg(test)]
mod tests {
    use crate::flow::tests::{Dice, IN, config, segment, tuple};
    use crate::flow::{FlowKey, Tracker};
    use crate::time::{MILLISECOND, SECOND, Timestamp};
    use crate::wire::{Flags, SeqNum};

    /// Whether a capture's flow is of two connections after these: from its opener or not, flags, sequence number,
    /// acknowledgment, milliseconds since the one before.
    fn is_of_two(script: &[(bool, u8, u32, u32, u64)]) -> bool {
        let (mut tracker, mut dice) = (Tracker::for_capture(config(8)), Dice::new(7));
        let there = tuple(&mut dice, true);
        let alike = segment(&mut dice, there, Flags::ACK);
        let mut time = Timestamp::from_nanos(SECOND);
        for &(is_there, flags, seq, ack, ms) in script {
            let mut next = alike;
            if !is_there {
                (next.tuple, next.hop_limit) = (there.reversed(), 64);
            }
            (next.flags, next.seq, next.ack) = (Flags(flags), SeqNum(seq), SeqNum(ack));
            next.payload_len = if flags & Flags::PSH == 0 { 0 } else { 9 };
            time = time.plus_nanos(ms * MILLISECOND);
            tracker.observe(time, IN, &next, None);
        }
        let (key, side) = FlowKey::of(there);
        let facts = [side, side.other()].map(|side| tracker.facts(&key, side, time).of_two);
        assert_eq!(facts[0], facts[1]);
        facts[0]
    }

    const SYN: u8 = Flags::SYN;
    const SYN_ACK: u8 = Flags::SYN | Flags::ACK;
    const ACK: u8 = Flags::ACK;
    const DATA: u8 = Flags::PSH | Flags::ACK;
    const FIN: u8 = Flags::FIN | Flags::ACK;

    #[test]
    fn a_capture_knows_of_a_second_connection_of_one_four_tuple() {
        let first = [(true, SYN, 100, 0, 0), (false, SYN_ACK, 5_000, 101, 1)];
        let calls = [(true, SYN, 90_000, 0, 1), (false, SYN_ACK, 700, 90_001, 1)];
        let asks = [(true, DATA, 101, 5_001, 1), (false, ACK, 5_001, 110, 1)];
        // A proxy that calls at once, and one that waits for its client's first words.
        assert!(is_of_two(&[first, calls].concat()));
        let late = [(true, SYN, 90_000, 0, 60_000), calls[1]];
        assert!(is_of_two(&[first, asks, late].concat()));
        // Its client has it call again, when the backend has closed.
        let closes = [(false, FIN, 701, 90_001, 9), (true, FIN, 90_001, 702, 1)];
        let again = [(true, SYN, 777, 0, 9), (false, SYN_ACK, 1, 778, 1)];
        assert!(is_of_two(&[first, asks, calls, closes, again].concat()));
    }

    #[test]
    fn a_four_tuple_used_anew_and_a_forged_handshake_are_no_second_connection() {
        let first = [(true, SYN, 100, 0, 0), (false, SYN_ACK, 5_000, 101, 1)];
        let asks = [(true, DATA, 101, 5_001, 1), (false, ACK, 5_001, 110, 1)];
        let calls = [(true, SYN, 90_000, 0, 1), (false, SYN_ACK, 700, 90_001, 1)];
        let closes = [(false, FIN, 5_001, 110, 1), (true, FIN, 110, 5_002, 1)];
        let resets = [(true, Flags::RST, 110, 0, 1)];
        assert!(!is_of_two(&[first, asks].concat()));
        assert!(!is_of_two(&[first, first].concat()));
        assert!(!is_of_two(&[first, asks, closes, calls].concat()));
        assert!(!is_of_two(
            &[&[first, asks].concat()[..], &resets, &calls].concat()
        ));
        // The attempt before it was given up.
        let later = [(true, SYN, 90_000, 0, 3_000), calls[1]];
        assert!(!is_of_two(&[first, later].concat()));
        // A SYN alone, which is challenged; a SYN-ACK of no SYN.
        assert!(!is_of_two(&[first, asks, [calls[0], asks[1]]].concat()));
        assert!(!is_of_two(&[first, asks, [calls[1], calls[1]]].concat()));
        assert!(!is_of_two(
            &[first, asks, [calls[0], (false, SYN_ACK, 700, 9, 1)]].concat()
        ));
    }
}

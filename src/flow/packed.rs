//! The flow table of a live sensor: a fixed number of flows in memory that is zeroed by the system
//! and touched when it is first used. 64 bytes a flow for IPv4, 96 for IPv6, all included (what
//! is asserted below leaves room for the index and the dictionaries).
//!
//! A set of eight flows is one piece of memory. Each flow has room for one end, which is all that
//! a worker sees of a connection: what comes in. Four more ends a set are there for flows of which
//! both directions are seen. When a fifth comes, connections keep theirs; what is displaced or
//! finds no room is counted.

use super::family::{Family, SECONDS};
use super::half;
use super::hash::hash;
use super::index::{Index, Rank, Slot, TableCounters, WAYS};
use super::looks::{Links, Looks};
use super::store::{FlowState, FlowStore};
use super::words::Words;
use super::{FlowKey, HalfFlow, Side};
use crate::sys::bring_line_near_at;
use crate::time::Timestamp;

/// The dictionaries that the tables of both families share.
#[derive(Debug)]
pub(super) struct Dictionaries {
    pub(super) looks: Looks,
    pub(super) links: Links,
}

impl Dictionaries {
    /// Empty dictionaries for tables of `capacity` flows.
    pub(super) fn new(capacity: usize, secret: u64) -> Self {
        Self {
            looks: Looks::new(capacity, secret),
            links: Links::new(secret),
        }
    }

    /// What found no room so far.
    pub(super) const fn refused(&self) -> u64 {
        self.looks.refused() + self.links.refused()
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        self.looks.bytes() + size_of::<Self>()
    }
}

/// The flows of one family.
#[derive(Debug)]
pub(super) struct Packed<F: Family> {
    pub(super) index: Index,
    pub(super) words: Words<F>,
    secret: [u64; 2],
}

impl<F: Family> Packed<F> {
    /// Room for at least `capacity` flows: a power of two, one set at least. `secret` is the random
    /// hash key of this run.
    pub(super) fn new(capacity: usize, secret: [u64; 2]) -> Self {
        let index = Index::new(capacity);
        let words = Words::new(index.sets());
        Self {
            index,
            words,
            secret,
        }
    }

    /// Flows that it can hold.
    pub(super) fn capacity(&self) -> usize {
        self.index.sets() * WAYS
    }

    /// Bytes of memory, without the dictionaries.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(self.index.memory()) + size_of_val(self.words.all())
    }

    /// The memory of the flows and of their index, for advice to the system.
    pub(super) fn memory(&self) -> [&[u32]; 2] {
        [self.words.all(), self.index.memory()]
    }

    /// Brings the tags near that a hash leads to.
    #[inline]
    pub(super) fn warm_tags(&self, hash: u64) {
        self.index.warm(hash);
    }

    /// Brings the flow near that a hash probably leads to, which may lie in two cache lines.
    #[inline]
    pub(super) fn warm_flow(&self, hash: u64) {
        let words = self.words.all();
        for end in Words::<F>::ends_of(self.index.likely(hash)) {
            bring_line_near_at(words, end);
        }
    }

    /// A second end for that flow: its own, a free one, or that of a flow that has less need of it.
    fn claim_second(
        &mut self,
        looks: &mut Looks,
        slot: Slot,
        at: Timestamp,
        now: Timestamp,
    ) -> Option<usize> {
        if let Some(number) = self.words.second_of(slot) {
            return Some(number);
        }
        let set = slot.set;
        let free = (0..SECONDS).find(|number| self.words.owner(set, *number).is_none());
        let number = match free {
            Some(number) => number,
            None => {
                self.index.counters.ends_lost += 1;
                self.least_needed(slot, now)?
            }
        };
        self.words.clear_second(set, number, looks);
        self.words.give_second(slot, number, at, now);
        Some(number)
    }

    /// The second end whose flow is over, else has the lowest rank, else was idle longest; none
    /// when all of them belong to flows of a higher rank than this one's.
    fn least_needed(&self, slot: Slot, now: Timestamp) -> Option<usize> {
        let rank = |owner: Slot| {
            if self.words.is_over(owner, now) {
                Rank::Probation
            } else {
                self.index.rank(owner)
            }
        };
        let owned = (0..SECONDS).filter_map(|number| {
            let way = self.words.owner(slot.set, number)?;
            let owner = Slot { set: slot.set, way };
            let idle = now.since(self.words.last_of_first(owner, now));
            Some((rank(owner), std::cmp::Reverse(idle), number))
        });
        let (lowest, _, number) = owned.min()?;
        (lowest <= self.index.rank(slot)).then_some(number)
    }

    /// A slot for that key in a set that is full, in another flow's place.
    #[cold]
    pub(super) fn displace(
        &mut self,
        shared: &mut Dictionaries,
        key: &F::Key,
        hash: u64,
        now: Timestamp,
    ) -> Slot {
        let stored = &self.words;
        let slot = self.index.take(
            hash,
            |slot| stored.is_over(slot, now),
            |slot| now.since(stored.last(slot, now)),
        );
        self.words.clear_ends(slot, &mut shared.looks);
        self.words.begin(slot, key, now);
        slot
    }

    /// The words of that end, if it was heard.
    fn end(&self, slot: Slot, side: Side) -> Option<&[u32]> {
        let words = if self.words.is_first(slot, side) {
            self.words.first(slot)
        } else {
            let number = self.words.second_of(slot)?;
            self.words.second(slot.set, number)
        };
        half::is_used(words).then_some(words)
    }
}

impl<F: Family> FlowStore for Packed<F> {
    type Place = Slot;
    type Shared = Dictionaries;
    type Key = F::Key;

    fn key(key: &FlowKey) -> F::Key {
        F::pack_key(key)
    }

    fn find(&self, key: &FlowKey) -> Option<Slot> {
        self.find_hashed(key, hash(key, self.secret))
    }

    fn find_hashed(&self, key: &FlowKey, hash: u64) -> Option<Slot> {
        let packed = F::pack_key(key);
        let mut alike = self.index.alike(hash);
        alike.find(|slot| self.words.is_key(*slot, &packed))
    }

    #[inline]
    fn entry(
        &mut self,
        shared: &mut Dictionaries,
        key: &F::Key,
        hash: u64,
        now: Timestamp,
    ) -> Option<(Slot, bool)> {
        let stored = &self.words;
        if let Some((slot, is_new)) = self
            .index
            .find_or_take(hash, |slot| stored.is_key(slot, key))
        {
            if is_new {
                self.words.begin(slot, key, now);
            }
            return Some((slot, is_new));
        }
        Some((self.displace(shared, key, hash, now), true))
    }

    fn state(&self, slot: Slot, now: Timestamp) -> FlowState {
        self.words.state(slot, now)
    }

    fn set_state(&mut self, slot: Slot, state: &FlowState) {
        self.words.set_state(slot, state);
    }

    fn last_seen(&self, slot: Slot, now: Timestamp) -> Timestamp {
        self.words.last(slot, now)
    }

    fn has_half(&self, slot: Slot, side: Side) -> bool {
        self.end(slot, side).is_some()
    }

    fn has_fin(&self, slot: Slot, side: Side) -> bool {
        self.end(slot, side).is_some_and(half::has_fin)
    }

    fn half(
        &self,
        shared: &Dictionaries,
        slot: Slot,
        side: Side,
        now: Timestamp,
    ) -> Option<HalfFlow> {
        let (looks, links) = (&shared.looks, &shared.links);
        if self.words.is_first(slot, side) {
            let around = self.words.around_first(slot, side, now);
            return half::unpack(self.words.first(slot), around, looks, links);
        }
        let number = self.words.second_of(slot)?;
        let around = self.words.around_second(slot, number, side, now);
        half::unpack(self.words.second(slot.set, number), around, looks, links)
    }

    fn set_half(
        &mut self,
        shared: &mut Dictionaries,
        slot: Slot,
        side: Side,
        half: &HalfFlow,
        now: Timestamp,
    ) {
        let Dictionaries { looks, links } = shared;
        // A clock can only be compared when its own time is known, that of its last TSval.
        let heard = half.timestamps.map_or(half.last_seen, |(time, _)| time);
        let opening = half.syn.filter(|syn| !syn.is_syn_ack);
        if let Some(ip_id) = opening.and_then(|syn| syn.ip_id)
            && self.words.state(slot, now).originator == Some(side)
        {
            self.words.set_syn_ip_id(slot, ip_id);
        }
        if !half::is_used(self.words.first(slot)) {
            self.words.set_first_side(slot, side);
        }
        if self.words.is_first(slot, side) {
            self.words.set_last_of_first(slot, heard, now);
            half::pack(self.words.first_mut(slot), half, looks, links);
        } else if let Some(number) = self.claim_second(looks, slot, half.first_seen, now) {
            self.words.set_last_of_second(slot, number, heard, now);
            half::pack(self.words.second_mut(slot.set, number), half, looks, links);
        }
    }

    fn reopen(&mut self, shared: &mut Dictionaries, slot: Slot, now: Timestamp) {
        self.words.clear_ends(slot, &mut shared.looks);
        self.words.restart(slot, now);
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

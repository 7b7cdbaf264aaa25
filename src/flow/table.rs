//! The flow table of one worker: a fixed number of flows, set at start, no allocation afterwards.
//!
//! Eight-way set-associative. A full set gives up, in this order: a flow that has ended, the oldest
//! flow of which only a SYN was ever seen (probation), and only when all eight carry a
//! connection, the oldest of these. So a flood of spoofed SYNs displaces other SYNs, and at the
//! most one connection a set. The hash is keyed with a random number of this run: collisions
//! cannot be computed in advance.

use std::net::IpAddr;

use super::{FlowKey, HalfFlow};
use crate::time::{SECOND, Timestamp};

/// Slots of a set: as many as a lookup has to compare at most. Above 90 % fill before a set runs
/// full at random keys (Poisson with mean 4 in half-full sets: 2 % of sets over 8).
const WAYS: usize = 8;

/// How long an ended flow is kept: Linux's TIME-WAIT (60 s, `TCP_TIMEWAIT_LEN`), in which late
/// segments are still to be understood.
const ENDED_KEPT_NS: u64 = 60 * SECOND;

/// Tag of a slot that was never used.
const EMPTY: u16 = 0;

/// One connection.
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    /// Its key.
    pub key: FlowKey,
    /// What each end looked like, by `Side::index`.
    pub halves: [Option<HalfFlow>; 2],
    /// Which end sent the first SYN, by `Side::index`.
    pub originator: Option<u8>,
    /// The handshake is complete.
    pub established: bool,
    /// A reset was seen from that end; its baseline is frozen.
    pub reset_from: [bool; 2],
    /// When the first segment was seen.
    pub first_seen: Timestamp,
    /// It is older than the sensor: when it began is not known.
    pub is_older: bool,
    /// When the last segment was seen.
    pub last_seen: Timestamp,
    /// When it ended: both FINs, or a reset.
    pub ended: Option<Timestamp>,
}

impl Flow {
    fn new(key: FlowKey, now: Timestamp) -> Self {
        Self {
            key,
            halves: [None, None],
            originator: None,
            established: false,
            reset_from: [false, false],
            first_seen: now,
            is_older: false,
            last_seen: now,
            ended: None,
        }
    }

    /// Only one end was heard, and not beyond its SYN.
    fn is_on_probation(&self) -> bool {
        !self.established
            && match &self.halves {
                [Some(half), None] | [None, Some(half)] => half.fin.is_none() && !half.has_data,
                [None, None] => true,
                _ => false,
            }
    }

    fn may_go(&self, now: Timestamp) -> bool {
        self.ended
            .is_some_and(|ended| now.since(ended) > ENDED_KEPT_NS)
    }
}

/// What the table did, for counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TableCounters {
    /// Flows that are in the table.
    pub live: u64,
    /// Flows inserted.
    pub inserted: u64,
    /// Ended flows whose slot was taken.
    pub reused: u64,
    /// Flows on probation that were displaced.
    pub evicted_probation: u64,
    /// Connections that were displaced.
    pub evicted_connections: u64,
}

/// A fixed number of flows.
#[derive(Debug)]
pub struct FlowTable {
    slots: Box<[Option<Flow>]>,
    /// Of each set's slots: [`EMPTY`], or some bits of the key's hash.
    tags: Box<[[u16; WAYS]]>,
    set_mask: u64,
    key: [u64; 2],
    counters: TableCounters,
}

impl FlowTable {
    /// A table for at least `capacity` flows (rounded up to a power of two, at least one set).
    /// `key` is the random hash key of this run.
    #[must_use]
    pub fn new(capacity: usize, key: [u64; 2]) -> Self {
        let sets = capacity.div_ceil(WAYS).max(1).next_power_of_two();
        Self {
            slots: vec![None; sets * WAYS].into_boxed_slice(),
            tags: vec![[EMPTY; WAYS]; sets].into_boxed_slice(),
            set_mask: sets as u64 - 1,
            key,
            counters: TableCounters::default(),
        }
    }

    /// How many flows it can hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// What it did so far.
    #[must_use]
    pub fn counters(&self) -> TableCounters {
        self.counters
    }

    /// The flow of that key.
    #[must_use]
    pub fn get(&self, key: &FlowKey) -> Option<&Flow> {
        self.slots.get(self.find(key)?)?.as_ref()
    }

    /// The flow of that key, to change it.
    pub fn get_mut(&mut self, key: &FlowKey) -> Option<&mut Flow> {
        let at = self.find(key)?;
        self.slots.get_mut(at)?.as_mut()
    }

    /// The flow of that key; a new one, in a slot that the rules of this file give up, when there
    /// is none.
    pub fn get_or_insert(&mut self, key: &FlowKey, now: Timestamp) -> Option<&mut Flow> {
        self.entry(key, now).map(|(flow, _)| flow)
    }

    /// The same, and whether it is new.
    pub fn entry(&mut self, key: &FlowKey, now: Timestamp) -> Option<(&mut Flow, bool)> {
        let (set, tag) = self.place(key);
        if let Some(at) = self.find_in(set, tag, key) {
            return Some((self.slots.get_mut(at)?.as_mut()?, false));
        }
        let tags = self.tags.get_mut(set)?;
        let slots = self.slots.get_mut(set * WAYS..set * WAYS + WAYS)?;
        let way = match tags.iter().position(|tag| *tag == EMPTY) {
            Some(way) => way,
            None => Self::slot_to_take(slots, now),
        };
        let slot = slots.get_mut(way)?;
        self.counters.inserted += 1;
        match slot {
            None => self.counters.live += 1,
            Some(flow) if flow.may_go(now) => self.counters.reused += 1,
            Some(flow) if flow.is_on_probation() => self.counters.evicted_probation += 1,
            Some(_) => self.counters.evicted_connections += 1,
        }
        *tags.get_mut(way)? = tag;
        Some((slot.insert(Flow::new(*key, now)), true))
    }

    /// Reads the first bytes of these keys' flows, one right after the other, so that the waits for
    /// memory overlap: what then looks the flows up finds them near.
    pub fn warm(&self, keys: impl Iterator<Item = FlowKey>) {
        for key in keys {
            let (set, tag) = self.place(&key);
            let tags = self.tags.get(set).copied().unwrap_or_default();
            if let Some(way) = tags.iter().position(|other| *other == tag)
                && let Some(Some(flow)) = self.slots.get(set * WAYS + way)
            {
                std::hint::black_box((flow.key.low.port, flow.halves[1].is_some(), flow.last_seen));
            }
        }
    }

    fn slot_to_take(slots: &[Option<Flow>], now: Timestamp) -> usize {
        let rank = |slot: &Option<Flow>| match slot {
            None => (0, Timestamp::default()),
            Some(flow) if flow.may_go(now) => (1, flow.last_seen),
            Some(flow) if flow.is_on_probation() => (2, flow.last_seen),
            Some(flow) => (3, flow.last_seen),
        };
        slots
            .iter()
            .enumerate()
            .min_by_key(|(_, slot)| rank(slot))
            .map_or(0, |(at, _)| at)
    }

    /// Index of the flow of that key.
    fn find(&self, key: &FlowKey) -> Option<usize> {
        let (set, tag) = self.place(key);
        self.find_in(set, tag, key)
    }

    fn find_in(&self, set: usize, tag: u16, key: &FlowKey) -> Option<usize> {
        let tags = self.tags.get(set)?;
        let is_it =
            |at: &usize| matches!(self.slots.get(*at), Some(Some(flow)) if flow.key == *key);
        let alike = tags.iter().enumerate().filter(|(_, other)| **other == tag);
        alike.map(|(way, _)| set * WAYS + way).find(is_it)
    }

    /// Set and tag of a key: different bits of its hash.
    fn place(&self, key: &FlowKey) -> (usize, u16) {
        let hash = hash(key, self.key);
        let set = usize::try_from(hash & self.set_mask).unwrap_or_default();
        let tag = u16::try_from(hash >> 48).unwrap_or_default();
        (set, tag.max(EMPTY + 1))
    }
}

/// Folded 64×64→128 bit multiplication over the words of the key, each mixed with the secret: not
/// linear in its input, unlike CRC, whose collisions are the same under every seed.
fn hash(key: &FlowKey, secret: [u64; 2]) -> u64 {
    let low = words(key.low.address);
    let high = words(key.high.address);
    let ports = u64::from(key.low.port) << 16 | u64::from(key.high.port);
    let mut state = secret[0];
    for pair in [low, high, [ports, secret[1]]] {
        state = fold(state ^ pair[0], secret[1] ^ pair[1].rotate_left(32));
    }
    fold(state, secret[0] | 1)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the two halves of the product are the point"
)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ 0x9e37_79b9_7f4a_7c15) * u128::from(b ^ 0xd1b5_4a32_d192_ed03);
    product as u64 ^ (product >> 64) as u64
}

fn words(address: IpAddr) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, rest @ ..] = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    [
        u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
        u64::from_ne_bytes(rest),
    ]
}

#[cfg(test)]
mod tests {
    use super::{ENDED_KEPT_NS, FlowTable, WAYS};
    use crate::flow::{FlowKey, Side};
    use crate::time::Timestamp;
    use crate::wire::FourTuple;

    fn key(port: u16) -> FlowKey {
        FlowKey::of(FourTuple {
            src: "192.0.2.1".parse().unwrap(),
            src_port: port,
            dst: "198.51.100.1".parse().unwrap(),
            dst_port: 443,
        })
        .0
    }

    #[test]
    fn a_flow_is_found_again_and_only_once() {
        let mut table = FlowTable::new(64, [1, 2]);
        let now = Timestamp::from_nanos(5);
        table.get_or_insert(&key(1), now).unwrap().established = true;
        assert!(table.get_or_insert(&key(1), now).unwrap().established);
        assert!(table.get(&key(2)).is_none());
        assert_eq!(table.counters().inserted, 1);
        assert_eq!(key(1).tuple_from(Side::Low).src_port, 1);
    }

    #[test]
    fn a_flood_of_syns_displaces_at_most_one_connection_of_a_set() {
        let mut table = FlowTable::new(WAYS, [7, 9]);
        for port in 0..8 {
            let flow = table.get_or_insert(&key(port), Timestamp::from_nanos(u64::from(port)));
            flow.unwrap().established = true;
        }
        for port in 1000..5000 {
            table
                .get_or_insert(&key(port), Timestamp::from_nanos(u64::from(port)))
                .unwrap();
        }
        let kept = (0..8)
            .filter(|port| table.get(&key(*port)).is_some())
            .count();
        assert_eq!(kept, 7);
        assert_eq!(table.counters().evicted_connections, 1);
        assert_eq!(table.counters().evicted_probation, 3999);
    }

    #[test]
    fn an_ended_flow_goes_first_but_not_before_its_time() {
        let mut table = FlowTable::new(WAYS, [7, 9]);
        for port in 0..8 {
            let flow = table
                .get_or_insert(&key(port), Timestamp::from_nanos(0))
                .unwrap();
            flow.established = true;
            flow.ended = (port == 5).then_some(Timestamp::from_nanos(0));
        }
        let late = Timestamp::from_nanos(ENDED_KEPT_NS + 1);
        table.get_or_insert(&key(100), late).unwrap();
        assert!(table.get(&key(5)).is_none());
        assert_eq!(table.counters().reused, 1);
    }

    #[test]
    fn another_secret_gives_another_order() {
        let sets = |secret| {
            let table = FlowTable::new(1 << 12, secret);
            (0..64)
                .map(|port| table.place(&key(port)).0)
                .collect::<Vec<_>>()
        };
        assert_ne!(sets([1, 2]), sets([3, 4]));
    }
}

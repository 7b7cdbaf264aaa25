//! Which slot of a fixed number belongs to which connection: eight-way sets, one byte of the
//! hash as a tag for each slot, and CLOCK to choose what a full set gives up. All of it lies
//! apart from the flows, a byte and a half each, so that it stays near while they are far.
//!
//! A full set gives up, in this order: a flow that has ended long ago, or one on probation (only
//! one end was heard, and only its SYN), whichever the hand meets first; then one of which both
//! ends were heard; and only when all eight are connections, the oldest of these. So a flood of
//! spoofed SYNs displaces other SYNs, and at the most one connection a set.

use crate::sys::bring_line_near_at;

/// Slots of a set: as many as a lookup has to compare at most. Above 90 % fill before a set runs
/// full at random keys (Poisson with mean 4 in half-full sets: 2 % of sets over 8).
pub(super) const WAYS: usize = 8;

/// A byte 1 in each byte of a word.
const ONES: u64 = 0x0101_0101_0101_0101;
/// The highest bit of each byte of a word.
const HIGHS: u64 = 0x8080_8080_8080_8080;
/// The highest bit of each byte of `word` that is 0: such a byte borrows into it. The one above it may be
/// marked as well when it is 1; who asks compares keys anyhow.
const fn zeroes(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & HIGHS
}

/// Where the hand stands in a set's marks, behind two bits for each way.
const HAND_SHIFT: u32 = 16;

/// Words of index a set.
const SET_WORDS: usize = 3;
/// Bytes of index a set.
pub(super) const SET_BYTES: usize = SET_WORDS * size_of::<u32>();
/// Where the marks stand, behind the tags.
const MARKS: usize = 2;

/// How much a flow has shown of itself; the more, the longer it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// One end was heard, and only its SYN.
    Probation,
    /// Both ends were heard.
    Answered,
    /// The handshake is complete, or payload or a FIN was seen.
    Connection,
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
    /// What the second end of a flow looked like, displaced or without room.
    pub ends_lost: u64,
    /// Shapes of SYNs and MACs that found no room in their dictionaries.
    pub looks_refused: u64,
}

impl TableCounters {
    /// The sum of two tables' counters.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            live: self.live + other.live,
            inserted: self.inserted + other.inserted,
            reused: self.reused + other.reused,
            evicted_probation: self.evicted_probation + other.evicted_probation,
            evicted_connections: self.evicted_connections + other.evicted_connections,
            ends_lost: self.ends_lost + other.ends_lost,
            looks_refused: self.looks_refused + other.looks_refused,
        }
    }
}

/// A slot: set and way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) set: usize,
    pub(super) way: usize,
}

impl Slot {
    /// Its number among all slots.
    pub(super) const fn number(self) -> usize {
        self.set * WAYS + self.way
    }
}

/// Tags and marks of all sets.
#[derive(Debug)]
pub(super) struct Index {
    /// For each set: a byte of tag for each way, 0 for a slot that was never used (two words, the
    /// lower ways first); two bits of rank for each way, and the hand (the third).
    sets: Box<[[u32; SET_WORDS]]>,
    pub(super) counters: TableCounters,
}

impl Index {
    /// An index for at least `capacity` flows: a power of two, one set at least.
    pub(super) fn new(capacity: usize) -> Self {
        let sets = capacity.div_ceil(WAYS).max(1).next_power_of_two();
        Self {
            // Zeroed memory from the system, which is not touched before it is used.
            sets: vec![[0; SET_WORDS]; sets].into_boxed_slice(),
            counters: TableCounters::default(),
        }
    }

    /// How many sets there are.
    pub(super) fn sets(&self) -> usize {
        self.sets.len()
    }

    /// Its memory.
    pub(super) fn memory(&self) -> &[u32] {
        self.sets.as_flattened()
    }

    /// The tags of a set in one word, the first way's in the lowest byte.
    #[inline]
    fn tags(&self, set: usize) -> u64 {
        let [low, high, _] = self.sets.get(set).copied().unwrap_or_default();
        u64::from(high) << 32 | u64::from(low)
    }

    fn marks(&self, set: usize) -> u32 {
        let [_, _, marks] = self.sets.get(set).copied().unwrap_or_default();
        marks
    }

    fn marks_mut(&mut self, set: usize) -> Option<&mut u32> {
        self.sets.get_mut(set)?.get_mut(MARKS)
    }

    /// The slots of a hash's set that may hold its flow: those with its tag.
    #[inline]
    pub(super) fn alike(&self, hash: u64) -> impl Iterator<Item = Slot> + use<> {
        let (set, tag) = self.place(hash);
        let word = self.tags(set);
        let mut alike = zeroes(word ^ (tag * ONES));
        std::iter::from_fn(move || {
            if alike == 0 {
                return None;
            }
            let way = alike.trailing_zeros() as usize / WAYS;
            alike &= alike - 1;
            Some(Slot { set, way })
        })
    }

    /// Brings the tags of a hash's set near.
    #[inline]
    pub(super) fn warm(&self, hash: u64) {
        let (set, _) = self.place(hash);
        // A set may lie in two lines.
        let words = self.sets.as_flattened();
        bring_line_near_at(words, set * SET_WORDS);
        bring_line_near_at(words, set * SET_WORDS + SET_WORDS - 1);
    }

    /// The slot that a hash's flow is most likely in, or will be. Without branches: a core that has
    /// guessed wrongly on one flow would not have begun to fetch the next.
    #[inline]
    pub(super) fn likely(&self, hash: u64) -> Slot {
        let (set, tag) = self.place(hash);
        let word = self.tags(set);
        // Ways are taken from the lowest on, so that whoever has a tag stands below those that are empty.
        let marked = zeroes(word ^ (tag * ONES)) | zeroes(word);
        // Of a full set without the tag, the first way: any is as good.
        let way = marked.trailing_zeros() as usize / WAYS % WAYS;
        Slot { set, way }
    }

    /// The slot of that hash's flow, which `is_it` knows; else one that was never used, with probation as its
    /// rank, as long as its set has one. And whether it is new.
    #[inline]
    pub(super) fn find_or_take(
        &mut self,
        hash: u64,
        is_it: impl Fn(Slot) -> bool,
    ) -> Option<(Slot, bool)> {
        let (set, tag) = self.place(hash);
        let words = self.sets.get_mut(set)?;
        let [low, high, _] = *words;
        let tags = u64::from(high) << 32 | u64::from(low);
        let mut alike = zeroes(tags ^ (tag * ONES));
        while alike != 0 {
            let way = alike.trailing_zeros() as usize / WAYS;
            let slot = Slot { set, way };
            if is_it(slot) {
                return Some((slot, false));
            }
            alike &= alike - 1;
        }
        // The lowest byte that is 0 borrows first, so that no byte below it is marked.
        let empty = zeroes(tags);
        if empty == 0 {
            return None;
        }
        let way = empty.trailing_zeros() as usize / WAYS;
        *words.get_mut(way / 4)? |= u32::try_from(tag).unwrap_or(1) << (way % 4 * 8);
        self.counters.inserted += 1;
        self.counters.live += 1;
        Some((Slot { set, way }, true))
    }

    /// Takes a slot for a new flow of that hash, with probation as its rank. `is_over` says
    /// whether a slot's flow ended long ago, `idle` for how long it was not heard.
    pub(super) fn take(
        &mut self,
        hash: u64,
        is_over: impl Fn(Slot) -> bool,
        idle: impl Fn(Slot) -> u64,
    ) -> Slot {
        if let Some((slot, _)) = self.find_or_take(hash, |_| false) {
            return slot;
        }
        let (set, tag) = self.place(hash);
        self.counters.inserted += 1;
        let way = self.displace(set, is_over, idle);
        let slot = Slot { set, way };
        self.set_tag(slot, tag);
        self.set_rank(slot, Rank::Probation);
        slot
    }

    #[inline]
    fn set_tag(&mut self, slot: Slot, tag: u64) {
        let word = self.sets.get_mut(slot.set);
        if let Some(word) = word.and_then(|set| set.get_mut(slot.way / 4)) {
            let shift = slot.way % 4 * 8;
            *word = *word & !(0xff << shift) | u32::try_from(tag).unwrap_or(1) << shift;
        }
    }

    /// The rank of a slot's flow.
    #[inline]
    pub(super) fn rank(&self, slot: Slot) -> Rank {
        match self.marks(slot.set) >> (slot.way * 2) & 3 {
            0 => Rank::Probation,
            1 => Rank::Answered,
            _ => Rank::Connection,
        }
    }

    /// Gives a slot's flow another rank.
    #[inline]
    pub(super) fn set_rank(&mut self, slot: Slot, rank: Rank) {
        if let Some(marks) = self.marks_mut(slot.set) {
            let shift = slot.way * 2;
            *marks = *marks & !(3 << shift) | (rank as u32) << shift;
        }
    }

    fn displace(
        &mut self,
        set: usize,
        is_over: impl Fn(Slot) -> bool,
        idle: impl Fn(Slot) -> u64,
    ) -> usize {
        let marks = self.marks(set);
        let hand = (marks >> HAND_SHIFT) as usize;
        let from_hand = || (0..WAYS).map(move |step| (hand + step) % WAYS);
        let rank = |way: usize| self.rank(Slot { set, way });
        let is_free =
            |way: &usize| rank(*way) == Rank::Probation || is_over(Slot { set, way: *way });
        let answered = |way: &usize| rank(*way) == Rank::Answered;
        let way = from_hand()
            .find(is_free)
            .or_else(|| from_hand().find(answered))
            .or_else(|| from_hand().max_by_key(|way| idle(Slot { set, way: *way })))
            .unwrap_or(0);
        if is_over(Slot { set, way }) {
            self.counters.reused += 1;
        } else if rank(way) == Rank::Probation {
            self.counters.evicted_probation += 1;
        } else {
            self.counters.evicted_connections += 1;
        }
        if let Some(marks) = self.marks_mut(set) {
            let next = u32::try_from((way + 1) % WAYS).unwrap_or(0);
            *marks = *marks & 0xffff | next << HAND_SHIFT;
        }
        way
    }

    /// Set and tag of a hash: different bits of it.
    #[inline]
    fn place(&self, hash: u64) -> (usize, u64) {
        let mask = self.sets.len() as u64 - 1;
        let set = usize::try_from(hash & mask).unwrap_or_default();
        (set, (hash >> 56).max(1))
    }
}

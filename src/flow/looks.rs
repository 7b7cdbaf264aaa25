//! What many flows have in common, kept once: how a SYN looks (its options and window) and where
//! frames come from (MAC and VLAN). A flow holds a small number instead. Both dictionaries are of
//! fixed size; what finds no room is "not known", which is counted and never held against anybody.

use super::hash::fold;
use crate::wire::{Mac, Options, SeqNum, Timestamps};

/// Different SYNs that may be in use at a time, where the table is large. Stacks times MSS times
/// window: a busy front end sees some hundreds. At 16 bytes each they stay in the second level cache.
const LOOKS_MAX: usize = 2048;
/// Flows for each look, in small tables: keeps the dictionary below half a byte a flow.
const FLOWS_PER_LOOK: usize = 64;
/// Looks of which one hash chooses: two cache lines.
const BUCKET: usize = 8;
/// MACs that are told apart. A host's frames come from its routers and its neighbors on the link.
const MACS_MAX: usize = 223;
/// Number of what found no room.
const UNKNOWN: u8 = 255;
/// Slots of the index over the links: a quarter full at most.
const LINK_SLOTS: usize = 1024;

const HAS_MSS: u8 = 1;
const SACK: u8 = 2;
const SIGNED: u8 = 4;
const MPTCP: u8 = 8;
const ODD: u8 = 16;
const MALFORMED: u8 = 32;
const STAMPED: u8 = 64;
/// "No window scale": RFC 7323 §2.3 allows 0 to 14, and the field cannot hold 255 in good faith.
const NO_SCALE: u8 = u8::MAX;

/// How a SYN looks: everything of its options but the values of its timestamps, and its window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Look {
    order: u32,
    mss: u16,
    window: u16,
    len: u8,
    scale: u8,
    flags: u8,
}

impl Look {
    /// The look of these options and this window.
    pub(super) fn of(options: &Options, window: u16) -> Self {
        let flag = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
        Self {
            order: options.order,
            mss: options.mss.unwrap_or(0),
            window,
            len: options.len,
            scale: options.window_scale.unwrap_or(NO_SCALE),
            flags: flag(options.mss.is_some(), HAS_MSS)
                | flag(options.sack_permitted, SACK)
                | flag(options.is_signed, SIGNED)
                | flag(options.mptcp, MPTCP)
                | flag(options.has_unknown, ODD)
                | flag(options.malformed, MALFORMED)
                | flag(options.timestamps.is_some(), STAMPED),
        }
    }

    /// The options and the window; the timestamps' value is `stamp`.
    pub(super) fn options(&self, stamp: u32) -> (Options, u16) {
        let has = |bit: u8| self.flags & bit != 0;
        let stamps = Timestamps {
            value: stamp,
            echo: 0,
        };
        let options = Options {
            mss: has(HAS_MSS).then_some(self.mss),
            window_scale: (self.scale != NO_SCALE).then_some(self.scale),
            sack_permitted: has(SACK),
            timestamps: has(STAMPED).then_some(stamps),
            sack_right_edge: None::<SeqNum>,
            is_signed: has(SIGNED),
            mptcp: has(MPTCP),
            has_unknown: has(ODD),
            malformed: has(MALFORMED),
            order: self.order,
            len: self.len,
        };
        (options, self.window)
    }

    fn hash(&self, secret: u64) -> u64 {
        let front = u64::from(self.order) << 32 | u64::from(self.mss) << 16;
        let back = u64::from(u32::from_le_bytes([self.len, self.scale, self.flags, 0]));
        fold(front | u64::from(self.window), secret ^ back)
    }
}

/// The looks in use, each with the number of halves that have it. A flood of strange SYNs fills it
/// no longer than its flows last.
#[derive(Debug)]
pub(super) struct Looks {
    slots: Box<[(Look, u32)]>,
    /// Where the one stands that was taken last: SYNs that come together are often of one stack.
    last: usize,
    secret: u64,
    refused: u64,
}

impl Looks {
    /// A dictionary for a table of `capacity` flows.
    pub(super) fn new(capacity: usize, secret: u64) -> Self {
        let count = (capacity / FLOWS_PER_LOOK).next_power_of_two();
        let count = count.clamp(BUCKET, LOOKS_MAX);
        Self {
            slots: vec![(Look::default(), 0); count].into_boxed_slice(),
            last: 0,
            secret,
            refused: 0,
        }
    }

    /// The number of a look, counted once more; 0 when it finds no room.
    pub(super) fn take(&mut self, look: Look) -> u16 {
        if let Some((known, uses)) = self.slots.get_mut(self.last)
            && *uses > 0
            && *known == look
        {
            *uses = uses.saturating_add(1);
            return u16::try_from(self.last + 1).unwrap_or(0);
        }
        let buckets = self.slots.len() / BUCKET;
        let bucket = usize::try_from(look.hash(self.secret) >> 32).unwrap_or(0) & (buckets - 1);
        let start = bucket * BUCKET;
        let slots = self
            .slots
            .get_mut(start..start + BUCKET)
            .unwrap_or_default();
        let known = slots
            .iter()
            .position(|(other, uses)| *uses > 0 && *other == look);
        let way = known.or_else(|| slots.iter().position(|(_, uses)| *uses == 0));
        let Some((way, slot)) = way.and_then(|way| Some((way, slots.get_mut(way)?))) else {
            self.refused += 1;
            return 0;
        };
        *slot = (look, slot.1.saturating_add(1));
        self.last = start + way;
        u16::try_from(start + way + 1).unwrap_or(0)
    }

    /// One half less has that look.
    pub(super) fn give_back(&mut self, number: u16) {
        if let Some((_, uses)) = usize::from(number)
            .checked_sub(1)
            .and_then(|at| self.slots.get_mut(at))
        {
            *uses = uses.saturating_sub(1);
        }
    }

    /// The look of a number; `None` for 0.
    pub(super) fn get(&self, number: u16) -> Option<&Look> {
        let slot = self.slots.get(usize::from(number).checked_sub(1)?)?;
        Some(&slot.0)
    }

    /// Looks that found no room so far.
    pub(super) const fn refused(&self) -> u64 {
        self.refused
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.slots)
    }
}

/// Where a frame came from, in one word: the MAC, and above it the VLAN; which of them are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Link(u64);

impl Link {
    const VLAN_SHIFT: u32 = 48;
    /// Bits of a VLAN id (IEEE 802.1Q).
    const VLAN_BITS: u32 = 12;
    const HAS_VLAN: u64 = 1 << 60;
    const HAS_MAC: u64 = 1 << 61;

    /// The link of that MAC and VLAN.
    #[inline]
    pub(super) fn new(mac: Option<Mac>, vlan: Option<u16>) -> Self {
        let mac = mac.map_or(0, |Mac([a, b, c, d, e, f])| {
            Self::HAS_MAC | u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
        });
        let vlan = vlan.map_or(0, |vlan| {
            let id = u64::from(vlan) & ((1 << Self::VLAN_BITS) - 1);
            Self::HAS_VLAN | id << Self::VLAN_SHIFT
        });
        Self(mac | vlan)
    }

    /// The MAC and the VLAN.
    pub(super) fn parts(self) -> (Option<Mac>, Option<u16>) {
        let [a, b, c, d, e, f, high, low] = self.0.to_le_bytes();
        let mac = (self.0 & Self::HAS_MAC != 0).then_some(Mac([a, b, c, d, e, f]));
        let id = u16::from_le_bytes([high, low]) & ((1 << Self::VLAN_BITS) - 1);
        (mac, (self.0 & Self::HAS_VLAN != 0).then_some(id))
    }

    /// That VLAN, whatever the MAC.
    const fn without_mac(self) -> Self {
        Self(self.0 & (u64::MAX << Self::VLAN_SHIFT) & !Self::HAS_MAC)
    }
}

/// The MACs and VLANs seen, by number. They are few and stay.
#[derive(Debug)]
pub(super) struct Links {
    known: [Link; UNKNOWN as usize],
    count: usize,
    index: [u8; LINK_SLOTS],
    /// The one that was asked for last: frames mostly come from one router.
    last: (Link, u8),
    secret: u64,
    refused: u64,
}

impl Links {
    pub(super) const fn new(secret: u64) -> Self {
        Self {
            known: [Link(0); UNKNOWN as usize],
            // Number 0 stands for a frame without either.
            count: 1,
            index: [0; LINK_SLOTS],
            last: (Link(0), 0),
            secret,
            refused: 0,
        }
    }

    /// The number of a link. Where there is no room for another MAC, that of its VLAN alone, so
    /// that nobody seems to have moved to another VLAN.
    #[inline]
    pub(super) fn number(&mut self, link: Link) -> u8 {
        if self.last.0 == link {
            return self.last.1;
        }
        self.number_of(link)
    }

    fn number_of(&mut self, link: Link) -> u8 {
        if let Some(number) = self.find(link) {
            self.last = (link, number);
            return number;
        }
        let is_full = self.count >= MACS_MAX && link != link.without_mac();
        if is_full {
            self.refused += 1;
            return self.number(link.without_mac());
        }
        self.insert(link).unwrap_or(UNKNOWN)
    }

    /// The link of a number.
    #[inline]
    pub(super) fn get(&self, number: u8) -> Link {
        self.known
            .get(usize::from(number))
            .copied()
            .unwrap_or_default()
    }

    /// MACs that found no room so far.
    pub(super) const fn refused(&self) -> u64 {
        self.refused
    }

    fn find(&self, link: Link) -> Option<u8> {
        if link == Link(0) {
            return Some(0);
        }
        self.probe(link)
            .map(|at| self.index[at])
            .take_while(|number| *number != 0)
            .find(|number| self.get(*number) == link)
    }

    fn insert(&mut self, link: Link) -> Option<u8> {
        let number = u8::try_from(self.count).ok().filter(|n| *n < UNKNOWN)?;
        let at = self.probe(link).find(|at| self.index[*at] == 0)?;
        *self.known.get_mut(self.count)? = link;
        self.index[at] = number;
        self.count += 1;
        Some(number)
    }

    /// The index's slots in the order in which a link may stand in them.
    fn probe(&self, link: Link) -> impl Iterator<Item = usize> + use<> {
        let hash = fold(link.0, self.secret);
        let start = usize::try_from(hash >> 32).unwrap_or(0);
        (0..LINK_SLOTS).map(move |step| (start + step) & (LINK_SLOTS - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::{BUCKET, Link, Links, Look, Looks, MACS_MAX};
    use crate::wire::{Mac, Options, Timestamps};

    fn look(window: u16) -> Look {
        Look::of(&Options::default(), window)
    }

    #[test]
    fn a_look_gives_back_all_options_of_a_syn() {
        let stamps = Some(Timestamps { value: 9, echo: 0 });
        let options = Options {
            mss: Some(1460),
            window_scale: Some(7),
            sack_permitted: true,
            timestamps: stamps,
            is_signed: true,
            mptcp: true,
            has_unknown: true,
            malformed: true,
            order: 0x2_4813,
            len: 20,
            sack_right_edge: None,
        };
        assert_eq!(Look::of(&options, 64240).options(9), (options, 64240));
        let bare = Options::default();
        assert_eq!(Look::of(&bare, 1).options(9), (bare, 1));
    }

    #[test]
    fn a_look_that_nobody_has_any_more_makes_room() {
        let mut looks = Looks::new(1, 7);
        let numbers: Vec<u16> = (0..8).map(|window| looks.take(look(window))).collect();
        assert_eq!(numbers.len(), BUCKET);
        assert!(!numbers.contains(&0));
        assert_eq!((looks.take(look(99)), looks.refused()), (0, 1));
        assert_eq!(looks.take(look(3)), numbers[3]);
        looks.give_back(numbers[3]);
        assert_eq!(looks.take(look(98)), 0, "one half still has it");
        looks.give_back(numbers[3]);
        assert_eq!(looks.take(look(99)), numbers[3]);
        assert_eq!(looks.get(numbers[3]), Some(&look(99)));
        assert_eq!(looks.get(0), None);
    }

    #[test]
    fn links_have_numbers_and_a_flood_of_macs_costs_no_vlan() {
        let mut links = Links::new(3);
        assert_eq!(links.number(Link::default()), 0);
        let mac = |n: u8, m: u8| Some(Mac([2, 0, 0, 0, m, n]));
        let router = links.number(Link::new(mac(1, 0), Some(5)));
        assert_eq!(links.number(Link::new(mac(1, 0), Some(5))), router);
        assert_ne!(links.number(Link::new(mac(1, 0), None)), router);
        for n in 0..=255 {
            links.number(Link::new(mac(n, 9), Some(5)));
        }
        assert_eq!(links.get(router).parts(), (mac(1, 0), Some(5)));
        let strange = links.number(Link::new(mac(7, 8), Some(5)));
        assert_eq!(links.get(strange).parts(), (None, Some(5)));
        assert!(links.refused() > 0 && links.count <= MACS_MAX + 1);
    }
}

//! What many flows have in common, kept once: how a SYN looks (its options and window) and where
//! frames come from (MAC and VLAN). A flow holds a small number instead. Both dictionaries are of
//! fixed size; what finds no room is "not known", which is counted and never held against anybody.

use super::hash::fold;
use crate::wire::{Link, Options, Shape};

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

/// How a SYN looks: everything of its options but the values of its timestamps, and its window. In words,
/// which are compared in as many steps: both of the options' shape, and between them the MSS and the
/// window below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Look([u32; 3]);

impl Look {
    /// The look of these options and this window.
    #[inline]
    pub(super) fn of(shape: Shape, window: u16) -> Self {
        let sizes = u32::from(shape.mss) << 16 | u32::from(window);
        Self([shape.order, sizes, shape.rest])
    }

    /// Whether another one is this: word by word, since words that were written a moment ago are not read as
    /// one without waiting.
    #[inline]
    const fn is(self, other: Self) -> bool {
        let (Self([a, b, c]), Self([d, e, f])) = (self, other);
        (a ^ d) | (b ^ e) | (c ^ f) == 0
    }

    /// The options and the window; the timestamps' value is `stamp`.
    pub(super) fn options(&self, stamp: u32) -> (Options, u16) {
        let Self([order, sizes, rest]) = *self;
        let [a, b, c, d] = sizes.to_be_bytes();
        let (mss, window) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        (Shape { order, rest, mss }.options(stamp), window)
    }

    fn hash(&self, secret: u64) -> u64 {
        let Self([order, sizes, rest]) = *self;
        fold(
            u64::from(order) << 32 | u64::from(sizes),
            secret ^ u64::from(rest),
        )
    }
}

/// The looks in use, each with the number of halves that have it. A flood of strange SYNs fills it
/// no longer than its flows last.
#[derive(Debug)]
pub(super) struct Looks {
    slots: Box<[(Look, u32)]>,
    /// Where the one stands that was taken last: SYNs that come together are often of one stack.
    last: u16,
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
    #[inline]
    pub(super) fn take(&mut self, look: Look) -> u16 {
        if let Some((known, uses)) = self.slots.get_mut(usize::from(self.last))
            && *uses > 0
            && known.is(look)
        {
            *uses = uses.saturating_add(1);
            return self.last + 1;
        }
        self.take_any(look)
    }

    #[inline(never)]
    fn take_any(&mut self, look: Look) -> u16 {
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
        // There are no more than LOOKS_MAX.
        self.last = u16::try_from(start + way).unwrap_or(0);
        self.last + 1
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
    use crate::wire::{Mac, Options, Shape, Timestamps};

    fn look(window: u16) -> Look {
        Look::of(Shape::of(&Options::default()), window)
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
        assert_eq!(
            Look::of(Shape::of(&options), 64240).options(9),
            (options, 64240)
        );
        let bare = Options::default();
        assert_eq!(Look::of(Shape::of(&bare), 1).options(9), (bare, 1));
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
        assert_eq!(links.number(Link(0)), 0);
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

//! The two things that most frames do to a live flow, written straight into its words: a first
//! segment opens it, and a segment that is no SYN follows one of the same end. Exactly what
//! `fold` and `half::pack` make of them together, without the full form between: tests hold both
//! ways against each other, word for word. Whatever is not one of the two is left to `fold`.

use super::Side;
use super::ahead::Announced;
use super::family::Family;
use super::fold::{DUPLICATE_NS, IP_ID_STEP};
use super::half::{
    COUNT_MAX, DF_SET, END, HAS_COPIES, HAS_DATA, HAS_FIN, HAS_STAMP, HAS_SYN, HOPS, IS_SYN_ACK,
    ISN, JUMPS_SHIFT, LOOK, ONLY_SYN, STAMP, STAMP_OF_SYN, STEPS_SHIFT, SYN_COUNT_SHIFT, SYN_DF,
    SYN_STAMPED, WINDOW, has_ack, small,
};
use super::index::Rank;
use super::looks::{Links, Look};
use super::packed::{Dictionaries, Packed};
use super::store::FlowStore;
use super::words::{FlowWords, Opened};
use crate::time::Timestamp;
use crate::wire::{Glance, Link, SeqNum};

/// An age that no TCP timestamp reaches (RFC 7323 §5.5): what a SYN's is taken for, once a later one
/// stands in its place.
const STAMP_AGE: u32 = i32::MAX.unsigned_abs();

impl<F: Family> Packed<F> {
    /// Finds a segment's flow, or begins it, and folds the segment in; whether the flow is new. `None` when
    /// it is not one of the simple cases, and nothing was done.
    // Not a part of the loop over a batch: there the registers would not last.
    #[inline(never)]
    pub(super) fn fold_simple(
        &mut self,
        shared: &mut Dictionaries,
        found: &Announced,
        segment: &Glance,
        time: Timestamp,
    ) -> Option<bool> {
        let (key, hash) = (F::announced(found), found.hash);
        let stored = &self.words;
        let known = self
            .index
            .find_or_take(hash, |slot| stored.is_key(slot, &key));
        let (slot, is_new) = match known {
            Some(known) => known,
            None => (self.displace(shared, &key, hash, time), true),
        };
        let mut flow = self.words.apart(slot)?;
        if is_new {
            let opened = open(&mut flow, shared, found.side, segment);
            flow.begin::<F>(&key, found.side, time, opened);
        } else if !segment.flags.syn() && flow.is_of_one_end(found.side) {
            follow::<F>(&mut flow, &mut shared.links, segment, time);
        } else {
            return None;
        }
        let is_connection = flow.end[LOOK] & (HAS_FIN | HAS_DATA) != 0;
        if is_connection || (!is_new && flow.is_established()) {
            self.raise(slot, Rank::Connection);
        }
        Some(is_new)
    }
}

const fn flag(is_set: bool, bit: u32) -> u32 {
    if is_set { bit } else { 0 }
}

/// The first segment of a flow, whose end is all zeroes.
#[inline]
fn open(
    flow: &mut FlowWords<'_>,
    shared: &mut Dictionaries,
    side: Side,
    segment: &Glance,
) -> Opened {
    let end = &mut *flow.end;
    let mut flags = segment.marks;
    let ip_id = segment.ip_id;
    let is_syn_ack = segment.flags.ack();
    if segment.flags.syn() {
        let look = Look::of(segment.shape, segment.window);
        // Each of these stands some places above the mark that it follows from.
        let stamped = flags & HAS_STAMP;
        flags |= stamped * (SYN_STAMPED / HAS_STAMP);
        flags |= stamped * (STAMP_OF_SYN / HAS_STAMP);
        flags |= (flags & DF_SET) * (SYN_DF / DF_SET);
        flags |= HAS_SYN | ONLY_SYN | 1 << SYN_COUNT_SHIFT;
        flags |= flag(is_syn_ack, IS_SYN_ACK) | u32::from(shared.looks.take(look));
        end[ISN] = segment.seq.0;
        if let Some(label) = &mut flow.label {
            **label = segment.flow_label;
        }
    }
    end[LOOK] = flags;
    end[END] = if has_ack(flags) {
        segment.ack.0
    } else {
        segment.end.0
    };
    end[STAMP] = segment.stamp;
    end[WINDOW] = u32::from(ip_id) << 16 | u32::from(segment.window);
    let number = shared.links.number(segment.link);
    end[HOPS] = u32::from_le_bytes([segment.hop_limit, 0, 1, number]);
    if !segment.flags.syn() {
        return Opened::OTHERWISE;
    }
    match is_syn_ack {
        true => Opened::with_syn(side.other(), 0),
        false => Opened::with_syn(side, ip_id),
    }
}

/// Another segment, and no SYN, of the end that was heard alone so far.
#[inline]
fn follow<F: Family>(
    flow: &mut FlowWords<'_>,
    links: &mut Links,
    segment: &Glance,
    time: Timestamp,
) {
    const STAMPED: u32 = SYN_STAMPED | HAS_STAMP;
    let end = &mut *flow.end;
    let before = end[LOOK];
    if has_ack(before) {
        end[END] = SeqNum(end[ISN]).plus(1).0;
    }
    let after = segment.end;
    let ip_id = u32::from(segment.ip_id);
    let last_id = end[WINDOW] >> 16;
    // See `fold::is_copy`.
    let is_copy = ip_id != 0
        && ip_id == last_id
        && end[END] == after.0
        && time.since(super::words::last_time(*flow.last, time)) < DUPLICATE_NS;
    let mut flags = before & !(ONLY_SYN | STAMP_OF_SYN) | segment.marks;
    let age = if before & STAMP_OF_SYN != 0 {
        0
    } else {
        STAMP_AGE
    };
    let stamp_of_syn = end[STAMP].wrapping_sub(age);
    let is_stamped = segment.marks & HAS_STAMP != 0;
    let stamp = if is_stamped {
        segment.stamp
    } else {
        end[STAMP]
    };
    end[STAMP] = stamp;
    let is_first_stamp = before & STAMPED == STAMPED && stamp == stamp_of_syn;
    flags |= flag(is_copy, HAS_COPIES) | flag(is_first_stamp, STAMP_OF_SYN);
    if is_stamped || before & HAS_STAMP == 0 {
        *flow.last = super::words::last_ticks(time);
    }
    if ip_id != 0 {
        let by = ip_id.wrapping_sub(last_id) & 0xffff;
        if last_id != 0 && by != 0 {
            flags = with_step(flags, by <= u32::from(IP_ID_STEP));
        }
        end[WINDOW] = ip_id << 16;
    }
    end[WINDOW] = end[WINDOW] & 0xffff_0000 | u32::from(segment.window);
    end[LOOK] = flags;
    if after.is_after(SeqNum(end[END])) {
        end[END] = after.0;
    }
    end[HOPS] = hops(end[HOPS], segment, links);
}

/// One more step of the IP ID, or one more jump.
#[inline]
fn with_step(flags: u32, is_step: bool) -> u32 {
    let shift = if is_step { STEPS_SHIFT } else { JUMPS_SHIFT };
    if flags >> shift & 3 < 3 {
        return flags + (1 << shift);
    }
    let count = |shift: u32| u16::from(flags.to_be_bytes()[0] >> (shift - 24)) & 3;
    let (steps, jumps) = (count(STEPS_SHIFT), count(JUMPS_SHIFT));
    let (steps, jumps) = small(steps + u16::from(is_step), jumps + u16::from(!is_step), 3);
    flags & !(15 << STEPS_SHIFT) | u32::from(steps) << STEPS_SHIFT | u32::from(jumps) << JUMPS_SHIFT
}

/// Where the counter of the first hop limit stands in its word, and how much is room for there.
const SEEN_SHIFT: u32 = 16;
const SEEN_MASK: u32 = 15;

/// The hop limits with one more seen, and the link's number.
#[inline]
fn hops(before: u32, segment: &Glance, links: &mut Links) -> u32 {
    let [first, .., number] = before.to_le_bytes();
    let has_room = before >> SEEN_SHIFT & SEEN_MASK < SEEN_MASK;
    if segment.hop_limit == first && has_room && links.get(number) == segment.link {
        return before + (1 << SEEN_SHIFT);
    }
    hops_of_any(before, segment.hop_limit, segment.link, links)
}

#[inline(never)]
fn hops_of_any(before: u32, hop_limit: u8, link: Link, links: &mut Links) -> u32 {
    let [first, other, counts, number] = before.to_le_bytes();
    let (seen, seen_other) = (u16::from(counts & 15), u16::from(counts >> 4));
    let (other, seen, seen_other) = if hop_limit == first {
        (other, seen + 1, seen_other)
    } else if hop_limit == other && seen_other > 0 {
        (other, seen, seen_other + 1)
    } else {
        (hop_limit, seen, 1)
    };
    let (seen, seen_other) = small(seen, seen_other, COUNT_MAX);
    let counts = u8::try_from(seen.max(1) | seen_other << 4).unwrap_or(u8::MAX);
    let number = if links.get(number) == link {
        number
    } else {
        links.number(link)
    };
    u32::from_le_bytes([first, other, counts, number])
}

#[cfg(test)]
mod tests {
    use crate::flow::ahead::{Announced, Finder};
    use crate::flow::family::{Family, V4, V6};
    use crate::flow::fold;
    use crate::flow::hash::hash;
    use crate::flow::packed::{Dictionaries, Packed};
    use crate::flow::store::FlowStore;
    use crate::flow::tests::{Dice, segment, tuple};
    use crate::flow::{FlowKey, PathTable};
    use crate::time::Timestamp;
    use crate::wire::{Flags, FourTuple, Glance, Segment};

    const SECRET: [u64; 2] = [3, 9];

    struct Store<F: Family>(Packed<F>, Dictionaries, PathTable);

    impl<F: Family> Store<F> {
        fn new() -> Self {
            let (store, shared) = (Packed::new(64, SECRET), Dictionaries::new(64, 1));
            Self(store, shared, PathTable::new(1, 1))
        }

        /// What the tracker does; whether it was a simple case.
        fn take(&mut self, segment: &Segment, time: Timestamp, may_be_quick: bool) -> bool {
            let Self(store, shared, paths) = self;
            let (key, side) = FlowKey::of(segment.tuple);
            let mut found = Announced::NONE;
            found.find_out(&segment.tuple, &Finder::new(SECRET, paths));
            assert_eq!((found.hash, found.side), (hash(&key, SECRET), side));
            let glance = Glance::of(segment);
            if may_be_quick && store.fold_simple(shared, &found, &glance, time).is_some() {
                return true;
            }
            let (slot, is_new) = store
                .entry(shared, &F::pack_key(&key), hash(&key, SECRET), time)
                .expect("a packed table takes every flow");
            if !is_new && fold::opens_anew(store, shared, (slot, side), segment, time) {
                store.reopen(shared, slot, time);
            }
            let mut state = store.state(slot, time);
            if segment.flags.rst() {
                state.reset_from[side.index()] = true;
                state.ended = true;
                store.set_state(slot, &state);
            } else if !state.reset_from[side.index()] {
                fold::fold(store, shared, (slot, side), segment, time);
            }
            false
        }
    }

    /// A segment of one of a few flows: repeated, continued, contradicted.
    fn next(dice: &mut Dice, tuples: &[FourTuple], last: Option<Segment>) -> Segment {
        const FLAGS: [u8; 8] = [
            Flags::SYN,
            Flags::SYN | Flags::ACK,
            Flags::FIN | Flags::ACK,
            Flags::FIN | Flags::ACK,
            Flags::ACK,
            Flags::RST,
            Flags::FIN,
            Flags::SYN | Flags::FIN,
        ];
        let bits = dice.byte();
        let at = usize::from(bits) % tuples.len();
        let mut made = segment(dice, tuples[at], FLAGS[usize::from(bits >> 5)]);
        made.payload_len = u32::from(dice.byte() & 1) * 9;
        if made.flags.syn() {
            // Its tuples begin few connections each, or all would be foreign.
            made.seq.0 = u32::from(dice.byte() & 1);
        }
        let Some(last) = last.filter(|last| last.tuple.src.is_ipv4() == made.tuple.src.is_ipv4())
        else {
            return made;
        };
        let alike = dice.byte();
        if alike & 1 != 0 {
            made.seq = last.seq.plus(u32::from(alike >> 4));
        }
        if alike & 2 != 0 {
            made.ip_id = last.ip_id.map(|id| id.wrapping_add(u16::from(alike >> 5)));
        }
        if alike & 4 != 0 {
            made.hop_limit = last.hop_limit;
            made.link = last.link;
        }
        if alike & 8 != 0 {
            made.options.timestamps = last.options.timestamps;
        }
        if alike == 0 {
            made = last;
        }
        made
    }

    fn play<F: Family>(is_ipv4: bool) {
        let mut simple = 0;
        // Under Miri a segment takes half a second.
        let (seeds, segments, least): (u64, u32, u32) = if cfg!(miri) {
            (3, 20, 5)
        } else {
            (400, 60, 2_000)
        };
        for seed in 1..seeds {
            let mut dice = Dice::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let (mut quick, mut full) = (Store::<F>::new(), Store::<F>::new());
            let mut tuples: Vec<FourTuple> = (0..5).map(|_| tuple(&mut dice, is_ipv4)).collect();
            tuples.extend([tuples[0].reversed(), tuples[1].reversed()]);
            let mut time = Timestamp::from_nanos(dice.roll() >> 8);
            let mut last = None;
            for _ in 0..segments {
                let segment = next(&mut dice, &tuples, last);
                time = time.plus_nanos(dice.roll() >> (30 + dice.roll() % 30));
                let is_rst = segment.flags.rst();
                simple += u32::from(quick.take(&segment, time, !is_rst));
                full.take(&segment, time, false);
                assert_eq!(quick.0.memory(), full.0.memory(), "{segment:?}");
                assert_eq!(quick.0.counters(), full.0.counters());
                last = Some(segment);
            }
        }
        assert!(simple > least, "{simple} simple cases");
    }

    #[test]
    fn the_quick_way_leaves_the_very_words_that_the_full_one_leaves() {
        play::<V4>(true);
        play::<V6>(false);
    }
}

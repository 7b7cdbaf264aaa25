//! The two things that most frames do to a live flow, written straight into its words: a first
//! segment opens it, and a segment that is no SYN follows one of the same end. Exactly what
//! `fold` and `half::pack` make of them together, without the full form between: tests hold both
//! ways against each other, word for word. Whatever is not one of the two is left to `fold`.

use super::Side;
use super::fold::{DUPLICATE_NS, IP_ID_STEP};
use super::half::{
    COUNT_MAX, DF_CLEAR, DF_SET, END, HAS_COPIES, HAS_DATA, HAS_FIN, HAS_LABEL, HAS_STAMP, HAS_SYN,
    HOPS, IS_SYN_ACK, ISN, JUMPS_SHIFT, LOOK, ONLY_SYN, STAMP, STAMP_OF_SYN, STEPS_SHIFT,
    SYN_COUNT_SHIFT, SYN_DF, SYN_STAMPED, WINDOW, has_ack, small,
};
use super::index::{Rank, Slot};
use super::looks::{Link, Links, Look};
use super::packed::{Dictionaries, Packed};
use super::store::FlowStore;
use super::words::{Family, FlowWords};
use crate::time::Timestamp;
use crate::wire::{Segment, SeqNum};

/// An age that no TCP timestamp reaches (RFC 7323 §5.5): what a SYN's is taken for, once a later one
/// stands in its place.
const STAMP_AGE: u32 = i32::MAX.unsigned_abs();

impl<F: Family> Packed<F> {
    /// Folds a segment in when it is one of the simple ones; `false` when nothing was done.
    #[inline]
    pub(super) fn fold_simple(
        &mut self,
        shared: &mut Dictionaries,
        slot: Slot,
        (side, is_new): (Side, bool),
        segment: &Segment,
        time: Timestamp,
    ) -> bool {
        let Some(mut flow) = self.words.simple(slot, side, is_new) else {
            return false;
        };
        if is_new {
            open(&mut flow, shared, side, segment);
        } else if segment.flags.syn() {
            return false;
        } else {
            follow(&mut flow, &mut shared.links, segment, time);
        }
        if flow.end[LOOK] & (HAS_FIN | HAS_DATA) != 0 || flow.is_established() {
            self.raise(slot, Rank::Connection);
        }
        true
    }
}

const fn flag(is_set: bool, bit: u32) -> u32 {
    if is_set { bit } else { 0 }
}

fn link(segment: &Segment) -> Link {
    Link::new(segment.link.map(|link| link.src), segment.vlan)
}

/// What every segment shows in the same way.
fn shown(segment: &Segment) -> u32 {
    flag(segment.flags.fin(), HAS_FIN)
        | flag(segment.payload_len > 0, HAS_DATA)
        | flag(segment.dont_fragment == Some(true), DF_SET)
        | flag(segment.dont_fragment == Some(false), DF_CLEAR)
        | flag(segment.options.timestamps.is_some(), HAS_STAMP)
}

/// The first segment of a flow, whose end is all zeroes.
fn open(flow: &mut FlowWords<'_>, shared: &mut Dictionaries, side: Side, segment: &Segment) {
    let end = &mut *flow.end;
    let mut flags = shown(segment);
    if segment.flags.syn() {
        let is_stamped = segment.options.timestamps.is_some();
        let look = Look::of(&segment.options, segment.window);
        flags |= HAS_SYN
            | ONLY_SYN
            | 1 << SYN_COUNT_SHIFT
            | flag(segment.flags.ack(), IS_SYN_ACK)
            | flag(is_stamped, SYN_STAMPED | STAMP_OF_SYN)
            | flag(segment.dont_fragment == Some(true), SYN_DF)
            | u32::from(shared.looks.take(look));
        end[ISN] = segment.seq.0;
        if let Some(label) = &mut flow.label {
            **label = segment.flow_label.map_or(0, |label| label | HAS_LABEL);
        }
    }
    end[LOOK] = flags;
    end[END] = if has_ack(flags) {
        segment.ack.0
    } else {
        segment.end().0
    };
    end[STAMP] = segment.options.timestamps.map_or(0, |stamps| stamps.value);
    let ip_id = segment.ip_id.unwrap_or(0);
    end[WINDOW] = u32::from(ip_id) << 16 | u32::from(segment.window);
    let number = shared.links.number(link(segment));
    end[HOPS] = u32::from_le_bytes([segment.hop_limit, 0, 1, number]);
    if segment.flags.syn() {
        let opening = segment.ip_id.filter(|_| !segment.flags.ack());
        let originator = if segment.flags.ack() {
            side.other()
        } else {
            side
        };
        flow.begin_with_syn(originator, opening);
    }
}

/// Another segment, and no SYN, of the end that was heard alone so far.
fn follow(flow: &mut FlowWords<'_>, links: &mut Links, segment: &Segment, time: Timestamp) {
    let before = flow.end[LOOK];
    if has_ack(before) {
        flow.end[END] = SeqNum(flow.end[ISN]).plus(1).0;
    }
    let is_copy = is_copy(flow, segment, time);
    let end = &mut *flow.end;
    let had = |bit: u32| before & bit != 0;
    let age = if had(STAMP_OF_SYN) { 0 } else { STAMP_AGE };
    let stamp_of_syn = end[STAMP].wrapping_sub(age);
    let stamps = segment.options.timestamps;
    if let Some(stamps) = stamps {
        end[STAMP] = stamps.value;
    }
    let mut flags = before & !(ONLY_SYN | STAMP_OF_SYN | 15 << STEPS_SHIFT)
        | shown(segment)
        | flag(is_copy, HAS_COPIES);
    let is_first_stamp = had(SYN_STAMPED) && had(HAS_STAMP) && end[STAMP] == stamp_of_syn;
    flags |= flag(is_first_stamp, STAMP_OF_SYN);
    let (steps, jumps) = ip_id_steps(end[WINDOW] >> 16, before, segment.ip_id);
    flags |= u32::from(steps) << STEPS_SHIFT | u32::from(jumps) << JUMPS_SHIFT;
    if stamps.is_some() || !had(HAS_STAMP) {
        *flow.last = super::words::last_ticks(time);
    }
    end[LOOK] = flags;
    if segment.end().is_after(SeqNum(end[END])) {
        end[END] = segment.end().0;
    }
    let ip_id = match segment.ip_id {
        Some(id) if id != 0 => u32::from(id) << 16,
        _ => end[WINDOW] & 0xffff_0000,
    };
    end[WINDOW] = ip_id | u32::from(segment.window);
    end[HOPS] = hops(end[HOPS], segment, links);
}

/// See `fold::is_copy`.
fn is_copy(flow: &FlowWords<'_>, segment: &Segment, time: Timestamp) -> bool {
    let Some(id) = segment.ip_id.filter(|id| *id != 0) else {
        return false;
    };
    flow.end[WINDOW] >> 16 == u32::from(id)
        && flow.end[END] == segment.end().0
        && time.since(super::words::last_time(*flow.last, time)) < DUPLICATE_NS
}

/// Steps and jumps of the IP ID, as they fit.
fn ip_id_steps(last: u32, before: u32, ip_id: Option<u16>) -> (u16, u16) {
    let (steps, jumps) = (before >> STEPS_SHIFT & 3, before >> JUMPS_SHIFT & 3);
    let by = match ip_id {
        Some(id) if id != 0 && last != 0 => u32::from(id).wrapping_sub(last) & 0xffff,
        _ => 0,
    };
    let is_step = (1..=u32::from(IP_ID_STEP)).contains(&by);
    let steps = steps + u32::from(is_step);
    let jumps = jumps + u32::from(by != 0 && !is_step);
    small(
        u16::try_from(steps).unwrap_or(0),
        u16::try_from(jumps).unwrap_or(0),
        3,
    )
}

/// The hop limits with one more seen, and the link's number.
fn hops(before: u32, segment: &Segment, links: &mut Links) -> u32 {
    let [first, other, counts, number] = before.to_le_bytes();
    let (seen, seen_other) = (u16::from(counts & 15), u16::from(counts >> 4));
    let (other, seen, seen_other) = if segment.hop_limit == first {
        (other, seen + 1, seen_other)
    } else if segment.hop_limit == other && seen_other > 0 {
        (other, seen, seen_other + 1)
    } else {
        (segment.hop_limit, seen, 1)
    };
    let (seen, seen_other) = small(seen, seen_other, COUNT_MAX);
    let counts = u8::try_from(seen.max(1) | seen_other << 4).unwrap_or(u8::MAX);
    let link = link(segment);
    let number = if links.get(number) == link {
        number
    } else {
        links.number(link)
    };
    u32::from_le_bytes([first, other, counts, number])
}

#[cfg(test)]
mod tests {
    use crate::flow::FlowKey;
    use crate::flow::fold;
    use crate::flow::hash::hash;
    use crate::flow::packed::{Dictionaries, Packed};
    use crate::flow::store::FlowStore;
    use crate::flow::tests::{Dice, segment, tuple};
    use crate::flow::words::{Family, V4, V6};
    use crate::time::Timestamp;
    use crate::wire::{Flags, FourTuple, Segment};

    const SECRET: [u64; 2] = [3, 9];

    struct Store<F: Family>(Packed<F>, Dictionaries);

    impl<F: Family> Store<F> {
        fn new() -> Self {
            Self(Packed::new(64, SECRET), Dictionaries::new(64, 1))
        }

        /// What the tracker does; whether it was a simple case.
        fn take(&mut self, segment: &Segment, time: Timestamp, may_be_quick: bool) -> bool {
            let Self(store, shared) = self;
            let (key, side) = FlowKey::of(segment.tuple);
            let (slot, is_new) = store
                .entry(shared, &F::pack_key(&key), hash(&key, SECRET), time)
                .expect("a packed table takes every flow");
            if may_be_quick && store.fold_quickly(shared, slot, (side, is_new), segment, time) {
                return true;
            }
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
        for seed in 1..400_u64 {
            let mut dice = Dice::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let (mut quick, mut full) = (Store::<F>::new(), Store::<F>::new());
            let mut tuples: Vec<FourTuple> = (0..5).map(|_| tuple(&mut dice, is_ipv4)).collect();
            tuples.extend([tuples[0].reversed(), tuples[1].reversed()]);
            let mut time = Timestamp::from_nanos(dice.roll() >> 8);
            let mut last = None;
            for _ in 0..60 {
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
        assert!(simple > 2_000, "{simple} simple cases");
    }

    #[test]
    fn the_quick_way_leaves_the_very_words_that_the_full_one_leaves() {
        play::<V4>(true);
        play::<V6>(false);
    }
}

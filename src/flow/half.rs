//! One end of a flow in 24 bytes (28 for IPv6). What stands in the SYN, SYN-ACK and FIN is kept
//! whole, with these exceptions: two hop limits instead of four, counters that saturate at small
//! values, the last TSval and not the SYN's once a later one was seen, no acknowledgement number
//! but that of a SYN-ACK until more is heard (a live sensor asks the socket, or knows nothing), and
//! the FIN stands at the end of the data.

use super::looks::{Links, Look, Looks};
use super::{HalfFlow, HopLimits, Mode, SynFacts};
use crate::time::Timestamp;
use crate::wire::{Glance, Link, Options, SeqNum, Shape, Timestamps};

/// Words of a half; IPv6 has one more, for the SYN's flow label.
pub(super) const HALF_WORDS: usize = 6;

pub(super) const ISN: usize = 0;
pub(super) const END: usize = 1;
pub(super) const STAMP: usize = 2;
/// Window, and above it the last IP ID that was not 0.
pub(super) const WINDOW: usize = 3;
/// The SYN's hop limit, another one, how often each was seen (four bits each), the link's number.
pub(super) const HOPS: usize = 4;
/// The look's number (twelve bits), how often the SYN was seen (four bits), flags.
pub(super) const LOOK: usize = 5;
pub(super) const LABEL: usize = 6;

const LOOK_BITS: u32 = 12;
pub(super) const SYN_COUNT_SHIFT: u32 = 12;
/// The largest number in the four bits of a counter.
pub(super) const COUNT_MAX: u16 = 15;

pub(super) const HAS_SYN: u32 = 1 << 16;
pub(super) const IS_SYN_ACK: u32 = 1 << 17;
pub(super) const HAS_FIN: u32 = Glance::FIN;
pub(super) const HAS_DATA: u32 = Glance::DATA;
pub(super) const DF_SET: u32 = Glance::DF_SET;
pub(super) const DF_CLEAR: u32 = Glance::DF_CLEAR;
pub(super) const HAS_STAMP: u32 = Glance::STAMPED;
/// The SYN offered timestamps.
pub(super) const SYN_STAMPED: u32 = 1 << 23;
/// `STAMP` is the SYN's own.
pub(super) const STAMP_OF_SYN: u32 = 1 << 24;
/// Nothing but SYNs was seen.
pub(super) const ONLY_SYN: u32 = 1 << 25;
pub(super) const HAS_COPIES: u32 = 1 << 26;
/// The SYN's own Don't Fragment bit is `DF_SET` (and not `DF_CLEAR`).
pub(super) const SYN_DF: u32 = 1 << 27;
pub(super) const STEPS_SHIFT: u32 = 28;
pub(super) const JUMPS_SHIFT: u32 = 30;
/// The flow label is known: bit above its twenty.
pub(super) const HAS_LABEL: u32 = Glance::LABELED;

/// What a half leaves to the flow: where its times and the SYN's IP ID are kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Around {
    /// When the half was first heard; its SYN, if it sent one.
    pub(super) first_seen: Timestamp,
    /// When it was last heard: with timestamps, if it sends them.
    pub(super) last_seen: Timestamp,
    /// The IP ID of the SYN, if it is the originator's.
    pub(super) syn_ip_id: Option<u16>,
    /// IPv4: it has IP IDs and Don't Fragment bits.
    pub(super) is_ipv4: bool,
}

/// Whether the words hold anything.
pub(super) fn is_used(words: &[u32]) -> bool {
    at(words, HOPS) >> 16 & 0xff != 0
}

/// Whether its FIN was seen.
pub(super) fn has_fin(words: &[u32]) -> bool {
    at(words, LOOK) & HAS_FIN != 0
}

/// Whether `END` holds what a SYN-ACK acknowledges. As long as nothing else was heard of its end, the
/// data ends right behind the ISN, and the word is free. It tells the ISN of the other end, whose
/// SYN left by another interface or was this host's own.
pub(super) const fn has_ack(flags: u32) -> bool {
    flags & (IS_SYN_ACK | ONLY_SYN | HAS_DATA | HAS_FIN) == IS_SYN_ACK | ONLY_SYN
}

/// The number of its look, to be given back when the half is forgotten.
pub(super) fn look_number(words: &[u32]) -> u16 {
    low_u16(at(words, LOOK) & ((1 << LOOK_BITS) - 1))
}

/// The half in these words.
#[inline]
pub(super) fn unpack(
    words: &[u32],
    around: Around,
    looks: &Looks,
    links: &Links,
) -> Option<HalfFlow> {
    if !is_used(words) {
        return None;
    }
    let flags = at(words, LOOK);
    let has = |bit: u32| flags & bit != 0;
    let hops = at(words, HOPS);
    let [first, other, counts, link] = hops.to_le_bytes();
    let counts = [u16::from(counts & 15), u16::from(counts >> 4)];
    let mut hop_limits = HopLimits::default();
    hop_limits.0[0] = mode(first, counts[0]);
    hop_limits.0[1] = mode(other, counts[1]);
    let syn = has(HAS_SYN).then(|| unpack_syn(words, around, looks));
    let syn_count = syn.map_or(0, |syn| u32::from(syn.count));
    let seen = u32::from(counts[0] + counts[1]);
    let segments = if has(ONLY_SYN) {
        syn_count
    } else {
        seen.max(syn_count + 1)
    };
    let (mac, vlan) = links.get(link).parts();
    let ip_id = high_u16(at(words, WINDOW));
    let end = if has_ack(flags) {
        SeqNum(at(words, ISN)).plus(1)
    } else {
        SeqNum(at(words, END))
    };
    let stamp = Timestamps {
        value: at(words, STAMP),
        echo: 0,
    };
    Some(HalfFlow {
        first_seen: around.first_seen,
        last_seen: around.last_seen,
        segments,
        syn,
        hop_limits,
        mac,
        mac_count: low_u16(segments),
        vlan,
        ip_id: (ip_id != 0).then_some(ip_id),
        ip_id_steps: low_u16(flags >> STEPS_SHIFT & 3),
        ip_id_jumps: low_u16(flags >> JUMPS_SHIFT & 3),
        dont_fragment: (has(DF_SET), has(DF_CLEAR)),
        end: Some(end),
        acked: None,
        window: low_u16(at(words, WINDOW)),
        timestamps: has(HAS_STAMP).then_some((around.last_seen, stamp)),
        fin: has(HAS_FIN).then(|| SeqNum(end.0.wrapping_sub(1))),
        has_data: has(HAS_DATA),
        duplicates: u16::from(has(HAS_COPIES)),
    })
}

fn unpack_syn(words: &[u32], around: Around, looks: &Looks) -> SynFacts {
    let flags = at(words, LOOK);
    let has = |bit: u32| flags & bit != 0;
    let is_syn_ack = has(IS_SYN_ACK);
    // Once a later TSval stands there, the SYN's was some time before: the oldest possible, so
    // that no echo is ever too old for it.
    let age = if has(STAMP_OF_SYN) {
        0
    } else {
        i32::MAX.unsigned_abs()
    };
    let stamp = at(words, STAMP).wrapping_sub(age);
    let unknown = || {
        let timestamps = Timestamps {
            value: stamp,
            echo: 0,
        };
        let options = Options {
            timestamps: has(SYN_STAMPED).then_some(timestamps),
            has_unknown: true,
            ..Options::default()
        };
        (options, low_u16(at(words, WINDOW)))
    };
    let look = looks.get(look_number(words));
    let (options, window) = look.map_or_else(unknown, |look| look.options(stamp));
    let ip_id = match (is_syn_ack, has(ONLY_SYN)) {
        (false, _) => around.syn_ip_id,
        (true, true) => Some(high_u16(at(words, WINDOW))),
        // Of a responder only the last IP ID is kept.
        (true, false) => None,
    };
    let label = words.get(LABEL).copied().unwrap_or_default();
    SynFacts {
        time: around.first_seen,
        is_syn_ack,
        isn: SeqNum(at(words, ISN)),
        ack: has_ack(flags).then_some(SeqNum(at(words, END))),
        ip_id: ip_id.filter(|_| around.is_ipv4),
        hop_limit: at(words, HOPS).to_le_bytes()[0],
        dont_fragment: around.is_ipv4.then_some(has(SYN_DF)),
        window,
        options,
        flow_label: (label & HAS_LABEL != 0).then_some(label & !HAS_LABEL),
        count: low_u16(flags >> SYN_COUNT_SHIFT & 15),
    }
}

/// Writes a half into its words, which hold what it was before, or zeroes.
#[inline]
pub(super) fn pack(words: &mut [u32], half: &HalfFlow, looks: &mut Looks, links: &mut Links) {
    let before = at(words, LOOK);
    let only_syn = half
        .syn
        .is_some_and(|syn| half.segments <= u32::from(syn.count));
    let mut flags = before & ((1 << LOOK_BITS) - 1);
    let mut flag = |is_set: bool, bit: u32| flags |= if is_set { bit } else { 0 };
    flag(half.fin.is_some(), HAS_FIN);
    flag(half.has_data, HAS_DATA);
    flag(half.dont_fragment.0, DF_SET);
    flag(half.dont_fragment.1, DF_CLEAR);
    flag(half.timestamps.is_some(), HAS_STAMP);
    flag(only_syn, ONLY_SYN);
    flag(half.duplicates > 0, HAS_COPIES);
    if let Some(syn) = half.syn {
        let stamp = syn.options.timestamps.map(|stamps| stamps.value);
        let last = half.timestamps.map(|(_, stamps)| stamps.value);
        flag(true, HAS_SYN);
        flag(syn.is_syn_ack, IS_SYN_ACK);
        flag(stamp.is_some(), SYN_STAMPED);
        flag(stamp.is_some() && stamp == last, STAMP_OF_SYN);
        flag(syn.dont_fragment == Some(true), SYN_DF);
        flags |= u32::from(syn.count.min(COUNT_MAX)) << SYN_COUNT_SHIFT;
        if before & HAS_SYN == 0 {
            flags |= u32::from(looks.take(Look::of(Shape::of(&syn.options), syn.window)));
            set(words, ISN, syn.isn.0);
            set(
                words,
                LABEL,
                syn.flow_label.map_or(0, |label| label | HAS_LABEL),
            );
        }
    }
    let (steps, jumps) = small(half.ip_id_steps, half.ip_id_jumps, 3);
    flags |= u32::from(steps) << STEPS_SHIFT | u32::from(jumps) << JUMPS_SHIFT;
    set(words, LOOK, flags);
    let ack = half.syn.and_then(|syn| syn.ack).filter(|_| has_ack(flags));
    set(words, END, ack.or(half.end).unwrap_or_default().0);
    set(
        words,
        STAMP,
        half.timestamps.map_or(0, |(_, stamps)| stamps.value),
    );
    let ip_id = u32::from(half.ip_id.unwrap_or(0));
    set(words, WINDOW, ip_id << 16 | u32::from(half.window));
    let hops = hops(half, at(words, HOPS), links);
    set(words, HOPS, hops);
}

fn hops(half: &HalfFlow, before: u32, links: &mut Links) -> u32 {
    let [.., number] = before.to_le_bytes();
    let link = Link::new(half.mac, half.vlan);
    let number = if links.get(number) == link {
        number
    } else {
        links.number(link)
    };
    let modes = half.hop_limits.0;
    let first = half.syn.map_or(modes[0].hop_limit, |syn| syn.hop_limit);
    let count = |hop_limit: u8| {
        let known = modes
            .iter()
            .find(|mode| mode.count > 0 && mode.hop_limit == hop_limit);
        known.map_or(0, |mode| mode.count)
    };
    // The youngest of the others: what the end shows now tells more than what it once showed.
    let other = modes
        .iter()
        .rfind(|mode| mode.count > 0 && mode.hop_limit != first);
    let other = other.copied().unwrap_or_default();
    let (seen, seen_other) = small(count(first).max(1), other.count, COUNT_MAX);
    let counts = u8::try_from(seen.max(1) | seen_other << 4).unwrap_or(u8::MAX);
    u32::from_le_bytes([first, other.hop_limit, counts, number])
}

/// Two counters that fit below `max`, with nearly the relation that they had.
pub(super) const fn small(mut one: u16, mut other: u16, max: u16) -> (u16, u16) {
    while one > max || other > max {
        one = one.div_ceil(2);
        other /= 2;
    }
    (one, other)
}

const fn mode(hop_limit: u8, count: u16) -> Mode {
    Mode::new(hop_limit, count)
}

fn at(words: &[u32], index: usize) -> u32 {
    words.get(index).copied().unwrap_or_default()
}

fn set(words: &mut [u32], index: usize, value: u32) {
    if let Some(word) = words.get_mut(index) {
        *word = value;
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is wanted")]
const fn low_u16(word: u32) -> u16 {
    word as u16
}

const fn high_u16(word: u32) -> u16 {
    low_u16(word >> 16)
}

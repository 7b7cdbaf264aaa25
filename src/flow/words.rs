//! Where in the memory of a live flow table each thing stands: sets of eight flows, each with its
//! key, its state and one end, and behind them four more ends for flows that were heard from both.
//! All zeroes is an empty set, so that memory need not be touched before it is used.

use std::alloc::{Layout, handle_alloc_error};

use zerocopy::FromZeros;

use super::Side;
use super::family::{Family, STATE_WORDS, flow_words};
use super::half::{self, Around, HALF_WORDS};
use super::index::{Slot, WAYS};
use super::looks::Looks;
use super::store::{ENDED_KEPT_NS, FlowState};
use super::ticks::{FIRST_BITS, FIRST_SHIFT, LAST_BITS, LAST_SHIFT, ticks, time};
use crate::time::Timestamp;

// The first word of a flow's state has the low bits of the ticks of "first seen".

/// Ticks of "last seen" of the first end.
const LAST: usize = 1;
/// High bits of "first seen" (seven), flags, the IP ID of the originator's SYN.
pub(super) const FLAGS: usize = 2;

const FIRST_HIGH: u32 = 0x7f;
pub(super) const HAS_SECOND: u32 = 1 << 7;
const ESTABLISHED: u32 = 1 << 8;
const OLDER: u32 = 1 << 9;
const ENDED: u32 = 1 << 10;
const RESET_LOW: u32 = 1 << 11;
const RESET_HIGH: u32 = 1 << 12;
const HAS_ORIGINATOR: u32 = 1 << 13;
const ORIGINATOR_HIGH: u32 = 1 << 14;
/// The end in the flow's own words is the higher one.
const FIRST_IS_HIGH: u32 = 1 << 15;
const STATE_FLAGS: u32 =
    ESTABLISHED | OLDER | ENDED | RESET_LOW | RESET_HIGH | HAS_ORIGINATOR | ORIGINATOR_HIGH;

/// The memory of one family's flows.
#[derive(Debug)]
pub(super) struct Words<F: Family> {
    sets: Box<[F::Set]>,
}

/// A flow with at most one end, in its words.
#[derive(Debug)]
pub(super) struct FlowWords<'a> {
    key: &'a mut [u32],
    first: &'a mut u32,
    /// Ticks of when its first end was last heard: see [`last_time`].
    pub(super) last: &'a mut u32,
    flags: &'a mut u32,
    /// Its first end.
    pub(super) end: &'a mut [u32; HALF_WORDS],
    /// The flow label of its SYN, of IPv6.
    pub(super) label: Option<&'a mut u32>,
}

/// What a flow was opened by, as its state has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opened(u32);

impl Opened {
    /// Neither a SYN nor a SYN-ACK.
    pub(super) const OTHERWISE: Self = Self(0);

    /// A SYN or a SYN-ACK. `ip_id` is a SYN's.
    #[inline]
    pub(super) fn with_syn(originator: Side, ip_id: u16) -> Self {
        let high = ORIGINATOR_HIGH * u32::from(originator == Side::High);
        Self(HAS_ORIGINATOR | high | u32::from(ip_id) << 16)
    }
}

impl FlowWords<'_> {
    /// Whether the handshake is known to be complete.
    pub(super) const fn is_established(&self) -> bool {
        *self.flags & ESTABLISHED != 0
    }

    /// It begins, with nothing known of it but what it was opened by, in words that are zeroes but for what is
    /// written here. Its first end is `side`'s.
    #[inline]
    pub(super) fn begin<F: Family>(
        &mut self,
        key: &F::Key,
        side: Side,
        now: Timestamp,
        Opened(opened): Opened,
    ) {
        F::write_key(self.key, key);
        let [first, high] = first_ticks(now);
        (*self.first, *self.last) = (first, last_ticks(now));
        let is_high = u32::from(side == Side::High);
        *self.flags = opened | high | (FIRST_IS_HIGH * is_high);
    }

    /// Whether `side` alone was heard, and no reset of it.
    #[inline]
    pub(super) fn is_of_one_end(&self, side: Side) -> bool {
        let (first, reset) = match side {
            Side::Low => (0, RESET_LOW),
            Side::High => (FIRST_IS_HIGH, RESET_HIGH),
        };
        *self.flags & (HAS_SECOND | FIRST_IS_HIGH | reset) == first && half::is_used(self.end)
    }
}

/// The ticks of "first seen": the word that has the low ones, and the high ones.
#[inline]
fn first_ticks(at: Timestamp) -> [u32; 2] {
    let ticks = ticks(at, FIRST_SHIFT, FIRST_BITS);
    let high = u32::try_from(ticks >> 32).unwrap_or_default();
    [
        u32::try_from(ticks & u64::from(u32::MAX)).unwrap_or_default(),
        high,
    ]
}

/// The ticks of "last seen".
pub(super) fn last_ticks(at: Timestamp) -> u32 {
    u32::try_from(ticks(at, LAST_SHIFT, LAST_BITS)).unwrap_or_default()
}

/// The time of these ticks.
pub(super) fn last_time(ticks: u32, now: Timestamp) -> Timestamp {
    time(u64::from(ticks), now, LAST_SHIFT, LAST_BITS)
}

/// What the allocator does by itself where memory is asked for in the usual ways.
fn no_memory<F: Family>(sets: usize) -> Box<[F::Set]> {
    let layout = Layout::array::<F::Set>(sets);
    handle_alloc_error(layout.unwrap_or(Layout::new::<F::Set>()))
}

impl<F: Family> Words<F> {
    /// A flow, each of its words by itself.
    #[inline]
    pub(super) fn apart(&mut self, slot: Slot) -> Option<FlowWords<'_>> {
        let (key, flow) = self.flow_mut(slot).split_at_mut_checked(F::KEY_WORDS)?;
        let ([first, last, flags], end) = flow.split_first_chunk_mut::<STATE_WORDS>()?;
        let (end, rest) = end.split_first_chunk_mut::<HALF_WORDS>()?;
        let label = rest.first_mut();
        Some(FlowWords {
            key,
            first,
            last,
            flags,
            end,
            label,
        })
    }

    /// That many empty sets.
    pub(super) fn new(sets: usize) -> Self {
        Self {
            // Zeroed memory from the system, which is not touched before it is used: `vec!` writes each set.
            sets: <[F::Set]>::new_box_zeroed_with_elems(sets)
                .unwrap_or_else(|_| no_memory::<F>(sets)),
        }
    }

    /// All of it.
    pub(super) fn all(&self) -> &[u32] {
        F::words(&self.sets)
    }

    /// All words of a set.
    #[inline]
    pub(super) fn set(&self, set: usize) -> &[u32] {
        self.sets.get(set).map(F::Set::as_ref).unwrap_or_default()
    }

    /// The same, to change it.
    #[inline]
    pub(super) fn set_mut(&mut self, set: usize) -> &mut [u32] {
        let set = self.sets.get_mut(set);
        set.map(F::Set::as_mut).unwrap_or_default()
    }

    /// A flow: key, state, first end.
    #[inline]
    pub(super) fn flow(&self, slot: Slot) -> &[u32] {
        let start = slot.way % WAYS * flow_words::<F>();
        let words = self.set(slot.set).get(start..start + flow_words::<F>());
        words.unwrap_or_default()
    }

    /// Where the first and the last word of a flow stand among all.
    #[inline]
    pub(super) const fn ends_of(slot: Slot) -> [usize; 2] {
        let set = slot.set * (size_of::<F::Set>() / size_of::<u32>());
        let first = set + slot.way % WAYS * flow_words::<F>();
        [first, first + flow_words::<F>() - 1]
    }

    /// A flow, to change it.
    #[inline]
    pub(super) fn flow_mut(&mut self, slot: Slot) -> &mut [u32] {
        let start = slot.way % WAYS * flow_words::<F>();
        let words = self.set_mut(slot.set);
        let words = words.get_mut(start..start + flow_words::<F>());
        words.unwrap_or_default()
    }

    /// Whether that is the flow's key.
    #[inline]
    pub(super) fn is_key(&self, slot: Slot, key: &F::Key) -> bool {
        F::is_key(self.flow(slot), key)
    }

    /// Writes a flow's key and when it began, over what must be empty.
    #[inline]
    pub(super) fn begin(&mut self, slot: Slot, key: &F::Key, now: Timestamp) {
        F::write_key(self.flow_mut(slot), key);
        self.restart(slot, now);
    }

    /// Forgets everything of a flow but its key and its ends.
    #[inline]
    pub(super) fn restart(&mut self, slot: Slot, now: Timestamp) {
        if let [low, last, flags, ..] = self.state_mut(slot) {
            [*low, *flags] = first_ticks(now);
            *last = last_ticks(now);
        }
    }

    /// Forgets a flow's ends, and gives back their looks.
    pub(super) fn clear_ends(&mut self, slot: Slot, looks: &mut Looks) {
        if let Some(number) = self.second_of(slot) {
            self.clear_second(slot.set, number, looks);
        }
        looks.give_back(half::look_number(self.first(slot)));
        self.first_mut(slot).fill(0);
    }

    fn state_words(&self, slot: Slot) -> &[u32] {
        self.flow(slot).get(F::KEY_WORDS..).unwrap_or_default()
    }

    #[inline]
    pub(super) fn state_mut(&mut self, slot: Slot) -> &mut [u32] {
        let flow = self.flow_mut(slot);
        flow.get_mut(F::KEY_WORDS..).unwrap_or_default()
    }

    pub(super) fn flags(&self, slot: Slot) -> u32 {
        let flags = self.state_words(slot).get(FLAGS);
        flags.copied().unwrap_or_default()
    }

    /// What is known of the connection apart from its ends.
    pub(super) fn state(&self, slot: Slot, now: Timestamp) -> FlowState {
        let flags = self.flags(slot);
        let has = |bit: u32| flags & bit != 0;
        FlowState {
            originator: has(HAS_ORIGINATOR).then(|| side(has(ORIGINATOR_HIGH))),
            established: has(ESTABLISHED),
            is_older: has(OLDER),
            ended: has(ENDED),
            reset_from: [has(RESET_LOW), has(RESET_HIGH)],
            first_seen: self.first_seen(slot, now),
            of_two: false,
        }
    }

    /// Changes it.
    pub(super) fn set_state(&mut self, slot: Slot, state: &FlowState) {
        let flag = |is_set: bool, bit: u32| if is_set { bit } else { 0 };
        let new = flag(state.established, ESTABLISHED)
            | flag(state.is_older, OLDER)
            | flag(state.ended, ENDED)
            | flag(state.reset_from[0], RESET_LOW)
            | flag(state.reset_from[1], RESET_HIGH)
            | flag(state.originator.is_some(), HAS_ORIGINATOR)
            | flag(state.originator == Some(Side::High), ORIGINATOR_HIGH);
        if let Some(flags) = self.state_mut(slot).get_mut(FLAGS) {
            *flags = *flags & !STATE_FLAGS | new;
        }
    }

    /// Times and numbers that the flow keeps for its first end.
    pub(super) fn around_first(&self, slot: Slot, side: Side, now: Timestamp) -> Around {
        Around {
            first_seen: self.first_seen(slot, now),
            last_seen: self.last_of_first(slot, now),
            syn_ip_id: self.syn_ip_id(slot, side),
            is_ipv4: F::IS_IPV4,
        }
    }

    pub(super) fn syn_ip_id(&self, slot: Slot, side: Side) -> Option<u16> {
        let flags = self.flags(slot);
        let is_originator =
            flags & HAS_ORIGINATOR != 0 && (flags & ORIGINATOR_HIGH != 0) == (side == Side::High);
        is_originator.then(|| u16::try_from(flags >> 16).unwrap_or_default())
    }

    /// Notes the IP ID of the originator's SYN.
    pub(super) fn set_syn_ip_id(&mut self, slot: Slot, ip_id: u16) {
        if let Some(flags) = self.state_mut(slot).get_mut(FLAGS) {
            *flags = *flags & 0xffff | u32::from(ip_id) << 16;
        }
    }

    /// The end in the flow's own words.
    pub(super) fn first(&self, slot: Slot) -> &[u32] {
        self.state_words(slot)
            .get(STATE_WORDS..)
            .unwrap_or_default()
    }

    /// The same, to change it.
    pub(super) fn first_mut(&mut self, slot: Slot) -> &mut [u32] {
        self.state_mut(slot)
            .get_mut(STATE_WORDS..)
            .unwrap_or_default()
    }

    /// Whether the end in the flow's own words is that side's.
    pub(super) fn is_first(&self, slot: Slot, side: Side) -> bool {
        (self.flags(slot) & FIRST_IS_HIGH != 0) == (side == Side::High)
    }

    /// From now on it is that side's.
    pub(super) fn set_first_side(&mut self, slot: Slot, side: Side) {
        if let Some(flags) = self.state_mut(slot).get_mut(FLAGS) {
            let high = if side == Side::High { FIRST_IS_HIGH } else { 0 };
            *flags = *flags & !FIRST_IS_HIGH | high;
        }
    }

    pub(super) fn first_seen(&self, slot: Slot, now: Timestamp) -> Timestamp {
        let [low, _, flags, ..] = *self.state_words(slot) else {
            return now;
        };
        let ticks = u64::from(flags & FIRST_HIGH) << 32 | u64::from(low);
        time(ticks, now, FIRST_SHIFT, FIRST_BITS)
    }

    /// When the flow's first end was last heard.
    pub(super) fn last_of_first(&self, slot: Slot, now: Timestamp) -> Timestamp {
        let last = self.state_words(slot).get(LAST);
        last_time(last.copied().unwrap_or_default(), now)
    }

    /// Notes when the flow's first end was last heard. The second's time hangs on it.
    pub(super) fn set_last_of_first(&mut self, slot: Slot, at: Timestamp, now: Timestamp) {
        let second = self.second_of(slot);
        let heard = second.map(|number| {
            let first = self.last_of_first(slot, now);
            (number, self.last_of_second(slot.set, number, first))
        });
        self.set_last(slot, at);
        if let Some((number, heard)) = heard {
            self.set_last_of_second(slot, number, heard, now);
        }
    }

    fn set_last(&mut self, slot: Slot, at: Timestamp) {
        if let Some(last) = self.state_mut(slot).get_mut(LAST) {
            *last = last_ticks(at);
        }
    }

    /// When the flow was last heard.
    pub(super) fn last(&self, slot: Slot, now: Timestamp) -> Timestamp {
        let first = self.last_of_first(slot, now);
        self.second_of(slot).map_or(first, |number| {
            first.max(self.last_of_second(slot.set, number, first))
        })
    }

    /// Whether the flow ended long ago.
    pub(super) fn is_over(&self, slot: Slot, now: Timestamp) -> bool {
        self.flags(slot) & ENDED != 0 && now.since(self.last(slot, now)) > ENDED_KEPT_NS
    }
}

const fn side(is_high: bool) -> Side {
    if is_high { Side::High } else { Side::Low }
}

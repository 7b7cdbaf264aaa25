//! The second ends of a set: for flows that were heard from both. The last word of each says whose it
//! is, and when it was heard, counted from the flow's first end.

use super::Side;
use super::family::{Family, SECONDS, second_start};
use super::half::{self, Around};
use super::index::Slot;
use super::looks::Looks;
use super::ticks::{FIRST_SHIFT, LAST_SHIFT, decode_span, encode_span};
use super::words::{FLAGS, HAS_SECOND, Words};
use crate::time::Timestamp;

/// Mantissa of how far apart both ends were last heard, beside a sign: 0.1 %.
const APART_BITS: u32 = 10;
const APART_IS_LATER: u32 = 1 << 15;
const APART_MASK: u32 = 0xffff;
/// Mantissa of the time from the first end's first segment to the second's: below 1 %.
const DELAY_BITS: u32 = 7;
const DELAY_SHIFT: u32 = 16;
const DELAY_CODE_BITS: u32 = 12;
/// Where a second end's way is, plus 1.
const OWNER_SHIFT: u32 = 28;

impl<F: Family> Words<F> {
    /// What a second end's own words do not hold: when it was first and last heard, and of which SYN.
    pub(super) fn around_second(
        &self,
        slot: Slot,
        number: usize,
        side: Side,
        now: Timestamp,
    ) -> Around {
        let delay = self.tail(slot.set, number) >> DELAY_SHIFT & ((1 << DELAY_CODE_BITS) - 1);
        let delay_ns = decode_span(delay, DELAY_BITS) << FIRST_SHIFT;
        let first = self.last_of_first(slot, now);
        Around {
            first_seen: self.first_seen(slot, now).plus_nanos(delay_ns),
            last_seen: self.last_of_second(slot.set, number, first),
            syn_ip_id: self.syn_ip_id(slot, side),
            is_ipv4: F::IS_IPV4,
        }
    }

    /// A second end without its last word.
    pub(super) fn second(&self, set: usize, number: usize) -> &[u32] {
        let start = second_start::<F>(number);
        let words = self.set(set).get(start..start + F::END_WORDS);
        words.unwrap_or_default()
    }

    /// The same, to change it.
    pub(super) fn second_mut(&mut self, set: usize, number: usize) -> &mut [u32] {
        let start = second_start::<F>(number);
        let words = self.set_mut(set).get_mut(start..start + F::END_WORDS);
        words.unwrap_or_default()
    }

    /// The word of a second end that says whose it is and when it was heard.
    fn tail(&self, set: usize, number: usize) -> u32 {
        let at = second_start::<F>(number) + F::END_WORDS;
        self.set(set).get(at).copied().unwrap_or_default()
    }

    fn change_tail(&mut self, set: usize, number: usize, mask: u32, value: u32) {
        let at = second_start::<F>(number) + F::END_WORDS;
        if let Some(tail) = self.set_mut(set).get_mut(at) {
            *tail = *tail & !mask | value;
        }
    }

    /// The way of the flow that a second end belongs to; `None` when it is free.
    pub(super) fn owner(&self, set: usize, number: usize) -> Option<usize> {
        let way = (self.tail(set, number) >> OWNER_SHIFT).checked_sub(1)?;
        Some(way as usize)
    }

    /// Which second end of the set is that flow's.
    pub(super) fn second_of(&self, slot: Slot) -> Option<usize> {
        if self.flags(slot) & HAS_SECOND == 0 {
            return None;
        }
        (0..SECONDS).find(|number| self.owner(slot.set, *number) == Some(slot.way))
    }

    /// Gives a second end to a flow, empty; whose it was has none any more.
    pub(super) fn give_second(&mut self, slot: Slot, number: usize, at: Timestamp, now: Timestamp) {
        let owner = u32::try_from(slot.way + 1).unwrap_or_default() << OWNER_SHIFT;
        let delay_ticks = at.since(self.first_seen(slot, now)) >> FIRST_SHIFT;
        let delay = encode_span(delay_ticks, DELAY_BITS, true) << DELAY_SHIFT;
        self.change_tail(slot.set, number, u32::MAX, owner | delay);
        if let Some(flags) = self.state_mut(slot).get_mut(FLAGS) {
            *flags |= HAS_SECOND;
        }
    }

    /// Frees a second end, and gives back its look.
    pub(super) fn clear_second(&mut self, set: usize, number: usize, looks: &mut Looks) {
        if let Some(way) = self.owner(set, number) {
            let slot = Slot { set, way };
            if let Some(flags) = self.state_mut(slot).get_mut(FLAGS) {
                *flags &= !HAS_SECOND;
            }
        }
        looks.give_back(half::look_number(self.second(set, number)));
        self.second_mut(set, number).fill(0);
        self.change_tail(set, number, u32::MAX, 0);
    }

    pub(super) fn last_of_second(&self, set: usize, number: usize, first: Timestamp) -> Timestamp {
        let apart = self.tail(set, number) & APART_MASK;
        let span = decode_span(apart & !APART_IS_LATER, APART_BITS) << LAST_SHIFT;
        if apart & APART_IS_LATER != 0 {
            first.plus_nanos(span)
        } else {
            Timestamp::from_nanos(first.as_nanos().saturating_sub(span))
        }
    }

    /// Notes when a second end was last heard. Rounded into the past: then more time seems to have
    /// gone by than has, and a clock that stands where it should never seems to run too fast.
    pub(super) fn set_last_of_second(
        &mut self,
        slot: Slot,
        number: usize,
        at: Timestamp,
        now: Timestamp,
    ) {
        let first = self.last_of_first(slot, now);
        let apart = if at >= first {
            APART_IS_LATER | encode_span(at.since(first) >> LAST_SHIFT, APART_BITS, false)
        } else {
            let ticks = first.since(at).div_ceil(1 << LAST_SHIFT);
            encode_span(ticks, APART_BITS, true)
        };
        self.change_tail(slot.set, number, APART_MASK, apart);
    }
}

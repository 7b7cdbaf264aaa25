//! What differs between the flows of IPv4 and those of IPv6: how a key is written, and how many words
//! each thing takes.

use std::fmt::Debug;

use zerocopy::FromZeros;

use super::ahead::Announced;
use super::half::HALF_WORDS;
use super::index::{SET_BYTES, WAYS};
use super::key::{Ipv4Key, WideKey};
use super::{FlowKey, Side};

/// Second ends of a set.
pub(super) const SECONDS: usize = 4;
/// Words of a flow between its key and its first end.
pub(super) const STATE_WORDS: usize = 3;

/// What differs between IPv4 and IPv6.
pub(super) trait Family {
    /// Words of the key: both addresses, both ports.
    const KEY_WORDS: usize;
    /// Words of one end.
    const END_WORDS: usize;
    /// It is IPv4.
    const IS_IPV4: bool;
    /// The words of a set: so many that places in them need no check.
    type Set: Debug + FromZeros + AsRef<[u32]> + AsMut<[u32]>;
    /// All words of these sets.
    fn words(sets: &[Self::Set]) -> &[u32];
    /// A key as it is compared.
    type Key: Copy;
    /// A key in that form.
    fn pack_key(key: &FlowKey) -> Self::Key;
    /// Whether a flow's words begin with that key.
    fn is_key(flow: &[u32], key: &Self::Key) -> bool;
    /// Writes the key to the front of a flow's words.
    fn write_key(flow: &mut [u32], key: &Self::Key);
    /// The key that was found out for a segment.
    fn announced(found: &Announced) -> Self::Key;
}

/// IPv4.
#[derive(Debug)]
pub(super) struct V4;

/// IPv6.
#[derive(Debug)]
pub(super) struct V6;

impl Family for V4 {
    const KEY_WORDS: usize = 3;
    const END_WORDS: usize = HALF_WORDS;
    const IS_IPV4: bool = true;
    type Set = [u32; V4_WORDS];

    fn words(sets: &[Self::Set]) -> &[u32] {
        sets.as_flattened()
    }

    type Key = Ipv4Key;

    fn pack_key(key: &FlowKey) -> Ipv4Key {
        Ipv4Key::of(&key.tuple_from(Side::Low)).map_or_else(Ipv4Key::default, |(key, _)| key)
    }

    #[inline]
    fn is_key(flow: &[u32], key: &Ipv4Key) -> bool {
        let [low, high, last, ..] = *flow else {
            return false;
        };
        (u64::from(high) << 32 | u64::from(low)) == key.first && last == key.last
    }

    #[inline]
    fn write_key(flow: &mut [u32], key: &Ipv4Key) {
        if let Some(own) = flow.first_chunk_mut() {
            *own = key.words();
        }
    }

    #[inline]
    fn announced(found: &Announced) -> Ipv4Key {
        found.ipv4_key()
    }
}

impl Family for V6 {
    const KEY_WORDS: usize = 9;
    const END_WORDS: usize = HALF_WORDS + 1;
    const IS_IPV4: bool = false;
    type Set = [u32; V6_WORDS];

    fn words(sets: &[Self::Set]) -> &[u32] {
        sets.as_flattened()
    }

    type Key = WideKey;

    fn pack_key(key: &FlowKey) -> WideKey {
        WideKey::of(&key.tuple_from(Side::Low)).0
    }

    #[inline]
    fn is_key(flow: &[u32], key: &WideKey) -> bool {
        let (Some(own), wide) = (flow.first_chunk(), key.wide()) else {
            return false;
        };
        let own = WideKey(*own).wide();
        let differ = |at: usize| own[at] ^ wide[at];
        differ(0) | differ(1) | differ(2) | differ(3) | differ(4) == 0
    }

    #[inline]
    fn write_key(flow: &mut [u32], key: &WideKey) {
        if let Some(own) = flow.first_chunk_mut() {
            *own = key.0;
        }
    }

    #[inline]
    fn announced(found: &Announced) -> WideKey {
        *found.wide_key()
    }
}

pub(super) const fn flow_words<F: Family>() -> usize {
    F::KEY_WORDS + STATE_WORDS + F::END_WORDS
}

pub(super) const fn second_words<F: Family>() -> usize {
    F::END_WORDS + 1
}

const fn set_words<F: Family>() -> usize {
    WAYS * flow_words::<F>() + SECONDS * second_words::<F>()
}

/// Where a second end stands in its set.
pub(super) const fn second_start<F: Family>(number: usize) -> usize {
    WAYS * flow_words::<F>() + number * second_words::<F>()
}

/// Words of a set of IPv4.
const V4_WORDS: usize = 124;
/// Words of a set of IPv6.
const V6_WORDS: usize = 184;
const _: () = assert!(V4_WORDS == set_words::<V4>() && V6_WORDS == set_words::<V6>());

// Half a byte a flow is left for the dictionaries.
const _: () = assert!(set_words::<V4>() * 4 + SET_BYTES + WAYS / 2 <= WAYS * 64);
const _: () = assert!(set_words::<V6>() * 4 + SET_BYTES + WAYS / 2 <= WAYS * 96);

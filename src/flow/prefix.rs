//! What the traffic of one source network looks like, and which MACs carry it: for addresses that
//! were never heard. Learned from SYN, SYN-ACK and FIN only, never from a reset or from what follows one; fixed
//! size, and what is not heard again is forgotten. Which MACs are routers is told by `carriers`.

use std::mem::offset_of;
use std::net::IpAddr;
use std::num::NonZeroU64;

use super::HopLimits;
use super::hash::fold;
use super::key::halves;
use super::learned::Learned;
use super::path::{empty_places, number_of};
use crate::sys::bring_line_near_at;
use crate::time::{SECOND, Timestamp};
use crate::wire::{Link, Mac};

/// After this time without traffic a network's facts are stale, and after this time the weight of
/// what was seen before is halved: routes change within days, and a quarter of an hour spans the
/// pauses of a busy peer.
pub(super) const STALE_AFTER_NS: u64 = 900 * SECOND;

/// The same in [`spans`], give or take one.
const STALE_SPANS: u32 = halves(STALE_AFTER_NS >> SPAN_SHIFT).0 + 1;

/// MACs that are remembered of a network: two routers of a redundant pair, each with its virtual
/// address (VRRP, HSRP) or as two members of an ECMP group.
const MACS_OF_NETWORK: usize = 4;

/// MACs that are remembered of the link as a whole: the routers of both sides of a busy host, and a
/// few neighbors whose entries come and go.
pub(super) const MACS_OF_LINK: usize = 8;

/// A few MACs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MacSet {
    macs: [Mac; MACS_OF_LINK],
    len: u8,
}

impl MacSet {
    /// Takes one in; beyond the set's size nothing happens.
    pub fn insert(&mut self, mac: Mac) {
        if self.contains(mac) {
            return;
        }
        if let Some(place) = self.macs.get_mut(usize::from(self.len)) {
            *place = mac;
            self.len += 1;
        }
    }

    /// Whether it is in the set.
    #[must_use]
    pub fn contains(&self, mac: Mac) -> bool {
        self.macs
            .iter()
            .take(usize::from(self.len))
            .any(|known| *known == mac)
    }
}

/// What is known of the segments from one source network: IPv4 /24, the longest that is routed
/// between networks; IPv6 /48, a site's (RFC 6177), since a /64 is one link whose hosts change their
/// addresses at will, so that most of them would be heard once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PrefixFacts {
    /// Hop limits seen from it.
    pub hop_limits: HopLimits,
    /// More different hop limits were seen than are remembered: it says nothing about a distance.
    pub is_crowded: bool,
    /// Flows that contributed.
    pub flows: u32,
    /// They came from more than one address.
    pub has_several: bool,
    /// MACs that carry it: such as carried several of its addresses, or this one.
    pub macs: MacSet,
}

/// A MAC in one word that is not 0, which is compared in one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MacWord(NonZeroU64);

impl MacWord {
    /// That of a link, if it is known.
    #[inline]
    pub(super) fn of(link: Link) -> Option<Self> {
        NonZeroU64::new(link.mac_alone()).map(Self)
    }

    /// Whether another one is this.
    #[inline]
    pub(super) fn is(self, other: Option<Self>) -> bool {
        // In one comparison: none is 0.
        self.0.get() == other.map_or(0, |other| other.0.get())
    }

    pub(super) fn mac(self) -> Mac {
        Link(self.0.get()).parts().0.unwrap_or_default()
    }
}

#[derive(Debug, Clone, Copy)]
struct MacUse {
    mac: MacWord,
    /// The address that it was first seen with, as [`tag`] writes it; [`SEVERAL`] once it carried
    /// others: a router's, not a neighbor's own.
    address: u32,
    /// In [`spans`].
    last_seen: u32,
}

/// In place of an address's tag: there are several.
const SEVERAL: u32 = 0;

impl MacUse {
    const fn has_several(&self) -> bool {
        self.address == SEVERAL
    }

    fn is_fresh(&self, now: Timestamp) -> bool {
        spans(now).saturating_sub(self.last_seen) < STALE_SPANS
    }
}

/// A span is 2³² ns, 4.3 seconds: found without a division, and a word holds all that a time has.
const SPAN_SHIFT: u32 = 32;

/// Whole spans.
#[inline]
const fn spans(time: Timestamp) -> u32 {
    halves(time.as_nanos() >> SPAN_SHIFT).0
}

/// Two cache lines. What nearly all segments need stands in the first.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Entry {
    network: u64,
    last_seen: Timestamp,
    hop_limits: HopLimits,
    flows: u32,
    /// The tag of its address, or [`SEVERAL`].
    address: u32,
    /// In [`spans`].
    halved: u32,
    is_crowded: bool,
    macs: [Option<MacUse>; MACS_OF_NETWORK],
}

const _: () = assert!(size_of::<Option<Entry>>() == 128);
const _: () = assert!(offset_of!(Entry, macs) + size_of::<MacUse>() == 64);

/// Facts by source network; direct-mapped, fixed size.
#[derive(Debug)]
pub(super) struct PrefixTable {
    entries: Box<[Option<Entry>]>,
    key: u64,
}

impl PrefixTable {
    pub(super) fn new(capacity: usize, key: u64) -> Self {
        Self {
            entries: empty_places(capacity),
            key,
        }
    }

    /// Places that there are: a power of two.
    pub(super) const fn len(&self) -> usize {
        self.entries.len()
    }

    /// What is known of the network of an address.
    pub(super) fn get(&self, address: IpAddr, now: Timestamp) -> Option<PrefixFacts> {
        let network = network(address);
        let entry = self.entries.get(self.slot(network))?.as_ref()?;
        if entry.network != network || now.since(entry.last_seen) >= STALE_AFTER_NS {
            return None;
        }
        let mut facts = PrefixFacts {
            hop_limits: entry.hop_limits,
            is_crowded: entry.is_crowded,
            flows: entry.flows,
            has_several: entry.address == SEVERAL,
            macs: MacSet::default(),
        };
        let tag = tag(address, self.key);
        for used in entry.macs.iter().flatten() {
            if used.is_fresh(now) && (used.has_several() || used.address == tag) {
                facts.macs.insert(used.mac.mac());
            }
        }
        Some(facts)
    }

    /// Where what is known of the network of an address stands.
    #[inline]
    pub(super) fn slot_of(&self, address: IpAddr) -> usize {
        self.slot(network(address))
    }

    /// Brings near what stands there: the first line of it.
    #[inline]
    pub(super) fn warm(&self, slot: usize) {
        bring_line_near_at(&self.entries, slot);
    }

    /// Learns from one segment of a connection's start or end; `slot` is that of its source.
    #[inline]
    pub(super) fn learn(&mut self, slot: usize, learned: Learned<'_>) {
        let network = network(learned.source());
        let key = self.key;
        let Some(place) = self.entries.get_mut(slot) else {
            return;
        };
        let is_known = match place {
            Some(entry) => {
                entry.network == network
                    && entry.is_fresh(learned)
                    && entry.note_again(learned, key)
            }
            None => false,
        };
        if !is_known {
            learn_anew(place, network, learned, key);
        }
    }

    fn slot(&self, network: u64) -> usize {
        number_of(network, self.key) & (self.entries.len() - 1)
    }
}

/// An address in few bits. Which addresses share one nobody can know who does not know this
/// run's key; one in four billion does, and may then be taken for the other one.
fn tag(address: IpAddr, key: u64) -> u32 {
    let word = match address {
        IpAddr::V4(v4) => u64::from(v4.to_bits()),
        IpAddr::V6(v6) => u64::try_from(v6.to_bits() & u128::from(u64::MAX)).unwrap_or(0),
    };
    let above = match address {
        IpAddr::V4(_) => 0,
        IpAddr::V6(v6) => u64::try_from(v6.to_bits() >> 64).unwrap_or(0),
    };
    let mixed = fold(word ^ key, above ^ key.rotate_left(32));
    u32::try_from(mixed >> 32)
        .unwrap_or(SEVERAL)
        .max(SEVERAL + 1)
}

#[inline(never)]
fn learn_anew(place: &mut Option<Entry>, network: u64, learned: Learned<'_>, key: u64) {
    let now = learned.now;
    let entry = match place {
        Some(entry) if entry.network == network && entry.is_fresh(learned) => entry,
        // A busy network keeps its slot; one that was heard once or long ago gives way.
        Some(entry) if entry.network != network && entry.flows > 1 && entry.is_fresh(learned) => {
            return;
        }
        _ => place.insert(Entry {
            network,
            last_seen: now,
            hop_limits: HopLimits::default(),
            flows: 0,
            address: tag(learned.source(), key),
            halved: spans(now),
            is_crowded: false,
            macs: [None; MACS_OF_NETWORK],
        }),
    };
    entry.last_seen = now;
    entry.note(learned, key);
}

impl Entry {
    #[inline]
    fn is_fresh(&self, learned: Learned<'_>) -> bool {
        self.last_seen >= learned.fresh_from
    }

    /// One more segment that shows what most have shown; `false` when it is not one, and nothing was
    /// done. The same as [`Entry::note`] does then.
    #[inline]
    fn note_again(&mut self, learned: Learned<'_>, key: u64) -> bool {
        let span = spans(learned.now);
        let is_to_be_halved = self.is_to_be_halved(span);
        let [Some(used), ..] = &mut self.macs else {
            return false;
        };
        if !used.mac.is(learned.mac) || is_to_be_halved {
            return false;
        }
        if (self.address | used.address) != SEVERAL {
            let tag = tag(learned.source(), key);
            let is_it = |known: u32| known == SEVERAL || known == tag;
            if !is_it(self.address) || !is_it(used.address) {
                return false;
            }
        }
        if !self.hop_limits.note_first(learned.hop_limit()) {
            return false;
        }
        used.last_seen = span;
        self.flows = self.flows.saturating_add(u32::from(learned.opens_flow()));
        self.last_seen = learned.now;
        true
    }

    #[inline]
    const fn is_to_be_halved(&self, span: u32) -> bool {
        span as u64 >= self.halved as u64 + STALE_SPANS as u64
    }

    fn note(&mut self, learned: Learned<'_>, key: u64) {
        let span = spans(learned.now);
        if self.is_to_be_halved(span) {
            self.halved = span;
            self.is_crowded = false;
            for mode in &mut self.hop_limits.0 {
                mode.count /= 2;
            }
        }
        let known = |mode: super::Mode| mode.hop_limit == learned.hop_limit();
        let is_full = self.hop_limits.modes().count() == self.hop_limits.0.len();
        self.is_crowded |= is_full && !self.hop_limits.modes().any(known);
        self.hop_limits.note(learned.hop_limit());
        self.flows = self.flows.saturating_add(u32::from(learned.opens_flow()));
        let tag = tag(learned.source(), key);
        if self.address != tag {
            self.address = SEVERAL;
        }
        if let Some(mac) = learned.mac {
            self.note_mac(mac, tag, span);
        }
    }

    fn note_mac(&mut self, mac: MacWord, tag: u32, span: u32) {
        if let Some(used) = self.macs.iter_mut().flatten().find(|used| used.mac == mac) {
            used.last_seen = span;
            if used.address != tag {
                used.address = SEVERAL;
            }
            return;
        }
        // On a link without routers every host has a MAC of its own: those go first.
        let rank = |used: &Option<MacUse>| used.map(|used| (used.has_several(), used.last_seen));
        if let Some(place) = self.macs.iter_mut().min_by_key(|used| rank(used)) {
            *place = Some(MacUse {
                mac,
                address: tag,
                last_seen: span,
            });
        }
    }
}

/// IPv4 /24, as [`network`] numbers it.
#[inline]
pub(super) const fn network_of_ipv4(address: u32) -> u32 {
    address >> 8
}

/// The first 96 bits of an IPv6 address that stands for an IPv4 address beyond a NAT64 (RFC 6052 §2.1).
const NAT64: u128 = 0x0064_ff9b << 64;

/// IPv4 /24 or IPv6 /48, as a number that no two share. Behind a NAT64 all of IPv4 is in one /48: there the /24
/// counts, by itself, since the way to it is another than that without the NAT64.
pub(crate) fn network(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(v4) => u64::from(network_of_ipv4(v4.to_bits())),
        IpAddr::V6(v6) => {
            let bits = v6.to_bits();
            let (mark, number) = match bits >> 32 == NAT64 {
                true => (1 << 62, (bits & u128::from(u32::MAX)) >> 8),
                false => (1 << 63, bits >> 80),
            };
            mark | u64::try_from(number).unwrap_or_default()
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn behind_a_nat64_the_networks_of_ipv4_are_not_one() {
        let number = |address: &str| super::network(address.parse().unwrap());
        assert_eq!(number("64:ff9b::192.0.2.1"), number("64:ff9b::192.0.2.9"));
        assert_ne!(number("64:ff9b::192.0.2.1"), number("64:ff9b::192.0.3.1"));
        assert_ne!(number("64:ff9b::192.0.2.1"), number("192.0.2.1"));
        // Elsewhere a site is one, also one whose NAT64 has a prefix of its own (RFC 8215).
        assert_eq!(number("2001:db8:1::1"), number("2001:db8:1:2::1"));
        assert_ne!(number("2001:db8:1::1"), number("2001:db8:2::1"));
        assert_eq!(number("64:ff9b:1::1"), number("64:ff9b:1::c000:201"));
    }
}

//! What other traffic from one source address looks like: the baseline of last resort for a
//! connection whose own SYN was never seen. Learned from SYN, SYN-ACK and FIN only, never from a
//! reset or from what follows one.

use std::net::IpAddr;

use super::{HopLimits, PathFacts};
use crate::time::{SECOND, Timestamp};
use crate::wire::Segment;

/// After this time without traffic an address's facts are stale: routes change within days, and
/// a quarter of an hour spans the pauses of a busy peer.
const STALE_AFTER_NS: u64 = 900 * SECOND;

#[derive(Debug, Clone, Copy)]
struct Entry {
    address: IpAddr,
    facts: PathFacts,
    last_seen: Timestamp,
}

/// Facts by source address; direct-mapped, fixed size.
#[derive(Debug)]
pub struct PathTable {
    entries: Box<[Option<Entry>]>,
    key: u64,
}

impl PathTable {
    /// A table of `capacity` addresses, rounded up to a power of two.
    #[must_use]
    pub fn new(capacity: usize, key: u64) -> Self {
        Self {
            entries: vec![None; capacity.max(1).next_power_of_two()].into_boxed_slice(),
            key,
        }
    }

    /// What is known of an address.
    #[must_use]
    pub fn get(&self, address: IpAddr, now: Timestamp) -> Option<PathFacts> {
        let entry = self.entries.get(self.slot(address))?.as_ref()?;
        (entry.address == address && now.since(entry.last_seen) < STALE_AFTER_NS)
            .then_some(entry.facts)
    }

    /// Learns from one segment of a connection's start or end.
    pub fn learn(&mut self, segment: &Segment, opens_flow: bool, now: Timestamp) {
        let slot = self.slot(segment.tuple.src);
        let Some(place) = self.entries.get_mut(slot) else {
            return;
        };
        let entry = match place {
            Some(entry) if entry.address == segment.tuple.src => entry,
            // A busy address keeps its slot; one that was heard once or long ago gives way.
            Some(entry) if entry.facts.flows > 1 && now.since(entry.last_seen) < STALE_AFTER_NS => {
                return;
            }
            _ => place.insert(Entry {
                address: segment.tuple.src,
                facts: PathFacts {
                    hop_limits: HopLimits::default(),
                    mac: None,
                    mac_count: 0,
                    flows: 0,
                },
                last_seen: now,
            }),
        };
        if now.since(entry.last_seen) >= STALE_AFTER_NS {
            entry.facts.hop_limits = HopLimits::default();
        }
        entry.last_seen = now;
        entry.facts.hop_limits.note(segment.hop_limit);
        entry.facts.flows = entry.facts.flows.saturating_add(u32::from(opens_flow));
        let mac = segment.link.map(|link| link.src);
        if entry.facts.mac == mac {
            entry.facts.mac_count = entry.facts.mac_count.saturating_add(1);
        } else {
            entry.facts.mac = mac;
            entry.facts.mac_count = 1;
        }
    }

    fn slot(&self, address: IpAddr) -> usize {
        let word = match address {
            IpAddr::V4(v4) => u64::from(v4.to_bits()),
            IpAddr::V6(v6) => {
                let bits = v6.to_bits();
                u64::try_from(bits >> 64).unwrap_or_default()
                    ^ u64::try_from(bits & u128::from(u64::MAX)).unwrap_or_default()
            }
        };
        let mixed = (word ^ self.key).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = mixed ^ (mixed >> 29);
        usize::try_from(mixed.wrapping_mul(self.key | 1) >> 32).unwrap_or_default()
            & (self.entries.len() - 1)
    }
}

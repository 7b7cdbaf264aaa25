//! What other traffic from one source address and its network looks like: the baseline of last
//! resort for a connection whose own SYN was never seen. Learned from SYN, SYN-ACK and FIN only,
//! never from a reset or from what follows one.

use std::net::IpAddr;

use super::carriers::Carriers;
use super::closings::Closings;
use super::hash::{fold, fold_mixed, mixed};
use super::key::halves;
use super::learned::Learned;
use super::prefix::{MacWord, PrefixTable, STALE_AFTER_NS, network_of_ipv4};
use super::{HopLimits, MacSet, PrefixFacts};
use crate::sys::{advise_huge_pages, bring_line_near_at};
use crate::time::Timestamp;
use crate::wire::{Glance, Mac, Segment};

/// Addresses for each network that is remembered: servers stand together, clients hardly do.
const ADDRESSES_PER_NETWORK: usize = 2;

/// What is known of the other segments from the same source address, when the flow's own baseline
/// was never seen (connections older than the sensor), and of its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PathFacts {
    /// Hop limits seen from that address; none where only others of its network were heard.
    pub hop_limits: HopLimits,
    /// Source MAC seen last.
    pub mac: Option<Mac>,
    /// Segments in a row that had this MAC.
    pub mac_count: u16,
    /// Nanoseconds since that MAC was heard, in the name of whatever address.
    pub mac_silent_ns: Option<u64>,
    /// Flows that contributed.
    pub flows: u32,
    /// Its network, itself included.
    pub prefix: PrefixFacts,
    /// MACs that carry handshakes of many networks.
    pub routers: MacSet,
    /// Connections of this link are closed from elsewhere than they were opened from: a proxy before this host
    /// answers SYNs with cookies and opens connections for their clients, so that a SYN tells of the proxy.
    pub is_opened_by_proxy: bool,
}

impl PathFacts {
    /// Whether the address itself was heard.
    #[must_use]
    pub fn has_address(&self) -> bool {
        self.hop_limits.usual().is_some()
    }
}

/// One cache line.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Entry {
    address: IpAddr,
    hop_limits: HopLimits,
    mac: Option<MacWord>,
    mac_count: u16,
    /// The hop limit of the SYN that was heard last; 0 for none, or where it answered one since.
    opened_at: u8,
    flows: u32,
    last_seen: Timestamp,
}

impl Entry {
    /// An address that was not heard before.
    #[inline]
    fn of(learned: Learned<'_>) -> Self {
        Self {
            address: learned.source(),
            hop_limits: HopLimits::of(learned.hop_limit()),
            mac: learned.mac,
            mac_count: 1,
            opened_at: opened_at(learned),
            flows: u32::from(learned.opens_flow()),
            last_seen: learned.now,
        }
    }

    #[inline]
    fn is_fresh(&self, fresh_from: Timestamp) -> bool {
        self.last_seen >= fresh_from
    }

    /// Counts a segment that came by the same MAC as the one before.
    #[inline]
    fn count(&mut self, learned: Learned<'_>) {
        self.mac_count = self.mac_count.saturating_add(1);
        if learned.opens_flow() {
            self.opened_at = opened_at(learned);
        }
        self.flows = self.flows.saturating_add(u32::from(learned.opens_flow()));
        self.last_seen = learned.now;
    }
}

fn opened_at(learned: Learned<'_>) -> u8 {
    if learned.is_first() {
        learned.hop_limit()
    } else {
        0
    }
}

/// Learns from a segment of an entry's address that shows something else than the one before.
#[inline(never)]
fn learn_anew(entry: &mut Entry, learned: Learned<'_>) {
    // What it looked like then witnesses nothing now.
    if !entry.is_fresh(learned.fresh_from) {
        entry.hop_limits = HopLimits::default();
        entry.flows = 0;
        entry.mac_count = 0;
    }
    entry.hop_limits.note(learned.hop_limit());
    if entry.mac != learned.mac {
        entry.mac = learned.mac;
        entry.mac_count = 0;
    }
    entry.count(learned);
}

const _: () = assert!(size_of::<Option<Entry>>() == 64);

/// Where a [`PathTable`] keeps what it knows of an address, and of its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Places {
    address: u32,
    network: u32,
}

impl Places {
    /// The first place of each.
    pub(super) const FIRST: Self = Self {
        address: 0,
        network: 0,
    };
}

/// Where a [`PathTable`] keeps addresses of IPv4, for many of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct PlacesOf {
    /// The key of this run, [`mixed`].
    mixed: u64,
    addresses: u32,
    networks: u32,
}

impl PlacesOf {
    /// What [`PathTable::places`] says of one.
    #[inline]
    pub(super) fn of_ipv4(&self, address: u32) -> Places {
        let number = |word: u32| halves(fold_mixed(u64::from(word), self.mixed)).0;
        Places {
            address: number(address) & self.addresses,
            network: number(network_of_ipv4(address)) & self.networks,
        }
    }
}

/// Facts by source address and by source network; direct-mapped, fixed size.
#[derive(Debug)]
pub struct PathTable {
    entries: Box<[Option<Entry>]>,
    prefixes: PrefixTable,
    carriers: Carriers,
    closings: Closings,
    key: u64,
}

impl PathTable {
    /// A table of `capacity` addresses, rounded up to a power of two.
    #[must_use]
    pub fn new(capacity: usize, key: u64) -> Self {
        Self {
            entries: empty_places(capacity),
            prefixes: PrefixTable::new(capacity / ADDRESSES_PER_NETWORK, key),
            carriers: Carriers::default(),
            closings: Closings::default(),
            key,
        }
    }

    /// What is known of an address, or at least of its network.
    #[must_use]
    pub fn get(&self, address: IpAddr, now: Timestamp) -> Option<PathFacts> {
        let entry = self
            .entries
            .get(self.slot(address))
            .and_then(Option::as_ref)
            .filter(|entry| {
                entry.address == address && now.since(entry.last_seen) < STALE_AFTER_NS
            });
        let prefix = self.prefixes.get(address, now);
        let is_opened_by_proxy = self.closings.are_elsewhere(now);
        if entry.is_none() && prefix.is_none() && !is_opened_by_proxy {
            return None;
        }
        let mut facts = PathFacts {
            prefix: prefix.unwrap_or_default(),
            routers: self.carriers.routers(now),
            is_opened_by_proxy,
            ..PathFacts::default()
        };
        if let Some(entry) = entry {
            let heard = |mac| self.carriers.last_seen(mac).unwrap_or(entry.last_seen);
            facts.hop_limits = entry.hop_limits;
            facts.mac = entry.mac.map(MacWord::mac);
            facts.mac_count = entry.mac_count;
            facts.mac_silent_ns = facts.mac.map(|mac| now.since(heard(mac)));
            facts.flows = entry.flows;
        }
        Some(facts)
    }

    /// Where what is known of many addresses stands.
    #[inline]
    pub(super) const fn places_of(&self) -> PlacesOf {
        PlacesOf {
            mixed: mixed(self.key),
            addresses: halves(self.entries.len() as u64 - 1).0,
            networks: halves(self.prefixes.len() as u64 - 1).0,
        }
    }

    /// Where what is known of an address and of its network stands, if anything is.
    #[inline]
    pub(super) fn places(&self, address: IpAddr) -> Places {
        let number = |slot: usize| u32::try_from(slot).unwrap_or(u32::MAX);
        Places {
            address: number(self.slot(address)),
            network: number(self.prefixes.slot_of(address)),
        }
    }

    /// Brings near what stands there.
    #[inline]
    pub(super) fn warm(&self, places: Places) {
        bring_line_near_at(&self.entries, places.address as usize);
        self.prefixes.warm(places.network as usize);
    }

    /// Learns from one segment of a connection's start or end.
    pub fn learn(&mut self, segment: &Segment, now: Timestamp) {
        let places = self.places(segment.tuple.src);
        let glance = Glance::of(segment);
        self.learn_at(places, &glance, now);
    }

    /// The same, where the places of its source are known.
    // Not a part of the loop over a batch: there the registers would not last.
    #[inline(never)]
    pub(super) fn learn_at(&mut self, places: Places, segment: &Glance, now: Timestamp) {
        let learned = Learned::new(segment, now);
        self.prefixes.learn(places.network as usize, learned);
        self.carriers.learn(learned);
        let Some(place) = self.entries.get_mut(places.address as usize) else {
            return;
        };
        match place {
            Some(entry) if entry.address == learned.source() => {
                let is_fresh = entry.is_fresh(learned.fresh_from);
                if is_fresh && !learned.opens_flow() {
                    self.closings.note(entry.opened_at, learned);
                }
                if is_fresh
                    && entry.mac == learned.mac
                    && entry.hop_limits.note_first(learned.hop_limit())
                {
                    return entry.count(learned);
                }
                learn_anew(entry, learned);
            }
            // A busy address keeps its slot; one that was heard once or long ago gives way.
            Some(entry) if entry.flows > 1 && entry.is_fresh(learned.fresh_from) => {}
            _ => *place = Some(Entry::of(learned)),
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
        number_of(word, self.key) & (self.entries.len() - 1)
    }
}

/// A number for a word, which nobody can foresee who does not know this run's key.
#[inline]
pub(super) fn number_of(word: u64, key: u64) -> usize {
    usize::try_from(fold(word, key)).unwrap_or_default()
}

/// Places for at least `count` entries, a power of two of them, in large pages where the system has
/// them: they are read at random.
pub(super) fn empty_places<T: Copy>(count: usize) -> Box<[Option<T>]> {
    let count = count.max(1).next_power_of_two();
    let mut places = Vec::with_capacity(count);
    advise_huge_pages(places.spare_capacity_mut());
    places.resize(count, None);
    places.into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use super::PathTable;
    use crate::evidence::testing::Scene;
    use crate::time::{SECOND, Timestamp};
    use crate::wire::{Flags, LinkAddresses, Mac, Segment};

    const OLD: Mac = Mac([2, 0, 0, 0, 0, 0xa]);
    const NEW: Mac = Mac([2, 0, 0, 0, 0, 0xb]);

    fn at(second: u64) -> Timestamp {
        Timestamp::from_nanos(second * SECOND)
    }

    fn syn(address: &str, hop_limit: u8, src: Mac) -> Segment {
        let mut segment = Scene::established().resets[0].segment;
        segment.tuple.src = address.parse().unwrap();
        segment.hop_limit = hop_limit;
        segment.flags = Flags(Flags::SYN);
        segment.link = Some(LinkAddresses { src, dst: None });
        segment
    }

    fn fin(address: &str, hop_limit: u8, src: Mac) -> Segment {
        let flags = Flags(Flags::FIN | Flags::ACK);
        Segment {
            flags,
            ..syn(address, hop_limit, src)
        }
    }

    fn table() -> PathTable {
        PathTable::new(64, 5)
    }

    #[test]
    fn an_address_never_heard_leans_on_its_network() {
        let mut table = table();
        for (host, hop_limit) in [(1, 50), (2, 114), (3, 50)] {
            table.learn(&syn(&format!("192.0.2.{host}"), hop_limit, OLD), at(1));
        }
        let path = table.get("192.0.2.77".parse().unwrap(), at(2)).unwrap();
        assert!(!path.has_address());
        assert_eq!((path.flows, path.prefix.flows), (0, 3));
        assert!(path.prefix.has_several && !path.prefix.is_crowded);
        assert_eq!(path.prefix.hop_limits.usual(), Some(50));
        assert_eq!(table.get("192.0.3.77".parse().unwrap(), at(2)), None);
        assert_eq!(table.get("192.0.2.77".parse().unwrap(), at(1_000)), None);
    }

    #[test]
    fn an_ipv6_site_is_one_network_and_its_neighbor_another() {
        let mut table = table();
        table.learn(&syn("2001:db8:7:1::9", 57, OLD), at(1));
        let seen = |address: &str| table.get(address.parse().unwrap(), at(2)).is_some();
        assert!(seen("2001:db8:7:ffff::1"));
        assert!(!seen("2001:db8:8:1::9"));
    }

    #[test]
    fn a_network_at_many_distances_is_crowded_until_it_settles() {
        let mut table = table();
        for (host, hop_limit) in [(1, 50), (2, 52), (3, 54), (4, 56), (5, 58)] {
            table.learn(&syn(&format!("192.0.2.{host}"), hop_limit, OLD), at(1));
        }
        let host = "192.0.2.9".parse().unwrap();
        assert!(table.get(host, at(1)).unwrap().prefix.is_crowded);
        for later in [500, 1_000, 1_500, 2_000] {
            table.learn(&fin("192.0.2.1", 50, OLD), at(later));
        }
        let prefix = table.get(host, at(2_000)).unwrap().prefix;
        assert!(!prefix.is_crowded);
        assert_eq!(prefix.hop_limits.modes().count(), 1, "halved away");
    }

    #[test]
    fn an_address_that_was_silent_for_long_has_no_witnesses() {
        let mut table = table();
        let address = "192.0.2.1";
        for second in 1..9 {
            table.learn(&syn(address, 50, OLD), at(second));
        }
        let facts = |table: &PathTable, second| table.get(address.parse().unwrap(), at(second));
        assert_eq!(facts(&table, 9).unwrap().flows, 8);
        table.learn(&syn(address, 60, OLD), at(2000));
        let later = facts(&table, 2001).unwrap();
        assert_eq!((later.flows, later.mac_count), (1, 1));
    }

    #[test]
    fn a_router_that_takes_over_is_known_by_the_first_handshakes_that_it_carries() {
        let mut table = table();
        let older = "192.0.2.1".parse().unwrap();
        table.learn(&syn("192.0.2.1", 50, OLD), at(1));
        table.learn(&syn("192.0.2.2", 50, OLD), at(1));
        let knows = |table: &PathTable, mac| {
            let path = table.get(older, at(3)).unwrap();
            path.prefix.macs.contains(mac)
        };
        assert!(knows(&table, OLD) && !knows(&table, NEW));
        table.learn(&syn("192.0.2.3", 50, NEW), at(2));
        assert!(!knows(&table, NEW), "it may be that host's own");
        table.learn(&syn("192.0.2.4", 50, NEW), at(2));
        assert!(knows(&table, NEW) && knows(&table, OLD));
    }

    #[test]
    fn a_neighbors_own_mac_speaks_for_its_own_address_only() {
        let mut table = table();
        for host in 1..9 {
            let own = Mac([2, 0, 0, 0, 1, host]);
            table.learn(&syn(&format!("192.0.2.{host}"), 64, own), at(1));
            table.learn(&fin(&format!("192.0.2.{host}"), 64, own), at(2));
        }
        let last = table.get("192.0.2.8".parse().unwrap(), at(3)).unwrap();
        assert!(last.prefix.macs.contains(Mac([2, 0, 0, 0, 1, 8])));
        assert!(!last.prefix.macs.contains(Mac([2, 0, 0, 0, 1, 7])));
        assert!(!last.routers.contains(Mac([2, 0, 0, 0, 1, 8])));
    }

    #[test]
    fn a_mac_that_carries_many_networks_is_a_routers_until_it_falls_silent() {
        let mut table = table();
        for network in 1..5 {
            table.learn(&syn(&format!("192.0.{network}.1"), 50, OLD), at(1));
            let path = table.get("192.0.1.1".parse().unwrap(), at(1)).unwrap();
            assert_eq!(path.routers.contains(OLD), network == 4);
        }
        table.learn(&syn("192.0.1.1", 50, NEW), at(899));
        let path = table.get("192.0.1.1".parse().unwrap(), at(902)).unwrap();
        assert!(!path.routers.contains(OLD));
        assert_eq!((path.mac, path.mac_count), (Some(NEW), 1));
        assert_eq!(path.mac_silent_ns, Some(3 * SECOND));
    }

    #[test]
    fn what_clients_close_from_elsewhere_a_proxy_opened_for_them() {
        let opened_by_proxy = |(opened, closed): (u8, u8), flags: u8| {
            let mut table = table();
            for client in 0..9 {
                let mut seen = syn(&format!("192.0.{}.{client}", client % 3), opened, OLD);
                seen.flags = Flags(flags);
                table.learn(&seen, at(1_000));
                seen.flags = Flags(Flags::FIN | Flags::ACK);
                seen.hop_limit = closed;
                table.learn(&seen, at(1_001));
            }
            let facts = table.get("203.0.113.1".parse().unwrap(), at(1_002));
            facts.is_some_and(|path| path.is_opened_by_proxy)
        };
        assert!(opened_by_proxy((64, 52), Flags::SYN));
        assert!(!opened_by_proxy((52, 52), Flags::SYN));
        // What others answer is another proxy's, that stands before them.
        assert!(!opened_by_proxy((64, 52), Flags::SYN | Flags::ACK));
    }

    #[test]
    fn a_busy_network_keeps_its_place_and_a_quiet_one_gives_way() {
        let mut table = PathTable::new(1, 5);
        table.learn(&syn("192.0.2.1", 50, OLD), at(1));
        table.learn(&syn("192.0.2.1", 50, OLD), at(1));
        table.learn(&syn("203.0.113.1", 40, OLD), at(2));
        assert!(table.get("203.0.113.1".parse().unwrap(), at(2)).is_none());
        table.learn(&syn("203.0.113.1", 40, OLD), at(1_000));
        assert!(
            table
                .get("203.0.113.1".parse().unwrap(), at(1_000))
                .is_some()
        );
        assert!(table.get("192.0.2.1".parse().unwrap(), at(1_000)).is_none());
    }
}

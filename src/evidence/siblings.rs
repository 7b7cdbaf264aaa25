//! Resets of other flows that came the same way at about the same time: what they share tells a
//! device that speaks for many from many that speak for themselves. Bounded memory of resets that
//! met a connection; what is remembered of one never comes from its own flow.

use super::moment::{COUNTER_NS, Counter, Moment, Seen, Sender, sender};
use super::{Case, Evidence, Group, Kind};
use crate::flow::FlowFacts;
use crate::time::Timestamp;
use crate::wire::{FourTuple, Mac, Segment};

/// One IP ID counter numbers this reset and those of other networks.
pub const COUNTER: Kind = Kind::injected("ip_id_counter_shared", Group::IpId);
/// Many flows were reset at one moment from one place, and their peers stand in several.
pub const ONE_PLACE: Kind = Kind::injected("reset_with_many_from_one_place", Group::Train);

/// What is remembered that bears on one reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SiblingFacts {
    /// Flows of other networks whose resets the same counter numbered.
    pub on_counter: u32,
    /// Flows that were reset within a second from the same hop limit and MAC, this one
    /// included, where few were before; 0 where nothing happened at once.
    pub at_once: u32,
    /// Networks that these flows came from.
    pub networks: u32,
    /// Of these networks at least three are known to stand elsewhere, and at different
    /// distances.
    pub is_one_place: bool,
}

impl SiblingFacts {
    /// Many flows of several networks at once: a device that was restarted, failed over or lost its
    /// table (evidence notes E-T4). A server that dies resets all its flows too, but in one name.
    #[must_use]
    pub fn is_wave(&self) -> bool {
        self.at_once >= FLOWS && self.networks >= NETWORKS
    }
}

/// From this many flows on they are many: browsers open six connections to one server.
const FLOWS: u32 = 8;
/// In so many networks: the two ends of a failover and one more.
pub(super) const NETWORKS: u32 = 3;
/// Other flows from which on a counter is more than chance: each fits at 0.05 to 0.8 %.
const WITNESSES: u32 = 2;

/// Places (hop limit and MAC) that are remembered, and resets of each.
const PLACES: usize = 256;
pub(super) const KEPT: usize = 64;

#[derive(Debug, Clone)]
struct Place {
    hop_limit: u8,
    mac: Option<Mac>,
    seen: Vec<Seen>,
    /// The ports of each, apart: nearly all flows differ in them, and so many are compared at once.
    ports: [u32; KEPT],
    next: usize,
}

impl Place {
    /// Those of one flow.
    fn of_flow<'a>(&'a self, tuple: &'a FourTuple) -> impl Iterator<Item = &'a Seen> + 'a {
        let ports = ports(tuple);
        let any = self.ports.iter().fold(false, |any, p| any | (*p == ports));
        let seen = if any { self.seen.as_slice() } else { &[] };
        seen.iter().filter(|seen| is_same(&seen.tuple, tuple))
    }
}

/// The resets of late by the place that they came from; direct-mapped, fixed size.
#[derive(Debug)]
pub struct SiblingMemory {
    places: Box<[Option<Box<Place>>]>,
}

impl Default for SiblingMemory {
    fn default() -> Self {
        Self {
            places: vec![None; PLACES].into_boxed_slice(),
        }
    }
}

impl SiblingMemory {
    /// Takes in a reset that came in and met a connection; `flow` is that before it.
    pub fn learn(&mut self, segment: &Segment, flow: &FlowFacts, time: Timestamp) {
        let (hop_limit, mac) = place_of(segment);
        let Some(slot) = self.places.get_mut(slot(hop_limit, mac)) else {
            return;
        };
        let place = match slot {
            Some(place) if place.hop_limit == hop_limit && place.mac == mac => place,
            _ => slot.insert(Box::new(Place {
                hop_limit,
                mac,
                seen: Vec::with_capacity(KEPT),
                ports: [0; KEPT],
                next: 0,
            })),
        };
        // The first of a train stands for its flow, which may be used anew later.
        let is_one = |seen: &Seen| time.distance(seen.time) < COUNTER_NS;
        if place.of_flow(&segment.tuple).any(is_one) {
            return;
        }
        let seen = Seen::of(segment, sender(segment, flow), time);
        match place.seen.get_mut(place.next) {
            Some(oldest) => *oldest = seen,
            None => place.seen.push(seen),
        }
        if let Some(known) = place.ports.get_mut(place.next) {
            *known = ports(&segment.tuple);
        }
        place.next = (place.next + 1) % KEPT;
    }

    /// What is remembered that bears on a reset.
    #[must_use]
    pub fn facts(&self, segment: &Segment, flow: &FlowFacts, time: Timestamp) -> SiblingFacts {
        let (hop_limit, mac) = place_of(segment);
        let place = self
            .places
            .get(slot(hop_limit, mac))
            .and_then(Option::as_ref);
        let Some(place) = place.filter(|p| p.hop_limit == hop_limit && p.mac == mac) else {
            return SiblingFacts::default();
        };
        let sender = sender(segment, flow);
        if sender == Sender::Here {
            return SiblingFacts::default();
        }
        let own = Seen::of(segment, sender, time);
        let (mut counter, mut moment) = (Counter::default(), Moment::of(&own));
        let is_other = |seen: &&Seen| !is_same(&seen.tuple, &own.tuple);
        let in_time = |seen: &&Seen| Moment::may_note(&own, seen);
        for other in place.seen.iter().filter(in_time).filter(is_other) {
            moment.note(&own, other, own.time.distance(other.time));
        }
        // Hardly ever a counter numbered them, and one look at each is enough to know.
        if place.seen.iter().any(|seen| Counter::may_be_on(&own, seen)) {
            for other in place.seen.iter().filter(is_other) {
                counter.note(&own, other, own.time.distance(other.time));
            }
        }
        SiblingFacts {
            on_counter: counter.flows(),
            ..moment.facts()
        }
    }
}

fn place_of(segment: &Segment) -> (u8, Option<Mac>) {
    (segment.hop_limit, segment.link.map(|link| link.src))
}

/// Whether two four-tuples are one; nearly all differ in their ports already.
fn is_same(one: &FourTuple, other: &FourTuple) -> bool {
    (one.src_port, one.dst_port) == (other.src_port, other.dst_port) && one == other
}

fn ports(tuple: &FourTuple) -> u32 {
    u32::from(tuple.src_port) << 16 | u32::from(tuple.dst_port)
}

fn slot(hop_limit: u8, mac: Option<Mac>) -> usize {
    let bytes = mac.unwrap_or_default().0;
    let mixed = bytes.iter().fold(u64::from(hop_limit), |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    usize::try_from(mixed >> 8).unwrap_or_default() % PLACES
}

/// E-T4: one IP ID counter numbers the resets of several networks, which no two hosts share: one
/// device made them. Seen at the gateway of Zeek's Teredo trace (two servers) and at VirtualBox' NAT
/// (seven). It speaks for flows whose own SYN was never seen.
///
/// False positives: a NAT that numbers all that it relays: silent where a reset from its true
/// sender's place is on the counter, or this one came from its sender's; a host with several
/// addresses: those of one /24 are one; chance: two witnesses, and three in four must fit.
#[must_use]
pub fn counter(case: &Case<'_>) -> Option<Evidence> {
    let id = case.first()?.segment.ip_id?;
    let flows = case.siblings.on_counter;
    (flows >= WITNESSES).then(|| {
        COUNTER.found(
            format!("{id}, one counter with {flows} flows of other networks"),
            "its sender's own",
        )
    })
}

/// E-T4: many flows of several networks were reset within a second, all from one hop limit and MAC,
/// while the purported senders stand at different distances. No route that changes brings several
/// distances to one.
///
/// False positives: a server that dies resets all its flows: one address, its own distance; a
/// cluster behind one proxy: one distance; resets that come without pause: silent where the ten
/// seconds before held more than half as many; senders' own resets at that distance do not count.
#[must_use]
pub fn one_place(case: &Case<'_>) -> Option<Evidence> {
    let facts = &case.siblings;
    (facts.is_wave() && facts.is_one_place).then(|| {
        ONE_PLACE.found(
            format!("{} flows of {} networks", facts.at_once, facts.networks),
            "each from its own distance",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::{
        Counter, FLOWS, KEPT, Moment, Seen, Sender, SiblingFacts, SiblingMemory, counter, one_place,
    };
    use crate::evidence::testing::{Scene, at_ms, name};
    use crate::flow::{FlowFacts, HalfFlow};
    use crate::wire::Segment;

    /// A reset in the name of host 9 of a network.
    fn reset(network: u8, id: u16) -> Segment {
        let mut segment = Scene::established().passive().resets[0].segment;
        segment.tuple.src = format!("10.7.{network}.9").parse().unwrap();
        (segment.ip_id, segment.hop_limit) = (Some(id), 255);
        segment
    }

    fn at_distance(hop_limit: u8) -> FlowFacts {
        let sender: Option<HalfFlow> = Scene::established().hop_limit(hop_limit).flow.sender;
        FlowFacts {
            sender,
            ..FlowFacts::default()
        }
    }

    fn unknown() -> FlowFacts {
        FlowFacts::default()
    }

    fn learned(resets: &[(u8, u16, u64)], flow: FlowFacts) -> SiblingMemory {
        let mut memory = SiblingMemory::default();
        for (network, id, ms) in resets {
            memory.learn(&reset(*network, *id), &flow, at_ms(*ms));
        }
        memory
    }

    fn on_counter(memory: &SiblingMemory, segment: &Segment, ms: u64) -> u32 {
        memory.facts(segment, &unknown(), at_ms(ms)).on_counter
    }

    #[test]
    fn resets_of_several_networks_on_one_counter_are_one_devices() {
        let memory = learned(
            &[(1, 700, 0), (2, 703, 200), (3, 65_000, 60_000)],
            unknown(),
        );
        assert_eq!(on_counter(&memory, &reset(4, 720), 1_000), 2);
        // It wraps, and the witnesses may come later.
        let wraps = learned(&[(1, 65_530, 0), (2, 4, 900)], unknown());
        assert_eq!(on_counter(&wraps, &reset(4, 65_533), 10), 2);
    }

    #[test]
    fn what_is_no_counter_of_several_networks_does_not_count() {
        let memory = learned(&[(1, 700, 0), (2, 703, 200)], unknown());
        assert_eq!(on_counter(&memory, &reset(4, 9_000), 1_000), 0, "off it");
        assert_eq!(on_counter(&memory, &reset(4, 702), 1_000), 0, "goes back");
        assert_eq!(on_counter(&memory, &reset(4, 710), 40_000), 0, "too late");
        assert_eq!(on_counter(&memory, &reset(4, 0), 1_000), 0, "has no ID");
        let mut nearer = reset(4, 710);
        nearer.hop_limit = 254;
        assert_eq!(on_counter(&memory, &nearer, 1_000), 0, "another place");
        assert_eq!(on_counter(&memory, &reset(1, 710), 1_000), 1, "its own");
    }

    #[test]
    fn random_ids_that_meet_by_chance_are_no_counter() {
        let ids = [(1, 700, 0), (2, 703, 200), (3, 40_000, 300), (5, 9, 400)];
        let memory = learned(&ids, unknown());
        assert_eq!(on_counter(&memory, &reset(4, 720), 1_000), 0);
    }

    #[test]
    fn a_nat_that_numbers_what_it_relays_is_no_forger() {
        let mut memory = learned(&[(1, 700, 0), (2, 703, 200)], unknown());
        memory.learn(&reset(3, 710), &at_distance(255), at_ms(300));
        assert_eq!(on_counter(&memory, &reset(4, 720), 1_000), 0);
        let own = memory.facts(&reset(4, 720), &at_distance(254), at_ms(1_000));
        assert_eq!(own, SiblingFacts::default());
    }

    #[test]
    fn two_witnesses_make_a_counter() {
        let with = |flows| {
            let mut scene = Scene::established();
            scene.siblings.on_counter = flows;
            scene.check(counter)
        };
        assert_eq!(with(1), None);
        assert_eq!(with(2), name("ip_id_counter_shared"));
    }

    /// Everything weighed against everything, without a look beforehand.
    fn facts_by_all(memory: &SiblingMemory, own: &Segment, ms: u64) -> SiblingFacts {
        let own = Seen::of(own, Sender::Unknown, at_ms(ms));
        let (mut counter, mut moment) = (Counter::default(), Moment::of(&own));
        let places = memory.places.iter().flatten();
        for other in places.flat_map(|place| &place.seen) {
            let apart = own.time.distance(other.time);
            counter.note(&own, other, apart);
            moment.note(&own, other, apart);
        }
        SiblingFacts {
            on_counter: counter.flows(),
            ..moment.facts()
        }
    }

    #[test]
    fn a_look_beforehand_passes_over_nothing_that_counts() {
        let mut state = 1_u64;
        let mut below = |sides: u16| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            u16::try_from(state >> 48).unwrap() % sides
        };
        let (mut counted, mut met) = (0, 0);
        for round in 0..if cfg!(miri) { 12 } else { 2_000 } {
            // A few resets or a full memory, close together or far apart, with IDs alike or not.
            let span = [100, 2_000, 40_000][round % 3];
            let ids = [40, 3_000][round % 2];
            let mut memory = SiblingMemory::default();
            for network in 0..[3, 8, 70][round / 6 % 3] {
                let flow = match below(8) {
                    0 => at_distance(255),
                    1..4 => at_distance(40 + u8::try_from(below(9)).unwrap()),
                    _ => unknown(),
                };
                let ms = 60_000 + u64::from(below(span));
                memory.learn(&reset(network, 700 + below(ids)), &flow, at_ms(ms));
            }
            let own = reset(200, 700 + below(ids));
            let ms = 60_000 + u64::from(below(span));
            let facts = memory.facts(&own, &unknown(), at_ms(ms));
            assert_eq!(facts, facts_by_all(&memory, &own, ms));
            counted += u32::from(facts.on_counter > 0);
            met += u32::from(facts.at_once > 1);
        }
        // Both happen, or nothing was tried.
        assert!(cfg!(miri) || (counted > 50 && met > 50), "{counted} {met}");
    }

    /// Resets of so many networks, all from 255, each sender at the distance that `usual` gives.
    fn wave(networks: u8, usual: impl Fn(u8) -> FlowFacts) -> SiblingMemory {
        let mut memory = SiblingMemory::default();
        for network in 0..networks {
            let ms = 5_000 + u64::from(network);
            memory.learn(&reset(network, 0), &usual(network), at_ms(ms));
        }
        memory
    }

    fn facts(memory: &SiblingMemory) -> SiblingFacts {
        memory.facts(&reset(200, 0), &at_distance(50), at_ms(5_100))
    }

    fn fires(memory: &SiblingMemory) -> Option<&'static str> {
        let mut scene = Scene::established();
        scene.siblings = facts(memory);
        scene.check(one_place)
    }

    #[test]
    fn many_flows_from_one_place_whose_senders_stand_in_several_are_a_devices() {
        let memory = wave(7, |network| at_distance(40 + network));
        assert!(facts(&memory).is_wave());
        assert_eq!(facts(&memory).at_once, FLOWS);
        assert_eq!(fires(&memory), name("reset_with_many_from_one_place"));
    }

    #[test]
    fn senders_at_one_distance_may_all_have_moved() {
        let memory = wave(7, |_| at_distance(50));
        assert!(facts(&memory).is_wave());
        assert_eq!(fires(&memory), None);
        assert_eq!(fires(&wave(7, |_| unknown())), None);
    }

    #[test]
    fn a_few_flows_are_no_wave() {
        assert!(!facts(&wave(6, |network| at_distance(40 + network))).is_wave());
    }

    #[test]
    fn a_server_that_dies_resets_all_its_flows_in_its_own_name() {
        let mut memory = SiblingMemory::default();
        let flow = |port: u16| {
            let mut segment = reset(1, 0);
            segment.tuple.dst_port = port;
            segment
        };
        for port in 1..50 {
            memory.learn(&flow(port), &at_distance(255), at_ms(5_000));
        }
        let own = memory.facts(&flow(60), &at_distance(255), at_ms(5_000));
        assert_eq!(own, SiblingFacts::default());
        // Even where its resets come from elsewhere, as those of fronts with two machines.
        for port in 100..150 {
            memory.learn(&flow(port), &at_distance(40), at_ms(5_000));
        }
        let front = memory.facts(&flow(60), &at_distance(40), at_ms(5_000));
        assert!(front.at_once >= FLOWS && !front.is_wave());
    }

    #[test]
    fn a_steady_trickle_is_no_event() {
        let mut memory = wave(7, |network| at_distance(40 + network));
        for network in 100..110 {
            let ms = 100 * u64::from(network - 90);
            memory.learn(&reset(network, 0), &at_distance(44), at_ms(ms));
        }
        assert_eq!(facts(&memory).at_once, 0);
    }

    #[test]
    fn one_flows_train_counts_once_and_the_memory_is_bounded() {
        let mut memory = SiblingMemory::default();
        for _ in 0..10 {
            memory.learn(&reset(1, 0), &unknown(), at_ms(5_000));
        }
        assert_eq!(facts(&memory).at_once, 2);
        for port in 0..u16::try_from(KEPT).unwrap() + 9 {
            let mut segment = reset(2, 0);
            segment.tuple.src_port = port;
            memory.learn(&segment, &unknown(), at_ms(5_000));
        }
        assert_eq!(facts(&memory).at_once, u32::try_from(KEPT).unwrap() + 1);
    }
}

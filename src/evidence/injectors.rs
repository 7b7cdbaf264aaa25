//! What forged resets of other flows had in common with this one. A generator that counts window and
//! hop limit up together keeps one residue over all its resets, so that it is known again where a
//! flow's own SYN was never seen. Learned only from what was judged injected; forgotten with time.

use std::net::IpAddr;

use super::{Case, Evidence, Group, Kind};
use crate::time::{SECOND, Timestamp};
use crate::wire::{FourTuple, Segment};

/// The residue of this reset is that of one forged reset of another flow.
pub const SEEN_BEFORE: Kind = Kind::injected("injector_residue_seen", Group::Train);
/// And of two or more.
pub const REPEATS: Kind = Kind::injected("injector_residue_repeats", Group::Train);

/// What is remembered that bears on one reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InjectorFacts {
    /// Other flows from the same network with a forged reset of the same residue and another hop
    /// limit.
    pub same_residue: u32,
}

/// The generator's counters wrap here (GFW type II: hop limits up to 200).
const MODULUS: i32 = 200;
/// Networks that are remembered.
const NETWORKS: usize = 1_024;
/// Forged resets that are remembered of each: an injector has one or two residues.
const KEPT: usize = 16;
/// Injectors change their counters when they restart; a quarter of an hour as for paths.
const STALE_AFTER_NS: u64 = 900 * SECOND;

#[derive(Debug, Clone, Copy)]
struct Seen {
    time: Timestamp,
    residue: i32,
    hop_limit: u8,
    tuple: FourTuple,
}

#[derive(Debug, Clone)]
struct Entry {
    network: u64,
    seen: [Option<Seen>; KEPT],
    next: usize,
}

/// Residues of forged resets by the network whose addresses they bore (IPv4 /16, IPv6 /32); direct-
/// mapped, fixed size: a network that is heard later takes the place of another.
#[derive(Debug)]
pub struct InjectorMemory {
    entries: Box<[Option<Entry>]>,
}

impl Default for InjectorMemory {
    fn default() -> Self {
        Self {
            entries: vec![None; NETWORKS].into_boxed_slice(),
        }
    }
}

impl InjectorMemory {
    /// Learns a reset that was judged injected.
    pub fn learn(&mut self, segment: &Segment, time: Timestamp) {
        let network = network(segment.tuple.src);
        let (Some(residue), Some(place)) = (residue(segment), self.entries.get_mut(slot(network)))
        else {
            return;
        };
        let entry = match place {
            Some(entry) if entry.network == network => entry,
            _ => place.insert(Entry {
                network,
                seen: [None; KEPT],
                next: 0,
            }),
        };
        if let Some(oldest) = entry.seen.get_mut(entry.next) {
            *oldest = Some(Seen {
                time,
                residue,
                hop_limit: segment.hop_limit,
                tuple: segment.tuple,
            });
        }
        entry.next = (entry.next + 1) % KEPT;
    }

    /// What is remembered that bears on a reset.
    #[must_use]
    pub fn facts(&self, segment: &Segment, now: Timestamp) -> InjectorFacts {
        let network = network(segment.tuple.src);
        let entry = self.entries.get(slot(network)).and_then(Option::as_ref);
        let (Some(entry), Some(residue)) =
            (entry.filter(|e| e.network == network), residue(segment))
        else {
            return InjectorFacts::default();
        };
        let same = |seen: &&Seen| {
            seen.residue == residue
                && seen.hop_limit != segment.hop_limit
                && seen.tuple != segment.tuple
                && now.since(seen.time) < STALE_AFTER_NS
        };
        let count = entry.seen.iter().flatten().filter(same).count();
        InjectorFacts {
            same_residue: u32::try_from(count).unwrap_or(u32::MAX),
        }
    }
}

/// (window − hop limit) modulo 200 of a reset that can come from such a generator.
fn residue(segment: &Segment) -> Option<i32> {
    let counts = segment.flags.ack() && segment.window != 0;
    counts.then(|| (i32::from(segment.window) - i32::from(segment.hop_limit)).rem_euclid(MODULUS))
}

fn network(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(v4) => u64::from(v4.to_bits() >> 16),
        IpAddr::V6(v6) => 1 << 32 | u64::try_from(v6.to_bits() >> 96).unwrap_or_default(),
    }
}

fn slot(network: u64) -> usize {
    let mixed = network.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    usize::try_from(mixed).unwrap_or_default() % NETWORKS
}

/// E-H4 over several flows: (window − hop limit) modulo 200 is that of forged resets of other flows
/// of the same network, with another hop limit (GFW type II: 73 of 73 resets have one of two).
///
/// False positives: chance, one in 200 for each residue that is remembered of the network; senders
/// with one window and one hop limit: the hop limit must differ.
#[must_use]
pub fn residue_repeats(case: &Case<'_>) -> Option<Evidence> {
    let segment = &case.first()?.segment;
    let kind = match case.injectors.same_residue {
        0 => return None,
        1 => SEEN_BEFORE,
        _ => REPEATS,
    };
    let flows = case.injectors.same_residue;
    Some(kind.found(
        format!("{} in {flows} other flows", residue(segment)?),
        "none",
    ))
}

#[cfg(test)]
mod tests {
    use super::{InjectorMemory, KEPT, residue_repeats};
    use crate::evidence::testing::{Scene, at_ms, name};
    use crate::wire::Segment;

    fn forged(hop_limit: u8, port: u16) -> Segment {
        let mut segment = Scene::established().forged().resets[0].segment;
        segment.hop_limit = hop_limit;
        segment.window = 1_771 + u16::from(hop_limit);
        segment.tuple.src_port = port;
        segment
    }

    fn count(memory: &InjectorMemory, segment: &Segment, ms: u64) -> u32 {
        memory.facts(segment, at_ms(ms)).same_residue
    }

    #[test]
    fn a_generator_is_known_again_by_its_residue() {
        let mut memory = InjectorMemory::default();
        memory.learn(&forged(90, 1), at_ms(0));
        assert_eq!(count(&memory, &forged(97, 2), 10), 1);
        memory.learn(&forged(93, 3), at_ms(5));
        assert_eq!(count(&memory, &forged(97, 2), 10), 2);
        let mut wrapped = forged(97, 2);
        wrapped.window += 400;
        assert_eq!(count(&memory, &wrapped, 10), 2);
    }

    #[test]
    fn what_is_no_second_flow_of_a_counter_does_not_count() {
        let mut memory = InjectorMemory::default();
        memory.learn(&forged(90, 1), at_ms(0));
        let same_hop_limit = forged(90, 2);
        assert_eq!(count(&memory, &same_hop_limit, 10), 0);
        assert_eq!(count(&memory, &forged(97, 1), 10), 0, "its own flow");
        let mut other = forged(97, 2);
        other.window += 1;
        assert_eq!(count(&memory, &other, 10), 0);
        let mut elsewhere = forged(97, 2);
        elsewhere.tuple.src = "10.9.0.2".parse().unwrap();
        assert_eq!(count(&memory, &elsewhere, 10), 0);
        let mut bare = forged(97, 2);
        bare.flags = crate::wire::Flags(crate::wire::Flags::RST);
        assert_eq!(count(&memory, &bare, 10), 0);
    }

    #[test]
    fn the_memory_is_bounded_and_forgets() {
        let mut memory = InjectorMemory::default();
        memory.learn(&forged(90, 1), at_ms(0));
        assert_eq!(count(&memory, &forged(97, 2), 899_000), 1);
        assert_eq!(count(&memory, &forged(97, 2), 900_000), 0);
        for port in 0..u16::try_from(KEPT).unwrap() {
            let mut other = forged(91, port + 10);
            other.window += 7;
            memory.learn(&other, at_ms(1));
        }
        assert_eq!(count(&memory, &forged(97, 2), 10), 0);
    }

    #[test]
    fn the_evidence_grows_with_the_flows() {
        let scene = |flows| {
            let mut scene = Scene::established().forged();
            scene.injectors.same_residue = flows;
            scene.check(residue_repeats)
        };
        assert_eq!(scene(0), None);
        assert_eq!(scene(1), name("injector_residue_seen"));
        assert_eq!(scene(2), name("injector_residue_repeats"));
    }
}

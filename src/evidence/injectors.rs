//! What forged resets of other flows had in common with this one. A generator that counts window and
//! hop limit up together keeps one residue over all its resets, so that it is known again where a
//! flow's own SYN was never seen. Learned only from what was judged injected; forgotten with time.

use std::net::IpAddr;

use super::{Case, Evidence, Group, Kind};
use crate::amount::counted;
use crate::time::{SECOND, Timestamp};
use crate::wire::{FourTuple, Segment};

/// The residue of this reset is that of one forged reset of another flow.
pub const SEEN_BEFORE: Kind = Kind::injected("injector_residue_seen", Group::Train);
/// And of two or more.
pub const REPEATS: Kind = Kind::injected("injector_residue_repeats", Group::Train);
/// A forged reset ended another connection of the same client to the same service just before.
pub const RESIDUAL: Kind = Kind::injected("residual_blocking", Group::Context);

/// What is remembered that bears on one reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InjectorFacts {
    /// Other flows from the same network with a forged reset of the same residue and another hop
    /// limit.
    pub same_residue: u32,
    /// Nanoseconds since a forged reset of another connection of the same client to the same
    /// service, within three minutes.
    pub blocked_ns: Option<u64>,
}

/// The generator's counters wrap here (GFW type II: hop limits up to 200).
const MODULUS: i32 = 200;
/// Networks that are remembered.
const NETWORKS: usize = 1_024;
/// Forged resets that are remembered of each: an injector has one or two residues.
const KEPT: usize = 16;
/// How long a filter goes on after it has matched: the GFW 90 to 180 s, Iran's 60 s (evidence notes
/// E-T5, §7).
const BLOCKED_NS: u64 = 180 * SECOND;
/// Pairs of client and service that are remembered.
const PAIRS: usize = 1_024;
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
    pairs: Box<[Option<Pair>]>,
}

/// A client, a service, and the forged reset that came between them last.
#[derive(Debug, Clone, Copy)]
struct Pair {
    client: IpAddr,
    service: (IpAddr, u16),
    time: Timestamp,
    tuple: FourTuple,
}

impl Default for InjectorMemory {
    fn default() -> Self {
        Self {
            entries: vec![None; NETWORKS].into_boxed_slice(),
            pairs: vec![None; PAIRS].into_boxed_slice(),
        }
    }
}

impl InjectorMemory {
    /// Learns a reset that was judged injected; `by_originator` when it bears the address of the end
    /// that sent the SYN.
    pub fn learn(&mut self, segment: &Segment, by_originator: Option<bool>, time: Timestamp) {
        if let Some((client, service)) = pair(segment, by_originator)
            && let Some(place) = self.pairs.get_mut(pair_slot(client, service))
        {
            *place = Some(Pair {
                client,
                service,
                time,
                tuple: unordered(segment.tuple),
            });
        }
        self.learn_residue(segment, time);
    }

    fn learn_residue(&mut self, segment: &Segment, time: Timestamp) {
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
    pub fn facts(
        &self,
        segment: &Segment,
        by_originator: Option<bool>,
        now: Timestamp,
    ) -> InjectorFacts {
        InjectorFacts {
            same_residue: self.same_residue(segment, now),
            blocked_ns: self.blocked_ns(segment, by_originator, now),
        }
    }

    fn blocked_ns(
        &self,
        segment: &Segment,
        by_originator: Option<bool>,
        now: Timestamp,
    ) -> Option<u64> {
        let (client, service) = pair(segment, by_originator)?;
        let known = self.pairs.get(pair_slot(client, service))?.as_ref()?;
        let ns = now.since(known.time);
        let same = known.client == client
            && known.service == service
            && known.tuple != unordered(segment.tuple)
            && known.time < now
            && ns < BLOCKED_NS;
        same.then_some(ns)
    }

    fn same_residue(&self, segment: &Segment, now: Timestamp) -> u32 {
        let network = network(segment.tuple.src);
        let entry = self.entries.get(slot(network)).and_then(Option::as_ref);
        let (Some(entry), Some(residue)) =
            (entry.filter(|e| e.network == network), residue(segment))
        else {
            return 0;
        };
        let same = |seen: &&Seen| {
            seen.residue == residue
                && seen.hop_limit != segment.hop_limit
                && seen.tuple != segment.tuple
                && now.since(seen.time) < STALE_AFTER_NS
        };
        let count = entry.seen.iter().flatten().filter(same).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }
}

/// (window − hop limit) modulo 200 of a reset that can come from such a generator.
fn residue(segment: &Segment) -> Option<i32> {
    let counts = segment.flags.ack() && segment.window != 0;
    counts.then(|| (i32::from(segment.window) - i32::from(segment.hop_limit)).rem_euclid(MODULUS))
}

/// The client and the service of a reset's connection; `None` where it is not known which is which.
fn pair(segment: &Segment, by_originator: Option<bool>) -> Option<(IpAddr, (IpAddr, u16))> {
    let tuple = segment.tuple;
    Some(match by_originator? {
        true => (tuple.src, (tuple.dst, tuple.dst_port)),
        false => (tuple.dst, (tuple.src, tuple.src_port)),
    })
}

/// One connection, whichever end a reset speaks for.
fn unordered(tuple: FourTuple) -> FourTuple {
    let (src, dst) = ((tuple.src, tuple.src_port), (tuple.dst, tuple.dst_port));
    let (low, high) = if src < dst { (src, dst) } else { (dst, src) };
    FourTuple {
        src: low.0,
        src_port: low.1,
        dst: high.0,
        dst_port: high.1,
    }
}

fn pair_slot(client: IpAddr, service: (IpAddr, u16)) -> usize {
    let word = |address: IpAddr| match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    let mixed = (word(client).rotate_left(48) ^ word(service.0) ^ u128::from(service.1) << 64)
        .wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645);
    usize::try_from(mixed >> 96).unwrap_or_default() % PAIRS
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
        format!(
            "{} in {}",
            residue(segment)?,
            counted(flows.into(), "other flow")
        ),
        "none",
    ))
}

/// E-T5: within three minutes after a forged reset, another connection of the same client to the same
/// service is reset: filters go on for 60 to 180 s once they have matched.
///
/// False positives: a client that tries again what fails for another reason too, and a victim's own
/// answers to what the forger broke on its other connections: hence context, which never convicts.
#[must_use]
pub fn residual(case: &Case<'_>) -> Option<Evidence> {
    let seconds = case.injectors.blocked_ns? / SECOND;
    Some(RESIDUAL.found(format!("forged {seconds} s before"), "none"))
}

#[cfg(test)]
mod tests {
    use super::{InjectorMemory, KEPT, residual, residue_repeats};
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
        memory.facts(segment, None, at_ms(ms)).same_residue
    }

    #[test]
    fn a_generator_is_known_again_by_its_residue() {
        let mut memory = InjectorMemory::default();
        memory.learn(&forged(90, 1), None, at_ms(0));
        assert_eq!(count(&memory, &forged(97, 2), 10), 1);
        memory.learn(&forged(93, 3), None, at_ms(5));
        assert_eq!(count(&memory, &forged(97, 2), 10), 2);
        let mut wrapped = forged(97, 2);
        wrapped.window += 400;
        assert_eq!(count(&memory, &wrapped, 10), 2);
    }

    #[test]
    fn what_is_no_second_flow_of_a_counter_does_not_count() {
        let mut memory = InjectorMemory::default();
        memory.learn(&forged(90, 1), None, at_ms(0));
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
        memory.learn(&forged(90, 1), None, at_ms(0));
        assert_eq!(count(&memory, &forged(97, 2), 899_000), 1);
        assert_eq!(count(&memory, &forged(97, 2), 900_000), 0);
        for port in 0..u16::try_from(KEPT).unwrap() {
            let mut other = forged(91, port + 10);
            other.window += 7;
            memory.learn(&other, None, at_ms(1));
        }
        assert_eq!(count(&memory, &forged(97, 2), 10), 0);
    }

    fn blocked(memory: &InjectorMemory, segment: &Segment, ms: u64) -> bool {
        let facts = memory.facts(segment, Some(true), at_ms(ms));
        facts.blocked_ns.is_some()
    }

    #[test]
    fn a_filter_goes_on_with_the_next_connection_of_the_pair() {
        let mut memory = InjectorMemory::default();
        memory.learn(&forged(90, 1), Some(true), at_ms(0));
        assert!(blocked(&memory, &forged(90, 2), 179_000));
        assert!(!blocked(&memory, &forged(90, 2), 180_000));
        assert!(!blocked(&memory, &forged(90, 1), 10), "its own flow");
        let mut elsewhere = forged(90, 2);
        elsewhere.tuple.dst_port += 1;
        assert!(!blocked(&memory, &elsewhere, 10));
        assert_eq!(
            memory.facts(&forged(90, 2), None, at_ms(10)).blocked_ns,
            None
        );
        // In the name of the other end.
        let mut back = forged(90, 2);
        let tuple = back.tuple;
        (back.tuple.src, back.tuple.src_port) = (tuple.dst, tuple.dst_port);
        (back.tuple.dst, back.tuple.dst_port) = (tuple.src, tuple.src_port);
        let facts = memory.facts(&back, Some(false), at_ms(10));
        assert_eq!(facts.blocked_ns, Some(10_000_000));
        let mut scene = Scene::established();
        assert_eq!(scene.check(residual), None);
        scene.injectors = facts;
        assert_eq!(scene.check(residual), name("residual_blocking"));
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

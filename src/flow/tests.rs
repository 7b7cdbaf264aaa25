//! The flow table of a live sensor against the full form of a capture, and against floods.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Announced, FlowFacts, FlowKey, HalfFlow, Side, Tracker, TrackerConfig};
use crate::time::{MILLISECOND, SECOND, Timestamp};
use crate::vantage::{InterfaceId, Path, Vantage};
use crate::wire::{
    Flags, FourTuple, LinkAddresses, Mac, Options, PAYLOAD_HEAD, Segment, SeqNum, Timestamps,
};

pub(super) const IN: Vantage = Vantage {
    interface: InterfaceId(0),
    path: Path::Ingress,
};

pub(super) struct Dice(u64);

impl Dice {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn word(&mut self) -> u32 {
        u32::try_from(self.roll() >> 32).unwrap()
    }

    fn half_word(&mut self) -> u16 {
        u16::try_from(self.roll() >> 48).unwrap()
    }

    pub(super) fn byte(&mut self) -> u8 {
        u8::try_from(self.roll() >> 56).unwrap()
    }

    fn maybe<T>(&mut self, value: T) -> Option<T> {
        self.roll().is_multiple_of(2).then_some(value)
    }
}

pub(super) fn config(capacity: usize) -> TrackerConfig {
    TrackerConfig {
        capacity,
        key: [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210],
    }
}

pub(super) fn tuple(dice: &mut Dice, is_ipv4: bool) -> FourTuple {
    let mut address = || {
        if is_ipv4 {
            IpAddr::V4(Ipv4Addr::from_bits(dice.word()))
        } else {
            let bits = u128::from(dice.roll()) << 64 | u128::from(dice.roll());
            IpAddr::V6(Ipv6Addr::from_bits(bits))
        }
    };
    let (src, dst) = (address(), address());
    FourTuple {
        src,
        src_port: dice.half_word(),
        dst,
        dst_port: 443,
    }
}

/// A segment with random values in every field that a half keeps.
pub(super) fn segment(dice: &mut Dice, tuple: FourTuple, flags: u8) -> Segment {
    let is_ipv4 = tuple.src.is_ipv4();
    let is_syn = flags & Flags::SYN != 0;
    let stamps = Timestamps {
        value: dice.word(),
        echo: 0,
    };
    let bits = dice.byte();
    let options = Options {
        mss: dice.maybe(1460).filter(|_| is_syn),
        window_scale: dice.maybe(7).filter(|_| is_syn),
        sack_permitted: is_syn && bits & 1 != 0,
        timestamps: dice.maybe(stamps),
        is_signed: bits & 2 != 0,
        mptcp: bits & 4 != 0,
        order: dice.word(),
        len: bits & 40,
        ..Options::default()
    };
    let mac = Mac([2, 0, 0, 0, 0, dice.byte() & 15]);
    let label = dice.word() & 0xf_ffff;
    Segment {
        tuple,
        link: Some(LinkAddresses {
            src: mac,
            dst: None,
        }),
        vlan: dice.maybe(u16::from(bits & 7)),
        hop_limit: dice.byte(),
        ip_id: is_ipv4.then(|| dice.half_word().max(1)),
        dont_fragment: is_ipv4.then_some(bits & 8 != 0),
        traffic_class: 0,
        flow_label: (!is_ipv4).then_some(label),
        seq: SeqNum(dice.word()),
        ack: SeqNum(dice.word()),
        flags: Flags(flags),
        reserved: 0,
        window: dice.half_word(),
        options,
        payload_len: 0,
        payload_head: [0; PAYLOAD_HEAD],
    }
}

/// What the full form knows, as far as the packed one promises to keep it.
fn kept(half: HalfFlow, packed: &HalfFlow) -> HalfFlow {
    let mut half = half;
    // The script takes six seconds at most; of that, 0.1 % and 0.8 % are what a second end's times
    // may be off, and a tick.
    assert!(half.last_seen.distance(packed.last_seen) <= 8 * MILLISECOND);
    assert!(half.first_seen.distance(packed.first_seen) <= 50 * MILLISECOND);
    half.last_seen = packed.last_seen;
    half.first_seen = packed.first_seen;
    half.acked = None;
    half.mac_count = packed.mac_count;
    if let (Some((time, stamps)), Some((about, _))) = (&mut half.timestamps, packed.timestamps) {
        *time = about;
        stamps.echo = 0;
    }
    if let (Some(syn), Some(other)) = (&mut half.syn, packed.syn) {
        syn.time = other.time;
        if half.segments > u32::from(syn.count) {
            syn.ack = None;
        }
        if syn.is_syn_ack && half.segments > 1 {
            syn.ip_id = None;
        }
        if let (Some(stamps), Some(old)) = (&mut syn.options.timestamps, other.options.timestamps) {
            let is_last = half
                .timestamps
                .is_some_and(|(_, last)| last.value == old.value);
            assert!(
                is_last
                    || SeqNum(stamps.value).offset_from(SeqNum(old.value)) >= 0
                    || half.segments > 1
            );
            *stamps = old;
        }
    }
    half
}

fn compare(full: &FlowFacts, packed: &FlowFacts) {
    for (full, packed) in [
        (full.sender, packed.sender),
        (full.receiver, packed.receiver),
    ] {
        assert_eq!(full.is_some(), packed.is_some());
        if let (Some(full), Some(packed)) = (full, packed) {
            assert_eq!(kept(full, &packed), packed);
        }
    }
    assert_eq!(full.sender_is_originator, packed.sender_is_originator);
    assert_eq!(full.established, packed.established);
    let (began, about) = (full.first_seen.unwrap(), packed.first_seen.unwrap());
    assert!(began.since(about) < MILLISECOND && about <= began);
}

#[test]
fn what_a_live_sensor_sees_of_a_connection_survives_packing() {
    let seeds: u64 = if cfg!(miri) { 6 } else { 2_000 };
    for seed in 1..seeds {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let (mut full, mut packed) = (Tracker::for_capture(config(8)), Tracker::new(config(8)));
        let there = tuple(&mut dice, seed % 2 == 0);
        let mut time = Timestamp::from_nanos(dice.roll() >> 8);
        let script = [
            (there, Flags::SYN),
            (there.reversed(), Flags::SYN | Flags::ACK),
            (there, Flags::FIN | Flags::ACK),
            (there.reversed(), Flags::FIN | Flags::ACK),
        ];
        let steps = 1 + usize::from(dice.byte() & 3);
        for (tuple, flags) in script.into_iter().take(steps) {
            let mut next = segment(&mut dice, tuple, flags);
            let (key, side) = FlowKey::of(tuple);
            let before = full.facts(&key, side, time).sender;
            if let Some(before) = before {
                // A FIN lies ahead of what was sent; the wrap is not under test.
                next.seq = before.end.unwrap().plus(u32::from(dice.half_word()));
                next.options.timestamps = before.timestamps.map(|(_, stamps)| Timestamps {
                    value: stamps.value.wrapping_add(5),
                    echo: 0,
                });
            }
            time = time.plus_nanos(dice.roll() % (2 * SECOND));
            for tracker in [&mut full, &mut packed] {
                assert!(tracker.observe(time, IN, &next, None).is_none());
            }
            for side in [Side::Low, Side::High] {
                compare(
                    &full.facts(&key, side, time),
                    &packed.facts(&key, side, time),
                );
            }
        }
    }
}

#[test]
fn the_index_and_the_dictionaries_are_in_the_bytes_a_flow() {
    // Under Miri memory takes long to be made, even such as nobody touches.
    let capacities: &[usize] = if cfg!(miri) {
        &[1 << 14]
    } else {
        &[1 << 16, 1 << 17, 1 << 20]
    };
    for &capacity in capacities {
        let tracker = Tracker::new(config(capacity));
        assert_eq!(tracker.capacity(), (capacity, capacity));
        let (v4, v6) = tracker.bytes();
        assert!(v4 <= 64 * capacity, "{v4} bytes for {capacity} flows");
        assert!(v6 <= 96 * capacity, "{v6} bytes for {capacity} flows");
    }
}

/// Connections, then that many SYNs from random places: how many of the connections are left, of those
/// that the kernel said are established.
fn flood(connections: u32, syns: u64, capacity: usize) -> usize {
    let mut tracker = Tracker::new(config(capacity));
    let mut dice = Dice(99);
    let mut keys = Vec::new();
    let mut time = Timestamp::from_nanos(SECOND);
    for _ in 0..connections {
        let tuple = tuple(&mut dice, true);
        let syn = segment(&mut dice, tuple, Flags::SYN);
        tracker.observe(time, IN, &syn, None);
        let (key, side) = FlowKey::of(tuple);
        tracker.note_established(&key, side, time);
        keys.push((key, side, syn));
    }
    let mut spoofed = segment(&mut dice, keys[0].2.tuple, Flags::SYN);
    for _ in 0..syns {
        time = time.plus_nanos(1_000);
        spoofed.tuple.src = IpAddr::V4(Ipv4Addr::from_bits(dice.word()));
        spoofed.tuple.src_port = dice.half_word();
        spoofed.window = dice.half_word();
        tracker.observe(time, IN, &spoofed, None);
    }
    let counters = tracker.counters();
    assert!(counters.evicted_probation > 0 && counters.live <= capacity as u64);
    let is_whole = |(key, side, syn): &&(FlowKey, Side, Segment)| {
        let facts = tracker.facts(key, *side, time);
        let own = facts.sender.and_then(|half| half.syn);
        facts.established
            && own.is_some_and(|own| own.isn == syn.seq && own.hop_limit == syn.hop_limit)
    };
    keys.iter().filter(is_whole).count()
}

#[test]
fn a_flood_of_syns_leaves_all_connections_where_they_are() {
    // Miri is some thousand times slower, and looks for other things than numbers.
    let (connections, syns, capacity) = if cfg!(miri) {
        (12, 150, 1 << 7)
    } else {
        (200, 300_000, 1 << 14)
    };
    let left = flood(connections, syns, capacity);
    assert_eq!(left, connections as usize);
}

#[test]
#[ignore = "takes a minute without optimization"]
fn ten_million_random_syns_leave_all_connections_where_they_are() {
    assert_eq!(flood(200, 10_000_000, 1 << 16), 200);
}

fn server_key(port: u16) -> FourTuple {
    FourTuple {
        src: "192.0.2.1".parse().unwrap(),
        src_port: port,
        dst: "198.51.100.1".parse().unwrap(),
        dst_port: 443,
    }
}

#[test]
fn only_a_set_full_of_connections_gives_up_one_and_an_ended_one_first() {
    let mut dice = Dice(5);
    // Some for each of the eight places, whatever the hand meets first.
    let syns = if cfg!(miri) { 24 } else { 2000 };
    for ended in [false, true] {
        let mut tracker = Tracker::new(config(8));
        let start = Timestamp::from_nanos(SECOND);
        for port in 0..8 {
            let (key, side) = FlowKey::of(server_key(port));
            let time = start.plus_nanos(u64::from(port) * 10 * MILLISECOND);
            tracker.note_established(&key, side, time);
            if ended && port == 5 {
                tracker.note_reset(&key, side, time);
            }
        }
        let late = start.plus_nanos(61 * SECOND);
        for port in 1000..1000 + syns {
            let syn = segment(&mut dice, server_key(port), Flags::SYN);
            tracker.observe(late, IN, &syn, None);
        }
        let is_gone = |port: &u16| {
            let (key, side) = FlowKey::of(server_key(*port));
            !tracker.facts(&key, side, late).established
        };
        let gone: Vec<u16> = (0..8).filter(is_gone).collect();
        let counters = tracker.counters();
        assert_eq!(gone, [if ended { 5 } else { 0 }]);
        assert_eq!(counters.reused, u64::from(ended));
        assert_eq!(counters.evicted_connections, u64::from(!ended));
        assert_eq!(counters.evicted_probation, u64::from(syns) - 1);
    }
}

#[test]
fn second_ends_beyond_a_sets_room_are_counted_and_connections_keep_theirs() {
    let mut tracker = Tracker::new(config(8));
    let mut dice = Dice(3);
    let time = Timestamp::from_nanos(SECOND);
    for port in 0..8 {
        for (tuple, flags) in [
            (server_key(port), Flags::SYN),
            (server_key(port).reversed(), Flags::SYN | Flags::ACK),
        ] {
            let segment = segment(&mut dice, tuple, flags);
            tracker.observe(time, IN, &segment, None);
        }
        if port < 4 {
            let (key, side) = FlowKey::of(server_key(port));
            tracker.note_established(&key, side, time);
        }
    }
    let heard = |port: u16| {
        let (key, side) = FlowKey::of(server_key(port));
        let facts = tracker.facts(&key, side, time);
        (facts.sender.is_some(), facts.receiver.is_some())
    };
    assert!((0..4).all(|port| heard(port) == (true, true)));
    assert!((4..8).all(|port| heard(port) == (true, false)));
    assert_eq!(tracker.counters().ends_lost, 4);
}

#[test]
fn traffic_made_to_collide_in_one_run_spreads_in_the_next() {
    // 32 flows that share one set of eight in a table whose key is known to their maker. It tries 128 hashes
    // for each, which under Miri takes seconds.
    let count = if cfg!(miri) { 10 } else { 32 };
    let secret = [7, 11];
    let one_set = |tuple: &FourTuple| super::hash::hash(&FlowKey::of(*tuple).0, secret) & 127 == 3;
    let made: Vec<FourTuple> = (0..u16::MAX)
        .map(server_key)
        .filter(one_set)
        .take(count)
        .collect();
    let found = |key: [u64; 2]| {
        let mut tracker = Tracker::new(TrackerConfig {
            capacity: 1024,
            key,
        });
        let mut dice = Dice(1);
        let now = Timestamp::from_nanos(SECOND);
        for tuple in &made {
            tracker.observe(now, IN, &segment(&mut dice, *tuple, Flags::SYN), None);
        }
        let is_there = |tuple: &&FourTuple| {
            let (key, side) = FlowKey::of(**tuple);
            tracker.facts(&key, side, now).sender.is_some()
        };
        made.iter().filter(is_there).count()
    };
    assert_eq!(made.len(), count);
    assert_eq!(found(secret), 8, "they do collide where the key is known");
    assert_eq!(found([0x5eed, 0xf00d]), count);
}

#[test]
fn what_is_found_out_of_a_captures_segments_beforehand_changes_nothing() {
    let mut dice = Dice::new(5);
    let ends: Vec<FourTuple> = (0..9).map(|n| tuple(&mut dice, n % 3 > 0)).collect();
    let [mut plainly, mut announced] = [0, 1].map(|_| Tracker::for_capture(config(64)));
    let mut known = [Announced::NONE; 24];
    let mut seen = 0;
    for turn in 0..if cfg!(miri) { 3 } else { 60 } {
        // Sometimes more than there is room for, sometimes fewer.
        let segments: Vec<Segment> = (0..8 + turn % 3 * 10)
            .map(|_| {
                let of = ends[usize::from(dice.byte()) % ends.len()];
                let of = dice.maybe(of).unwrap_or(of.reversed());
                let flags = [0x02, 0x12, 0x11, 0x10, Flags::RST, 0x14];
                let flags = flags[usize::from(dice.byte()) % flags.len()];
                segment(&mut dice, of, flags)
            })
            .collect();
        announced.warm_and_keep(segments.iter(), &mut known);
        let known = known.iter().chain(std::iter::repeat(&Announced::NONE));
        for (at, (segment, known)) in (0_u64..).zip(segments.iter().zip(known)) {
            let time = Timestamp::from_nanos(turn * SECOND + at * MILLISECOND);
            let told = announced.observe_announced(time, IN, segment, known, None);
            assert_eq!(plainly.observe(time, IN, segment, None), told);
            seen += u32::from(told.is_some());
        }
    }
    assert!(seen > 9);
}

#[test]
fn an_attempt_that_is_refused_and_then_accepted_is_a_connection_with_two_ends() {
    // As Windows tries: refused, the same SYN again after half a second, accepted.
    let tried = |syns_again: usize| {
        let (mut tracker, mut dice) = (Tracker::for_capture(config(8)), Dice(7));
        let there = tuple(&mut dice, true);
        let syn = segment(&mut dice, there, Flags::SYN);
        let mut refusal = segment(&mut dice, there.reversed(), Flags::RST | Flags::ACK);
        let mut accepted = segment(&mut dice, there.reversed(), Flags::SYN | Flags::ACK);
        (refusal.ack, accepted.ack) = (syn.seq.plus(1), syn.seq.plus(1));
        let mut data = segment(&mut dice, there, Flags::ACK);
        (data.seq, data.payload_len) = (syn.seq.plus(1), 9);
        let again = std::iter::repeat_n(&syn, syns_again);
        let mut time = Timestamp::from_nanos(SECOND);
        let mut seen = Vec::new();
        for next in [&syn, &refusal]
            .into_iter()
            .chain(again)
            .chain([&accepted, &data])
        {
            time = time.plus_nanos(500 * MILLISECOND);
            seen.push(tracker.observe(time, IN, next, None).is_some());
        }
        let (key, side) = FlowKey::of(there.reversed());
        let facts = tracker.facts(&key, side, time);
        assert_eq!(facts.sender_is_originator, Some(false));
        // The refusal, and what the end says that is said to have refused: whoever judges hears of both.
        assert_eq!(seen.iter().filter(|is_told| **is_told).count(), 2);
        (facts.sender.is_some(), facts.established)
    };
    assert_eq!(tried(1), (true, true));
    // Nobody tried again: the refusal was forged, or the answer is.
    assert_eq!(tried(0), (false, false));
}

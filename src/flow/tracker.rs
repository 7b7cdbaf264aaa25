//! The memory of one worker: its flows, and what else is remembered of addresses. What a reset meets there,
//! and what others say of a flow (a worker that saw a reset, the kernel). How segments get in: `take_in`.

use std::net::IpAddr;

use super::ahead::Announced;
use super::capture::Captured;
use super::family::{V4, V6};
use super::hash::hash;
use super::index::{Rank, TableCounters};
use super::packed::{Dictionaries, Packed};
use super::store::FlowStore;
use super::{Confirmed, FlowFacts, FlowKey, PassedFlow, PassedReset, PathTable, Side, Sighting};
use crate::host::SocketView;
use crate::time::Timestamp;
use crate::vantage::Vantage;
use crate::wire::Segment;

/// Addresses remembered for each flow of capacity: peers open several connections each.
const FLOWS_PER_ADDRESS: usize = 4;

/// Addresses remembered at most: what they look like is a last resort, and is not to cost more
/// than the flows themselves (some 20 MB).
const ADDRESSES_MAX: usize = 1 << 18;

/// What a tracker needs to know at start.
#[derive(Debug, Clone, Copy)]
pub struct TrackerConfig {
    /// Flows that it can hold, of IPv4 and of IPv6 each.
    pub capacity: usize,
    /// Random hash key of this run.
    pub key: [u64; 2],
}

/// The flows of a live sensor.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) v4: Packed<V4>,
    pub(super) v6: Packed<V6>,
    pub(super) shared: Dictionaries,
}

/// Where the flows are.
#[derive(Debug)]
pub(super) enum Tables {
    Live(Box<Live>),
    Capture(Box<Captured>),
}

/// When and where a segment was seen, and what it is.
pub(super) type Seen<'a> = (Timestamp, Vantage, &'a Segment);

/// The memory of one worker.
#[derive(Debug)]
pub struct Tracker {
    pub(super) tables: Tables,
    pub(super) paths: PathTable,
    pub(super) secret: [u64; 2],
}

/// Runs an expression with the store that a key belongs to and what that store shares.
macro_rules! with_store {
    ($tables:expr, $key:expr, |$store:ident, $shared:ident| $body:expr) => {
        match $tables {
            Tables::Live(live) => {
                let Live { v4, v6, shared } = &mut **live;
                let $shared = shared;
                if is_ipv4($key) {
                    let $store = v4;
                    $body
                } else {
                    let $store = v6;
                    $body
                }
            }
            Tables::Capture(captured) => {
                let ($store, $shared) = (&mut **captured, &mut ());
                $body
            }
        }
    };
}

impl Tracker {
    /// A tracker of a live sensor; takes all the memory that it will ever need.
    #[must_use]
    pub fn new(config: TrackerConfig) -> Self {
        let live = Live {
            v4: Packed::new(config.capacity, config.key),
            v6: Packed::new(config.capacity, config.key),
            shared: Dictionaries::new(config.capacity, config.key[1]),
        };
        Self::with(Tables::Live(Box::new(live)), config)
    }

    /// A tracker for a capture file, where data and acknowledgements count too. Its memory grows
    /// with the flows of the file, up to the capacity.
    #[must_use]
    pub fn for_capture(config: TrackerConfig) -> Self {
        let captured = Captured::new(config.capacity, config.key);
        Self::with(Tables::Capture(Box::new(captured)), config)
    }

    fn with(tables: Tables, config: TrackerConfig) -> Self {
        let addresses = (config.capacity / FLOWS_PER_ADDRESS).min(ADDRESSES_MAX);
        Self {
            tables,
            paths: PathTable::new(addresses, config.key[0]),
            secret: config.key,
        }
    }

    /// What the tables did so far.
    #[must_use]
    pub fn counters(&self) -> TableCounters {
        match &self.tables {
            Tables::Live(live) => TableCounters {
                looks_refused: live.shared.refused(),
                ..live.v4.counters().plus(live.v6.counters())
            },
            Tables::Capture(captured) => captured.counters(),
        }
    }

    /// Flows that it can hold, of IPv4 and of IPv6; in a capture, of both together.
    #[must_use]
    pub fn capacity(&self) -> (usize, usize) {
        match &self.tables {
            Tables::Live(live) => (live.v4.capacity(), live.v6.capacity()),
            Tables::Capture(captured) => (captured.capacity(), captured.capacity()),
        }
    }

    /// Bytes of memory for IPv4 and for IPv6 flows, index and dictionaries included (the latter in
    /// both); live, all that there will ever be.
    #[must_use]
    pub fn bytes(&self) -> (usize, usize) {
        match &self.tables {
            Tables::Live(live) => {
                let shared = live.shared.bytes();
                (live.v4.bytes() + shared, live.v6.bytes() + shared)
            }
            Tables::Capture(captured) => (captured.bytes(), captured.bytes()),
        }
    }

    /// The large pieces of memory of a live tracker, for advice to the system before they are used.
    #[must_use]
    pub fn memory(&self) -> [&[u32]; 4] {
        match &self.tables {
            Tables::Live(live) => {
                let ([a, b], [c, d]) = (live.v4.memory(), live.v6.memory());
                [a, b, c, d]
            }
            Tables::Capture(_) => [&[]; 4],
        }
    }

    /// The flow as a reset meets it, or what follows one. Its place is found once, for what is told and for
    /// what is noted.
    #[cold]
    #[inline(never)]
    pub(super) fn sight(
        &mut self,
        found: &Announced,
        (time, vantage, segment): Seen<'_>,
        (socket, begins_anew): (Option<SocketView>, bool),
    ) -> Sighting {
        let (key, side) = FlowKey::of(segment.tuple);
        let hash = found.hash_of(&key, self.secret);
        let is_reset = segment.flags.rst();
        let is_living = is_reset && socket.is_some_and(|socket| socket.sequence().is_some());
        let mut sighting = Sighting {
            time,
            vantage,
            segment: *segment,
            socket,
            begins_anew,
            flow: FlowFacts::default(),
        };
        let flow = &mut sighting.flow;
        with_store!(&mut self.tables, &key, |store, shared| {
            let mut place = store.find_hashed(&key, hash);
            if let Some(place) = place {
                facts_at(store, shared, (place, side), time, flow);
            }
            if is_living {
                // A living connection that was never heard before this reset (it is older than the
                // sensor, or the reset came before the SYN-ACK): what its sender says next counts.
                place = enter(store, shared, &key, hash, time).map(|(place, _)| place);
            }
            if let Some(place) = place.filter(|_| is_reset) {
                note_reset_at(store, (place, side), time);
            }
        });
        flow.path = self.paths.get(segment.tuple.src, time);
        sighting
    }

    /// A reset of `side` met a connection: its baseline is frozen.
    fn note_meeting(
        &mut self,
        (key, hash): (&FlowKey, u64),
        side: Side,
        time: Timestamp,
        is_living: bool,
    ) {
        with_store!(&mut self.tables, key, |store, shared| {
            if is_living {
                // As in `sight`.
                enter(store, shared, key, hash, time);
            }
            note_reset_in(store, key, side, time);
        });
    }

    /// A reset came in past this tracker; what its purported sender says next is answered with
    /// sightings, as if it had not. Answers what the reset would have met, where that sender is known, or
    /// its SYN-ACK, where that came first of all and only then the word of the reset before it.
    pub fn note_passed(&mut self, reset: &PassedReset) -> Option<PassedFlow> {
        let mut flow = self.facts(&reset.key, reset.side, reset.time);
        let hash = hash(&reset.key, self.secret);
        self.note_meeting((&reset.key, hash), reset.side, reset.time, reset.is_living);
        let reset = *reset;
        let mut answer = None;
        // A time is rounded down when it is kept: what began before the reset is never taken for later.
        if flow.first_seen.is_some_and(|began| began > reset.time) {
            answer = flow.sender.and_then(|sender| sender.syn);
            let path = flow.path;
            flow = FlowFacts {
                path,
                ..FlowFacts::default()
            };
        }
        let answer = answer.filter(|syn| syn.is_syn_ack);
        (flow.sender.is_some() || answer.is_some()).then_some(PassedFlow {
            reset,
            flow,
            answer,
        })
    }

    /// The flow as `side`'s segment meets it.
    #[must_use]
    pub fn facts(&self, key: &FlowKey, side: Side, now: Timestamp) -> FlowFacts {
        let flow = match &self.tables {
            Tables::Live(live) if is_ipv4(key) => facts_in(&live.v4, &live.shared, key, side, now),
            Tables::Live(live) => facts_in(&live.v6, &live.shared, key, side, now),
            Tables::Capture(captured) => facts_in(&**captured, &(), key, side, now),
        };
        FlowFacts {
            path: self.paths.get(key.endpoint(side).address, now),
            ..flow
        }
    }

    /// A reset of `side` was seen (here or by another worker): its baseline is frozen.
    pub fn note_reset(&mut self, key: &FlowKey, side: Side, time: Timestamp) {
        with_store!(&mut self.tables, key, |store, _shared| note_reset_in(
            store, key, side, time
        ));
    }

    /// A connection was there before the sensor: it is established, and began at an unknown time.
    pub fn note_older(&mut self, key: &FlowKey, time: Timestamp) {
        let hash = hash(key, self.secret);
        with_store!(&mut self.tables, key, |store, shared| {
            if let Some((place, _)) = enter(store, shared, key, hash, time) {
                let mut state = store.state(place, time);
                state.established = true;
                state.is_older = true;
                store.set_state(place, &state);
                store.raise(place, Rank::Connection);
            }
        });
    }

    /// A SYN of `opener` leaves a host that routes it. It left otherwise than it came, so that it tells how
    /// nobody looks: the connection is known, and neither of its ends.
    pub fn note_routed(&mut self, key: &FlowKey, opener: Side, time: Timestamp) {
        let hash = hash(key, self.secret);
        with_store!(&mut self.tables, key, |store, shared| {
            if let Some((place, true)) = enter(store, shared, key, hash, time) {
                let mut state = store.state(place, time);
                state.originator = Some(opener);
                store.set_state(place, &state);
            }
        });
    }

    /// The kernel says that the handshake is complete, to somebody who sees one direction only: if
    /// the flow is known, it keeps its place from now on. Nothing else is learned from it: when the
    /// connection ends may be for others to see, and a SYN after that must still open the next.
    pub fn confirm(&mut self, confirmed: &Confirmed) {
        with_store!(&mut self.tables, &confirmed.key, |store, _shared| {
            // Not that of a flow which began after the kernel said so, on the same four-tuple.
            if let Some(place) = store.find(&confirmed.key)
                && store.state(place, confirmed.time).first_seen <= confirmed.time
            {
                store.raise(place, Rank::Connection);
            }
        });
    }

    /// The kernel says that the handshake is complete; `originator` is the side that sent the SYN.
    pub fn note_established(&mut self, key: &FlowKey, originator: Side, time: Timestamp) {
        let hash = hash(key, self.secret);
        with_store!(&mut self.tables, key, |store, shared| {
            if let Some((place, _)) = enter(store, shared, key, hash, time) {
                if store.state(place, time).has_reset() {
                    store.reopen(shared, place, time);
                }
                let mut state = store.state(place, time);
                state.established = true;
                state.originator.get_or_insert(originator);
                store.set_state(place, &state);
                store.raise(place, Rank::Connection);
            }
        });
    }
}

const fn is_ipv4(key: &FlowKey) -> bool {
    matches!(
        (key.low.address, key.high.address),
        (IpAddr::V4(_), IpAddr::V4(_))
    )
}

/// The place of a key's flow, new or not.
fn enter<S: FlowStore>(
    store: &mut S,
    shared: &mut S::Shared,
    key: &FlowKey,
    hash: u64,
    time: Timestamp,
) -> Option<(S::Place, bool)> {
    store.entry(shared, &S::key(key), hash, time)
}

fn facts_in<S: FlowStore>(
    store: &S,
    shared: &S::Shared,
    key: &FlowKey,
    side: Side,
    now: Timestamp,
) -> FlowFacts {
    let mut facts = FlowFacts::default();
    if let Some(place) = store.find(key) {
        facts_at(store, shared, (place, side), now, &mut facts);
    }
    facts
}

/// The same of the flow at that place, but for what is known of its sender's path; in place, since it is
/// half a kilobyte.
fn facts_at<S: FlowStore>(
    store: &S,
    shared: &S::Shared,
    (place, side): (S::Place, Side),
    now: Timestamp,
    facts: &mut FlowFacts,
) {
    let state = store.state(place, now);
    facts.sender = store.half(shared, place, side, now);
    facts.receiver = store.half(shared, place, side.other(), now);
    facts.sender_is_originator = state.originator.map(|originator| originator == side);
    facts.established = state.established;
    facts.first_seen = (!state.is_older).then_some(state.first_seen);
    facts.of_two = state.of_two;
}

fn note_reset_in<S: FlowStore>(store: &mut S, key: &FlowKey, side: Side, time: Timestamp) {
    if let Some(place) = store.find(key) {
        note_reset_at(store, (place, side), time);
    }
}

fn note_reset_at<S: FlowStore>(store: &mut S, (place, side): (S::Place, Side), time: Timestamp) {
    let mut state = store.state(place, time);
    state.reset_from[side.index()] = true;
    state.ended = true;
    store.set_state(place, &state);
}

#[cfg(test)]
mod tests {
    use super::{Tracker, TrackerConfig};
    use crate::flow::{FlowKey, PassedReset};
    use crate::host::{SocketSequence, SocketView, TcpState};
    use crate::time::{SECOND, Timestamp};
    use crate::vantage::{InterfaceId, Path, Vantage};
    use crate::wire::{Flags, FourTuple, Segment, SeqNum};

    const IN: Vantage = Vantage {
        interface: InterfaceId(0),
        path: Path::Ingress,
    };

    fn tracker() -> Tracker {
        Tracker::new(TrackerConfig {
            capacity: 64,
            key: [3, 5],
        })
    }

    fn segment(flags: u8, seq: u32, hop_limit: u8) -> Segment {
        Segment {
            tuple: FourTuple {
                src: "192.0.2.7".parse().unwrap(),
                src_port: 40000,
                dst: "198.51.100.1".parse().unwrap(),
                dst_port: 443,
            },
            hop_limit,
            ip_id: Some(7),
            dont_fragment: Some(true),
            seq: SeqNum(seq),
            flags: Flags(flags),
            window: 64240,
            ..Segment::BLANK
        }
    }

    fn at(ns: u64) -> Timestamp {
        Timestamp::from_nanos(ns)
    }

    #[test]
    fn a_reset_meets_the_baseline_of_its_sender_and_does_not_enter_it() {
        let mut tracker = tracker();
        assert!(
            tracker
                .observe(at(1), IN, &segment(Flags::SYN, 100, 52), None)
                .is_none()
        );
        for time in [2, 3] {
            let sighting = tracker
                .observe(at(time), IN, &segment(Flags::RST, 101, 240), None)
                .unwrap();
            let sender = sighting.flow.sender.unwrap();
            assert_eq!(sender.hop_limits.usual(), Some(52));
            assert_eq!(sender.segments, 1);
            assert_eq!(sighting.flow.sender_is_originator, Some(true));
        }
    }

    #[test]
    fn what_the_purported_sender_sends_after_its_reset_is_a_sighting_and_no_baseline() {
        let mut tracker = tracker();
        tracker.observe(at(1), IN, &segment(Flags::SYN, 100, 52), None);
        tracker.observe(at(2), IN, &segment(Flags::RST, 101, 240), None);
        let fin = segment(Flags::FIN | Flags::ACK, 101, 51);
        let sighting = tracker.observe(at(3), IN, &fin, None).unwrap();
        assert_eq!(
            sighting.flow.sender.unwrap().hop_limits.nearest(51),
            Some(52)
        );
    }

    #[test]
    fn a_new_syn_after_a_reset_forgets_the_old_connection() {
        let mut tracker = tracker();
        tracker.observe(at(1), IN, &segment(Flags::SYN, 100, 52), None);
        tracker.observe(at(2), IN, &segment(Flags::RST, 101, 52), None);
        let mut begins_anew = |isn| {
            let syn = segment(Flags::SYN, isn, 52);
            let told = tracker.observe(at(3), IN, &syn, None);
            told.map(|sighting| sighting.begins_anew)
        };
        assert_eq!(begins_anew(100), Some(false), "its own, sent again");
        assert_eq!(begins_anew(9000), Some(true));
        assert_eq!(begins_anew(9000), None, "no reset came since");
        let (key, side) = FlowKey::of(segment(0, 0, 0).tuple);
        let sender = tracker.facts(&key, side, at(4)).sender.unwrap();
        assert_eq!(sender.syn.unwrap().isn, SeqNum(9000));
    }

    #[test]
    fn a_foreign_syn_inside_a_connection_does_not_spoil_the_baseline() {
        let mut tracker = tracker();
        tracker.observe(at(1), IN, &segment(Flags::SYN, 100, 52), None);
        tracker.observe(at(SECOND), IN, &segment(Flags::SYN, 12345, 200), None);
        let (key, side) = FlowKey::of(segment(0, 0, 0).tuple);
        let sender = tracker.facts(&key, side, at(2 * SECOND)).sender.unwrap();
        assert_eq!(sender.syn.unwrap().isn, SeqNum(100));
        assert_eq!(sender.syn.unwrap().hop_limit, 52);
    }

    #[test]
    fn a_syn_ack_from_the_end_that_sent_the_syn_is_forged_and_left_out() {
        let mut tracker = tracker();
        tracker.observe(at(1), IN, &segment(Flags::SYN, 100, 52), None);
        tracker.observe(at(2), IN, &segment(Flags::SYN | Flags::ACK, 77, 180), None);
        let (key, side) = FlowKey::of(segment(0, 0, 0).tuple);
        let sender = tracker.facts(&key, side, at(3)).sender.unwrap();
        assert_eq!(sender.hop_limits.modes().count(), 1);
        assert_eq!(sender.segments, 1);
    }

    #[test]
    fn a_syn_ack_after_a_reset_of_a_living_socket_is_a_sighting() {
        let mut tracker = tracker();
        let socket = SocketView::Full {
            state: TcpState::SynSent,
            sequence: SocketSequence {
                write_seq: SeqNum(1),
                ..SocketSequence::BLANK
            },
        };
        tracker.observe(
            at(1),
            IN,
            &segment(Flags::RST | Flags::ACK, 0, 44),
            Some(socket),
        );
        let syn_ack = segment(Flags::SYN | Flags::ACK, 9, 52);
        assert!(tracker.observe(at(2), IN, &syn_ack, None).is_some());
    }

    #[test]
    fn a_syn_ack_that_came_before_the_word_of_a_reset_that_went_past_is_told_and_no_baseline() {
        let syn_ack = segment(Flags::SYN | Flags::ACK, 9, 52);
        let (key, side) = FlowKey::of(syn_ack.tuple);
        let told = |reset_at: u64, first: &Segment| {
            let mut tracker = tracker();
            tracker.observe(at(200_000), IN, first, None);
            tracker.note_passed(&PassedReset {
                key,
                side,
                time: at(reset_at),
                is_living: true,
            })
        };
        let late = told(100_000, &syn_ack).unwrap();
        assert_eq!(late.flow.sender, None);
        let answer = late.answer.unwrap().as_syn_ack(syn_ack.tuple).unwrap();
        let seen = |s: &Segment| (s.tuple, s.flags, s.seq, s.ack, s.hop_limit, s.dont_fragment);
        assert_eq!(seen(&answer), seen(&syn_ack));
        // A peer that answers and aborts at once has its SYN-ACK for a baseline.
        let own = told(300_000, &syn_ack).unwrap();
        assert_eq!(own.flow.sender.unwrap().hop_limits.usual(), Some(52));
        assert_eq!(own.answer, None);
        // What else came first answers nothing.
        assert_eq!(told(100_000, &segment(Flags::SYN, 9, 52)), None);
    }

    #[test]
    fn a_flow_never_seen_leans_on_other_traffic_of_its_source() {
        let mut tracker = tracker();
        for port in 0..3 {
            let mut syn = segment(Flags::SYN, 100, 52);
            syn.tuple.src_port = 1000 + port;
            tracker.observe(at(1), IN, &syn, None);
        }
        let sighting = tracker
            .observe(at(2), IN, &segment(Flags::RST, 1, 240), None)
            .unwrap();
        assert!(sighting.flow.sender.is_none());
        let path = sighting.flow.path.unwrap();
        assert_eq!((path.hop_limits.usual(), path.flows), (Some(52), 3));
    }
}

//! Folds segments into the flow table. What makes a baseline and what does not is decided here:
//! resets never do, nor does anything that the purported sender of a reset sends afterwards, nor a
//! SYN-ACK from the end that sent the SYN (some injectors forge those).

use super::table::Flow;
use super::{
    FlowFacts, FlowKey, FlowTable, HalfFlow, HopLimits, PathTable, Side, Sighting, SynFacts,
    TableCounters,
};
use crate::host::SocketView;
use crate::time::{MILLISECOND, SECOND, Timestamp};
use crate::vantage::{Path, Vantage};
use crate::wire::Segment;

/// The largest step between two IP IDs of one end that still counts as "in order": segments that
/// we do not see lie between (evidence notes: 0..64 above the side's last one in most flows).
const IP_ID_STEP: u16 = 64;

/// Copies of one frame in a capture of several interfaces follow one another this closely.
const DUPLICATE_NS: u64 = MILLISECOND;

/// Addresses remembered for each flow of capacity: peers open several connections each.
const FLOWS_PER_ADDRESS: usize = 4;

/// What a tracker needs to know at start.
#[derive(Debug, Clone, Copy)]
pub struct TrackerConfig {
    /// Flows that it can hold.
    pub capacity: usize,
    /// Random hash key of this run.
    pub key: [u64; 2],
}

/// The memory of one worker.
#[derive(Debug)]
pub struct Tracker {
    flows: FlowTable,
    paths: PathTable,
}

impl Tracker {
    /// A tracker; allocates all that it will ever need.
    #[must_use]
    pub fn new(config: TrackerConfig) -> Self {
        Self {
            flows: FlowTable::new(config.capacity, config.key),
            paths: PathTable::new(config.capacity / FLOWS_PER_ADDRESS, config.key[0]),
        }
    }

    /// What the table did so far.
    #[must_use]
    pub fn counters(&self) -> TableCounters {
        self.flows.counters()
    }

    /// Takes one segment in. Answers with a [`Sighting`] when it is a reset, or when its sender is
    /// said to have sent one before.
    pub fn observe(
        &mut self,
        time: Timestamp,
        vantage: Vantage,
        segment: &Segment,
        socket: Option<SocketView>,
    ) -> Option<Sighting> {
        let (key, side) = FlowKey::of(segment.tuple);
        if segment.flags.rst() {
            let flow = self.facts(&key, side, time);
            if socket
                .as_ref()
                .is_some_and(|socket| socket.sequence().is_some())
            {
                // A living connection that was never heard before this reset (it is older than the
                // sensor, or the reset came before the SYN-ACK): what its sender says next counts.
                self.flows.get_or_insert(&key, time);
            }
            self.note_reset(&key, side, time);
            return Some(Sighting {
                time,
                vantage,
                segment: *segment,
                socket,
                flow,
            });
        }
        let (flow, is_new) = self.flows.entry(&key, time)?;
        if opens_anew(flow, side, segment, time) {
            reopen(flow, time);
        }
        let after_reset = flow.reset_from[side.index()];
        if !after_reset && fold(flow, side, segment, time) && vantage.path != outbound() {
            let begins_or_ends = segment.flags.syn() || segment.flags.fin() || is_new;
            if begins_or_ends {
                self.paths.learn(segment, segment.flags.syn(), time);
            }
        }
        after_reset.then(|| Sighting {
            time,
            vantage,
            segment: *segment,
            socket,
            flow: self.facts(&key, side, time),
        })
    }

    /// Brings the flows of segments that will be observed next near, where memory is far.
    pub fn warm<'a>(&self, segments: impl Iterator<Item = &'a Segment>) {
        self.flows
            .warm(segments.map(|segment| FlowKey::of(segment.tuple).0));
    }

    /// The flow as `side`'s segment meets it.
    #[must_use]
    pub fn facts(&self, key: &FlowKey, side: Side, now: Timestamp) -> FlowFacts {
        let path = self.paths.get(key.endpoint(side).address, now);
        let Some(flow) = self.flows.get(key) else {
            return FlowFacts {
                path,
                ..FlowFacts::default()
            };
        };
        FlowFacts {
            sender: flow.halves[side.index()],
            receiver: flow.halves[side.other().index()],
            path,
            sender_is_originator: flow.originator.map(|o| usize::from(o) == side.index()),
            established: flow.established,
            first_seen: (!flow.is_older).then_some(flow.first_seen),
        }
    }

    /// A reset of `side` was seen (here or by another worker): its baseline is frozen.
    pub fn note_reset(&mut self, key: &FlowKey, side: Side, time: Timestamp) {
        if let Some(flow) = self.flows.get_mut(key) {
            flow.reset_from[side.index()] = true;
            flow.ended.get_or_insert(time);
        }
    }

    /// A connection was there before the sensor: it is established, and began at an unknown time.
    pub fn note_older(&mut self, key: &FlowKey, time: Timestamp) {
        if let Some(flow) = self.flows.get_or_insert(key, time) {
            flow.established = true;
            flow.is_older = true;
        }
    }

    /// The kernel says that the handshake is complete; `originator` is the side that sent the SYN.
    pub fn note_established(&mut self, key: &FlowKey, originator: Side, time: Timestamp) {
        if let Some(flow) = self.flows.get_or_insert(key, time) {
            if flow.reset_from != [false, false] {
                reopen(flow, time);
            }
            flow.established = true;
            flow.originator
                .get_or_insert(u8::from(originator == Side::High));
        }
    }
}

const fn outbound() -> Path {
    Path::Egress { forwarded: false }
}

/// How long after its last sign of life a connection's four-tuple is free for a SYN that does not
/// look like the old peer: twice TIME-WAIT, after which no stack still guards it.
const FORGOTTEN_NS: u64 = 120 * SECOND;

/// Whether a SYN begins another connection on a four-tuple that is known already. A SYN inside a
/// living connection changes nothing: the kernel challenges it (RFC 5961 §4), and it may be forged
/// to spoil the baseline. Where we cannot know that the old one has ended (our own reset was not
/// ours to see), the SYN must at least look like the peer that we know.
fn opens_anew(flow: &Flow, side: Side, segment: &Segment, time: Timestamp) -> bool {
    if !segment.flags.syn() || segment.flags.ack() {
        return false;
    }
    let Some(half) = &flow.halves[side.index()] else {
        return flow.ended.is_some() || flow.reset_from != [false, false];
    };
    if half
        .syn
        .is_some_and(|syn| syn.isn == segment.seq && !syn.is_syn_ack)
    {
        // The same SYN again, be it after a reset: its sender did not believe that reset, or tries
        // once more. No new connection, but evidence.
        return false;
    }
    let looks_alike = half
        .hop_limits
        .modes()
        .any(|mode| mode.hop_limit == segment.hop_limit)
        && half.mac == segment.link.map(|link| link.src);
    flow.ended.is_some()
        || flow.reset_from != [false, false]
        || half.fin.is_some()
        || (looks_alike && !flow.established)
        || time.since(flow.last_seen) > FORGOTTEN_NS
}

fn reopen(flow: &mut Flow, time: Timestamp) {
    flow.halves = [None, None];
    flow.originator = None;
    flow.established = false;
    flow.reset_from = [false, false];
    flow.first_seen = time;
    flow.is_older = false;
    flow.ended = None;
}

/// Folds a segment into its sender's half; `false` when it does not belong in a baseline.
fn fold(flow: &mut Flow, side: Side, segment: &Segment, time: Timestamp) -> bool {
    flow.last_seen = time;
    let at = side.index();
    let is_syn_ack = segment.flags.syn() && segment.flags.ack();
    if is_syn_ack
        && flow
            .originator
            .is_some_and(|originator| usize::from(originator) == at)
    {
        return false;
    }
    let known = flow.halves[at].as_ref().and_then(|half| half.syn.as_ref());
    if segment.flags.syn() && known.is_some_and(|syn| syn.isn != segment.seq) {
        return false;
    }
    if segment.flags.syn() {
        let originator = if is_syn_ack { side.other() } else { side };
        flow.originator
            .get_or_insert(u8::from(originator == Side::High));
    }
    let answered = flow.halves[side.other().index()].is_some();
    let half = flow.halves[at].get_or_insert_with(|| new_half(time));
    let is_duplicate = is_copy(half, segment, time);
    if is_duplicate {
        half.duplicates = half.duplicates.saturating_add(1);
    }
    fold_syn(half, segment, time);
    fold_header(half, segment);
    fold_sequence(half, segment, time);
    half.last_seen = time;
    half.segments = half.segments.saturating_add(1);
    // Payload or FIN from either end, once both were heard, means that the handshake is over.
    flow.established |= answered && !segment.flags.syn() && !segment.is_empty();
    if flow
        .halves
        .iter()
        .all(|half| half.is_some_and(|half| half.fin.is_some()))
    {
        flow.ended.get_or_insert(time);
    }
    true
}

fn new_half(time: Timestamp) -> HalfFlow {
    HalfFlow {
        first_seen: time,
        last_seen: time,
        segments: 0,
        syn: None,
        hop_limits: HopLimits::default(),
        mac: None,
        mac_count: 0,
        vlan: None,
        ip_id: None,
        ip_id_steps: 0,
        ip_id_jumps: 0,
        dont_fragment: (false, false),
        end: None,
        acked: None,
        window: 0,
        timestamps: None,
        fin: None,
        has_data: false,
        duplicates: 0,
    }
}

/// The very frame again: same IP ID (not 0) or same timestamps, same end of data, at once.
fn is_copy(half: &HalfFlow, segment: &Segment, time: Timestamp) -> bool {
    half.segments > 0
        && time.since(half.last_seen) < DUPLICATE_NS
        && segment
            .ip_id
            .is_some_and(|id| id != 0 && half.ip_id == Some(id))
        && half.end == Some(segment.end())
}

fn fold_syn(half: &mut HalfFlow, segment: &Segment, time: Timestamp) {
    if !segment.flags.syn() {
        return;
    }
    match &mut half.syn {
        Some(syn) if syn.isn == segment.seq => syn.count = syn.count.saturating_add(1),
        Some(_) => {}
        none => {
            *none = Some(SynFacts {
                time,
                is_syn_ack: segment.flags.ack(),
                isn: segment.seq,
                ack: segment.ack,
                ip_id: segment.ip_id,
                hop_limit: segment.hop_limit,
                dont_fragment: segment.dont_fragment,
                window: segment.window,
                options: segment.options,
                flow_label: segment.flow_label,
                count: 1,
            });
        }
    }
}

fn fold_header(half: &mut HalfFlow, segment: &Segment) {
    half.hop_limits.note(segment.hop_limit);
    let mac = segment.link.map(|link| link.src);
    if half.mac == mac {
        half.mac_count = half.mac_count.saturating_add(1);
    } else {
        half.mac = mac;
        half.mac_count = 1;
    }
    half.vlan = segment.vlan;
    match segment.dont_fragment {
        Some(true) => half.dont_fragment.0 = true,
        Some(false) => half.dont_fragment.1 = true,
        None => {}
    }
    if let Some(id) = segment.ip_id.filter(|id| *id != 0) {
        match half.ip_id.map(|last| id.wrapping_sub(last)) {
            Some(1..=IP_ID_STEP) => half.ip_id_steps = half.ip_id_steps.saturating_add(1),
            Some(0) | None => {}
            Some(_) => half.ip_id_jumps = half.ip_id_jumps.saturating_add(1),
        }
        half.ip_id = Some(id);
    }
}

fn fold_sequence(half: &mut HalfFlow, segment: &Segment, time: Timestamp) {
    let end = segment.end();
    if half.end.is_none_or(|known| end.is_after(known)) {
        half.end = Some(end);
    }
    if segment.flags.ack() && half.acked.is_none_or(|known| segment.ack.is_after(known)) {
        half.acked = Some(segment.ack);
    }
    half.window = segment.window;
    if let Some(timestamps) = segment.options.timestamps {
        half.timestamps = Some((time, timestamps));
    }
    if segment.flags.fin() {
        half.fin = Some(segment.seq.plus(segment.payload_len));
    }
    half.has_data |= segment.payload_len > 0;
}

#[cfg(test)]
mod tests {
    use super::{Tracker, TrackerConfig};
    use crate::flow::FlowKey;
    use crate::host::{SocketSequence, SocketView, TcpState};
    use crate::time::{SECOND, Timestamp};
    use crate::vantage::{InterfaceId, Path, Vantage};
    use crate::wire::{Flags, FourTuple, Options, PAYLOAD_HEAD, Segment, SeqNum};

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
            link: None,
            vlan: None,
            hop_limit,
            ip_id: Some(7),
            dont_fragment: Some(true),
            traffic_class: 0,
            flow_label: None,
            seq: SeqNum(seq),
            ack: SeqNum(0),
            flags: Flags(flags),
            reserved: 0,
            window: 64240,
            options: Options::default(),
            payload_len: 0,
            payload_head: [0; PAYLOAD_HEAD],
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
        assert!(
            tracker
                .observe(at(3), IN, &segment(Flags::SYN, 9000, 52), None)
                .is_none()
        );
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
                rcv_nxt: SeqNum(0),
                rcv_wnd: 0,
                snd_nxt: SeqNum(1),
                snd_una: SeqNum(0),
                ts_recent: None,
                segs_in: None,
                bytes_in: None,
                bytes_out: None,
                srtt_us: None,
                idle_ns: None,
                sent_ago_ns: None,
                has_keepalive: false,
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

//! What a segment adds to what is known of its sender, and when a SYN begins another connection.
//! The same for live sensors and capture files, whatever their flows are kept in.

use super::index::Rank;
use super::store::FlowStore;
use super::{HalfFlow, HopLimits, Side, SynFacts};
use crate::time::{MILLISECOND, SECOND, Timestamp};
use crate::wire::Segment;

/// The largest step between two IP IDs of one end that still counts as "in order": segments that
/// we do not see lie between (evidence notes: 0..64 above the side's last one in most flows).
pub(super) const IP_ID_STEP: u16 = 64;

/// Copies of one frame in a capture of several interfaces follow one another this closely.
pub(super) const DUPLICATE_NS: u64 = MILLISECOND;

/// How long after its last sign of life a connection's four-tuple is free for a SYN that does not
/// look like the old peer: twice TIME-WAIT, after which no stack still guards it.
pub(super) const FORGOTTEN_NS: u64 = 120 * SECOND;

/// Whether a SYN begins another connection on a four-tuple that is known already. A SYN inside a
/// living connection changes nothing: the kernel challenges it (RFC 5961 §4), and it may be forged
/// to spoil the baseline. Where we cannot know that the old one has ended (our own reset was not
/// ours to see), the SYN must at least look like the peer that we know.
pub(super) fn opens_anew<S: FlowStore>(
    store: &S,
    shared: &S::Shared,
    (place, side): (S::Place, Side),
    segment: &Segment,
    time: Timestamp,
) -> bool {
    if !segment.flags.syn() || segment.flags.ack() {
        return false;
    }
    let state = store.state(place, time);
    let Some(half) = store.half(shared, place, side, time) else {
        return state.ended || state.has_reset();
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
    state.ended
        || state.has_reset()
        || half.fin.is_some()
        || (looks_alike && !state.established)
        || time.since(store.last_seen(place, time)) > FORGOTTEN_NS
}

/// Whether a SYN-ACK accepts an attempt whose first SYN its sender is said to have refused: Windows sends a refused
/// SYN again, with the same ISN, at half a second's distance, and the service may have come up meanwhile. Only where
/// nothing else was heard of that sender: a baseline that a reset froze stays as it is.
pub(super) fn accepts_after_all<S: FlowStore>(
    store: &S,
    shared: &S::Shared,
    (place, side): (S::Place, Side),
    segment: &Segment,
    time: Timestamp,
) -> bool {
    let is_syn_ack = segment.flags.syn() && segment.flags.ack();
    if !is_syn_ack || store.has_half(place, side) || store.state(place, time).established {
        return false;
    }
    let opener = store.half(shared, place, side.other(), time);
    opener
        .and_then(|half| half.syn)
        .is_some_and(|syn| !syn.is_syn_ack && syn.count > 1 && segment.ack == syn.isn.plus(1))
}

/// The connection lives on as if that end had sent no reset.
pub(super) fn thaw<S: FlowStore>(store: &mut S, (place, side): (S::Place, Side), time: Timestamp) {
    let mut state = store.state(place, time);
    state.reset_from[side.index()] = false;
    state.ended = state.has_reset();
    store.set_state(place, &state);
}

/// Folds a segment into its sender's half; `false` when it does not belong in a baseline.
pub(super) fn fold<S: FlowStore>(
    store: &mut S,
    shared: &mut S::Shared,
    (place, side): (S::Place, Side),
    segment: &Segment,
    time: Timestamp,
) -> bool {
    let before = store.state(place, time);
    let mut state = before;
    let is_syn_ack = segment.flags.syn() && segment.flags.ack();
    if is_syn_ack && state.originator == Some(side) {
        return false;
    }
    let known = store.half(shared, place, side, time);
    let known_syn = known.as_ref().and_then(|half| half.syn.as_ref());
    if segment.flags.syn() && known_syn.is_some_and(|syn| syn.isn != segment.seq) {
        return false;
    }
    if segment.flags.syn() {
        let originator = if is_syn_ack { side.other() } else { side };
        state.originator.get_or_insert(originator);
    }
    let answered = store.has_half(place, side.other());
    let mut half = known.unwrap_or_else(|| new_half(time));
    if is_copy(&half, segment, time) {
        half.duplicates = half.duplicates.saturating_add(1);
    }
    fold_syn(&mut half, segment, time);
    fold_header(&mut half, segment);
    fold_sequence(&mut half, segment, time);
    half.last_seen = time;
    half.segments = half.segments.saturating_add(1);
    // Payload or FIN from either end, once both were heard, means that the handshake is over.
    state.established |= answered && !segment.flags.syn() && !segment.is_empty();
    state.ended |= half.fin.is_some() && store.has_fin(place, side.other());
    if state != before {
        store.set_state(place, &state);
    }
    if state.established || half.fin.is_some() || half.has_data {
        store.raise(place, Rank::Connection);
    } else if answered {
        store.raise(place, Rank::Answered);
    }
    store.set_half(shared, place, side, &half, time);
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
                ack: segment.flags.ack().then_some(segment.ack),
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

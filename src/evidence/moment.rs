//! One reset among those of other flows that came the same way: how many were reset at the same moment,
//! from how far their senders are, and which of them one IP ID counter numbered. Remembers nothing:
//! `siblings` does.

use super::siblings::{KEPT, NETWORKS, SiblingFacts};
use crate::flow::{FlowFacts, network};
use crate::time::{SECOND, Timestamp};
use crate::wire::hop_limit::{hops, is_far};
use crate::wire::{FourTuple, Segment};

/// Resets of one moment: a device that loses its table resets its flows as their next segments
/// come, within a second on a busy path (evidence notes E-T4).
const AT_ONCE_NS: u64 = SECOND;
/// And this long before it there were at most half as many: a steady trickle is no event.
const CALM_NS: u64 = 10 * SECOND;
/// Distances that differ by this many hops are no route's jitter.
const APART: u8 = 2;

/// Resets further apart say nothing about one counter: with [`STEPS_A_SECOND`] a tenth of a percent of
/// all IDs would fit for each second.
pub(super) const COUNTER_NS: u64 = 30 * SECOND;
/// Steps of one counter between two resets at one moment, and more for each second between them:
/// VirtualBox' NAT counts 10 a second, the gateway of Zeek's Teredo trace 2.
const STEPS: u64 = 16;
const STEPS_A_SECOND: u64 = 16;
/// So many at most.
const MOST_STEPS: u64 = STEPS + STEPS_A_SECOND * (COUNTER_NS / SECOND);

/// Where the purported sender is known to stand, as the reset came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    /// Where the reset came from, or so near that it may be its own.
    Here,
    /// So many hops away, elsewhere.
    Elsewhere(u8),
    Unknown,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) time: Timestamp,
    pub(super) tuple: FourTuple,
    /// Of its source address.
    pub(super) network: u64,
    pub(super) ip_id: Option<u16>,
    pub(super) sender: Sender,
}

impl Seen {
    pub(super) fn of(segment: &Segment, sender: Sender, time: Timestamp) -> Self {
        Self {
            time,
            tuple: segment.tuple,
            network: network(segment.tuple.src),
            ip_id: segment.ip_id.filter(|id| *id != 0),
            sender,
        }
    }
}

/// Where the purported sender stands, by all that is known of it.
pub(super) fn sender(segment: &Segment, flow: &FlowFacts) -> Sender {
    let path = flow.path.as_ref();
    let known = [
        flow.sender.as_ref().map(|s| &s.hop_limits),
        path.map(|p| &p.hop_limits),
    ];
    let near = |hop_limit: u8| !is_far(segment.hop_limit, hop_limit);
    let modes = || known.iter().flatten().flat_map(|limits| limits.modes());
    // Of its network a match is enough to doubt, a mismatch proves nothing.
    let mut of_network = path.iter().flat_map(|path| path.prefix.hop_limits.modes());
    let is_near =
        modes().any(|mode| near(mode.hop_limit)) || of_network.any(|mode| near(mode.hop_limit));
    match modes().map(|mode| mode.hop_limit).next() {
        _ if is_near => Sender::Here,
        Some(usual) => Sender::Elsewhere(hops(usual)),
        None => Sender::Unknown,
    }
}

/// Flows of other networks on one counter with a reset. None where a reset that came from its true
/// sender's place is on it too, which a NAT that numbers what it relays makes so; and none where
/// more than one in four of those that could be on it is not.
#[derive(Debug, Default)]
pub(super) struct Counter {
    on: u32,
    off: u32,
    /// One of a true sender is on it.
    is_relayed: bool,
}

impl Counter {
    /// One counter may have numbered both: without one of which that is so, nothing comes of all the others.
    #[inline]
    pub(super) fn may_be_on(own: &Seen, other: &Seen) -> bool {
        let (Some(id), Some(theirs)) = (own.ip_id, other.ip_id) else {
            return false;
        };
        fits(own, other, (id, theirs), own.time.distance(other.time))
    }

    pub(super) fn note(&mut self, own: &Seen, other: &Seen, apart: u64) {
        let (Some(id), Some(theirs)) = (own.ip_id, other.ip_id.filter(|_| apart <= COUNTER_NS))
        else {
            return;
        };
        let fits = fits(own, other, (id, theirs), apart);
        if other.sender == Sender::Here {
            self.is_relayed |= fits;
        } else if other.network != own.network {
            self.on += u32::from(fits);
            self.off += u32::from(!fits);
        }
    }

    pub(super) fn flows(&self) -> u32 {
        match self.on >= 3 * self.off && !self.is_relayed {
            true => self.on,
            false => 0,
        }
    }
}

/// Whether one counter can have come from the earlier ID to the later in the time between them.
#[inline]
fn fits(own: &Seen, other: &Seen, (id, theirs): (u16, u16), apart: u64) -> bool {
    let step = match other.time > own.time {
        true => theirs.wrapping_sub(id),
        false => id.wrapping_sub(theirs),
    };
    let step = u64::from(step);
    let most = || STEPS + STEPS_A_SECOND * apart.div_ceil(SECOND);
    (1..=MOST_STEPS).contains(&step) && step <= most()
}

/// What happened about the moment of a reset: how many flows were reset from its place, and how far away
/// their senders stand.
pub(super) struct Moment {
    flows: u32,
    before: u32,
    networks: Networks,
    /// Of these, those known to stand elsewhere; the first flow of a network stands for it.
    elsewhere: Networks,
    nearest: u8,
    farthest: u8,
}

impl Moment {
    pub(super) fn of(own: &Seen) -> Self {
        let mut moment = Self {
            flows: 0,
            before: 0,
            networks: Networks::new(),
            elsewhere: Networks::new(),
            nearest: u8::MAX,
            farthest: 0,
        };
        moment.take_in(own);
        moment
    }

    /// The other is of a time that counts.
    #[inline]
    pub(super) fn may_note(own: &Seen, other: &Seen) -> bool {
        let (own, other) = (own.time.as_nanos(), other.time.as_nanos());
        other.saturating_add(CALM_NS) >= own && other <= own.saturating_add(AT_ONCE_NS)
    }

    pub(super) fn note(&mut self, own: &Seen, other: &Seen, apart: u64) {
        if other.sender == Sender::Here {
            return;
        }
        if apart <= AT_ONCE_NS {
            self.take_in(other);
        } else if other.time < own.time && apart <= CALM_NS {
            self.before += 1;
        }
    }

    fn take_in(&mut self, seen: &Seen) {
        self.flows += 1;
        self.networks.note(seen.network);
        if let Sender::Elsewhere(hops) = seen.sender
            && self.elsewhere.note(seen.network)
        {
            self.nearest = self.nearest.min(hops);
            self.farthest = self.farthest.max(hops);
        }
    }

    pub(super) fn facts(&self) -> SiblingFacts {
        if self.before * 2 > self.flows {
            return SiblingFacts::default();
        }
        SiblingFacts {
            on_counter: 0,
            at_once: self.flows,
            networks: u32::try_from(self.networks.count).unwrap_or(u32::MAX),
            is_one_place: self.elsewhere.count >= NETWORKS as usize
                && self.farthest.saturating_sub(self.nearest) >= APART,
        }
    }
}

/// Different networks of up to as many resets as are kept, and the one that is judged.
struct Networks {
    known: [u64; KEPT + 1],
    count: usize,
    /// A bit for each that is known, by its last eight bits, in which networks mostly differ: a network
    /// without its bit need not be looked for.
    marks: [u64; 4],
}

impl Networks {
    const fn new() -> Self {
        Self {
            known: [0; KEPT + 1],
            count: 0,
            marks: [0; 4],
        }
    }

    /// Takes a network in; whether it is new.
    fn note(&mut self, network: u64) -> bool {
        let [last, ..] = network.to_le_bytes();
        let bit = 1_u64 << (last % 64);
        let Some(marks) = self.marks.get_mut(usize::from(last / 64)) else {
            return false;
        };
        let known = self.known.get(..self.count).unwrap_or_default();
        if *marks & bit != 0 && known.contains(&network) {
            return false;
        }
        let Some(place) = self.known.get_mut(self.count) else {
            return false;
        };
        *place = network;
        *marks |= bit;
        self.count += 1;
        true
    }
}

//! What is asked of memory before it is needed. A segment that was announced finds its flow near when
//! it is observed, and what was found out about it on the way is not found out again. Changes nothing
//! that anybody could see, and waits for nothing.

use std::net::IpAddr;

use super::FlowKey;
use super::Side;
use super::hash::{Ipv4Hash, hash, hash_ipv4, hash_wide};
use super::key::{Ipv4Key, WideKey};
use super::path::{PathTable, Places, PlacesOf};
use super::tracker::{Tables, Tracker};
use crate::wire::{FourTuple, Segment};

/// How many segments lie between asking for a flow's tags and reading them: some hundred
/// nanoseconds, in which they come from memory.
const AHEAD: usize = 16;

/// What was found out about a segment when it was announced. Of use for that segment alone, and for
/// the tracker that found it. Written in place: to hand it on takes as long as to find it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announced {
    pub(super) whose: Whose,
    /// The end that sent the segment.
    pub(super) side: Side,
    /// Where what is known of the sender's address stands.
    pub(super) places: Places,
    /// The hash of the connection's key.
    pub(super) hash: u64,
    /// The key as the store has it: its first three words are one of IPv4.
    key: WideKey,
}

/// Whose flow a segment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// It was not announced; nothing else is known.
    Unknown,
    /// One of IPv4.
    V4,
    /// Any other.
    Wide,
    /// One of a capture: the hash is known.
    Captured,
}

impl Announced {
    /// Nothing: the segment was not announced.
    pub const NONE: Self = Self {
        whose: Whose::Unknown,
        side: Side::Low,
        places: Places::FIRST,
        hash: 0,
        key: WideKey([0; 9]),
    };

    /// Forgets what was found out.
    #[inline]
    pub fn clear(&mut self) {
        self.whose = Whose::Unknown;
    }

    /// Finds out about a segment with these addresses and ports, for a live table.
    #[inline]
    pub(super) fn find_out(&mut self, tuple: &FourTuple, finder: &Finder<'_>) {
        if !self.find_out_ipv4(tuple, finder) {
            self.find_out_wide(tuple, finder);
        }
    }

    /// The same where it is one of IPv4; else answers `false`.
    #[inline]
    fn find_out_ipv4(&mut self, tuple: &FourTuple, finder: &Finder<'_>) -> bool {
        let (IpAddr::V4(src), IpAddr::V4(dst)) = (tuple.src, tuple.dst) else {
            return false;
        };
        let (src, dst) = (src.to_bits(), dst.to_bits());
        let (key, side) = Ipv4Key::between((src, tuple.src_port), (dst, tuple.dst_port));
        self.hash = finder.of_ipv4.of(key);
        self.key.set_ipv4(key);
        self.side = side;
        self.whose = Whose::V4;
        self.places = finder.places.of_ipv4(src);
        true
    }

    #[inline(never)]
    fn find_out_wide(&mut self, tuple: &FourTuple, finder: &Finder<'_>) {
        (self.key, self.side) = WideKey::of(tuple);
        self.hash = hash_wide(&self.key, finder.secret);
        self.whose = Whose::Wide;
        self.places = finder.paths.places(tuple.src);
    }

    /// The hash of the key, which is the segment's own: as it was found out, or from the start.
    #[inline]
    pub(super) fn hash_of(&self, key: &FlowKey, secret: [u64; 2]) -> u64 {
        match self.whose {
            Whose::Unknown => hash(key, secret),
            Whose::V4 | Whose::Wide | Whose::Captured => self.hash,
        }
    }

    /// The key of an IPv4 connection.
    #[inline]
    pub(super) const fn ipv4_key(&self) -> Ipv4Key {
        self.key.ipv4()
    }

    /// The key of any other.
    #[inline]
    pub(super) const fn wide_key(&self) -> &WideKey {
        &self.key
    }
}

/// What there is to know for finding out about many segments.
#[derive(Debug)]
pub(super) struct Finder<'a> {
    secret: [u64; 2],
    of_ipv4: Ipv4Hash,
    places: PlacesOf,
    paths: &'a PathTable,
}

impl<'a> Finder<'a> {
    #[inline]
    pub(super) fn new(secret: [u64; 2], paths: &'a PathTable) -> Self {
        Self {
            secret,
            of_ipv4: Ipv4Hash::new(secret),
            places: paths.places_of(),
            paths,
        }
    }
}

impl Tracker {
    /// A segment between these ends will be observed soon: finds out what [`Tracker::approach`],
    /// [`Tracker::reach`] and [`Tracker::observe_announced`] need to know.
    #[inline]
    pub fn announce(&self, tuple: &FourTuple, announced: &mut Announced) {
        match &self.tables {
            Tables::Live(_) => announced.find_out(tuple, &Finder::new(self.secret, &self.paths)),
            Tables::Capture(_) => {
                announced.whose = Whose::Captured;
                announced.hash = match Ipv4Key::of(tuple) {
                    Some((key, _)) => hash_ipv4(key, self.secret),
                    None => hash(&FlowKey::of(*tuple).0, self.secret),
                };
                announced.places = self.paths.places(tuple.src);
            }
        }
    }

    /// Brings the tags and the address of an announced segment near, where memory is far.
    #[inline]
    pub fn approach(&self, announced: &Announced) {
        match (&self.tables, announced.whose) {
            (Tables::Live(live), Whose::V4) => live.v4.warm_tags(announced.hash),
            (Tables::Live(live), Whose::Wide) => live.v6.warm_tags(announced.hash),
            (Tables::Capture(captured), Whose::Captured) => captured.warm_tags(announced.hash),
            _ => return,
        }
        self.paths.warm(announced.places);
    }

    /// Brings its flow near, to which the tags lead, when they came.
    #[inline]
    pub fn reach(&self, announced: &Announced) {
        match (&self.tables, announced.whose) {
            (Tables::Live(live), Whose::V4) => live.v4.warm_flow(announced.hash),
            (Tables::Live(live), Whose::Wide) => live.v6.warm_flow(announced.hash),
            (Tables::Capture(captured), Whose::Captured) => captured.warm_flow(announced.hash),
            _ => {}
        }
    }

    /// These segments will be observed next: [`Tracker::announce`] and [`Tracker::approach`] for each, as they are
    /// asked for.
    #[inline]
    pub fn announce_all<'a>(
        &self,
        segments: impl Iterator<Item = (&'a FourTuple, &'a mut Announced)>,
    ) {
        let Tables::Live(live) = &self.tables else {
            for (tuple, announced) in segments {
                self.announce(tuple, announced);
                self.approach(announced);
            }
            return;
        };
        let finder = Finder::new(self.secret, &self.paths);
        for (tuple, announced) in segments {
            // Each by itself to its end: what was found out of IPv4 stays in registers.
            if announced.find_out_ipv4(tuple, &finder) {
                live.v4.warm_tags(announced.hash);
                self.paths.warm(announced.places);
            } else {
                announced.find_out_wide(tuple, &finder);
                live.v6.warm_tags(announced.hash);
                self.paths.warm(announced.places);
            }
        }
    }

    /// [`Tracker::reach`] for each of these.
    #[inline]
    pub fn reach_all<'a>(&self, all: impl Iterator<Item = &'a Announced>) {
        let Tables::Live(live) = &self.tables else {
            return all.for_each(|announced| self.reach(announced));
        };
        for announced in all {
            if announced.whose == Whose::V4 {
                live.v4.warm_flow(announced.hash);
            } else if announced.whose == Whose::Wide {
                live.v6.warm_flow(announced.hash);
            }
        }
    }

    /// All of it for these segments, which will be observed next.
    pub fn warm<'a>(&self, segments: impl Iterator<Item = &'a Segment>) {
        let mut known = [Announced::NONE; AHEAD];
        for (at, segment) in segments.enumerate() {
            let place = &mut known[at % AHEAD];
            self.reach(place);
            self.announce(&segment.tuple, place);
            self.approach(place);
        }
        known.iter().for_each(|last| self.reach(last));
    }

    /// The same, and keeps what was found out of each, in their order, for as many as there is room.
    pub fn warm_and_keep<'a>(
        &self,
        segments: impl Iterator<Item = &'a Segment>,
        known: &mut [Announced],
    ) {
        let mut count = 0;
        for segment in segments {
            let Some(place) = known.get_mut(count) else {
                break;
            };
            self.announce(&segment.tuple, place);
            self.approach(place);
            count += 1;
            if let Some(before) = count.checked_sub(AHEAD).and_then(|at| known.get(at)) {
                self.reach(before);
            }
        }
        let rest = known.get(count.saturating_sub(AHEAD - 1)..count);
        rest.unwrap_or_default()
            .iter()
            .for_each(|last| self.reach(last));
    }
}

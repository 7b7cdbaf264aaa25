//! Folds segments into the flow table. What makes a baseline and what does not is decided here:
//! resets never do, nor does anything that the purported sender of a reset sends afterwards (but the SYN-ACK
//! that accepts an attempt which it refused), nor a SYN-ACK from the end that sent the SYN (some injectors
//! forge those).

use super::ahead::{Announced, Finder, Whose};
use super::fold;
use super::store::FlowStore;
use super::tracker::{Live, Seen, Tables, Tracker};
use super::{FlowKey, PathTable, Side, Sighting};
use crate::host::SocketView;
use crate::time::Timestamp;
use crate::vantage::{Path, Vantage};
use crate::wire::{Glance, Segment};

/// What a segment that is no reset is to those who judge resets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    /// Nothing.
    Alone,
    /// Its sender is said to have sent a reset before.
    AfterReset,
    /// It begins another connection where one was reset.
    BeginsAnew,
}

impl Tracker {
    /// Takes one segment in. Answers with a [`Sighting`] when it is a reset, when its sender is
    /// said to have sent one before, or, live, when it begins another connection after one.
    #[inline]
    pub fn observe(
        &mut self,
        time: Timestamp,
        vantage: Vantage,
        segment: &Segment,
        socket: Option<SocketView>,
    ) -> Option<Sighting> {
        self.observe_announced(time, vantage, segment, &Announced::NONE, socket)
    }

    /// The same of a segment that was announced.
    #[inline]
    pub fn observe_announced(
        &mut self,
        time: Timestamp,
        vantage: Vantage,
        segment: &Segment,
        announced: &Announced,
        socket: Option<SocketView>,
    ) -> Option<Sighting> {
        let seen = (time, vantage, segment);
        let taken = match segment.flags.rst() {
            true => Taken::AfterReset,
            false => self.take_in(announced, seen),
        };
        let begins_anew = taken == Taken::BeginsAnew;
        (taken != Taken::Alone).then(|| self.sight(announced, seen, (socket, begins_anew)))
    }

    /// Takes in what was seen of a segment that is no reset, where that is one of the two things that most do
    /// to a flow: to open it, or to follow a segment of the same end. `false` when it is not, and nothing
    /// was done.
    #[inline]
    pub fn observe_glance(
        &mut self,
        time: Timestamp,
        vantage: Vantage,
        glance: &Glance,
        found: &Announced,
    ) -> bool {
        let Tables::Live(live) = &mut self.tables else {
            return false;
        };
        let Live { v4, v6, shared } = &mut **live;
        // Asked one after the other: a jump by a table takes longer.
        let is_new = if found.whose == Whose::V4 {
            v4.fold_simple(shared, found, glance, time)
        } else if found.whose == Whose::Wide {
            v6.fold_simple(shared, found, glance, time)
        } else {
            None
        };
        let Some(is_new) = is_new else {
            return false;
        };
        let flags = glance.flags;
        if (flags.syn() || flags.fin() || is_new) && vantage.path != outbound() {
            self.paths.learn_at(found.places, glance, time);
        }
        true
    }

    /// Takes a segment in that is no reset.
    #[inline(never)]
    fn take_in(&mut self, found: &Announced, seen: Seen<'_>) -> Taken {
        let (time, vantage, segment) = seen;
        // What a capture's table takes in is never simple.
        if matches!(self.tables, Tables::Capture(_)) {
            return self.take_in_captured(found, seen);
        }
        if self.observe_glance(time, vantage, &Glance::of(segment), found) {
            return Taken::Alone;
        }
        let (hash, side) = (found.hash, found.side);
        let paths = &mut self.paths;
        match (&mut self.tables, found.whose) {
            (Tables::Live(live), Whose::V4) => {
                let (key, shared) = (found.ipv4_key(), &mut live.shared);
                take_in(&mut live.v4, shared, paths, (&key, side, hash), seen)
            }
            (Tables::Live(live), Whose::Wide) => {
                let (key, shared) = (found.wide_key(), &mut live.shared);
                take_in(&mut live.v6, shared, paths, (key, side, hash), seen)
            }
            (Tables::Live(_), Whose::Captured | Whose::Unknown) => self.take_in_unknown(seen),
            (Tables::Capture(_), _) => self.take_in_captured(found, seen),
        }
    }

    /// A segment that was not announced.
    #[inline(never)]
    fn take_in_unknown(&mut self, seen: Seen<'_>) -> Taken {
        let mut found = Announced::NONE;
        found.find_out(&seen.2.tuple, &Finder::new(self.secret, &self.paths));
        self.take_in(&found, seen)
    }

    /// Who reads a capture hears of every SYN.
    #[inline(never)]
    fn take_in_captured(&mut self, found: &Announced, seen: Seen<'_>) -> Taken {
        let Tables::Capture(captured) = &mut self.tables else {
            return Taken::Alone;
        };
        let tuple = &seen.2.tuple;
        let (key, side) = FlowKey::of(*tuple);
        let hash = found.hash_of(&key, self.secret);
        let paths = &mut self.paths;
        match take_in(&mut **captured, &mut (), paths, (&key, side, hash), seen) {
            Taken::BeginsAnew => Taken::Alone,
            taken => taken,
        }
    }
}

const fn outbound() -> Path {
    Path::Egress { forwarded: false }
}

/// Takes a segment in that is no reset.
fn take_in<S: FlowStore>(
    store: &mut S,
    shared: &mut S::Shared,
    paths: &mut PathTable,
    (key, side, hash): (&S::Key, Side, u64),
    (time, vantage, segment): Seen<'_>,
) -> Taken {
    let Some((place, is_new)) = store.entry(shared, key, hash, time) else {
        return Taken::Alone;
    };
    let folded = fold_fully(store, shared, place, (side, is_new), segment, time);
    let Some((is_folded, begins_anew)) = folded else {
        return Taken::AfterReset;
    };
    let begins_or_ends = segment.flags.syn() || segment.flags.fin() || is_new;
    if is_folded && begins_or_ends && vantage.path != outbound() {
        paths.learn(segment, time);
    }
    if begins_anew {
        Taken::BeginsAnew
    } else {
        Taken::Alone
    }
}

/// Folds a segment in by the general way; whether it entered a baseline, and whether it begins another connection
/// where one was reset. `None` when its sender is said to have sent a reset before.
fn fold_fully<S: FlowStore>(
    store: &mut S,
    shared: &mut S::Shared,
    place: S::Place,
    (side, is_new): (Side, bool),
    segment: &Segment,
    time: Timestamp,
) -> Option<(bool, bool)> {
    if segment.flags.syn() && !is_new {
        store.note_handshake(place, side, segment, time);
    }
    let opens_anew = !is_new && fold::opens_anew(store, shared, (place, side), segment, time);
    let begins_anew = opens_anew && store.state(place, time).has_reset();
    if opens_anew {
        store.reopen(shared, place, time);
    }
    if store.state(place, time).reset_from[side.index()] {
        if fold::accepts_after_all(store, shared, (place, side), segment, time) {
            fold::thaw(store, (place, side), time);
            fold::fold(store, shared, (place, side), segment, time);
        }
        return None;
    }
    let is_folded = fold::fold(store, shared, (place, side), segment, time);
    Some((is_folded, begins_anew))
}

//! Connections that were opened a moment ago, as far as the ring buffer tells: a reset that came before may
//! be heard after them, since it took the way through a worker. What follows on its four-tuple is then the
//! next connection's and holds nothing against it. Bounded; live only.

use std::collections::VecDeque;

use crate::flow::{FlowKey, Side};
use crate::time::{MILLISECOND, Timestamp};
use crate::wire::SeqNum;

/// How long a reset may be heard after what came behind it: a turn of the engine's thread and one of the
/// worker's, and as much again.
const LATE_NS: u64 = 50 * MILLISECOND;

/// How many are kept: those of 50 ms at 40,000 handshakes a second, told twice each. Of more the oldest go.
const KEPT: usize = 4096;

/// By what a connection is known to be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// A SYN asks for it. One with the ISN of the connection that was reset is that one's, sent again.
    Asked {
        /// Who sent it.
        opener: Side,
        /// Its sequence number.
        isn: SeqNum,
    },
    /// A SYN came in which a worker's flow table took for another connection's. Of this host's own connections it
    /// is told whether they agreed to it; of those that are routed nothing else may be seen.
    CameIn,
    /// This host agreed: its SYN-ACK left, or the kernel says that the handshake is complete.
    Agreed {
        /// Who sent the SYN.
        opener: Side,
        /// The number of that SYN, where the SYN-ACK tells it.
        isn: Option<SeqNum>,
    },
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Opening {
    pub(super) time: Timestamp,
    pub(super) how: How,
}

/// Those of the last moment, in the order of time: kernel and workers are heard in turns, and CPUs write to the
/// ring buffer at once, so that some are heard late.
#[derive(Debug, Default)]
pub(super) struct Openings(VecDeque<(FlowKey, Opening)>);

impl Openings {
    pub(super) fn note(&mut self, key: FlowKey, opening: Opening) {
        let is_old = |time: Timestamp| opening.time.since(time) > LATE_NS;
        while self.0.len() >= KEPT || self.0.front().is_some_and(|(_, first)| is_old(first.time)) {
            self.0.pop_front();
        }
        let later = self.0.iter().rev();
        let later = later.take_while(|(_, other)| other.time > opening.time);
        let place = self.0.len() - later.count();
        self.0.insert(place, (key, opening));
    }

    /// Those of a four-tuple after `time`, the last one first.
    pub(super) fn after(&self, key: &FlowKey, time: Timestamp) -> impl Iterator<Item = Opening> {
        let lately = self.0.iter().rev();
        lately
            .take_while(move |(_, opening)| opening.time > time)
            .filter(move |(other, _)| other == key)
            .map(|(_, opening)| *opening)
    }

    /// Who opened the last one after `time` that this host agreed to, and when.
    pub(super) fn agreed_after(&self, key: &FlowKey, time: Timestamp) -> Option<(Side, Timestamp)> {
        self.after(key, time).find_map(|opening| match opening.how {
            How::Agreed { opener, .. } => Some((opener, opening.time)),
            How::Asked { .. } | How::CameIn => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{How, KEPT, LATE_NS, Opening, Openings};
    use crate::evidence::testing::Scene;
    use crate::flow::{FlowKey, Side};
    use crate::time::{MILLISECOND, Timestamp};

    fn at(ns: u64) -> Opening {
        Opening {
            time: Timestamp::from_nanos(ns),
            how: How::Agreed {
                opener: Side::Low,
                isn: None,
            },
        }
    }

    fn keys() -> [FlowKey; 2] {
        let tuple = Scene::established().resets[0].segment.tuple;
        let other = crate::wire::FourTuple {
            src_port: tuple.src_port ^ 1,
            ..tuple
        };
        [tuple, other].map(|tuple| FlowKey::of(tuple).0)
    }

    #[test]
    fn those_of_one_four_tuple_after_a_time_are_found_however_late_another_was_heard() {
        let [key, other] = keys();
        let mut openings = Openings::default();
        let late = 5 * MILLISECOND;
        for (key, ns) in [
            (key, 100),
            (other, 200),
            (key, late + 300),
            (key, late + 250),
            (other, 50),
        ] {
            openings.note(key, at(ns));
        }
        let after = |ns| -> Vec<_> {
            let found = openings.after(&key, Timestamp::from_nanos(ns));
            found.map(|opening| opening.time.as_nanos()).collect()
        };
        assert_eq!(after(50), [late + 300, late + 250, 100]);
        assert_eq!(after(late + 249), [late + 300, late + 250]);
        assert_eq!(after(late + 300), [0; 0]);
    }

    #[test]
    fn no_more_are_kept_than_a_moment_s() {
        let [key, _] = keys();
        let mut openings = Openings::default();
        (0..KEPT as u64 + 9).for_each(|ns| openings.note(key, at(ns)));
        assert_eq!(openings.0.len(), KEPT);
        openings.note(key, at(LATE_NS + KEPT as u64 + 9));
        assert_eq!(openings.0.len(), 1);
    }
}

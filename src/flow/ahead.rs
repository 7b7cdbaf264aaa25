//! What is asked of memory before it is needed. A segment that was announced finds its flow near when
//! it is observed. Changes nothing that anybody could see, and waits for nothing.

use super::hash::hash_of;
use super::tracker::{Tables, Tracker};
use crate::wire::Segment;

/// How many segments lie between asking for a flow's tags and reading them: some hundred
/// nanoseconds, in which they come from memory.
const AHEAD: usize = 16;

/// The segments that were announced last, whose tags are on their way: hash, and whether it is IPv4.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    known: [(u64, bool); AHEAD],
    count: usize,
}

impl Ahead {
    /// Takes one in; answers with the one that was announced [`AHEAD`] before it.
    #[inline]
    fn push(&mut self, new: (u64, bool)) -> Option<(u64, bool)> {
        let place = self.known.get_mut(self.count % AHEAD)?;
        let earlier = std::mem::replace(place, new);
        self.count += 1;
        (self.count > AHEAD).then_some(earlier)
    }
}

impl Tracker {
    /// A segment will be observed soon: brings near what is known of it, where memory is far. First
    /// its tags and its address; its flow, which the tags lead to, when sixteen more were announced.
    /// So each line is asked for while others are under way, and nothing is waited for.
    #[inline]
    pub fn announce(&mut self, segment: &Segment) {
        let (hash, is_ipv4) = hash_of(&segment.tuple, self.secret);
        match &self.tables {
            Tables::Live(live) if is_ipv4 => live.v4.warm_tags(hash),
            Tables::Live(live) => live.v6.warm_tags(hash),
            Tables::Capture(captured) => captured.warm_tags(hash),
        }
        self.paths.warm(segment.tuple.src);
        if let Some(earlier) = self.ahead.push((hash, is_ipv4)) {
            self.warm_flow(earlier);
        }
    }

    /// No more segments come before those that were announced.
    pub fn announced(&mut self) {
        let ahead = std::mem::take(&mut self.ahead);
        for known in ahead.known.into_iter().take(ahead.count) {
            self.warm_flow(known);
        }
    }

    /// Announces all of these.
    pub fn warm<'a>(&mut self, segments: impl Iterator<Item = &'a Segment>) {
        segments.for_each(|segment| self.announce(segment));
        self.announced();
    }

    #[inline]
    fn warm_flow(&self, (hash, is_ipv4): (u64, bool)) {
        match &self.tables {
            Tables::Live(live) if is_ipv4 => live.v4.warm_flow(hash),
            Tables::Live(live) => live.v6.warm_flow(hash),
            Tables::Capture(captured) => captured.warm_flow(hash),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{AHEAD, Ahead};

    #[test]
    fn each_announced_segment_comes_back_once_in_order_and_the_last_ones_stay() {
        let mut ahead = Ahead::default();
        let back: Vec<u64> = (0..64)
            .filter_map(|hash| ahead.push((hash, true)))
            .map(|(hash, _)| hash)
            .collect();
        assert_eq!(back, (0..64 - AHEAD as u64).collect::<Vec<_>>());
        let mut left = ahead.known.map(|(hash, _)| hash);
        left.sort_unstable();
        assert!(left.into_iter().eq(64 - AHEAD as u64..64));
    }
}

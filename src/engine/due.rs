//! What is to be looked at, and when: in the order of these times, and of one time in the order in which
//! it came. Nearly everything is put in with the same delay, so that it comes in order: queues that
//! are in order already take it, and a heap the rest.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use crate::flow::FlowKey;
use crate::time::Timestamp;

/// One queue for each delay that is usual: until an episode settles, and while it lingers. (Two more for what a
/// further reset puts off, which comes nearly in order, cost more than they saved the heap.)
const LANES: usize = 2;

/// When, the how-manieth, and what.
type Entry = (Timestamp, u64, FlowKey);

/// Flows by the time at which to look at them.
#[derive(Debug, Default)]
pub(super) struct Due {
    /// Each in order.
    lanes: [VecDeque<Entry>; LANES],
    /// What came out of order.
    others: BinaryHeap<Reverse<Entry>>,
    count: u64,
    /// Before this there is nothing: time passes with every packet, and seldom anything is due.
    none_before: Timestamp,
}

impl Due {
    /// Puts a flow in.
    pub(super) fn push(&mut self, time: Timestamp, key: FlowKey) {
        self.count += 1;
        self.none_before = self.none_before.min(time);
        let entry = (time, self.count, key);
        let fits = |lane: &&mut VecDeque<Entry>| lane.back().is_none_or(|last| last.0 <= time);
        // The fullest that it fits behind: a short delay shall not shut the queue of the long one.
        match self
            .lanes
            .iter_mut()
            .filter(fits)
            .max_by_key(|lane| lane.back().map(|e| e.0))
        {
            Some(lane) => lane.push_back(entry),
            None => self.others.push(Reverse(entry)),
        }
    }

    /// The first, if its time has come by `now`.
    #[inline]
    pub(super) fn pop(&mut self, now: Timestamp) -> Option<FlowKey> {
        if now < self.none_before {
            return None;
        }
        self.pop_first(now)
    }

    #[inline(never)]
    fn pop_first(&mut self, now: Timestamp) -> Option<FlowKey> {
        let Some((first, at)) = self.first() else {
            self.none_before = Timestamp::from_nanos(u64::MAX);
            return None;
        };
        self.none_before = first;
        if first > now {
            return None;
        }
        let entry = match self.lanes.get_mut(at) {
            Some(lane) => lane.pop_front(),
            None => self.others.pop().map(|Reverse(entry)| entry),
        };
        entry.map(|(_, _, key)| key)
    }

    /// The time of the first, and in which lane it is; beyond the lanes, the heap.
    fn first(&self) -> Option<(Timestamp, usize)> {
        let heap = self.others.peek().map(|Reverse(entry)| entry);
        let mut first = heap.map(|entry| (entry.0, entry.1, LANES));
        for (at, lane) in self.lanes.iter().enumerate() {
            let Some((time, count, _)) = lane.front() else {
                continue;
            };
            if first.is_none_or(|first| (*time, *count) < (first.0, first.1)) {
                first = Some((*time, *count, at));
            }
        }
        first.map(|(time, _, at)| (time, at))
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    use super::Due;
    use crate::flow::FlowKey;
    use crate::time::Timestamp;
    use crate::wire::FourTuple;

    fn key(number: u16) -> FlowKey {
        FlowKey::of(FourTuple {
            src: "192.0.2.1".parse().unwrap(),
            src_port: number,
            dst: "198.51.100.1".parse().unwrap(),
            dst_port: 443,
        })
        .0
    }

    #[test]
    fn it_gives_out_what_a_heap_would() {
        let at = |ns: u64| Timestamp::from_nanos(ns);
        let (mut due, mut heap) = (Due::default(), BinaryHeap::new());
        let mut dice = 1_u64;
        for number in 0..4000_u16 {
            dice = dice.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            let now = u64::from(number) * 3;
            // Two delays, and now and then one that is neither, or a time that jumped back.
            let time = match dice >> 60 {
                0 => now / 2,
                1..4 => now + dice % 700,
                4..8 => now + 500,
                _ => now + 100,
            };
            due.push(at(time), key(number));
            heap.push(Reverse((at(time), number)));
            if number % 3 > 0 {
                let is_due = heap
                    .peek()
                    .is_some_and(|Reverse((time, _))| *time <= at(now));
                let meant = is_due.then(|| heap.pop()).flatten();
                assert_eq!(
                    due.pop(at(now)),
                    meant.map(|Reverse((_, number))| key(number))
                );
            }
        }
        while let Some(Reverse((_, number))) = heap.pop() {
            assert_eq!(due.pop(at(u64::MAX)), Some(key(number)));
        }
        assert_eq!(due.pop(at(u64::MAX)), None);
    }
}

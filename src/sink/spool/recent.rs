//! The last records of a spool on disk, in memory as well: a receiver that keeps up is served from here,
//! and the disk is only written to. It may forget anything at any time, since the disk has all of it.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::sink::entry::Entry;

/// Bytes of records that are kept: a tenth of a second of a flood, longer than a receiver that keeps up is
/// behind.
const RECENT_BYTES: usize = 4 << 20;

/// Records without a gap between their numbers.
#[derive(Debug, Default)]
pub(super) struct Recent {
    records: VecDeque<(u64, Arc<Entry>)>,
    bytes: usize,
}

impl Recent {
    /// Keeps a record; the oldest ones go when there is no room.
    pub(super) fn keep(&mut self, number: u64, record: &Arc<Entry>) {
        if self
            .records
            .back()
            .is_some_and(|(last, _)| last + 1 != number)
        {
            self.forget();
        }
        self.bytes += record.size();
        self.records.push_back((number, Arc::clone(record)));
        while self.bytes > RECENT_BYTES {
            self.pop();
        }
    }

    /// Hands out the records from `from` on, up to `count` of them and about `bytes` bytes, and forgets them
    /// and all before them; nothing when the first of them is not here.
    pub(super) fn take(&mut self, from: u64, count: usize, bytes: usize) -> Vec<(u64, Arc<Entry>)> {
        while self.records.front().is_some_and(|(first, _)| *first < from) {
            self.pop();
        }
        let mut taken = Vec::new();
        let mut size = 0;
        while taken.len() < count
            && size < bytes
            && self
                .records
                .front()
                .is_some_and(|(first, _)| *first == from + taken.len() as u64)
        {
            if let Some((number, record)) = self.pop() {
                size += record.size();
                taken.push((number, record));
            }
        }
        taken
    }

    fn pop(&mut self) -> Option<(u64, Arc<Entry>)> {
        let (number, record) = self.records.pop_front()?;
        self.bytes -= record.size();
        Some((number, record))
    }

    fn forget(&mut self) {
        self.records.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{RECENT_BYTES, Recent};
    use crate::sink::entry::Entry;

    fn record(bytes: usize) -> Arc<Entry> {
        Arc::new(Entry {
            body: vec![b'x'; bytes],
            ..Entry::BLANK
        })
    }

    fn numbers(taken: &[(u64, Arc<Entry>)]) -> Vec<u64> {
        taken.iter().map(|(number, _)| *number).collect()
    }

    #[test]
    fn records_are_handed_out_once_in_order_and_only_when_the_first_is_here() {
        let mut recent = Recent::default();
        (5..9).for_each(|number| recent.keep(number, &record(10)));
        assert!(
            recent.take(3, 9, 999).is_empty(),
            "3 and 4 are on disk only"
        );
        assert_eq!(numbers(&recent.take(5, 2, 999)), [5, 6]);
        assert!(recent.take(5, 2, 999).is_empty(), "they were forgotten");
        assert_eq!(numbers(&recent.take(7, 9, 1)), [7], "about so many bytes");
        assert_eq!(numbers(&recent.take(8, 9, 999)), [8]);
        assert_eq!(recent.bytes, 0);
    }

    #[test]
    fn a_gap_forgets_what_was_before_it_and_room_is_bounded() {
        let mut recent = Recent::default();
        recent.keep(1, &record(10));
        recent.keep(4, &record(10));
        assert!(recent.take(1, 9, 999).is_empty());
        assert_eq!(numbers(&recent.take(4, 9, 999)), [4]);
        (0..10).for_each(|number| recent.keep(number, &record(RECENT_BYTES / 4)));
        assert!(recent.bytes <= RECENT_BYTES && recent.records.len() == 3);
        recent.keep(10, &record(RECENT_BYTES));
        assert_eq!((recent.records.len(), recent.bytes), (0, 0));
    }
}

//! Coverage: what became of the frames of each interface in the last interval, from the counters
//! of `steer`, of the workers and of the ring buffer. Without it nobody can prove that a host did
//! not send a reset; so it must never claim more than was watched.

use crate::record::CoverageRecord;
use crate::time::Timestamp;
use crate::vantage::InterfaceId;

/// The running totals that one interface's coverage is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Totals {
    /// SYN, FIN and RST that a worker looked at, or that mirror mode copied.
    pub(super) observed: u64,
    /// Frames that were none of ours; mirror mode does not count them.
    pub(super) passed: Option<u64>,
    /// SYN, FIN and RST that passed by the workers.
    pub(super) bypassed: u64,
    /// Copies of headers that were taken.
    pub(super) copied: u64,
    /// Anything that the sensor should have seen and did not.
    pub(super) lost: u64,
}

/// The coverage of one interface, interval by interval.
#[derive(Debug)]
pub(super) struct Coverage {
    interface: InterfaceId,
    since: Timestamp,
    before: Totals,
    /// The interface was down, replaced, or its worker could not work, at some time since.
    gap: bool,
}

impl Coverage {
    pub(super) fn new(interface: InterfaceId, now: Timestamp, totals: Totals) -> Self {
        Self {
            interface,
            since: now,
            before: totals,
            gap: false,
        }
    }

    /// Something happened that made the sensor blind for a moment.
    pub(super) fn note_gap(&mut self) {
        self.gap = true;
    }

    /// Ends the interval.
    pub(super) fn close(&mut self, now: Timestamp, totals: Totals) -> CoverageRecord {
        let before = self.before;
        let lost = totals.lost.saturating_sub(before.lost);
        let record = CoverageRecord {
            sequence: 0,
            start: self.since,
            end: now,
            interface: self.interface,
            observed: totals.observed.saturating_sub(before.observed),
            passed: totals
                .passed
                .map(|passed| passed.saturating_sub(before.passed.unwrap_or_default())),
            bypassed: totals.bypassed.saturating_sub(before.bypassed),
            copied: totals.copied.saturating_sub(before.copied),
            lost,
            complete: lost == 0 && !self.gap,
        };
        self.since = now;
        self.before = totals;
        self.gap = false;
        record
    }
}

#[cfg(test)]
mod tests {
    use super::{Coverage, Totals};
    use crate::time::Timestamp;
    use crate::vantage::InterfaceId;

    #[test]
    fn an_interval_holds_its_own_frames_and_admits_its_losses() {
        let at = Timestamp::from_nanos;
        let mut coverage = Coverage::new(InterfaceId(1), at(5), Totals::default());
        let first = Totals {
            observed: 10,
            passed: Some(90),
            ..Totals::default()
        };
        let record = coverage.close(at(15), first);
        assert_eq!(
            (record.observed, record.passed, record.complete),
            (10, Some(90), true)
        );
        let second = Totals {
            observed: 11,
            lost: 1,
            ..first
        };
        let record = coverage.close(at(25), second);
        assert_eq!(
            (record.observed, record.lost, record.complete),
            (1, 1, false)
        );
        assert_eq!((record.start, record.end), (at(15), at(25)));
        coverage.note_gap();
        assert!(!coverage.close(at(35), second).complete);
        assert!(coverage.close(at(45), second).complete);
    }
}

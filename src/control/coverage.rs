//! Coverage: what became of the frames of each interface in the last interval, from the counters
//! of `steer`, of the workers and of the ring buffer. Without it nobody can prove that a host did
//! not send a reset; so it must never claim more than was watched. What the whole host lost is named in
//! one interface's record, and leaves no other one of that time complete.

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

/// What was lost of the whole host: nobody knows to which interface it belongs. The first record that
/// is closed after a loss names it, so that sums over interfaces are right.
#[derive(Debug, Default)]
pub(super) struct HostLosses {
    so_far: u64,
    named: u64,
}

impl HostLosses {
    /// The count as it is now. It never goes back.
    pub(super) fn update(&mut self, so_far: u64) {
        self.so_far = self.so_far.max(so_far);
    }

    /// What no record has named yet; from now on one has.
    fn name(&mut self) -> u64 {
        let unnamed = self.so_far - self.named;
        self.named = self.so_far;
        unnamed
    }
}

/// The coverage of one interface, interval by interval.
#[derive(Debug)]
pub(super) struct Coverage {
    interface: InterfaceId,
    since: Timestamp,
    before: Totals,
    /// What the host had lost when the interval began.
    host_before: u64,
    /// The interface was down, replaced, or its worker could not work, at some time since.
    gap: bool,
}

impl Coverage {
    pub(super) fn new(interface: InterfaceId, now: Timestamp, totals: Totals) -> Self {
        Self {
            interface,
            since: now,
            before: totals,
            host_before: 0,
            gap: false,
        }
    }

    /// Something happened that made the sensor blind for a moment.
    pub(super) fn note_gap(&mut self) {
        self.gap = true;
    }

    /// Ends the last interval, of which the totals may be unknown: then it is not complete.
    pub(super) fn close_last(
        &mut self,
        now: Timestamp,
        totals: Option<Totals>,
        host: &mut HostLosses,
    ) -> CoverageRecord {
        self.gap |= totals.is_none();
        self.close(now, totals.unwrap_or(self.before), host)
    }

    /// Ends the interval.
    pub(super) fn close(
        &mut self,
        now: Timestamp,
        totals: Totals,
        host: &mut HostLosses,
    ) -> CoverageRecord {
        let before = self.before;
        let own = totals.lost.saturating_sub(before.lost);
        let lost = own + host.name();
        let is_whole = host.so_far == self.host_before && !self.gap;
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
            complete: lost == 0 && is_whole,
        };
        self.since = now;
        self.before = totals;
        self.host_before = host.so_far;
        self.gap = false;
        record
    }
}

#[cfg(test)]
mod tests {
    use super::{Coverage, HostLosses, Totals};
    use crate::time::Timestamp;
    use crate::vantage::InterfaceId;

    #[test]
    fn an_interval_holds_its_own_frames_and_admits_its_losses() {
        let at = Timestamp::from_nanos;
        let mut coverage = Coverage::new(InterfaceId(1), at(5), Totals::default());
        let mut host = HostLosses::default();
        let first = Totals {
            observed: 10,
            passed: Some(90),
            ..Totals::default()
        };
        let record = coverage.close(at(15), first, &mut host);
        assert_eq!(
            (record.observed, record.passed, record.complete),
            (10, Some(90), true)
        );
        let second = Totals {
            observed: 11,
            lost: 1,
            ..first
        };
        let record = coverage.close(at(25), second, &mut host);
        assert_eq!(
            (record.observed, record.lost, record.complete),
            (1, 1, false)
        );
        assert_eq!((record.start, record.end), (at(15), at(25)));
        coverage.note_gap();
        assert!(!coverage.close(at(35), second, &mut host).complete);
        assert!(coverage.close(at(45), second, &mut host).complete);
    }

    #[test]
    fn what_the_host_lost_is_named_once_and_leaves_no_interface_complete() {
        let at = Timestamp::from_nanos;
        let mut host = HostLosses::default();
        let mut posts: Vec<Coverage> = (0..3)
            .map(|id| Coverage::new(InterfaceId(id), at(0), Totals::default()))
            .collect();
        let mut close = |now, lost_of_host| {
            host.update(lost_of_host);
            let records = posts
                .iter_mut()
                .map(|post| post.close(at(now), Totals::default(), &mut host));
            let told = records.map(|record| (record.lost, record.complete));
            told.collect::<Vec<_>>()
        };
        assert_eq!(close(10, 7), [(7, false), (0, false), (0, false)]);
        assert_eq!(close(20, 7), [(0, true); 3]);
        // A count that goes back for a moment neither hides a loss nor tells one twice.
        assert_eq!(close(30, 2), [(0, true); 3]);
        assert_eq!(close(40, 8), [(1, false), (0, false), (0, false)]);
    }

    #[test]
    fn a_loss_between_the_records_of_two_interfaces_is_in_both_their_times() {
        let at = Timestamp::from_nanos;
        let mut host = HostLosses::default();
        let mut first = Coverage::new(InterfaceId(0), at(0), Totals::default());
        let mut second = Coverage::new(InterfaceId(1), at(0), Totals::default());
        assert!(first.close(at(10), Totals::default(), &mut host).complete);
        host.update(3);
        let record = second.close(at(12), Totals::default(), &mut host);
        assert_eq!((record.lost, record.complete), (3, false));
        let record = first.close(at(20), Totals::default(), &mut host);
        assert_eq!((record.lost, record.complete), (0, false));
    }

    #[test]
    fn a_last_interval_of_unknown_totals_is_not_complete() {
        let at = Timestamp::from_nanos;
        let mut host = HostLosses::default();
        let mut coverage = Coverage::new(InterfaceId(0), at(0), Totals::default());
        let record = coverage.close_last(at(10), None, &mut host);
        assert_eq!((record.observed, record.complete), (0, false));
    }
}

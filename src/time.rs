//! Time as the core sees it: a number of nanoseconds that somebody else measured.
//!
//! The core never reads a clock. In `run` a [`Timestamp`] is CLOCK_MONOTONIC as the kernel stamped
//! the frame; in `read` it is the capture's own time. Only a difference has a meaning here; what
//! the epoch is, the composition knows (`record::Emission`).

use std::ops::Sub;

/// Nanoseconds in one second.
pub const SECOND: u64 = 1_000_000_000;
/// Nanoseconds in one microsecond.
pub const MICROSECOND: u64 = 1_000;
/// Nanoseconds in one millisecond.
pub const MILLISECOND: u64 = 1_000_000;

/// A point in time, in nanoseconds since an epoch that the source of the frames defines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// A time from its nanoseconds.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the source's epoch.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// This time and `nanos` more; stays at the end of time rather than wrap.
    #[must_use]
    pub const fn plus_nanos(self, nanos: u64) -> Self {
        Self(self.0.saturating_add(nanos))
    }

    /// Nanoseconds from `earlier` to `self`; 0 when `earlier` is in fact later, since frames of
    /// different queues reach us a little out of order.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// How far apart two times are, whichever came first.
    #[must_use]
    pub const fn distance(self, other: Self) -> u64 {
        self.0.abs_diff(other.0)
    }
}

impl Sub for Timestamp {
    type Output = u64;
    fn sub(self, earlier: Self) -> u64 {
        self.since(earlier)
    }
}

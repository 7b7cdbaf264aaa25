//! What is learned from, by all that remembers addresses: one segment of a connection's start or end.

use std::net::IpAddr;

use super::prefix::{MacWord, STALE_AFTER_NS};
use crate::time::Timestamp;
use crate::wire::Glance;

/// A segment, when it was heard, and what all ask of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Learned<'a> {
    segment: &'a Glance,
    pub(super) now: Timestamp,
    /// What was heard before that is stale.
    pub(super) fresh_from: Timestamp,
    /// The MAC that it came from.
    pub(super) mac: Option<MacWord>,
}

impl<'a> Learned<'a> {
    /// A segment that was heard just now.
    #[inline]
    pub(super) fn new(segment: &'a Glance, now: Timestamp) -> Self {
        let fresh_from = now.as_nanos().saturating_sub(STALE_AFTER_NS - 1);
        Self {
            segment,
            now,
            fresh_from: Timestamp::from_nanos(fresh_from),
            mac: MacWord::of(segment.link),
        }
    }

    #[inline]
    pub(super) const fn source(self) -> IpAddr {
        self.segment.tuple.src
    }

    #[inline]
    pub(super) const fn hop_limit(self) -> u8 {
        self.segment.hop_limit
    }

    /// It begins a flow.
    #[inline]
    pub(super) const fn opens_flow(self) -> bool {
        self.segment.flags.syn()
    }

    /// And does not answer another's beginning.
    #[inline]
    pub(super) const fn is_first(self) -> bool {
        self.opens_flow() && !self.segment.flags.ack()
    }
}

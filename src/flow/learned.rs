//! What is learned from, by all that remembers addresses: one segment of a connection's start or end.

use std::net::IpAddr;

use super::prefix::{MacWord, STALE_AFTER_NS};
use crate::time::Timestamp;
use crate::wire::Glance;

/// A segment, and when it was heard. In two words, to be handed on in registers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Learned<'a> {
    pub(super) segment: &'a Glance,
    pub(super) now: Timestamp,
}

impl Learned<'_> {
    #[inline]
    pub(super) const fn source(self) -> IpAddr {
        self.segment.tuple.src
    }

    #[inline]
    pub(super) const fn hop_limit(self) -> u8 {
        self.segment.hop_limit
    }

    /// The MAC that it came from.
    #[inline]
    pub(super) fn mac(self) -> Option<MacWord> {
        MacWord::of(self.segment.link)
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

    /// What was heard before that is stale: one comparison for each that is asked.
    #[inline]
    pub(super) const fn fresh_from(self) -> Timestamp {
        Timestamp::from_nanos(self.now.as_nanos().saturating_sub(STALE_AFTER_NS - 1))
    }
}

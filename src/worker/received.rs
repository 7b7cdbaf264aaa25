//! A batch as it came from the rings: where its frames stand, and what is counted of them.

use crossbeam::queue::ArrayQueue;

use super::waiting::enqueue;
use super::{Batch, Counters, META_BYTES, Parsed, Rings};
use crate::flow::Sighting;
use crate::wire::Reject;

/// What taking in a batch needs of a worker.
#[derive(Debug)]
pub(super) struct Received<'a, R: Rings> {
    pub(super) rings: &'a R,
    pub(super) frames: &'a mut [R::Frame],
    pub(super) sightings: &'a ArrayQueue<Sighting>,
    pub(super) counters: &'a mut Counters,
}

impl<R: Rings> Batch for Received<'_, R> {
    #[inline]
    fn frame(&self, at: usize) -> (&[u8], Option<&[u8]>) {
        let Some(frame) = self.frames.get(at) else {
            return (&[], None);
        };
        (self.rings.bytes(frame), self.rings.meta(frame, META_BYTES))
    }

    #[inline]
    fn was_read(&mut self, at: usize) {
        if let Some(frame) = self.frames.get_mut(at) {
            self.rings.clear_meta(frame);
        }
    }

    #[inline]
    fn told(&mut self, parsed: &Parsed, told: Result<(), Reject>) {
        self.counters.without_meta += u64::from(!parsed.had_meta);
        if let Err(reject) = told {
            self.counters.count_reject(reject);
        }
    }

    fn found(&mut self, sighting: Sighting) {
        if enqueue(self.sightings, sighting) {
            self.counters.sightings += 1;
        } else {
            self.counters.sightings_lost += 1;
        }
    }
}

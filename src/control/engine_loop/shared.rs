//! What the engine's thread shows to others while it runs: counts, and what the engine did. Nobody waits
//! for it: counts are read as they stand, and the rest is put down each 100 ms.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::engine::EngineCounters;
use crate::events::HostCounters;
use crate::flow::TableCounters;
use crate::vantage::InterfaceId;
use crate::worker::Buckets;

/// What the thread shows to others while it runs.
#[derive(Debug, Default)]
pub(in crate::control) struct EngineShared {
    pub(in crate::control) stop: AtomicBool,
    /// Ring buffer records lost so far.
    pub(in crate::control) lost: AtomicU64,
    /// Resets that found no room for an episode so far.
    pub(in crate::control) unjudged: AtomicU64,
    /// Times that the ring buffer could not be polled.
    pub(in crate::control) polls_failed: AtomicU64,
    /// Turns of the thread so far.
    pub(in crate::control) turns: AtomicU64,
    /// What the engine did, as of the last 100 ms.
    pub(in crate::control) numbers: Mutex<EngineNumbers>,
    /// From the last reset of an episode to its record.
    pub(in crate::control) verdicts_took: Buckets,
    /// SYN, FIN and RST that mirror mode copied, by `InterfaceId`.
    pub(in crate::control) mirrored: Box<[AtomicU64]>,
    /// Copies that told nothing: their headers are longer than what is copied of a frame (COPY_BYTES,
    /// bpf/shared.h), so that the segment is not in them; or they name no interface that is watched, which no
    /// program of ours does.
    pub(in crate::control) unread: AtomicU64,
    /// Some tc program of an interface was taken off by somebody else, by `InterfaceId`.
    pub(super) cut_off: Box<[AtomicBool]>,
}

impl EngineShared {
    pub(in crate::control) fn new(interfaces: usize) -> Self {
        Self {
            mirrored: (0..interfaces).map(|_| AtomicU64::new(0)).collect(),
            cut_off: (0..interfaces).map(|_| AtomicBool::new(false)).collect(),
            ..Self::default()
        }
    }

    /// What mirror mode copied at that interface so far.
    pub(in crate::control) fn mirrored(&self, id: InterfaceId) -> u64 {
        self.mirrored
            .get(usize::from(id.0))
            .map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Mirror mode copied one there.
    pub(super) fn note_mirrored(&self, id: InterfaceId) {
        if let Some(count) = self.mirrored.get(usize::from(id.0)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether a tc program of ours was found off that interface.
    pub(in crate::control) fn is_cut_off(&self, id: InterfaceId) -> bool {
        let cut_off = self.cut_off.get(usize::from(id.0));
        cut_off.is_some_and(|cut_off| cut_off.load(Ordering::Relaxed))
    }

    /// Everything that the sensor should have seen, judged and written, and did not, so far; without
    /// what the outputs lost.
    pub(in crate::control) fn missed(&self) -> u64 {
        let counts = [&self.lost, &self.unjudged, &self.polls_failed, &self.unread];
        let counts = counts.iter().map(|count| count.load(Ordering::Relaxed));
        counts.sum()
    }
}

/// What the engine did, for those who look at the sensor.
#[derive(Debug, Default, Clone)]
pub(in crate::control) struct EngineNumbers {
    pub(in crate::control) counters: EngineCounters,
    pub(in crate::control) table: TableCounters,
    pub(in crate::control) host: HostCounters,
    pub(in crate::control) causes: Causes,
}

/// Records by verdict and cause.
pub(in crate::control) type Causes = BTreeMap<(&'static str, &'static str), u64>;

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::EngineShared;

    #[test]
    fn whatever_was_not_seen_or_not_judged_is_missed() {
        let shared = EngineShared::new(1);
        assert_eq!(shared.missed(), 0);
        let counts = [
            &shared.lost,
            &shared.unjudged,
            &shared.polls_failed,
            &shared.unread,
        ];
        for (at, count) in counts.into_iter().enumerate() {
            count.store(1 << at, Ordering::Relaxed);
        }
        assert_eq!(shared.missed(), 0b1111);
    }
}

//! What a worker counts, and how others read it while it runs. The worker keeps plain numbers and
//! publishes them once a turn; readers get each number as of some recent turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use crossbeam::utils::CachePadded;

use super::buckets::Buckets;
use super::news::News;
use super::rings::Balance;
use crate::flow::TableCounters;
use crate::sys::{Bell, RxLosses};
use crate::wire::Reject;

/// How many numbers [`Counters`] holds.
const COUNTERS: usize = 25;

/// What one worker did since its start. All but `rejects` count frames unless said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Taken out of the RX ring.
    pub received: u64,
    /// Put into the TX ring, or given live.
    pub handed_back: u64,
    /// That came back over the completion ring, or were given live: the stack is done with their
    /// memory.
    pub completed: u64,
    /// Given to the host live, in bursts.
    pub live: u64,
    /// Bursts that failed: their frames were sent by the veth as well, and the host may have got
    /// some of them twice.
    pub live_failed: u64,
    /// That are not TCP segments, by [`Reject`] in the order of [`Reject::ALL`]. They were handed
    /// back as all others.
    pub rejects: [u64; Reject::ALL.len()],
    /// Without metadata of `steer`: the worker's clock stood in.
    pub without_meta: u64,
    /// Sightings that went to the engine.
    pub sightings: u64,
    /// Sightings lost because the engine's queue was full.
    pub sightings_lost: u64,
    /// Turns in which the TX ring had no room. Must be 0.
    pub tx_full: u64,
    /// System calls that sent.
    pub wakes: u64,
    /// Lost on the hand-back veth: the kernel dropped them at our send.
    pub handback_dropped: u64,
    /// Sends that failed for a reason not foreseen.
    pub handback_errors: u64,
    /// Times that the gate was closed because handing back did not work.
    pub handback_stuck: u64,
    /// Redirected but never received; their credit was written off. At most the kernel's losses.
    pub credit_written_off: u64,
    /// Times that more credit had been given back than taken, and the gate was set right.
    pub credit_resynced: u64,
    /// The kernel's count of frames lost before the RX ring, as [`RxLosses`] has it.
    pub losses: RxLosses,
}

impl Counters {
    fn to_array(self) -> [u64; COUNTERS] {
        let [r0, r1, r2, r3, r4, r5] = self.rejects;
        [
            self.received,
            self.handed_back,
            self.completed,
            self.live,
            self.live_failed,
            r0,
            r1,
            r2,
            r3,
            r4,
            r5,
            self.without_meta,
            self.sightings,
            self.sightings_lost,
            self.tx_full,
            self.wakes,
            self.handback_dropped,
            self.handback_errors,
            self.handback_stuck,
            self.credit_written_off,
            self.credit_resynced,
            self.losses.dropped,
            self.losses.ring_full,
            self.losses.fill_ring_empty,
            self.losses.invalid_descs,
        ]
    }

    const fn from_array(array: [u64; COUNTERS]) -> Self {
        let [
            received,
            handed_back,
            completed,
            live,
            live_failed,
            r0,
            r1,
            r2,
            r3,
            r4,
            r5,
            without_meta,
            sightings,
            sightings_lost,
            tx_full,
            wakes,
            handback_dropped,
            handback_errors,
            handback_stuck,
            credit_written_off,
            credit_resynced,
            dropped,
            ring_full,
            fill_ring_empty,
            invalid_descs,
        ] = array;
        Self {
            received,
            handed_back,
            completed,
            live,
            live_failed,
            rejects: [r0, r1, r2, r3, r4, r5],
            without_meta,
            sightings,
            sightings_lost,
            tx_full,
            wakes,
            handback_dropped,
            handback_errors,
            handback_stuck,
            credit_written_off,
            credit_resynced,
            losses: RxLosses {
                dropped,
                ring_full,
                fill_ring_empty,
                invalid_descs,
            },
        }
    }

    /// Frames that went missing between the XDP program and the host, as far as the worker can
    /// know. 0 when all is well.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.handback_dropped + self.losses.dropped + self.losses.ring_full
    }

    pub(super) fn count_reject(&mut self, reject: Reject) {
        if let Some(counter) = self.rejects.get_mut(reject as usize) {
            *counter += 1;
        }
    }
}

/// How a worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Health {
    /// Made, but its thread has not opened the gate yet.
    Starting = 0,
    /// Frames come in and go back.
    Running = 1,
    /// Frames cannot be handed back now: the gate is closed, traffic passes in the kernel, and the
    /// worker tries again.
    Stuck = 2,
    /// One of its interfaces was removed: the gate is closed for good; only a new worker helps.
    Gone = 3,
    /// Its thread has ended.
    Stopped = 4,
}

impl Health {
    const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Starting,
            1 => Self::Running,
            2 => Self::Stuck,
            3 => Self::Gone,
            _ => Self::Stopped,
        }
    }
}

/// What a worker and the rest of the program share: an order to stop, news, and what it tells of
/// itself.
#[derive(Debug, Default)]
pub struct Shared {
    stop: CachePadded<AtomicBool>,
    health: CachePadded<AtomicU8>,
    pinned: AtomicBool,
    in_flight: AtomicU64,
    balance: [AtomicU32; 5],
    counters: CachePadded<[AtomicU64; COUNTERS]>,
    table: [AtomicU64; 7],
    away: Buckets,
    pub(super) news: News,
    /// At which who takes the sightings sleeps.
    bell: Option<Arc<Bell>>,
}

impl Shared {
    /// For a worker that is about to start.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// For a worker that rings there when it has left sightings.
    #[must_use]
    pub fn with_bell(bell: Arc<Bell>) -> Self {
        Self {
            bell: Some(bell),
            ..Self::default()
        }
    }

    /// Sightings wait: wakes who takes them if it sleeps long.
    pub(super) fn wake_engine(&self) {
        if let Some(bell) = &self.bell {
            bell.ring();
        }
    }

    /// Tells the worker to close its gate, hand everything back, and end.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// Whether it was told to stop.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// How the worker is.
    #[must_use]
    pub fn health(&self) -> Health {
        Health::from_number(self.health.load(Ordering::Acquire))
    }

    /// Whether the thread runs on the CPU that it was given.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        self.pinned.load(Ordering::Relaxed)
    }

    /// The worker's counters as of a recent turn.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut array = [0; COUNTERS];
        for (to, from) in array.iter_mut().zip(self.counters.iter()) {
            *to = from.load(Ordering::Relaxed);
        }
        Counters::from_array(array)
    }

    /// Who had the worker's frames at a recent turn's end. Parts may be of different turns.
    #[must_use]
    pub fn balance(&self) -> Balance {
        let [free, receiving, held, sending, frame_count] = self
            .balance
            .each_ref()
            .map(|part| part.load(Ordering::Relaxed));
        Balance {
            free,
            receiving,
            held,
            sending,
            frame_count,
        }
    }

    /// Frames for which `steer` had taken credit at a recent turn's end.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// How long frames were away from the host.
    #[must_use]
    pub const fn away(&self) -> &Buckets {
        &self.away
    }

    /// What the worker's flow table did, as of the last 100 ms.
    #[must_use]
    pub fn table(&self) -> TableCounters {
        let [
            live,
            inserted,
            reused,
            evicted_probation,
            evicted_connections,
            ends_lost,
            looks_refused,
        ] = self
            .table
            .each_ref()
            .map(|part| part.load(Ordering::Relaxed));
        TableCounters {
            live,
            inserted,
            reused,
            evicted_probation,
            evicted_connections,
            ends_lost,
            looks_refused,
        }
    }

    pub(super) fn publish_table(&self, table: TableCounters) {
        let parts = [
            table.live,
            table.inserted,
            table.reused,
            table.evicted_probation,
            table.evicted_connections,
            table.ends_lost,
            table.looks_refused,
        ];
        for (to, from) in self.table.iter().zip(parts) {
            to.store(from, Ordering::Relaxed);
        }
    }

    pub(super) fn set_health(&self, health: Health) {
        self.health.store(health as u8, Ordering::Release);
    }

    pub(super) fn set_pinned(&self, pinned: bool) {
        self.pinned.store(pinned, Ordering::Relaxed);
    }

    pub(super) fn publish(&self, counters: Counters, balance: Balance, in_flight: i64) {
        for (to, from) in self.counters.iter().zip(counters.to_array()) {
            to.store(from, Ordering::Relaxed);
        }
        let parts = [
            balance.free,
            balance.receiving,
            balance.held,
            balance.sending,
            balance.frame_count,
        ];
        for (to, from) in self.balance.iter().zip(parts) {
            to.store(from, Ordering::Relaxed);
        }
        self.in_flight
            .store(u64::try_from(in_flight).unwrap_or(0), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::{COUNTERS, Counters, Health, Shared};
    use crate::wire::Reject;
    use crate::worker::Balance;

    #[test]
    fn every_counter_survives_the_way_through_the_shared_cells() {
        let mut array = [0; COUNTERS];
        for (value, slot) in (1..).zip(array.iter_mut()) {
            *slot = value;
        }
        let counters = Counters::from_array(array);
        assert_eq!(counters.to_array(), array);
        let shared = Shared::new();
        let balance = Balance {
            free: 1,
            receiving: 2,
            held: 3,
            sending: 4,
            frame_count: 10,
        };
        shared.publish(counters, balance, 7);
        assert_eq!(shared.counters(), counters);
        assert_eq!(shared.balance(), balance);
        assert_eq!(shared.in_flight(), 7);
    }

    /// Two lines, since processors fetch them in pairs.
    const LINES: usize = 128;

    #[test]
    fn no_two_workers_write_on_one_cache_line_nor_does_who_reads_them() {
        assert!(align_of::<Shared>().is_multiple_of(LINES));
        assert!(size_of::<Shared>().is_multiple_of(LINES));
        // What others write, and what the worker asks every turn.
        let stop = offset_of!(Shared, stop) / LINES;
        for written in [
            offset_of!(Shared, health),
            offset_of!(Shared, pinned),
            offset_of!(Shared, in_flight),
            offset_of!(Shared, balance),
            offset_of!(Shared, counters),
            offset_of!(Shared, table),
            offset_of!(Shared, away),
        ] {
            assert_ne!(written / LINES, stop);
        }
    }

    #[test]
    fn each_reject_has_its_own_counter_in_the_order_of_all() {
        for (index, reject) in Reject::ALL.into_iter().enumerate() {
            let mut counters = Counters::default();
            counters.count_reject(reject);
            assert_eq!(counters.rejects[index], 1);
            assert_eq!(counters.rejects.iter().sum::<u64>(), 1);
        }
    }

    #[test]
    fn health_survives_its_number() {
        let shared = Shared::new();
        assert_eq!(shared.health(), Health::Starting);
        for health in [
            Health::Running,
            Health::Stuck,
            Health::Gone,
            Health::Stopped,
        ] {
            shared.set_health(health);
            assert_eq!(shared.health(), health);
        }
    }
}

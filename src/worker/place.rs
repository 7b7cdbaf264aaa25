//! Where and how soon a worker's thread runs: its CPU and its share of it. Refuses nothing and fails
//! silently: without either, frames wait longer where the CPU is busy.
//!
//! Frames that come singly find the worker best where their queue is polled: that CPU is awake and has them
//! near, and the host's stack gets them where it would have. Which one it is `steer` sees; no interface is
//! asked, since few tell. In a rush it would take from that CPU what polling needs: then the worker goes back
//! to one that only the queue's number chose.

use rustix::thread::CpuSet;

/// Niceness of a worker: nine times the share of another thread (`sched_prio_to_weight`), so that on a
/// CPU with five busy ones two thirds are its own if it needs them. Not more, since under a flood it
/// must not starve the proxy: the gate lets pass what it cannot take.
const NICE: i32 = -10;

/// Frames of a period that are a rush, 20,000 a second: each of them may wake the worker for some 5 us,
/// a tenth of the CPU.
const RUSH: u64 = 2_000;

/// Periods without a rush until the worker may leave its own CPU again: a second, so that a load about that
/// bound does not move it to and fro.
const CALM: u8 = 10;

/// Periods in a row that one CPU must have polled the queue at their ends: half a second, since a veth is
/// polled by whoever sends.
const STEADY: u8 = 5;

/// Asks for more than an even share of a busy CPU, unless somebody chose a niceness for this process.
/// Needs CAP_SYS_NICE; threads made afterwards inherit what was granted.
/// The host's handshakes wait for this thread, and it sleeps but for them.
pub fn hurry() {
    if rustix::process::getpriority_process(None).is_ok_and(|nice| nice == 0) {
        let _ = rustix::process::setpriority_process(None, NICE);
    }
}

/// The CPU that a worker's thread is bound to, and the one where it should be.
#[derive(Debug)]
pub(super) struct Place {
    /// The one that it was given at its start.
    own: u32,
    here: u32,
    wished: u32,
    /// Those that it may use.
    allowed: CpuSet,
    /// Which one polled the queue at the end of the last period with frames, and of how many before.
    polled_by: u32,
    times: u8,
    calm: u8,
}

impl Place {
    /// Binds this thread to `cpu`; `None` when that did not work.
    pub(super) fn take(cpu: u32) -> Option<Self> {
        let allowed = rustix::thread::sched_getaffinity(None).ok()?;
        bind(cpu).then_some(Self {
            own: cpu,
            here: cpu,
            wished: cpu,
            allowed,
            polled_by: cpu,
            times: 0,
            calm: 0,
        })
    }

    /// A period has ended in which `frames` were redirected, the last one by `cpu`.
    pub(super) fn note(&mut self, frames: u64, cpu: u32) {
        if frames >= RUSH {
            self.calm = 0;
            self.times = 0;
            self.wished = self.own;
            return;
        }
        self.calm = self.calm.saturating_add(1);
        if frames == 0 {
            return;
        }
        self.times = match self.polled_by == cpu {
            true => self.times.saturating_add(1),
            false => 1,
        };
        self.polled_by = cpu;
        let is_allowed = (cpu as usize) < CpuSet::MAX_CPU && self.allowed.is_set(cpu as usize);
        if is_allowed && self.times >= STEADY && self.calm >= CALM {
            self.wished = cpu;
        }
    }

    /// Whether it should be elsewhere.
    #[inline]
    pub(super) const fn is_to_move(&self) -> bool {
        self.wished != self.here
    }

    /// Goes there: only while no frame of this thread is on its way to the host's stack, which might be
    /// overtaken. Answers the CPU, or `None` when it is not free to go: somebody else has bound it since, or
    /// took the CPU away.
    pub(super) fn go(&mut self) -> Option<u32> {
        let bound = rustix::thread::sched_getaffinity(None).ok()?;
        if bound != only(self.here)? || !bind(self.wished) {
            return None;
        }
        self.here = self.wished;
        Some(self.here)
    }
}

fn only(cpu: u32) -> Option<CpuSet> {
    if cpu as usize >= CpuSet::MAX_CPU {
        return None;
    }
    let mut set = CpuSet::new();
    set.set(cpu as usize);
    Some(set)
}

/// Binds this thread to `cpu`; answers whether that worked.
fn bind(cpu: u32) -> bool {
    only(cpu).is_some_and(|set| rustix::thread::sched_setaffinity(None, &set).is_ok())
}

#[cfg(test)]
mod tests {
    use super::{CALM, Place, RUSH, STEADY};
    use rustix::thread::CpuSet;

    /// A worker that was given CPU 0 and may use it and CPU 2.
    fn place() -> Place {
        let mut allowed = CpuSet::new();
        allowed.set(0);
        allowed.set(2);
        Place {
            own: 0,
            here: 0,
            wished: 0,
            allowed,
            polled_by: 0,
            times: 0,
            calm: 0,
        }
    }

    fn note(place: &mut Place, periods: u8, frames: u64, cpu: u32) {
        (0..periods).for_each(|_| place.note(frames, cpu));
    }

    #[test]
    fn it_goes_where_its_queue_is_polled_once_that_is_steady() {
        let mut place = place();
        note(&mut place, CALM, 0, 2);
        note(&mut place, STEADY - 1, 9, 2);
        assert!(!place.is_to_move());
        note(&mut place, 1, 9, 2);
        assert_eq!((place.is_to_move(), place.wished), (true, 2));
        place.here = 2;
        note(&mut place, STEADY, 9, 0);
        assert_eq!(place.wished, 0);
    }

    #[test]
    fn it_stays_where_whoever_sends_polls_the_queue() {
        let mut place = place();
        for _ in 0..20 {
            note(&mut place, STEADY - 1, 9, 2);
            note(&mut place, 1, 9, 0);
        }
        assert!(!place.is_to_move());
    }

    #[test]
    fn periods_without_frames_say_nothing_of_where_it_is_polled() {
        let mut place = place();
        note(&mut place, CALM, 9, 0);
        note(&mut place, STEADY - 1, 9, 2);
        note(&mut place, 100, 0, 2);
        assert!(!place.is_to_move());
        note(&mut place, 1, 9, 2);
        assert!(place.is_to_move());
    }

    #[test]
    fn it_does_not_go_to_a_cpu_that_it_may_not_use() {
        let mut place = place();
        for cpu in [1, 3, 1 << 20] {
            note(&mut place, CALM, 9, cpu);
            assert!(!place.is_to_move(), "{cpu}");
        }
    }

    #[test]
    fn in_a_rush_it_is_on_its_own_cpu_and_for_a_second_after_it() {
        let mut place = place();
        note(&mut place, CALM, 9, 2);
        place.here = 2;
        note(&mut place, 1, RUSH, 2);
        assert_eq!((place.is_to_move(), place.wished), (true, 0));
        place.here = 0;
        note(&mut place, CALM - 1, RUSH - 1, 2);
        assert!(!place.is_to_move());
        note(&mut place, 1, RUSH - 1, 2);
        assert_eq!(place.wished, 2);
    }

    #[test]
    fn who_was_bound_by_somebody_else_stays_there() {
        let before = rustix::thread::sched_getaffinity(None).unwrap();
        let mut cpus = (0..CpuSet::MAX_CPU).filter(|cpu| before.is_set(*cpu));
        let first = u32::try_from(cpus.next().unwrap()).unwrap();
        let last = u32::try_from(cpus.next_back().unwrap_or(first as usize)).unwrap();
        let mut place = Place::take(first).unwrap();
        place.wished = last;
        assert_eq!(place.go(), Some(last));
        place.here = last + 1;
        place.wished = first;
        assert_eq!(place.go(), None);
        let bound = rustix::thread::sched_getaffinity(None).unwrap();
        assert_eq!(Some(bound), super::only(last));
    }
}

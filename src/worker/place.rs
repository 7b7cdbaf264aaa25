//! Where and how soon a worker's thread runs: its CPU and its share of it. Refuses nothing and fails
//! silently: without either, frames wait longer where the CPU is busy.

use rustix::thread::CpuSet;

/// Niceness of a worker: nine times the share of another thread (`sched_prio_to_weight`), so that on a
/// CPU with five busy ones two thirds are its own if it needs them. Not more, since under a flood it
/// must not starve the proxy: the gate lets pass what it cannot take.
const NICE: i32 = -10;

/// Asks for more than an even share of a busy CPU, unless somebody chose a niceness for this process.
/// Needs CAP_SYS_NICE; threads made afterwards inherit what was granted.
/// The host's handshakes wait for this thread, and it sleeps but for them.
pub fn hurry() {
    if rustix::process::getpriority_process(None).is_ok_and(|nice| nice == 0) {
        let _ = rustix::process::setpriority_process(None, NICE);
    }
}

/// Binds this thread to `cpu`; answers whether that worked.
pub(super) fn pin(cpu: u32) -> bool {
    if cpu as usize >= CpuSet::MAX_CPU {
        return false;
    }
    let mut set = CpuSet::new();
    set.set(cpu as usize);
    rustix::thread::sched_setaffinity(None, &set).is_ok()
}

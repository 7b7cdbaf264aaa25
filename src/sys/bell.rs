//! A bell at the bed of one thread: others ring it when they leave work, and pay a system call for that
//! only while the thread sleeps long. It carries nothing, and nobody waits for room.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::nap::Nap;

/// The bell of one sleeper.
#[derive(Debug)]
pub struct Bell {
    nap: Nap,
    wire: OwnedFd,
}

impl Bell {
    /// A bell that nobody sleeps at.
    ///
    /// # Errors
    ///
    /// The kernel's, when there is no descriptor left for an eventfd.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            nap: Nap::new(),
            wire: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    /// Wakes the sleeper if it sleeps. To be called after the work was left where it looks.
    pub fn ring(&self) {
        if self.nap.must_wake() {
            // Only a bell that rang 2^64 times unheard would refuse.
            let _ = rustix::io::write(&self.wire, &1_u64.to_ne_bytes());
        }
    }

    /// Sleeps until somebody rings, `also` is readable, or the time is up; does not sleep at all where
    /// `has_work` finds some. Returning early is no error: the caller looks for work anyway.
    pub fn sleep(&self, also: BorrowedFd<'_>, timeout: Duration, has_work: impl FnOnce() -> bool) {
        self.nap.lie_down();
        if !has_work() {
            let timeout = Timespec {
                tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: timeout.subsec_nanos().into(),
            };
            let sources = [also, self.wire.as_fd()];
            let mut news = sources.each_ref().map(|fd| PollFd::new(fd, PollFlags::IN));
            let _ = poll(&mut news, Some(&timeout));
        }
        self.nap.rise();
        // Silences it; mostly it did not ring.
        let _ = rustix::io::read(&self.wire, &mut [0; 8]);
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;
    use std::time::{Duration, Instant};

    use super::Bell;

    /// So long that a test which has to wait for it is seen to.
    const LONG: Duration = Duration::from_secs(60);

    fn silent() -> std::os::fd::OwnedFd {
        rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).unwrap()
    }

    #[test]
    fn who_leaves_work_wakes_the_sleeper_each_time() {
        let (bell, left) = (
            Arc::new(Bell::new().unwrap()),
            Arc::new(AtomicBool::new(false)),
        );
        let other = {
            let (bell, left) = (Arc::clone(&bell), Arc::clone(&left));
            thread::spawn(move || {
                for _ in 0..1000 {
                    left.store(true, Ordering::Relaxed);
                    bell.ring();
                    while left.load(Ordering::Relaxed) {
                        thread::yield_now();
                    }
                }
            })
        };
        let (began, quiet) = (clock(), silent());
        let mut taken = 0;
        while taken < 1000 {
            bell.sleep(quiet.as_fd(), LONG, || left.load(Ordering::Relaxed));
            taken += u32::from(left.swap(false, Ordering::Relaxed));
        }
        other.join().unwrap();
        assert!(began.elapsed() < LONG, "a ring was not heard");
    }

    #[test]
    fn where_work_waits_nobody_sleeps_and_nobody_is_rung_for_who_is_awake() {
        let (bell, quiet) = (Bell::new().unwrap(), silent());
        let began = clock();
        bell.sleep(quiet.as_fd(), LONG, || true);
        assert!(began.elapsed() < LONG);
        // Rung for while awake: not heard, so that the next sleep is a whole one.
        bell.ring();
        let began = clock();
        bell.sleep(quiet.as_fd(), Duration::from_millis(20), || false);
        assert!(began.elapsed() >= Duration::from_millis(20));
    }

    #[test]
    fn the_other_descriptor_wakes_as_well() {
        let (bell, other) = (Bell::new().unwrap(), silent());
        rustix::io::write(&other, &1_u64.to_ne_bytes()).unwrap();
        let began = clock();
        bell.sleep(other.as_fd(), LONG, || false);
        assert!(began.elapsed() < LONG);
    }

    #[expect(clippy::disallowed_methods, reason = "how long a sleep was")]
    fn clock() -> Instant {
        Instant::now()
    }
}

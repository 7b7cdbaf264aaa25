//! The clocks of the outputs: when to try again, how old a file is. Records carry their own times and
//! never ask here.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A time to measure waits by.
#[expect(
    clippy::disallowed_methods,
    reason = "outputs wait for receivers, which no caller can time for them"
)]
pub(super) fn now() -> Instant {
    let now = Instant::now();
    #[cfg(test)]
    let now = haste::from_real(now);
    now
}

/// How long the system shall let a thread wait that wants to wait so long: the same, but in a test that has
/// an hour to play.
pub(super) fn wait(time: Duration) -> Duration {
    #[cfg(test)]
    let time = haste::to_real(time);
    time
}

/// Seconds since 1970, UTC: for what people read later (dead letters, rotated files).
#[expect(
    clippy::disallowed_methods,
    reason = "outputs wait for receivers, which no caller can time for them"
)]
pub(super) fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Threads of a test for which time goes faster.
#[cfg(test)]
pub(super) mod haste {
    use std::cell::Cell;
    use std::time::{Duration, Instant};

    thread_local! {
        static HASTE: Cell<Option<(Instant, u32)>> = const { Cell::new(None) };
    }

    /// From `origin` on, time goes so many times as fast for this thread.
    pub(in crate::sink) fn begin(origin: Instant, times: u32) {
        HASTE.set(Some((origin, times)));
    }

    pub(super) fn from_real(now: Instant) -> Instant {
        HASTE.get().map_or(now, |(origin, times)| {
            origin + now.saturating_duration_since(origin) * times
        })
    }

    pub(super) fn to_real(time: Duration) -> Duration {
        HASTE.get().map_or(time, |(_, times)| time / times)
    }
}

//! The clocks of the outputs: when to try again, how old a file is. Records carry their own times and
//! never ask here.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A time to measure waits by.
#[expect(
    clippy::disallowed_methods,
    reason = "outputs wait for receivers, which no caller can time for them"
)]
pub(super) fn now() -> Instant {
    Instant::now()
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

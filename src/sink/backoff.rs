//! How long to wait before the next attempt: exponential with full jitter, so that a hundred sensors do
//! not call a receiver that comes back in the same instant (AWS Architecture Blog, "Exponential Backoff
//! And Jitter", 2015).

use std::io::Read;
use std::time::Duration;

/// The first wait is at most this.
const FIRST: Duration = Duration::from_millis(500);
/// No wait is less than this: a receiver that answers at once is not asked in a loop.
const LEAST: Duration = Duration::from_millis(20);
/// Doublings after which no further one matters.
const DOUBLINGS: u32 = 16;

/// One receiver's patience.
#[derive(Debug)]
pub(super) struct Backoff {
    longest: Duration,
    attempts: u32,
    state: u64,
}

impl Backoff {
    /// Waits are at most `longest`.
    pub(super) fn new(longest: Duration) -> Self {
        Self {
            longest,
            attempts: 0,
            state: seed(),
        }
    }

    /// It worked.
    pub(super) fn reset(&mut self) {
        self.attempts = 0;
    }

    /// It failed: how long to wait, never less than the receiver asked for (and never longer than a
    /// receiver may reasonably ask: ten times the longest wait).
    pub(super) fn next(&mut self, asked: Option<Duration>) -> Duration {
        let ceiling = FIRST
            .saturating_mul(1 << self.attempts.min(DOUBLINGS))
            .min(self.longest);
        self.attempts += 1;
        let fraction = self.random() % 1024;
        let nanos = u64::try_from(ceiling.as_nanos()).unwrap_or(u64::MAX);
        let wait = Duration::from_nanos(nanos / 1024 * fraction).max(LEAST);
        wait.max(
            asked
                .unwrap_or_default()
                .min(self.longest.saturating_mul(10)),
        )
    }

    /// `SplitMix64` (Steele, Lea, Flood 2014): good enough to spread waits.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Random numbers from the system; a fixed one where it has none, which only costs the jitter.
pub(super) fn seed() -> u64 {
    let mut bytes = [0; 8];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    match read {
        Ok(()) => u64::from_ne_bytes(bytes),
        Err(_) => 1,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Backoff, LEAST};

    #[test]
    fn waits_grow_to_their_longest_and_differ() {
        let longest = Duration::from_secs(60);
        let mut backoff = Backoff::new(longest);
        let waits: Vec<Duration> = (0..200).map(|_| backoff.next(None)).collect();
        assert!(waits[0] <= Duration::from_millis(500));
        assert!(waits.iter().all(|wait| (LEAST..=longest).contains(wait)));
        let late = &waits[20..];
        assert!(late.iter().any(|wait| *wait > Duration::from_secs(40)));
        assert!(late.iter().any(|wait| *wait < Duration::from_secs(20)));
        backoff.reset();
        assert!(backoff.next(None) <= Duration::from_millis(500));
    }

    #[test]
    fn a_receiver_that_asks_for_time_gets_it_within_reason() {
        let mut backoff = Backoff::new(Duration::from_secs(1));
        let asked = Duration::from_secs(5);
        assert!(backoff.next(Some(asked)) >= asked);
        let unreasonable = Duration::from_secs(1 << 40);
        assert_eq!(backoff.next(Some(unreasonable)), Duration::from_secs(10));
    }
}

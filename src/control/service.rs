//! What the service manager is told (sd_notify(3)): that the sensor is ready, reloads, lives and stops.
//! Without a service manager nobody listens, and nothing here fails.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::time::Timestamp;

/// Part of the watchdog's time after which it is told of life: sd_watchdog_enabled(3) asks for half, and
/// a busy host is allowed to be late once.
const OFTEN: u64 = 3;

/// The service manager, if there is one.
#[derive(Debug)]
pub(super) struct Manager {
    /// Nanoseconds between two signs of life; `None` when nobody asked for them.
    every_ns: Option<u64>,
    told: Timestamp,
    /// The engine's turns at the last sign of life.
    turns: u64,
}

impl Manager {
    /// Asks the environment whether there is one with a watchdog.
    pub(super) fn new(now: Timestamp) -> Self {
        Self::with_watchdog(sd_notify::watchdog_enabled(), now)
    }

    fn with_watchdog(after: Option<Duration>, now: Timestamp) -> Self {
        let every = after.map(|after| after.as_nanos() / u128::from(OFTEN));
        Self {
            every_ns: every.and_then(|every| u64::try_from(every).ok()),
            told: now,
            turns: 0,
        }
    }

    pub(super) fn ready(&self) {
        let _ = sd_notify::notify(&[NotifyState::Ready]);
    }

    pub(super) fn reloading(&self) {
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            let _ = sd_notify::notify(&[NotifyState::Reloading, now]);
        }
    }

    pub(super) fn stopping(&self) {
        let _ = sd_notify::notify(&[NotifyState::Stopping]);
    }

    /// Tells that the sensor lives: the watch, which calls this, and the engine, which counts its turns.
    pub(super) fn live(&mut self, now: Timestamp, engine_turns: u64) {
        if self.is_due(now, engine_turns) {
            let _ = sd_notify::notify(&[NotifyState::Watchdog]);
        }
    }

    /// Not due while the engine stands still: then the watchdog shall bite.
    fn is_due(&mut self, now: Timestamp, engine_turns: u64) -> bool {
        let time = self
            .every_ns
            .is_some_and(|every| now.since(self.told) >= every);
        if !time || engine_turns == self.turns {
            return false;
        }
        (self.told, self.turns) = (now, engine_turns);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Manager;
    use crate::time::{SECOND, Timestamp};

    #[test]
    fn life_is_told_in_time_and_only_while_the_engine_turns() {
        let at = |seconds| Timestamp::from_nanos(seconds * SECOND);
        let mut manager = Manager::with_watchdog(Some(Duration::from_secs(30)), at(0));
        assert!(!manager.is_due(at(9), 5));
        assert!(manager.is_due(at(10), 5));
        assert!(!manager.is_due(at(25), 5), "the engine stands still");
        assert!(manager.is_due(at(26), 6));
        assert!(!manager.is_due(at(27), 7), "too early");
    }

    #[test]
    fn who_did_not_ask_is_not_told() {
        let mut manager = Manager::with_watchdog(None, Timestamp::from_nanos(0));
        assert!(!manager.is_due(Timestamp::from_nanos(u64::MAX), 1));
    }
}

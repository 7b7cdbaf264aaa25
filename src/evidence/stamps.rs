//! Timestamps of the reset itself: whether they are there as its sender's stack puts them, and whether the clock
//! behind them is the sender's. Never held against a reset: that it has none, as such.

use super::basis::{Stack, is_active, millis, sender_stack, timestamps_in_use};
use super::{Case, Evidence, Group, Kind};
use crate::wire::{SeqNum, Timestamps};

/// An active reset of a stack that would have sent timestamps.
pub const TS_MISSING: Kind = Kind::injected("timestamps_missing", Group::Shape);
/// The same where the stack is not known.
pub const TS_MISSING_ANY: Kind = Kind::injected("timestamps_missing_unknown_stack", Group::Shape);
/// Timestamps that the sender's clock cannot show.
pub const TS_WRONG: Kind = Kind::injected("timestamps_wrong", Group::Shape);
/// Timestamps as the sender's clock must show them.
pub const TS_MATCH: Kind = Kind::remote("timestamps_match", Group::Shape);

/// E-H10: an active reset (RST+ACK, window not 0) without timestamps in a connection that uses
/// them. Linux sends it through `tcp_transmit_skb`, which adds them.
///
/// Measured: 8 of 8 injected, 0 of 12 genuine. False positives: macOS and 4.4BSD leave them out of
/// every RST (`tcp_output`): silent for their SYN; Windows and proxies: lighter. Says nothing about
/// window 0, where 53 of 62 genuine flows lack them.
#[must_use]
pub fn timestamps_missing(case: &Case<'_>) -> Option<Evidence> {
    let segment = &case.first()?.segment;
    if !is_active(segment)
        || segment.options.timestamps.is_some()
        || timestamps_in_use(case) != Some(true)
    {
        return None;
    }
    let kind = match sender_stack(case) {
        Some(Stack::Linux | Stack::FreeBsd) => TS_MISSING,
        Some(Stack::Apple) => return None,
        _ => TS_MISSING_ANY,
    };
    Some(kind.found("none", "timestamps"))
}

/// Ticks by which a clock may be off what the capture's clock says: jitter of the path, plus 2 %.
fn slack(expected_ms: i64) -> i64 {
    (expected_ms / 50).max(30)
}

/// E-H11: TSval must lie where the sender's clock is by now, TSecr must be a value that the
/// receiver sent (RFC 7323 §3.2).
///
/// Linux ticks at 1000 Hz from an offset per connection; all active resets in the lab were exact to
/// the millisecond. Other rates (100, 250 Hz) are slower, never faster, so that too small a step is
/// not wrong but too large a one is. The local socket's TS.Recent is the tighter base where there
/// is one. False positives: a clock that a proxy rewrites; no known stack runs faster than 1000 Hz.
#[must_use]
pub fn timestamps(case: &Case<'_>) -> Option<Evidence> {
    let first = case.first()?;
    let seen = first.segment.options.timestamps?;
    if timestamps_in_use(case) == Some(false) {
        return Some(TS_WRONG.found(seen.value, "none: not negotiated"));
    }
    let (base, elapsed) = value_base(case)?;
    let step = i64::from(SeqNum(seen.value).offset_from(SeqNum(base)));
    let expected = i64::from(base) + elapsed;
    // Linux can be told to count microseconds (`features tcp_usec_ts`).
    let micros = elapsed.saturating_mul(1_000);
    if elapsed > 20 && (step - micros).abs() <= slack(micros) {
        return Some(TS_MATCH.found(seen.value, expected));
    }
    // A segment sent before may have been seen after; beyond that a clock never goes back.
    if step < -slack(elapsed)
        || step > elapsed + slack(elapsed) + 1_000
        || !echo_is_possible(case, seen)
    {
        return Some(TS_WRONG.found(seen.value, expected));
    }
    ((step - elapsed).abs() <= slack(elapsed)).then(|| TS_MATCH.found(seen.value, expected))
}

/// The sender's TSval that is known, and the milliseconds since. Of the socket's TS.Recent and the
/// last segment seen, the younger.
fn value_base(case: &Case<'_>) -> Option<(u32, i64)> {
    let first = case.first()?;
    if let Some(sequence) = first.socket.as_ref().and_then(|s| s.sequence())
        && let (Some(recent), Some(idle)) = (sequence.ts_recent, sequence.idle_ns)
    {
        return Some((recent, i64::try_from(idle / 1_000_000).unwrap_or(i64::MAX)));
    }
    let (time, known) = case.sender()?.timestamps?;
    Some((known.value, millis(first.time, time)))
}

/// Whether the receiver can have sent that TSval by now. Only too young a value is impossible: the
/// receiver's later segments are not seen.
fn echo_is_possible(case: &Case<'_>, seen: Timestamps) -> bool {
    let Some(first) = case.first() else {
        return true;
    };
    let Some((time, known)) = case.receiver().and_then(|r| r.timestamps) else {
        return true;
    };
    let ahead = i64::from(SeqNum(seen.echo).offset_from(SeqNum(known.value)));
    let elapsed = millis(first.time, time);
    let oldest = case
        .receiver()
        .and_then(|r| r.syn)
        .and_then(|syn| syn.options.timestamps);
    let too_old = oldest.is_some_and(|old| SeqNum(old.value).offset_from(SeqNum(seen.echo)) > 0);
    ahead <= elapsed + slack(elapsed) + 1_000 && !too_old
}

#[cfg(test)]
mod tests {
    use super::{timestamps, timestamps_missing};
    use crate::evidence::testing::{Scene, name};
    use crate::wire::{Options, Timestamps};

    fn stamped(value: u32, echo: u32) -> Scene {
        Scene::established().reset(|r| r.options.timestamps = Some(Timestamps { value, echo }))
    }

    fn unstamped() -> Scene {
        Scene::established().reset(|r| r.options = Options::default())
    }

    #[test]
    fn missing_timestamps_tell_only_in_an_active_reset_of_a_flow_that_uses_them() {
        assert_eq!(
            unstamped().check(timestamps_missing),
            name("timestamps_missing")
        );
        assert_eq!(
            unstamped()
                .reset(|r| r.window = 0)
                .check(timestamps_missing),
            None
        );
        assert_eq!(unstamped().passive().check(timestamps_missing), None);
        let one_sided = unstamped().receiver(|r| r.syn.as_mut().unwrap().options.timestamps = None);
        assert_eq!(one_sided.check(timestamps_missing), None);
        assert_eq!(unstamped().no_sender().check(timestamps_missing), None);
    }

    #[test]
    fn apple_leaves_timestamps_out_of_every_reset() {
        let scene = unstamped().sender(|s| s.syn.as_mut().unwrap().options.order = 0x213_1184);
        assert_eq!(scene.check(timestamps_missing), None);
    }

    #[test]
    fn the_socket_knows_whether_timestamps_are_in_use() {
        let unseen = unstamped().no_sender();
        assert_eq!(
            unseen.clone().socket(|_| ()).check(timestamps_missing),
            name("timestamps_missing_unknown_stack")
        );
        assert_eq!(
            unseen
                .socket(|s| s.ts_recent = None)
                .check(timestamps_missing),
            None
        );
    }

    #[test]
    fn a_clock_that_ticks_on_speaks_for_the_sender() {
        assert_eq!(
            stamped(501_000, 900_900).check(timestamps),
            name("timestamps_match")
        );
        assert_eq!(
            stamped(501_000, 900_900).socket(|_| ()).check(timestamps),
            name("timestamps_match")
        );
    }

    #[test]
    fn a_clock_that_runs_back_or_ahead_is_another_one() {
        assert_eq!(
            stamped(499_000, 900_900).check(timestamps),
            name("timestamps_wrong")
        );
        assert_eq!(
            stamped(900_000, 900_900).check(timestamps),
            name("timestamps_wrong")
        );
        assert_eq!(
            stamped(501_000, 100).check(timestamps),
            name("timestamps_wrong")
        );
        assert_eq!(
            stamped(501_000, 990_000).check(timestamps),
            name("timestamps_wrong")
        );
    }

    #[test]
    fn a_slower_clock_says_nothing() {
        assert_eq!(stamped(500_100, 900_900).check(timestamps), None);
    }

    #[test]
    fn a_clock_of_microseconds_is_a_clock() {
        assert_eq!(
            stamped(1_500_000, 900_900).check(timestamps),
            name("timestamps_match")
        );
    }

    #[test]
    fn timestamps_wrap() {
        let scene = stamped(900, 900_900).sender(|s| {
            s.timestamps = s.timestamps.map(|(t, ts)| {
                (
                    t,
                    Timestamps {
                        value: u32::MAX - 99,
                        ..ts
                    },
                )
            });
        });
        assert_eq!(scene.check(timestamps), name("timestamps_match"));
    }
}

//! Timestamps of the reset itself: whether they are there as its sender's stack puts them, and whether the clock
//! behind them is the sender's. Never held against a reset: that it has none, as such.

use super::basis::{Stack, is_active, millis, sender_stack, timestamps_in_use};
use super::{Case, Evidence, Group, Kind};
use crate::flow::HalfFlow;
use crate::time::{MILLISECOND, Timestamp};
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
    (expected_ms / 50).max(JITTER_MS)
}

/// Jitter of the path.
const JITTER_MS: i64 = 30;
/// TS.Recent is that of the segment which the last acknowledgement went out for, though data came since (RFC 7323
/// §4.3): Linux holds one back for up to 200 ms (`TCP_DELACK_MAX`), and two ticks.
const HELD_ACK_MS: i64 = 210;
/// A segment that was held back before its time was written down, or one that this end did not count.
const HELD_BACK_MS: i64 = 1_000;
/// Half of half of what the clock counts: after so long (12 days) before and behind are one.
const LAPPED_MS: i64 = 1 << 30;
/// Half of what a clock of microseconds counts (35 minutes): longer than that it may show anything.
const LAPPED_MICROS_MS: i64 = (i32::MAX / 1_000) as i64;
/// What a TSecr is to be.
const OF_RECEIVER: &str = "an echo of the receiver";
/// Two looks at a clock so far apart tell what it counts.
const APART_MS: i64 = 100;

/// E-H11: TSval must lie where the sender's clock is by now, TSecr must be a value that the
/// receiver sent (RFC 7323 §3.2).
///
/// Linux ticks at 1000 Hz from an offset per connection; all active resets in the lab were exact to
/// the millisecond. Other rates (100, 250 Hz) are slower, never faster, so that too small a step is
/// not wrong but too large a one is; but Linux can be told to count microseconds (`features tcp_usec_ts`).
/// The local socket's TS.Recent is the tighter base where there is one. False positives: a clock that a
/// proxy rewrites; TS.Recent stands still while data is missing, whatever comes behind the gap
/// (RFC 7323 §4.3), as where large segments are lost on the way and small ones are not: an abort beyond the
/// gap is held against the clock of the SYN; and while an acknowledgement is held back; a connection that was
/// silent for days, or for half an hour where
/// the clock is not known to count milliseconds: silent. A TSval of 0 is no clock's: three servers in public captures of
/// 2017 to 2019 abort with it, the echo being true and the IP ID exactly on their counters.
///
/// The echo tells by itself where the sender was never heard, as in an answer to a SYN or a capture of one direction;
/// an echo of 0 is then of a sender that has none.
#[must_use]
pub fn timestamps(case: &Case<'_>) -> Option<Evidence> {
    let first = case.first()?;
    let seen = first.segment.options.timestamps?;
    if timestamps_in_use(case) == Some(false) {
        return Some(TS_WRONG.found(seen.value, "none: not negotiated"));
    }
    let known = value_base(case);
    let Some((base, elapsed)) = known.filter(|_| seen.value != 0) else {
        let may_lack = known.is_none() && seen.echo == 0;
        let is_wrong = !may_lack && !echo_is_possible(case, seen);
        return is_wrong.then(|| TS_WRONG.found(seen.echo, OF_RECEIVER));
    };
    let lapped = lapped_ms(case.sender(), (millis_back(first.time, elapsed), base));
    let behind = socket_base(case).filter(|_| lapped != LAPPED_MS);
    let behind = behind.map_or(0, |_| HELD_ACK_MS);
    let expected = base.wrapping_add(wrapped(elapsed));
    let off = i64::from(SeqNum(seen.value).offset_from(SeqNum(expected)));
    let micros = elapsed.saturating_mul(1_000);
    let off_micros =
        i64::from(SeqNum(seen.value).offset_from(SeqNum(base.wrapping_add(wrapped(micros)))));
    let by_micros = elapsed < LAPPED_MICROS_MS;
    if elapsed > 20 && by_micros && off_micros.abs() <= slack(micros) {
        return Some(TS_MATCH.found(seen.value, i64::from(expected)));
    }
    let jitter = slack(micros) + JITTER_MS * 1_000;
    let may_be_micros = by_micros && (-jitter..=jitter + behind * 1_000).contains(&off_micros);
    // A segment sent before may have been seen after; beyond that a clock never goes back.
    let back = off + elapsed < -slack(elapsed);
    let ahead = off > slack(elapsed) + HELD_BACK_MS;
    let is_wrong = (back || ahead) && elapsed < lapped && !may_be_micros;
    if is_wrong {
        return Some(TS_WRONG.found(seen.value, i64::from(expected)));
    }
    if !echo_is_possible(case, seen) {
        return Some(TS_WRONG.found(seen.echo, OF_RECEIVER));
    }
    (off.abs() <= slack(elapsed)).then(|| TS_MATCH.found(seen.value, i64::from(expected)))
}

/// So many ticks later, as the clock counts.
fn wrapped(ticks: i64) -> u32 {
    u32::try_from(ticks & i64::from(u32::MAX)).unwrap_or(0)
}

/// The sender's TSval that is known, and the milliseconds since: the socket's TS.Recent, but that of the
/// last segment seen for a reset that lies beyond a gap. Nothing is known of one of which only TS.Recent is.
fn value_base(case: &Case<'_>) -> Option<(u32, i64)> {
    if let Some(base) = socket_base(case) {
        return Some(base);
    }
    let (time, known) = case.sender()?.timestamps?;
    Some((known.value, millis(case.first()?.time, time)))
}

fn socket_base(case: &Case<'_>) -> Option<(u32, i64)> {
    let first = case.first()?;
    let sequence = first.socket.as_ref().and_then(|s| s.sequence())?;
    let is_beyond_gap = first.offset.is_some_and(|offset| offset > 0);
    let (recent, idle) = (sequence.ts_recent?, sequence.idle_ns?);
    let idle_ms = i64::try_from(idle / MILLISECOND).unwrap_or(i64::MAX);
    (!is_beyond_gap).then_some((recent, idle_ms))
}

/// Until when an end's clock shows what is before and what behind: that of a clock of microseconds, unless its
/// SYN's TSval and a later one tell that it counts milliseconds, or less.
fn lapped_ms(end: Option<&HalfFlow>, (time, value): (Timestamp, u32)) -> i64 {
    let syn = end.and_then(|half| half.syn);
    let opened = syn.and_then(|syn| Some((syn.time, syn.options.timestamps?.value)));
    let counts_millis = opened.is_some_and(|(opened, first)| {
        let (ticks, ms) = (value.wrapping_sub(first), millis(time, opened));
        ms >= APART_MS && i64::from(ticks) <= ms + slack(ms) + HELD_BACK_MS
    });
    if counts_millis {
        LAPPED_MS
    } else {
        LAPPED_MICROS_MS
    }
}

/// So many milliseconds before.
fn millis_back(time: Timestamp, ms: i64) -> Timestamp {
    let ns = u64::try_from(ms).unwrap_or(0).saturating_mul(MILLISECOND);
    Timestamp::from_nanos(time.as_nanos().saturating_sub(ns))
}

/// Whether the receiver can have sent that TSval by now. Only too young a value is impossible: the
/// receiver's later segments are not seen. Its clock may count microseconds, too.
fn echo_is_possible(case: &Case<'_>, seen: Timestamps) -> bool {
    let Some(first) = case.first() else {
        return true;
    };
    let Some((time, known)) = case.receiver().and_then(|r| r.timestamps) else {
        return true;
    };
    let lapped = lapped_ms(case.receiver(), (time, known.value));
    let ahead = i64::from(SeqNum(seen.echo).offset_from(SeqNum(known.value)));
    let elapsed = millis(first.time, time);
    let opened = case.receiver().and_then(|r| r.syn);
    // What is younger than the last TSval is not older than the SYN's, of which a live flow only keeps that it
    // was some time before.
    let too_old = opened.filter(|_| ahead < 0).is_some_and(|syn| {
        let own = syn.options.timestamps;
        own.is_some_and(|own| SeqNum(own.value).offset_from(SeqNum(seen.echo)) > 0)
            && millis(first.time, syn.time) < lapped
    });
    let ticks = match lapped {
        LAPPED_MS => elapsed,
        _ => elapsed.saturating_mul(1_000),
    };
    let too_young = ahead > ticks + slack(ticks) + HELD_BACK_MS && elapsed < lapped;
    !too_young && !too_old
}

#[cfg(test)]
mod tests {
    use super::{timestamps, timestamps_missing};
    use crate::evidence::testing::{SENDER_ISN, Scene, name};
    use crate::time::Timestamp;
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
            stamped(501_000, 1_990_000_000).check(timestamps),
            name("timestamps_wrong")
        );
    }

    #[test]
    fn what_is_wrong_is_what_is_told() {
        let told = |value, echo| {
            let found = stamped(value, echo).evidence(timestamps).unwrap();
            found.observed.unwrap().to_string()
        };
        assert_eq!(told(499_000, 900_900), "499000");
        assert_eq!(told(501_000, 1_990_000_000), "1990000000");
    }

    #[test]
    fn a_tsval_of_nothing_is_no_clock_and_its_echo_still_tells() {
        assert_eq!(stamped(0, 900_900).check(timestamps), None);
        assert_eq!(stamped(0, 100).check(timestamps), name("timestamps_wrong"));
        assert_eq!(stamped(0, 0).check(timestamps), name("timestamps_wrong"));
    }

    #[test]
    fn an_echo_tells_where_nothing_was_heard_of_the_sender() {
        let echoed = |echo: u32| stamped(100, echo).no_sender();
        assert_eq!(echoed(100).check(timestamps), name("timestamps_wrong"));
        assert_eq!(
            echoed(1_990_000_000).check(timestamps),
            name("timestamps_wrong")
        );
        for possible in [900_900, 0] {
            assert_eq!(echoed(possible).check(timestamps), None);
        }
        let refusal = Scene::refused().reset(|r| {
            r.options.timestamps = Some(Timestamps {
                value: 100,
                echo: 100,
            });
        });
        assert_eq!(refusal.check(timestamps), name("timestamps_wrong"));
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

    /// An abort of a socket that heard its peer `idle_ms` ago.
    fn after_idle(idle_ms: u64, step: u32) -> Scene {
        let scene = Scene::established().socket(|s| {
            s.ts_recent = Some(4_000_000_000);
            s.idle_ns = Some(idle_ms * 1_000_000);
        });
        scene.reset(|r| {
            let clock = r.options.timestamps.as_mut().unwrap();
            clock.value = 4_000_000_000_u32.wrapping_add(step);
        })
    }

    #[test]
    fn the_jitter_of_a_path_is_no_other_clock_be_it_counted_in_microseconds() {
        // 5 ms of silence, and 100 ms with 4 ms of jitter.
        assert_eq!(after_idle(5, 5_000).check(timestamps), None);
        assert_eq!(after_idle(100, 104_000).check(timestamps), None);
        assert_eq!(
            after_idle(100, 100_500).check(timestamps),
            name("timestamps_match")
        );
        assert_eq!(
            after_idle(100, 400_000).check(timestamps),
            name("timestamps_wrong")
        );
    }

    #[test]
    fn a_socket_that_holds_back_an_acknowledgement_knows_an_older_clock() {
        // The last two lines came 35 ms apart, and the first of them is not acknowledged yet.
        assert_eq!(after_idle(1, 36_000).check(timestamps), None);
        assert_eq!(after_idle(1, 36).check(timestamps), None);
        assert_eq!(
            after_idle(1, 300_000).check(timestamps),
            name("timestamps_wrong")
        );
    }

    #[test]
    fn a_clock_that_wrapped_in_a_month_of_silence_is_none_that_ran_back() {
        let days = |days: u64| days * 86_400_000;
        let step = u32::try_from(days(30)).unwrap();
        assert_eq!(
            after_idle(days(30), step).check(timestamps),
            name("timestamps_match")
        );
        assert_eq!(after_idle(days(30), 7).check(timestamps), None);
        assert_eq!(
            after_idle(1_800_000, u32::MAX - 20_000_000).check(timestamps),
            name("timestamps_wrong")
        );
    }

    #[test]
    fn an_echo_a_month_after_the_handshake_is_none_from_before_it() {
        let day = 86_400_000_u32;
        let open_for = |days: u64| {
            let now = Timestamp::from_nanos((days * 86_400 + 2) * 1_000_000_000);
            let echo = 900_900_u32.wrapping_add(30 * day);
            let mut scene = stamped(501_000, echo).socket(|s| {
                (s.ts_recent, s.idle_ns) = (Some(500_900), Some(100_000_000));
            });
            scene.resets[0].time = now;
            scene.receiver(|r| {
                let (_, own) = r.timestamps.unwrap();
                let value = 900_900_u32.wrapping_add(u32::try_from(days).unwrap() * day);
                r.timestamps = Some((now, Timestamps { value, ..own }));
            })
        };
        let month = open_for(30);
        assert_eq!(month.check(timestamps), name("timestamps_match"));
        assert_eq!(open_for(1).check(timestamps), name("timestamps_wrong"));
    }

    #[test]
    fn an_echo_of_microseconds_is_one_unless_its_clock_is_known_to_count_others() {
        // A minute after the SYN-ACK, of which the receiver's TSval is known.
        let echoed = |seconds: u32, later: Option<u32>| {
            let echo = 900_000_u32.wrapping_add(seconds.wrapping_mul(1_000_000));
            let mut scene = stamped(501_000, echo).socket(|s| s.ts_recent = Some(500_900));
            let now = Timestamp::from_nanos(u64::from(seconds + 1) * 1_000_000_000);
            scene.resets[0].time = now;
            scene.receiver(|r| {
                let (time, own) = r.timestamps.unwrap();
                let known = later.map(|value| (now, Timestamps { value, ..own }));
                r.timestamps = known.or(Some((time, own)));
            })
        };
        assert_eq!(echoed(60, None).check(timestamps), name("timestamps_match"));
        let hours = echoed(20_000, None);
        assert_eq!(hours.check(timestamps), name("timestamps_match"));
        assert_eq!(
            echoed(60, Some(960_000)).check(timestamps),
            name("timestamps_wrong")
        );
    }

    #[test]
    fn a_clock_of_microseconds_may_show_anything_after_half_an_hour() {
        let minutes = |minutes: u32| {
            let idle_ms = u64::from(minutes) * 60_000;
            after_idle(idle_ms, (minutes * 60).wrapping_mul(1_000_000))
        };
        assert_eq!(minutes(30).check(timestamps), name("timestamps_match"));
        assert_eq!(minutes(40).check(timestamps), None);
    }

    #[test]
    fn an_abort_beyond_a_gap_is_held_against_the_clock_of_the_syn() {
        // Large segments are lost for 40 s; acknowledgements behind the gap are heard.
        let aborted = |value: u32| {
            let scene = stamped(value, 900_900).socket(|s| {
                s.rcv_nxt = SENDER_ISN.plus(1);
                (s.ts_recent, s.idle_ns) = (Some(460_000), Some(1_000_000));
            });
            scene.check(timestamps)
        };
        assert_eq!(aborted(501_000), name("timestamps_match"));
        assert_eq!(aborted(509_000), name("timestamps_wrong"));
        // Without a gap TS.Recent is of the last segment.
        let exact = stamped(541_000, 900_900).socket(|s| {
            (s.ts_recent, s.idle_ns) = (Some(500_900), Some(1_000_000));
        });
        assert_eq!(exact.check(timestamps), name("timestamps_wrong"));
        let unseen = stamped(501_000, 900_900).no_sender().socket(|s| {
            s.rcv_nxt = SENDER_ISN.plus(1);
            (s.ts_recent, s.idle_ns) = (Some(460_000), Some(1_000_000));
        });
        assert_eq!(unseen.check(timestamps), None);
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

//! When the reset came. Timing never convicts: browsers, health checks and idle timers of the peer
//! itself keep the same hours. It tips a scale that other facts have loaded, and it names causes.

use super::basis::{receiver_isn, sender_isn};
use super::{Case, Evidence, Group, Kind};
use crate::time::SECOND;

/// Right after the first request.
pub const FIRST_FLIGHT: Kind = Kind::injected("after_first_flight", Group::Context);
/// After an idle time that a known device's timer has.
pub const IDLE_TIMER: Kind = Kind::injected("idle_timer", Group::Context);

/// Idle timers of load balancers and NAT devices, in seconds: Azure 240, AWS NLB and NAT gateway
/// 350, GCP 600 and 1200, OCI 300, FortiGate 3600; 7200 is left out (keepalive of the peer itself),
/// so are 60 and 75 (HTTP servers).
const TIMERS_S: [u64; 8] = [180, 240, 300, 350, 600, 900, 1_200, 3_600];
/// How far from a timer its reset may come.
const LEEWAY_NS: u64 = SECOND * 3 / 2;
/// The least idle time that is near one of them.
const SOONEST_NS: u64 = TIMERS_S[0] * SECOND - LEEWAY_NS;

/// E-T2: the sender had sent one request's worth of bytes and nothing had come back: what a filter
/// that reads requests leaves (Raman et al., SIGCOMM 2023: Post-PSH; request sizes by §5.3).
///
/// False positives: clients that give up, servers that refuse: hence the smallest weight there is.
#[must_use]
pub fn first_flight(case: &Case<'_>) -> Option<Evidence> {
    let first = case.first()?;
    if case.flow.sender_is_originator != Some(true) || !first.segment.flags.ack() {
        return None;
    }
    let sent = first.segment.seq.bytes_since(sender_isn(case)?.plus(1));
    let received = first.segment.ack.bytes_since(receiver_isn(case)?.plus(1));
    let age = first.time.since(case.sender()?.syn?.time);
    ((20..=2_000).contains(&sent) && received == 0 && age < 5 * SECOND)
        .then(|| FIRST_FLIGHT.found(format!("{sent} bytes sent, none received"), "any"))
}

/// E-T3: the connection had been idle for as long as a known timer, give or take 1.5 s.
///
/// False positives: applications have timers too. Needs the socket's own idle time or a capture,
/// which shows every segment.
#[must_use]
pub fn idle_timer(case: &Case<'_>) -> Option<Evidence> {
    // Most resets come sooner than any timer.
    let idle = idle_ns(case).filter(|idle| *idle >= SOONEST_NS)?;
    let near = TIMERS_S
        .iter()
        .find(|timer| idle.abs_diff(**timer * SECOND) <= LEEWAY_NS)?;
    Some(IDLE_TIMER.found(format!("{} s", idle / SECOND), format!("not {near} s")))
}

fn idle_ns(case: &Case<'_>) -> Option<u64> {
    let first = case.first()?;
    if let Some(sequence) = first.socket.as_ref().and_then(|s| s.sequence()) {
        return sequence.idle_ns;
    }
    let halves = [case.sender(), case.receiver()];
    let last = halves.into_iter().flatten().map(|h| h.last_seen).max()?;
    case.from_capture.then(|| first.time.since(last))
}

#[cfg(test)]
mod tests {
    use super::{first_flight, idle_timer};
    use crate::evidence::testing::{Scene, at_ms, name};
    use crate::time::SECOND;

    #[test]
    fn a_reset_after_the_first_request_is_noted() {
        assert_eq!(
            Scene::established().check(first_flight),
            name("after_first_flight")
        );
        let answered = Scene::established().reset(|r| r.ack = r.ack.plus(500));
        assert_eq!(answered.check(first_flight), None);
        let silent = Scene::established().reset(|r| r.seq = crate::wire::SeqNum(1_001));
        assert_eq!(silent.check(first_flight), None);
        assert_eq!(Scene::established().passive().check(first_flight), None);
    }

    #[test]
    fn a_known_idle_time_is_noted() {
        let idle = |ns| Scene::established().socket(|s| s.idle_ns = Some(ns));
        assert_eq!(idle(350 * SECOND).check(idle_timer), name("idle_timer"));
        assert_eq!(idle(355 * SECOND).check(idle_timer), None);
        assert_eq!(idle(60 * SECOND).check(idle_timer), None);
    }

    #[test]
    fn without_the_socket_only_a_capture_knows_the_idle_time() {
        let mut scene = Scene::established();
        scene.resets[0].time = at_ms(1_900 + 240_000);
        assert_eq!(scene.check(idle_timer), name("idle_timer"));
        scene.from_capture = false;
        assert_eq!(scene.check(idle_timer), None);
    }
}

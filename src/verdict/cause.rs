//! One level below the verdict: which kind of third party forged a reset, and what an endpoint did that it
//! sent one. It changes no verdict, and knows no weights.

use super::Cause;
use crate::evidence::{
    Case, Evidence, SequenceFit, acceptance, guesses, hop_limit, link, next_door, shape, timing,
    train,
};

/// Facts that show a generator which sees the connection.
const GENERATOR: [&str; 4] = [
    train::RISING.name,
    train::LOCK_STEP.name,
    train::COPIES.name,
    train::ACK_STEPS.name,
];

/// Facts that show a device by where it stands or by what it waits for.
const DEVICE: [&str; 7] = [
    hop_limit::CLASS_NEAR.name,
    hop_limit::CLASS_SAME.name,
    hop_limit::HANDSHAKE_ONLY.name,
    next_door::NO_HOPS.name,
    next_door::ADJACENT.name,
    shape::PAYLOAD_DEVICE.name,
    timing::IDLE_TIMER.name,
];

/// Facts that show a foreign MAC, however many frames the usual one was seen in.
const ADJACENT: [&str; 3] = [link::MAC.name, link::MAC_STEADY.name, link::MAC_FEW.name];

/// Further off than this no sender is that sees the connection, however late it is.
const GUESS_OFFSET: u32 = 1 << 20;

/// Which kind of third party. Blind and adjacent senders are known by how they work, a device by
/// where it stands, by what it waits for, or because it resets many flows of several networks in one
/// moment; whoever else sees the connection is on its path.
pub(super) fn injected_cause(case: &Case<'_>, evidence: &[Evidence]) -> Cause {
    let has = |names: &[&str]| evidence.iter().any(|e| names.contains(&e.name));
    if has(&[guesses::GUESSES.name, guesses::STEPS.name]) {
        return Cause::Blind;
    }
    if !has(&GENERATOR) && !has(&[acceptance::ACCEPTED.name]) && is_guessed(case) {
        return Cause::Blind;
    }
    if has(&ADJACENT) {
        return Cause::Adjacent;
    }
    if (has(&DEVICE) || case.siblings.is_wave()) && !has(&GENERATOR) {
        return Cause::Middlebox;
    }
    Cause::OnPath
}

/// No reset of the sender fits, and one lies where nobody who sees the connection would put it:
/// ahead of all data, or far off.
fn is_guessed(case: &Case<'_>) -> bool {
    let mut fits = false;
    let mut wild = false;
    for reset in case.from_sender() {
        let missed = matches!(reset.fit, SequenceFit::InWindow | SequenceFit::OutOfWindow);
        fits |= reset.fit == SequenceFit::Exact;
        wild |= missed
            && reset
                .offset
                .is_some_and(|offset| offset > 0 || offset.unsigned_abs() > GUESS_OFFSET);
    }
    wild && !fits
}

/// What the endpoint did. A socket's own abort bears ACK and a window (`tcp_send_active_reset`);
/// an answer to a segment of an unknown connection is bare.
pub(super) fn remote_cause(case: &Case<'_>) -> Option<Cause> {
    let first = case.first()?;
    let segment = &first.segment;
    let refuses = segment.answers_syn();
    let sent_syn = case
        .receiver()
        .and_then(|r| r.syn)
        .is_some_and(|syn| !syn.is_syn_ack);
    let unanswered = case.sender().is_none_or(|s| s.syn.is_none());
    if refuses || (sent_syn && unanswered && !case.flow.established && segment.flags.ack()) {
        return Some(Cause::Refused);
    }
    Some(if segment.flags.ack() {
        Cause::Abort
    } else {
        Cause::Answer
    })
}

#[cfg(test)]
mod tests {
    use crate::evidence::testing::{SENDER_ISN, SENDER_MAC, Scene};
    use crate::verdict::judge::verdict;
    use crate::verdict::{Cause, Verdict};
    use crate::wire::{LinkAddresses, Mac};

    #[test]
    fn guesses_are_blind() {
        let far = |n: u32| move |r: &mut crate::wire::Segment| r.seq = r.seq.plus(n << 24);
        let scene = Scene::established()
            .forged()
            .reset(|r| r.seq = SENDER_ISN.plus(1 << 26))
            .again(10, far(1))
            .again(20, far(2))
            .socket(|s| s.rcv_nxt = SENDER_ISN.plus(1));
        assert_eq!(verdict(&scene), (Verdict::Injected, Some(Cause::Blind)));
    }

    #[test]
    fn a_foreign_mac_makes_it_adjacent() {
        let scene = Scene::established()
            .forged()
            .sender(|s| s.mac_count = 100)
            .reset(|r| {
                r.hop_limit = 50;
                r.link = Some(LinkAddresses {
                    src: Mac([2, 0, 0, 0, 0, 9]),
                    dst: None,
                });
            });
        assert_eq!(verdict(&scene), (Verdict::Injected, Some(Cause::Adjacent)));
    }

    #[test]
    fn a_perfect_likeness_with_a_foreign_mac_is_a_neighbors() {
        let mut scene = Scene::established().socket(|_| ()).path_hop_limit(50);
        let path = scene.flow.path.as_mut().unwrap();
        (path.mac, path.mac_count, path.flows) = (Some(SENDER_MAC), 99, 9);
        path.mac_silent_ns = Some(0);
        scene.accepted = Some(true);
        let neighbor = Mac([2, 0, 0, 0, 0, 9]);
        let scene = scene.reset(|r| {
            r.link = Some(LinkAddresses {
                src: neighbor,
                dst: None,
            });
        });
        assert_eq!(verdict(&scene), (Verdict::Injected, Some(Cause::Adjacent)));
    }

    #[test]
    fn a_device_next_to_the_peer_is_a_middlebox() {
        let scene = Scene::established().hop_limit(44).reset(|r| {
            r.hop_limit = 237;
            r.dont_fragment = Some(false);
            r.ip_id = Some(4_660);
        });
        assert_eq!(verdict(&scene), (Verdict::Injected, Some(Cause::Middlebox)));
    }
}

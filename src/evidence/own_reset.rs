//! What the purported sender's own reset tells that comes after one in its name: whoever has something to reset later had
//! not reset it before. Silent where both may be one sender's.

use super::basis::{answers_syn, is_active, receiver_isn, reorder_guard_ns};
use super::hop_limit::reset_is_far;
use super::sequence::missed_rcv_nxt;
use super::ways::{is_of_a_known_way, is_of_the_networks_way};
use super::{Case, Evidence, Group, Kind, ResetSeen, SequenceFit};
use crate::amount::span;
use crate::wire::hop_limit::is_far;

/// The sender's own reset came after one that looks foreign.
pub const OWN_FOLLOWS: Kind = Kind::injected("own_reset_follows", Group::Race);

/// E-R3: a reset that looks foreign is followed, after half a round-trip or more, by the sender's
/// own: from the usual hop limit, bare, with window 0. The sender was cut off by the first or never
/// knew of it.
///
/// False positives: one peer with two initial hop limits (64 and 128 at one distance): the first
/// must differ by hops; routers that spread packets over ways of several lengths: silent where three
/// segments of the address, or of its network, came by the first's way.
#[must_use]
pub fn own_reset_follows(case: &Case<'_>) -> Option<Evidence> {
    if answers_syn(case) {
        return valid_refusal_follows(case);
    }
    let first = case.first()?;
    let way = first.segment.hop_limit;
    if missed_rcv_nxt(case, first).is_some() {
        return abort_follows(case, first);
    }
    if !reset_is_far(case) || is_of_a_known_way(case, way) || is_of_the_networks_way(case, way) {
        return None;
    }
    let sender = case.sender()?;
    let guard = reorder_guard_ns(case).min(5_000_000);
    let own = case.from_sender().find(|r| {
        let segment = &r.segment;
        let near = sender.hop_limits.nearest(segment.hop_limit);
        !segment.flags.ack()
            && segment.window == 0
            && near.is_some_and(|near| near.abs_diff(segment.hop_limit) <= 1)
            && r.time.since(first.time) > guard
    })?;
    let passed = span(own.time.since(first.time));
    let observed = format!("hop limit {} after {passed}", own.segment.hop_limit);
    Some(OWN_FOLLOWS.found(observed, "none"))
}

/// The same for a guess that was bare: whoever aborts after it had a connection, and never sent that.
fn abort_follows(case: &Case<'_>, first: &ResetSeen) -> Option<Evidence> {
    let is_own = |r: &&ResetSeen| is_active(&r.segment) && r.fit == SequenceFit::Exact;
    let own = case.from_sender().find(is_own)?;
    let passed = span(own.time.since(first.time));
    Some(OWN_FOLLOWS.found(format!("abort at RCV.NXT after {passed}"), "none"))
}

/// The same for the answer to a SYN: one that is not valid, then one that is, from elsewhere.
fn valid_refusal_follows(case: &Case<'_>) -> Option<Evidence> {
    let first = &case.first()?.segment;
    let expected = receiver_isn(case)?.plus(1);
    if first.flags.ack() && first.ack == expected {
        return None;
    }
    let valid = case.from_sender().find(|r| {
        r.segment.flags.ack()
            && r.segment.ack == expected
            && is_far(r.segment.hop_limit, first.hop_limit)
    })?;
    let observed = format!("valid refusal with hop limit {}", valid.segment.hop_limit);
    Some(OWN_FOLLOWS.found(observed, "none"))
}

#[cfg(test)]
mod tests {
    use super::own_reset_follows;
    use crate::evidence::testing::{RECEIVER_ISN, Scene, name};
    use crate::wire::{Flags, Segment};

    #[test]
    fn silence_after_the_reset_says_nothing() {
        assert_eq!(Scene::established().check(own_reset_follows), None);
    }

    #[test]
    fn a_valid_refusal_after_an_invalid_one_tells() {
        let mirrored = Scene::refused().reset(|r| r.ack = RECEIVER_ISN);
        let valid = |hop_limit| {
            move |r: &mut Segment| {
                r.ack = RECEIVER_ISN.plus(1);
                r.hop_limit = hop_limit;
            }
        };
        let elsewhere = mirrored.clone().again(9_000, valid(60));
        assert_eq!(
            elsewhere.check(own_reset_follows),
            name("own_reset_follows")
        );
        assert_eq!(
            mirrored.again(9_000, valid(50)).check(own_reset_follows),
            None
        );
        let twice = Scene::refused().again(9_000, valid(60));
        assert_eq!(twice.check(own_reset_follows), None);
    }

    #[test]
    fn the_senders_own_reset_after_a_foreign_one_tells() {
        let own = |r: &mut Segment| {
            r.hop_limit = 50;
            r.window = 0;
            r.flags = Flags(Flags::RST);
        };
        let scene = Scene::established().forged().again(40_000, own);
        assert_eq!(scene.check(own_reset_follows), name("own_reset_follows"));
        // A front end that starts at 64 and 128: one distance.
        let two = Scene::established()
            .hop_limit(123)
            .reset(|r| r.hop_limit = 59)
            .again(40_000, |r| {
                own(r);
                r.hop_limit = 123;
            });
        assert_eq!(two.check(own_reset_follows), None);
        // Routers take turns, and two flows of the address came as far as the first.
        let far = scene.resets[0].segment.hop_limit;
        let mut spread = scene.path_hop_limit(far);
        let heard = &mut spread.flow.path.as_mut().unwrap().hop_limits;
        heard.note(far);
        let two = spread.clone();
        assert_eq!(two.check(own_reset_follows), name("own_reset_follows"));
        let heard = &mut spread.flow.path.as_mut().unwrap().hop_limits;
        heard.note(far);
        assert_eq!(spread.check(own_reset_follows), None);
    }
}

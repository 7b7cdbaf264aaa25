//! The sum: what the facts of one case weigh together, and what verdict that carries. Only here is
//! it known that facts share causes. Decides between the endpoint and a third party; what the
//! kernel attests (local, forwarded, stray) was decided before.

use super::cause::{injected_cause, remote_cause};
use super::weights::{
    GROUP_COUNTS_DB, INJECTED_DB, LIKENESS_CAP_DB, PRIOR_DB, REMOTE_DB, STRANGER,
    STRANGER_LIKENESS_CAP_DB, cap_db, db_of,
};
use super::{Cause, Verdict, late};
use crate::evidence::{Case, Evidence, Favors, Group, gather, race, sequence, shape};
use crate::host::TcpState;

/// What the evidence of one case comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// Index of the reset that was judged: the first, or one from far elsewhere.
    pub at: usize,
    /// `Remote`, `Injected` or `Undetermined`.
    pub verdict: Verdict,
    /// One level down.
    pub cause: Option<Cause>,
    /// Probability that the verdict is right; for `Undetermined`, of the likelier of the two.
    pub confidence: f32,
    /// The evidence, weighed, strongest first.
    pub evidence: Vec<Evidence>,
    /// The sum with the prior, in decibans: above 0 for a third party.
    pub total_db: f32,
    /// For `Undetermined`: what would have decided it.
    pub missing: Option<&'static str>,
}

/// Groups in which likeness to the sender's other segments is measured: a forger can copy it.
const fn is_likeness(group: Group) -> bool {
    match group {
        Group::HopLimit
        | Group::IpId
        | Group::Shape
        | Group::Link
        | Group::Validity
        | Group::Origin => true,
        Group::Train | Group::Race | Group::Context => false,
    }
}

/// Facts that no sender of the reset can show, however odd its stack: one of them and any second
/// sign are enough.
const IMPOSSIBLE: [&str; 5] = [
    race::SENDS_ON.name,
    race::ACKS_NEW.name,
    race::ANSWERED_NEW.name,
    shape::PAYLOAD_KNOWN.name,
    sequence::SYN_ACKS_ISN.name,
];

/// What is missing where a capture has two connections of one four-tuple.
const OF_TWO: &str = "which of the two connections of this four-tuple it ended";

/// Weighs everything that is known of `case`: its first reset, and those after it that bear the
/// same address and come from far elsewhere. The peer may have reset the connection too, before a
/// device did or after; what was forged matters more. But answers to what was under way when the peer had
/// ended the connection itself ended nothing: they are not held against it.
#[must_use]
pub fn judge(case: &Case<'_>) -> Judgement {
    judge_by(case, &db_of)
}

/// [`judge`] with other weights than the table's: the decibans of each fact by its name.
pub(super) fn judge_by(case: &Case<'_>, weigh: &dyn Fn(&str) -> f32) -> Judgement {
    let judgement = weigh_all(case, gather(case), weigh);
    if judgement.verdict == Verdict::Injected {
        return judgement;
    }
    let is_over = late::is_over(case, &judgement);
    let elsewhere = case
        .resets
        .iter()
        .position(|r| late::is_elsewhere(case, r) && !(is_over && late::is_answer(case, r)));
    let Some((at, other)) = elsewhere.and_then(|at| Some((at, case.resets.get(at)?))) else {
        return judgement;
    };
    let after = case.after.partition_point(|a| a.time <= other.time);
    let answered = case.answered.partition_point(|a| a.time <= other.time);
    let rest = Case {
        resets: case.resets.get(at..).unwrap_or_default(),
        after: case.after.get(after..).unwrap_or_default(),
        answered: case.answered.get(answered..).unwrap_or_default(),
        accepted: None,
        ..*case
    };
    // After the peer's own, so that whoever answers what comes late forges no train.
    let do_answer = judgement.verdict == Verdict::Remote && late::others_answer(case);
    let later = judge_later(&rest, do_answer, weigh);
    if later.verdict == Verdict::Injected {
        Judgement { at, ..later }
    } else {
        judgement
    }
}

/// [`judge`] of the first reset of `case` alone.
pub(super) fn judge_first(case: &Case<'_>) -> Judgement {
    weigh_all(case, gather(case), &db_of)
}

/// Weighs a case whose first reset is one that [`Lateness::Answers`](super::Lateness::Answers).
#[must_use]
pub fn judge_answer(case: &Case<'_>) -> Judgement {
    judge_later(case, true, &db_of)
}

/// Weighs resets from elsewhere, which may do no more than answer: that is a device's way.
fn judge_later(rest: &Case<'_>, do_answer: bool, weigh: &dyn Fn(&str) -> f32) -> Judgement {
    let mut evidence = gather(rest);
    evidence.retain(|fact| !(do_answer && late::is_of_answers(fact.name)));
    let mut later = weigh_all(rest, evidence, weigh);
    if do_answer && later.cause == Some(Cause::OnPath) {
        later.cause = Some(Cause::Middlebox);
    }
    later
}

fn weigh_all(
    case: &Case<'_>,
    mut evidence: Vec<Evidence>,
    weigh: &dyn Fn(&str) -> f32,
) -> Judgement {
    for fact in &mut evidence {
        fact.weight_db = weigh(fact.name);
    }
    evidence.sort_by(|a, b| b.weight_db.total_cmp(&a.weight_db));
    let sum = Sum::of(&evidence);
    let (verdict, missing) = decide(case, &evidence, &sum);
    let third_party = probability(sum.total_db);
    let confidence = match verdict {
        Verdict::Injected => third_party,
        Verdict::Remote => 1.0 - third_party,
        _ => third_party.max(1.0 - third_party),
    };
    let cause = match verdict {
        Verdict::Injected => Some(injected_cause(case, &evidence)),
        Verdict::Remote => remote_cause(case),
        _ => None,
    };
    Judgement {
        at: 0,
        verdict,
        cause,
        confidence,
        evidence,
        total_db: sum.total_db,
        missing,
    }
}

/// The probability that decibans of log odds stand for.
fn probability(db: f32) -> f32 {
    1.0 / (1.0 + 10_f32.powf(-db / 10.0))
}

struct Sum {
    total_db: f32,
    /// Groups that speak for a third party.
    groups: usize,
    /// It came another way than the sender's segments, by two witnesses.
    stranger: bool,
}

impl Sum {
    fn of(evidence: &[Evidence]) -> Self {
        let mut for_third_party = 0.0;
        let mut for_endpoint = 0.0;
        let mut groups = 0;
        for (group, net) in nets(evidence) {
            groups += usize::from(speaks_against(group, net));
            if net > 0.0 || !is_likeness(group) {
                for_third_party += net;
            } else {
                for_endpoint += net;
            }
        }
        let stranger = evidence.iter().any(|e| STRANGER.contains(&e.name));
        let likeness_cap_db = match stranger {
            true => STRANGER_LIKENESS_CAP_DB,
            false => LIKENESS_CAP_DB,
        };
        Self {
            total_db: PRIOR_DB + for_third_party + for_endpoint.max(-likeness_cap_db),
            groups,
            stranger,
        }
    }
}

/// How many groups speak for a third party. Timing never convicts.
#[must_use]
pub fn groups_against(evidence: &[Evidence]) -> usize {
    let against = |(group, net): &(Group, f32)| speaks_against(*group, *net);
    nets(evidence).filter(against).count()
}

fn speaks_against(group: Group, net_db: f32) -> bool {
    group != Group::Context && net_db >= GROUP_COUNTS_DB
}

/// What the facts of each group come to, within its cap.
fn nets(evidence: &[Evidence]) -> impl Iterator<Item = (Group, f32)> {
    let mut sums = [0.0; Group::ALL.len()];
    for fact in evidence {
        // Groups are counted in the order of `Group::ALL`.
        if let Some(sum) = sums.get_mut(fact.group as usize) {
            *sum += match fact.favors {
                Favors::Injected => fact.weight_db,
                Favors::Remote => -fact.weight_db,
                Favors::Local | Favors::Forwarded => 0.0,
            };
        }
    }
    // No `clamp`, which asks each time whether its bounds are in order.
    let net = |(group, sum): (Group, f32)| (group, sum.max(-cap_db(group)).min(cap_db(group)));
    Group::ALL.into_iter().zip(sums).map(net)
}

/// The verdict, and what was missing for one.
///
/// `injected` asks for two groups: one alone is wrong at 1 % of genuine flows (tuples used anew,
/// old stacks). An impossible fact stands on its own when a second witness saw it too: another
/// fact of the same kind from another source.
fn decide(case: &Case<'_>, evidence: &[Evidence], sum: &Sum) -> (Verdict, Option<&'static str>) {
    if sum.total_db >= INJECTED_DB {
        if case.flow.of_two {
            // What the one says is held against the other.
            return (Verdict::Undetermined, Some(OF_TWO));
        }
        if do_agree(evidence, sum) {
            return (Verdict::Injected, None);
        }
        return (
            Verdict::Undetermined,
            Some("a second, independent sign of a third party"),
        );
    }
    if sum.total_db > REMOTE_DB {
        return (Verdict::Undetermined, Some(what_is_missing(case)));
    }
    let has_base = case.sender().is_some() || case.flow.path.is_some_and(|p| p.has_address());
    let met_socket = met_socket(case);
    let for_endpoint = evidence.iter().any(|e| e.favors == Favors::Remote);
    if has_base || met_socket || for_endpoint {
        (Verdict::Remote, None)
    } else {
        (Verdict::Undetermined, Some(what_is_missing(case)))
    }
}

/// Whether more than one thing speaks for a third party.
fn do_agree(evidence: &[Evidence], sum: &Sum) -> bool {
    let signs = || {
        evidence
            .iter()
            .filter(|e| e.favors == Favors::Injected && e.group != Group::Context)
            .filter(|e| e.weight_db >= GROUP_COUNTS_DB)
            .count()
    };
    let is_impossible = || evidence.iter().any(|e| IMPOSSIBLE.contains(&e.name));
    let race_witnesses = || evidence.iter().filter(|e| e.group == Group::Race).count();
    sum.groups >= 2 || sum.stranger || race_witnesses() >= 2 || (is_impossible() && signs() >= 2)
}

/// Whether a local connection was there to measure the reset by: that the lookup found none is nothing to measure
/// by, and a listener knows of nobody.
fn met_socket(case: &Case<'_>) -> bool {
    let state = case
        .first()
        .and_then(|first| first.socket.as_ref()?.state());
    state.is_some_and(TcpState::is_connection)
}

fn what_is_missing(case: &Case<'_>) -> &'static str {
    let met_socket = met_socket(case);
    match case.sender() {
        None => "a segment of the purported sender before the reset",
        Some(sender) if sender.syn.is_none() => "the SYN or SYN-ACK of the purported sender",
        Some(_) if !met_socket => "the local socket, to know the exact sequence number",
        Some(_) => "a segment of the purported sender after the reset",
    }
}

/// Verdict and cause of a scene, which the tests of both files ask for.
#[cfg(test)]
pub(super) fn verdict(scene: &crate::evidence::testing::Scene) -> (Verdict, Option<Cause>) {
    let judgement = judge(&scene.case());
    (judgement.verdict, judgement.cause)
}

#[cfg(test)]
mod tests {
    use super::{judge, verdict};
    use crate::evidence::testing::{RECEIVER_ISN, Scene};
    use crate::host::SocketView;
    use crate::verdict::{Cause, Verdict};
    use crate::wire::{Flags, Options};

    #[test]
    fn genuine_resets_are_the_peers() {
        let remote = |cause| (Verdict::Remote, Some(cause));
        assert_eq!(verdict(&Scene::established()), remote(Cause::Abort));
        assert_eq!(verdict(&Scene::established().v6()), remote(Cause::Abort));
        assert_eq!(
            verdict(&Scene::established().passive()),
            remote(Cause::Answer)
        );
        assert_eq!(
            verdict(&Scene::established().socket(|_| ())),
            remote(Cause::Abort)
        );
        assert_eq!(verdict(&Scene::refused()), remote(Cause::Refused));
    }

    #[test]
    fn an_exact_well_shaped_reset_is_the_peers_with_high_confidence() {
        let mut scene = Scene::established().socket(|_| ());
        scene.accepted = Some(true);
        assert!(judge(&scene.case()).confidence > 0.99);
    }

    #[test]
    fn a_forged_reset_is_injected_and_says_why() {
        let judgement = judge(&Scene::established().forged().case());
        assert_eq!(
            (judgement.verdict, judgement.cause),
            (Verdict::Injected, Some(Cause::OnPath))
        );
        assert!(judgement.confidence > 0.9);
        assert_eq!(judgement.evidence[0].name, "hop_limit_mismatch");
    }

    #[test]
    fn what_two_connections_of_one_four_tuple_say_convicts_nobody() {
        let mut scene = Scene::established().forged();
        scene.flow.of_two = true;
        let judgement = judge(&scene.case());
        assert_eq!(judgement.verdict, Verdict::Undetermined);
        assert_eq!(judgement.missing, Some(super::OF_TWO));
        let mut genuine = Scene::established();
        genuine.flow.of_two = true;
        assert_eq!(verdict(&genuine), (Verdict::Remote, Some(Cause::Abort)));
    }

    #[test]
    fn a_likeness_that_can_be_copied_does_not_outvote_a_steady_distance() {
        let mut abort = Scene::established()
            .sender(|s| s.segments = 2)
            .reset(|r| r.hop_limit = 31)
            .socket(|_| ());
        abort.accepted = Some(true);
        assert_eq!(verdict(&abort), (Verdict::Injected, Some(Cause::OnPath)));
        let mut bare = Scene::established()
            .passive()
            .v6()
            .sender(|s| s.segments = 2)
            .reset(|r| r.hop_limit = 31)
            .socket(|_| ());
        bare.accepted = Some(true);
        assert_eq!(verdict(&bare), (Verdict::Injected, Some(Cause::OnPath)));
    }

    #[test]
    fn a_jump_with_one_witness_accuses_nobody() {
        let scene = Scene::established()
            .passive()
            .reset(|r| r.hop_limit = 31)
            .socket(|_| ());
        assert_eq!(verdict(&scene).0, Verdict::Undetermined);
    }

    #[test]
    fn a_bare_reset_out_of_the_blue_convicts_with_any_sign_of_life() {
        let quiet = Scene::established().passive().socket(|s| {
            s.srtt_us = Some(100);
            (s.idle_ns, s.sent_ago_ns) = (Some(1_000_000_000), Some(1_000_000_000));
        });
        assert_eq!(verdict(&quiet).0, Verdict::Undetermined);
        assert_eq!(verdict(&quiet.after(50, |_| ())).0, Verdict::Injected);
    }

    #[test]
    fn one_kind_of_sign_never_convicts() {
        let by_hops = Scene::established().reset(|r| r.hop_limit = 100);
        assert_ne!(verdict(&by_hops).0, Verdict::Injected);
        let by_train = Scene::established().again(10, |r| r.seq = r.seq.plus(1_460));
        assert_eq!(verdict(&by_train).0, Verdict::Undetermined);
        assert!(judge(&by_train.case()).missing.is_some());
    }

    #[test]
    fn a_perfect_likeness_falls_to_a_peer_that_goes_on() {
        let passive = Scene::established()
            .passive()
            .socket(|s| s.srtt_us = Some(100));
        let seq = passive.resets[0].segment.seq;
        let mut scene = passive
            .after(50, |s| s.payload_len = 100)
            .answered(50, seq, 100);
        scene.accepted = Some(true);
        assert_eq!(verdict(&scene).0, Verdict::Injected);
        // A download: the peer only acknowledges.
        let acks = Scene::established()
            .passive()
            .socket(|s| s.srtt_us = Some(100));
        assert_eq!(
            verdict(&acks.after(50, |_| ()).answered(50, seq, 0)).0,
            Verdict::Injected
        );
    }

    #[test]
    fn a_single_late_segment_does_not_convict_a_perfect_likeness() {
        let scene = Scene::established().after(50, |_| ());
        assert_ne!(verdict(&scene).0, Verdict::Injected);
    }

    #[test]
    fn a_socket_that_was_not_there_is_nothing_to_compare_with() {
        let met = |socket: SocketView| {
            let mut scene = Scene::established().no_sender().socket(|_| ());
            scene.resets[0].socket = Some(socket);
            verdict(&scene).0
        };
        assert_eq!(met(SocketView::Absent), Verdict::Undetermined);
        assert_eq!(met(SocketView::Listener), Verdict::Undetermined);
        let known = Scene::established().no_sender().socket(|_| ());
        assert_eq!(verdict(&known).0, Verdict::Remote);
    }

    #[test]
    fn a_socket_that_took_the_only_number_was_there_though_its_addresses_are_translated() {
        let mut scene = Scene::established().no_sender();
        scene.resets[0].socket = Some(SocketView::Absent);
        assert_eq!(verdict(&scene).0, Verdict::Undetermined);
        scene.accepted = Some(true);
        assert_eq!(verdict(&scene), (Verdict::Remote, Some(Cause::Abort)));
        // Guesses, of which it took one, and a jump are held against the first as they were.
        let guessed = scene.clone().again(100, |r| r.seq = r.seq.plus(9));
        assert_eq!(verdict(&guessed).0, Verdict::Undetermined);
        let mut jumps = Scene::well_known(31);
        jumps.resets[0].socket = Some(SocketView::Absent);
        jumps.accepted = Some(true);
        assert_eq!(verdict(&jumps), (Verdict::Injected, Some(Cause::OnPath)));
    }

    #[test]
    fn without_anything_to_compare_nothing_is_claimed() {
        let mut scene = Scene::established()
            .no_sender()
            .reset(|r| r.dont_fragment = Some(false));
        scene.flow.receiver = None;
        scene.flow.sender_is_originator = None;
        let judgement = judge(&scene.case());
        assert_eq!(judgement.verdict, Verdict::Undetermined);
        assert_eq!(
            judgement.missing,
            Some("a segment of the purported sender before the reset")
        );
    }

    #[test]
    fn an_answer_that_mirrors_the_syn_is_injected() {
        let scene = Scene::refused().reset(|r| {
            r.ack = RECEIVER_ISN;
            r.reserved = 0b1111;
        });
        assert_eq!(verdict(&scene).0, Verdict::Injected);
    }

    #[test]
    fn a_device_that_resets_after_the_peer_is_found() {
        let scene = Scene::established()
            .hop_limit(116)
            .reset(|r| r.hop_limit = 116)
            .again(16_000, |r| {
                r.hop_limit = 244;
                r.ip_id = Some(46_339);
                r.options = Options::default();
            });
        assert_eq!(verdict(&scene).0, Verdict::Injected);
        // The same from the peer itself, by another route.
        let twice = Scene::established().again(16_000, |r| r.hop_limit = 47);
        assert_eq!(verdict(&twice).0, Verdict::Remote);
    }

    #[test]
    fn who_answers_late_segments_did_not_end_what_the_peer_had_ended() {
        // The peer aborts a download; its NAT forgets the connection with that and answers what still comes.
        let aborts = |accepted, of_nat: fn(&mut crate::wire::Segment)| {
            let mut scene = Scene::established()
                .path_hop_limit(50)
                .sender(|s| s.segments = 9)
                .again(20_000, |r| {
                    (r.flags, r.window) = (Flags(Flags::RST), 0);
                    (r.ack, r.ip_id) = (crate::wire::SeqNum(0), Some(0));
                    (r.options, r.hop_limit) = (Options::default(), 255);
                    of_nat(r);
                })
                .socket(|_| ());
            scene.accepted = accepted;
            verdict(&scene)
        };
        let own = (Verdict::Remote, Some(Cause::Abort));
        assert_eq!(aborts(Some(true), |_| ()), own);
        // Where this kernel did not take the first one, or the second is none of an answer, it counts.
        assert_eq!(aborts(Some(false), |_| ()).0, Verdict::Injected);
        assert_eq!(
            aborts(Some(true), |r| r.window = 1_980).0,
            Verdict::Injected
        );
    }

    #[test]
    fn a_front_end_with_two_stacks_is_left_alone() {
        let scene = Scene::established()
            .passive()
            .hop_limit(123)
            .reset(|r| r.hop_limit = 59);
        assert_eq!(verdict(&scene), (Verdict::Remote, Some(Cause::Answer)));
    }
}

//! Which weights carry a verdict: cases on the edge, each of which must fall when the weight that it
//! is about is taken away. So no number of the table changes without a test that says what for.

use super::Verdict;
use super::judge::{judge, judge_by};
use super::weights::db_of;
use crate::evidence::testing::{RECEIVER_ISN, SENDER_ISN, SENDER_MAC, Scene};
use crate::time::SECOND;
use crate::wire::{Flags, LinkAddresses, Mac, Options, Segment, SeqNum};

/// Clear of the sender's hop limit by more than any route's jitter.
const FAR: u8 = 31;
/// Two off: says nothing.
const NEXT: u8 = 52;

/// An abort that met its socket and is right in every field.
fn abort() -> Scene {
    Scene::established().socket(|s| s.srtt_us = Some(100))
}

/// A kernel's answer that met the socket and is right in every field.
fn bare() -> Scene {
    Scene::established()
        .passive()
        .socket(|s| s.srtt_us = Some(100))
}

fn far(r: &mut Segment) {
    r.hop_limit = FAR;
}

fn no_options(r: &mut Segment) {
    r.options = Options::default();
}

fn data(segment: &mut Segment) {
    segment.payload_len = 100;
}

fn without_timestamps(scene: Scene) -> Scene {
    scene
        .receiver(|r| r.syn.as_mut().unwrap().options.timestamps = None)
        .reset(no_options)
}

fn neighbor() -> Scene {
    let mut scene = abort().path_hop_limit(50);
    let path = scene.flow.path.as_mut().unwrap();
    (path.mac, path.mac_count, path.flows) = (Some(SENDER_MAC), 99, 9);
    path.mac_silent_ns = Some(0);
    scene.reset(|r| {
        r.link = Some(LinkAddresses {
            src: Mac([2, 0, 0, 0, 0, 9]),
            dst: None,
        });
    })
}

fn quiet() -> Scene {
    bare().socket(|s| {
        s.srtt_us = Some(100);
        (s.idle_ns, s.sent_ago_ns) = (Some(SECOND), Some(SECOND));
    })
}

/// A verdict, the case, and the weights without any of which it falls.
type Edge = (Verdict, Scene, &'static [&'static str]);

fn by_header() -> Vec<Edge> {
    let forged = Verdict::Injected;
    let steadily = abort().sender(|s| s.segments = 2).reset(far);
    let far_window = Scene::established().passive().reset(|r| {
        far(r);
        r.window = 512;
    });
    let renumbered = |r: &mut Segment| {
        no_options(r);
        r.ip_id = Some(4_660);
    };
    let train = |change: fn(&mut Segment)| {
        Scene::established()
            .reset(no_options)
            .again(100, change)
            .sender(|s| s.has_data = true)
    };
    let climbs = train(|r| r.seq = r.seq.plus(1_460));
    let in_step = train(|r| (r.hop_limit, r.window) = (r.hop_limit + 1, r.window + 1));
    let device = Scene::established().hop_limit(44).passive().reset(|r| {
        r.hop_limit = 237;
        r.dont_fragment = Some(false);
    });
    vec![
        (
            forged,
            steadily,
            &["hop_limit_mismatch", "hop_limit_steady"],
        ),
        (
            forged,
            device,
            &["hop_limit_class_near", "dont_fragment_flip"],
        ),
        (forged, far_window, &["window_on_bare_reset"]),
        (
            forged,
            Scene::established().reset(renumbered),
            &["ip_id_off_counter", "timestamps_missing"],
        ),
        (
            forged,
            abort().reset(renumbered),
            &["ip_id_off_counter_exact", "timestamps_missing"],
        ),
        (forged, climbs, &["train_seq_rising"]),
        (forged, in_step, &["train_lock_step"]),
        (forged, neighbor(), &["mac_mismatch_steady"]),
    ]
}

fn by_numbers() -> Vec<Edge> {
    let forged = Verdict::Injected;
    let guess = Scene::established()
        .passive()
        .reset(far)
        .socket(|s| s.rcv_nxt = SENDER_ISN.plus(1));
    let step = |n: u32| move |r: &mut Segment| r.seq = r.seq.plus(n << 24);
    let scan = Scene::established()
        .reset(|r| {
            r.seq = SENDER_ISN.plus(1 << 26);
            (r.ip_id, r.dont_fragment) = (Some(0), Some(false));
            r.hop_limit = NEXT;
        })
        .again(10, step(1))
        .again(20, step(2))
        .socket(|s| s.rcv_nxt = SENDER_ISN.plus(1));
    let takes_back = abort().reset(|r| {
        far(r);
        r.ack = RECEIVER_ISN;
    });
    let mirror = Scene::refused().reset(|r| {
        r.ack = RECEIVER_ISN;
        r.reserved = 0b1111;
    });
    let mut known_again = Scene::established().forged().no_sender().path_hop_limit(50);
    known_again.injectors.same_residue = 2;
    vec![
        (
            forged,
            known_again,
            &["injector_residue_repeats", "hop_limit_path_mismatch"],
        ),
        (forged, guess, &["sequence_never_acknowledged"]),
        (forged, scan, &["sequence_guesses_in_steps"]),
        (forged, takes_back, &["ack_impossible"]),
        (forged, mirror, &["syn_answer_acks_isn"]),
        (
            forged,
            quiet().after(50, |_| ()),
            &["unprovoked_bare_reset", "peer_acknowledges_on"],
        ),
    ]
}

fn by_what_follows() -> Vec<Edge> {
    let forged = Verdict::Injected;
    let seq = bare().resets[0].segment.seq;
    let sending = Scene::established().passive().socket(|s| {
        s.srtt_us = Some(100);
        s.snd_nxt = s.snd_una.plus(9_000);
    });
    let accepted_later = Scene::refused().after(1_000, |s| {
        s.flags = Flags(Flags::SYN | Flags::ACK);
        s.seq = SeqNum(7);
        s.ack = RECEIVER_ISN.plus(1);
        s.hop_limit = 42;
    });
    let own_follows = Scene::established().reset(far).again(40_000, |r| {
        r.flags = Flags(Flags::RST);
        (r.hop_limit, r.window) = (50, 0);
    });
    vec![
        (
            forged,
            abort().after(50, data).answered(50, seq, 100),
            &["peer_sends_on", "kernel_answered_new_data"],
        ),
        (
            forged,
            bare().after(1, data).answered(1, seq, 100),
            &["peer_sends_on_soon", "kernel_answered_peer"],
        ),
        (
            forged,
            abort()
                .after(1, |s| s.ack = s.ack.plus(9))
                .answered(1, seq, 0),
            &["peer_acknowledges_more", "kernel_answered_peer"],
        ),
        (
            forged,
            bare().after(50, |_| ()).answered(50, seq, 0),
            &["peer_acknowledges_on", "kernel_answered_peer"],
        ),
        (
            forged,
            sending
                .after(1, |s| s.ack = s.ack.plus(3_000))
                .answered(1, seq, 0),
            &["peer_acknowledges_more_soon", "kernel_answered_peer"],
        ),
        (forged, accepted_later, &["syn_ack_after_reset"]),
        (forged, own_follows, &["own_reset_follows"]),
    ]
}

/// What keeps a genuine reset from an accusation, or from doubt.
fn genuine() -> Vec<Edge> {
    let renumbered = Scene::established().reset(|r| r.ip_id = Some(4_660));
    let elsewhere = renumbered.clone().reset(|r| r.hop_limit = NEXT);
    let odd_stack = quiet()
        .reset(|r| r.hop_limit = NEXT)
        .sender(|s| s.syn = None);
    vec![
        (
            Verdict::Remote,
            without_timestamps(renumbered),
            &["hop_limit_match"],
        ),
        (Verdict::Remote, elsewhere, &["timestamps_match"]),
        (Verdict::Remote, odd_stack, &["reset_shape_passive"]),
    ]
}

#[test]
fn every_decisive_weight_has_a_case_that_falls_without_it() {
    let edges = [by_header(), by_numbers(), by_what_follows(), genuine()];
    let mut wrong = Vec::new();
    for (verdict, scene, weights) in edges.into_iter().flatten() {
        let judged = judge(&scene.case());
        if judged.verdict != verdict {
            let facts: Vec<&str> = judged.evidence.iter().map(|e| e.name).collect();
            wrong.push(format!("{weights:?}: {} dB by {facts:?}", judged.total_db));
        }
        for lost in weights {
            let without = judge_by(&scene.case(), &|name| match name == *lost {
                true => 0.0,
                false => db_of(name),
            });
            if without.verdict == verdict {
                wrong.push(format!("stands without {lost}: {} dB", without.total_db));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

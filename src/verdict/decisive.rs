//! Which weights carry a verdict: cases on the edge, each of which must fall when the weight that it
//! is about is taken away. So no number of the table changes without a test that says what for.

use super::Verdict;
use super::judge::{judge, judge_by};
use super::weights::{WEIGHTS, db_of};
use crate::evidence::SiblingFacts;
use crate::evidence::testing::{RECEIVER_ISN, SENDER_ISN, SENDER_MAC, Scene};
use crate::time::SECOND;
use crate::wire::{Flags, LinkAddresses, Mac, Options, Segment, SeqNum, Timestamps};

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
    let of_any = guess
        .clone()
        .sender(|s| s.syn.as_mut().unwrap().options.order = 1);
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
        r.ack = SeqNum(RECEIVER_ISN.0 - 99);
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
        (
            forged,
            of_any,
            &["sequence_never_acknowledged_unknown_stack"],
        ),
        (forged, scan, &["sequence_guesses_in_steps"]),
        (forged, takes_back, &["ack_impossible"]),
        (
            forged,
            mirror,
            &["syn_answer_acks_isn", "reserved_bits_set"],
        ),
        (
            forged,
            quiet().after(50, |_| ()),
            &["unprovoked_bare_reset", "peer_acknowledges_on"],
        ),
    ]
}

/// A sender that does not count, and a reset that lacks its timestamps and is two hops off: 0 dB.
fn no_clock(change: impl FnOnce(&mut Segment)) -> Scene {
    Scene::established()
        .sender(|s| s.ip_id_jumps = 1)
        .reset(|r| {
            no_options(r);
            r.hop_limit = NEXT;
            change(r);
        })
}

/// The reset of an IPv6 peer that jumped, in a capture: two decibans short of nothing.
fn jumped() -> Scene {
    Scene::established().passive().v6().reset(far)
}

fn by_ids() -> Vec<Edge> {
    let forged = Verdict::Injected;
    let behind_nat = || {
        let mut scene = Scene::refused().reset(|r| {
            r.hop_limit = 255;
            r.tuple.src = "61.238.173.128".parse().unwrap();
        });
        scene.siblings.on_counter = 3;
        scene
    };
    let skipped = no_clock(|r| r.ip_id = Some(42_315)).after(200, |s| {
        s.ip_id = Some(30_223);
        s.seq = SeqNum(s.seq.0 - 100);
    });
    let mirrored = no_clock(|r| r.ip_id = Some(5_461)).receiver(|r| r.ip_id = Some(5_461));
    let airtel = no_clock(|r| (r.ip_id, r.window, r.dont_fragment) = (Some(242), 16, Some(false)))
        .sender(|s| s.dont_fragment = (true, true));
    let copies = no_clock(|_| ()).again(5, |_| ());
    let steps = no_clock(|_| ()).again(50, |r| (r.ip_id, r.ack) = (Some(7), r.ack.plus(1_424)));
    let stranger = LinkAddresses {
        src: Mac([2, 0, 0, 0, 0, 9]),
        dst: None,
    };
    let neighbor = no_clock(|r| r.link = Some(stranger)).sender(|s| s.mac_count = 99);
    vec![
        (
            forged,
            behind_nat(),
            &["hop_limit_zero_across_nat", "ip_id_counter_shared"],
        ),
        (
            forged,
            skipped,
            &["ip_id_counter_skips_reset", "timestamps_missing"],
        ),
        (forged, mirrored, &["ip_id_mirrored", "timestamps_missing"]),
        (
            forged,
            airtel,
            &["ip_id_known_injector", "timestamps_missing"],
        ),
        (forged, copies, &["train_copies", "timestamps_missing"]),
        (forged, steps, &["train_ack_steps", "timestamps_missing"]),
        (forged, neighbor, &["mac_mismatch", "timestamps_missing"]),
    ]
}

fn by_shape() -> Vec<Edge> {
    let forged = Verdict::Injected;
    let hybrid = Scene::established().reset(|r| {
        far(r);
        no_options(r);
        r.window = 0;
    });
    let clock = Scene::established().reset(|r| {
        far(r);
        r.options.timestamps = Some(Timestamps {
            value: 7,
            echo: 900_900,
        });
    });
    let henan = Scene::established().reset(|r| {
        (r.dont_fragment, r.ip_id, r.payload_len) = (Some(false), Some(1), 10);
        r.payload_head[..10].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 0]);
    });
    let big_ip = Scene::established().hop_limit(44).passive().reset(|r| {
        (r.hop_limit, r.payload_len) = (237, 58);
        r.payload_head[..7].copy_from_slice(b"BIG-IP:");
    });
    let mut front = Scene::established().passive().reset(|r| {
        r.dont_fragment = Some(false);
    });
    for _ in 0..6 {
        front = front.sender(|s| s.hop_limits.note(FAR));
    }
    vec![
        (
            forged,
            hybrid,
            &["reset_shape_hybrid", "hop_limit_mismatch"],
        ),
        (forged, clock, &["timestamps_wrong", "hop_limit_mismatch"]),
        (forged, henan, &["payload_known_injector"]),
        (
            forged,
            big_ip,
            &["payload_names_device", "hop_limit_class_near"],
        ),
        (
            forged,
            front,
            &["hop_limit_handshake_only", "dont_fragment_flip"],
        ),
    ]
}

fn by_other_flows() -> Vec<Edge> {
    let forged = Verdict::Injected;
    let mut residue = without_timestamps(Scene::established().v6().reset(far));
    residue.injectors.same_residue = 1;
    let mut wave = jumped();
    wave.siblings = SiblingFacts {
        at_once: 20,
        networks: 9,
        is_one_place: true,
        ..SiblingFacts::default()
    };
    let mut network = Scene::established().forged().no_sender().path_hop_limit(50);
    network.injectors.same_residue = 2;
    let path = network.flow.path.as_mut().unwrap();
    let hop_limits = std::mem::take(&mut path.hop_limits);
    (path.prefix.hop_limits, path.prefix.flows) = (hop_limits, 9);
    path.prefix.has_several = true;
    let step = |n: u32| move |r: &mut Segment| r.seq = r.seq.plus(n << 24);
    let guesses = Scene::established()
        .reset(|r| {
            r.seq = SENDER_ISN.plus(1 << 26);
            (r.ip_id, r.dont_fragment) = (Some(0), Some(false));
            r.hop_limit = NEXT;
        })
        .again(10, step(1))
        .again(20, step(3))
        .socket(|s| s.rcv_nxt = SENDER_ISN.plus(1));
    let odd_stack = quiet()
        .reset(|r| r.hop_limit = NEXT)
        .sender(|s| s.syn = None)
        .after(50, |_| ());
    vec![
        (
            forged,
            residue,
            &["injector_residue_seen", "hop_limit_mismatch"],
        ),
        (
            forged,
            wave,
            &["reset_with_many_from_one_place", "hop_limit_mismatch"],
        ),
        (
            forged,
            network,
            &["hop_limit_prefix_mismatch", "injector_residue_repeats"],
        ),
        (forged, guesses, &["sequence_guesses"]),
        (
            forged,
            odd_stack,
            &[
                "unprovoked_bare_reset_unknown_stack",
                "peer_acknowledges_on",
            ],
        ),
    ]
}

fn by_what_follows() -> Vec<Edge> {
    let forged = Verdict::Injected;
    let seq = bare().resets[0].segment.seq;
    let sending = Scene::established().passive().socket(|s| {
        s.srtt_us = Some(100);
        s.write_seq = s.snd_una.plus(9_000);
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
            abort().after(50, data).after(60, |s| {
                data(s);
                s.seq = s.seq.plus(100);
            }),
            &["peer_sends_on", "peer_heard_again"],
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
    let proxied = abort().reset(|r| {
        no_options(r);
        r.hop_limit = NEXT;
    });
    vec![
        (
            Verdict::Remote,
            without_timestamps(renumbered),
            &["hop_limit_match"],
        ),
        (Verdict::Remote, elsewhere, &["timestamps_match"]),
        (Verdict::Remote, odd_stack, &["reset_shape_passive"]),
        (Verdict::Remote, proxied, &["ip_id_on_counter"]),
    ]
}

fn edges() -> Vec<Edge> {
    [
        by_header(),
        by_ids(),
        by_shape(),
        by_numbers(),
        by_other_flows(),
        by_what_follows(),
        genuine(),
    ]
    .concat()
}

#[test]
fn every_weight_of_ten_decibans_decides_some_case() {
    let named: Vec<&str> = edges().iter().flat_map(|edge| edge.2).copied().collect();
    for weight in WEIGHTS.iter().filter(|weight| weight.db >= 10.0) {
        assert!(named.contains(&weight.kind.name), "{}", weight.kind.name);
    }
}

#[test]
fn every_decisive_weight_has_a_case_that_falls_without_it() {
    let mut wrong = Vec::new();
    for (verdict, scene, weights) in edges() {
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

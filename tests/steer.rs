//! `steer` under BPF_PROG_RUN: a table of frames with the action and the counter that each must
//! give, the gate in each of its states, and the promise that user space's parser decides alike.
//! Needs root; no interface is touched.

#![allow(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    clippy::too_many_lines,
    clippy::print_stdout,
    reason = "a test that panics has failed, as it should; it may print and wait"
)]

#[path = "support/corpus.rs"]
mod corpus;
#[path = "../fuzz/src/steer.rs"]
mod differential;
#[path = "steer/frames.rs"]
mod frames;
#[path = "support/namespace.rs"]
mod namespace;
#[path = "steer/rig.rs"]
mod rig;
#[path = "steer/shares.rs"]
mod shares;

use std::mem::MaybeUninit;
use std::time::Duration;

use differential::{Decision, Steer};
use frames::{ACK, FIN, RST, SYN, ethernet, ipv4, ipv6, tcp, v4};
use libbpf_rs::ProgramInput;
use rig::{Rig, meta_len};
use rstscope::events::FrameOrigin;
use rstscope::host::SocketView;
use rstscope::host_bytes::frame_meta;
use rustix::thread::CpuSet;

const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;

#[test]
#[ignore = "needs root"]
fn every_kind_of_frame_passes_and_is_counted_once() {
    let mut place = MaybeUninit::uninit();
    let mut rig = Rig::new(&mut place, |_| {});
    let ack = tcp(ACK, &[]);
    let syn = tcp(SYN, &[1; 20]);
    let v4_packet = ipv4(0, 6, 0, &ack);
    let mut short_ihl = v4_packet.clone();
    short_ihl[0] = 0x44;
    let mut lying_len = v4_packet.clone();
    lying_len[3] = 19;
    let mut version_9 = v4_packet.clone();
    version_9[0] = 0x95;
    let mut bad_offset = ipv4(0, 6, 0, &tcp(RST, &[]));
    bad_offset[32] = 0x40;
    let mut offset_past_packet = ipv4(0, 6, 0, &tcp(RST, &[]));
    offset_past_packet[32] = 0x60;
    // The fragment header is the second of two.
    let fragment = |frag_off: u16| {
        let mut packet = ipv6(&[0, 44], 6, &syn);
        packet[50..52].copy_from_slice(&frag_off.to_be_bytes());
        packet
    };
    let six = [0, 60, 43, 44, 60, 60];
    let rows: Vec<(&str, Vec<u8>, &str)> = vec![
        ("ack", v4(ACK), "passed"),
        (
            "ack, ip options",
            ethernet(0x800, &[], &ipv4(40, 6, 0, &ack)),
            "passed",
        ),
        (
            "ack, one tag",
            ethernet(0x800, &[0x8100], &v4_packet),
            "passed",
        ),
        (
            "ack, two tags",
            ethernet(0x800, &[0x88a8, 0x8100], &v4_packet),
            "passed",
        ),
        (
            "three tags",
            ethernet(0x800, &[0x88a8, 0x8100, 0x8100], &v4_packet),
            "too_deep",
        ),
        ("old qinq", ethernet(0x800, &[0x9100], &v4_packet), "not_ip"),
        ("arp", ethernet(0x806, &[], &[0; 28]), "not_ip"),
        ("version 9", ethernet(0x800, &[], &version_9), "not_ip"),
        (
            "udp",
            ethernet(0x800, &[], &ipv4(0, 17, 0, &[0; 8])),
            "not_tcp",
        ),
        (
            "udp over ipv6",
            ethernet(0x86dd, &[], &ipv6(&[], 17, &[0; 8])),
            "not_tcp",
        ),
        (
            "first fragment",
            ethernet(0x800, &[], &ipv4(0, 6, 0x2000, &syn)),
            "fragment",
        ),
        (
            "last fragment",
            ethernet(0x800, &[], &ipv4(0, 6, 0x00b9, &syn)),
            "fragment",
        ),
        (
            "ipv6, first fragment",
            ethernet(0x86dd, &[], &fragment(0x0001)),
            "fragment",
        ),
        (
            "ipv6, last fragment",
            ethernet(0x86dd, &[], &fragment(0x0008)),
            "fragment",
        ),
        (
            "ipv6, an ack in an atomic fragment",
            ethernet(0x86dd, &[], &ipv6(&[44, 60], 6, &ack)),
            "passed",
        ),
        ("ihl 4", ethernet(0x800, &[], &short_ihl), "malformed"),
        (
            "total length 19",
            ethernet(0x800, &[0x8100], &lying_len),
            "malformed",
        ),
        (
            "data offset 4",
            ethernet(0x800, &[], &bad_offset),
            "malformed",
        ),
        (
            "data offset past the packet",
            ethernet(0x800, &[], &offset_past_packet),
            "malformed",
        ),
        (
            "ipv6 ack",
            ethernet(0x86dd, &[], &ipv6(&[], 6, &ack)),
            "passed",
        ),
        (
            "ipv6, six extensions",
            ethernet(0x86dd, &[], &ipv6(&six, 6, &ack)),
            "passed",
        ),
        (
            "ipv6, seven",
            ethernet(0x86dd, &[], &ipv6(&[60; 7], 6, &ack)),
            "too_deep",
        ),
        (
            "ipv6, a fragment header behind six",
            ethernet(0x86dd, &[], &ipv6(&[60, 60, 60, 60, 60, 60, 44], 6, &ack)),
            "too_deep",
        ),
    ];
    for (name, frame, counter) in rows {
        let outcome = rig.run(&frame);
        assert_eq!(
            (outcome.action, outcome.counted),
            (XDP_PASS, vec![counter]),
            "{name}"
        );
        assert_eq!((outcome.copies, outcome.out), (vec![], frame), "{name}");
    }
    for frame in [
        v4(RST),
        ethernet(0x800, &[0x88a8, 0x8100], &ipv4(8, 6, 0, &syn)),
        ethernet(0x86dd, &[], &ipv6(&six, 6, &syn)),
        // Two bits of it are nobody's.
        ethernet(0x86dd, &[], &fragment(0x0006)),
    ] {
        for len in 14..frame.len() {
            let outcome = rig.run(&frame[..len]);
            assert_eq!(
                (outcome.action, outcome.copies),
                (XDP_PASS, vec![]),
                "{len}"
            );
            assert_eq!(
                outcome.counted,
                ["truncated"],
                "cut at {len} of {frame:02x?}"
            );
        }
        assert_eq!(rig.run(&frame).counted, ["bypass_closed", "copied"]);
    }
    for flags in 0..=255 {
        let is_control = flags & (SYN | FIN | RST) != 0;
        let counted = rig.run(&v4(flags)).counted;
        assert_eq!(
            counted[0],
            if is_control {
                "bypass_closed"
            } else {
                "passed"
            },
            "{flags:#x}"
        );
    }
}

#[test]
#[ignore = "needs root"]
fn the_gate_decides_and_the_host_keeps_what_it_refuses() {
    let mut place = MaybeUninit::uninit();
    let mut rig = Rig::new(&mut place, |_| {});
    let frame = v4(RST);
    let refused = |rig: &mut Rig, why: &str| {
        let outcome = rig.run(&frame);
        assert_eq!((outcome.action, &outcome.out), (XDP_PASS, &frame), "{why}");
        assert_eq!(outcome.counted, [why, "copied"]);
        let copy = (
            FrameOrigin::Bypassed,
            frame.clone(),
            Some(SocketView::Absent),
        );
        assert_eq!(outcome.copies, [copy]);
    };
    let fresh = u64::MAX >> 1;
    refused(&mut rig, "bypass_closed");
    rig.set_gate(0, 0, fresh, 8);
    refused(&mut rig, "no_socket");
    assert_eq!(rig.gate(0), 0, "nothing was produced");

    // The last one that this thread may use: a word that is never written says 0.
    let allowed = rustix::thread::sched_getaffinity(None).unwrap();
    let here = (0..CpuSet::MAX_CPU)
        .rfind(|cpu| allowed.is_set(*cpu))
        .unwrap();
    let mut only = CpuSet::new();
    only.set(here);
    rustix::thread::sched_setaffinity(None, &only).unwrap();
    let socket = rig.insert_socket();
    for produced in 1..=8 {
        let outcome = rig.run(&frame);
        assert_eq!(
            (outcome.action, outcome.counted),
            (XDP_REDIRECT, vec!["redirected"])
        );
        assert_eq!((outcome.copies.len(), rig.gate(0)), (0, produced));
        assert_eq!(rig.gate(8), here as u64, "the CPU that redirected");
        let (meta, bytes) = outcome.out.split_at(outcome.out.len() - frame.len());
        let (time, view) = frame_meta(meta).expect("metadata");
        assert_eq!(
            (meta.len(), bytes, view),
            (meta_len(), &frame[..], Some(SocketView::Absent))
        );
        assert!(time.as_nanos() > 0);
    }
    refused(&mut rig, "bypass_credit");
    assert_eq!(rig.gate(88), 1, "draining");

    // One frame came back; there is credit, but what is under way must not be overtaken.
    rig.give_back(7);
    refused(&mut rig, "bypass_draining");
    rig.give_back(8);
    assert_eq!(rig.run(&frame).action, XDP_REDIRECT, "drained: open again");

    rig.set_gate(0, 0, 1, 8);
    refused(&mut rig, "bypass_heartbeat");
    rig.set_gate(0, 0, fresh, 8);
    let mut long = ipv4(0, 6, 0, &tcp(FIN, &[]));
    long.resize(1523, 0);
    let long = ethernet(0x800, &[], &long);
    let outcome = rig.run(&long);
    assert_eq!(
        (outcome.action, outcome.counted),
        (XDP_PASS, vec!["too_long", "copied"])
    );
    assert_eq!(outcome.copies[0].1, long[..192], "the head only");

    // A SYN asks for no socket.
    let outcome = rig.run(&v4(SYN));
    assert_eq!(
        frame_meta(&outcome.out[..meta_len()]).expect("metadata").1,
        None
    );
    drop(socket);
}

/// The checksum of a segment as its sender leaves it to an interface: that of the pseudo-header.
fn with_partial_checksum(addresses: &[u8], mut segment: Vec<u8>) -> Vec<u8> {
    let numbers = [6, segment.len() as u32];
    let words = addresses
        .chunks(2)
        .map(|w| u32::from(w[0]) << 8 | u32::from(w[1]));
    let mut sum: u32 = words.chain(numbers).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    segment[16..18].copy_from_slice(&(sum as u16).to_be_bytes());
    segment
}

#[test]
#[ignore = "needs root"]
fn what_its_sender_left_unfinished_stays_with_the_host() {
    let mut place = MaybeUninit::uninit();
    let mut rig = Rig::new(&mut place, |_| {});
    let _socket = rig.insert_socket();
    rig.set_gate(0, 0, u64::MAX >> 1, 8);
    let v4 = |segment: Vec<u8>| ipv4(4, 6, 0, &segment);
    let v6 = |segment: Vec<u8>| ipv6(&[60], 6, &segment);
    for flags in [SYN, FIN | ACK, RST] {
        let mut segment = tcp(flags, &[1; 8]);
        segment.extend([7; 9]);
        let by_v4 = with_partial_checksum(&v4(Vec::new())[12..20], segment.clone());
        let by_v6 = with_partial_checksum(&ipv6(&[], 6, &[])[8..40], segment);
        let frames = [
            ethernet(0x800, &[], &v4(by_v4.clone())),
            ethernet(0x800, &[0x88a8, 0x8100], &v4(by_v4)),
            ethernet(0x86dd, &[], &v6(by_v6)),
        ];
        for frame in frames {
            let outcome = rig.run(&frame);
            assert_eq!(
                (outcome.action, outcome.counted),
                (XDP_PASS, vec!["copied", "checksum_partial"])
            );
            assert_eq!(
                (outcome.copies.len(), rig.gate(88)),
                (1, 0),
                "the gate stays open"
            );
            // One bit of an address or of itself, and it is no longer that.
            let tcp_at = frame.len() - 37;
            for at in [tcp_at - 9, tcp_at + 16, tcp_at + 17] {
                let mut other = frame.clone();
                other[at] ^= 1;
                assert_eq!(rig.run(&other).action, XDP_REDIRECT, "{at} {frame:02x?}");
                rig.set_gate(0, 0, u64::MAX >> 1, 8);
            }
        }
    }
}

/// With next hops chosen by a frame's hash, only what a socket here receives may lose it.
#[test]
#[ignore = "needs root"]
fn what_this_host_may_route_by_its_hash_stays_with_the_host() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_be_bytes();
    let mut place = MaybeUninit::uninit();
    let mut rig = Rig::new(&mut place, |open| {
        let routes = open.maps.data_routes_data.as_mut().expect("routes");
        routes.routes_by_hash = 1;
    });
    let _socket = rig.insert_socket();
    rig.set_gate(0, 0, u64::MAX >> 1, 8);
    for flags in [SYN, SYN | ACK, FIN | ACK, RST] {
        let outcome = rig.run(&v4(flags));
        assert_eq!(
            (outcome.action, outcome.counted),
            (XDP_PASS, vec!["copied", "routed"])
        );
        assert_eq!(
            (outcome.copies.len(), rig.gate(88)),
            (1, 0),
            "the gate stays open"
        );
    }
    for flags in [SYN, FIN | ACK, RST] {
        let mut ours = v4(flags);
        ours[30..34].copy_from_slice(&[127, 0, 0, 1]);
        ours[36..38].copy_from_slice(&port);
        assert_eq!(rig.run(&ours).action, XDP_REDIRECT);
    }
}

#[test]
#[ignore = "needs root"]
fn short_metadata_and_copies_after_a_reset_work() {
    let mut place = MaybeUninit::uninit();
    let mut rig = Rig::new(&mut place, |open| {
        let rodata = open.maps.rodata_data.as_mut().expect("rodata");
        rodata.short_metadata = 1;
        rodata.watch_budget = 3;
        rodata.watch_ns = 200_000_000;
    });
    let _socket = rig.insert_socket();
    rig.set_gate(0, 0, u64::MAX >> 1, 8);
    assert_eq!(rig.run(&v4(ACK)).copies, [], "nothing is watched yet");
    let outcome = rig.run(&v4(RST));
    let (meta, _) = outcome.out.split_at(32);
    assert_eq!(
        frame_meta(meta).expect("metadata").1,
        Some(SocketView::Absent)
    );
    let mut other = v4(ACK);
    other[35] = 9;
    for copied in [true, true, true, false] {
        assert_eq!(rig.run(&other).copies, [], "another flow");
        let outcome = rig.run(&v4(ACK));
        let expected = [(FrameOrigin::AfterReset, v4(ACK), None)];
        assert_eq!(
            (outcome.action, outcome.copies[..] == expected),
            (XDP_PASS, copied)
        );
    }
    // From then on each at twice the time since the reset at least.
    let copied = |rig: &mut Rig<'_>| !rig.run(&v4(ACK)).copies.is_empty();
    for ms in [5, 15] {
        std::thread::sleep(Duration::from_millis(ms));
        assert_eq!([copied(&mut rig), copied(&mut rig)], [true, false]);
    }
    rig.run(&v4(RST));
    std::thread::sleep(Duration::from_millis(250));
    assert_eq!(rig.run(&v4(ACK)).copies, [], "the watch is over");
    let bss = rig.skel.maps.bss_data.as_ref().expect("bss");
    assert_eq!(bss.watching_until_ns, 0, "back to one load a frame");
}

#[test]
#[ignore = "needs root"]
fn user_space_decides_alike_on_mutated_frames() {
    let mut steer = Steer::load().expect("steer (root?)");
    let mut seeds = vec![
        v4(RST | ACK),
        v4(ACK),
        ethernet(
            0x800,
            &[0x88a8, 0x8100],
            &ipv4(12, 6, 0, &tcp(SYN, &[1; 12])),
        ),
        ethernet(0x86dd, &[], &ipv6(&[], 6, &tcp(FIN, &[1; 4]))),
        ethernet(
            0x86dd,
            &[0x8100],
            &ipv6(&[0, 43, 60, 51, 60], 6, &tcp(RST, &[])),
        ),
        ethernet(0x86dd, &[], &ipv6(&[60, 44], 6, &tcp(SYN, &[]))),
    ];
    // What the fuzzers start from too; shorter ones than an Ethernet and an IP header cannot be run.
    seeds.extend(corpus::read("frame").into_iter().filter(|f| f.len() >= 34));
    let mut numbers = corpus::Random::new(0x9e37_79b9_7f4a_7c15);
    let (mut control, mut rejected) = (0, 0);
    for round in 0..40_000 {
        // Half of them as the fuzzers mutate, anywhere; the other half with care, so that most stay TCP.
        if round % 2 == 0 {
            steer.decide(&corpus::mutated(&seeds, &mut numbers));
            continue;
        }
        let mut random = |below: usize| numbers.below(below);
        let mut frame = seeds[round % seeds.len()].clone();
        for _ in 0..random(4) {
            // Past the addresses; those are free to be anything.
            let at = 12 + random(frame.len() - 12);
            frame[at] = if random(2) == 0 {
                random(256) as u8
            } else {
                [0, 6, 44, 0x45][random(4)]
            };
        }
        if random(4) == 0 {
            frame.truncate(14 + random(frame.len() - 13));
        }
        match steer.decide(&frame) {
            Decision::Control => control += 1,
            Decision::Rejected => rejected += 1,
            Decision::Passed | Decision::NotAsked => {}
        }
    }
    assert!(control > 1000 && rejected > 500, "{control} {rejected}");
}

#[test]
#[ignore = "needs root"]
fn what_a_passed_frame_costs() {
    let mut place = MaybeUninit::uninit();
    let rig = Rig::new(&mut place, |_| {});
    let frame = v4(ACK);
    let mut best = Duration::MAX;
    for _ in 0..20 {
        let output = rig.skel.progs.steer.test_run(ProgramInput {
            data_in: Some(&frame),
            repeat: 1_000_000,
            ..Default::default()
        });
        best = best.min(output.expect("BPF_PROG_RUN").duration);
    }
    println!("steer on an ACK: {best:?} a frame, the runner's own cost included");
    assert!(best < Duration::from_micros(1));
}

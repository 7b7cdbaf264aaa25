//! The false positives that the evidence notes name, one by one: a genuine reset that shows such a
//! sign is never called injected by it. What must be silent about it is tested beside each test; here
//! is what the sum makes of those that cannot be silent.

use super::Verdict;
use super::judge::judge;
use crate::evidence::testing::{RECEIVER_ISN, SENDER_ISN, Scene, at_ms};
use crate::time::{MILLISECOND, SECOND};
use crate::wire::{Flags, LinkAddresses, Mac, Options, Segment, SeqNum, Timestamps};

/// Id in the notes, the world that it lies in, and a genuine reset there.
type Guard = (&'static str, &'static str, Scene);

/// A reset that met its socket and is right in every field but for `change`.
fn abort(change: impl FnOnce(&mut Segment)) -> Scene {
    Scene::established()
        .reset(change)
        .socket(|s| s.srtt_us = Some(100))
}

fn bare(change: impl FnOnce(&mut Segment)) -> Scene {
    Scene::established()
        .passive()
        .reset(change)
        .socket(|s| s.srtt_us = Some(100))
}

fn no_options(r: &mut Segment) {
    r.options = Options::default();
}

fn by_numbers() -> Vec<Guard> {
    let lost = abort(|r| r.seq = r.seq.plus(400));
    let mut ahead = lost.clone().again(100_000, |r| {
        r.seq = SeqNum(r.seq.0 - 400);
        (r.flags, r.ack, r.window) = (Flags(Flags::RST), SeqNum(0), 0);
        no_options(r);
    });
    ahead = ahead.socket(|s| s.rcv_nxt = SENDER_ISN.plus(101));
    let duplicate = bare(|_| ()).socket(|s| s.rcv_nxt = s.rcv_nxt.plus(70_000));
    let burst = bare(|_| ())
        .again(50, |r| r.seq = r.seq.plus(1_460))
        .again(90, |r| r.seq = r.seq.plus(2_920));
    let answers_each = Scene::established()
        .again(20_000, |r| (r.ip_id, r.ack) = (Some(30_235), r.ack.plus(1)))
        .again(90_000, |r| r.ip_id = Some(30_236));
    let doubled = Scene::established()
        .again(2, |_| ())
        .again(4, |_| ())
        .sender(|s| s.duplicates = 1);
    vec![
        ("E-V2", "data before the abort was lost", ahead),
        ("E-V3", "an old duplicate", duplicate),
        ("E-V4", "a kernel answers a burst", burst),
        ("E-V5", "a stack that answers each segment", answers_each),
        ("E-V5", "a capture that holds frames three times", doubled),
        (
            "E-V7",
            "sequence numbers rewritten on the way",
            abort(|r| r.ack = r.ack.plus(1 << 29)),
        ),
        (
            "E-V9",
            "Windows fills the ACK field",
            bare(|r| r.ack = r.seq.plus(5)).sender(|s| {
                s.syn.as_mut().unwrap().options.order = 0;
            }),
        ),
        (
            "E-V10",
            "a client that gives up its SYN",
            Scene::established()
                .passive()
                .sender(|s| s.has_data = false),
        ),
        ("E-V10", "a refusal without ACK", {
            Scene::refused().reset(|r| r.flags = Flags(Flags::RST))
        }),
    ]
}

fn by_network_header() -> Vec<Guard> {
    vec![
        ("E-H1", "a socket with its own TTL, a kernel without", {
            Scene::established()
                .passive()
                .hop_limit(255)
                .reset(|r| r.hop_limit = 64)
        }),
        ("E-H1", "a front end with two stacks", {
            Scene::established()
                .passive()
                .hop_limit(123)
                .reset(|r| r.hop_limit = 59)
        }),
        (
            "E-H1",
            "an anycast address moves, heard once before",
            bare(|r| r.hop_limit = 39),
        ),
        (
            "E-H1",
            "a route that grows by two",
            bare(|r| r.hop_limit = 48),
        ),
        (
            "E-H5",
            "a NAT that renumbers",
            abort(|r| r.ip_id = Some(4_660)),
        ),
        ("E-H5", "a NAT that renumbers, in a capture", {
            Scene::established().reset(|r| r.ip_id = Some(4_660))
        }),
        ("E-H6", "the receiver's ID by chance", {
            abort(|r| r.ip_id = Some(5_461)).receiver(|r| r.ip_id = Some(5_461))
        }),
        (
            "E-H8",
            "a tunnel that clears Don't Fragment",
            bare(|r| r.dont_fragment = Some(false)),
        ),
    ]
}

fn by_tcp_header() -> Vec<Guard> {
    let scanner = Scene::established()
        .passive()
        .hop_limit(242)
        .sender(|s| s.dont_fragment = (false, true))
        .reset(|r| (r.hop_limit, r.seq) = (51, SENDER_ISN.plus(1)));
    vec![
        (
            "E-H9",
            "an old router's bare reset with a window",
            bare(|r| r.window = 4_128),
        ),
        (
            "E-H10",
            "a proxy that leaves timestamps out",
            abort(no_options),
        ),
        ("E-H11", "a proxy that rewrites the clock", {
            abort(|r| {
                r.options.timestamps = Some(Timestamps {
                    value: 7,
                    echo: 900_900,
                });
            })
        }),
        (
            "E-H12",
            "a window that both ends know",
            abort(|r| r.window = 65_160),
        ),
        (
            "E-H13",
            "an old stack that writes text",
            abort(|r| {
                (r.payload_len, r.payload_head[0]) = (20, b'N');
            }),
        ),
        (
            "E-H14",
            "a stack that sets PSH",
            abort(|r| r.flags = Flags(0x1c)),
        ),
        (
            "E-H14",
            "an experimental option",
            abort(|r| r.options.malformed = true),
        ),
        ("E-C4", "a scanner and its kernel", scanner),
    ]
}

fn by_link() -> Vec<Guard> {
    let second_router = LinkAddresses {
        src: Mac([2, 0, 0, 0, 0, 9]),
        dst: None,
    };
    vec![
        (
            "E-H16",
            "a second router, hardly known",
            abort(|r| r.link = Some(second_router)),
        ),
        ("E-H16", "a second router, well known the first", {
            abort(|r| r.link = Some(second_router)).sender(|s| s.mac_count = 99)
        }),
        (
            "E-H16",
            "another host, of another kind, that took the address over in an hour of silence",
            {
                let mut scene = Scene::established().passive().hop_limit(64);
                scene = scene.sender(|s| s.mac_count = 99).reset(|r| {
                    (r.link, r.hop_limit) = (Some(second_router), 255);
                    (r.dont_fragment, r.ip_id) = (Some(false), Some(5));
                });
                scene.resets[0].time = at_ms(3_600_000);
                scene
            },
        ),
        (
            "E-H17",
            "another link of a bundle",
            abort(|r| r.vlan = Some(7)),
        ),
        ("E-H18", "a path that failed over, with a new label", {
            abort(|r| r.flow_label = Some(7)).v6().sender(|s| {
                s.syn.as_mut().unwrap().flow_label = Some(9);
            })
        }),
        (
            "E-H20",
            "a peer one hop away",
            abort(|r| r.hop_limit = 63).hop_limit(63),
        ),
    ]
}

fn by_what_follows() -> Vec<Guard> {
    vec![
        (
            "E-R1",
            "data that the network reordered",
            bare(|_| ()).after(0, |s| {
                (s.payload_len, s.seq) = (100, SeqNum(s.seq.0 - 100));
            }),
        ),
        (
            "E-R1",
            "one late acknowledgement",
            abort(|_| ()).after(50, |_| ()),
        ),
        ("E-R2", "data in flight that met no socket", {
            let seq = SENDER_ISN.plus(1);
            bare(|_| ()).answered(1, seq, 100)
        }),
        ("E-R3", "two initial hop limits, one after the other", {
            Scene::established()
                .reset(|r| r.hop_limit = 114)
                .again(50_000, |r| {
                    (r.flags, r.window, r.hop_limit) = (Flags(Flags::RST), 0, 50);
                })
        }),
        (
            "E-R5",
            "a port that opened meanwhile",
            Scene::refused().after(1_000, |s| {
                s.flags = Flags(Flags::SYN | Flags::ACK);
                (s.seq, s.ack) = (SeqNum(7), RECEIVER_ISN.plus(1));
            }),
        ),
    ]
}

fn by_circumstance() -> Vec<Guard> {
    let mut again = bare(|_| ());
    again.injectors.blocked_ns = Some(SECOND);
    let mut many = bare(|_| ());
    (many.siblings.at_once, many.siblings.networks) = (60, 40);
    let mut relayed = abort(|_| ());
    relayed.siblings.on_counter = 9;
    vec![
        (
            "E-T2",
            "a client that gives up after its request",
            Scene::established(),
        ),
        ("E-T3", "an application with a timer", {
            bare(|_| ()).socket(|s| s.idle_ns = Some(350 * SECOND))
        }),
        ("E-T4", "many resets at once, each from its own place", many),
        ("E-T4", "a NAT that numbers what it relays", relayed),
        ("E-T5", "a client that tries again", again),
    ]
}

/// A peer that is known well: nine segments of its own, nine flows of its address, all from one distance.
fn well_known(scene: Scene) -> Scene {
    let mut scene = scene.path_hop_limit(50).sender(|s| s.segments = 9);
    let path = scene.flow.path.as_mut().unwrap();
    (1..9).for_each(|_| path.hop_limits.note(50));
    path.flows = 9;
    scene
}

fn also_heard(mut scene: Scene, hop_limits: &[u8], of_network: bool) -> Scene {
    let path = scene.flow.path.as_mut().unwrap();
    let heard = match of_network {
        true => &mut path.prefix.hop_limits,
        false => &mut path.hop_limits,
    };
    for hop_limit in hop_limits {
        (0..3).for_each(|_| heard.note(*hop_limit));
    }
    scene
}

fn relabeled(scene: Scene) -> Scene {
    scene
        .v6()
        .sender(|s| s.syn.as_mut().unwrap().flow_label = Some(77))
        .reset(|r| (r.hop_limit, r.flow_label) = (45, Some(78)))
}

/// Networks that bring one sender's segments by more than one way.
fn by_ways() -> Vec<Guard> {
    let moved = |r: &mut Segment| r.hop_limit = 45;
    let pool = |hop_limit| {
        let scene = well_known(bare(|r| r.hop_limit = hop_limit));
        also_heard(scene, &[46, 54], false).sender(|s| s.syn.as_mut().unwrap().is_syn_ack = true)
    };
    vec![
        (
            "E-H1",
            "a route that changed for all flows of the address",
            { also_heard(well_known(abort(moved)), &[45], false) },
        ),
        ("E-H1", "the same, met by what this kernel answers", {
            also_heard(well_known(bare(moved)), &[45], false)
        }),
        (
            "E-H1",
            "a route that changed in an hour of silence, to a peer that was set up anew",
            {
                let mut scene = Scene::established().passive().sender(|s| s.segments = 9);
                scene.resets[0].time = at_ms(3_600_000);
                scene.reset(moved)
            },
        ),
        (
            "E-H1",
            "a route that changed for the network, heard of others",
            { also_heard(well_known(abort(moved)), &[45], true) },
        ),
        ("E-H1", "ECMP ways that differ by one", {
            also_heard(well_known(abort(|r| r.hop_limit = 49)), &[51], false)
        }),
        (
            "E-H1",
            "a pool behind one address, the near machine",
            pool(54),
        ),
        (
            "E-H1",
            "a pool behind one address, the far machine",
            pool(46),
        ),
        // RFC 6438; sk_rethink_txhash after a retransmission timeout: the outage that made it abort.
        ("E-H18", "a label and a way taken anew after a timeout", {
            relabeled(well_known(abort(|_| ())))
        }),
        // tcp_v6_send_response: no socket, so a label of its own.
        ("E-H18", "an answer of no socket by its own label", {
            relabeled(well_known(bare(|_| ())))
        }),
    ]
}

/// Ends that are rare, and right: each by the rule that makes a kernel send it.
fn by_protocol() -> Vec<Guard> {
    let quiet = |s: &mut crate::host::SocketSequence| {
        (s.srtt_us, s.sent_ago_ns, s.idle_ns) = (Some(100), Some(9 * SECOND), Some(9 * SECOND));
    };
    vec![
        // tcp_xmit_probe_skb sends no data, so that the socket's clock of what it sent stands still.
        (
            "E-V11",
            "a zero-window probe to a peer that lost its state",
            { well_known(bare(|_| ())).socket(quiet) },
        ),
        // tcp_cleanup_rbuf sends the update of a window that a read opens: no data either.
        (
            "E-V11",
            "a reader's window update to a host set up anew, without path MTU discovery",
            {
                well_known(bare(|r| r.dont_fragment = Some(false))).socket(|s| {
                    quiet(s);
                    s.touched_ago_ns = Some(MILLISECOND);
                })
            },
        ),
        // A balancer that sends a connection to another machine of its pool: that one knows nothing of it
        // (RFC 9293 3.10.7.1), and the first sends its data again.
        (
            "E-R1",
            "a machine of the same address answers, the other goes on",
            {
                well_known(bare(|_| ())).after(150, |s| {
                    (s.payload_len, s.flags) = (100, Flags(Flags::PSH | Flags::ACK));
                })
            },
        ),
        // RFC 9293 3.10.7.4 and RFC 2525 2.17: closed with unread data after its FIN.
        ("E-V1", "an abort after its own FIN, half closed", {
            well_known(abort(|r| r.seq = r.seq.plus(1)))
                .sender(|s| s.fin = Some(SENDER_ISN.plus(101)))
        }),
        // RFC 1122 4.2.2.12: a reset may say why in ASCII.
        (
            "E-H13",
            "an old stack that writes text, by a changed route",
            {
                let scene = well_known(bare(|r| {
                    (r.hop_limit, r.payload_len, r.payload_head[0]) = (45, 20, b'N');
                }));
                also_heard(scene, &[45], false)
            },
        ),
        // RFC 5961 3.2: kernels before it aborted at SND.NXT, with data of theirs lost on the way.
        ("E-V2", "an abort beyond lost data, by a changed route", {
            let scene = well_known(abort(|r| (r.seq, r.hop_limit) = (r.seq.plus(2_920), 45)));
            also_heard(scene, &[45], false).socket(|s| s.rcv_nxt = SENDER_ISN.plus(101))
        }),
        // ip_send_unicast_reply: the program's IP_TTL of 100, its kernel's answer at the usual 64.
        (
            "E-H1",
            "a socket with a hop limit of its own, and its kernel",
            {
                let mut scene = bare(|r| r.hop_limit = 54).hop_limit(90);
                scene.flow.sender.as_mut().unwrap().segments = 9;
                scene
            },
        ),
        // cookie_init_timestamp: the low bits of a SYN cookie's clock hold options, up to 63 behind.
        ("E-H11", "a clock that began with a SYN cookie's", {
            well_known(abort(|r| {
                let clock = r.options.timestamps.as_mut().unwrap();
                clock.value -= 63;
            }))
        }),
    ]
}

/// A NAT64 or a carrier's NAT gives packets IDs of its own (RFC 7915 §5.1): a first group against whoever stands
/// behind it, two hops off by a change of routes.
fn renumbered(scene: Scene) -> Scene {
    scene.reset(|r| (r.ip_id, r.hop_limit) = (Some(4_660), 52))
}

/// Without timestamps, and with selective acknowledgements permitted by both ends.
fn with_sack(scene: Scene) -> Scene {
    let asks = |syn: &mut crate::flow::SynFacts| {
        (syn.options.timestamps, syn.options.sack_permitted) = (None, true);
    };
    let scene = scene.sender(|s| asks(s.syn.as_mut().unwrap()));
    let scene = scene.receiver(|r| asks(r.syn.as_mut().unwrap()));
    scene.reset(no_options)
}

/// What an abort shows of its connection's past, and a sensor sees the half of.
fn by_history() -> Vec<Guard> {
    let clock = |recent: u32, idle_ns: u64| {
        renumbered(abort(|_| ())).socket(|s| {
            (s.ts_recent, s.idle_ns) = (Some(recent), Some(idle_ns));
        })
    };
    let mut beyond_gap = clock(460_000, SECOND / 1_000).socket(|s| {
        s.rcv_nxt = SENDER_ISN.plus(1);
        (s.ts_recent, s.idle_ns) = (Some(460_000), Some(SECOND / 1_000));
    });
    beyond_gap.accepted = Some(false);
    let month = 30 * 86_400_u32;
    let days_later = clock(
        501_000_u32.wrapping_sub(month.wrapping_mul(1_000)),
        u64::from(month) * SECOND,
    );
    let opened_by_proxy = |scene: Scene| {
        let mut scene = well_known(scene).sender(|s| s.segments = 1);
        scene.flow.path.as_mut().unwrap().is_opened_by_proxy = true;
        scene.reset(|r| (r.hop_limit, r.ip_id) = (38, Some(4_660)))
    };
    vec![
        (
            "E-H11",
            "large segments lost, small ones heard, then an abort",
            beyond_gap,
        ),
        (
            "E-H11",
            "a clock of microseconds on a path with jitter",
            clock(501_000 - 104_000, SECOND / 10),
        ),
        (
            "E-H11",
            "a clock that wrapped in a month of silence",
            days_later,
        ),
        (
            "E-H14",
            "a lossy download with congestion marks",
            with_sack(renumbered(Scene::established())).reset(|r| {
                r.flags.0 |= Flags::ECE;
                r.options.sack_right_edge = Some(RECEIVER_ISN.plus(9_000));
            }),
        ),
        (
            "E-V7",
            "a download, in a capture of SYN, FIN and RST alone",
            with_sack(renumbered(Scene::established())).reset(|r| {
                r.ack = RECEIVER_ISN.plus(300_000);
            }),
        ),
        (
            "E-H1",
            "a SYN proxy before this host",
            opened_by_proxy(abort(no_options)),
        ),
        (
            "E-H1",
            "a SYN proxy before this host, met by an answer",
            opened_by_proxy(bare(|_| ())),
        ),
        (
            "E-H1",
            "a SYN proxy before this host, by IPv6",
            opened_by_proxy(abort(no_options)).v6(),
        ),
    ]
}

/// What a sender counts, and a sensor does not see it count.
fn by_counters() -> Vec<Guard> {
    // Two million bytes, 1400 acknowledgements, of which a modem handed on 300.
    let thinned = renumbered(abort(no_options)).reset(|r| r.ip_id = Some(30_222 + 1_410));
    let thinned = thinned.socket(|s| {
        (s.segs_in, s.bytes_out) = (Some(310), Some(2_000_000));
    });
    let mut of_micros = renumbered(abort(|r| {
        r.options.timestamps.as_mut().unwrap().echo = 900_000 + 60_000_000;
    }));
    of_micros.resets[0].time = at_ms(61_000);
    vec![
        (
            "E-H5",
            "a download, and a modem that drops acknowledgements",
            thinned,
        ),
        (
            "E-H11",
            "this host's own clock of microseconds, echoed",
            of_micros,
        ),
    ]
}

#[test]
fn no_sign_that_genuine_resets_show_convicts_alone() {
    let mut accused = Vec::new();
    for (id, world, scene) in [
        by_numbers(),
        by_network_header(),
        by_tcp_header(),
        by_link(),
        by_what_follows(),
        by_circumstance(),
        by_ways(),
        by_protocol(),
        by_history(),
        by_counters(),
    ]
    .into_iter()
    .flatten()
    {
        let judged = judge(&scene.case());
        if judged.verdict == Verdict::Injected {
            let facts: Vec<&str> = judged.evidence.iter().map(|e| e.name).collect();
            accused.push(format!(
                "{id}, {world}: {} dB by {facts:?}",
                judged.total_db
            ));
        }
    }
    assert!(accused.is_empty(), "{accused:#?}");
}

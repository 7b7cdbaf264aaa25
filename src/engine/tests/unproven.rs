//! Connections that nobody completed: a SYN that a program or somebody else wrote, in the name of a host whose
//! kernel never asked for one, and says so when the answer comes.

use crate::engine::testing::{IN, at, records, segment, tuple};
use crate::host::SocketView;
use crate::record::ResetRecord;
use crate::verdict::{Cause, Verdict};
use crate::wire::{Flags, FourTuple, Options, Segment, SeqNum};

const ISN: u32 = 9_000;

fn from_port(src_port: u16) -> FourTuple {
    FourTuple {
        src_port,
        ..tuple()
    }
}

/// As nmap writes it: the maximum segment size for all options, and no Don't Fragment.
fn written(port: u16, hop_limit: u8) -> Segment {
    let options = Options {
        mss: Some(1_460),
        order: 2,
        len: 4,
        ..Options::default()
    };
    Segment {
        hop_limit,
        ip_id: Some(30_201),
        dont_fragment: Some(false),
        window: 1_024,
        options,
        ..segment(from_port(port), Flags::SYN, ISN)
    }
}

/// What a kernel sends to an answer that it did not ask for.
fn denied(port: u16, hop_limit: u8) -> Segment {
    Segment {
        hop_limit,
        ..segment(from_port(port), Flags::RST, ISN + 1)
    }
}

/// SYNs of these hop limits, a millisecond apart, the last one answered from 12 hops away by `reset`, after
/// which `later` comes.
fn told(hop_limits: &[u8], reset: impl FnOnce(u16) -> Segment, later: &[Segment]) -> ResetRecord {
    let mut records = records(|engine, out| {
        let mut ms = 0;
        let mut port = 39_999;
        for hop_limit in hop_limits {
            (ms, port) = (ms + 1, port + 1);
            let syn = written(port, *hop_limit);
            engine.observe(at(ms), IN, &syn, None, &mut |record| out.push(record));
        }
        let reset = reset(port);
        let socket = Some(SocketView::Request);
        engine.observe(at(ms + 40), IN, &reset, socket, &mut |r| out.push(r));
        for segment in later {
            ms += 100;
            engine.observe(at(ms), IN, segment, None, &mut |r| out.push(r));
        }
    });
    assert_eq!(records.len(), 1, "{records:?}");
    records.remove(0)
}

#[test]
fn who_denies_a_syn_that_a_scanner_wrote_is_the_host_itself() {
    let record = told(&[29], |port| denied(port, 52), &[]);
    let said = (record.verdict, record.cause);
    assert_eq!(said, (Verdict::Remote, Some(Cause::Answer)), "{record:?}");
    let shown: Vec<&str> = record.evidence.iter().map(|fact| fact.name).collect();
    assert_eq!(shown, ["reset_shape_passive"]);
}

/// A reflection: this host's answers are to flood the address that the SYNs bear.
#[test]
fn nor_is_anybody_accused_whose_address_others_ask_in() {
    let record = told(&[45; 20], |port| denied(port, 52), &[]);
    assert_ne!(record.verdict, Verdict::Injected, "{:?}", record.evidence);
}

#[test]
fn who_completes_the_handshake_after_all_was_there_when_it_was_reset() {
    let data = Segment {
        ack: SeqNum(77),
        payload_len: 200,
        hop_limit: 29,
        ..segment(from_port(40_000), Flags::ACK | Flags::PSH, ISN + 1)
    };
    let record = told(&[29], |port| denied(port, 52), &[data]);
    assert_eq!(record.verdict, Verdict::Injected, "{:?}", record.evidence);
}

#[test]
fn what_no_kernel_answers_is_held_against_a_lone_syn_as_ever() {
    let forged = |port| Segment {
        window: 512,
        ..denied(port, 52)
    };
    let record = told(&[29], forged, &[]);
    assert_eq!(record.verdict, Verdict::Injected, "{:?}", record.evidence);
}

/// A firewall before the host that never asked denies the answer as one does: with its ISN as ACK, and its window.
fn rejected(ack: u32) -> impl Fn(u16) -> Segment {
    move |port| Segment {
        ip_id: Some(2_278),
        flags: Flags(Flags::RST | Flags::ACK),
        ack: SeqNum(ack),
        window: 62_720,
        ..denied(port, 100)
    }
}

#[test]
fn a_flood_accuses_nobody_whose_firewall_denies_what_others_asked_in_its_name() {
    let record = told(&[242; 20], rejected(77), &[]);
    assert_eq!(record.verdict, Verdict::Remote, "{:?}", record.evidence);
    // Who acknowledges nothing did not see the answer.
    let blind = told(&[242; 20], rejected(0), &[]);
    assert_eq!(blind.verdict, Verdict::Injected, "{:?}", blind.evidence);
    let data = Segment {
        ack: SeqNum(77),
        payload_len: 200,
        hop_limit: 242,
        ..segment(from_port(40_019), Flags::ACK | Flags::PSH, ISN + 1)
    };
    let cut_off = told(&[242; 20], rejected(77), &[data]);
    assert_eq!(cut_off.verdict, Verdict::Injected, "{:?}", cut_off.evidence);
}

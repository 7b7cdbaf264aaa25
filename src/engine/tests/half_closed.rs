//! Connections of which this host closed its half, and the peer then resets the other: the FIN that leaves is all
//! that is seen of this host's clock since the handshake.

use crate::engine::testing::{IN, OUT, observe, records, segment, tuple};
use crate::record::ResetRecord;
use crate::verdict::Verdict;
use crate::wire::{Flags, Options, Segment, Timestamps};

fn stamped(segment: Segment, value: u32, echo: u32) -> Segment {
    Segment {
        window: 501,
        options: Options {
            timestamps: Some(Timestamps { value, echo }),
            len: 12,
            ..Options::default()
        },
        ..segment
    }
}

/// The peer uploads on after our FIN of `8_060`, and aborts at 70 ms: it echoes what our last segment bore.
fn aborted(echo: u32) -> ResetRecord {
    let (theirs, ours) = (tuple(), tuple().reversed());
    let answering = |flags: u8| flags | Flags::ACK;
    let mut told = records(|engine, _| {
        let mut hears = |ms, vantage, segment| observe(engine, ms, vantage, &segment);
        hears(0, IN, stamped(segment(theirs, Flags::SYN, 1), 1_000, 0));
        let syn_ack = segment(ours, answering(Flags::SYN), 1);
        hears(1, OUT, stamped(syn_ack, 8_000, 1_000));
        let fin = segment(ours, answering(Flags::FIN), 2);
        hears(61, OUT, stamped(fin, 8_060, 1_059));
        let abort = segment(theirs, answering(Flags::RST), 9_000);
        hears(70, IN, stamped(abort, 1_070, echo));
    });
    told.remove(0)
}

fn shows_a_wrong_clock(record: &ResetRecord) -> bool {
    let mut evidence = record.evidence.iter();
    evidence.any(|fact| fact.name == "timestamps_wrong")
}

#[test]
fn an_abort_that_echoes_what_we_sent_after_our_fin_has_our_clock() {
    for echo in [8_060, 8_061, 8_065, 8_069] {
        let record = aborted(echo);
        assert!(!shows_a_wrong_clock(&record), "{echo}: {record:?}");
        assert_ne!(record.verdict, Verdict::Injected);
    }
}

#[test]
fn what_we_never_sent_is_no_echo() {
    assert!(shows_a_wrong_clock(&aborted(8_060 + 600_000)));
}

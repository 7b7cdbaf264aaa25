//! Devices that answer what is still on its way after the peer had ended the connection itself.

use crate::engine::testing::{IN, established, event, incoming, observe, records, segment, tuple};
use crate::flow::Sighting;
use crate::host::{KernelEventKind, SocketView, TcpState};
use crate::record::ResetRecord;
use crate::verdict::{Cause, Verdict};
use crate::wire::{Flags, Segment};

/// A bare reset from far elsewhere, with bits that no stack sets.
fn of_device(seq: u32) -> Segment {
    Segment {
        hop_limit: 126,
        dont_fragment: Some(false),
        ip_id: Some(3_503),
        reserved: 0b1110,
        ..segment(tuple(), Flags::RST, seq)
    }
}

/// The peer's SYN, its FIN where it `closes`, its reset, and 290 ms later a reset of a device.
fn ended(closes: bool) -> Vec<ResetRecord> {
    records(|engine, _| {
        let mut hears = |ms, segment: Segment| observe(engine, ms, IN, &segment);
        for (ms, source_port) in (0..).zip(40_001..40_004) {
            let mut syn = segment(tuple(), Flags::SYN, 9);
            syn.tuple.src_port = source_port;
            hears(ms, syn);
        }
        hears(10, segment(tuple(), Flags::SYN, 1));
        if closes {
            hears(20, segment(tuple(), Flags::FIN | Flags::ACK, 200));
        }
        hears(100, segment(tuple(), Flags::RST, 30));
        hears(390, of_device(201));
    })
}

#[test]
fn a_device_that_answers_after_the_peers_fin_and_reset_is_not_held_against_the_record() {
    let records = ended(true);
    let [record] = &records[..] else {
        panic!("{records:?}")
    };
    let told = (record.verdict, record.cause, record.reset_count);
    assert_eq!(told, (Verdict::Remote, Some(Cause::Answer), 2));
}

#[test]
fn the_same_on_an_open_connection_is_told() {
    assert_eq!(ended(false)[0].verdict, Verdict::Injected);
}

/// The peer resets an open connection, which this kernel takes or not; 20 ms later a device's reset comes.
fn taken(is_taken: bool) -> ResetRecord {
    let mut told = records(|engine, _| {
        observe(engine, 0, IN, &segment(tuple(), Flags::SYN, 4));
        engine.sight(&incoming(10, tuple(), 5, established(5)));
        let taken = KernelEventKind::ResetAccepted {
            state: Some(TcpState::Established),
        };
        if is_taken {
            engine.kernel_event(&event(10, tuple().reversed(), taken));
        }
        let answer = incoming(30, tuple(), 5, SocketView::Absent);
        engine.sight(&Sighting {
            segment: of_device(5),
            ..answer
        });
    });
    told.remove(0)
}

#[test]
fn a_device_that_answers_after_a_reset_that_this_kernel_took_is_not_held_against_the_record() {
    let record = taken(true);
    assert_eq!((record.verdict, record.reset_count), (Verdict::Remote, 2));
    assert_eq!(taken(false).verdict, Verdict::Injected);
}

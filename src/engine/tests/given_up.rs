//! Connections that a proxy gives up out of itself: it ends both legs in one turn, and nobody reset it first.

use crate::engine::testing::{
    IN, OUT, PROXY, backend, event, observe, records, segment, sent, tuple,
};
use crate::host::{KernelEventKind, KnownReason, Process, SocketCounts};
use crate::record::ResetRecord;
use crate::verdict::{Cause, Verdict};
use crate::wire::Flags;

/// A client's connection, and the one to a backend that the proxy opened for it. The backend is silent for two seconds; then
/// the proxy closes the one, in that process's turn, and aborts the other.
fn given_up(closer: Process) -> ResetRecord {
    let (client, ours) = (tuple(), backend());
    let answering = |flags: u8| flags | Flags::ACK;
    let mut told = records(|engine, _| {
        let mut hears = |ms, vantage, flags, tuple, seq| {
            observe(engine, ms, vantage, &segment(tuple, flags, seq));
        };
        hears(0, IN, Flags::SYN, client, 99);
        hears(0, OUT, answering(Flags::SYN), client.reversed(), 499);
        hears(1, OUT, Flags::SYN, ours, 99);
        hears(1, IN, answering(Flags::SYN), ours.reversed(), 499);
        hears(2000, OUT, answering(Flags::RST), ours, 120);
        let closed = KernelEventKind::Closed { process: closer };
        engine.kernel_event(&event(2000, client.reversed(), closed));
        let mut kind = sent(true, KnownReason::State, Some(PROXY));
        if let KernelEventKind::ResetSent { counts, .. } = &mut kind {
            *counts = Some(SocketCounts {
                bytes_received: 0,
                bytes_acked: 21,
                idle_ns: Some(1_999_000_000),
                is_unclaimed: false,
                ending: None,
            });
        }
        engine.kernel_event(&event(2000, ours, kind));
    });
    told.remove(0)
}

#[test]
fn the_record_of_an_aborted_backends_connection_tells_which_client_it_was_for() {
    let record = given_up(PROXY);
    assert_eq!(
        (record.verdict, record.cause),
        (Verdict::Local, Some(Cause::Process))
    );
    let other = record.related[0];
    let client = tuple();
    assert_eq!(
        (other.destination.address, other.destination.port),
        (client.src, client.src_port)
    );
    assert_eq!(other.join, "closing");
    let named = format!("silent for 1.9 s, and closed that with {}:", client.src);
    assert!(record.message.contains(&named), "{}", record.message);
}

#[test]
fn what_another_process_closed_at_that_moment_is_not_named() {
    let record = given_up(Process { pid: 7, ..PROXY });
    assert!(record.related.is_empty());
    assert!(!record.message.contains("closed that"));
}

//! Resets that a process did not mean: it was killed, or it closed its listener while connections waited.

use crate::engine::testing::{IN, OUT, PROXY, event, observe, records, segment, tuple};
use crate::host::{Ending, KernelEventKind, KnownReason, ResetReason, SocketCounts, TcpState};
use crate::record::ResetRecord;
use crate::verdict::{Cause, Verdict};
use crate::wire::Flags;

/// A client's connection that this host resets.
fn reset(reason: KnownReason, is_unclaimed: bool, ending: Option<Ending>) -> ResetRecord {
    let client = tuple();
    let mut told = records(|engine, _| {
        let mut hears = |ms, vantage, flags, tuple, seq| {
            observe(engine, ms, vantage, &segment(tuple, flags, seq));
        };
        hears(0, IN, Flags::SYN, client, 99);
        hears(0, OUT, Flags::SYN | Flags::ACK, client.reversed(), 499);
        hears(3000, OUT, Flags::RST | Flags::ACK, client.reversed(), 500);
        let kind = KernelEventKind::ResetSent {
            active: true,
            reason: Some(ResetReason::Known(reason)),
            state: Some(TcpState::Close),
            process: Some(PROXY),
            closed: None,
            answered_seq: None,
            answered_len: None,
            counts: Some(SocketCounts {
                bytes_received: 7,
                bytes_acked: 0,
                idle_ns: Some(1_000_000),
                is_unclaimed,
                ending,
            }),
        };
        engine.kernel_event(&event(3000, client.reversed(), kind));
    });
    told.remove(0)
}

fn names(record: &ResetRecord) -> Vec<&str> {
    record.evidence.iter().map(|item| item.name).collect()
}

#[test]
fn a_process_that_was_killed_is_not_said_to_have_aborted_the_connection() {
    let record = reset(KnownReason::AbortOnClose, false, Some(Ending::Signal(9)));
    assert_eq!(
        (record.verdict, record.cause),
        (Verdict::Local, Some(Cause::Process))
    );
    assert_eq!(names(&record), ["kernel_sent_reset", "process_ended"]);
    let starved = reset(KnownReason::AbortOnClose, false, Some(Ending::OutOfMemory));
    let words = " on this host ended (SIGKILL by the OOM killer) and so reset the connection with ";
    assert!(starved.message.contains(words), "{}", starved.message);
    let words = " on this host ended (SIGKILL) and so reset the connection with ";
    assert!(record.message.contains(words), "{}", record.message);
    assert!(
        record
            .message
            .ends_with(": closed with unread data in the receive buffer")
    );
}

#[test]
fn what_waited_in_the_accept_queue_was_aborted_by_nobody() {
    let record = reset(KnownReason::State, true, None);
    assert_eq!(names(&record), ["kernel_sent_reset", "never_accepted"]);
    let words = "closed its listener and so reset the connection with ";
    assert!(record.message.contains(words), "{}", record.message);
    assert!(record.message.ends_with(", which nobody had accepted"));
    let record = reset(KnownReason::State, true, Some(Ending::Exit(1)));
    let words = "ended (exit code 1) and so reset the connection with ";
    assert!(record.message.contains(words), "{}", record.message);
    assert!(record.message.ends_with(", which nobody had accepted"));
}

#[test]
fn a_closed_socket_that_the_kernel_ends_later_was_accepted_all_the_same() {
    // Orphans have no file either (`tcp_check_oom`, TCP_LINGER2).
    for reason in [KnownReason::AbortOnMemory, KnownReason::AbortOnLinger] {
        let record = reset(reason, true, None);
        assert_eq!(names(&record), ["kernel_sent_reset"], "{reason:?}");
    }
}

//! Resets with which the kernel answers what comes for a connection that a process has closed: the process is named, when it
//! closed, and for what.

use crate::engine::Engine;
use crate::engine::testing::{
    IN, OUT, PROXY, at, backend, established, event, incoming, observe, records, segment, sent,
    tuple,
};
use crate::host::{Closed, Ending, KernelEventKind, KnownReason, TcpState};
use crate::record::ResetRecord;
use crate::verdict::{Cause, Verdict};
use crate::wire::Flags;

/// The kernel's answer from TIME-WAIT.
fn answer(ago_ms: u64, ending: Option<Ending>) -> KernelEventKind {
    let mut kind = sent(false, KnownReason::TimeWaitSocket, Some(PROXY));
    if let KernelEventKind::ResetSent { closed, state, .. } = &mut kind {
        *state = Some(TcpState::TimeWait);
        *closed = Some(Closed {
            ago_ns: ago_ms * 1_000_000,
            ending,
        });
    }
    kind
}

/// A connection that this host opened at 1 s, closed, and reset at 1.4 s.
fn hears_late(engine: &mut Engine, ago_ms: u64, ending: Option<Ending>) {
    let ours = backend();
    let answering = |flags: u8| flags | Flags::ACK;
    let mut hears = |ms, vantage, flags, tuple, seq| {
        observe(engine, ms, vantage, &segment(tuple, flags, seq));
    };
    hears(1000, OUT, Flags::SYN, ours, 99);
    hears(1001, IN, answering(Flags::SYN), ours.reversed(), 499);
    hears(1200, OUT, answering(Flags::FIN), ours, 120);
    engine.kernel_event(&event(1400, ours, answer(ago_ms, ending)));
    let mut reset = segment(ours, Flags::RST, 121);
    reset.window = 0;
    observe(engine, 1400, OUT, &reset);
}

fn late(ago_ms: u64, ending: Option<Ending>) -> ResetRecord {
    records(|engine, _| hears_late(engine, ago_ms, ending)).remove(0)
}

#[test]
fn who_had_closed_the_connection_is_named_and_when() {
    let record = late(200, None);
    assert_eq!(
        (record.verdict, record.cause, record.process),
        (Verdict::Local, Some(Cause::Kernel), Some(PROXY))
    );
    let words =
        ", which haproxy (pid 42) had closed 200.0 ms before: a segment met a TIME-WAIT socket";
    assert!(record.message.ends_with(words), "{}", record.message);
    assert_eq!(record.closed_at, Some(at(1200)));
    let record = late(200, Some(Ending::Signal(9)));
    let words = ", which haproxy (pid 42) left open when it ended (SIGKILL) 200.0 ms before: ";
    assert!(record.message.contains(words), "{}", record.message);
}

#[test]
fn who_closed_an_earlier_connection_between_the_same_ports_is_not() {
    let record = late(500, None);
    assert_eq!(record.process, None);
    assert!(!record.message.contains("had closed"), "{}", record.message);
}

#[test]
fn the_leg_that_was_reset_before_is_the_reason() {
    let told = records(|engine, _| {
        let client = tuple();
        let mut hears = |ms, vantage, flags, tuple, seq| {
            observe(engine, ms, vantage, &segment(tuple, flags, seq));
        };
        hears(990, IN, Flags::SYN, client, 99);
        hears(991, OUT, Flags::SYN | Flags::ACK, client.reversed(), 499);
        let reset = incoming(1199, client, 100, established(100));
        engine.hear(&reset);
        let state = Some(TcpState::Established);
        let accepted = KernelEventKind::ResetAccepted { state };
        engine.kernel_event(&event(1199, client.reversed(), accepted));
        let owner = KernelEventKind::OwnerKnown { process: PROXY };
        engine.kernel_event(&event(1200, client.reversed(), owner));
        let closed = KernelEventKind::Closed { process: PROXY };
        engine.kernel_event(&event(1200, backend(), closed));
        hears_late(engine, 200, None);
    });
    let is_late = |record: &&ResetRecord| record.verdict == Verdict::Local;
    let record = told.iter().find(is_late).unwrap();
    let client = tuple();
    let other = record.related[0];
    assert_eq!(
        (other.join, other.source.port),
        ("closing", client.src_port)
    );
    assert_eq!(other.delta_ns, 201_000_000, "from reset to reset");
    let words = format!(
        "had closed 200.0 ms before, as {}:{} had reset ",
        client.src, client.src_port
    );
    assert!(record.message.contains(&words), "{}", record.message);
}

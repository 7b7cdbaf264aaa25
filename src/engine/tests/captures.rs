//! Captures, in which the engine waits for what follows a forged reset, and the devices that the operator
//! calls its own.

use crate::engine::testing::{at, config, segment, tuple};
use crate::engine::{Device, Engine, EngineConfig, IpIdMode};
use crate::host::KernelTells;
use crate::record::ResetRecord;
use crate::time::SECOND;
use crate::vantage::{InterfaceId, Path, Vantage};
use crate::verdict::{Cause, Verdict};
use crate::wire::{Flags, Segment, SeqNum};

#[test]
fn in_a_capture_what_follows_a_forged_reset_within_seconds_is_one_record() {
    let records = captured(Vec::new(), |forged| forged);
    let [record] = &records[..] else {
        panic!("{records:?}")
    };
    assert_eq!((record.verdict, record.reset_count), (Verdict::Injected, 2));
    assert_eq!(record.device, None);
}

/// A SYN, a forged reset as `change` makes it, and the genuine one three seconds later.
fn captured(own_devices: Vec<Device>, change: impl FnOnce(Segment) -> Segment) -> Vec<ResetRecord> {
    captured_until(own_devices, change, 3000)
}

/// The same, with the genuine reset at `ms`.
fn captured_until(
    own_devices: Vec<Device>,
    change: impl FnOnce(Segment) -> Segment,
    ms: u64,
) -> Vec<ResetRecord> {
    let config = EngineConfig {
        forged_linger_ns: 5 * SECOND,
        own_devices,
        ..config()
    };
    let syn = Segment {
        ip_id: Some(100),
        window: 64240,
        ..segment(tuple(), Flags::SYN, 4)
    };
    let forged = Segment {
        hop_limit: 117,
        window: 512,
        dont_fragment: Some(false),
        ip_id: Some(4660),
        ..segment(tuple(), Flags::RST, 5)
    };
    let genuine = segment(tuple(), Flags::RST, 5);
    heard(config, &[(0, syn), (100, change(forged)), (ms, genuine)])
}

/// What a capture of these segments, each at its milliseconds, gives within a minute.
fn heard(config: EngineConfig, segments: &[(u64, Segment)]) -> Vec<ResetRecord> {
    let capture = Vantage {
        interface: InterfaceId(0),
        path: Path::Capture,
    };
    let mut engine = Engine::new(EngineConfig {
        offline: true,
        kernel: KernelTells::default(),
        ..config
    });
    let mut records = Vec::new();
    for (ms, segment) in segments {
        let mut emit = |record| records.push(record);
        engine.observe(at(*ms), capture, segment, None, &mut emit);
    }
    engine.tick(at(60_000), &mut |record| records.push(record));
    records
}

fn own_device(hop_limit: u8) -> Device {
    Device {
        name: "fw1".to_owned(),
        mac: None,
        hop_limit: Some((hop_limit, hop_limit)),
        ip_id: IpIdMode::Any,
        speaks_for: Vec::new(),
    }
}

#[test]
fn an_own_device_gives_its_name_to_what_it_forged() {
    let unnamed = captured(Vec::new(), |forged| forged).remove(0);
    let record = captured(vec![own_device(117)], |forged| forged).remove(0);
    assert_eq!(record.verdict, Verdict::Injected);
    assert_eq!(record.cause, Some(Cause::Middlebox));
    assert_eq!(record.device.as_deref(), Some("fw1"));
    assert!(record.message.contains("your own device fw1"));
    assert!(record.evidence.iter().any(|item| item.name == "own_device"));
    assert!((record.confidence - unnamed.confidence).abs() < f32::EPSILON);
    let other = captured(vec![own_device(118)], |forged| forged).remove(0);
    assert_eq!(other, unnamed);
}

#[test]
fn a_genuine_reset_after_the_record_of_a_forged_one_is_its_consequence() {
    let records = captured_until(Vec::new(), |forged| forged, 40_000);
    let [forged, genuine] = &records[..] else {
        panic!("{records:?}")
    };
    assert_eq!(forged.verdict, Verdict::Injected);
    assert_eq!(
        (genuine.verdict, genuine.cause),
        (Verdict::Remote, Some(Cause::Consequence))
    );
    let related = genuine.related[0];
    assert_eq!(
        (related.record, related.join),
        (Some(forged.sequence), "flow")
    );
}

#[test]
fn an_own_device_changes_no_verdict() {
    // What the true peer sent looks like the device: by hop limit they are the same.
    let genuine = |forged: Segment| segment(tuple(), Flags::RST, forged.seq.0);
    let hop_limit = segment(tuple(), Flags::RST, 5).hop_limit;
    let with = captured(vec![own_device(hop_limit)], genuine);
    assert_eq!(with, captured(Vec::new(), genuine));
    assert!(
        with.iter()
            .all(|record| record.verdict != Verdict::Injected)
    );
    // Nor does it lend its name to a reset that another one forged in the same episode.
    let forged = captured(vec![own_device(hop_limit)], |forged| forged).remove(0);
    assert_eq!((forged.verdict, forged.device), (Verdict::Injected, None));
}

/// A client asks, `refusal` comes, the client asks again with the number `again`, and `answer` comes.
fn asked_twice(refusal: Segment, again: u32, answer: Segment) -> Vec<ResetRecord> {
    let syn = |seq| segment(tuple().reversed(), Flags::SYN, seq);
    let segments = [
        (0, syn(700)),
        (105, refusal),
        (114, syn(again)),
        (305, answer),
    ];
    heard(config(), &segments)
}

#[test]
fn a_syn_that_is_sent_again_begins_no_other_connection() {
    let answer = |flags, acked: u32, hop_limit| Segment {
        ack: SeqNum(acked),
        hop_limit,
        ..segment(tuple(), flags | Flags::ACK, 0)
    };
    let forged = answer(Flags::RST, 700, 46);
    let genuine = answer(Flags::RST, 701, 64);
    let of_both = asked_twice(forged, 700, genuine);
    assert_eq!(
        of_both[0].verdict,
        Verdict::Injected,
        "{:?}",
        of_both[0].evidence
    );
    assert_eq!((of_both.len(), of_both[0].reset_count), (1, 2));
    // What another SYN is answered by says nothing of the first.
    let anew = asked_twice(forged, 9_000, answer(Flags::RST, 9_001, 64));
    assert_eq!(
        anew[0].verdict,
        Verdict::Undetermined,
        "{:?}",
        anew[0].evidence
    );
    // As Windows does it, while the service comes up.
    let accepted = asked_twice(genuine, 700, answer(Flags::SYN, 701, 64));
    assert_eq!(
        accepted[0].verdict,
        Verdict::Remote,
        "{:?}",
        accepted[0].evidence
    );
}

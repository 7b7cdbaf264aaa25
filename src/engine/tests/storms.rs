//! More resets than anybody wants records of: what is folded, what never is, and that every one is
//! counted.

use crate::engine::folding::TOLD_A_SECOND;
use crate::engine::testing::{config, event, sent};
use crate::engine::{Engine, EngineConfig};
use crate::evidence::testing::Scene;
use crate::host::{KernelEvent, KnownReason, SocketView};
use crate::record::ResetRecord;
use crate::time::{MILLISECOND, SECOND, Timestamp};
use crate::vantage::{InterfaceId, Path, Vantage};
use crate::verdict::{Cause, Verdict};
use crate::wire::{Flags, Options, Segment, SeqNum};

const IN: Path = Path::Ingress;
const OUT: Path = Path::Egress { forwarded: false };
const ON: Path = Path::Egress { forwarded: true };

struct Sensor {
    engine: Engine,
    records: Vec<ResetRecord>,
}

impl Sensor {
    fn new(offline: bool, episode_capacity: usize) -> Self {
        let config = EngineConfig {
            flow_capacity: 4_096,
            episode_capacity,
            offline,
            own_macs: vec![None, None],
            ..config()
        };
        Self {
            engine: Engine::new(config),
            records: Vec::new(),
        }
    }

    fn live() -> Self {
        Self::new(false, 4_096)
    }

    fn hears(&mut self, ns: u64, path: Path, segment: &Segment, socket: Option<SocketView>) {
        let time = Timestamp::from_nanos(ns);
        let interface = InterfaceId(u16::from(path != IN && path != Path::Capture));
        let Self { engine, records } = self;
        let vantage = Vantage { interface, path };
        engine.tick(time, &mut |record| records.push(record));
        engine.observe(time, vantage, segment, socket, &mut |record| {
            records.push(record);
        });
    }

    /// This host's kernel says that it answers a segment of no connection.
    fn answers(&mut self, ns: u64, answer: &Segment) {
        self.engine.kernel_event(&KernelEvent {
            time: Timestamp::from_nanos(ns),
            ..event(0, answer.tuple, sent(false, KnownReason::NoSocket, None))
        });
    }

    fn end(&mut self) -> Vec<ResetRecord> {
        let Self { engine, records } = self;
        engine.finish(&mut |record| records.push(record));
        let told: u64 = records.iter().map(|record| record.reset_count).sum();
        let counters = engine.counters();
        let routed = records.iter().any(|r| r.verdict == Verdict::Forwarded);
        if !routed {
            assert_eq!(told, counters.resets, "a reset is neither told nor counted");
        }
        std::mem::take(records)
    }
}

/// A bare reset of one of many flows to a network of ours.
fn stray(number: u32, network: u8) -> Segment {
    let mut segment = Scene::established().resets[0].segment;
    segment.tuple.src = (0x0a00_0000_u32 + number.wrapping_mul(2_654_435_761) % 0x00ff_ffff)
        .to_be_bytes()
        .into();
    segment.tuple.src_port = u16::try_from(number % 60_000).unwrap() + 1;
    segment.tuple.dst = [198, 51, network, 10].into();
    Segment {
        flags: Flags(Flags::RST),
        seq: SeqNum(number),
        ack: SeqNum(0),
        window: 0,
        options: Options::default(),
        ..segment
    }
}

/// The same, sent by this host to a stranger.
fn answer(number: u32) -> Segment {
    let mut segment = stray(number, 100);
    let tuple = &mut segment.tuple;
    std::mem::swap(&mut tuple.src, &mut tuple.dst);
    std::mem::swap(&mut tuple.src_port, &mut tuple.dst_port);
    segment
}

fn many(records: &[ResetRecord]) -> Vec<&ResetRecord> {
    records.iter().filter(|r| r.aggregate.is_some()).collect()
}

#[test]
fn a_storm_of_strays_is_some_whole_records_and_one_of_many_every_ten_seconds() {
    const STRAYS: u32 = 200_000;
    let mut sensor = Sensor::live();
    for number in 0..STRAYS {
        // 10,000 a second, for 20 seconds.
        sensor.hears(
            u64::from(number) * 100_000,
            IN,
            &stray(number, 100),
            Some(SocketView::Absent),
        );
    }
    assert!(sensor.engine.counters().open < 200);
    let counters = sensor.engine.counters();
    assert_eq!(counters.episodes_refused, 0);
    let records = sensor.end();
    let many = many(&records);
    let whole = records.len() - many.len();
    assert_eq!(whole, 20 * TOLD_A_SECOND as usize);
    assert!((2..=3).contains(&many.len()), "{}", many.len());
    let folded: u64 = many.iter().map(|record| record.reset_count).sum();
    assert_eq!(folded, u64::from(STRAYS) - whole as u64);
    for record in &many {
        let aggregate = record.aggregate.as_ref().unwrap();
        assert_eq!(record.verdict, Verdict::Stray);
        assert_eq!(aggregate.network.to_string(), "198.51.100.0/24");
        assert!(aggregate.flows.abs_diff(record.reset_count) < record.reset_count / 20);
        assert_eq!((aggregate.sample.len(), record.resets.len()), (16, 16));
        let tuples = record.resets.iter().map(|reset| reset.segment.tuple);
        assert!(tuples.eq(aggregate.sample.iter().copied()));
        assert_eq!(record.source.address, aggregate.sample[0].src);
        assert!(record.end.since(record.start) <= 11 * SECOND);
        // The sample is of the whole interval, not of its beginning.
        assert!(record.resets[15].time.since(record.start) > SECOND);
    }
}

#[test]
fn an_engine_that_lags_behind_a_storm_tells_of_it_no_more_often() {
    let mut sensor = Sensor::live();
    for number in 0..100_000 {
        let ns = u64::from(number) * 50_000;
        sensor.hears(ns, IN, &stray(number, 100), Some(SocketView::Absent));
        let Sensor { engine, records } = &mut sensor;
        let late = Timestamp::from_nanos(ns + 4 * SECOND);
        engine.tick(late, &mut |record| records.push(record));
    }
    let records = sensor.end();
    assert_eq!(many(&records).len(), 1);
}

#[test]
fn a_reset_with_a_socket_or_a_known_flow_is_whole_among_a_storm() {
    let mut sensor = Sensor::live();
    let scene = Scene::established().socket(|_| ());
    let (met, known) = (scene.resets[0], stray(7_000_000, 100));
    let syn = Segment {
        flags: Flags(Flags::SYN),
        ..known
    };
    sensor.hears(0, IN, &syn, None);
    for number in 0..10_000 {
        let ns = SECOND + u64::from(number) * 10_000;
        sensor.hears(ns, IN, &stray(number, 100), Some(SocketView::Absent));
        if number == 5_000 {
            sensor.hears(ns, IN, &met.segment, met.socket);
            sensor.hears(ns, IN, &known, Some(SocketView::Absent));
        }
    }
    let records = sensor.end();
    for wanted in [met.segment.tuple, known.tuple] {
        let about: Vec<_> = records
            .iter()
            .filter(|r| r.source.address == wanted.src && r.source.port == wanted.src_port)
            .collect();
        assert_eq!(about.len(), 1);
        assert!(about[0].aggregate.is_none() && about[0].verdict != Verdict::Stray);
    }
}

#[test]
fn everyday_strays_are_told_one_by_one_and_a_guess_repeated_is_one_episode() {
    let mut sensor = Sensor::live();
    for number in 0..400 {
        let ns = u64::from(number) * 25 * MILLISECOND;
        sensor.hears(ns, IN, &stray(number, 100), Some(SocketView::Absent));
    }
    assert_eq!(many(&sensor.end()).len(), 0);
    let mut sensor = Sensor::live();
    for guess in 0..5_000_u32 {
        let reset = Segment {
            seq: SeqNum(guess << 16),
            ..stray(1, 100)
        };
        sensor.hears(
            u64::from(guess) * 1_000,
            IN,
            &reset,
            Some(SocketView::Absent),
        );
    }
    let records = sensor.end();
    assert_eq!((records.len(), records[0].reset_count), (1, 5_000));
}

#[test]
fn a_flood_to_one_network_leaves_another_its_records_and_a_thousand_networks_are_bounded() {
    let mut sensor = Sensor::live();
    for number in 0..2_000 {
        sensor.hears(
            u64::from(number) * 10_000,
            IN,
            &stray(number, 100),
            Some(SocketView::Absent),
        );
    }
    sensor.hears(SECOND / 2, IN, &stray(9_999, 7), Some(SocketView::Absent));
    let records = sensor.end();
    let other = |r: &&ResetRecord| r.destination.address.to_string() == "198.51.7.10";
    assert_eq!(records.iter().filter(other).count(), 1);

    let mut sensor = Sensor::new(false, 1 << 16);
    for number in 0..400_000_u32 {
        let [_, _, high, low] = number.to_be_bytes();
        let mut reset = stray(number, low);
        reset.tuple.dst = [198, high % 16, low, 1].into();
        sensor.hears(
            u64::from(number) * 1_000,
            IN,
            &reset,
            Some(SocketView::Absent),
        );
    }
    let records = sensor.end();
    let many = many(&records);
    assert!(
        records.len() <= 65 * (TOLD_A_SECOND as usize + 1),
        "{}",
        records.len()
    );
    let rest = |r: &&&ResetRecord| r.aggregate.as_ref().unwrap().network.to_string() == "0.0.0.0/0";
    assert_eq!(many.iter().filter(rest).count(), 1);
}

#[test]
fn answers_to_a_scan_are_folded_and_never_laid_to_a_packet_filter() {
    let of_syns = assert_answers_are_folded(Flags::SYN);
    let of_fins = assert_answers_are_folded(Flags::FIN | Flags::ACK);
    assert_eq!(of_syns, of_fins);
}

/// Segments of no connection come in with these flags, and this host answers; how many records there are.
fn assert_answers_are_folded(flags: u8) -> usize {
    let mut sensor = Sensor::live();
    for number in 0..20_000 {
        let ns = u64::from(number) * 150_000;
        let mut asked = stray(number, 100);
        asked.flags = Flags(flags);
        let socket = Some(SocketView::Absent);
        sensor.hears(ns, IN, &asked, socket.filter(|_| flags & Flags::FIN != 0));
        let ns = ns + 1_000;
        sensor.answers(ns, &answer(number));
        sensor.hears(ns + 2_000, OUT, &answer(number), None);
    }
    let records = sensor.end();
    assert!(
        records
            .iter()
            .all(|record| record.verdict == Verdict::Local && record.cause == Some(Cause::Kernel))
    );
    assert_eq!(many(&records).len(), 1);
    // Three seconds' worth of whole ones, and the boundary of each.
    assert!(
        records.len() <= 4 * TOLD_A_SECOND as usize,
        "{}",
        records.len()
    );
    records.len()
}

#[test]
fn what_passes_by_to_another_host_is_not_called_stray() {
    let mut sensor = Sensor::live();
    sensor
        .engine
        .set_own_addresses(["198.18.0.1".parse().unwrap()].into());
    for number in 0..5_000 {
        let reset = stray(number, 100);
        sensor.hears(
            u64::from(number) * 10_000,
            IN,
            &reset,
            Some(SocketView::Absent),
        );
    }
    let records = sensor.end();
    assert_eq!(records.len(), TOLD_A_SECOND as usize + 1);
    for record in &records {
        assert_ne!(record.verdict, Verdict::Stray, "{}", record.message);
        assert_ne!(record.verdict, Verdict::Injected, "{}", record.message);
    }
}

#[test]
fn what_this_host_routes_on_is_forwarded_as_a_whole() {
    let mut sensor = Sensor::live();
    for number in 0..5_000 {
        let ns = u64::from(number) * 10_000;
        let reset = stray(number, 100);
        sensor.hears(ns, IN, &reset, Some(SocketView::Absent));
        let copy = Segment {
            hop_limit: reset.hop_limit - 1,
            ..reset
        };
        sensor.hears(ns + 3_000, ON, &copy, None);
    }
    let records = sensor.end();
    assert_eq!(records.len(), TOLD_A_SECOND as usize + 1);
    for record in &records {
        assert_eq!(
            (record.verdict, record.cause),
            (Verdict::Forwarded, Some(Cause::Router)),
            "{}",
            record.message
        );
    }
    assert_eq!(
        many(&records)[0].reset_count,
        5_000 - u64::from(TOLD_A_SECOND)
    );
}

#[test]
fn a_capture_is_told_flow_by_flow_until_there_is_no_room() {
    let mut sensor = Sensor::new(true, 1_024);
    for number in 0..500 {
        sensor.hears(
            u64::from(number) * 1_000,
            Path::Capture,
            &stray(number, 100),
            None,
        );
    }
    assert_eq!(many(&sensor.end()).len(), 0);
    let mut sensor = Sensor::new(true, 1_024);
    for number in 0..10_000 {
        sensor.hears(
            u64::from(number) * 1_000,
            Path::Capture,
            &stray(number, 100),
            None,
        );
    }
    assert_eq!(sensor.engine.counters().episodes_refused, 0);
    let records = sensor.end();
    assert_eq!((many(&records).len(), records.len()), (1, 769));
}

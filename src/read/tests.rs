//! What two threads make of a capture beside what one makes of it, and captures that follow one another
//! in one file.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::{engine_config, run_into};
use crate::config::ReadConfig;
use crate::engine::Engine;
use crate::pcap::Reader;
use crate::record::{Record, ResetRecord};
use crate::sink::{Emitted, Filter, Flushed, Outlet, Sink, Style};
use crate::time::{MILLISECOND, SECOND};
use crate::vantage::{Path as Way, Vantage};
use crate::verdict::Verdict;
use crate::wire::{Flags, parse};

const DAY: u64 = 86_400 * SECOND;
const BEGIN: u64 = 1_700_000_000 * SECOND;

/// Keeps what comes.
struct Kept(Arc<Mutex<Vec<ResetRecord>>>, u64);

impl Sink for Kept {
    fn name(&self) -> &'static str {
        "kept"
    }

    fn put(&mut self, emitted: &Emitted) {
        if let Record::Reset(record) = &emitted.record {
            self.0.lock().unwrap().push((**record).clone());
            self.1 += 1;
        }
    }

    fn flush(&mut self) -> Flushed {
        Flushed {
            written: std::mem::take(&mut self.1),
            ..Flushed::default()
        }
    }
}

fn config(path: &Path) -> ReadConfig {
    ReadConfig {
        files: vec![path.to_owned()],
        local: Vec::new(),
        outputs: Vec::new(),
        style: Style::default(),
        settle_ns: SECOND,
        flow_capacity: 4_096,
        own_devices: Vec::new(),
        quiet: true,
    }
}

fn by_two_threads(path: &Path) -> Vec<ResetRecord> {
    let records = Arc::default();
    let outlet = Outlet::direct(Box::new(Kept(Arc::clone(&records), 0)), Filter::default());
    assert_eq!(run_into(&config(path), None, vec![outlet]), 0);
    std::mem::take(&mut records.lock().unwrap())
}

fn by_one_thread(path: &Path) -> Vec<ResetRecord> {
    let mut engine = Engine::new(engine_config(&config(path)));
    let mut records = Vec::new();
    let mut reader = Reader::open(path).unwrap();
    while let Some(packet) = reader.next_packet().unwrap() {
        let segment = parse(packet.link.unwrap(), packet.bytes).unwrap();
        let vantage = Vantage {
            interface: packet.interface,
            path: Way::Capture,
        };
        engine.observe(packet.time, vantage, &segment, None, &mut |r| {
            records.push(r)
        });
    }
    engine.finish(&mut |record| records.push(record));
    records
}

/// Segments of one flow: from the client or not, flags, sequence number, hop limit.
type Told = (bool, u8, u32, u8);

const ACK: u8 = Flags::ACK;
const RST: u8 = Flags::RST;
const CLOSES: &[Told] = &[
    (true, Flags::FIN | ACK, 100, 57),
    (false, RST, 200, 64),
    (true, RST | ACK, 101, 57),
    // The same four-tuple again.
    (true, Flags::SYN, 90_000, 57),
    (true, RST | ACK, 90_001, 57),
];
const FORGED: &[Told] = &[
    (true, RST | ACK, 100, 113),
    (true, RST | ACK, 1_560, 114),
    (true, ACK, 100, 57),
    (true, ACK, 300, 57),
];
const ENDS: &[Told] = &[
    (true, Flags::FIN | ACK, 100, 57),
    (false, Flags::FIN | ACK, 200, 64),
];

/// One packet of a pcap file, with its header.
fn packet(out: &mut Vec<u8>, ns: u64, flow: u32, (to, flags, seq, hop_limit): Told) {
    let [_, a, b, c] = flow.to_be_bytes();
    let (client, server) = ([10, a, b, c], [198, 51, 100, c % 9]);
    let port = 1_024 + u16::try_from(flow % 60_000).unwrap();
    let ((src, sport), (dst, dport)) = match to {
        true => ((client, port), (server, 443)),
        false => ((server, 443), (client, port)),
    };
    let mut frame = b"\x02\0\0\0\0\x0a\x02\0\0\0\0\x0b\x08\0\x45\0\0\x28\0\x07\x40\0".to_vec();
    frame.extend([hop_limit, 6, 0, 0].iter().chain(&src).chain(&dst));
    frame.extend(sport.to_be_bytes().iter().chain(&dport.to_be_bytes()));
    frame.extend(seq.to_be_bytes().iter().chain(&777_u32.to_be_bytes()));
    let window = u16::from(flags & ACK != 0) * 501;
    frame.extend(
        [0x50, flags]
            .iter()
            .chain(&window.to_be_bytes())
            .chain(&[0; 4]),
    );
    let words = [
        ns / SECOND,
        ns % SECOND,
        frame.len() as u64,
        frame.len() as u64,
    ];
    out.extend(
        words
            .iter()
            .flat_map(|word| u32::try_from(*word).unwrap().to_le_bytes()),
    );
    out.extend(frame);
}

/// The packets of so many flows that lie between one another, from a time on.
fn flows(out: &mut Vec<u8>, begin: u64, count: u32) {
    let mut ns = begin;
    for first in (0..count).step_by(64) {
        let together = || first..count.min(first + 64);
        let mut all = |at: usize| {
            for flow in together() {
                let ends = [CLOSES, FORGED, ENDS, CLOSES][flow as usize % 4];
                let opens = [
                    (true, Flags::SYN, 99, 57),
                    (false, Flags::SYN | ACK, 199, 64),
                ];
                if let Some(told) = opens.iter().chain(ends).nth(at) {
                    ns += MILLISECOND;
                    packet(out, ns, flow, *told);
                }
            }
        };
        (0..7).for_each(&mut all);
    }
}

const HEADER: &[u8] = b"\x4d\x3c\xb2\xa1\x02\0\x04\0\0\0\0\0\0\0\0\0\xff\xff\0\0\x01\0\0\0";

fn capture(name: &str, parts: &[(u64, u32)]) -> PathBuf {
    let mut bytes = HEADER.to_vec();
    for (begin, count) in parts {
        flows(&mut bytes, *begin, *count);
    }
    let path = std::env::temp_dir().join(format!("rstscope-read-{name}-{}", std::process::id()));
    fs::write(&path, bytes).unwrap();
    path
}

/// Records without what numbers them.
fn told(records: Vec<ResetRecord>) -> Vec<ResetRecord> {
    let bare = |mut record: ResetRecord| {
        record.sequence = 0;
        record
            .related
            .iter_mut()
            .for_each(|other| other.record = None);
        record
    };
    records.into_iter().map(bare).collect()
}

#[test]
fn two_threads_make_the_records_of_one_in_their_order() {
    let path = capture("threads", &[(BEGIN, 3_000)]);
    let (two, one) = (by_two_threads(&path), by_one_thread(&path));
    fs::remove_file(&path).unwrap();
    assert!(one.len() > 2_000, "{}", one.len());
    for verdict in [Verdict::Injected, Verdict::Remote] {
        assert!(one.iter().any(|record| record.verdict == verdict));
    }
    assert_eq!(two.len(), one.len());
    for (two, one) in two.iter().zip(&one) {
        assert_eq!(two, one);
    }
}

#[test]
fn a_capture_behind_a_later_one_is_judged_as_if_it_were_alone() {
    assert_parts_are_judged_alone("day", DAY);
    assert_parts_are_judged_alone("minute", 60 * SECOND);
}

fn assert_parts_are_judged_alone(name: &str, back: u64) {
    let (later, earlier) = ((BEGIN, 900), (BEGIN - back, 1_000));
    let [both, second, first] = ["both", "later", "earlier"].map(|part| format!("{name}-{part}"));
    let both = capture(&both, &[later, earlier]);
    let alone = [capture(&second, &[later]), capture(&first, &[earlier])];
    let records = by_two_threads(&both);
    let numbers = records.iter().map(|record| record.sequence);
    assert!(
        numbers.eq(1..=records.len() as u64),
        "no number comes twice"
    );
    let expected: Vec<ResetRecord> = alone.iter().flat_map(|path| by_two_threads(path)).collect();
    for path in [&both, &alone[0], &alone[1]] {
        fs::remove_file(path).unwrap();
    }
    assert!(expected.len() > 1_000);
    assert_eq!(told(records), told(expected));
}

#[test]
fn two_clocks_in_one_file_make_it_no_two_captures() {
    let mut bytes = HEADER.to_vec();
    for flow in 0..400 {
        // Every other flow by an interface whose clock is an hour slow.
        let begin = BEGIN + u64::from(flow) * MILLISECOND - u64::from(flow % 2) * 3_600 * SECOND;
        let opens = [
            (true, Flags::SYN, 99, 57),
            (false, Flags::SYN | ACK, 199, 64),
        ];
        for (at, told) in opens.iter().chain(&CLOSES[..2]).enumerate() {
            packet(&mut bytes, begin + at as u64, flow, *told);
        }
    }
    let path = std::env::temp_dir().join(format!("rstscope-read-clocks-{}", std::process::id()));
    fs::write(&path, bytes).unwrap();
    let (two, one) = (by_two_threads(&path), by_one_thread(&path));
    fs::remove_file(&path).unwrap();
    assert_eq!(one.len(), 400);
    assert_eq!(two, one);
}

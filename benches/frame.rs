//! What a frame costs in user space: read, looked up among two million flows, folded into its flow.
//! Beside it, in turns, what a bare random read of 64 bytes costs in as much memory.
//!
//! Three parts of it are measured alone, to say where the floor is: reading the bytes; fetching the
//! lines that a frame needs of the flow table, of its tags and of the addresses, with no work between; and
//! the work, on frames of few flows, of which everything is near.
//!
//! Prints one JSON object a metric and line: medians of interleaved rounds, in nanoseconds of this
//! thread's CPU time, so that other load on the machine counts little. `cargo bench --bench frame`.

#![allow(clippy::print_stdout, reason = "the results are what it is for")]

use std::hint::black_box;

use rstscope::flow::{Sighting, Tracker, TrackerConfig};
use rstscope::sys::{advise_huge_pages, bring_near};
use rstscope::time::Timestamp;
use rstscope::vantage::{InterfaceId, Path, Vantage};
use rstscope::wire::Reject;
use rstscope::worker::{self, Batch, META_BYTES, Parsed, fetch_frame, read_frame};
use rustix::time::{ClockId, clock_gettime};

/// Flows that are in the table before anything is measured.
const LIVE: u32 = 2_000_000;
/// Capacity of the table: the next power of two leaves it half full.
const CAPACITY: usize = 1 << 22;
/// Frames of a worker's batch (`sys::BATCH_FRAMES`).
const BATCH: usize = 64;
/// Batches of a round: some hundred microseconds, far above the clock's step.
const BATCHES: usize = 64;
/// Rounds of each kind, in turns; the median of an odd number is one of them.
const ROUNDS: usize = 101;
/// Flows that stay near: what is remembered of them fits a second level cache.
const NEAR: u32 = 1000;
/// Bytes of a slot for one frame with its metadata in front.
const SLOT: usize = 192;
/// Addresses that a tracker remembers at most, of 64 bytes each (`flow::tracker`).
const ADDRESS_BYTES: usize = 64 << 18;
/// `FRAME_META` of bpf/shared.h.
const META_MAGIC: u32 = 0x5253_5431;

const SYN: u8 = 0x02;
const FIN_ACK: u8 = 0x11;
const RST: u8 = 0x04;
/// Linux's SYN: MSS, SACK permitted, timestamps, NOP, window scale.
const SYN_OPTIONS: [u8; 20] = [
    2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 7, 0, 0, 0, 0, 1, 3, 3, 7,
];
/// Timestamps alone, behind two NOPs.
const STAMPS: [u8; 12] = [1, 1, 8, 10, 0, 0, 1, 7, 0, 0, 0, 9];

/// xorshift64*: seeded, so that every run has the same frames.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u32) -> u32 {
        u32::try_from(((self.roll() >> 32) * u64::from(bound)) >> 32).unwrap_or(0)
    }
}

/// A frame of flow `number` with its metadata before it, into `slot`; answers where it ends.
fn write_frame(slot: &mut [u8], is_ipv4: bool, number: u32, flags: u8, time_ns: u64) -> usize {
    let mut bytes = vec![0_u8; META_BYTES];
    bytes[72..80].copy_from_slice(&time_ns.to_ne_bytes());
    bytes[84..88].copy_from_slice(&META_MAGIC.to_ne_bytes());
    let options: &[u8] = match flags {
        SYN => &SYN_OPTIONS,
        FIN_ACK => &STAMPS,
        _ => &[],
    };
    let tcp_len = u8::try_from(20 + options.len()).unwrap_or(u8::MAX);
    bytes.extend([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
    let [_, b, c, d] = number.to_be_bytes();
    if is_ipv4 {
        bytes.extend([
            0x08,
            0,
            0x45,
            0,
            0,
            20 + tcp_len,
            c,
            d,
            0x40,
            0,
            57,
            6,
            0,
            0,
        ]);
        bytes.extend([100, b, c, d, 10, 0, 0, 1]);
    } else {
        bytes.extend([0x86, 0xdd, 0x60, 0, 0, 7, 0, tcp_len, 6, 57]);
        bytes.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, b, c, d]);
        bytes.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1]);
    }
    bytes.extend([c | 0x80, d, 1, 0xbb]);
    bytes.extend([b, c, d, flags, 0, 0, 0, 9, tcp_len << 2, flags, 0xfa, 0xf0]);
    bytes.extend([0, 0, 0, 0]);
    bytes.extend(options);
    slot[..bytes.len()].copy_from_slice(&bytes);
    bytes.len()
}

/// The allocator of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const VANTAGE: Vantage = Vantage {
    interface: InterfaceId(0),
    path: Path::Ingress,
};

/// What a worker does with the frames of a batch (`Worker::take_in`); answers how many were segments.
fn take_in(tracker: &mut Tracker, frames: &[(Vec<u8>, usize)], parsed: &mut [Parsed]) -> usize {
    let now = Timestamp::default();
    for (slot, end) in frames {
        let (meta, bytes) = slot[..*end].split_at(META_BYTES);
        fetch_frame(bytes, Some(meta));
    }
    let mut batch = Frames {
        frames,
        segments: 0,
    };
    worker::take_in(tracker, (now, VANTAGE), &mut batch, parsed);
    batch.segments
}

/// The frames of a batch, as [`write_frame`] left them.
struct Frames<'a> {
    frames: &'a [(Vec<u8>, usize)],
    segments: usize,
}

impl Batch for Frames<'_> {
    fn frame(&self, at: usize) -> (&[u8], Option<&[u8]>) {
        let (slot, end) = &self.frames[at];
        let (meta, bytes) = slot[..*end].split_at(META_BYTES);
        (bytes, Some(meta))
    }

    fn told(&mut self, _: &Parsed, told: Result<(), Reject>) {
        self.segments += usize::from(told.is_ok());
    }

    fn found(&mut self, sighting: Sighting) {
        black_box(&sighting);
    }
}

/// The mean of taking in one of these frames, a batch at a time.
fn take_in_all(tracker: &mut Tracker, frames: &[(Vec<u8>, usize)], parsed: &mut [Parsed]) -> f64 {
    let started = cpu_ns();
    let mut count = 0;
    for batch in frames.chunks(BATCH) {
        count += take_in(tracker, batch, parsed);
    }
    let spent = cpu_ns() - started;
    assert_eq!(count, frames.len(), "a frame was not understood");
    mean(spent)
}

/// Reading alone, of frames that are near.
fn read_all(frames: &[(Vec<u8>, usize)], parsed: &mut [Parsed]) -> f64 {
    let started = cpu_ns();
    for batch in frames.chunks(BATCH) {
        for ((slot, end), place) in batch.iter().zip(parsed.iter_mut()) {
            let (meta, bytes) = slot[..*end].split_at(META_BYTES);
            read_frame(Timestamp::default(), bytes, Some(meta), place);
        }
        black_box(&mut *parsed);
    }
    mean(cpu_ns() - started)
}

/// The mean of one bare read of 64 bytes at random places, fetched in batches like the table's flows.
fn random_reads(memory: &[u32], dice: &mut Dice) -> f64 {
    // Lines of 64 bytes begin where the memory does: large pieces are aligned to pages, give or
    // take the allocator's 16 bytes.
    let (lines, _) = memory.as_chunks::<16>();
    let bound = u32::try_from(lines.len()).unwrap_or(u32::MAX);
    let mut places = [0_usize; BATCH];
    let started = cpu_ns();
    for _ in 0..BATCHES {
        for place in &mut places {
            *place = dice.below(bound) as usize;
            bring_near(&lines[*place]);
        }
        for place in places {
            black_box(lines[place].iter().fold(0, |sum, word| sum ^ word));
        }
    }
    mean(cpu_ns() - started)
}

fn mean(nanos: u64) -> f64 {
    let count = u32::try_from(BATCH * BATCHES).unwrap_or(u32::MAX);
    u32::try_from(nanos).map_or(f64::MAX, f64::from) / f64::from(count)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Nanoseconds of CPU time of this thread.
fn cpu_ns() -> u64 {
    nanos(ClockId::ThreadCPUTime)
}

fn nanos(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

fn tell(metric: &str, value: f64, unit: &str, against: &str) {
    println!(
        "{{\"bench\":\"frame\",\"metric\":\"{metric}\",\"value\":{value:.3},\"unit\":\"{unit}\",\"against\":\"{against}\"}}"
    );
}

fn tracker(capacity: usize) -> Tracker {
    let tracker = Tracker::new(TrackerConfig {
        capacity,
        key: [0x1234_5678_9abc_def0, 0x0fed_cba9_8765_4321],
    });
    for memory in tracker.memory() {
        advise_huge_pages(memory);
    }
    tracker
}

/// Memory that is backed as the table's is, and touched.
fn touched(bytes: usize) -> Vec<u32> {
    let mut memory = vec![0_u32; bytes / 4];
    advise_huge_pages(&memory);
    memory.fill(1);
    memory
}

/// One family: half of the frames begin a flow, nearly half end one, one in 64 is a reset.
fn measure(is_ipv4: bool, suffix: &str) {
    let mut tracker = tracker(CAPACITY);
    let mut dice = Dice(7);
    let mut frames = vec![(vec![0_u8; SLOT], 0_usize); BATCH * BATCHES];
    let mut parsed = vec![Parsed::BLANK; BATCH];
    let mut time_ns = 1 << 40;
    for start in (0..LIVE).step_by(BATCH) {
        let batch = &mut frames[..BATCH];
        for (number, (slot, end)) in (start..).zip(&mut *batch) {
            *end = write_frame(slot, is_ipv4, number, SYN, time_ns);
        }
        take_in(&mut tracker, batch, &mut parsed);
    }
    let (v4, v6) = tracker.bytes();
    let bytes = if is_ipv4 { v4 } else { v6 };
    let memory = touched(bytes);
    let [_, tags_v4, _, tags_v6] = tracker.memory().map(size_of_val);
    let tags = touched(if is_ipv4 { tags_v4 } else { tags_v6 });
    let addresses = touched(ADDRESS_BYTES);
    let [mut ours, mut bare, mut reading, mut lines, mut near] = [const { Vec::new() }; 5];
    let mut ends = frames.clone();
    for (slot, end) in &mut ends {
        *end = write_frame(slot, is_ipv4, dice.below(NEAR), FIN_ACK, time_ns);
    }
    let mut fresh = LIVE;
    for _ in 0..ROUNDS {
        for (at, (slot, end)) in frames.iter_mut().enumerate() {
            time_ns += 1_000;
            let (number, flags) = match at % 64 {
                0 => (dice.below(LIVE), RST),
                odd if odd % 2 == 1 => (dice.below(LIVE), FIN_ACK),
                _ => (fresh, SYN),
            };
            fresh += u32::from(flags == SYN);
            *end = write_frame(slot, is_ipv4, number, flags, time_ns);
        }
        ours.push(take_in_all(&mut tracker, &frames, &mut parsed));
        bare.push(random_reads(&memory, &mut dice));
        reading.push(read_all(&frames, &mut parsed));
        let apart = random_reads(&tags, &mut dice) + random_reads(&addresses, &mut dice);
        lines.push(apart + random_reads(&memory, &mut dice));
        // Once to bring them near.
        take_in_all(&mut tracker, &ends, &mut parsed);
        near.push(take_in_all(&mut tracker, &ends, &mut parsed));
    }
    let counters = tracker.counters();
    assert!(counters.live >= u64::from(LIVE) - 1000, "{counters:?}");
    let (ours, bare) = (median(ours), median(bare));
    for (metric, value, unit, against) in [
        ("per_frame", ours, "ns", "<= 80"),
        ("random_read_64B", bare, "ns", ""),
        ("read_only", median(reading), "ns", "per_frame"),
        ("lines_only", median(lines), "ns", "per_frame"),
        ("near_only", median(near), "ns", "per_frame"),
    ] {
        tell(&format!("{metric}{suffix}_{unit}"), value, unit, against);
    }
    let metric = format!("per_frame{suffix}_ratio");
    tell(&metric, ours / bare, "x", "<= 2.5 random_read_64B");
    let flows = u32::try_from(CAPACITY).map_or(f64::MAX, f64::from);
    let bytes = u32::try_from(bytes).map_or(f64::MAX, f64::from);
    tell(
        &format!("bytes_per_flow{suffix}"),
        bytes / flows,
        "bytes",
        if is_ipv4 { "<= 64" } else { "<= 96" },
    );
}

fn main() {
    let started = nanos(ClockId::Monotonic);
    let large = tracker(1 << 24);
    let spent = nanos(ClockId::Monotonic) - started;
    assert_eq!(large.capacity(), (1 << 24, 1 << 24));
    drop(large);
    let millis = u32::try_from(spent / 1_000).map_or(f64::MAX, f64::from) / 1_000.0;
    tell("start_16m_flows_ms", millis, "ms", "<= 2000");
    measure(true, "");
    measure(false, "_ipv6");
}

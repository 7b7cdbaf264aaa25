//! What `steer` costs a frame that is none of its business, against the least that an XDP program
//! can cost and against xdp-filter (Debian's xdp-tools) with its TCP features. All by BPF_PROG_RUN,
//! interleaved in one run and loaded several times; medians of thread CPU time. Attaches nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench that panics has failed, as it should"
)]

mod support;

use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapCore, Object, ObjectBuilder, ProgramInput, ProgramMut};
use rstscope::bpf::steer::SteerSkelBuilder;
use rstscope::events::{Config, Events};
use support::{is_root, median, report, sh, skipped, thread_cpu_ns};

/// Runs of a program in one system call: 20 ms, so that the call itself weighs nothing.
const REPEAT: u32 = 500_000;
/// Times that all programs are loaded. The kernel puts each at a random place, and where its branches come to
/// lie makes `steer` cost 2 to 5 ns: of one load the figure would be luck.
const LOADS: usize = 9;
/// Interleaved rounds of each load: the median of 81 does not care for what else the machine did.
const ROUNDS: usize = 9;
/// What xdp-filter loads for `-f tcp` and its default policy, by Debian's place for it.
const XDP_FILTER: &str = "bpf/xdpfilt_alw_tcp.o";

/// An ACK from 10.9.0.1:40000 to 10.9.0.2:80.
fn ack(is_ipv6: bool) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    if is_ipv6 {
        bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 6, 64]);
        bytes.extend([0xfd; 16]);
        bytes.extend([0xfe; 16]);
    } else {
        bytes.extend([0x08, 0x00, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]);
        bytes.extend([10, 9, 0, 1, 10, 9, 0, 2]);
    }
    bytes.extend([
        0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 1, 0, 0, 0, 0, 0,
    ]);
    bytes
}

/// Nanoseconds a frame, harness included.
fn run(program: &ProgramMut<'_>, frame: &[u8]) -> f64 {
    let before = thread_cpu_ns();
    let output = program
        .test_run(ProgramInput {
            data_in: Some(frame),
            repeat: REPEAT,
            ..Default::default()
        })
        .expect("BPF_PROG_RUN");
    assert_eq!(output.return_value, 2, "every program passes the frame");
    (thread_cpu_ns() - before) / f64::from(REPEAT)
}

/// A BPF file system of our own: a host need not have mounted one, and what xdp-filter itself has pinned
/// there stays its own.
struct Pins(PathBuf);

impl Pins {
    fn mount() -> Self {
        let name = format!("rstscope-bench-{}-pins", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder).expect("a folder of its own");
        let made = Self(folder);
        sh(&format!("mount -t bpf none {}", made.0.display()));
        made
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        sh(&format!("umount {}", self.0.display()));
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// xdp-filter's program, or why there is none.
fn xdp_filter(pins: &Pins) -> Result<Object, String> {
    let path = Path::new("/usr/lib")
        .join(format!("{}-linux-gnu", std::env::consts::ARCH))
        .join(XDP_FILTER);
    if !path.exists() {
        return Err(format!("{} is not here (xdp-tools)", path.display()));
    }
    let mut open = ObjectBuilder::default()
        .open_file(&path)
        .map_err(|error| error.to_string())?;
    // It has its maps pinned, so that its next call finds them; these are for this load only.
    for mut map in open.maps_mut() {
        if map.name().to_string_lossy().starts_with("filter_")
            || map.name().to_string_lossy().contains("stats")
        {
            let path = pins.0.join(map.name());
            map.set_pin_path(path).map_err(|error| error.to_string())?;
        }
    }
    let mut object = open.load().map_err(|error| error.to_string())?;
    for mut map in object.maps_mut() {
        let path = pins.0.join(map.name());
        if path.exists() {
            map.unpin(path).map_err(|error| error.to_string())?;
        }
    }
    Ok(object)
}

fn first(object: &Object) -> ProgramMut<'_> {
    object.progs_mut().next().expect("it has one program")
}

/// What one load of the three programs cost, round by round, for one family.
#[derive(Debug, Default)]
struct Costs {
    nothing: Vec<f64>,
    ours: Vec<f64>,
    theirs: Vec<f64>,
}

/// Loads all of them anew, and lets them take turns.
fn measure(
    ring: BorrowedFd<'_>,
    pins: &Pins,
    frames: [&[u8]; 2],
    costs: &mut [Costs; 2],
) -> Result<(), String> {
    let empty = support::load("benches/steer/empty.bpf.c");
    let filter = xdp_filter(pins);
    let mut place = MaybeUninit::uninit();
    let mut open = SteerSkelBuilder::default().open(&mut place).expect("open");
    // As `run` loads it.
    if rstscope::xdp::knows_fragments() {
        open.progs
            .steer
            .set_flags(libbpf_rs::libbpf_sys::BPF_F_XDP_HAS_FRAGS);
        open.maps
            .rodata_data
            .as_mut()
            .expect("rodata")
            .has_fragments = 1;
    }
    open.maps.events.reuse_fd(ring).expect("events");
    let steer = open.load().expect("load");
    for (frame, costs) in frames.into_iter().zip(costs) {
        for _ in 0..ROUNDS {
            let nothing = run(&first(&empty), frame);
            costs.nothing.push(nothing);
            costs.ours.push(run(&steer.progs.steer, frame) - nothing);
            if let Ok(filter) = &filter {
                costs.theirs.push(run(&first(filter), frame) - nothing);
            }
        }
    }
    filter.map(drop)
}

fn main() {
    if !is_root("steer") {
        return;
    }
    let events = Events::open(Config::for_netns(0)).expect("ring buffer");
    let frames = [ack(false), ack(true)];
    let mut costs = [Costs::default(), Costs::default()];
    let pins = Pins::mount();
    let mut filter = Ok(());
    for _ in 0..LOADS {
        let frames = frames.each_ref().map(Vec::as_slice);
        filter = measure(events.ring_fd(), &pins, frames, &mut costs);
    }
    for (family, mut costs) in ["ipv4", "ipv6"].into_iter().zip(costs) {
        let name = |what: &str| format!("{what}_{family}");
        let base = median(&mut costs.nothing);
        report("steer", &name("empty_program"), base, "ns", "");
        let ours = median(&mut costs.ours);
        report("steer", &name("steer_adds"), ours, "ns", "<= 5 over empty");
        match &filter {
            Ok(()) => {
                let theirs = median(&mut costs.theirs);
                report("steer", &name("xdp_filter_adds"), theirs, "ns", "");
                let ratio = ours / theirs;
                report("steer", &name("steer_by_filter"), ratio, "ratio", "<= 0.5");
            }
            Err(why) => skipped("steer", why),
        }
    }
}

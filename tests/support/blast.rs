//! Floods of made-up frames at the speed of the kernel, out of a lab's namespace: `tests/lab/blast.bpf.c`
//! by BPF_PROG_RUN with live frames. Compiles it with the clang that the crate itself was built with.
//! Knows nothing of the sensor.

#![allow(dead_code, reason = "a test and a bench share it")]

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use libbpf_rs::{MapCore, MapFlags, Object, ObjectBuilder, ProgramInput};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// `BPF_F_TEST_XDP_LIVE_FRAMES`: the frames are really sent.
const LIVE_FRAMES: u32 = 1 << 1;
/// Frames of one call. The kernel sends 64 at a time and lets the other side of a veth take them in
/// between; the call as a whole waits 30 ms for the kernel's RCU, so that bursts of 1024 made 34,000
/// frames a second at most.
const BURST: u32 = 8192;
const RANDOM_SOURCE: u32 = 1;
const RANDOM_SOURCE_PORT: u32 = 2;
const RANDOM_TARGET_PORT: u32 = 4;

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;

/// What every frame of a flood has in common; IP ID and sequence number are always random.
#[derive(Clone, Copy)]
pub struct Flood {
    pub flags: u8,
    /// `None`: another one in each frame.
    pub source: Option<Ipv4Addr>,
    /// 0: another one in each frame.
    pub source_port: u16,
    pub target: Ipv4Addr,
    /// 0: another one in each frame.
    pub target_port: u16,
    pub hop_limit: u8,
    pub source_mac: [u8; 6],
    pub target_mac: [u8; 6],
}

/// A SYN to the lab's service, from anybody, as the router at `up0` would send it (scripts/lab).
pub const FROM_THE_ROUTER: Flood = Flood {
    flags: SYN,
    source: None,
    source_port: 0,
    target: Ipv4Addr::new(10, 77, 2, 2),
    target_port: 8080,
    hop_limit: 51,
    source_mac: [2, 0, 0, 0, 2, 1],
    target_mac: [2, 0, 0, 0, 2, 2],
};

impl Flood {
    fn template(&self) -> Vec<u8> {
        let mut frame = [self.target_mac, self.source_mac].concat();
        frame.extend([8, 0, 0x45, 0, 0, 40, 0, 0, 0x40, 0, self.hop_limit, 6, 0, 0]);
        frame.extend(self.source.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
        frame.extend(self.target.octets());
        frame.extend(self.source_port.to_be_bytes());
        frame.extend(self.target_port.to_be_bytes());
        frame.extend([0; 8]);
        frame.extend([5 << 4, self.flags]);
        let window: u16 = if self.flags & RST == 0 { 64_240 } else { 0 };
        frame.extend(window.to_be_bytes());
        frame.extend([0; 4]);
        frame
    }

    fn random(&self) -> u32 {
        let mut random = 0;
        if self.source.is_none() {
            random |= RANDOM_SOURCE;
        }
        if self.source_port == 0 {
            random |= RANDOM_SOURCE_PORT;
        }
        if self.target_port == 0 {
            random |= RANDOM_TARGET_PORT;
        }
        random
    }
}

/// What was sent, and how fast.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    pub frames: u64,
    /// Of these, what found the other side's ring full: no NIC would have had them either.
    pub refused: u64,
    pub seconds: f64,
}

fn compiled() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let object = std::env::temp_dir().join(format!("rstscope-blast-{}.o", std::process::id()));
    let arch = std::env::consts::ARCH;
    let done = Command::new("clang")
        .args(["-O2", "-g", "-Wall", "-target", "bpf", "-mcpu=v3"])
        .args([
            "-idirafter",
            &format!("/usr/include/{arch}-linux-gnu"),
            "-c",
        ])
        .arg(root.join("tests/lab/blast.bpf.c"))
        .arg("-o")
        .arg(&object)
        .status()
        .unwrap();
    assert!(done.success(), "clang could not compile blast.bpf.c");
    object
}

fn load() -> Object {
    let path = compiled();
    let object = ObjectBuilder::default()
        .open_file(&path)
        .and_then(libbpf_rs::OpenObject::load)
        .unwrap();
    std::fs::remove_file(path).unwrap();
    object
}

/// Frames that the far end of this veth had no room for so far; in the namespace of the caller's thread.
fn refused(interface: &str) -> u64 {
    let told = Command::new("ethtool")
        .args(["-S", interface])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    let errors = told.lines().filter(|line| line.contains("xdp_xmit_err"));
    errors
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

/// Sends `frames` of a flood by `interface` of the network namespace `namespace`, with `rest` between
/// bursts of 8192; `on_burst` hears how many are sent and may end it by `false`.
pub fn blast(
    namespace: &str,
    interface: &str,
    flood: &Flood,
    frames: u64,
    rest: Duration,
    mut on_burst: impl FnMut(u64) -> bool + Send,
) -> Sent {
    let there = File::open(format!("/run/netns/{namespace}")).unwrap();
    let send = move || {
        move_into_link_name_space(there.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        let ifindex = rustix::net::netdevice::name_to_index(
            rustix::net::socket(
                rustix::net::AddressFamily::INET,
                rustix::net::SocketType::DGRAM,
                None,
            )
            .unwrap(),
            interface,
        )
        .unwrap();
        let object = load();
        let plans = object.maps().find(|map| map.name() == "plans").unwrap();
        let program = object.progs_mut().next().unwrap();
        let mut plan = [0; 16];
        plan[..4].copy_from_slice(&ifindex.to_ne_bytes());
        plan[4..8].copy_from_slice(&flood.random().to_ne_bytes());
        plans
            .update(&0_u32.to_ne_bytes(), &plan, MapFlags::ANY)
            .unwrap();
        let template = flood.template();
        let refused_before = refused(interface);
        let begun = Instant::now();
        let mut sent = 0;
        while sent < frames {
            let burst = u32::try_from((frames - sent).min(u64::from(BURST))).unwrap();
            let input = ProgramInput {
                data_in: Some(&template),
                flags: LIVE_FRAMES,
                repeat: burst,
                ..Default::default()
            };
            program.test_run(input).unwrap();
            sent += u64::from(burst);
            if !on_burst(sent) {
                break;
            }
            if !rest.is_zero() {
                thread::sleep(rest);
            }
        }
        let seconds = begun.elapsed().as_secs_f64();
        let plan = plans.lookup(&0_u32.to_ne_bytes(), MapFlags::ANY).unwrap();
        let frames = u64::from_ne_bytes(plan.unwrap()[8..16].try_into().unwrap());
        Sent {
            frames,
            refused: refused(interface) - refused_before,
            seconds,
        }
    };
    thread::scope(|scope| scope.spawn(send).join().unwrap())
}

//! `steer` loaded and ready to be run on a frame, with its gate, its counters and its copies at hand.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapCore, MapFlags, ProgramInput};
use rstscope::bpf::steer::{OpenSteerSkel, SteerSkel, SteerSkelBuilder};
use rstscope::events::{Config, Event, Events, FrameOrigin};
use rstscope::host::SocketView;
use rstscope::host_bytes::u64_at;
use rstscope::xdp::COUNTER_NAMES;

/// The program, loaded, and the ring buffer that it copies to.
pub(crate) struct Rig<'a> {
    pub(crate) skel: SteerSkel<'a>,
    events: Events,
}

/// What one run did.
#[derive(Debug, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) action: u32,
    pub(crate) counted: Vec<&'static str>,
    pub(crate) copies: Vec<(FrameOrigin, Vec<u8>, Option<SocketView>)>,
    pub(crate) out: Vec<u8>,
}

impl<'a> Rig<'a> {
    pub(crate) fn new(
        place: &'a mut MaybeUninit<libbpf_rs::OpenObject>,
        change: impl FnOnce(&mut OpenSteerSkel<'a>),
    ) -> Self {
        let events = Events::open(Config::for_netns(0)).expect("ring buffer (root?)");
        let mut open = SteerSkelBuilder::default().open(place).expect("open");
        open.maps.events.reuse_fd(events.ring_fd()).expect("events");
        change(&mut open);
        Self {
            skel: open.load().expect("load"),
            events,
        }
    }

    pub(crate) fn set_gate(&self, produced: u64, consumed: u64, heartbeat: u64, limit: u64) {
        let mut gate = [0_u8; 128];
        gate[..8].copy_from_slice(&produced.to_ne_bytes());
        for (at, value) in [(64, consumed), (72, heartbeat), (80, limit)] {
            gate[at..at + 8].copy_from_slice(&value.to_ne_bytes());
        }
        self.write_gate(&gate);
    }

    /// The worker has given back that much in all; the rest of the gate stays.
    pub(crate) fn give_back(&self, consumed: u64) {
        let mut gate = self.read_gate();
        gate[64..72].copy_from_slice(&consumed.to_ne_bytes());
        self.write_gate(&gate);
    }

    fn write_gate(&self, gate: &[u8]) {
        let gates = &self.skel.maps.gates;
        gates
            .update(&0_u32.to_ne_bytes(), gate, MapFlags::ANY)
            .expect("gate");
    }

    fn read_gate(&self) -> Vec<u8> {
        let gates = &self.skel.maps.gates;
        let gate = gates.lookup(&0_u32.to_ne_bytes(), MapFlags::ANY);
        gate.expect("gate").expect("gate")
    }

    /// The word of the gate at that place.
    pub(crate) fn gate(&self, at: usize) -> u64 {
        u64_at(&self.read_gate(), at).expect("gate")
    }

    /// A real AF_XDP socket in the map, so that the redirect is granted.
    pub(crate) fn insert_socket(&self) -> rustix::fd::OwnedFd {
        let socket = rustix::net::socket(
            rustix::net::AddressFamily::from_raw(libc::AF_XDP as u16),
            rustix::net::SocketType::RAW,
            None,
        )
        .expect("AF_XDP socket");
        let value = socket.as_fd().as_raw_fd().to_ne_bytes();
        self.skel
            .maps
            .xsks
            .update(&0_u32.to_ne_bytes(), &value, MapFlags::ANY)
            .expect("xsks");
        socket
    }

    pub(crate) fn counters(&self) -> Vec<u64> {
        let bytes = self
            .skel
            .maps
            .data_counters
            .lookup(&0_u32.to_ne_bytes(), MapFlags::ANY);
        let bytes = bytes.expect("counters").expect("counters");
        (0..COUNTER_NAMES.len())
            .map(|i| u64_at(&bytes, i * 8).expect("counter"))
            .collect()
    }

    pub(crate) fn run(&mut self, frame: &[u8]) -> Outcome {
        let before = self.counters();
        let mut out = vec![0_u8; frame.len() + 256];
        let output = self.skel.progs.steer.test_run(ProgramInput {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ..Default::default()
        });
        let output = output.expect("BPF_PROG_RUN");
        let (action, len) = (
            output.return_value,
            output.data.map_or(0, |data| data.len()),
        );
        out.truncate(len);
        let after = self.counters();
        let counted = COUNTER_NAMES.iter().zip(before.iter().zip(&after));
        let counted = counted
            .filter(|(_, (b, a))| a > b)
            .map(|(name, _)| *name)
            .collect();
        let mut copies = Vec::new();
        self.events
            .poll(Duration::ZERO, &mut |event| {
                if let Event::Frame(frame) = event {
                    copies.push((frame.origin, frame.frame.to_vec(), frame.socket));
                }
            })
            .expect("poll");
        Outcome {
            action,
            counted,
            copies,
            out,
        }
    }
}

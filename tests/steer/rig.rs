//! `steer` loaded and ready to be run on a frame, with its gate, its counters and its copies at hand.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapCore, MapFlags, ProgramInput};
use rstscope::bpf::steer::{OpenSteerSkel, SteerSkel, SteerSkelBuilder};
use rstscope::events::{Config, Event, Events, FrameOrigin};
use rstscope::host::SocketView;
use rstscope::host_bytes::{FRAME_META_LEN, FRAME_META_SHORT_LEN, u64_at};
use rstscope::xdp::{COUNTER_NAMES, needs_short_metadata};

/// The program, loaded, and the ring buffer that it copies to.
pub(crate) struct Rig<'a> {
    pub(crate) skel: SteerSkel<'a>,
    events: Events,
}

/// Bytes of metadata that `steer` puts before a frame on this kernel.
pub(crate) fn meta_len() -> usize {
    if needs_short_metadata() {
        FRAME_META_SHORT_LEN
    } else {
        FRAME_META_LEN
    }
}

/// Bytes of `struct queue_counters`.
const QUEUE_BYTES: usize = 192;

/// Where a frame comes in, and how many bytes of metadata stand before it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Arrival {
    pub(crate) ifindex: u32,
    pub(crate) queue: u32,
    pub(crate) meta: u32,
}

/// What one run did. A counter is named as often as it went up, whichever queue it belongs to.
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
        Self::with_ring(place, Config::for_netns(0), change)
    }

    /// The same with another ring buffer.
    pub(crate) fn with_ring(
        place: &'a mut MaybeUninit<libbpf_rs::OpenObject>,
        config: Config,
        change: impl FnOnce(&mut OpenSteerSkel<'a>),
    ) -> Self {
        let events = Events::open(config).expect("ring buffer (root?)");
        let mut open = SteerSkelBuilder::default().open(place).expect("open");
        open.maps.events.reuse_fd(events.ring_fd()).expect("events");
        let rodata = open.maps.rodata_data.as_mut().expect("rodata");
        rodata.short_metadata = u8::from(needs_short_metadata());
        change(&mut open);
        Self {
            skel: open.load().expect("load"),
            events,
        }
    }

    pub(crate) fn set_gate(&self, produced: u64, consumed: u64, heartbeat: u64, limit: u64) {
        self.set_gate_of(0, produced, consumed, heartbeat, limit);
    }

    pub(crate) fn set_gate_of(
        &self,
        queue: u32,
        produced: u64,
        consumed: u64,
        heartbeat: u64,
        limit: u64,
    ) {
        let mut gate = [0_u8; 128];
        gate[..8].copy_from_slice(&produced.to_ne_bytes());
        for (at, value) in [(64, consumed), (72, heartbeat), (80, limit)] {
            gate[at..at + 8].copy_from_slice(&value.to_ne_bytes());
        }
        self.write_gate(queue, &gate);
    }

    /// The worker has given back that much in all; the rest of the gate stays.
    pub(crate) fn give_back(&self, consumed: u64) {
        let mut gate = self.read_gate();
        gate[64..72].copy_from_slice(&consumed.to_ne_bytes());
        self.write_gate(0, &gate);
    }

    fn write_gate(&self, queue: u32, gate: &[u8]) {
        let gates = &self.skel.maps.gates;
        gates
            .update(&queue.to_ne_bytes(), gate, MapFlags::ANY)
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
        self.insert_socket_at(0)
    }

    pub(crate) fn insert_socket_at(&self, queue: u32) -> rustix::fd::OwnedFd {
        let socket = rustix::net::socket(
            rustix::net::AddressFamily::from_raw(libc::AF_XDP as u16),
            rustix::net::SocketType::RAW,
            None,
        )
        .expect("AF_XDP socket");
        // Linux 7.2 takes no socket that has nowhere to put a frame.
        rustix::net::sockopt::set_xdp_rx_ring_size(&socket, 64).expect("an RX ring");
        let value = socket.as_fd().as_raw_fd().to_ne_bytes();
        self.skel
            .maps
            .xsks
            .update(&queue.to_ne_bytes(), &value, MapFlags::ANY)
            .expect("xsks");
        socket
    }

    /// Counters of the first queues, one behind the other.
    fn counters(&self) -> Vec<[u64; COUNTER_NAMES.len()]> {
        let bytes = self
            .skel
            .maps
            .data_counters
            .lookup(&0_u32.to_ne_bytes(), MapFlags::ANY);
        let bytes = bytes.expect("counters").expect("counters");
        let of = |queue: &[u8]| std::array::from_fn(|i| u64_at(queue, i * 8).expect("counter"));
        bytes.chunks_exact(QUEUE_BYTES).take(4).map(of).collect()
    }

    pub(crate) fn run(&mut self, frame: &[u8]) -> Outcome {
        self.run_at(frame, Arrival::default())
    }

    /// A frame that arrives there. Nothing but its own queue's counters may move.
    pub(crate) fn run_at(&mut self, frame: &[u8], arrival: Arrival) -> Outcome {
        let mut outcome = self.run_unheard(frame, arrival);
        outcome.copies = self.copies();
        outcome
    }

    /// The same, with what it copies left in the ring buffer.
    pub(crate) fn run_unheard(&mut self, frame: &[u8], arrival: Arrival) -> Outcome {
        let before = self.counters();
        let mut data = vec![0_u8; arrival.meta as usize];
        data.extend_from_slice(frame);
        let mut out = vec![0_u8; data.len() + 256];
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let end = data.len() as u32;
        let words = [arrival.meta, end, 0, arrival.ifindex, arrival.queue, 0];
        let mut context: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let output = self.skel.progs.steer.test_run(ProgramInput {
            data_in: Some(&data),
            data_out: Some(&mut out),
            context_in: Some(&mut context),
            ..Default::default()
        });
        let output = output.expect("BPF_PROG_RUN");
        let (action, len) = (
            output.return_value,
            output.data.map_or(0, |data| data.len()),
        );
        out.truncate(len);
        let mut counted = Vec::new();
        for (queue, (before, after)) in before.iter().zip(self.counters()).enumerate() {
            assert!(
                queue == arrival.queue as usize || *before == after,
                "queue {queue} counts for queue {}",
                arrival.queue
            );
            for (name, (before, after)) in COUNTER_NAMES.iter().zip(before.iter().zip(after)) {
                counted.extend((*before..after).map(|_| *name));
            }
        }
        Outcome {
            action,
            counted,
            copies: Vec::new(),
            out,
        }
    }

    /// What waits in the ring buffer.
    fn copies(&mut self) -> Vec<(FrameOrigin, Vec<u8>, Option<SocketView>)> {
        let mut copies = Vec::new();
        self.events
            .poll(Duration::ZERO, &mut |event| {
                if let Event::Frame(frame) = event {
                    copies.push((frame.origin, frame.frame.to_vec(), frame.socket));
                }
            })
            .expect("poll");
        copies
    }
}

//! Frames through real AF_XDP rings, between namespaces: each comes back exactly once, and a dead
//! hand-back costs the host nothing. Needs root, iproute2, ethtool and clang.

#![allow(
    clippy::print_stdout,
    reason = "a test says what share of connections succeeded"
)]

#[path = "frames/network.rs"]
mod network;
#[path = "../benches/support/mod.rs"]
mod support;

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam::queue::ArrayQueue;
use libbpf_rs::{Link, MapCore, MapFlags, Object, ObjectBuilder};
use network::{Network, received_packets};
use rstscope::flow::{FlowFacts, Sighting};
use rstscope::host::SocketView;
use rstscope::sys::{FramePool, Gates, HandbackSocket, Umem, UmemLayout, Wake};
use rstscope::time::{SECOND, Timestamp};
use rstscope::vantage::{InterfaceId, Vantage};
use rstscope::wire::Segment;
use rstscope::worker::{Finished, Health, Observe, Port, PortConfig, Shared, Worker, WorkerConfig};
use rstscope::xdp::needs_short_metadata;
use support::{inside, sh};

/// Makes a sighting of every segment, so that the test sees times and sockets.
struct Everything;

impl Observe for Everything {
    fn observe(
        &mut self,
        time: Timestamp,
        vantage: Vantage,
        segment: &Segment,
        socket: Option<SocketView>,
    ) -> Option<Sighting> {
        let flow = FlowFacts::default();
        Some(Sighting {
            time,
            vantage,
            segment: *segment,
            socket,
            begins_anew: false,
            flow,
        })
    }
}

/// The test's XDP program, loaded; a file per call, since tests run side by side.
fn load(network: &Network) -> Object {
    let object = std::env::temp_dir().join(format!("{}.o", network.a));
    let root = env!("CARGO_MANIFEST_DIR");
    let status = Command::new("clang")
        .args(["-O2", "-g", "-target", "bpf", "-idirafter"])
        .arg(format!("/usr/include/{}-linux-gnu", std::env::consts::ARCH))
        .arg(format!("-I{root}/bpf"))
        .args(needs_short_metadata().then_some("-DSHORT_METADATA"))
        .args(["-c", &format!("{root}/tests/frames/redirect.bpf.c"), "-o"])
        .arg(&object)
        .status()
        .expect("clang is installed");
    assert!(status.success(), "the test's XDP program does not compile");
    let loaded = ObjectBuilder::default()
        .open_file(&object)
        .and_then(libbpf_rs::OpenObject::load)
        .expect("the kernel accepts the test's XDP program");
    let _ = std::fs::remove_file(object);
    loaded
}

/// A worker on `nic0`, running.
struct Sensor {
    object: Object,
    _link: Link,
    shared: Arc<Shared>,
    sightings: Arc<ArrayQueue<Sighting>>,
    thread: JoinHandle<Finished>,
}

impl Sensor {
    /// Starts one inside namespace `b`, with `program` of the test's object.
    fn start(network: &Network, program: &str) -> Self {
        let config = WorkerConfig::new(InterfaceId(0));
        Self::start_with(network, program, UmemLayout::default(), config)
    }

    fn start_with(
        network: &Network,
        program: &str,
        umem: UmemLayout,
        worker_config: WorkerConfig,
    ) -> Self {
        let object = load(network);
        inside(&network.b, || {
            let config = PortConfig {
                interface: "nic0".to_owned(),
                queue: 0,
                handback: "hb0".to_owned(),
                handback_queue: 0,
                umem,
            };
            let port = Port::open(&config).expect("both sockets bind");
            let map = |name: &str| {
                object
                    .maps()
                    .find(|map| map.name() == name)
                    .expect("the object has the map")
            };
            let fd = port.as_fd().as_raw_fd().to_ne_bytes();
            map("xsks")
                .update(&0_u32.to_ne_bytes(), &fd, MapFlags::ANY)
                .expect("socket in map");
            let gates = Gates::map(map("gates").as_fd(), 4).expect("gates are mappable");
            let index = i32::try_from(interface_index("nic0")).expect("a small index");
            let link = object
                .progs_mut()
                .find(|prog| prog.name() == program)
                .expect("the object has the program")
                .attach_xdp(index)
                .expect("native XDP attaches to veth");
            let sightings = Arc::new(ArrayQueue::new(1 << 17));
            let shared = Arc::new(Shared::new());
            let worker = Worker::new(
                WorkerConfig {
                    cpu: Some(0),
                    ..worker_config
                },
                port,
                gates.take(0).expect("the gate is free"),
                Everything,
                Arc::clone(&sightings),
                Arc::clone(&shared),
            );
            let thread = worker.spawn("rst-nic0-0").expect("a thread");
            let sensor = Self {
                object,
                _link: link,
                shared,
                sightings,
                thread,
            };
            sensor.await_health(Health::Running);
            sensor
        })
    }

    fn await_health(&self, wanted: Health) {
        for _ in 0..2000 {
            if self.shared.health() == wanted {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
        panic!("the worker is {:?}, not {wanted:?}", self.shared.health());
    }

    /// The last FIN is still on its way when the last connection is made.
    fn await_received(&self, frames: u64) {
        for _ in 0..1000 {
            if self.shared.counters().received >= frames {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
        panic!("fewer than {frames} frames: {:?}", self.shared.counters());
    }

    /// Waits until nothing has come for longer than the kernel's first retransmission takes (200 ms,
    /// include/net/tcp.h, `TCP_RTO_MIN`).
    fn await_quiet(&self) {
        let mut received = self.shared.counters().received;
        for _ in 0..20 {
            thread::sleep(Duration::from_millis(500));
            let now = self.shared.counters().received;
            if now == received {
                return;
            }
            received = now;
        }
        panic!("frames go on coming: {:?}", self.shared.counters());
    }

    /// Frames that the program let pass for want of credit.
    fn passed(&self) -> u64 {
        let map = self
            .object
            .maps()
            .find(|map| map.name() == "passed")
            .expect("a map");
        let value = map
            .lookup(&0_u32.to_ne_bytes(), MapFlags::ANY)
            .expect("readable");
        value
            .and_then(|v| v.try_into().ok())
            .map(u64::from_ne_bytes)
            .expect("eight bytes")
    }

    fn stop(self) -> Finished {
        self.shared.stop();
        self.thread.join().expect("the worker does not panic")
    }
}

/// A SYN to a port that nobody asks about, addressed to no host that is there.
fn syn() -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
    bytes.extend([
        0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2,
    ]);
    bytes.extend([
        0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0, 0, 0, 0, 0, 0,
    ]);
    bytes
}

/// Sends `count` frames from `up0` in bursts of 64 through a socket of our own. Answers how many arrived:
/// the other end holds 256, and is not always quick to take them.
fn blast(count: u32) -> u32 {
    let layout = UmemLayout {
        frame_count: 1024,
        ..UmemLayout::default()
    };
    let (umem, frames) = Umem::new(layout).expect("memory");
    let mut pool = FramePool::new(frames);
    let mut socket = HandbackSocket::open(&umem, "up0", 0).expect("it binds");
    let packet = syn();
    let (mut left, mut dropped) = (count, 0);
    let mut batch = Vec::with_capacity(64);
    while left > 0 || socket.unsent() > 0 {
        socket.reclaim(&mut pool);
        while batch.len() < 64 && left > 0 {
            let Some(mut frame) = pool.take() else { break };
            assert!(umem.write(&mut frame, &packet), "a SYN fits into a frame");
            batch.push(frame);
            left -= 1;
        }
        socket.transmit(&mut batch);
        match socket.wake() {
            Wake::Done | Wake::Again => {}
            // A call that drops a frame ends with it: one each.
            Wake::Dropped => dropped += 1,
            wake => panic!("the generator's veth says {wake:?}"),
        }
    }
    while socket.in_kernel() > 0 {
        socket.reclaim(&mut pool);
        thread::yield_now();
    }
    assert_eq!(pool.outstanding(), 0);
    count - dropped
}

#[test]
#[ignore = "needs root"]
fn a_hundred_thousand_frames_come_back_exactly_once() {
    const FRAMES: u32 = 100_000;
    let network = Network::new();
    let sensor = Sensor::start(&network, "all_frames");
    let before_ns = monotonic_ns();
    let at_start = inside(&network.b, || received_packets("hb1"));
    let sent = inside(&network.a, || blast(FRAMES));
    thread::sleep(Duration::from_millis(200));
    let after_ns = monotonic_ns();
    let at_end = inside(&network.b, || received_packets("hb1"));
    let passed = sensor.passed();
    let (sightings, pinned) = (Arc::clone(&sensor.sightings), sensor.shared.is_pinned());
    let finished = sensor.stop();
    let counters = finished.counters;
    assert!(pinned);
    assert!(
        finished.is_drained && finished.balance.holds(),
        "{finished:?}"
    );
    assert_eq!((finished.abandoned, finished.in_flight), (0, 0));
    assert_eq!(counters.received + passed, u64::from(sent));
    assert_eq!(counters.received, counters.handed_back);
    assert_eq!(counters.received, counters.completed);
    assert_eq!(
        counters.received,
        at_end - at_start + counters.handback_dropped
    );
    assert_eq!(
        (counters.lost(), counters.handback_errors, counters.tx_full),
        (0, 0, 0)
    );
    assert_eq!(
        (counters.credit_written_off, counters.credit_resynced),
        (0, 0)
    );
    assert!(counters.received > u64::from(FRAMES) / 100, "{counters:?}");
    assert_eq!((counters.without_meta, counters.sightings_lost), (0, 0));
    assert_eq!(counters.sightings, counters.received);
    let mut last = Timestamp::from_nanos(before_ns);
    while let Some(sighting) = sightings.pop() {
        assert_eq!(sighting.socket, Some(SocketView::Absent));
        assert!(sighting.time >= last, "frames keep their order");
        last = sighting.time;
    }
    assert!(last <= Timestamp::from_nanos(after_ns));
}

/// Answers connections on 10.9.0.2:80 until it is told to stop.
fn serve(stop: &AtomicBool) {
    let listener = TcpListener::bind("10.9.0.2:80").expect("the port is free");
    listener.set_nonblocking(true).expect("a socket option");
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => drop(stream),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                thread::sleep(Duration::from_micros(200));
            }
            Err(error) => panic!("accept: {error}"),
        }
    }
}

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Connects `count` times; every one must succeed in well under the first retransmission.
fn connect(phase: &str, count: u32) {
    connect_within(phase, count, Duration::from_millis(900));
}

/// Connects `count` times, and says how many succeed, each within `patience`: all must.
fn connect_within(phase: &str, count: u32, patience: Duration) {
    let address = "10.9.0.2:80".parse().expect("an address");
    let failed = (0..count)
        .filter_map(|_| TcpStream::connect_timeout(&address, patience).err())
        .collect::<Vec<_>>();
    println!(
        "{phase}: {} of {count} new connections succeeded",
        count as usize - failed.len()
    );
    assert!(failed.is_empty(), "{phase}: {failed:?}");
}

#[test]
#[ignore = "needs root"]
fn connections_go_on_when_the_hand_back_is_down_or_removed() {
    let network = Network::new();
    network.join_handback();
    let sensor = Sensor::start(&network, "control_frames");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| inside(&network.b, || serve(&stop)));
        // Ends the server when an assertion fails too, else the scope would wait for ever.
        let _ends = StopAtEnd(&stop);
        thread::sleep(Duration::from_millis(50));
        inside(&network.a, || connect("before", 100));
        // A SYN and a FIN of each.
        sensor.await_received(200);

        sh(&format!("ip -n {} link set hb0 down", network.b));
        sensor.await_health(Health::Stuck);
        inside(&network.a, || connect("the near end is down", 50));
        assert!(sensor.passed() > 0);

        sh(&format!("ip -n {} link set hb0 up", network.b));
        sensor.await_health(Health::Running);
        let before = sensor.shared.counters().received;
        inside(&network.a, || connect("the near end is up again", 50));
        sensor.await_received(before + 100);

        sh(&format!("ip -n {} link set hb1 down", network.b));
        sensor.await_health(Health::Stuck);
        inside(&network.a, || connect("the far end is down", 50));
        sh(&format!("ip -n {} link set hb1 up", network.b));
        sensor.await_health(Health::Running);
        // What was dropped on its way back comes again by TCP's retransmission; it must not be on its
        // way at the instant at which the interface goes.
        sensor.await_quiet();

        sh(&format!("ip -n {} link del hb0", network.b));
        sensor.await_health(Health::Gone);
        inside(&network.a, || connect("the pair is deleted", 50));
        let finished = sensor.stop();
        assert!(finished.balance.holds(), "{finished:?}");
        // The frame whose send found the interface gone had nowhere to go; it is counted.
        assert!(finished.abandoned <= 1, "{finished:?}");
    });
}

/// Frames that a worker got, that passed it by, and that were lost before it.
fn accounted(finished: &Finished, passed: u64) -> u64 {
    finished.counters.received + passed + finished.counters.lost()
}

#[test]
#[ignore = "needs root"]
fn a_flood_at_a_stuck_way_back_neither_starves_the_fill_ring_nor_loses_a_frame() {
    const FRAMES: u32 = 50_000;
    let network = Network::new();
    network.join_handback();
    let sensor = Sensor::start(&network, "control_frames");
    let mut sent = inside(&network.a, || blast(100));
    sensor.await_received(u64::from(sent));
    sh(&format!("ip -n {} link set hb0 down", network.b));
    sent += inside(&network.a, || blast(FRAMES - 200));
    sensor.await_health(Health::Stuck);
    sh(&format!("ip -n {} link set hb0 up", network.b));
    sensor.await_health(Health::Running);
    let before = sensor.shared.counters().received;
    sent += inside(&network.a, || blast(100));
    sensor.await_received(before + 1);
    sensor.await_quiet();
    let passed = sensor.passed();
    let finished = sensor.stop();
    assert_eq!(finished.counters.losses.fill_ring_empty, 0, "{finished:?}");
    assert_eq!(finished.counters.lost(), 0, "{finished:?}");
    assert_eq!(accounted(&finished, passed), u64::from(sent));
    assert!(
        finished.balance.holds() && finished.is_drained,
        "{finished:?}"
    );
    assert_eq!((finished.abandoned, finished.in_flight), (0, 0));
}

/// A worker with more credit than frames, which no configuration of the program gives: under a flood the
/// kernel finds the fill ring empty.
fn greedy(network: &Network) -> Sensor {
    let umem = UmemLayout {
        frame_count: 64,
        ..UmemLayout::default()
    };
    let config = WorkerConfig {
        credit: 4096,
        ..WorkerConfig::new(InterfaceId(0))
    };
    Sensor::start_with(network, "control_frames", umem, config)
}

/// What the kernel drops is counted, written off, and no reason to stop.
#[test]
#[ignore = "needs root"]
fn a_starved_fill_ring_loses_only_what_is_counted_and_heals() {
    const FRAMES: u32 = 50_000;
    let network = Network::new();
    network.join_handback();
    let sensor = greedy(&network);
    let mut sent = inside(&network.a, || blast(FRAMES));
    sensor.await_quiet();
    // Until what was dropped has been asked for and written off.
    thread::sleep(Duration::from_millis(400));
    let before = sensor.shared.counters().received;
    sent += inside(&network.a, || blast(20));
    sensor.await_received(before + 20);
    sensor.await_quiet();
    let passed = sensor.passed();
    let finished = sensor.stop();
    let counters = finished.counters;
    assert!(
        counters.losses.fill_ring_empty > 0,
        "it never starved: {counters:?}"
    );
    assert_eq!(accounted(&finished, passed), u64::from(sent));
    assert_eq!(counters.credit_written_off, counters.lost(), "{counters:?}");
    assert_eq!(
        finished.in_flight, 0,
        "the gate stayed narrow: {finished:?}"
    );
    assert!(finished.balance.holds(), "{finished:?}");
}

/// A SYN that found no frame comes again, after a second or more: the flood goes on.
#[test]
#[ignore = "needs root"]
fn connections_go_on_while_the_fill_ring_is_starved() {
    let network = Network::new();
    network.join_handback();
    let sensor = greedy(&network);
    let (stop, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
    let (over, a) = (&is_over, &network.a);
    thread::scope(|scope| {
        scope.spawn(|| inside(&network.b, || serve(&stop)));
        let _ends = (StopAtEnd(&stop), StopAtEnd(over));
        thread::sleep(Duration::from_millis(50));
        inside(a, || connect("before", 50));
        let flood = scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                inside(a, || blast(10_000));
            }
        });
        inside(a, || {
            connect_within("starved", 50, Duration::from_secs(30));
        });
        is_over.store(true, Ordering::Relaxed);
        flood.join().expect("the generator does not panic");
        sensor.await_quiet();
        thread::sleep(Duration::from_millis(400));
        inside(a, || connect("after", 50));
    });
    let finished = sensor.stop();
    let counters = finished.counters;
    assert!(
        counters.losses.fill_ring_empty > 0,
        "it never starved: {counters:?}"
    );
    assert!(finished.balance.holds(), "{finished:?}");
}

#[test]
#[ignore = "needs root"]
fn a_queue_can_be_bound_again_right_after_it_was_closed() {
    let network = Network::new();
    for _ in 0..5 {
        let sensor = Sensor::start(&network, "control_frames");
        let finished = sensor.stop();
        assert!(finished.is_drained, "{finished:?}");
    }
}

#[test]
#[ignore = "needs root"]
fn a_bind_that_cannot_be_names_interface_and_queue() {
    let network = Network::new();
    let error = inside(&network.b, || {
        let (umem, _frames) = Umem::new(UmemLayout::default()).expect("memory");
        let missing = HandbackSocket::open(&umem, "nothere0", 0).expect_err("no such interface");
        let beyond = HandbackSocket::open(&umem, "hb0", 9).expect_err("no such queue");
        [missing.to_string(), beyond.to_string()]
    });
    assert!(
        error[0].contains("nothere0") && error[0].contains("no such interface"),
        "{error:?}"
    );
    assert!(error[1].contains("queue 9 of hb0"), "{error:?}");
}

/// The index of an interface of this thread's namespace.
fn interface_index(name: &str) -> u32 {
    use rustix::net::{AddressFamily, SocketType, netdevice, socket};
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None).expect("a socket");
    netdevice::name_to_index(any, name).expect("the interface is there")
}

fn monotonic_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec.cast_unsigned() * SECOND + time.tv_nsec.cast_unsigned()
}

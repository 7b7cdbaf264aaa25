//! The data path between namespaces, with the parts that `run` puts together: both ways back in
//! order, a flood accounted for frame by frame, frames longer than a page. Needs root.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test that panics has failed, as it should; it waits by the clock"
)]

#[path = "../benches/support/sensor.rs"]
mod sensor;
#[path = "../benches/support/mod.rs"]
mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rstscope::events::{Config, Events, own_netns};
use rstscope::handback::{Live, LiveError, Pair};
use rstscope::nic::Interface;
use rstscope::worker::Counters;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::process::Pid;
use rustix::thread::CpuSet;
use sensor::{Generator, Sensor};
use support::{Namespaces, inside, sh};

const FIN: u8 = 1;
const RST: u8 = 4;

/// Stops the sensor and holds it to its ledger; answers its counters and what it bypassed.
fn settle(sensor: Sensor) -> (Counters, u64) {
    let redirected = sensor.steered("redirected");
    let bypassed = sensor.bypassed();
    let (finished, handed_back, lost) = sensor.stop();
    let one = finished[0];
    assert!(one.balance.holds() && one.is_drained, "{one:?}");
    assert_eq!((one.abandoned, one.in_flight), (0, 0), "{one:?}");
    let counters = one.counters;
    assert_eq!(counters.received, redirected, "{counters:?}");
    assert_eq!(counters.handed_back, counters.received, "{counters:?}");
    assert_eq!(counters.completed, counters.received, "{counters:?}");
    assert_eq!(handed_back + lost, counters.received, "{counters:?}");
    assert_eq!(
        (counters.losses.ring_full, counters.losses.dropped),
        (0, 0),
        "{counters:?}"
    );
    (counters, bypassed)
}

#[test]
#[ignore = "needs root"]
fn a_flood_beyond_what_the_sensor_takes_is_accounted_for_to_the_frame() {
    const FRAMES: u32 = 1_000_000;
    let network = Namespaces::new(&["p-flood-a", "p-flood-b"]);
    network.cable(51, 1);
    inside(network.name(1), || {
        let sensor = Sensor::start("sv51", 1);
        let sent = inside(network.name(0), || Generator::open("cl51", 0).send(FRAMES));
        thread::sleep(Duration::from_millis(200));
        let (counters, bypassed) = settle(sensor);
        assert_eq!(counters.received + bypassed, u64::from(sent));
        assert!(bypassed > 0, "the flood was no flood: {counters:?}");
        assert!(counters.live > 0, "no frame went back live: {counters:?}");
        assert_eq!(counters.live_failed, 0, "{counters:?}");
    });
}

/// One flow's frame to 10.52.0.2, numbered by its SEQ.
fn numbered(mac: [u8; 6], flags: u8, payload: usize, seq: u32, frame: &mut Vec<u8>) {
    frame.extend(mac);
    frame.extend([2, 0, 0, 0, 0, 2, 0x08, 0x00]);
    let ip = frame.len();
    frame.extend([0x45, 0]);
    frame.extend(u16::try_from(40 + payload).unwrap().to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 6, 0, 0, 10, 52, 0, 1, 10, 52, 0, 2]);
    let words = frame[ip..]
        .chunks(2)
        .map(|w| u32::from(w[0]) << 8 | u32::from(w[1]));
    let sum: u32 = words.sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) & 0xffff;
    frame[ip + 10..ip + 12].copy_from_slice(&u16::try_from(sum).unwrap().to_be_bytes());
    frame.extend([0x9c, 0x40, 0, 9]);
    frame.extend(seq.to_be_bytes());
    frame.extend([0, 0, 0, 0, 0x50, flags, 1, 0, 0, 0, 0, 0]);
    frame.extend(vec![0x55; payload]);
}

/// Everything TCP that the host's stack gets, as its sequence numbers.
fn listen() -> OwnedFd {
    let socket = rustix::net::socket_with(
        AddressFamily::INET,
        SocketType::RAW,
        SocketFlags::NONBLOCK,
        Some(rustix::net::ipproto::TCP),
    )
    .expect("a raw socket");
    rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 64 << 20).expect("root");
    socket
}

fn heard(socket: &OwnedFd) -> Vec<u32> {
    let mut seqs = Vec::new();
    let mut packet = [0_u8; 2048];
    while let Ok((len, _)) = rustix::net::recv(socket, &mut packet, RecvFlags::empty()) {
        assert!(len >= 40);
        seqs.push(u32::from_be_bytes(packet[24..28].try_into().unwrap()));
    }
    seqs
}

#[test]
#[ignore = "needs root"]
fn frames_of_a_flow_keep_their_order_whichever_way_they_go_back() {
    const FRAMES: u32 = 20_000;
    let network = Namespaces::new(&["p-order-a", "p-order-b"]);
    network.cable(52, 1);
    inside(network.name(1), || {
        let mac = rstscope::nic::Interface::find("sv52").unwrap().mac();
        let mac = mac.expect("a veth has an address").0;
        let socket = listen();
        let sensor = Sensor::start("sv52", 1);
        let mut next = 0;
        // Bound there, it may send from anywhere.
        let mut generator = inside(network.name(0), || Generator::open("cl52", 0));
        // Less at once than the credit, so that none passes by the sensor.
        while next < FRAMES {
            let first = next;
            let sent = generator.send_each(200, |number, frame| {
                // Resets go back live, data with FIN by the veth: blocks of both.
                let (flags, payload) = match (first + number) / 150 % 2 {
                    0 => (RST, 0),
                    _ => (FIN, 100),
                };
                numbered(mac, flags, payload, first + number, frame);
            });
            assert_eq!(sent, 200, "the generator lost frames");
            next += 200;
            // Those that passed by a worker that was kept waiting count too, or this never ends.
            while sensor.received() + sensor.bypassed() + 100 < u64::from(next) {
                thread::sleep(Duration::from_micros(100));
            }
        }
        thread::sleep(Duration::from_millis(200));
        let (counters, bypassed) = settle(sensor);
        let heard = heard(&socket);
        assert_eq!(heard.len(), FRAMES as usize, "{counters:?} {bypassed}");
        if bypassed == 0 {
            assert!(heard.windows(2).all(|pair| pair[0] + 1 == pair[1]));
        }
        assert!(
            counters.live > 0 && counters.live < counters.received,
            "{counters:?}"
        );
    });
}

/// What decides whether a burst may go live is that nothing is under way by the veth. A frame that waits
/// behind the interface's ingress (here: its traffic is shaped, 300 ms a frame) has not come back.
#[test]
#[ignore = "needs root"]
fn a_frame_comes_back_when_the_stack_has_it_and_no_sooner() {
    const AT_ONCE: u32 = 10;
    let network = Namespaces::new(&["p-held-a", "p-held-b"]);
    network.cable(52, 1);
    let b = network.name(1);
    sh(&format!("ip -n {b} link add held type ifb"));
    sh(&format!("ip -n {b} link set held up"));
    // Ten frames of 154 bytes go at once, each further one after 308 ms.
    let bucket = "root tbf rate 4kbit burst 1540 latency 10s";
    sh(&format!("tc -n {b} qdisc add dev held {bucket}"));
    sh(&format!("tc -n {b} qdisc add dev sv52 clsact"));
    let filter = format!("-n {b} filter add dev sv52 ingress bpf bytecode");
    let mut words: Vec<&str> = filter.split_whitespace().collect();
    words.push("1,6 0 0 4294967295");
    words.extend("action mirred egress redirect dev held".split(' '));
    let status = Command::new("tc").args(words).status();
    assert!(status.expect("tc starts").success());
    inside(b, || {
        let nic = Interface::find("sv52").unwrap();
        let mac = nic.mac().expect("a veth has an address").0;
        let events = Events::open(Config::for_netns(own_netns().unwrap())).unwrap();
        let classifier = events.load_handback().unwrap();
        let pair = Pair::create(&nic.link, 1, classifier.as_fd()).unwrap();
        let socket = listen();
        let mut veth = Generator::open(&pair.names().transmit, 0);
        let mut send = |count, first| {
            let begun = Instant::now();
            // Returns when all of them have come back.
            let sent = veth.send_each(count, |number, frame| {
                numbered(mac, FIN, 100, first + number, frame);
            });
            assert_eq!(sent, count);
            // The stack may be at the last one yet: this thread is bound to no CPU.
            thread::sleep(Duration::from_millis(20));
            (begun.elapsed(), heard(&socket))
        };
        let (_, seqs) = send(AT_ONCE, 0);
        assert_eq!(seqs, (0..AT_ONCE).collect::<Vec<_>>());
        let (took, seqs) = send(2, AT_ONCE);
        assert!(took > Duration::from_millis(400), "not held: {took:?}");
        assert_eq!(seqs, [AT_ONCE, AT_ONCE + 1]);
    });
}

/// The one worker of this process.
fn worker() -> Pid {
    let task = std::fs::read_dir("/proc/self/task")
        .unwrap()
        .find_map(|task| {
            let path = task.unwrap().path();
            let name = std::fs::read_to_string(path.join("comm")).unwrap_or_default();
            let number = path.file_name()?.to_str()?.parse().ok()?;
            name.starts_with("bench-q").then(|| Pid::from_raw(number))?
        });
    task.expect("a worker")
}

/// Moves it to any CPU but those in `but`; `false` where there is no other.
fn move_worker(but: &CpuSet) -> bool {
    let mut others = rustix::thread::sched_getaffinity(None).unwrap();
    for cpu in (0..CpuSet::MAX_CPU).filter(|cpu| but.is_set(*cpu)) {
        others.unset(cpu);
    }
    rustix::thread::sched_setaffinity(Some(worker()), &others).is_ok()
}

/// Whether frames of a flood go back live from a worker that `prepare` was called with.
fn goes_live(is_pinned: bool, prepare: impl FnOnce() + Send) -> bool {
    const FRAMES: u32 = 100_000;
    let network = Namespaces::new(&["p-bound-a", "p-bound-b"]);
    network.cable(54, 1);
    inside(network.name(1), || {
        let sensor = Sensor::start_on("sv54", 1, is_pinned);
        prepare();
        inside(network.name(0), || Generator::open("cl54", 0).send(FRAMES));
        thread::sleep(Duration::from_millis(200));
        let (counters, _) = settle(sensor);
        assert!(counters.received > 0, "{counters:?}");
        counters.live > 0
    })
}

#[test]
#[ignore = "needs root"]
fn only_a_worker_that_is_bound_to_a_cpu_gives_bursts_live() {
    assert!(goes_live(true, || {}));
    assert!(!goes_live(false, || {}));
    let [own, _, ..] = cpus()[..] else {
        println!("skipped: there is one CPU only to move a worker to");
        return;
    };
    assert!(!goes_live(true, || assert!(move_worker(&own))));
}

/// Each of the CPUs that this thread may use by itself.
fn cpus() -> Vec<CpuSet> {
    let allowed = rustix::thread::sched_getaffinity(None).unwrap();
    let cpus = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
    cpus.map(|cpu| {
        let mut one = CpuSet::new();
        one.set(cpu);
        one
    })
    .collect()
}

/// A veth's frames are polled by the CPU that sends them.
#[test]
#[ignore = "needs root"]
fn a_worker_goes_where_its_queue_is_polled_and_from_there_in_a_rush() {
    let cpus = cpus();
    let [own, other, ..] = cpus[..] else {
        println!("skipped: there is one CPU only");
        return;
    };
    let network = Namespaces::new(&["p-follow-a", "p-follow-b"]);
    network.cable(52, 1);
    inside(network.name(1), || {
        let mac = Interface::find("sv52").unwrap().mac();
        let mac = mac.expect("a veth has an address").0;
        let socket = listen();
        let sensor = Sensor::start("sv52", 1);
        let worker = worker();
        let is_on = |cpu: CpuSet| rustix::thread::sched_getaffinity(Some(worker)).unwrap() == cpu;
        assert!(is_on(own));
        let mut generator = inside(network.name(0), || Generator::open("cl52", 0));
        rustix::thread::sched_setaffinity(None, &other).unwrap();
        let (mut next, mut seqs) = (0, Vec::new());
        // Less at once than the credit, so that none passes by the sensor.
        let mut send_until_on = |cpu: CpuSet, count: u32, pause: Duration| {
            let begun = Instant::now();
            while !is_on(cpu) && begun.elapsed() < Duration::from_secs(20) {
                let sent = generator.send_each(count, |number, frame| {
                    numbered(mac, FIN, 0, next + number, frame);
                });
                assert_eq!(sent, count, "the generator lost frames");
                next += count;
                while sensor.received() + sensor.bypassed() + 100 < u64::from(next) {
                    thread::sleep(Duration::from_micros(100));
                }
                thread::sleep(pause);
                seqs.extend(heard(&socket));
            }
            assert!(is_on(cpu), "after {next} frames");
        };
        send_until_on(other, 2, Duration::from_millis(10));
        send_until_on(own, 200, Duration::ZERO);
        thread::sleep(Duration::from_millis(200));
        let (counters, bypassed) = settle(sensor);
        seqs.extend(heard(&socket));
        assert_eq!(seqs.len(), next as usize, "{counters:?} {bypassed}");
        if bypassed == 0 {
            assert!(seqs.windows(2).all(|pair| pair[0] + 1 == pair[1]));
        }
    });
}

/// Then the hand-back veth's frames are received on other CPUs than the worker's.
#[test]
#[ignore = "needs root"]
fn where_new_interfaces_are_spread_over_cpus_no_burst_goes_live() {
    let mask = "/proc/sys/net/core/rps_default_mask";
    let network = Namespaces::new(&["p-spread-a", "p-spread-b"]);
    network.cable(55, 1);
    inside(network.name(1), || {
        if std::fs::write(mask, "1").is_err() {
            println!("skipped: this kernel has no net.core.rps_default_mask");
            return;
        }
        let nic = Interface::find("sv55").unwrap();
        let events = Events::open(Config::for_netns(own_netns().unwrap())).unwrap();
        let classifier = events.load_handback().unwrap();
        let pair = Pair::create(&nic.link, 1, classifier.as_fd()).unwrap();
        let open = || {
            Live::open(
                nic.ifindex(),
                pair.transmit_ifindex(),
                1,
                events.counters_fd(),
            )
        };
        assert!(matches!(open(), Err(LiveError::Spread)));
        std::fs::write(mask, "0").unwrap();
        assert!(open().is_ok());
    });
}

#[test]
#[ignore = "needs root"]
fn an_mtu_beyond_a_page_is_served_and_longer_frames_pass_by() {
    let network = Namespaces::new(&["p-mtu-a", "p-mtu-b"]);
    network.cable(53, 1);
    for (at, link) in [(0, "cl53"), (1, "sv53")] {
        sh(&format!(
            "ip -n {} link set {link} mtu 9000",
            network.name(at)
        ));
    }
    inside(network.name(1), || {
        let sensor = Sensor::start("sv53", 1);
        let listener = TcpListener::bind("10.53.0.2:80").unwrap();
        let sent = inside(network.name(0), || {
            let mut stream = TcpStream::connect("10.53.0.2:80").expect("the SYN comes back");
            stream.write_all(&[7; 100_000]).unwrap();
            // Held back by MSG_MORE until the FIN joins it: one frame of 5,054 bytes.
            thread::sleep(Duration::from_millis(50));
            rustix::net::send(&stream, &[8; 5000], SendFlags::MORE).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            105_000
        });
        let mut received = Vec::new();
        listener
            .accept()
            .unwrap()
            .0
            .read_to_end(&mut received)
            .unwrap();
        assert_eq!(received.len(), sent);
        let too_long = sensor.steered("too_long");
        let (counters, bypassed) = settle(sensor);
        assert!(counters.received >= 1, "the SYN was taken: {counters:?}");
        assert_eq!((too_long, bypassed), (1, 1), "the long FIN passed by");
    });
}

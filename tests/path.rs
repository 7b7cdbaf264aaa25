//! The data path between namespaces, with the parts that `run` puts together: both ways back in
//! order, a flood accounted for frame by frame, frames longer than a page. Needs root.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that panics has failed, as it should"
)]

#[path = "../benches/support/sensor.rs"]
mod sensor;
#[path = "../benches/support/mod.rs"]
mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use rstscope::worker::Counters;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use sensor::{Generator, Sensor};
use support::{Namespaces, inside, sh};

const FIN: u8 = 1;
const RST: u8 = 4;

/// Stops the sensor and holds it to its ledger; answers its counters and what it bypassed.
fn settle(sensor: Sensor) -> (Counters, u64) {
    let redirected = sensor.steered("redirected");
    let bypassed = ["bypass_credit", "bypass_draining", "bypass_heartbeat"]
        .iter()
        .chain(&["bypass_closed", "no_socket", "no_metadata", "too_long"])
        .map(|name| sensor.steered(name))
        .sum();
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
        let sensor = Sensor::start("sv51", 1, true);
        inside(network.name(0), || Generator::open("cl51", 0).send(FRAMES));
        thread::sleep(Duration::from_millis(200));
        let (counters, bypassed) = settle(sensor);
        assert_eq!(counters.received + bypassed, u64::from(FRAMES));
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
        let sensor = Sensor::start("sv52", 1, true);
        let mut next = 0;
        // Bound there, it may send from anywhere.
        let mut generator = inside(network.name(0), || Generator::open("cl52", 0));
        // Less at once than the credit, so that none passes by the sensor.
        while next < FRAMES {
            let first = next;
            generator.send_each(200, |number, frame| {
                // Resets go back live, data with FIN by the veth: blocks of both.
                let (flags, payload) = match (first + number) / 150 % 2 {
                    0 => (RST, 0),
                    _ => (FIN, 100),
                };
                numbered(mac, flags, payload, first + number, frame);
            });
            next += 200;
            while sensor.received() + 100 < u64::from(next) {
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
        let sensor = Sensor::start("sv53", 1, true);
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

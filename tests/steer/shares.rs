//! What belongs to one queue alone, how the ring buffer is shared, and frames for which there is no room:
//! in the ring buffer, or before them for metadata. Each costs the host nothing and has its counter.

use std::fs::metadata;
use std::mem::MaybeUninit;
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::linux::fs::MetadataExt;
use std::process::Command;
use std::time::Duration;

use rstscope::events::{Config, Event, Events, FrameOrigin, Unread};
use rstscope::nic::Interface;
use rstscope::time::Timestamp;
use rstscope::xdp::needs_short_metadata;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::frames::{ACK, RST, SYN, ethernet, ipv4, ipv6, tcp, v4};
use super::namespace::{Namespace, run};
use super::rig::{Arrival, Rig};
use super::{XDP_PASS, XDP_REDIRECT};

/// A heartbeat that is never late.
const FRESH: u64 = u64::MAX >> 1;

#[test]
#[ignore = "needs root"]
fn each_queue_has_a_gate_and_counters_of_its_own() {
    let _namespace = Namespace::enter(2);
    let ifindex = Interface::find("nic0").unwrap().ifindex();
    let mut place = MaybeUninit::uninit();
    let mut rig = Rig::new(&mut place, |_| {});
    let _sockets = [0, 1].map(|queue| rig.insert_socket_at(queue));
    let mut on = |queue: u32, limit: Option<u64>| {
        if let Some(limit) = limit {
            rig.set_gate_of(queue, 0, 0, FRESH, limit);
        }
        let arrival = Arrival {
            ifindex,
            queue,
            meta: 0,
        };
        rig.run_at(&v4(SYN), arrival).counted
    };
    assert_eq!(on(0, Some(1)), ["redirected"]);
    assert_eq!(on(1, None), ["bypass_closed", "copied"]);
    assert_eq!(on(0, None), ["bypass_credit", "copied"]);
    assert_eq!(on(1, Some(2)), ["redirected"]);
    assert_eq!(on(1, None), ["redirected"]);
    assert_eq!(on(1, None), ["bypass_credit", "copied"]);
}

#[test]
#[ignore = "needs root"]
fn a_frame_without_room_for_metadata_passes_as_it_was() {
    let mut place = MaybeUninit::uninit();
    let mut rig = Rig::new(&mut place, |_| {});
    let _socket = rig.insert_socket();
    rig.set_gate(0, 0, FRESH, 8);
    // So much is there already: with ours it would be more than the kernel allows.
    let taken = Arrival {
        meta: if needs_short_metadata() { 32 } else { 200 },
        ..Arrival::default()
    };
    let outcome = rig.run_at(&v4(RST), taken);
    assert_eq!(
        (outcome.action, outcome.counted),
        (XDP_PASS, vec!["no_metadata", "copied"])
    );
    assert_eq!((outcome.copies.len(), rig.gate(0)), (1, 0));
    assert!(outcome.out.ends_with(&v4(RST)));
    assert_eq!(rig.run(&v4(RST)).action, XDP_REDIRECT);
}

/// A socket from here to there, connected or about to be.
fn connect(local: &str, peer: &str, flags: SocketFlags) -> OwnedFd {
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None);
    let socket = socket.unwrap();
    let [local, peer] = [local, peer].map(|end| end.parse::<SocketAddrV4>().unwrap());
    rustix::net::bind(&socket, &local).unwrap();
    let asked = rustix::net::connect(&socket, &peer);
    assert!(
        matches!(asked, Ok(()) | Err(Errno::INPROGRESS)),
        "{asked:?}"
    );
    socket
}

/// Copies the frame until there is no room for its like; answers how many more were copied. What finds no
/// room is counted, and the host has it all the same.
fn fill(rig: &mut Rig<'_>, frame: &[u8]) -> usize {
    for copied in 0..100 {
        let outcome = rig.run_unheard(frame, Arrival::default());
        assert_eq!((outcome.action, &outcome.out[..]), (XDP_PASS, frame));
        if outcome.counted != ["bypass_closed", "copied"] {
            assert_eq!(outcome.counted, ["bypass_closed", "copy_lost"]);
            return copied;
        }
    }
    panic!("there is always room");
}

#[test]
#[ignore = "needs root"]
fn a_flood_leaves_room_in_the_ring_buffer_for_the_reset_that_ends_a_connection() {
    // A record takes 312 bytes with its header: 52 fill the buffer.
    const RING_BYTES: u32 = 16 << 10;
    let _namespace = Namespace::enter(1);
    run("ip link set lo up");
    run("ip address add 192.0.2.1/32 dev lo");
    run("ip address add 192.0.2.2/24 dev nic0");
    let listener = TcpListener::bind("192.0.2.2:80").unwrap();
    let _client = connect("192.0.2.1:40000", "192.0.2.2:80", SocketFlags::empty());
    let _server = listener.accept().unwrap();
    // Nobody answers: it waits for what may end it, and is not told that nobody is there (`NUD_FAILED`).
    run("ip neighbor add 192.0.2.3 lladdr 02:00:00:00:00:03 dev nic0");
    let _waiting = connect("192.0.2.2:81", "192.0.2.3:40000", SocketFlags::NONBLOCK);
    let mut place = MaybeUninit::uninit();
    let config = Config {
        ring_bytes: RING_BYTES,
        ..Config::for_netns(0)
    };
    let mut rig = Rig::with_ring(&mut place, config, |_| {});
    // Of nobody; a guess at the connection; what may end the one that waits.
    let (mut stray, guess, mut fatal) = (v4(RST), v4(RST), v4(RST | ACK));
    stray[29] = 9;
    fatal[29] = 3;
    fatal[37] = 81;
    let copied = [&v4(SYN), &stray, &guess, &fatal].map(|frame| fill(&mut rig, frame));
    assert_eq!(copied, [27, 13, 6, 6], "of 52 copies");
}

/// Sends a frame, in hexadecimal, so many times into an interface.
const SEND: &str = "import socket, sys\n\
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as s:\n\
    \x20   s.bind((sys.argv[1], 0))\n\
    \x20   for _ in range(int(sys.argv[3])): s.send(bytes.fromhex(sys.argv[2]))\n";

fn send(interface: &str, frame: &[u8], times: u32) {
    let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut python = Command::new("/usr/bin/python3");
    let sent = python.args(["-c", SEND, interface, &hex, &times.to_string()]);
    assert!(sent.status().unwrap().success());
}

/// What comes in mirrored, what leaves, and what the kernel tells: each is in the ring buffer or counted as
/// lost for its own reason, to the record.
#[test]
#[ignore = "needs root"]
fn what_finds_the_ring_buffer_full_is_counted_by_its_kind() {
    const EACH: u32 = 80;
    let _namespace = Namespace::enter(1);
    run("ip link set lo up");
    // That of this thread, not of the process.
    let netns = metadata("/proc/thread-self/ns/net").unwrap().st_ino();
    let mut events = Events::open(Config {
        ring_bytes: 16 << 10,
        ..Config::for_netns(u32::try_from(netns).unwrap())
    })
    .unwrap();
    let ifindex = Interface::find("nic0").unwrap().ifindex();
    let never = Timestamp::default();
    events.attach_mirror("nic0", ifindex, &[], never).unwrap();
    events.attach_egress("nic0", ifindex).unwrap();
    send("wire0", &v4(SYN), EACH);
    send("nic0", &v4(RST), EACH);
    send("wire0", &v4(RST), 5);
    for _ in 0..EACH {
        assert!(TcpStream::connect("127.0.0.1:1").is_err());
    }
    let host = events.host_counters().unwrap();
    let each = u64::from(EACH);
    assert_eq!(
        (host.mirrored, host.mirror_lost),
        (27, each - 27),
        "{host:?}"
    );
    let resets = host.egress_copied + host.egress_reset_lost;
    assert_eq!((resets, host.egress_lost), (each, 0), "{host:?}");
    assert!(
        host.egress_reset_lost > 0 && host.events_lost > 0,
        "{host:?}"
    );
    assert_eq!(host.mirror_reset_lost, 5, "{host:?}");
    let kernel = host.events + host.events_lost + host.events_missed;
    assert!(kernel >= each, "{host:?}");
    let (mut mirrored, mut left, mut told) = (0, 0, 0);
    while events
        .poll(Duration::ZERO, &mut |event| match event {
            Event::Frame(frame) if frame.origin == FrameOrigin::Mirrored => mirrored += 1,
            Event::Frame(_) => left += 1,
            Event::Kernel(_) => told += 1,
        })
        .unwrap()
        > 0
    {}
    assert_eq!(
        (mirrored, left, told),
        (host.mirrored, host.egress_copied, host.events)
    );
}

/// A segment that is not followed to its header is told of by no copy: it has its counter, whether it left or
/// mirror mode looked at it. `steer` counts its own.
#[test]
#[ignore = "needs root"]
fn what_the_tc_programs_cannot_follow_is_counted_by_its_reason() {
    let _namespace = Namespace::enter(1);
    let mut events = Events::open(Config::for_netns(0)).unwrap();
    let ifindex = Interface::find("nic0").unwrap().ifindex();
    let never = Timestamp::default();
    events.attach_mirror("nic0", ifindex, &[], never).unwrap();
    events.attach_egress("nic0", ifindex).unwrap();
    let (syn, mut bad_offset) = (tcp(SYN, &[]), v4(RST));
    bad_offset[46] = 0x40;
    let kinds = [
        ethernet(0x800, &[], &ipv4(0, 6, 0x2000, &syn)),
        v4(SYN)[..44].to_vec(),
        bad_offset,
        ethernet(0x86dd, &[], &ipv6(&[60; 7], 6, &syn)),
    ];
    for (interface, before, after) in [("wire0", 0, 1), ("nic0", 1, 3)] {
        for (kind, times) in kinds.iter().zip(1..) {
            send(interface, kind, times * (after - before));
        }
        let host = events.host_counters().unwrap();
        let each = u64::from(after);
        let expected = Unread {
            fragment: each,
            truncated: 2 * each,
            malformed: 3 * each,
            too_deep: 4 * each,
        };
        assert_eq!(host.unread, expected, "{interface}");
        assert_eq!((host.mirrored, host.egress_copied, host.lost()), (0, 0, 0));
    }
}

//! What belongs to one queue alone, how the ring buffer is shared, and frames for which there is no room:
//! in the ring buffer, or before them for metadata. Each costs the host nothing and has its counter.

use std::mem::MaybeUninit;
use std::net::{SocketAddrV4, TcpListener};
use std::os::fd::OwnedFd;

use rstscope::events::Config;
use rstscope::nic::Interface;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::frames::{ACK, RST, SYN, v4};
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
    let taken = Arrival {
        meta: 200,
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
    // A record takes 304 bytes with its header: 53 fill the buffer.
    const RING_BYTES: u32 = 16 << 10;
    let _namespace = Namespace::enter(1);
    run("ip link set lo up");
    run("ip address add 192.0.2.1/32 dev lo");
    run("ip address add 192.0.2.2/24 dev nic0");
    let listener = TcpListener::bind("192.0.2.2:80").unwrap();
    let _client = connect("192.0.2.1:40000", "192.0.2.2:80", SocketFlags::empty());
    let _server = listener.accept().unwrap();
    // Nobody answers: it waits for what may end it.
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
    assert_eq!(copied, [27, 14, 7, 5], "of 53 copies");
}

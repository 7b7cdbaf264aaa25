//! Several next hops, chosen by ports. No fault at all, but a host whose routes go by the hash that comes
//! beside a frame, which one that was handed back has not: a connection whose SYN took another way than its
//! data would be lost behind a firewall that knows only one of both.

use super::traffic::{assert_ends_well, count, ledger};
use crate::lab::{Lab, text};

/// A second cable from the load balancer host to the backend. The route to the backend has both, and what
/// comes in there is remembered by connection and cable.
const TWO_WAYS: [(&str, &str); 2] = [
    (
        "be",
        "ip link add b9 type veth peer name dn9; ethtool -K b9 tx off; ethtool -K dn9 tx off; \
         ip link set dn9 netns PREFIXlb; ip addr add 10.77.9.2/24 dev b9; \
         ip addr add fd77:9::2/64 dev b9 nodad; ip link set b9 up; \
         nft add table inet ways; \
         nft add set inet ways seen '{ typeof meta nfproto . th sport . meta iifname; size 9999; flags dynamic; }'; \
         nft add chain inet ways in '{ type filter hook prerouting priority 0; }'; \
         nft add rule inet ways in tcp dport 80 add @seen '{ meta nfproto . th sport . meta iifname }'",
    ),
    (
        "lb",
        "ip addr add 10.77.9.1/24 dev dn9; ip addr add fd77:9::1/64 dev dn9 nodad; ip link set dn9 up; \
         ip route add 10.77.3.2 nexthop dev dn0 nexthop via 10.77.9.2; \
         ip -6 route add fd77:3::2 nexthop dev dn0 nexthop via fd77:9::2",
    ),
];

/// Pages that the client fetches of the backend itself, over both families in turns.
const PAGES: u64 = 60;

const CLIENT: &str = "
import socket
for at in range(60):
    peer = socket.create_connection((('10.77.3.2', 'fd77:3::2')[at % 2], 80), timeout=10)
    peer.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n')
    assert peer.makefile('rb').read().endswith(b'backend\\n')
";

fn choose_by_ports(lab: &Lab, does: bool) {
    let value = u8::from(does);
    lab.shell(
        "lb",
        &format!(
            "sysctl -qw net.ipv4.fib_multipath_hash_policy={value} \
             net.ipv6.fib_multipath_hash_policy={value}"
        ),
    );
}

/// Fetches the pages, each of whose connections must keep to one cable; answers how many took the second.
fn assert_one_way_each(lab: &Lab, phase: &str) -> usize {
    lab.shell("be", "nft flush set inet ways seen");
    let done = lab.exec("cl", &["/usr/bin/python3", "-c", CLIENT]).output();
    let done = done.unwrap();
    assert!(done.status.success(), "{phase}: {}", text(&done.stderr));
    let seen = lab.shell("be", "nft list set inet ways seen");
    let (first, second) = (
        seen.matches("\"b0\"").count(),
        seen.matches("\"b9\"").count(),
    );
    println!("{phase}: {PAGES} connections, {first} by one cable, {second} by the other");
    assert_eq!((first + second) as u64, PAGES, "{phase}: {seen}");
    second
}

#[test]
#[ignore = "needs root"]
fn a_routed_connection_keeps_to_one_of_several_next_hops() {
    let lab = Lab::up();
    for (host, script) in TWO_WAYS {
        lab.shell(host, &script.replace("PREFIX", &lab.prefix));
    }
    choose_by_ports(&lab, true);
    let second = assert_one_way_each(&lab, "before");
    assert!((1..PAGES).contains(&(second as u64)), "{second}");
    let mut sensor = lab.sensor(&[]);
    assert_one_way_each(&lab, "with the sensor");
    choose_by_ports(&lab, false);
    assert!(sensor.await_line("no longer chooses"), "{}", sensor.said());
    assert_one_way_each(&lab, "chosen by addresses");
    choose_by_ports(&lab, true);
    assert!(sensor.await_line("by ports now"), "{}", sensor.said());
    assert_one_way_each(&lab, "chosen by ports again");
    assert_ends_well(&mut sensor, &["up0", "dn0"]);
    let line = ledger(&sensor, "up0");
    assert!(count(&line, "redirected") <= 2 * PAGES, "{line}");
}

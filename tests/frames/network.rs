//! Two namespaces for a test: `a` — `b`, and in `b` a hand-back pair `hb0` — `hb1`. Gone when it
//! is dropped.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::support::{Namespaces, sh};

static NEXT: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Network {
    pub(crate) a: String,
    pub(crate) b: String,
    _namespaces: Namespaces,
}

impl Network {
    pub(crate) fn new() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let roles = [format!("a{number}"), format!("b{number}")];
        let namespaces = Namespaces::new(&roles.each_ref().map(String::as_str));
        let network = Self {
            a: namespaces.name(0).to_owned(),
            b: namespaces.name(1).to_owned(),
            _namespaces: namespaces,
        };
        let (a, b) = (&network.a, &network.b);
        sh(&format!(
            "ip -n {b} link add nic0 type veth peer name up0 netns {a}"
        ));
        sh(&format!("ip -n {b} link add hb0 type veth peer name hb1"));
        for (name, link) in [(a, "up0"), (b, "nic0"), (b, "hb0"), (b, "hb1")] {
            // Over veth a checksum is only promised, and AF_XDP forgets the promise.
            sh(&format!("ip netns exec {name} ethtool -K {link} tx off"));
        }
        sh(&format!("ip -n {b} link set hb0 arp off"));
        sh(&format!("ip -n {a} addr add 10.9.0.1/24 dev up0"));
        sh(&format!("ip -n {b} addr add 10.9.0.2/24 dev nic0"));
        for (name, link) in [(a, "up0"), (b, "nic0"), (b, "hb1"), (b, "hb0")] {
            sh(&format!("ip -n {name} link set {link} up"));
        }
        network
    }

    /// Gives every frame that arrives at `hb1` to `nic0`, as if it had come in there.
    pub(crate) fn join_handback(&self) {
        let b = &self.b;
        let output = Command::new("ip")
            .args(["-n", b, "-o", "link", "show", "nic0"])
            .output()
            .expect("ip starts");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mac = text
            .split_whitespace()
            .skip_while(|word| *word != "link/ether")
            .nth(1)
            .expect("nic0 has a MAC")
            .to_owned();
        sh(&format!("ip -n {b} link set hb1 address {mac}"));
        sh(&format!("tc -n {b} qdisc add dev hb1 clsact"));
        let args = [
            "-n", b, "filter", "add", "dev", "hb1", "ingress", "bpf", "bytecode",
        ];
        let rest = [
            "1,6 0 0 4294967295",
            "action",
            "mirred",
            "ingress",
            "redirect",
            "dev",
            "nic0",
        ];
        let status = Command::new("tc")
            .args(args)
            .args(rest)
            .status()
            .expect("tc starts");
        assert!(status.success(), "the hand-back filter is refused");
    }
}

/// Packets that `interface` of this thread's namespace received.
pub(crate) fn received_packets(interface: &str) -> u64 {
    let table = fs::read_to_string("/proc/thread-self/net/dev").expect("procfs is there");
    let line = table
        .lines()
        .find_map(|line| line.trim_start().strip_prefix(interface)?.strip_prefix(':'))
        .expect("the interface is there");
    line.split_whitespace()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .expect("a number")
}

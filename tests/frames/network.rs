//! Two namespaces for a test: `a` — `b`, and in `b` a hand-back pair `hb0` — `hb1`. Gone when it
//! is dropped.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

static NEXT: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Network {
    pub(crate) a: String,
    pub(crate) b: String,
}

/// Runs one command line and insists on success.
pub(crate) fn sh(line: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (program, rest) = words.split_first().expect("a command");
    let output = Command::new(program)
        .args(rest)
        .output()
        .expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {said}");
}

impl Network {
    pub(crate) fn new() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let stem = format!("rstscope-frames-{}-{number}", std::process::id());
        let network = Self {
            a: format!("{stem}-a"),
            b: format!("{stem}-b"),
        };
        let (a, b) = (&network.a, &network.b);
        for name in [a, b] {
            sh(&format!("ip netns add {name}"));
            sh(&format!(
                "ip netns exec {name} sysctl -qw net.ipv6.conf.all.disable_ipv6=1"
            ));
            sh(&format!(
                "ip netns exec {name} sysctl -qw net.ipv6.conf.default.disable_ipv6=1"
            ));
            sh(&format!("ip -n {name} link set lo up"));
        }
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

impl Drop for Network {
    fn drop(&mut self) {
        for name in [&self.a, &self.b] {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

/// Runs `body` in a thread of namespace `name`.
pub(crate) fn inside<T: Send>(name: &str, body: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        scope
            .spawn(|| {
                let link =
                    File::open(format!("/run/netns/{name}")).expect("the namespace is there");
                move_into_link_name_space(link.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("root may enter it");
                body()
            })
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
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

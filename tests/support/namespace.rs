//! A network namespace that a test's thread is in, with the veth `nic0` and its peer `wire0`, both up.
//! It goes when the test ends, also by a panic.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

static NAMESPACES: AtomicU32 = AtomicU32::new(0);

pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes one whose veth has that many queues each way.
    pub fn enter(queues: u32) -> Self {
        let number = NAMESPACES.fetch_add(1, Ordering::Relaxed);
        let name = format!("nic-{}-{number}", std::process::id());
        run(&format!("ip netns add {name}"));
        let namespace = Self { name };
        let file = File::open(format!("/var/run/netns/{}", namespace.name)).unwrap();
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        let queues = format!("numrxqueues {queues} numtxqueues {queues}");
        run(&format!(
            "ip link add nic0 {queues} type veth peer name wire0 {queues}"
        ));
        run("ip link set nic0 up");
        run("ip link set wire0 up");
        namespace
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

/// Runs a command, which must succeed; answers what it printed.
pub fn run(line: &str) -> String {
    let mut words = line.split(' ');
    let output = Command::new(words.next().unwrap())
        .args(words)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

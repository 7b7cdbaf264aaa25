//! What the benches share: one way to print a metric, medians, CPU time of this thread, and a
//! place to run in. Refuses to judge: `scripts/bench` and a reader compare with `against`.

#![allow(
    dead_code,
    clippy::print_stdout,
    reason = "each bench uses a part of it; printing is its purpose"
)]

use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use libbpf_rs::{Object, ObjectBuilder};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use rustix::time::{ClockId, clock_gettime};

/// Prints one metric as a JSON line: what `scripts/bench` collects.
pub(crate) fn report(bench: &str, metric: &str, value: f64, unit: &str, against: &str) {
    let rounded = (value * 1000.0).round() / 1000.0;
    println!(
        "{}",
        serde_json::json!({
            "bench": bench, "metric": metric, "value": rounded, "unit": unit, "against": against,
        })
    );
}

/// Says on standard output that a bench cannot run here, and why.
pub(crate) fn skipped(bench: &str, why: &str) {
    println!("skipped: {bench}: {why}");
}

/// The middle of them; 0 of none.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value below which that part of them lies; 0 of none.
pub(crate) fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a part of a length is a place in it"
    )]
    let at = (values.len() as f64 * part) as usize;
    values
        .get(at.min(values.len().saturating_sub(1)))
        .copied()
        .unwrap_or(0.0)
}

/// CPU time of this thread, softirqs that it runs included, in nanoseconds.
pub(crate) fn thread_cpu_ns() -> f64 {
    nanos(ClockId::ThreadCPUTime)
}

/// CLOCK_MONOTONIC in nanoseconds.
pub(crate) fn monotonic_ns() -> f64 {
    nanos(ClockId::Monotonic)
}

fn nanos(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// Whether the bench may make namespaces and load programs; says so if not.
pub(crate) fn is_root(bench: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skipped(bench, "needs root");
    }
    root
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

/// Network namespaces of this process, taken away at the end.
#[derive(Debug)]
pub(crate) struct Namespaces {
    names: Vec<String>,
}

impl Namespaces {
    /// Makes namespaces with loopback up and IPv6 off, so that nothing of its own crosses a veth.
    pub(crate) fn new(roles: &[&str]) -> Self {
        let mut made = Self { names: Vec::new() };
        for role in roles {
            let name = format!("rstscope-bench-{}-{role}", std::process::id());
            sh(&format!("ip netns add {name}"));
            made.names.push(name.clone());
            for scope in ["all", "default"] {
                sh(&format!(
                    "ip netns exec {name} sysctl -qw net.ipv6.conf.{scope}.disable_ipv6=1"
                ));
            }
            sh(&format!("ip -n {name} link set lo up"));
        }
        made
    }

    /// The name of the one made at that place.
    pub(crate) fn name(&self, at: usize) -> &str {
        self.names.get(at).expect("it was asked for")
    }

    /// A veth pair between the first two, up, with an address each (10.N.0.1 and 10.N.0.2) and
    /// real checksums, since AF_XDP forgets that one was only promised.
    pub(crate) fn cable(&self, number: u8, queues: u32) {
        let (a, b) = (self.name(0), self.name(1));
        sh(&format!(
            "ip link add cl{number} netns {a} numtxqueues {queues} numrxqueues {queues} type veth \
             peer name sv{number} netns {b} numtxqueues {queues} numrxqueues {queues}"
        ));
        for (namespace, link, host) in [(a, "cl", 1), (b, "sv", 2)] {
            sh(&format!(
                "ip netns exec {namespace} ethtool -K {link}{number} tx off tso off gso off gro off"
            ));
            sh(&format!(
                "ip -n {namespace} address add 10.{number}.0.{host}/24 dev {link}{number}"
            ));
            sh(&format!("ip -n {namespace} link set {link}{number} up"));
        }
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

/// Runs `body` in a thread of namespace `name`.
pub(crate) fn inside<T: Send>(name: &str, body: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        scope
            .spawn(|| {
                let link = File::open(format!("/run/netns/{name}")).expect("it is there");
                move_into_link_name_space(link.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("root may enter it");
                body()
            })
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Compiles a BPF program of the benches with clang, and loads it.
pub(crate) fn load(source: &str) -> Object {
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(source);
    let object = std::env::temp_dir().join(format!("rstscope-bench-{}.o", std::process::id()));
    let status = Command::new("clang")
        .args(["-O2", "-g", "-target", "bpf", "-mcpu=v3", "-c"])
        .arg(&source)
        .arg("-o")
        .arg(&object)
        .status()
        .expect("clang is installed");
    assert!(status.success(), "{} does not compile", source.display());
    let loaded = ObjectBuilder::default()
        .open_file(&object)
        .and_then(libbpf_rs::OpenObject::load)
        .expect("the kernel takes it");
    let _ = std::fs::remove_file(object);
    loaded
}

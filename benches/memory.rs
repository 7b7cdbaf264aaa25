//! What the sensor holds in memory while nothing comes in: resident set of the built binary with default
//! tables, and of the same with hardly any flow table, both without frame memory.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench that panics has failed, as it should"
)]

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rstscope::sys::UmemLayout;
use support::{Namespaces, is_root, report};

/// Long enough for every timer of a sensor to have run once (the longest is coverage's, 10 s).
const IDLE: Duration = Duration::from_secs(12);

/// Bytes that a sensor on one queue has resident, with that many flows.
fn resident(namespace: &str, flows: u32) -> f64 {
    let mut child = Command::new("ip")
        .args(["netns", "exec", namespace])
        .arg(env!("CARGO_BIN_EXE_rstscope"))
        .args(["run", "--iface", "sv45", "--output", "file:///dev/null"])
        .args(["--flows", &flows.to_string()])
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(child.stderr.take().expect("its words")).lines();
    let ready = lines
        .by_ref()
        .any(|line| line.is_ok_and(|line| line.contains("ready")));
    assert!(ready, "the sensor did not start");
    thread::spawn(move || lines.for_each(drop));
    thread::sleep(IDLE);
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).expect("it lives");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    let kib: f64 = kib.expect("a number").parse().expect("a number");
    if let Some(pid) = rustix::process::Pid::from_raw(child.id().cast_signed()) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
    }
    let _ = child.wait();
    kib * 1024.0
}

fn main() {
    if !is_root("memory") {
        return;
    }
    let network = Namespaces::new(&["memory-a", "memory-b"]);
    network.cable(45, 1);
    // As many flows as by default, and as few as there may be: what lies between is the flow table.
    let [default, least] = [65_536, 64].map(|flows| resident(network.name(1), flows));
    let layout = UmemLayout::default();
    let umem = f64::from(layout.frame_count) * f64::from(layout.frame_bytes);
    let million = |bytes: f64| bytes / 1e6;
    report("memory", "idle", million(default), "MB resident", "");
    report("memory", "umem", million(umem), "MB", "");
    report("memory", "flow_table", million(default - least), "MB", "");
    report(
        "memory",
        "beside_both",
        million(least - umem),
        "MB",
        "<= 64",
    );
}

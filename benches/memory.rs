//! What the sensor holds in memory while nothing comes in: resident set of the built binary with default
//! tables, and of the same with hardly any flow table, both without frame memory. And how long it takes to be
//! ready with the largest table that there is.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench that panics has failed, as it should"
)]

#[path = "support/program.rs"]
mod program;
mod support;

use std::fs;
use std::thread;
use std::time::Duration;

use program::Program;
use rstscope::sys::UmemLayout;
use support::{Namespaces, is_root, median, monotonic_ns, report};

/// Long enough for every timer of a sensor to have run once (the longest is coverage's, 10 s).
const IDLE: Duration = Duration::from_secs(12);

/// Bytes that a sensor on one queue has resident, with that many flows.
fn resident(namespace: &str, flows: u32) -> f64 {
    let flows = flows.to_string();
    let arguments = ["--output", "file:///dev/null", "--flows", &flows];
    let sensor = Program::start(namespace, "sv45", &arguments);
    thread::sleep(IDLE);
    let status = fs::read_to_string(format!("/proc/{}/status", sensor.id())).expect("it lives");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    let kib: f64 = kib.expect("a number").parse().expect("a number");
    kib * 1024.0
}

/// Flows of each family in the largest table (`--flows`).
const FLOWS_MAX: &str = "16777216";
/// Starts with it, and with the default.
const STARTS: usize = 5;

/// Milliseconds from the start of the program until it says that it is ready.
fn start(namespace: &str, more: &[&str]) -> f64 {
    let mut arguments = vec!["--output", "file:///dev/null"];
    arguments.extend(more);
    let began = monotonic_ns();
    let sensor = Program::start(namespace, "sv45", &arguments);
    let spent = (monotonic_ns() - began) / 1e6;
    drop(sensor);
    spent
}

fn starts(namespace: &str) {
    let (mut usual, mut large) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        usual.push(start(namespace, &[]));
        large.push(start(namespace, &["--flows", FLOWS_MAX]));
    }
    report("memory", "start", median(&mut usual), "ms", "");
    let large = median(&mut large);
    report("memory", "start_16m_flows", large, "ms", "<= 2000");
}

fn main() {
    if !is_root("memory") {
        return;
    }
    let network = Namespaces::new(&["memory-a", "memory-b"]);
    network.cable(45, 1);
    // As many flows as by default, and as few as there may be: what lies between is the flow table.
    let [default, least] = [65_536, 64].map(|flows| resident(network.name(1), flows));
    starts(network.name(1));
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

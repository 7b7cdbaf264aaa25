//! What the sensor holds in memory while nothing comes in: resident set of the built binary with default
//! tables, and of the same with hardly any flow table, both without frame memory.

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
use support::{Namespaces, is_root, report};

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

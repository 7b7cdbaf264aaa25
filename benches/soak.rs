//! The soak: floods of every kind, one after the other, for as many frames as fit in a time, through the
//! built binary in the lab; with flat memory and a balanced ledger, or it fails. Needs root.
//!
//!     cargo bench --bench soak            10⁸ frames, or as many as fit in five minutes
//!
//! `RSTSCOPE_SOAK_SECONDS` and `RSTSCOPE_SOAK_FRAMES` set both. Prints one JSON object a metric. How many
//! frames a second it were is a word on the machine and on this sender, not on the sensor.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench may panic, prints what it measured, and goes by the clock"
)]

#[path = "../tests/support/blast.rs"]
mod blast;
#[path = "../tests/lab/mod.rs"]
mod lab;
#[path = "../tests/faults/traffic.rs"]
mod traffic;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use serde_json::json;

use blast::{ACK, FIN, FROM_THE_ROUTER, Flood, RST, blast};
use lab::{Lab, Rate, Sensor, resident_kib};
use traffic::{assert_ledgers, count, ledger};

/// Frames of one kind in a row: some seconds, so that every kind comes often.
const SLICE: u64 = 250_000;

/// Memory that may come to be used after the first tenth: the allocator's slack.
const GROWTH_KIB_MAX: u64 = 16 * 1024;

fn setting(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |value| value.parse().expect(name))
}

/// What a host on the internet is sent: SYNs to an open and to closed ports, the end of connections that
/// it never had, resets of such, data that is none of the sensor's business, a sweep.
fn plans() -> [(&'static str, Flood); 6] {
    let to_any = Flood {
        target_port: 0,
        ..FROM_THE_ROUTER
    };
    let with = |flags| Flood { flags, ..to_any };
    let sweep = Flood {
        source: Some(Ipv4Addr::new(10, 77, 1, 2)),
        ..with(RST)
    };
    [
        ("SYN to a service", FROM_THE_ROUTER),
        ("SYN to any port", to_any),
        ("FIN of nothing", with(FIN | ACK)),
        ("RST of nothing", with(RST | ACK)),
        ("ACK of nothing", with(ACK)),
        ("RST in one client's name", sweep),
    ]
}

fn say(metric: &str, value: f64, unit: &str, against: &str) {
    println!(
        "{}",
        json!({"bench": "soak", "metric": metric, "value": value, "unit": unit, "against": against})
    );
}

/// What was sent, and what became of it.
#[derive(Default)]
struct Soaked {
    sent: u64,
    refused: u64,
    /// Requests of real clients meanwhile.
    succeeded: u32,
    made: u32,
    /// The sensor's memory at the start and after each slice, in KiB.
    resident: Vec<u64>,
    /// How many of these belong to the first tenth.
    warm: usize,
    seconds: f64,
    /// Connections that the sensor remembered when it was over.
    flows: u64,
}

/// Floods of all kinds in turn, until `wanted` frames are sent or `seconds` are over.
fn soak(lab: &Lab, sensor: &Sensor, wanted: u64, seconds: u64) -> Soaked {
    let namespace = format!("{}rt", lab.prefix);
    let begun = Instant::now();
    let end = begun + Duration::from_secs(seconds);
    let mut soaked = Soaked {
        resident: vec![resident_kib(sensor)],
        ..Soaked::default()
    };
    for (name, plan) in plans().iter().cycle() {
        if soaked.sent >= wanted || Instant::now() >= end {
            break;
        }
        let requests = lab.requests(20);
        let frames = SLICE.min(wanted - soaked.sent);
        let goes_on = |_| Instant::now() < end;
        let slice = blast(&namespace, "p-lb", plan, frames, Duration::ZERO, goes_on);
        soaked.sent += slice.frames;
        soaked.refused += slice.refused;
        let rate = Rate::of(requests);
        soaked.succeeded += rate.succeeded;
        soaked.made += rate.made;
        let kib = resident_kib(sensor);
        soaked.resident.push(kib);
        // A tenth of what it will be, whether frames or time end it.
        if soaked.sent <= wanted / 10 && begun.elapsed() < Duration::from_secs(seconds / 10) {
            soaked.warm = soaked.resident.len() - 1;
        }
        eprintln!(
            "{:>10} frames, {kib} KiB, {} flows, {:.0} a second: {name}",
            soaked.sent,
            lab.flows(),
            slice.frames as f64 / slice.seconds
        );
    }
    soaked.seconds = begun.elapsed().as_secs_f64();
    soaked.flows = lab.flows();
    soaked
}

/// Prints what the memory was, and insists that it did not grow.
fn judge_memory(resident: &[u64], warm: usize) {
    let (first, later) = resident.split_at(warm.min(resident.len() - 1));
    let before = first.last().or(later.first()).unwrap();
    let growth = later.iter().max().unwrap().saturating_sub(*before);
    for (when, kib) in [
        ("at the start", resident[0]),
        ("in the middle", resident[resident.len() / 2]),
        ("at the end", resident[resident.len() - 1]),
    ] {
        say(&format!("memory {when}"), kib as f64, "KiB", "");
    }
    let bound = format!("<= {GROWTH_KIB_MAX}");
    say("growth after a tenth", growth as f64, "KiB", &bound);
    assert!(growth <= GROWTH_KIB_MAX, "memory grew by {growth} KiB");
}

fn main() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: the soak needs root");
        return;
    }
    let seconds = setting("RSTSCOPE_SOAK_SECONDS", 300);
    let wanted = setting("RSTSCOPE_SOAK_FRAMES", 100_000_000);
    let lab = Lab::up();
    lab.answer_by_a_ring();
    let mut sensor = lab.sensor(&[]);
    let soaked = soak(&lab, &sensor, wanted, seconds);
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(sensor.stop(), Some(0), "{}", sensor.said());
    eprintln!("{}", sensor.said());
    let line = ledger(&sensor, "up0");
    let steered = count(&line, "redirected") + count(&line, "bypassed");
    let told_bytes = std::fs::metadata(lab.records_path()).unwrap().len();
    say("frames", soaked.sent as f64, "frames", "");
    say("duration", soaked.seconds, "s", "");
    say("refused by the wire", soaked.refused as f64, "frames", "");
    say("seen by steer", steered as f64, "SYN, FIN and RST", "");
    let lost = count(&line, "in the worker") + count(&line, "at the veth");
    let lost = lost + count(&line, "before the ring");
    say("lost to the host", lost as f64, "frames", "<= 0");
    say("flows remembered", soaked.flows as f64, "flows", "");
    say("records", told_bytes as f64 / 1e6, "MB", "");
    let share = f64::from(soaked.succeeded) / f64::from(soaked.made);
    say("handshakes that succeeded", share, "share", ">= 1");
    judge_memory(&soaked.resident, soaked.warm);
    assert_ledgers(&sensor, &["up0", "dn0"]);
    assert_eq!(soaked.succeeded, soaked.made, "handshakes failed");
}

//! What a flood may cost: neither memory nor verdicts nor handshakes nor frames; and how often a sensor that
//! has nothing to do wakes up. The built binary, inline, in the lab of `scripts/lab`, under floods that
//! `tests/support/blast.rs` sends. Needs root. How fast it is under them is not this file's business.
//!
//! `RSTSCOPE_FLOOD=10000000` sets the frames of each flood (1,000,000).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test may panic, prints what it measured, and waits by the clock"
)]

#[path = "support/blast.rs"]
mod blast;
mod lab;
#[path = "faults/traffic.rs"]
mod traffic;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Lines, Write};
use std::net::Ipv4Addr;
use std::process::{Child, ChildStdout, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use blast::{ACK, FROM_THE_ROUTER, Flood, RST, Sent, blast};
use lab::records::{assert_kept, records, resets};
use lab::{Lab, Rate, Sensor, resident_kib};
use traffic::{assert_all, assert_ends_well, assert_prompt, count, ledger};

/// Memory that may come to be used during a flood: what the engine holds for the strays and answers that
/// are told one by one, and the allocator's slack. Far below a byte a frame.
const GROWTH_KIB_MAX: u64 = 16 * 1024;

/// Between bursts: the peers of the flood are alive too, and share the machine with it.
const REST: Duration = Duration::from_millis(1);

fn frames() -> u64 {
    match std::env::var("RSTSCOPE_FLOOD") {
        Ok(number) => number.parse().expect("RSTSCOPE_FLOOD is a number"),
        Err(_) => 1_000_000,
    }
}

/// `flood.py`: connections that live meanwhile.
struct Lives {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// Client and service of a connection on which nothing is forged.
    client: (Ipv4Addr, u16),
    service: (Ipv4Addr, u16),
}

impl Lives {
    fn begin(lab: &Lab, connections: u32, forge: u32) -> Self {
        let words = ["--connections", &connections.to_string(), "--forge"];
        let mut child = lab
            .python("flood.py", &words)
            .arg(forge.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.next().expect("no word of flood.py").unwrap();
        let words: Vec<&str> = ready.split(' ').collect();
        let end = |at: usize| (words[at].parse().unwrap(), words[at + 1].parse().unwrap());
        let (client, service) = (end(1), end(3));
        Self {
            child,
            lines,
            client,
            service,
        }
    }

    /// Forges the next reset; at last, asks for the end.
    fn next(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    fn promises(mut self) -> Vec<Value> {
        self.next();
        let promises = self
            .lines
            .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
            .collect();
        assert!(self.child.wait().unwrap().success(), "a connection died");
        promises
    }
}

/// What a flood was like.
struct Flooded {
    sent: Sent,
    /// Requests of real clients meanwhile.
    rate: Rate,
    /// What the sensor's memory grew by after the first fifth.
    growth_kib: u64,
}

/// A flood; resets are forged on `lives` at even distances behind its first fifth.
fn flood(
    lab: &Lab,
    sensor: &Sensor,
    lives: &mut Lives,
    forge: u64,
    plan: &Flood,
    total: u64,
) -> Flooded {
    let namespace = format!("{}rt", lab.prefix);
    let (mut forged, mut before) = (0, 0);
    let requests = lab.requests(200);
    let sent = blast(&namespace, "p-lb", plan, total, REST, |sent| {
        if sent >= total / 5 && before == 0 {
            before = resident_kib(sensor);
        }
        while forged < forge && sent >= total / 5 + forged * (total / 2) / forge {
            lives.next();
            forged += 1;
        }
        true
    });
    let growth_kib = resident_kib(sensor).saturating_sub(before);
    println!(
        "{} frames in {:.1} s ({:.0} a second), {} of them refused by the wire; the sensor grew by \
         {growth_kib} KiB",
        sent.frames,
        sent.seconds,
        sent.frames as f64 / sent.seconds,
        sent.refused,
    );
    assert_eq!((sent.frames, forged), (total, forge));
    Flooded {
        sent,
        rate: Rate::of(requests),
        growth_kib,
    }
}

/// What `steer` saw of the flood.
fn offered(line: &str) -> u64 {
    count(line, "redirected") + count(line, "bypassed")
}

#[test]
#[ignore = "needs root"]
fn a_flood_of_syns_costs_no_verdict_no_memory_and_no_handshake() {
    let lab = Lab::up();
    lab.answer_by_a_ring();
    let mut sensor = lab.sensor(&[]);
    let mut lives = Lives::begin(&lab, 200, 50);
    let flooded = flood(&lab, &sensor, &mut lives, 50, &FROM_THE_ROUTER, frames());
    assert_all("during the flood", flooded.rate);
    let promises = lives.promises();
    assert_eq!(promises.len(), 50);
    lab.assert_traffic_flows();
    thread::sleep(Duration::from_millis(1500));
    assert_ends_well(&mut sensor, &["up0", "dn0"]);
    let line = ledger(&sensor, "up0");
    println!("{line}");
    assert!(
        offered(&line) >= flooded.sent.frames - flooded.sent.refused,
        "{line}"
    );
    let all = records(&lab.records_path());
    assert_kept(&promises, &resets(&all));
    assert!(
        flooded.growth_kib <= GROWTH_KIB_MAX,
        "{} KiB",
        flooded.growth_kib
    );
}

#[test]
#[ignore = "needs root"]
fn a_storm_of_resets_is_a_few_records_and_no_frame_is_lost() {
    let lab = Lab::up();
    lab.answer_by_a_ring();
    let mut sensor = lab.sensor(&[]);
    let mut lives = Lives::begin(&lab, 50, 20);
    let (client, service) = (lives.client, lives.service);
    // Backscatter from everywhere; a sweep over the ports of one client; guesses at one connection.
    let storm = Flood {
        flags: RST | ACK,
        target_port: 0,
        ..FROM_THE_ROUTER
    };
    let sweep = Flood {
        flags: RST,
        source: Some(client.0),
        target_port: service.1,
        ..storm
    };
    let guesses = Flood {
        source_port: client.1,
        ..sweep
    };
    let mut sent = 0;
    for (plan, share, forge) in [(storm, 7, 10), (sweep, 2, 4), (guesses, 1, 6)] {
        let total = frames() / 10 * share;
        let flooded = flood(&lab, &sensor, &mut lives, forge, &plan, total);
        assert_all("during the storm", flooded.rate);
        assert!(
            flooded.growth_kib <= GROWTH_KIB_MAX,
            "{} KiB",
            flooded.growth_kib
        );
        sent += flooded.sent.frames - flooded.sent.refused;
    }
    let promises = lives.promises();
    thread::sleep(Duration::from_millis(1500));
    assert_ends_well(&mut sensor, &["up0", "dn0"]);
    let line = ledger(&sensor, "up0");
    println!("{line}");
    assert!(offered(&line) >= sent, "{line}");
    let all = records(&lab.records_path());
    let resets = resets(&all);
    assert_kept(&promises, &resets);
    assert_told(&all, &resets, sent);
}

/// The records are few, and together with what was counted as lost they tell of every reset.
fn assert_told(all: &[Value], resets: &[&Value], sent: u64) {
    let number = |value: &Value| value.as_u64().unwrap();
    let told: u64 = resets
        .iter()
        .map(|record| number(&record["rstscope"]["reset_count"]))
        .sum();
    let of_many = resets
        .iter()
        .filter(|record| record["rstscope"]["aggregate"].is_object())
        .count();
    let lost: u64 = all
        .iter()
        .filter(|record| record["event"]["dataset"] == "rstscope.coverage")
        .filter(|record| record["observer"]["ingress"]["interface"]["name"] == "up0")
        .map(|record| number(&record["rstscope"]["coverage"]["lost"]))
        .sum();
    println!(
        "{sent} resets sent: {told} told in {} records, {of_many} of them of many; {lost} lost to the \
         sensor",
        resets.len()
    );
    assert!((1..40).contains(&of_many), "{of_many} records of many");
    // 50 a second of the one network and then some; a minute at the longest.
    assert!(resets.len() < 4_000, "{} records", resets.len());
    assert!(told + lost >= sent, "{} are not told", sent - told - lost);
}

/// How often each thread of the sensor has slept and woken so far, by name.
fn wakes(sensor: &Sensor) -> BTreeMap<String, u64> {
    let tasks = fs::read_dir(format!("/proc/{}/task", sensor.child.id())).unwrap();
    tasks
        .map(|task| {
            let path = task.unwrap().path();
            let name = fs::read_to_string(path.join("comm")).unwrap();
            let status = fs::read_to_string(path.join("status")).unwrap();
            let line = |line: &&str| line.starts_with("voluntary_ctxt_switches");
            let count = status.lines().find(line).unwrap().split_whitespace();
            (
                name.trim().to_owned(),
                count.last().unwrap().parse().unwrap(),
            )
        })
        .collect()
}

/// What a core that has nothing to do pays for the sensor are wake-ups, of some 30 us each: 340 a second are a
/// hundredth of it. A worker beats each 12 ms then, the engine looks each 50, the watch each 100.
#[test]
#[ignore = "needs root"]
fn a_sensor_with_nothing_to_do_wakes_seldom_and_is_there_when_something_comes() {
    let lab = Lab::up();
    let mut sensor = lab.sensor(&[]);
    assert_prompt("before", lab.rate(100));
    // A second until the workers rest longer; connections of the requests close meanwhile.
    thread::sleep(Duration::from_secs(3));
    let watched = Duration::from_secs(4);
    let before = wakes(&sensor);
    thread::sleep(watched);
    let mut sum = 0;
    for (name, after) in wakes(&sensor) {
        let a_second = (after - before.get(&name).copied().unwrap_or_default()) / watched.as_secs();
        println!("{name}: {a_second} wakes a second");
        let most = match name.as_str() {
            // A second worker's frames, or a neighbor's ARP, may wake one now and then.
            name if name.starts_with("rst-up") || name.starts_with("rst-dn") => 95,
            "rst-engine" => 30,
            _ => 20,
        };
        assert!(a_second <= most, "{name} wakes {a_second} times a second");
        sum += a_second;
    }
    println!("all threads: {sum} wakes a second");
    assert_prompt("after it was idle", lab.rate(100));
    assert_ends_well(&mut sensor, &["up0", "dn0"]);
    assert!(count(&ledger(&sensor, "up0"), "received") > 0);
}

//! The process: killed, stopped, stuttering, one of its threads hanging, started and stopped many
//! times.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::traffic::{
    assert_all, assert_ends_well, assert_ledgers, assert_prompt, count, during, ledger,
};
use crate::lab::records::{assert_kept, promises, records, resets};
use crate::lab::{Lab, Rate, command, first_line};

/// More than the heartbeat limit (20 ms) and the clock tick that it is measured by.
const PAST_HEARTBEAT: Duration = Duration::from_millis(60);

/// A thread that a debugger holds; it goes on when this is dropped.
struct Held(Child);

impl Held {
    fn thread(process: u32, name: &str) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/hang.py");
        let mut child = command("/usr/bin/python3", &[script, &process.to_string(), name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let line = first_line(&mut child);
        assert_eq!(line, "held\n", "the thread could not be held");
        Self(child)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "needs root"]
fn kill_9_costs_no_connection_and_the_next_start_cleans_up() {
    let lab = Lab::up();
    let state = lab.state();
    let mut sensor = lab.sensor(&[]);
    assert_prompt("before SIGKILL", lab.rate(200));
    let (rate, ()) = during(&lab, 1500, || sensor.signal("KILL"));
    assert_eq!(sensor.end(), None);
    assert_all("SIGKILL", rate);
    assert_prompt("after SIGKILL", lab.rate(200));
    let mut sensor = lab.sensor(&[]);
    assert_prompt("after the next start", lab.rate(200));
    assert_ends_well(&mut sensor, &["up0", "dn0"]);
    assert_eq!(lab.state(), state, "the crash left something behind");
}

#[test]
#[ignore = "needs root"]
fn a_stopped_process_costs_no_connection_after_the_heartbeat_limit() {
    let lab = Lab::up();
    let mut sensor = lab.sensor(&[]);
    assert_prompt("before SIGSTOP", lab.rate(200));
    let (rate, ()) = during(&lab, 1500, || sensor.signal("STOP"));
    assert_all("SIGSTOP", rate);
    thread::sleep(PAST_HEARTBEAT);
    assert_prompt("stopped for longer than the heartbeat limit", lab.rate(500));
    let (rate, ()) = during(&lab, 500, || sensor.signal("CONT"));
    assert_all("SIGCONT", rate);
    assert_prompt("after SIGCONT", lab.rate(200));
    assert_ends_well(&mut sensor, &["up0", "dn0"]);
}

/// By workers, who can be asked only when the process goes on; their threads may do so a moment later than the engine's.
#[test]
#[ignore = "needs root"]
fn what_came_while_the_process_was_stopped_is_judged_by_what_was_known_before() {
    let lab = Lab::up();
    let mut sensor = lab.sensor(&[]);
    // Connections that begin here, and are reset when it says so.
    let mut words = vec!["--both", "--hold", "--run"];
    words.extend(["older_forged_then_silent"; 4]);
    let mut play = lab
        .python("scenarios.py", &words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(play.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "held\n");
    thread::sleep(Duration::from_millis(300));
    let worker = Held::thread(sensor.child.id(), "rst-up0-0");
    let engine = Held::thread(sensor.child.id(), "rst-engine");
    thread::sleep(PAST_HEARTBEAT);
    play.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let mut told = Vec::new();
    said.read_to_end(&mut told).unwrap();
    assert!(play.wait().unwrap().success(), "the lab broke a promise");
    // Longer than a record settles.
    thread::sleep(Duration::from_secs(2));
    drop(engine);
    thread::sleep(PAST_HEARTBEAT);
    drop(worker);
    thread::sleep(Duration::from_secs(1));
    assert_eq!(sensor.stop(), Some(0), "{}", sensor.said());
    let promises = promises(&told);
    assert_eq!(promises.len(), 8);
    let all = records(&lab.records_path());
    assert_kept(&promises, &resets(&all));
}

#[test]
#[ignore = "needs root"]
fn one_worker_that_hangs_costs_no_connection_after_the_heartbeat_limit() {
    let lab = Lab::up();
    let mut sensor = lab.sensor(&[]);
    assert_prompt("before the hang", lab.rate(200));
    let (rate, held) = during(&lab, 500, || Held::thread(sensor.child.id(), "rst-up0-0"));
    assert_all("a worker hangs", rate);
    thread::sleep(PAST_HEARTBEAT);
    assert_prompt(
        "a worker has hung for longer than the heartbeat limit",
        lab.rate(500),
    );
    drop(held);
    thread::sleep(Duration::from_millis(100));
    assert_prompt("after the hang", lab.rate(200));
    assert_ends_well(&mut sensor, &["up0", "dn0"]);
    let line = ledger(&sensor, "up0");
    assert!(
        count(&line, "bypassed") >= 500,
        "it was not bypassed: {line}"
    );
}

#[test]
#[ignore = "needs root"]
fn the_engine_that_hangs_costs_no_connection() {
    let lab = Lab::up();
    let mut sensor = lab.sensor(&[]);
    assert_prompt("before the hang", lab.rate(200));
    let (rate, held) = during(&lab, 300, || Held::thread(sensor.child.id(), "rst-engine"));
    assert_prompt("the engine hangs", rate);
    drop(held);
    assert_prompt("after the hang", lab.rate(200));
    assert_ends_well(&mut sensor, &["up0", "dn0"]);
}

/// A consumer that gets the CPU for a while and then not, as on a host that has none to spare.
#[test]
#[ignore = "needs root"]
fn a_slow_consumer_costs_no_connection_and_no_frame() {
    let lab = Lab::up();
    let mut sensor = lab.sensor(&[]);
    assert_prompt("before", lab.rate(200));
    let requests = [lab.requests(400), lab.requests(400), lab.requests(400)];
    let end = Instant::now() + Duration::from_secs(4);
    while Instant::now() < end {
        sensor.signal("STOP");
        thread::sleep(Duration::from_millis(35));
        sensor.signal("CONT");
        thread::sleep(Duration::from_millis(5));
    }
    for requests in requests {
        assert_all("a slow consumer", Rate::of(requests));
    }
    assert_prompt("after", lab.rate(200));
    assert_ends_well(&mut sensor, &["up0", "dn0"]);
    for interface in ["up0", "dn0"] {
        let line = ledger(&sensor, interface);
        assert!(
            count(&line, "bypassed") > 0,
            "it was never too slow: {line}"
        );
        assert!(count(&line, "received") > 0, "it never worked: {line}");
        assert_eq!(count(&line, "before the ring"), 0, "{line}");
    }
}

/// 20 in every run of the tests; `RSTSCOPE_STARTS=500` for as many as one likes.
#[test]
#[ignore = "needs root"]
fn many_starts_and_stops_under_load_cost_no_connection() {
    let starts: u32 = std::env::var("RSTSCOPE_STARTS").map_or(20, |text| text.parse().unwrap());
    let lab = Lab::up();
    let state = lab.state();
    let (mut succeeded, mut made, mut slowest_ms, mut syns_again) = (0, 0, 0, 0);
    for number in 0..starts {
        let requests = lab.requests(150);
        let mut sensor = lab.sensor(&["--flows", "1024"]);
        assert_eq!(sensor.stop(), Some(0), "start {number}: {}", sensor.said());
        assert_ledgers(&sensor, &["up0", "dn0"]);
        let rate = Rate::of(requests);
        assert_eq!(rate.succeeded, rate.made, "start {number}: {}", rate.said);
        succeeded += rate.succeeded;
        made += rate.made;
        slowest_ms = slowest_ms.max(rate.slowest_ms);
        syns_again += rate.syns_again;
    }
    let all = Rate {
        succeeded,
        made,
        slowest_ms,
        syns_again,
        said: String::new(),
    };
    assert_all(&format!("{starts} starts and stops"), all);
    assert_eq!(lab.state(), state, "something was left behind");
}

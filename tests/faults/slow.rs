//! The slowest receivers, and no room for what waits for them: connections notice nothing of it.

use std::process::Child;

use super::output::on_a_disk_of;
use super::traffic::{assert_all, assert_ledgers, count, during, ledger};
use crate::lab::{Lab, Rate, Sensor, text};

/// Accepts everybody at two ports, with the smallest buffer that there is, and reads a byte a second.
const SLOW: &str = "import socket, threading, time\n\
    def read(peer):\n\
    \x20   while peer.recv(1): time.sleep(1)\n\
    def serve(port):\n\
    \x20   s = socket.socket()\n\
    \x20   s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n\
    \x20   s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)\n\
    \x20   s.bind(('127.0.0.1', port))\n\
    \x20   s.listen()\n\
    \x20   while True: threading.Thread(target=read, args=(s.accept()[0],)).start()\n\
    threading.Thread(target=serve, args=(8997,)).start()\n\
    serve(8998)\n";

/// Connects to the proxy, one after the other; prints the median in microseconds. On one CPU: elsewhere the median
/// is 45 or 110 by whether an idle one has to be woken, whatever the outputs do.
const CONNECTS: &str = "import os, socket, statistics, time\n\
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n\
    took = []\n\
    for _ in range(300):\n\
    \x20   with socket.socket() as s:\n\
    \x20       begun = time.monotonic()\n\
    \x20       s.connect(('10.77.2.2', 8080))\n\
    \x20       took.append(time.monotonic() - begun)\n\
    print(statistics.median(took) * 1e6)\n";

/// How much slower the median connect() may be beside such receivers. What is looked for are threads that
/// wait for a receiver or a disk, which are milliseconds; the median on a busy machine swings by half.
const SLOWER_MAX: f64 = 2.0;

/// Rounds of both, at least, and at most: where other work on the machine came in between in all of them,
/// the least medians of both need more to be comparable. A sensor that waits is slower in each round.
const ROUNDS: std::ops::RangeInclusive<u32> = 2..=5;

/// Microseconds of a connect() while records are made, the least median of some.
fn connects(lab: &Lab) -> f64 {
    let medians = (0..3).map(|_| {
        let aborts = ["--run", "client_abort", "--repeat", "15"];
        let mut aborts = lab.python("scenarios.py", &aborts);
        let mut aborts = aborts.stdout(std::process::Stdio::null()).spawn().unwrap();
        let mut measured = lab.exec("cl", &["/usr/bin/python3", "-c", CONNECTS]);
        let said = measured.output().unwrap();
        assert!(aborts.wait().unwrap().success());
        text(&said.stdout).trim().parse::<f64>().unwrap()
    });
    medians.fold(f64::MAX, f64::min)
}

struct Receivers(Child);

impl Drop for Receivers {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A sensor whose spools and file are on a disk of 64 KiB, and whose receivers read a byte a second.
fn beside_slow_receivers(lab: &Lab) -> Sensor {
    let receivers = "--output http://127.0.0.1:8998/ --output syslog+tcp://127.0.0.1:8997";
    on_a_disk_of("64k", lab, receivers)
}

#[test]
#[ignore = "needs root"]
fn the_slowest_receivers_and_a_full_spool_cost_no_connection_and_no_time() {
    let lab = Lab::up();
    let slow = lab.exec("lb", &["/usr/bin/python3", "-c", SLOW]).spawn();
    let _receivers = Receivers(slow.unwrap());
    let (mut without, mut with) = (f64::MAX, f64::MAX);
    for round in 1..=*ROUNDS.end() {
        let mut sensor = lab.start(&["--settle", "0", "--output", "file:///dev/null"]);
        assert!(sensor.await_line("rstscope: ready"), "{}", sensor.said());
        let (rate, median) = during(&lab, 300, || connects(&lab));
        without = without.min(median);
        assert_all("no receivers", rate);
        assert_eq!(sensor.stop(), Some(0), "{}", sensor.said());

        let mut sensor = beside_slow_receivers(&lab);
        assert!(sensor.await_line("rstscope: ready"), "{}", sensor.said());
        let (rate, median) = during(&lab, 300, || connects(&lab));
        with = with.min(median);
        assert_all("slow receivers", rate);
        assert!(
            sensor.await_line("cannot be written to"),
            "the spool is not full: {}",
            sensor.said()
        );
        assert_all("the spool is full", Rate::of(lab.requests(200)));
        // What had no room is lost, and that is told; frames are not.
        assert_eq!(sensor.stop(), Some(1), "{}", sensor.said());
        assert_ledgers(&sensor, &["up0", "dn0"]);
        let line = ledger(&sensor, "up0");
        assert!(count(&line, "received") > 1000, "beside the sensor: {line}");
        if round >= *ROUNDS.start() && with <= SLOWER_MAX * without {
            break;
        }
    }
    println!("connect(): {without:.0} µs without, {with:.0} µs beside slow receivers");
    assert!(with <= SLOWER_MAX * without, "{with} µs, not {without} µs");
}

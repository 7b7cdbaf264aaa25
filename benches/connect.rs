//! connect() through the sensor against the same connect beside it, interleaved one by one; and
//! what the sensor costs while nothing flagged comes. The built binary between namespaces.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench that panics has failed, as it should"
)]

#[path = "support/program.rs"]
mod program;
#[path = "support/sensor.rs"]
mod sensor;
mod support;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use program::Program;
use rustix::thread::CpuSet;
use sensor::{threads_cpu_ns, threads_wakes};
use support::{Namespaces, inside, is_root, monotonic_ns, quantile, report};

/// Connections on each of the two ways.
const CONNECTIONS: usize = 4000;
/// Addresses beside the sensor and through it.
const BOTH: [[u8; 4]; 2] = [[10, 41, 0, 2], [10, 42, 0, 2]];
/// A port for each way of connecting. connect() prefers half of the local ports, 14,116 by default, and each is
/// taken for a minute; to one port alone, the last way would look through all of them each time, for milliseconds.
const PORTS: [u16; 4] = [80, 81, 82, 83];
/// How long the idle sensor is watched.
const IDLE: Duration = Duration::from_secs(10);

/// Microseconds of one connect(); the connection is closed before it returns.
fn connect(address: SocketAddr) -> f64 {
    let start = monotonic_ns();
    let stream = TcpStream::connect(address).expect("it connects");
    let spent = (monotonic_ns() - start) / 1e3;
    drop(stream);
    spent
}

/// A sensor at one of the two addresses, which writes its records to a file in this folder.
fn start(network: &Namespaces, folder: &std::path::Path) -> Program {
    std::fs::create_dir(folder).expect("a new folder");
    let output = format!("file://{}/records", folder.display());
    let spool = folder.join("spool").display().to_string();
    let words = ["--output", &output, "--spool", &spool];
    Program::start(network.name(1), "sv42", &words)
}

fn main() {
    if !is_root("connect") {
        return;
    }
    let network = Namespaces::new(&["conn-a", "conn-b"]);
    network.cable(41, 1);
    network.cable(42, 1);
    for address in BOTH {
        for port in PORTS {
            let listener = inside(network.name(1), || {
                TcpListener::bind(SocketAddr::from((address, port))).expect("free")
            });
            // Accepts for as long as the bench runs.
            thread::spawn(move || listener.incoming().for_each(drop));
        }
    }
    let folder = std::env::temp_dir().join(format!("rstscope-bench-{}", std::process::id()));
    let sensor = start(&network, &folder);
    // A pause lets the worker fall asleep: then every SYN has to wake it.
    // On a veth a frame is received by the CPU that sent it; a NIC's interrupt comes at its queue's CPU,
    // where the worker is (near). Free: wherever the scheduler puts the client.
    let cpus = rustix::thread::sched_getaffinity(None).expect("its CPUs");
    let at = |cpu: usize| {
        let mut set = CpuSet::new();
        set.set(cpu);
        set
    };
    let ways = [
        ("steady", Duration::ZERO, cpus),
        ("paused", Duration::from_micros(300), cpus),
        ("near", Duration::from_micros(300), at(0)),
        ("far", Duration::from_micros(300), at(1)),
    ];
    for ((name, pause, place), port) in ways.into_iter().zip(PORTS) {
        let (mut beside, mut through) = (Vec::new(), Vec::new());
        inside(network.name(0), || {
            rustix::thread::sched_setaffinity(None, &place).expect("its CPU");
            for _ in 0..CONNECTIONS {
                for (address, times) in BOTH.into_iter().zip([&mut beside, &mut through]) {
                    times.push(connect(SocketAddr::from((address, port))));
                    thread::sleep(pause);
                }
            }
        });
        for (part, label, against) in [(0.5, "p50", "<= 1.2"), (0.99, "p99", "<= 1.5")] {
            let (without, with) = (quantile(&mut beside, part), quantile(&mut through, part));
            let metric = |what: &str| format!("{name}_{label}_{what}");
            report("connect", &metric("beside"), without, "us", "");
            report("connect", &metric("through"), with, "us", "");
            report(
                "connect",
                &metric("ratio"),
                with / without,
                "ratio",
                against,
            );
        }
    }
    idle(sensor.id());
    drop(sensor);
    let _ = std::fs::remove_dir_all(folder);
}

/// What the sensor costs while nothing flagged comes, by thread.
fn idle(process: u32) {
    // A worker rests longer when no frame came for a second.
    thread::sleep(Duration::from_secs(2));
    // The main thread has the program's name; `ip netns exec` has become it.
    let threads = [
        ("worker", "rst-sv"),
        ("engine", "rst-engine"),
        ("all_threads", ""),
    ];
    let read = |name| (threads_cpu_ns(process, name), threads_wakes(process, name));
    let before = threads.map(|(_, name)| read(name));
    thread::sleep(IDLE);
    for ((label, name), (cpu_ns, wakes)) in threads.into_iter().zip(before) {
        let (cpu_now, wakes_now) = read(name);
        let share = (cpu_now - cpu_ns) / IDLE.as_nanos() as f64 * 100.0;
        let against = if name.is_empty() { "<= 1" } else { "" };
        report(
            "connect",
            &format!("idle_{label}"),
            share,
            "% of a CPU",
            against,
        );
        let often = (wakes_now - wakes) / IDLE.as_secs_f64();
        report(
            "connect",
            &format!("idle_wakes_{label}"),
            often,
            "a second",
            "",
        );
    }
}

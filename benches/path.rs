//! The data path between namespaces: CPU a frame of both ways back, two queues against one, and
//! eight million frames at more than the sensor can take, of which each must be accounted for.
//! Everything happens in namespaces of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench that panics has failed, as it should"
)]

#[path = "support/sensor.rs"]
mod sensor;
mod support;

use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use rstscope::events::{Config, Events, own_netns};
use rstscope::handback::{Live, Pair};
use rstscope::nic::Interface;
use rstscope::sys::BURST_FRAMES;
use sensor::{Generator, Sensor, bind_to_cpu_of, syn};
use support::{Namespaces, inside, is_root, median, monotonic_ns, report, sh, thread_cpu_ns};

/// Bursts of one round: some 20 ms.
const BURSTS: u32 = 256;
/// Interleaved rounds.
const ROUNDS: usize = 31;

/// Frames of the flood; another number by RSTSCOPE_BENCH_FRAMES.
const FLOOD: u32 = 8_000_000;

fn main() {
    if !is_root("path") {
        return;
    }
    handback();
    scaling();
    overload();
}

/// Drops everything that arrives at an interface, as late as the stack's first look at it.
fn sink(namespace: &str, interface: &str) {
    sh(&format!(
        "tc -n {namespace} qdisc add dev {interface} clsact"
    ));
    let filter = format!("-n {namespace} filter add dev {interface} ingress bpf da bytecode");
    let mut words: Vec<&str> = filter.split_whitespace().collect();
    // Direct action: the one instruction returns TC_ACT_SHOT.
    words.push("1,6 0 0 2");
    let status = std::process::Command::new("tc").args(words).status();
    assert!(status.expect("tc starts").success());
}

/// CPU of handing back alone, from the frame in user space to the interface's ingress.
fn handback() {
    let network = Namespaces::new(&["hand-a", "hand-b"]);
    network.cable(31, 1);
    sink(network.name(1), "sv31");
    inside(network.name(1), || {
        let nic = Interface::find("sv31").expect("it is there");
        let events = Events::open(Config::for_netns(own_netns().unwrap())).expect("events");
        let classifier = events.load_handback().expect("classifier");
        let mut pair = Pair::create(&nic.link, 1, classifier.as_fd()).expect("pair");
        let mut veth = Generator::open(&pair.names().transmit, 0);
        let counters = events.counters_fd();
        let live = Live::open(nic.ifindex(), pair.transmit_ifindex(), 1, counters).expect("live");
        let mut burst = live.take(0).expect("the burst");
        let frames: Vec<[u8; 54]> = (0..64).map(syn).collect();
        let per_frame = f64::from(BURSTS) * BURST_FRAMES as f64;
        let mut by_veth = Vec::new();
        let mut by_live = Vec::new();
        let handed_back = || events.host_counters().expect("counters").handed_back;
        let before = handed_back();
        for _ in 0..ROUNDS {
            let start = thread_cpu_ns();
            assert_eq!(veth.send(BURSTS * 64), BURSTS * 64);
            by_veth.push((thread_cpu_ns() - start) / per_frame);
            let start = thread_cpu_ns();
            for _ in 0..BURSTS {
                assert!(frames.iter().all(|frame| burst.put(frame)));
                burst.give().expect("a burst arrives");
            }
            by_live.push((thread_cpu_ns() - start) / per_frame);
        }
        let offered = 2 * ROUNDS as u64 * u64::from(BURSTS) * 64;
        let lost = pair.statistics().expect("counters");
        let missing = offered - lost.lost_crossing - (handed_back() - before);
        let (veth, live) = (median(&mut by_veth), median(&mut by_live));
        report("path", "handback_veth", veth, "ns CPU a frame", "<= 1300");
        report("path", "handback_live_64", live, "ns CPU a frame", "<= 800");
        report(
            "path",
            "handback_unaccounted",
            missing as f64,
            "frames",
            "<= 0",
        );
    });
}

/// How long the queues of one round of `scaling` are kept busy: some fifty slices of a scheduler, whose luck is
/// then out of it.
const SCALING_ROUND_NS: f64 = 200e6;
/// Interleaved rounds of `scaling`: as many on either CPU alone, and all of it in a minute.
const SCALING_ROUNDS: u32 = 24;
/// Frames that a generator sends before it looks at the clock: some 10 ms.
const FRAMES_A_LOOK: u32 = 4_096;

/// Frames a second that the workers received, without a sensor those that were sent. Each queue's
/// generator runs on the CPU of its worker, as a NIC's interrupts do: so one queue needs one CPU and two
/// need two, and no queue's frames are made at another's cost. The sensor has two queues and workers
/// whatever is sent.
fn frames_a_second(queues: Range<u32>, with_sensor: bool) -> f64 {
    let network = Namespaces::new(&["scale-a", "scale-b"]);
    network.cable(32, 2);
    sink(network.name(1), "sv32");
    inside(network.name(1), || {
        let sensor = with_sensor.then(|| Sensor::start("sv32", 2));
        let name = network.name(0);
        let start = Barrier::new(queues.len());
        let (sent, seconds) = thread::scope(|scope| {
            let senders: Vec<_> = queues
                .clone()
                .map(|queue| {
                    let start = &start;
                    scope.spawn(move || inside(name, || keep_sending(queue, start)))
                })
                .collect();
            let done = senders.into_iter().map(|sender| sender.join().unwrap());
            done.fold((0, 0.0), |(sent, seconds), (count, took)| {
                (sent + count, seconds + took / queues.len() as f64)
            })
        });
        let arrived = sensor.map_or(u64::from(sent), |sensor| {
            thread::sleep(Duration::from_millis(50));
            assert_balanced(sensor, u64::from(sent)).0
        });
        arrived as f64 / seconds
    })
}

/// Sends to one queue for a round; answers the frames that arrived and the seconds that it took.
fn keep_sending(queue: u32, start: &Barrier) -> (u32, f64) {
    bind_to_cpu_of(queue);
    let mut generator = Generator::open("cl32", queue);
    start.wait();
    let (start, mut sent) = (monotonic_ns(), 0);
    while monotonic_ns() - start < SCALING_ROUND_NS {
        sent += generator.send(FRAMES_A_LOOK);
    }
    (sent, (monotonic_ns() - start) / 1e9)
}

/// Two queues with a worker each against one, by the wall clock, on as many CPUs; and what the same two
/// CPUs make of the same frames without a sensor, which is what this machine has to give: less
/// than two where they are threads of one core or somebody else wants them.
fn scaling() {
    let (mut one, mut two) = (Vec::new(), Vec::new());
    let (mut bare_one, mut bare_two) = (Vec::new(), Vec::new());
    for round in 0..SCALING_ROUNDS {
        // In turn, since one of the two CPUs may have more else to do.
        let alone = round % 2;
        one.push(frames_a_second(alone..alone + 1, true));
        two.push(frames_a_second(0..2, true));
        bare_one.push(frames_a_second(alone..alone + 1, false));
        bare_two.push(frames_a_second(0..2, false));
    }
    let (one, two) = (median(&mut one), median(&mut two));
    report("path", "one_queue", one, "frames a second", "");
    report("path", "two_queues", two, "frames a second", "");
    report("path", "two_queues_by_one", two / one, "times", ">= 1.8");
    let bare = median(&mut bare_two) / median(&mut bare_one);
    report("path", "without_sensor", bare, "times", "two_queues_by_one");
}

/// Each frame that was offered was received or bypassed, and each received one is back.
fn assert_balanced(sensor: Sensor, offered: u64) -> (u64, u64, u64, u64) {
    let redirected = sensor.steered("redirected");
    let bypassed = sensor.bypassed();
    let (finished, handed_back, lost) = sensor.stop();
    let sum = |count: fn(&rstscope::worker::Counters) -> u64| -> u64 {
        finished.iter().map(|one| count(&one.counters)).sum()
    };
    let received = sum(|counters| counters.received);
    let ring_full = sum(|counters| counters.losses.ring_full + counters.losses.dropped);
    assert_eq!(received, redirected, "every redirected frame was received");
    assert_eq!(received + bypassed, offered, "every frame is accounted for");
    assert_eq!(sum(|counters| counters.handed_back), received);
    assert_eq!(handed_back + lost, received, "every received frame is back");
    assert!(
        finished
            .iter()
            .all(|one| one.balance.holds() && one.abandoned == 0)
    );
    (received, bypassed, ring_full, sum(|counters| counters.live))
}

fn overload() {
    let count = std::env::var("RSTSCOPE_BENCH_FRAMES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(FLOOD);
    let network = Namespaces::new(&["flood-a", "flood-b"]);
    network.cable(33, 1);
    sink(network.name(1), "sv33");
    inside(network.name(1), || {
        let sensor = Sensor::start("sv33", 1);
        let count = inside(network.name(0), || Generator::open("cl33", 0).send(count));
        thread::sleep(Duration::from_millis(200));
        let (received, bypassed, ring_full, live) = assert_balanced(sensor, u64::from(count));
        let offered = f64::from(count);
        report("path", "flood_offered", offered, "frames", "");
        report("path", "flood_received", received as f64, "frames", "");
        report("path", "flood_bypassed", bypassed as f64, "frames", "");
        report("path", "flood_live", live as f64, "frames", "");
        let missing = offered - received as f64 - bypassed as f64;
        report("path", "flood_unaccounted", missing, "frames", "<= 0");
        report(
            "path",
            "flood_ring_full",
            ring_full as f64,
            "frames",
            "<= 0",
        );
    });
}

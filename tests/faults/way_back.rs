//! The way back to the host: the hand-back veth down, stuck, or deleted. (Against real rings, with
//! every counter: tests/frames.rs.)

use std::thread;
use std::time::Duration;

use super::coverage::coverage;
use super::traffic::{assert_all, assert_ends_well, assert_prompt, count, during, ledger};
use crate::lab::{Lab, Sensor};

/// Longer than a worker takes to notice and to close its gate.
const NOTICED: Duration = Duration::from_millis(400);

/// Rounds of twenty requests until a program that keeps their frames is noticed: the first SYN that it keeps costs
/// its round a second, and the sensor looks each second.
const MORE_REQUESTS_MAX: usize = 10;

fn link(lab: &Lab, words: &str) {
    let done = lab.shell("lb", &format!("ip link {words} 2>&1"));
    assert_eq!(done, "", "ip link {words}");
}

/// Name of one end of the pair that serves up0.
fn end(lab: &Lab, prefix: &str) -> String {
    let index = lab.shell("lb", "cat /sys/class/net/up0/ifindex");
    format!("{prefix}{}", index.trim())
}

fn down_and_up(prefix: &str) {
    let lab = Lab::up();
    let mut sensor = lab.sensor(&[]);
    sensor.may_lose_frames();
    let name = end(&lab, prefix);
    assert_prompt("before", lab.rate(200));
    let (rate, ()) = during(&lab, 800, || link(&lab, &format!("set {name} down")));
    assert_all(&format!("{name} goes down"), rate);
    thread::sleep(NOTICED);
    assert_prompt(&format!("{name} is down"), lab.rate(500));
    let (rate, ()) = during(&lab, 500, || link(&lab, &format!("set {name} up")));
    assert_all(&format!("{name} comes up"), rate);
    thread::sleep(NOTICED);
    assert_prompt("after", lab.rate(200));
    assert_eq!(sensor.stop(), Some(0), "{}", sensor.said());
    assert_lost_at_most(&sensor, 64);
}

/// Frames that were on their way at that instant are lost and said; TCP sends them again.
fn assert_lost_at_most(sensor: &Sensor, frames: u64) {
    let line = ledger(sensor, "up0");
    let lost = count(&line, "at the veth") + count(&line, "in the worker");
    assert!(lost <= frames, "{line}");
    assert_eq!(count(&line, "before the ring"), 0, "{line}");
    assert!(
        count(&line, "bypassed") >= 500,
        "the gate stayed open: {line}"
    );
}

#[test]
#[ignore = "needs root"]
fn the_near_end_set_down_and_up_costs_no_connection() {
    down_and_up("rstx");
}

/// The TX ring cannot empty: the end that receives has no carrier to give.
#[test]
#[ignore = "needs root"]
fn the_far_end_set_down_and_up_costs_no_connection() {
    down_and_up("rsti");
}

/// Nothing is lost when nothing comes; but nobody can say so of that time.
#[test]
#[ignore = "needs root"]
fn the_time_without_a_way_back_is_not_complete_coverage() {
    let lab = Lab::up();
    let mut sensor = lab.sensor(&[]);
    let name = end(&lab, "rstx");
    for way in ["down", "up"] {
        link(&lab, &format!("set {name} {way}"));
        thread::sleep(NOTICED);
    }
    assert_ends_well(&mut sensor, &["up0", "dn0"]);
    for (interface, complete) in [("up0", false), ("dn0", true)] {
        let last = coverage(&lab, interface).pop().expect("a record");
        let last = &last["rstscope"]["coverage"];
        assert_eq!(
            (&last["lost"], &last["complete"]),
            (&0.into(), &complete.into())
        );
    }
}

/// A lab whose load balancer host filters by reverse path: what comes by another link is dropped.
fn strict() -> Lab {
    let lab = Lab::up();
    let strict = "sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.default.rp_filter=1";
    lab.shell("lb", strict);
    lab
}

/// Somebody clears all links of their filters. What comes back is then the far end's own: reverse path
/// filtering drops it, and no handshake would succeed again.
#[test]
#[ignore = "needs root"]
fn a_way_back_without_its_filter_is_given_up() {
    let lab = strict();
    let mut sensor = lab.sensor(&[]);
    sensor.may_lose_frames();
    let name = end(&lab, "rsti");
    assert_prompt("before", lab.rate(200));
    let (rate, said) = during(&lab, 400, || {
        lab.shell("lb", &format!("tc qdisc del dev {name} clsact 2>&1"))
    });
    assert_eq!(said, "");
    assert_all("the filter is removed", rate);
    let gone = format!("the filter of {name} is gone");
    assert!(sensor.await_line(&gone), "{}", sensor.said());
    assert_prompt("after", lab.rate(400));
    assert_eq!(sensor.stop(), Some(0), "{}", sensor.said());
    let said = sensor.said();
    assert!(
        said.contains(&format!("the filter of {name} is gone")),
        "{said}"
    );
}

/// An agent that puts a program on every link, and at the head of its chain, where it says that the frame may go
/// on into the host. It does so as the far end's own.
#[test]
#[ignore = "needs root"]
fn a_way_back_with_a_strange_program_before_its_filter_is_given_up() {
    let lab = strict();
    let mut sensor = lab.sensor(&[]);
    sensor.may_lose_frames();
    let name = end(&lab, "rsti");
    assert_prompt("before", lab.rate(200));
    let add = "filter add dev NAME ingress prio 1 handle 7 bpf direct-action bytecode '1,6 0 0 0'";
    let (rate, said) = during(&lab, 400, || {
        lab.shell("lb", &format!("tc {} 2>&1", add.replace("NAME", &name)))
    });
    assert_eq!(said, "");
    assert_all("a program stands before the filter", rate);
    // Where tc took its time, they were done before it stood; it is noticed by the frames that it keeps.
    for _ in 0..MORE_REQUESTS_MAX {
        if sensor.said().contains("by copies alone") {
            break;
        }
        assert_all("more of them", lab.rate(20));
    }
    assert!(sensor.await_line("by copies alone"), "{}", sensor.said());
    assert_prompt("after", lab.rate(400));
    assert_eq!(sensor.stop(), Some(0), "{}", sensor.said());
    let told = format!("on {name} keeps frames from its filter");
    assert!(sensor.said().contains(&told), "{}", sensor.said());
}

#[test]
#[ignore = "needs root"]
fn a_deleted_pair_costs_no_connection() {
    let lab = Lab::up();
    let mut sensor = lab.sensor(&[]);
    sensor.may_lose_frames();
    let name = end(&lab, "rstx");
    assert_prompt("before", lab.rate(200));
    let (rate, ()) = during(&lab, 800, || link(&lab, &format!("del {name}")));
    assert_all("the pair is deleted", rate);
    thread::sleep(NOTICED);
    assert_prompt("after", lab.rate(600));
    assert_eq!(sensor.stop(), Some(0), "{}", sensor.said());
    assert_lost_at_most(&sensor, 64);
    let mut sensor = lab.sensor(&[]);
    assert_prompt("after the next start", lab.rate(200));
    assert_ends_well(&mut sensor, &["up0", "dn0"]);
}

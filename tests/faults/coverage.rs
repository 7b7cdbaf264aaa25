//! Coverage: the records of a run add up to its ledger, to the last frame; and what somebody took off
//! is admitted. Refuses to know how the sensor counts.

use std::fs;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::traffic::{assert_all, assert_ends_well, assert_prompt, count, ledger};
use crate::lab::records::records;
use crate::lab::{BINARY, Lab, Rate, Sensor, has_tcx, text};

/// The coverage records of that interface, in order.
pub(super) fn coverage(lab: &Lab, interface: &str) -> Vec<Value> {
    let is_wanted = |record: &Value| {
        record["event"]["dataset"] == "rstscope.coverage"
            && record["observer"]["ingress"]["interface"]["name"] == interface
    };
    let all = records(&lab.records_path());
    all.into_iter().filter(is_wanted).collect()
}

#[test]
#[ignore = "needs root"]
fn the_records_of_a_run_add_up_to_its_ledger() {
    let lab = Lab::up();
    let mut sensor = lab.sensor(&[]);
    // More than an interval, and the end comes in the middle of traffic.
    let requests = lab.requests(3000);
    thread::sleep(Duration::from_millis(12_000));
    let late = lab.requests(1500);
    thread::sleep(Duration::from_millis(200));
    assert_ends_well(&mut sensor, &["up0", "dn0"]);
    assert_all("before and while it ends", Rate::of(requests));
    assert_all("while it ends and after", Rate::of(late));
    for interface in ["up0", "dn0"] {
        let records = coverage(&lab, interface);
        assert!(records.len() >= 2, "{records:?}");
        let sum = |field: &str| -> u64 {
            let counts = records
                .iter()
                .map(|record| record["rstscope"]["coverage"][field].as_u64().unwrap());
            counts.sum()
        };
        let line = ledger(&sensor, interface);
        assert!(sum("observed") > 0, "{line}");
        assert_eq!(sum("observed"), count(&line, "received"), "{line}");
        assert_eq!(sum("bypassed"), count(&line, "bypassed"), "{line}");
        assert_eq!(sum("copied"), count(&line, "copied"), "{line}");
        let ends = records.windows(2).all(|pair| {
            let (end, start) = (&pair[0]["event"]["end"], &pair[1]["event"]["start"]);
            end.as_str().unwrap()[..19] <= start.as_str().unwrap()[..19]
        });
        assert!(ends, "one interval after the other: {records:?}");
    }
}

/// Takes the sensor's tc program off what leaves (or enters) by up0. Its links are found by its own
/// descriptors: other sensors may run on this machine.
fn take_off(lab: &Lab, sensor: &Sensor, hook: &str) {
    if !has_tcx() {
        let side = hook.trim_matches(['(', ')']);
        let said = lab.shell(
            "lb",
            &format!("tc filter del dev up0 {side} pref 49000 2>&1"),
        );
        assert_eq!(said, "");
        return;
    }
    let index = lab.shell("lb", "cat /sys/class/net/up0/ifindex");
    let ifindex = format!("ifindex:\t{}\n", index.trim());
    let folder = format!("/proc/{}/fdinfo", sensor.child.id());
    let link = fs::read_dir(folder).unwrap().find_map(|entry| {
        let info = fs::read_to_string(entry.unwrap().path()).ok()?;
        let is_it = info.contains(&ifindex) && info.contains(hook);
        let id = info
            .lines()
            .find_map(|line| line.strip_prefix("link_id:\t"))?;
        is_it.then(|| id.to_owned())
    });
    let link = link.expect("a link of that kind");
    let said = lab.shell("lb", &format!("bpftool link detach id {link} 2>&1"));
    assert_eq!(said, "");
}

#[test]
#[ignore = "needs root"]
fn a_tc_program_taken_off_costs_no_connection_and_no_interval_after_it_is_complete() {
    for (mode, hook) in [
        ("inline", "(egress)"),
        ("mirror", "(egress)"),
        ("mirror", "(ingress)"),
    ] {
        let lab = Lab::up();
        let mut sensor = lab.sensor(&["--mode", mode]);
        assert_prompt("before", lab.rate(100));
        take_off(&lab, &sensor, hook);
        assert!(
            sensor.await_line("up0: somebody took a tc program off"),
            "{mode} {hook}: not a word: {}",
            sensor.said()
        );
        assert_prompt("after", lab.rate(100));
        assert_eq!(sensor.stop(), Some(0), "{}", sensor.said());
        for (interface, complete) in [("up0", false), ("dn0", true)] {
            let records = coverage(&lab, interface);
            let last = &records[records.len() - 1]["rstscope"]["coverage"];
            assert_eq!(last["complete"], complete, "{mode} {hook}: {last}");
        }
    }
}

/// Sends a reset whose TCP header stands behind 200 bytes of IPv6 hop-by-hop options (PadN), into the
/// interface that is named, from somebody else's MAC to somebody else's.
const BEHIND_OPTIONS: &str = "import socket, struct, sys\n\
    tcp = struct.pack('!HHIIBBHHH', 4242, 80, 7, 0, 0x50, 4, 0, 0x1234, 0)\n\
    pad = bytes([1, 196]) + bytes(196)\n\
    options = bytes([6, 24]) + pad\n\
    ends = socket.inet_pton(10, '2001:db8::1') + socket.inet_pton(10, '2001:db8::2')\n\
    ip = struct.pack('!IHBB', 6 << 28, len(options) + len(tcp), 0, 64) + ends\n\
    frame = bytes.fromhex('020000000009' '020000000008' '86dd') + ip + options + tcp\n\
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as s:\n\
    \x20   s.bind((sys.argv[1], 0))\n\
    \x20   s.send(frame)\n";

/// What is copied of a frame ends before such a header: nobody can say what the segment was.
#[test]
#[ignore = "needs root"]
fn a_reset_behind_headers_too_long_to_copy_is_told_as_lost() {
    let lab = Lab::up();
    let mut sensor = lab.sensor(&["--mode", "mirror"]);
    let words = ["/usr/bin/python3", "-c", BEHIND_OPTIONS, "p-lb"];
    assert!(lab.exec("rt", &words).status().unwrap().success());
    thread::sleep(Duration::from_millis(1500));
    let said = lab.exec("lb", &[BINARY, "stats"]).output().unwrap().stdout;
    assert_eq!(sensor.stop(), Some(0), "{}", sensor.said());
    let said = text(&said);
    let is_told = |line: &str| line.contains("unread") && line.ends_with(" 1");
    assert!(said.lines().any(is_told), "{said}");
    let last = coverage(&lab, "up0").pop().unwrap();
    let last = &last["rstscope"]["coverage"];
    assert_eq!(
        (&last["lost"], &last["complete"]),
        (&1.into(), &false.into()),
        "{last}"
    );
    assert!(
        sensor.said().contains("could not read 1 copied frame"),
        "{}",
        sensor.said()
    );
}

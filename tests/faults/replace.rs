//! From one process to the next without a detach: `run --replace`.

use std::collections::HashSet;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::traffic::{assert_all, assert_ends_well, assert_ledgers, assert_prompt, during};
use crate::lab::records::{assert_kept, promises, records, resets};
use crate::lab::{BINARY, Lab, Sensor, text};

/// The kernel's id of the XDP link at up0: that which has up0's program.
fn link_id(lab: &Lab) -> String {
    let shown = lab.shell("lb", "ip -d link show up0");
    let program = shown.split("prog/xdp id ").nth(1);
    let program = program.and_then(|rest| rest.split(' ').next());
    let program = program.unwrap_or_else(|| panic!("no program at up0: {shown}"));
    let wanted = format!("xdp  prog {program} ");
    let all = lab.shell("lb", "bpftool link");
    let line = all
        .lines()
        .find(|line| format!("{line} ").contains(&wanted));
    let id = line.and_then(|line| line.split(':').next());
    id.unwrap_or_else(|| panic!("no link of program {program}: {all}"))
        .to_owned()
}

/// A second sensor that takes over, writing to `records`.
fn successor(lab: &Lab, more: &[&str]) -> Sensor {
    let output = lab.output();
    let mut words = vec!["--output", output.as_str(), "--replace"];
    words.extend(more);
    lab.start(&words)
}

#[test]
#[ignore = "needs root"]
fn one_process_follows_the_other_without_a_detach_a_lost_frame_or_a_gap() {
    let lab = Lab::up();
    let state = lab.state();
    let mut sensor = lab.sensor(&[]);
    let link = link_id(&lab);
    assert_prompt("before", lab.rate(200));
    // Resets all the time, each of which must be in somebody's records.
    let aborts = lab
        .python(
            "scenarios.py",
            &["--run", "client_abort", "--jobs", "1", "--repeat", "150"],
        )
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    for turn in 1..=3 {
        let (rate, next) = during(&lab, 800, || {
            let next = successor(&lab, &[]);
            assert!(
                next.await_line("rstscope: ready"),
                "not ready: {}",
                next.said()
            );
            next
        });
        assert_prompt(&format!("handover {turn}"), rate);
        assert_eq!(sensor.end(), Some(0), "{}", sensor.said());
        assert_ledgers(&sensor, &["up0", "dn0"]);
        assert!(
            sensor.said().contains("up0 is process"),
            "{}",
            sensor.said()
        );
        assert_eq!(link_id(&lab), link, "the program was detached");
        sensor = next;
    }
    let aborts = aborts.wait_with_output().unwrap();
    thread::sleep(Duration::from_millis(1500));
    assert_prompt("after", lab.rate(200));
    assert_ends_well(&mut sensor, &["up0", "dn0"]);
    assert_eq!(lab.state(), state, "something is left");
    assert_in_the_records(&lab, &promises(&aborts.stdout));
}

/// Each promised reset is in the records, and more than one process wrote some.
fn assert_in_the_records(lab: &Lab, promised: &[Value]) {
    let all = records(&lab.records_path());
    let resets = resets(&all);
    let ports: HashSet<String> = resets
        .iter()
        .flat_map(|record| ["source", "destination"].map(|end| record[end]["port"].to_string()))
        .collect();
    let processes: HashSet<&str> = resets
        .iter()
        .filter_map(|record| record["event"]["id"].as_str()?.rsplit_once('-'))
        .map(|(process, _)| process)
        .collect();
    assert_eq!(promised.len(), 150);
    let unseen: Vec<_> = promised
        .iter()
        .filter(|promise| !ports.contains(&promise["source_port"].to_string()))
        .collect();
    println!(
        "{} of {} resets are in the records, by {} processes",
        promised.len() - unseen.len(),
        promised.len(),
        processes.len()
    );
    assert!(unseen.is_empty(), "resets that nobody saw: {unseen:#?}");
    assert!(processes.len() >= 2, "all resets were over too soon");
}

#[test]
#[ignore = "needs root"]
fn where_nobody_watches_replace_starts_as_usual() {
    let lab = Lab::up();
    let mut sensor = successor(&lab, &[]);
    assert!(sensor.await_line("rstscope: ready"), "{}", sensor.said());
    assert_prompt("alone", lab.rate(200));
    assert_ends_well(&mut sensor, &["up0", "dn0"]);
}

#[test]
#[ignore = "needs root"]
fn a_mirror_is_followed_by_an_inline_sensor_and_the_other_way_round() {
    let lab = Lab::up();
    let state = lab.state();
    let mut mirror = lab.sensor(&["--mode", "mirror"]);
    assert_prompt("before", lab.rate(200));
    let (rate, mut inline) = during(&lab, 500, || {
        let next = successor(&lab, &[]);
        assert!(next.await_line("rstscope: ready"), "{}", next.said());
        next
    });
    assert_prompt("mirror to inline", rate);
    assert_eq!(mirror.end(), Some(0), "{}", mirror.said());
    let (rate, mut mirror) = during(&lab, 500, || {
        let next = successor(&lab, &["--mode", "mirror"]);
        assert!(next.await_line("rstscope: ready"), "{}", next.said());
        next
    });
    assert_all("inline to mirror", rate);
    assert_prompt("after", lab.rate(200));
    assert_eq!(inline.end(), Some(0), "{}", inline.said());
    assert_ledgers(&inline, &["up0", "dn0"]);
    assert_eq!(mirror.stop(), Some(0), "{}", mirror.said());
    assert_eq!(lab.state(), state, "something is left");
}

/// The new process dies when it has the link and before it stands.
#[test]
#[ignore = "needs root"]
fn a_successor_that_dies_halfway_leaves_the_first_one_watching() {
    const HEIR: &str = "import array, socket, sys\n\
        s = socket.socket(socket.AF_UNIX)\n\
        s.connect(b'\\0rstscope/' + sys.argv[1].encode())\n\
        s.send(b'?')\n\
        word, given, *_ = s.recvmsg(1, socket.CMSG_SPACE(8))\n\
        print(word, len(array.array('i', given[0][2])))\n";
    let lab = Lab::up();
    let mut sensor = lab.sensor(&[]);
    assert_prompt("before", lab.rate(200));
    let index = lab.shell("lb", "cat /sys/class/net/up0/ifindex");
    let (rate, said) = during(&lab, 500, || {
        let words = ["/usr/bin/python3", "-c", HEIR, index.trim()];
        text(&lab.exec("lb", &words).output().unwrap().stdout)
    });
    assert_eq!(said.trim(), "b'?' 2", "lock and link");
    assert_prompt("a successor dies", rate);
    assert!(
        sensor.await_line("did not take it over"),
        "{}",
        sensor.said()
    );
    let promises = lab.play(&["client_abort"]);
    assert_prompt("after", lab.rate(200));
    // The next one succeeds.
    let mut next = successor(&lab, &[]);
    assert!(next.await_line("rstscope: ready"), "{}", next.said());
    assert_eq!(sensor.end(), Some(0), "{}", sensor.said());
    assert_prompt("after the next one", lab.rate(200));
    assert_ends_well(&mut next, &["up0", "dn0"]);
    let all = records(&lab.records_path());
    assert_kept(&promises, &resets(&all));
}

/// The first one goes on with the other interface; what it gave away it holds no longer.
#[test]
#[ignore = "needs root"]
fn an_interface_that_was_taken_over_is_free_when_the_second_process_ends() {
    let lab = Lab::up();
    let state = lab.state();
    let mut first = lab.sensor(&[]);
    let (output, spool) = (lab.output(), format!("{}/another", lab.spool()));
    let of_one = |more: &[&str]| {
        let mut words = vec![BINARY, "run", "--iface", "up0"];
        words.extend(["--output", output.as_str(), "--spool", spool.as_str()]);
        words.extend(more);
        let sensor = Sensor::spawn(lab.exec("lb", &words));
        assert!(sensor.await_line("rstscope: ready"), "{}", sensor.said());
        sensor
    };
    let mut next = of_one(&["--replace"]);
    assert!(first.await_line("up0 is process"), "{}", first.said());
    assert_eq!(next.stop(), Some(0), "{}", next.said());
    assert!(!lab.shell("lb", "ip link show up0").contains("prog/xdp"));
    assert_prompt("by the kernel alone", lab.rate(100));
    // Nobody is in the way of the next start.
    let mut last = of_one(&[]);
    assert_prompt("watched again", lab.rate(100));
    assert_eq!(last.stop(), Some(0), "{}", last.said());
    assert_ledgers(&last, &["up0"]);
    assert_eq!(first.stop(), Some(0), "{}", first.said());
    assert_eq!(lab.state(), state, "something is left");
}

/// Any user may knock at an abstract socket; only root, or the sensor's own user, is answered.
#[test]
#[ignore = "needs root"]
fn another_user_cannot_take_the_interface_over() {
    const KNOCK: &str = "import socket, sys\n\
        s = socket.socket(socket.AF_UNIX)\n\
        s.connect(b'\\0rstscope/' + sys.argv[1].encode())\n\
        s.send(b'?')\n\
        s.settimeout(3)\n\
        try: print(s.recv(1))\n\
        except ConnectionResetError: print(b'')\n";
    let lab = Lab::up();
    let mut sensor = lab.sensor(&[]);
    let index = lab.shell("lb", "cat /sys/class/net/up0/ifindex");
    let words = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ];
    let mut knock = lab.exec("lb", &words);
    let done = knock
        .args(["/usr/bin/python3", "-c", KNOCK, index.trim()])
        .output()
        .unwrap();
    assert_eq!(text(&done.stdout).trim(), "b''", "{}", text(&done.stderr));
    assert!(!sensor.said().contains("process"), "{}", sensor.said());
    assert_ends_well(&mut sensor, &["up0", "dn0"]);
}

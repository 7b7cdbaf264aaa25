//! The sensor on real traffic: starts the built binary inline in the lab of `scripts/lab` and holds
//! its records against what was really done. Needs root; refuses to judge a run in which the lab
//! itself did not do as it promised. See docs/testing.md.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "a test may panic, and waits by the clock"
)]

mod lab;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use lab::records::{assert_kept, assert_one_sentence, records, resets, unnamed_legs};
use lab::{BINARY, INTERFACES, Lab, assert_all_succeeded, text};

#[test]
#[ignore = "needs root"]
fn the_lab_makes_the_resets_that_it_promises() {
    let lab = Lab::up();
    let done = lab
        // One after the other: the forger of four downloads at once is slower than what it races.
        .python(
            "scenarios.py",
            &["--all", "--both", "--verify", "--jobs", "1"],
        )
        .output()
        .unwrap();
    assert!(
        done.status.success(),
        "{}\n{}",
        text(&done.stderr),
        text(&done.stdout)
    );
}

#[test]
#[ignore = "needs root"]
fn every_scenario_gets_its_verdict_and_the_host_is_left_as_it_was_found() {
    let lab = Lab::up();
    let before = lab.state();
    // Some connections are to be older than the sensor.
    // One after the other: one process plays all of this host's, and as a crowd its resets would
    // look like a proxy's.
    let mut play = lab
        .python(
            "scenarios.py",
            &["--all", "--both", "--hold", "--jobs", "1"],
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(play.stdout.take().unwrap()).lines();
    assert_eq!(stdout.next().unwrap().unwrap(), "held");
    let mut sensor = lab.sensor(&[]);
    play.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let promises: Vec<Value> = stdout
        .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
        .collect();
    assert!(play.wait().unwrap().success(), "the lab broke a promise");

    assert_eq!(sensor.stop(), Some(0), "{}", sensor.said());
    assert_eq!(lab.state(), before, "the host is not as it was found");
    let all = records(&lab.records_path());
    let resets = resets(&all);
    assert!(
        promises.len() >= 100,
        "only {} resets were promised",
        promises.len()
    );
    assert_kept(&promises, &resets);
    let (unnamed, legs) = unnamed_legs(&promises, &resets);
    assert!(legs >= 10, "only {legs} other legs were promised");
    assert!(
        unnamed * 5 <= legs,
        "{unnamed} of {legs} legs are not named"
    );
    assert!(all.len() > resets.len(), "there is no coverage record");
    assert_refusals_fit(&resets);
}

/// A near peer refuses before the kernel counts its own SYN as sent: that must not look like a guess.
fn assert_refusals_fit(resets: &[&Value]) {
    let refusals = resets
        .iter()
        .map(|record| &record["rstscope"])
        .filter(|scope| {
            scope["cause"] == "refused" && scope["kernel"]["socket_state"] == "syn_sent"
        });
    assert!(refusals.clone().count() >= 2, "nobody was refused");
    for refusal in refusals {
        assert_eq!(refusal["resets"][0]["seq_fit"], "exact", "{refusal}");
    }
}

#[test]
#[ignore = "needs root"]
fn among_everyday_traffic_the_verdicts_hold() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/live");
    let words = ["--sensor", BINARY, "--repeats", "2", "--connections", "500"];
    let done = lab::command(script, &words).output().unwrap();
    assert!(
        done.status.success(),
        "{}\n{}",
        text(&done.stdout),
        text(&done.stderr)
    );
}

#[test]
#[ignore = "needs root"]
fn two_thousand_requests_succeed_with_the_sensor_on() {
    let lab = Lab::up();
    let mut sensor = lab.sensor(&[]);
    assert_all_succeeded(lab.requests(2000));
    assert_eq!(sensor.stop(), Some(0), "{}", sensor.said());
    lab.assert_traffic_flows();
}

#[test]
#[ignore = "needs root"]
fn an_unknown_interface_is_named() {
    let lab = Lab::up();
    let (code, said) = lab.refused(&["--iface", "up7", "--output", &lab.output()]);
    assert_eq!(code, Some(4), "{said}");
    assert_one_sentence(&said, "up7");
    lab.assert_traffic_flows();
}

#[test]
#[ignore = "needs root"]
fn a_lack_of_permission_is_said() {
    let lab = Lab::up();
    let copy = lab.dir.join("rstscope");
    fs::copy(BINARY, &copy).unwrap();
    let copy = copy.display().to_string();
    let words = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--inh-caps=-all",
    ];
    let mut run = lab.exec("lb", &words);
    let done = run
        .arg(&copy)
        .arg("run")
        .args(INTERFACES)
        .args(["--output", "-"])
        .output()
        .unwrap();
    let said = text(&done.stderr);
    assert_eq!(done.status.code(), Some(3), "{said}");
    assert_eq!(
        said.lines()
            .filter(|line| line.starts_with("rstscope: "))
            .count(),
        1,
        "{said}"
    );
    lab.assert_traffic_flows();
}

#[test]
#[ignore = "needs root"]
fn an_output_that_cannot_be_written_is_named_before_traffic_is_touched() {
    let lab = Lab::up();
    let before = lab.state();
    let path = lab.dir.join("no/such/directory/records");
    let mut words = INTERFACES.to_vec();
    let output = format!("file://{}", path.display());
    words.extend(["--output", &output]);
    let (code, said) = lab.refused(&words);
    assert_eq!(code, Some(1), "{said}");
    assert_one_sentence(&said, &path.display().to_string());
    assert_eq!(lab.state(), before);
    lab.assert_traffic_flows();
}

#[test]
#[ignore = "needs root"]
fn a_second_instance_is_refused_and_the_first_goes_on() {
    let lab = Lab::up();
    let mut first = lab.sensor(&[]);
    let mut words = INTERFACES.to_vec();
    let output = format!("file://{}", lab.dir.join("second").display());
    words.extend(["--output", &output]);
    let (code, said) = lab.refused(&words);
    assert_eq!(code, Some(4), "{said}");
    assert_one_sentence(&said, "up0");
    let promises = lab.play(&["client_abort"]);
    assert_eq!(first.stop(), Some(0), "{}", first.said());
    let all = records(&lab.records_path());
    assert_kept(&promises, &resets(&all));
    lab.assert_traffic_flows();
}

#[test]
#[ignore = "needs root"]
fn an_interface_that_goes_away_is_named_and_the_others_are_watched_on() {
    let lab = Lab::up();
    let mut sensor = lab.sensor(&[]);
    let delete = |interface| {
        let done = lab.exec("lb", &["ip", "link", "del", interface]).status();
        assert!(done.unwrap().success());
    };
    delete("dn0");
    assert!(sensor.await_line("dn0"), "not a word: {}", sensor.said());
    // The client still reaches this host: HAProxy answers that its backend is away.
    let fetch = [
        "curl",
        "-s",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "http://10.77.2.2:8080/",
    ];
    let answer = lab.exec("cl", &fetch).output().unwrap();
    assert_eq!(text(&answer.stdout), "503");
    let promises = lab.play(&["client_abort"]);
    thread::sleep(Duration::from_millis(1500));
    assert!(
        sensor.child.try_wait().unwrap().is_none(),
        "it ended: {}",
        sensor.said()
    );
    let all = records(&lab.records_path());
    assert_kept(&promises, &resets(&all));
    delete("up0");
    assert_eq!(sensor.end(), Some(1), "{}", sensor.said());
    assert!(sensor.await_line("up0"), "not a word: {}", sensor.said());
    assert!(!sensor.said().contains("panicked"), "{}", sensor.said());
}

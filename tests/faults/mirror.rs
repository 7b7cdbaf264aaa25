//! Mirror mode consumes nothing: a sensor that is stopped, killed or hangs has no effect at all,
//! from the first frame on, and its records are those of inline mode.

use std::thread;
use std::time::Duration;

use super::traffic::{assert_ends_well, assert_prompt, during};
use crate::lab::records::{assert_kept, records, resets};
use crate::lab::{Lab, has_tcx};

#[test]
#[ignore = "needs root"]
fn a_stopped_or_killed_mirror_has_no_effect_at_all() {
    let lab = Lab::up();
    let state = lab.state();
    let mut sensor = lab.sensor(&["--mode", "mirror"]);
    assert_prompt("before", lab.rate(200));
    for signal in ["STOP", "CONT", "STOP"] {
        let (rate, ()) = during(&lab, 500, || sensor.signal(signal));
        assert_prompt(signal, rate);
    }
    assert_prompt("stopped", lab.rate(300));
    let (rate, ()) = during(&lab, 500, || sensor.signal("KILL"));
    assert_prompt("KILL", rate);
    assert_eq!(sensor.end(), None);
    assert_prompt("after", lab.rate(200));
    if !has_tcx() {
        let mut next = lab.sensor(&[]);
        assert_ends_well(&mut next, &["up0", "dn0"]);
    }
    assert_eq!(lab.state(), state, "something is left");
}

#[test]
#[ignore = "needs root"]
fn a_mirror_takes_no_slot_and_no_frame() {
    let lab = Lab::up();
    let mut sensor = lab.sensor(&["--mode", "mirror"]);
    let links = lab.shell("lb", "ip -d link");
    assert!(
        !links.contains("prog/xdp") && !links.contains("rstx"),
        "{links}"
    );
    assert_prompt("mirrored", lab.rate(500));
    assert_eq!(sensor.stop(), Some(0), "{}", sensor.said());
    assert!(!sensor.said().contains("redirected"), "{}", sensor.said());
}

/// Verdicts and causes are those that inline mode is held to, but for what only the socket at the
/// instant of arrival tells, which mirror mode asks a moment later or not at all.
#[test]
#[ignore = "needs root"]
fn a_mirror_writes_the_same_records() {
    const SCENARIOS: [&str; 8] = [
        "client_abort",
        "process_abort",
        "closed_port",
        "backend_refused",
        "proxy_client_reset",
        "forged_wrong_ttl",
        "forged_burst",
        "adjacent",
    ];
    let lab = Lab::up();
    let mut sensor = lab.sensor(&["--mode", "mirror"]);
    let mut words = SCENARIOS.to_vec();
    words.extend(["--jobs", "1", "--both"]);
    let promises = lab.play(&words);
    thread::sleep(Duration::from_millis(1500));
    assert_eq!(sensor.stop(), Some(0), "{}", sensor.said());
    let all = records(&lab.records_path());
    assert_kept(&promises, &resets(&all));
}

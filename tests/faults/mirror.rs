//! Mirror mode consumes nothing: a sensor that is stopped, killed or hangs has no effect at all,
//! from the first frame on, and its records are those of inline mode.

use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::traffic::{assert_prompt, during};
use crate::lab::records::{complaint, records};
use crate::lab::{Lab, text};

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
    let mut words = vec!["--jobs", "1", "--both", "--run"];
    words.extend(SCENARIOS);
    let play = lab.python("scenarios.py", &words).output().unwrap();
    assert!(play.status.success(), "{}", text(&play.stderr));
    thread::sleep(Duration::from_millis(1500));
    assert_eq!(sensor.stop(), Some(0), "{}", sensor.said());
    let all = records(&lab.records_path());
    let resets: Vec<&Value> = all
        .iter()
        .filter(|record| record["event"]["dataset"] == "rstscope.reset")
        .collect();
    let promises: Vec<Value> = text(&play.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let wrong: Vec<_> = (0..promises.len())
        .filter_map(|index| complaint(&promises, index, &resets))
        .collect();
    println!(
        "{} of {} promises are kept",
        promises.len() - wrong.len(),
        promises.len()
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

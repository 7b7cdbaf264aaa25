//! The outputs: a full disk, a reader that went away, a reader that does not read.

use std::fs;
use std::io::Read;
use std::process::Stdio;

use super::traffic::{assert_all, assert_prompt, during};
use crate::lab::{BINARY, INTERFACES, Lab, Sensor};

/// Makes some records, by connections that are aborted.
fn abort_some(lab: &Lab) {
    let words = ["--run", "client_abort", "--repeat", "20"];
    let play = lab.python("scenarios.py", &words).output().unwrap();
    assert!(play.status.success());
}

#[test]
#[ignore = "needs root"]
fn a_full_disk_is_named_and_costs_no_connection() {
    let lab = Lab::up();
    let dir = lab.dir.join("small");
    fs::create_dir(&dir).unwrap();
    let dir = dir.display().to_string();
    // The file system is mounted in the mount namespace of this command only.
    let script = format!(
        "mount -t tmpfs -o size=16k tmpfs {dir} && \
         exec {BINARY} run --iface up0 --iface dn0 --settle 0 --output file://{dir}/records"
    );
    let mut sensor = Sensor::spawn(lab.exec("lb", &["sh", "-c", &script]));
    assert!(
        sensor.await_line("rstscope: ready"),
        "not ready: {}",
        sensor.said()
    );
    assert_prompt("before", lab.rate(200));
    let (rate, ()) = during(&lab, 800, || abort_some(&lab));
    assert!(
        sensor.await_line("/small/records"),
        "not a word: {}",
        sensor.said()
    );
    assert_all("the disk is full", rate);
    assert_prompt("after", lab.rate(200));
    // Records were lost, and that is told by the exit code; frames were not.
    assert_eq!(sensor.stop(), Some(1), "{}", sensor.said());
    super::traffic::assert_ledgers(&sensor, &["up0", "dn0"]);
    assert_prompt("after the end", lab.rate(100));
}

/// A sensor whose records go into a pipe.
fn into_a_pipe(lab: &Lab) -> Sensor {
    let mut words = vec![BINARY, "run"];
    words.extend(INTERFACES);
    words.extend(["--settle", "0", "--output", "-"]);
    let mut run = lab.exec("lb", &words);
    run.stdout(Stdio::piped());
    let sensor = Sensor::spawn(run);
    assert!(
        sensor.await_line("rstscope: ready"),
        "not ready: {}",
        sensor.said()
    );
    sensor
}

#[test]
#[ignore = "needs root"]
fn a_reader_that_went_away_costs_no_connection() {
    let lab = Lab::up();
    let mut sensor = into_a_pipe(&lab);
    assert_prompt("before", lab.rate(200));
    let (rate, ()) = during(&lab, 800, || {
        drop(sensor.child.stdout.take());
        abort_some(&lab);
    });
    assert_all("the reader is gone", rate);
    assert_prompt("after", lab.rate(200));
    if sensor.child.try_wait().unwrap().is_none() {
        sensor.signal("TERM");
    }
    // What it makes of a reader that wants no more is the output's business; to end in order is ours.
    let code = sensor.end();
    assert!(matches!(code, Some(0 | 1)), "{code:?}: {}", sensor.said());
    super::traffic::assert_ledgers(&sensor, &["up0", "dn0"]);
    assert!(!sensor.said().contains("panicked"), "{}", sensor.said());
}

#[test]
#[ignore = "needs root"]
fn a_reader_that_does_not_read_costs_no_connection_and_a_second_signal_ends_it() {
    let lab = Lab::up();
    let mut sensor = into_a_pipe(&lab);
    assert_prompt("before", lab.rate(200));
    // A pipe holds 64 KiB, and a record is some 3 KB.
    let (rate, ()) = during(&lab, 800, || {
        abort_some(&lab);
        abort_some(&lab);
    });
    assert_all("the reader does not read", rate);
    sensor.signal("TERM");
    assert_prompt("the end is asked for", lab.rate(300));
    if sensor.child.try_wait().unwrap().is_none() {
        // It waits to write its records; the interfaces are free by now.
        assert_eq!(lab.shell("lb", "ip link | grep -c 'rst[xi]'").trim(), "0");
        sensor.signal("TERM");
        let code = sensor.end();
        assert!(
            matches!(code, Some(0 | 1 | 130)),
            "{code:?}: {}",
            sensor.said()
        );
    }
    let mut rest = String::new();
    let mut stdout = sensor.child.stdout.take().unwrap();
    stdout.read_to_string(&mut rest).unwrap();
    assert!(rest.lines().count() > 10, "no records: {rest}");
    assert_prompt("after the end", lab.rate(100));
}

//! The time of day jumps, forwards and backwards, while the sensor runs: connections notice nothing,
//! resets are judged as before, and what is recorded later has the new time. The clock is the sensor's
//! alone (tests/lab/clock.c): that of the machine belongs to others too.

use std::fs;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::traffic::{assert_ends_well, assert_prompt, during};
use crate::lab::records::{assert_kept, records, resets};
use crate::lab::{BINARY, Lab, Sensor, command, text};

const DAY_NS: i64 = 86_400_000_000_000;

/// Builds what is preloaded; answers its path and that of the file with the offset, which is 0.
fn clock(lab: &Lab) -> (String, String) {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/clock.c");
    let library = lab.dir.join("clock.so").display().to_string();
    let offset = lab.dir.join("offset").display().to_string();
    let flags = ["-shared", "-fPIC", "-O2", "-Wall", "-Werror", source, "-o"];
    let built = command("clang", &flags).arg(&library).status().unwrap();
    assert!(built.success(), "clang");
    fs::write(&offset, 0_i64.to_ne_bytes()).unwrap();
    (library, offset)
}

/// Writes the offset in place: the sensor has the file mapped, and reads of one that was cut to nothing for
/// a moment, as `fs::write` does, end it by SIGBUS.
fn jump(offset: &str, offset_ns: i64) {
    let file = fs::OpenOptions::new().write(true).open(offset).unwrap();
    file.write_all_at(&offset_ns.to_ne_bytes(), 0).unwrap();
}

/// The day that it is, so many nanoseconds from now.
fn day(offset_ns: i64) -> String {
    let date = format!("{} seconds", offset_ns / 1_000_000_000);
    let said = command("date", &["-u", "+%F", "-d", &date]).output();
    text(&said.unwrap().stdout).trim().to_owned()
}

/// Plays an abort and a forgery, and answers what was promised.
fn play(lab: &Lab) -> Vec<Value> {
    lab.play(&["client_abort", "forged_wrong_ttl"])
}

#[test]
#[ignore = "needs root"]
fn a_jump_of_the_clock_costs_no_connection_and_no_verdict() {
    if !cfg!(target_arch = "x86_64") {
        println!("skipped: tests/lab/clock.c knows the vDSO of x86-64 only");
        return;
    }
    let lab = Lab::up();
    let (library, offset) = clock(&lab);
    let (preload, clock) = (
        format!("LD_PRELOAD={library}"),
        format!("LAB_CLOCK={offset}"),
    );
    let (output, spool) = (lab.output(), lab.spool());
    let words = [
        "env", &preload, &clock, BINARY, "run", "--output", &output, "--spool", &spool,
    ];
    let mut run = lab.exec("lb", &words);
    let mut sensor = Sensor::spawn({
        run.args(crate::lab::INTERFACES);
        run
    });
    assert!(sensor.await_line("rstscope: ready"), "{}", sensor.said());
    assert_prompt("before", lab.rate(200));
    let mut promises = play(&lab);
    let mut days = vec![day(0)];
    // Some 400 days ahead, then back behind where it began.
    for jump_ns in [400 * DAY_NS, -40 * DAY_NS] {
        thread::sleep(Duration::from_millis(1500));
        let (rate, ()) = during(&lab, 500, || {
            jump(&offset, jump_ns);
        });
        assert_prompt(&format!("the clock jumps to {}", day(jump_ns)), rate);
        promises.extend(play(&lab));
        days.push(day(jump_ns));
    }
    assert_prompt("after", lab.rate(200));
    thread::sleep(Duration::from_millis(1500));
    assert_ends_well(&mut sensor, &["up0", "dn0"]);
    let all = records(&lab.records_path());
    let resets = resets(&all);
    assert_kept(&promises, &resets);
    for day in days {
        let dated = resets
            .iter()
            .filter(|record| record["@timestamp"].as_str().unwrap().starts_with(&day));
        assert!(dated.count() >= 2, "no two resets on {day}: {resets:#?}");
    }
}

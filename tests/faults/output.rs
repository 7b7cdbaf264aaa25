//! The outputs: a full disk, a reader that went away, a reader that does not read.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;

use super::traffic::{assert_all, assert_prompt, during};
use crate::lab::records::records;
use crate::lab::{BINARY, INTERFACES, Lab, Sensor, command, text};

/// Makes some records, by connections that are aborted; answers the ports of their clients.
fn abort_some(lab: &Lab) -> BTreeSet<u64> {
    let promises = lab.play(&["client_abort", "--repeat", "20"]);
    let ports = promises
        .iter()
        .filter_map(|one| one["source_port"].as_u64());
    ports.collect()
}

/// A sensor whose spools and file are on a disk of that size, in a folder that is called small. The file
/// system is mounted in the mount namespace of this command only.
pub(super) fn on_a_disk_of(size: &str, lab: &Lab, more: &str) -> Sensor {
    let dir = lab.dir.join("small");
    fs::create_dir_all(&dir).unwrap();
    let dir = dir.display().to_string();
    let script = format!(
        "mount -t tmpfs -o size={size} tmpfs {dir} && \
         exec {BINARY} run --iface up0 --iface dn0 --settle 0 --spool {dir}/spool {more} \
         --output file://{dir}/records"
    );
    Sensor::spawn(lab.exec("lb", &["sh", "-c", &script]))
}

#[test]
#[ignore = "needs root"]
fn a_full_disk_is_named_and_costs_no_connection() {
    let lab = Lab::up();
    let mut sensor = on_a_disk_of("16k", &lab, "");
    assert!(
        sensor.await_line("rstscope: ready"),
        "not ready: {}",
        sensor.said()
    );
    assert_prompt("before", lab.rate(200));
    let (rate, _) = during(&lab, 800, || abort_some(&lab));
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

/// What the spool cannot keep then is delivered from memory; nothing of it is left that the next start tells as lost.
#[test]
#[ignore = "needs root"]
fn without_a_file_to_be_had_no_record_is_lost_and_none_is_missed_by_the_next_start() {
    let lab = Lab::up();
    let mut ports = BTreeSet::new();
    for room in [1, 2, 0] {
        let mut sensor = lab.sensor(&["--settle", "0"]);
        let pid = sensor.child.id();
        let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() + room;
        let limit = format!("prlimit --pid {pid} --nofile={files}:{files} 2>&1");
        assert_eq!(lab.shell("lb", &limit), "");
        (0..3).for_each(|_| ports.extend(abort_some(&lab)));
        assert_eq!(sensor.stop(), Some(0), "{room}: {}", sensor.said());
    }
    let mut last = lab.sensor(&[]);
    assert_eq!(last.stop(), Some(0), "{}", last.said());
    let all = records(&lab.records_path());
    let told: BTreeSet<u64> = all
        .iter()
        .filter_map(|r| r["source"]["port"].as_u64())
        .collect();
    assert!(told.is_superset(&ports), "{told:?}, {ports:?}");
}

/// Records and spools alike may be no longer than that: the rest waits in memory.
#[test]
#[ignore = "needs root"]
fn a_limit_of_file_size_does_not_end_the_sensor() {
    let lab = Lab::up();
    let run = format!(
        "ulimit -f 16; exec {BINARY} run --iface up0 --iface dn0 --settle 0 --spool {} --output {}",
        lab.spool(),
        lab.output()
    );
    let mut sensor = Sensor::spawn(lab.exec("lb", &["sh", "-c", &run]));
    assert!(sensor.await_line("rstscope: ready"), "{}", sensor.said());
    let (rate, _) = during(&lab, 400, || abort_some(&lab));
    assert!(sensor.await_line("File too large"), "{}", sensor.said());
    assert_all("the file is full", rate);
    assert_prompt("after", lab.rate(200));
    assert_eq!(sensor.stop(), Some(1), "{}", sensor.said());
    assert!(fs::metadata(lab.records_path()).unwrap().len() <= 16 * 512);
}

/// A file system for the records that holds some of them, unmounted when it is dropped.
struct Small(PathBuf);

impl Small {
    fn mount(lab: &Lab) -> Self {
        let path = lab.dir.join("small");
        fs::create_dir(&path).unwrap();
        let small = Self(path);
        small.run("mount", &["-t", "tmpfs", "-o", "size=16k", "tmpfs"]);
        small
    }

    fn grow(&self) {
        self.run("mount", &["-o", "remount,size=4m"]);
    }

    fn run(&self, program: &str, words: &[&str]) {
        let done = command(program, words).arg(&self.0).status();
        assert!(done.unwrap().success(), "{program}");
    }

    fn sensor(&self, lab: &Lab) -> Sensor {
        let output = format!("file://{}/records?retry_max=200ms", self.0.display());
        let sensor = lab.start(&["--settle", "0", "--output", &output]);
        assert!(sensor.await_line("rstscope: ready"), "{}", sensor.said());
        sensor
    }

    /// Ports of the clients in all whole lines.
    fn ports(&self) -> BTreeSet<u64> {
        let text = fs::read_to_string(self.0.join("records")).unwrap();
        let records = text.lines().map(serde_json::from_str::<Value>);
        records
            .filter_map(|record| record.ok()?["source"]["port"].as_u64())
            .collect()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = command("umount", &["-l"]).arg(&self.0).status();
    }
}

/// What the sensor's numbers say of its only output.
fn of_the_output(lab: &Lab, what: &str) -> u64 {
    let said = text(&lab.exec("lb", &[BINARY, "stats"]).output().unwrap().stdout);
    // Zeros have no row, and the numbers are a second old.
    let row = said.lines().find(|line| line.contains(what));
    row.map_or(0, |row| row.rsplit(' ').next().unwrap().parse().unwrap())
}

#[test]
#[ignore = "needs root"]
fn what_a_full_disk_does_not_take_waits_in_the_spool_through_a_kill_and_comes_when_there_is_room() {
    let lab = Lab::up();
    let small = Small::mount(&lab);
    let mut sensor = small.sensor(&lab);
    let mut wanted = abort_some(&lab);
    assert!(sensor.await_line("free some space"), "{}", sensor.said());
    for _ in 0..100 {
        if of_the_output(&lab, "file accepted") >= 20 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert!(!small.ports().is_superset(&wanted), "the disk is not full");
    sensor.signal("KILL");
    sensor.end();

    let mut sensor = small.sensor(&lab);
    wanted.append(&mut abort_some(&lab));
    small.grow();
    for _ in 0..200 {
        if small.ports().is_superset(&wanted) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_eq!(sensor.stop(), Some(0), "{}", sensor.said());
    let missing: Vec<_> = wanted.difference(&small.ports()).copied().collect();
    assert!(missing.is_empty(), "{missing:?}: {}", sensor.said());
    // Nothing waits any more: nothing is left of the spool.
    let left: Vec<_> = fs::read_dir(lab.spool()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
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
    assert_eq!(sensor.end(), Some(1), "{}", sensor.said());
    let told = "the reader of standard output went away; its records are lost from now on";
    assert_eq!(sensor.said().matches(told).count(), 1, "{}", sensor.said());
    let lost = "records did not reach an output";
    assert!(sensor.said().contains(lost), "{}", sensor.said());
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

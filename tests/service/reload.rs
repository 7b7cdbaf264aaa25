//! New outputs while the sensor runs, when that does not go well: there is no thread to be had, or a
//! receiver says nothing. The old ones stand until the new ones do.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Stdio;

use super::siem::{Siem, ids, until};
use crate::lab::{Lab, Sensor, command, text};
use crate::{USER, hear, play, threads, units_user, write};

const REFUSED: &str = "the outputs stay as they were: ";
const DONE: &str = "the configuration was read again";
/// What follows that where outputs were refused.
const BUT: &str = "; all of it holds now but its outputs";

/// A sensor of nobody's with a service manager that hears it.
fn start(lab: &Lab, config: &Path) -> (Sensor, UnixDatagram) {
    fs::set_permissions(&lab.dir, fs::Permissions::from_mode(0o777)).unwrap();
    let address = lab.dir.join("notify");
    let manager = UnixDatagram::bind(&address).unwrap();
    fs::set_permissions(&address, fs::Permissions::from_mode(0o777)).unwrap();
    let mut command = units_user(lab, &["run", "--config", config.to_str().unwrap()]);
    command.env("NOTIFY_SOCKET", &address);
    let sensor = Sensor::spawn(command);
    let heard = hear(&manager, |heard| heard.contains("READY=1"));
    assert!(heard.contains("READY=1"), "{}", sensor.said());
    (sensor, manager)
}

fn configure(lab: &Lab, config: &Path, outputs: &[&str]) {
    let spool = lab.dir.join("spool");
    write(
        config,
        &format!("spool = {spool:?}\noutput = {outputs:?}\n"),
    );
}

/// Asks for a reload, and waits until the service manager hears that it is over.
fn reload(sensor: &Sensor, manager: &UnixDatagram) {
    let done = sensor.said().matches(DONE).count();
    sensor.signal("HUP");
    let heard = hear(manager, |heard| heard.contains("READY=1"));
    assert!(heard.contains("RELOADING=1"), "{heard}{}", sensor.said());
    assert!(heard.contains("READY=1"), "{heard}{}", sensor.said());
    // The line before that may be on its way still.
    until("a reload", sensor, || {
        sensor.said().matches(DONE).count() > done
    });
}

/// Threads of all processes of the sensor's user: what RLIMIT_NPROC counts.
fn tasks() -> usize {
    let words = [
        "-c",
        &format!("cat /proc/[0-9]*/task/*/status 2>/dev/null | grep -c '^Uid:.{USER}'"),
    ];
    let counted = command("sh", &words).output().unwrap();
    text(&counted.stdout).trim().parse().unwrap()
}

/// The limit of the sensor's user, as that user may set it: root need not have the right to.
fn limit(sensor: &Sensor, words: &[&str]) -> String {
    let pid = sensor.child.id().to_string();
    let mut all = vec![
        "--reuid",
        USER,
        "--regid",
        USER,
        "--clear-groups",
        "prlimit",
    ];
    all.extend(["--pid", &pid]);
    all.extend(words);
    let done = command("setpriv", &all).output().unwrap();
    assert!(done.status.success(), "{}", text(&done.stderr));
    text(&done.stdout).trim().to_owned()
}

/// Threads that deliver.
fn deliveries(sensor: &Sensor) -> usize {
    let all = threads(sensor.child.id());
    let delivers = |(name, ..): &&(String, String, bool)| name.starts_with("rst-output-");
    all.iter().filter(delivers).count()
}

#[test]
#[ignore = "needs root"]
fn without_a_thread_to_be_had_the_outputs_stay_and_the_next_reload_changes_them() {
    let lab = Lab::up();
    let mut siem = Siem::prepare(&lab);
    let [https, _] = siem.urls();
    let (first, second) = (lab.output(), lab.dir.join("second"));
    let new = format!("file://{}", second.display());
    let config = lab.dir.join("rstscope.toml");
    configure(&lab, &config, &[&first, &https]);
    let (mut sensor, manager) = start(&lab, &config);
    configure(&lab, &config, &[&first, &https, &new]);

    // At first none at all, then one more each time, so that every step of the reload fails once.
    let usual = limit(&sensor, &["--nproc", "--noheadings", "--output", "SOFT"]);
    let mut failures = 0;
    for more in 0..20 {
        limit(&sensor, &[&format!("--nproc={}:", tasks() + more)]);
        reload(&sensor, &manager);
        let refused = sensor.said().matches(REFUSED).count();
        if refused == failures {
            break;
        }
        failures += 1;
        assert_eq!(refused, failures, "{}", sensor.said());
        if failures <= 2 {
            let before = ids(&lab.records_path()).len();
            play(&lab, "client_abort");
            assert!(ids(&lab.records_path()).len() > before, "{}", sensor.said());
        }
    }
    println!("{failures} reloads found no thread");
    // For itself, each of three outputs, and their distributor.
    assert!(failures >= 5, "{}", sensor.said());
    limit(&sensor, &[&format!("--nproc={usual}:")]);
    if !second.exists() {
        reload(&sensor, &manager);
    }
    assert_eq!(sensor.said().matches(REFUSED).count(), failures);
    assert_eq!(sensor.said().matches(BUT).count(), failures);
    // What was begun and given up again is gone.
    until("deliveries", &sensor, || deliveries(&sensor) == 3);
    play(&lab, "client_abort");
    siem.start(&lab);
    until("https", &sensor, || {
        siem.ids("https").is_superset(&ids(&second))
    });
    assert!(!ids(&second).is_empty(), "{}", sensor.said());
    assert_eq!(sensor.stop(), Some(0), "{}", sensor.said());
    assert_eq!(
        siem.ids("https"),
        ids(&lab.records_path()),
        "{}",
        sensor.said()
    );
}

/// Takes connections and never answers.
const SILENT: &str = "import socket, time\n\
    s = socket.create_server(('127.0.0.1', 8443))\n\
    print('ready', flush=True)\n\
    taken = []\n\
    while True: taken.append(s.accept())\n";

#[test]
#[ignore = "needs root"]
fn a_reload_takes_effect_at_once_though_a_receiver_says_nothing() {
    let lab = Lab::up();
    let (first, second) = (lab.output(), lab.dir.join("second"));
    let new = format!("file://{}", second.display());
    let silent = "http://127.0.0.1:8443/in?timeout=300s";
    let config = lab.dir.join("rstscope.toml");
    let words = ["/usr/bin/python3", "-c", SILENT];
    let mut receiver = lab
        .exec("lb", &words)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    configure(&lab, &config, &[&first, silent]);
    let (mut sensor, manager) = start(&lab, &config);
    play(&lab, "client_abort");
    let before = ids(&lab.records_path());
    assert!(!before.is_empty(), "{}", sensor.said());

    configure(&lab, &config, &[&first, silent, &new]);
    sensor.signal("HUP");
    until("second", &sensor, || second.exists());
    play(&lab, "client_abort");
    assert!(!ids(&second).is_empty(), "{}", sensor.said());
    let heard = hear(&manager, |heard| heard.contains("READY=1"));
    assert!(heard.contains("READY=1"), "{heard}{}", sensor.said());
    assert!(!sensor.said().contains(REFUSED), "{}", sensor.said());
    assert!(sensor.await_line(DONE), "{}", sensor.said());
    assert_eq!(sensor.stop(), Some(0), "{}", sensor.said());
    let _ = receiver.kill();
    let _ = receiver.wait();
    // Those before and those since the reload wait for the next start, each once.
    let all: BTreeSet<String> = ids(&lab.records_path());
    let waits = format!("0 records, {} wait on disk for the next start", all.len());
    assert!(sensor.said().contains(&waits), "{waits}: {}", sensor.said());
    assert_eq!(
        sensor.said().matches("on disk for the next start").count(),
        1,
        "{}",
        sensor.said()
    );
}

#[test]
#[ignore = "needs root"]
fn reloads_one_behind_the_other_keep_what_waits_for_a_receiver_that_is_away() {
    let lab = Lab::up();
    let (first, second) = (lab.output(), lab.dir.join("second"));
    let new = format!("file://{}", second.display());
    let away = "http://127.0.0.1:8443/in";
    let config = lab.dir.join("rstscope.toml");
    configure(&lab, &config, &[&first, away]);
    let (mut sensor, _manager) = start(&lab, &config);
    play(&lab, "client_abort");
    configure(&lab, &config, &[&first, &new, away]);
    sensor.signal("HUP");
    until("second", &sensor, || second.exists());
    play(&lab, "client_abort");
    // While those before are still being finished, which takes five seconds.
    assert!(!sensor.said().contains(DONE), "{}", sensor.said());
    configure(&lab, &config, &[&first, away]);
    sensor.signal("HUP");
    until("reloads", &sensor, || {
        sensor.said().matches(DONE).count() == 2
    });
    play(&lab, "client_abort");
    assert_eq!(sensor.stop(), Some(0), "{}", sensor.said());
    let all = ids(&lab.records_path()).len();
    let waits = format!("0 records, {all} wait on disk for the next start");
    assert!(sensor.said().contains(&waits), "{waits}: {}", sensor.said());
    assert!(!sensor.said().contains("lost\n"), "{}", sensor.said());
}

//! What a sensor that has given up its privileges still does, as a user who is nobody: it finds receivers
//! by name and speaks TLS, is followed by another, gives bursts back live, and takes up new outputs.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use super::siem::{NAME, PATIENCE, Siem, ids, until};
use crate::lab::{Lab, Sensor};
use crate::{play, threads, units_user, write};

/// A lab whose folder is everybody's, and a sensor of nobody's there with this configuration.
fn lab() -> Lab {
    let lab = Lab::up();
    fs::set_permissions(&lab.dir, fs::Permissions::from_mode(0o777)).unwrap();
    lab
}

fn start(lab: &Lab, config: &Path, more: &[&str]) -> Sensor {
    let mut words = vec!["run", "--config", config.to_str().unwrap()];
    words.extend(more);
    let sensor = Sensor::spawn(units_user(lab, &words));
    assert!(sensor.await_line("rstscope: ready"), "{}", sensor.said());
    let found = threads(sensor.child.id());
    assert!(found.iter().all(|(.., confined)| *confined), "{found:?}");
    sensor
}

fn configure(lab: &Lab, name: &str, outputs: &[String]) -> PathBuf {
    let path = lab.dir.join(name);
    let spool = lab.dir.join("spool");
    write(&path, &format!("spool = {spool:?}\noutput = {outputs:?}\n"));
    path
}

#[test]
#[ignore = "needs root"]
fn receivers_are_found_by_name_and_spoken_to_by_tls_after_a_handover_too() {
    let lab = lab();
    let mut siem = Siem::prepare(&lab);
    let [https, syslog] = siem.urls();
    let config = configure(&lab, "first", &[lab.output(), https, syslog]);
    let mut first = start(&lab, &config, &[]);
    play(&lab, "client_abort");
    // Nobody listens, and nobody knows the name: everything waits.
    for word in ["https://", "syslog+tls://"] {
        let failing = format!("output {word}{NAME}");
        assert!(first.await_line(&failing), "{}", first.said());
    }
    // The next process finds the spools taken.
    let mut second = start(&lab, &config, &["--replace"]);
    assert_eq!(first.end(), Some(0), "{}", first.said());
    assert!(
        first.said().contains("on disk for the next start"),
        "{}",
        first.said()
    );
    assert!(second.await_line("is ours now"), "{}", second.said());
    // A handover is no reason for anybody to look.
    let said = second.said();
    let mut spool = said.lines().filter(|line| line.contains("the spool"));
    assert!(spool.all(|line| !line.contains("warning")), "{said}");
    play(&lab, "client_abort");
    let before = ids(&lab.records_path());
    assert!(before.len() >= 2, "{before:?}");
    siem.start(&lab);
    for receiver in ["https", "syslog"] {
        until(receiver, &second, || {
            siem.ids(receiver).is_superset(&before)
        });
    }
    assert_eq!(second.stop(), Some(0), "{}", second.said());
    let all = ids(&lab.records_path());
    for receiver in ["https", "syslog"] {
        assert_eq!(siem.ids(receiver), all, "{receiver}: {}", second.said());
    }
    assert!(
        !second.said().contains("on disk for the next start"),
        "{}",
        second.said()
    );
}

#[test]
#[ignore = "needs root"]
fn bursts_go_back_live_without_any_privilege() {
    // To nobody: what is answered makes resets, which are not the matter here.
    const FLOOD: &str = "import sys; sys.path.insert(0, sys.argv[1])\n\
        import forge, socket, time\n\
        s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\n\
        s.bind(('br0', 0))\n\
        frames = [forge.build('02:00:00:00:02:01', '02:00:00:00:02:02', '10.77.1.99', 1024 + n, \
        '10.99.0.1', 9, 2, n) for n in range(512)]\n\
        end = time.monotonic() + 0.5\n\
        while time.monotonic() < end:\n\
        \x20   for frame in frames: s.send(frame)\n";
    let lab = lab();
    let config = configure(&lab, "config", &[lab.output()]);
    let metrics = "127.0.0.1:9477";
    let mut sensor = start(&lab, &config, &["--metrics", metrics]);
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab");
    let words = ["/usr/bin/python3", "-B", "-c", FLOOD, folder];
    let live = || {
        let page = lab.shell("lb", &format!("curl -s http://{metrics}/metrics"));
        let line = page.lines().find(|line| {
            line.starts_with("rstscope_worker_frames_total{interface=\"up0\"")
                && line.contains("stage=\"live\"")
        });
        let count = line.and_then(|line| line.rsplit(' ').next());
        count.expect("the metric is there").parse::<f64>().unwrap()
    };
    let end = Instant::now() + PATIENCE;
    while live() == 0.0 {
        assert!(Instant::now() < end, "no burst: {}", sensor.said());
        let floods: Vec<Child> = (0..2)
            .map(|_| lab.exec("rt", &words).spawn().unwrap())
            .collect();
        for mut flood in floods {
            assert!(flood.wait().unwrap().success());
        }
        // The numbers are a second old.
        std::thread::sleep(Duration::from_millis(1200));
    }
    println!("{} frames of up0 went back live", live());
    lab.assert_traffic_flows();
    assert_eq!(sensor.stop(), Some(0), "{}", sensor.said());
    assert!(
        sensor.said().matches("the ledger balances").count() == 2,
        "{}",
        sensor.said()
    );
}

#[test]
#[ignore = "needs root"]
fn a_reload_reaches_a_folder_made_since_and_a_spool_that_was_never_used() {
    let lab = lab();
    let mut siem = Siem::prepare(&lab);
    let late = lab.dir.join("late");
    let config = configure(&lab, "config", &[lab.output()]);
    let mut sensor = start(&lab, &config, &[]);
    let new = format!("file://{}/records", late.display());
    let [https, _] = siem.urls();
    configure(&lab, "config", &[lab.output(), new, https]);
    sensor.signal("HUP");
    let missing = format!("output {}/records: cannot open", late.display());
    assert!(sensor.await_line(&missing), "{}", sensor.said());
    assert!(
        sensor.said().contains("create its directory first"),
        "{}",
        sensor.said()
    );
    play(&lab, "client_abort");
    let before = ids(&lab.records_path());
    assert!(!before.is_empty(), "the outputs stay as they were");

    fs::create_dir(&late).unwrap();
    fs::set_permissions(&late, fs::Permissions::from_mode(0o777)).unwrap();
    siem.start(&lab);
    sensor.signal("HUP");
    assert!(
        sensor.await_line("the configuration was read again"),
        "{}",
        sensor.said()
    );
    play(&lab, "client_abort");
    until("https", &sensor, || !siem.ids("https").is_empty());
    assert_eq!(sensor.stop(), Some(0), "{}", sensor.said());
    let all = ids(&lab.records_path());
    let expected: BTreeSet<String> = all.difference(&before).cloned().collect();
    assert_eq!(ids(&late.join("records")), expected);
    assert_eq!(siem.ids("https"), expected);
}

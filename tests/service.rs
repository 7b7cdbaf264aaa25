//! The sensor as a service: what it may still do after its start, what the service manager hears, and a
//! new configuration while traffic goes on. The built binary in the lab; needs root for that.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "a test may panic, and waits by the clock"
)]

mod lab;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use lab::records::records;
use lab::{BINARY, Lab, Sensor, command, text};

/// Nobody: what a service's user is to files.
const USER: &str = "65534";
/// CAP_NET_ADMIN, bit 12.
const NET_ADMIN: &str = "0000000000001000";
const UNIT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/packaging/systemd/rstscope.service"
);

/// What the service has of the sensor's own: how it runs and how it ends.
mod service {
    mod confined;
    mod ending;
    mod reload;
    mod siem;
}

/// The sensor in the load balancer host's namespace as the unit starts it: nobody, with its capabilities.
fn units_user(lab: &Lab, arguments: &[&str]) -> Command {
    // IPC_LOCK stands for the unit's LimitMEMLOCK=infinity, which a test may not be allowed to set.
    let held = "-all,+net_raw,+net_admin,+bpf,+perfmon,+sys_nice,+ipc_lock";
    let mut words = vec![
        "setpriv",
        "--reuid",
        USER,
        "--regid",
        USER,
        "--clear-groups",
    ];
    words.extend([
        "--inh-caps",
        held,
        "--ambient-caps",
        held,
        "--bounding-set",
        held,
        BINARY,
    ]);
    words.extend(arguments);
    lab.exec("lb", &words)
}

/// Of every thread: its name, effective capabilities, and whether it is confined. The thread in which
/// outputs or workers were made is joined before it has left the kernel, which confines no thread that is
/// leaving (seccomp(2) with TSYNC): it is waited for.
fn threads(pid: u32) -> Vec<(String, String, bool)> {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let found = threads_now(pid);
        let leaves =
            |(name, _, is_confined): &(String, String, bool)| name == "rst-jail" && !is_confined;
        if !found.iter().any(leaves) || Instant::now() > end {
            return found;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn threads_now(pid: u32) -> Vec<(String, String, bool)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks
        .filter_map(|task| {
            // One that has left since is none of its threads any more.
            let status = fs::read_to_string(task.ok()?.path().join("status")).ok()?;
            let field = |name: &str| {
                let line = status.lines().find(|line| line.starts_with(name)).unwrap();
                line.split_whitespace().nth(1).unwrap().to_owned()
            };
            let confined = field("NoNewPrivs:") == "1" && field("Seccomp:") == "2";
            Some((field("Name:"), field("CapEff:"), confined))
        })
        .collect()
}

fn write(path: &Path, body: &str) {
    fs::write(
        path,
        format!("iface = [\"up0\", \"dn0\"]\nsettle = 200\n{body}"),
    )
    .unwrap();
}

fn play(lab: &Lab, scenario: &str) {
    lab.play(&[scenario]);
    // Until what it made is settled.
    std::thread::sleep(Duration::from_millis(600));
}

fn resets(path: &Path) -> Vec<Value> {
    let all = if path.exists() {
        records(path)
    } else {
        Vec::new()
    };
    lab::records::resets(&all).into_iter().cloned().collect()
}

/// Numbers at the end of the records' ids.
fn numbers(path: &Path) -> BTreeSet<u64> {
    let all = if path.exists() {
        records(path)
    } else {
        Vec::new()
    };
    let number = |record: &Value| {
        let id = record["event"]["id"].as_str().unwrap();
        id.rsplit('-').next().unwrap().parse().unwrap()
    };
    all.iter().map(number).collect()
}

fn await_file(path: &Path, sensor: &Sensor) {
    let end = Instant::now() + Duration::from_secs(30);
    while !path.exists() {
        assert!(Instant::now() < end, "{}", sensor.said());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn await_reloads(count: usize, sensor: &Sensor) {
    let end = Instant::now() + Duration::from_secs(30);
    let done = "the configuration was read again";
    while sensor.said().matches(done).count() < count {
        assert!(Instant::now() < end, "{}", sensor.said());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Hears what a service manager would, until `enough`.
fn hear(socket: &UnixDatagram, enough: impl Fn(&str) -> bool) -> String {
    let (mut heard, mut bytes) = (String::new(), [0; 4096]);
    let end = Instant::now() + Duration::from_secs(30);
    socket
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    while !enough(&heard) && Instant::now() < end {
        if let Ok(length) = socket.recv(&mut bytes) {
            heard += &text(&bytes[..length]);
            heard.push('\n');
        }
    }
    heard
}

fn assert_a_new_mac_is_followed(lab: &Lab, sensor: &Sensor) {
    let mac = lab
        .shell("lb", "cat /sys/class/net/up0/address")
        .trim()
        .to_owned();
    lab.shell("lb", "ip link set up0 address 02:00:00:00:77:77");
    assert!(
        sensor.await_line("up0 has the address 02-00-00-00-77-77 now"),
        "{}",
        sensor.said()
    );
    lab.shell("lb", &format!("ip link set up0 address {mac}"));
    let shown = mac.replace(':', "-").to_uppercase();
    assert!(
        sensor.await_line(&format!("up0 has the address {shown} now")),
        "{}",
        sensor.said()
    );
}

#[test]
#[ignore = "needs root"]
fn with_the_units_capabilities_it_starts_gives_them_up_and_does_what_is_late() {
    let lab = Lab::up();
    let before = lab.state();
    fs::set_permissions(&lab.dir, fs::Permissions::from_mode(0o777)).unwrap();
    let config = lab.dir.join("rstscope.toml");
    let (output, spool) = (lab.output(), lab.spool());
    write(
        &config,
        &format!("output = [{output:?}]\nspool = {spool:?}\n"),
    );
    let address = lab.dir.join("notify");
    let manager = UnixDatagram::bind(&address).unwrap();
    fs::set_permissions(&address, fs::Permissions::from_mode(0o777)).unwrap();
    let mut started = units_user(&lab, &["run", "--config", config.to_str().unwrap()]);
    started
        .env("NOTIFY_SOCKET", &address)
        .env("WATCHDOG_USEC", "600000");
    let mut sensor = Sensor::spawn(started);
    let heard = hear(&manager, |heard| heard.matches("WATCHDOG=1").count() >= 2);
    assert!(
        heard.contains("READY=1") && heard.contains("WATCHDOG=1"),
        "{heard}{}",
        sensor.said()
    );

    let found = threads(sensor.child.id());
    assert!(found.len() >= 5, "{found:?}");
    for (name, capabilities, is_confined) in &found {
        let main = name == "rstscope";
        let expected = if main { NET_ADMIN } else { "0000000000000000" };
        assert_eq!(
            (capabilities.as_str(), is_confined),
            (expected, &true),
            "{name}"
        );
    }

    // Late: a new MAC is followed, a file that was moved away is made anew.
    assert_a_new_mac_is_followed(&lab, &sensor);
    fs::rename(lab.records_path(), lab.dir.join("moved")).unwrap_or_default();
    lab.assert_traffic_flows();
    play(&lab, "client_abort");
    assert!(!resets(&lab.records_path()).is_empty(), "{}", sensor.said());

    sensor.signal("HUP");
    let heard = hear(&manager, |heard| heard.contains("READY=1"));
    assert!(
        heard.contains("RELOADING=1") && heard.contains("MONOTONIC_USEC="),
        "{heard}"
    );
    assert_eq!(sensor.stop(), Some(0), "{}", sensor.said());
    assert!(hear(&manager, |heard| heard.contains("STOPPING=1")).contains("STOPPING=1"));
    assert!(
        sensor.said().matches("the ledger balances").count() == 2,
        "{}",
        sensor.said()
    );
    assert_eq!(lab.state(), before);
}

#[test]
#[ignore = "needs root"]
fn a_reload_under_traffic_loses_no_record_and_leads_out_of_no_folder() {
    let lab = Lab::up();
    let (config, second) = (lab.dir.join("rstscope.toml"), lab.dir.join("second"));
    let first = format!("output = [\"{}\"]\n", lab.output());
    write(&config, &first);
    let path = config.to_str().unwrap();
    let mut sensor = Sensor::spawn(lab.exec("lb", &[BINARY, "run", "--config", path]));
    assert!(sensor.await_line("rstscope: ready"), "{}", sensor.said());
    let traffic = lab.requests(600);
    play(&lab, "client_abort");

    write(&config, "setle = 3\n");
    sensor.signal("HUP");
    assert!(
        sensor.await_line("did you mean `settle`?"),
        "{}",
        sensor.said()
    );
    assert!(sensor.said().contains("the configuration stays as it was"));

    // Root may write to both, but the sensor no longer: one is a folder that is not its own, the other
    // a device.
    for outside in ["/etc/rstscope-escaped", "/dev/kmsg"] {
        write(&config, &format!("output = [\"file://{outside}\"]\n"));
        sensor.signal("HUP");
        let refused = format!("the outputs stay as they were: output {outside}: cannot open");
        assert!(sensor.await_line(&refused), "{}", sensor.said());
        std::thread::sleep(Duration::from_millis(300));
    }
    assert!(!Path::new("/etc/rstscope-escaped").exists());
    play(&lab, "client_abort");
    let device = "[[own_device]]\nname = \"fw9\"\nhop_limit = \"0-255\"\n";
    let url = format!("output = [\"file://{}\"]\n", second.display());
    write(&config, &format!("{url}mode = \"mirror\"\n{device}"));
    sensor.signal("HUP");
    assert!(
        sensor.await_line("mode has changed: that takes a restart"),
        "{}",
        sensor.said()
    );
    // Then the first is closed; until then records of the traffic go there.
    await_reloads(3, &sensor);
    await_file(&second, &sensor);
    let in_first = resets(&lab.records_path()).len();
    assert!(in_first >= 2, "{}", sensor.said());
    play(&lab, "forged_wrong_ttl");
    play(&lab, "client_abort");
    lab::assert_all_succeeded(traffic);
    assert_eq!(sensor.stop(), Some(0), "{}", sensor.said());
    assert!(
        sensor.said().matches("the ledger balances").count() == 2,
        "{}",
        sensor.said()
    );

    assert_eq!(
        resets(&lab.records_path()).len(),
        in_first,
        "the first is closed"
    );
    let later = resets(&second);
    let forged: Vec<_> = later
        .iter()
        .filter(|r| r["rstscope"]["verdict"] == "injected")
        .collect();
    assert!(
        !forged.is_empty() && forged.iter().all(|r| r["rstscope"]["device"] == "fw9"),
        "{later:?}"
    );
    let mut all = numbers(&lab.records_path());
    let in_second = numbers(&second);
    assert!(all.is_disjoint(&in_second), "no record twice");
    all.extend(in_second);
    let expected: BTreeSet<u64> = (1..=all.len() as u64).collect();
    assert_eq!(all, expected, "none missing");
}

#[test]
fn the_unit_is_understood_and_confines() {
    let Ok(score) = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--threshold=40", UNIT])
        .output()
    else {
        println!("skipped: systemd-analyze is not here");
        return;
    };
    let said = text(&score.stdout);
    if said.is_empty() {
        println!(
            "skipped: this systemd-analyze has no --offline: {}",
            text(&score.stderr)
        );
        return;
    }
    assert!(score.status.success(), "{said}");
    let verified = command("systemd-analyze", &["verify", UNIT])
        .output()
        .unwrap();
    // What is installed by the package is not here yet.
    let complaints: Vec<String> = text(&verified.stderr)
        .lines()
        .filter(|line| line.contains("rstscope.service"))
        .filter(|line| !line.contains("is not executable") && !line.contains("Command 'man"))
        .map(ToOwned::to_owned)
        .collect();
    assert_eq!(complaints, Vec::<String>::new());
}

//! What `rstscope read` says of labeled captures, against thresholds that must not fall, and of the
//! lab's vectors, against what each must give. The captures have licenses of their own and are not
//! part of this repository: where they are not beside it, the tests say so and skip.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test stops where it cannot go on, and says aloud what it skips"
)]

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The folder of the captures, or `None` after saying that the test is skipped.
fn captures() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/captures");
    if folder.is_dir() {
        return Some(folder);
    }
    println!(
        "skipped: there are no labeled captures at {}",
        folder.display()
    );
    None
}

/// The reset records of one file.
fn read(path: &Path, more: &[&str]) -> Vec<Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_rstscope"))
        .arg("read")
        .arg(path)
        .args(["--output", "-"])
        .args(more)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", path.display());
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|record: &Value| record["event"]["dataset"] == "rstscope.reset")
        .collect()
}

fn end(record: &Value, side: &str) -> String {
    let address: IpAddr = record[side]["ip"].as_str().unwrap().parse().unwrap();
    format!("{address}|{}", record[side]["port"])
}

/// Both ends of a flow, in an order that does not depend on who sent what.
fn flow(a: String, b: String) -> (String, String) {
    if a < b { (a, b) } else { (b, a) }
}

/// How many flows of one kind there are, and how many are judged right.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    flows: u32,
    right: u32,
    alarms: u32,
}

impl Tally {
    fn rate(self) -> f64 {
        f64::from(self.right) / f64::from(self.flows.max(1))
    }
}

/// The scores over FLOWS.tsv: a tally by truth and baseline, and the Brier score.
fn score(folder: &Path) -> (BTreeMap<(String, String), Tally>, f64) {
    let table = fs::read_to_string(folder.join("FLOWS.tsv")).unwrap();
    let mut lines = table.lines();
    let header: Vec<&str> = lines.next().unwrap().split('\t').collect();
    let column = |name: &str| header.iter().position(|known| *known == name).unwrap();
    let columns = ["path", "a", "b", "truth", "base"].map(column);
    let mut files: HashMap<String, Vec<Value>> = HashMap::new();
    let mut tallies: BTreeMap<(String, String), Tally> = BTreeMap::new();
    let (mut squares, mut calls) = (0.0, 0.0);
    for line in lines {
        let cells: Vec<&str> = line.split('\t').collect();
        let [path, a, b, truth, base] = columns.map(|at| cells[at].to_owned());
        if truth == "crafted" || truth == "undetermined" {
            continue;
        }
        let records = files
            .entry(path.clone())
            .or_insert_with(|| read(&folder.join(&path), &[]));
        let wanted = flow(a, b);
        let forged = truth != "genuine";
        let (mut injected, mut cleared) = (false, false);
        for record in records.iter() {
            if flow(end(record, "source"), end(record, "destination")) != wanted {
                continue;
            }
            let scope = &record["rstscope"];
            let verdict = scope["verdict"].as_str().unwrap();
            let clears = matches!(verdict, "remote" | "local" | "forwarded");
            injected |= verdict == "injected";
            cleared |= clears;
            let Some(confidence) = scope["confidence"].as_f64() else {
                continue;
            };
            if clears || verdict == "injected" {
                let third_party = if clears { 1.0 - confidence } else { confidence };
                squares += (third_party - f64::from(u8::from(forged))).powi(2);
                calls += 1.0;
            }
        }
        let tally = tallies.entry((truth, base)).or_default();
        tally.flows += 1;
        tally.right += u32::from(if forged {
            injected
        } else {
            cleared && !injected
        });
        tally.alarms += u32::from(!forged && injected);
    }
    (tallies, squares / calls)
}

#[test]
fn the_labeled_captures_are_judged_as_people_judged_them() {
    let Some(folder) = captures() else { return };
    let (tallies, brier) = score(&folder);
    let tally = |truth: &str, base: &str| tallies[&(truth.to_owned(), base.to_owned())];
    let with_base = |truth: &str| tally(truth, "yes");
    println!("{tallies:?}, Brier {brier:.4}");
    assert!(with_base("injected").rate() >= 0.98);
    assert!(with_base("middlebox").rate() >= 0.85);
    assert!(with_base("genuine").rate() >= 0.90);
    // What other flows of the same device tell where nothing of the sender was heard.
    assert!(tally("middlebox", "no").rate() >= 0.80);
    assert_eq!(tallies.values().map(|t| t.alarms).sum::<u32>(), 0);
    assert!(brier <= 0.05, "Brier score {brier:.4}");
}

/// The script reads weights, groups and lists out of the sources, and adds up by itself: a change of either
/// that it does not follow would make its figures those of another sensor.
#[test]
fn the_calibration_adds_up_as_the_sensor_does() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/calibrate");
    let calibrate = |more: &[&str]| {
        let mut run = Command::new("/usr/bin/python3");
        run.arg(script).arg(env!("CARGO_BIN_EXE_rstscope"));
        let done = run.args(more).output().unwrap();
        let errors = String::from_utf8_lossy(&done.stderr).into_owned();
        (String::from_utf8(done.stdout).unwrap(), errors)
    };
    let (_, errors) = calibrate(&["/nowhere"]);
    let reason = "calibrate: there are no labeled captures at /nowhere\n";
    assert_eq!(errors, reason, "the sources are not understood");
    if captures().is_none() {
        return;
    }
    let (said, errors) = calibrate(&[]);
    let words: Vec<&str> = said.lines().next().expect(&errors).split(' ').collect();
    let numbers: Vec<u32> = words.iter().filter_map(|word| word.parse().ok()).collect();
    let [same, all] = numbers[..] else {
        panic!("{said}")
    };
    assert_eq!(same, all, "verdicts of the script and of the sensor");
    assert!(all > 200, "{all} records");
}

/// Vector, verdict and causes of its first record with the server as this host; none where nothing
/// is to be said.
const AT_SERVER: &[(&str, &str, &[&str])] = &[
    ("closed_port", "local", &["kernel"]),
    ("data_after_close", "local", &["kernel"]),
    ("fin_then_rst", "local", &["kernel"]),
    ("ack_to_listener", "local", &["kernel"]),
    ("linger0", "local", &["process"]),
    ("unread", "local", &["process"]),
    ("ssK", "local", &["process"]),
    ("keepalive", "local", &["process", "kernel"]),
    ("listener_close", "local", &["process"]),
    ("ttl", "local", &["process"]),
    // Whether a filter or TCP sent it only the kernel's events tell, which a capture lacks.
    ("nft_local_in", "local", &["kernel", "firewall"]),
    ("hap_hc", "local", &["process"]),
    ("hap_idle", "local", &["process"]),
    ("hap_http_400", "local", &["process"]),
    ("hap_http_idle", "local", &["process"]),
    ("hap_client_rst", "remote", &["abort"]),
    ("hap_server_rst", "remote", &["abort"]),
    ("client_abort_ipid", "remote", &["abort"]),
    ("client_unread", "remote", &["abort"]),
    ("client_fin_then_rst", "remote", &["answer"]),
    ("zmap_like", "remote", &["answer"]),
    ("genuine_inwindow", "remote", &["abort"]),
    ("blind_inwindow", "injected", &["blind"]),
    ("blind_oow", "injected", &["blind"]),
    ("forged_exact_badack", "injected", &["on_path"]),
    ("forge_burst", "injected", &["on_path"]),
    ("v6_closed", "local", &["kernel"]),
    ("v6_linger", "local", &["process"]),
];

/// The same with the client as this host.
const AT_CLIENT: &[(&str, &str, &[&str])] = &[
    ("closed_port", "remote", &["refused"]),
    ("data_after_close", "remote", &["answer"]),
    ("fin_then_rst", "remote", &["answer"]),
    ("linger0", "remote", &["abort"]),
    ("unread", "remote", &["abort"]),
    ("ssK", "remote", &["abort"]),
    ("keepalive", "remote", &["abort"]),
    ("listener_close", "remote", &["abort"]),
    // A socket with a TTL of its own is no third party.
    ("ttl", "remote", &["abort"]),
    ("client_abort_ipid", "local", &["process"]),
    ("client_unread", "local", &["process"]),
    ("client_fin_then_rst", "local", &["kernel"]),
    ("zmap_like", "local", &["kernel"]),
    ("syn_rst_badack", "injected", &["on_path", "middlebox"]),
    // A firewall next to the server is not to be told from it: known to be missed.
    ("nft_router", "remote", &["answer"]),
    ("nft_router_syn", "remote", &["refused"]),
    // The server's kernel answers the client, whose connection a forged reset had ended there.
    ("forged_exact_badack", "remote", &["answer", "consequence"]),
    ("forge_burst", "remote", &["answer", "consequence"]),
    ("hap_hc", "remote", &["abort"]),
    ("v6_closed", "remote", &["refused"]),
    ("v6_linger", "remote", &["abort"]),
];

fn check_vectors(end: &str, local: [&str; 2], table: &[(&str, &str, &[&str])]) {
    let Some(folder) = captures() else { return };
    for (vector, verdict, causes) in table {
        let path = folder.join(format!("vectors/{vector}.{end}.pcap"));
        let records = read(&path, &["--local", local[0], "--local", local[1]]);
        let first = records
            .first()
            .unwrap_or_else(|| panic!("{vector}: no record"));
        let scope = &first["rstscope"];
        assert_eq!(scope["verdict"], *verdict, "{vector} at the {end}");
        let cause = scope["cause"].as_str().unwrap();
        assert!(causes.contains(&cause), "{vector} at the {end}: {cause}");
        if *verdict != "injected" {
            let none = records
                .iter()
                .all(|r| r["rstscope"]["verdict"] != "injected");
            assert!(none, "{vector} at the {end}: a false alarm");
        }
    }
}

#[test]
fn the_vectors_give_what_they_must_at_the_server() {
    check_vectors("server", ["10.2.0.2", "fd02::2"], AT_SERVER);
}

#[test]
fn the_vectors_give_what_they_must_at_the_client() {
    check_vectors("client", ["10.1.0.2", "fd01::2"], AT_CLIENT);
}

#[test]
fn where_no_reset_is_nothing_is_said() {
    let Some(folder) = captures() else { return };
    for vector in ["usertimeout.server", "usertimeout.client", "backlog.server"] {
        let path = folder.join(format!("vectors/{vector}.pcap"));
        assert!(read(&path, &[]).is_empty(), "{vector}");
    }
}

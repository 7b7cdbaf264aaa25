//! The numbers of a running sensor: over HTTP, as Prometheus' own tool judges them, and on a terminal.
//! The built binary in the lab; needs root.

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
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lab::{BINARY, Lab, text};

const ADDRESS: &str = "127.0.0.1:9477";

fn fetch(lab: &Lab, path: &str, accept: &str) -> (String, String) {
    let url = format!("http://{ADDRESS}{path}");
    let accept = format!("Accept: {accept}");
    let words = ["curl", "-s", "-w", "\n%{http_code}", "-H", &accept, &url];
    let said = text(&lab.exec("lb", &words).output().unwrap().stdout);
    let (body, status) = said.rsplit_once('\n').unwrap();
    (body.to_owned(), status.to_owned())
}

/// The sum of all series of a family whose labels hold these words.
fn sum(body: &str, family: &str, labels: &str) -> u64 {
    let lines = body.lines().filter(|line| {
        let rest = line.strip_prefix(family);
        rest.is_some_and(|rest| rest.starts_with([' ', '{'])) && line.contains(labels)
    });
    lines
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum()
}

/// promtool: `PROMTOOL` names it, or `scripts/setup` has unpacked it, or it is installed.
fn promtool() -> PathBuf {
    let unpacked = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/target/tools/prometheus/usr/bin/promtool"
    );
    match std::env::var_os("PROMTOOL") {
        Some(path) => path.into(),
        None if Path::new(unpacked).exists() => unpacked.into(),
        None => "promtool".into(),
    }
}

/// What promtool has against it.
fn judged(body: &str) -> String {
    let mut tool = Command::new(promtool())
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool: scripts/setup, or PROMTOOL names it");
    tool.stdin
        .take()
        .unwrap()
        .write_all(body.as_bytes())
        .unwrap();
    let done = tool.wait_with_output().unwrap();
    text(&done.stdout) + &text(&done.stderr)
}

/// Every family that is served is in docs/metrics.md, and no other is.
fn assert_documented(body: &str) {
    let served: BTreeSet<&str> = body
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    let text = include_str!("../docs/metrics.md");
    let rows = text.lines().filter(|line| line.starts_with("| `rstscope_"));
    let documented: BTreeSet<&str> = rows
        .filter_map(|row| row.split('|').nth(1))
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect();
    assert_eq!(served, documented);
}

#[test]
#[ignore = "needs root"]
fn numbers_agree_with_what_was_done_and_hold_no_address() {
    let lab = Lab::up();
    let mut sensor = lab.sensor(&["--metrics", ADDRESS, "--settle", "200"]);
    lab.assert_traffic_flows();
    let play = lab
        .python("scenarios.py", &["--run", "forged_wrong_ttl"])
        .output()
        .unwrap();
    assert!(play.status.success(), "{}", text(&play.stderr));
    let end = Instant::now() + Duration::from_secs(10);
    let body = loop {
        let (body, status) = fetch(&lab, "/metrics", "text/plain");
        assert_eq!(status, "200");
        let found = sum(&body, "rstscope_records_total", "verdict=\"injected\"") > 0;
        if found || Instant::now() > end {
            break body;
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    assert_eq!(
        sum(&body, "rstscope_records_total", "verdict=\"injected\""),
        1,
        "{body}"
    );
    // 50 connections: the client's SYN at one interface, the backend's SYN-ACK and FIN at the other.
    // Whether the client gets to its FIN hangs on how the proxy closes. A worker that this machine
    // keeps waiting for longer than the heartbeat limit is passed by: those frames are counted so.
    let flagged = |interface: &str| {
        let interface = format!("{{interface=\"{interface}\"");
        let frames: Vec<&str> = body
            .lines()
            .filter(|line| line.contains(&interface))
            .collect();
        let of = |reason: &str| sum(&frames.join("\n"), "rstscope_frames_total", reason);
        of("reason=\"redirected\"") + of("reason=\"bypass_")
    };
    assert!(flagged("dn0") >= 50, "{body}");
    assert!(flagged("up0") >= 100, "{body}");
    let redirected = sum(&body, "rstscope_frames_total", "reason=\"redirected\"");
    let stage = |name: &str| sum(&body, "rstscope_worker_frames_total", name);
    assert_eq!(stage("stage=\"received\""), redirected);
    assert_eq!(stage("stage=\"received\""), stage("stage=\"handed_back\""));
    assert_eq!(sum(&body, "rstscope_dropped_total", ""), 0, "{body}");
    assert_eq!(sum(&body, "rstscope_worker_running", ""), 2);
    assert_documented(&body);
    assert!(sum(&body, "rstscope_handback_seconds_count", "") > 0);
    assert!(sum(&body, "rstscope_verdict_seconds_count", "") > 0);
    assert!(sum(&body, "rstscope_flows", "") > 0, "{body}");
    for address in ["10.77.", "fd77:", "8080"] {
        let labels = body.lines().filter(|line| !line.starts_with('#'));
        let mut holds = labels
            .filter_map(|line| line.split_once('{'))
            .map(|(_, rest)| rest);
        assert!(!holds.any(|rest| rest.contains(address)), "{address}");
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(fetch(&lab, path, "*/*").1, "200", "{path}");
    }
    let (open, _) = fetch(
        &lab,
        "/metrics",
        "application/openmetrics-text; version=1.0.0",
    );
    assert!(open.ends_with("# EOF\n"), "{open}");

    let stats = lab.exec("lb", &[BINARY, "stats"]).output().unwrap();
    let said = text(&stats.stdout);
    assert!(stats.status.success(), "{}", text(&stats.stderr));
    assert!(
        said.contains(&format!("process {}", sensor.child.id())),
        "{said}"
    );
    assert!(
        said.contains("injected") && said.contains("up0 0 redirected"),
        "{said}"
    );
    for help in body.lines().filter_map(|line| line.strip_prefix("# HELP ")) {
        let (_, help) = help.split_once(' ').unwrap();
        assert!(said.contains(help), "{help}: {said}");
    }
    // The ledger is the first that it says of each interface, and nothing is under way by now.
    let ledgers: Vec<&str> = said.lines().skip(1).take(2).collect();
    for (line, interface) in ledgers.iter().zip(["up0", "dn0"]) {
        let (begins, ends) = (format!("{interface}: "), "the ledger balances");
        assert!(line.starts_with(&begins) && line.ends_with(ends), "{said}");
        assert!(line.contains(", 0 under way,"), "{line}");
    }
    let entry = |interface: &str, name: &str| {
        let label = format!("{{interface=\"{interface}\",entry=\"{name}\"}}");
        sum(&body, "rstscope_ledger_frames", &label)
    };
    for interface in ["up0", "dn0"] {
        assert!(entry(interface, "received") >= 50, "{body}");
        assert_eq!(
            entry(interface, "received"),
            entry(interface, "handed_back")
        );
    }
    assert_eq!(sum(&body, "rstscope_ledger_balances", ""), 2, "{body}");
    let other = lab.exec("cl", &[BINARY, "stats"]).output().unwrap();
    assert_eq!(other.status.code(), Some(1), "none runs there");

    lab.shell("lb", "ip link delete dn0");
    let end = Instant::now() + Duration::from_secs(10);
    while fetch(&lab, "/readyz", "*/*").1 != "503" {
        assert!(
            Instant::now() < end,
            "an interface that is gone is not ready"
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(fetch(&lab, "/healthz", "*/*").1, "200");
    sensor.stop();
    assert_eq!(judged(&body), "", "promtool");
}

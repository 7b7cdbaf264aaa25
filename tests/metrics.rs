//! The numbers of a running sensor: over HTTP, as Prometheus and its own tool judge them, and on a terminal.
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
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lab::{BINARY, Lab, first_line, text};
use serde_json::Value;

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

/// Where `scripts/setup` unpacks Prometheus.
const UNPACKED: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/target/tools/prometheus/usr/bin"
);

/// A program of Prometheus': a variable names it, or `scripts/setup` has unpacked it, or it is installed.
fn program(name: &str) -> PathBuf {
    let unpacked = Path::new(UNPACKED).join(name);
    match std::env::var_os(name.to_uppercase()) {
        Some(path) => path.into(),
        None if unpacked.exists() => unpacked,
        None => name.into(),
    }
}

/// What promtool has against it.
fn judged(body: &str) -> String {
    let mut tool = Command::new(program("promtool"))
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
    let second = format!("file://{}?name=10.77.9.9", lab.dir.join("second").display());
    let words = ["--metrics", ADDRESS, "--settle", "200", "--output", &second];
    let mut sensor = lab.sensor(&words);
    lab.assert_traffic_flows();
    let (before, _) = fetch(&lab, "/metrics", "text/plain");
    let none_yet = "rstscope_records_total{verdict=\"injected\",cause=\"blind\"} 0\n";
    assert!(
        before.contains(none_yet),
        "a first record is an increase: {before}"
    );
    lab.play(&["forged_wrong_ttl"]);
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
    let injected = sum(&body, "rstscope_records_total", "verdict=\"injected\"");
    assert_eq!(injected, 1, "{body}");
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
    // Also of one that has a name of its own.
    let named = "output=\"1\",kind=\"file\",fate=\"delivered\"";
    assert!(
        sum(&body, "rstscope_output_records_total", named) > 0,
        "{body}"
    );
    for counted in ["handback_seconds_count", "verdict_seconds_count", "flows"] {
        let name = format!("rstscope_{counted}");
        assert!(sum(&body, &name, "") > 0, "{name}: {body}");
    }
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
    // What is zero is named at the end.
    let (shown, zero) = said.split_once("None of these").unwrap();
    let zero: Vec<&str> = zero.split([',', ' ', '\n']).collect();
    for help in body.lines().filter_map(|line| line.strip_prefix("# HELP ")) {
        let (name, help) = help.split_once(' ').unwrap();
        let name = name
            .trim_start_matches("rstscope_")
            .trim_end_matches("_total");
        assert_ne!(shown.contains(help), zero.contains(&name), "{name}: {said}");
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

/// Whoever may connect can have the sensor without a file or a thread to be had: that may cost him an answer.
#[test]
#[ignore = "needs root"]
fn who_connects_at_any_limit_ends_neither_the_sensor_nor_its_answers() {
    let lab = Lab::up();
    let mut sensor = lab.sensor(&["--metrics", ADDRESS]);
    let pid = sensor.child.id();
    let limit = |files: usize| {
        let words = format!("prlimit --pid {pid} --nofile={files}:1024 2>&1");
        assert_eq!(lab.shell("lb", &words), "");
    };
    let open = || fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let silent = |count: usize| {
        let script = format!(
            "import socket, sys; all = [socket.create_connection(('127.0.0.1', 9477)) for _ in range({count})]; \
             print('ready', flush=True); sys.stdin.read()"
        );
        let words = ["/usr/bin/python3", "-c", &script];
        let mut child = lab
            .exec("lb", &words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        assert_eq!(first_line(&mut child), "ready\n");
        child
    };
    for room in [0, 1, 2, 3] {
        limit(open() + room);
        let mut child = silent(40);
        lab.exec("lb", &[BINARY, "stats"]).output().unwrap();
        drop(child.stdin.take());
        child.wait().unwrap();
        limit(1024);
        // Those before it have their time.
        let end = Instant::now() + Duration::from_secs(60);
        while fetch(&lab, "/healthz", "*/*").1 != "200" {
            assert!(Instant::now() < end, "{room}: {}", sensor.said());
        }
        let stats = lab.exec("lb", &[BINARY, "stats"]).output().unwrap();
        assert!(stats.status.success(), "{room}: {}", text(&stats.stderr));
    }
    // As many as there is room for in the queue of a listening socket: it makes no thread for any of them.
    let status = || fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let threads = || {
        let status = status();
        let line = status.lines().find(|line| line.starts_with("Threads:"));
        line.unwrap().to_owned()
    };
    let before = threads();
    let mut child = silent(100);
    assert_eq!(threads(), before);
    drop(child.stdin.take());
    child.wait().unwrap();
    lab.assert_traffic_flows();
    assert_eq!(sensor.stop(), Some(0), "{}", sensor.said());
}

/// Prometheus in the load balancer host's namespace, which asks the sensor every second.
struct Prometheus<'a> {
    lab: &'a Lab,
    child: Child,
}

impl<'a> Prometheus<'a> {
    const ADDRESS: &'static str = "127.0.0.1:9490";

    fn start(lab: &'a Lab) -> Self {
        let (config, data) = (lab.dir.join("prometheus.yml"), lab.dir.join("prometheus"));
        let text = format!(
            "global: {{scrape_interval: 1s}}\nscrape_configs:\n- job_name: rstscope\n  \
             static_configs: [{{targets: ['{ADDRESS}']}}]\n"
        );
        std::fs::write(&config, text).unwrap();
        let words = [
            program("prometheus").display().to_string(),
            format!("--config.file={}", config.display()),
            format!("--storage.tsdb.path={}", data.display()),
            format!("--web.listen-address={}", Self::ADDRESS),
            "--log.level=error".to_owned(),
        ];
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let child = lab.exec("lb", &words).spawn().unwrap();
        Self { lab, child }
    }

    /// What it answers to a question; `None` while it does not, or says that the question is wrong.
    fn ask(&self, path: &str, question: &str) -> Option<Value> {
        let url = format!("http://{}/api/v1/{path}", Self::ADDRESS);
        let words = ["curl", "-s", "-G", "--data-urlencode", question, &url];
        let said = self.lab.exec("lb", &words).output().unwrap();
        let answer: Value = serde_json::from_slice(&said.stdout).ok()?;
        (answer["status"] == "success").then(|| answer["data"].clone())
    }

    /// How many series a query gives.
    fn series(&self, query: &str) -> Option<usize> {
        let data = self.ask("query", &format!("query={query}"))?;
        Some(data["result"].as_array()?.len())
    }
}

impl Drop for Prometheus<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "needs root"]
fn prometheus_takes_the_numbers_and_answers_every_panel_of_the_dashboard() {
    let lab = Lab::up();
    let mut sensor = lab.sensor(&["--metrics", ADDRESS, "--settle", "200"]);
    let prometheus = Prometheus::start(&lab);
    let end = Instant::now() + Duration::from_secs(60);
    while prometheus.series("rstscope_worker_running == 1") != Some(2) {
        assert!(Instant::now() < end, "Prometheus has no numbers");
        std::thread::sleep(Duration::from_millis(200));
    }
    // A rate needs two values: before and after.
    lab.assert_traffic_flows();
    lab.play(&["forged_wrong_ttl"]);
    let injected = "rstscope_records_total{verdict=\"injected\"} == 1";
    while prometheus.series(injected) != Some(1) {
        assert!(Instant::now() < end, "the record is not counted");
        std::thread::sleep(Duration::from_millis(200));
    }
    std::thread::sleep(Duration::from_millis(1200));

    let name = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/packaging/siem/grafana/sensors.json"
    );
    let dashboard: Value = serde_json::from_slice(&std::fs::read(name).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().unwrap());
    let mut asked = 0;
    for target in targets {
        // What Grafana puts in the place of its variables.
        let query = target["expr"].as_str().unwrap();
        let query = query
            .replace("$instance", ".*")
            .replace("$__rate_interval", "1m");
        let query = query.replace("$__range", "1m");
        assert!(!query.contains('$'), "{query}");
        let series = prometheus.series(&query);
        assert!(series.is_some_and(|count| count > 0), "{series:?}: {query}");
        asked += 1;
    }
    assert!(asked >= 15, "{asked}");
    let instances = prometheus.ask("label/instance/values", "match[]=rstscope_worker_running");
    assert_eq!(instances, Some(serde_json::json!([ADDRESS])));
    // Not one line that it could not read: it gives the whole scrape up then.
    let whole = "min_over_time(up{job=\"rstscope\"}[5m]) == 1";
    assert_eq!(prometheus.series(whole), Some(1));
    drop(prometheus);
    assert_eq!(sensor.stop(), Some(0), "{}", sensor.said());
}

//! A real Envoy between real TCP, and the built binary beside it: which of its resets are whose, and what for. Its
//! worker threads have names of their own, and it ends its two legs otherwise than HAProxy and nginx. Needs root, and Envoy, which
//! `scripts/setup` puts into `target/venv`.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that cannot go on fails; it may print and wait"
)]

#[path = "support/kernel.rs"]
mod kernel;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

/// The load balancer's namespace, the clients' and the backend's.
const PLACES: [&str; 3] = ["envoy_lb", "envoy_cl", "envoy_be"];

fn ip(line: &str) -> bool {
    let ip = Command::new("ip")
        .args(line.split(' '))
        .stderr(Stdio::null())
        .status();
    ip.unwrap().success()
}

/// The network, which goes with it.
struct Net;

impl Net {
    fn new() -> Self {
        Self::clear();
        for line in [
            "netns add envoy_lb",
            "netns add envoy_cl",
            "netns add envoy_be",
            "link add up0 netns envoy_lb type veth peer name c0 netns envoy_cl",
            "link add dn0 netns envoy_lb type veth peer name b0 netns envoy_be",
            "-n envoy_lb addr add 10.88.1.1/24 dev up0",
            "-n envoy_cl addr add 10.88.1.2/24 dev c0",
            "-n envoy_lb addr add 10.88.2.1/24 dev dn0",
            "-n envoy_be addr add 10.88.2.2/24 dev b0",
            "-n envoy_lb link set up0 up",
            "-n envoy_lb link set dn0 up",
            "-n envoy_cl link set c0 up",
            "-n envoy_be link set b0 up",
        ] {
            assert!(ip(line), "ip {line}");
        }
        Self
    }

    /// With all that runs there, be it from a run that was killed.
    fn clear() {
        for place in PLACES {
            let pids = Command::new("ip").args(["netns", "pids", place]).output();
            let pids = pids.map(|output| output.stdout).unwrap_or_default();
            for pid in String::from_utf8_lossy(&pids).lines() {
                let _ = Command::new("kill").args(["-9", pid]).status();
            }
            let _ = ip(&format!("netns del {place}"));
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        Self::clear();
    }
}

/// A program in one of the places, which ends with it.
struct Running(Child);

impl Running {
    /// Starts it and waits until it has said that on standard output or error.
    fn start(place: &str, program: &Path, arguments: &[&str], ready: &str) -> Self {
        let mut command = Command::new("ip");
        command.args([
            "netns",
            "exec",
            place,
            "sh",
            "-c",
            "exec \"$0\" \"$@\" 2>&1",
        ]);
        command.arg(program).args(arguments);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains(ready) {
            line.clear();
            assert!(said.read_line(&mut line).unwrap() > 0, "{program:?} ended");
        }
        // What it says later nobody waits for.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        Self(child)
    }

    fn signal(&self, name: &str) {
        let pid = self.0.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", name, &pid])
                .status()
                .unwrap()
                .success()
        );
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A client's connection; answers the port that it came from.
fn client(script: &str) -> u64 {
    let prelude = "import socket,struct,time\nsocket.setdefaulttimeout(20)\n\
        def call(port,words):\n s=socket.create_connection(('10.88.1.1',port));s.send(words);return s\n\
        def abort(s):\n s.setsockopt(1,13,struct.pack('ii',1,0));s.close()\n";
    let mut command = Command::new("ip");
    command.args(["netns", "exec", "envoy_cl", "/usr/bin/python3", "-c"]);
    let output = command.arg(format!("{prelude}{script}")).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

fn installed() -> Option<PathBuf> {
    let lib = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/venv/lib");
    let mut pythons = std::fs::read_dir(lib).ok()?.flatten();
    pythons.find_map(|python| {
        let program = python.path().join("site-packages/envoy/_bin/envoy");
        program.is_file().then_some(program)
    })
}

fn start_envoy(program: &Path) -> Running {
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/envoy/envoy.json");
    let arguments = ["-c", config, "--concurrency", "2", "--disable-hot-restart"];
    let running = Running::start(
        PLACES[0],
        program,
        &arguments,
        "starting main dispatch loop",
    );
    // The workers listen a moment later.
    client(
        "for n in range(200):\n s=socket.socket()\n if not s.connect_ex(('10.88.1.1',8001)): break\n time.sleep(.02)\nprint(0)",
    );
    running
}

fn records(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    let all = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    all.filter(|record| record["event"]["dataset"] == "rstscope.reset")
        .collect()
}

/// The record of a connection with that client, and not of Envoy's own connections to the backend, where it is the client.
fn of_client(records: &[Value], port: u64) -> &Value {
    let is_it =
        |record: &&Value| record["client"]["ip"] == "10.88.1.2" && record["client"]["port"] == port;
    records
        .iter()
        .find(is_it)
        .unwrap_or_else(|| panic!("no record of port {port}"))
}

/// The record that names that client's leg as the one before.
fn answer_to(records: &[Value], port: u64) -> &Value {
    let names = |record: &&Value| record["rstscope"]["related"][0]["source"]["port"] == port;
    records
        .iter()
        .find(names)
        .unwrap_or_else(|| panic!("nothing for port {port}"))
}

fn verdict(record: &Value) -> (&str, &str) {
    let word = |name: &str| record["rstscope"][name].as_str().unwrap_or("-");
    (word("verdict"), word("cause"))
}

fn is_by_a_worker(record: &Value) -> bool {
    let process = &record["process"];
    let thread = process["thread"]["name"].as_str().unwrap();
    process["name"] == "envoy" && thread.starts_with("wrk:worker_")
}

/// The ports of clients, by what each met or did.
struct Clients {
    reset: u64,
    refused: u64,
    aborts: u64,
    hang_up: [u64; 3],
}

fn play(envoy: &Running) -> Clients {
    let reset = client(
        "s=call(8001,b'reset');print(s.getsockname()[1])\ntry: s.recv(9)\nexcept OSError: pass",
    );
    let refused = client(
        "s=call(8003,b'hello');print(s.getsockname()[1])\ntry: s.recv(9)\nexcept OSError: pass",
    );
    // While Envoy writes to its client it may meet the reset there, and then it closes the other leg in order.
    let aborts = client("s=call(8001,b'wait');print(s.getsockname()[1]);time.sleep(.3);abort(s)");
    let get = "s=call(8002,b'GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n');s.recv(99);print(s.getsockname()[1])";
    // Between two of the backend's words, which come each 100 ms.
    let hang_up = [(); 3].map(|()| client(&format!("{get};time.sleep(.35);s.close()")));
    std::thread::sleep(Duration::from_millis(300));
    std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            client(&format!(
                "{get}\ntry:\n while s.recv(9999): pass\nexcept OSError: pass"
            ))
        });
        std::thread::sleep(Duration::from_millis(600));
        envoy.signal("KILL");
        client.join().unwrap();
    });
    Clients {
        reset,
        refused,
        aborts,
        hang_up,
    }
}

/// What the kernel resets of connections that Envoy had closed, or had left open.
fn late_answers(records: &[Value], hang_up: [u64; 3]) {
    if !kernel::is_at_least((6, 10)) {
        println!("skipped: what the kernel answers after a close, of which this one does not tell");
        return;
    }
    // Envoy resets the other leg itself where it had not read its last words; else the kernel does at the next ones.
    let late = hang_up.map(|port| answer_to(records, port));
    let is_of_kernel = |record: &Value| verdict(record) == ("local", "kernel");
    for record in late {
        assert!(
            is_of_kernel(record) || verdict(record) == ("forwarded", "proxy"),
            "{record}"
        );
        assert!(is_by_a_worker(record), "{record}");
        assert_eq!(record["destination"]["port"], 9002);
    }
    assert!(late.into_iter().any(is_of_kernel), "{late:#?}");
    // So too when it is killed.
    let is_of_killed = |record: &&Value| {
        let message = record["message"].as_str().unwrap();
        verdict(record).0 == "local" && message.contains("(SIGKILL)")
    };
    let killed = records.iter().find(is_of_killed);
    assert_eq!(killed.expect("of the killed")["process"]["name"], "envoy");
}

#[test]
#[ignore = "needs root"]
fn whose_the_resets_around_envoy_are() {
    let Some(program) = installed() else {
        println!("skipped: no Envoy here: scripts/setup puts one into target/venv");
        return;
    };
    let _net = Net::new();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = folder.join("envoy.jsonl");
    let _ = std::fs::remove_file(&path);
    let output = format!("file://{}", path.display());
    let backend = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/envoy/backend.py");
    let _backend = Running::start(
        PLACES[2],
        Path::new("/usr/bin/python3"),
        &["-B", backend],
        "listening",
    );
    let envoy = start_envoy(&program);
    let sensor = [
        "run", "--iface", "up0", "--iface", "dn0", "--output", &output,
    ];
    let mut sensor = Running::start(
        PLACES[0],
        Path::new(env!("CARGO_BIN_EXE_rstscope")),
        &sensor,
        "ready, watching",
    );

    let clients = play(&envoy);
    std::thread::sleep(Duration::from_secs(2));
    sensor.signal("TERM");
    assert!(sensor.0.wait().unwrap().success());

    let records = records(&path);
    assert!(
        records.iter().all(|record| verdict(record).0 != "injected"),
        "{records:#?}"
    );
    let passed_on = of_client(&records, clients.reset);
    assert_eq!(verdict(passed_on), ("forwarded", "proxy"));
    assert!(is_by_a_worker(passed_on), "{passed_on}");
    assert_eq!(passed_on["rstscope"]["related"][0]["source"]["port"], 9001);
    // It closes its client's leg; a client's first words may come before that or after, when the kernel answers them.
    let passed_on = of_client(&records, clients.refused);
    assert!(
        [("forwarded", "proxy"), ("local", "kernel")].contains(&verdict(passed_on)),
        "{passed_on}"
    );
    assert_eq!(passed_on["rstscope"]["related"][0]["source"]["port"], 9);
    assert_eq!(
        verdict(of_client(&records, clients.aborts)),
        ("remote", "abort")
    );
    assert_eq!(
        verdict(answer_to(&records, clients.aborts)),
        ("forwarded", "proxy")
    );
    for port in clients.hang_up {
        let left = of_client(&records, port);
        assert_eq!(verdict(left), ("remote", "abort"), "{left:#}");
    }
    late_answers(&records, clients.hang_up);
}

//! The lab as a value: made when it is asked for, taken away when it is dropped, whatever the test
//! came to. Starts the sensor in it and listens to what it says.

#![allow(
    dead_code,
    reason = "several test programs share it, and none uses all of it"
)]

#[path = "../support/kernel.rs"]
pub mod kernel;
pub mod records;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use records::promises;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const PYTHON: &str = "/usr/bin/python3";
/// The sensor.
pub const BINARY: &str = env!("CARGO_BIN_EXE_rstscope");
/// What it watches.
pub const INTERFACES: [&str; 4] = ["--iface", "up0", "--iface", "dn0"];

/// The network of namespaces, and a scratch directory that any user may read.
pub struct Lab {
    pub prefix: String,
    pub dir: PathBuf,
}

impl Lab {
    pub fn up() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("rl{}x{number}-", std::process::id());
        let dir = std::env::temp_dir().join(format!("{prefix}records"));
        fs::create_dir_all(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        let lab = Self { prefix, dir };
        let up = command(&format!("{ROOT}/scripts/lab"), &["up", &lab.prefix])
            .output()
            .unwrap();
        assert!(
            up.status.success(),
            "the lab could not be set up: {}",
            text(&up.stderr)
        );
        lab
    }

    /// A command in a namespace, in a session of its own: each host of the lab would have its own CPUs,
    /// and the kernel shares CPUs by session (sched(7), autogroup). In one session with its client, the
    /// sensor had HAProxy wait up to three seconds for a CPU while builds kept both busy.
    pub fn exec(&self, namespace: &str, words: &[&str]) -> Command {
        let namespace = format!("{}{namespace}", self.prefix);
        let mut made = command("setsid", &["ip", "netns", "exec", &namespace]);
        made.args(words);
        made
    }

    pub fn shell(&self, namespace: &str, script: &str) -> String {
        text(
            &self
                .exec(namespace, &["sh", "-c", script])
                .output()
                .unwrap()
                .stdout,
        )
    }

    /// One of the lab's Python programs.
    pub fn python(&self, program: &str, words: &[&str]) -> Command {
        let mut made = command(
            "setsid",
            &[
                PYTHON,
                "-B",
                &format!("{ROOT}/tests/lab/{program}"),
                "--lab",
                &self.prefix,
            ],
        );
        made.args(words);
        made
    }

    /// Plays scenarios, to their end; answers what is true of the resets that they made. `words` begin with
    /// the names.
    pub fn play(&self, words: &[&str]) -> Vec<Value> {
        let mut play = self.python("scenarios.py", &["--run"]);
        let done = play.args(words).output().unwrap();
        assert!(done.status.success(), "{}", text(&done.stderr));
        promises(&done.stdout)
    }

    /// Fetches `count` pages through the proxy, one connection each.
    pub fn requests(&self, count: u32) -> Child {
        self.python("peer.py", &["--http", &count.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Fetches `count` pages; answers how many succeeded and the longest of them.
    pub fn rate(&self, count: u32) -> Rate {
        Rate::of(self.requests(count))
    }

    /// Lets the router take what `up0` sends by a ring of its own, as a NIC would. A veth without it uses
    /// the backlog of the CPU, which all of the machine's share: a flood's answers would fill it, and
    /// push out what the sensor hands back by its own veth.
    pub fn answer_by_a_ring(&self) {
        let done = self.exec("rt", &["ethtool", "-K", "p-lb", "gro", "on"]);
        assert!({ done }.status().unwrap().success(), "no GRO at p-lb");
    }

    /// Connections that the sensors here remember, summed over their flow tables.
    pub fn flows(&self) -> u64 {
        let said = text(&self.exec("lb", &[BINARY, "stats"]).output().unwrap().stdout);
        let is_title = |line: &&str| !line.starts_with("Connections that are remembered");
        let rows = said.lines().skip_while(is_title).skip(1);
        rows.take_while(|line| line.starts_with(' '))
            .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
            .sum()
    }

    pub fn assert_traffic_flows(&self) {
        assert_all_succeeded(self.requests(50));
    }

    pub fn records_path(&self) -> PathBuf {
        self.dir.join("records")
    }

    pub fn output(&self) -> String {
        format!("file://{}", self.records_path().display())
    }

    /// The folder of the sensor's spools, gone with the laboratory.
    pub fn spool(&self) -> String {
        self.dir.join("spool").display().to_string()
    }

    /// What an operator would see of the load balancer host's network: links with their XDP
    /// programs, tc, offloads, addresses, routes, sysctls and firewall; without counters. Before Linux 6.6
    /// also without clsact, which a start makes and leaves (docs/operations.md).
    pub fn state(&self) -> String {
        let state = self.shell(
            "lb",
            "ip -d link; ip address | grep -v valid_lft; ip route show table all; \
             ip -6 route show table all; ip rule; \
             for dev in up0 dn0; do tc qdisc show dev $dev; tc filter show dev $dev ingress; \
             tc filter show dev $dev egress; ethtool -k $dev; ethtool -l $dev; done; nft list ruleset; \
             sysctl -a 2>/dev/null | grep '^net\\.ipv[46]\\.conf\\|^net\\.core'",
        );
        let stays = |line: &str| !has_tcx() && line.starts_with("qdisc clsact ffff:");
        state
            .split_inclusive('\n')
            .filter(|line| !stays(line))
            .collect()
    }

    /// Starts the sensor and waits until it is ready.
    pub fn sensor(&self, more: &[&str]) -> Sensor {
        let output = self.output();
        let mut words = vec!["--output", output.as_str()];
        words.extend(more);
        let sensor = self.start(&words);
        assert!(
            sensor.await_line("rstscope: ready"),
            "not ready: {}",
            sensor.said()
        );
        sensor
    }

    pub fn start(&self, more: &[&str]) -> Sensor {
        let spool = self.spool();
        let mut words = vec![BINARY, "run"];
        words.extend(INTERFACES);
        // Who says another has a configuration file for it, or a disk of its own.
        if !more.contains(&"--spool") && !more.contains(&"--config") {
            words.extend(["--spool", spool.as_str()]);
        }
        words.extend(more);
        Sensor::spawn(self.exec("lb", &words))
    }

    /// Runs the sensor where it has to give up: its exit code and what it said.
    pub fn refused(&self, words: &[&str]) -> (Option<i32>, String) {
        let spool = self.spool();
        let mut all = vec!["timeout", "20", BINARY, "run", "--spool", &spool];
        all.extend(words);
        let done = self.exec("lb", &all).stdin(Stdio::null()).output().unwrap();
        (done.status.code(), text(&done.stderr))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = command(&format!("{ROOT}/scripts/lab"), &["down", &self.prefix]).status();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// What became of a number of requests, one connection each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rate {
    pub succeeded: u32,
    pub made: u32,
    /// Milliseconds of the slowest one, from connect() to the last byte.
    pub slowest_ms: u32,
    /// SYNs and SYN-ACKs that client or load balancer had to send more than once meanwhile, be it for
    /// these requests or for others.
    pub syns_again: u32,
    /// The whole answer, with the first failure.
    pub said: String,
}

impl Rate {
    /// Waits for the requests.
    pub fn of(requests: Child) -> Self {
        let said = text(&requests.wait_with_output().unwrap().stdout);
        let numbers: Vec<u32> = said
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|word| word.parse().ok())
            .collect();
        let [succeeded, made, slowest_ms, syns_again, ..] = numbers[..] else {
            panic!("not an answer: {said:?}");
        };
        Self {
            succeeded,
            made,
            slowest_ms,
            syns_again,
            said,
        }
    }
}

/// A running sensor and the lines of its standard error.
pub struct Sensor {
    pub child: Child,
    pub lines: Arc<Mutex<Vec<String>>>,
    /// It has nothing more to say.
    pub silent: Arc<AtomicBool>,
    /// It takes frames, and has to account for them.
    is_inline: bool,
    /// The fault is one that frames are lost to.
    may_lose: bool,
}

impl Sensor {
    pub fn spawn(mut command: Command) -> Self {
        let is_inline = command.get_args().all(|word| word != "mirror");
        let mut child = command
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("ip is there");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let silent = Arc::new(AtomicBool::new(false));
        let (pipe, heard) = (child.stderr.take().unwrap(), Arc::clone(&lines));
        let ended = Arc::clone(&silent);
        thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                heard.lock().unwrap().push(line);
            }
            ended.store(true, Ordering::Release);
        });
        Self {
            child,
            lines,
            silent,
            is_inline,
            may_lose: false,
        }
    }

    /// Frames on their way at the instant of the fault are lost: the ledger need not balance.
    pub fn may_lose_frames(&mut self) {
        self.may_lose = true;
    }

    pub fn said(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    /// Waits for a line that holds `words`.
    pub fn await_line(&self, words: &str) -> bool {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            // Asked first, so that what it said last is not overlooked.
            let over = self.silent.load(Ordering::Acquire) || Instant::now() >= end;
            if self.said().contains(words) {
                return true;
            }
            if over {
                return false;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(
            command("kill", &["-s", name, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Waits for its end; `None` when it does not come, or comes by a signal. Whatever the test is about: a
    /// sensor that ends in order has told what became of every frame that it took, and has lost none.
    pub fn end(&mut self) -> Option<i32> {
        let end = Instant::now() + Duration::from_secs(15);
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait().unwrap() {
                // What it said last is in the pipe still, while our reader is not scheduled.
                let heard = Instant::now() + Duration::from_secs(10);
                while !self.silent.load(Ordering::Acquire) && Instant::now() < heard {
                    thread::sleep(Duration::from_millis(5));
                }
                if matches!(status.code(), Some(0 | 1)) {
                    self.assert_ledgers();
                }
                return status.code();
            }
            thread::sleep(Duration::from_millis(20));
        }
        None
    }

    fn assert_ledgers(&self) {
        let said = self.said();
        let is_whole = self.is_inline && said.contains("rstscope: ready");
        if !is_whole || said.contains("no longer watched") || self.may_lose {
            return;
        }
        let ledgers: Vec<&str> = said
            .lines()
            .filter(|line| line.contains("the ledger ") || line.contains("taken in by the host"))
            .collect();
        assert!(!ledgers.is_empty(), "it ended without a ledger: {said}");
        let is_idle = |line: &&str| line.contains(", 0 received,");
        let arrivals = ledgers
            .iter()
            .filter(|line| line.contains("taken in by the host"));
        assert!(
            arrivals.count() == 1 || ledgers.iter().all(is_idle),
            "what the host took in is not told: {said}"
        );
        let balances = |line: &&str| line.ends_with(" balances");
        assert!(ledgers.iter().all(balances), "{ledgers:#?}");
    }

    /// Ends it as an operator would.
    pub fn stop(&mut self) -> Option<i32> {
        self.signal("TERM");
        self.end()
    }
}

impl Drop for Sensor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Memory that the sensor has in use.
pub fn resident_kib(sensor: &Sensor) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", sensor.child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.unwrap().split_whitespace().nth(1).unwrap();
    number.parse().unwrap()
}

pub fn command(program: &str, words: &[&str]) -> Command {
    let mut made = Command::new(program);
    made.args(words);
    made
}

/// Waits for a program's first line, which it writes when it has done what it is for.
pub fn first_line(child: &mut Child) -> String {
    let mut line = String::new();
    let stdout = child.stdout.take().unwrap();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    line
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Whether this kernel has tcx links (Linux 6.6). Elsewhere the sensor's tc programs are filters, which outlive a
/// killed one until the next start.
pub fn has_tcx() -> bool {
    kernel::is_at_least((6, 6))
}

pub fn assert_all_succeeded(requests: Child) {
    let done: Output = requests.wait_with_output().unwrap();
    assert!(
        done.status.success(),
        "requests through the proxy failed: {}",
        text(&done.stdout)
    );
}

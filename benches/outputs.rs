//! What records cost on their way out: file, syslog over TCP and Kafka at once. Counted are all threads of
//! this process, which have one CPU: who makes the records, the writer, the spools and their fsync, the
//! deliveries, librdkafka's own threads. The receivers are processes of their own on the other CPUs and are
//! not counted. Records come at 10,000 a second as from an engine, which waits for nobody; then as fast as
//! they go.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "a bench that panics has failed, as it should"
)]

#[path = "../tests/support/records.rs"]
mod records;
mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rstscope::record::{Emission, Record, to_json};
use rstscope::sink::{Patience, Place, Style, Target, Totals, Word, Writer, open_all};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

use records::{Chance, Texts, coverage_record, emission, reset_record};
use support::{monotonic_ns, report, skipped};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Records a second that one CPU should carry, so that those promised are no race against its limit.
const WITH_MARGIN: &str = ">= 12000";
/// Records a second: what a flood of resets makes on one host, and what is promised.
const RATE: u64 = 10_000;
/// How long they come at that rate: far longer than all buffers last (16 MiB of a file's, 5 s of syslog's).
const SECONDS: u64 = 20;
/// Records that come as fast as they go.
const FLAT_OUT: u64 = 200_000;
/// Records that may wait for the writer, as in `run`.
const WAITING: usize = 8192;
/// Different records; each is sent many times, with a number of its own.
const DIFFERENT: usize = 500;
/// Room for all records of a run: what is looked for is speed, not what a limit costs.
const SPOOL: &str = "spool_size=2G";
/// The variable that makes a receiver of this program.
const ROLE: &str = "RSTSCOPE_BENCH_RECEIVER";

fn main() {
    match std::env::var(ROLE).as_deref() {
        Ok(role) => {
            // Not where they are measured whom it serves.
            let _ = pin(|cpu, last| cpu != last);
            receive(role);
        }
        Err(_) => measure(),
    }
}

fn receive(role: &str) {
    match role {
        #[cfg(feature = "kafka")]
        "kafka" => broker(),
        _ => drain(),
    }
}

/// Says where it listens, and lives until nobody holds its standard input.
fn listen_as(address: &str) {
    println!("{address}");
    std::io::stdout().flush().expect("somebody reads");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// Reads all and keeps nothing; answers the end of a stream with its own.
fn drain() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it has one").to_string();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut bytes = vec![0; 1 << 18];
            while matches!(stream.read(&mut bytes), Ok(1..)) {}
        }
    });
    listen_as(&address);
}

#[cfg(feature = "kafka")]
fn broker() {
    let cluster = rdkafka::mocking::MockCluster::new(1).expect("a broker");
    cluster.create_topic("resets", 3, 1).expect("a topic");
    listen_as(&cluster.bootstrap_servers());
}

/// A receiver in a process of its own.
struct Receiver {
    child: Child,
    address: String,
}

impl Receiver {
    fn start(role: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .env(ROLE, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut address = String::new();
        BufReader::new(child.stdout.take().expect("its words"))
            .read_line(&mut address)
            .expect("it says where it listens");
        Self {
            child,
            address: address.trim().to_owned(),
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// From now on this process, and what it makes, has those of its CPUs that are wanted, of each number and
/// the last one's. The measured process takes the last one, since interrupts are mostly served by the first.
/// `false` where there is no other.
fn pin(wanted: impl Fn(usize, usize) -> bool) -> bool {
    let Ok(allowed) = sched_getaffinity(None) else {
        return false;
    };
    let cpus: Vec<usize> = (0..CpuSet::MAX_CPU)
        .filter(|cpu| allowed.is_set(*cpu))
        .collect();
    let Some(last) = cpus.last().filter(|_| cpus.len() > 1) else {
        return false;
    };
    let mut chosen = CpuSet::new();
    cpus.iter()
        .filter(|cpu| wanted(**cpu, *last))
        .for_each(|cpu| chosen.set(*cpu));
    sched_setaffinity(None, &chosen).is_ok()
}

/// CPU seconds of all threads of this process.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Resets as they are, and one coverage record in fifty.
fn samples() -> (Vec<Record>, Emission) {
    let mut chance = Chance::new(5);
    let (mut text, mut comm) = (|| "haproxy".to_owned(), || *b"haproxy\0\0\0\0\0\0\0\0\0");
    let mut texts = Texts {
        text: &mut text,
        comm: &mut comm,
    };
    let emission = emission(&mut texts);
    let samples = (0..DIFFERENT).map(|number| match number % 50 {
        0 => coverage_record(&mut chance),
        _ => reset_record(&mut chance, &mut texts),
    });
    (samples.collect(), emission)
}

fn numbered(sample: &Record, number: u64) -> Record {
    let mut record = sample.clone();
    match &mut record {
        Record::Reset(reset) => reset.sequence = number,
        Record::Coverage(coverage) => coverage.sequence = number,
    }
    record
}

/// All outputs, with spools in that folder.
fn writer(folder: &Path, urls: &[String], patience: Patience) -> Writer {
    let place = Place {
        spool: Some(folder.join("spool")),
        patience,
        reopened: Arc::default(),
        inherits: None,
    };
    let targets: Vec<Target> = urls
        .iter()
        .map(|url| Target::parse(url).expect("a URL"))
        .collect();
    let outlets = open_all(&targets, Style::default(), &place).expect("they open");
    let say = |word: &Word| eprintln!("{word}");
    Writer::spawn(outlets, WAITING, &place, say).expect("threads")
}

fn measure() {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target/bench/outputs"));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder");
    let syslog = Receiver::start("syslog");
    let mut urls = vec![
        format!("file://{}", folder.join("records").display()),
        format!("syslog+tcp://{}?{SPOOL}", syslog.address),
    ];
    let kafka = cfg!(feature = "kafka").then(|| Receiver::start("kafka"));
    match &kafka {
        Some(kafka) => urls.push(format!("kafka://{}/resets?{SPOOL}", kafka.address)),
        None => skipped("outputs", "kafka is not built (--features kafka)"),
    }
    if !pin(|cpu, last| cpu == last) {
        skipped("outputs", "there is one CPU only: receivers are on it too");
    }
    let (samples, emission) = samples();
    let bytes: usize = samples
        .iter()
        .map(|sample| to_json(sample, &emission).len())
        .sum();
    report("outputs", "outputs", urls.len() as f64, "outputs", "");
    report("outputs", "record", (bytes / DIFFERENT) as f64, "bytes", "");
    sustained(&folder, &urls, &samples, &emission);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder");
    flat_out(&folder, &urls, &samples, &emission);
    let _ = std::fs::remove_dir_all(&folder);
}

fn sustained(folder: &Path, urls: &[String], samples: &[Record], emission: &Emission) {
    let writer = writer(folder, urls, Patience::None);
    let (cpu, begun) = (cpu_seconds(), monotonic_ns());
    let total = RATE * SECONDS;
    for (number, sample) in (0..total).zip(samples.iter().cycle()) {
        let due = begun + number as f64 * 1e9 / RATE as f64;
        let early = due - monotonic_ns();
        // A millisecond's worth at once: an engine's turn.
        if early > 1e6 {
            thread::sleep(Duration::from_secs_f64(early / 1e9));
        }
        writer.output().try_send(numbered(sample, number), emission);
    }
    let fed = (monotonic_ns() - begun) / 1e9;
    let cpu = cpu_seconds() - cpu;
    let totals = writer.finish();
    let drained = (monotonic_ns() - begun) / 1e9 - fed;
    let name = |what: &str| format!("at_10k_{what}");
    let each = cpu / total as f64 * 1e6;
    report("outputs", &name("cpu"), each, "us a record", "<= 100");
    report(
        "outputs",
        &name("fed"),
        total as f64 / fed,
        "records/s",
        ">= 9990",
    );
    report(
        "outputs",
        &name("lost"),
        totals.lost() as f64,
        "records",
        "<= 0",
    );
    report("outputs", &name("left"), left(&totals), "records", "<= 0");
    report("outputs", &name("rest"), drained, "s to deliver", "<= 5");
}

/// Records that no receiver had when the end's patience was over.
fn left(totals: &Totals) -> f64 {
    totals.outputs.iter().map(|output| output.left).sum::<u64>() as f64
}

fn flat_out(folder: &Path, urls: &[String], samples: &[Record], emission: &Emission) {
    let writer = writer(folder, urls, Patience::Wait(Duration::from_secs(60)));
    let (cpu, begun) = (cpu_seconds(), monotonic_ns());
    for (number, sample) in (0..FLAT_OUT).zip(samples.iter().cycle()) {
        writer.output().send(numbered(sample, number), emission);
    }
    let totals = writer.finish();
    let (cpu, time) = (cpu_seconds() - cpu, (monotonic_ns() - begun) / 1e9);
    let all = FLAT_OUT as f64;
    report("outputs", "flat_out", all / time, "records/s", ">= 10000");
    report(
        "outputs",
        "flat_out_cpu",
        cpu / all * 1e6,
        "us a record",
        "<= 100",
    );
    report(
        "outputs",
        "flat_out_capacity",
        all / cpu,
        "records/CPU second",
        WITH_MARGIN,
    );
    report(
        "outputs",
        "flat_out_lost",
        totals.lost() as f64,
        "records",
        "<= 0",
    );
}

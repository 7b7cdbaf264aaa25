//! The sensor's side of these tests: a process of its own that can be killed. It makes records with
//! numbers, hands them to an output as `run` would, and prints how many are in the spool.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rstscope::flow::Endpoint;
use rstscope::record::{CoverageRecord, Emission, KernelFacts, Observer, Record, ResetRecord};
use rstscope::sink::{Counters, Patience, Place, Style, Target, Writer, open_all};
use rstscope::time::Timestamp;
use rstscope::vantage::InterfaceId;
use rstscope::verdict::{Stage, Verdict};

/// Records that are handed over before the feeder waits until they are in the spool.
const CHUNK: u64 = 100;
/// A pause between these, so that a run is long enough to be killed in the middle.
const PAUSE: Duration = Duration::from_millis(15);
/// Every so many records one is long.
const LONG_EVERY: u64 = 997;

/// `event.id` of a record.
pub fn id(number: u64) -> String {
    format!("feed-{number}")
}

/// Who sees these records.
pub fn emission() -> Emission {
    Emission {
        observer: Arc::new(Observer {
            hostname: Some("lb1".to_owned()),
            interfaces: vec![Some("up0".to_owned())],
            id_prefix: "feed".to_owned(),
        }),
        wall_offset_ns: 1_777_293_866_000_000_000,
    }
}

fn end(last: u8, port: u16) -> Endpoint {
    Endpoint {
        address: [192, 0, 2, last].into(),
        port,
    }
}

/// A reset record whose message says this.
pub fn reset(number: u64, verdict: Verdict, message: String) -> Record {
    let start = Timestamp::from_nanos(number * 1_000_000);
    Record::Reset(Box::new(ResetRecord {
        sequence: number,
        start,
        end: start,
        source: end(1, 443),
        destination: end(2, u16::try_from(number % 60_000).unwrap()),
        client: None,
        server: None,
        source_mac: None,
        destination_mac: None,
        vlan: None,
        incoming: Some(true),
        ingress_interface: Some(InterfaceId(0)),
        egress_interface: None,
        process: None,
        container: None,
        closed_at: None,
        verdict,
        cause: None,
        confidence: 0.9,
        total_db: None,
        device: None,
        stage: Stage::Established,
        evidence: Vec::new(),
        message,
        resets: Vec::new(),
        reset_count: 1,
        baseline: None,
        bytes_in: None,
        bytes_out: None,
        age_ns: None,
        idle_ns: None,
        kernel: KernelFacts::default(),
        related: Vec::new(),
        aggregate: None,
    }))
}

/// The record with this number: resets, coverage, and now and then one of 20 kB with line feeds and
/// what would be a message of its own if it began a line.
pub fn record(number: u64) -> Record {
    if number % LONG_EVERY == 7 {
        let forged = format!("x\n<164>1 - - - - - - {{\"forged\":{number}}}\r\n\u{0}\u{85}");
        return reset(number, Verdict::Injected, forged + &"y".repeat(20_000));
    }
    if number % 10 == 3 {
        let at = Timestamp::from_nanos(number * 1_000_000);
        return Record::Coverage(Box::new(CoverageRecord {
            sequence: number,
            start: at,
            end: at,
            interface: InterfaceId(0),
            observed: number,
            passed: None,
            bypassed: 0,
            copied: 0,
            lost: 0,
            complete: true,
        }));
    }
    reset(
        number,
        Verdict::Remote,
        "the peer reset the connection".to_owned(),
    )
}

/// A feeder process.
pub struct Feeder {
    child: Child,
    lines: Receiver<String>,
    spooled: u64,
}

impl Feeder {
    /// Feeds the records `from..to`, then waits until they are delivered.
    pub fn start(url: &str, spool: &Path, from: u64, to: u64) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["feeder::feed", "--exact", "--ignored", "--nocapture"])
            .env("RSTSCOPE_FEED_URL", url)
            .env("RSTSCOPE_FEED_SPOOL", spool)
            .env("RSTSCOPE_FEED_FROM", from.to_string())
            .env("RSTSCOPE_FEED_TO", to.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let stdout = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self {
            child,
            lines,
            spooled: from,
        }
    }

    /// Every record before this number is in the spool.
    pub fn spooled(&mut self) -> u64 {
        while let Ok(line) = self.lines.try_recv() {
            let number = line
                .split_once("spooled ")
                .and_then(|(_, number)| number.parse().ok());
            self.spooled = self.spooled.max(number.unwrap_or(0));
        }
        self.spooled
    }

    /// Kills it without warning; says how far it came.
    pub fn kill(mut self) -> u64 {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::thread::sleep(Duration::from_millis(20));
        self.spooled()
    }

    /// Waits for its end, which must be a good one.
    pub fn finish(mut self) {
        let status = self.child.wait().unwrap();
        let lines: Vec<String> = self.lines.iter().collect();
        assert!(status.success(), "{}", lines.join("\n"));
    }
}

fn setting(name: &str) -> String {
    std::env::var(format!("RSTSCOPE_FEED_{name}")).unwrap_or_else(|_| panic!("no {name}"))
}

/// What a feeder process runs; no test of its own.
#[test]
#[ignore = "run by other tests, in a process of its own"]
fn feed() {
    if std::env::var_os("RSTSCOPE_FEED_URL").is_none() {
        println!("nothing to do: other tests run it");
        return;
    }
    let (from, to): (u64, u64) = (
        setting("FROM").parse().unwrap(),
        setting("TO").parse().unwrap(),
    );
    let place = Place {
        spool: Some(PathBuf::from(setting("SPOOL"))),
        patience: Patience::Wait(Duration::from_secs(60)),
        reopened: Arc::default(),
        inherits: None,
    };
    let url = setting("URL");
    let targets = [Target::parse(&url).unwrap()];
    let outlets = match open_all(&targets, Style::default(), &place) {
        Ok(outlets) => outlets,
        Err(error) => {
            // A sensor does not start either where its file's folder is away; another life will.
            println!("cannot start: {error}");
            std::process::exit(1);
        }
    };
    // Into the pipe: it is shown when the last life does not end well.
    let writer = Writer::spawn(outlets, 1024, &place, |line| println!("feeder: {line}")).unwrap();
    let counters = Arc::clone(&writer.output().counters()[0].1);
    let emission = emission();
    let mut next = from;
    while next < to {
        let chunk = CHUNK.min(to - next);
        for number in next..next + chunk {
            writer.output().send(record(number), &emission);
        }
        next += chunk;
        while Counters::get(&counters.accepted) < next - from {
            std::thread::sleep(Duration::from_millis(1));
        }
        println!("spooled {next}");
        std::io::stdout().flush().unwrap();
        std::thread::sleep(PAUSE);
    }
    // What an earlier life left behind needs a moment to begin.
    std::thread::sleep(Duration::from_millis(300));
    let totals = writer.finish();
    let row = &totals.outputs[0];
    println!("finished: {row:?}");
    assert_eq!((row.left, totals.lost()), (0, 0), "{totals:?}");
}

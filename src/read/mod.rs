//! The offline loop: capture files through the same engine as `run`, with the capture's time as
//! the clock. Each file is judged on its own, because the flows of two captures are two, whatever
//! their addresses, and so is each part of a file that holds several one behind the other (`jump`).
//! A damaged file costs what stands behind the damage, and nothing else.

mod follow;
mod jump;
mod tally;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fmt;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};

use crate::amount::counted;
use crate::config::ReadConfig;
use crate::engine::{Engine, EngineConfig};
use crate::flow::TrackerConfig;
use crate::host::KernelTells;
use crate::notice;
use crate::pcap::{self, Reader};
use crate::record::{Emission, Observer, Record, capture_prefix};
use crate::sink::{self, Kind, Outlet, Output, Patience, Place, Writer};
use crate::time::SECOND;
use follow::{Batch, Follower, Ways};
use tally::Tally;

/// How long a forged reset's episode is held open in capture time: the first retransmissions of
/// both ends (RFC 6298: 200 ms and up, doubled) and the genuine resets that answer them.
const FORGED_LINGER_NS: u64 = 5 * SECOND;

/// Records that may wait for the outputs; when as many wait, reading waits.
const QUEUE_RECORDS: usize = 1024;
/// Reset flows that may be open at a time: at the default settle time, 16,384 resets a second.
const EPISODES: usize = 1 << 14;
/// Batches of packets that may wait for the engine: enough that neither thread waits for the other's
/// moment without the processor.
const QUEUE_BATCHES: usize = 4;
/// Records that are handed to the writer together, where many come: each waking of its thread
/// costs more than a record.
const BATCH_RECORDS: usize = 256;
/// Key of the flow table's hash: fixed, so that a capture gives the same records every time.
const HASH_KEY: [u64; 2] = [0x7273_7473_636f_7065, 0x6361_7074_7572_6573];

/// How long reading waits for an output that takes nothing before records are lost to it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Exit code when all is well.
const DONE: u8 = 0;
/// Exit code when something could not be read or written.
const FAILED: u8 = 1;
/// Exit code when this user may not open something.
const DENIED: u8 = 3;

/// Judges the files and writes the records; returns the exit code. Everything else that it has to
/// say goes to standard error.
#[must_use]
pub fn run(config: &ReadConfig) -> u8 {
    match outputs(config) {
        Ok(outlets) => run_into(config, None, outlets),
        Err((message, code)) => {
            notice::error(message);
            code
        }
    }
}

/// A file that somebody opened already: a pipe can be opened, and its first bytes taken, once.
pub type Opened = Box<dyn Read + Send>;

/// The same with other outputs than those of the configuration. `opened` is the first file, where it
/// is open already.
#[must_use]
pub fn run_into(config: &ReadConfig, mut opened: Option<Opened>, outlets: Vec<Outlet>) -> u8 {
    let writer = match Writer::spawn(outlets, QUEUE_RECORDS, &place(), |word| {
        notice::tell(word.is_warning(), word);
    }) {
        Ok(writer) => writer,
        Err(error) => {
            notice::error(format_args!("cannot start a thread: {error}"));
            return FAILED;
        }
    };
    let mut all = Tally::default();
    let mut failed = 0_usize;
    let mut code = FAILED;
    let mut closed = false;
    for path in &config.files {
        let mut tally = Tally::default();
        let judged = judge(path, opened.take(), config, writer.output(), &mut tally);
        let was_begun = judged.is_ok() || tally.has_packets();
        if let Err(error) = judged {
            if error.is_permission() {
                code = DENIED;
            }
            notice::error(error);
            failed += 1;
        }
        tally.warn(path);
        closed = writer.output().is_closed();
        if closed {
            break;
        }
        // Of what could not be read there is nothing to sum up.
        if !config.quiet && was_begun {
            writer.settle();
            notice::say(format_args!("{}: {tally}", path.display()));
        }
        all.add(&tally);
    }
    let totals = writer.finish();
    // A reader that went away wants no summary either.
    if !config.quiet && !closed && config.files.len() > 1 {
        let count = config.files.len();
        notice::say(format_args!(
            "all {count} files, {failed} of them not whole: {all}"
        ));
    }
    for output in totals.outputs.iter().filter(|output| output.lost > 0) {
        notice::error(format_args!(
            "output {}: lost {}",
            output.name,
            counted(output.lost, "record")
        ));
    }
    if failed > 0 || totals.lost() > 0 {
        code
    } else {
        DONE
    }
}

/// Whoever reads a capture can read it again: nothing is spooled to disk, reading waits instead.
fn place() -> Place {
    Place::in_memory(Patience::Wait(PATIENCE))
}

/// The outputs, or why there are none, and the exit code.
fn outputs(config: &ReadConfig) -> Result<Vec<Outlet>, (String, u8)> {
    for target in &config.outputs {
        if let Kind::File(output) = &target.kind
            && config
                .files
                .iter()
                .any(|file| is_same_file(file, &output.path))
        {
            let path = output.path.display();
            let why = format!("output {path}: is one of the captures; name another file");
            return Err((why, FAILED));
        }
    }
    sink::open_all(&config.outputs, config.style, &place()).map_err(|error| {
        let code = if error.is_permission() {
            DENIED
        } else {
            FAILED
        };
        (error.to_string(), code)
    })
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    match (std::fs::metadata(one), std::fs::metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

/// One file from its first packet to its last, or to the damage: one thread reads and follows the flows,
/// this one judges, and the writer's make the text. None waits for another but where its queue is full or
/// empty.
fn judge(
    path: &Path,
    opened: Option<Opened>,
    config: &ReadConfig,
    output: &Output,
    all: &mut Tally,
) -> Result<(), Failure> {
    let reader = match opened {
        Some(source) => Reader::new(path, source, None),
        None => Reader::open(path),
    }
    .map_err(Failure::Capture)?;
    let observer = capture_observer(path, &reader);
    let mut engine = Engine::new(engine_config(config));
    let follower = Follower::new(
        reader,
        engine.take_tracker(),
        TrackerConfig {
            capacity: config.flow_capacity,
            key: HASH_KEY,
        },
        config.settle_ns == 0,
    );
    let (batches, told) = bounded(QUEUE_BATCHES);
    let (empty, spent) = bounded(QUEUE_BATCHES + 1);
    let ways = Ways { batches, spent };
    let mut judged = Tally::default();
    let reading = thread::Builder::new()
        .name("rst-reader".to_owned())
        .spawn(move || follower.run(&ways))
        .map_err(Failure::Thread)?;
    let is_whole = judge_all(&mut engine, (told, &empty), &observer, output, &mut judged);
    all.add(&judged);
    if !is_whole {
        // What the source may yet have to say interests nobody, and may be long in coming.
        return Ok(());
    }
    // A panic of the thread aborts the program in release builds.
    let (read, end) = reading
        .join()
        .map_err(|_| Failure::Thread(io::ErrorKind::Other.into()))?;
    all.add(&read);
    end.map_err(Failure::Capture)
}

/// Judges what the flow table tells, and hands the records over; `false` when nobody takes them any more.
fn judge_all(
    engine: &mut Engine,
    (told, empty): (Receiver<Batch>, &Sender<Batch>),
    observer: &Arc<Observer>,
    output: &Output,
    tally: &mut Tally,
) -> bool {
    // Boxed at once: a record is a kilobyte, and is moved a few times.
    let boxed = |record| Record::Reset(Box::new(record));
    let mut ready: Vec<Record> = Vec::new();
    for batch in told {
        batch.tell(engine, &mut |record| ready.push(boxed(record)));
        if ready.len() >= BATCH_RECORDS || batch.pauses {
            hand_over(&mut ready, observer, output, tally);
            if output.is_closed() {
                return false;
            }
        }
        // Where its place is taken, its memory goes.
        let _ = empty.try_send(batch);
    }
    // What was open at the end may be some ten thousand records: they need not all wait for the last.
    engine.finish(&mut |record| {
        ready.push(boxed(record));
        if ready.len() >= BATCH_RECORDS {
            hand_over(&mut ready, observer, output, tally);
        }
    });
    hand_over(&mut ready, observer, output, tally);
    tally.unjudged = engine.counters().episodes_refused;
    true
}

fn engine_config(config: &ReadConfig) -> EngineConfig {
    EngineConfig {
        settle_ns: config.settle_ns,
        forged_linger_ns: FORGED_LINGER_NS,
        flow_capacity: config.flow_capacity,
        episode_capacity: EPISODES,
        local: config.local.clone(),
        own_addresses: None,
        older: HashSet::new(),
        offline: true,
        kernel: KernelTells::default(),
        own_macs: Vec::new(),
        own_devices: config.own_devices.clone(),
        hash_key: HASH_KEY,
    }
}

/// Why a file was not read to its end.
#[derive(Debug)]
enum Failure {
    Capture(pcap::Error),
    Thread(io::Error),
}

impl Failure {
    fn is_permission(&self) -> bool {
        matches!(self, Self::Capture(pcap::Error::Open { source, .. })
            if source.kind() == io::ErrorKind::PermissionDenied)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Capture(error) => write!(f, "{error}"),
            Self::Thread(error) => write!(f, "cannot start a thread: {error}"),
        }
    }
}

/// The host that captured is not known; the capture stands for it.
fn capture_observer(path: &Path, reader: &Reader) -> Arc<Observer> {
    // A stream has no name of its own.
    let name = reader.size().and(path.file_name()).unwrap_or_default();
    let id_prefix = capture_prefix(name.as_encoded_bytes(), reader.size(), reader.head());
    Arc::new(Observer {
        hostname: None,
        interfaces: Vec::new(),
        id_prefix,
    })
}

fn hand_over(
    ready: &mut Vec<Record>,
    observer: &Arc<Observer>,
    output: &Output,
    tally: &mut Tally,
) {
    // Once for all: other threads count on the same line of memory.
    let emission = Emission {
        observer: Arc::clone(observer),
        wall_offset_ns: 0,
    };
    for record in ready.drain(..) {
        if let Record::Reset(reset) = &record {
            tally.record(reset.verdict);
        }
        output.send(record, &emission);
    }
}

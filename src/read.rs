//! The offline loop: capture files through the same engine as `run`, with the capture's time as
//! the clock. Each file is judged on its own, because the flows of two captures are two, whatever
//! their addresses. A damaged file costs what stands behind the damage, and nothing else.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::config::ReadConfig;
use crate::engine::{Engine, EngineConfig};
use crate::notice;
use crate::pcap::{self, Packet, Reader, link_name};
use crate::record::{Emission, Observer, Record, ResetRecord, capture_prefix};
use crate::sink::{self, Kind, Outlet, Output, Patience, Place, Writer};
use crate::time::{MILLISECOND, SECOND, Timestamp};
use crate::vantage::{self, InterfaceId, Vantage};
use crate::verdict::Verdict;
use crate::wire::{self, Reject, Segment};

/// How long a forged reset's episode is held open in capture time: the first retransmissions of
/// both ends (RFC 6298: 200 ms and up, doubled) and the genuine resets that answer them.
const FORGED_LINGER_NS: u64 = 5 * SECOND;

/// Records that may wait for the outputs; when as many wait, reading waits.
const QUEUE_RECORDS: usize = 1024;
/// Reset flows that may be open at a time: at the default settle time, 16,384 resets a second.
const EPISODES: usize = 1 << 14;
/// Packets that are looked at together: enough for the waits for memory to overlap.
const BATCH_PACKETS: usize = 32;
/// Records that are handed to the writer together, where many come: each waking of its thread
/// costs more than a record.
const BATCH_RECORDS: usize = 256;
/// With fewer bytes than this at hand the source is asked for more, and may keep us waiting.
const PAUSE_BYTES: usize = 4096;
/// The engine is told of the passing of time in steps of this. The records do not depend on it
/// beyond that.
const TICK_NS: u64 = MILLISECOND;
/// Key of the flow table's hash: fixed, so that a capture gives the same records every time.
const HASH_KEY: [u64; 2] = [0x7273_7473_636f_7065, 0x6361_7074_7572_6573];

/// How long reading waits for an output that takes nothing before records are lost to it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Exit code when all is well.
const DONE: u8 = 0;
/// Exit code when something could not be read or written.
const FAILED: u8 = 1;

/// Judges the files and writes the records; returns the exit code. Everything else that it has to
/// say goes to standard error.
#[must_use]
pub fn run(config: &ReadConfig) -> u8 {
    match outputs(config) {
        Ok(outlets) => run_into(config, outlets),
        Err(message) => {
            notice::error(message);
            FAILED
        }
    }
}

/// The same with other outputs than those of the configuration.
#[must_use]
pub fn run_into(config: &ReadConfig, outlets: Vec<Outlet>) -> u8 {
    let writer = match Writer::spawn(outlets, QUEUE_RECORDS, &place(), |line| notice::warn(line)) {
        Ok(writer) => writer,
        Err(error) => {
            notice::error(format_args!("cannot start a thread: {error}"));
            return FAILED;
        }
    };
    let mut all = Tally::default();
    let mut failed = 0_usize;
    let mut closed = false;
    for path in &config.files {
        let mut tally = Tally::default();
        if let Err(error) = judge(path, config, writer.output(), &mut tally) {
            notice::error(error);
            failed += 1;
        }
        tally.warn(path);
        closed = writer.output().is_closed();
        if closed {
            break;
        }
        if !config.quiet {
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
            "output {}: {} records were lost",
            output.name, output.lost
        ));
    }
    if failed > 0 || totals.lost() > 0 {
        FAILED
    } else {
        DONE
    }
}

/// Whoever reads a capture can read it again: nothing is spooled to disk, reading waits instead.
fn place() -> Place {
    Place {
        spool: None,
        patience: Patience::Wait(PATIENCE),
        reopened: Arc::default(),
        inherits: None,
    }
}

fn outputs(config: &ReadConfig) -> Result<Vec<Outlet>, String> {
    for target in &config.outputs {
        if let Kind::File(output) = &target.kind
            && config
                .files
                .iter()
                .any(|file| is_same_file(file, &output.path))
        {
            return Err(format!(
                "output {}: is one of the captures; name another file",
                output.path.display()
            ));
        }
    }
    sink::open_all(&config.outputs, config.style, &place()).map_err(|error| error.to_string())
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    match (std::fs::metadata(one), std::fs::metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

/// A packet that was read and not yet judged.
type Waiting = (Timestamp, Vantage, Option<Segment>);

/// One file from its first packet to its last, or to the damage.
fn judge(
    path: &Path,
    config: &ReadConfig,
    output: &Output,
    tally: &mut Tally,
) -> Result<(), pcap::Error> {
    let mut reader = Reader::open(path)?;
    let mut observer = capture_observer(path, &reader);
    let mut engine = Engine::new(EngineConfig {
        settle_ns: config.settle_ns,
        forged_linger_ns: FORGED_LINGER_NS,
        flow_capacity: config.flow_capacity,
        episode_capacity: EPISODES,
        local: config.local.clone(),
        own_addresses: None,
        offline: true,
        kernel_events: false,
        tells_answers: false,
        own_macs: Vec::new(),
        own_devices: config.own_devices.clone(),
        hash_key: HASH_KEY,
    });
    let mut ready: Vec<ResetRecord> = Vec::new();
    let mut batch: Vec<Waiting> = Vec::with_capacity(BATCH_PACKETS);
    let mut last_tick = Timestamp::default();
    let mut damage = None;
    let mut at_end = false;
    while !at_end {
        match reader.next_packet() {
            Ok(Some(packet)) => batch.push((packet.time, vantage(&packet), tally.packet(&packet))),
            Ok(None) => at_end = true,
            Err(error) => (damage, at_end) = (Some(error), true),
        }
        // Where the source may keep us waiting, nothing else waits.
        let pauses = at_end || reader.held() < PAUSE_BYTES;
        if batch.len() < BATCH_PACKETS && !pauses {
            continue;
        }
        engine.warm(batch.iter().filter_map(|(_, _, segment)| segment.as_ref()));
        for (time, seen, segment) in batch.drain(..) {
            // A time that jumped back is a new time too. The engine copes with either.
            if config.settle_ns == 0 || time < last_tick || time.since(last_tick) >= TICK_NS {
                last_tick = time;
                engine.tick(time, &mut |record| ready.push(record));
            }
            if let Some(segment) = segment {
                engine.observe(time, seen, &segment, None, &mut |record| ready.push(record));
            }
        }
        if ready.len() >= BATCH_RECORDS || pauses {
            hand_over(&mut ready, &mut observer, &reader, output, tally);
            if output.is_closed() {
                return Ok(());
            }
        }
    }
    engine.finish(&mut |record| ready.push(record));
    hand_over(&mut ready, &mut observer, &reader, output, tally);
    tally.unjudged = engine.counters().episodes_refused;
    damage.map_or(Ok(()), Err)
}

const fn vantage(packet: &Packet<'_>) -> Vantage {
    Vantage {
        interface: packet.interface,
        path: vantage::Path::Capture,
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
    ready: &mut Vec<ResetRecord>,
    observer: &mut Arc<Observer>,
    reader: &Reader,
    output: &Output,
    tally: &mut Tally,
) {
    for record in ready.drain(..) {
        tally.record(record.verdict);
        for id in [record.ingress_interface, record.egress_interface]
            .into_iter()
            .flatten()
        {
            learn_name(observer, id, reader);
        }
        let emission = Emission {
            observer: Arc::clone(observer),
            wall_offset_ns: 0,
        };
        output.send(Record::Reset(Box::new(record)), &emission);
    }
}

/// Takes an interface's name from the capture, where it tells it and it is news: pcapng describes
/// interfaces anywhere in the file, and anew in each section.
fn learn_name(observer: &mut Arc<Observer>, id: InterfaceId, reader: &Reader) {
    let index = usize::from(id.0);
    let name = reader.interface_name(id);
    let known = observer.interfaces.get(index).and_then(Option::as_deref);
    if name != known {
        let observer = Arc::make_mut(observer);
        if observer.interfaces.len() <= index {
            observer.interfaces.resize(index + 1, None);
        }
        if let Some(slot) = observer.interfaces.get_mut(index) {
            *slot = name.map(str::to_owned);
        }
    }
}

/// What was in a file, for the closing summary.
#[derive(Debug, Default)]
struct Tally {
    packets: u64,
    segments: u64,
    resets: u64,
    /// By [`Reject::ALL`].
    rejects: [u64; Reject::ALL.len()],
    /// By [`Verdict::ALL`].
    records: [u64; Verdict::ALL.len()],
    /// Packets of link types that are not read, by number.
    links: Vec<(u16, u64)>,
    /// Resets that found no room among the open episodes.
    unjudged: u64,
}

impl Tally {
    /// Counts a packet, and reads it.
    fn packet(&mut self, packet: &Packet<'_>) -> Option<Segment> {
        self.packets += 1;
        let Some(link) = packet.link else {
            self.link(packet.link_type, 1);
            return None;
        };
        match wire::parse(link, packet.bytes) {
            Ok(segment) => {
                self.segments += 1;
                self.resets += u64::from(segment.flags.rst());
                Some(segment)
            }
            Err(reject) => {
                count(
                    &mut self.rejects,
                    Reject::ALL.iter().position(|other| *other == reject),
                    1,
                );
                None
            }
        }
    }

    fn record(&mut self, verdict: Verdict) {
        count(
            &mut self.records,
            Verdict::ALL.iter().position(|other| *other == verdict),
            1,
        );
    }

    fn link(&mut self, link_type: u16, packets: u64) {
        match self
            .links
            .iter_mut()
            .find(|(number, _)| *number == link_type)
        {
            Some((_, count)) => *count += packets,
            None => self.links.push((link_type, packets)),
        }
    }

    fn add(&mut self, other: &Self) {
        self.packets += other.packets;
        self.segments += other.segments;
        self.resets += other.resets;
        for (index, number) in other.rejects.iter().enumerate() {
            count(&mut self.rejects, Some(index), *number);
        }
        for (index, number) in other.records.iter().enumerate() {
            count(&mut self.records, Some(index), *number);
        }
        for (number, packets) in &other.links {
            self.link(*number, *packets);
        }
        self.unjudged += other.unjudged;
    }

    fn warn(&self, path: &Path) {
        if self.unjudged > 0 {
            notice::warn(format_args!(
                "{}: {} resets came too fast and were not judged: try a shorter --settle",
                path.display(),
                self.unjudged
            ));
        }
        for (number, packets) in &self.links {
            let name = link_name(*number)
                .map(|name| format!(" ({name})"))
                .unwrap_or_default();
            notice::warn(format_args!(
                "{}: link type {number}{name} is not read: {packets} packets passed over",
                path.display()
            ));
        }
    }
}

fn count(counters: &mut [u64], index: Option<usize>, number: u64) {
    if let Some(counter) = index.and_then(|index| counters.get_mut(index)) {
        *counter += number;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            packets,
            segments,
            resets,
            ..
        } = self;
        write!(
            f,
            "{packets} packets, {segments} TCP segments, {resets} resets; "
        )?;
        write!(f, "{} records", self.records.iter().sum::<u64>())?;
        let verdicts = Verdict::ALL.iter().map(|verdict| verdict.name());
        list(f, ": ", verdicts.zip(self.records))?;
        let other: u64 = self.links.iter().map(|(_, packets)| packets).sum();
        let rejects = Reject::ALL.iter().map(|reject| reject.name());
        let rejects = rejects
            .zip(self.rejects)
            .chain([("unknown_link_type", other)]);
        list(f, "; not TCP segments: ", rejects)
    }
}

/// `2 injected, 1 remote`: those that are not 0, behind `lead` where there is any.
fn list<'a>(
    f: &mut fmt::Formatter<'_>,
    mut lead: &'a str,
    items: impl Iterator<Item = (&'a str, u64)>,
) -> fmt::Result {
    for (name, number) in items.filter(|(_, number)| *number > 0) {
        write!(f, "{lead}{number} {name}")?;
        lead = ", ";
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Tally;
    use crate::pcap::Packet;
    use crate::time::Timestamp;
    use crate::vantage::InterfaceId;
    use crate::verdict::Verdict;
    use crate::wire::LinkLayer;

    #[test]
    fn the_summary_names_what_there_was_and_nothing_else() {
        let mut tally = Tally::default();
        assert_eq!(
            tally.to_string(),
            "0 packets, 0 TCP segments, 0 resets; 0 records"
        );
        let packet = |link, link_type, bytes| Packet {
            time: Timestamp::default(),
            link,
            link_type,
            interface: InterfaceId(0),
            bytes,
            wire_len: 0,
        };
        assert!(
            tally
                .packet(&packet(Some(LinkLayer::Ethernet), 1, &[0; 3]))
                .is_none()
        );
        assert!(
            tally
                .packet(&packet(Some(LinkLayer::Ethernet), 1, &[0; 14]))
                .is_none()
        );
        assert!(tally.packet(&packet(None, 127, &[])).is_none());
        tally.record(Verdict::Injected);
        let mut sum = Tally::default();
        sum.add(&tally);
        sum.add(&tally);
        assert_eq!(
            sum.to_string(),
            "6 packets, 0 TCP segments, 0 resets; 2 records: 2 injected; not TCP segments: \
             2 truncated, 2 not_ip, 2 unknown_link_type"
        );
    }
}

//! `explain`: the story of one reset flow, or of several, from records that were written or from a
//! capture, which is judged as `read` judges it. Stories go to standard output, all else to
//! standard error. It judges nothing itself.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

use crate::amount::counted;
use crate::config::ExplainConfig;
use crate::record::{story, wrapped};
use crate::sink::{Emitted, Error, Filter, Flushed, Outlet, Sink, terminal_columns};
use crate::{notice, read};

const DONE: u8 = 0;
const FAILED: u8 = 1;
/// This user may not open it.
const DENIED: u8 = 3;

/// How far in a line of a story goes on below, where the terminal is narrow.
const HANG: usize = 2;

/// Longest line that is taken for a record: a hundred times the longest that we write.
const LINE_BYTES: u64 = 1 << 20;

/// Tells the stories and returns the exit code: 1 when there was none to tell.
#[must_use]
pub fn run(config: &ExplainConfig) -> u8 {
    let Some(path) = config.read.files.first() else {
        return FAILED;
    };
    let told = Arc::new(AtomicU64::new(0));
    let teller = Teller {
        event_id: config.event_id.clone(),
        flow: config.flow,
        told: Arc::clone(&told),
        buffer: String::new(),
        taken: 0,
    };
    let (code, lister) = match Source::open(path) {
        Ok(Source::Records(mut records)) => (from_records(path, &mut *records, teller), "explain"),
        Ok(Source::Packets(opened)) => {
            let outlet = Outlet::direct(Box::new(teller), Filter::default());
            let code = read::run_into(&config.read, opened, vec![outlet]);
            (code, "read")
        }
        Ok(Source::Neither) => {
            notice::error(format_args!(
                "{}: is neither a capture (pcap, pcapng) nor records (JSON lines)",
                path.display()
            ));
            return FAILED;
        }
        Err(error) => {
            notice::error(format_args!("{}: cannot open: {error}", path.display()));
            return match error.kind() {
                io::ErrorKind::PermissionDenied => DENIED,
                _ => FAILED,
            };
        }
    };
    if code == DONE && told.load(Ordering::Relaxed) == 0 {
        notice::error(format_args!(
            "{}: no reset record{}; `rstscope {lister} {}` lists what there is",
            path.display(),
            wanted(config),
            path.display()
        ));
        return FAILED;
    }
    code
}

fn wanted(config: &ExplainConfig) -> String {
    let mut words = String::new();
    if let Some(id) = &config.event_id {
        words.push_str(" with event.id ");
        words.push_str(id);
    }
    if let Some((one, other)) = config.flow {
        words.push_str(&format!(" of {one} and {other}"));
    }
    words
}

/// What the file holds, by its first byte: no capture format begins with a brace.
enum Source {
    /// Records, from the first on.
    Records(Box<dyn BufRead>),
    /// A capture; open where it cannot be opened anew.
    Packets(Option<read::Opened>),
    /// Text of another kind.
    Neither,
}

impl Source {
    /// Looks at the first byte and leaves it where it is: a pipe has it only once.
    fn open(path: &Path) -> io::Result<Self> {
        if path.as_os_str() == "-" {
            let mut input = io::stdin().lock();
            return Ok(match input.fill_buf()?.first() {
                Some(b'{') => Self::Records(Box::new(input)),
                _ => Self::Packets(None),
            });
        }
        let file = File::open(path)?;
        let known = file.metadata()?;
        if known.is_dir() {
            return Ok(Self::Packets(None));
        }
        let is_file = known.is_file();
        let mut input = BufReader::new(file);
        Ok(match input.fill_buf()? {
            [b'{', ..] => Self::Records(Box::new(input)),
            // Magic numbers and compressed files hold bytes that no text has.
            text @ [_, ..] if is_text(text) => Self::Neither,
            _ if is_file => Self::Packets(None),
            _ => Self::Packets(Some(Box::new(input))),
        })
    }
}

fn is_text(bytes: &[u8]) -> bool {
    let odd = |byte: &u8| byte.is_ascii_control() && !byte.is_ascii_whitespace();
    bytes.is_ascii() && !bytes.iter().any(odd)
}

fn from_records(path: &Path, source: &mut dyn BufRead, mut teller: Teller) -> u8 {
    let result = lines(source, &mut teller);
    match result {
        Ok(0) => DONE,
        Ok(odd) => {
            notice::warn(format_args!(
                "{}: no record in {}",
                path.display(),
                counted(odd, "line")
            ));
            DONE
        }
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => DONE,
        Err(error) => {
            notice::error(format_args!("{}: {error}", path.display()));
            FAILED
        }
    }
}

/// Tells each line's story; says how many lines hold no JSON.
fn lines(source: &mut dyn BufRead, teller: &mut Teller) -> io::Result<u64> {
    let mut odd = 0;
    let mut line = Vec::new();
    loop {
        line.clear();
        if source.take(LINE_BYTES).read_until(b'\n', &mut line)? == 0 {
            return Ok(odd);
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        match serde_json::from_slice::<Value>(&line) {
            Ok(record) => teller.take(&record),
            Err(_) => odd += 1,
        }
        teller.write()?;
    }
}

/// Tells the stories that were asked for.
struct Teller {
    event_id: Option<String>,
    flow: Option<(SocketAddr, SocketAddr)>,
    told: Arc<AtomicU64>,
    buffer: String,
    /// Records since the last flush.
    taken: u64,
}

impl Teller {
    fn take(&mut self, record: &Value) {
        self.taken += 1;
        if !self.is_wanted(record) {
            return;
        }
        if let Some(story) = story(record) {
            if self.told.fetch_add(1, Ordering::Relaxed) > 0 {
                self.buffer.push('\n');
            }
            match terminal_columns() {
                Some(columns) => self.buffer.push_str(&wrapped(&story, columns, HANG)),
                None => self.buffer.push_str(&story),
            }
        }
    }

    fn is_wanted(&self, record: &Value) -> bool {
        let id = record.pointer("/event/id").and_then(Value::as_str);
        if self.event_id.is_some() && self.event_id.as_deref() != id {
            return false;
        }
        let Some((one, other)) = self.flow else {
            return true;
        };
        let ends = (end(record, "source"), end(record, "destination"));
        ends == (Some(one), Some(other)) || ends == (Some(other), Some(one))
    }

    fn write(&mut self) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        let result = stdout
            .write_all(self.buffer.as_bytes())
            .and_then(|()| stdout.flush());
        self.buffer.clear();
        result
    }
}

fn end(record: &Value, name: &str) -> Option<SocketAddr> {
    let end = record.get(name)?;
    let address = end.get("ip")?.as_str()?.parse().ok()?;
    let port = u16::try_from(end.get("port")?.as_u64()?).ok()?;
    Some(SocketAddr::new(address, port))
}

impl Sink for Teller {
    fn name(&self) -> &'static str {
        "-"
    }

    fn put(&mut self, emitted: &Emitted) {
        // What we wrote ourselves is JSON.
        if let Ok(record) = serde_json::from_str(emitted.json()) {
            self.take(&record);
        }
    }

    fn flush(&mut self) -> Flushed {
        let taken = std::mem::take(&mut self.taken);
        match self.write() {
            Ok(()) => Flushed {
                written: taken,
                lost: 0,
                error: None,
            },
            Err(source) => Flushed {
                written: 0,
                lost: taken,
                error: Some(if source.kind() == io::ErrorKind::BrokenPipe {
                    Error::Closed
                } else {
                    Error::Write {
                        output: "-".to_owned(),
                        source,
                    }
                }),
            },
        }
    }
}

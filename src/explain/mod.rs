//! `explain` and `list`: reset flows as stories or a line each, from records that were written or from a
//! capture, which is judged as `read` judges it. What was asked for goes to standard output, all else to
//! standard error. It judges nothing itself.

mod select;
mod source;
mod teller;

use std::io::{self, BufRead, Read};
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use crate::amount::counted;
use crate::config::{ExplainConfig, ReadConfig, Telling};
use crate::sink::{Filter, Outlet};
use crate::{notice, read};
use select::Selection;
use source::Source;
use teller::{Teller, Told};

const DONE: u8 = 0;
const FAILED: u8 = 1;
/// This user may not open it.
const DENIED: u8 = 3;

/// Longest line that is taken for a record: a hundred times the longest that we write.
const LINE_BYTES: u64 = 1 << 20;

/// Tells what was asked for and returns the exit code: 1 when there was none to tell.
#[must_use]
pub fn run(config: &ExplainConfig) -> u8 {
    let told = Arc::new(Told::default());
    let selection = Selection::of(&config.wanted, jiff::Timestamp::now());
    let mut code = DONE;
    for path in &config.read.files {
        let teller = Teller::new(selection.clone(), config.telling, Arc::clone(&told));
        code = code.max(tell(path, &config.read, teller));
    }
    if code == DONE && told.is_none() {
        notice::error(none_found(config));
        return FAILED;
    }
    if config.telling == Telling::Lines && !told.is_none() {
        notice::say(&*told);
    }
    code
}

/// Why there is nothing to tell, and how to find what there is.
fn none_found(config: &ExplainConfig) -> String {
    let paths: Vec<_> = config
        .read
        .files
        .iter()
        .map(|path| path.display())
        .collect();
    let paths: Vec<_> = paths.iter().map(ToString::to_string).collect();
    let wanted = select::words(&config.wanted);
    let hint = if wanted.is_empty() {
        String::new()
    } else {
        format!("; `rstscope list {}` lists what there is", paths.join(" "))
    };
    format!("{}: no reset record{wanted}{hint}", paths.join(", "))
}

fn tell(path: &Path, config: &ReadConfig, teller: Teller) -> u8 {
    match Source::open(path) {
        Ok(Source::Records(mut records)) => from_records(path, &mut *records, teller),
        Ok(Source::Packets(opened)) => {
            let outlet = Outlet::direct(Box::new(teller), Filter::default());
            let one = ReadConfig {
                files: vec![path.to_owned()],
                ..config.clone()
            };
            read::run_into(&one, opened, vec![outlet])
        }
        Ok(Source::Neither) => {
            notice::error(format_args!(
                "{}: is neither a capture (pcap, pcapng) nor records (JSON lines)",
                path.display()
            ));
            FAILED
        }
        Err(error) => {
            notice::error(format_args!("{}: cannot open: {error}", path.display()));
            match error.kind() {
                io::ErrorKind::PermissionDenied => DENIED,
                _ => FAILED,
            }
        }
    }
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

/// Takes each line for a record; says how many lines hold no JSON.
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

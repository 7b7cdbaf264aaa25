//! Where records go. Whoever judges hands them to an [`Output`] and never waits; the [`Writer`] filters,
//! forms and spools them for each output, and a thread for each output delivers them. Which records
//! exist is not decided here.
//!
//! In reading order: `target` (what a URL means), `writer` (distribution), `spool` (what waits),
//! `delivery` (trying again), and a `transport` for each kind of receiver.

mod backoff;
mod clock;
mod counters;
mod dead;
mod delivery;
mod entry;
mod error;
mod file;
mod filter;
mod http;
mod json_lines;
#[cfg(feature = "kafka")]
mod kafka;
mod lines;
mod open;
mod query;
#[cfg(test)]
mod scratch;
mod spool;
mod syslog;
mod target;
mod terminal;
mod tls;
mod transport;
mod url_error;
mod word;
mod writer;

use std::sync::OnceLock;

pub use counters::Counters;
pub use entry::Entry;
pub use error::Error;
use error::write_error;
pub use filter::Filter;
pub use json_lines::JsonLines;
pub use open::{Outlet, Place, open, open_all};
pub use spool::{Before, Found, Patience, Spool};
pub use target::{
    Credentials, Dialect, FileTarget, HttpTarget, KafkaTarget, Kind, SyslogTarget, SyslogWay,
    Target, TlsFiles,
};
pub use terminal::{Terminal, terminal_columns};
pub use transport::{Delivered, Failure, Fate, Transport};
pub use url_error::UrlError;
pub use word::Word;
pub use writer::{Output, OutputTotals, Tally, Totals, Writer};

use crate::record::{Emission, Format, Record, append_json, to_json};

/// A record with the circumstances of its leaving; its JSON form is made once for all outputs.
#[derive(Debug)]
pub struct Emitted {
    /// The record.
    pub record: Record,
    /// Who saw it, and when by the clock on the wall.
    pub emission: Emission,
    json: OnceLock<String>,
}

impl Emitted {
    /// A record on its way out.
    #[must_use]
    pub const fn new(record: Record, emission: Emission) -> Self {
        Self {
            record,
            emission,
            json: OnceLock::new(),
        }
    }

    /// Its line of JSON, without the line's end.
    pub fn json(&self) -> &str {
        self.json
            .get_or_init(|| to_json(&self.record, &self.emission))
    }

    /// The same at the end of `out`; not kept, where nobody asked for it before.
    pub fn append_json(&self, out: &mut Vec<u8>) {
        match self.json.get() {
            Some(json) => out.extend_from_slice(json.as_bytes()),
            None => append_json(out, &self.record, &self.emission),
        }
    }

    /// As it waits for an output of this form; `None` where the form has no place for it.
    fn entry(&self, format: Format) -> Option<Entry> {
        let text = if format == Format::Native {
            self.json().to_owned()
        } else {
            format.render(&self.record, &self.emission)?
        };
        let entry = Entry::with_text(&self.record, &self.emission, text);
        Some(entry)
    }
}

/// What became of the records since the last flush.
#[derive(Debug, Default)]
pub struct Flushed {
    /// Records that are in the output, whole.
    pub written: u64,
    /// Records that are not, and will not be.
    pub lost: u64,
    /// Why, when some were lost.
    pub error: Option<Error>,
}

/// An output that is written to directly, because nothing is remembered for it: standard output.
pub trait Sink: Send {
    /// The output as the user named it.
    fn name(&self) -> &str;

    /// Takes one record; it may stay in memory until [`Sink::flush`].
    fn put(&mut self, emitted: &Emitted);

    /// Writes what was taken, and says what became of it.
    fn flush(&mut self) -> Flushed;
}

/// How text for a person looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Style {
    /// Print for a person even where standard output is no terminal, and tell the evidence.
    pub verbose: bool,
}

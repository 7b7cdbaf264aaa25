//! Tells records to standard output, as stories or a line each, and counts what was told.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

use super::select::Selection;
use crate::amount::counted;
use crate::config::Telling;
use crate::record::{Listed, listed, story, wrapped};
use crate::sink::{Emitted, Error, Flushed, Sink, terminal_columns};
use crate::verdict::Verdict;

/// How far in a line of a story, or of a list, goes on below, where the terminal is narrow.
const HANG: usize = 2;

/// What was told, by [`Verdict::ALL`]; a verdict of another release is among none of them.
#[derive(Debug, Default)]
pub(super) struct Told {
    by_verdict: [AtomicU64; Verdict::ALL.len()],
    all: AtomicU64,
}

impl Told {
    pub(super) fn is_none(&self) -> bool {
        self.all.load(Ordering::Relaxed) == 0
    }

    /// Notes one; `true` for the first.
    fn note(&self, record: &Value) -> bool {
        let name = record.pointer("/rstscope/verdict").and_then(Value::as_str);
        for (verdict, count) in Verdict::ALL.iter().zip(&self.by_verdict) {
            count.fetch_add((Some(verdict.name()) == name).into(), Ordering::Relaxed);
        }
        self.all.fetch_add(1, Ordering::Relaxed) == 0
    }
}

/// `3 records: 2 remote, 1 injected`.
impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&counted(self.all.load(Ordering::Relaxed), "record"))?;
        let counts = self
            .by_verdict
            .iter()
            .map(|count| count.load(Ordering::Relaxed));
        let some = Verdict::ALL
            .iter()
            .zip(counts)
            .filter(|(_, count)| *count > 0);
        for (at, (verdict, count)) in some.enumerate() {
            let between = if at == 0 { ": " } else { ", " };
            write!(f, "{between}{count} {}", verdict.name())?;
        }
        Ok(())
    }
}

/// Tells what was asked for.
pub(super) struct Teller {
    selection: Selection,
    telling: Telling,
    told: Arc<Told>,
    buffer: String,
    /// Records since the last flush.
    taken: u64,
}

impl Teller {
    pub(super) const fn new(selection: Selection, telling: Telling, told: Arc<Told>) -> Self {
        Self {
            selection,
            telling,
            told,
            buffer: String::new(),
            taken: 0,
        }
    }

    pub(super) fn take(&mut self, record: &Value) {
        self.taken += 1;
        let text = match self.telling {
            Telling::Stories => self.story(record),
            Telling::Lines => self.line(record),
        };
        let Some(text) = text else {
            return;
        };
        match terminal_columns() {
            Some(columns) => self.buffer.push_str(&wrapped(&text, columns, HANG)),
            None => self.buffer.push_str(&text),
        }
    }

    fn story(&mut self, record: &Value) -> Option<String> {
        let story = self
            .selection
            .takes(record)
            .then(|| story(record))
            .flatten()?;
        if !self.told.note(record) {
            self.buffer.push('\n');
        }
        Some(story)
    }

    /// Gaps are listed whatever was asked for beside time: without them nobody could tell silence from
    /// blindness.
    fn line(&self, record: &Value) -> Option<String> {
        match listed(record)? {
            Listed::Reset(line) => self.selection.takes(record).then(|| {
                self.told.note(record);
                line
            }),
            Listed::Gap(line) => self.selection.takes_time(record).then_some(line),
        }
    }

    pub(super) fn write(&mut self) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        let result = stdout
            .write_all(self.buffer.as_bytes())
            .and_then(|()| stdout.flush());
        self.buffer.clear();
        result
    }
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

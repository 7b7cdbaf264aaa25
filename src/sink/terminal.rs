//! Records for a person: one line each on standard output, and on request the evidence below it. That all was
//! watched is not told every ten seconds: the resets would be lost among it.

use std::io::{self, IsTerminal, Write};

use super::{Emitted, Error, Flushed, Sink};
use crate::record::{Palette, Record, to_line, to_story, wrapped};

/// How far in the evidence goes on below, where the terminal is narrow.
const HANG: usize = 2;

/// Columns where nobody says how many there are.
const USUAL_COLUMNS: usize = 120;

/// Standard output, for a person.
#[derive(Debug)]
pub struct Terminal {
    palette: Palette,
    verbose: bool,
    /// Lines that wait to be written.
    buffer: String,
    records: u64,
    closed: bool,
}

impl Terminal {
    /// Standard output; `verbose` tells the evidence too. Color only on a terminal, and not where
    /// the user said `NO_COLOR` (no-color.org) or the terminal is a dumb one.
    #[must_use]
    pub fn standard(verbose: bool) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let palette = if io::stdout().is_terminal() && !refused {
            Palette::Color
        } else {
            Palette::Plain
        };
        Self {
            palette,
            verbose,
            buffer: String::new(),
            records: 0,
            closed: false,
        }
    }
}

/// Width of the terminal that standard output is, asked anew each time because people resize windows; `None`
/// where it is none.
#[must_use]
pub fn terminal_columns() -> Option<usize> {
    rustix::termios::tcgetwinsize(io::stdout())
        .map(|size| usize::from(size.ws_col))
        .ok()
        .filter(|columns| *columns > 0)
}

impl Sink for Terminal {
    fn name(&self) -> &'static str {
        "-"
    }

    fn put(&mut self, emitted: &Emitted) {
        self.records += 1;
        if matches!(&emitted.record, Record::Coverage(coverage) if coverage.complete) {
            return;
        }
        let columns = terminal_columns().unwrap_or(USUAL_COLUMNS);
        let line = to_line(&emitted.record, &emitted.emission, self.palette, columns);
        self.buffer.push_str(&line);
        self.buffer.push('\n');
        if self.verbose {
            let story = to_story(&emitted.record);
            match terminal_columns() {
                Some(columns) => self.buffer.push_str(&wrapped(&story, columns, HANG)),
                None => self.buffer.push_str(&story),
            }
        }
    }

    fn flush(&mut self) -> Flushed {
        if self.records == 0 {
            return Flushed::default();
        }
        let mut stdout = io::stdout().lock();
        let result = if self.closed {
            Err(io::ErrorKind::BrokenPipe.into())
        } else {
            stdout
                .write_all(self.buffer.as_bytes())
                .and_then(|()| stdout.flush())
        };
        let records = std::mem::take(&mut self.records);
        self.buffer.clear();
        match result {
            Ok(()) => Flushed {
                written: records,
                lost: 0,
                error: None,
            },
            Err(source) => {
                let closed = source.kind() == io::ErrorKind::BrokenPipe;
                self.closed |= closed;
                let error = if closed {
                    Error::Closed
                } else {
                    Error::Write {
                        output: self.name().to_owned(),
                        source,
                    }
                };
                Flushed {
                    written: 0,
                    lost: records,
                    error: Some(error),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Terminal;
    use crate::record::sample::{coverage, emission, injected};
    use crate::record::{CoverageRecord, Record};
    use crate::sink::{Emitted, Sink};

    fn lines(records: Vec<Record>) -> (usize, u64) {
        let mut terminal = Terminal::standard(false);
        for record in records {
            terminal.put(&Emitted::new(record, emission()));
        }
        (terminal.buffer.lines().count(), terminal.records)
    }

    #[test]
    fn of_what_was_watched_a_person_is_told_the_gaps() {
        let watched = |complete| {
            Record::Coverage(Box::new(CoverageRecord {
                complete,
                ..coverage()
            }))
        };
        let reset = Record::Reset(Box::new(injected()));
        assert_eq!(lines(vec![watched(true), reset, watched(true)]), (1, 3));
        assert_eq!(lines(vec![watched(false)]), (1, 1));
    }
}

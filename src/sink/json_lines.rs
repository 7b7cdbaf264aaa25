//! Records as lines to standard output, where that is a pipe or a file: JSON, or another form that the
//! user asked for. Only whole lines stay in a file.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use super::lines::write_on;
use super::{Emitted, Error, Flushed, Sink};
use crate::record::Format;

/// Standard output, for a program.
#[derive(Debug)]
pub struct JsonLines {
    file: File,
    format: Format,
    closed: bool,
    /// Whole lines that wait to be written.
    buffer: Vec<u8>,
    /// How many.
    lines: u64,
}

impl JsonLines {
    /// To standard output, past the standard library's buffer, which would hide what was written.
    ///
    /// # Errors
    ///
    /// [`Error::Write`] when no descriptor is left.
    pub fn standard(format: Format) -> Result<Self, Error> {
        let file = io::stdout()
            .as_fd()
            .try_clone_to_owned()
            .map_err(|source| Error::Write {
                output: "-".to_owned(),
                source,
            })?;
        Ok(Self {
            file: file.into(),
            format,
            closed: false,
            buffer: Vec::new(),
            lines: 0,
        })
    }
}

impl Sink for JsonLines {
    fn name(&self) -> &'static str {
        "-"
    }

    fn put(&mut self, emitted: &Emitted) {
        if self.format == Format::Native {
            emitted.append_json(&mut self.buffer);
        } else {
            let Some(entry) = emitted.entry(self.format) else {
                return;
            };
            self.buffer.extend_from_slice(&entry.body);
        }
        self.buffer.push(b'\n');
        self.lines += 1;
    }

    fn flush(&mut self) -> Flushed {
        if self.lines == 0 {
            return Flushed::default();
        }
        let (kept, error) = if self.closed {
            (0, Some(io::ErrorKind::BrokenPipe.into()))
        } else {
            write_on(&mut self.file, &self.buffer)
        };
        let unwritten = self.buffer.get(kept..).unwrap_or_default();
        let lost = unwritten.iter().filter(|byte| **byte == b'\n').count() as u64;
        let lost = lost.min(self.lines);
        let flushed = Flushed {
            written: self.lines - lost,
            lost,
            error: error.map(|source| match source.kind() {
                io::ErrorKind::BrokenPipe => Error::Closed,
                _ => Error::Write {
                    output: "-".to_owned(),
                    source,
                },
            }),
        };
        self.closed |= matches!(flushed.error, Some(Error::Closed));
        self.buffer.clear();
        self.lines = 0;
        flushed
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};

    use super::JsonLines;
    use crate::record::sample::{coverage, emission};
    use crate::record::{Format, Record, to_json};
    use crate::sink::scratch::folder;
    use crate::sink::{Emitted, Error, Sink};

    fn to(path: &std::path::Path) -> JsonLines {
        let mut sink = JsonLines::standard(Format::Native).unwrap();
        sink.file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .unwrap();
        sink
    }

    fn emitted() -> Emitted {
        Emitted::new(Record::Coverage(Box::new(coverage())), emission())
    }

    #[test]
    fn records_are_appended_as_lines() {
        let path = folder("standard").join("out");
        let mut sink = to(&path);
        sink.put(&emitted());
        sink.put(&emitted());
        let flushed = sink.flush();
        assert_eq!((flushed.written, flushed.lost), (2, 0));
        let line = to_json(&Record::Coverage(Box::new(coverage())), &emission());
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            format!("{line}\n{line}\n")
        );
        assert_eq!(sink.flush().written, 0);
    }

    #[test]
    fn a_full_disk_loses_records_and_says_so() {
        let mut sink = to(std::path::Path::new("/dev/full"));
        sink.put(&emitted());
        let flushed = sink.flush();
        assert_eq!((flushed.written, flushed.lost), (0, 1));
        assert!(matches!(flushed.error, Some(Error::Write { .. })));
    }
}

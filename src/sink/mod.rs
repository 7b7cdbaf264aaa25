//! Where records go. A [`Sink`] takes records one by one and writes whole ones; the [`Writer`]
//! thread stands between them and whoever judges, so that no output can hold up a verdict. Which
//! records exist is not decided here.

mod json_lines;
mod terminal;
mod writer;

use std::fmt;
use std::io;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

pub use json_lines::JsonLines;
pub use terminal::Terminal;
pub use writer::{Output, OutputTotals, Totals, Writer};

use crate::record::{Emission, Record, to_json};

/// A record with the circumstances of its leaving; its JSON form is made once for all outputs.
#[derive(Debug)]
pub struct Emitted {
    /// The record.
    pub record: Record,
    /// Who saw it, and when by the clock on the wall.
    pub emission: Emission,
    json: Option<String>,
}

impl Emitted {
    /// A record on its way out.
    #[must_use]
    pub const fn new(record: Record, emission: Emission) -> Self {
        Self {
            record,
            emission,
            json: None,
        }
    }

    /// Its line of JSON, without the line's end.
    pub fn json(&mut self) -> &str {
        self.json
            .get_or_insert_with(|| to_json(&self.record, &self.emission))
    }
}

/// Why an output did not take records.
#[derive(Debug)]
pub enum Error {
    /// It cannot be opened.
    Open {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// It cannot be written to now; it may be again.
    Write {
        /// The output as the user named it.
        output: String,
        /// The reason.
        source: io::Error,
    },
    /// Its reader went away: nobody wants more.
    Closed,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { path, source } => {
                write!(f, "output {}: cannot open: {source}", path.display())?;
                match source.kind() {
                    // Also where the file system takes no new files (/proc), and at the end of a
                    // symbolic link that leads nowhere.
                    io::ErrorKind::NotFound if path.parent().is_some_and(Path::is_dir) => f
                        .write_str(
                            ": its directory is there but takes no such file: name another path",
                        ),
                    io::ErrorKind::NotFound => f.write_str(": create its directory first"),
                    io::ErrorKind::NotADirectory => f.write_str(
                        ": a part of the path is no directory: name a path below directories",
                    ),
                    io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                        f.write_str(": name a path that this user may write to")
                    }
                    io::ErrorKind::IsADirectory => f.write_str(": name a file in it"),
                    _ => Ok(()),
                }
            }
            Self::Write { output, source } => {
                write!(f, "output {output}: cannot write: {source}")?;
                match source.kind() {
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                        f.write_str(": free some space")
                    }
                    io::ErrorKind::NotFound => f.write_str(": its directory is gone"),
                    _ => Ok(()),
                }
            }
            Self::Closed => f.write_str("the reader of standard output went away"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Open { source, .. } | Self::Write { source, .. } => Some(source),
            Self::Closed => None,
        }
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

/// One output.
pub trait Sink: Send {
    /// The output as the user named it.
    fn name(&self) -> &str;

    /// Takes one record; it may stay in memory until [`Sink::flush`].
    fn put(&mut self, emitted: &mut Emitted);

    /// Writes what was taken, and says what became of it.
    fn flush(&mut self) -> Flushed;
}

/// Where records should go, as the user said it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// `-`: a person on a terminal, JSON lines into a pipe.
    Standard,
    /// `file:///path`: JSON lines at the end of a file.
    File(PathBuf),
}

/// How text for a person looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Style {
    /// Print for a person even where standard output is no terminal, and tell the evidence.
    pub verbose: bool,
}

/// Opens an output.
///
/// # Errors
///
/// [`Error`] for a file that cannot be written to.
pub fn open(target: &Target, style: Style) -> Result<Box<dyn Sink>, Error> {
    Ok(match target {
        Target::File(path) => Box::new(JsonLines::file(path)?),
        Target::Standard if style.verbose || io::stdout().is_terminal() => {
            Box::new(Terminal::standard(style.verbose))
        }
        Target::Standard => Box::new(JsonLines::standard()?),
    })
}

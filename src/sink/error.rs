//! Why an output cannot be had, in a sentence that names it and the remedy.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// Why an output cannot be opened, or does not take records.
#[derive(Debug)]
pub enum Error {
    /// A file cannot be opened.
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
    /// The folder of its spool cannot be used.
    Spool {
        /// The output as the user named it.
        output: String,
        /// The folder.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A file that it needs (certificate, key, token, password, options) cannot be used.
    Secret {
        /// The output as the user named it.
        output: String,
        /// The file.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// Its options do not go together, or a library refuses them.
    Setup {
        /// The output as the user named it.
        output: String,
        /// The reason.
        why: String,
    },
    /// Its reader went away: nobody wants more.
    Closed,
}

impl Error {
    /// Whether this user may not open what it needs.
    #[must_use]
    pub fn is_permission(&self) -> bool {
        match self {
            Self::Open { source, .. } | Self::Write { source, .. } | Self::Spool { source, .. } => {
                source.kind() == io::ErrorKind::PermissionDenied
            }
            Self::Secret { .. } | Self::Setup { .. } | Self::Closed => false,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { path, source } => open_error(f, path, source),
            Self::Write { output, source } => {
                write!(f, "output {output}: {}", write_error(source))
            }
            Self::Spool {
                output,
                path,
                source,
            } => spool_error(f, output, path, source),
            Self::Secret { output, path, why } => {
                write!(f, "output {output}: {}: {why}", path.display())
            }
            Self::Setup { output, why } => write!(f, "output {output}: {why}"),
            Self::Closed => f.write_str("the reader of standard output went away"),
        }
    }
}

fn open_error(f: &mut fmt::Formatter<'_>, path: &Path, source: &io::Error) -> fmt::Result {
    write!(f, "output {}: cannot open: {source}", path.display())?;
    f.write_str(match source.kind() {
        // Also where the file system takes no new files (/proc), and at the end of a symbolic link
        // that leads nowhere.
        io::ErrorKind::NotFound if path.parent().is_some_and(Path::is_dir) => {
            ": its directory is there but takes no such file: name another path"
        }
        io::ErrorKind::NotFound => ": create its directory first",
        io::ErrorKind::NotADirectory => {
            ": a part of the path is no directory: name a path below directories"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            ": name a path that this user may write to"
        }
        io::ErrorKind::IsADirectory => ": name a file in it",
        _ if source.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => {
            match fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo()) {
                true => ": a pipe that nobody reads: start its reader first",
                false => ": name a file or a pipe",
            }
        }
        _ => "",
    })
}

fn spool_error(
    f: &mut fmt::Formatter<'_>,
    output: &str,
    path: &Path,
    source: &io::Error,
) -> fmt::Result {
    write!(f, "output {output}: its spool {}: ", path.display())?;
    match source.kind() {
        io::ErrorKind::WouldBlock => f.write_str(
            "another rstscope uses it: give this one another --spool, or the output another ?name=",
        ),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            write!(
                f,
                "{source}: name a directory that this user may write to with --spool"
            )
        }
        io::ErrorKind::StorageFull => {
            write!(f, "{source}: free some space, or name another --spool")
        }
        _ => write!(f, "{source}"),
    }
}

/// What a failed write means, with the remedy.
pub(super) fn write_error(source: &io::Error) -> String {
    format!("cannot write: {source}{}", remedy(source))
}

/// What to do about a failed write, behind what went wrong; nothing where that is anybody's guess.
pub(super) fn remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ": free some space",
        io::ErrorKind::ReadOnlyFilesystem => ": mount its file system for writing again",
        io::ErrorKind::NotFound => ": its directory is gone",
        _ => "",
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Open { source, .. } | Self::Write { source, .. } | Self::Spool { source, .. } => {
                Some(source)
            }
            Self::Secret { .. } | Self::Setup { .. } | Self::Closed => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::Path;
    use std::sync::Arc;

    use super::{Error, write_error};
    use crate::sink::file::FileTransport;
    use crate::sink::target::FileTarget;

    fn open(path: &Path) -> String {
        let target = FileTarget {
            path: path.to_owned(),
            rotate_size: None,
            rotate_every: None,
            keep: 1,
        };
        let error: Error = FileTransport::open("f", target, Arc::default(), false).unwrap_err();
        error.to_string()
    }

    #[test]
    fn a_write_that_failed_has_the_remedy_that_helps() {
        for (kind, end) in [
            (io::ErrorKind::StorageFull, ": free some space"),
            (
                io::ErrorKind::ReadOnlyFilesystem,
                ": mount its file system for writing again",
            ),
            (io::ErrorKind::NotFound, ": its directory is gone"),
            (io::ErrorKind::BrokenPipe, "broken pipe"),
        ] {
            let said = write_error(&kind.into());
            assert!(said.ends_with(end), "{said}");
        }
    }

    #[test]
    fn a_path_that_cannot_be_written_names_itself_and_the_remedy() {
        let error = open(Path::new("/nowhere/at/all"));
        assert!(error.contains("/nowhere/at/all"));
        assert!(error.contains("create its directory first"));
        let error = open(Path::new("/proc/none-here"));
        assert!(error.contains("name another path"), "{error}");
        let error = open(Path::new("/proc/self/stat/x"));
        assert!(error.contains("no directory"), "{error}");
        let error = open(&std::env::temp_dir());
        assert!(error.contains("name a file in it"), "{error}");
    }

    #[test]
    fn a_spool_in_use_and_a_spool_without_permission_name_the_remedy() {
        let spool = |kind: std::io::ErrorKind| {
            let error = Error::Spool {
                output: "https://h".into(),
                path: "/s".into(),
                source: kind.into(),
            };
            error.to_string()
        };
        assert!(spool(std::io::ErrorKind::WouldBlock).contains("another rstscope"));
        assert!(spool(std::io::ErrorKind::PermissionDenied).contains("--spool"));
    }
}

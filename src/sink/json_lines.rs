//! JSON lines to standard output or to the end of a file. Only whole lines stay in a file: what a
//! full disk cut in half is taken back. A file that was moved away is made anew (log rotation).

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{Emitted, Error, Flushed, Sink};

/// Records name hosts and users' traffic: not for everybody to read.
const FILE_MODE: u32 = 0o640;

/// One output of JSON lines.
#[derive(Debug)]
pub struct JsonLines {
    name: String,
    out: Out,
    /// Whole lines that wait to be written.
    buffer: Vec<u8>,
    /// How many.
    lines: u64,
}

#[derive(Debug)]
enum Out {
    Standard {
        file: File,
        closed: bool,
    },
    File {
        path: PathBuf,
        file: File,
        identity: (u64, u64),
    },
}

impl JsonLines {
    /// To standard output, past the standard library's buffer, which would hide what was written.
    ///
    /// # Errors
    ///
    /// [`Error::Write`] when no descriptor is left.
    pub fn standard() -> Result<Self, Error> {
        let file = io::stdout()
            .as_fd()
            .try_clone_to_owned()
            .map_err(|source| Error::Write {
                output: "-".to_owned(),
                source,
            })?;
        Ok(Self::new(
            "-".to_owned(),
            Out::Standard {
                file: file.into(),
                closed: false,
            },
        ))
    }

    /// To the end of a file, which is made when it is not there.
    ///
    /// # Errors
    ///
    /// [`Error::Open`].
    pub fn file(path: &Path) -> Result<Self, Error> {
        let open = |source| Error::Open {
            path: path.to_owned(),
            source,
        };
        let (file, identity) = append_to(path).map_err(open)?;
        let name = format!("file://{}", path.display());
        let mut sink = Self::new(
            name,
            Out::File {
                path: path.to_owned(),
                file,
                identity,
            },
        );
        // Whoever wrote before may have died in the middle of a line.
        if ends_inside_a_line(path) {
            sink.buffer.push(b'\n');
        }
        Ok(sink)
    }

    const fn new(name: String, out: Out) -> Self {
        Self {
            name,
            out,
            buffer: Vec::new(),
            lines: 0,
        }
    }
}

fn append_to(path: &Path) -> io::Result<(File, (u64, u64))> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(FILE_MODE)
        .open(path)?;
    let metadata = file.metadata()?;
    Ok((file, (metadata.dev(), metadata.ino())))
}

/// Best effort: a file that may not be read is believed to end well.
fn ends_inside_a_line(path: &Path) -> bool {
    let last = || -> io::Result<u8> {
        let mut file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Ok(b'\n');
        }
        file.seek(SeekFrom::End(-1))?;
        let mut byte = [b'\n'];
        file.read_exact(&mut byte)?;
        Ok(byte[0])
    };
    last().is_ok_and(|byte| byte != b'\n')
}

impl Out {
    /// Writes whole lines; gives the bytes that are written for good, and what stopped it.
    fn write(&mut self, bytes: &[u8]) -> (usize, Option<io::Error>) {
        match self {
            Self::Standard { closed: true, .. } => (0, Some(io::ErrorKind::BrokenPipe.into())),
            Self::Standard { file, closed } => {
                let (kept, error) = write_on(file, bytes);
                *closed = error
                    .as_ref()
                    .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
                (kept, error)
            }
            Self::File {
                path,
                file,
                identity,
            } => {
                let moved =
                    std::fs::metadata(&*path).map_or(true, |m| (m.dev(), m.ino()) != *identity);
                if moved {
                    match append_to(path) {
                        Ok(opened) => (*file, *identity) = opened,
                        Err(error) => return (0, Some(error)),
                    }
                }
                write_on(file, bytes)
            }
        }
    }
}

fn write_on(file: &mut File, bytes: &[u8]) -> (usize, Option<io::Error>) {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        let error = match file.write(rest) {
            Ok(0) => io::ErrorKind::WriteZero.into(),
            Ok(count) => {
                written += count;
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => error,
        };
        return (take_back(file, bytes, written), Some(error));
    }
    (written, None)
}

/// Cuts the half line that ends the `written` bytes; says how many bytes then stay. Another
/// program may append to the same file: if something follows ours already, nothing is cut.
fn take_back(file: &mut File, bytes: &[u8], written: usize) -> usize {
    let ours = bytes.get(..written).unwrap_or_default();
    let whole = ours
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    let cut = (|| {
        // In append mode the position after a write is the end of what was written.
        let position = file.stream_position()?;
        let metadata = file.metadata()?;
        if metadata.is_file() && metadata.len() == position {
            let end = position - (written - whole) as u64;
            file.set_len(end)?;
            // Standard output need not be in append mode.
            file.seek(SeekFrom::Start(end))?;
        }
        Ok::<(), io::Error>(())
    })();
    // A file that cannot be cut keeps its half line; the next one would be joined to it, but
    // where cutting fails, writing fails too.
    drop(cut);
    whole
}

impl Sink for JsonLines {
    fn name(&self) -> &str {
        &self.name
    }

    fn put(&mut self, emitted: &mut Emitted) {
        self.buffer.extend_from_slice(emitted.json().as_bytes());
        self.buffer.push(b'\n');
        self.lines += 1;
    }

    fn flush(&mut self) -> Flushed {
        if self.lines == 0 {
            return Flushed::default();
        }
        let (kept, error) = self.out.write(&self.buffer);
        let unwritten = self.buffer.get(kept..).unwrap_or_default();
        let lost = unwritten.iter().filter(|byte| **byte == b'\n').count() as u64;
        let lost = lost.min(self.lines);
        let flushed = Flushed {
            written: self.lines - lost,
            lost,
            error: error.map(|source| match source.kind() {
                io::ErrorKind::BrokenPipe => Error::Closed,
                _ => Error::Write {
                    output: self.name.clone(),
                    source,
                },
            }),
        };
        self.buffer.clear();
        self.lines = 0;
        flushed
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::{JsonLines, take_back};
    use crate::record::sample::{coverage, emission};
    use crate::record::{Record, to_json};
    use crate::sink::{Emitted, Error, Sink};

    fn scratch(name: &str) -> std::path::PathBuf {
        let folder = std::env::temp_dir().join(format!("rstscope-sink-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join(name);
        let _ = fs::remove_file(&path);
        path
    }

    fn emitted() -> Emitted {
        Emitted::new(Record::Coverage(Box::new(coverage())), emission())
    }

    fn line() -> String {
        to_json(&Record::Coverage(Box::new(coverage())), &emission()) + "\n"
    }

    #[test]
    fn records_are_appended_behind_what_is_there() {
        let path = scratch("append");
        fs::write(&path, "before\n").unwrap();
        let mut sink = JsonLines::file(&path).unwrap();
        sink.put(&mut emitted());
        sink.put(&mut emitted());
        let flushed = sink.flush();
        assert_eq!((flushed.written, flushed.lost), (2, 0));
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            format!("before\n{0}{0}", line())
        );
    }

    #[test]
    fn a_half_line_of_somebody_before_is_not_joined_to_ours() {
        let path = scratch("half");
        fs::write(&path, "{\"cut").unwrap();
        let mut sink = JsonLines::file(&path).unwrap();
        sink.put(&mut emitted());
        assert_eq!(sink.flush().written, 1);
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            format!("{{\"cut\n{}", line())
        );
    }

    #[test]
    fn a_line_that_was_cut_in_half_is_taken_back() {
        let path = scratch("cut");
        let (mut file, _) = super::append_to(&path).unwrap();
        file.write_all(b"one\ntwo\nthr").unwrap();
        assert_eq!(take_back(&mut file, b"one\ntwo\nthree\n", 11), 8);
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn nothing_is_cut_when_another_program_wrote_behind_us() {
        let path = scratch("shared");
        let (mut file, _) = super::append_to(&path).unwrap();
        file.write_all(b"one\ntw").unwrap();
        super::append_to(&path)
            .unwrap()
            .0
            .write_all(b"theirs\n")
            .unwrap();
        take_back(&mut file, b"one\ntwo\n", 6);
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwtheirs\n");
    }

    #[test]
    fn a_full_disk_loses_records_and_says_so() {
        let mut sink = JsonLines::file(std::path::Path::new("/dev/full")).unwrap();
        sink.put(&mut emitted());
        let flushed = sink.flush();
        assert_eq!((flushed.written, flushed.lost), (0, 1));
        let error = flushed.error.unwrap().to_string();
        assert!(
            error.contains("file:///dev/full") && error.contains("space"),
            "{error}"
        );
    }

    #[test]
    fn a_moved_file_is_made_anew_and_a_lost_folder_is_an_error_until_it_is_back() {
        let folder = scratch("folder");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("out");
        let mut sink = JsonLines::file(&path).unwrap();
        let mut write = || {
            sink.put(&mut emitted());
            sink.flush()
        };
        assert_eq!(write().written, 1);
        fs::rename(&path, folder.join("out.1")).unwrap();
        assert_eq!(write().written, 1);
        assert_eq!(fs::read_to_string(&path).unwrap(), line());
        fs::remove_dir_all(&folder).unwrap();
        let flushed = write();
        assert_eq!(flushed.lost, 1);
        assert!(matches!(flushed.error, Some(Error::Write { .. })));
        fs::create_dir_all(&folder).unwrap();
        assert_eq!(write().written, 1);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_path_that_cannot_be_written_names_itself_and_the_remedy() {
        let error = JsonLines::file(std::path::Path::new("/nowhere/at/all")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/at/all"));
        assert!(error.to_string().contains("create its directory first"));
        let error = JsonLines::file(std::path::Path::new("/proc/none-here")).unwrap_err();
        assert!(error.to_string().contains("name another path"), "{error}");
        let error = JsonLines::file(std::path::Path::new("/proc/self/stat/x")).unwrap_err();
        assert!(error.to_string().contains("no directory"), "{error}");
        let error = JsonLines::file(&std::env::temp_dir()).unwrap_err();
        assert!(error.to_string().contains("name a file in it"), "{error}");
    }
}

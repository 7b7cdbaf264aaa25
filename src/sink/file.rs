//! `file:///PATH`: lines at the end of a file, turned by size and age. A file that was moved away (log
//! rotation) is made anew, with or without a signal. After any crash the file ends in whole lines, or
//! the next line begins on a line of its own. Where records wait in a spool, they leave it when the disk
//! has them: what a power failure takes from the file is still there. It never reads what it wrote.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use super::entry::Entry;
use super::lines::write_on;
use super::target::FileTarget;
use super::transport::{Delivered, Failure, Fate, Transport};
use super::{Error, clock, write_error};

/// Records name hosts and users' traffic: not for everybody to read.
const FILE_MODE: u32 = 0o640;
/// To open a pipe that nobody reads is an error and not a wait without end, in which no signal would be heard.
const NO_WAIT: i32 = OFlags::NONBLOCK.bits().cast_signed();
/// How often the file is forced to disk, as often as spools are: so much of a flood stays in the spool, and
/// is written twice when the sensor is killed.
const SYNC_EVERY: Duration = Duration::from_millis(500);

/// A file that records are appended to.
#[derive(Debug)]
pub struct FileTransport {
    name: String,
    target: FileTarget,
    open: Option<Open>,
    /// Times that somebody asked for the file to be opened anew.
    reopened: Arc<AtomicU64>,
    seen: u64,
    unsynced: Option<Unsynced>,
}

/// What was written and is not yet forced to disk.
#[derive(Debug)]
struct Unsynced {
    records: usize,
    /// Files that were left since: turned, or moved away by somebody.
    left: Vec<File>,
    /// The last time that it was forced.
    since: Instant,
}

#[derive(Debug)]
struct Open {
    file: File,
    identity: (u64, u64),
    /// Not a device and not a pipe: it can be turned.
    regular: bool,
    bytes: u64,
    /// When it was begun, seconds since 1970.
    begun: u64,
}

impl FileTransport {
    /// Opens the file, which is made when it is not there. `reopened` counts up when it shall be opened
    /// anew. With `is_spooled` a record counts as delivered when it was forced to disk; without, and in a
    /// device or a pipe, when it was written.
    ///
    /// # Errors
    ///
    /// [`Error::Open`].
    pub fn open(
        name: &str,
        target: FileTarget,
        reopened: Arc<AtomicU64>,
        is_spooled: bool,
    ) -> Result<Self, Error> {
        let open = Open::append_to(&target.path).map_err(|source| Error::Open {
            path: target.path.clone(),
            source,
        })?;
        let unsynced = (is_spooled && open.regular).then(|| Unsynced {
            records: 0,
            left: Vec::new(),
            since: clock::now(),
        });
        Ok(Self {
            name: name.to_owned(),
            target,
            open: Some(open),
            seen: reopened.load(Ordering::Relaxed),
            reopened,
            unsynced,
        })
    }

    /// Records wait for it in a spool on disk: neither a device nor a pipe has anything to lose.
    pub fn is_spooled(&self) -> bool {
        self.unsynced.is_some()
    }

    /// Gives the file up, but for what must still be forced to disk.
    fn leave(&mut self) {
        if let (Some(open), Some(unsynced)) = (self.open.take(), &mut self.unsynced) {
            unsynced.left.push(open.file);
        }
    }

    /// Forces to disk what was written; says how many records that were.
    fn force(&mut self) -> Result<usize, Failure> {
        let Some(unsynced) = &mut self.unsynced else {
            return Ok(0);
        };
        unsynced.since = clock::now();
        let records = std::mem::take(&mut unsynced.records);
        let left = std::mem::take(&mut unsynced.left);
        if records == 0 {
            return Ok(0);
        }
        let open = self.open.as_ref().map(|open| &open.file);
        for file in left.iter().chain(open) {
            // The system forgets what it could not write: it must come from the spool again.
            file.sync_data()
                .map_err(|source| Failure::new(write_error(&source)))?;
        }
        Ok(records)
    }

    fn write(&mut self, batch: &[Arc<Entry>]) -> (usize, Option<io::Error>) {
        let mut done = 0;
        while let Some(rest) = batch.get(done..).filter(|rest| !rest.is_empty()) {
            let first = rest.first().map_or(0, |entry| entry.body.len() as u64 + 1);
            let room = match self.ready(first) {
                Ok(room) => room,
                Err(error) => return (done, Some(error)),
            };
            let (lines, bytes) = lines_within(rest, room);
            let Some(open) = &mut self.open else {
                return (done, None);
            };
            let (kept, error) = write_on(&mut open.file, &bytes);
            open.bytes += kept as u64;
            if let Some(error) = error {
                let whole = bytes.get(..kept).unwrap_or_default();
                let whole = whole.iter().filter(|byte| **byte == b'\n').count();
                return (done + whole, Some(error));
            }
            done += lines;
        }
        (done, None)
    }

    /// Opens and turns the file where that is due before so many bytes; says how many fit.
    fn ready(&mut self, next: u64) -> io::Result<u64> {
        let asked = self.reopened.load(Ordering::Relaxed);
        let identity = fs::metadata(&self.target.path).map(|found| (found.dev(), found.ino()));
        let same = self
            .open
            .as_ref()
            .is_some_and(|open| identity.as_ref().is_ok_and(|found| *found == open.identity));
        if !same || asked != self.seen {
            self.leave();
            self.open = Some(Open::append_to(&self.target.path)?);
            self.seen = asked;
        }
        let Some(open) = &self.open else {
            return Ok(0);
        };
        let age = clock::unix_seconds().saturating_sub(open.begun);
        let old = self
            .target
            .rotate_every
            .is_some_and(|limit| age >= limit.as_secs());
        let full = self
            .target
            .rotate_size
            .is_some_and(|limit| open.bytes + next > limit);
        if open.regular && open.bytes > 0 && (old || full) {
            self.turn()?;
        }
        let bytes = self.open.as_ref().map_or(0, |open| open.bytes);
        Ok(self
            .target
            .rotate_size
            .map_or(u64::MAX, |limit| limit.saturating_sub(bytes)))
    }

    /// `path` becomes `path.1`, that becomes `path.2`, and so on; the oldest goes.
    fn turn(&mut self) -> io::Result<()> {
        let numbered = |number: u32| {
            let mut name = self.target.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        for number in (1..self.target.keep).rev() {
            match fs::rename(numbered(number), numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.target.path, numbered(1))?;
        self.leave();
        self.open = Some(Open::append_to(&self.target.path)?);
        Ok(())
    }
}

/// As many entries as fit into so many bytes, but one at least.
fn lines_within(entries: &[Arc<Entry>], room: u64) -> (usize, Vec<u8>) {
    let all: usize = entries.iter().map(|entry| entry.body.len() + 1).sum();
    let mut bytes = Vec::with_capacity(all);
    let mut lines = 0;
    for entry in entries {
        let after = (bytes.len() + entry.body.len() + 1) as u64;
        if lines > 0 && after > room {
            break;
        }
        bytes.extend_from_slice(&entry.body);
        bytes.push(b'\n');
        lines += 1;
    }
    (lines, bytes)
}

impl Open {
    fn append_to(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(FILE_MODE)
            .custom_flags(NO_WAIT)
            .open(path)?;
        let metadata = file.metadata()?;
        let regular = metadata.is_file();
        if !regular {
            // Its reader is there, and is waited for from now on: a record is not torn because a pipe is full.
            rustix::fs::fcntl_setfl(&file, OFlags::APPEND)?;
        }
        // Whoever wrote before may have died in the middle of a line.
        if regular && ends_inside_a_line(path) {
            let (_, error) = write_on(&mut file, b"\n");
            if let Some(error) = error {
                return Err(error);
            }
        }
        let begun = metadata.created().ok().and_then(|time| {
            let since = time.duration_since(std::time::UNIX_EPOCH).ok()?;
            Some(since.as_secs())
        });
        Ok(Self {
            identity: (metadata.dev(), metadata.ino()),
            regular,
            bytes: file.metadata()?.len(),
            begun: begun.unwrap_or_else(clock::unix_seconds),
            file,
        })
    }
}

/// Best effort: a file that may not be read is believed to end well.
fn ends_inside_a_line(path: &Path) -> bool {
    let last = || -> io::Result<u8> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::End(-1))?;
        let mut byte = [b'\n'];
        file.read_exact(&mut byte)?;
        Ok(byte[0])
    };
    last().is_ok_and(|byte| byte != b'\n')
}

impl Transport for FileTransport {
    fn deliver(&mut self, batch: &[Arc<Entry>]) -> Delivered {
        let (done, error) = self.write(batch);
        let fate = match &mut self.unsynced {
            Some(unsynced) => {
                unsynced.records += done;
                Fate::Sent
            }
            None => Fate::Taken,
        };
        let mut delivered = Delivered::all(done, fate);
        delivered.fates.resize(batch.len(), Fate::Again);
        delivered.failure = error.map(|source| Failure::new(write_error(&source)));
        if delivered.failure.is_none() && done < batch.len() {
            delivered.failure = Some(Failure::new(format!("{} takes nothing", self.name)));
        }
        delivered
    }

    fn confirmed(&mut self) -> Result<usize, Failure> {
        match &self.unsynced {
            Some(unsynced) if clock::now() >= unsynced.since + SYNC_EVERY => self.force(),
            _ => Ok(0),
        }
    }

    fn finish(&mut self, _: Instant) -> usize {
        self.force().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::{FileTransport, SYNC_EVERY};
    use crate::sink::clock;
    use crate::sink::entry::Entry;
    use crate::sink::scratch::folder;
    use crate::sink::target::FileTarget;
    use crate::sink::transport::{Fate, Transport};

    fn target(path: &Path) -> FileTarget {
        FileTarget {
            path: path.to_owned(),
            rotate_size: None,
            rotate_every: None,
            keep: 2,
        }
    }

    fn open(target: FileTarget) -> FileTransport {
        FileTransport::open("file", target, Arc::default(), false).unwrap()
    }

    fn entries(texts: &[&str]) -> Vec<Arc<Entry>> {
        texts
            .iter()
            .map(|text| {
                Arc::new(Entry {
                    body: text.as_bytes().to_vec(),
                    ..Entry::BLANK
                })
            })
            .collect()
    }

    #[test]
    fn lines_are_appended_and_a_half_line_of_somebody_before_is_not_joined_to_ours() {
        let path = folder("file-half").join("f");
        fs::write(&path, "{\"cut").unwrap();
        let mut file = open(target(&path));
        let delivered = file.deliver(&entries(&["a", "b"]));
        assert_eq!(delivered.fates, [Fate::Taken, Fate::Taken]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"cut\na\nb\n");
    }

    #[test]
    fn a_full_disk_is_a_failure_that_names_the_remedy_and_nothing_is_taken() {
        let mut file = open(target(Path::new("/dev/full")));
        let delivered = file.deliver(&entries(&["a", "b"]));
        assert_eq!(delivered.fates, [Fate::Again, Fate::Again]);
        assert!(delivered.failure.unwrap().what.contains("free some space"));
    }

    #[test]
    fn a_file_is_turned_before_it_outgrows_its_size_and_the_oldest_goes() {
        let folder = folder("file-turn");
        let path = folder.join("f");
        let mut file = open(FileTarget {
            rotate_size: Some(6),
            ..target(&path)
        });
        let delivered = file.deliver(&entries(&["01", "02", "03", "04", "05", "06", "07"]));
        assert!(delivered.fates.iter().all(|fate| *fate == Fate::Taken));
        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
        assert_eq!((read("f"), read("f.1"), read("f.2")).0, "07\n");
        assert_eq!(
            (read("f.1"), read("f.2")),
            ("05\n06\n".into(), "03\n04\n".into())
        );
        assert!(!folder.join("f.3").exists());
        // A record that is longer than the limit stands alone.
        file.deliver(&entries(&["0123456789", "x"]));
        assert_eq!(
            (read("f"), read("f.1")),
            ("x\n".into(), "0123456789\n".into())
        );
    }

    #[test]
    fn a_file_is_turned_by_age() {
        let folder = folder("file-age");
        let path = folder.join("f");
        let mut file = open(FileTarget {
            rotate_every: Some(Duration::from_secs(1)),
            ..target(&path)
        });
        file.deliver(&entries(&["a"]));
        std::thread::sleep(Duration::from_millis(2100));
        file.deliver(&entries(&["b"]));
        assert_eq!(fs::read_to_string(folder.join("f.1")).unwrap(), "a\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "b\n");
    }

    #[test]
    fn a_moved_file_is_made_anew_and_a_lost_folder_is_a_failure_until_it_is_back() {
        let folder = folder("file-moved");
        let path = folder.join("f");
        let mut file = open(target(&path));
        file.deliver(&entries(&["a"]));
        fs::rename(&path, folder.join("elsewhere")).unwrap();
        file.deliver(&entries(&["b"]));
        assert_eq!(fs::read_to_string(&path).unwrap(), "b\n");
        fs::remove_dir_all(&folder).unwrap();
        let failure = file.deliver(&entries(&["c"])).failure.unwrap();
        assert!(failure.what.contains("directory is gone"), "{failure:?}");
        fs::create_dir_all(&folder).unwrap();
        assert_eq!(file.deliver(&entries(&["c"])).fates, [Fate::Taken]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "c\n");
    }

    #[test]
    fn a_pipe_is_not_waited_for_until_somebody_reads_it() {
        let dir = folder("pipe");
        let path = dir.join("records");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let refused = FileTransport::open("file", target(&path), Arc::default(), true).unwrap_err();
        let said = refused.to_string();
        assert!(said.contains("start its reader first"), "{said}");

        let reader = path.clone();
        let reader = std::thread::spawn(move || fs::read_to_string(reader).unwrap());
        let mut file = loop {
            match FileTransport::open("file", target(&path), Arc::default(), true) {
                Ok(file) => break file,
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        assert!(!file.is_spooled());
        // More than a pipe holds: it waits for the reader, whole records at a time.
        let long = "a".repeat(1 << 20);
        let delivered = file.deliver(&entries(&[&long, "b"]));
        assert_eq!(delivered.fates, [const { Fate::Taken }; 2]);
        drop(file);
        assert_eq!(reader.join().unwrap(), format!("{long}\nb\n"));
        let _ = fs::remove_dir_all(&dir);
    }

    #[test]
    fn a_file_is_opened_anew_when_somebody_asks() {
        let path = folder("file-reopen").join("f");
        let reopened = Arc::new(AtomicU64::new(0));
        let asked = Arc::clone(&reopened);
        let mut file = FileTransport::open("file", target(&path), asked, false).unwrap();
        file.deliver(&entries(&["a"]));
        // What `copytruncate` of logrotate does.
        fs::write(&path, "").unwrap();
        reopened.fetch_add(1, Ordering::Relaxed);
        file.deliver(&entries(&["b"]));
        assert_eq!(fs::read_to_string(&path).unwrap(), "b\n");
        assert_eq!(file.open.as_ref().unwrap().bytes, 2);
    }
    #[test]
    fn with_a_spool_a_record_is_delivered_when_the_disk_has_it_in_whichever_file_it_is() {
        let path = folder("file-forced").join("f");
        let turned = FileTarget {
            rotate_size: Some(3),
            ..target(&path)
        };
        let mut file = FileTransport::open("file", turned, Arc::default(), true).unwrap();
        assert_eq!(
            file.deliver(&entries(&["a", "b"])).fates,
            [Fate::Sent, Fate::Sent]
        );
        assert_eq!(file.confirmed(), Ok(0), "at once");
        assert_eq!(file.unsynced.as_ref().unwrap().left.len(), 1);
        std::thread::sleep(SYNC_EVERY);
        assert_eq!(file.confirmed(), Ok(2));
        assert_eq!(file.deliver(&entries(&["c"])).fates, [Fate::Sent]);
        assert_eq!(file.finish(clock::now()), 1);
        assert_eq!(file.unsynced.as_ref().unwrap().left.len(), 0);
        assert_eq!(fs::read_to_string(&path).unwrap(), "c\n");
    }
}

//! The folder of a spool while it is ours: its lock, since one process may have it, and the cursor, which
//! says what is delivered. Records are not its business.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// Records name hosts and users' traffic: not for everybody to read.
pub(super) const FILE_MODE: u32 = 0o640;
const FOLDER_MODE: u32 = 0o750;
const CURSOR: &str = "cursor";
const LOCK: &str = "lock";
/// Who had the spool may remove it between our opening of its lock and our taking it: then there is another
/// one to be made. That happens once at a spool's end; more than a few times is somebody's mischief.
const LOCK_TRIES: u32 = 4;

/// A folder that nobody else writes to.
#[derive(Debug)]
pub(super) struct Held {
    path: PathBuf,
    _lock: File,
}

impl Held {
    /// Makes the folder where it is not there, and its lock ours.
    ///
    /// # Errors
    ///
    /// What the system says; `WouldBlock` when it is another process's.
    pub(super) fn take(folder: &Path) -> io::Result<Self> {
        for _ in 0..LOCK_TRIES {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(FOLDER_MODE)
                .create(folder)?;
            let path = folder.join(LOCK);
            let opened = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(FILE_MODE)
                .open(&path);
            let lock = match opened {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened?,
            };
            flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
            if is_at(&lock, &path)? {
                return Ok(Self {
                    path: folder.to_owned(),
                    _lock: lock,
                });
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The first record that is not delivered. `None` when that is not known, or what is known is damaged:
    /// then everything that is here is delivered again.
    pub(super) fn cursor(&self) -> Option<u64> {
        let text = fs::read_to_string(self.path.join(CURSOR)).ok()?;
        let number = u64::from_str_radix(text.get(..16)?, 16).ok()?;
        (text == cursor_text(number)).then_some(number)
    }

    /// Remembers the first record that is not delivered, so that a start after a crash begins there.
    pub(super) fn save_cursor(folder: &Path, number: u64) -> io::Result<()> {
        let text = cursor_text(number);
        let new = folder.join("cursor.new");
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(FILE_MODE)
            .open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_data()?;
        fs::rename(&new, folder.join(CURSOR))
    }

    /// Ends a spool that has no records any more; the folder stays when it holds dead letters. What cannot
    /// be removed is found again, and means nothing.
    pub(super) fn remove(self) {
        let _ = fs::remove_file(self.path.join(CURSOR));
        let _ = fs::remove_file(self.path.join(LOCK));
        let _ = fs::remove_dir(&self.path);
    }
}

/// Whether this open file is still the one of that name.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    let there = fs::metadata(path);
    Ok(there.is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())))
}

fn cursor_text(number: u64) -> String {
    let digits = format!("{number:016x}");
    let sum = crc32c::crc32c(digits.as_bytes());
    format!("{digits} {sum:08x}\n")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io;

    use super::{CURSOR, Held, LOCK, is_at};
    use crate::sink::scratch::folder;

    #[test]
    fn one_has_it_at_a_time_and_a_lock_that_was_removed_meanwhile_is_none() {
        let folder = folder("held-once");
        let held = Held::take(&folder).unwrap();
        let refused = Held::take(&folder).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        // Opened before the end of the one who has it, and taken after it.
        let late = fs::File::open(folder.join(LOCK)).unwrap();
        held.remove();
        assert!(!folder.exists());
        assert!(!is_at(&late, &folder.join(LOCK)).unwrap());
        let next = Held::take(&folder).unwrap();
        assert!(!is_at(&late, &folder.join(LOCK)).unwrap());
        assert_eq!(next.cursor(), None);
    }

    #[test]
    fn a_cursor_is_read_as_it_was_saved_and_a_damaged_one_is_none() {
        let folder = folder("held-cursor");
        let held = Held::take(&folder).unwrap();
        Held::save_cursor(&folder, 0x1234).unwrap();
        assert_eq!(held.cursor(), Some(0x1234));
        let path = folder.join(CURSOR);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("1234", "1235")).unwrap();
        assert_eq!(held.cursor(), None);
    }

    #[test]
    fn dead_letters_outlive_the_spool() {
        let folder = folder("held-dead");
        let held = Held::take(&folder).unwrap();
        fs::write(folder.join("dead.jsonl"), "{}\n").unwrap();
        held.remove();
        let left: Vec<_> = fs::read_dir(&folder).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }
}

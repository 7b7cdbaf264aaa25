//! Records beside a spool that is another process's: whoever waits for that spool leaves them in its folder,
//! where who has it finds them, so that a record is on disk though its spool is not ours. A file holds some
//! records in the form of a segment, is complete when it has its name, and is read once. It knows
//! neither numbers nor who waits.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::held::FILE_MODE;
use super::segment::{self, Next, Reader};
use crate::sink::entry::Entry;

/// The end of a whole file's name.
const SUFFIX: &str = ".aside";
/// The end of its name while it is written.
const UNFINISHED: &str = ".aside.new";

/// What a file held.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) entries: Vec<Arc<Entry>>,
    /// Something in it is no record, and nothing behind that is known.
    pub(super) is_damaged: bool,
}

/// Leaves records in this folder, forced to disk. The files of all who wait may have `limit` bytes together:
/// nobody takes them while the process that has the spool stands still.
///
/// # Errors
///
/// What the system says, `StorageFull` at the limit: then nothing was left.
pub(super) fn leave(folder: &Path, limit: u64, entries: &[Arc<Entry>]) -> io::Result<()> {
    let wanted: usize = entries.iter().map(|entry| entry.size()).sum();
    if bytes(folder)? + wanted as u64 > limit {
        return Err(io::ErrorKind::StorageFull.into());
    }
    let mut records = Vec::with_capacity(wanted + wanted / 8);
    for (number, entry) in (0..).zip(entries) {
        segment::frame(&mut records, number, |bytes| entry.encode(bytes));
    }
    let name = entries.first().map(|entry| name(entry)).unwrap_or_default();
    let unfinished = folder.join(format!("{name}{UNFINISHED}"));
    let result = write(&unfinished, &records)
        .and_then(|()| fs::rename(&unfinished, folder.join(format!("{name}{SUFFIX}"))));
    if result.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    result?;
    File::open(folder)?.sync_all()
}

/// What no other file is called: it names the first record. Names are in the order of time.
fn name(first: &Entry) -> String {
    let is_plain = |letter: &char| letter.is_ascii_alphanumeric() || *letter == '-';
    let id: String = first.id.chars().filter(is_plain).collect();
    format!("{:020}-{id}", first.time_ns)
}

fn write(path: &Path, records: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(FILE_MODE)
        .open(path)?;
    file.write_all(records)?;
    file.sync_data()
}

/// The whole files of a folder, the oldest first.
pub(super) fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = named(folder, SUFFIX)?;
    paths.sort_unstable();
    Ok(paths)
}

/// What is in a file, up to the first damage.
pub(super) fn read(path: &Path) -> io::Result<Found> {
    let end = fs::metadata(path)?.len();
    let mut reader = Reader::at(path, 0)?;
    let mut found = Found::default();
    loop {
        let entry = match reader.next(end)? {
            Next::End => return Ok(found),
            Next::Record(record) => Entry::decode(&record),
            Next::Damage => None,
        };
        match entry {
            Some(entry) => found.entries.push(Arc::new(entry)),
            None => {
                found.is_damaged = true;
                return Ok(found);
            }
        }
    }
}

/// Removes what somebody who was killed did not finish. Who is at it still finds that out when the file is
/// to get its name, and has its records yet.
pub(super) fn forget_unfinished(folder: &Path) -> io::Result<()> {
    named(folder, UNFINISHED)?
        .iter()
        .try_for_each(fs::remove_file)
}

fn bytes(folder: &Path) -> io::Result<u64> {
    let sizes = named(folder, SUFFIX)?
        .into_iter()
        // One that is taken in the meantime needs no room.
        .map(|path| fs::metadata(path).map_or(0, |data| data.len()));
    Ok(sizes.sum())
}

fn named(folder: &Path, suffix: &str) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.ends_with(suffix))
        {
            paths.push(entry.path());
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io;
    use std::sync::Arc;

    use super::{UNFINISHED, forget_unfinished, leave, list, read};
    use crate::sink::entry::Entry;
    use crate::sink::scratch::folder;

    fn entry(number: u64) -> Arc<Entry> {
        Arc::new(Entry {
            id: format!("id-{number}"),
            key: "1:key".to_owned(),
            time_ns: 7,
            severity: 6,
            label: "local".to_owned(),
            body: vec![b'x'; 100],
        })
    }

    #[test]
    fn what_was_left_is_found_in_order_and_whole() {
        let folder = folder("aside");
        leave(&folder, 10_000, &[entry(0), entry(1)]).unwrap();
        leave(&folder, 10_000, &[entry(2)]).unwrap();
        let files = list(&folder).unwrap();
        let found: Vec<_> = files.iter().map(|path| read(path).unwrap()).collect();
        assert_eq!(found[0].entries, [entry(0), entry(1)]);
        assert_eq!(found[1].entries, [entry(2)]);
        assert!(!found[0].is_damaged && !found[1].is_damaged);
    }

    #[test]
    fn beyond_the_limit_nothing_is_left() {
        let folder = folder("aside-limit");
        leave(&folder, 300, &[entry(0)]).unwrap();
        let refused = leave(&folder, 300, &[entry(1), entry(2)]).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    }

    #[test]
    fn damage_costs_what_is_behind_it_and_is_told() {
        let folder = folder("aside-damage");
        leave(&folder, 10_000, &[entry(0), entry(1), entry(2)]).unwrap();
        let path = list(&folder).unwrap().remove(0);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
        let found = read(&path).unwrap();
        assert_eq!(found.entries, [entry(0)]);
        assert!(found.is_damaged);
    }

    #[test]
    fn what_nobody_finished_is_no_file_and_goes() {
        let folder = folder("aside-unfinished");
        fs::write(folder.join(format!("1-1{UNFINISHED}")), "half").unwrap();
        assert!(list(&folder).unwrap().is_empty());
        forget_unfinished(&folder).unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    }
}

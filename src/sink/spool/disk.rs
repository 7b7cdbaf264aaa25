//! The segments of one spool, files that are only ever appended to. Records are numbered without gaps, so
//! that whatever is missing can be counted. It decides nothing about what to do when the disk is full:
//! its errors are the caller's.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use super::aside;
use super::held::{FILE_MODE, Held};
use super::segment::{self, Next, Reader};
use crate::sink::entry::Entry;

/// A segment grows to this before the next one is begun: large enough that few files hold the usual
/// limit of 512 MiB, small enough that dropping the oldest drops seconds rather than hours.
const SEGMENT_BYTES: u64 = 16 << 20;
/// Fraction of the limit that one segment may have at the most, so that dropping one leaves the rest.
const SEGMENTS_MIN: u64 = 8;
/// Bytes of one write: some fifty records, and what stays allocated for them.
const WRITE_BYTES: usize = 256 << 10;

/// One file of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    /// Number of its first record.
    first: u64,
    /// Number after its last.
    next: u64,
    /// Bytes of whole records.
    bytes: u64,
}

/// What a spool held when it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    /// Records that wait to be delivered.
    pub waiting: u64,
    /// Bytes behind the last whole record, cut off: the writer died in the middle of it.
    pub torn_bytes: u64,
    /// Records that an earlier run dropped before anybody got them.
    pub missing: u64,
}

/// What reading gave.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) records: Vec<(u64, Vec<u8>)>,
    /// Records that were passed over, because their segment is damaged.
    pub(super) damaged: u64,
}

/// The files.
#[derive(Debug)]
pub(super) struct Disk {
    limit: u64,
    segment_bytes: u64,
    segments: VecDeque<Segment>,
    /// The last segment; `None` before the first record, and after a write that failed.
    writer: Option<Arc<File>>,
    reader: Option<(u64, Reader)>,
    /// Segments by their first number that were written to and not yet forced to disk. In a flood there are
    /// several between two times.
    unsynced: Vec<(u64, Arc<File>)>,
    /// Room for what is written together.
    buffer: Vec<u8>,
    /// Number of the next record that is written.
    pub(super) next: u64,
    held: Held,
}

impl Disk {
    /// Opens the spool in a folder, which is made where it is not there. Gives also the number of the
    /// first record that is not delivered.
    pub(super) fn open(folder: &Path, limit: u64) -> io::Result<(Self, u64, Found)> {
        let held = Held::take(folder)?;
        aside::forget_unfinished(folder)?;
        let mut found = Found::default();
        let segments = survey(folder, &mut found)?;
        let cursor = held.cursor();
        let first = segments.front().map(|segment| segment.first);
        let end = segments.back().map_or(0, |segment| segment.next);
        let next = end.max(cursor.unwrap_or(0));
        let read = cursor.unwrap_or(0).max(first.unwrap_or(next)).min(next);
        found.missing = cursor.map_or(0, |cursor| read.saturating_sub(cursor));
        found.waiting = next - read;
        let mut disk = Self {
            limit,
            segment_bytes: SEGMENT_BYTES.min(limit / SEGMENTS_MIN),
            segments,
            writer: None,
            reader: None,
            unsynced: Vec::new(),
            buffer: Vec::new(),
            next,
            held,
        };
        disk.forget_before(read);
        Ok((disk, read, found))
    }

    /// The next record gets this number: those before it never came to disk, because they were
    /// delivered from memory while the disk took nothing.
    pub(super) fn skip_to(&mut self, number: u64) {
        if number > self.next {
            self.next = number;
            self.writer = None;
        }
    }

    /// Writes records behind the others; says how many it wrote, and what kept it from the next one.
    pub(super) fn append(&mut self, records: &[Arc<Entry>]) -> (usize, Option<io::Error>) {
        let mut written = 0;
        while let Some(rest) = records.get(written..).filter(|rest| !rest.is_empty()) {
            match self.append_some(rest) {
                Ok(count) => written += count,
                Err(error) if rest.len() == 1 => return (written, Some(error)),
                // What did not fit together may fit one by one.
                Err(_) => match self.append_some(rest.get(..1).unwrap_or_default()) {
                    Ok(count) => written += count,
                    Err(error) => return (written, Some(error)),
                },
            }
        }
        (written, None)
    }

    /// Writes as many records as go into one write and one segment: all of these, or none.
    fn append_some(&mut self, records: &[Arc<Entry>]) -> io::Result<usize> {
        // Numbers within a segment have no gap.
        let full = self
            .segments
            .back()
            .is_none_or(|segment| segment.bytes >= self.segment_bytes || segment.next != self.next);
        if full {
            self.writer = None;
        }
        let writer = match &self.writer {
            Some(writer) => Arc::clone(writer),
            None => self.begin_segment()?,
        };
        let Some(segment) = self.segments.back_mut() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let buffer = &mut self.buffer;
        buffer.clear();
        let mut next = self.next;
        for record in records {
            let bytes = buffer.len() as u64;
            let fits = buffer.len() < WRITE_BYTES && segment.bytes + bytes < self.segment_bytes;
            if next > self.next && !fits {
                break;
            }
            segment::frame(buffer, next, |bytes| record.encode(bytes));
            next += 1;
        }
        let result = (&*writer).write_all(buffer);
        let bytes = buffer.len() as u64;
        buffer.shrink_to(WRITE_BYTES);
        if let Err(error) = result {
            // What was written of it goes; where that fails too, nothing is appended behind it.
            if writer.set_len(segment.bytes).is_err() {
                self.writer = None;
            }
            if segment.bytes == 0 {
                self.abandon_segment();
            }
            return Err(error);
        }
        segment.bytes += bytes;
        segment.next = next;
        let first = segment.first;
        if self.unsynced.last().is_none_or(|(last, _)| *last != first) {
            self.unsynced.push((first, writer));
        }
        let count = next - self.next;
        self.next = next;
        Ok(usize::try_from(count).unwrap_or(usize::MAX))
    }

    fn begin_segment(&mut self) -> io::Result<Arc<File>> {
        let path = segment::path(self.held.path(), self.next);
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(FILE_MODE)
            .open(&path)?;
        // A name that is there already can only hold what was not counted as written.
        let begun = file
            .set_len(0)
            .and_then(|()| File::open(self.held.path())?.sync_all());
        if let Err(error) = begun {
            // Several that are empty would be told at the next start as records that are damaged.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        self.segments.retain(|segment| segment.first != self.next);
        self.segments.push_back(Segment {
            first: self.next,
            next: self.next,
            bytes: 0,
        });
        let file = Arc::new(file);
        self.writer = Some(Arc::clone(&file));
        Ok(file)
    }

    /// Takes back a segment that never got a record.
    fn abandon_segment(&mut self) {
        self.writer = None;
        if let Some(segment) = self.segments.pop_back() {
            let _ = fs::remove_file(segment::path(self.held.path(), segment.first));
        }
    }

    /// Removes the oldest segments until the rest is within the limit; gives the number of the first
    /// record that is left.
    pub(super) fn shrink(&mut self) -> u64 {
        while self.bytes() > self.limit && self.segments.len() > 1 {
            self.remove_oldest();
        }
        self.first()
    }

    /// Removes the segments whose records are all before `number`. The last one stays while it is
    /// written to.
    pub(super) fn forget_before(&mut self, number: u64) {
        while self.segments.front().is_some_and(|segment| {
            segment.next <= number && (self.segments.len() > 1 || self.writer.is_none())
        }) {
            self.remove_oldest();
        }
    }

    fn remove_oldest(&mut self) {
        if let Some(segment) = self.segments.pop_front() {
            // A file that cannot be removed is found again at the next start, where the cursor tells
            // that it is done.
            let _ = fs::remove_file(segment::path(self.held.path(), segment.first));
            self.unsynced.retain(|(first, _)| *first != segment.first);
            if self
                .reader
                .as_ref()
                .is_some_and(|(first, _)| *first == segment.first)
            {
                self.reader = None;
            }
        }
    }

    /// Number of the first record that is here.
    pub(super) fn first(&self) -> u64 {
        self.segments
            .front()
            .map_or(self.next, |segment| segment.first)
    }

    /// Bytes of all segments.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Records from `from` on, up to `count` of them and about `bytes` bytes.
    pub(super) fn read(&mut self, from: u64, count: usize, bytes: usize) -> io::Result<Taken> {
        let mut taken = Taken::default();
        let mut at = from;
        let mut size = 0;
        while taken.records.len() < count && size < bytes && at < self.next {
            let Some(segment) = self.holding(at) else {
                break;
            };
            if at < segment.first {
                taken.damaged += segment.first - at;
                at = segment.first;
            }
            match self.read_one(segment, at)? {
                Some(record) => {
                    size += record.len();
                    taken.records.push((at, record));
                    at += 1;
                }
                None => {
                    self.reader = None;
                    taken.damaged += segment.next - at;
                    at = segment.next;
                }
            }
        }
        Ok(taken)
    }

    /// The segment that holds this record, or the first one behind it.
    fn holding(&self, number: u64) -> Option<Segment> {
        self.segments
            .iter()
            .copied()
            .find(|segment| segment.next > number)
    }

    /// `None` for damage.
    fn read_one(&mut self, segment: Segment, number: u64) -> io::Result<Option<Vec<u8>>> {
        let matching = self
            .reader
            .take()
            .filter(|(first, reader)| *first == segment.first && reader.next <= number);
        let mut reader = match matching {
            Some((_, reader)) => reader,
            None => match Reader::open(self.held.path(), segment.first) {
                Ok(reader) => reader,
                // Somebody removed it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            },
        };
        if !reader.skip_to(number, segment.bytes)? {
            return Ok(None);
        }
        let next = reader.next(segment.bytes)?;
        self.reader = Some((segment.first, reader));
        Ok(match next {
            Next::Record(record) => Some(record),
            Next::End | Next::Damage => None,
        })
    }

    /// The files that were written to since the last call, for whoever makes them durable.
    pub(super) fn unsynced(&mut self) -> Vec<Arc<File>> {
        self.unsynced.drain(..).map(|(_, file)| file).collect()
    }

    pub(super) fn folder(&self) -> &Path {
        self.held.path()
    }

    /// Ends a spool in which nothing is left, so that it leaves nothing behind. Segments go before the
    /// cursor, which says that they are done with.
    pub(super) fn remove(mut self) {
        while !self.segments.is_empty() {
            self.remove_oldest();
        }
        self.held.remove();
    }
}

/// The segments of a folder in order; the last one is cut behind its last whole record. Segments before
/// it were whole when the next one was begun, and are checked when they are read.
fn survey(folder: &Path, found: &mut Found) -> io::Result<VecDeque<Segment>> {
    let mut numbers: Vec<u64> = fs::read_dir(folder)?
        .filter_map(|entry| segment::number(entry.ok()?.file_name().to_str()?))
        .collect();
    numbers.sort_unstable();
    let mut segments = VecDeque::with_capacity(numbers.len());
    for (index, first) in numbers.iter().enumerate() {
        let path = segment::path(folder, *first);
        let length = fs::metadata(&path)?.len();
        let following = numbers.get(index + 1);
        let segment = match following {
            Some(next) => Segment {
                first: *first,
                next: *next,
                bytes: length,
            },
            None => last_segment(folder, *first, length, found)?,
        };
        if segment.next > segment.first {
            segments.push_back(segment);
        } else {
            fs::remove_file(&path)?;
        }
    }
    Ok(segments)
}

fn last_segment(folder: &Path, first: u64, length: u64, found: &mut Found) -> io::Result<Segment> {
    let mut reader = Reader::open(folder, first)?;
    while matches!(reader.next(length)?, Next::Record(_)) {}
    if reader.offset < length {
        found.torn_bytes = length - reader.offset;
        OpenOptions::new()
            .write(true)
            .open(segment::path(folder, first))?
            .set_len(reader.offset)?;
    }
    Ok(Segment {
        first,
        next: reader.next,
        bytes: reader.offset,
    })
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::io::Write;
    use std::sync::Arc;

    use super::{Disk, Found, Held};
    use crate::sink::entry::Entry;
    use crate::sink::scratch::folder;
    use crate::sink::spool::segment;

    const LIMIT: u64 = 1 << 20;

    /// 15 bytes longer than its text when it is written.
    fn entry(text: &str) -> Arc<Entry> {
        Arc::new(Entry {
            body: text.as_bytes().to_vec(),
            ..Entry::BLANK
        })
    }

    fn append(disk: &mut Disk, text: &str) {
        let (written, error) = disk.append(&[entry(text)]);
        assert!(written == 1 && error.is_none(), "{error:?}");
    }

    fn texts(disk: &mut Disk, from: u64) -> Vec<String> {
        let taken = disk.read(from, 1000, 1 << 20).unwrap();
        taken
            .records
            .into_iter()
            .map(|(number, record)| {
                let body = Entry::decode(&record).unwrap().body;
                format!("{number}:{}", String::from_utf8(body).unwrap())
            })
            .collect()
    }

    #[test]
    fn what_was_appended_is_read_after_a_new_start_behind_the_cursor() {
        let folder = folder("disk");
        let (mut disk, read, found) = Disk::open(&folder, LIMIT).unwrap();
        assert_eq!((read, found), (0, Found::default()));
        for text in ["a", "b", "c"] {
            append(&mut disk, text);
        }
        assert_eq!(texts(&mut disk, 1), ["1:b", "2:c"]);
        assert_eq!(texts(&mut disk, 0), ["0:a", "1:b", "2:c"]);
        Held::save_cursor(&folder, 2).unwrap();
        assert!(
            Disk::open(&folder, LIMIT).is_err(),
            "two processes, one spool"
        );
        drop(disk);
        let (mut disk, read, found) = Disk::open(&folder, LIMIT).unwrap();
        assert_eq!((read, found.waiting), (2, 1));
        append(&mut disk, "d");
        assert_eq!(texts(&mut disk, read), ["2:c", "3:d"]);
    }

    #[test]
    fn records_that_come_together_fill_segments_as_those_that_come_alone() {
        let (one, many) = (folder("disk-one"), folder("disk-many"));
        let (mut alone, ..) = Disk::open(&one, 8 * 100).unwrap();
        let (mut together, ..) = Disk::open(&many, 8 * 100).unwrap();
        let texts: Vec<String> = (0..20).map(|number| format!("record {number}")).collect();
        texts.iter().for_each(|text| append(&mut alone, text));
        let entries: Vec<_> = texts.iter().map(|text| entry(text)).collect();
        let (written, error) = together.append(&entries);
        assert!(written == 20 && error.is_none(), "{error:?}");
        assert_eq!(alone.segments, together.segments);
        assert!(alone.segments.len() > 5);
        for segment in &alone.segments {
            let read = |folder| fs::read(segment::path(folder, segment.first)).unwrap();
            assert_eq!(read(&one), read(&many));
        }
    }

    #[test]
    fn every_segment_that_was_written_to_is_forced_to_disk_once_though_it_is_full_by_then() {
        let folder = folder("disk-sync");
        let (mut disk, ..) = Disk::open(&folder, 8 * 100).unwrap();
        (0..7).for_each(|_| append(&mut disk, "123456789"));
        // Three records fill a segment.
        assert_eq!(disk.unsynced().len(), 3);
        assert!(disk.unsynced().is_empty());
        append(&mut disk, "123456789");
        assert_eq!(disk.unsynced().len(), 1);
        (0..7).for_each(|_| append(&mut disk, "123456789"));
        disk.forget_before(12);
        assert_eq!(disk.unsynced().len(), 1, "what is delivered needs none");
    }

    #[test]
    fn a_torn_tail_is_cut_off_and_what_stands_before_it_stays() {
        let folder = folder("torn");
        let (mut disk, ..) = Disk::open(&folder, LIMIT).unwrap();
        append(&mut disk, "whole");
        drop(disk);
        let path = segment::path(&folder, 0);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        let mut cut = Vec::new();
        segment::frame(&mut cut, 1, |bytes| entry("cut").encode(bytes));
        file.write_all(&cut[..17]).unwrap();
        let (mut disk, read, found) = Disk::open(&folder, LIMIT).unwrap();
        assert_eq!((read, found.torn_bytes, found.waiting), (0, 17, 1));
        append(&mut disk, "next");
        assert_eq!(texts(&mut disk, 0), ["0:whole", "1:next"]);
    }

    #[test]
    fn a_damaged_segment_costs_the_rest_of_it_counted_and_nothing_else() {
        let folder = folder("damage");
        let (mut disk, ..) = Disk::open(&folder, 8 * 100).unwrap();
        for _ in 0..9 {
            append(&mut disk, "123456789");
        }
        // Three records of 40 bytes fill a segment of 100.
        let path = segment::path(&folder, 3);
        let mut bytes = fs::read(&path).unwrap();
        bytes[60] ^= 1;
        fs::write(&path, bytes).unwrap();
        let taken = disk.read(0, 100, 1 << 20).unwrap();
        let numbers: Vec<u64> = taken.records.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 6, 7, 8]);
        assert_eq!(taken.damaged, 2);
    }

    #[test]
    fn the_oldest_segments_go_when_the_limit_is_reached() {
        let folder = folder("limit");
        let (mut disk, ..) = Disk::open(&folder, 8 * 100).unwrap();
        for _ in 0..100 {
            append(&mut disk, "123456789");
            disk.shrink();
        }
        assert!(disk.bytes() <= 800, "{}", disk.bytes());
        assert!(disk.first() > 75, "{}", disk.first());
        drop(disk);
        Held::save_cursor(&folder, 10).unwrap();
        let (disk, read, found) = Disk::open(&folder, 800).unwrap();
        assert_eq!(found.missing, read - 10, "dropped before anybody got them");
        assert_eq!(found.waiting, disk.next - read);
    }

    #[test]
    fn a_cursor_that_is_damaged_delivers_everything_again() {
        let folder = folder("cursor");
        let (mut disk, ..) = Disk::open(&folder, LIMIT).unwrap();
        append(&mut disk, "a");
        append(&mut disk, "b");
        drop(disk);
        Held::save_cursor(&folder, 1).unwrap();
        let path = folder.join("cursor");
        let text = fs::read_to_string(&path).unwrap();
        for odd in ["", "1", "zz", &text.replace('1', "2"), &text[..10]] {
            fs::write(&path, odd).unwrap();
            let (_, read, found) = Disk::open(&folder, LIMIT).unwrap();
            assert_eq!((read, found.waiting), (0, 2), "{odd:?}");
        }
    }

    #[test]
    fn consumed_segments_are_removed_and_numbers_go_on_without_any() {
        let folder = folder("consumed");
        let (mut disk, ..) = Disk::open(&folder, LIMIT).unwrap();
        append(&mut disk, "a");
        drop(disk);
        Held::save_cursor(&folder, 1).unwrap();
        let (mut disk, read, _) = Disk::open(&folder, LIMIT).unwrap();
        assert_eq!((read, disk.bytes(), disk.next), (1, 0, 1));
        append(&mut disk, "b");
        assert_eq!(texts(&mut disk, 1), ["1:b"]);
    }
}

//! One file of a spool: records one after the other, each behind its length, its CRC32C and its number.
//! What does not match its checksum is no record, and neither is anything behind it in that file.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Bytes before a record: length (u32), CRC32C over number and record (u32), number (u64), little endian.
pub(super) const HEADER: u64 = 16;
/// Longest record that is believed: a thousand times the usual one. A longer length is damage.
pub(super) const RECORD_MAX: usize = 4 << 20;
/// Bytes of one read: a dozen records, which are read in order.
const READ_BYTES: usize = 64 << 10;
/// The end of a segment's name.
const SUFFIX: &str = ".seg";

/// Puts a record's bytes in a segment behind others; `write` puts its own.
pub(super) fn frame(bytes: &mut Vec<u8>, number: u64, write: impl FnOnce(&mut Vec<u8>)) {
    let start = bytes.len();
    // Length and sum are known when the record is written.
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&number.to_le_bytes());
    write(bytes);
    let Some((head, summed)) = bytes
        .get_mut(start..)
        .and_then(|frame| frame.split_first_chunk_mut::<8>())
    else {
        return;
    };
    let length = u32::try_from(summed.len() - size_of::<u64>()).unwrap_or(u32::MAX);
    let [a, b, c, d] = length.to_le_bytes();
    let [e, f, g, h] = crc32c::crc32c(summed).to_le_bytes();
    *head = [a, b, c, d, e, f, g, h];
}

/// The path of the segment whose first record has this number.
pub(super) fn path(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("{first:016x}{SUFFIX}"))
}

/// The number in a segment's name; `None` for other files.
pub(super) fn number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    (digits.len() == 16)
        .then(|| u64::from_str_radix(digits, 16).ok())
        .flatten()
}

/// Reads the records of one segment in order.
#[derive(Debug)]
pub(super) struct Reader {
    source: BufReader<File>,
    /// Number of the next record.
    pub(super) next: u64,
    /// Where it begins.
    pub(super) offset: u64,
    /// Where `source` stands.
    at: u64,
}

/// What a segment has next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A whole record.
    Record(Vec<u8>),
    /// Nothing up to the given end.
    End,
    /// Something that is no record.
    Damage,
}

impl Reader {
    pub(super) fn open(folder: &Path, first: u64) -> io::Result<Self> {
        Self::at(&path(folder, first), first)
    }

    /// The same for a file of any name.
    pub(super) fn at(path: &Path, first: u64) -> io::Result<Self> {
        Ok(Self {
            source: BufReader::with_capacity(READ_BYTES, File::open(path)?),
            next: first,
            offset: 0,
            at: 0,
        })
    }

    /// The next record, when it ends at or before `end`.
    pub(super) fn next(&mut self, end: u64) -> io::Result<Next> {
        if self.offset >= end {
            return Ok(Next::End);
        }
        if end - self.offset < HEADER {
            return Ok(Next::Damage);
        }
        // What was buffered may have ended where the file ended then.
        if self.at != self.offset {
            self.source.seek(SeekFrom::Start(self.offset))?;
        }
        // Until this record is read whole, nobody knows.
        self.at = u64::MAX;
        let mut word = [0; 4];
        let mut number = [0; 8];
        if !filled(self.source.read_exact(&mut word))? {
            return Ok(Next::Damage);
        }
        let length = u32::from_le_bytes(word);
        if !filled(self.source.read_exact(&mut word))? {
            return Ok(Next::Damage);
        }
        let sum = u32::from_le_bytes(word);
        if !filled(self.source.read_exact(&mut number))? {
            return Ok(Next::Damage);
        }
        let past = self.offset + HEADER + u64::from(length);
        let Some(length) = usize::try_from(length)
            .ok()
            .filter(|length| *length <= RECORD_MAX && past <= end)
        else {
            return Ok(Next::Damage);
        };
        let mut record = Vec::with_capacity(length);
        let wanted = u64::try_from(length).unwrap_or(u64::MAX);
        self.source.by_ref().take(wanted).read_to_end(&mut record)?;
        if record.len() < length {
            return Ok(Next::Damage);
        }
        let found = crc32c::crc32c_append(crc32c::crc32c(&number), &record);
        if found != sum || u64::from_le_bytes(number) != self.next {
            return Ok(Next::Damage);
        }
        (self.offset, self.at) = (past, past);
        self.next += 1;
        Ok(Next::Record(record))
    }

    /// Passes over records until `number` is the next one; `false` when the segment ends or is damaged
    /// before.
    pub(super) fn skip_to(&mut self, number: u64, end: u64) -> io::Result<bool> {
        while self.next < number {
            if !matches!(self.next(end)?, Next::Record(_)) {
                return Ok(false);
            }
        }
        Ok(self.next == number)
    }
}

/// A file that ends early is damage, not an error.
fn filled(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Next, Reader, number, path};
    use crate::sink::scratch::folder;

    #[test]
    fn names_are_read_back_and_other_files_are_none() {
        let name = path(std::path::Path::new("/s"), 255);
        assert_eq!(name.to_str(), Some("/s/00000000000000ff.seg"));
        assert_eq!(number("00000000000000ff.seg"), Some(255));
        for other in [
            "cursor",
            "ff.seg",
            "00000000000000fg.seg",
            "00000000000000ff",
        ] {
            assert_eq!(number(other), None, "{other}");
        }
    }

    fn frame(number: u64, record: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        super::frame(&mut bytes, number, |bytes| bytes.extend_from_slice(record));
        bytes
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_found() {
        let folder = folder("segment");
        let mut whole = frame(7, b"one");
        let first = whole.len();
        whole.extend(frame(8, b"two"));
        let file = path(&folder, 7);
        let read = |bytes: &[u8]| {
            fs::write(&file, bytes).unwrap();
            let mut reader = Reader::open(&folder, 7).unwrap();
            let end = bytes.len() as u64;
            (reader.next(end).unwrap(), reader.next(end).unwrap())
        };
        let record = |text: &str| Next::Record(text.as_bytes().to_vec());
        assert_eq!(read(&whole), (record("one"), record("two")));
        for cut in first + 1..whole.len() {
            assert_eq!(read(&whole[..cut]), (record("one"), Next::Damage), "{cut}");
        }
        assert_eq!(read(&whole[..first]), (record("one"), Next::End));
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let (one, two) = read(&bytes);
            assert!(one == Next::Damage || two == Next::Damage, "{bit}");
        }
    }
}

//! Whole lines at the end of a file: what a full disk cut in half is taken back.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};

/// Writes whole lines; gives the bytes that are written for good, and what stopped it.
pub(super) fn write_on(file: &mut File, bytes: &[u8]) -> (usize, Option<io::Error>) {
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

#[cfg(test)]
mod tests {
    use std::fs::{self, File, OpenOptions};
    use std::io::Write;

    use super::take_back;
    use crate::sink::scratch::folder;

    fn append_to(path: &std::path::Path) -> File {
        OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .unwrap()
    }

    #[test]
    fn a_line_that_was_cut_in_half_is_taken_back() {
        let path = folder("lines-cut").join("f");
        let mut file = append_to(&path);
        file.write_all(b"one\ntwo\nthr").unwrap();
        assert_eq!(take_back(&mut file, b"one\ntwo\nthree\n", 11), 8);
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn nothing_is_cut_when_another_program_wrote_behind_us() {
        let path = folder("lines-shared").join("f");
        let mut file = append_to(&path);
        file.write_all(b"one\ntw").unwrap();
        append_to(&path).write_all(b"theirs\n").unwrap();
        take_back(&mut file, b"one\ntwo\n", 6);
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwtheirs\n");
    }
}

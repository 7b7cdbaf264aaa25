//! Dead letters: records that a receiver will never take, with its reason, one JSON object a line, in
//! the folder of the output's spool. They are for a person; nothing here sends them again.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::clock;
use super::entry::Entry;

/// Records name hosts and users' traffic: not for everybody to read.
const FILE_MODE: u32 = 0o640;
/// Beyond this the file becomes `dead.jsonl.1` and the one before it goes: a receiver that refuses
/// everything must not fill the disk.
const FILE_BYTES: u64 = 32 << 20;
/// What of a receiver's answer is kept: enough for its first sentences.
const REASON_CHARS: usize = 500;

/// Where one output's dead letters go.
#[derive(Debug)]
pub(super) struct DeadLetters {
    path: Option<PathBuf>,
}

impl DeadLetters {
    /// In this folder; nowhere when there is none.
    pub(super) fn new(folder: Option<&Path>) -> Self {
        Self {
            path: folder.map(|folder| folder.join("dead.jsonl")),
        }
    }

    /// The file, where there is one.
    pub(super) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Keeps a record aside.
    pub(super) fn keep(&self, entry: &Entry, reason: &str) -> io::Result<()> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        let reason: String = reason.chars().take(REASON_CHARS).collect();
        let line = json!({
            "time": clock::unix_seconds(),
            "reason": reason,
            "id": entry.id,
            "record": String::from_utf8_lossy(&entry.body),
        });
        if fs::metadata(path).is_ok_and(|found| found.len() >= FILE_BYTES) {
            fs::rename(path, path.with_extension("jsonl.1"))?;
        }
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(FILE_MODE)
            .open(path)?;
        file.write_all(format!("{line}\n").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::DeadLetters;
    use crate::record::sample::{coverage, emission};
    use crate::record::{Format, Record};
    use crate::sink::entry::Entry;
    use crate::sink::scratch::folder;

    #[test]
    fn a_dead_letter_holds_the_record_and_the_reason() {
        let folder = folder("dead");
        let dead = DeadLetters::new(Some(&folder));
        let record = Record::Coverage(Box::new(coverage()));
        let entry = Entry::new(&record, &emission(), Format::Native).unwrap();
        dead.keep(&entry, "no\nsuch field").unwrap();
        dead.keep(&entry, &"x".repeat(1000)).unwrap();
        let text = std::fs::read_to_string(dead.path().unwrap()).unwrap();
        let lines: Vec<Value> = text
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["reason"], "no\nsuch field");
        assert_eq!(lines[0]["id"], entry.id);
        assert_eq!(lines[0]["record"], String::from_utf8(entry.body).unwrap());
        assert_eq!(lines[1]["reason"].as_str().unwrap().len(), 500);
        assert!(DeadLetters::new(None).path().is_none());
    }
}

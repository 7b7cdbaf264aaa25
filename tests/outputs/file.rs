//! A file as the receiver: its folder goes away and comes back, somebody else turns it, the sensor turns
//! it by size, and the sensor is killed. What was said to be written must be there, in whole lines.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::campaign::{Receiver, folder, play};

/// The file, in a folder that may be away.
struct Logs {
    folder: PathBuf,
    away: PathBuf,
    turned: u32,
}

impl Logs {
    fn file(&self) -> PathBuf {
        self.folder.join("records")
    }

    /// Lines of all files, whoever turned them.
    fn lines(&self) -> Vec<String> {
        let files = fs::read_dir(&self.folder).unwrap();
        let texts = files.map(|entry| fs::read(entry.unwrap().path()).unwrap());
        let lines = |bytes: Vec<u8>| {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        texts.flat_map(lines).collect()
    }
}

impl Receiver for Logs {
    fn start(&mut self) {
        if self.away.exists() {
            fs::rename(&self.away, &self.folder).unwrap();
        }
    }

    /// The folder goes as a file system does that is taken off; before that, the file was turned.
    fn kill(&mut self) {
        self.turned += 1;
        let turned = self.folder.join(format!("turned-{}", self.turned));
        // It may not have been made yet.
        let _ = fs::rename(self.file(), turned);
        fs::rename(&self.folder, &self.away).unwrap();
    }

    fn ids(&mut self) -> BTreeSet<String> {
        let id = |line: String| {
            let record: Value = serde_json::from_str(&line).ok()?;
            Some(record["event"]["id"].as_str()?.to_owned())
        };
        self.lines().into_iter().filter_map(id).collect()
    }
}

#[test]
fn a_file_has_every_record_that_was_written_though_its_folder_goes_and_the_sensor_is_killed() {
    let base = folder("file");
    let mut logs = Logs {
        folder: base.join("logs"),
        away: base.join("away"),
        turned: 0,
    };
    fs::create_dir(&logs.folder).unwrap();
    let url = format!(
        "file://{}?retry_max=200ms&rotate_size=500k&keep=1000",
        logs.file().display()
    );
    play("file", &url, &mut logs);
    logs.start();
    // A line that a killed sensor left unfinished ends where the next one begins: it is no record, and
    // never the beginning of one line with the end of another.
    let (whole, torn): (Vec<String>, Vec<String>) = logs
        .lines()
        .into_iter()
        .partition(|line| serde_json::from_str::<Value>(line).is_ok());
    println!("file: {} lines, {} torn by a kill", whole.len(), torn.len());
    assert!(
        torn.iter()
            .all(|line| line.matches("\"@timestamp\"").count() <= 1),
        "{torn:?}"
    );
    let _ = fs::remove_dir_all(&base);
}

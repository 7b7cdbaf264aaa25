//! Folders for the tests of this module: one a name and process, empty at the start.

use std::fs;
use std::path::PathBuf;

/// An empty folder.
pub(super) fn folder(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("rstscope-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

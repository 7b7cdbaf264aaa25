//! Folders for the tests of this module: one a name and process, empty at the start, gone when the
//! test's thread ends.

use std::cell::RefCell;
use std::fs;
use std::path::PathBuf;

/// What a test's thread made.
struct Folders(RefCell<Vec<PathBuf>>);

impl Drop for Folders {
    fn drop(&mut self) {
        for path in self.0.take() {
            let _ = fs::remove_dir_all(path);
        }
    }
}

thread_local! {
    static FOLDERS: Folders = const { Folders(RefCell::new(Vec::new())) };
}

/// An empty folder.
pub(super) fn folder(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("rstscope-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    FOLDERS.with(|made| made.0.borrow_mut().push(path.clone()));
    path
}

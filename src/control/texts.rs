//! Texts about the program itself: configurations, completions, manual pages. They watch nothing.

use std::io::{self, Write};
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::notice;

/// Exit code of what could not be written.
const FAILED: u8 = 1;

/// Says that a configuration is good.
#[must_use]
pub fn checked(path: &Path) -> u8 {
    print(&format!("{}: good\n", path.display()))
}

/// A text to standard output; a reader that went away has read enough.
#[must_use]
pub fn print(text: &str) -> u8 {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            notice::error(format_args!("standard output: {error}"));
            FAILED
        }
        _ => 0,
    }
}

/// The completions for a shell.
#[must_use]
pub fn completions(shell: Shell) -> u8 {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "rstscope", &mut text);
    print(&String::from_utf8_lossy(&text))
}

/// Manual pages, one a subcommand, into a folder.
#[must_use]
pub fn manual(folder: &Path) -> u8 {
    match clap_mangen::generate_to(Cli::command(), folder) {
        Ok(()) => 0,
        Err(error) => {
            let folder = folder.display();
            notice::error(format_args!("{folder}: cannot write manual pages: {error}"));
            FAILED
        }
    }
}

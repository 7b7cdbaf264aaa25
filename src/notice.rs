//! Lines for the operator on standard error: warnings, errors, progress. A closed standard error
//! is no reason to stop, so nothing here fails or panics.

use std::fmt::Display;
use std::io::{self, Write};

/// One line as it is.
pub fn say(line: impl Display) {
    // One write a line, so that lines of several threads do not mix.
    let text = format!("{line}\n");
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// One line that asks for attention.
pub fn warn(what: impl Display) {
    say(format_args!("rstscope: warning: {what}"));
}

/// One line of something that is told either way: it asks for attention, or it is the ordinary course of things.
pub fn tell(is_warning: bool, what: impl Display) {
    if is_warning {
        warn(what);
    } else {
        say(format_args!("rstscope: {what}"));
    }
}

/// One line that says why something failed.
pub fn error(what: impl Display) {
    say(format_args!("rstscope: {what}"));
}

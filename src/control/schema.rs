//! `rstscope schema`: prints the JSON Schema of the records that this version writes. It needs no
//! privilege and touches nothing.

use std::io::{self, Write};

use crate::notice;
use crate::record::schema::{Dataset, schema};

/// Exit code when it could not be printed.
const FAILED: u8 = 1;

/// Prints the schema on standard output and answers the exit code.
#[must_use]
pub fn run(dataset: Dataset) -> u8 {
    let mut out = io::stdout().lock();
    let printed = out
        .write_all(schema(dataset).as_bytes())
        .and_then(|()| out.flush());
    match printed {
        Ok(()) => 0,
        // Whoever closed the pipe has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(error) => {
            notice::error(format_args!("standard output: cannot write: {error}"));
            FAILED
        }
    }
}

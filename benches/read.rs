//! `rstscope read` beside tcpdump and Suricata over one capture of SYN, FIN and RST packets. Makes the
//! captures and has `benches/read/compare.py` run the programs; measures nothing itself.

#![allow(
    clippy::print_stdout,
    reason = "the lines of the comparison are its purpose"
)]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use support::skipped;

/// Flows of the capture that is compared: 2 million packets, as the bound says.
const FLOWS: &str = "400000";
/// Flows of the one beside which memory must not grow; more than the table has places for.
const FLOWS_OF_SMALL: &str = "100000";

fn main() -> ExitCode {
    if !Path::new("/usr/bin/python3").exists() {
        skipped("read", "needs python3");
        return ExitCode::SUCCESS;
    }
    if Command::new("tcpdump").arg("--version").output().is_err() {
        skipped("read", "needs tcpdump (scripts/setup)");
        return ExitCode::SUCCESS;
    }
    compare().unwrap_or_else(|problem| {
        println!("read: {problem}");
        ExitCode::FAILURE
    })
}

fn compare() -> Result<ExitCode, String> {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/read");
    let capture = capture(&scripts, "read.pcap", FLOWS)?;
    let small = self::capture(&scripts, "read-small.pcap", FLOWS_OF_SMALL)?;
    let status = Command::new("/usr/bin/python3")
        .arg(scripts.join("compare.py"))
        .arg(&capture)
        .args(["--json", "--binary", env!("CARGO_BIN_EXE_rstscope")])
        .arg("--small")
        .arg(&small)
        .status()
        .map_err(|error| format!("compare.py: {error}"))?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A capture of that many flows, made where there is none yet: the same arguments give the same bytes.
fn capture(scripts: &Path, name: &str, flows: &str) -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = folder.join(name);
    if path.exists() {
        return Ok(path);
    }
    let unfinished = folder.join(format!("{name}.new"));
    let status = Command::new("/usr/bin/python3")
        .arg(scripts.join("capture.py"))
        .arg(&unfinished)
        .arg(flows)
        .status()
        .map_err(|error| format!("capture.py: {error}"))?;
    if !status.success() {
        return Err(format!("capture.py: {status}"));
    }
    std::fs::rename(&unfinished, &path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path)
}

//! The architecture, as far as source text can show it: who may name whom, where `unsafe` lives,
//! how long a file may be, what the changelog looks like.

#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, as it should"
)]

use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a file, tests included, above which it has more than one purpose. Most have under 300; twice that
/// is a sign to divide, before it is hard to.
const FILE_LINES_MAX: usize = 600;

const CORE: [&str; 10] = [
    "amount", "time", "vantage", "wire", "host", "flow", "evidence", "verdict", "record", "engine",
];

/// Words that have no place in the core: I/O, clocks, threads, the kernel.
const FORBIDDEN_IN_CORE: [&str; 10] = [
    "std::fs",
    "std::io",
    "std::thread",
    "TcpStream",
    "UdpSocket",
    "Instant::now",
    "SystemTime",
    "xsk_rs",
    "libbpf_rs",
    "eprintln!",
];

const EDGES: [&str; 9] = [
    "sys",
    "xdp",
    "events",
    "nic",
    "handback",
    "pcap",
    "sink",
    "privilege",
    "metrics",
];

/// The one exception to "no edge knows another": what wraps a system call for an edge.
const EDGE_EXCEPTION: &str = "sys";

/// What of the edges the core may use: advice about memory, which changes nothing but speed.
const ADVICE: [&str; 4] = [
    "crate::sys::bring_near",
    "crate::sys::bring_line_near",
    "crate::sys::advise_huge_pages",
    "crate::sys::{advise_huge_pages, bring_line_near_at}",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Module of a source file: the first component below `src`.
fn module(path: &Path) -> String {
    let below = path.strip_prefix(root().join("src")).unwrap();
    let first = below
        .components()
        .next()
        .unwrap()
        .as_os_str()
        .to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// The code of a file, comments and its test module left out.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let production = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    production
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn the_core_does_no_input_or_output() {
    for path in sources(&root().join("src")) {
        if !CORE.contains(&module(&path).as_str()) {
            continue;
        }
        let code = code(&path);
        for word in FORBIDDEN_IN_CORE {
            assert!(!code.contains(word), "{} names {word}", path.display());
        }
        let code = ADVICE
            .iter()
            .fold(code, |code, advice| code.replace(advice, ""));
        for edge in EDGES
            .iter()
            .chain(&["control", "worker", "read", "cli", "config", "bpf"])
        {
            let name = format!("crate::{edge}::");
            assert!(!code.contains(&name), "{} names {name}", path.display());
        }
    }
}

#[test]
fn no_edge_knows_another_edge() {
    for path in sources(&root().join("src")) {
        let own = module(&path);
        if !EDGES.contains(&own.as_str()) {
            continue;
        }
        let code = code(&path);
        for edge in EDGES
            .iter()
            .filter(|edge| **edge != own && **edge != EDGE_EXCEPTION)
        {
            let name = format!("crate::{edge}::");
            assert!(!code.contains(&name), "{} names {name}", path.display());
        }
    }
}

#[test]
fn unsafe_has_one_address() {
    for path in sources(&root().join("src")) {
        let own = module(&path);
        let code = code(&path);
        let opts_in = code.contains("allow(unsafe_code");
        let allowed = own == "sys" || own == "bpf";
        assert!(!opts_in || allowed, "{} allows unsafe code", path.display());
        if own != "sys" {
            assert!(
                !code.contains("unsafe {"),
                "{} has an unsafe block",
                path.display()
            );
        }
    }
}

#[test]
fn every_file_says_what_it_is_for_and_has_one_purpose() {
    let folders = ["src", "tests"];
    for path in folders
        .iter()
        .flat_map(|folder| sources(&root().join(folder)))
    {
        let text = fs::read_to_string(&path).unwrap();
        let name = path.display();
        assert!(
            text.starts_with("//!"),
            "{name} does not say what it is for"
        );
        assert!(
            text.lines().count() <= FILE_LINES_MAX,
            "{name} has outgrown one purpose"
        );
    }
}

#[test]
fn the_changelog_keeps_its_form() {
    let text = fs::read_to_string(root().join("CHANGELOG.md")).unwrap();
    assert!(text.starts_with("# Changelog\n"));
    let allowed = [
        "Added",
        "Changed",
        "Deprecated",
        "Removed",
        "Fixed",
        "Security",
    ];
    for heading in text.lines().filter_map(|line| line.strip_prefix("### ")) {
        assert!(allowed.contains(&heading), "{heading}");
    }
    assert!(text.contains("## [Unreleased]"));
}

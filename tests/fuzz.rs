//! The fuzz targets on every test run: the corpus of fuzz/corpus as it stands, then mutations of it
//! from a fixed seed, so that a failure comes again. The long run is scripts/fuzz. Needs no root
//! and no tool; what it finds is played again by putting the file into the corpus.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test may panic, and prints the input that broke a promise"
)]

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

#[path = "support/corpus.rs"]
mod corpus;

use corpus::Random;
use rstscope::events::{Event, Reasons, decode};
use rstscope::host::KernelEventKind;
use serde::Deserialize;
use serde_json::Value;

/// How long each target is mutated: a few seconds of every test run.
const MUTATING: Duration = Duration::from_secs(2);

/// Runs one input; when it breaks a promise, prints it in a form that can be written to a file.
fn check(target: fn(&[u8]), input: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(input))) {
        let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        eprintln!("broken by `echo {hex} | xxd -r -p`");
        resume_unwind(panic);
    }
}

fn run(name: &str, target: fn(&[u8])) {
    let seeds = corpus::read(name);
    assert!(seeds.len() >= 10, "the corpus of {name} is not there");
    for seed in &seeds {
        check(target, seed);
        for end in (0..seed.len()).step_by(1 + seed.len() / 32) {
            check(target, &seed[..end]);
        }
    }
    let mut random = Random::new(0x9e37_79b9_7f4a_7c15);
    let (end, mut runs) = (Instant::now() + MUTATING, 0);
    while Instant::now() < end {
        for _ in 0..64 {
            check(target, &corpus::mutated(&seeds, &mut random));
        }
        runs += 64;
    }
    println!("{name}: {} seeds, {runs} mutations", seeds.len());
}

#[test]
fn no_frame_breaks_the_parser() {
    run("frame", targets::frame::run);
}

#[test]
fn no_file_breaks_the_capture_reader() {
    run("capture", targets::capture::run);
}

#[test]
fn no_story_breaks_the_engine() {
    run("engine", targets::engine::run);
}

#[test]
fn no_record_of_the_kernel_breaks_its_reader() {
    run("kernel", targets::kernel::run);
}

/// A record that is too short is none: with a layout that has grown, files of before would reach nothing.
#[test]
fn the_corpus_of_kernel_records_reaches_every_kind_of_them() {
    let reasons = Reasons::default();
    let (mut frames, mut kinds, mut unknown) = (0, BTreeSet::new(), 0);
    for seed in corpus::read("kernel") {
        match decode(&seed, &reasons) {
            Some(Event::Frame(copied)) if !copied.frame.is_empty() => frames += 1,
            Some(Event::Kernel(event)) => {
                kinds.insert(match event.kind {
                    KernelEventKind::ResetSent { .. } => "reset sent",
                    KernelEventKind::ResetAccepted { .. } => "reset accepted",
                    KernelEventKind::Established { .. } => "established",
                    KernelEventKind::OwnerKnown { .. } => "owner known",
                    KernelEventKind::Closed { .. } => "closed",
                });
            }
            _ => unknown += 1,
        }
    }
    assert!(frames >= 5, "{frames} frames");
    assert_eq!(kinds.len(), 5, "{kinds:?}");
    assert!(unknown <= 12, "{unknown} are no records");
}

#[test]
fn the_corpus_stays_small() {
    let (mut files, mut bytes) = (0, 0);
    for name in ["frame", "capture", "engine", "kernel"] {
        let seeds = corpus::read(name);
        files += seeds.len();
        bytes += seeds.iter().map(Vec::len).sum::<usize>();
    }
    assert!(files <= 200, "{files} files");
    assert!(bytes <= 500_000, "{bytes} bytes");
}

/// A package of a lock file, and what it is built with.
#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    #[serde(default)]
    dependencies: Vec<String>,
}

impl Locked {
    /// The names of its dependencies; where a lock file has two of one name, it says which.
    fn built_with(&self) -> Vec<&str> {
        let names = self.dependencies.iter();
        names.filter_map(|words| words.split(' ').next()).collect()
    }
}

fn read_toml<T: serde::de::DeserializeOwned>(path: &str) -> T {
    let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
    toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn locked(path: &str) -> Vec<Locked> {
    let mut file: BTreeMap<String, Value> = read_toml(path);
    serde_json::from_value(file.remove("package").unwrap()).unwrap()
}

/// Packages of which a dev-dependency of ours or a dependency of the fuzzers turns more on.
const TURNED_ON_ELSEWHERE: [&str; 3] = ["cc", "hashbrown", "winnow"];

const REMEDY: &str = "fuzz/Cargo.lock is not up to date: run `cargo metadata` in fuzz/";

/// `fuzz` is a package of its own, built with `--locked`: a dependency that is not in its lock file stops
/// scripts/fuzz, and one of another version, or with other features, fuzzes what is not shipped.
#[test]
fn the_fuzzers_are_built_from_what_the_program_is_built_from() {
    let (ours, theirs) = (locked("Cargo.lock"), locked("fuzz/Cargo.lock"));
    let manifest: Value = read_toml("Cargo.toml");
    let tables = [&manifest["dependencies"], &manifest["build-dependencies"]];
    // An optional one is in no build of the fuzzers.
    let needed = tables
        .iter()
        .flat_map(|table| table.as_object().unwrap())
        .filter(|(_, how)| how["optional"] != true);
    let wanted: BTreeSet<_> = needed.map(|(name, _)| name.as_str()).collect();
    let program = theirs.iter().find(|known| known.name == "rstscope");
    let built_with: BTreeSet<_> = program.unwrap().built_with().into_iter().collect();
    assert_eq!(built_with, wanted, "{REMEDY}");
    for known in theirs.iter().filter(|known| known.name != "rstscope") {
        let (name, version) = (&known.name, &known.version);
        let mut same = ours.iter().filter(|own| own.name == *name).peekable();
        if same.peek().is_none() {
            continue;
        }
        let own = same.find(|own| own.version == *version);
        let own = own.unwrap_or_else(|| panic!("{name} {version} is not ours: {REMEDY}"));
        if !TURNED_ON_ELSEWHERE.contains(&name.as_str()) {
            assert_eq!(known.built_with(), own.built_with(), "{name}: {REMEDY}");
        }
    }
}

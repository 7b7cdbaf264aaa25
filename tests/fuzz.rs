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

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

#[path = "support/corpus.rs"]
mod corpus;

use corpus::Random;

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

/// A package of a lock file: its name and version, and the names of what it is built with.
struct Locked {
    package: (String, String),
    dependencies: Vec<String>,
}

fn locked(path: &str) -> Vec<Locked> {
    let text = std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let of = |package: &str, key: &str| {
        let line = package.lines().find_map(|line| line.strip_prefix(key));
        line.unwrap().trim_matches('"').to_owned()
    };
    // ` "name",` or ` "name version",`, one a line.
    let name = |line: &str| {
        let words = line.strip_prefix(" \"")?.trim_end_matches(['"', ',']);
        words.split(' ').next().map(str::to_owned)
    };
    let packages = text.split("[[package]]\n").skip(1);
    packages
        .map(|package| Locked {
            package: (of(package, "name = "), of(package, "version = ")),
            dependencies: package.lines().filter_map(name).collect(),
        })
        .collect()
}

/// Packages of which a dev-dependency of ours or a dependency of the fuzzers turns more on.
const TURNED_ON_ELSEWHERE: [&str; 3] = ["cc", "hashbrown", "winnow"];

const REMEDY: &str = "fuzz/Cargo.lock is not up to date: run `cargo metadata` in fuzz/";

/// `fuzz` is a package of its own, built with `--locked`: a dependency that is not in its lock file stops
/// scripts/fuzz, and one of another version, or with other features, fuzzes what is not shipped.
#[test]
fn the_fuzzers_are_built_from_what_the_program_is_built_from() {
    let (ours, theirs) = (locked("Cargo.lock"), locked("fuzz/Cargo.lock"));
    let manifest = include_str!("../Cargo.toml");
    let (mut is_ours, mut wanted) = (false, Vec::new());
    for line in manifest.lines() {
        if let Some(section) = line.strip_prefix('[') {
            is_ours = matches!(section, "dependencies]" | "build-dependencies]");
        } else if let (true, Some((name, _))) = (is_ours, line.split_once(" = ")) {
            // An optional one is in no build of the fuzzers.
            wanted.extend((!line.contains("optional = true")).then_some(name));
        }
    }
    assert!(
        wanted.len() > 20,
        "the manifest is not understood: {wanted:?}"
    );
    wanted.sort_unstable();
    for known in &theirs {
        let name = known.package.0.as_str();
        let mut same = ours.iter().filter(|own| own.package.0 == name).peekable();
        if same.peek().is_none() {
            continue;
        }
        let own = same.find(|own| own.package == known.package);
        let own = own.unwrap_or_else(|| panic!("{:?} is not ours: {REMEDY}", known.package));
        if name == "rstscope" {
            assert_eq!(known.dependencies, wanted, "{REMEDY}");
        } else if !TURNED_ON_ELSEWHERE.contains(&name) {
            assert_eq!(known.dependencies, own.dependencies, "{name}: {REMEDY}");
        }
    }
}

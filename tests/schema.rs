//! The native record's contract: field names and types of ECS, the JSON Schema that is shipped, and
//! what the built binary really writes.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    dead_code,
    reason = "a test stops where it cannot go on, and says aloud what it skips; not every test \
              program uses all of what they share"
)]

#[path = "support/captures.rs"]
mod captures;
#[path = "support/records.rs"]
mod records;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use captures::{Flavor, blocks, conversation, ethernet, legacy};
use records::{Chance, Texts, coverage_record, emission, reset_record};
use rstscope::record::schema::{Dataset, Field, schema};
use rstscope::record::{ECS_VERSION, to_json};
use serde_json::Value;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rstscope(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rstscope"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Type and normalization of ECS fields.
fn ecs() -> BTreeMap<String, (String, String)> {
    let text = fs::read_to_string(root().join("tests/data/ecs-9.4-fields.csv")).unwrap();
    let rows = text.lines().filter(|line| !line.starts_with('#')).skip(1);
    rows.map(|row| {
        let columns: Vec<&str> = row.split(',').collect();
        (
            columns[0].to_owned(),
            (columns[1].to_owned(), columns[3].to_owned()),
        )
    })
    .collect()
}

fn fields() -> impl Iterator<Item = &'static Field> {
    Dataset::ALL
        .into_iter()
        .flat_map(|dataset| dataset.fields())
}

#[test]
fn every_field_outside_rstscope_is_one_of_ecs_with_its_type() {
    assert!(ECS_VERSION.starts_with("9.4."), "the list is that of 9.4");
    let ecs = ecs();
    let mut seen = 0;
    for field in fields().filter(|field| !field.path.starts_with("rstscope.")) {
        let Some((kind, normalization)) = ecs.get(field.path) else {
            panic!("ECS 9.4 has no {}", field.path);
        };
        assert_eq!(field.kind.elastic_type(), kind, "{}", field.path);
        assert_eq!(
            field.kind.is_list(),
            normalization == "array",
            "{}",
            field.path
        );
        seen += 1;
    }
    assert!(seen > 50, "{seen}");
}

#[test]
fn every_field_is_told_of_in_the_documentation() {
    let text = fs::read_to_string(root().join("docs/record.md")).unwrap();
    for field in fields() {
        let path = field.path;
        let short = path.strip_prefix("rstscope.").unwrap_or(path);
        let (around, leaf) = path.rsplit_once('.').unwrap_or(("", path));
        // A row may tell of several: `source.ip`, `source.port`, or `event.kind`, `.category`.
        let told = [path, short]
            .iter()
            .any(|name| text.contains(&format!("`{name}`")));
        let beside = text.lines().any(|line| {
            let around = around.trim_start_matches("rstscope.");
            line.contains(&format!("`.{leaf}`")) && line.contains(around)
        });
        let within = text.contains(&format!("`{}.*`", path.split('.').next().unwrap()));
        assert!(
            told || beside || within,
            "docs/record.md does not tell of {path}"
        );
    }
}

fn validators() -> BTreeMap<&'static str, jsonschema::Validator> {
    let validator = |dataset| {
        let schema: Value = serde_json::from_str(&schema(dataset)).unwrap();
        jsonschema::options()
            .should_validate_formats(true)
            .build(&schema)
            .unwrap()
    };
    [
        ("rstscope.reset", validator(Dataset::Reset)),
        ("rstscope.coverage", validator(Dataset::Coverage)),
    ]
    .into()
}

fn assert_valid(validators: &BTreeMap<&str, jsonschema::Validator>, line: &str) {
    let record: Value = serde_json::from_str(line).unwrap();
    let dataset = record["event"]["dataset"].as_str().unwrap();
    let errors: Vec<String> = validators[dataset]
        .iter_errors(&record)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{errors:?}\n{line}");
}

#[test]
fn records_of_every_kind_validate_hostile_names_included() {
    let validators = validators();
    for seed in 1..=300 {
        let texts = &mut Texts {
            text: &mut || "a\n\u{1b}[31m\u{2028}\u{202e}\"\\".to_owned(),
            comm: &mut || *b"a\n\xff\"\\\x1b\0\0\0\0\0\0\0\0\0\0",
        };
        let (emission, mut chance) = (emission(texts), Chance::new(seed));
        let reset = reset_record(&mut chance, texts);
        assert_valid(&validators, &to_json(&reset, &emission));
        let coverage = coverage_record(&mut chance);
        assert_valid(&validators, &to_json(&coverage, &emission));
    }
}

/// After a wanted change: `rstscope schema reset >docs/schema/reset.json`, and the same of `coverage`.
#[test]
fn the_shipped_schemas_are_those_that_the_program_prints() {
    for dataset in Dataset::ALL {
        let name = dataset.name();
        let output = rstscope(&["schema", name]);
        assert!(output.status.success());
        let printed = String::from_utf8(output.stdout).unwrap();
        assert_eq!(printed, schema(dataset));
        let path = root().join(format!("docs/schema/{name}.json"));
        let shipped = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            shipped == printed,
            "{} is of another version",
            path.display()
        );
        assert!(jsonschema::meta::is_valid(
            &serde_json::from_str(&shipped).unwrap()
        ));
    }
    assert_eq!(
        rstscope(&["schema"]).stdout,
        rstscope(&["schema", "reset"]).stdout
    );
    assert_eq!(rstscope(&["schema", "eve"]).status.code(), Some(2));
}

/// Validates what `read` writes of a capture and answers how many records that were.
fn validate_read(validators: &BTreeMap<&str, jsonschema::Validator>, capture: &Path) -> usize {
    let output = rstscope(&[
        "read",
        capture.to_str().unwrap(),
        "-q",
        "--local",
        "198.51.100.10",
    ]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    for line in text.lines() {
        assert_valid(validators, line);
    }
    text.lines().count()
}

#[test]
fn what_read_writes_of_a_capture_validates() {
    let validators = validators();
    let packets = conversation();
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("schema");
    fs::create_dir_all(&folder).unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let capture = write("ng.pcapng", &blocks(false, &packets));
    assert_eq!(validate_read(&validators, &capture), 1);
    for (at, flavor) in Flavor::ALL.into_iter().enumerate() {
        let bytes = legacy(flavor, 1, &packets, ethernet);
        let capture = write(&format!("{at}.pcap"), &bytes);
        assert_eq!(validate_read(&validators, &capture), 1, "{flavor:?}");
    }
}

/// A few of the labeled captures: other vantage points, IPv6, thousands of flows.
const CAPTURES: usize = 40;
/// Larger ones would take longer than all other tests together.
const CAPTURE_BYTES: u64 = 2_000_000;

#[test]
fn what_read_writes_of_labeled_captures_validates() {
    let folder = root().join("../shared/captures");
    if !folder.is_dir() {
        println!("skipped: no labeled captures at {}", folder.display());
        return;
    }
    let mut captures = Vec::new();
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            let kind = path.extension().and_then(|kind| kind.to_str());
            if path.is_dir() {
                folders.push(path);
            } else if matches!(kind, Some("pcap" | "pcapng"))
                && entry.metadata().unwrap().len() < CAPTURE_BYTES
            {
                captures.push(path);
            }
        }
    }
    captures.sort();
    let step = captures.len().div_ceil(CAPTURES).max(1);
    let validators = validators();
    let some = captures.iter().step_by(step);
    let records: usize = some
        .map(|capture| validate_read(&validators, capture))
        .sum();
    println!("{records} records");
    assert!(
        records > 0,
        "no reset in any of {} captures",
        captures.len()
    );
}

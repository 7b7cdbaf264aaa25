//! The formats against what others say of them: OCSF's schema, Suricata's keys, ArcSight's dictionary,
//! an independent Community ID. And against hostile bytes in every text: no format lets them make a
//! second line, or a field that was not there.
//!
//! The lines are left in `target/tmp/formats`, for whoever wants to feed them to the real receivers.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

#[path = "formats/keys.rs"]
mod keys;
#[path = "support/records.rs"]
mod records;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use records::{Chance, Texts, coverage_record, emission, reset_record};
use rstscope::flow::Endpoint;
use rstscope::record::{Emission, Format, Record, community_id};
use serde_json::Value;

/// Records for each property: every combination of verdict, cause and what is known comes up.
const RECORDS: u64 = 300;
/// What the smallest syslog receivers take (RFC 5425 §4.3.1).
const SHORT_LINE_BYTES: usize = 2048;

fn data(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name);
    fs::read_to_string(path).unwrap()
}

/// Texts that forge: line ends of every kind, separators of every format, escapes, quotes, bidirectional
/// overrides, and more than fits.
fn hostile(chance: &mut Chance) -> String {
    const PIECES: [&str; 24] = [
        "\n",
        "\r\n",
        "\0",
        "\u{b}",
        "\u{c}",
        "\u{1b}[2J",
        "\u{7f}",
        "\u{85}",
        "\u{9b}",
        "\u{2028}",
        "\u{2029}",
        "\u{202e}",
        "\u{2066}",
        "|",
        "\\",
        "\\\\",
        "=",
        " dst=192.0.2.1",
        "^dst=192.0.2.1",
        "\t",
        "\",\"verdict\":\"remote\",\"x\":\"",
        "CEF:0|a|b|c|d|e|9|msg=x",
        "<34>1 2026-05-09T02:31:06Z h a - - - x",
        "\u{1f980}é",
    ];
    let mut text = String::from("x");
    for _ in 0..chance.below(12) {
        text.push_str(chance.one(&PIECES));
    }
    if chance.below(10) == 0 {
        text.push_str(&chance.one(&PIECES).repeat(300));
    }
    text
}

fn hostile_comm(chance: &mut Chance) -> [u8; 16] {
    let mut comm = chance.bytes::<16>();
    comm[0] = b'x';
    for byte in &mut comm[1..4] {
        *byte = chance.one(b"\n|=\\^\xff\"\t");
    }
    comm
}

/// The same record twice: with hostile texts, and with a harmless one in their places.
fn twins(seed: u64) -> [(Record, Emission); 2] {
    let mut noise = Chance::new(seed + 7_777);
    let mut other = Chance::new(seed + 8_888);
    let make = |texts: &mut Texts<'_>| {
        let emission = emission(texts);
        let mut chance = Chance::new(seed);
        let record = if seed.is_multiple_of(10) {
            coverage_record(&mut chance)
        } else {
            reset_record(&mut chance, texts)
        };
        (record, emission)
    };
    [
        make(&mut Texts {
            text: &mut || hostile(&mut noise),
            comm: &mut || hostile_comm(&mut other),
        }),
        make(&mut Texts {
            text: &mut || "harmless".to_owned(),
            comm: &mut || *b"harmless\0\0\0\0\0\0\0\0",
        }),
    ]
}

/// What ends a line or turns a display for somebody (see `is_unfit` in `src/record/json.rs`, which this
/// does not use).
fn is_unfit(c: char) -> bool {
    c.is_control()
        || ('\u{2028}'..='\u{202e}').contains(&c)
        || ('\u{2066}'..='\u{2069}').contains(&c)
}

/// Names of all fields, in order: what a receiver takes for the shape of the line.
fn shape(format: Format, line: &str) -> Vec<String> {
    match format {
        Format::Cef => keys::cef(line).into_iter().map(|(key, _)| key).collect(),
        Format::Leef => keys::leef(line).into_iter().map(|(key, _)| key).collect(),
        _ => {
            let mut paths = Vec::new();
            keys::json_paths(&serde_json::from_str(line).unwrap(), "", &mut paths);
            paths
        }
    }
}

#[test]
fn hostile_bytes_forge_neither_a_line_nor_a_field() {
    for seed in 1..=RECORDS {
        let [(bad, bad_emission), (good, good_emission)] = twins(seed);
        for format in Format::ALL {
            let line = format.render(&bad, &bad_emission).unwrap();
            let name = format.name();
            assert!(!line.chars().any(is_unfit), "{name}, seed {seed}: {line:?}");
            let expected = format.render(&good, &good_emission).unwrap();
            assert_eq!(
                shape(format, &line),
                shape(format, &expected),
                "{name}, seed {seed}"
            );
            if matches!(format, Format::Cef | Format::Leef) {
                assert!(
                    line.len() <= SHORT_LINE_BYTES,
                    "{name}: {} bytes",
                    line.len()
                );
            }
        }
    }
}

/// Of the records with harmless texts, so that a receiver's own limits do not matter.
fn lines(format: Format) -> Vec<String> {
    let render = |seed| {
        let [_, (record, emission)] = twins(seed);
        format.render(&record, &emission).unwrap()
    };
    let lines: Vec<String> = (1..=RECORDS).map(render).collect();
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("formats");
    fs::create_dir_all(&folder).unwrap();
    fs::write(
        folder.join(format!("{}.log", format.name())),
        lines.join("\n") + "\n",
    )
    .unwrap();
    lines
}

fn parsed(format: Format) -> Vec<Value> {
    lines(format)
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn errors(validator: &jsonschema::Validator, value: &Value) -> Vec<String> {
    validator
        .iter_errors(value)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}

#[test]
fn ocsf_events_validate_against_the_schema_of_their_class() {
    let validators: BTreeMap<u64, jsonschema::Validator> = [
        (0, "base_event"),
        (2004, "detection_finding"),
        (4001, "network_activity"),
    ]
    .into_iter()
    .map(|(class, name)| {
        let schema = data(&format!("ocsf-1.8.0-{name}.json"));
        let schema = serde_json::from_str(&schema).unwrap();
        (class, jsonschema::validator_for(&schema).unwrap())
    })
    .collect();
    let mut classes = BTreeSet::new();
    for event in parsed(Format::Ocsf) {
        let class = event["class_uid"].as_u64().unwrap();
        classes.insert(class);
        let found = errors(&validators[&class], &event);
        assert!(found.is_empty(), "{found:?}\n{event:#}");
        let activity = event["activity_id"].as_u64().unwrap();
        assert_eq!(event["type_uid"], class * 100 + activity);
        assert_eq!(event["metadata"]["version"], "1.8.0");
    }
    assert_eq!(classes.len(), validators.len(), "every class came up");
}

#[test]
fn the_ocsf_schema_notices_what_is_wrong() {
    let schema = serde_json::from_str(&data("ocsf-1.8.0-network_activity.json")).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let event = parsed(Format::Ocsf)
        .into_iter()
        .find(|event| event["class_uid"] == 4001)
        .unwrap();
    for (path, wrong) in [
        ("/severity_id", Value::from(7)),
        ("/time", Value::from("2026-05-09T02:31:06Z")),
        ("/connection_info/direction_id", Value::from("in")),
        ("/src_endpoint/ip", Value::from("nowhere")),
        ("/metadata/product", Value::Null),
    ] {
        let mut bad = event.clone();
        *bad.pointer_mut(path).unwrap() = wrong;
        assert!(!validator.is_valid(&bad), "{path}");
    }
    let mut bad = event;
    bad.as_object_mut().unwrap().remove("activity_id");
    assert!(!validator.is_valid(&bad));
}

#[test]
fn eve_has_suricatas_keys_and_one_of_ours() {
    let mut types = BTreeSet::new();
    for mut event in parsed(Format::Eve) {
        assert!(event.as_object_mut().unwrap().remove("rstscope").is_some());
        types.insert(event["event_type"].as_str().unwrap().to_owned());
        let mut paths = Vec::new();
        keys::json_leaves(&event, "", &mut paths);
        for (path, value) in paths {
            let expected = keys::EVE.iter().find(|(key, _)| *key == path);
            let Some((_, kind)) = expected else {
                panic!("Suricata has no {path}")
            };
            assert!(kind.fits(value), "{path}: {value}");
        }
    }
    assert_eq!(types, ["alert", "flow", "stats"].map(str::to_owned).into());
}

#[test]
fn zeek_lines_are_flat_and_have_the_columns_of_their_log() {
    let mut logs = BTreeSet::new();
    for line in parsed(Format::Zeek) {
        let log = line["_path"].as_str().unwrap().to_owned();
        let columns = keys::zeek_columns(&log);
        for (key, value) in line.as_object().unwrap() {
            assert!(!value.is_object() && !value.is_null(), "{key}");
            let known = key == "_path" || key.starts_with("rstscope.");
            assert!(
                known || columns.contains(&key.as_str()),
                "{log} has no {key}"
            );
        }
        logs.insert(log);
    }
    let expected = ["conn", "notice", "rstscope_coverage"].map(str::to_owned);
    assert_eq!(logs, expected.into());
}

#[test]
fn cef_has_only_the_dictionarys_keys_each_once_and_labels_in_pairs() {
    for line in lines(Format::Cef) {
        let fields: Vec<String> = keys::cef(&line).into_iter().map(|(key, _)| key).collect();
        let once: BTreeSet<&String> = fields.iter().collect();
        assert_eq!(once.len(), fields.len(), "{line}");
        for key in &fields {
            let base = key.trim_end_matches("Label");
            assert!(keys::CEF.contains(&base), "{key} is not in the dictionary");
            if base != key {
                assert!(
                    fields.iter().any(|other| other == base),
                    "{key} labels nothing"
                );
            }
        }
    }
}

#[test]
fn leef_has_each_key_once_and_a_time_that_its_format_reads() {
    for line in lines(Format::Leef) {
        let fields: BTreeMap<String, String> = keys::leef(&line).into_iter().collect();
        assert_eq!(fields.len(), keys::leef(&line).len(), "{line}");
        assert_eq!(fields["devTimeFormat"], "MMM dd yyyy HH:mm:ss.SSS zzz");
        let parts: Vec<&str> = fields["devTime"].split(' ').collect();
        assert_eq!(
            parts.iter().map(|part| part.len()).collect::<Vec<_>>(),
            [3, 2, 4, 12, 3]
        );
        assert_eq!(parts[4], "UTC");
    }
}

#[test]
fn texts_come_out_of_cef_as_they_went_in() {
    let mut expected = None;
    for seed in 1..=RECORDS {
        let [(record, emission), _] = twins(seed);
        let Record::Reset(reset) = &record else {
            continue;
        };
        let line = Format::Cef.render(&record, &emission).unwrap();
        let clean: String = reset
            .message
            .chars()
            .map(|c| if is_unfit(c) { '\u{fffd}' } else { c })
            .collect();
        let fields = keys::cef(&line);
        let (_, message) = fields.iter().find(|(key, _)| key == "msg").unwrap();
        assert!(
            clean.starts_with(message.as_str()),
            "{message:?} of {clean:?}"
        );
        if clean.len() < 200 {
            assert_eq!(message, &clean);
            expected = Some(clean);
        }
    }
    assert!(expected.is_some(), "short ones came up");
}

#[test]
fn community_ids_equal_those_of_an_independent_implementation() {
    let mut rows = 0;
    for line in data("community_ids.tsv")
        .lines()
        .filter(|line| !line.starts_with('#'))
    {
        let [a, a_port, b, b_port, id]: [&str; 5] =
            line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        let end = |address: &str, port: &str| Endpoint {
            address: address.parse().unwrap(),
            port: port.parse().unwrap(),
        };
        let (a, b) = (end(a, a_port), end(b, b_port));
        assert_eq!(community_id(a, b).as_deref(), Some(id), "{line}");
        assert_eq!(
            community_id(b, a).as_deref(),
            Some(id),
            "{line}, the other way"
        );
        rows += 1;
    }
    assert_eq!(rows, 1000);
}

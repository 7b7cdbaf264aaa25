//! What `packaging/siem` ships, as far as it can be tried without the product: the Elastic template
//! against the field table, the ClickHouse tables and the dashboard's queries in chDB, the rest for its
//! form and for fields that do not exist.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    dead_code,
    reason = "a test stops where it cannot go on, and says aloud what it skips; not every test \
              program uses all of what they share"
)]

#[path = "support/records.rs"]
mod records;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use records::{Chance, Texts, coverage_record, emission, reset_record};
use rstscope::record::schema::{Dataset, Field};
use rstscope::record::{Emission, Record, to_json};
use rstscope::sink::{Patience, Place, Style, Target, Writer, open_all};
use serde_json::Value;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn shipped(name: &str) -> String {
    fs::read_to_string(root().join("packaging/siem").join(name)).unwrap()
}

fn shipped_json(name: &str) -> Value {
    serde_json::from_str(&shipped(name)).unwrap()
}

fn fields() -> impl Iterator<Item = &'static Field> {
    Dataset::ALL
        .into_iter()
        .flat_map(|dataset| dataset.fields())
}

/// Types of a mapping by path.
fn mapped(properties: &Value, path: &str, types: &mut BTreeMap<String, String>) {
    for (key, value) in properties.as_object().unwrap() {
        let path = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        match value.get("properties") {
            Some(below) => mapped(below, &path, types),
            None => {
                types.insert(path, value["type"].as_str().unwrap().to_owned());
            }
        }
    }
}

#[test]
fn the_elastic_template_maps_every_field_with_its_type_and_no_other() {
    let component = shipped_json("elastic/component-template.json");
    let mut types = BTreeMap::new();
    mapped(
        &component["template"]["mappings"]["properties"],
        "",
        &mut types,
    );
    let expected: BTreeMap<String, String> = fields()
        .map(|field| {
            (
                field.path.replace("[]", ""),
                field.kind.elastic_type().to_owned(),
            )
        })
        .collect();
    assert_eq!(types, expected);
    let limit = &component["template"]["settings"]["index"]["mapping"]["total_fields"]["limit"];
    assert!(limit.as_u64().unwrap() > 2 * types.len() as u64);
    let index = shipped_json("elastic/index-template.json");
    assert!(index["data_stream"].is_object());
    assert_eq!(
        index["composed_of"],
        serde_json::json!(["rstscope@mappings"])
    );
    for dataset in Dataset::ALL {
        let pattern = format!("logs-rstscope.{}-*", dataset.name());
        assert!(
            index["index_patterns"]
                .as_array()
                .unwrap()
                .contains(&pattern.into())
        );
    }
}

/// What the ClickHouse output puts on the wire of these records: the bodies of its requests.
fn sent_by_the_output(records: Vec<(Record, Emission)>) -> Vec<u8> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        let mut all = Vec::new();
        // One connection is kept for all requests.
        let mut reader = BufReader::new(listener.accept().unwrap().0);
        loop {
            let (mut length, mut line) = (0, String::new());
            while reader.read_line(&mut line).unwrap() > 2 {
                if let Some(count) = line.to_lowercase().strip_prefix("content-length: ") {
                    length = count.trim().parse().unwrap();
                }
                line.clear();
            }
            if length == 0 {
                return all;
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            all.extend(body);
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            reader.get_mut().write_all(answer).unwrap();
        }
    });
    let place = Place::in_memory(Patience::Wait(Duration::from_secs(60)));
    let url = format!("clickhouse+http://127.0.0.1:{port}?table=rstscope.rows");
    let outlets = open_all(&[Target::parse(&url).unwrap()], Style::default(), &place).unwrap();
    let writer = Writer::spawn(outlets, 64, &place, |line| panic!("{line}")).unwrap();
    for (record, emission) in records {
        writer.output().send(record, &emission);
    }
    assert_eq!(writer.finish().lost(), 0);
    server.join().unwrap()
}

/// A Python that has chDB: of the environment in `target/venv`, or the system's.
fn python() -> PathBuf {
    let own = root().join("target/venv/bin/python");
    if own.is_file() {
        own
    } else {
        PathBuf::from("python3")
    }
}

#[test]
fn clickhouse_takes_records_as_they_are_and_answers_the_dashboard() {
    let (mut lines, mut sent) = (String::new(), Vec::new());
    for seed in 1..=300 {
        let texts = &mut Texts {
            text: &mut || format!("'a' \"b\" \\ {seed}"),
            comm: &mut || *b"nginx: w'\\\"\0\0\0\0\0",
        };
        let (emission, mut chance) = (emission(texts), Chance::new(seed));
        for record in [
            reset_record(&mut chance, texts),
            coverage_record(&mut chance),
        ] {
            lines.push_str(&format!("{}\n", to_json(&record, &emission)));
            sent.push((record, emission.clone()));
        }
    }
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let (path, rows) = (folder.join("siem-native.log"), folder.join("siem-rows.log"));
    fs::write(&path, lines).unwrap();
    fs::write(&rows, sent_by_the_output(sent)).unwrap();
    let script = root().join("tests/siem/clickhouse.py");
    let output = Command::new(python())
        .arg(script)
        .arg(path)
        .arg(rows)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    if output.status.code() == Some(77) {
        println!(
            "skipped: {}: scripts/setup puts it into target/venv",
            said.trim()
        );
        return;
    }
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{why}");
    assert!(said.starts_with("600 records"), "{said}");
    println!("{}", said.trim());
}

/// The type that begins here: a word and what its parentheses enclose, without breaks.
fn column_type(text: &str) -> String {
    let mut depth = 0;
    let is_over = |c: char| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        depth == 0 && c == ')'
    };
    let end = text.find(is_over).unwrap();
    let words: Vec<&str> = text[..=end].split_whitespace().collect();
    words.join(" ").replace("( ", "(")
}

#[test]
fn clickhouse_reads_of_the_outputs_rows_all_that_it_takes_of_records() {
    let schema = shipped("clickhouse/schema.sql");
    let (table, rest) = schema.split_once("ENGINE = Null").unwrap();
    let (_, view) = rest.split_once("rstscope.records_from_rows").unwrap();
    let columns = table.lines().filter_map(|line| {
        let column = line.strip_prefix("    `")?;
        column.split_once("` Tuple(").map(|(name, _)| name)
    });
    let columns: Vec<&str> = columns.collect();
    assert!(
        columns.len() >= 9 && columns.contains(&"rstscope"),
        "{columns:?}"
    );
    for name in columns {
        let (_, taken) = table.split_once(&format!("    `{name}` ")).unwrap();
        let (_, read) = view
            .split_once(&format!("JSONExtract(record, '{name}',"))
            .unwrap();
        let (_, read) = read.split_once('\'').unwrap();
        assert_eq!(column_type(read), column_type(taken), "{name}");
    }
}

#[test]
fn the_dashboard_has_a_query_in_every_panel_and_no_panel_twice() {
    let dashboard = shipped_json("grafana/dashboard.json");
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels
        .iter()
        .map(|panel| panel["id"].as_u64().unwrap())
        .collect();
    assert_eq!(ids.len(), panels.len());
    for panel in panels {
        let query = panel["targets"][0]["rawSql"].as_str().unwrap();
        assert!(query.contains("$__timeFilter("), "{query}");
        let grid = &panel["gridPos"];
        assert!(grid["x"].as_u64().unwrap() + grid["w"].as_u64().unwrap() <= 24);
    }
}

/// Words of a text that begin as the names of our metrics do, without what a histogram adds.
fn metrics(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("rstscope_"))
        .map(|word| word.trim_end_matches("_bucket").to_owned())
        .collect()
}

/// Which labels a query names: between braces before a sign of comparison, and behind `by`.
fn labels(query: &str) -> BTreeSet<String> {
    let groups = query.split("by (").skip(1);
    let groups = groups.filter_map(|rest| rest.split(')').next());
    groups
        .flat_map(|group| group.split(','))
        .map(|label| label.trim().to_owned())
        .collect()
}

/// That the metrics of the documentation are those that are served, `tests/metrics.rs` tells.
#[test]
fn the_sensors_dashboard_names_only_metrics_and_labels_that_exist() {
    let documented = fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let rows: Vec<&str> = documented
        .lines()
        .filter(|line| line.starts_with("| `rstscope_"))
        .collect();
    let dashboard = shipped_json("grafana/sensors.json");
    let panels = dashboard["panels"].as_array().unwrap();
    let mut named = BTreeSet::new();
    for target in panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().unwrap())
    {
        let query = target["expr"].as_str().unwrap();
        for metric in metrics(query) {
            let quoted = format!("`{metric}`");
            let row = rows.iter().find(|row| row.contains(&quoted));
            let row = row.unwrap_or_else(|| panic!("{metric} is in no row of docs/metrics.md"));
            for label in labels(query) {
                // Prometheus adds the first two: who was asked, and a histogram's buckets.
                let known = ["instance", "le"].contains(&label.as_str());
                assert!(
                    known || row.contains(&format!("`{label}`")),
                    "{query}: {label}"
                );
            }
            named.insert(metric);
        }
        assert!(query.contains("instance=~\"$instance\""), "{query}");
    }
    assert!(named.len() >= 12, "{named:?}");
}

/// Stanzas of a Splunk configuration file, each with its settings.
fn stanzas(text: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut found: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut current = String::new();
    for line in text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            current = name.to_owned();
            assert!(
                found.insert(current.clone(), BTreeMap::new()).is_none(),
                "{line} twice"
            );
            continue;
        }
        let (key, value) = line.split_once(" = ").unwrap();
        let stanza = found.get_mut(&current).unwrap();
        assert!(
            stanza.insert(key.to_owned(), value.to_owned()).is_none(),
            "{key} twice"
        );
    }
    found
}

#[test]
fn splunks_settings_name_only_fields_that_exist() {
    let paths: BTreeSet<&str> = fields().map(|field| field.path).collect();
    let props = stanzas(&shipped("splunk/props.conf"));
    let mut named = 0;
    for (key, value) in props.values().flatten() {
        let words: Vec<&str> = if key.starts_with("FIELDALIAS-") {
            let words: Vec<&str> = value.split(' ').collect();
            words.chunks(3).map(|alias| alias[0]).collect()
        } else if key.starts_with("EVAL-") {
            // In an expression single quotes surround the name of a field.
            value.split('\'').skip(1).step_by(2).collect()
        } else {
            continue;
        };
        for word in words {
            assert!(paths.contains(word), "{key} names {word}");
            named += 1;
        }
    }
    assert!(named > 20, "{named}");
    let transforms = stanzas(&shipped("splunk/transforms.conf"));
    let reset = &props["rstscope:reset:json"];
    // It may be absent, and what NOT makes of a comparison with nothing is not documented.
    assert!(reset["EVAL-severity"].contains("coalesce('rstscope.kernel.accepted'"));
    let transform = &transforms[&reset["TRANSFORMS-rstscope"]];
    let target = transform["FORMAT"].strip_prefix("sourcetype::").unwrap();
    assert!(props.contains_key(target));
    let tags = stanzas(&shipped("splunk/tags.conf"));
    for event in stanzas(&shipped("splunk/eventtypes.conf")).keys() {
        assert!(tags.contains_key(&format!("eventtype={event}")));
    }
}

#[test]
fn splunk_finds_time_and_kind_where_they_are_written() {
    let props = stanzas(&shipped("splunk/props.conf"));
    let prefix = props["rstscope:reset:json"]["TIME_PREFIX"].replace("^\\{", "{");
    let regex =
        &stanzas(&shipped("splunk/transforms.conf"))["rstscope_coverage_sourcetype"]["REGEX"];
    let mark = regex.replace("\\.", ".");
    let texts = &mut Texts {
        text: &mut || mark.clone(),
        comm: &mut || *b"\"dataset\":\"rst\0\0",
    };
    let (emission, mut chance) = (emission(texts), Chance::new(1));
    let reset = to_json(&reset_record(&mut chance, texts), &emission);
    let coverage = to_json(&coverage_record(&mut chance), &emission);
    assert!(reset.starts_with(&prefix) && coverage.starts_with(&prefix));
    assert!(coverage.contains(&mark));
    assert!(
        !reset.contains(&mark),
        "a name in it does not make it another kind: {reset}"
    );
}

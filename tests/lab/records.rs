//! The sensor's records, held against the promises of the lab's scenarios. Refuses a line that is no
//! JSON; knows nothing of how either came to be.

use std::fs;
use std::path::Path;

use serde_json::Value;

/// Every line of a file of records, parsed.
pub fn records(path: &Path) -> Vec<Value> {
    let content = fs::read_to_string(path).unwrap();
    content
        .lines()
        .map(|line| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in record {line}"))
        })
        .collect()
}

/// Those of them that tell of a reset.
pub fn resets(all: &[Value]) -> Vec<&Value> {
    let is_reset = |record: &&Value| record["event"]["dataset"] == "rstscope.reset";
    all.iter().filter(is_reset).collect()
}

/// What a play of scenarios said: a promise a line.
pub fn promises(said: &[u8]) -> Vec<Value> {
    let lines = said.split(|byte| *byte == b'\n');
    lines
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

/// An error message is one sentence that names the object.
pub fn assert_one_sentence(said: &str, object: &str) {
    let naming: Vec<_> = said.lines().filter(|line| line.contains(object)).collect();
    assert_eq!(naming.len(), 1, "not one sentence about {object}:\n{said}");
    assert!(naming[0].starts_with("rstscope: "), "{}", naming[0]);
    assert!(!said.contains("panicked"), "{said}");
}

/// The four-tuple of a promise, or of a record.
pub fn flow(promise: &Value) -> [String; 4] {
    ["source", "source_port", "destination", "destination_port"]
        .map(|name| promise[name].to_string())
}

pub fn flow_of(record: &Value) -> [String; 4] {
    let part = |end: &str, name: &str| record[end][name].to_string();
    [
        part("source", "ip"),
        part("source", "port"),
        part("destination", "ip"),
        part("destination", "port"),
    ]
}

/// The same flow, the other way round.
fn reversed([a, b, c, d]: [String; 4]) -> [String; 4] {
    [c, d, a, b]
}

/// The proxy's other leg, where a record names one.
fn other_leg(record: &Value) -> Option<Vec<String>> {
    let related = record["rstscope"]["related"].as_array()?;
    let of_a_proxy = |other: &&Value| other["join"] == "process" || other["join"] == "closing";
    related
        .iter()
        .find(of_a_proxy)
        .map(|leg| flow_of(leg).to_vec())
}

/// What is wrong with the records about the promise at `index`, or nothing. Where several are about
/// one connection, each has a record, in the same order.
fn complaint(promises: &[Value], index: usize, resets: &[&Value]) -> Option<String> {
    let promise = &promises[index];
    let wanted = flow(promise);
    let backwards = reversed(wanted.clone());
    let mut about: Vec<_> = resets
        .iter()
        .filter(|record| flow_of(record) == wanted || flow_of(record) == backwards)
        .collect();
    about.sort_by_key(|record| record["@timestamp"].to_string());
    let alike = |other: &&Value| flow(other) == wanted;
    if promises.iter().filter(alike).count() == about.len() {
        let rank = promises[..index].iter().filter(alike).count();
        about = about.into_iter().skip(rank).take(1).collect();
    }
    let scenario = &promise["scenario"];
    let [record] = about.as_slice() else {
        return Some(format!(
            "{scenario}: {} records instead of one: {about:#?}",
            about.len()
        ));
    };
    let scope = &record["rstscope"];
    let causes = promise["expect_cause"].as_array().unwrap();
    let right = flow_of(record) == wanted
        && scope["verdict"] == promise["expect_verdict"]
        && (causes.is_empty() || causes.contains(&scope["cause"]));
    if !right {
        let verdict = &promise["expect_verdict"];
        return Some(format!(
            "{scenario}: expected {verdict}/{causes:?}: {record}"
        ));
    }
    let named = other_leg(record)?;
    let leg = promised_leg(promise)?;
    (named != leg).then(|| format!("{scenario}: the other leg is {leg:?}, not {named:?}: {record}"))
}

/// Every promise is kept by the records of resets.
pub fn assert_kept(promises: &[Value], resets: &[&Value]) {
    let wrong: Vec<_> = (0..promises.len())
        .filter_map(|index| complaint(promises, index, resets))
        .collect();
    assert!(
        wrong.is_empty(),
        "{} of {} are wrong:\n{}",
        wrong.len(),
        promises.len(),
        wrong.join("\n")
    );
}

/// The other leg that a promise names.
fn promised_leg(promise: &Value) -> Option<Vec<String>> {
    let leg = promise["other_leg"].as_array()?;
    Some(leg.iter().map(ToString::to_string).collect())
}

/// How many promised legs no record of the reset names, and how many were promised. A proxy whose
/// thread was interrupted between its two connections is not sure enough to be named (docs/record.md).
pub fn unnamed_legs(promises: &[Value], resets: &[&Value]) -> (usize, usize) {
    let with_leg = promises.iter().filter(|p| promised_leg(p).is_some());
    let unnamed = with_leg.clone().filter(|promise| {
        let mut about = resets.iter().filter(|r| flow_of(r) == flow(promise));
        !about.any(|record| other_leg(record).is_some())
    });
    (unnamed.count(), with_leg.count())
}

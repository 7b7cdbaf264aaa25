//! JSON Schema (draft 2020-12) of the records, from one table of their fields. A test holds the table
//! against what the writer writes, both ways, so that neither can have a field that the other has not;
//! `docs/schema` and `packaging/siem` are held against it in turn.
//!
//! The schema is closed: it tells what *this* version writes. A reader must still take unknown fields.

mod fields;

use serde_json::{Map, Value, json};

use super::SCHEMA_VERSION;

/// What kind of record: `event.dataset` behind `rstscope.`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dataset {
    /// A reset flow.
    Reset,
    /// What was watched.
    Coverage,
}

impl Dataset {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Reset, Self::Coverage];

    /// The word in `event.dataset`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Coverage => "coverage",
        }
    }

    /// Its fields, in the order of writing.
    #[must_use]
    pub const fn fields(self) -> &'static [Field] {
        match self {
            Self::Reset => fields::RESET,
            Self::Coverage => fields::COVERAGE,
        }
    }
}

/// When a field is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// In every record, and so the objects around it.
    Always,
    /// Whenever the object, or the list's item, right around it is there.
    Within,
    /// When it is known.
    Known,
}

/// The values of a field.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// RFC 3339 in UTC with nine digits.
    Time,
    /// Any text without control characters.
    Text,
    /// A sentence for a person, the same otherwise.
    Sentence,
    /// One of these.
    Word(fn() -> Vec<&'static str>),
    /// A list of some of these.
    Words(&'static [&'static str]),
    /// An address.
    Ip,
    /// MAC, upper case with dashes.
    Mac,
    /// A whole number between these.
    Number(i64, u64),
    /// A fraction between these.
    Fraction(f64, f64),
    /// Yes or no.
    Flag,
}

impl Kind {
    /// The field's type in Elasticsearch, as ECS and docs/record.md name it.
    #[must_use]
    pub const fn elastic_type(self) -> &'static str {
        match self {
            Self::Time => "date",
            Self::Text | Self::Word(_) | Self::Words(_) | Self::Mac => "keyword",
            Self::Sentence => "match_only_text",
            Self::Ip => "ip",
            // A `long` ends at 2^63 − 1; no byte count of a connection reaches that.
            Self::Number(..) => "long",
            Self::Fraction(..) => "float",
            Self::Flag => "boolean",
        }
    }

    /// Its values are lists.
    #[must_use]
    pub const fn is_list(self) -> bool {
        matches!(self, Self::Words(_))
    }

    fn schema(self) -> Value {
        match self {
            Self::Time => json!({"type": "string", "format": "date-time", "pattern": TIME_PATTERN}),
            Self::Text | Self::Sentence => json!({"type": "string", "pattern": TEXT_PATTERN}),
            Self::Word(words) => json!({"enum": words()}),
            Self::Words(words) => json!({
                "type": "array", "items": {"enum": words}, "minItems": 1, "uniqueItems": true,
            }),
            Self::Ip => {
                json!({"type": "string", "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]})
            }
            Self::Mac => json!({"type": "string", "pattern": "^([0-9A-F]{2}-){5}[0-9A-F]{2}$"}),
            Self::Number(low, high) => {
                json!({"type": "integer", "minimum": low, "maximum": high})
            }
            Self::Fraction(low, high) if low.is_finite() && high.is_finite() => {
                json!({"type": "number", "minimum": low, "maximum": high})
            }
            Self::Fraction(low, _) if low.is_finite() => json!({"type": "number", "minimum": low}),
            Self::Fraction(..) => json!({"type": "number"}),
            Self::Flag => json!({"type": "boolean"}),
        }
    }
}

/// Nothing that ends a line or moves a cursor, and not empty.
const TEXT_PATTERN: &str = r"^[^\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]+$";
const TIME_PATTERN: &str = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z$";

/// A field of a record.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its name with dots; `[]` behind the name of a list of objects.
    pub path: &'static str,
    /// Its values.
    pub kind: Kind,
    /// When it is there.
    pub presence: Presence,
}

/// The JSON Schema of such records, indented, with the last line's end.
#[must_use]
pub fn schema(dataset: Dataset) -> String {
    let mut root = open_object();
    for field in dataset.fields() {
        insert(&mut root, field.path, field);
    }
    let mut whole = Map::new();
    let name = dataset.name();
    whole.insert(
        "$schema".to_owned(),
        json!("https://json-schema.org/draft/2020-12/schema"),
    );
    whole.insert(
        "$id".to_owned(),
        json!(format!("urn:rstscope:schema:{SCHEMA_VERSION}:{name}")),
    );
    whole.insert("title".to_owned(), json!(format!("rstscope {name} record")));
    whole.append(&mut root);
    // A tree of our own words: it always prints.
    let mut text = serde_json::to_string_pretty(&whole).unwrap_or_default();
    text.push('\n');
    text
}

fn open_object() -> Map<String, Value> {
    let mut map = Map::new();
    map.insert("type".to_owned(), json!("object"));
    map.insert("additionalProperties".to_owned(), json!(false));
    map.insert("required".to_owned(), json!([]));
    map.insert("properties".to_owned(), json!({}));
    map
}

/// Puts a field at its place below `node`, with the objects and lists around it.
fn insert(node: &mut Map<String, Value>, path: &str, field: &Field) {
    let (head, rest) = match path.split_once('.') {
        Some((head, rest)) => (head, Some(rest)),
        None => (path, None),
    };
    let name = head.trim_end_matches("[]");
    let innermost = rest.is_none();
    let required = match field.presence {
        Presence::Always => true,
        // Around a port of a list's item is an object that is always in the item.
        Presence::Within => innermost || path_is_in_item(field.path, path),
        Presence::Known => false,
    };
    if required {
        require(node, name);
    }
    let Some(properties) = node.get_mut("properties").and_then(Value::as_object_mut) else {
        return;
    };
    let Some(rest) = rest else {
        properties.insert(name.to_owned(), field.kind.schema());
        return;
    };
    let is_list = head.ends_with("[]");
    let child = properties.entry(name).or_insert_with(|| {
        if is_list {
            json!({"type": "array", "minItems": 1, "items": open_object()})
        } else {
            Value::Object(open_object())
        }
    });
    let child = if is_list {
        child.get_mut("items")
    } else {
        Some(child)
    };
    if let Some(child) = child.and_then(Value::as_object_mut) {
        insert(child, rest, field);
    }
}

/// `rest` of `path` begins inside an item of a list.
fn path_is_in_item(path: &str, rest: &str) -> bool {
    path.strip_suffix(rest)
        .is_some_and(|before| before.contains("[]"))
}

fn require(node: &mut Map<String, Value>, name: &str) {
    let required = node.get_mut("required").and_then(Value::as_array_mut);
    if let Some(required) = required
        && !required.iter().any(|other| other == name)
    {
        required.push(json!(name));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::{Dataset, schema};
    use crate::record::sample::{bare, coverage, emission, injected};
    use crate::record::{Record, ResetRecord, to_json};
    use crate::vantage::InterfaceId;
    use crate::wire::Mac;

    /// The sample, and what it leaves out.
    fn full() -> ResetRecord {
        ResetRecord {
            destination_mac: Some(Mac([2; 6])),
            egress_interface: Some(InterfaceId(0)),
            idle_ns: Some(1),
            ..injected()
        }
    }

    fn written(record: Record) -> Value {
        serde_json::from_str(&to_json(&record, &emission())).unwrap()
    }

    fn collect(value: &Value, path: &str, paths: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    let path = if path.is_empty() {
                        key.clone()
                    } else {
                        format!("{path}.{key}")
                    };
                    collect(value, &path, paths);
                }
            }
            Value::Array(items) if items.iter().all(Value::is_object) => {
                for item in items {
                    collect(item, &format!("{path}[]"), paths);
                }
            }
            _ => {
                paths.insert(path.to_owned());
            }
        }
    }

    /// A field that this names is missing here, or in docs/record.md, or in the writer.
    #[test]
    fn the_table_and_the_writer_have_the_same_fields() {
        let records = [
            (Dataset::Reset, written(Record::Reset(Box::new(full())))),
            (
                Dataset::Coverage,
                written(Record::Coverage(Box::new(coverage()))),
            ),
        ];
        for (dataset, record) in records {
            let mut paths = BTreeSet::new();
            collect(&record, "", &mut paths);
            let table: BTreeSet<String> = dataset
                .fields()
                .iter()
                .map(|field| field.path.to_owned())
                .collect();
            assert_eq!(table.len(), dataset.fields().len(), "no field twice");
            let missing: Vec<_> = paths.symmetric_difference(&table).collect();
            assert!(missing.is_empty(), "{}: {missing:?}", dataset.name());
        }
    }

    fn validator(dataset: Dataset) -> jsonschema::Validator {
        let schema: Value = serde_json::from_str(&schema(dataset)).unwrap();
        jsonschema::options()
            .should_validate_formats(true)
            .build(&schema)
            .unwrap()
    }

    #[test]
    fn full_and_bare_records_validate() {
        let validator = validator(Dataset::Reset);
        for record in [full(), injected(), bare()] {
            let record = written(Record::Reset(Box::new(record)));
            let errors: Vec<String> = validator
                .iter_errors(&record)
                .map(|error| format!("{} {error}", error.instance_path()))
                .collect();
            assert!(errors.is_empty(), "{errors:?}");
        }
        let record = written(Record::Coverage(Box::new(coverage())));
        assert!(self::validator(Dataset::Coverage).is_valid(&record));
        assert!(!validator.is_valid(&record), "one kind is not the other");
    }

    #[test]
    fn what_breaks_the_contract_does_not_validate() {
        let validator = validator(Dataset::Reset);
        let good = written(Record::Reset(Box::new(full())));
        for (path, wrong) in [
            ("/@timestamp", json!("2026-05-09T02:31:06Z")),
            ("/message", json!("two\nlines")),
            ("/message", json!("")),
            ("/source/ip", json!("not an address")),
            ("/source/port", json!(65536)),
            ("/source/mac", json!("02:00:00:00:00:ab")),
            ("/network/vlan/id", json!(12)),
            ("/event/category", json!([])),
            ("/rstscope/verdict", json!("guilty")),
            ("/rstscope/confidence", json!(1.5)),
            ("/rstscope/resets", json!([])),
            ("/rstscope/resets/0", json!({"flags": "R"})),
            ("/rstscope/bytes_in", json!(null)),
            ("/rstscope/related/0/source", json!({"ip": "::1"})),
        ] {
            let mut bad = good.clone();
            *bad.pointer_mut(path).unwrap() = wrong;
            assert!(!validator.is_valid(&bad), "{path}");
        }
        let mut bad = good.clone();
        bad["rstscope"]["surprise"] = json!(1);
        assert!(!validator.is_valid(&bad));
        let mut bad = good;
        bad["rstscope"].as_object_mut().unwrap().remove("verdict");
        assert!(!validator.is_valid(&bad));
    }
}

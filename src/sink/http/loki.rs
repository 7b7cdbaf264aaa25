//! Loki's push API. Labels have few values (job, host, verdict); addresses never become labels.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::sink::entry::Entry;

/// Where streams are pushed to.
pub(super) const PUSH: &str = "/loki/api/v1/push";

/// One stream a verdict; the record is the line, its ids are structured metadata.
pub(super) fn body(batch: &[Arc<Entry>], host: &str) -> Vec<u8> {
    let mut streams: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for entry in batch {
        let line = String::from_utf8_lossy(&entry.body);
        let mut ids = json!({"event_id": entry.id});
        if let Some(id) = entry.community_id() {
            ids["community_id"] = id.into();
        }
        let value = json!([entry.time_ns.to_string(), line, ids]);
        streams.entry(&entry.label).or_default().push(value);
    }
    let streams: Vec<Value> = streams
        .into_iter()
        .map(|(verdict, values)| {
            let labels = json!({"job": "rstscope", "host": host, "verdict": verdict});
            json!({"stream": labels, "values": values})
        })
        .collect();
    json!({"streams": streams}).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::Value;

    use super::body;
    use crate::sink::entry::Entry;

    #[test]
    fn records_are_grouped_by_verdict_and_keep_their_order() {
        let entry = |id: &str, label: &str| {
            Arc::new(Entry {
                id: id.to_owned(),
                key: "k".to_owned(),
                time_ns: 5,
                severity: 6,
                label: label.to_owned(),
                body: b"{}".to_vec(),
            })
        };
        let batch = [
            entry("1", "remote"),
            entry("2", "injected"),
            entry("3", "remote"),
            entry("4", "coverage"),
        ];
        let push: Value = serde_json::from_slice(&body(&batch, "lb1")).unwrap();
        let streams = push["streams"].as_array().unwrap();
        assert_eq!(streams.len(), 3);
        assert_eq!(streams[0]["stream"]["verdict"], "coverage");
        let ids = &streams[0]["values"][0][2];
        assert_eq!(ids, &serde_json::json!({"event_id": "4"}), "it has no flow");
        assert_eq!(streams[2]["stream"]["verdict"], "remote");
        assert_eq!(streams[2]["values"][0][2]["community_id"], "k");
        let ids: Vec<&Value> = streams[2]["values"]
            .as_array()
            .unwrap()
            .iter()
            .map(|value| &value[2]["event_id"])
            .collect();
        assert_eq!(ids, ["1", "3"]);
        assert_eq!(streams[0]["values"][0][0], "5");
    }
}

//! `_bulk` of Elasticsearch and OpenSearch: `create` with `_id` = `event.id`, so that a record that is
//! sent twice is there once; the answer tells of each record.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::sink::entry::Entry;
use crate::sink::transport::{Delivered, Failure, Fate};

/// The data stream of records where the URL names none (`type-dataset-namespace`).
const STREAM: &str = "/logs-rstscope.reset-default";

pub(super) fn path(path: &str) -> String {
    let stream = if path.is_empty() { STREAM } else { path };
    format!("{stream}/_bulk")
}

pub(super) fn body(batch: &[Arc<Entry>]) -> Vec<u8> {
    let mut body = Vec::new();
    for entry in batch {
        // Data streams take no other action than `create`.
        let action = json!({"create": {"_id": entry.id}}).to_string();
        for line in [action.as_bytes(), &entry.body] {
            body.extend_from_slice(line);
            body.push(b'\n');
        }
    }
    body
}

/// What became of each record.
pub(super) fn delivered(answer: &str, count: usize) -> Delivered {
    let parsed: Value = serde_json::from_str(answer).unwrap_or_default();
    let Some(items) = parsed.get("items").and_then(Value::as_array) else {
        let failure = Failure::new("the receiver does not answer like _bulk: see the URL's path");
        return Delivered::failed(count, failure);
    };
    if items.len() != count {
        let failure = Failure::new(format!("answered of {} records, not {count}", items.len()));
        return Delivered::failed(count, failure);
    }
    let mut delivered = Delivered::all(0, Fate::Taken);
    let mut later = None;
    for item in items {
        let result = item.get("create").unwrap_or(item);
        let status = result.get("status").and_then(Value::as_u64).unwrap_or(500);
        delivered.fates.push(match status {
            // 409: it is there already.
            200..=299 | 409 => Fate::Taken,
            400..=499 if status != 429 => Fate::Refused(reason(result, status)),
            _ => {
                later.get_or_insert_with(|| reason(result, status));
                Fate::Again
            }
        });
    }
    delivered.failure = later.map(|reason| {
        let again = delivered
            .fates
            .iter()
            .filter(|fate| **fate == Fate::Again)
            .count();
        Failure::new(format!("sends back {again} of {count} records: {reason}"))
    });
    delivered
}

fn reason(result: &Value, status: u64) -> String {
    let word = |key: &str| {
        let error = result.get("error")?;
        error.get(key)?.as_str().map(str::to_owned)
    };
    let kind = word("type").unwrap_or_default();
    let why = word("reason").unwrap_or_default();
    format!("{status} {kind} {why}").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{body, delivered, path};
    use crate::sink::entry::Entry;
    use crate::sink::transport::Fate;

    #[test]
    fn each_record_has_its_own_fate_and_one_that_is_there_is_taken() {
        let answer = r#"{"errors":true,"items":[
            {"create":{"status":201}},
            {"create":{"status":409,"error":{"type":"version_conflict_engine_exception"}}},
            {"create":{"status":429,"error":{"type":"es_rejected_execution_exception","reason":"full"}}},
            {"create":{"status":400,"error":{"type":"mapper_parsing_exception","reason":"odd"}}},
            {"create":{"status":503}}]}"#;
        let delivered = delivered(answer, 5);
        let refused = Fate::Refused("400 mapper_parsing_exception odd".to_owned());
        let fates = [Fate::Taken, Fate::Taken, Fate::Again, refused, Fate::Again];
        assert_eq!(delivered.fates, fates);
        let failure = delivered.failure.unwrap().what;
        assert!(
            failure.contains("2 of 5") && failure.contains("full"),
            "{failure}"
        );
    }

    #[test]
    fn an_answer_that_is_none_of_bulk_delivers_nothing() {
        for odd in [
            "",
            "{}",
            "<html>",
            r#"{"items":[]}"#,
            r#"{"items":[{"create":{"status":201}}]}"#,
        ] {
            let delivered = delivered(odd, 2);
            assert_eq!(delivered.fates, [Fate::Again, Fate::Again], "{odd}");
            assert!(delivered.failure.is_some());
        }
    }

    #[test]
    fn a_batch_is_pairs_of_lines() {
        let entry = Arc::new(Entry {
            id: "a-1".to_owned(),
            body: b"{\"x\":1}".to_vec(),
            ..Entry::BLANK
        });
        let text = String::from_utf8(body(&[entry])).unwrap();
        assert_eq!(text, "{\"create\":{\"_id\":\"a-1\"}}\n{\"x\":1}\n");
        assert_eq!(path(""), "/logs-rstscope.reset-default/_bulk");
        assert_eq!(path("/mine"), "/mine/_bulk");
    }
}
